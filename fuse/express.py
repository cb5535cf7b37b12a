"""Requests that are answered here rather than by pyfuse3: all but those that are rare and need nothing special.

    kernel ◀─▶ /dev/fuse ◀─▶ express ◀─▶ socket pair ◀─▶ libfuse, pyfuse3 ◀─▶ operations

pyfuse3 is given one end of a socket pair for the device. What comes out of the device is looked at here first. A
request that has a handler is answered at once; any other is passed on, and the answer back (fuse/passing.py).

The kernel neither opens nor releases files and directories: it asks once, is told that this is not supported, and takes
it for granted from then on. A file is opened here when it is first read or written, and closed when others need the
room. (pyfuse3's handlers are not told which file is read, only what `open` gave them.)

The answer is one write of one structure, made from stat(2) by one call; content goes between the device and the file
through a buffer that is always the same.
"""

import errno
import os
import stat

from fuse import syscalls, wire
from fuse.checks import PROBE
from fuse.device import Device, Stopped
from fuse.failures import Failures
from fuse.node import Directory, Node
from fuse.passing import Passing
from fuse.union import Caller, Change, Union

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[int, int, int, int, int], None]

_HEADER = wire.HEADER.size
_NO_ATTR = (0,) * 16
_PROBE_NUMBER = (1 << 63) + 1
_CAPABILITY = b"security.capability"
_OWNER, _TIMES = wire.FATTR_UID | wire.FATTR_GID, wire.FATTR_ATIME | wire.FATTR_MTIME
_FLUSHED = wire.FATTR_MTIME | wire.FATTR_CTIME  # what the kernel has kept itself
_ANY = wire.FATTR_MODE | wire.FATTR_SIZE | wire.FATTR_ATIME | _OWNER | _FLUSHED
_BILLION = 1_000_000_000


