"""What `-v`, `--mount`, `--tmpfs` and `--device` say, in Docker's syntax: text in, one kind of record out.

A mount is the same record in whatever form it was typed, so that whoever checks it against the host and the container
does so in one place. Nothing here looks at the host: a source is as it was typed, and may be relative ("./data", "..").
Sources: docker/cli's opts/mount.go, and the Linux parser of moby's volume/mounts, whose words the errors have.
"""

import posixpath
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from rootless.cli.command import parse_bool
from rootless.cli.values import parse_key_value, parse_memory
from rootless.errors import InvalidInput

_PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
_TYPES = ("bind", "volume", "tmpfs", "image")
_RECURSIVE = ("enabled", "disabled", "writable", "readonly")


class Mount(NamedTuple):
    """Something to be mounted in a container."""

    type: str  # "bind", "volume", "tmpfs" or "image"
    target: str  # an absolute path in the container, normalised, not "/"
    source: str = ""  # a path here, a volume's name or an image; empty for tmpfs and for an anonymous volume
    read_only: bool = False
    create_source: bool = False  # of a bind: a missing source becomes a directory, which is what -v does
    propagation: str = ""  # of a bind; empty for the default, rprivate
    recursive: str = "enabled"  # of a bind: whether what is mounted below comes along, and with which mode
    label: str = ""  # of a bind: SELinux, "z" shared or "Z" private
    chown: bool = False  # of a bind: the source's files shall belong to the container's user (podman's U)
    no_copy: bool = False  # of a volume: a new one stays empty, without what the image has at the target
    subpath: str = ""  # of a volume or an image: the directory in it
    labels: tuple[tuple[str, str], ...] = ()  # of a volume that is made for this
    driver: str = ""  # likewise
    driver_options: tuple[tuple[str, str], ...] = ()  # likewise
    options: tuple[str, ...] = ()  # of a tmpfs: "size=64k", "mode=1770", "noexec"


# --- -v


def parse_volume(text: str) -> Mount:
    """A mount from "source:/target:options", "name:/target" or "/target"."""
    if not text:
        raise InvalidInput("invalid empty volume spec")
    parts = text.split(":")
    if len(parts) > 3:
        raise InvalidInput(f"invalid spec: {text}: too many colons")
    if not all(parts):
        raise InvalidInput(f"invalid spec: {text}: empty section between colons")
    if len(parts) == 1:
        return Mount("volume", _checked_target(text, "volume"))
    source, target = parts[:2]
    if target in _MODES:
        raise InvalidInput(f"invalid volume specification: '{text}'")
    modes = parts[2].split(",") if len(parts) == 3 else []
    chosen = _chosen_modes(modes, parts[-1])
    kind = "bind" if source[0] in "/." else "volume"
    if kind == "volume":
        check_volume_name(source)
    return Mount(
        kind,
        _checked_target(target, kind),
        source,
        read_only=chosen.get("access") == "ro",
        create_source=kind == "bind",
        propagation=chosen.get("propagation", ""),
        label=chosen.get("label", ""),
        chown="chown" in chosen,
        no_copy="copy" in chosen,
    )


# Option of -v -> what it chooses, of which there can be one.
_MODES: dict[str, str] = {
    **dict.fromkeys(("ro", "rw"), "access"),
    **dict.fromkeys(("z", "Z"), "label"),
    **dict.fromkeys(_PROPAGATIONS, "propagation"),
    "nocopy": "copy",
    **dict.fromkeys(("consistent", "cached", "delegated"), "consistency"),
    "U": "chown",
}


def _chosen_modes(modes: list[str], text: str) -> dict[str, str]:
    """Each thing that *modes* choose with the mode that does. Raises InvalidInput for an unknown or a second one."""
    chosen: dict[str, str] = {}
    for mode in modes:
        if mode not in _MODES or _MODES[mode] in chosen:
            raise InvalidInput(f"invalid mode: {text}")
        chosen[_MODES[mode]] = mode
    return chosen


def check_volume_name(name: str) -> None:
    """Raise InvalidInput for a name that no volume can have."""
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name):
        raise InvalidInput(
            f'"{name}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed',
            hint="a host directory is named by its absolute path, or beginning with ./",
        )


