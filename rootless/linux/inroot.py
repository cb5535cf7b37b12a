"""Paths that somebody else wrote, looked up inside a root: the one module that may.

An image, an archive or a container says "etc/passwd" and may have made `etc` a symbolic link to the user's home. So
nothing here joins strings, asks realpath(3) and opens later; the look-up itself is confined. `..` stops at the root,
an absolute link starts again there, as if the process had chrooted (path_resolution(7)), and what comes back is an fd.

Linux 5.6 does this in one call, openat2(2) with RESOLVE_IN_ROOT. Where it is missing (ENOSYS, or EPERM from a seccomp
filter that is older than the call), the same walk is made by hand: each component is opened with O_NOFOLLOW below the
fd of the one before it, a link's text is put in front of the rest, and `..` goes back to the fd that we came through
instead of to what the directory calls its parent, which a rename may have moved out of the root meanwhile. The walk by
hand also decides when renames keep the kernel from deciding (EAGAIN), and makes directories on its way.

Magic links (/proc/*/fd/*) are never jumped through: ELOOP from the kernel, and by hand their text is only text.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from rootless.linux.files import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

PATH_MAX = 4096  # bytes with the final NUL, <linux/limits.h>
MAX_SYMLINKS = 40  # in one look-up; MAXSYMLINKS of the kernel, path_resolution(7)
_EAGAIN_TRIES = 32  # a rename anywhere can make openat2 give up on `..`; after so many the walk by hand decides

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


def open_in_root(root_fd: int, path: str | bytes, flags: int, mode: int = 0) -> int:
    """open(2) as a process would whose root and working directory are *root_fd*; close-on-exec.

    *path* may be absolute, and links in it may lead anywhere: they are followed inside the root. O_NOFOLLOW and
    O_CREAT | O_EXCL mean what they mean in open(2); *mode* only counts with O_CREAT or O_TMPFILE. Raises OSError.
    """
    raw = _checked(path)
    if not (flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE):
        mode = 0  # openat2 is strict about it
    if _kernel_resolves():
        for _ in range(_EAGAIN_TRIES):
            try:
                return openat2(root_fd, raw, flags, mode, _RESOLVE)
            except BlockingIOError:
                continue
    return _Walk(root_fd, raw).open(flags, mode)


def open_parent(root_fd: int, path: str | bytes) -> tuple[int, bytes]:
    """An O_PATH fd of the directory that *path* is, or would be, an entry of, and the entry's name.

    The directory is resolved in root, the entry is not looked at: what the caller does with the name must not follow
    links (unlink, rename, mkdir do not; link wants follow_symlinks=False). Slashes at the end are ignored. Raises
    OSError, EINVAL for a path that names no entry: the root itself, or one that ends in `.` or `..`.
    """
    parent, _, name = _checked(path).rstrip(b"/").rpartition(b"/")
    if name in (b"", b".", b".."):
        raise OSError(errno.EINVAL, "does not name an entry of a directory", path)
    return open_in_root(root_fd, parent or b".", os.O_PATH | os.O_DIRECTORY), name


def make_directories(root_fd: int, path: str | bytes, mode: int = 0o755) -> int:
    """An O_PATH fd of directory *path*; what is missing of it is made in root, with *mode* less the umask.

    A link that leads to nothing counts as the directory that it names: `var/run` -> `/run` makes `run` in root. Raises
    OSError, NotADirectoryError where something else is in the way.
    """
    try:
        return open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return _Walk(root_fd, _checked(path), make=mode).open(os.O_PATH | os.O_DIRECTORY, 0)


def read_regular(root_fd: int, path: str | bytes, limit: int) -> bytes | None:
    """The content of a regular file of at most *limit* bytes, or None if there is no such file.

    Made for files like etc/passwd of a container, which may be anything by now: a FIFO or a device is never opened for
    reading (unless it is swapped in just then, when O_NONBLOCK and O_NOCTTY keep it harmless). Raises OSError: EINVAL
    if it is no regular file, EFBIG if it has more than *limit* bytes, ELOOP and others as open(2).
    """
    try:
        with _regular(open_in_root(root_fd, path, os.O_PATH), path):
            pass
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with _regular(fd, path):
        return _read_at_most(fd, limit, path)


@contextmanager
def _regular(fd: int, path: str | bytes) -> Iterator[None]:
    """Close *fd* in the end; raise EINVAL unless it is a regular file."""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        yield
    finally:
        os.close(fd)


def _read_at_most(fd: int, limit: int, path: str | bytes) -> bytes:
    content = bytearray()
    while piece := os.read(fd, min(1 << 20, limit + 1 - len(content))):
        content += piece
        if len(content) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
    return bytes(content)


def _checked(path: str | bytes) -> bytes:
    """The bytes of *path*, which C would cut at a NUL."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise OSError(errno.EINVAL, "NUL in a path", path)
    if len(raw) >= PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    return raw


