"""Copying a container's upper directory, which goes on being written to, into a layer, which never changes again.

Content is shared where the file system can (FICLONE), copied by the kernel where it cannot, and holes stay holes.
Several names of one file stay one file. Marks stay marks; what no archive of a layer can hold (sockets, files that only
have the name of a whiteout) is not taken along. Nothing is followed, and nothing that is not a file is opened.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Container, Iterator
from contextlib import contextmanager

from rootless.linux.inroot import open_in_root
from rootless.store.marks import (
    OPAQUE,
    WHITEOUT,
    WhiteoutStyle,
    exists,
    has_opaque_attribute,
    lstat,
    make_opaque,
    may_set_xattr,
    write_whiteout,
)

_FICLONE = 0x40049409  # <linux/fs.h>
_CHUNK = 1 << 26  # bytes; one call of copy_file_range(2) cannot be interrupted
_READ = 1 << 20
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_NOT_POSSIBLE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EBADF, errno.ENOTTY)
_DEFAULT_ACL = "system.posix_acl_default"


def copy_layer(source_fd: int, target_fd: int, *, style: WhiteoutStyle, left_out: Container[bytes] = ()) -> None:
    """Copy what is in the upper directory *source_fd* into the empty directory *target_fd*, and make that look like it.

    Paths in *left_out*, and what is below them, are not copied. What vanishes meanwhile is left out. Raises OSError.
    """
    _Copy(source_fd, target_fd, style, left_out).run()


class _Copy:
    """One copy_layer()."""

    def __init__(self, source_fd: int, target_fd: int, style: WhiteoutStyle, left_out: Container[bytes]) -> None:
        self._source_fd = source_fd
        self._target_fd = target_fd
        self._style = style
        self._left_out = left_out
        self._names: dict[tuple[int, int], bytes] = {}  # files with several names -> the first

    def run(self) -> None:
        made, pending = [b""], [b""]
        while pending:
            path = pending.pop()
            with _opened(self._source_fd, path) as source_fd, _opened(self._target_fd, path) as target_fd:
                if source_fd is None or target_fd is None:
                    continue
                below = [self._join(path, name) for name in self._directory(source_fd, target_fd, path)]
            pending += below
            made += below
        for path in reversed(made):
            with _opened(self._source_fd, path) as source_fd, _opened(self._target_fd, path) as target_fd:
                if source_fd is not None and target_fd is not None:
                    self._dress_directory(source_fd, target_fd)

    @staticmethod
    def _join(path: bytes, name: bytes) -> bytes:
        return path + b"/" + name if path else name

    def _directory(self, source_fd: int, target_fd: int, path: bytes) -> Iterator[bytes]:
        """Copy the entries of one directory; the names of those that are directories, which are made."""
        for name in sorted(map(os.fsencode, os.listdir(source_fd))):
            if self._join(path, name) in self._left_out:
                continue
            try:
                if self._entry(source_fd, target_fd, name, path):
                    yield name
            except OSError as error:
                if error.errno not in _VANISHED:
                    raise

    def _entry(self, source_fd: int, target_fd: int, name: bytes, path: bytes) -> bool:
        """Copy one entry; whether it is a directory."""
        info = lstat(name, source_fd)
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFCHR and info.st_rdev == 0:
            write_whiteout(target_fd, name, self._style)
        elif name.startswith(WHITEOUT):
            self._named_like_a_mark(source_fd, target_fd, name)
        elif kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target_fd)
            return True
        elif info.st_nlink > 1 and (first := self._names.get((info.st_dev, info.st_ino))):
            os.link(first, name, src_dir_fd=self._target_fd, dst_dir_fd=target_fd, follow_symlinks=False)
        else:
            self._make(kind, source_fd, target_fd, name, info)
            if info.st_nlink > 1 and exists(target_fd, name):
                self._names[info.st_dev, info.st_ino] = self._join(path, name)
        return False

    def _named_like_a_mark(self, source_fd: int, target_fd: int, name: bytes) -> None:
        hidden = name[len(WHITEOUT) :]
        if self._style is WhiteoutStyle.FUSE and name != OPAQUE and not exists(source_fd, hidden):
            write_whiteout(target_fd, hidden, self._style)

    def _make(self, kind: int, source_fd: int, target_fd: int, name: bytes, info: os.stat_result) -> None:
        if kind == stat.S_IFREG:
            self._file(source_fd, target_fd, name)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
        elif kind == stat.S_IFIFO:
            os.mkfifo(name, 0o600, dir_fd=target_fd)
        else:
            return  # a socket; there are no devices in an upper directory
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target_fd, follow_symlinks=False)
        if kind == stat.S_IFIFO:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target_fd)  # does not open the FIFO
            try:
                os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(info.st_mode))
            finally:
                os.close(fd)
        os.utime(name, ns=(info.st_mtime_ns, info.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)

    def _file(self, source_fd: int, target_fd: int, name: bytes) -> None:
        file_fd = os.open(name, _OPEN_FILE, dir_fd=source_fd)
        try:
            info = os.fstat(file_fd)
            if not stat.S_ISREG(info.st_mode):
                return
            copy_fd = os.open(name, _CREATE, 0o600, dir_fd=target_fd)
            try:
                copy_content(file_fd, copy_fd, info)
                _dress(file_fd, copy_fd, info)
            finally:
                os.close(copy_fd)
        finally:
            os.close(file_fd)

    def _dress_directory(self, source_fd: int, target_fd: int) -> None:
        if has_opaque_attribute(source_fd) or (self._style is WhiteoutStyle.FUSE and exists(source_fd, OPAQUE)):
            make_opaque(target_fd, self._style)
        _dress(source_fd, target_fd, os.fstat(source_fd))


@contextmanager
def _opened(root_fd: int, path: bytes) -> Iterator[int | None]:
    """An fd of a directory; None where there is none any more."""
    try:
        fd = open_in_root(root_fd, path or b".", _OPEN_DIRECTORY)
    except OSError as error:
        if error.errno not in _VANISHED:
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def copy_content(source_fd: int, target_fd: int, info: os.stat_result) -> None:
    """Copy what is in a file, of which *info* was just learned, into an empty one."""
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
        return
    except OSError as error:
        if error.errno not in _NOT_POSSIBLE:
            raise
    for start, end in _extents(source_fd, info):
        _copy_range(source_fd, target_fd, start, end)
    os.ftruncate(target_fd, info.st_size)


def _extents(fd: int, info: os.stat_result) -> Iterator[tuple[int, int]]:
    """(start, end) of what of a file is no hole; all of it where it has none, or nobody knows."""
    if info.st_blocks * 512 >= info.st_size:
        yield 0, info.st_size
        return
    end = 0
    while end < info.st_size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            if error.errno != errno.EINVAL:
                raise
            start, end = end, info.st_size
        yield start, min(end, info.st_size)


def _copy_range(source_fd: int, target_fd: int, start: int, end: int) -> None:
    copy = _by_kernel
    while start < end:
        try:
            count = copy(source_fd, target_fd, start, end - start)
        except OSError as error:
            if copy is _by_hand or error.errno not in _NOT_POSSIBLE:
                raise
            copy = _by_hand
            continue
        if not count:
            return  # it became shorter
        start += count


def _by_kernel(source_fd: int, target_fd: int, at: int, count: int) -> int:
    return os.copy_file_range(source_fd, target_fd, min(count, _CHUNK), at, at)


def _by_hand(source_fd: int, target_fd: int, at: int, count: int) -> int:
    return os.pwrite(target_fd, os.pread(source_fd, min(count, _READ), at), at)


def _dress(source_fd: int, target_fd: int, info: os.stat_result) -> None:
    """Give a file or directory the owner, attributes, mode and times of the one it is a copy of."""
    own = os.fstat(target_fd)
    if (own.st_uid, own.st_gid) != (info.st_uid, info.st_gid):
        os.fchown(target_fd, info.st_uid, info.st_gid)  # takes capabilities away, so it comes first
    for name in _names_of_xattrs(target_fd):
        if name == _DEFAULT_ACL:
            os.removexattr(target_fd, name)  # the store's directory handed it down
    for name in _names_of_xattrs(source_fd):
        if may_set_xattr(os.fsencode(name), b""):
            os.setxattr(target_fd, name, os.getxattr(source_fd, name))
    os.fchmod(target_fd, stat.S_IMODE(info.st_mode))
    os.utime(target_fd, ns=(info.st_atime_ns, info.st_mtime_ns))


def _names_of_xattrs(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError:  # a file system without
        return []
