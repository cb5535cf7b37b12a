"""The terminal or the pipes of the caller on one side, the monitor's channel on the other, until the container ends.

With a terminal, keys go through raw: Ctrl-C is a byte for the program, and the detach keys are the only ones that are
ours. Without one, stdout and stderr stay apart, the end of stdin is passed on, and signals that we get are sent to the
program. One loop; while one side does not take bytes, none are read from the other.
"""

import errno
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, NoReturn

from rootless.errors import InvalidInput
from rootless.linux import terminals
from rootless.runtime import channel
from rootless.runtime.channel import Socket

CHUNK = 32 << 10
DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
# moby/cli: ForwardAllSignals passes on all but these.
_NOT_PROXIED = {
    signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGKILL, signal.SIGSTOP, signal.SIGWINCH, signal.SIGTTIN,
    signal.SIGTTOU, signal.SIGTSTP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT,
}  # fmt: skip


class End(NamedTuple):
    """How an attachment ended: with the container's exit code, or None where it was not told; or detached.

    *failure* tells why output could not be written.
    """

    exit_code: int | None
    detached: bool = False
    failure: str = ""


def parse_detach_keys(text: str) -> bytes:
    """The bytes of "ctrl-p,ctrl-q": letters, or ctrl- with a letter or one of @ [ \\ ] ^ _. Raises InvalidInput."""
    keys = bytearray()
    for key in text.split(",") if text else ():
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif key.lower().startswith("ctrl-") and len(key) == 6 and "@" <= key[5].upper() <= "_":
            keys.append(ord(key[5].upper()) & 0x1F)
        else:
            raise InvalidInput(f"invalid detach keys ({text}): unknown character: '{key}'")
    return bytes(keys)


class Detector:
    """Finds the detach keys in what is typed; holds back what may be their beginning."""

    __slots__ = ("_held", "_keys")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what goes to the program, whether the keys are complete)."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    return bytes(passed), True
                continue
            seen = self._keys[: self._held] + bytes((byte,))
            # The end of what was seen may be the beginning of the keys: with a,a,b the second a of a,a,a.
            self._held = next(n for n in range(len(seen) - 1, -1, -1) if seen.endswith(self._keys[:n]))
            passed += seen[: len(seen) - self._held]
        return bytes(passed), False


