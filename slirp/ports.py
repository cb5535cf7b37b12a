"""Published ports: listening sockets in the host's namespace, at exactly the address that was asked for.

An empty address is all of them: 0.0.0.0, and [::] for IPv6 alone, two sockets with one port number. Whoever is second
to ask for a port fails, whether a container of ours has it or anybody else: SO_REUSEADDR, which TCP needs lest the
connections of the last container (TIME_WAIT) keep the port, never lets two listeners share one, socket(7). UDP knows no
TIME_WAIT, and there it would let a second socket take the datagrams: it stays off.
"""

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import NamedTuple

from slirp.errors import Conflict, HostUnsupported, InvalidInput, SlirpError

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any

_BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn
_RANDOM_TRIES = 16  # ports that are free in IPv4 and taken in IPv6
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FIRST_UNPRIVILEGED = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


class Port(NamedTuple):
    """A port of a container and its place on the host; host_ip "" are all addresses, host_port 0 any free one."""

    protocol: str  # "tcp", "udp"
    host_ip: str
    host_port: int
    container_port: int
    host_port_last: int = 0  # asked for a range, up to this one: the first that is free

    def means(self, actual: "Port") -> bool:
        """Whether a request for this one is about *actual*."""
        return (
            (self.protocol, self.container_port) == (actual.protocol, actual.container_port)
            and self.host_ip in ("", actual.host_ip)
            and self.host_port in (0, actual.host_port)
        )


class Binding(NamedTuple):
    """A port that listens; what STACK and HUB call it is *handle*."""

    handle: int
    port: Port  # as it is, never "" or 0
    sock: socket.socket

    def told(self) -> "dict[str, Any]":
        """As commands are told."""
        return {name: value for name, value in self.port._asdict().items() if name != "host_port_last"}


def parse(told: "dict[str, Any]") -> Port:
    """A port as it is asked for. Raises InvalidInput."""
    protocol, ip = told.get("protocol") or "tcp", told.get("host_ip") or ""
    host_port, container_port = told.get("host_port") or 0, told.get("container_port")
    if protocol not in _KINDS:
        raise InvalidInput(f"cannot publish a port of protocol {protocol!r}: tcp and udp are known")
    if not _is_number(host_port, 0) or not _is_number(container_port, 1):
        raise InvalidInput(f"invalid port: {host_port!r} to {container_port!r}")
    last = told.get("host_port_last") or 0
    if last and not (_is_number(last, 1) and 0 < host_port <= last):
        raise InvalidInput(f"invalid range of ports: {host_port!r} to {last!r}")
    return Port(protocol, _plain(ip), host_port, int(str(container_port)), last)


