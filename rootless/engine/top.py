"""top: the processes of a container, seen from outside. Nothing of the container is run or loaded."""

import os
import pwd
import time
from collections.abc import Callable
from typing import NamedTuple

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.errors import Conflict, InvalidInput
from rootless.runtime.freezer import members
from rootless.store.containers import LIVE


class Process(NamedTuple):
    """A process of the container, by proc_pid_stat(5); ids are the machine's."""

    uid: int
    pid: int
    ppid: int
    started: float  # seconds of the epoch
    cpu_seconds: float
    tty: str
    command: str
    state: str
    rss: int  # KiB
    vsz: int  # KiB
    nice: int
    elapsed: float
    comm: str


# ps(1) format names -> (heading, how a process shows it)
_COLUMNS: dict[str, tuple[str, Callable[[Process], str]]] = {
    "user": ("USER", lambda p: _user(p.uid)),
    "uid": ("UID", lambda p: str(p.uid)),
    "pid": ("PID", lambda p: str(p.pid)),
    "ppid": ("PPID", lambda p: str(p.ppid)),
    "c": ("C", lambda p: str(_percent(p))),
    "pcpu": ("%CPU", lambda p: f"{_percent(p):.1f}"),
    "stime": ("STIME", lambda p: time.strftime("%H:%M", time.localtime(p.started))),
    "tty": ("TTY", lambda p: p.tty),
    "time": ("TIME", lambda p: _clock(p.cpu_seconds)),
    "cmd": ("CMD", lambda p: p.command),
    "args": ("COMMAND", lambda p: p.command),
    "comm": ("COMMAND", lambda p: p.comm),
    "stat": ("STAT", lambda p: p.state),
    "rss": ("RSS", lambda p: str(p.rss)),
    "vsz": ("VSZ", lambda p: str(p.vsz)),
    "ni": ("NI", lambda p: str(p.nice)),
    "etime": ("ELAPSED", lambda p: _clock(p.elapsed)),
}
_ALIASES = {
    "%cpu": "pcpu",
    "command": "args",
    "cputime": "time",
    "euid": "uid",
    "euser": "user",
    "nice": "ni",
    "rssize": "rss",
    "s": "stat",
    "state": "stat",
    "tname": "tty",
    "tt": "tty",
    "ucmd": "comm",
    "vsize": "vsz",
}
_FULL = ("user", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
_AUX = ("user", "pid", "pcpu", "vsz", "rss", "tty", "stat", "stime", "time", "args")


def top(engine: Engine, container_id: str, options: list[str]) -> tuple[list[str], list[list[str]]]:
    """(headings, a row per process). *options* are ps's: -ef (the default), aux, -o NAMES."""
    columns = parse_options(options)
    record = engine.containers.load(container_id)
    state = engine.containers.state(container_id)
    if state["status"] not in LIVE or not state["pid"]:
        raise Conflict(f"container {container_id[:12]} is not running")
    engine.enter_namespace()
    processes = [p for pid in sorted(members(state["pid"])) if (p := _read(pid))]
    events.of_container(engine, record, "top")
    return [_COLUMNS[c][0] for c in columns], [[_COLUMNS[c][1](p) for c in columns] for p in processes]


def parse_options(options: list[str]) -> tuple[str, ...]:
    """The columns that ps's *options* ask for. Raises InvalidInput for other options of ps."""
    columns: tuple[str, ...] = _FULL
    words = list(options)
    while words:
        word = words.pop(0)
        bare = word.lstrip("-")
        if bare[:1] == "o" and (bare[1:] or words):
            names = (bare[1:] or words.pop(0)).split(",")
            columns = tuple(_ALIASES.get(n.strip().lower(), n.strip().lower()) for n in names)
        elif bare and set(bare) <= set("aux"):
            columns = _AUX
        elif bare and set(bare) <= set("efFAlw"):
            columns = _FULL
        else:
            raise InvalidInput(f"ps option {word!r} is not supported", hint="there are: -ef, aux, -o NAME,NAME…")
    unknown = [c for c in columns if c not in _COLUMNS]
    if unknown:
        raise InvalidInput(f"unknown column {unknown[0]!r}", hint=f"there are: {', '.join(_COLUMNS)}")
    return columns


def _read(pid: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read().decode("utf-8", "replace")
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            cmdline = file.read().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
        uid = os.stat(f"/proc/{pid}").st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    ticks = os.sysconf("SC_CLK_TCK")
    now = time.time()
    boot = now - time.clock_gettime(time.CLOCK_BOOTTIME)
    started = boot + int(fields[19]) / ticks
    return Process(
        uid=uid,
        pid=pid,
        ppid=int(fields[1]),
        started=started,
        cpu_seconds=(int(fields[11]) + int(fields[12])) / ticks,
        tty=_tty(int(fields[4])),
        command=cmdline or f"[{name}]",
        state=fields[0],
        rss=int(fields[21]) * os.sysconf("SC_PAGE_SIZE") // 1024,
        vsz=int(fields[20]) // 1024,
        nice=int(fields[16]),
        elapsed=now - started,
        comm=name,
    )


def _tty(number: int) -> str:
    return f"pts/{os.minor(number)}" if 136 <= os.major(number) <= 143 else "?"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _percent(process: Process) -> int:
    return int(100 * process.cpu_seconds / process.elapsed) if process.elapsed > 0 else 0


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
