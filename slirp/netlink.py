"""A netlink socket of a network namespace: several requests in one send, errors as OSError.

The kernel works a batch off inside of send(2), so all answers are there when it returns: nothing here waits. An error
is always answered; success only where it is asked for, which is the last request of a batch. With NETLINK_EXT_ACK the
kernel adds a sentence on what it did not like (netlink(7)).

A message is a header of its kind and attributes, which are a length, a number and a value each, the value often being
attributes again. That is all there is to it, so we write them ourselves: the message classes of pyroute2 make the same
bytes, but to load them and to encode the rules of a network by them would take 35 ms, as long as the rest of a start.

nftables takes its requests between two marks, BATCH_BEGIN and BATCH_END, as one transaction: all of it or nothing.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

# <linux/netlink.h>, <linux/netfilter/nfnetlink.h>
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x001, 0x004, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
CREATE = NLM_F_CREATE | NLM_F_EXCL
REPLACE = NLM_F_CREATE | NLM_F_REPLACE
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_NFNL_SUBSYS_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_NFGENMSG = struct.Struct(">BBH")  # struct nfgenmsg: family, version, number of a subsystem
_RECEIVE = 65536


class Request(NamedTuple):
    """One message to the kernel, encoded. *what* names it in errors; an errno in *ignore* is as good as success."""

    what: str
    kind: int
    flags: int
    body: bytes  # what follows the header
    ignore: tuple[int, ...] = ()


def request(
    what: str, kind: int, header: bytes, *attributes: bytes, flags: int = 0, ignore: tuple[int, ...] = ()
) -> Request:
    """A Request with *header*, that of its own kind, and encoded *attributes*."""
    return Request(what, kind, flags, header + b"".join(attributes), ignore)


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute: length and *kind*, *value*, and zeros up to a multiple of four."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """An attribute that is a string."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute that is a number of 32 bits, as this machine writes it."""
    return attribute(kind, struct.pack("=I", value))


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that is made of others."""
    return attribute(kind, b"".join(attributes))


def netfilter_header(family: int, subsystem: int = 0) -> bytes:
    """The header of all of netfilter's messages."""
    return _NFGENMSG.pack(family, 0, subsystem)


class Netlink:
    """A socket of *protocol* (NETLINK_ROUTE or NETLINK_NETFILTER) in the namespace of the thread that makes it."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._sequence = 0
        try:
            self._socket.bind((0, 0))
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def run(self, requests: list[Request]) -> None:
        """Have the kernel do *requests*, in order; a failure does not keep it from doing those that follow.

        Raises the OSError of the first that failed.
        """
        first = self._sequence + 1
        self._send(requests)
        self._take_answers(first, requests)

    def transaction(self, requests: list[Request]) -> None:
        """Have nftables do all of *requests* or none. Raises the OSError of the first that it does not like."""
        mark = request("transaction", _BATCH_BEGIN, netfilter_header(0, _NFNL_SUBSYS_NFTABLES))
        batch = [mark, *requests, mark._replace(kind=_BATCH_END)]
        first = self._sequence + 1
        self._send(batch, acknowledged=len(requests))
        self._take_answers(first, batch, acknowledged=len(requests))

    def dump(self, asked: Request) -> Iterator[bytes]:
        """The messages, header included, that answer *asked*."""
        self._sequence += 1
        self._socket.send(_encoded(asked, asked.flags | NLM_F_DUMP, self._sequence))
        while True:
            for kind, _, _, message in _messages(self._socket.recv(_RECEIVE)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    raise _failure(message, 0, asked) or OSError(errno.EPROTO, f"{asked.what}: no answer")
                yield message

    def _send(self, requests: list[Request], acknowledged: int = -1) -> None:
        """Send *requests* as one; the one at index *acknowledged* is answered also if it succeeds."""
        data = bytearray()
        for number, asked in enumerate(requests):
            self._sequence += 1
            last = number == acknowledged % len(requests)
            data += _encoded(asked, asked.flags | (NLM_F_ACK if last else 0), self._sequence)
        self._socket.send(data)

    def _take_answers(self, first: int, requests: list[Request], acknowledged: int = -1) -> None:
        failures: dict[int, OSError] = {}
        answered = set()
        for kind, flags, sequence, message in self._waiting():
            if kind == _NLMSG_ERROR and first <= sequence < first + len(requests):
                number = sequence - first
                answered.add(number)
                if (failure := _failure(message, flags, requests[number])) and number not in failures:
                    failures[number] = failure
        if failures:
            raise failures[min(failures)]
        if acknowledged % len(requests) not in answered:
            raise OSError(errno.EPROTO, f"{requests[acknowledged].what}: the kernel has not answered")

    def _waiting(self) -> Iterator[tuple[int, int, int, bytes]]:
        """All messages that have arrived."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            yield from _messages(data)


def _encoded(asked: Request, flags: int, sequence: int) -> bytes:
    length = _HEADER.size + len(asked.body)
    header = _HEADER.pack(length, asked.kind, NLM_F_REQUEST | flags, sequence, 0)
    return header + asked.body + bytes(-length % 4)


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, sequence number and all bytes of each message in *data*."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3


def _failure(message: bytes, flags: int, asked: Request) -> OSError | None:
    """The OSError of an NLMSG_ERROR; None if it says success, or what *asked* ignores."""
    (code,) = struct.unpack_from("=i", message, _HEADER.size)
    if code == 0 or -code in asked.ignore:
        return None
    reason = _explanation(message) if flags & _NLM_F_ACK_TLVS else ""
    return OSError(-code, f"{asked.what}: {os.strerror(-code)}" + (f" ({reason})" if reason else ""))


def _explanation(message: bytes) -> str:
    """The kernel's sentence in an NLMSG_ERROR, which follows the code and the header of what was asked."""
    for kind, value in attributes_of(message[_HEADER.size + 4 + _HEADER.size :]):
        if kind == _NLMSGERR_ATTR_MSG:
            return value.rstrip(b"\0").decode(errors="replace")
    return ""


def attributes_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each attribute in *data*."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
