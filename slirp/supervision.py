"""STACK as HUB sees it: started, told, asked, and started again where it has died.

What STACK is told is told in order and kept here while it does not read; after its death the next one is told all of it
anew by HUB, which has a descriptor of everything that STACK was given. Nothing that STACK says is trusted: it may be in
the hands of a container.
"""

import collections
import errno
import os
import select
import socket
import time

from slirp import channel

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from slirp.log import Log
    from slirp.loop import Loop, Timer

    Answer = Callable[["dict[str, Any] | None"], None]

_DEATHS, _WITHIN = 5, 10.0  # more deaths in so many seconds: it will not get better
_MOST_UNSENT = 20_000  # messages; a STACK that does not read has lost its way, and is started anew
_AT_ONCE = 64  # messages of STACK before others are heard
_ANSWER_WITHIN = 5.0
_CHECK_EVERY, _STUCK = 20.0, 30.0  # seconds; seconds without an answer
_BEHIND = 64  # unsent messages
_RETRY = (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS)  # too many descriptors on their way: unix(7)


class Question:
    """Something that STACK was asked: *answer* gets each part of what it says, or None."""

    __slots__ = ("answer", "timer")

    def __init__(self, answer: "Answer", timer: "Timer") -> None:
        self.answer = answer
        self.timer = timer


