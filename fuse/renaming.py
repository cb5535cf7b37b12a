"""Renaming: rename(2) in the upper layer, prepared so that it means the same in the union.

What is renamed is brought up first: a file, or a directory with all that is in it (the kernel's overlayfs answers EXDEV
instead, and leaves it to mv(1)). Then one rename in the upper layer does it, with RENAME_WHITEOUT where something below
the old name would show. A directory that comes to where one below has its name is marked opaque before. A target that
is an empty directory with whiteouts in it is marked opaque and emptied of them before.
"""

import errno
import os

from fuse import syscalls
from fuse.node import Directory, Node
from fuse.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT
from fuse.tree import UPPER, fail

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from fuse.union import Union

Place = tuple[Directory, bytes]


def rename(union: "Union", parent: Directory, name: bytes, new_parent: Directory, new_name: bytes, flags: int) -> None:
    """Rename *name* in *parent* to *new_name* in *new_parent*. Raises OSError."""
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
        raise fail(errno.EINVAL)
    source, target = (parent, name), (new_parent, new_name)
    node = union.child(*source)
    other = union.find_child(*target)
    if flags & RENAME_EXCHANGE:
        if other is None:
            raise fail(errno.ENOENT)
        _exchange(union, source, node, target, other)
        return
    if other is None:
        _move(union, source, node, target)
    elif flags & RENAME_NOREPLACE:
        raise fail(errno.EEXIST)
    elif other is not node:
        _check_kinds(union, node, other)
        _replace(union, source, node, target, other)


def _check_kinds(union: "Union", node: Node, other: Node) -> None:
    if not isinstance(other, Directory):
        if node.is_directory:
            raise fail(errno.ENOTDIR)
    elif not node.is_directory:
        raise fail(errno.EISDIR)
    elif union.listing(other):
        raise fail(errno.ENOTEMPTY)


def _bring_up(union: "Union", node: Node, target: Place) -> None:
    """*node* will be at *target*."""
    if isinstance(node, Directory):
        union.bring_up_tree(node)
        if union.is_below(*target):
            union.mark_opaque(node)
    else:
        union.copy_up(node)


def _move(union: "Union", source: Place, node: Node, target: Place) -> None:
    """To where there is nothing, or a whiteout."""
    _bring_up(union, node, target)
    from_fd, to_fd = union.upper_fd(source[0]), union.upper_fd(target[0])
    leaves = union.is_below(*source)
    try:
        _rename(union, from_fd, source[1], to_fd, target[1], leaves)
    except NotADirectoryError:  # a directory does not replace a whiteout
        syscalls.renameat2(from_fd, source[1], to_fd, target[1], RENAME_EXCHANGE)
        if not leaves:
            os.unlink(source[1], dir_fd=from_fd)
    union.uncover(to_fd, target[1])
    _moved(union, source, node, target)


def _replace(union: "Union", source: Place, node: Node, target: Place, other: Node) -> None:
    _bring_up(union, node, target)
    from_fd, to_fd = union.upper_fd(source[0]), union.upper_fd(target[0])
    leaves = union.is_below(*source)
    st = union.stat(other)
    union.pin(other, st)
    if isinstance(other, Directory) and other.parts[0] == UPPER and other.parts != (UPPER,):
        union.make_empty(other)
    try:
        _rename(union, from_fd, source[1], to_fd, target[1], leaves)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not isinstance(other, Directory):
            raise
        union.make_empty(other)
        _rename(union, from_fd, source[1], to_fd, target[1], leaves)
    union.gone(other, *target, st)
    union.uncover(to_fd, target[1])
    _moved(union, source, node, target)


def _rename(union: "Union", from_fd: int, name: bytes, to_fd: int, new_name: bytes, leaves: bool) -> None:
    """One rename; a whiteout is left where the file was if it *leaves* one."""
    if not leaves:
        os.rename(name, new_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
        return
    if union.marks.devices:
        try:
            syscalls.renameat2(from_fd, name, to_fd, new_name, RENAME_WHITEOUT)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
                raise
        # This file system cannot do both at once. Whoever is killed in between finds it under both names.
        os.rename(name, new_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
        union.marks.make_whiteout(from_fd, name)
    else:
        union.marks.make_whiteout(from_fd, name)
        os.rename(name, new_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)


def _moved(union: "Union", source: Place, node: Node, target: Place) -> None:
    where = (UPPER,) if node.is_directory else UPPER
    source[0].children.pop(source[1], None)
    union.record(*source, None)
    union.record(*target, where)
    _set_place(node, source, target)
    target[0].children[target[1]] = node


def _set_place(node: Node, source: Place, target: Place) -> None:
    if node.more:
        node.drop_place(*source)
        node.add_place(*target)
    else:
        node.parent, node.name = target


def _exchange(union: "Union", source: Place, node: Node, target: Place, other: Node) -> None:
    if node is other:
        return
    _bring_up(union, node, target)
    _bring_up(union, other, source)
    from_fd, to_fd = union.upper_fd(source[0]), union.upper_fd(target[0])
    syscalls.renameat2(from_fd, source[1], to_fd, target[1], RENAME_EXCHANGE)
    for place, now in ((source, other), (target, node)):
        place[0].children[place[1]] = now
        union.record(*place, (UPPER,) if now.is_directory else UPPER)
    _set_place(node, source, target)
    _set_place(other, target, source)
