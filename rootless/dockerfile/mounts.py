"""RUN --mount: what a step sees besides its files, for as long as it runs.

A mount is comma-separated options; each value may have variables, so a mount is read twice: with the Dockerfile, by
check_mount(), as far as that goes without their values; and by parse_mount() when the step is due. Values are expanded
one by one: what a variable holds never becomes another option. Options that are not in the table are refused, and so
are those of another type of mount.
"""

from collections.abc import Callable
from typing import NamedTuple

from rootless.dockerfile.instructions import DockerfileError, MountFlag
from rootless.dockerfile.near import near
from rootless.dockerfile.words import split_csv

# What each type of mount may have besides its type and target.
_OPTIONS = {
    "bind": ("source", "from", "readonly", "readwrite"),
    "cache": ("id", "source", "from", "sharing", "readonly", "readwrite", "mode", "uid", "gid"),
    "tmpfs": ("size", "readonly", "readwrite"),
    "secret": ("id", "source", "required", "mode", "uid", "gid", "env", "readonly", "readwrite"),
    "ssh": ("id", "required", "mode", "uid", "gid", "readonly", "readwrite"),
}
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_NAMES = ("type", "target", *dict.fromkeys(name for names in _OPTIONS.values() for name in names), *_ALIASES)
_SWITCHES = ("readonly", "readwrite", "required")
_SHARING = ("shared", "private", "locked")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_UNITS: dict[str, int] = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}

Expand = Callable[[str], str]


class Mount(NamedTuple):
    """A mount, all variables expanded."""

    type: str = "bind"  # bind, cache, tmpfs, secret, ssh
    target: str = ""  # as written, from the working directory, which is "."; "" where a secret or ssh has a usual place
    source: str = ""
    source_stage: str = ""  # from=: a stage, a number, a context or an image; "" is the build context
    read_only: bool = True
    id: str = ""  # of a cache, a secret, an agent; "" where the type has a usual one
    sharing: str = "shared"  # of a cache: shared, private, locked
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int = 0  # of a tmpfs, in bytes; 0 is no limit
    required: bool = False
    variable: str = ""  # env= of a secret: the variable that holds it


def check_mount(text: str) -> MountFlag:
    """`--mount=text` with what is known before any variable is. Raises DockerfileError."""
    options = _split(text)
    values = dict(options)
    kind = values.get("type", "bind")
    if "$" not in kind:
        _check_type(kind, options)
    stage = values.get("from", "")
    if "$" in stage[:-1]:
        raise DockerfileError(
            f"--mount: from={stage}: variables are not expanded here",
            hint="give the image a name, FROM IMAGE AS name, and write from=name",
        )
    if not any("$" in value for _, value in options):
        parse_mount(text)
    return MountFlag(text, stage)


def parse_mount(text: str, expand: Expand | None = None) -> Mount:
    """The mount that `--mount=text` asks for; *expand* gives each value. Raises DockerfileError."""
    options = [(key, expand(value) if expand and key != "from" else value) for key, value in _split(text)]
    values = dict(options)
    kind = values.pop("type", "bind").lower()
    _check_type(kind, options)
    mount = Mount(
        kind,
        values.get("target", ""),
        values.get("source", ""),
        values.get("from", ""),
        _is_read_only(kind, options),
        values.get("id", ""),
        _sharing(values.get("sharing", "shared")),
        _number("mode", values, 8),
        _number("uid", values, 10),
        _number("gid", values, 10),
        _size(values.get("size", "0")),
        _truth("required", values.get("required", "false")),
        values.get("env", ""),
    )
    return _whole(mount, values)


def _whole(mount: Mount, values: dict[str, str]) -> Mount:
    """*mount*, if its options go together."""
    if mount.type in ("bind", "cache", "tmpfs") and not mount.target:
        return mount._replace(target=".")
    if mount.type == "secret":
        if mount.source and mount.id:
            raise DockerfileError("--mount: a secret has an id or a source: both are its name")
        if not (mount.source or mount.target or mount.id):
            raise DockerfileError("--mount: a secret needs an id", hint="add id=NAME")
        if "env" in values and not mount.variable:
            return mount._replace(variable=mount.id or mount.source)
    return mount


def _split(text: str) -> list[tuple[str, str]]:
    """Options and values, by the one name that each has. A switch alone is "true"."""
    found: list[tuple[str, str]] = []
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if key not in _NAMES:
            raise DockerfileError(f"--mount: unknown option {key or field!r}", hint=near(key, _NAMES))
        key = _ALIASES.get(key, key)
        if not equals and key not in (*_SWITCHES, "env"):
            raise DockerfileError(f"--mount: {field} needs a value: {key}=VALUE")
        found.append((key, value if equals or key == "env" else "true"))
    return found


def _check_type(kind: str, options: list[tuple[str, str]]) -> None:
    allowed = _OPTIONS.get(kind.lower())
    if allowed is None:
        raise DockerfileError(
            f"--mount: there is no type {kind!r}", hint=near(kind.lower(), _OPTIONS) or f"one of {', '.join(_OPTIONS)}"
        )
    for key, _ in options:
        if key not in ("type", "target", *allowed):
            raise DockerfileError(f"--mount: {key} is no option of a {kind.lower()} mount")


def _is_read_only(kind: str, options: list[tuple[str, str]]) -> bool:
    read_only = kind not in ("cache", "tmpfs")
    for key, value in options:
        if key in ("readonly", "readwrite"):
            read_only = _truth(key, value) == (key == "readonly")
    return read_only


def _truth(key: str, value: str) -> bool:
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise DockerfileError(f"--mount: {key}={value}: true or false is expected")


def _sharing(value: str) -> str:
    if value.lower() in _SHARING:
        return value.lower()
    raise DockerfileError(
        f"--mount: sharing={value}: there is no such sharing", hint=near(value.lower(), _SHARING) or ", ".join(_SHARING)
    )


def _number(key: str, values: dict[str, str], base: int) -> int | None:
    text = values.get(key)
    if text is None:
        return None
    digits = "01234567" if base == 8 else "0123456789"
    if not text or len(text) > 12 or text.strip(digits) or int(text, base) >= 1 << 32:
        raise DockerfileError(f"--mount: {key}={text}: not {'an octal' if base == 8 else 'a'} number")
    return int(text, base)


def _size(text: str) -> int:
    """Bytes of `64m`, `1.5GiB`, `100`."""
    body = text.strip().lower()
    number = body.rstrip("bikmgtp ")
    unit = body[len(number) :].strip()
    unit = unit[:-2] if unit.endswith("ib") and len(unit) == 3 else unit[:-1] if len(unit) == 2 else unit
    whole, _, fraction = number.partition(".")
    digits = whole + fraction
    if unit not in _UNITS or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise DockerfileError(f"--mount: size={text}: not a size", hint="write it like 64m or 1g")
    scale: int = 10 ** len(fraction)
    return int(digits) * _UNITS[unit] // scale
