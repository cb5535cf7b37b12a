"""Published ports: what people type for -p and --expose, and how lists print what became of it. Text in, records out.

Docker's rules and words: go-connections' nat, docker/cli's opts and its formatter of `ps`. Without -p's first part a
port is published on all addresses of the machine, of both families; without the middle one on a port that is free.
"""

import _socket
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rootless.errors import InvalidInput

MOST = 1024  # ports of one -p: each takes descriptors and memory in slirp
_HIGHEST = 65535
_NUMBER = re.compile(r"[0-9]{1,10}")
_MAPPED = bytes(10) + b"\xff\xff"  # the first bytes of an IPv4 address written as an IPv6 one


class Port(NamedTuple):
    """One port of a container that is to be published."""

    container_port: int
    protocol: str = "tcp"  # or "udp"
    host_ip: str = ""  # "" for all addresses
    host_port: int = 0  # 0 for one that is free
    host_port_last: int = 0  # not 0: a free one from host_port to this one

    @property
    def container(self) -> str:
        """As documents and images name it: "80/tcp"."""
        return f"{self.container_port}/{self.protocol}"

    def asked(self) -> dict[str, Any]:
        """The port as records have it and slirp is asked for it (PORT)."""
        fields = self._asdict()
        if not self.host_port_last:
            del fields["host_port_last"]
        return fields


# --- reading


def parse_publish(text: str) -> list[Port]:
    """The ports that one -p asks for: "[[IP:][HOST]:]CONTAINER[/PROTOCOL]", ports or ranges. Raises InvalidInput."""
    text = _standard(text)
    *front, container = text.rsplit(":", 2)
    host_ip, host = ["", "", *front][-2:]
    protocol, container = _split_protocol(container)
    if not container:
        raise InvalidInput(f"no port specified: {text}<empty>")
    check_protocol(protocol)
    first, last = _range(container, f"invalid containerPort: {container}")
    if not first:
        raise InvalidInput(f"invalid containerPort: {container}")
    host_first, host_last = _range(host, f"invalid hostPort: {host}") if host else (0, 0)
    count = last - first + 1
    if host and count > 1 and host_last - host_first + 1 != count:
        raise InvalidInput(f"invalid ranges specified for container and host Ports: {container} and {host}")
    if count > MOST:
        raise InvalidInput(f"too many ports: {container} has {count}, and {MOST} can be published at once")
    address = _address(host_ip)
    if count == 1:
        return [Port(first, protocol, address, host_first, host_last if host_last > host_first else 0)]
    return [Port(first + i, protocol, address, host_first + i if host else 0) for i in range(count)]


def _standard(text: str) -> str:
    """The short form of "published=8080,target=80,protocol=tcp"; the short form as it is."""
    if "=" not in text:
        return text
    fields = {"protocol": "tcp", "published": "", "target": ""}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals or not key:
            raise InvalidInput(f"invalid publish opts format (should be name=value but got '{field}')")
        fields[key] = value
    return f"{fields['published']}:{fields['target']}/{fields['protocol']}"


def parse_expose(text: str) -> list[str]:
    """What one --expose means: "80/tcp", or each port of a range. Raises InvalidInput."""
    if ":" in text:
        raise InvalidInput(f"invalid port format for --expose: {text}")
    protocol, ports = _split_protocol(text)
    problem = f"invalid range format for --expose: {text}"
    check_protocol(protocol or "tcp")
    first, last = _range(ports, problem)
    if not first or last - first >= MOST:
        raise InvalidInput(problem)
    return [f"{number}/{protocol}" for number in range(first, last + 1)]


def parse_private(text: str) -> str:
    """The port of a container that `port` is asked about: "80/tcp" of "80". Raises InvalidInput."""
    protocol, number = _split_protocol(text)
    if not _NUMBER.fullmatch(number) or int(number) > _HIGHEST:
        raise InvalidInput(f"Error: invalid port ({number or text})")
    return f"{int(number)}/{protocol}"


def check_protocol(protocol: str) -> None:
    """Raises InvalidInput for what cannot be published."""
    if protocol == "sctp":
        raise InvalidInput("sctp cannot be published without root: tcp and udp can")
    if protocol not in ("tcp", "udp"):
        raise InvalidInput(f"invalid proto: {protocol}")


def _split_protocol(text: str) -> tuple[str, str]:
    ports, _, protocol = text.partition("/")
    return protocol.lower() or "tcp", ports


