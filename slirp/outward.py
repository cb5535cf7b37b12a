"""May this container reach that, and what is it called from the host's side? Asked once for each flow.

Never: the host's loopback, however it is spelled (127.0.0.0/8, ::1, 0.0.0.0, ::, IPv4 inside of IPv6), what is sent to
many, link-local IPv6 (which means nothing without an interface), and the subnets of the user's own networks, which only
their bridges lead to. Such destinations look unreachable. HOST_LOOPBACK stands for the host's loopback, for containers
that were given it. A network that is internal has no outside.

Where the container or its network has egress rules, each of the two must allow the destination, or it is prohibited,
counted, and told to the user. A rule with a name allows those addresses that our DNS has given *this container* for
that name (`learn`), as long as the answer is valid, and beyond that as long as a flow to it lives: a client with a pool
of connections does not ask again for each. Names that no rule speaks of are not to be resolved (`may_resolve`): DNS
would otherwise be a way out of its own.
"""

import time
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from slirp.egress import Rules, canonical, parse_block, parse_rules
from slirp.loop import Loop
from slirp.model import HOST_LOOPBACK, Endpoint, Model, Network, unpacked

SHORTEST_LIFE = 60.0  # seconds that a name's address is good for, whatever its TTL
LONGEST_LIFE = 86400.0
MOST_LEARNED = 4096  # addresses with their names, per container
MOST_NAMES = 16  # per address: behind one there may be thousands of names
MOST_DENIALS = 256  # kept apart from each other, per container
LINES_PER_MINUTE = 20
QUIET = 60.0  # seconds before the same denial is told again
_MOST_RULES_KNOWN = 256

HOST_NAMES = ("host.docker.internal", "host.containers.internal")
_LOCALHOST = bytes((127, 0, 0, 1))
_FORBIDDEN = tuple(
    parse_block(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"),  # this host, loopback, multicast and reserved and broadcast
        *("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96"),  # ::, ::1, and IPv4 compatible, mapped and translated
        *("fe80::/10", "ff00::/8"),
    )
)
_NAT64 = parse_block("64:ff9b::/96")
_6TO4 = parse_block("2002::/16")


class Route(NamedTuple):
    """What to connect to from the host's side. *loopback*: it is 127.0.0.1, and if that refuses, ::1."""

    address: bytes
    port: int
    loopback: bool


class Refusal(IntEnum):
    """Why there is no route: as if nobody were there, or by the user's policy."""

    UNREACHABLE = 1
    PROHIBITED = 2


class _Denial:
    __slots__ = ("count", "last", "name", "told")

    def __init__(self) -> None:
        self.count = 0
        self.last = 0.0
        self.name = ""
        self.told = float("-inf")


@lru_cache(maxsize=1024)
def forbidden(address: bytes) -> bool:
    """Whether no container may ever reach *address*, by itself or wrapped into IPv6."""
    if any(block.holds(address) for block in _FORBIDDEN):
        return True
    if len(address) == 4:
        return False
    if _NAT64.holds(address):
        return forbidden(address[12:])
    return _6TO4.holds(address) and forbidden(address[2:6])


