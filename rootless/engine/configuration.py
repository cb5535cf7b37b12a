"""The user's config.toml: $XDG_CONFIG_HOME/rootless/config.toml, or the file that ROOTLESS_CONFIG names.

    [storage]
    root = "/scratch/alice/rootless"
    driver = "fuse"                   # how containers get their root: "overlay", "fuse"; else what works

    [run]
    network = "none"                  # what containers get that are given no --network; else "bridge"
    detach_keys = "ctrl-p,ctrl-q"
    no_new_privileges = true          # as with --security-opt no-new-privileges: no su, no sudo; else false

    [network]
    tcp = "user"                      # who carries connections to the outside: "kernel", "user"; else what works

    [registry."docker.io"]
    mirrors = ["mirror.example.org"]

    [registry."registry.example.org:5000"]
    insecure = true                   # plain HTTP, or a certificate that cannot be checked
    ca_file = "/etc/ssl/private-ca.pem"

Unknown keys are errors: a key that is misspelt would silently not hold.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from rootless.errors import InvalidInput


class Configuration(NamedTuple):
    """What config.toml says; the defaults where there is none."""

    storage_root: str = ""
    network: str = "bridge"
    detach_keys: str = ""
    registries: Mapping[str, Mapping[str, Any]] = {}
    network_tcp: str = "auto"
    storage_driver: str = ""
    no_new_privileges: bool = False


_KEYS: dict[str, dict[str, type]] = {
    "storage": {"root": str, "driver": str},
    "run": {"network": str, "detach_keys": str, "no_new_privileges": bool},
    "network": {"tcp": str},
}
_TCP = ("auto", "kernel", "user")
_DRIVERS = ("", "overlay", "fuse")
_REGISTRY_KEYS = {"mirrors": list, "insecure": bool, "ca_file": str}


def configuration_path() -> str:
    """Where the file is, or would be."""
    config_home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.environ.get("HOME", "/"), ".config")
    return os.environ.get("ROOTLESS_CONFIG") or os.path.join(config_home, "rootless", "config.toml")


def load_configuration() -> Configuration:
    """Read the file. Raises InvalidInput naming the file and the key."""
    path = configuration_path()
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return Configuration()
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    return parse_configuration(data, path)


def parse_configuration(data: bytes, path: str) -> Configuration:
    """The configuration in *data*; *path* is for messages."""
    import tomli  # only users who have such a file pay for the import

    try:
        document = tomli.loads(data.decode())
    except ValueError as error:
        raise InvalidInput(f"{path}: {error}") from error
    registries = document.pop("registry", {})
    for section, values in document.items():
        _check(path, section, values, _KEYS.get(section))
    if not isinstance(registries, dict):
        raise InvalidInput(f"{path}: registry must be a section")
    for host, values in registries.items():
        _check(path, f"registry.{host}", values, _REGISTRY_KEYS)
    run = document.get("run", {})
    tcp = document.get("network", {}).get("tcp", "auto")
    if tcp not in _TCP:
        raise InvalidInput(f"{path}: tcp in [network] must be one of {', '.join(_TCP)}")
    storage = document.get("storage", {})
    if storage.get("driver", "") not in _DRIVERS:
        raise InvalidInput(f"{path}: driver in [storage] must be one of {', '.join(filter(None, _DRIVERS))}")
    return Configuration(
        storage.get("root", ""),
        run.get("network", "bridge"),
        run.get("detach_keys", ""),
        registries,
        tcp,
        storage.get("driver", ""),
        run.get("no_new_privileges", False),
    )


def _check(path: str, section: str, values: Any, keys: Mapping[str, type] | None) -> None:
    if keys is None:
        raise InvalidInput(f"{path}: unknown section [{section}]", hint=f"there are: {', '.join((*_KEYS, 'registry'))}")
    if not isinstance(values, dict):
        raise InvalidInput(f"{path}: {section} must be a section")
    for key, value in values.items():
        if key not in keys:
            raise InvalidInput(f"{path}: unknown key {key!r} in [{section}]", hint=f"there are: {', '.join(keys)}")
        if not isinstance(value, keys[key]):
            raise InvalidInput(f"{path}: {key} in [{section}] must be a {keys[key].__name__}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise InvalidInput(f"{path}: {key} in [{section}] must be a list of strings")
