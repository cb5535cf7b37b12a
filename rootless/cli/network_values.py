"""What people type for a container's networks: --network in both forms, links, addresses. Docker's rules and words.

Functions from text to values; they raise InvalidInput, as those of values.py do. Source: docker/cli's opts/network.go
and cli/command/container/opts.go.
"""

import re
from collections.abc import Sequence

from rootless.cli.values import is_ip
from rootless.engine.options import NetworkOption
from rootless.errors import HostUnsupported, InvalidInput

_LONG_FORM = re.compile(r"\w+=\w+", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(?P<sign>[:-])[0-9a-f]{2}(?:(?P=sign)[0-9a-f]{2}){4}")


def parse_network(text: str) -> NetworkOption:
    """A network from "web", "container:db" or "name=web,alias=a,ip=10.1.0.5,gw-priority=1"."""
    if not _LONG_FORM.search(text):
        return NetworkOption(text)
    given: dict[str, list[str]] = {}
    for field in text.split(","):
        key, sign, value = field.partition("=")
        key = key.strip().lower()
        if not sign or not key:
            raise InvalidInput(f"invalid field {field}")
        if key in ("link-local-ip", "driver-opt"):
            raise HostUnsupported(f"{key} of a network is not there: interfaces are rootless's own")
        if key not in ("name", "alias", "ip", "ip6", "mac-address", "gw-priority"):
            raise InvalidInput(f"invalid field key {key}")
        given.setdefault(key, []).append(value.strip())
    if not given.get("name", [""])[-1]:
        raise InvalidInput("network name/id is not specified")
    return NetworkOption(
        given["name"][-1],
        tuple(given.get("alias", ())),
        _address(given.get("ip", [""])[-1], 4),
        _address(given.get("ip6", [""])[-1], 6),
        parse_mac(given.get("mac-address", [""])[-1]),
        (),
        _priority(given.get("gw-priority", ["0"])[-1]),
    )


def _priority(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        raise InvalidInput(f"invalid gw-priority ({text}): value must be an integer")
    return int(text)


def _address(text: str, version: int) -> str:
    if text and (not is_ip(text) or (":" in text) != (version == 6)):
        raise InvalidInput(f"invalid IPv{version} address: {text}")
    return text


def parse_ipv4(text: str) -> str:
    """The address of --ip."""
    return _address(text, 4)


def parse_ipv6(text: str) -> str:
    """The address of --ip6."""
    return _address(text, 6)


def parse_mac(text: str) -> str:
    """An Ethernet address "02:42:ac:11:00:02", also with dashes; for one station, not for a group of them."""
    lower = text.lower()
    if not lower:
        return ""
    if not _MAC.fullmatch(lower) or int(lower[1], 16) & 1:
        raise InvalidInput(f"{text} is not a valid mac address")
    return lower.replace("-", ":")


def parse_link(text: str) -> tuple[str, str]:
    """(container, alias) of "db", "db:database"."""
    name, colon, alias = text.partition(":")
    if not text:
        raise InvalidInput("empty string specified for links")
    if ":" in alias or not name or (colon and not alias):
        raise InvalidInput(f"bad format for links: {text}")
    return name, alias or name.removeprefix("/")


def merge_networks(
    networks: Sequence[NetworkOption],
    *,
    aliases: Sequence[str],
    links: Sequence[tuple[str, str]],
    ipv4: str,
    ipv6: str,
    mac: str,
) -> tuple[NetworkOption, ...]:
    """The networks, the first of which has what --network-alias, --link, --ip, --ip6 and --mac-address say.

    Raises InvalidInput where a network is named twice, or has been told the same in the long form.
    """
    names = [network.name for network in networks]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f'network "{name}" is specified multiple times')
    first = networks[0] if networks else NetworkOption("")
    for given, there, what in (
        (aliases, first.aliases, "--network-alias and per-network alias"),
        (ipv4, first.ipv4, "--ip and per-network IPv4 address"),
        (ipv6, first.ipv6, "--ip6 and per-network IPv6 address"),
        (mac, first.mac, "--mac-address and per-network MAC address"),
    ):
        if given and there:
            raise InvalidInput(f"conflicting options: cannot specify both {what}")
    first = first._replace(
        aliases=first.aliases or tuple(aliases),
        ipv4=first.ipv4 or ipv4,
        ipv6=first.ipv6 or ipv6,
        mac=first.mac or mac,
        links=tuple(links),
    )
    return (first, *networks[1:]) if networks or first != NetworkOption("") else ()
