"""What the user says about registries, as the client takes it. The file itself is read elsewhere; it says this so:

    [registry."docker.io"]                      # the name as in an image's, with the port if there is one
    mirrors = ["mirror.example.org", "harbor.example.org/hub"]

    [registry."registry.example.org:5000"]
    ca_file = "/etc/ssl/example-ca.pem"         # trusted besides the system's
    insecure = true                             # certificates are not checked, and plain HTTP will do

A mirror is `host[:port]`, with a path where the mirror keeps the images below one. It has its own section for its own
certificates, and its own credentials: nothing is handed on from the registry that it stands for.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rootless.errors import InvalidInput

DOCKER_HUB = "docker.io"
_DOCKER_HUB_API = "registry-1.docker.io"
_MIRROR = re.compile(r"(?:https://)?((?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?)((?:/[a-z0-9._-]+)*)/?")


@dataclass(frozen=True, slots=True)
class HostConfig:
    """The settings of one registry or mirror."""

    mirrors: tuple[str, ...] = ()
    ca_file: str = ""
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """The settings of all of them, by name."""

    hosts: Mapping[str, HostConfig] = field(default_factory=dict)

    def host(self, name: str) -> HostConfig:
        """The settings of *name*, which is `host` or `host:port`; the default ones if nothing is said."""
        return self.hosts.get(name, HostConfig())


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the client is. Seconds, but for the counts."""

    connect: float = 15
    headers: float = 30  # from the request to the end of the answer's headers
    stall: float = 30  # within which at least stall_bytes of a body must come
    stall_bytes: int = 1024
    attempts: int = 5
    backoff: float = 0.5  # before the second attempt; doubles with each
    longest_wait: float = 60  # that a Retry-After may ask for


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask for the images of a registry: the registry itself, or a mirror of it."""

    name: str  # whose settings and credentials count: "docker.io", "mirror.example.org:5000"
    address: str  # where it listens: "registry-1.docker.io"
    settings: HostConfig
    prefix: str = ""  # before the repository's path: "hub/"
    is_mirror: bool = False

    @property
    def may_be_plain(self) -> bool:
        """Whether plain HTTP will do where there is no TLS: as in Docker, on loopback; and where the user says so."""
        return self.settings.insecure or is_loopback(host_of(self.address))


def endpoints(config: RegistryConfig, domain: str) -> tuple[Endpoint, ...]:
    """The mirrors of *domain* in their order, then itself. Raises InvalidInput for a mirror that cannot be one."""
    mirrors = (_mirror(config, text) for text in config.host(domain).mirrors)
    return (*mirrors, Endpoint(domain, _address(domain), config.host(domain)))


def host_of(address: str) -> str:
    """The host in `host`, `host:port`, `[::1]` or `[::1]:port`."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine by its own word: localhost or a literal address; nothing is looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _mirror(config: RegistryConfig, text: str) -> Endpoint:
    parts = _MIRROR.fullmatch(text)
    if not parts:
        raise InvalidInput(
            f"invalid mirror {text!r}",
            hint="say host[:port], with a path if the mirror has one; for plain HTTP set insecure = true for that host",
        )
    name, prefix = parts[1], parts[2].strip("/")
    return Endpoint(name, _address(name), config.host(name), f"{prefix}/" if prefix else "", is_mirror=True)


def _address(name: str) -> str:
    return _DOCKER_HUB_API if name == DOCKER_HUB else name
