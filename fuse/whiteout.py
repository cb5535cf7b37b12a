"""The marks of absence, as they are in a layer: what is read, and what is written.

A whiteout at a name hides what is below it: a character device 0:0 of that name, or, where a file system or an old
kernel refuses that to an ordinary user, a file `.wh.NAME` beside. An opaque directory hides all that is below it: an
attribute says so, or a file `.wh..wh..opq` in it. (Whoever can set attributes and make no devices may make whiteouts
of empty files with an attribute, in a directory whose attribute tells of them. They are read here, and never made.)

All of them are understood, in every layer; a layer is written with devices and attributes where the upper file system
takes them, for these the kernel's overlayfs understands, too. With `marks=overlay` these are the only marks, in every
layer, and `.wh.NAME` is a file like any other, as it is there.

In one layer, what is there wins over a `.wh.` file for it: so a mark is made first and the file removed then, and the
other way round a file is made first, and whoever is killed in between leaves what was there before.
"""

import os
import stat

PREFIX = b".wh."
OPAQUE_FILE = b".wh..wh..opq"
TRUSTED, USER = "trusted.overlay.", "user.overlay."
_OPAQUE = (USER + "opaque", TRUSTED + "opaque", "user.fuseoverlayfs.opaque")
_WITH_FILES = (USER + "whiteout", TRUSTED + "whiteout")


def is_whiteout(st: os.stat_result) -> bool:
    """Whether this is a device that stands for nothing."""
    return st.st_rdev == 0 and stat.S_ISCHR(st.st_mode)


def has_opaque_attribute(path: bytes) -> bool:
    """Whether an attribute says that the directory *path* hides what is below it."""
    try:
        names = os.listxattr(path)
    except OSError:
        return False  # a file system without attributes
    return any(name in _OPAQUE and os.getxattr(path, name) == b"y" for name in names)


def has_whiteouts_by_attribute(path: bytes) -> bool:
    """Whether an attribute says that there may be files in the directory *path* that are whiteouts by an attribute."""
    try:
        names = os.listxattr(path)
    except OSError:
        return False
    return any(name in _OPAQUE and os.getxattr(path, name) == b"x" for name in names)


def is_whiteout_by_attribute(fd: int, name: bytes) -> bool:
    """Whether the file *name* in *fd* is one of those."""
    file_fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        st = os.fstat(file_fd)
        if not stat.S_ISREG(st.st_mode) or st.st_size:
            return False
        return any(name in _WITH_FILES for name in os.listxattr(b"/proc/self/fd/%d" % file_fd))
    finally:
        os.close(file_fd)


class Marks:
    """How an upper layer is marked: decided by trying it in *work_fd*, a directory of the same file system."""

    def __init__(self, work_fd: int, *, user_attributes: bool) -> None:
        self.devices = self._try_device(work_fd)
        self.attribute = self._try_attribute(work_fd, user_attributes)

    @staticmethod
    def _try_device(work_fd: int) -> bool:
        try:
            os.mknod(b"probe", stat.S_IFCHR, 0, dir_fd=work_fd)
        except OSError:
            return False
        os.unlink(b"probe", dir_fd=work_fd)
        return True

    @staticmethod
    def _try_attribute(work_fd: int, user_attributes: bool) -> str:
        path = b"/proc/self/fd/%d" % work_fd
        for prefix in (USER,) if user_attributes else (TRUSTED, USER):
            try:
                os.setxattr(path, prefix + "opaque", b"y")
                os.removexattr(path, prefix + "opaque")
            except OSError:
                continue
            return prefix + "opaque"
        return ""

    def make_opaque(self, fd: int) -> None:
        """Let the directory behind *fd* hide what is below it."""
        if self.attribute:
            os.setxattr(b"/proc/self/fd/%d" % fd, self.attribute, b"y")
        else:
            os.close(os.open(OPAQUE_FILE, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=fd))

    def make_whiteout(self, fd: int, name: bytes) -> None:
        """Hide *name* in the directory behind *fd*, in which it is not."""
        if self.devices:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=fd)
        else:
            os.close(os.open(mark_of(name), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=fd))


def mark_of(name: bytes) -> bytes:
    """The name of the file that hides *name*. Raises OSError (ENAMETOOLONG) from 252 bytes on, as the system does."""
    return PREFIX + name
