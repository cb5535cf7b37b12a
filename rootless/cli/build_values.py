"""What people type as values of build's options: --secret, --ssh, --output, --cache-from and -to. BuildKit's rules."""

import os
from typing import TYPE_CHECKING, NamedTuple

from rootless.cli.mount_values import csv_fields
from rootless.engine.build_options import CacheEntry, Output, Secret, Ssh
from rootless.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

_OUTPUTS = ("local", "tar", "oci", "docker", "image", "registry")
_CACHES = ("local", "inline", "registry")


def _pairs(text: str, what: str) -> dict[str, str]:
    """The fields of "a=b,c=d"."""
    fields: dict[str, str] = {}
    for field in csv_fields(text):
        name, equals, value = field.partition("=")
        if not equals:
            raise InvalidInput(f"invalid {what} {text!r}: {field!r} must be a key=value pair")
        fields[name.strip().lower()] = value
    return fields


def parse_secret(text: str) -> Secret:
    """`id=ID[,src=FILE|,env=NAME][,type=file|env]`. Raises InvalidInput."""
    fields = _pairs(text, "secret")
    kind = fields.pop("type", "")
    if kind not in ("", "file", "env"):
        raise InvalidInput(f"unsupported secret type {kind!r}")
    name = fields.pop("id", "")
    path = fields.pop("source", "") or fields.pop("src", "")
    variable = fields.pop("env", "")
    if fields:
        raise InvalidInput(f"unexpected key {next(iter(fields))!r} in {text!r}")
    if kind == "env" and path and not variable:
        path, variable = "", path
    if not name:
        raise InvalidInput("secret missing id")
    if not path and not variable:
        path, variable = ("", name) if name in os.environ or kind == "env" else (name, "")
    return Secret(name, path, variable)


def parse_ssh(text: str) -> Ssh:
    """`default`, `ID=SOCKET`: an agent, $SSH_AUTH_SOCK's without; or `ID=KEY[,KEY]`, files. Raises InvalidInput."""
    name, _, given = text.partition("=")
    paths = [os.path.abspath(path) for path in given.split(",") if path]
    if name and paths and (len(paths) > 1 or os.path.isfile(paths[0])):
        return Ssh(name, "", tuple(paths))
    socket = given or os.environ.get("SSH_AUTH_SOCK", "")
    if not name:
        raise InvalidInput(f"invalid ssh value {text!r}")
    if not socket:
        raise InvalidInput(f"invalid empty ssh agent socket for {name!r}", hint="make sure SSH_AUTH_SOCK is set")
    return Ssh(name, os.path.abspath(socket))


def parse_output(text: str) -> Output:
    """`type=TYPE[,dest=PATH][,…]`; a directory alone is type=local, `-` is type=tar on stdout. Raises InvalidInput."""
    if "=" not in text:
        return Output("tar", "-") if text == "-" else Output("local", text)
    fields = _pairs(text, "output")
    kind = fields.pop("type", "")
    destination = fields.pop("dest", "")
    if not kind:
        raise InvalidInput(f"type is required for output {text!r}")
    if kind not in _OUTPUTS:
        raise InvalidInput(f"output type {kind!r} is not there", hint=f"there are: {', '.join(_OUTPUTS)}")
    if kind == "local" and not destination:
        raise InvalidInput("dest is required for local output")
    if kind in ("tar", "oci") and not destination:
        destination = "-"
    return Output(kind, destination, fields)


def parse_cache(text: str) -> CacheEntry:
    """`type=local|registry|inline,…`; a name alone is an image of a registry. build_caches.py knows the keys."""
    if "=" not in text:
        return CacheEntry("registry", {"ref": text})
    fields = _pairs(text, "cache option")
    kind = fields.pop("type", "")
    if not kind:
        raise InvalidInput(f"type is required for cache {text!r}")
    if kind not in _CACHES:
        raise InvalidInput(f"cache type {kind!r} is not there", hint=f"there are: {', '.join(_CACHES)}")
    return CacheEntry(kind, fields)


class Annotation(NamedTuple):
    """One --annotation."""

    kinds: tuple[str, ...]  # of documents: manifest, index
    key: str
    value: str


def parse_annotation(text: str) -> Annotation:
    """`[KIND[,KIND]:]KEY=VALUE`; without a kind it is the manifest's. Raises InvalidInput."""
    name, equals, given = text.partition("=")
    prefix, colon, key = name.partition(":")
    kinds = tuple(prefix.split(",")) if colon else ("manifest",)
    if colon and all(kind.partition("[")[0].endswith("-descriptor") for kind in kinds):
        raise InvalidInput(f"annotation {text!r}: descriptors have none here", hint="manifest: or index:")
    if not colon or not set(kinds) <= {"manifest", "index"}:
        kinds, key = ("manifest",), name
    if not equals or not key:
        raise InvalidInput(f"invalid annotation {text!r}, expected key=value")
    return Annotation(kinds, key, given)


def annotations_of(given: "Iterable[Annotation]", kind: str) -> dict[str, str]:
    """Those of one kind of document."""
    return {annotation.key: annotation.value for annotation in given if kind in annotation.kinds}


def parse_carried(text: str) -> CacheEntry:
    """A directory, `type=tar,dest=FILE` or `type=registry,ref=NAME`, for cache mounts. Raises InvalidInput."""
    if "=" not in text:
        return CacheEntry("local", {"dest": text})
    fields = _pairs(text, "place of cache mounts")
    kind = fields.pop("type", "")
    if kind not in ("local", "tar", "registry"):
        raise InvalidInput(f"cache mounts cannot be carried by {kind!r}", hint="types: local, tar, registry")
    if "src" in fields:
        fields.setdefault("dest", fields.pop("src"))
    return CacheEntry(kind, fields)


def merge_attestations(given: "Iterable[str]") -> dict[str, dict[str, str]]:
    """`type=provenance[,KEY=VALUE…]`: what is wanted of each kind. Raises InvalidInput."""
    found: dict[str, dict[str, str]] = {}
    for text in given:
        fields = _pairs(text, "attestation")
        kind = fields.pop("type", "")
        if kind not in ("provenance", "sbom"):
            raise InvalidInput(f"attestation {text!r}: its type should be provenance or sbom")
        found[kind] = fields
    return found


def shorthand_of(value: str) -> str:
    """What `--provenance=VALUE` stands for: true, false, or keys."""
    if value.lower() in ("true", "1"):
        return "disabled=false"
    return "disabled=true" if value.lower() in ("false", "0") else value


def parse_build_context(text: str) -> tuple[str, str]:
    """`NAME=PATH|URL|docker-image://…`. Raises InvalidInput."""
    name, equals, place = text.partition("=")
    if not equals or not name or not place:
        raise InvalidInput(f"invalid context value: {text}, expected key=value")
    return name, place


def parse_build_arg(text: str) -> tuple[str, str | None]:
    """`NAME=VALUE`; `NAME` alone takes the value of the caller's environment, None where it has none."""
    name, equals, given = text.partition("=")
    if not name:
        raise InvalidInput(f"invalid build argument: {text!r}")
    return (name, given) if equals else (name, os.environ.get(name))


def merge_build_args(pairs: "Iterable[tuple[str, str | None]]") -> dict[str, str]:
    """The last of each name counts; what has no value is not given."""
    return {name: given for name, given in dict(pairs).items() if given is not None}
