"""info, on networks: how slirp carries what containers send on this machine, and what an administrator could better.

The slirp that runs is asked. Where none does, one is started for the question alone, with a socket of its own, so that
no command that needs it just now meets one that is about to go.
"""

import os
from contextlib import suppress
from typing import Any

from rootless.engine import networks
from rootless.engine.context import Engine
from rootless.errors import RootlessError
from rootless.store.layout import remove_path

_PING = "have root run: sysctl -w 'net.ipv4.ping_group_range=0 2147483647'"


def ask(engine: Engine) -> dict[str, Any]:
    """What slirp answers to `hello`, with its pid as `running` where it was there; or `error` and `hint`: no start."""
    with suppress(RootlessError):  # it is just leaving
        connection = networks.running(engine)
        if connection is not None:
            with connection:
                told = connection.request("hello")
            return {**told, "running": told["pid"]}
    directory = os.path.join(engine.session, f"probe.{os.getpid()}")
    os.mkdir(directory, 0o700)
    try:
        connection, told = networks.begin(engine, "hello", directory=directory)
        with connection:
            connection.request("stop")
        return told
    except RootlessError as error:
        return {"error": str(error), "hint": "" if directory in error.hint else error.hint}
    finally:
        remove_path(directory)


def document(told: dict[str, Any]) -> dict[str, Any]:
    """The section of info. Tcp is "kernel", "user", or "none" where there are no networks but the machine's own."""
    works, ping = "error" not in told, bool(told.get("ping"))
    return {
        "Tcp": told["tcp"] if works else "none",
        "Reason": told["reason"] if works else told["error"],
        "Remedy": "" if works else told["hint"],
        "IPv6": bool(told.get("ipv6")),
        "Ping": ping,
        "PingRemedy": _PING if works and not ping else "",
        "Pid": told.get("running", 0),
    }


def warnings(network: dict[str, Any]) -> list[str]:
    """What does not work as well as it could; *network* is the section of info."""
    if network["Tcp"] == "none":
        remedy = f"; {network['Remedy']}" if network["Remedy"] else ""
        return [f"WARNING: No networks but host and none: {network['Reason']}{remedy}"] if network["Reason"] else []
    lines = []
    if network["Tcp"] == "user":
        lines.append(f"WARNING: TCP of containers takes the slower way, in user space: {network['Reason']}")
    if network["PingRemedy"]:
        lines.append(f"WARNING: Containers cannot ping what is outside of their networks; {network['PingRemedy']}")
    return lines