def _checked_target(target: str, kind: str) -> str:
    """*target*, normalised. Raises InvalidInput for a path that cannot be mounted on."""
    problem = ""
    clean = posixpath.normpath(target)
    if not target.startswith("/"):
        problem = f"invalid mount path: '{target}' mount path must be absolute"
    elif clean.strip("/") == "":
        problem = "invalid specification: destination can't be '/'"
    if problem:
        raise InvalidInput(f'invalid mount config for type "{kind}": {problem}')
    return "/" + clean.lstrip("/")


# --- --mount


def parse_mount(text: str) -> Mount:
    """A mount from "type=bind,src=/a,dst=/b,readonly"; fields may be quoted as in CSV."""
    fields: dict[str, Any] = {"type": "volume"}
    for field in csv_fields(text):
        key, sign, word = field.partition("=")
        known = _KEYS.get(key.lower())
        if not sign and key.lower() not in _FLAGS:
            raise InvalidInput(f"invalid field '{field}' must be a key=value pair")
        if known is None:
            raise InvalidInput(f"unexpected key '{key}' in '{field}'")
        name, parse = known
        try:
            parsed = parse(word if sign else "true")
        except InvalidInput as error:
            raise InvalidInput(f"invalid value for {key}: {word}") from error
        if isinstance(parsed, tuple) or name == "options":
            fields[name] = (*fields.get(name, ()), parsed)
        elif name:
            fields[name] = parsed
        if key.lower().startswith(("bind-", "volume-", "tmpfs-", "image-")):
            fields.setdefault("of", key.lower().partition("-")[0])
    return _checked_mount(fields)


def _checked_mount(fields: dict[str, Any]) -> Mount:
    """The record of *fields*. Raises InvalidInput where they do not go together."""
    kind, of = fields["type"], fields.pop("of", "")
    if not fields.get("target"):
        raise InvalidInput("target is required")
    if kind not in _TYPES:
        raise InvalidInput(f'invalid mount config for type "{kind}": mount type unknown')
    if of and of != kind:
        raise InvalidInput(f"cannot mix '{of}-*' options with mount type '{kind}'")
    source = fields.get("source", "")
    problem = ""
    if kind in ("bind", "image") and not source:
        problem = "field Source must not be empty"
    elif kind == "bind" and source[0] not in "/.":
        problem = f"invalid mount path: '{source}' mount path must be absolute"
    elif kind == "tmpfs" and source:
        problem = "field Source must not be specified"
    elif kind == "volume" and not source and fields.get("read_only"):
        problem = "must not set ReadOnly mode when using anonymous volumes"
    elif kind == "volume" and not source and fields.get("subpath"):
        problem = "must not set Subpath when using anonymous volumes"
    if problem:
        raise InvalidInput(f'invalid mount config for type "{kind}": {problem}')
    if kind == "volume" and source:
        check_volume_name(source)
    return Mount(**{**fields, "target": _checked_target(fields["target"], kind)})


def _propagation(text: str) -> str:
    if text.lower() not in _PROPAGATIONS:
        raise InvalidInput(f"invalid propagation mode: {text}")
    return text.lower()


def _recursive(text: str) -> str:
    if text not in _RECURSIVE:
        raise InvalidInput(f"one of {', '.join(_RECURSIVE)}")
    return text


def _not_recursive(text: str) -> str:
    return "disabled" if parse_bool(text) else "enabled"


def _tmpfs_size(text: str) -> str:
    return f"size={parse_memory(text)}"


def _tmpfs_mode(text: str) -> str:
    if not re.fullmatch("[0-7]{1,5}", text):
        raise InvalidInput("an octal number is wanted")
    return f"mode={text}"


def _subpath(text: str) -> str:
    """A path that stays in the volume."""
    clean = posixpath.normpath(text)
    if not text or clean.startswith(("/", "..")):
        raise InvalidInput("subpath must be a relative path within the volume")
    return clean


