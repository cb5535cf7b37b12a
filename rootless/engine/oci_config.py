"""From a bundle to what is run: its configuration, checked, with defaults, and with ids as they are where we run."""

import json
import os
from typing import Any

from rootless.errors import HostUnsupported, InvalidInput, NotFound
from rootless.linux import capabilities, namespaces
from rootless.linux.directories import runtime_directory
from rootless.runtime import user_namespace
from rootless.spec import runtime_check
from rootless.spec.runtime import Config
from rootless.spec.runtime_resources import asked

# A pids limit is what podman and others send unasked: the one limit that may be left out where there is no cgroup.
_ADVISORY = ("pids",)


def read_json(path: str) -> Any:
    """The JSON document at *path*. Raises NotFound, InvalidInput."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except FileNotFoundError:
        raise NotFound(f"JSON specification file {path} not found") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: {error}") from error


def load(bundle: str, name: str = "config.json") -> Config:
    """The bundle's configuration. Raises InvalidInput and HostUnsupported naming the place in it."""
    document = read_json(os.path.join(bundle, name))
    try:
        config = runtime_check.check(document)
    except (InvalidInput, HostUnsupported) as error:
        raise type(error)(f"{name}: {error}", hint=error.hint) from error
    config["linux"] = config.get("linux") or {}
    config["linux"]["namespaces"] = config["linux"].get("namespaces") or []
    _drop_unknown_capabilities(config["process"])
    for member in ("mounts", "hooks", "annotations"):
        if config.get(member) is None:
            config.pop(member, None)
    if not os.path.isdir(os.path.join(bundle, config["root"]["path"])):
        raise InvalidInput(f"{name}: root.path: {config['root']['path']} is no directory of the bundle")
    return config


def _drop_unknown_capabilities(process: Config) -> None:
    """What this kernel, or this version, does not know is warned of, and left out (config.md, "capabilities")."""
    for kind, names in (process.get("capabilities") or {}).items():
        unknown = sorted(set(names or ()).difference(capabilities.NAMES))
        if unknown:
            process["capabilities"][kind] = [name for name in names if name not in unknown]
            if kind == "bounding":
                os.write(2, f"rootless-oci: unknown capabilities are left out: {', '.join(unknown)}\n".encode())


def limits(config: Config) -> Config:
    """linux.resources, as far as it asks for anything."""
    return asked(config["linux"].get("resources") or {})


def needed_limits(config: Config) -> Config:
    """Those that the container must not run without."""
    return {name: value for name, value in limits(config).items() if name not in _ADVISORY}


def enter_namespace() -> None:
    """Be root of a user namespace: the one we are in, as below podman, or the user's."""
    if os.geteuid() != 0:
        user_namespace.enter(runtime_directory())


def translate_ids(config: Config) -> Config:
    """*config* with the host's ids of its mappings as they are called in the user's namespace.

    To be called before that is entered: who writes `hostID: 1000` means the ids of where the command was begun.
    """
    linux = config["linux"]
    if os.geteuid() == 0 or not (linux.get("uidMappings") or linux.get("gidMappings")):
        return config
    translated = {**config, "linux": dict(linux)}
    enter_namespace()
    for kind in ("uid", "gid"):
        rows = namespaces.id_map(kind)
        member = f"{kind}Mappings"
        translated["linux"][member] = [
            {**row, "hostID": _inside(row, rows, f"linux.{member}[{index}].hostID")}
            for index, row in enumerate(linux[member])
        ]
    return translated


def _inside(row: Config, rows: list[tuple[int, int, int]], where: str) -> int:
    """How row["hostID"] is called inside. Our map, read from inside, tells ids as our parent namespace has them."""
    first, size = int(row["hostID"]), int(row["size"])
    for inside, outside, count in rows:
        if outside <= first and first + size <= outside + count:
            return inside + first - outside
    raise HostUnsupported(f"{where}: {first}, and {size - 1} more after it, are not yours", hint="see subuid(5)")
