"""Which system call filter a container gets: its section linux.seccomp, with the program that the kernel takes.

A record says in `seccomp` what was asked for: "" for nothing, "builtin", "unconfined", or the text of a profile. What
comes of it depends on the capabilities that the container may have and on the machine, so it is found out at each start
and exec. To read the table, to choose and to compile takes longer than the rest of a start that is done in this
process; so what came of it is kept in the run directory, under a name that says all that it depends on.
"""

import binascii
import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rootless import spec
from rootless.engine.context import Engine
from rootless.errors import HostUnsupported, InvalidInput
from rootless.linux import capabilities, files
from rootless.runtime.seccomp import Filter, compile_section
from rootless.spec.runtime import Config
from rootless.store.containers import Record

BUILTIN, UNCONFINED = "builtin", "unconfined"
NEW_LISTENER = 8  # of seccomp(2), as in spec/seccomp.py
_SOURCES = ("seccomp", "seccomp_builtin", "seccomp_filter", "seccomp_numbers", "seccomp_profile")


def section(engine: Engine, record: Record, bounding: list[str]) -> Config | None:
    """linux.seccomp of a container that may have the capabilities *bounding*; None where it is unconfined.

    Raises InvalidInput for a profile that is none, HostUnsupported where there is no filter for this machine.
    """
    wanted = record.get("seccomp", "")
    if wanted == UNCONFINED or (not wanted and record["privileged"]):
        return None
    name = _name(wanted or BUILTIN, bounding)
    return _kept(engine.layout.run, name, lambda: make(wanted or BUILTIN, bounding))


def filter_of(run: str, described: Config) -> Filter:
    """The filter of a section that somebody else has written; *run* is the run directory. Raises as compiling does."""
    text = json.dumps(described, separators=(",", ":"))
    kept = _kept(run, _name(text, []), lambda: _with_program(described))
    return Filter(binascii.a2b_base64(kept["compiled"]["program"]), kept["compiled"]["flags"])


def _kept(run: str, name: str, how: Callable[[], Config]) -> Config:
    """What is in the run directory under *name*, made if it is not there."""
    path = os.path.join(run, "seccomp", name)
    with suppress(OSError, ValueError), open(path, "rb") as file:
        return dict(json.loads(file.read()))
    made = how()
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    files.replace_file(path, json.dumps(made, separators=(",", ":")).encode(), durable=False)
    return made


def _name(wanted: str, bounding: list[str]) -> str:
    """What the result depends on: the profile, the capabilities, the machine, and our own way of doing it."""
    what = wanted
    if wanted != BUILTIN:
        # It takes longer to load than all the rest.
        import hashlib

        what = hashlib.sha256(wanted.encode()).hexdigest()
    directory = os.path.dirname(spec.__file__)
    ours = sum(os.stat(os.path.join(directory, f"{name}.py")).st_mtime_ns for name in _SOURCES)
    machine = os.uname()
    return f"{what}.{capabilities.mask(bounding):x}.{machine.machine}.{machine.release.replace('/', '_')}.{ours:x}"


def make(wanted: str, bounding: list[str]) -> Config:
    """The section, from the table or from a profile's text; with `compiled`, which runtime/seccomp.py installs."""
    # In the run directory as a rule.
    from rootless.spec import seccomp_builtin, seccomp_profile

    profile = seccomp_builtin.profile() if wanted == BUILTIN else seccomp_profile.load(wanted)
    machine = os.uname()
    kernel = seccomp_profile.parse_kernel(machine.release) or (0, 0)
    circumstances = seccomp_profile.Circumstances(frozenset(bounding), machine.machine, kernel)
    made = _with_program(seccomp_profile.resolve(profile, circumstances))
    if made["compiled"]["flags"] & NEW_LISTENER:
        raise HostUnsupported(
            "the seccomp profile has SCMP_ACT_NOTIFY, and nobody would answer",
            hint="rootless-oci hands the listener to the socket at listenerPath",
        )
    return made


def _with_program(described: Config) -> Config:
    compiled = compile_section(described)
    return {
        **described,
        "compiled": {"flags": compiled.flags, "program": binascii.b2a_base64(compiled.program, newline=False).decode()},
    }


def without_program(made: Config | None) -> Config | None:
    """The section as the specification has it."""
    return made and {key: value for key, value in made.items() if key != "compiled"}


def check(wanted: str, bounding: list[str]) -> None:
    """Whether a container can have it. Raises InvalidInput and HostUnsupported (S08)."""
    if wanted not in ("", BUILTIN, UNCONFINED):
        make(wanted, bounding)


def read_profile(argument: str) -> str:
    """What a record has for `--security-opt seccomp=ARGUMENT`: a word, or the text of the file. Raises InvalidInput."""
    if argument in (BUILTIN, UNCONFINED):
        return argument
    try:
        with open(argument, "rb") as file:
            text = file.read().decode()
    except OSError as error:
        raise InvalidInput(
            f"opening seccomp profile ({argument}) failed: {(error.strerror or '').lower()}",
            hint=f"or one of the words: {BUILTIN}, {UNCONFINED}",
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"decoding seccomp profile failed: {argument} is no text") from error
    return compact(text)


def compact(text: str) -> str:
    """The profile's JSON as short as it gets, as Docker keeps it; or as it is, for check() to say what is wrong."""
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text or " "
    return json.dumps(document, separators=(",", ":"))


def profile_name(record: Record) -> str:
    """The word for `inspect` and `info`: "builtin", "unconfined", "custom"."""
    wanted = record.get("seccomp", "")
    if wanted in (BUILTIN, UNCONFINED):
        return str(wanted)
    return "custom" if wanted else UNCONFINED if record["privileged"] else BUILTIN
