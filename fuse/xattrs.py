"""Extended attributes: which of those in a layer are the file system's own, and how others of such a name are kept.

`user.overlay.*` (or `trusted.overlay.*`) mark what is merged how. They are not shown, and who sets one of that name in
the union sets another: `user.overlay.x` is stored as `user.overlay.overlay.x`, as the kernel's overlayfs does, so that
an overlay can be made inside of an overlay, and nobody in it can make a mark in ours. fuse-overlayfs' own are refused.
"""

import errno
import os

from fuse.whiteout import TRUSTED, USER

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIXES = (USER.encode(), TRUSTED.encode())
_FOREIGN = b"user.fuseoverlayfs."
_ESCAPE = b"overlay."
_ACL = b"system.posix_acl_"
_NOT_COPIED = (errno.EOPNOTSUPP, errno.EPERM, errno.ENODATA, errno.EINVAL)


def stored(name: bytes, *, acl: bool = True) -> bytes:
    """The name under which *name* is stored. Raises OSError."""
    if name.startswith(_FOREIGN):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    if not acl and name.startswith(_ACL):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return prefix + _ESCAPE + name[len(prefix) :]
    return name


def shown(names: "Iterable[bytes]", *, acl: bool = True) -> list[bytes]:
    """Of the *names* that are stored, those that are shown, as they are."""
    return [_shown(name) for name in names if not is_private(name) and (acl or not name.startswith(_ACL))]


def is_private(name: bytes) -> bool:
    """Whether the attribute that is stored as *name* is a mark of ours."""
    if name.startswith(_FOREIGN):
        return True
    return any(name.startswith(prefix) and not name.startswith(prefix + _ESCAPE) for prefix in _PREFIXES)


def _shown(name: bytes) -> bytes:
    for prefix in _PREFIXES:
        if name.startswith(prefix + _ESCAPE):
            return prefix + name[len(prefix) + len(_ESCAPE) :]
    return name


def get(path: "bytes | int", name: bytes) -> bytes:
    """The value of the attribute stored as *name*. Raises OSError.

    A file system without ACLs has none: the kernel asks for them by itself, and would refuse access at another error.
    """
    try:
        return os.getxattr(path, name)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP and name.startswith(_ACL):
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA)) from None
        raise


def copy(source: "bytes | int", target: "bytes | int") -> bool:
    """Give the file *target* the attributes of *source*, without marks; whether there are any.

    What it cannot have is left out.
    """
    try:
        names = os.listxattr(source)
    except OSError:
        return False  # a file system without attributes
    for name in names:
        if is_private(os.fsencode(name)):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _NOT_COPIED:
                raise
    return bool(names)
