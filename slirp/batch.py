"""Datagrams from one connected socket to another, many in a system call, none of them looked at.

recvmmsg(2) fills the slots of a buffer; sendmmsg(2) sends the same slots. What has to cross between the two calls are
the lengths: the kernel writes them into a column of its message headers, and one assignment of a strided slice copies
the column into the send side's vectors. So the work in Python is that of a batch, whatever it holds. All flows share
the one buffer, since a batch is sent as soon as it has been received.

Datagrams of one size, which is what a stream of them is, travel further as one: sendmsg(2) with UDP_SEGMENT takes them
through the network stack in one pass, up to 64 KiB of them. Where a path cannot do that (a size above its MTU, an old
kernel) the answer is an error, nothing has been sent, and they go one by one.

What cannot be sent is dropped, as UDP does.
"""

import errno
import mmap
import socket
import struct
import sys
from typing import NamedTuple

from slirp import syscalls

SLOTS = 64
SLOT = 65536  # bytes; larger than any datagram
SEGMENTS = 64  # UDP_MAX_SEGMENTS of the older kernels
LARGEST_RUN = 65000  # bytes of one send with UDP_SEGMENT, headers aside
SOL_UDP, UDP_SEGMENT = 17, 103

_IOVEC = struct.Struct("@PN")
_MMSGHDR = struct.Struct("@PIPNPNi0PI0P")  # struct mmsghdr: recvmsg(2), recvmmsg(2)
_LENGTH_AT = struct.calcsize("@PIPNPNi0P")
_CONTROL = struct.Struct("@NiiH")  # cmsg(3) with a __u16
_CONTROL_SPACE = socket.CMSG_SPACE(2)
_LOW_HALF = 0 if sys.byteorder == "little" else struct.calcsize("@N") // 4 - 1
_NO_SEGMENTS = frozenset((errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP))


class Relayed(NamedTuple):
    """What a batch came to: datagrams and bytes sent on, whether more may be waiting, and what each socket failed of.

    An errno is 0 where there was none; EAGAIN is none.
    """

    datagrams: int
    size: int
    full: bool
    receive_error: int
    send_error: int