@cache
def _kernel_resolves() -> bool:
    """Whether openat2(2) is here and allowed: asked once, of the root directory."""
    try:
        os.close(openat2(-1, b"/", os.O_PATH | os.O_DIRECTORY))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        raise
    return True


class _Walk:
    """One look-up by hand. *make* is the mode of directories to make where one is missing, None to make none.

    Holds an fd for each directory between the root and where it stands, so a path of a thousand components may meet
    EMFILE, which is an error like any other.
    """

    __slots__ = ("_links_left", "_make", "_path", "_root_fd", "_todo", "_trail")

    def __init__(self, root_fd: int, path: bytes, make: int | None = None) -> None:
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._root_fd = root_fd
        self._path = path
        self._make = make
        self._links_left = MAX_SYMLINKS
        self._trail: list[int] = []  # of the directories below the root, down to the present one
        self._todo = _components(path)  # reversed: the next one is the last

    def open(self, flags: int, mode: int) -> int:
        """Walk, and open what the path names as open(2) would."""
        try:
            while len(self._todo) > 1:
                self._enter(self._todo.pop())
            # Opening the last component can find one more link, and then the walk goes on.
            while (fd := self._open_last(self._todo.pop(), flags | os.O_CLOEXEC, mode)) is None:
                while len(self._todo) > 1:
                    self._enter(self._todo.pop())
            return fd
        finally:
            self._leave()

    @property
    def _here(self) -> int:
        return self._trail[-1] if self._trail else self._root_fd

    def _leave(self) -> None:
        while self._trail:
            os.close(self._trail.pop())

    def _enter(self, name: bytes) -> None:
        """Make the directory *name* the present one; or leave it to do, now made; or do what the link there says."""
        if name == b".":
            return
        if name == b"..":
            if self._trail:
                os.close(self._trail.pop())
            return
        if self._follow(name):
            return
        try:
            self._trail.append(os.open(name, _STEP, dir_fd=self._here))
        except FileNotFoundError:
            if self._make is None:
                raise
            with suppress(FileExistsError):  # somebody was faster, with a directory or whatever: look again
                os.mkdir(name, self._make, dir_fd=self._here)
            self._again(name)
        except NotADirectoryError:
            if not self._is_link(name):
                raise
            self._again(name)

    def _again(self, name: bytes) -> None:
        """What is at *name* is not what it was a moment ago; look again, though not for ever."""
        self._count_link()
        self._todo.append(name)

    def _open_last(self, name: bytes, flags: int, mode: int) -> int | None:
        """The fd, or None where *name* was a link to be followed, which is now in front of the rest."""
        if name in (b".", b".."):
            self._enter(name)
            return os.open(b".", flags, mode, dir_fd=self._here)
        exclusive = flags & os.O_CREAT and flags & os.O_EXCL
        if not exclusive and not flags & os.O_NOFOLLOW and self._follow(name):
            return None
        if self._make is not None:
            self._enter(name)  # which leaves it to do again if it was not there
            if self._todo:
                return None
            return os.open(b".", flags, mode, dir_fd=self._here)
        fd = self._open_here(name, flags, mode)
        if fd is None:
            self._again(name)
        return fd

    def _open_here(self, name: bytes, flags: int, mode: int) -> int | None:
        """Open *name* unless it is a link that the caller wants followed, put there just now: None."""
        try:
            fd = os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=self._here)
        except OSError as error:
            raced = error.errno in (errno.ELOOP, errno.ENOTDIR) and not flags & os.O_NOFOLLOW and self._is_link(name)
            if not raced:
                raise
            return None
        if flags & os.O_PATH and not flags & os.O_NOFOLLOW and stat.S_ISLNK(os.fstat(fd).st_mode):
            os.close(fd)
            return None
        return fd

    def _is_link(self, name: bytes) -> bool:
        return stat.S_ISLNK(os.stat(name, dir_fd=self._here, follow_symlinks=False).st_mode)

    def _follow(self, name: bytes) -> bool:
        """If *name* is a link, put its text in front of the rest: True."""
        try:
            target = os.readlink(name, dir_fd=self._here)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # not a link; or nothing, which the open will tell
                return False
            raise
        self._count_link()
        if target.startswith(b"/"):
            self._leave()
        if len(self._todo) + target.count(b"/") > PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), self._path)
        self._todo += _components(target)
        return True

    def _count_link(self) -> None:
        self._links_left -= 1
        if self._links_left < 0:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._path)


def _components(path: bytes) -> list[bytes]:
    """The parts of *path*, the first one last. A slash at the end counts as `/.`: what is before it is a directory."""
    parts = [part for part in path.split(b"/") if part]
    if path.endswith(b"/"):
        parts.append(b".")
    return parts[::-1]