class Attachment:
    """One attachment. Streams that are not wanted are None."""

    def __init__(
        self,
        connection: Socket,
        *,
        terminal: bool,
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
        detach_keys: bytes = b"",
        send_signal: Callable[[int], None] | None = None,
        stays_unread: bool = True,
    ) -> None:
        """*send_signal* passes on what signals we get, None keeps them; without *stays_unread*, it ends where nobody
        reads what comes out."""
        self._connection = connection
        self._terminal = terminal
        self._stdin = stdin
        self._outputs = {channel.STDOUT: stdout, channel.STDERR: stderr}
        self._detector = Detector(detach_keys)
        self._send_signal = send_signal
        self._stays_unread = stays_unread
        self._failure = ""
        self._unsent: list[bytes] = []
        self._blocked = False
        self._window: int | None = None

    def run(self) -> End:
        """Relay until the container ends or the user detaches."""
        with ExitStack() as stack:
            wakeup = self._catch_signals(stack)
            self._poll = select.poll()
            self._poll.register(self._connection.fileno(), select.POLLIN)
            self._poll.register(wakeup, select.POLLIN)
            if self._terminal and self._stdin is not None and os.isatty(self._stdin):
                stack.enter_context(raw_mode(self._stdin))
            self._window = next(
                (fd for fd in (self._stdin, *self._outputs.values()) if fd is not None and os.isatty(fd)), None
            )
            if self._terminal:
                self._resize()
            self._connection.setblocking(False)
            stack.callback(self._connection.setblocking, True)
            if self._stdin is not None:
                self._poll.register(self._stdin, select.POLLIN)
            return self._loop(wakeup)

    def _loop(self, wakeup: int) -> End:
        while True:
            for fd, event in self._poll.poll():
                if fd == wakeup:
                    self._signals(os.read(wakeup, 512))
                elif fd == self._stdin:
                    if not self._read_input():
                        return End(None, detached=True)
                else:
                    if event & select.POLLOUT:
                        self._send_unsent()
                    if event & ~select.POLLOUT and (end := self._receive()):
                        return end

    def _receive(self) -> End | None:
        try:
            kind, data, _ = channel.receive(self._connection)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            kind, data = b"", b""
        if kind in self._outputs:
            fd = self._outputs[kind]
            if fd is not None and not self._write(fd, data):
                self._outputs[kind] = None
                self._send(channel.HANGUP, kind)
                if not self._stays_unread:
                    return End(None, detached=True)
        elif kind == channel.EXITED:
            return End(int(data), failure=self._failure)
        elif kind == channel.ERROR:
            channel.raise_error(data)
        elif kind == channel.WARNING:
            write_all(2, b"rootless: warning: " + data + b"\n")
        elif not kind:
            return End(None)  # the monitor was killed, or was just leaving
        return None

    def _write(self, fd: int, data: bytes) -> bool:
        """False where there is no use in writing more."""
        try:
            return write_all(fd, data)
        except OSError as error:
            self._failure = f"cannot write the output: {error.strerror}"
            return False

    def _read_input(self) -> bool:
        """False when the user detaches."""
        if self._stdin is None:
            return True
        try:
            data = os.read(self._stdin, CHUNK)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self._close_input()
            self._send(channel.STDIN_END, b"")
            return True
        if self._terminal:
            data, detached = self._detector.feed(data)
            if detached:
                return False
        if data:
            self._send(channel.STDIN, data)
        return True

    def _close_input(self) -> None:
        if self._stdin is not None:
            if not self._blocked:
                self._poll.unregister(self._stdin)
            self._stdin = None

    def _send(self, kind: bytes, data: bytes) -> None:
        self._unsent.append(kind + data)
        if len(self._unsent) == 1:
            self._send_unsent()

    def _send_unsent(self) -> None:
        """Send what waits. While the program does not take its input, none is read for it."""
        blocked = False
        try:
            while self._unsent and not blocked:
                self._connection.send(self._unsent[0])
                del self._unsent[0]
        except BlockingIOError:
            blocked = True
        except OSError:
            self._unsent.clear()  # the end is on its way to us
        self._poll.register(self._connection.fileno(), select.POLLIN | (select.POLLOUT if blocked else 0))
        if self._stdin is not None and blocked != self._blocked:
            if blocked:
                self._poll.unregister(self._stdin)  # not only masked: the end of a pipe would be told all the same
            else:
                self._poll.register(self._stdin, select.POLLIN)
        self._blocked = blocked

    def _catch_signals(self, stack: ExitStack) -> int:
        """Have signals arrive on a pipe; put everything back in the end."""
        r, w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        stack.callback(os.close, w)
        stack.callback(os.close, r)
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(w, warn_on_full_buffer=False))
        caught = {signal.SIGWINCH} if self._terminal else set()
        if self._send_signal:
            caught |= {s for s in signal.valid_signals() - _NOT_PROXIED if s < signal.SIGRTMIN}
        for number in caught:
            with suppress(OSError, ValueError):
                stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        return r

    def _signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                self._resize()
            elif self._send_signal:
                self._send_signal(number)

    def _resize(self) -> None:
        if self._window is not None:
            rows, columns = terminals.window_size(self._window)
            if rows and columns:
                self._send(channel.RESIZE, f"{rows} {columns}".encode())


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """terminals.raw_mode, from which the terminal also comes back where a signal ends us: SystemExit is raised then."""

    def leave(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    with ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            stack.callback(signal.signal, number, signal.signal(number, leave))
        stack.enter_context(terminals.raw_mode(fd))
        yield


def write_all(fd: int, data: bytes) -> bool:
    """Write all of *data*, waiting where *fd* is not ready; False where nobody reads it."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            waiter = select.poll()
            waiter.register(fd, select.POLLOUT)
            waiter.poll()
        except (BrokenPipeError, OSError) as error:
            if isinstance(error, BrokenPipeError) or error.errno == errno.EIO:
                return False
            raise
    return True