class Stack:
    """The process, through the spare that forks it (spare.py) and the channel it reads."""

    __slots__ = (
        *("_channel", "_checked", "_checking", "_deaths", "_error_fd", "_give_up", "_hear", "_last_words", "_log"),
        *("_loop", "_questions", "_spare", "_tag", "_tell_all", "_unsent", "pid", "ready"),
    )

    def __init__(
        self,
        loop: "Loop",
        log: "Log",
        spare: socket.socket,
        *,
        hear: "Callable[[dict[str, Any]], None]",
        tell_all: "Callable[[], None]",
        give_up: "Callable[[str], None]",
    ) -> None:
        """*hear* gets its messages, *tell_all* says everything to one that starts, *give_up* ends the program."""
        self._loop, self._log, self._spare = loop, log, spare
        self._last_words = ""
        self._hear, self._tell_all, self._give_up = hear, tell_all, give_up
        self._channel: socket.socket | None = None
        self._error_fd = -1
        self._unsent: collections.deque[tuple[dict[str, Any], list[int]]] = collections.deque()
        self._questions: dict[int, Question] = {}
        self._tag = 0
        self._checking = 0  # the pid of the STACK that has been asked whether it lives
        self._checked = 0.0  # when
        self._deaths: list[float] = []
        self.pid = 0
        self.ready = False
        loop.watch(spare.fileno(), select.EPOLLIN, self._hear_spare)

    def start(self) -> None:
        """Have one forked, and tell it everything."""
        self.adopt(*order(self._spare))
        self._tell_all()

    def adopt(self, ours: socket.socket, error_fd: int) -> None:
        """Take the STACK at the other end, which has been ordered."""
        self._channel, self._error_fd = ours, error_fd
        ours.setblocking(False)
        os.set_blocking(error_fd, False)
        self._loop.watch(ours.fileno(), select.EPOLLIN, self._ready_channel)
        self._loop.watch(error_fd, select.EPOLLIN, self._hear_stderr)

    # telling

    def tell(self, message: "dict[str, Any]", fds: "list[int] | tuple[int, ...]" = ()) -> None:
        """Send *message*, later where STACK does not read now. *fds* stay the caller's."""
        if self._channel is None:
            return  # the next one is told everything
        if not self._unsent and self._sent(message, fds):
            return
        if len(self._unsent) >= _MOST_UNSENT:
            self._log.write("STACK does not read what it is told")
            self.kill()
            return
        self._unsent.append((message, [os.dup(fd) for fd in fds]))
        self._loop.watch(self._channel.fileno(), select.EPOLLIN | select.EPOLLOUT, self._ready_channel)

    def _sent(self, message: "dict[str, Any]", fds: "list[int] | tuple[int, ...]") -> bool:
        try:
            if self._channel is not None:
                channel.send(self._channel, message, fds)
        except OSError as error:
            return error.errno not in _RETRY  # others: it is dead, which the spare tells
        return True

    def _send_on(self) -> None:
        while self._unsent:
            message, fds = self._unsent[0]
            if not self._sent(message, fds):
                return
            self._unsent.popleft()
            for fd in fds:
                os.close(fd)
        if self._channel is not None:
            self._loop.watch(self._channel.fileno(), select.EPOLLIN, self._ready_channel)

    def ask(self, what: str, container: str | None, answer: "Answer", within: float = _ANSWER_WITHIN) -> None:
        """Let *answer* have each part of the answer (the last has no "more"), or None where none comes in time."""
        self._tag += 1
        tag = self._tag
        self._questions[tag] = Question(answer, self._loop.later(within, lambda: self._resolve(tag, None)))
        if self._channel is None:
            self._loop.later(0, lambda: self._resolve(tag, None))
        self.tell({"do": "ask", "tag": tag, "what": what, "container": container})

    def settle(self, within: float = 1.0) -> bool:
        """Wait until STACK has done what it was told so far; False where it takes longer."""
        done: list[object] = []
        self.ask("flows", "", done.append, within)
        end = time.monotonic() + within
        poll = select.poll()
        while not done and self._channel is not None and time.monotonic() < end:
            poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            for _, events in poll.poll(50):
                self._ready_channel(events)  # select.POLLIN and POLLOUT are EPOLLIN and EPOLLOUT
        return bool(done) and done[0] is not None

    def check(self) -> None:
        """See that it still does anything: one that a packet has sent into an endless loop is started anew."""
        if self._checking or not self.ready or self._loop.now() - self._checked < _CHECK_EVERY:
            return
        self._checking, self._checked = self.pid, self._loop.now()
        pid = self.pid

        def answer(part: "dict[str, Any] | None") -> None:
            if self._checking == pid and not (part and part.get("more")):
                self._checking = 0
                if part is None and self.ready:
                    self._log.write(f"STACK has not answered for {_STUCK:.0f} seconds")
                    self.kill()

        self.ask("flows", "", answer, _STUCK)

    def is_behind(self) -> bool:
        """Whether it does not read what it is told."""
        return len(self._unsent) > _BEHIND

    def _resolve(self, tag: int, answer: "dict[str, Any] | None") -> None:
        question = self._questions.get(tag)
        if question is None:
            return
        if answer is None or not answer.get("more"):
            question.timer.cancel()
            del self._questions[tag]
        question.answer(answer)

    # hearing

    def _ready_channel(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._send_on()
        for _ in range(_AT_ONCE):
            if self._channel is None or not self._hear_one(self._channel):
                return

    def _hear_one(self, ours: socket.socket) -> bool:
        """Whether there may be more."""
        try:
            message, fds = channel.receive(ours)
        except channel.Malformed as error:
            self._log.write(f"STACK sent nonsense: {error}")
            self.kill()
            return False
        except OSError as error:
            if error.errno not in _RETRY:
                self._close_channel()
            return False
        for fd in fds:
            os.close(fd)  # none is ever expected
        if message is None:
            self._close_channel()
            return False
        self._sort(message)
        return True

    def _sort(self, message: "dict[str, Any]") -> None:
        kind, tag = message.get("do"), message.get("tag")
        if kind == "log":
            self._log.write(f"stack: {message.get('line')}")
        elif kind == "answer" and isinstance(tag, int):
            self._resolve(tag, message)
        elif kind == "ready":
            self.ready = True
            self._hear(message)
        else:
            self._hear(message)

    def _hear_stderr(self, events: int) -> None:
        try:
            data = os.read(self._error_fd, 4096)
        except BlockingIOError:
            return
        for line in data.decode(errors="replace").splitlines():
            self._last_words = line
            self._log.write(f"stack: {line}")
        if not data:
            self._loop.unwatch(self._error_fd)
            os.close(self._error_fd)
            self._error_fd = -1

    # life

    def kill(self) -> None:
        """End this one. Another is started."""
        self._say("kill")

    def _say(self, word: str) -> None:
        try:
            self._spare.send(word.encode(), socket.MSG_NOSIGNAL)
        except OSError:
            pass  # the spare is dead, which its channel tells

    def _hear_spare(self, events: int) -> None:
        try:
            word, _, number = self._spare.recv(64).decode().partition(" ")
        except OSError:
            word, number = "", ""
        if word == "started":
            self.pid = int(number)
        elif word == "ended":
            self._ended(int(number))
        else:
            self._loop.unwatch(self._spare.fileno())
            self._give_up("the process that starts STACK is gone")

    def _ended(self, status: int) -> None:
        self._drain()
        self._close_channel()
        started, self.pid, self.ready, self._checking = self.ready, 0, False, 0
        self._log.write(f"STACK (the process of all flows) {_how(status)}")
        if not started and not self._deaths:
            self._give_up(f"STACK does not start: it {_how(status)}: {self._last_words}")
            return
        now = self._loop.now()
        self._deaths = [when for when in self._deaths if when > now - _WITHIN] + [now]
        if len(self._deaths) > _DEATHS:
            self._give_up(f"STACK died {len(self._deaths)} times in {_WITHIN:.0f} seconds")
            return
        self.start()

    def _drain(self) -> None:
        """Its last words."""
        if self._error_fd >= 0:
            self._hear_stderr(0)
        if self._error_fd >= 0:
            self._loop.unwatch(self._error_fd)
            os.close(self._error_fd)
            self._error_fd = -1

    def _close_channel(self) -> None:
        if self._channel is None:
            return
        self._loop.unwatch(self._channel.fileno())
        self._channel.close()
        self._channel = None
        self._say("kill")  # it may live on without one
        for _, fds in self._unsent:
            for fd in fds:
                os.close(fd)
        self._unsent.clear()
        self._checking = 0
        for tag in list(self._questions):
            self._resolve(tag, None)


def order(spare: socket.socket) -> tuple[socket.socket, int]:
    """Have the spare fork a STACK: HUB's end of its channel, and of the pipe that is its standard error."""
    ours, theirs = channel.pair()
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    fds = socket.SOL_SOCKET, socket.SCM_RIGHTS, _packed(theirs.fileno(), write_fd)
    spare.sendmsg([b"start"], [fds], socket.MSG_NOSIGNAL)
    theirs.close()
    os.close(write_fd)
    return ours, read_fd


def _packed(*fds: int) -> bytes:
    return b"".join(fd.to_bytes(4, "little") for fd in fds)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
