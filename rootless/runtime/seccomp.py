"""The system call filter of a container's processes: from linux.seccomp to the kernel.

A filter lasts for good, so it is installed last, just before execve(2): what we do on the way there needs calls that a
container has no use for. To install one takes no_new_privs, which would be the end of su and sudo in the container, or
CAP_SYS_ADMIN in the user namespace. So that capability is kept, permitted and effective, up to execve(2), which takes
away whatever is not in the bounding and ambient sets (credentials.py).

To make a program of the rules takes some milliseconds. Where the command has done that already (engine/seccomp.py), it
stands in the section as `compiled`; it is not looked for in bundles of others.
"""

import binascii
import os
from typing import NamedTuple

from rootless.errors import HostUnsupported
from rootless.linux import seccomp
from rootless.spec.runtime import Config


class Filter(NamedTuple):
    """What seccomp(2) takes."""

    program: bytes
    flags: int


def prepare(section: Config | None) -> Filter | None:
    """The filter of the section linux.seccomp; None where there is none. To be called while imports still work.

    Raises InvalidInput for what is no such section, HostUnsupported for a machine whose calls are not known.
    """
    if section is None:
        return None
    if compiled := section.get("compiled"):
        return Filter(binascii.a2b_base64(compiled["program"]), compiled["flags"])
    return compile_section(section)


def compile_section(section: Config) -> Filter:
    """The same, made of the rules in it."""
    # For bundles that are not ours, and for a first time.
    from rootless.spec.seccomp import parse
    from rootless.spec.seccomp_filter import compile_filter

    parsed = parse(section)
    return Filter(compile_filter(parsed, os.uname().machine), parsed.flags)


def install(wanted: Filter) -> int:
    """Have the filter hold from here on. Returns the listener's descriptor, or 0. Raises HostUnsupported."""
    try:
        return seccomp.set_filter(wanted.program, wanted.flags)
    except OSError as error:
        raise HostUnsupported(
            f"cannot install the system call filter: {error.strerror}",
            hint="a kernel without CONFIG_SECCOMP_FILTER has none: --security-opt seccomp=unconfined does without",
        ) from error
