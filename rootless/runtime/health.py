"""Health checks: a command in the container at intervals, and what its results add up to. Run by the monitor.

Docker's rules (docs: Dockerfile reference, HEALTHCHECK): status starts as `starting`; one success makes it `healthy`;
*retries* failures in a row make it `unhealthy`, where failures during the start period do not count until the first
success. A check that takes longer than its timeout has failed, and is killed.

The first check is due when an interval has passed (in a start period, a start interval). Before that, in the
container's first second, the command is tried a few times: a try that succeeds is the first check, and any other did
not happen. So what is ready at once is healthy at once, whatever the interval; and nothing is unhealthy sooner.
"""

import os
import select
import time
from contextlib import suppress

from rootless.errors import RootlessError
from rootless.runtime import channel, forking
from rootless.runtime.jsonlog import timestamp

TYPE_CHECKING = False  # as in monitor.py
if TYPE_CHECKING:
    from typing import Any

    from rootless.runtime.monitor import Monitor

_MAX_OUTPUT = 4096  # bytes kept of a check's output (moby: health.go)
_MAX_RESULTS = 5
_NS = 1e9
_SIGKILL = 9
_TRIES = (0.05, 0.15, 0.35, 0.75)  # seconds after the start


class Verdict:
    """The state machine: results in, status out."""

    __slots__ = ("failing_streak", "retries", "start_period", "status", "succeeded")

    def __init__(self, retries: int, start_period: float) -> None:
        self.retries = retries
        self.start_period = start_period
        self.status = "starting"
        self.failing_streak = 0
        self.succeeded = False

    def add(self, exit_code: int, seconds_since_start: float) -> None:
        """Take one result into account."""
        if exit_code == 0:
            self.succeeded = True
            self.failing_streak = 0
            self.status = "healthy"
            return
        if not self.succeeded and seconds_since_start < self.start_period:
            return
        self.failing_streak += 1
        if self.failing_streak >= self.retries:
            self.status = "unhealthy"


class HealthCheck:
    """Runs the checks of one container, in the loop of its monitor."""

    def __init__(self, settings: "dict[str, Any]", monitor: "Monitor") -> None:
        self._monitor = monitor
        self._process, self._seccomp = settings["process"], settings["seccomp"]  # as in config.json
        self._interval = settings["interval"] / _NS
        self._timeout = settings["timeout"] / _NS
        self._start_interval = settings["start_interval"] / _NS
        self._start_period = settings["start_period"] / _NS
        self._retries = settings["retries"]
        self._results: list[dict[str, Any]] = []
        self._verdict = Verdict(self._retries, self._start_period)
        self._due = 0.0  # when the first check is, in seconds after the start
        self._tries: list[float] = []  # when it is tried before
        self._is_try = False
        self._pid = 0
        self._output_fd: int | None = None

    def begin(self) -> None:
        """The container has started: all begins anew."""
        self._verdict = Verdict(self._retries, self._start_period)
        self._results = []
        self._record()
        self._due = self._elapsed() + self._delay()
        self._tries = [moment for moment in _TRIES if moment < self._due]
        self._schedule_first()

    def end(self) -> None:
        """The container has ended."""
        self._monitor.timers.cancel("health")
        self._monitor.timers.cancel("health timeout")
        self._close_output()
        self._pid = 0

    def _elapsed(self) -> float:
        return time.monotonic() - self._monitor.began_at

    def _delay(self) -> float:
        """Seconds from one check to the next."""
        starting = not self._verdict.succeeded and self._elapsed() < self._start_period
        return float(self._start_interval if starting else self._interval)

    def _schedule(self) -> None:
        self._is_try = False
        self._monitor.timers.set("health", self._delay(), self._check)

    def _schedule_first(self) -> None:
        """Schedule the next try, or else the first check that counts in any case."""
        self._tries = [moment for moment in self._tries if moment > self._elapsed()]
        self._is_try = bool(self._tries)
        moment = self._tries.pop(0) if self._tries else self._due
        self._monitor.timers.set("health", max(0, moment - self._elapsed()), self._check)

    def _check(self) -> None:
        created = self._monitor.created
        if created is None or self._monitor.paused:
            self._schedule()
            return
        self._began, self._began_at, self._output, self._timed_out = time.monotonic(), time.time_ns(), b"", False
        ours, theirs = channel.pair()
        r, w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        helper = os.fork()
        if helper == 0:
            # Imported in the fork only: the monitor does without it.
            from rootless.runtime import joining
            from rootless.runtime.cgroup_place import enter_or_tell

            if self._monitor.cgroup and self._monitor.cgroup.path:
                enter_or_tell({"path": self._monitor.cgroup.path, "socket": "", "limited": True}, theirs)
            null = os.open("/dev/null", os.O_RDONLY)
            os.set_blocking(w, True)
            container, stdio = (created.pid, created.started), (null, w, w)
            joining.join(*container, self._process, self._seccomp, stdio, theirs, die_with_parent=True)
        theirs.close()
        os.close(w)
        self._output_fd = r
        self._monitor.watch(r, self._output_ready)
        try:
            self._pid = forking.await_child(helper, ours, b"", self._monitor.warn).pid
        except RootlessError as error:
            self._finish(error.exit_status or 126, str(error).encode())
        else:
            left = max(0, self._due - self._elapsed()) if self._is_try else self._timeout
            self._monitor.timers.set("health timeout", min(self._timeout, left), self._time_out)
        finally:
            ours.close()

    def _output_ready(self, _event: int) -> None:
        if self._output_fd is None:
            return
        with suppress(BlockingIOError):
            data = os.read(self._output_fd, 65536)
            if not data:
                self._close_output()
            self._output = (self._output + data)[:_MAX_OUTPUT]

    def _close_output(self) -> None:
        if self._output_fd is not None:
            self._monitor.unwatch(self._output_fd)
            os.close(self._output_fd)
            self._output_fd = None

    def _time_out(self) -> None:
        self._timed_out = True
        with suppress(ProcessLookupError):
            os.kill(self._pid, _SIGKILL)

    def process_ended(self, pid: int, code: int) -> None:
        """A child of the monitor has ended; perhaps it was ours."""
        if pid and pid == self._pid:
            self._pid = 0
            self._monitor.timers.cancel("health timeout")
            self._output_ready(select.EPOLLIN)
            if self._timed_out:
                self._finish(-1, f"Health check exceeded timeout ({self._timeout:g}s)".encode())
            else:
                self._finish(code, self._output)

    def _finish(self, code: int, output: bytes) -> None:
        self._close_output()
        if self._is_try and code:
            self._schedule_first()
            return
        before = self._verdict.status
        self._verdict.add(code, self._elapsed())
        result = {
            "Start": timestamp(self._began_at),
            "End": timestamp(time.time_ns()),
            "ExitCode": code,
            "Output": output.decode("utf-8", "replace"),
        }
        self._results = [*self._results, result][-_MAX_RESULTS:]
        self._record()
        if self._verdict.status != before:
            self._monitor.journal.tell(f"health_status: {self._verdict.status}")
        self._schedule()

    def _record(self) -> None:
        verdict = self._verdict
        health = {"Status": verdict.status, "FailingStreak": verdict.failing_streak, "Log": self._results}
        self._monitor.record(health=health)