# Key of --mount -> the field of Mount, and what makes the value of its text. A pair, or an option of a tmpfs, is added
# to those there. `consistency` is for Docker Desktop, and ignored.
_KEYS: dict[str, tuple[str, Callable[[str], object]]] = {
    "type": ("type", str.lower),
    **dict.fromkeys(("source", "src"), ("source", str)),
    **dict.fromkeys(("target", "dst", "destination"), ("target", str)),
    **dict.fromkeys(("readonly", "ro"), ("read_only", parse_bool)),
    "consistency": ("", str),
    "bind-propagation": ("propagation", _propagation),
    "bind-nonrecursive": ("recursive", _not_recursive),
    "bind-recursive": ("recursive", _recursive),
    "bind-create-src": ("create_source", parse_bool),
    "volume-nocopy": ("no_copy", parse_bool),
    "volume-subpath": ("subpath", _subpath),
    "volume-label": ("labels", parse_key_value),
    "volume-driver": ("driver", str),
    "volume-opt": ("driver_options", parse_key_value),
    "image-subpath": ("subpath", _subpath),
    "tmpfs-size": ("options", _tmpfs_size),
    "tmpfs-mode": ("options", _tmpfs_mode),
}
_FLAGS = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src")


def csv_fields(text: str) -> list[str]:
    """The fields of a line of CSV, as Go's encoding/csv splits it: quotes stand around a whole field, doubled in it."""
    if not text:
        raise InvalidInput("EOF")
    fields: list[str] = []
    place = 0
    while True:
        quoted = text[place : place + 1] == '"'
        found = (_QUOTED_FIELD if quoted else _PLAIN_FIELD).match(text, place)
        if found is None or text[found.end() : found.end() + 1] not in ("", ","):
            column = (len(text) if found is None else found.end()) + 1
            problem = 'extraneous or missing " in quoted-field' if quoted else 'bare " in non-quoted field'
            raise InvalidInput(f"parse error on line 1, column {column}: {problem}")
        fields.append(found[1].replace('""', '"') if quoted else found[0])
        place = found.end() + 1
        if found.end() == len(text):
            return fields


_QUOTED_FIELD = re.compile(r'"((?:[^"]|"")*)"')
_PLAIN_FIELD = re.compile(r'[^",]*')


# --- --tmpfs and --device

_TMPFS_FLAGS = (
    *("ro", "rw", "suid", "nosuid", "exec", "noexec", "dev", "nodev", "sync", "async", "dirsync", "mand", "nomand"),
    *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
    "defaults",
)
_TMPFS_VALUES = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")


def parse_tmpfs(text: str) -> Mount:
    """A tmpfs from "/target" or "/target:size=64k,noexec"."""
    target, _, words = text.partition(":")
    options = tuple(word for word in words.split(",") if word)
    for option in options:
        name, sign, _ = option.partition("=")
        if name not in _TMPFS_VALUES if sign else name not in _TMPFS_FLAGS:
            raise InvalidInput(f'invalid tmpfs option "{option}"')
    return Mount("tmpfs", _checked_target(target, "tmpfs"), read_only="ro" in options, options=options)


class Device(NamedTuple):
    """A device for the container: its path here, its path there, and what may be done with it ("rwm")."""

    source: str
    target: str
    permissions: str


def parse_device(text: str) -> Device:
    """A device from "/dev/fuse", "/dev/sda:/dev/xvda" or "/dev/sda:/dev/xvda:r"."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not parts[0]:
        raise InvalidInput(f"bad format for path: {text}")
    source, target, permissions = parts[0], "", "rwm"
    if len(parts) == 3:
        target, permissions = parts[1], parts[2]
        if not _is_permissions(permissions):
            raise InvalidInput(f"bad mode specified: {permissions}")
    elif len(parts) == 2 and _is_permissions(parts[1]):
        permissions = parts[1]
    elif len(parts) == 2:
        target = parts[1]
    for path in (source, target or source):
        if not path.startswith("/"):
            raise InvalidInput(f"{path} is not an absolute path")
    return Device(source, posixpath.normpath(target or source), permissions)


def _is_permissions(text: str) -> bool:
    return re.fullmatch("[rwm]+", text) is not None and len(set(text)) == len(text)
