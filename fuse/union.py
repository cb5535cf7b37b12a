"""What each operation means: plain calls that raise OSError, on nodes and names.

Whoever asks has been allowed to: the kernel has checked permissions. The calls follow one pattern: find out what is
there, bring up what is to change, change the upper layer in one step that is whole or not at all, then set the nodes
and listings right. A file is opened once for each that opens it, and read and written through that descriptor.
"""

import errno
import os
import stat
import time
from typing import NamedTuple, cast

from fuse import renaming, syscalls, xattrs
from fuse.layer import fd_path
from fuse.node import PINNED, READABLE, WRITABLE, Directory, Node
from fuse.tree import UPPER, fail
from fuse.upper import Upper
from fuse.whiteout import PREFIX

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fuse.ids import Ids
    from fuse.options import MountOptions

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AS_IT_IS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_GAPS = 1000  # that the order of a directory's names may have
Told = tuple[Node, os.stat_result]


class Caller(NamedTuple):
    """Whom a file that is made belongs to, as ids on disk; None: whoever serves."""

    uid: int | None
    gid: int | None


class Change(NamedTuple):
    """What setattr changes; None stays. Times in ns, or syscalls.NOW.

    *kill_set_ids*: whoever changes the size may not leave setuid bits. A change of the owner takes them in any case.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime: int | None = None
    mtime: int | None = None
    kill_set_ids: bool = False


class Union(Upper):
    """The union that *options* describe. Raises OSError with the name of the directory that cannot be used."""

    def __init__(self, options: "MountOptions") -> None:
        super().__init__(options)
        self.options = options
        self.acl = not options.noacl
        self._umask = -1
        self.ids = _ids(options)
        self._own = (Caller(os.geteuid(), os.getegid()), Caller(None, None))

    def mask(self, umask: int) -> None:
        """Have the system take *umask* from what is made, unless an ACL of the directory says what is to be instead."""
        if umask != self._umask:
            self._umask = umask
            os.umask(umask)

    def nlink(self, node: Node, st: os.stat_result) -> int:
        """The number of links to show."""
        if isinstance(node, Directory):
            return 1 if len(node.parts) > 1 else st.st_nlink
        return st.st_nlink + self.unseen.get(node.number, 0) if self.unseen else st.st_nlink

    def readlink(self, node: Node) -> bytes:
        """Where the symlink *node* leads."""
        if node.parent is None:
            raise fail(errno.ESTALE)
        return os.readlink(node.name, dir_fd=self.dir_fd(node.parent, node.layer))

    # Making

    def create(self, parent: Directory, name: bytes, mode: int, caller: Caller) -> Told:
        """A regular file, empty, and open here."""
        fds = []

        def make(made: bytes, to_fd: int) -> None:
            fds.append(os.open(made, _NEW_FILE, mode & 0o7777, dir_fd=to_fd))

        told = self._make(parent, name, make, mode, caller)
        self.opened_file(told[0], fds[0], WRITABLE)
        told[0].plain = True
        return told

    def mkdir(self, parent: Directory, name: bytes, mode: int, caller: Caller) -> Told:
        """An empty directory."""
        node, st = self._make(
            parent, name, lambda made, to_fd: os.mkdir(made, mode & 0o7777, dir_fd=to_fd), stat.S_IFDIR | mode, caller
        )
        if isinstance(node, Directory):
            node.listing = {}
        return node, st

    def mknod(self, parent: Directory, name: bytes, mode: int, device: int, caller: Caller) -> Told:
        """A file of the kind that *mode* tells. A device 0:0 would be a whiteout, and is refused as by the kernel."""
        if stat.S_ISCHR(mode) and device == 0:
            raise fail(errno.EPERM)
        return self._make(parent, name, lambda made, to_fd: os.mknod(made, mode, device, dir_fd=to_fd), mode, caller)

    def symlink(self, parent: Directory, name: bytes, target: bytes, caller: Caller) -> Told:
        """A symlink to *target*."""
        return self._make(parent, name, lambda made, to_fd: os.symlink(target, made, dir_fd=to_fd), 0, caller)

    def link(self, node: Node, parent: Directory, name: bytes) -> Told:
        """One more name for *node*."""
        self.copy_up(node)
        if node.parent is None:
            raise fail(errno.ENOENT)
        from_fd = self.dir_fd(node.parent, UPPER)

        def make(made: bytes, to_fd: int) -> None:
            os.link(node.name, made, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)

        return self._make(parent, name, make, 0, None)

    def _make(
        self,
        parent: Directory,
        name: bytes,
        make: "Callable[[bytes, int], None]",
        mode: int,
        caller: Caller | None,
    ) -> Told:
        """Have *make* make *name* in *parent*, in place, or, where a whiteout is in its place, aside."""
        self._check_name(name)
        if self._is_there(parent, name):
            raise fail(errno.EEXIST)
        upper_fd = self.upper_fd(parent)
        aside = self.is_below(parent, name)
        if not aside:
            try:
                make(name, upper_fd)
            except FileExistsError:
                if self.find(parent, name) is not None:
                    raise
                aside = True  # a whiteout of nothing
            else:
                self._give_owner(upper_fd, name, upper_fd, caller)
        if aside:
            made = self.stage.name()
            make(made, self.stage.fd)
            self._give_owner(self.stage.fd, made, upper_fd, caller)
            self.settle(made, parent, name, is_directory=stat.S_ISDIR(mode))
        st = os.stat(name, dir_fd=upper_fd, follow_symlinks=False)
        where = (UPPER,) if stat.S_ISDIR(st.st_mode) else UPPER
        self.record(parent, name, where)
        node, st = self.enter(parent, name, where, st)
        node.lookups += 1
        return node, st

    def _check_name(self, name: bytes) -> None:
        self.check_writable()
        if self.has_mark_files and name.startswith(PREFIX):
            raise fail(errno.EPERM)  # it would hide something

    def _is_there(self, parent: Directory, name: bytes) -> bool:
        if parent.listing is None and parent.parts == (UPPER,):
            return False  # the system will say
        return self.find(parent, name) is not None

    def _give_owner(self, fd: int, name: bytes, parent_fd: int, caller: Caller | None) -> None:
        """A file just made belongs to *caller*, or to its directory's group where that says so."""
        if caller is None or (fd == parent_fd and caller in self._own):
            return
        above = os.stat(parent_fd)
        mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
        gid = above.st_gid if above.st_mode & stat.S_ISGID else caller.gid
        uid = caller.uid
        os.chown(name, -1 if uid is None else uid, -1 if gid is None else gid, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(mode) and above.st_mode & stat.S_ISGID:
            os.chmod(name, stat.S_IMODE(mode) | stat.S_ISGID, dir_fd=fd)
        elif mode & _SET_IDS:
            os.chmod(name, stat.S_IMODE(mode), dir_fd=fd)

    # Removing

    def unlink(self, parent: Directory, name: bytes) -> None:
        """Remove a file that is no directory."""
        self.check_writable()
        node = self.child(parent, name)
        st = self.stat(node)
        self.pin(node, st)
        self.hide(parent, name)
        self.gone(node, parent, name, st)

    def pin(self, node: Node, st: os.stat_result) -> None:
        """*node*, of which *st* tells, may lose its last name: it stays within reach of those who have it open."""
        if not node.access and not node.more and node.lookups and stat.S_ISREG(st.st_mode) and node.parent is not None:
            try:
                node.fd = os.open(node.name, _AS_IT_IS, dir_fd=self.dir_fd(node.parent, node.layer))
                node.access = PINNED
            except OSError:
                pass  # too many are open: whoever has this one open will miss it

    def rmdir(self, parent: Directory, name: bytes) -> None:
        """Remove an empty directory."""
        self.check_writable()
        node = self.child(parent, name)
        if not isinstance(node, Directory):
            raise fail(errno.ENOTDIR)
        if self.listing(node):
            raise fail(errno.ENOTEMPTY)
        st = self.stat(node)
        self.hide(parent, name, is_directory=True)
        self.gone(node, parent, name, st)

    def child(self, parent: Directory, name: bytes) -> Node:
        """The node *name* in *parent*."""
        node = self.find_child(parent, name)
        if node is None:
            raise fail(errno.ENOENT)
        return node

    def find_child(self, parent: Directory, name: bytes) -> Node | None:
        """The node *name* in *parent*, if there is one. The kernel knows it, or has just forgotten it."""
        node = parent.children.get(name)
        if node is None:
            found = self.find(parent, name)
            if found is not None:
                node, _ = self.enter(parent, name, *found)
        return node

    def gone(self, node: Node, parent: Directory, name: bytes, st: os.stat_result) -> None:
        """*node*, of which *st* told before, is not *name* in *parent* any more."""
        self.record(parent, name, None)
        parent.children.pop(name, None)
        has_others = node.layer != UPPER and st.st_nlink > 1 and not node.is_directory
        if has_others:
            self.unseen[node.number] = self.unseen.get(node.number, 0) - 1
        node.drop_place(parent, name)
        if node.parent is None:
            links = 0 if node.is_directory else max(st.st_nlink - 1, 0)
            if not links and node.layer == UPPER:
                self._numbers.drop(st)
            node.gone = st if has_others else _with_links(st, links)  # `unseen` counts those
            if isinstance(node, Directory):
                node.listing, node.below, node.order = {}, None, None
        if node.lookups <= 0:
            self.release(node)

    def rename(self, parent: Directory, name: bytes, new_parent: Directory, new_name: bytes, flags: int = 0) -> None:
        """rename(2), with the flags of renameat2(2). See fuse/renaming.py."""
        self._check_name(new_name)
        renaming.rename(self, parent, name, new_parent, new_name, flags)

    # Changing

    def setattr(self, node: Node, change: Change) -> os.stat_result:
        """Change attributes of *node*; what stat(2) says then. Owner before mode, for it takes away setuid bits."""
        size = change.size
        if node.parent is None and node is not self.root:
            return self._set_nameless(node, change)
        if node.layer != UPPER or self.read_only:
            self.copy_up(node, data=size != 0)
        if size is not None:
            self._truncate(node, change)
        if node.access > PINNED:
            return _set(node.fd, change)
        if isinstance(node, Directory):
            node.times = None
        return self._set_named(node, change)

    def keep_time(self, node: Node, mtime: int) -> os.stat_result:
        """The kernel, which keeps times itself while it has what was written, tells *mtime* (ns).

        It does so whenever it has changed the time of the last change, as when a file loses a name: that is known here.
        """
        st = self.stat(node)
        return st if st.st_mtime_ns == mtime else self.setattr(node, Change(mtime=mtime))

    def _truncate(self, node: Node, change: Change) -> None:
        os.ftruncate(self.file_fd(node, write=True), cast("int", change.size))
        if change.kill_set_ids:
            self.drop_set_ids(node)

    def _set_named(self, node: Node, change: Change) -> os.stat_result:
        parent = node.parent
        if parent is None:
            return _set(fd_path(self.root.fds[UPPER]), change)
        fd, name = self.dir_fd(parent, UPPER), node.name
        _, uid, gid, *_ = change
        if uid is not None or gid is not None:
            os.chown(name, -1 if uid is None else uid, -1 if gid is None else gid, dir_fd=fd, follow_symlinks=False)
        if change.mode is not None:
            syscalls.chmod(fd, name, change.mode & 0o7777)
        if change.atime is not None or change.mtime is not None:
            syscalls.utimensat(fd, name, change.atime, change.mtime)
        return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def _set_nameless(self, node: Node, change: Change) -> os.stat_result:
        """The same for what has been removed and is still open; below, it is changed for those alone who have it open.

        The kernel asks for this whenever a file is removed: it brings the times that it has kept up to date.
        """
        if node.gone is None:
            raise fail(errno.ESTALE)
        if change.size is not None:
            self._truncate(node, change)
        if node.layer == UPPER and node.access:
            with self._reached(node) as path:
                return _set(path, change)
        node.gone = _changed(node.gone, change)
        return node.gone

    # Files

    def file_fd(self, node: Node, *, write: bool = False) -> int:
        """A descriptor through which *node* is read, or also written, good until the next request."""
        if node.access >= (WRITABLE if write else READABLE):
            return node.fd
        if write:
            self.copy_up(node)
        how = (os.O_RDWR if write else os.O_RDONLY) | os.O_NONBLOCK | os.O_CLOEXEC
        if node.parent is not None:
            fd = self._open_at(node, node.parent, how | os.O_NOFOLLOW)
        elif node.access:
            fd = os.open(fd_path(node.fd), how)
        else:
            raise fail(errno.ESTALE)
        self.opened_file(node, fd, WRITABLE if write else READABLE)
        return fd

    def _open_at(self, node: Node, parent: Directory, how: int) -> int:
        try:
            return os.open(node.name, how, dir_fd=self.dir_fd(parent, node.layer))
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
        self.trim(0)
        self.close_files(0)
        return os.open(node.name, how, dir_fd=self.dir_fd(parent, node.layer))

    def write(self, node: Node, data: "bytes | memoryview", offset: int) -> int:
        """Write all of *data*; its length."""
        fd = self.file_fd(node, write=True)
        done = os.pwrite(fd, data, offset)
        while done < len(data):
            done += os.pwrite(fd, memoryview(data)[done:], offset + done)
        return done

    def drop_set_ids(self, node: Node) -> None:
        """*node* has been written by somebody who may not leave the bits for setuid and setgid."""
        mode = self.stat(node).st_mode
        taken = mode & stat.S_ISUID | (mode & stat.S_ISGID if mode & stat.S_IXGRP else 0)
        if taken and stat.S_ISREG(mode):
            os.fchmod(self.file_fd(node, write=True), stat.S_IMODE(mode & ~taken))

    def fsync(self, node: Node, *, only_data: bool) -> None:
        """Wait until what was written is on disk."""
        if self.sync and node.layer == UPPER:
            (os.fdatasync if only_data else os.fsync)(self.file_fd(node))

    # Open directories

    def readdir(self, directory: Directory, start: int) -> "Iterator[tuple[bytes, Node, os.stat_result, int]]":
        """What is in *directory*, from *start* on: name, node, stat, and where the next one starts.

        Positions stay what they are while names come and go: a name that is gone leaves a gap, which it fills when it
        comes again; others are put at the end. Whoever takes an entry counts the lookup.
        """
        order = self._order(directory, start)
        listing = self.listing(directory)
        for at in range(start, 2):
            dots = directory if at == 0 or directory.parent is None else directory.parent
            yield (b".", b"..")[at], dots, self.stat(dots), at + 1
        for at in range(max(start, 2), len(order)):
            name = order[at]
            where = listing.get(name)
            if where is None:
                continue
            node = directory.children.get(name)
            if node is not None:
                yield name, node, self.stat(node), at + 1
            elif type(where) is int:
                st = os.stat(name, dir_fd=self.dir_fd(directory, where), follow_symlinks=False)
                node, st = self.enter(directory, name, where, st)
                yield name, node, st, at + 1
            else:
                found = self.find(directory, name)
                if found is not None:
                    yield (name, *self.enter(directory, name, *found), at + 1)

    def _order(self, directory: Directory, start: int) -> list[bytes]:
        order = directory.order
        if order is None or (start == 0 and len(directory.gaps) > len(order) // 2 + _GAPS):
            order = directory.order = [b".", b"..", *self.listing(directory)]
            directory.gaps = set()
        return order

    def not_told(self, node: Node) -> None:
        """The kernel had no room for the entry of *node*."""
        if not node.lookups:
            self.release(node)

    def fsyncdir(self, directory: Directory) -> None:
        """Wait until what was done to the directory is on disk."""
        if not self.sync or directory.layer != UPPER or (directory.parent is None and directory is not self.root):
            return
        fd = os.open(fd_path(self.dir_fd(directory, UPPER)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def statfs(self) -> os.statvfs_result:
        """statvfs(2) of where changes go, or else of the topmost layer."""
        return os.fstatvfs(self.root.fds[self.root.parts[0]])

    # Extended attributes

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """The value. Raises OSError (ENODATA) if there is none."""
        kept = xattrs.stored(name, acl=self.acl)
        with self._reached(node) as path:
            return xattrs.get(path, kept)

    def listxattr(self, node: Node) -> list[bytes]:
        """Their names."""
        with self._reached(node) as path:
            return xattrs.shown(map(os.fsencode, os.listxattr(path)), acl=self.acl)

    def setxattr(self, node: Node, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set one, with the flags of setxattr(2)."""
        kept = xattrs.stored(name, acl=self.acl)
        self.copy_up(node)
        node.plain = False
        with self._reached(node) as path:
            os.setxattr(path, kept, value, flags)

    def removexattr(self, node: Node, name: bytes) -> None:
        """Remove one."""
        kept = xattrs.stored(name, acl=self.acl)
        self.check_writable()
        if node.layer != UPPER:
            self.getxattr(node, name)  # what is not there is not brought up either
            self.copy_up(node)
        with self._reached(node) as path:
            os.removexattr(path, kept)

    def _reached(self, node: Node) -> "_Reached":
        if node.access:
            return _Reached(node.fd, -1)
        if isinstance(node, Directory) and node.layer in node.fds:
            return _Reached(node.fds[node.layer], -1)
        if node.parent is None:
            raise fail(errno.ESTALE)
        fd = os.open(node.name, _AS_IT_IS, dir_fd=self.dir_fd(node.parent, node.layer))
        return _Reached(fd, fd)


def _ids(options: "MountOptions") -> "Ids | None":
    if options.uid_map or options.gid_map or options.squash_uid is not None or options.squash_gid is not None:
        from fuse.ids import Ids

        return Ids(options)
    return None


class _Reached:
    """A path to a file by descriptor, good while it is entered."""

    __slots__ = ("_close", "_fd")

    def __init__(self, fd: int, close: int) -> None:
        self._fd, self._close = fd, close

    def __enter__(self) -> bytes:
        return fd_path(self._fd)

    def __exit__(self, *_: object) -> None:
        if self._close >= 0:
            os.close(self._close)


def _set(target: "int | bytes", change: Change) -> os.stat_result:
    """Change attributes of *target*: a descriptor, or the path of one with O_PATH, which allows for nothing else."""
    mode, uid, gid, _, atime, mtime, _ = change
    if uid is not None or gid is not None:
        os.chown(target, -1 if uid is None else uid, -1 if gid is None else gid)
    if mode is not None:
        os.chmod(target, mode & 0o7777)
    if atime is not None or mtime is not None:
        syscalls.set_times(target, atime, mtime)
    return os.stat(target)


def _changed(st: os.stat_result, change: Change) -> os.stat_result:
    """*st* with *change*, the size left out; os.stat_result itself cannot be changed."""
    values, rest = _parts(st)
    mode, uid, gid, _, atime, mtime, _ = change
    now = time.time_ns()
    rest["st_ctime_ns"] = now
    for field, value in (("st_atime_ns", atime), ("st_mtime_ns", mtime)):
        if value is not None:
            rest[field] = now if value == syscalls.NOW else value
    mode = values[0] if mode is None else stat.S_IFMT(values[0]) | mode & 0o7777
    owner = (values[4] if uid is None else uid, values[5] if gid is None else gid)
    return os.stat_result((mode, *values[1:4], *owner, *values[6:]), rest)


def _with_links(st: os.stat_result, links: int) -> os.stat_result:
    """*st* with the number of *links*."""
    values, rest = _parts(st)
    return os.stat_result((*values[:3], links, *values[4:]), rest)


def _parts(st: os.stat_result) -> tuple[tuple[int, ...], dict[str, object]]:
    return cast("tuple[object, tuple[tuple[int, ...], dict[str, object]]]", st.__reduce__())[1]
