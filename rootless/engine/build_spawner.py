"""The process that starts the containers of a build's RUN steps: it has a tmpfs that nobody else sees.

A build has threads, and a monitor is forked from a process without any; so the build begins this one first. It enters a
mount namespace of its own and mounts a tmpfs there, which is gone with the last process in it, however that ends:
bundles, settings, name files and secrets of steps are written nowhere else. What a step binds from a directory that
somebody else may be changing is looked up here, in its root, and bound by descriptor into the same tmpfs.

    build    MAKE "3" + (channel, request) ─▶ files, binds; fork of a monitor ─▶ DONE      LAUNCH on the channel …
             FREE "3" ─▶ what MAKE made goes ─▶ DONE

It ends when the build closes its channel, or dies; the monitors notice the same of theirs, and end their containers.
"""

import base64
import json
import os
import stat
from contextlib import suppress
from threading import Lock
from typing import Any

from rootless.errors import InvalidInput, RootlessError
from rootless.linux import mounts, namespaces
from rootless.linux.inroot import make_directories, open_in_root
from rootless.runtime import channel, prepared, sealed
from rootless.runtime.channel import Socket
from rootless.store.layout import remove_path

# Loaded here, so that each monitor and its launcher, which are forks, need not.
from rootless.runtime import init as _init  # noqa: F401  # isort: skip
from rootless.runtime import monitor as _monitor  # noqa: F401  # isort: skip

MAKE, FREE, DONE, ERROR = b"m", b"f", b"d", channel.ERROR
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Spawner:
    """The process, from the side of the build."""

    def __init__(self, place: str) -> None:
        """Begin it, with the empty directory *place* for its tmpfs. The caller has no threads yet."""
        self.place = place
        self._lock = Lock()
        self._channel, theirs = channel.pair()
        self.pid = sealed.spawn(__name__, theirs.fileno())
        theirs.close()
        try:
            self._ask(channel.LAUNCH, place)
        except BaseException:
            self.close()
            raise

    def make(self, step: str, files: list[dict[str, Any]], binds: list[dict[str, str]]) -> Socket:
        """Write the *files* of a step and a monitor beside them; the channel to the monitor. From any thread.

        A file is {"path", "mode", "uid", "gid", "content"}, paths being below the step's directory; a bind
        {"root", "path", "name"}: the file or directory *path* in the directory *root* of this machine, as *name*.
        """
        ours, theirs = channel.pair()
        memory_fd = os.memfd_create("request", os.MFD_CLOEXEC)
        try:
            rows = [{**f, "content": base64.b64encode(f["content"]).decode("ascii")} for f in files]
            with open(memory_fd, "wb", closefd=False) as file:
                file.write(json.dumps({"files": rows, "binds": binds}).encode())
            self._ask(MAKE, step, (theirs.fileno(), memory_fd))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(memory_fd)
        return ours

    def free(self, step: str) -> None:
        """The step has ended: remove what make() made."""
        self._ask(FREE, step)

    def directory(self, step: str) -> str:
        """Where the files of a step are, for its monitor and container."""
        return os.path.join(self.place, step)

    def _ask(self, kind: bytes, text: str, fds: tuple[int, ...] = ()) -> None:
        with self._lock:
            try:
                channel.send(self._channel, kind, text, fds)
                kind, answer, _ = channel.receive(self._channel)
            except OSError as error:
                raise RootlessError(f"the process that starts the build's containers died: {error.strerror}") from error
        if kind == ERROR:
            channel.raise_error(answer)
        if kind != DONE:
            raise RootlessError("the process that starts the build's containers died")

    def close(self) -> None:
        """End it, and wait until it has."""
        self._channel.close()
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def main() -> None:
    """The helper's entry. Dumpable, as the build is: who is not cannot rename his forks, proc_pid_mem(5)."""
    build = channel.adopt(3)
    place = ""
    while True:
        kind, text, fds = channel.receive(build)
        _reap()
        if not kind:
            return
        try:
            if kind == channel.LAUNCH:
                place = os.fsdecode(text)
                _mount(place)
            elif kind == MAKE:
                _make(os.path.join(place, text.decode()), *fds)
            elif kind == FREE:
                _free(os.path.join(place, text.decode()))
        except (RootlessError, OSError) as error:
            channel.send_error(build, error)
            continue
        finally:
            for fd in fds:
                os.close(fd)
        channel.send(build, DONE)


def _reap() -> None:
    """Take notice of monitors that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _mount(place: str) -> None:
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_SLAVE)
    flags = mounts.MS_NOSUID | mounts.MS_NODEV
    mounts.mount("tmpfs", place, "tmpfs", flags, "mode=0700")


def _make(directory: str, channel_fd: int, request_fd: int) -> None:
    os.lseek(request_fd, 0, os.SEEK_SET)
    with open(request_fd, "rb", closefd=False) as file:
        request = json.loads(file.read())
    os.mkdir(directory, 0o755)
    for row in request["files"]:
        _write(os.path.join(directory, row["path"]), base64.b64decode(row["content"]), row)
    for bind in request["binds"]:
        _bind(directory, bind)
    sealed.spawn(prepared.MONITOR, channel_fd)


def _write(path: str, content: bytes, row: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    with open(os.open(path, _FILE, 0o600), "wb") as file:
        file.write(content)
        os.fchown(file.fileno(), row["uid"], row["gid"])
        os.fchmod(file.fileno(), row["mode"])


def _bind(directory: str, bind: dict[str, str]) -> None:
    """Have what the path in the root means at the name in *directory*; links stay inside the root (B05, B07)."""
    root_fd = os.open(bind["root"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if bind.get("make"):
            os.close(make_directories(root_fd, bind["path"] or "."))
        source_fd = open_in_root(root_fd, bind["path"] or ".", os.O_PATH)
    except OSError as error:
        raise InvalidInput(f"cannot mount {bind['path']!r}: {error.strerror}") from error
    finally:
        os.close(root_fd)
    try:
        target = os.path.join(directory, bind["name"])
        kind = os.fstat(source_fd).st_mode
        if stat.S_ISDIR(kind):
            os.mkdir(target)
        elif stat.S_ISREG(kind) or stat.S_ISSOCK(kind):
            os.close(os.open(target, _FILE, 0o600))
        else:
            raise InvalidInput(f"cannot mount {bind['path']!r}: it is neither a file nor a directory")
        target_fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
        try:
            mounts.bind(source_fd, target_fd, recursive=True)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def _free(directory: str) -> None:
    """Take off what is mounted in *directory*, and remove it."""
    for point in reversed(mounts.mount_points()):
        if point.startswith(directory + "/"):
            with suppress(OSError):
                mounts.umount2(point, mounts.MNT_DETACH)
    remove_path(directory)
