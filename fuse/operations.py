"""The handlers that pyfuse3 calls, around a union.

Every handler is a plain function that the decorator makes what pyfuse3 wants: OSError becomes FUSEError, the answer to
the one who asked. Anything else is a mistake of ours: its traceback is written once for each place where it comes up,
the answer is EIO, and the file system lives on; an exception that left a handler would end it.

The kernel is told to believe all that it hears for as long as the options say, which is for ever unless somebody else
may change the layers: names, names that are not there, attributes and content.

Nothing here waits for anything but the file systems below, and one request is served at a time; so one object is enough
for all attributes that are handed over.
"""

import errno
import os
import socket

from fuse import scheduler
from fuse.express import Express
from fuse.failures import Failures
from fuse.node import Directory, Node
from fuse.union import Caller, Change, Union

pyfuse3 = scheduler.load()
FUSEError = pyfuse3.FUSEError

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any


_failures = Failures()


def handler(function: "Callable[..., Any]") -> "Callable[..., Coroutine[Any, Any, Any]]":
    """What pyfuse3 can call, of a plain *function*."""

    async def handle(*arguments: "Any") -> "Any":
        try:
            return function(*arguments)
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None
        except FUSEError:
            raise
        except Exception as error:
            _failures.tell(error)
            raise FUSEError(errno.EIO) from None

    handle.__doc__ = function.__doc__
    return handle


