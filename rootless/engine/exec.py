"""exec: another program in a container that runs."""

import json
import os
import select
import signal
from contextlib import ExitStack
from typing import Any, NamedTuple

from rootless.engine import bundle, control_group, events, seccomp, userns
from rootless.engine.attach import CHUNK, Detector, raw_mode, write_all
from rootless.engine.context import Engine
from rootless.engine.names import random_id
from rootless.engine.run import detach_bytes, own_window
from rootless.errors import Conflict, InvalidInput, RootlessError
from rootless.linux import terminals
from rootless.runtime import channel
from rootless.runtime.channel import Socket
from rootless.runtime.prepared import EXEC, Prepared, take
from rootless.spec.runtime import GROUPS, Config
from rootless.store.containers import EXIT_UNKNOWN, Record


class ExecOptions(NamedTuple):
    """Options with Docker's names and defaults."""

    command: tuple[str, ...]
    terminal: bool = False
    interactive: bool = False
    detach: bool = False
    environment: tuple[str, ...] = ()
    user: str | None = None
    working_directory: str | None = None
    privileged: bool = False
    detach_keys: str = ""


def exec_(engine: Engine, container_id: str, options: ExecOptions, prepared: Prepared | None = None) -> int:
    """Run a program in the container; the exit code to pass on. Raises Conflict where it does not run or is paused."""
    keys = detach_bytes(options.detach_keys)
    if options.terminal and options.interactive and not options.detach and not os.isatty(0):
        raise InvalidInput("the input device is not a TTY", hint="leave -t out to use pipes")
    if options.working_directory and not options.working_directory.startswith("/"):
        raise InvalidInput(
            f"the working directory '{options.working_directory}' is invalid, it needs to be an absolute path"
        )
    record = engine.containers.load(container_id)
    state = engine.containers.state(container_id)
    if state["status"] == "paused":
        raise Conflict(f"container {record['name']} is paused, unpause it before exec")
    if state["status"] != "running":
        raise Conflict(f"container {container_id} is not running")
    engine.enter_namespace()
    request = {
        "pid": state["pid"],
        "started": state["process_started"],
        "process": _process(record, options),
        "seccomp": seccomp.section(engine, record, bundle.granted(record)),  # the container's, also with --privileged
        "cgroup": control_group.exec_settings(record, state),
        "detach": options.detach,
    }
    exec_id, shown = random_id(), " ".join(options.command)
    events.of_container(engine, record, f"exec_create: {shown}", execID=exec_id)
    with ExitStack() as stack:
        session = _begin(request, options, take(prepared, EXEC).channel, stack)
        events.of_container(engine, record, f"exec_start: {shown}", execID=exec_id)
        if options.detach:
            return 0
        code, ended = _Relay(session, options, keys, stack).run()
    if ended:
        events.of_container(engine, record, "exec_die", execID=exec_id, exitCode=str(code))
    else:
        events.of_container(engine, record, "exec_detach", execID=exec_id)
    return code


def _process(record: Record, options: ExecOptions) -> Config:
    rows, columns = own_window() if options.terminal and not options.detach else (0, 0)
    base = bundle.process(record, (rows, columns))
    terminal = ["TERM=xterm"] if options.terminal else []
    capabilities = base["capabilities"]
    if options.privileged:
        capabilities = bundle.capability_sets([], [], privileged=True)
    return {
        **base,
        "terminal": options.terminal,
        "args": list(options.command),
        "env": [*terminal, *base["env"], *options.environment],
        "cwd": options.working_directory or record["working_directory"],
        "user": {"username": userns.user(record) if options.user is None else options.user},
        "capabilities": capabilities,
        "annotations": {GROUPS: ",".join(record["groups"])},
        "init": False,
    }


class _Session(NamedTuple):
    """A program that runs: the channel to its parent, and our ends of its streams."""

    connection: Socket
    stdin: int | None
    outputs: dict[int, int]  # ours -> the caller's


def _begin(request: dict[str, Any], options: ExecOptions, helper: Socket, stack: ExitStack) -> _Session:
    stack.callback(helper.close)
    given = [os.memfd_create("exec", os.MFD_CLOEXEC)]
    write_all(given[0], json.dumps(request).encode())
    os.lseek(given[0], 0, os.SEEK_SET)
    stdin: int | None = None
    outputs: dict[int, int] = {}
    if not options.terminal:
        given.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        if options.interactive and not options.detach:
            os.close(given.pop())
            for_program, stdin = os.pipe2(os.O_CLOEXEC)
            given.append(for_program)
        for number in (1, 2):
            if options.detach:
                given.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
                continue
            ours, for_program = os.pipe2(os.O_CLOEXEC)
            outputs[ours] = number
            given.append(for_program)
    channel.send(helper, channel.LAUNCH, b"", tuple(given))
    for fd in given:
        os.close(fd)
    while True:
        kind, text, received = channel.receive(helper)
        if kind == channel.BEGAN:
            break
        if kind == channel.TERMINAL:
            stdin = received[0]
            outputs = {stdin: 1}
        elif kind == channel.WARNING:
            write_all(2, b"rootless: warning: " + text + b"\n")
        elif kind == channel.ERROR:
            channel.raise_error(text)
        else:
            raise RootlessError("the helper of exec died")
    return _Session(helper, stdin, outputs)


