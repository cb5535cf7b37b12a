"""One loop over epoll(7) for descriptors and timers. What a handler raises is told and counted, and the loop goes on.

Nothing that a container or a peer sends may end the process that serves all the others.
"""

import errno
import heapq
import select
import sys
import time
from collections.abc import Callable

_EVENTS_AT_ONCE = 256
_TRACEBACKS_PER_MINUTE = 10
_SOMETIME = 0.005  # seconds


class Timer:
    """An action that is due at *when*; see Loop.later."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do not do it. Also where it has been done."""
        self.action = None

    def __lt__(self, other: "Timer") -> bool:
        return self.when < other.when


class Loop:
    """Descriptors and their handlers, timers, and the time of the round."""

    __slots__ = (
        *("_epoll", "_gone", "_handlers", "_patient", "_stopped", "_time", "_timers", "_told"),
        *("errors", "report"),
    )

    def __init__(self, report: Callable[[str], None] | None = None) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._gone: set[int] = set()  # in this round: its events are not those of who has the number by now
        self._timers: list[Timer] = []
        self._patient: list[Callable[[], None]] = []
        self._time = time.monotonic()
        self._stopped = False
        self._told: list[float] = []
        self.errors = 0
        self.report = report or _to_stderr

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call *handler* with the events of *fd*, from now on these (EPOLLIN …; with EPOLLET, edges only)."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """No longer; to be called before *fd* is closed. Nothing happens where it is not watched."""
        if self._handlers.pop(fd, None) is not None:
            self._gone.add(fd)
            self._epoll.unregister(fd)

    def later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Do *action* once, in *seconds* from this round of the loop; 0 is the next round."""
        timer = Timer(self._time + seconds, action)
        heapq.heappush(self._timers, timer)
        return timer

    def sometime(self, action: Callable[[], None]) -> None:
        """Do *action* within some milliseconds, together with others that can wait: it costs no wake-up of its own."""
        self._patient.append(action)
        if len(self._patient) == 1:
            self.later(_SOMETIME, self._run_patient)

    def now(self) -> float:
        """Seconds of the monotonic clock at the beginning of this round."""
        return self._time

    def stop(self) -> None:
        """Leave `run` at the end of this round."""
        self._stopped = True

    def run(self) -> None:
        """Serve until `stop`."""
        self._stopped = False
        while not self._stopped:
            self.turn()

    def turn(self, longest: float = -1) -> None:
        """One round: wait (at most *longest* seconds, -1 for ever) for events, serve them and what is due."""
        wait = self._wait()
        if longest >= 0:
            wait = min(wait, longest) if wait >= 0 else longest
        try:
            events = self._epoll.poll(wait, _EVENTS_AT_ONCE)
        except InterruptedError:
            events = []
        self._time = time.monotonic()
        self._gone.clear()
        for fd, event in events:
            handler = self._handlers.get(fd)
            if handler is not None and fd not in self._gone:  # an earlier handler of this round may have closed it
                try:
                    handler(event)
                except Exception:
                    self._failed(fd)
        if self._timers and self._timers[0].when <= self._time:
            self._run_timers()

    def _wait(self) -> float:
        while self._timers and self._timers[0].action is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1
        wait = self._timers[0].when - time.monotonic()
        return wait if wait > 0 else 0

    def _run_timers(self) -> None:
        now = self._time
        while self._timers and self._timers[0].when <= now:
            timer = heapq.heappop(self._timers)
            action, timer.action = timer.action, None
            if action is not None:
                try:
                    action()
                except Exception:
                    self._failed(-1)
            if self._timers and self._timers[0].when == now:
                # A timer of 0 seconds that sets itself again would keep the descriptors waiting.
                break

    def _run_patient(self) -> None:
        patient, self._patient = self._patient, []
        for action in patient:
            try:
                action()
            except Exception:
                self._failed(-1)

    def _failed(self, fd: int) -> None:
        self.errors += 1
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.errno == errno.EBADF:
            self._handlers.pop(fd, None)  # closed without unwatch: epoll has forgotten it already
        self._told = [when for when in self._told if when > self._time - 60]
        if len(self._told) < _TRACEBACKS_PER_MINUTE:
            self._told.append(self._time)
            self.report(f"error in a handler: {_described(error)}")


def _described(error: BaseException | None) -> str:
    """What was raised, and where, outermost first. To load `traceback` takes long, and it wants to read the sources."""
    places = []
    trace = error.__traceback__ if error else None
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} ({', '.join(places)})".replace("\n", " | ")


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
