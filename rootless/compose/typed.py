"""From canonical plain data to records. What is wrong with a file has been told before: here everything fits."""

from collections.abc import Callable, Mapping
from typing import Any

from rootless.compose.records import (
    Build,
    Dependency,
    Deploy,
    Device,
    DeviceRequest,
    EnvFile,
    FileObject,
    FileReference,
    Healthcheck,
    Hook,
    Logging,
    Mount,
    Network,
    Pool,
    Port,
    Provider,
    Resources,
    RestartPolicy,
    Service,
    ServiceNetwork,
    Volume,
    Watch,
)
from rootless.compose.scalars import parse_duration

Plain = dict[str, Any]
Convert = Callable[[Any], Any]


def _own(data: Plain, **convert: Convert) -> Plain:
    """The keys of a mapping without `x-` ones, lists as tuples, each value as *convert* has it."""
    return {key: convert.get(key, _value)(value) for key, value in data.items() if not key.startswith("x-")}


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _all(convert: Convert) -> Convert:
    return lambda items: tuple(convert(item) for item in items)


def _octal(text: str) -> int:
    return int(text, 8)


def _ulimits(data: Plain) -> Plain:
    return {
        name: (limit["soft"], limit["hard"]) if isinstance(limit, dict) else (limit, limit)
        for name, limit in data.items()
    }


def _mount(data: Plain) -> Mount:
    entries = {key: data[key] for key in ("type", "target", "source", "read_only", "consistency") if key in data}
    entries.setdefault("target", "")
    options = dict(data.get(data["type"]) or {})
    if "size" in options:
        options["size"] = int(options["size"])
    if "mode" in options:
        options["mode"] = _octal(options["mode"])
    return Mount(**entries, **_own(options))


def _file_reference(data: Plain) -> FileReference:
    return FileReference(**_own(data, mode=_octal))


def _device_request(data: Plain) -> DeviceRequest:
    own = _own(data)
    if "count" in own:
        own["quantity"] = -1 if own["count"] == "all" else own["count"]
        del own["count"]
    return DeviceRequest(**own)


def _hook(data: Plain) -> Hook:
    return Hook(**_own(data))


def _watch(data: Plain) -> Watch:
    return Watch(**_own(data, exec=_hook))


def _healthcheck(data: Plain) -> Healthcheck:
    times = ("timeout", "interval", "start_period", "start_interval")
    return Healthcheck(**_own(data, **dict.fromkeys(times, parse_duration)))


def _build(data: Plain) -> Build:
    return Build(**_own(data, secrets=_all(_file_reference), shm_size=int, ulimits=_ulimits))


def _resources(data: Plain) -> Resources:
    return Resources(**_own(data, memory=int, devices=_all(_device_request)))


def _restart_policy(data: Plain) -> RestartPolicy:
    return RestartPolicy(**_own(data, delay=parse_duration, window=parse_duration))


def _deploy(data: Plain) -> Deploy:
    own = _own(data, restart_policy=_restart_policy)
    resources = own.pop("resources", None) or {}
    parts: Plain = {key: _resources(resources[key]) for key in ("limits", "reservations") if resources.get(key)}
    return Deploy(**own, **parts)


def _networks(data: Plain) -> Plain:
    return {name: ServiceNetwork(**_own(network or {})) for name, network in data.items()}


_SERVICE: dict[str, Convert] = {
    "build": _build,
    "configs": _all(_file_reference),
    "depends_on": lambda data: {name: Dependency(**_own(entry)) for name, entry in data.items()},
    "deploy": _deploy,
    "devices": _all(lambda data: Device(**_own(data))),
    "env_file": _all(lambda data: EnvFile(**_own(data))),
    "gpus": _all(_device_request),
    "healthcheck": _healthcheck,
    "logging": lambda data: Logging(**_own(data)),
    "networks": _networks,
    "ports": _all(lambda data: Port(**_own(data))),
    "provider": lambda data: Provider(**_own(data)),
    "secrets": _all(_file_reference),
    "ulimits": _ulimits,
    "volumes": _all(_mount),
    **dict.fromkeys(("mem_limit", "mem_reservation", "memswap_limit", "shm_size"), int),
    **dict.fromkeys(("stop_grace_period", "pull_refresh_after"), parse_duration),
    **dict.fromkeys(("pre_start", "post_start", "pre_stop"), _all(_hook)),
}


def service_of(name: str, data: Plain) -> Service:
    """The service *name* of its canonical form."""
    own = _own(data, **_SERVICE)
    develop = own.pop("develop", None) or {}
    own.pop("extends", None)
    return Service(name, data, watch=tuple(map(_watch, develop.get("watch") or ())), **own)


def network_of(key: str, data: Plain) -> Network:
    """The network *key* of its canonical form."""
    own = _own(data)
    ipam = own.pop("ipam", None) or {}
    pools = tuple(Pool(**_own(pool)) for pool in ipam.get("config") or ())
    return Network(key, **own, ipam_driver=ipam.get("driver", ""), pools=pools)


def volume_of(key: str, data: Plain) -> Volume:
    """The volume *key* of its canonical form."""
    return Volume(key, **_own(data))


def file_of(key: str, data: Plain) -> FileObject:
    """The secret or config *key* of its canonical form."""
    own = _own(data)
    own.pop("driver_opts", None)
    return FileObject(key, **own)


def all_of(convert: Callable[[str, Plain], Any], section: "Mapping[str, Plain] | None") -> dict[str, Any]:
    """The records of a section."""
    return {key: convert(key, data) for key, data in (section or {}).items()}
