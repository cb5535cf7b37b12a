"""What in a layer's directory means something to the mount: the marks of absence, and the attributes around them.

No archive and no container may make these, so that what they make is never taken for one: see `may_set_xattr`.
"""

import errno
import os
import stat
from enum import Enum

WHITEOUT = b".wh."  # in front of a name, in archives and in the fuse style
OPAQUE = b".wh..wh..opq"

_OPAQUE_XATTR = "user.overlay.opaque"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class WhiteoutStyle(Enum):
    """How the absence of what a lower layer has is written down."""

    OVERLAY = "overlay"  # a character device 0:0; on a directory user.overlay.opaque, for a mount with userxattr
    FUSE = "fuse"  # `.wh.NAME` and `.wh..wh..opq`, empty files, as image-spec has them


def write_whiteout(dir_fd: int, name: bytes, style: WhiteoutStyle) -> None:
    """Hide what lower layers have as *name*. What this layer has of that name stays, and hides it as well."""
    try:
        if style is WhiteoutStyle.OVERLAY:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=dir_fd)
        elif not exists(dir_fd, name):
            os.close(os.open(WHITEOUT + name, _CREATE | os.O_EXCL, 0o600, dir_fd=dir_fd))
    except FileExistsError:
        return


def make_opaque(fd: int, style: WhiteoutStyle) -> None:
    """Hide all that lower layers have in this directory."""
    if style is WhiteoutStyle.OVERLAY:
        os.setxattr(fd, _OPAQUE_XATTR, b"y")
    else:
        os.close(os.open(OPAQUE, _CREATE, 0o600, dir_fd=fd))


def is_opaque(fd: int) -> bool:
    """Whether the directory has the mark, of either style."""
    return has_opaque_attribute(fd) or exists(fd, OPAQUE)


def has_opaque_attribute(fd: int) -> bool:
    """Whether the directory has the mark of overlayfs."""
    try:
        return os.getxattr(fd, _OPAQUE_XATTR) == b"y"
    except OSError:  # no such attribute, or none at all here
        return False


def is_whiteout(dir_fd: int, name: bytes) -> bool:
    """Whether the entry *name*, which is there, is a mark, of either style."""
    info = lstat(name, dir_fd)
    return (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0) or (name.startswith(WHITEOUT) and name != OPAQUE)


def exists(dir_fd: int, name: bytes) -> bool:
    try:
        lstat(name, dir_fd)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # `.wh.` and a long name
            return False
        raise
    return True


def may_set_xattr(name: bytes, value: bytes) -> bool:
    """Whether an archive may set this extended attribute. Lengths are those of xattr(7)."""
    space, _, rest = name.partition(b".")
    if not rest or b"\0" in name or len(name) > 255 or len(value) > 65536:
        return False
    if space == b"user":
        return not rest.startswith((b"overlay.", b"rootless."))
    return name in (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")


def lstat(name: bytes, dir_fd: int) -> os.stat_result:
    return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
