"""Short messages between processes of ours over a SOCK_SEQPACKET pair: one datagram each, descriptors may ride along.

A message is a kind, one byte, and text. The C half of `socket` is used, since every helper imports this.
"""

import _socket
import os
import struct

from rootless import errors

Socket = _socket.socket

ERROR = b"E"  # class name, message and hint, separated by NUL: raised on the other side as it is
FORKED = b"F"  # the pid of the process that was forked, decimal
READY = b"R"  # the container stands and waits for GO
GO = b"G"  # execute the program
WARNING = b"W"  # a line for the user
TERMINAL = b"T"  # with one descriptor: the master of the container's terminal
NETWORK = b"n"  # with one descriptor: the container's own network namespace
UNION = b"u"  # with one descriptor: that of /dev/fuse, of a root that is mounted and not served yet
HOOKS = b"h"  # the container waits for its hooks in the host's namespaces, and then for GO
LISTENER = b"l"  # with one descriptor: by which calls of the program are answered, SECCOMP_RET_NOTIFY
EXITED = b"X"  # the status of a process, decimal

# Between a client and a container's monitor.
LAUNCH = b"L"  # to the monitor, first of all: the path of its settings; with one descriptor: its connection to slirp
ATTACH = b"A"  # to the monitor: send me output, take my input ("0": also input)
STDIN = b"I"  # to the monitor: bytes for the program
STDIN_END = b"i"  # to the monitor: no more of them
HANGUP = b"H"  # to the monitor: nobody reads any more what comes as the kind that the text is (STDOUT, STDERR)
RESIZE = b"W"  # to the monitor: "rows columns" of the client's terminal
SIGNAL = b"S"  # to the monitor: a number; sent to the program
STOP = b"s"  # to the monitor: "signal seconds"; sent, then SIGKILL, and no restart. Seconds < 0: no SIGKILL
PAUSE = b"P"  # to the monitor: freeze every process
UNPAUSE = b"p"  # to the monitor
UPDATE = b"U"  # to the monitor: JSON of settings that have changed (name, restart policy)
ATTACHED = b"N"  # to the monitor: the path of its endpoints and ports; with one descriptor: another connection to slirp
STDOUT = b"1"  # to the client: bytes
STDERR = b"2"  # to the client: bytes
BEGAN = b"B"  # to the client: the program runs
DONE = b"D"  # to the client: what it asked for is done
# and ERROR, EXITED, WARNING as above

MAX_MESSAGE = 1 << 16
_RIGHTS = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)


def pair() -> tuple[Socket, Socket]:
    """A connected pair, close-on-exec."""
    kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    return _socket.socketpair(_socket.AF_UNIX, kind)


def adopt(fd: int) -> Socket:
    """The socket that was handed down as descriptor *fd*, close-on-exec from now on."""
    os.set_inheritable(fd, False)
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)


def connect(path: str) -> Socket:
    """A connection to the socket at *path*. Raises OSError."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def listen(path: str) -> Socket:
    """A listening socket at *path*, for its owner alone."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    sock.bind(path)
    os.chmod(path, 0o600)
    sock.listen(64)
    return sock


def accept(listener: Socket) -> Socket:
    """The next connection. Raises BlockingIOError where *listener* does not block and there is none."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]  # the typeshed lacks it
    return adopt(fd)


def send(channel: Socket, kind: bytes, text: str | bytes = b"", fds: tuple[int, ...] = ()) -> None:
    """Send one message. Raises OSError (EPIPE) where the other side is gone."""
    data = kind + (text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text)
    ancillary = [(*_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    if len(data) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(data)} bytes")
    channel.sendmsg([data], ancillary, _socket.MSG_NOSIGNAL)


def connect_stream(path: str) -> Socket:
    """A connection to a program of others that listens at *path*. Raises OSError."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def send_terminal(path: str, terminal_fd: int) -> None:
    """Hand a terminal's master to whoever listens at *path*, as runc does for --console-socket."""
    sock = connect_stream(path)
    try:
        sock.sendmsg([b"/dev/pts/ptmx"], [(*_RIGHTS, struct.pack("i", terminal_fd))])
    finally:
        sock.close()


def send_state(sock: Socket, state: bytes, fd: int) -> None:
    """Hand over a descriptor to whoever listens for it, beside the JSON that says of which container it is."""
    sock.sendmsg([state], [(*_RIGHTS, struct.pack("i", fd))], _socket.MSG_NOSIGNAL)


def receive(channel: Socket) -> tuple[bytes, bytes, list[int]]:
    """(kind, text, descriptors) of the next message; kind is empty at the end. Descriptors are close-on-exec."""
    data, ancillary, _, _ = channel.recvmsg(MAX_MESSAGE, _socket.CMSG_SPACE(16), _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, rights in ancillary:
        if (level, kind) == _RIGHTS:
            fds += struct.unpack(f"{len(rights) // 4}i", rights[: len(rights) // 4 * 4])
    return data[:1], data[1:], fds


def send_error(channel: Socket, error: BaseException) -> None:
    """Let *error* be raised on the other side."""
    hint = error.hint if isinstance(error, errors.RootlessError) else ""
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        error = errors.RootlessError(f"{where}{error.strerror or type(error).__name__}")
    name = type(error).__name__ if isinstance(error, errors.RootlessError) else "RootlessError"
    send(channel, ERROR, f"{name}\0{str(error)[:4000]}\0{hint}")


def raise_error(text: bytes) -> None:
    """Raise what send_error sent."""
    name, message, hint = text.decode("utf-8", "surrogateescape").split("\0", 2)
    kind = getattr(errors, name, errors.RootlessError)
    raise kind(message, hint=hint)