class Operations(pyfuse3.Operations):  # type: ignore[name-defined]
    """See the module."""

    supports_dot_lookup = False

    def __init__(self, union: Union) -> None:
        super().__init__()
        options = union.options
        self.enable_writeback_cache = options.writeback
        self.enable_acl = not options.noacl
        self._union = union
        self._nodes = union.nodes
        self._static_nlink = options.static_nlink
        self._ids = union.ids
        self._entry = pyfuse3.EntryAttributes()
        self._entry.entry_timeout = self._entry.attr_timeout = options.timeout
        self._nothing = pyfuse3.EntryAttributes()  # a name that is not there, to be believed
        self._nothing.st_ino = 0
        self._nothing.entry_timeout = options.timeout
        self._file = pyfuse3.FileInfo(keep_cache=True)

    def _node(self, inode: int) -> Node:
        node = self._nodes.get(inode)
        if node is None:
            raise FUSEError(errno.ESTALE)
        return node

    def _directory(self, inode: int) -> Directory:
        node = self._nodes.get(inode)
        if not isinstance(node, Directory):
            raise FUSEError(errno.ESTALE if node is None else errno.ENOTDIR)
        return node

    def _attributes(self, node: Node, st: os.stat_result) -> "Any":
        """*st* as pyfuse3 wants it."""
        entry = self._entry
        entry.st_ino = node.number
        entry.st_mode = st.st_mode
        entry.st_size = st.st_size
        entry.st_blocks = st.st_blocks
        entry.st_blksize = st.st_blksize
        entry.st_rdev = st.st_rdev
        entry.st_atime_ns = st.st_atime_ns
        entry.st_mtime_ns = st.st_mtime_ns
        entry.st_ctime_ns = st.st_ctime_ns
        entry.st_nlink = 1 if self._static_nlink and node.is_directory else self._union.nlink(node, st)
        if self._ids is None:
            entry.st_uid, entry.st_gid = st.st_uid, st.st_gid
        else:
            entry.st_uid, entry.st_gid = self._ids.shown(st.st_uid, st.st_gid)
        return entry

    def _caller(self, ctx: "Any") -> Caller:
        self._union.mask(ctx.umask)
        if self._ids is None:
            return Caller(ctx.uid, ctx.gid)
        return Caller(*self._ids.on_disk(ctx.uid, ctx.gid))

    @handler
    def lookup(self, parent: int, name: bytes, ctx: "Any") -> "Any":
        self._union.trim()
        told = self._union.lookup(self._directory(parent), name)
        return self._nothing if told is None else self._attributes(*told)

    def forget(self, told: "Iterable[tuple[int, int]]") -> None:
        """Not a coroutine: pyfuse3 awaits what it gets, unless that is None."""
        try:
            self._union.forget(told)
        except Exception as error:
            _failures.tell(error)

    @handler
    def getattr(self, inode: int, ctx: "Any") -> "Any":
        node = self._node(inode)
        return self._attributes(node, self._union.stat(node))

    @handler
    def setattr(self, inode: int, attr: "Any", fields: "Any", fh: int | None, ctx: "Any") -> "Any":
        node = self._node(inode)
        uid = attr.st_uid if fields.update_uid else None
        gid = attr.st_gid if fields.update_gid else None
        if self._ids is not None:
            uid, gid = self._ids.on_disk(uid, gid)
        change = Change(
            attr.st_mode if fields.update_mode else None,
            uid,
            gid,
            attr.st_size if fields.update_size else None,
            attr.st_atime_ns if fields.update_atime else None,
            attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._attributes(node, self._union.setattr(node, change))

    @handler
    def readlink(self, inode: int, ctx: "Any") -> bytes:
        return self._union.readlink(self._node(inode))

    @handler
    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: "Any") -> "Any":
        return self._attributes(*self._union.mknod(self._directory(parent), name, mode, rdev, self._caller(ctx)))

    @handler
    def mkdir(self, parent: int, name: bytes, mode: int, ctx: "Any") -> "Any":
        return self._attributes(*self._union.mkdir(self._directory(parent), name, mode, self._caller(ctx)))

    @handler
    def symlink(self, parent: int, name: bytes, target: bytes, ctx: "Any") -> "Any":
        return self._attributes(*self._union.symlink(self._directory(parent), name, target, self._caller(ctx)))

    @handler
    def link(self, inode: int, parent: int, name: bytes, ctx: "Any") -> "Any":
        return self._attributes(*self._union.link(self._node(inode), self._directory(parent), name))

    @handler
    def unlink(self, parent: int, name: bytes, ctx: "Any") -> None:
        self._union.unlink(self._directory(parent), name)

    @handler
    def rmdir(self, parent: int, name: bytes, ctx: "Any") -> None:
        self._union.rmdir(self._directory(parent), name)

    @handler
    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, ctx: "Any") -> None:
        self._union.rename(self._directory(parent), name, self._directory(new_parent), new_name, flags)

    @handler
    def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: "Any") -> "Any":
        told = self._union.create(self._directory(parent), name, mode, flags, self._caller(ctx))
        self._file.fh = told[0].number
        if flags & os.O_TRUNC and told[1].st_size:
            told = told[0], self._union.setattr(told[0], Change(size=0))
        return self._file, self._attributes(*told)

    @handler
    def open(self, inode: int, flags: int, ctx: "Any") -> "Any":
        if flags & os.O_TRUNC:
            self._union.setattr(self._node(inode), Change(size=0))
        self._file.fh = inode
        return self._file

    @handler
    def read(self, fh: int, offset: int, size: int) -> bytes:
        return self._union.read(self._node(fh), offset, size)

    @handler
    def write(self, fh: int, offset: int, data: bytes) -> int:
        return self._union.write(self._node(fh), data, offset)

    @handler
    def flush(self, fh: int) -> None:
        """Never asked again: what is written is below at once."""
        raise FUSEError(errno.ENOSYS)

    @handler
    def release(self, fh: int) -> None:
        """The descriptor stays, for the next one who opens it."""

    @handler
    def fsync(self, fh: int, datasync: bool) -> None:
        self._union.fsync(self._node(fh), only_data=datasync)

    @handler
    def opendir(self, inode: int, ctx: "Any") -> int:
        return self._directory(inode).number

    @handler
    def readdir(self, fh: int, start: int, token: "Any") -> None:
        """Each entry that is taken is one lookup, except . and .."""
        reply = pyfuse3.readdir_reply
        for name, node, st, following in self._union.readdir(self._directory(fh), start):
            if not reply(token, name, self._attributes(node, st), following):
                self._union.not_told(node)
                break
            if following > 2:
                node.lookups += 1

    @handler
    def releasedir(self, fh: int) -> None:
        """Nothing was opened."""

    @handler
    def fsyncdir(self, fh: int, datasync: bool) -> None:
        self._union.fsyncdir(self._directory(fh))

    @handler
    def statfs(self, ctx: "Any") -> "Any":
        st, data = self._union.statfs(), pyfuse3.StatvfsData()
        for field in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(data, field, getattr(st, field))
        data.f_namemax = st.f_namemax
        return data

    @handler
    def getxattr(self, inode: int, name: bytes, ctx: "Any") -> bytes:
        return self._union.getxattr(self._node(inode), name)

    @handler
    def listxattr(self, inode: int, ctx: "Any") -> list[bytes]:
        return self._union.listxattr(self._node(inode))

    @handler
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: "Any") -> None:
        self._union.setxattr(self._node(inode), name, value)

    @handler
    def removexattr(self, inode: int, name: bytes, ctx: "Any") -> None:
        self._union.removexattr(self._node(inode), name)


def start(union: Union, fd: int, debug: bool) -> None:
    """Take over the mount whose descriptor is *fd*; see fuse/express.py."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    pyfuse3.init(Operations(union), f"/dev/fd/{theirs.detach()}", {"debug"} if debug else set())
    express = Express(union, fd, ours.detach())
    scheduler.set_source(express.serve, express.stop)
