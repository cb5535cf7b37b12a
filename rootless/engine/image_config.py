"""What a container was made with, as the config of an image: the `config` member of image-spec's config.md."""

from typing import Any

from rootless.spec.image import ImageConfig
from rootless.spec.signals import parse_signal, signal_name
from rootless.store.containers import Record

_TERM = "TERM=xterm"  # which a terminal adds, and nobody asked for
_HEALTH = {
    "Test": "test",
    "Interval": "interval",
    "Timeout": "timeout",
    "StartPeriod": "start_period",
    "StartInterval": "start_interval",
    "Retries": "retries",
}


def config_of_container(record: Record, base: ImageConfig) -> dict[str, Any]:
    """The `config` of an image of the container: the base's, whatever members it has, changed as the options did."""
    config: dict[str, Any] = dict(base.document.get("config") or {})
    added = _TERM if record["terminal"] and _TERM not in base.config.env else ""
    members = {
        "User": record["user"],
        "Env": [entry for entry in record["environment"] if entry != added],
        "Entrypoint": record["entrypoint"],
        "Cmd": record["command"],
        "WorkingDir": _working_directory(record, base),
        "Labels": record["labels"],
        "ExposedPorts": {port: {} for port in record["exposed_ports"]},
        "Volumes": {path: {} for path in (*record["image_volumes"], *_anonymous_volumes(record))},
    }
    for member, value in members.items():
        _set(config, member, value)
    if record["stop_signal"] != parse_signal(base.config.stop_signal or "SIGTERM"):
        config["StopSignal"] = signal_name(record["stop_signal"])
    if record["health"] != _health_of(base):
        config["Healthcheck"] = _health(record["health"])
    return config


def _health_of(base: ImageConfig) -> Record | None:
    """What a container of the image has where no option says anything."""
    if base.config.healthcheck is None:
        return None
    from rootless.engine.create import health_record  # with all that makes containers, for images with a check alone
    from rootless.engine.options import HealthOption

    return health_record(HealthOption(), base.config.healthcheck)


def _set(config: dict[str, Any], member: str, value: Any) -> None:
    """An empty value is no member at all."""
    if value:
        config[member] = value
    else:
        config.pop(member, None)


def _working_directory(record: Record, base: ImageConfig) -> str:
    """`/` is where programs start when nobody says anything."""
    directory = str(record["working_directory"])
    return base.config.working_dir if directory == (base.config.working_dir or "/") else directory


def _anonymous_volumes(record: Record) -> list[str]:
    return [m["destination"] for m in record["mounts"] if m["anonymous"]]


def _health(health: Record | None) -> dict[str, Any]:
    if health is None:
        return {"Test": ["NONE"]}
    return {member: health[name] for member, name in _HEALTH.items() if health[name]}