class Outward:
    """The policy for all containers, the names they have learned, and what was denied."""

    __slots__ = ("_denied", "_learned", "_lines", "_log", "_loop", "_model", "_rules", "_subnets", "_unsaid", "live")

    def __init__(self, model: Model, loop: Loop, log: Callable[[str], None]) -> None:
        self._model = model
        self._loop = loop
        self._log = log
        self._rules: dict[tuple[str, ...], Rules] = {}
        self._subnets: dict[str, Callable[[bytes], bool]] = {}
        self._learned: dict[str, dict[bytes, dict[str, float]]] = {}  # container → address → name → valid until
        self._denied: dict[str, dict[tuple[str, bytes, int], _Denial]] = {}
        self._lines: list[float] = []
        self._unsaid = 0
        # Asked whether a flow of a container (id) to an address lives; each protocol's handler adds itself.
        self.live: list[Callable[[str, bytes], bool]] = []

    def route(
        self, network: Network, endpoint: Endpoint, protocol: str, destination: bytes, port: int
    ) -> Route | Refusal:
        """What stands for *destination* on the host's side, or why nothing does. *port* is 0 for "icmp"."""
        route = self._judge(network, endpoint, destination, port)
        if route is Refusal.PROHIBITED:
            self._deny(endpoint.container.id, protocol, destination, port)
        return route

    def permits(self, container_id: str, network_id: str, address: bytes, destination: bytes, port: int) -> bool:
        """Whether a flow of the container, from its *address* on a network, may go on. Denials are not counted."""
        endpoint = self.endpoint(container_id, network_id, address)
        return endpoint is not None and isinstance(self._judge(endpoint.network, endpoint, destination, port), Route)

    def endpoint(self, container_id: str, network_id: str, address: bytes) -> Endpoint | None:
        """The container's endpoint, if *address* on that network is (still) its own."""
        network = self._model.networks.get(network_id)
        endpoint = self._model.endpoint(network, address) if network else None
        return endpoint if endpoint and endpoint.container.id == container_id else None

    def _judge(self, network: Network, endpoint: Endpoint, destination: bytes, port: int) -> Route | Refusal:
        container = endpoint.container
        loopback = destination == HOST_LOOPBACK
        if network.internal or (loopback and not container.host_loopback):
            return Refusal.UNREACHABLE
        if forbidden(destination) or self._own(destination):
            return Refusal.UNREACHABLE
        if network.egress is not None or container.egress is not None:
            names = self._names(container.id, destination)
            for texts in (container.egress, network.egress):
                if texts is not None and not self._parsed(texts).allow(destination, port, names):
                    return Refusal.PROHIBITED
        return Route(_LOCALHOST if loopback else destination, port, loopback)

    def may_resolve(self, container_id: str, name: str, network: Network | None = None) -> bool:
        """Whether *name* may be asked of the outside for this container.

        Rules of *network*, over which it asks, count as well; without one, those of all networks it is on.
        """
        container = self._model.containers.get(container_id)
        if container is None:
            return False
        networks = [network] if network else [endpoint.network for endpoint in container.endpoints]
        wanted = canonical(name)
        for texts in (container.egress, *(place.egress for place in networks)):
            if texts is not None and not self._parsed(texts).name(wanted):
                return False
        return True

    def learn(self, container_id: str, name: str, address: bytes, ttl: int) -> None:
        """Our DNS has told the container that *name* (as it asked) is at *address*, for *ttl* seconds."""
        container = self._model.containers.get(container_id)
        if container is None or not self._governed(container_id):
            return
        table = self._learned.setdefault(container_id, {})
        names = table.pop(address, {})  # put back at the end: the oldest answers go first
        until = self._loop.now() + min(max(float(ttl), SHORTEST_LIFE), LONGEST_LIFE)
        wanted = canonical(name)
        names[wanted] = max(until, names.pop(wanted, 0.0))
        if len(names) > MOST_NAMES:
            del names[next(iter(names))]
        table[address] = names
        if len(table) > MOST_LEARNED:
            del table[next(iter(table))]

    def forget(self, container_id: str) -> None:
        """The container is gone: what it has learned and what it was denied go too."""
        self._learned.pop(container_id, None)
        self._denied.pop(container_id, None)

    def denied(self, container_id: str | None = None) -> list[dict[str, object]]:
        """What egress rules have denied, to one container or to all; *last* is in seconds of the epoch."""
        rows: list[dict[str, object]] = []
        for container, denials in self._denied.items():
            if container_id in (None, container):
                for (protocol, address, port), denial in denials.items():
                    row = {"container": container, "protocol": protocol, "destination": _spelled(address, port)}
                    rows.append({**row, "name": denial.name, "count": denial.count, "last": denial.last})
        return rows

    def _governed(self, container_id: str) -> bool:
        container = self._model.containers[container_id]
        return container.egress is not None or any(e.network.egress is not None for e in container.endpoints)

    def _parsed(self, texts: list[str]) -> Rules:
        key = tuple(texts)
        rules = self._rules.get(key)
        if rules is None:
            if len(self._rules) >= _MOST_RULES_KNOWN:
                self._rules.clear()
            try:
                rules = parse_rules(texts)
            except ValueError as error:  # the hub has checked them; what is not understood allows nothing
                self._log(f"egress rule {error}: nothing is allowed")
                rules = Rules(())
            self._rules[key] = rules
        return rules

    def _own(self, address: bytes) -> bool:
        for network in self._model.networks.values():
            cidr = network.subnet4 if len(address) == 4 else network.subnet6
            if cidr:
                holds = self._subnets.get(cidr)
                if holds is None:
                    holds = self._subnets[cidr] = parse_block(cidr).holds
                if holds(address):
                    return True
        return False

    def _names(self, container_id: str, address: bytes) -> tuple[str, ...]:
        """The names that the container has for *address*. Those that have run out live on with the flows."""
        if address == HOST_LOOPBACK:
            return HOST_NAMES
        names = self._learned.get(container_id, {}).get(address)
        if not names:
            return ()
        now = self._loop.now()
        if any(until < now for until in names.values()):
            alive = any(lives(container_id, address) for lives in self.live)
            for name in [name for name, until in names.items() if until < now]:
                if alive:
                    names[name] = now + SHORTEST_LIFE
                else:
                    del names[name]
        return tuple(names)

    def _deny(self, container_id: str, protocol: str, address: bytes, port: int) -> None:
        names = self._names(container_id, address)
        denials = self._denied.setdefault(container_id, {})
        denial = denials.pop((protocol, address, port), None) or _Denial()
        denials[protocol, address, port] = denial
        if len(denials) > MOST_DENIALS:
            del denials[next(iter(denials))]
        denial.count += 1
        denial.last = time.time()
        denial.name = names[0] if names else ""
        now = self._loop.now()
        if now - denial.told >= QUIET:
            denial.told = now
            container = self._model.containers[container_id]
            host = f" ({denial.name})" if denial.name else ""
            self._tell(f"{container.name}: {protocol} to {_spelled(address, port)}{host} denied by --egress")

    def _tell(self, line: str) -> None:
        now = self._loop.now()
        self._lines = [when for when in self._lines if when > now - 60]
        if len(self._lines) >= LINES_PER_MINUTE:
            self._unsaid += 1
            return
        self._lines.append(now)
        more = f" (and {self._unsaid} other denials before)" if self._unsaid else ""
        self._unsaid = 0
        self._log(line + more)


def _spelled(address: bytes, port: int) -> str:
    host = unpacked(address)
    if not port:
        return host
    return f"[{host}]:{port}" if len(address) == 16 else f"{host}:{port}"
