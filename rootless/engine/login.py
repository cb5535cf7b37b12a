"""login, logout: who we are to a registry, kept where Docker keeps it."""

import re

from rootless.engine.registries import registry_configuration
from rootless.errors import InvalidInput
from rootless.registry.config import DOCKER_HUB
from rootless.registry.credentials import Credential, default_credentials
from rootless.registry.login import log_in

_SERVER = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")
_HUB_NAMES = ("", DOCKER_HUB, "index.docker.io", "registry-1.docker.io", "hub.docker.com")


def parse_server(text: str) -> str:
    """The registry that *text* means: its `host` or `host:port`; a scheme or a path are left out, as in Docker.

    Raises InvalidInput.
    """
    host = text.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if host in _HUB_NAMES:
        return DOCKER_HUB
    if not _SERVER.fullmatch(host):
        raise InvalidInput(f"invalid registry {text!r}", hint="say host or host:port")
    return host


def known(registry: str) -> Credential | None:
    """What is kept for it already."""
    return default_credentials().find(registry)


def login(registry: str, credential: Credential) -> str:
    """Have *registry* accept *credential*, then keep it; where: a file's path, or the name of a helper.

    Raises Unauthorized, RegistryFailure, InvalidInput.
    """
    accepted = log_in(registry_configuration(), registry, credential)
    return default_credentials().save(registry, accepted)


def logout(registry: str) -> bool:
    """Forget what login kept. Whether there was anything."""
    return default_credentials().erase(registry)
