"""UDP flows: what is known of one, the table of all of them, and the sockets that they are made of.

A flow is a container's address and port, and the peer's as the container knows it. It has a socket on the host's side,
connected to the real peer, and on the kernel path one of the network's namespace, connected to the container.

UDP has no connect that tells a socket its port and its peer at once: between bind(2) and connect(2) it hears everybody,
and what it has heard stays in its queue. So that no flow is given another's datagrams, the queue is emptied right after
connect, and each datagram's sender is looked at (`strays`).
"""

import socket
from collections.abc import Callable, Iterator

from slirp.model import unpacked

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    Key = tuple[str, bytes, int, bytes, int]  # network, container's address and port, the peer's as it knows them

MOST_OF_CONTAINER = 4096
MOST = 16384
FIRST_IDLE = 30.0  # seconds, as long as only one side has spoken
IDLE = 180.0  # RFC 4787 REQ-5: two minutes and more
DNS_IDLE = 10.0
ROOM = 1 << 20  # bytes that the kernel may hold of a busy flow, in each socket (less, if net.core.rmem_max says so)
DNS_PORT = 53
QUIET = 10.0  # seconds between complaints
_LONGEST_DRAIN = 512  # datagrams: more than fit a socket's queue in the time between two system calls
_SO_RCVBUF, _SO_SNDBUF = socket.SO_RCVBUF, socket.SO_SNDBUF


class Flow:
    """One flow. *sent* and *received* are bytes, as the container sees it."""

    __slots__ = (
        *("container", "ended", "first", "handle", "heard", "host", "inner", "key", "last", "loopback", "received"),
        *("sent", "singly_in", "singly_out", "spoken", "started", "to"),
    )

    def __init__(self, key: "Key", container: str, host: socket.socket, to: tuple[bytes, int], now: float) -> None:
        self.key = key
        self.container = container
        self.host = host
        self.to = to  # whom the host's socket is connected to
        self.inner: socket.socket | None = None
        self.handle = -1  # of the published port that a client has come in by
        self.ended: Callable[[], None] | None = None  # what that port is to be told
        self.loopback = False
        self.first = b""  # what ::1 is asked where 127.0.0.1 refuses
        self.started = self.last = now
        self.spoken = 0  # datagrams from the container that came by the tun
        self.singly_in = self.singly_out = 0  # how often to relay one datagram only, before looking for more
        self.heard = 0  # datagrams to the container that went by the tun
        self.sent = 0
        self.received = 0

    def idle(self) -> float:
        """The seconds of silence after which it is over."""
        if self.key[4] == DNS_PORT:
            return DNS_IDLE
        return IDLE if self.sent and self.received else FIRST_IDLE

    def described(self, now: float) -> dict[str, object]:
        """For people who ask what is going on."""
        _, address, port, peer, peer_port = self.key
        ends = spelled(address, port), spelled(peer, peer_port)
        inbound = self.handle >= 0
        return {
            "container": self.container,
            "protocol": "udp",
            "direction": "in" if inbound else "out",
            "source": ends[inbound],
            "destination": ends[not inbound],
            "host": spelled(*self.to),
            "state": "assured" if self.sent and self.received else "unreplied",
            "sent": self.sent,
            "received": self.received,
            "age": round(now - self.started, 1),
            "path": "kernel" if self.inner else "user",
        }


class Flows:
    """All flows by key, and those of each container. Whoever removes one closes it.

    A flow has two descriptors. Of those that this process may have, *descriptors*, flows take a quarter at most.
    """

    __slots__ = ("_most", "_most_of_container", "_of_container", "all")

    def __init__(self, descriptors: int) -> None:
        self._most = min(MOST, max(descriptors // 8, 32))
        self._most_of_container = min(MOST_OF_CONTAINER, max(self._most // 2, 16))
        self.all: dict[Key, Flow] = {}
        self._of_container: dict[str, dict[Key, Flow]] = {}

    def add(self, flow: Flow) -> None:
        """Take it in."""
        self.all[flow.key] = flow
        self._of_container.setdefault(flow.container, {})[flow.key] = flow

    def remove(self, flow: Flow) -> None:
        """Take it out, if it is in."""
        if self.all.get(flow.key) is flow:
            del self.all[flow.key]
            mine = self._of_container[flow.container]
            del mine[flow.key]
            if not mine:
                del self._of_container[flow.container]

    def of(self, container: str | None) -> list[Flow]:
        """Those of a container (id), or all."""
        return list((self.all if container is None else self._of_container.get(container, {})).values())

    def surplus(self, container: str) -> list[Flow]:
        """Which have to go before *container* can have another: the longest idle of its own, or of who has most."""
        mine = self._of_container.get(container, {})
        if len(mine) >= self._most_of_container:
            return _longest_idle(mine)
        return self.oldest() if len(self.all) >= self._most else []

    def oldest(self) -> list[Flow]:
        """The longest idle of the container that has most: a flood is not to cost others their flows."""
        return _longest_idle(max(self._of_container.values(), key=len, default={}))

    def silent(self, now: float) -> list[Flow]:
        """Those that have been idle for too long."""
        return [flow for flow in self.all.values() if now - flow.last > flow.idle()]


def _longest_idle(flows: "dict[Key, Flow]") -> list[Flow]:
    """A sixteenth at once, so that a flood of flows does not look through the table for each."""
    return sorted(flows.values(), key=lambda flow: flow.last)[: len(flows) // 16 + 1]


class Complaints:
    """Lines for the log about what goes wrong for single flows: one in a while, since anybody may bring them about."""

    __slots__ = ("_log", "_silent_until", "_unsaid")

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._silent_until = float("-inf")
        self._unsaid = 0

    def say(self, line: str, now: float) -> None:
        """Log it, unless something has been logged a moment ago."""
        if now < self._silent_until:
            self._unsaid += 1
            return
        more = f" (and {self._unsaid} times more)" if self._unsaid else ""
        self._silent_until, self._unsaid = now + QUIET, 0
        self._log(line + more)


def new_socket(address: bytes) -> socket.socket:
    """A UDP socket of the address's family, of the host's namespace, which does not block."""
    family = socket.AF_INET6 if len(address) == 16 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if len(address) == 16:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


def adopted(descriptor: int, address: bytes, port: int) -> socket.socket:
    """The socket of a network's namespace that *descriptor* is, bound as said. Raises OSError, having closed it.

    With port 0, to a port that no other has: sockets with SO_REUSEADDR, as these come, would be given one twice.
    """
    family = socket.AF_INET6 if len(address) == 16 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM, 0, fileno=descriptor)
    try:
        if not port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        made.bind((unpacked(address), port))
    except OSError:
        made.close()
        raise
    return made


def make_room(*sockets: socket.socket) -> None:
    """Let the kernel hold a busy flow's batches in both directions."""
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUF, ROOM)
        one.setsockopt(socket.SOL_SOCKET, _SO_SNDBUF, ROOM)


def strays(connected: socket.socket) -> Iterator[tuple[bytes, tuple[str, int]]]:
    """What a socket had heard before it was connected: datagrams and their senders."""
    for _ in range(_LONGEST_DRAIN):
        try:
            data, sender = connected.recvfrom(65535)
        except OSError:  # nothing, or an error of what was sent: whoever uses the socket next meets it again
            return
        yield data, sender[:2]


def spelled(address: bytes, port: int) -> str:
    """An address and a port as text."""
    host = unpacked(address)
    return f"[{host}]:{port}" if len(address) == 16 else f"{host}:{port}"