class _Relay:
    """The caller's streams on one side, the program's pipes or terminal on the other, until it ends."""

    def __init__(self, session: _Session, options: ExecOptions, keys: bytes, stack: ExitStack) -> None:
        self._connection = session.connection
        self._terminal = options.terminal
        self._detector = Detector(keys if options.terminal else b"")
        self._stdin = session.stdin
        self._outputs = dict(session.outputs)
        self._pending = b""
        self._failure = ""
        self._reads_input = options.interactive and self._stdin is not None
        self._poll = select.poll()
        self._watched: dict[int, int] = {}
        for fd in (*self._outputs, *(() if self._stdin is None else (self._stdin,))):
            os.set_blocking(fd, False)
        if self._reads_input and self._terminal and os.isatty(0):
            stack.enter_context(raw_mode(0))
        if self._terminal:
            stack.callback(signal.signal, signal.SIGWINCH, signal.signal(signal.SIGWINCH, self._resize))
            self._resize()
        self._watch(self._connection.fileno(), select.POLLIN)
        for fd in self._outputs:
            self._watch(fd, select.POLLIN)
        self._watch_input()

    def run(self) -> tuple[int, bool]:
        """The exit code; 0 and False when the user detaches. Raises RootlessError where output cannot be written."""
        code: int | None = None
        while code is None or self._outputs:
            # Once the program has ended, take what is left in its pipes; who inherited them does not keep us.
            events = self._poll.poll(None if code is None else 0)
            if not events and code is not None:
                break
            for fd, event in events:
                if fd not in self._watched:
                    continue  # one of the others has seen to it
                if fd == self._connection.fileno():
                    code = self._ended()
                elif fd == 0 and self._reads_input:
                    if not self._read_input():
                        return 0, False
                elif event & ~select.POLLOUT and fd in self._outputs:
                    self._copy_output(fd)
                else:
                    self._write_input()
        if self._failure:
            raise RootlessError(self._failure)
        return code, True

    def _watch(self, fd: int, events: int) -> None:
        """Have poll(2) tell of *events*; of none at all, not even of the other end's closing, where there are none."""
        if events:
            self._poll.register(fd, events)
            self._watched[fd] = events
        elif self._watched.pop(fd, None):
            self._poll.unregister(fd)

    def _watch_input(self) -> None:
        """Read for the program while nothing waits for it; write what does."""
        self._watch(0, select.POLLIN if self._reads_input and not self._pending else 0)
        if self._stdin is not None:
            reading = select.POLLIN if self._stdin in self._outputs else 0
            self._watch(self._stdin, reading | (select.POLLOUT if self._pending else 0))

    def _ended(self) -> int:
        kind, text, _ = channel.receive(self._connection)
        self._watch(self._connection.fileno(), 0)
        return int(text) if kind else EXIT_UNKNOWN  # the helper was killed

    def _copy_output(self, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the last process of the terminal is gone
        if not data or not self._write(self._outputs[fd], data):
            del self._outputs[fd]
            self._watch(fd, 0)
            os.close(fd)
            if fd == self._stdin:
                self._stdin, self._reads_input = None, False
                self._watch_input()

    def _write(self, fd: int, data: bytes) -> bool:
        try:
            return write_all(fd, data)
        except OSError as error:
            self._failure = f"cannot write the output: {error.strerror}"
            return False

    def _read_input(self) -> bool:
        """False when the user detaches."""
        try:
            data = os.read(0, CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            data = b""  # EIO: the caller's terminal is gone
        self._reads_input = bool(data)
        if self._terminal:
            data, detached = self._detector.feed(data)
            if detached:
                return False
        self._pending += data
        self._write_input()
        return True

    def _write_input(self) -> None:
        """Write what waits as far as the program takes it, and the end of it if that has come."""
        try:
            while self._pending and self._stdin is not None:
                self._pending = self._pending[os.write(self._stdin, self._pending) :]
        except BlockingIOError:
            pass  # the rest when it reads on
        except OSError:
            self._pending, self._reads_input = b"", False  # the program reads no more
        self._watch_input()
        if not (self._reads_input or self._pending or self._terminal or self._stdin is None):
            self._watch(self._stdin, 0)
            os.close(self._stdin)
            self._stdin = None

    def _resize(self, *_: object) -> None:
        rows, columns = own_window()
        if rows and columns and self._stdin is not None:
            terminals.set_window_size(self._stdin, rows, columns)
