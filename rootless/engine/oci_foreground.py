"""A command that waits for its container: signals are passed on, and a terminal is served from our own.

As runc and crun do it, for `run` without --detach and `exec`. Where the program has a terminal and no --console-socket
takes it, bytes go between that and our stdin and stdout, whose modes are raw meanwhile.
"""

import os
import select
import signal
from contextlib import ExitStack, suppress

from rootless.linux import files, processes, terminals

_PASSED_ON = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
              signal.SIGCONT, signal.SIGWINCH}  # fmt: skip
_PIECE = 1 << 16


def wait(pid: int, terminal_fd: int | None) -> int:
    """The exit code of our child *pid*, 128 and its number if a signal ended it."""
    pidfd = processes.pidfd_open(pid)
    signals_r, signals_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(signals_w, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in _PASSED_ON}
    try:
        with ExitStack() as stack:
            if terminal_fd is not None and os.isatty(0):
                _copy_size(terminal_fd)
                stack.enter_context(terminals.raw_mode(0))
            _serve(pidfd, signals_r, terminal_fd)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        for fd in (pidfd, signals_r, signals_w):
            os.close(fd)


def _serve(pidfd: int, signals_fd: int, terminal_fd: int | None) -> None:
    """Until the process has ended, and what it has written to its terminal has been passed on."""
    poll = select.poll()
    for fd in (pidfd, signals_fd, *(() if terminal_fd is None else (0, terminal_fd))):
        poll.register(fd, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if signals_fd in ready:
            _pass_on(os.read(signals_fd, 100), pidfd, terminal_fd)
        if terminal_fd is not None and terminal_fd in ready and not _copy(terminal_fd, 1):
            poll.unregister(terminal_fd)
        if terminal_fd is not None and 0 in ready and not _copy(0, terminal_fd):
            poll.unregister(0)
        if pidfd in ready:
            break
    if terminal_fd is not None:
        os.set_blocking(terminal_fd, False)
        while _copy(terminal_fd, 1):
            pass


def _copy(source_fd: int, target_fd: int) -> bool:
    """Pass on what is there; False at the end. A terminal without a slave answers EIO."""
    try:
        data = os.read(source_fd, _PIECE)
    except OSError:
        return False
    with suppress(BrokenPipeError):
        files.write_all(target_fd, data)
    return bool(data)


def _pass_on(numbers: bytes, pidfd: int, terminal_fd: int | None) -> None:
    for number in numbers:
        if number == signal.SIGWINCH and terminal_fd is not None:
            _copy_size(terminal_fd)
        elif number in _PASSED_ON:
            with suppress(ProcessLookupError):
                processes.pidfd_send_signal(pidfd, number)


def _copy_size(terminal_fd: int) -> None:
    with suppress(OSError):  # stdin is no terminal
        terminals.set_window_size(terminal_fd, *terminals.window_size(0))
