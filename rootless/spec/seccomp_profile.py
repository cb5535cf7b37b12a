"""Profiles: what `--security-opt seccomp=FILE` names. From one, and what a container is, comes its linux.seccomp.

The format is Docker's: that of the OCI configuration, and at each entry of `syscalls` in which cases it counts:
`includes` and `excludes` with `caps` (that the container may have), `arches` (of the machine, in Go's names) and
`minKernel`. Instead of `architectures` there may be an `archMap` from a machine's architecture to the others that run
there. `builtin` is a profile of the same kind, written as records (seccomp_builtin.py).
"""

import json
from typing import Any, NamedTuple

from rootless.errors import InvalidInput
from rootless.spec.runtime import Config

_LIMIT = 4 << 20
Kernel = tuple[int, int]


class Gate(NamedTuple):
    """Conditions on the container and the machine; what is empty asks for nothing."""

    capabilities: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()  # "amd64", "arm64"
    kernel: Kernel | None = None


class Entry(NamedTuple):
    """One entry of `syscalls`, *call* as it will stand in the configuration."""

    call: Config
    includes: Gate = Gate()
    excludes: Gate = Gate()


class Profile(NamedTuple):
    """*common* is what the configuration has besides `syscalls`; *architectures* are by the machine's own one."""

    common: Config
    entries: tuple[Entry, ...]
    architectures: dict[str, tuple[str, ...]]


class Circumstances(NamedTuple):
    """What decides which entries count."""

    capabilities: frozenset[str]  # of the bounding set
    machine: str  # uname -m
    kernel: Kernel


_MACHINES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}


def resolve(profile: Profile, circumstances: Circumstances) -> Config:
    """The section linux.seccomp of a container."""
    name, native = _MACHINES.get(circumstances.machine, (circumstances.machine, ""))
    section = dict(profile.common)
    if native in profile.architectures:
        section["architectures"] = list(profile.architectures[native])
    section["syscalls"] = [entry.call for entry in profile.entries if _counts(entry, circumstances, name)]
    return section


def _counts(entry: Entry, circumstances: Circumstances, machine: str) -> bool:
    wanted, unwanted = entry.includes, entry.excludes
    if unwanted.machines and machine in unwanted.machines:
        return False
    if not circumstances.capabilities.isdisjoint(unwanted.capabilities):
        return False
    if unwanted.kernel and circumstances.kernel >= unwanted.kernel:
        return False
    if wanted.machines and machine not in wanted.machines:
        return False
    if not circumstances.capabilities.issuperset(wanted.capabilities):
        return False
    return not wanted.kernel or circumstances.kernel >= wanted.kernel


def load(text: str) -> Profile:
    """The profile that a file holds. Raises InvalidInput; what stands in an entry's rules is for seccomp.parse."""
    try:
        document = json.loads(text) if len(text) <= _LIMIT else None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"decoding seccomp profile failed: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput("decoding seccomp profile failed: an object is needed")
    if document.get("architectures") and document.get("archMap"):
        raise InvalidInput(
            "both 'architectures' and 'archMap' are specified in the seccomp profile,"
            " use either 'architectures' or 'archMap'"
        )
    keys = ("defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata")
    common = {key: document[key] for key in keys if document.get(key) is not None}
    entries = tuple(_entry(e, f"syscalls[{n}]") for n, e in enumerate(_list(document, "syscalls")))
    return Profile(common, entries, dict(_architectures(e) for e in _list(document, "archMap")))


def _architectures(entry: Any) -> tuple[str, tuple[str, ...]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("architecture"), str):
        raise InvalidInput("the seccomp profile's archMap: an object with architecture is needed")
    native = entry["architecture"]
    return native, (native, *_strings(entry, "subArchitectures"))


def _entry(entry: Any, where: str) -> Entry:
    if not isinstance(entry, dict):
        raise InvalidInput(f"the seccomp profile's {where}: an object is needed")
    if entry.get("name") and entry.get("names"):
        raise InvalidInput("both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'")
    names = [entry["name"]] if entry.get("name") else entry.get("names")
    call = {"names": names, **{k: entry[k] for k in ("action", "errnoRet", "args") if entry.get(k) is not None}}
    return Entry(call, _gate(entry.get("includes"), where), _gate(entry.get("excludes"), where))


def _gate(document: Any, where: str) -> Gate:
    if not document:
        return Gate()
    if not isinstance(document, dict):
        raise InvalidInput(f"the seccomp profile's {where}: includes and excludes are objects")
    kernel = document.get("minKernel")
    return Gate(tuple(_strings(document, "caps")), tuple(_strings(document, "arches")), _kernel(kernel))


def _kernel(text: Any) -> Kernel | None:
    if not text:
        return None
    version = parse_kernel(text) if isinstance(text, str) else None
    if version is None:
        raise InvalidInput(f"the seccomp profile's minKernel: {text!r} is no version")
    return version


def parse_kernel(release: str) -> Kernel | None:
    """Major and minor number of "6.1.0-18-amd64"; None of what does not begin so."""
    major, _, rest = release.partition(".")
    minor = rest.split(".")[0].split("-")[0].split("+")[0]
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        return None
    return int(major), int(minor)


def _list(document: Config, key: str) -> list[Any]:
    value = document.get(key) or []
    if not isinstance(value, list):
        raise InvalidInput(f"the seccomp profile's {key}: a list is needed")
    return value


def _strings(document: Config, key: str) -> list[str]:
    value = _list(document, key)
    if not all(isinstance(text, str) for text in value):
        raise InvalidInput(f"the seccomp profile's {key}: a list of strings is needed")
    return value