class Batch:
    """The buffer and the headers, for any number of pairs of sockets."""

    __slots__ = (
        *("_buffer", "_controls", "_groups", "_groups_at", "_headers", "_headers_at", "_lengths", "_receive_vectors"),
        *("_room", "_send_headers", "_send_headers_at", "_send_vectors", "_vector_lengths", "_vectors_at"),
        *("trouble", "unsegmented"),
    )

    def __init__(self) -> None:
        self._buffer = mmap.mmap(-1, SLOTS * SLOT)  # only the pages that datagrams have touched are there
        self._room = memoryview(self._buffer)[:SLOT]
        base = syscalls.address(self._buffer)
        self._receive_vectors = bytearray(_IOVEC.size * SLOTS)
        self._send_vectors = bytearray(_IOVEC.size * SLOTS)
        self._headers = bytearray(_MMSGHDR.size * SLOTS)
        self._send_headers = bytearray(_MMSGHDR.size * SLOTS)
        self._groups = bytearray(_MMSGHDR.size * SLOTS)
        self._controls = bytearray(_CONTROL_SPACE)
        receive_at = syscalls.address(self._receive_vectors)
        self._vectors_at = syscalls.address(self._send_vectors)
        for slot in range(SLOTS):
            at = slot * _IOVEC.size
            _IOVEC.pack_into(self._receive_vectors, at, base + slot * SLOT, SLOT)
            _IOVEC.pack_into(self._send_vectors, at, base + slot * SLOT, 0)
            _MMSGHDR.pack_into(self._headers, slot * _MMSGHDR.size, 0, 0, receive_at + at, 1, 0, 0, 0, 0)
            _MMSGHDR.pack_into(self._send_headers, slot * _MMSGHDR.size, 0, 0, self._vectors_at + at, 1, 0, 0, 0, 0)
        self._headers_at = syscalls.address(self._headers)
        self._send_headers_at = syscalls.address(self._send_headers)
        self._groups_at = syscalls.address(self._groups)
        self._lengths = memoryview(self._headers).cast("I")[_LENGTH_AT // 4 :: _MMSGHDR.size // 4]
        low = _IOVEC.size // 2 // 4 + _LOW_HALF
        self._vector_lengths = memoryview(self._send_vectors).cast("I")[low :: _IOVEC.size // 4]
        self.trouble = Relayed(0, 0, False, 0, 0)
        self.unsegmented: set[int] = set()  # descriptors that UDP_SEGMENT does not work on; see forget

    def relay(self, source: int, destination: int) -> Relayed:
        """Receive what is there at *source*, up to SLOTS datagrams, and send it to *destination*. Never blocks."""
        try:
            count = syscalls.recvmmsg(source, self._headers_at, SLOTS, socket.MSG_DONTWAIT)
        except OSError as error:
            return Relayed(0, 0, False, _telling(error), 0)
        self._vector_lengths[:count] = self._lengths[:count]
        lengths = self._lengths[:count].tolist()
        sent, failure = 0, 0
        for _ in range(2):  # an error may be that of an earlier datagram, told by ICMP: nothing has been sent then
            try:
                sent = self._send(destination, lengths)
                break
            except OSError as error:
                failure = _telling(error)
                if not failure:
                    break
        return Relayed(sent, sum(lengths[:sent]), count == SLOTS, 0, failure)

    def relay_one(self, source: socket.socket, destination: socket.socket) -> int:
        """The same of a single datagram, in half the time: for flows that ask, and wait for the answer.

        Returns its size, or -1 where anything went wrong, and then `trouble` says what it came to.
        """
        room, size = self._room, -1
        try:
            size = source.recv_into(room)
            destination.send(room[:size])
            return size
        except OSError as error:
            self.trouble = self._again(destination, size, _telling(error))
            return -1

    def _again(self, destination: socket.socket, size: int, failure: int) -> Relayed:
        """What relay_one came to, where receiving (*size* is -1) or sending has failed; as in relay, it sends twice."""
        if size < 0 or not failure:
            return Relayed(0, 0, False, failure, 0)
        try:
            destination.send(self._room[:size])
            return Relayed(1, size, False, 0, failure)
        except OSError as error:
            return Relayed(0, 0, False, 0, _telling(error) or failure)

    def forget(self, descriptor: int) -> None:
        """*descriptor* is about to be closed."""
        self.unsegmented.discard(descriptor)

    def shrink(self) -> None:
        """Give the buffer's pages back, for when it has been quiet."""
        self._buffer.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Give the memory back."""
        for view in (self._room, self._lengths, self._vector_lengths):
            view.release()
        self._buffer.close()

    def _send(self, destination: int, lengths: list[int]) -> int:
        count = len(lengths)
        run = run_of(lengths)
        if run and destination not in self.unsegmented:
            try:
                return self._send_runs(destination, count, run, lengths[0])
            except OSError as error:
                if error.errno not in _NO_SEGMENTS:
                    raise
                self.unsegmented.add(destination)
        return syscalls.sendmmsg(destination, self._send_headers_at, count, socket.MSG_DONTWAIT)

    def _send_runs(self, destination: int, count: int, run: int, size: int) -> int:
        _CONTROL.pack_into(self._controls, 0, socket.CMSG_LEN(2), SOL_UDP, UDP_SEGMENT, size)
        control = syscalls.address(self._controls)
        groups = 0
        for first in range(0, count, run):
            vectors, number = self._vectors_at + first * _IOVEC.size, min(run, count - first)
            header = (0, 0, vectors, number, control, _CONTROL_SPACE, 0, 0)
            _MMSGHDR.pack_into(self._groups, groups * _MMSGHDR.size, *header)
            groups += 1
        return min(syscalls.sendmmsg(destination, self._groups_at, groups, socket.MSG_DONTWAIT) * run, count)


def run_of(lengths: list[int]) -> int:
    """How many of a batch's datagrams can travel as one; 0 if they are not of one size (but the last, if shorter)."""
    size, count = lengths[0], len(lengths)
    run = min(SEGMENTS, LARGEST_RUN // size) if size else 0
    last = lengths[-1]
    if count < 2 or run < 2 or not 0 < last <= size or lengths.count(size) < count - (last < size):
        return 0
    return run


def _telling(error: OSError) -> int:
    return 0 if error.errno in (None, errno.EAGAIN, errno.EINTR) else int(error.errno)
