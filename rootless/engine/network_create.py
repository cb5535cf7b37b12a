"""network create: a record, with the subnets that are asked for or that are free."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.engine.names import random_id
from rootless.engine.networks import bridge
from rootless.errors import Conflict, HostUnsupported, InvalidInput
from rootless.network import pools
from rootless.network.pools import Pool
from rootless.runtime.jsonlog import now
from rootless.store.networks import BRIDGE, BUILT_IN, LARGEST_MTU, Network, Subnet, check_name

DRIVER = BRIDGE
_MTU = "com.docker.network.driver.mtu"
_ICC = "com.docker.network.bridge.enable_icc"
_LEAST_MTU = 1280  # IPv6's, RFC 8200; slirp takes no less for IPv4 either
_BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
# Options of Docker's driver that ask for what is so anyway, and the values that do. A name of an interface of the
# machine's says nothing where there is none.
_SO_ANYWAY = {
    "com.docker.network.bridge.enable_ip_masquerade": ("true", "1"),
    "com.docker.network.bridge.host_binding_ipv4": ("", "0.0.0.0"),
}
_INTERFACE = "com.docker.network.bridge.name"


class NetworkOptions(NamedTuple):
    """What network create asks for."""

    name: str
    driver: str = DRIVER
    subnets: Sequence[str] = ()
    gateways: Sequence[str] = ()
    ranges: Sequence[str] = ()
    aux: Mapping[str, str] = {}
    internal: bool = False
    attachable: bool = False
    ipv4: bool = True
    ipv6: bool = False
    options: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    egress: list[str] | None = None  # what may be reached; None for everything


def create_network(engine: Engine, options: NetworkOptions) -> Network:
    """Make a network. Raises InvalidInput, Conflict, and HostUnsupported for what needs more than a user may."""
    _check(options)
    mtu, icc = _settings(options)
    asked = pools.configure(options.subnets, gateways=options.gateways, ranges=options.ranges, aux=options.aux)
    bridge(engine)  # before others, so that it has the subnet that people expect of it
    network_id = random_id()
    with engine.networks.lock():
        ipv4, ipv6 = _choose(engine, options, asked, network_id)
        network = Network(
            options.name,
            network_id,
            now(),
            internal=options.internal,
            attachable=options.attachable,
            ipv4=ipv4,
            ipv6=ipv6,
            options=dict(options.options),
            labels=dict(options.labels),
            mtu=mtu,
            icc=icc,
            egress=options.egress,
        )
        created = engine.networks.create(network)
    events.of_network(engine, created, "create")
    return created


def _check(options: NetworkOptions) -> None:
    if options.driver != DRIVER:
        raise HostUnsupported(
            f'could not find plugin {options.driver} in v1 plugin registry: plugin "{options.driver}" not found',
            hint=f"there is one driver: {DRIVER}",
        )
    if options.name in (*BUILT_IN, "default"):
        raise Conflict(f"operation is not permitted on predefined {options.name} network")
    check_name(options.name)
    if not (options.ipv4 or options.ipv6):
        raise InvalidInput("IPv4 or IPv6 must be enabled")


def _settings(options: NetworkOptions) -> tuple[int, bool]:
    """(MTU, whether containers reach each other) of the driver's options."""
    mtu, icc = LARGEST_MTU, True
    for name, text in options.options.items():
        if name == _MTU:
            mtu = _parse_mtu(text)
        elif name == _ICC:
            if text.lower() not in _BOOLEANS:
                raise InvalidInput(f"invalid value for {name}: {text!r} is neither true nor false")
            icc = _BOOLEANS[text.lower()]
        elif name in _SO_ANYWAY and text not in _SO_ANYWAY[name]:
            raise HostUnsupported(f"{name}={text} is not there: networks do not touch what is the machine's")
        elif name not in _SO_ANYWAY and name != _INTERFACE:
            raise InvalidInput(f"invalid option: {name!r}", hint=f"there are: {_MTU}, {_ICC}")
    return mtu, icc


def _parse_mtu(text: str) -> int:
    mtu = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if mtu == 0:
        return LARGEST_MTU
    if not _LEAST_MTU <= mtu <= LARGEST_MTU:
        raise InvalidInput(f"invalid MTU {text!r}: {_LEAST_MTU} to {LARGEST_MTU} are possible")
    return mtu


def _choose(
    engine: Engine, options: NetworkOptions, asked: Sequence[Pool], network_id: str
) -> tuple[Subnet | None, Subnet | None]:
    """The subnets of the network: those asked for, and one of each family that is enabled. Hold the lock."""
    taken = _subnets(engine)
    for pool in asked:
        pools.check_overlap(pool.subnet, taken)
    ipv4 = next((Subnet(*pool) for pool in asked if not pool.is_ipv6), None)
    ipv6 = next((Subnet(*pool) for pool in asked if pool.is_ipv6), None)
    if options.ipv4 and ipv4 is None:
        ipv4 = free_subnet(engine)
    if options.ipv6 and ipv6 is None:
        ipv6 = free_subnet6(engine, network_id)
    return ipv4 if options.ipv4 else None, ipv6 if options.ipv6 else None


def free_subnet(engine: Engine) -> Subnet:
    """A subnet for a network that asks for none. Hold the lock. Raises Conflict."""
    return Subnet(*pools.choose_ipv4(_subnets(engine), pools.routes_ipv4(_read("/proc/net/route"))))


def free_subnet6(engine: Engine, network_id: str) -> Subnet:
    """The same of IPv6, made from the network's id. Hold the lock. Raises Conflict."""
    routes = pools.routes_ipv6(_read("/proc/net/ipv6_route"))
    return Subnet(*pools.choose_ipv6(network_id, _subnets(engine), routes))


def _subnets(engine: Engine) -> list[str]:
    return [
        subnet.subnet
        for network in engine.networks.list()
        for subnet in (network.ipv4, network.ipv6)
        if subnet is not None
    ]


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""  # a machine without IPv6, or whose /proc is hidden: then nothing is known to be avoided
