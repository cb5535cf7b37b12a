"""The resident process of the user's networks, `python -m slirp`: starting it where it is not there, talking to it.

    RUN/slirp         its control socket: SOCK_SEQPACKET, a JSON object a message, descriptors may ride along
    RUN/slirp.lock    held while it is being started, so that many commands at once start one
    RUN/slirp.held    held by the process as long as it lives
    RUN/slirp.log     what it has to say

It is a process of its own session, without terminal, environment or descriptors of ours, and outlives us: it leaves by
itself when nobody has needed it for some seconds. So a connection that ends before it was answered was made to one
that was just leaving, and the next one finds the next process.
"""

import _socket
import fcntl
import json
import os
import select
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, final

from rootless import errors
from rootless.errors import HostUnsupported, RootlessError
from rootless.linux import files, processes

SOCKET = "slirp"
HELD = "slirp.held"
LOG = "slirp.log"

_START_SECONDS = 20
_LEAVE_SECONDS = 5
_ANSWER_SECONDS = 30
_MAX_MESSAGE = 128 << 10
_MAX_LOG = 1 << 20  # bytes, of one that is kept when the process is started again
_LAST_WORDS = 2000  # bytes of the log that an error shows
_TRIES = 3
_RIGHTS = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)


class Gone(RootlessError):
    """The process has ended, or is just leaving."""


