"""Runs a function of a test as root of a new user namespace, in a child process.

    assert in_namespace(lambda: os.getuid()) == 0

With the whole range of subordinate ids (newuidmap(1)), or with one id, as where there are none. The function has a
mount namespace of its own, too. What it returns has to be a literal (repr() must tell all of it); what it raises is an
AssertionError here.
"""

import ast
import os
import pwd
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rootless.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, unshare, write_id_maps

T = TypeVar("T")


def in_namespace(function: Callable[[], T], *, one_id: bool = False) -> T:
    """What *function* returns there."""
    child_ready, parent_ready, result = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            unshare(CLONE_NEWUSER | CLONE_NEWNS)
            os.write(child_ready[1], b".")
            os.read(parent_ready[0], 1)
            outcome = "returned", function()
            status = 0
        except BaseException:
            outcome = "raised", traceback.format_exc()  # type: ignore[assignment]
        finally:
            with open(result[1], "w", encoding="ascii", errors="backslashreplace") as file:
                file.write(ascii(outcome))
            os._exit(status)
    for fd in (child_ready[1], parent_ready[0], result[1]):
        os.close(fd)
    try:
        os.read(child_ready[0], 1)
        map_ids(pid, one_id)
        os.write(parent_ready[1], b".")
        with open(result[0], encoding="ascii", closefd=False) as file:
            text = file.read()
    finally:
        for fd in (child_ready[0], parent_ready[1], result[0]):
            os.close(fd)
        os.waitpid(pid, 0)
    kind, value = ast.literal_eval(text)
    assert kind == "returned", value
    return value  # type: ignore[no-any-return]


def map_ids(pid: int, one_id: bool) -> None:
    """Make the caller root of the namespace that *pid* is in."""
    if one_id:
        write_id_maps(pid, f"0 {os.geteuid()} 1", f"0 {os.getegid()} 1", deny_setgroups=True)
        return
    for command, own, kind in (("newuidmap", os.geteuid(), "subuid"), ("newgidmap", os.getegid(), "subgid")):
        first, count = subordinate(kind)
        subprocess.run([command, str(pid), "0", str(own), "1", "1", first, count], check=True)


def subordinate(kind: str) -> tuple[str, str]:
    """First and number of the user's subordinate ids, from /etc/subuid or /etc/subgid."""
    for line in Path("/etc", kind).read_text().splitlines():
        name, first, count = line.split(":")
        if name in (pwd.getpwuid(os.geteuid()).pw_name, str(os.geteuid())):
            return first, count
    raise LookupError(f"no line of this user in /etc/{kind}")
