"""start: a container that exists gets a monitor, and runs."""

import json
import os
import time
from contextlib import nullcontext

from rootless.engine import attachment, auto_remove, bundle, control_group, events, seccomp, storage
from rootless.engine.attachment import Attached
from rootless.engine.context import Engine
from rootless.engine.control import wait_for_end, wait_for_monitor
from rootless.engine.log_options import log_limits
from rootless.errors import Conflict, InvalidInput, RootlessError
from rootless.linux import files, processes
from rootless.runtime import channel
from rootless.runtime.channel import Socket
from rootless.runtime.prepared import Prepared
from rootless.runtime.user_namespace import SINGLE, why_single
from rootless.spec.runtime import Config
from rootless.store.containers import LIVE, Record


class AlreadyRunning(Conflict):
    """The container has been started already."""


def start(
    engine: Engine,
    record: Record,
    monitor: Prepared,
    *,
    attach: bool,
    window_size: tuple[int, int] = (0, 0),
) -> Socket:
    """Start the container under *monitor*; returns when its program runs, with the channel to the monitor.

    With *attach*, output follows on the channel (see attach.py). Raises AlreadyRunning, and what kept
    it from starting; CommandNotFound and CommandNotExecutable are among that.
    """
    container_id = record["id"]
    rung = engine.enter_namespace()
    if record["networks"]:
        attachment.mend(engine)
    with engine.containers.lock(container_id):
        state = engine.containers.state_locked(container_id)
        if state["status"] in LIVE:
            raise AlreadyRunning(f"container {record['name']} is already running")
        wait_for_monitor(engine, container_id)  # the last one may just be leaving
        os.makedirs(engine.containers.run_directory(container_id), 0o700, exist_ok=True)
        attached = _attach(engine, record, state) if record["networks"] else None
        with attached.connection if attached else nullcontext():
            config = _write_bundle(engine, record, rung, window_size)
            union = storage.union_settings(config, engine.containers.run_directory(container_id))
            events.connected(engine, record, attached.endpoints if attached else ())
            events.mounted(engine, record)
            _launch(engine, record, state, monitor.channel, attached, union, attach=attach)
        try:
            _wait_until_it_runs(monitor.channel)
        except RootlessError:
            raise  # it does not run
        except BaseException:
            # Ctrl-C: nothing shall run that nobody knows of.
            channel.send(monitor.channel, channel.STOP, "9 0")
            wait_for_end(monitor.channel)
            raise
    if rung == SINGLE:
        _warn_single(engine.session)
    return monitor.channel


def _attach(engine: Engine, record: Record, state: Record) -> Attached:
    try:
        return attachment.attach(engine, record, state)
    except RootlessError as error:
        engine.containers.save_state(record["id"], {**state, "error": str(error), "exit_code": 128}, durable=False)
        raise


def _write_bundle(engine: Engine, record: Record, rung: str, window_size: tuple[int, int]) -> Config:
    config = bundle.build(engine, record, rung, window_size)
    if config["process"]["init"] and config["linux"]["namespaces"] and record["pid"]:
        raise InvalidInput("--init needs a pid namespace of the container's own")
    _write(os.path.join(engine.containers.directory(record["id"]), "config.json"), config)
    return config


def _launch(
    engine: Engine,
    record: Record,
    state: Record,
    monitor: Socket,
    attached: Attached | None,
    union: Record | None,
    *,
    attach: bool,
) -> None:
    """Give the monitor its settings, and the connection that keeps the container *attached*."""
    if attached:
        attachment.write_name_files(engine, record, attached.state)
    settings = {**_settings(engine, record, state, attached), "union": union, "attached": attach}
    path = os.path.join(settings["run_directory"], "settings.json")
    _write(path, settings)
    channel.send(monitor, channel.LAUNCH, path, (attached.connection.fileno(),) if attached else ())


def _write(path: str, document: Record) -> None:
    files.replace_file(path, json.dumps(document, separators=(",", ":")).encode(), durable=False)


def _settings(engine: Engine, record: Record, state: Record, attached: Attached | None) -> Record:
    """What the monitor needs to know (monitor.py)."""
    log = record["log"]
    directory = engine.containers.directory(record["id"])
    state = {**state, "boot_id": processes.boot_id(), "restart_count": 0, "error": "", "oom_killed": False}
    state["network"] = attached and attached.state
    return {
        "id": record["id"],
        "directory": directory,
        "run_directory": engine.containers.run_directory(record["id"]),
        "bundle": directory,
        "state": state,
        "durable": not record["auto_remove"],
        "terminal": record["terminal"],
        "open_stdin": record["open_stdin"],
        "stdin_once": record["stdin_once"],
        "log": {
            "path": os.path.join(directory, "container.log"),
            "limits": log_limits(log["options"]),
        }
        if log["driver"] != "none"
        else None,
        "restart": record["restart"],
        "stop_signal": record["stop_signal"],
        "stop_timeout": record["stop_timeout"],
        "health": _health_settings(engine, record),
        "network": attachment.settings(engine) if attached else None,
        "events": events.monitor_settings(engine, record),
        "cgroup": control_group.settings(record),
        "at_end": auto_remove.arguments(engine, record["id"]) if record["auto_remove"] else None,
    }


def _health_settings(engine: Engine, record: Record) -> Record | None:
    health = record["health"]
    if health is None:
        return None
    test = health["test"]
    arguments = ["/bin/sh", "-c", *test[1:]] if test[0] == "CMD-SHELL" else test[1:] if test[0] == "CMD" else test
    check = {**bundle.process(record, (0, 0)), "args": arguments, "terminal": False, "init": False}
    return {**health, "process": check, "seccomp": seccomp.section(engine, record, bundle.granted(record))}


def _wait_until_it_runs(connection: Socket) -> None:
    failure: bytes | None = None
    while True:
        kind, text, _ = channel.receive(connection)
        if kind == channel.BEGAN:
            return
        if kind == channel.ERROR:
            failure = text
        elif kind == channel.WARNING:
            os.write(2, b"rootless: warning: " + text + b"\n")
        elif not kind or kind == channel.EXITED:
            if failure is not None:
                channel.raise_error(failure)
            raise RootlessError("the container's monitor died", hint="its last words may be in the container's log")


def _warn_single(session: str) -> None:
    """Once a day at most: files of the image belong to the user, whoever they should belong to."""
    marker = os.path.join(session, "warned")
    try:
        if time.time() - os.stat(marker).st_mtime < 86400:
            return
    except OSError:
        pass
    os.write(2, f"rootless: warning: only your own id is mapped into containers\nhint: {why_single()}\n".encode())
    try:
        with open(marker, "w", encoding="ascii"):
            pass
    except OSError:
        pass  # then it is said again
