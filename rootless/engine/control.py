"""Talking to the monitor of a container that runs: stop, kill, pause, wait."""

import json
import os
import time
from contextlib import closing, suppress
from typing import Any

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.errors import Conflict, NotFound, RootlessError
from rootless.runtime import channel
from rootless.runtime.channel import Socket
from rootless.store.containers import LIVE

_SIGKILL = 9


def connect(engine: Engine, container_id: str) -> Socket | None:
    """A connection to the monitor; None where there is none to connect to."""
    try:
        directory = os.open(engine.containers.run_directory(container_id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return channel.connect(f"/proc/self/fd/{directory}/attach")
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    finally:
        os.close(directory)


def require(engine: Engine, container_id: str) -> Socket:
    """A connection to the monitor of a container that runs. Raises Conflict where it does not run."""
    state = engine.containers.state(container_id)
    connection = connect(engine, container_id) if state["status"] in LIVE else None
    if connection is None:
        raise Conflict(f"container {container_id[:12]} is not running")
    return connection


def stop(engine: Engine, container_id: str, signum: int | None, timeout: float | None) -> None:
    """Ask the program to end, and kill it *timeout* seconds later (< 0: never); returns when it has ended.

    A container that does not run is well. None stands for what the container was created with.
    """
    if engine.containers.state(container_id)["status"] not in LIVE:
        return
    record = engine.containers.load(container_id)
    signum = record["stop_signal"] if signum is None else signum
    timeout = record["stop_timeout"] if timeout is None else timeout
    connection = connect(engine, container_id)
    if connection is not None:
        with closing(connection), suppress(OSError):  # it may just be leaving
            channel.send(connection, channel.STOP, f"{signum} {timeout}")
            wait_for_end(connection)
    wait_for_monitor(engine, container_id)
    events.of_container(engine, record, "stop")


def kill(engine: Engine, container_id: str, signum: int) -> None:
    """Send a signal to the program. SIGKILL and the stop signal also end a restart policy, as in Docker."""
    record = engine.containers.load(container_id)
    with closing(require(engine, container_id)) as connection:
        if signum not in (_SIGKILL, record["stop_signal"]):
            _ask(connection, channel.SIGNAL, str(signum))
            return
        _send(connection, channel.STOP, f"{signum} -1")
        if signum == _SIGKILL:
            wait_for_end(connection)


def tell_monitor(engine: Engine, container_id: str, **changes: Any) -> None:
    """Have the monitor of a container that runs know of what has changed: its name, its restart policy."""
    connection = connect(engine, container_id)
    if connection is not None:
        with closing(connection), suppress(Conflict):
            _ask(connection, channel.UPDATE, json.dumps(changes))


def pass_signal(engine: Engine, container_id: str, signum: int) -> None:
    """Send a signal that the caller got to the program; it may just be ending.

    On a connection of its own: the one that carries the program's input may be full of it.
    """
    connection = connect(engine, container_id)
    if connection is not None:
        with closing(connection), suppress(Conflict):
            _ask(connection, channel.SIGNAL, str(signum))


def pause(engine: Engine, container_id: str, *, resume: bool) -> None:
    """Freeze the processes of the container, or let them go on. Raises Conflict where that is so already."""
    engine.enter_namespace()
    status = engine.containers.state(container_id)["status"]
    if status == ("running" if resume else "paused"):
        raise Conflict(f"container {container_id[:12]} is {'not' if resume else 'already'} paused")
    with closing(require(engine, container_id)) as connection:
        _ask(connection, channel.UNPAUSE if resume else channel.PAUSE)


def wait(engine: Engine, container_id: str) -> int:
    """The exit code, as soon as the container does not run."""
    while True:
        state = engine.containers.state(container_id)
        if state["status"] not in LIVE:
            return int(state["exit_code"])
        connection = connect(engine, container_id)
        if connection is None:
            time.sleep(0.02)  # it is just starting or ending
            continue
        with closing(connection):
            code = wait_for_end(connection)
            if code is not None:
                return code
        if not os.path.isdir(engine.containers.directory(container_id)):
            raise NotFound(f"No such container: {container_id}")


def wait_for_end(connection: Socket) -> int | None:
    """The exit code that the monitor tells; None where it goes away without a word."""
    while True:
        try:
            kind, text, _ = channel.receive(connection)
        except OSError:
            return None
        if kind == channel.EXITED:
            return int(text)
        if not kind:
            return None


def wait_for_monitor(engine: Engine, container_id: str, seconds: float = 10.0) -> None:
    """Wait until the monitor, which has said that all is over, is gone."""
    deadline = time.monotonic() + seconds
    while engine.containers.has_monitor(container_id):
        if time.monotonic() > deadline:
            raise RootlessError(f"the monitor of container {container_id[:12]} does not end")
        time.sleep(0.002)


def _send(connection: Socket, kind: bytes, text: str = "") -> None:
    try:
        channel.send(connection, kind, text)
    except OSError:
        raise Conflict("the container has just ended") from None


def _ask(connection: Socket, kind: bytes, text: str = "") -> None:
    """Send a message, and wait until it is done or the container has ended. Raises what the monitor says."""
    _send(connection, kind, text)
    while True:
        try:
            answer, data, _ = channel.receive(connection)
        except OSError:
            return
        if answer == channel.ERROR:
            channel.raise_error(data)
        if answer in (channel.DONE, channel.EXITED, b""):
            return
