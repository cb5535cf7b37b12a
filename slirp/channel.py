"""JSON objects with descriptors over a SOCK_SEQPACKET socket: between hub and stack, and between hub and commands.

A message is one datagram; it is there whole or not at all. Descriptors that arrive are close-on-exec.
"""

import json
import socket
import struct

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any

MAX_MESSAGE = 128 << 10  # bytes
MAX_DESCRIPTORS = 64
_SPACE = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)


class Malformed(Exception):
    """What came is no JSON object, or has been cut off."""


def pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair, close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def encoded(message: "dict[str, Any]") -> bytes:
    """The bytes of *message*. Raises ValueError where they are too many."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(data)} bytes")
    return data


def send(channel: socket.socket, message: "dict[str, Any]", fds: tuple[int, ...] | list[int] = ()) -> None:
    """Send one message. Raises OSError: EPIPE where the other side is gone, BlockingIOError where it does not read."""
    if len(fds) > MAX_DESCRIPTORS:
        raise ValueError(f"a message with {len(fds)} descriptors")
    data = encoded(message)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    channel.sendmsg([data], rights, socket.MSG_NOSIGNAL)


def receive(channel: socket.socket) -> "tuple[dict[str, Any] | None, list[int]]":
    """The next message and its descriptors, which the caller owns; None at the end.

    Raises Malformed (descriptors are closed then) and OSError; BlockingIOError where there is none.
    """
    data, ancillary, flags, _ = channel.recvmsg(MAX_MESSAGE, _SPACE, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, rights in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds += struct.unpack(f"{len(rights) // 4}i", rights[: len(rights) // 4 * 4])
    if not data and not fds:
        return None, []
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise Malformed("a message was cut off")
        message = json.loads(data)
        if not isinstance(message, dict):
            raise Malformed("a message that is no object")
    except (ValueError, RecursionError, Malformed) as error:
        for fd in fds:
            socket.close(fd)
        raise Malformed(str(error)) from error
    return message, fds
