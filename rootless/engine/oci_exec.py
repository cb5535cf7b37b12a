"""exec: another process in a container that runs, from a process document or from words of the command line."""

import os
from typing import Any, NamedTuple

from rootless.engine import oci_config, oci_foreground
from rootless.engine.oci import warn, write_pid
from rootless.engine.oci_state import Record
from rootless.errors import Conflict, InvalidInput
from rootless.runtime import channel, forking, joining
from rootless.spec import runtime_check
from rootless.spec.runtime import Config

_SETS = ("bounding", "effective", "permitted")


class Exec(NamedTuple):
    """What is asked for."""

    process: Config
    detach: bool = False
    pid_file: str = ""
    console_socket: str = ""
    preserved: tuple[int, ...] = ()
    ignore_paused: bool = False


def process_of(path: str) -> Config:
    """The document of --process. Raises InvalidInput, NotFound."""
    return runtime_check.check_process(oci_config.read_json(path))


def process_like(base: Config, arguments: list[str], changes: Config, env: list[str], caps: list[str]) -> Config:
    """The process of the configuration, with *arguments* instead of its own, *changes*, and more of the rest."""
    given = base.get("capabilities") or {}
    capabilities = {name: sorted({*(given.get(name) or ()), *caps}) for name in (*_SETS, "inheritable", "ambient")}
    if not caps:
        capabilities = given
    else:
        capabilities.update({name: given.get(name) or [] for name in ("inheritable", "ambient")})
    process = {**base, "args": arguments, "env": [*(base.get("env") or ()), *env], "capabilities": capabilities}
    return runtime_check.check_process({**process, "terminal": False, **changes})


def run(record: Record, asked: Exec) -> int:
    """Run it; its exit code, or 0 at once with *detach*. Raises what execve(2) says."""
    status = record.status
    if status == "paused" and not asked.ignore_paused:
        raise Conflict(f"container {record.id} is paused: resume it first")
    if status not in ("running", "created", "paused"):
        raise Conflict(f"cannot exec in a container that is {status}")
    terminal = bool(asked.process.get("terminal"))
    if terminal and asked.detach and not asked.console_socket:
        raise InvalidInput("a terminal that nobody waits at needs --console-socket")
    oci_config.enter_namespace()
    forked = _begin(record, asked, None if terminal else (0, 1, 2))
    terminal_fd = forked.terminal_fd
    if terminal_fd is not None and asked.console_socket:
        channel.send_terminal(asked.console_socket, terminal_fd)
        os.close(terminal_fd)
        terminal_fd = None
    write_pid(asked.pid_file, forked.pid)
    return 0 if asked.detach else oci_foreground.wait(forked.pid, terminal_fd)


def _begin(record: Record, asked: Exec, stdio: tuple[int, int, int] | None) -> forking.Forked:
    linux: dict[str, Any] = record.config()["linux"]
    ours, theirs = channel.pair()
    helper = os.fork()
    if helper == 0:
        ours.close()
        if record.cgroup:
            from rootless.runtime.cgroup_place import enter_or_tell

            enter_or_tell({"path": record.cgroup, "socket": "", "limited": True}, theirs)
        joining.join(
            record.pid,
            record.started,
            asked.process,
            linux.get("seccomp"),
            stdio,
            theirs,
            asked.preserved,
            linux.get("personality"),
            die_with_parent=False,
        )
    theirs.close()
    return forking.await_child(helper, ours, b"", warn)
