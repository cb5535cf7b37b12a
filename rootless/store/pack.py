"""From a layer's directory to its tar archive, the same bytes whenever and wherever it is made: the way back of unpack.

What overlayfs has for absence becomes what image-spec has: `.wh.NAME`, `.wh..wh..opq`. What could not be made here and
was recorded (owners, devices, attributes) is written as it should be. Attributes that only mean something to a mount or
to this machine stay out, as do sockets, and files that have the name of a whiteout without being one.

Order: a directory's entries by name, then what is in its directories, likewise; of several names of one file the first
has the content. Names are looked up by descriptors only, and nothing is followed (linux/inroot.py).
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from rootless.errors import RootlessError
from rootless.linux.inroot import PATH_MAX, open_in_root
from rootless.spec.digest import DiffID
from rootless.store.marks import OPAQUE, WHITEOUT, WhiteoutStyle, exists, has_opaque_attribute, lstat, may_set_xattr
from rootless.store.tar import DEFAULT_LIMITS, Kind
from rootless.store.tar_write import TarWriter, Write
from rootless.store.unpack import Recorded

CHUNK = 1 << 20  # bytes of a file that are read at a time

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A container that still runs may put a FIFO or a terminal where a file was: neither is waited for or taken.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
}
_USUAL_ROOT = (0o755, 0, 0)  # mode and owner of a layer's root that says nothing
_WHITEOUT_MODE = 0o600
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)


class Packed(NamedTuple):
    """An archive that was written."""

    diff_id: DiffID  # its sha256
    length: int  # its bytes
    size: int  # bytes of the files in it
    entries: int
    left_out: tuple[bytes, ...]  # paths that no archive of a layer can hold


def pack(diff_fd: int, write: Write, *, style: WhiteoutStyle, recorded: Iterable[Recorded] = ()) -> Packed:
    """Write the archive of the layer whose directory is *diff_fd*, and tell what it is.

    *style* is how the store marks absence; in OVERLAY, files `.wh.…` are a container's own, and are left out. Raises
    OSError, RootlessError for a tree that no archive can hold, and what *write* raises.
    """
    digest = hashlib.sha256()

    def hashed(data: bytes | memoryview) -> None:
        digest.update(data)
        write(data)

    writer = TarWriter(hashed)
    tree = TreeWriter(writer, style=style, recorded=recorded)
    tree.write(diff_fd)
    writer.finish()
    diff_id = DiffID("sha256:" + digest.hexdigest())
    return Packed(diff_id, writer.length, tree.size, tree.entries, tuple(tree.left_out))


class TreeWriter:
    """Puts trees into an archive.

    With a *style*, a tree is a layer; without, it is a file system as one sees it, and may be changing: what vanishes
    is left out, and a file has as many bytes as it had when its header was written. *progress* is told of bytes.
    """

    def __init__(
        self,
        writer: TarWriter,
        *,
        style: WhiteoutStyle | None = None,
        recorded: Iterable[Recorded] = (),
        progress: Callable[[int], object] = lambda count: None,
    ) -> None:
        self._writer = writer
        self._style = style
        self._prefix = b""
        self._progress = progress
        self._recorded = {entry.path: entry for entry in recorded}
        self._devices = _by_directory(self._recorded)
        self._seen: dict[tuple[int, int], bytes] = {}  # files with several names -> the first
        self._buffer = memoryview(bytearray(CHUNK))
        self.size = 0
        self.entries = 0
        self.left_out: list[bytes] = []

    def write(self, root_fd: int) -> None:
        """Put in all that is in the directory *root_fd*; itself only if it is not as roots usually are."""
        info = os.fstat(root_fd)
        xattrs = self._xattrs_of(root_fd)
        recorded = self._recorded.get(b"")
        looks = _looks(info, recorded)
        if looks != _USUAL_ROOT or xattrs or self._style is None:
            self._header(b"./", b"", Kind.DIRECTORY, info, xattrs=xattrs)
        self.write_below(root_fd)

    def write_below(self, root_fd: int) -> None:
        """Put in what is in the directory *root_fd*."""
        pending = [(b"", False)]
        while pending:
            path, covered = pending.pop()
            try:
                fd = open_in_root(root_fd, path or b".", _OPEN_DIRECTORY)
            except OSError as error:
                if self._style is None and error.errno in _VANISHED:
                    continue
                raise
            try:
                opaque = self._style is not None and self._is_opaque(fd)
                if opaque:
                    self._mark((path + b"/" if path else b"") + OPAQUE)
                covered = covered or opaque
                pending += [(below, covered) for below in reversed(self._write_directory(fd, path, covered))]
            finally:
                os.close(fd)

    def write_one(self, path_fd: int, name: bytes, prefix: bytes = b"") -> None:
        """Put in, as *name*, the very thing that an O_PATH descriptor is of, with all that is in it.

        Of a directory that is called b"", only that is put in, each name after *prefix*.
        """
        info = os.fstat(path_fd)
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is Kind.DIRECTORY:
            self._write_tree(path_fd, name, prefix, info)
        elif kind is Kind.FILE:
            file_fd = os.open(
                f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_CLOEXEC
            )  # the same file, by proc_pid_fd(5)
            try:
                self._write_open_file(file_fd, name)
            finally:
                os.close(file_fd)
        elif kind is None:
            self.left_out.append(name)
        else:
            self._write_content(kind, path_fd, b"", name, info)

    def _write_tree(self, path_fd: int, name: bytes, prefix: bytes, info: os.stat_result) -> None:
        fd = os.open(b".", _OPEN_DIRECTORY, dir_fd=path_fd)
        try:
            if name:
                self._header(name + b"/", b"", Kind.DIRECTORY, info, xattrs=self._xattrs_of(fd))
            self._prefix = name + b"/" if name else prefix
            self.write_below(fd)
            self._prefix = b""
        finally:
            os.close(fd)

    def _write_directory(self, fd: int, path: bytes, covered: bool) -> list[bytes]:
        """Put in the entries of one directory; the paths of those that are directories.

        Where it is *covered*, nothing of lower layers is seen in it, and whiteouts mean nothing.
        """
        before = path + b"/" if path else b""
        names = {os.fsencode(name) for name in os.listdir(fd)}
        names.update(self._devices.get(path, ()))
        below = []
        for name in sorted(names, key=self._hidden_name):
            if len(before) + len(name) >= PATH_MAX:
                raise RootlessError(f"{os.fsdecode(before[:200])}…: a path of more than {PATH_MAX - 1} bytes")
            try:
                if self._write_entry(fd, name, before + name, covered):
                    below.append(before + name)
            except OSError as error:
                if self._style is not None or error.errno not in _VANISHED:
                    raise
        return below

    def _hidden_name(self, name: bytes) -> bytes:
        """What sorts the entries of a directory, in either style the same."""
        return name.removeprefix(WHITEOUT) if self._style is WhiteoutStyle.FUSE else name

    def _is_opaque(self, fd: int) -> bool:
        return has_opaque_attribute(fd) or (self._style is WhiteoutStyle.FUSE and exists(fd, OPAQUE))

    def _write_entry(self, fd: int, name: bytes, path: bytes, covered: bool) -> bool:
        """Put in one entry; whether it is a directory."""
        recorded = self._recorded.get(path)
        if recorded and recorded.device:
            self._write_device(path, recorded)
            return False
        info = lstat(name, fd)
        if self._style is not None and self._take_mark(fd, name, path, info, covered):
            return False
        return self.write_entry(fd, name, path, info)

    def _take_mark(self, fd: int, name: bytes, path: bytes, info: os.stat_result, covered: bool) -> bool:
        """Whether the entry of a layer is a mark, which is put in, or can be none and looks like one."""
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            if not covered:
                self._mark(path[: -len(name)] + WHITEOUT + name)
            return True
        if not name.startswith(WHITEOUT):
            return False
        hidden = name[len(WHITEOUT) :]
        if self._style is WhiteoutStyle.OVERLAY:
            self.left_out.append(path)
        elif name != OPAQUE and not covered and not exists(fd, hidden):
            self._mark(path)
        return True

    def write_entry(self, fd: int, name: bytes, path: bytes, info: os.stat_result) -> bool:
        """Put in the entry *name* of the directory *fd*, called *path*; whether it is a directory, to be gone into."""
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:  # a socket: nobody would listen
            self.left_out.append(path)
        elif kind is Kind.DIRECTORY:
            self._write_looks(fd, name, path, info)
            return True
        elif info.st_nlink > 1 and (first := self._seen.get((info.st_dev, info.st_ino))) is not None:
            self._header(path, path, Kind.HARD_LINK, info, link=first)
        else:
            if info.st_nlink > 1:
                self._seen[info.st_dev, info.st_ino] = self._prefix + path
            self._write_content(kind, fd, name, path, info)
        return False

    def _write_content(self, kind: Kind, fd: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        if kind is Kind.FILE:
            self._write_file(fd, name, path)
        elif kind is Kind.SYMLINK:
            self._header(path, path, kind, info, link=os.readlink(name, dir_fd=fd))
        else:
            number = (os.major(info.st_rdev), os.minor(info.st_rdev)) if kind is not Kind.FIFO else None
            self._header(path, path, kind, info, device=number)

    def _write_looks(self, fd: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        directory_fd = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
        try:
            xattrs = self._xattrs_of(directory_fd)
        finally:
            os.close(directory_fd)
        self._header(path + b"/", path, Kind.DIRECTORY, info, xattrs=xattrs)

    def _write_file(self, fd: int, name: bytes, path: bytes) -> None:
        file_fd = os.open(name, _OPEN_FILE, dir_fd=fd)
        try:
            self._write_open_file(file_fd, path)
        finally:
            os.close(file_fd)

    def _write_open_file(self, file_fd: int, path: bytes) -> None:
        info = os.fstat(file_fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.ENOENT, "it was a file a moment ago", path)
        if info.st_size > DEFAULT_LIMITS.member_size:
            raise RootlessError(f"{os.fsdecode(path)}: a file of {info.st_size} bytes")
        self._header(path, path, Kind.FILE, info, size=info.st_size, xattrs=self._xattrs_of(file_fd))
        self.size += info.st_size
        self._copy(file_fd, path)

    def _copy(self, file_fd: int, path: bytes) -> None:
        """The content, as long as it was; what is gone of it meanwhile is zeros."""
        missing = self._writer.missing
        while missing:
            count = os.readv(file_fd, [self._buffer[: min(missing, CHUNK)]])
            if not count:
                if self._style is not None:
                    raise OSError(errno.EIO, "the file became shorter while it was read", path)
                self._buffer[:] = bytes(CHUNK)
                count = min(missing, CHUNK)
            self._writer.content(self._buffer[:count])
            self._progress(count)
            missing -= count

    def _write_device(self, path: bytes, recorded: Recorded) -> None:
        kind = Kind.BLOCK if stat.S_ISBLK(recorded.mode) else Kind.CHARACTER
        mode, uid, gid = stat.S_IMODE(recorded.mode), recorded.uid, recorded.gid
        xattrs = dict(recorded.xattrs)
        self.entries += 1
        self._writer.header(self._prefix + path, kind, mode, (uid, gid), 0, device=recorded.device, xattrs=xattrs)

    def _mark(self, path: bytes) -> None:
        self.entries += 1
        self._writer.header(self._prefix + path, Kind.FILE, _WHITEOUT_MODE, (0, 0), 0)

    def _header(
        self,
        name: bytes,
        path: bytes,
        kind: Kind,
        info: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] | None = None,
        xattrs: Mapping[bytes, bytes] = {},
    ) -> None:
        """A member that looks as its file does, or as it should, by what is recorded."""
        recorded = self._recorded.get(path)
        mode, uid, gid = _looks(info, recorded)
        if recorded and recorded.xattrs and kind is not Kind.HARD_LINK:
            xattrs = {**xattrs, **dict(recorded.xattrs)}
        self.entries += 1
        self._writer.header(
            self._prefix + name,
            kind,
            mode,
            (uid, gid),
            info.st_mtime_ns,
            size=size,
            link=link,
            device=device,
            xattrs=xattrs,
        )

    def _xattrs_of(self, fd: int) -> dict[bytes, bytes]:
        """The attributes that an archive may have."""
        try:
            names = os.listxattr(fd)
        except OSError:  # a file system without
            return {}
        return dict(_allowed_xattrs(fd, names)) if names else {}


def _allowed_xattrs(fd: int, names: list[str]) -> Iterator[tuple[bytes, bytes]]:
    for name in map(os.fsencode, names):
        if may_set_xattr(name, b""):
            try:
                yield name, os.getxattr(fd, name)
            except OSError:  # removed just now
                continue


def _looks(info: os.stat_result, recorded: Recorded | None) -> tuple[int, int, int]:
    """Mode, uid and gid."""
    if recorded:
        return stat.S_IMODE(recorded.mode), recorded.uid, recorded.gid
    return stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid


def _by_directory(recorded: Mapping[bytes, Recorded]) -> dict[bytes, list[bytes]]:
    """The names of devices, which are not on disk, by their directories."""
    found: dict[bytes, list[bytes]] = {}
    for path, entry in recorded.items():
        if entry.device:
            directory, _, name = path.rpartition(b"/")
            found.setdefault(directory, []).append(name)
    return found
