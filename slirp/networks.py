"""The networks that are up. One is made at its first endpoint, and removed some seconds after its last has gone.

Between the two it keeps its addresses' order, so that a container that comes right after another does not get the
address that the other's peers still remember.
"""

from slirp import requests
from slirp.addresses import Pool
from slirp.errors import Conflict, HostUnsupported, InvalidInput
from slirp.links import NetworkLinks, Plan

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from slirp.attachment import Endpoint
    from slirp.kernel import Kernel
    from slirp.loop import Loop, Timer

_TUN_HINT = "have root run `modprobe tun` and `chmod 666 /dev/net/tun`"


class Network:
    """One of them: *asked* is what it is to be, *links* what the kernel has of it."""

    __slots__ = ("asked", "broken", "endpoints", "links", "pool4", "pool6", "timer")

    def __init__(self, asked: requests.Network, kernel: "Kernel") -> None:
        """Make it. Raises InvalidInput, HostUnsupported."""
        self.asked = asked
        self.pool4 = _pool(asked, asked.ipv4, 4)
        self.pool6 = _pool(asked, asked.ipv6, 6)
        if not self.pool4 and not self.pool6:
            raise InvalidInput(f"network {asked.name} has no subnet")
        self.endpoints: set[Endpoint] = set()
        self.timer: Timer | None = None
        self.broken = False  # a container could not be plugged in: whoever had the capability may have taken it apart
        self.links = self._make(kernel)

    def _make(self, kernel: "Kernel") -> NetworkLinks:
        gateway4, gateway6 = (f"{pool.gateway}/{pool.prefix}" if pool else "" for pool in (self.pool4, self.pool6))
        try:
            return kernel.links(Plan(gateway4, gateway6, self.asked.mtu, self.asked.icc))
        except OSError as error:
            message = f"cannot make network {self.asked.name}: {told_why(error)}"
            raise HostUnsupported(message, hint=_TUN_HINT if "tun" in message else "") from error

    def take(self, asked: requests.Endpoint) -> tuple[str, str]:
        """IPv4 and IPv6 address of an endpoint; "" where the network has none of that family. Raises SlirpError."""
        ipv4 = self._take(self.pool4, asked.ipv4, asked.previous[0], "IPv4")
        try:
            return ipv4, self._take(self.pool6, asked.ipv6, asked.previous[1], "IPv6")
        except BaseException:
            self.give_back(ipv4, "")
            raise

    def _take(self, pool: Pool | None, fixed: str, previous: str, family: str) -> str:
        if pool:
            return pool.take(fixed, previous)
        if fixed:
            raise InvalidInput(f"network {self.asked.name} has no {family} subnet for {fixed}")
        return ""

    def give_back(self, ipv4: str, ipv6: str) -> None:
        """The addresses of an endpoint."""
        for pool, address in ((self.pool4, ipv4), (self.pool6, ipv6)):
            if pool and address:
                pool.give_back(address)

    def told(self) -> "dict[str, Any]":
        """As STACK is told, without descriptors."""
        asked, pool4, pool6 = self.asked, self.pool4, self.pool6
        return {
            "do": "network",
            "id": asked.id,
            "name": asked.name,
            "gateway4": pool4.gateway if pool4 else "",
            "gateway6": pool6.gateway if pool6 else "",
            "subnet4": pool4.text if pool4 else "",
            "subnet6": pool6.text if pool6 else "",
            "internal": asked.internal,
            "names": asked.names,
            "kernel": self.links.support.tproxy,
            "mtu": asked.mtu,
            "egress": asked.egress,
        }


class Networks:
    """All of them, by id."""

    __slots__ = ("_by_id", "_kernel", "_linger", "_loop", "_tell")

    def __init__(
        self,
        loop: "Loop",
        kernel: "Kernel",
        linger: float,
        tell: "Callable[[dict[str, Any], list[int]], None]",
    ) -> None:
        """*tell* passes on to STACK what happens to them."""
        self._loop, self._kernel, self._linger, self._tell = loop, kernel, linger, tell
        self._by_id: dict[str, Network] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> "Iterator[Network]":
        return iter(self._by_id.values())

    def find(self, network_id: str) -> Network | None:
        """The one of that id, if it is up."""
        return self._by_id.get(network_id)

    def get(self, asked: requests.Network) -> Network:
        """The network as it is asked for, made if it is not there, or is out of order and nobody's.

        Raises Conflict where it is there, and different.

        Whoever has it and takes no endpoint says `used` all the same.
        """
        known = self._by_id.get(asked.id)
        if known and not known.endpoints and (known.asked != asked or known.broken):
            self._remove(known)
            known = None
        if known is None:
            known = self._by_id[asked.id] = Network(asked, self._kernel)
            self.tell(known)
        elif known.asked != asked:
            self._change(known, asked)
        return known

    def _change(self, network: Network, asked: requests.Network) -> None:
        """What STACK alone has to know may change while containers are there; what the kernel knows may not."""
        if network.asked._replace(name=asked.name, names=asked.names, egress=asked.egress) != asked:
            raise Conflict(f"network {network.asked.name} is in use, and different from what is asked for")
        network.asked = asked
        self._tell(network.told(), [])

    def tell(self, network: Network) -> None:
        """Tell STACK all of a network that it does not know yet."""
        fds = network.links.fds
        self._tell({**network.told(), "fds": list(fds)}, list(fds.values()))

    def used(self, network: Network) -> None:
        """Its endpoints have changed: decide how long it stays."""
        if network.timer:
            network.timer.cancel()
            network.timer = None
        if not network.endpoints and self._by_id.get(network.asked.id) is network:
            network.timer = self._loop.later(self._linger, lambda: self._expired(network))

    def _expired(self, network: Network) -> None:
        if not network.endpoints and self._by_id.get(network.asked.id) is network:
            self._remove(network)

    def _remove(self, network: Network) -> None:
        if network.timer:
            network.timer.cancel()
        del self._by_id[network.asked.id]
        self._tell({"do": "network-gone", "id": network.asked.id}, [])
        network.links.close()

    def close(self) -> None:
        """Remove all of them."""
        for network in list(self):
            self._remove(network)


def _pool(asked: requests.Network, subnet: requests.Subnet | None, version: int) -> Pool | None:
    if subnet is None:
        return None
    pool = Pool(subnet.subnet, subnet.gateway, part=subnet.part, aux=subnet.aux, name=asked.name)
    if (":" in pool.text) != (version == 6):
        raise InvalidInput(f"{subnet.subnet} is not an IPv{version} subnet")
    return pool


def told_why(error: OSError) -> str:
    """The error as text, with the file that it is about."""
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