def _is_number(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= 65535


def _plain(ip: object) -> str:
    if not ip:
        return ""
    try:
        address = ipaddress.ip_address(str(ip).strip("[]"))
    except ValueError as error:
        raise InvalidInput(f"invalid IP address {ip!r} for a port") from error
    if getattr(address, "ipv4_mapped", None):
        raise InvalidInput(f"invalid IP address {ip!r} for a port: write it as IPv4")
    return str(address)


class Ports:
    """All that listen, by handle."""

    __slots__ = ("_bindings", "_last", "_places")

    def __init__(self) -> None:
        self._bindings: dict[int, Binding] = {}
        self._places: dict[tuple[str, int], list[str]] = {}  # addresses by protocol and number: there may be thousands
        self._last = 0

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._bindings.values())

    def open(self, port: Port) -> list[Binding]:
        """Listen there: one binding, or one for each family. All or nothing.

        Raises Conflict where somebody listens there, HostUnsupported where the number is root's alone, SlirpError.
        """
        if port.host_port_last:
            return self._open_first(port)
        if port.host_ip:
            return [self._keep(*self._listen(port))]
        if port.host_port:
            return self._open_both(port)
        for _ in range(_RANDOM_TRIES):
            try:
                return self._open_both(port)
            except Conflict:
                continue  # free in one family and taken in the other: the kernel knows more
        raise SlirpError(f"no free port for {port.container_port}/{port.protocol} in both families")

    def _open_first(self, port: Port) -> list[Binding]:
        for number in range(port.host_port, port.host_port_last + 1):
            try:
                return self.open(port._replace(host_port=number, host_port_last=0))
            except Conflict:
                continue
        raise Conflict(
            f"Bind for {_where(port)}-{port.host_port_last} failed: all ports are allocated",
            hint="another range may have one that is free",
        )

    def _open_both(self, port: Port) -> list[Binding]:
        actual, first = self._listen(port._replace(host_ip="0.0.0.0"))
        try:
            second = self._listen(actual._replace(host_ip="::"))
        except _NoFamily:
            return [self._keep(actual, first)]
        except BaseException:
            first.close()
            raise
        return [self._keep(actual, first), self._keep(*second)]

    def _keep(self, port: Port, sock: socket.socket) -> Binding:
        self._last += 1
        binding = self._bindings[self._last] = Binding(self._last, port, sock)
        self._places.setdefault((port.protocol, port.host_port), []).append(port.host_ip)
        return binding

    def close(self, binding: Binding) -> None:
        """No longer listen, at once, though STACK may have the socket open for a moment more."""
        del self._bindings[binding.handle]
        place = binding.port.protocol, binding.port.host_port
        self._places[place].remove(binding.port.host_ip)
        if not self._places[place]:
            del self._places[place]
        if binding.port.protocol == "tcp":
            try:
                binding.sock.shutdown(socket.SHUT_RD)  # a listener leaves LISTEN for all who have it: tcp(7) is silent
            except OSError:
                pass  # it did not listen any more
        binding.sock.close()

    def _listen(self, port: Port) -> tuple[Port, socket.socket]:
        """A socket that listens at *port*, and the port with its actual number."""
        if port.host_port and self.taken(port):
            raise Conflict(f"Bind for {_where(port)} failed: port is already allocated")
        try:
            sock = _listening(port)
        except OSError as error:
            raise _told_why(port, error) from error
        return port._replace(host_port=sock.getsockname()[1]), sock

    def taken(self, port: Port) -> bool:
        """Whether one of ours listens there; host_ip "" is everywhere."""
        return any(_overlap(port.host_ip, ip) for ip in self._places.get((port.protocol, port.host_port), ()))


def _overlap(one: str, other: str) -> bool:
    """Whether a listener at the address *one* ("" is all) would be one at *other* as well."""
    if not one:
        return True
    if (":" in one) != (":" in other):
        return False
    return one == other or bool({one, other} & {"0.0.0.0", "::"})


def _listening(port: Port) -> socket.socket:
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    sock = socket.socket(family, _KINDS[port.protocol] | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port.protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(_socket_address(port))
        if port.protocol == "tcp":
            sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _socket_address(port: Port) -> tuple[str, int] | tuple[str, int, int, int]:
    if ":" not in port.host_ip:
        return port.host_ip, port.host_port
    ip, _, zone = port.host_ip.partition("%")
    if not zone:
        return ip, port.host_port, 0, 0
    return ip, port.host_port, 0, int(zone) if zone.isdigit() else socket.if_nametoindex(zone)


class _NoFamily(SlirpError):
    """This machine has no IPv6, or none on any interface."""


def _told_why(port: Port, error: OSError) -> SlirpError:
    """What Docker says there, and what can be done."""
    start = f"Bind for {_where(port)} failed: "
    code = error.errno
    if code == errno.EADDRINUSE:
        return Conflict(start + "address already in use", hint=f"`ss -lnp 'sport = {port.host_port}'` shows who has it")
    if code == errno.EACCES:
        return HostUnsupported(start + "permission denied", hint=_privileged_hint(port))
    if port.host_ip == "::" and code in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
        return _NoFamily(start + os.strerror(code or 0))
    if code == errno.EADDRNOTAVAIL:
        return InvalidInput(start + "cannot assign requested address", hint="no interface of this machine has it")
    return SlirpError(start + (error.strerror or str(error)).lower())


def _privileged_hint(port: Port) -> str:
    try:
        with open(_FIRST_UNPRIVILEGED, encoding="ascii") as file:
            first = int(file.read())
    except (OSError, ValueError):
        first = 1024
    if port.host_port >= first:
        return ""
    return (
        f"ports below {first} are root's on this machine: take a higher one, or have root run"
        f" `sysctl net.ipv4.ip_unprivileged_port_start={port.host_port}`"
    )


def _where(port: Port) -> str:
    ip = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    return f"{ip}:{port.host_port}"
