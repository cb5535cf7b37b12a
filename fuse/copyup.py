"""Making a copy of a file: data with its holes, owner, mode, times and attributes.

The copy is made in the work directory under a name of its own, and is complete when it gets its place by a rename:
whoever looks at the upper layer, after a crash too, sees all of it or nothing. Data moves inside of the kernel, and
where the file system can, not at all (reflink). Between file systems that cannot do either, it is read and written.
"""

import errno
import os
import stat
from typing import NamedTuple

from fuse import xattrs
from fuse.layer import fd_path

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SMALL = 65536  # bytes; a read and a write are quicker for these
_PIECE = 1 << 20
_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
_NOT_OURS = (errno.EPERM, errno.EINVAL)  # an owner whom this user namespace does not know, or may not give away to


class Stage:
    """A work directory, in which things are made before they get their place."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._count = 0

    def name(self) -> bytes:
        """A name in it that is not there."""
        self._count += 1
        return b"%x" % self._count

    def empty(self) -> None:
        """Remove all that is in it, which is what was not complete when somebody was killed."""
        clear(self.fd)

    def discard(self, name: bytes) -> None:
        """Remove *name* and all that is in it, if it is there."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                clear(fd)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=self.fd)


def clear(fd: int) -> None:
    """Remove all that is in the directory behind *fd*."""
    with os.scandir(fd_path(fd)) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=fd)
            continue
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            clear(inner)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=fd)


class Copy(NamedTuple):
    """A copy that has no place yet."""

    name: bytes  # in the stage
    fd: int  # through which a regular file is read and written; negative for others
    has_attributes: bool


def copy_file(from_fd: int, name: bytes, st: os.stat_result, stage: Stage, *, data: bool, sync: bool) -> Copy:
    """Copy the file *name* in *from_fd*, of which *st* tells, no directory; its content only if *data*."""
    made = stage.name()
    kind = stat.S_IFMT(st.st_mode)
    try:
        if kind == stat.S_IFREG:
            return _copy_regular(from_fd, name, st, stage.fd, made, data, sync)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=from_fd), made, dir_fd=stage.fd)
        else:
            os.mknod(made, kind | 0o600, st.st_rdev, dir_fd=stage.fd)
        return Copy(made, -1, _give_attributes(from_fd, name, st, stage.fd, made))
    except OSError:
        stage.discard(made)
        raise


def copy_open_file(source: int, st: os.stat_result, stage: Stage) -> tuple[bytes, int]:
    """Copy the regular file *source*, of which *st* tells; the copy's name in *stage*, and a descriptor of it."""
    made = stage.name()
    target = os.open(made, _NEW, 0o600, dir_fd=stage.fd)
    try:
        copy_data(source, target, st)
        give(source, st, target)
    except OSError:
        os.close(target)
        stage.discard(made)
        raise
    return made, target


def copy_directory(from_fd: int, st: os.stat_result, stage: Stage) -> bytes:
    """Make an empty directory with what *from_fd*, of which *st* tells, has of attributes; its name in *stage*."""
    made = stage.name()
    os.mkdir(made, 0o700, dir_fd=stage.fd)
    try:
        fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stage.fd)
        try:
            give(fd_path(from_fd), st, fd)
        finally:
            os.close(fd)
    except OSError:
        stage.discard(made)
        raise
    return made


def _copy_regular(
    from_fd: int, name: bytes, st: os.stat_result, to_fd: int, made: bytes, data: bool, sync: bool
) -> Copy:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=from_fd)
    try:
        target = os.open(made, _NEW, stat.S_IMODE(st.st_mode) & 0o777, dir_fd=to_fd)
        try:
            if data and st.st_size:
                copy_data(source, target, st)
            attributes = give(source, st, target)
            if sync and data and st.st_size:
                os.fsync(target)
        except OSError:
            os.close(target)
            raise
    finally:
        os.close(source)
    return Copy(made, target, attributes)


def copy_data(source: int, target: int, st: os.stat_result) -> None:
    """Copy the content of *source*, of which *st* tells, to the empty file *target*."""
    size = st.st_size
    if size <= _SMALL:
        piece = os.read(source, size)
        if len(piece) == size:
            _write_all(target, piece, 0)
            return
    if st.st_blocks * 512 >= size:
        _copy_range(source, target, 0, size)
        return
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # a hole up to the end
        at = os.lseek(source, start, os.SEEK_HOLE)
        _copy_range(source, target, start, at)
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            done = os.copy_file_range(source, target, end - start, start, start)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            _copy_by_hand(source, target, start, end)
            return
        if not done:
            return  # it has become shorter
        start += done


def _copy_by_hand(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        piece = os.pread(source, min(_PIECE, end - start), start)
        if not piece:
            return
        _write_all(target, piece, start)
        start += len(piece)


def _write_all(target: int, piece: bytes, at: int) -> None:
    view = memoryview(piece)
    while view:
        done = os.pwrite(target, view, at)
        view, at = view[done:], at + done


def give(source: "bytes | int", st: os.stat_result, fd: int) -> bool:
    """Give the regular file or directory *fd* attributes, owner, mode and times of *source*, of which *st* tells.

    Whether there are extended attributes.
    """
    made = os.fstat(fd)
    if (made.st_uid, made.st_gid) != (st.st_uid, st.st_gid):
        try:
            os.fchown(fd, st.st_uid, st.st_gid)  # before the mode, whose bits for setuid it takes away
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
    if made.st_mode != st.st_mode:
        os.fchmod(fd, stat.S_IMODE(st.st_mode))
    attributes = xattrs.copy(source, fd)
    os.utime(fd, ns=(st.st_atime_ns, st.st_mtime_ns))
    return attributes


def _give_attributes(from_fd: int, name: bytes, st: os.stat_result, to_fd: int, made: bytes) -> bool:
    """The same for a file that cannot be opened, or whose opening does something."""
    try:
        os.chown(made, st.st_uid, st.st_gid, dir_fd=to_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
    if not stat.S_ISLNK(st.st_mode):
        os.chmod(made, stat.S_IMODE(st.st_mode), dir_fd=to_fd)  # it was just made here, and is no symlink
    attributes = _copy_attributes(from_fd, name, to_fd, made)
    os.utime(made, ns=(st.st_atime_ns, st.st_mtime_ns), dir_fd=to_fd, follow_symlinks=False)
    return attributes


def _copy_attributes(from_fd: int, name: bytes, to_fd: int, made: bytes) -> bool:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    source, target = os.open(name, flags, dir_fd=from_fd), os.open(made, flags, dir_fd=to_fd)
    try:
        return xattrs.copy(fd_path(source), fd_path(target))
    finally:
        os.close(source)
        os.close(target)
