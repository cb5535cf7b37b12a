"""The host's name servers, resolv.conf(5), and whether they have changed: a laptop that moves, a VPN that comes up."""

import ipaddress
import os
import socket

RESOLV_CONF = "/etc/resolv.conf"
_MOST_SERVERS = 3  # resolv.conf(5): MAXNS
_MOST_BYTES = 64 << 10
_LOCAL = "127.0.0.1"  # resolv.conf(5): without a file or a line in it, the name server on this machine


class Resolvers:
    """The servers, as they were when last looked at."""

    __slots__ = ("_path", "_seen", "servers")

    def __init__(self, path: str = RESOLV_CONF) -> None:
        self._path = path
        self._seen = _identity(path)
        self.servers = load(path)

    def changed(self) -> bool:
        """Look again; whether *servers* are others than before."""
        identity = _identity(self._path)
        if identity == self._seen:
            return False
        self._seen = identity
        before, self.servers = self.servers, load(self._path)
        return self.servers != before


def _identity(path: str) -> tuple[int, ...]:
    """What differs once the file, or what its symbolic link leads to, is written or replaced."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def load(path: str) -> list[str]:
    """The servers of the file at *path*. A file that cannot be read has none."""
    try:
        with open(path, "rb") as file:
            return [_numbered(server) for server in parse(file.read(_MOST_BYTES).decode("ascii", "replace"))]
    except OSError:
        return [_LOCAL]


def parse(text: str) -> list[str]:
    """Addresses of the `nameserver` lines, in order, IPv6 with the zone that it may have ("fe80::1%eth0")."""
    found = []
    for line in text.splitlines():
        words = line.split()
        # As the C library has it: the keyword stands at the very beginning of its line.
        if len(words) > 1 and words[0] == "nameserver" and line.startswith("nameserver") and _is_address(words[1]):
            found.append(words[1])
    return found[:_MOST_SERVERS] or [_LOCAL]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _numbered(server: str) -> str:
    """With the interface's number in place of its name, which the stack has no means to look up."""
    address, _, zone = server.partition("%")
    if not zone or zone.isdecimal():
        return server
    try:
        return f"{address}%{socket.if_nametoindex(zone)}"
    except OSError:
        return server  # there is no such interface: the server cannot be reached, and is asked in vain
