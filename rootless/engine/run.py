"""run: create, start, attach. And `start --attach` and `attach`, which are its parts."""

import os
import sys
from contextlib import closing
from functools import partial

from rootless.engine import attach as attaching
from rootless.engine import attachment, events, network_options
from rootless.engine.attach import Attachment, parse_detach_keys
from rootless.engine.configuration import load_configuration
from rootless.engine.context import Engine
from rootless.engine.control import pass_signal, require, stop, wait
from rootless.engine.create import create
from rootless.engine.options import ContainerOptions
from rootless.engine.remove import remove_ended
from rootless.engine.start import AlreadyRunning, start
from rootless.errors import Conflict, InvalidInput, NotFound, RootlessError
from rootless.linux import terminals
from rootless.runtime import channel
from rootless.runtime.channel import Socket
from rootless.runtime.prepared import MONITOR, Prepared, take
from rootless.store.containers import EXIT_UNKNOWN, LIVE, Record

DETACHED = 0


def run(
    engine: Engine,
    options: ContainerOptions,
    *,
    detach_keys: str,
    proxy_signals: bool,
    prepared: Prepared | None = None,
) -> tuple[Record, int]:
    """Create and start a container; attached, until it ends. Returns its record and the exit code to pass on."""
    keys = detach_bytes(detach_keys)
    if options.terminal and options.interactive and not options.detach and not sys.stdin.isatty():
        raise InvalidInput("the input device is not a TTY", hint="leave -t out to use pipes")
    engine.enter_namespace()
    if network_options.foresee(engine, options, begun=prepared is not None and prepared.networks):
        attachment.repair(engine)
    with closing(take(prepared, MONITOR, afresh=options.init)) as monitor:
        record = create(engine, options)
        if not options.detach:
            events.of_container(engine, record, "attach")
        try:
            connection = start(
                engine,
                record,
                monitor,
                attach=not options.detach,
                window_size=own_window() if options.terminal else (0, 0),
            )
        except BaseException:
            if options.auto_remove:
                remove_ended(engine, record["id"])
            raise
        if options.detach:
            return record, 0
        code = follow(engine, record, connection, keys, proxy_signals=proxy_signals, streams=options.attach)
        return record, code


def follow(
    engine: Engine,
    record: Record,
    connection: Socket,
    keys: bytes,
    *,
    proxy_signals: bool,
    streams: tuple[str, ...] = (),
    owns: bool = True,
) -> int:
    """Relay the caller's streams until the container ends or the user detaches; the exit code to pass on.

    Who *owns* it has started it, and stays to its end also where nobody reads its output. A --rm container is removed
    here, while the command is warm, before the prompt comes back; its monitor does it where the command was killed.
    """
    wanted = {s.lower() for s in streams} or {"stdin", "stdout", "stderr"}
    end = Attachment(
        connection,
        terminal=record["terminal"],
        stdin=0 if record["open_stdin"] and "stdin" in wanted else None,
        stdout=1 if "stdout" in wanted else None,
        stderr=2 if "stderr" in wanted else None,
        detach_keys=keys,
        send_signal=partial(pass_signal, engine, record["id"]) if proxy_signals and not record["terminal"] else None,
        stays_unread=owns,
    ).run()
    if end.detached:
        events.of_container(engine, record, "detach")
        if record["terminal"]:
            attaching.write_all(1, b"\r\n")
        return DETACHED
    code = _what_is_recorded(engine, record["id"]) if end.exit_code is None else end.exit_code
    if record["auto_remove"]:
        remove_ended(engine, record["id"])
    if end.failure:
        raise RootlessError(end.failure)
    return code


def _what_is_recorded(engine: Engine, container_id: str) -> int:
    """The exit code where its monitor was gone before it could tell; EXIT_UNKNOWN if it was killed, which is said."""
    try:
        code = wait(engine, container_id)
        if error := engine.containers.state(container_id)["error"]:
            attaching.write_all(2, f"rootless: {error}\n".encode())
    except NotFound:
        return EXIT_UNKNOWN
    return code


def attach(engine: Engine, container_id: str, *, detach_keys: str, proxy_signals: bool, with_input: bool) -> int:
    """Attach to a container that runs. Raises Conflict where it does not."""
    keys = detach_bytes(detach_keys)
    record = engine.containers.load(container_id)
    state = engine.containers.state(container_id)
    if state["status"] == "paused":
        raise Conflict("cannot attach to a paused container, unpause it first")
    if state["status"] != "running":
        raise Conflict("cannot attach to a stopped container, start it first")
    takes_input = with_input and record["open_stdin"]
    record = {**record, "open_stdin": takes_input}
    with closing(require(engine, container_id)) as connection:
        try:
            channel.send(connection, channel.ATTACH, "0" if takes_input else "1")
        except OSError:
            raise Conflict("cannot attach to a stopped container, start it first") from None
        events.of_container(engine, record, "attach")
        return follow(engine, record, connection, keys, proxy_signals=proxy_signals, owns=False)


def start_attached(
    engine: Engine,
    container_id: str,
    *,
    detach_keys: str,
    proxy_signals: bool,
    with_input: bool,
    prepared: Prepared | None = None,
) -> int:
    """start --attach: the exit code of the container; one that runs is attached to."""
    keys = detach_bytes(detach_keys)
    record = engine.containers.load(container_id)
    engine.enter_namespace()
    if engine.containers.state(container_id)["status"] == "running":
        return attach(engine, container_id, detach_keys=detach_keys, proxy_signals=proxy_signals, with_input=with_input)
    with closing(take(prepared, MONITOR, afresh=record["init"])) as monitor:
        size = own_window() if record["terminal"] else (0, 0)
        events.of_container(engine, record, "attach")
        connection = start(engine, record, monitor, attach=True, window_size=size)
        record = {**record, "open_stdin": record["open_stdin"] and with_input}
        return follow(engine, record, connection, keys, proxy_signals=proxy_signals)


def start_detached(engine: Engine, container_id: str, prepared: Prepared | None = None) -> None:
    """start: returns as soon as the program runs; a container that runs already is well."""
    record = engine.containers.load(container_id)
    if engine.containers.state(container_id)["status"] in LIVE:
        return
    engine.enter_namespace()
    with closing(take(prepared, MONITOR, afresh=record["init"])) as monitor:
        try:
            start(engine, record, monitor, attach=False)
        except AlreadyRunning:
            return  # somebody else was faster


def restart(engine: Engine, container_id: str, signum: int | None, timeout: float | None) -> None:
    """restart: end it as stop() does, and start it in the background."""
    record = engine.containers.load(container_id)
    stop(engine, container_id, signum, timeout)
    start_detached(engine, container_id)
    events.of_container(engine, record, "restart")


def detach_bytes(text: str) -> bytes:
    """The detach keys: the option's, the configuration's, or Docker's."""
    return parse_detach_keys(text or load_configuration().detach_keys or attaching.DEFAULT_DETACH_KEYS)


def own_window() -> tuple[int, int]:
    """Rows and columns of the caller's terminal; (0, 0) without one."""
    for fd in (0, 1, 2):
        if os.isatty(fd):
            return terminals.window_size(fd)
    return 0, 0
