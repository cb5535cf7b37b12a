"""Platforms of images: read, normalised and ordered as containerd does (github.com/containerd/platforms).

Normalised means: Go's words (amd64, arm64, 386 …); no variant where it is the ordinary one (amd64 v1, arm64 v8);
always one for 32-bit arm, whose ordinary one is v7.
"""

import os
import re
from typing import NamedTuple

from rootless.errors import InvalidInput

_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "i386": "386", "aarch64": "arm64"}
_ARM_ALIASES = {"armhf": "v7", "armel": "v6"}

# What uname(2) calls a machine where Go has another word, beyond the aliases; with the variant.
_MACHINES = {
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "armv5tel": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "loongarch64": ("loong64", ""),
}

# Only a word alone must be one of these: `os/arch` may name what does not exist yet.
_KNOWN_OS = {"android", "darwin", "freebsd", "ios", "linux", "netbsd", "openbsd", "solaris", "windows"}
_KNOWN_ARCHITECTURES = {
    *("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle"),
    *("ppc64", "ppc64le", "riscv64", "s390x", "wasm"),
}


class Platform(NamedTuple):
    """What the programs of an image run on. Made by normalised(), so equal platforms are equal tuples."""

    os: str
    architecture: str
    variant: str = ""
    features: tuple[str, ...] = ()  # `os.features` that the image insists on; none is known on Linux

    def __str__(self) -> str:
        return "/".join(part for part in self[:3] if part)


def normalised(os_name: str, architecture: str, variant: str = "", features: tuple[str, ...] = ()) -> Platform:
    """The Platform that these words mean."""
    os_name, architecture, variant = os_name.lower(), architecture.lower(), variant.lower()
    if os_name == "macos":
        os_name = "darwin"
    if architecture in _ARM_ALIASES:
        return Platform(os_name, "arm", _ARM_ALIASES[architecture], features)
    if architecture == "i386":
        variant = ""
    architecture = _ALIASES.get(architecture, architecture)
    if architecture in ("arm", "arm64") and variant.isdecimal():
        variant = f"v{variant}"
    if (architecture, variant) in (("amd64", "v1"), ("arm64", "v8")):
        variant = ""
    elif (architecture, variant) == ("arm", ""):
        variant = "v7"
    return Platform(os_name, architecture, variant, features)


def parse_platform(text: str) -> Platform:
    """`os/arch`, `os/arch/variant`, or one of the two words alone, as in `--platform`. Raises InvalidInput."""
    parts = text.split("/")
    for part in parts:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", part):
            raise InvalidInput(f"invalid platform {text!r}: {part!r} is not a word of letters, digits, '_', '.', '-'")
    if len(parts) == 1:
        return _from_one_word(text)
    if len(parts) > 3:
        raise InvalidInput(f"invalid platform {text!r}: want os/architecture or os/architecture/variant")
    os_name, architecture, variant = [*parts, ""][:3]
    return normalised(os_name, architecture, variant)


def host_platform() -> Platform:
    """The platform of this machine."""
    machine = os.uname().machine
    return normalised("linux", *_MACHINES.get(machine, (machine, "")))


def acceptable(wanted: Platform) -> tuple[Platform, ...]:
    """The platforms whose images run where *wanted* was asked for, best first."""
    return tuple(
        Platform(wanted.os, architecture, variant, wanted.features)
        for architecture, variant in _compatible(wanted.architecture, wanted.variant)
    )


def _from_one_word(word: str) -> Platform:
    host = host_platform()
    os_name = normalised(word, "").os
    if os_name in _KNOWN_OS:
        return host._replace(os=os_name)
    platform = normalised("linux", word)
    if platform.architecture in _KNOWN_ARCHITECTURES:
        return platform
    raise InvalidInput(f"invalid platform {word!r}: unknown operating system or architecture")


def _compatible(architecture: str, variant: str) -> list[tuple[str, str]]:
    """(architecture, variant) pairs, normalised, the wanted one first, then what it can run besides."""
    if architecture == "amd64":
        lower = [f"v{n}" for n in range(_number(variant) - 1, 1, -1)]
        return _unique([("amd64", v) for v in [variant, *lower, ""]]) + [("386", "")]
    if architecture == "arm":
        return _unique([("arm", variant)] + [("arm", f"v{n}") for n in range(_number(variant) - 1, 4, -1)])
    if architecture == "arm64":
        versions = _unique([("arm64", variant)] + [("arm64", v) for v in _arm64_below(variant)])
        return versions + [("arm", f"v{n}") for n in (8, 7, 6, 5)]
    return [(architecture, variant)]


def _arm64_below(variant: str) -> list[str]:
    """Normalised variants that a core of *variant* also runs: v9.x has all of v8.(x+5)."""
    major, _, minor = (variant or "v8").removeprefix("v").partition(".")
    if major not in ("8", "9") or not (minor or "0").isdecimal() or len(minor) > 1:
        return []
    count = int(minor or "0")
    nines = [f"v9.{n}" if n else "v9" for n in range(count - 1, -1, -1)] if major == "9" else []
    top_eight = count + 5 if major == "9" else count - 1
    return nines + [f"v8.{n}" if n else "" for n in range(top_eight, -1, -1)]


def _number(variant: str) -> int:
    digits = variant.removeprefix("v")
    return int(digits) if digits.isdecimal() and len(digits) < 3 else 0


def _unique(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(pairs))
