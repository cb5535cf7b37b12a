"""A netlink socket of a network namespace: several requests in one send, errors as OSError.

The kernel works a batch off inside of send(2), so all answers are there when it returns: nothing here waits. An error
is always answered; success only where it is asked for, which is the last request of a batch. With NETLINK_EXT_ACK the
kernel adds a sentence on what it did not like (netlink(7)). pyroute2 encodes and decodes the messages; its own sockets
run an asyncio loop for each request.

nftables takes its requests between two marks, BATCH_BEGIN and BATCH_END, as one transaction: all of it or nothing.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, nlmsg
from pyroute2.netlink.nfnetlink import nfgen_msg

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NO_FIELDS: Mapping[str, int] = MappingProxyType({})
CREATE = NLM_F_CREATE | NLM_F_EXCL
REPLACE = NLM_F_CREATE | NLM_F_REPLACE

# <linux/netlink.h>, <linux/netfilter/nfnetlink.h>
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_NFNL_SUBSYS_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_RECEIVE = 65536


class Request(NamedTuple):
    """One message to the kernel, encoded. *what* names it in errors; an errno in *ignore* is as good as success."""

    what: str
    kind: int
    flags: int
    body: bytes  # what follows the header
    ignore: tuple[int, ...] = ()


def request(
    what: str,
    kind: int,
    message: nlmsg,
    attributes: Sequence[tuple[str, object]] = (),
    fields: Mapping[str, int] = NO_FIELDS,
    *,
    flags: int = 0,
    ignore: tuple[int, ...] = (),
) -> Request:
    """A Request of *message*, an empty one of pyroute2's, with *fields* of its own header and *attributes*."""
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(attributes)
    message.encode()
    return Request(what, kind, flags, bytes(message.data[_HEADER.size :]), ignore)


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
        mark = request("transaction", _BATCH_BEGIN, nfgen_msg(), fields={"res_id": _NFNL_SUBSYS_NFTABLES})
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
    for kind, value in _attributes(message[_HEADER.size + 4 + _HEADER.size :]):
        if kind == _NLMSGERR_ATTR_MSG:
            return value.rstrip(b"\0").decode(errors="replace")
    return ""


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
