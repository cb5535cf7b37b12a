"""Networks: what each is asked to be. The addresses that containers have on them are slirp's, and not on disk.

    networks/NAME.json      one record each, made aside and renamed to its place

`bridge` is a record like the others, made when it is first needed. `host` and `none` stand for a mode rather than for a
network, are always there, and never on disk.
"""

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from rootless.errors import Conflict, InvalidInput, NotFound
from rootless.store.layout import Layout, load_record, quote, save_record

BRIDGE = "bridge"  # the name of the network of containers that ask for none, and the one driver
LARGEST_MTU = 65520  # of a network that asks for none: the more a packet carries, the fewer there are

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_ID_START = re.compile(r"[0-9a-f]{1,64}")
_LONGEST = 255


class Subnet(NamedTuple):
    """The addresses of one family."""

    subnet: str  # "172.17.0.0/16"
    gateway: str  # an address in it
    range: str = ""  # a part of the subnet, from which addresses are given; "" for all of it
    aux: Mapping[str, str] = {}  # name -> address in it that no container gets


class Network(NamedTuple):
    """A network."""

    name: str
    id: str  # 64 hexadecimal digits
    created: str = ""  # RFC 3339
    driver: str = BRIDGE
    internal: bool = False  # no way out
    attachable: bool = False
    ipv4: Subnet | None = None
    ipv6: Subnet | None = None
    options: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    mtu: int = LARGEST_MTU
    icc: bool = True  # whether its containers reach each other
    egress: list[str] | None = None  # what its containers may reach; None for everything

    @property
    def has_names(self) -> bool:
        """Whether containers on it find each other by name: on all but the default one, as in Docker."""
        return self.name != BRIDGE

    def asked(self) -> dict[str, Any]:
        """The network as slirp is told of it (NETWORK)."""
        return {
            "id": self.id,
            "name": self.name,
            "ipv4": _asked(self.ipv4),
            "ipv6": _asked(self.ipv6),
            "internal": self.internal,
            "names": self.has_names,
            "icc": self.icc,
            "mtu": self.mtu,
            "egress": self.egress,
        }


def _asked(subnet: Subnet | None) -> dict[str, Any] | None:
    return None if subnet is None else {**subnet._asdict(), "aux": list(subnet.aux.values())}


# Their ids are their names, so that they are the same everywhere.
HOST = Network("host", b"host".hex().ljust(64, "0"), driver="host")
NONE = Network("none", b"none".hex().ljust(64, "0"), driver="null")
BUILT_IN = (BRIDGE, HOST.name, NONE.name)


def check_name(name: str) -> str:
    """*name*, if a network may be called so. Raises InvalidInput."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise InvalidInput(f"invalid network name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name


class Networks:
    """The networks of a store."""

    __slots__ = ("_layout",)

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def lock(self) -> AbstractContextManager[int]:
        """Hold this to create and remove networks, and from choosing a subnet until its record is there."""
        return self._layout.lock("networks")

    def _path(self, name: str) -> str:
        return self._layout.path("networks", f"{quote(name)}.json")

    def create(self, network: Network) -> Network:
        """Let the network be there. Hold the lock. Raises Conflict where its name is taken."""
        path = self._path(check_name(network.name))
        if network.name in (HOST.name, NONE.name) or os.path.exists(path):
            raise Conflict(f"network with name {network.name} already exists")
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        staged = self._layout.aside()
        save_record(staged, _to_record(network))
        os.rename(staged, path)
        return network

    def load(self, name: str) -> Network:
        """The network of that name. Raises NotFound; also for `bridge`, as long as nobody has needed it."""
        if name == HOST.name:
            return HOST
        if name == NONE.name:
            return NONE
        if _NAME.fullmatch(name) and len(name) <= _LONGEST:
            try:
                return _from_record(load_record(self._path(name)))
            except FileNotFoundError:
                pass
        raise NotFound(f"network {name} not found")

    def find(self, text: str) -> Network:
        """The network that *text* means: a name, an id, or the beginning of one. Raises NotFound, Conflict."""
        try:
            return self.load(text)
        except NotFound:
            if not _ID_START.fullmatch(text):
                raise
        matches = [network for network in self.list() if network.id.startswith(text)]
        if not matches:
            raise NotFound(f"network {text} not found")
        if len(matches) > 1:
            raise Conflict(f"network {text} is ambiguous ({len(matches)} matches found based on ID prefix)")
        return matches[0]

    def list(self) -> list[Network]:
        """All networks by name, host and none among them."""
        found = [HOST, NONE]
        try:
            names = os.listdir(self._layout.path("networks"))
        except FileNotFoundError:
            names = []
        for name in names:
            try:
                found.append(_from_record(load_record(self._layout.path("networks", name))))
            except FileNotFoundError:
                continue  # removed meanwhile
        return sorted(found, key=lambda network: network.name)

    def remove(self, network: Network) -> None:
        """Remove a network that nobody uses. Hold the lock."""
        self._layout.discard(self._path(network.name))


def _to_record(network: Network) -> dict[str, Any]:
    record = network._asdict()
    for family in ("ipv4", "ipv6"):
        if record[family] is not None:
            record[family] = record[family]._asdict()
    return record


def _from_record(record: dict[str, Any]) -> Network:
    for family in ("ipv4", "ipv6"):
        if record[family] is not None:
            record[family] = Subnet(**record[family])
    return Network(**record)
