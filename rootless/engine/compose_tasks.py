"""Work on many containers at once: each task in a fork of the command, in an order that their dependencies leave open.

Forks, not threads: starting a container forks helpers and enters namespaces, which a process with threads cannot do
safely, and a fork of a command that is warm costs a few milliseconds. A task reports by lines of JSON up a pipe:

    {"event": [name, status]}    for the user to see
    {"done": value}              its result
    {"error": [kind, text, hint, status]}

Ctrl-C reaches the whole group of processes; tasks leave it to the command, which ends them by SIGTERM, and that they
take as their own Ctrl-C. The handlers are Python's, so that no container inherits a signal that is ignored.
"""

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from rootless import errors
from rootless.errors import RootlessError

Tell = Callable[[str, str], None]  # what ("Container web-1"), and what becomes of it ("Started")
Work = Callable[[Tell], Any]

_DIED = "a task of the command died"
_IDLE_MILLISECONDS = 50


class Task(NamedTuple):
    """A piece of work, and the names of those that must be done before it. A *waiter* takes none of the places.

    One without work is a point that others wait for: it costs no fork.
    """

    name: str
    work: Work | None
    after: tuple[str, ...] = ()
    waiter: bool = False


class _Running(NamedTuple):
    task: Task
    pid: int
    pidfd: int
    pipe: int


class _Outcome:
    """What has come up a task's pipe."""

    def __init__(self) -> None:
        self.rest = b""
        self.value: Any = None
        self.error: RootlessError | None = RootlessError(_DIED)

    def feed(self, data: bytes, tell: Tell) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "event" in message:
                tell(*message["event"])
            elif "done" in message:
                self.value, self.error = message["done"], None
            else:
                self.error = _revived(*message["error"])


def run_tasks(
    tasks: Iterable[Task],
    tell: Tell,
    *,
    limit: int = 0,
    keep_going: bool = False,
    idle: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Do all tasks; their results by name. At most *limit* at a time, 0 for twice the processors.

    The first failure ends the others and is raised; with *keep_going*, the others are done nevertheless, but for those
    that need what failed. *idle* is called some twenty times a second.
    """
    scheduler = _Scheduler(list(tasks), tell, limit or 2 * (os.cpu_count() or 1), keep_going)
    try:
        while scheduler.begin_what_can():
            scheduler.step(_IDLE_MILLISECONDS if idle else None)
            if idle:
                idle()
    finally:
        scheduler.end_all()
    if scheduler.failure is not None:
        raise scheduler.failure
    return scheduler.results


class _Scheduler:
    def __init__(self, tasks: list[Task], tell: Tell, limit: int, keep_going: bool) -> None:
        self._waiting = tasks
        self._tell = tell
        self._limit = limit
        self._keep_going = keep_going
        self._running: dict[int, _Running] = {}
        self._outcomes: dict[int, _Outcome] = {}
        self._poll = select.poll()
        self._watched: set[int] = set()
        self._pending = {task.name for task in tasks}
        self._failed: set[str] = set()
        self.results: dict[str, Any] = {}
        self.failure: RootlessError | None = None

    def begin_what_can(self) -> bool:
        """Begin the tasks whose turn it is; whether anything runs."""
        if self.failure is not None and not self._keep_going:
            return False
        before = len(self._waiting) + 1
        while len(self._waiting) < before:  # a point that is reached frees others
            before = len(self._waiting)
            self._waiting = [task for task in self._waiting if not self._taken_up(task)]
        return bool(self._running)

    def _taken_up(self, task: Task) -> bool:
        """Whether the task has been begun, reached, or given up."""
        if not self._failed.isdisjoint(task.after):
            self._pending.discard(task.name)
            self._failed.add(task.name)
        elif not self._pending.isdisjoint(task.after):
            return False
        elif task.work is None:
            self._pending.discard(task.name)
            self.results[task.name] = None
        elif task.waiter or self._has_place():
            self._begin(task)
        else:
            return False
        return True

    def _has_place(self) -> bool:
        return sum(not running.task.waiter for running in self._running.values()) < self._limit

    def _begin(self, task: Task) -> None:
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _child(task, theirs)
        os.close(theirs)
        os.set_blocking(ours, False)
        pidfd = os.pidfd_open(pid)
        self._running[pidfd] = _Running(task, pid, pidfd, ours)
        self._outcomes[ours] = _Outcome()
        for fd in (pidfd, ours):
            self._watched.add(fd)
            self._poll.register(fd, select.POLLIN)

    def step(self, milliseconds: int | None) -> None:
        """Wait for something to happen, and take it in."""
        for fd, _ in self._poll.poll(milliseconds):
            if fd in self._running:
                self._end(self._running[fd])
            elif fd in self._outcomes:
                self._read(fd)

    def _read(self, pipe: int) -> bool:
        try:
            data = os.read(pipe, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._forget(pipe)
            return False
        self._outcomes[pipe].feed(data, self._tell)
        return True

    def _forget(self, fd: int) -> None:
        """Wait for a descriptor no longer; well if that is so already."""
        if fd in self._watched:
            self._watched.discard(fd)
            self._poll.unregister(fd)

    def _end(self, running: _Running) -> None:
        """A task has ended: read the rest of its pipe, which a monitor may hold open."""
        os.waitpid(running.pid, 0)
        while self._read(running.pipe):
            continue
        outcome = self._outcomes.pop(running.pipe)
        del self._running[running.pidfd]
        for fd in (running.pidfd, running.pipe):
            self._forget(fd)
            os.close(fd)
        name = running.task.name
        self._pending.discard(name)
        if outcome.error is None:
            self.results[name] = outcome.value
            return
        self._failed.add(name)
        self.failure = self.failure or outcome.error

    def end_all(self) -> None:
        """End the tasks that still run, and wait for them: each puts its own things right."""
        for running in self._running.values():
            with suppress(ProcessLookupError):  # it has just ended
                signal.pidfd_send_signal(running.pidfd, signal.SIGTERM)
        failure = self.failure
        while self._running:
            self.step(None)
        self.failure = failure


def _child(task: Task, pipe: int) -> None:
    """Do the task, report, and leave; never returns."""
    status = 1
    try:
        signal.signal(signal.SIGINT, _leave_it_to_the_command)
        signal.signal(signal.SIGTERM, signal.default_int_handler)

        def tell(what: str, status: str) -> None:
            _send(pipe, {"event": [what, status]})

        try:
            _send(pipe, {"done": task.work(tell) if task.work else None})
            status = 0
        except RootlessError as error:
            _send(pipe, {"error": [type(error).__name__, str(error), error.hint, error.exit_status]})
        except KeyboardInterrupt:
            _send(pipe, {"error": ["RootlessError", f"{task.name}: interrupted", "", 130]})
        except OSError as error:
            _send(pipe, {"error": ["RootlessError", f"{error.filename or task.name}: {error.strerror}", "", None]})
    except BaseException:
        traceback.print_exc()  # a bug, which keeps its traceback
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _leave_it_to_the_command(*_: object) -> None:
    """Ctrl-C is for the command, which has started this process, to act on."""


def _send(pipe: int, message: dict[str, Any]) -> None:
    data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    try:
        while data:
            data = data[os.write(pipe, data) :]
    except BrokenPipeError:
        os._exit(1)  # the command was killed: what is half done, the next one puts right


def _revived(kind: str, text: str, hint: str, status: int | None) -> RootlessError:
    """The error that a task has met."""
    found = getattr(errors, kind, RootlessError)
    error = found(text, hint=hint) if issubclass(found, RootlessError) else RootlessError(text, hint=hint)
    if status is not None:
        error.exit_status = status
    return error
