"""`config`: a project in its canonical form, as YAML or JSON; and the hash of a service's configuration."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import yaml

from rootless.compose.document import resolve_plain
from rootless.compose.schema import BUILD_SHAPES, SERVICE_SHAPES

_ORDER = ("name", "services", "networks", "volumes", "secrets", "configs", "models")
# What does not make a container another one, and is left out of the hash, as in docker compose.
_NOT_HASHED = ("build", "pull_policy", "pull_refresh_after", "scale", "depends_on", "profiles", "develop", "attach")


class _Dumper(yaml.SafeDumper):
    """YAML as docker compose lays it out: lists indented, no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Lists in mappings are indented, too."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """What is the same is written out again."""
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if "\n" in text:
        style = "|"
    elif not isinstance(resolve_plain(text), str) or _looks_otherwise(dumper, text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _looks_otherwise(dumper: yaml.SafeDumper, text: str) -> bool:
    """Whether another reader, of YAML 1.1, would take a plain *text* for something else than a string."""
    resolve: Callable[..., str] = dumper.resolve
    return resolve(yaml.ScalarNode, text, (True, False)) != "tag:yaml.org,2002:str"


_Dumper.add_representer(str, _string)


def ordered(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with its sections in the usual order."""
    whole = in_order(document, _ORDER)
    if whole.get("services"):
        whole["services"] = {name: _ordered_service(service) for name, service in sorted(whole["services"].items())}
    return {key: value for key, value in whole.items() if value or key not in _ORDER}


def _ordered_service(service: Mapping[str, Any]) -> dict[str, Any]:
    found = in_order(service, SERVICE_SHAPES)
    if isinstance(found.get("build"), dict):
        found["build"] = in_order(found["build"], BUILD_SHAPES)
    return found


def in_order(entries: Mapping[str, Any], order: Iterable[str]) -> dict[str, Any]:
    """The entries of a mapping in that order, and then the others."""
    known = {key: entries[key] for key in order if key in entries}
    return {**known, **{key: entries[key] for key in sorted(entries) if key not in known}}


def to_yaml(document: Mapping[str, Any], *, raw: bool = False) -> str:
    """The document as YAML. Dollar signs are doubled, to be read again, unless variables are *raw* in it."""
    whole = ordered(document) if raw else _escaped(ordered(document))
    return str(yaml.dump(whole, Dumper=_Dumper, sort_keys=False, width=1 << 30, allow_unicode=True))


def to_json(document: Mapping[str, Any], *, raw: bool = False) -> str:
    """The document as JSON, in which each service has command and entrypoint."""
    whole = ordered(document)
    if whole.get("services"):
        whole["services"] = {
            name: {**dict.fromkeys(("command", "entrypoint")), **service} for name, service in whole["services"].items()
        }
    return json.dumps(whole if raw else _escaped(whole), indent=2, ensure_ascii=False, sort_keys=False) + "\n"


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escaped(child) for key, child in value.items()}
    return [_escaped(child) for child in value] if isinstance(value, (list, tuple)) else value


def service_hash(document: Mapping[str, Any]) -> str:
    """64 hexadecimal digits that change when the configuration of a service's containers does."""
    kept = {key: value for key, value in document.items() if key not in _NOT_HASHED}
    if kept.get("deploy"):
        kept["deploy"] = {key: value for key, value in kept["deploy"].items() if key != "replicas"}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