class Express:
    """Serves *union* to *device*."""

    def __init__(self, union: Union, device: Device, passing: Passing) -> None:
        self._union = union
        self._nodes = union.nodes
        self._passing = passing
        self._device, self._receive = device.fd, device.receive
        self._buffer = device.buffer
        self._view = memoryview(self._buffer)
        self._content = bytearray(len(self._buffer))
        self._content_view = memoryview(self._content)
        self._probed = False  # the kernel knows that there is no need to open files
        self._failures = Failures()
        self._static_nlink = union.options.static_nlink
        seconds = int(union.options.timeout)
        self._valid = (seconds, int((union.options.timeout - seconds) * 1e9))
        self._handlers: dict[int, Handler] = {
            wire.LOOKUP: self._lookup,
            wire.FORGET: self._forget,
            wire.BATCH_FORGET: self._batch_forget,
            wire.GETATTR: self._getattr,
            wire.SETATTR: self._setattr,
            wire.READ: self._read,
            wire.WRITE: self._write,
            wire.MKNOD: self._mknod,
            wire.UNLINK: self._unlink,
            wire.MKDIR: self._mkdir,
            wire.RMDIR: self._rmdir,
            wire.SYMLINK: self._symlink,
            wire.READLINK: self._readlink,
            wire.LINK: self._link,
            wire.RENAME: self._rename,
            wire.RENAME2: self._rename2,
            wire.GETXATTR: self._getxattr,
            wire.LISTXATTR: self._listxattr,
            wire.SETXATTR: self._setxattr,
            wire.REMOVEXATTR: self._removexattr,
            wire.READDIRPLUS: self._readdirplus,
            wire.FALLOCATE: self._fallocate,
            # What is written and still with the kernel would be told to be a hole: it takes all for data then.
            wire.LSEEK: self._unknown if union.options.writeback and not union.read_only else self._lseek,
            wire.COPY_FILE_RANGE: self._copy_file_range,
            wire.FSYNC: self._fsync,
            wire.FSYNCDIR: self._fsyncdir,
            wire.OPEN: self._open,
            **dict.fromkeys((wire.CREATE, wire.OPENDIR, wire.FLUSH, wire.STATX), self._unknown),
            **dict.fromkeys((wire.RELEASE, wire.RELEASEDIR), self._nothing),
            wire.INTERRUPT: self._no_answer,
        }

    # The loop

    def serve(self) -> bool:
        """Answer requests until there is one for pyfuse3 (True), or the file system is unmounted (False)."""
        try:
            return self._serve()
        except Stopped:
            return False

    def _serve(self) -> bool:
        self._passing.back()
        receive, unpack, handlers, buffer = self._receive, wire.HEADER.unpack_from, self._handlers, self._buffer
        while True:
            length = receive()
            if length < 0:
                return False
            _, opcode, unique, nodeid, uid, gid, _, _ = unpack(buffer)
            handle = handlers.get(opcode)
            if handle is None:
                self._passing.on(opcode, length)
                return True
            try:
                handle(unique, nodeid, length, uid, gid)
            except OSError as error:
                self._refuse(unique, error.errno or errno.EIO)
            except Exception as error:
                self._failures.tell(error)
                self._refuse(unique, errno.EIO)

    def _refuse(self, unique: int, code: int) -> None:
        try:
            os.write(self._device, wire.ANSWER.pack(16, -code, unique))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # nobody waits for the answer any more
                raise

    def _unknown(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        """Never asked again."""
        self._refuse(unique, errno.ENOSYS)

    def _nothing(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        self._refuse(unique, 0)

    def _no_answer(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        """INTERRUPT: what it is about has been answered."""

    # Names and attributes

    def _directory(self, nodeid: int) -> Directory:
        node = self._nodes.get(nodeid)
        if not isinstance(node, Directory):
            raise OSError(errno.ESTALE if node is None else errno.ENOTDIR, "")
        return node

    def _node(self, nodeid: int) -> Node:
        node = self._nodes.get(nodeid)
        if node is None:
            raise OSError(errno.ESTALE, "")
        return node

    def _attr(self, node: Node, st: os.stat_result) -> tuple[int, ...]:
        """The fields of struct fuse_attr."""
        atime, mtime, ctime = st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns
        mode, links, rdev = st.st_mode, st.st_nlink, st.st_rdev
        if node.is_directory or self._union.unseen:
            links = 1 if self._static_nlink and node.is_directory else self._union.nlink(node, st)
        uid, gid = st.st_uid, st.st_gid
        ids = self._union.ids
        if ids is not None:
            uid, gid = ids.shown(uid, gid)
        return (
            node.number, st.st_size, st.st_blocks,
            atime // _BILLION, mtime // _BILLION, ctime // _BILLION,
            atime % _BILLION, mtime % _BILLION, ctime % _BILLION,
            mode, links, uid, gid, wire.device(rdev) if rdev else 0, st.st_blksize, 0,
        )  # fmt: skip

    def _entry(self, unique: int, node: Node, st: os.stat_result) -> None:
        seconds, ns = self._valid
        head = (wire.ENTRY_OUT.size, 0, unique, node.number, 0, seconds, seconds, ns, ns)
        os.write(self._device, wire.ENTRY_OUT.pack(*head, *self._attr(node, st)))

    def _lookup(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        self._union.trim()
        told = self._union.lookup(self._directory(nodeid), bytes(self._view[_HEADER : length - 1]))
        if told is not None:
            self._entry(unique, *told)
        elif not self._probed and self._view[_HEADER : length - 1] == PROBE:
            head = (wire.ENTRY_OUT.size, 0, unique, _PROBE_NUMBER, 0, 0, 0, 0, 0)
            os.write(self._device, wire.ENTRY_OUT.pack(*head, _PROBE_NUMBER, *_NO_ATTR[:8], 0o100444, 1, *_NO_ATTR[:5]))
        else:
            seconds, ns = self._valid
            head = (wire.ENTRY_OUT.size, 0, unique, 0, 0, seconds, 0, ns, 0)
            os.write(self._device, wire.ENTRY_OUT.pack(*head, *_NO_ATTR))

    def _forget(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        self._union.forget(((nodeid, wire.FORGET_IN.unpack_from(self._buffer, _HEADER)[0]),))

    def _batch_forget(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        count, _ = wire.BATCH_FORGET_IN.unpack_from(self._buffer, _HEADER)
        start = _HEADER + wire.BATCH_FORGET_IN.size
        self._union.forget(wire.FORGET_ONE.iter_unpack(self._view[start : start + count * wire.FORGET_ONE.size]))

    def _open(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        self._probed = True
        self._refuse(unique, errno.ENOSYS)

    def _getattr(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        node = self._node(nodeid)
        self._attributes(unique, node, self._union.stat(node))

    def _attributes(self, unique: int, node: Node, st: os.stat_result) -> None:
        head = (wire.ATTR_OUT.size, 0, unique, *self._valid, 0)
        os.write(self._device, wire.ATTR_OUT.pack(*head, *self._attr(node, st)))

    def _setattr(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        node = self._node(nodeid)
        asked = wire.SETATTR_IN.unpack_from(self._buffer, _HEADER)
        valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, to_uid, to_gid, _ = asked
        if valid & _ANY == _FLUSHED:
            self._attributes(unique, node, self._union.keep_time(node, mtime * _BILLION + mtime_ns))
            return
        if not valid & _OWNER:
            to_uid = to_gid = None
        else:
            to_uid = to_uid if valid & wire.FATTR_UID else None
            to_gid = to_gid if valid & wire.FATTR_GID else None
            if self._union.ids is not None:
                to_uid, to_gid = self._union.ids.on_disk(to_uid, to_gid)
        if not valid & _TIMES:
            atime = mtime = None
        else:
            atime = atime * _BILLION + atime_ns if valid & wire.FATTR_ATIME else None
            mtime = mtime * _BILLION + mtime_ns if valid & wire.FATTR_MTIME else None
            atime = syscalls.NOW if valid & wire.FATTR_ATIME_NOW else atime
            mtime = syscalls.NOW if valid & wire.FATTR_MTIME_NOW else mtime
        change = Change(
            mode if valid & wire.FATTR_MODE else None,
            to_uid,
            to_gid,
            size if valid & wire.FATTR_SIZE else None,
            atime,
            mtime,
            bool(valid & wire.FATTR_KILL_SUIDGID),
        )
        self._attributes(unique, node, self._union.setattr(node, change))

    def _mknod(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        mode, device, umask, _ = wire.MKNOD_IN.unpack_from(self._buffer, _HEADER)
        name = bytes(self._view[_HEADER + wire.MKNOD_IN.size : length - 1])
        parent, caller = self._directory(nodeid), self._caller(uid, gid, umask)
        if stat.S_ISREG(mode):
            told = self._union.create(parent, name, mode, caller)
        else:
            told = self._union.mknod(parent, name, mode, wire.device_number(device), caller)
        self._entry(unique, *told)

    def _unlink(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        self._union.unlink(self._directory(nodeid), bytes(self._view[_HEADER : length - 1]))
        self._refuse(unique, 0)

    def _rmdir(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        self._union.rmdir(self._directory(nodeid), bytes(self._view[_HEADER : length - 1]))
        self._refuse(unique, 0)

    def _caller(self, uid: int, gid: int, umask: int) -> Caller:
        self._union.mask(umask)
        ids = self._union.ids
        return Caller(uid, gid) if ids is None else Caller(*ids.on_disk(uid, gid))

    def _names(self, start: int, length: int) -> tuple[bytes, bytes]:
        first, _, second = bytes(self._view[_HEADER + start : length - 1]).partition(b"\0")
        return first, second

    def _mkdir(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        mode, umask = wire.MKDIR_IN.unpack_from(self._buffer, _HEADER)
        name = bytes(self._view[_HEADER + wire.MKDIR_IN.size : length - 1])
        self._entry(unique, *self._union.mkdir(self._directory(nodeid), name, mode, self._caller(uid, gid, umask)))

    def _symlink(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        name, target = self._names(0, length)
        self._entry(unique, *self._union.symlink(self._directory(nodeid), name, target, self._caller(uid, gid, 0)))

    def _readlink(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        self._bytes(unique, self._union.readlink(self._node(nodeid)))

    def _bytes(self, unique: int, answer: bytes) -> None:
        os.writev(self._device, (wire.ANSWER.pack(wire.ANSWER.size + len(answer), 0, unique), answer))

    def _link(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        node = self._node(wire.LINK_IN.unpack_from(self._buffer, _HEADER)[0])
        name = bytes(self._view[_HEADER + wire.LINK_IN.size : length - 1])
        self._entry(unique, *self._union.link(node, self._directory(nodeid), name))

    def _rename(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        to = wire.RENAME_IN.unpack_from(self._buffer, _HEADER)[0]
        name, new_name = self._names(wire.RENAME_IN.size, length)
        self._union.rename(self._directory(nodeid), name, self._directory(to), new_name)
        self._refuse(unique, 0)

    def _rename2(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        to, flags, _ = wire.RENAME2_IN.unpack_from(self._buffer, _HEADER)
        name, new_name = self._names(wire.RENAME2_IN.size, length)
        self._union.rename(self._directory(nodeid), name, self._directory(to), new_name, flags)
        self._refuse(unique, 0)

    def _getxattr(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        """The kernel asks for security.capability whenever somebody writes to a file or changes its owner."""
        size, _ = wire.GETXATTR_IN.unpack_from(self._buffer, _HEADER)
        node = self._node(nodeid)
        name = bytes(self._view[_HEADER + wire.GETXATTR_IN.size : length - 1])
        if node.plain and name == _CAPABILITY:
            self._refuse(unique, errno.ENODATA)
        else:
            self._sized(unique, size, self._union.getxattr(node, name))

    def _listxattr(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        size, _ = wire.GETXATTR_IN.unpack_from(self._buffer, _HEADER)
        names = self._union.listxattr(self._node(nodeid))
        self._sized(unique, size, b"".join([name + b"\0" for name in names]))

    def _setxattr(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        """With its flags, which pyfuse3 does not tell."""
        size, flags = wire.SETXATTR_IN.unpack_from(self._buffer, _HEADER)
        name, _, rest = bytes(self._view[_HEADER + wire.SETXATTR_IN.size : length]).partition(b"\0")
        self._union.setxattr(self._node(nodeid), name, rest[:size], flags)
        self._refuse(unique, 0)

    def _removexattr(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        self._union.removexattr(self._node(nodeid), bytes(self._view[_HEADER : length - 1]))
        self._refuse(unique, 0)

    def _sized(self, unique: int, size: int, answer: bytes) -> None:
        """*answer*, or how long it is, where *size* is 0."""
        if not size:
            os.write(self._device, wire.GETXATTR_OUT.pack(wire.GETXATTR_OUT.size, 0, unique, len(answer), 0))
        elif len(answer) > size:
            self._refuse(unique, errno.ERANGE)
        else:
            self._bytes(unique, answer)

    # Content

    def _read(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        _, offset, size, *_ = wire.READ_IN.unpack_from(self._buffer, _HEADER)
        fd = self._union.file_fd(self._node(nodeid))
        content = self._content_view
        done = os.preadv(fd, [content[16 : 16 + size]], offset)
        wire.ANSWER.pack_into(self._content, 0, 16 + done, 0, unique)
        os.write(self._device, content[: 16 + done])

    def _write(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        _, offset, size, flags, *_ = wire.WRITE_IN.unpack_from(self._buffer, _HEADER)
        start = _HEADER + wire.WRITE_IN.size
        node = self._node(nodeid)
        done = self._union.write(node, self._view[start : start + size], offset)
        if flags & wire.WRITE_KILL_SUIDGID:
            self._union.drop_set_ids(node)
        os.write(self._device, wire.WRITE_OUT.pack(wire.WRITE_OUT.size, 0, unique, done, 0))

    def _fsync(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        _, flags, _ = wire.FSYNC_IN.unpack_from(self._buffer, _HEADER)
        self._union.fsync(self._node(nodeid), only_data=bool(flags & 1))
        self._refuse(unique, 0)

    def _fsyncdir(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        """By its number: pyfuse3 would tell the handle alone, and directories that are never opened have none."""
        self._union.fsyncdir(self._directory(nodeid))
        self._refuse(unique, 0)

    def _fallocate(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        _, offset, size, mode, _ = wire.FALLOCATE_IN.unpack_from(self._buffer, _HEADER)
        syscalls.fallocate(self._union.file_fd(self._node(nodeid), write=True), mode, offset, size)
        self._refuse(unique, 0)

    def _lseek(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        _, offset, whence, _ = wire.LSEEK_IN.unpack_from(self._buffer, _HEADER)
        found = os.lseek(self._union.file_fd(self._node(nodeid)), offset, whence)
        os.write(self._device, wire.LSEEK_OUT.pack(wire.LSEEK_OUT.size, 0, unique, found))

    def _copy_file_range(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        _, start, target, _, to, size, _ = wire.COPY_FILE_RANGE_IN.unpack_from(self._buffer, _HEADER)
        union = self._union
        to_fd = union.file_fd(self._node(target), write=True)  # first: it may bring up the source, if it is the same
        done = os.copy_file_range(union.file_fd(self._node(nodeid)), to_fd, min(size, 1 << 30), start, to)
        os.write(self._device, wire.WRITE_OUT.pack(wire.WRITE_OUT.size, 0, unique, done, 0))

    # Directories

    def _readdirplus(self, unique: int, nodeid: int, length: int, uid: int, gid: int) -> None:
        """Each entry that is told of is one lookup, except . and .., of which the kernel takes the name alone."""
        _, start, size, *_ = wire.READ_IN.unpack_from(self._buffer, _HEADER)
        content, fixed = self._content, wire.DIRENTPLUS
        end, at = 16 + min(size, len(content) - 16), 16
        seconds, ns = self._valid
        for name, node, st, following in self._union.readdir(self._directory(nodeid), start):
            after = at + fixed.size + (len(name) + 7 & ~7)
            if after > end:
                self._union.not_told(node)
                break
            told = following > 2
            head = (node.number if told else 0, 0, seconds, seconds, ns, ns)
            attr = self._attr(node, st)
            fixed.pack_into(content, at, *head, *attr, node.number, following, len(name), st.st_mode >> 12)
            content[at + fixed.size : after] = name.ljust(after - at - fixed.size, b"\0")
            node.lookups += told
            at = after
        wire.ANSWER.pack_into(content, 0, at, 0, unique)
        os.write(self._device, self._content_view[:at])