def _range(text: str, problem: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not _NUMBER.fullmatch(first) or (dash and not _NUMBER.fullmatch(last)):
        raise InvalidInput(problem)
    low, high = int(first), int(last or first)
    if not low <= high <= _HIGHEST:
        raise InvalidInput(problem)
    return low, high


def _address(text: str) -> str:
    """An address in its usual form; "" for "". Raises InvalidInput."""
    if not text:
        return ""
    bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" and ":" in text else text
    family = _socket.AF_INET6 if ":" in bare else _socket.AF_INET
    try:
        packed = _socket.inet_pton(family, bare)
    except (OSError, ValueError):
        raise InvalidInput(f"invalid IP address: {bare}") from None
    if packed[:12] == _MAPPED:
        packed, family = packed[12:], _socket.AF_INET
    return _socket.inet_ntop(family, packed)


def all_exposed(exposed: Iterable[str], published: Iterable[Port]) -> list[Port]:
    """What -P adds: each exposed port ("80/tcp") that is not published yet, on a port that is free."""
    taken = {port.container for port in published}
    added = []
    for text in exposed:
        for name in parse_expose(text):
            if name not in taken:
                taken.add(name)
                number, _, protocol = name.partition("/")
                added.append(Port(int(number), protocol))
    return added


def from_record(record: Mapping[str, Any]) -> Port:
    """The port that `Port.asked` made a record of, or that slirp answered."""
    return Port(**{name: record[name] for name in Port._fields if name in record})


# --- printing


def join(host: str, port: int | str) -> str:
    """ "0.0.0.0:80", "[::]:80"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shown(published: Iterable[Mapping[str, Any]], exposed: Iterable[str] = ()) -> str:
    """The cell PORTS of `ps` for what slirp answered and what is exposed: ranges that map to themselves are one."""
    entries = [_Entry(p["container_port"], p["host_ip"], p["host_port"], p["protocol"]) for p in published]
    taken = {f"{entry.port}/{entry.protocol}" for entry in entries}
    for name in exposed:
        if name not in taken:
            number, _, protocol = name.partition("/")
            entries.append(_Entry(int(number), "", 0, protocol or "tcp"))
    groups: dict[tuple[str, str], list[int]] = {}
    done, mappings = [], []
    for entry in sorted(set(entries)):
        if entry.host_ip and entry.host_port != entry.port:
            mappings.append(f"{join(entry.host_ip, entry.host_port)}->{entry.port}/{entry.protocol}")
            continue
        key = (entry.host_ip, entry.protocol)
        group = groups.get(key)
        if group is not None and group[1] + 1 == entry.port:
            group[1] = entry.port
            continue
        if group is not None:
            done.append(_group(key, group))
        groups[key] = [entry.port, entry.port]
    done += [_group(key, group) for key, group in groups.items()]
    return ", ".join([*done, *mappings])


class _Entry(NamedTuple):
    """In the order in which `ps` sorts."""

    port: int
    host_ip: str
    host_port: int
    protocol: str


def _group(key: tuple[str, str], group: Sequence[int]) -> str:
    host_ip, protocol = key
    first, last = group
    ports = str(first) if first == last else f"{first}-{last}"
    return f"{join(host_ip, ports)}->{ports}/{protocol}" if host_ip else f"{ports}/{protocol}"


def port_map(published: Iterable[Mapping[str, Any]], exposed: Iterable[str] = ()) -> dict[str, Any]:
    """NetworkSettings.Ports of what slirp answered, HostConfig.PortBindings of what was asked (Engine API: PortMap)."""
    document: dict[str, Any] = dict.fromkeys(exposed)
    for port in published:
        name = f"{port['container_port']}/{port['protocol']}"
        if document.get(name) is None:
            document[name] = []
        host_port = str(port["host_port"] or "")
        if port.get("host_port_last"):
            host_port += f"-{port['host_port_last']}"
        document[name].append({"HostIp": port["host_ip"], "HostPort": host_port})
    return dict(sorted(document.items(), key=lambda item: _natural(item[0])))


def lines(document: Mapping[str, Any]) -> list[str]:
    """What `port` prints of a PortMap: "80/tcp -> 0.0.0.0:8080"."""
    found = [f"{name} -> {place}" for name, bound in document.items() for place in places(bound)]
    return sorted(found, key=_natural)


def places(bound: Iterable[Mapping[str, str]] | None) -> list[str]:
    """What `port` prints of one port of a PortMap: "0.0.0.0:8080"."""
    return sorted((join(binding["HostIp"], binding["HostPort"]) for binding in bound or ()), key=_natural)


def _natural(text: str) -> list[tuple[bool, int, str]]:
    return [(not digits, int(digits or 0), rest) for digits, rest in re.findall(r"(\d+)|(\D+)", text)]
