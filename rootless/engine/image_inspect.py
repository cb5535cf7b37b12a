"""image inspect, history: an image as the documents that Docker shows (Engine API: ImageInspect, HistoryResponseItem).

What an image says about itself was checked when it was parsed, and is shown as it is; nothing here acts on it.
"""

from typing import Any, NamedTuple

from rootless.engine import host_image
from rootless.engine.context import Engine
from rootless.engine.create import DEFAULT_PATH
from rootless.engine.images import check_platform, find_image, moment, with_names
from rootless.errors import CorruptData
from rootless.runtime.jsonlog import timestamp
from rootless.spec.image import Healthcheck, ImageConfig, RuntimeConfig
from rootless.spec.platform import host_platform
from rootless.store.images import Image

_ZERO_TIME = "0001-01-01T00:00:00Z"  # what Go's JSON has for a time that was never set
_MISSING = "<missing>"  # the image that a row of the history once was: only its builder has it


class HistoryRow(NamedTuple):
    """How a layer, or a change of the config, came to be."""

    id: str  # of the image for the newest row, else "<missing>"
    created: int | None  # ns of the epoch
    created_by: str
    size: int  # bytes of the layer's files
    comment: str


def inspect_image(engine: Engine, text: str, platform: str = "") -> dict[str, Any]:
    """The document of the image that *text* means. Raises NotFound, Conflict, InvalidInput, CorruptData."""
    if text == host_image.NAME:
        return _inspect_host()
    image = find_image(engine, text)
    check_platform(engine, image, text, platform)
    config = engine.images.config(image)
    (listed,) = with_names(engine, [image])
    document = config.document
    return {
        "Id": image.id,
        "RepoTags": [name.familiar for name in listed.tags],
        "RepoDigests": [name.familiar for name in listed.digests],
        "Parent": "",
        "Comment": _comment(config),
        "Created": config.created or "",
        "DockerVersion": _text(document.get("docker_version")),
        "Author": config.author,
        "Config": _config(config.config),
        "Architecture": _text(document.get("architecture")),
        **({"Variant": document["variant"]} if document.get("variant") else {}),
        "Os": config.platform.os,
        **({"OsVersion": document["os.version"]} if _text(document.get("os.version")) else {}),
        "Size": image.size,
        "GraphDriver": {"Data": _graph_data(engine, image), "Name": engine.storage_driver},
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Metadata": {"LastTagTime": timestamp(int(image.added_at * 1e9))},
    }


def history(engine: Engine, text: str, platform: str = "") -> list[HistoryRow]:
    """The history of the image that *text* means, the newest first. Raises what inspect_image does."""
    image = find_image(engine, text)
    check_platform(engine, image, text, platform)
    layers = iter(image.layers)
    rows = []
    for entry in engine.images.config(image).history:
        size = 0
        if not entry.empty_layer:
            chain_id = next(layers, None)
            if chain_id is None:
                raise CorruptData(f"{text}: too many non-empty layers in History section")
            size = engine.layers.load(chain_id).size
        rows.append(HistoryRow(_MISSING, moment(entry.created), entry.created_by, size, entry.comment))
    rows.reverse()
    return [rows[0]._replace(id=image.id), *rows[1:]] if rows else []


def _inspect_host() -> dict[str, Any]:
    """What can be said of the built-in image, in the same keys."""
    platform = host_platform()
    return {
        "Id": host_image.NAME,
        "RepoTags": [host_image.NAME],
        "RepoDigests": [],
        "Parent": "",
        "Comment": "built in: this machine's own root file system, copy-on-write",
        "Created": _ZERO_TIME,
        "DockerVersion": "",
        "Author": "",
        "Config": _config(RuntimeConfig(env=(DEFAULT_PATH,), cmd=("/bin/sh",))),
        "Architecture": platform.architecture,
        "Os": platform.os,
        "Size": 0,
        "GraphDriver": {"Data": None, "Name": "overlay"},
        "RootFS": {"Type": "layers", "Layers": []},
        "Metadata": {"LastTagTime": _ZERO_TIME},
    }


def _comment(config: ImageConfig) -> str:
    own = _text(config.document.get("comment"))
    return own or (config.history[-1].comment if config.history else "")


def _text(value: object) -> str:
    """A field that the specification does not have, and nobody has checked."""
    return value if isinstance(value, str) else ""


def _graph_data(engine: Engine, image: Image) -> dict[str, str]:
    """The layers' directories as overlayfs would get them, were the topmost one written to."""
    upper, *lower = [engine.layers.diff(chain_id) for chain_id in reversed(image.layers)] or [""]
    return {key: value for key, value in (("UpperDir", upper), ("LowerDir", ":".join(lower))) if value}


def _config(config: RuntimeConfig) -> dict[str, Any]:
    """Docker's container config, with the values that it has in an image which says nothing."""
    document: dict[str, Any] = {
        "Hostname": "",
        "Domainname": "",
        "User": config.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": list(config.env),
        "Cmd": _list(config.cmd),
        "Healthcheck": _healthcheck(config.healthcheck),
        "ArgsEscaped": config.args_escaped,
        "Image": "",
        "Volumes": {volume: {} for volume in config.volumes} or None,
        "WorkingDir": config.working_dir,
        "Entrypoint": _list(config.entrypoint),
        "OnBuild": list(config.on_build) or None,
        "Labels": dict(config.labels) or None,
        "StopSignal": config.stop_signal,
        "Shell": _list(config.shell),
    }
    optional = ("Healthcheck", "ArgsEscaped", "Shell")
    return {key: value for key, value in document.items() if value or key not in optional}


def _list(words: tuple[str, ...] | None) -> list[str] | None:
    return None if words is None else list(words)


def _healthcheck(check: Healthcheck | None) -> dict[str, Any] | None:
    if check is None:
        return None
    document = {
        "Test": list(check.test),
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
        "Retries": check.retries,
    }
    return {key: value for key, value in document.items() if value}
