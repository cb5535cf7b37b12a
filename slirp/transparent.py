"""Sockets inside of a network's namespace, made for the stack, which can make none there.

A transparent socket may have any address for its own (IP_TRANSPARENT, ip(7)): that of the server that a container
calls, or of the client that calls a container. Making one takes CAP_NET_ADMIN over the namespace; binding and
connecting it afterwards takes nothing.
"""

import socket

from slirp.namespaces import run_in

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("tcp4", "tcp6", "udp4", "udp6", "plain4", "plain6")
_IPV6_TRANSPARENT = 75  # <linux/in6.h>
_BACKLOG = 4096
_DNS_BACKLOG = 128


def make_sockets(netns_fd: int, kind: str, count: int) -> list[int]:
    """*count* descriptors of sockets in the namespace of *netns_fd*, neither bound nor connected.

    The kinds tcpN and udpN are transparent, plainN are ordinary TCP sockets; N is 4 or 6, and 6 means IPv6 alone. All
    are non-blocking, and closed on exec. Raises OSError, having closed what was made; KeyError for another kind.
    """
    family = {"4": socket.AF_INET, "6": socket.AF_INET6}[kind[-1]]
    type_, transparent = {
        "tcp": (socket.SOCK_STREAM, True),
        "udp": (socket.SOCK_DGRAM, True),
        "plain": (socket.SOCK_STREAM, False),
    }[kind[:-1]]

    def make() -> list[int]:
        made: list[socket.socket] = []
        try:
            for _ in range(count):
                made.append(_socket(family, type_, transparent=transparent))
        except OSError:
            for one in made:
                one.close()
            raise
        return [one.detach() for one in made]

    return run_in(netns_fd, make)


def dns_sockets(address: str) -> dict[str, int]:
    """Descriptors of "dns-udpN" and "dns-tcpN", bound to port 53 of the gateway's *address*, in this namespace."""
    family, version = _family(address)
    return _all_or_none(
        {
            f"dns-udp{version}": lambda: _bound(family, socket.SOCK_DGRAM, (address, 53)),
            f"dns-tcp{version}": lambda: _bound(family, socket.SOCK_STREAM, (address, 53), backlog=_DNS_BACKLOG),
        }
    )


def listener(address: str, port: int) -> dict[str, int]:
    """The descriptor of "tproxyN", which accepts what the rules hand over, in this namespace."""
    family, version = _family(address)
    where = (address, port)
    return {f"tproxy{version}": _bound(family, socket.SOCK_STREAM, where, transparent=True, backlog=_BACKLOG).detach()}


def _family(address: str) -> tuple[int, int]:
    return (socket.AF_INET6, 6) if ":" in address else (socket.AF_INET, 4)


def _socket(family: int, type_: int, *, transparent: bool = False) -> socket.socket:
    made = socket.socket(family, type_ | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transparent and family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        elif transparent:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
    except OSError:
        made.close()
        raise
    return made


def _bound(
    family: int, type_: int, where: tuple[str, int], *, transparent: bool = False, backlog: int = 0
) -> socket.socket:
    made = _socket(family, type_, transparent=transparent)
    try:
        made.bind(where)
        if backlog:
            made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made


def _all_or_none(makers: "dict[str, Callable[[], socket.socket]]") -> dict[str, int]:
    made: dict[str, socket.socket] = {}
    try:
        for name, make in makers.items():
            made[name] = make()
    except OSError:
        for one in made.values():
            one.close()
        raise
    return {name: one.detach() for name, one in made.items()}
