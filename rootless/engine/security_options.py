"""What --security-opt of run and security_opt of Compose ask for."""

from collections.abc import Sequence
from typing import Any

from rootless.engine.seccomp import read_profile
from rootless.errors import HostUnsupported


def parse_security_options(given: Sequence[str], called: str) -> dict[str, Any]:
    """Fields of ContainerOptions. Docker takes a colon for the equals sign, too. *called* is the option's own name.

    Raises HostUnsupported for what is not there, InvalidInput for a profile that cannot be read.
    """
    asked: dict[str, Any] = {}
    for option in given:
        name, _, argument = option.partition("=" if "=" in option else ":")
        if name == "no-new-privileges" and argument in ("", "true", "false"):
            asked["no_new_privileges"] = argument != "false"
        elif (name, argument) == ("systempaths", "unconfined"):
            asked["unmasked"] = True
        elif name == "seccomp" and argument:
            asked["seccomp"] = read_profile(argument)
        elif name == "label" or (name, argument) == ("apparmor", "unconfined"):
            continue  # nothing of it is on that could be switched off
        else:
            raise HostUnsupported(f"{called} {option} is not there yet")
    return asked
