"""Where everything lies: the store's root, which survives, and the run directory, which may vanish at any logout.

    ROOT   $XDG_DATA_HOME/rootless (~/.local/share/rootless)      RUN   $XDG_RUNTIME_DIR/rootless
      version                                                       namespace, namespace.lock
      blobs/sha256/HEX        as downloaded                         locks/NAME
      blobs/partial/HEX       downloads that are not complete       containers/ID/{monitor,attach,init,settings.json}
      layers/HEX/{diff,layer.json}      by chain_id
      images/HEX.json  tags/NAME.json   records
      containers/ID/…  names/NAME -> ID
      volumes/NAME/{data,volume.json}  networks/NAME.json
      trash/                  renamed here, then removed: what is left of a removal that was killed

All of it is 0700 and checked to be ours. Records are JSON, written aside and renamed. There is no lock over all; each
lock is flock(2) on a file in the run directory, so the kernel frees it when its holder dies.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from rootless.errors import CorruptData, HostUnsupported
from rootless.linux import files
from rootless.linux.removal import remove_tree

FORMAT = "1"
_FOREIGN_TRASH_SECONDS = 24 * 3600
_LONGEST_NAME = 200  # of the 255 bytes that a file's name may have: ".json" and what is written aside need some
_DIRECTORIES = (
    *("blobs", "blobs/sha256", "blobs/partial", "layers", "images", "tags"),
    *("containers", "names", "volumes", "networks"),
)


class Layout:
    """The two directories of one store, made on first use."""

    __slots__ = ("root", "run")

    def __init__(self, root: str, run: str) -> None:
        """Raises HostUnsupported where a directory cannot be made or is not the user's alone."""
        self.root = root
        self.run = run
        try:
            files.private_directory(root)
            files.private_directory(run)
            self._prepare()
        except OSError as error:
            raise HostUnsupported(
                f"cannot use {error.filename or root} as a store: {error.strerror}",
                hint="--root puts the store elsewhere, XDG_RUNTIME_DIR the run directory; both must be yours alone",
            ) from error

    def _prepare(self) -> None:
        version = os.path.join(self.root, "version")
        try:
            with open(version, encoding="ascii") as file:
                found = file.read().strip()
        except FileNotFoundError:
            for name in (*_DIRECTORIES, "trash"):
                os.makedirs(os.path.join(self.root, name), mode=0o700, exist_ok=True)
            files.replace_file(version, f"{FORMAT}\n".encode())
        else:
            if found != FORMAT:
                raise HostUnsupported(
                    f"the store at {self.root} has format {found!r}, and this version of rootless knows {FORMAT}",
                    hint="use the version of rootless that wrote it, or another --root",
                )
        for name in ("locks", "containers"):
            with suppress(FileExistsError):
                os.mkdir(os.path.join(self.run, name), 0o700)

    def path(self, *parts: str) -> str:
        """A path in the store."""
        return os.path.join(self.root, *parts)

    def run_path(self, *parts: str) -> str:
        """A path in the run directory."""
        return os.path.join(self.run, *parts)

    def lock(self, name: str, *, shared: bool = False, blocking: bool = True) -> AbstractContextManager[int]:
        """Hold the lock of *name*. BlockingIOError on entering where *blocking* is false and somebody has it."""
        return files.lock_file(self.run_path("locks", name), shared=shared, blocking=blocking)

    def forget_lock(self, name: str) -> None:
        """Remove the file of a lock that we hold, whose object is gone for ever: ids are never used again."""
        with suppress(FileNotFoundError):
            os.unlink(self.run_path("locks", name))

    def aside(self) -> str:
        """A new path in the trash: for what is made there before it is renamed to its place, or removed after."""
        return self.path("trash", f"{os.getpid()}.{os.urandom(8).hex()}.{os.uname().nodename}")

    @contextmanager
    def nameless(self) -> Iterator[int]:
        """An fd of a file without a name in the store, to write and to read: it is gone with the last fd of it."""
        path = self.aside()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.unlink(path)
            yield fd
        finally:
            os.close(fd)

    def discard(self, path: str) -> None:
        """Make *path* vanish at once, and remove it then; a kill in between leaves it in the trash."""
        aside = self.aside()
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return
        remove_path(aside)

    def empty_trash(self) -> None:
        """Remove what processes that are gone have left: half-made things, half-removed things.

        A home that several machines share may have what another one is making just now: that is left for a day.
        """
        for name in os.listdir(self.path("trash")):
            path = self.path("trash", name)
            pid, _, rest = name.partition(".")
            machine = rest.partition(".")[2].removesuffix(f".{pid}.new")  # a record that was being written there
            if machine in ("", os.uname().nodename):
                is_left = not os.path.exists(f"/proc/{pid}")
            else:
                is_left = _is_old(path)
            if is_left:
                remove_path(path)


def _is_old(path: str) -> bool:
    try:
        return time.time() - os.lstat(path).st_ctime > _FOREIGN_TRASH_SECONDS
    except FileNotFoundError:
        return False


def quote(text: str) -> str:
    """*text* as a single file name, still readable; a digest where it would be too long for one."""
    quoted = text.replace("%", "%25").replace("/", "%2F")
    if len(os.fsencode(quoted)) <= _LONGEST_NAME:
        return quoted
    # OpenSSL costs some ms to load, and few names are so long.
    import hashlib

    return f"%{hashlib.sha256(os.fsencode(text)).hexdigest()}"


def remove_path(path: str) -> None:
    """Remove the tree at *path*, which lies in a directory of ours. Raises OSError for what stays."""
    parent, name = os.path.split(path)
    parent_fd = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent_fd, name)
    finally:
        os.close(parent_fd)


def load_record(path: str) -> dict[str, Any]:
    """A record. Raises FileNotFoundError, and CorruptData for what is no JSON object."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        record = json.loads(data)
    except ValueError as error:
        raise CorruptData(f"{path} is damaged: {error}", hint="remove the object that it belongs to") from error
    if not isinstance(record, dict):
        raise CorruptData(f"{path} is damaged: not a JSON object", hint="remove the object that it belongs to")
    return record


def save_record(path: str, record: dict[str, Any], *, durable: bool = True) -> None:
    """Write a record beside its place, and rename it."""
    files.replace_file(path, json.dumps(record, separators=(",", ":")).encode(), durable=durable)
