"""Files written so that a crash shows the old or the new content, and never half; locks."""

import _thread  # the C half of `threading`
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter

from rootless.linux.libc import NR_OPENAT2, NR_RENAMEAT2, check, libc, syscall

AT_FDCWD = -100  # <fcntl.h>
AT_SYMLINK_FOLLOW = 0x400
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10


def openat2(dir_fd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), close-on-exec. Raises OSError ENOSYS before Linux 5.6, EAGAIN when a rename raced with `..`."""
    how = b"".join(v.to_bytes(8, "little") for v in (flags | os.O_CLOEXEC, mode, resolve))
    return syscall(NR_OPENAT2, "openat2", dir_fd, os.fsencode(path), how, len(how), path=path)


def renameat2(old_dir_fd: int, old: str | bytes, new_dir_fd: int, new: str | bytes, flags: int) -> None:
    """renameat2(2)."""
    args = (old_dir_fd, os.fsencode(old), new_dir_fd, os.fsencode(new), flags)
    syscall(NR_RENAMEAT2, "renameat2", *args, path=new)


def syncfs(fd: int) -> None:
    """syncfs(2): everything that was written to the file system of *fd* reaches the disk."""
    check(libc.syncfs(fd), "syncfs")


def sync_filesystem(path: str) -> None:
    """The same for the file system that *path*, a directory, is on."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def fsync_directory(path: str) -> None:
    """Make the names in directory *path* durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """write(2), until all is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def replace_file(path: str, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Give *path* the content *data*: whoever reads it, at any moment, sees all of the old or of the new.

    *durable*: it has reached the disk, name and content, before this returns.
    """
    aside = f"{path}.{_thread.get_native_id()}.new"  # the process's id, but in threads, where two may write one path
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            write_all(fd, data)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(aside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(aside)
        raise
    if durable:
        fsync_directory(os.path.dirname(path))


@contextmanager
def replacing(path: str, mode: int = 0o644) -> Iterator[BufferedWriter]:
    """A file to write, which is *path* once the block ends, and never was if that raises. Not durable.

    Where the file system can (O_TMPFILE) it has no name until then, so that a kill leaves nothing. The directory may be
    anybody's, and others may be writing the same: what lies there already is not opened.
    """
    directory, name = os.path.split(path)
    directory_fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        aside = f"{name[:200]}.{os.urandom(8).hex()}.new"
        fd, has_name = _open_aside(directory_fd, aside, mode)
        try:
            with open(fd, "wb") as file:
                yield file
                file.flush()
                if not has_name:
                    _name(fd, directory_fd, aside)
            os.rename(aside, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(aside, dir_fd=directory_fd)
            raise
    finally:
        os.close(directory_fd)


def _open_aside(directory_fd: int, name: str, mode: int) -> tuple[int, bool]:
    """A new file to write in a directory, and whether it had to get the name *name*."""
    try:
        return os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, mode, dir_fd=directory_fd), False
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, mode, dir_fd=directory_fd), True


def _name(fd: int, directory_fd: int, name: str) -> None:
    """linkat(2): give a file without a name one, by the link that proc_pid_fd(5) has of it, which is ours."""
    own = os.fsencode(f"/proc/self/fd/{fd}")
    check(libc.linkat(AT_FDCWD, own, directory_fd, os.fsencode(name), AT_SYMLINK_FOLLOW), "linkat", name)


@contextmanager
def lock_file(path: str, *, shared: bool = False, blocking: bool = True) -> Iterator[int]:
    """Hold flock(2) on *path*, created if absent; the fd is yielded. Raises BlockingIOError where somebody holds it.

    The kernel gives the lock back when the holder dies, so there are no stale locks. The file stays: removing one that
    another process waits for would let two of them in.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if blocking else fcntl.LOCK_NB))
        yield fd
    finally:
        os.close(fd)


def make_directory(path: str, mode: int) -> None:
    """mkdir(2) with exactly *mode*, whatever the caller's umask: for what is seen in containers."""
    os.mkdir(path, mode)
    os.chmod(path, mode)


def private_directory(path: str) -> None:
    """Make *path* (and what is missing above it) a directory of mode 0700 that is ours, or raise PermissionError.

    A directory that somebody else made, or can write to, is refused: on a shared /tmp that is an attack (F02).
    """
    try:
        os.mkdir(path, 0o700)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "not a directory of yours", path)
    if stat.S_IMODE(status.st_mode) != 0o700:
        os.chmod(path, 0o700)  # ours and no symlink, as just seen: nobody else can swap it below a parent of ours


PROC_SUPER_MAGIC = 0x9FA0


def filesystem_magic(fd: int) -> int:
    """Which file system *fd* is on: f_type of fstatfs(2), as in <linux/magic.h>."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs is at most 120 bytes; f_type comes first
    check(libc.fstatfs(fd, buffer), "fstatfs")
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], "little")
