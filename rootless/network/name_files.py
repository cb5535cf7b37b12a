"""The files by which a container knows names: /etc/hosts, /etc/hostname, /etc/resolv.conf. Text in, text out.

They are the container's own, bound over the image's, and written at each start: its addresses are known only then.
Which servers resolv.conf names follows Docker: with --dns these, on the default network; else the gateway, where slirp
answers the names of other containers and forwards the rest (also to the servers of --dns, which it has been told).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

HOST_LOOPBACK = "169.254.1.2"  # the address by which slirp lets a container reach the machine's loopback
HOST_GATEWAY = "host-gateway"  # in --add-host: the machine
_HOST_NAMES = ("host.docker.internal", "host.containers.internal")
_LOCAL = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)
_NO_ADDRESS = "127.0.1.1"  # what a name without a network means (Debian Reference, 5.1.1)


class Resolver(NamedTuple):
    """What a resolv.conf says: servers, the domains to search, options."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()


def hostname(name: str) -> str:
    """/etc/hostname."""
    return f"{name}\n"


def hosts(
    name: str,
    domain: str,
    extra: Sequence[Sequence[str]],
    network: str,
    addresses: Sequence[str] = (),
    *,
    gateway: str = "",
    host_loopback: bool = False,
) -> str:
    """/etc/hosts: what is local, what --add-host says, and the container itself by each of its *addresses*.

    *extra* are pairs of a name and an address; *gateway* stands for the address "host-gateway".
    """
    lines = list(_host_lines()) if network == "host" else list(_LOCAL)
    lines += [f"{gateway if address == HOST_GATEWAY else address}\t{host}" for host, address in extra]
    known = {host for host, _ in extra}
    if host_loopback:
        lines += [f"{HOST_LOOPBACK}\t{host}" for host in _HOST_NAMES if host not in known]
    if network != "host":
        names = f"{name}.{domain} {name}" if domain else name
        lines += [f"{address}\t{names}" for address in addresses or (_NO_ADDRESS,)]
    return "\n".join(lines) + "\n"


def _host_lines() -> list[str]:
    try:
        with open("/etc/hosts", encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return list(_LOCAL)


def resolv_conf(given: Resolver, network: str) -> str:
    """/etc/resolv.conf without networks of ours: the options', else the host's where its network is used, or nothing.

    *given* is what --dns, --dns-search and --dns-option say.
    """
    lines = []
    if not given.servers and network == "host":
        lines = [line for line in _host_resolver_lines() if not _overridden(line, given.search, given.options)]
    return "\n".join([*lines, *_resolver_lines(given)]) + "\n" if lines or any(given) else ""


def gateway_resolv_conf(given: Resolver, gateways: Sequence[str], *, names: bool, direct: bool) -> str:
    """/etc/resolv.conf on networks of ours, whose *gateways* answer; *names*: those of other containers among it.

    *direct*: the servers of --dns are asked by the container itself. The host's search domains and options hold, where
    nothing else is said. `--dns-search .` means none.
    """
    host = parse_resolv_conf(_host_resolver_lines())
    options = list(given.options or host.options)
    if names and not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")  # a container's name has no dot, and is complete
    servers = given.servers if given.servers and direct else gateways
    return "\n".join(_resolver_lines(Resolver(servers, given.search or host.search, options))) + "\n"


def parse_resolv_conf(lines: Iterable[str]) -> Resolver:
    """What the lines of a resolv.conf say, resolv.conf(5): the last `search` or `domain` counts, options add up."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in lines:
        key, *words = line.split() or [""]
        if key == "nameserver" and words:
            servers.append(words[0])
        elif key in ("search", "domain"):
            search = words
        elif key == "options":
            options += words
    return Resolver(servers, search, options)


def _resolver_lines(resolver: Resolver) -> list[str]:
    lines = [f"nameserver {server}" for server in resolver.servers]
    if search := [domain for domain in resolver.search if domain != "."]:
        lines.append("search " + " ".join(search))
    if resolver.options:
        lines.append("options " + " ".join(resolver.options))
    return lines


def _host_resolver_lines() -> list[str]:
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _overridden(line: str, search: Sequence[str], options: Sequence[str]) -> bool:
    key = line.split(maxsplit=1)[:1]
    return (key in (["search"], ["domain"]) and bool(search)) or (key == ["options"] and bool(options))


def host_address() -> str:
    """The first address of the machine that is not loopback, by which containers reach what listens on all; or ""."""
    try:
        with open("/proc/net/fib_trie", encoding="ascii") as file:
            return first_local(file)
    except OSError:
        return ""


def first_local(lines: Iterable[str]) -> str:
    """The first local IPv4 address of /proc/net/fib_trie outside of 127/8 and of link-local addresses, or "".

    An address is a line "|-- 10.0.0.5", and of the lines below it "/32 host LOCAL" says that it is the machine's.
    """
    address = ""
    for line in lines:
        _, dashes, found = line.rstrip().partition("|-- ")
        if dashes:
            address = found
        elif line.strip() == "/32 host LOCAL" and not address.startswith(("127.", "169.254.")):
            return address
    return ""