@final
class Connection:
    """A connection to the process. What was attached on it lasts as long as any copy of its descriptor is open."""

    __slots__ = ("_socket",)

    def __init__(self, fd: int) -> None:
        """Takes *fd*, a connected socket, over."""
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def detach(self) -> int:
        """The descriptor, which the caller owns from now on."""
        return self._socket.detach()

    def close(self) -> None:
        """End it, and what was attached on it if nobody else holds it."""
        self._socket.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, op: str, fds: Sequence[int] = (), **fields: Any) -> dict[str, Any]:
        """Ask for *op*; the answer without its `ok`, in one piece if it came in several.

        Raises the RootlessError that the process answers, Gone where it ends, RootlessError where it does not answer.
        """
        data = json.dumps({"op": op, **fields}, separators=(",", ":")).encode()
        rights = [(*_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        if len(data) > _MAX_MESSAGE:
            raise RootlessError(f"a request of {len(data)} bytes is more than slirp takes")
        try:
            self._socket.sendmsg([data], rights, _socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            raise Gone("slirp, the process of the networks, has ended") from None
        answer: dict[str, Any] = {}
        while True:
            part = self._receive()
            more = part.pop("more", False)
            _merge(answer, part)
            if not more:
                return _checked(answer)

    def _receive(self) -> dict[str, Any]:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(_ANSWER_SECONDS * 1000):
            raise RootlessError(f"slirp, the process of the networks, has not answered for {_ANSWER_SECONDS} seconds")
        try:
            data = self._socket.recv(_MAX_MESSAGE)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Gone("slirp, the process of the networks, has ended")
        try:
            part = json.loads(data)
        except ValueError:
            part = None
        if not isinstance(part, dict):
            raise RootlessError("slirp, the process of the networks, answers nonsense")
        return part


def _merge(answer: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if isinstance(value, list) and name in answer:
            answer[name] += value
        elif isinstance(value, dict) and name in answer:
            answer[name].update(value)
        else:
            answer[name] = value


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if answer.pop("ok", False):
        return answer
    kind = getattr(errors, str(answer.get("kind")), RootlessError)
    if not (isinstance(kind, type) and issubclass(kind, RootlessError)):
        kind = RootlessError
    raise kind(str(answer.get("error", "slirp failed")), hint=str(answer.get("hint") or ""))


def connect(run_dir: str) -> Connection | None:
    """A connection to the process, None where there is none. Raises HostUnsupported where it is not ours."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    directory_fd = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # By way of the directory: a socket's address is shorter than a path may be, unix(7).
        sock.connect(f"/proc/self/fd/{directory_fd}/{SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory_fd)
    _, uid, _ = struct.unpack("3i", sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
    if uid != os.geteuid():
        sock.close()
        raise HostUnsupported(f"somebody else listens at {run_dir}/{SOCKET}: uid {uid}")
    return Connection(sock.detach())


def begin(
    run_dir: str, argv: Sequence[str], before: Callable[[], None] | None, op: str, **fields: Any
) -> tuple[Connection, dict[str, Any]]:
    """A connection to the process, which is started if it is not there, and the answer to *op*, its first request.

    *argv* runs `python -m slirp`; *before* is called in the new process before that. The caller is root of the user's
    namespace, and single-threaded. Raises HostUnsupported, with what it says, where it does not start, and what
    `Connection.request` raises.
    """
    for _ in range(_TRIES):
        try:
            connection = connect(run_dir) or _start_locked(run_dir, argv, before)
        except Gone:
            continue
        try:
            return connection, connection.request(op, **fields)
        except Gone:
            connection.close()  # it was just leaving
        except BaseException:
            connection.close()
            raise
    said = _last_words(run_dir)
    raise Gone(f"slirp, the process of the networks, ends as soon as it starts: {said}", hint=_hint(run_dir))


def ensure(run_dir: str, argv: Sequence[str], before: Callable[[], None] | None = None) -> Connection:
    """A connection to the process, which is started if it is not there. It may be just leaving: see `begin`."""
    return connect(run_dir) or _start_locked(run_dir, argv, before)


def _start_locked(run_dir: str, argv: Sequence[str], before: Callable[[], None] | None) -> Connection:
    with files.lock_file(os.path.join(run_dir, f"{SOCKET}.lock")):
        connection = connect(run_dir)
        if connection is None:
            _wait_for_leaving(run_dir)
            _start(run_dir, argv, before)
            connection = connect(run_dir)
    if connection is None:
        raise Gone("slirp, the process of the networks, has ended as soon as it had started", hint=_hint(run_dir))
    return connection


def _last_words(run_dir: str) -> str:
    """What the process said of its failure, after it has begun to hear requests."""
    with open(os.path.join(run_dir, LOG), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_WORDS))
        return _reason(file.read())


def _reason(said: bytes) -> str:
    """What it says of its failure, among the other things it said: the last line, or better its error's."""
    lines = said.decode("utf-8", "replace").strip().split("\n")
    told = [line.removeprefix("slirp: ") for line in lines if line.startswith("slirp: ")]
    return (told or lines)[-1] or "it says nothing"


def _wait_for_leaving(run_dir: str) -> None:
    """Return when no process has the place any more: one that leaves gives up its socket first, and then the lock."""
    end = time.monotonic() + _LEAVE_SECONDS
    while time.monotonic() < end:
        try:
            with files.lock_file(os.path.join(run_dir, HELD), blocking=False):
                return
        except BlockingIOError:
            time.sleep(0.01)


def _start(run_dir: str, argv: Sequence[str], before: Callable[[], None] | None) -> None:
    log = os.path.join(run_dir, LOG)
    log_fd = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    ready_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        start = os.fstat(log_fd).st_size
        if start > _MAX_LOG:
            os.ftruncate(log_fd, 0)
            start = 0
        arguments = [*argv, "--socket", os.path.join(run_dir, SOCKET), "--ready-fd", "3", "--log", log]
        pid = os.fork()
        if pid == 0:
            _become(arguments, write_fd, log_fd, before)
        os.close(write_fd)
        write_fd = -1
        if not _is_ready(ready_fd):
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            said = os.pread(log_fd, _LAST_WORDS, max(start, os.fstat(log_fd).st_size - _LAST_WORDS))
            raise HostUnsupported(
                f"slirp, the process of the networks, does not start: {_reason(said)}",
                hint=_hint(run_dir),
            )
    finally:
        for fd in (log_fd, ready_fd, write_fd):
            if fd >= 0:
                os.close(fd)


def _is_ready(ready_fd: int) -> bool:
    """Whether a line comes, before the end and in time."""
    end, line = time.monotonic() + _START_SECONDS, b""
    poll = select.poll()
    poll.register(ready_fd, select.POLLIN)
    while not line.endswith(b"\n"):
        if not poll.poll(max(0, end - time.monotonic()) * 1000):
            return False
        data = os.read(ready_fd, 4096)
        if not data:
            return False
        line += data
    return True


def _become(arguments: list[str], ready_fd: int, log_fd: int, before: Callable[[], None] | None) -> None:
    """Be the process; the forked child's part. Never returns."""
    try:
        os.setsid()
        os.chdir("/")
        os.umask(0o077)
        null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        # Above 3 first: one of them may be a number that is about to be something else.
        kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 4) for fd in (null_fd, null_fd, log_fd, ready_fd)]
        for target, fd in enumerate(kept):
            os.dup2(fd, target)
        processes.close_from(4)
        processes.default_signals()
        if before is not None:
            before()
        os.execve(arguments[0], arguments, {})
    except BaseException as error:
        os.write(2, f"{error}\n".encode("utf-8", "replace"))
    finally:
        os._exit(125)


def _hint(run_dir: str) -> str:
    return f"its log is {os.path.join(run_dir, LOG)}; --network none and --network host do without it"
