"""Who is called what, for whom: the names that containers have for each other.

On a network with names, a container is called by its name, its aliases there, its id (the first 12 digits, or all) and
its host name; each of them also with the network's name behind it, as `db.backend`. That is what Docker does (moby:
daemon/container_operations.go, libnetwork/sandbox.go), and so is the order: an asker's links first, then its networks,
that of its way out first, and the first network where somebody is called so has the say.

The default network has no names, but links: there the container linked to is known by its alias and by all that it is
called otherwise.

Nothing is kept from one question to the next, so a container that is renamed or leaves is so from then on.
"""

from collections.abc import Iterator
from typing import NamedTuple

from slirp.model import HOST_LOOPBACK, Container, Endpoint, Model, Network, packed
from slirp.outward import HOST_NAMES
from slirp.wire.dns import PTR, reverse_address

SHORT_ID = 12


class Found(NamedTuple):
    """What is known of a name that is ours: nothing (it does not exist), addresses, or for an address, names."""

    exists: bool
    addresses: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()


_NOBODY = Found(False)


def look_up(model: Model, asker: Container, name: str, kind: int) -> Found | None:
    """What *asker* is to be told of *name*; None where this is for others to say.

    Addresses are of both kinds: whoever asks for the kind that is missing learns that the name exists.
    """
    name = name.lower().rstrip(".")
    if kind == PTR and (address := reverse_address(name)):
        return _reverse(asker, address)
    if not name:
        return None
    if name in HOST_NAMES:
        return Found(True, (HOST_LOOPBACK,)) if asker.host_loopback else _NOBODY
    for endpoints in _matches(model, asker, name):
        if addresses := tuple(dict.fromkeys(address for e in endpoints for address in e.addresses())):
            return Found(True, addresses)
    return None


def names_of(endpoint: Endpoint) -> list[str]:
    """What it is called on its network, the name that its address leads back to first."""
    container = endpoint.container
    names = (container.name, *endpoint.aliases, container.id[:SHORT_ID], container.hostname, container.id)
    return list(dict.fromkeys(name for name in names if name))


def is_called(endpoint: Endpoint, name: str) -> bool:
    """Whether *name*, in lower case and not empty, is one of its names."""
    # Asked of everybody on a network for each name of the world, too: compared one by one, without a list.
    container = endpoint.container
    if name in (container.name.lower(), container.hostname.lower()):
        return True
    return name in (container.id, container.id[:SHORT_ID]) or any(alias.lower() == name for alias in endpoint.aliases)


def own_networks(asker: Container) -> list[Network]:
    """The networks that *asker* is on, that of its way out first."""
    return [e.network for e in sorted(asker.endpoints, key=lambda endpoint: not endpoint.default)]


def _matches(model: Model, asker: Container, name: str) -> Iterator[list[Endpoint]]:
    """Those who may be meant by *name*, set by set, the best first."""
    networks = own_networks(asker)
    yield _linked(model, asker, name)
    named = [network for network in networks if network.names]
    for network in named:
        yield [endpoint for endpoint in _all(network) if is_called(endpoint, name)]
    for network in named:
        container_name = name.removesuffix(f".{network.name.lower()}")
        if container_name != name:
            yield [endpoint for endpoint in _all(network) if is_called(endpoint, container_name)]


def _all(network: Network) -> list[Endpoint]:
    return list(dict.fromkeys(network.endpoints.values()))


def _linked(model: Model, asker: Container, name: str) -> list[Endpoint]:
    """The endpoints of containers that *asker* is linked to under this name, on the networks that both are on."""
    networks = own_networks(asker)
    found = []
    for container_id, alias in asker.links:
        peer = model.containers.get(container_id)
        for endpoint in peer.endpoints if peer else ():
            known = alias.lower() == name or (not endpoint.network.names and is_called(endpoint, name))
            if known and endpoint.network in networks:
                found.append(endpoint)
    return found


def _reverse(asker: Container, address: bytes) -> Found | None:
    """Whose *address* it is. Addresses of the asker's networks are asked of nobody else, also if they are nobody's."""
    if address == HOST_LOOPBACK:
        return Found(True, names=HOST_NAMES) if asker.host_loopback else _NOBODY
    networks = own_networks(asker)
    for network in networks:
        endpoint = network.endpoints.get(address)
        if endpoint and network.names:
            return Found(True, names=tuple(f"{name}.{network.name}" for name in names_of(endpoint)))
    return _NOBODY if any(_contains(network, address) for network in networks) else None


def _contains(network: Network, address: bytes) -> bool:
    subnet = network.subnet4 if len(address) == 4 else network.subnet6
    if not subnet:
        return False
    first, _, prefix = subnet.partition("/")
    shift = len(address) * 8 - int(prefix)
    return int.from_bytes(address, "big") >> shift == int.from_bytes(packed(first), "big") >> shift
