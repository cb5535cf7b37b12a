"""What --security-opt of run and security_opt of Compose ask for.

AppArmor and SELinux label what a process executes, if the machine has them, and only as far as its policy lets a user
choose. Docker passes over labels where there is no SELinux, so that scripts for Fedora run on Debian; so do we. A
profile of AppArmor that cannot hold is refused: it was asked for to confine something.
"""

import os
from collections.abc import Sequence
from typing import Any

from rootless.engine.seccomp import read_profile
from rootless.errors import HostUnsupported, InvalidInput

ALL = "ALL"
_SELINUX = "/sys/fs/selinux/enforce"
_APPARMOR = "/sys/kernel/security/apparmor"
_NO_LABEL = ("system_u", "system_r", "container_t", "s0")  # what container-selinux has for containers
_PARTS = ("user", "role", "type", "level")


def parse_security_options(given: Sequence[str], called: str) -> dict[str, Any]:
    """Fields of ContainerOptions. Docker takes a colon for the equals sign, too. *called* is the option's own name.

    Raises HostUnsupported for what is not there, InvalidInput for a profile that cannot be read.
    """
    asked: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for option in given:
        name, _, argument = option.partition("=" if "=" in option else ":")
        if name == "no-new-privileges" and argument in ("", "true", "false"):
            asked["no_new_privileges"] = argument != "false"
        elif (name, argument) == ("systempaths", "unconfined"):
            asked["unmasked_paths"] = (ALL,)
        elif name in ("mask", "unmask") and argument:
            key = f"{name}ed_paths"
            asked[key] = (*asked.get(key, ()), *_paths(option, argument, any_path=name == "unmask"))
        elif name == "proc-opts" and argument:
            asked["proc_options"] = tuple(argument.split(","))
        elif name == "seccomp" and argument:
            asked["seccomp"] = read_profile(argument)
        elif name == "label" and argument:
            labels |= _label(option, argument)
        elif name == "apparmor" and argument:
            asked["apparmor_profile"] = _profile(argument)
        else:
            raise HostUnsupported(
                f"{called} {option} is not there",
                hint="there are: no-new-privileges[=true|false], seccomp=FILE|builtin|unconfined, apparmor=PROFILE,"
                " label=disable|type:TYPE|level:LEVEL|user:USER|role:ROLE, mask=PATH[:PATH], unmask=ALL|PATH[:PATH],"
                " proc-opts=OPTIONS, systempaths=unconfined",
            )
    if labels and "disable" not in labels and os.path.exists(_SELINUX):
        parts = [labels.get(part, usual) for part, usual in zip(_PARTS, _NO_LABEL, strict=True)]
        asked["selinux_label"] = ":".join(parts)
    return asked


def _paths(option: str, argument: str, *, any_path: bool) -> list[str]:
    """The paths of mask= and unmask=, normal ones. Raises InvalidInput."""
    paths = argument.split(":")
    for path in paths:
        if not path.startswith("/") and not (any_path and path == ALL):
            raise InvalidInput(f"{option}: {path!r} is no absolute path")
    return [path if path == ALL else os.path.normpath(path) for path in paths]


def _label(option: str, argument: str) -> dict[str, str]:
    """{"type": "spc_t"} of "type:spc_t". Raises InvalidInput."""
    part, colon, value = argument.partition(":")
    if part in ("disable", "nested") and not colon:
        return {part: ""}
    if part not in (*_PARTS, "filetype") or not value or not value.isprintable() or " " in value:
        raise InvalidInput(f"invalid --security-opt {option}", hint="label=disable, label=type:container_t …")
    return {part: value}


def _profile(name: str) -> str:
    """A profile that can hold here; "" for unconfined. Raises HostUnsupported."""
    if name == "unconfined":
        return ""
    if not os.path.isdir(_APPARMOR):
        raise HostUnsupported(f"apparmor={name}: this machine has no AppArmor", hint="leave the option out")
    return name
