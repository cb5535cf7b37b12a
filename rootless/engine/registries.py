"""What every verb that speaks with registries needs: the user's settings for them, and the user's passwords."""

from rootless.engine.configuration import load_configuration
from rootless.registry.client import Client
from rootless.registry.config import HostConfig, RegistryConfig
from rootless.registry.credentials import default_credentials


def registry_configuration(insecure: str = "") -> RegistryConfig:
    """config.toml's registries as the registry room takes them; *insecure* is one that need not be secure besides."""
    hosts = {
        host: HostConfig(tuple(v.get("mirrors", ())), v.get("ca_file", ""), v.get("insecure", False))
        for host, v in load_configuration().registries.items()
    }
    if insecure:
        known = hosts.get(insecure, HostConfig())
        hosts[insecure] = HostConfig(known.mirrors, known.ca_file, insecure=True)
    return RegistryConfig(hosts)


def open_client() -> Client:
    """For reading; the caller's `with` ends it."""
    return Client(registry_configuration(), default_credentials())
