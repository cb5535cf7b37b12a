"""What commands ask for, as records: every field checked for its type and size before anything is done with it."""

from typing import NamedTuple

from slirp.addresses import parse_mac
from slirp.egress import parse_rules
from slirp.errors import InvalidInput

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any

    Told = dict[str, Any]

_LONGEST = 255  # characters of a name: a DNS name has no more
_MOST_ENDPOINTS, _MOST_ALIASES, _MOST_LINKS, _MOST_SERVERS, _MOST_RULES = 64, 64, 256, 16, 1024
_LONGEST_LIST = 16 << 10  # characters of all its texts: one message to STACK has room for it
_LEAST_MTU, _MOST_MTU = 1280, 65520  # IPv6's least; a tun's most, with room for IP's header
PORTS_AT_ONCE = 4096


class Subnet(NamedTuple):
    """Addresses of one family, of which containers get those in *part* (all, where it is empty)."""

    subnet: str
    gateway: str
    part: str
    aux: tuple[str, ...]


class Network(NamedTuple):
    """A network as it is to be."""

    id: str
    name: str
    ipv4: Subnet | None
    ipv6: Subnet | None
    internal: bool
    names: bool  # containers find each other by name
    icc: bool  # containers reach each other
    mtu: int
    egress: list[str] | None


class Endpoint(NamedTuple):
    """A place on a network as it is asked for; empty addresses are for us to choose."""

    network: Network
    ipv4: str
    ipv6: str
    mac: str
    aliases: list[str]
    gw_priority: int
    previous: tuple[str, str, str]  # ipv4, ipv6, mac: wishes


def parse_network(told: object) -> Network:
    """Raises InvalidInput, as all of these do."""
    row = mapping(told, "network")
    return Network(
        text(row, "id", needed=True),
        text(row, "name", needed=True),
        _subnet(row, "ipv4"),
        _subnet(row, "ipv6"),
        flag(row, "internal"),
        flag(row, "names"),
        row.get("icc") is not False,
        number(row, "mtu", _MOST_MTU, _LEAST_MTU, _MOST_MTU),
        rules(row),
    )


def _subnet(row: "Told", name: str) -> Subnet | None:
    if not row.get(name):
        return None
    told = mapping(row[name], name)
    aux = told.get("aux") or []
    chosen = list(aux.values()) if isinstance(aux, dict) else texts(told, "aux", 4096)
    if not all(isinstance(address, str) for address in chosen):
        raise InvalidInput("aux is not a list of addresses")
    subnet = text(told, "subnet", needed=True)
    return Subnet(subnet, text(told, "gateway"), text(told, "range"), tuple(chosen))


def parse_endpoint(told: object) -> Endpoint:
    """An endpoint, with its network."""
    row = mapping(told, "endpoint")
    before = mapping(row.get("previous") or {}, "previous")
    mac = text(row, "mac")
    return Endpoint(
        parse_network(row.get("network")),
        text(row, "ipv4"),
        text(row, "ipv6"),
        parse_mac(mac) if mac else "",
        texts(row, "aliases", _MOST_ALIASES),
        number(row, "gw_priority", 0, -(1 << 31), 1 << 31),
        (text(before, "ipv4"), text(before, "ipv6"), text(before, "mac")),
    )


def parse_endpoints(told: "Told") -> list[Endpoint]:
    """Those of a container: no network twice."""
    rows = sequence(told, "endpoints", _MOST_ENDPOINTS)
    endpoints = [parse_endpoint(row) for row in rows]
    if len({endpoint.network.id for endpoint in endpoints}) < len(endpoints):
        raise InvalidInput("a container cannot be on a network twice")
    return endpoints


def parse_links(told: "Told") -> list[list[str]]:
    """[container id, alias] each."""
    rows = sequence(told, "links", _MOST_LINKS)
    for row in rows:
        if not (isinstance(row, list) and len(row) == 2):
            raise InvalidInput("links are pairs of a container's id and an alias")
        texts({"links": row}, "links", 2)
    return rows


def servers(told: "Told") -> list[str]:
    """The name servers of a container."""
    return texts(told, "dns", _MOST_SERVERS)


def rules(told: "Told") -> list[str] | None:
    """The egress rules; None allows everything."""
    if told.get("egress") is None:
        return None
    found = texts(told, "egress", _MOST_RULES)
    try:
        parse_rules(found)
    except ValueError as error:
        raise InvalidInput(f"egress rule {error}") from None
    return found


def mapping(told: object, what: str) -> "Told":
    """*told*, an object."""
    if not isinstance(told, dict):
        raise InvalidInput(f"{what} is not an object")
    return told


def sequence(told: "Told", name: str, most: int) -> "list[Any]":
    """The list of that name; empty where there is none."""
    value = told.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f"{name} is not a list")
    if len(value) > most:
        raise InvalidInput(f"{name}: {len(value)} are more than {most}")
    return value


def texts(told: "Told", name: str, most: int) -> list[str]:
    """The list of texts of that name."""
    values = [text({name: value}, name, needed=True) for value in sequence(told, name, most)]
    if sum(map(len, values)) > _LONGEST_LIST:
        raise InvalidInput(f"{name} are more than {_LONGEST_LIST} characters")
    return values


def text(told: "Told", name: str, *, needed: bool = False) -> str:
    """The text of that name; empty where there is none, unless it is *needed*."""
    value = told.get(name)
    if value is None:
        value = ""
    if not isinstance(value, str) or len(value) > _LONGEST or not (value.isprintable() and value.isascii()):
        raise InvalidInput(f"{name} is not a text of at most {_LONGEST} printable characters")
    if needed and not value:
        raise InvalidInput(f"{name} is missing")
    return value


def flag(told: "Told", name: str) -> bool:
    """Whether that is said."""
    return told.get(name) is True


def number(told: "Told", name: str, default: int, least: int, most: int) -> int:
    """The number of that name, within bounds."""
    value = told.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidInput(f"{name} is not a number from {least} to {most}")
    return value
