"""Connections that notice when nothing comes, and that do not wait for a dead address while another one answers.

A socket's own timeout starts anew with each byte, so a server that sends one in ten seconds holds its client for ever.
Here the answer's headers have a deadline as a whole, and the body must bring a minimum within each period. Waiting is
done in slices, so that another thread can call everything off. The hooks are http.client's `response_class` and
urllib3's connection classes; pool_classes() makes what a urllib3 PoolManager takes.

A name with several addresses is tried as RFC 8305 says: families alternate, and the next address gets its turn after a
quarter of a second, while the first is still being waited for.
"""

import http.client
import io
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from errno import EINPROGRESS
from functools import partial
from itertools import chain, zip_longest
from threading import Event
from typing import Any, final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from rootless.registry.config import Timing

_SLICE = 0.25  # seconds after which a waiting thread looks whether it is still wanted
_NEXT_ADDRESS = 0.25  # seconds of a head start for each address

Address = tuple[int, int, int, str, Any]  # as from getaddrinfo(3)


class Watch:
    """How long connections wait, and whether they still should."""

    __slots__ = ("cancelled", "timing")

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.cancelled = Event()


def pool_classes(watch: Watch) -> dict[str, Callable[..., HTTPConnectionPool]]:
    """For PoolManager.pool_classes_by_scheme: pools whose connections obey *watch*."""
    return {"http": partial(_Pool, watch=watch), "https": partial(_TlsPool, watch=watch)}


def connect(host: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection to the first address of *host* that answers. Raises OSError: the last one's, or a timeout."""
    with _Race(_alternating(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)), timeout) as race:
        sock = race.run()
    sock.settimeout(timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


@final
class _Race:
    """Connection attempts side by side; all but the winner are closed at the end."""

    def __init__(self, addresses: list[Address], timeout: float) -> None:
        self.waiting = addresses
        self.deadline = time.monotonic() + timeout
        self.next_start = time.monotonic()
        self.error: OSError = TimeoutError("timed out")
        self.selector = selectors.DefaultSelector()

    def __enter__(self) -> "_Race":
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self.selector.get_map().values()):
            self._leave(key.fileobj).close()
        self.selector.close()

    def run(self) -> socket.socket:
        while time.monotonic() < self.deadline:
            if self.waiting and (time.monotonic() >= self.next_start or not self.selector.get_map()):
                self._start(self.waiting.pop(0))
            if not self.waiting and not self.selector.get_map():
                raise self.error
            end = self.next_start if self.waiting else self.deadline
            for key, _ in self.selector.select(max(0.0, end - time.monotonic())):
                if sock := self._finish(key.fileobj):
                    return sock
        raise TimeoutError("timed out")

    def _start(self, address: Address) -> None:
        family, kind, protocol, _, place = address
        self.next_start = time.monotonic() + _NEXT_ADDRESS
        try:
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        except OSError as error:  # this machine has no such family
            self.error, self.next_start = error, 0.0
            return
        code = sock.connect_ex(place)
        if code in (0, EINPROGRESS):
            self.selector.register(sock, selectors.EVENT_WRITE)
        else:
            sock.close()
            self._lost(code)

    def _finish(self, fileobj: Any) -> socket.socket | None:
        sock = self._leave(fileobj)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            return sock
        sock.close()
        self._lost(code)
        return None

    def _leave(self, fileobj: Any) -> socket.socket:
        self.selector.unregister(fileobj)
        sock: socket.socket = fileobj
        return sock

    def _lost(self, code: int) -> None:
        self.error = OSError(code, "connect")
        self.next_start = 0.0


def _alternating(addresses: Sequence[Address]) -> list[Address]:
    """*addresses* with the two families taking turns, each in the resolver's order, the first one's family first."""
    first = [a for a in addresses if a[0] == addresses[0][0]]
    second = [a for a in addresses if a[0] != addresses[0][0]]
    return [a for a in chain.from_iterable(zip_longest(first, second)) if a is not None]


class _TimedReader(io.RawIOBase):
    """The reading end of a socket; raises TimeoutError where too little comes, ConnectionAbortedError on a cancel."""

    def __init__(self, sock: socket.socket, watch: Watch) -> None:
        self._socket = sock
        self._hold = sock.makefile("rb", buffering=0)  # the socket is closed when its last file is
        self._watch = watch
        self._end = time.monotonic() + watch.timing.headers
        self._wanted: float = float("inf")  # bytes until the period starts anew: none do while headers come

    def expect_body(self) -> None:
        """From now on a period is over, and a new one begins, when stall_bytes have come."""
        self._begin_period()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            left = self._end - time.monotonic()
            if self._watch.cancelled.is_set():
                raise ConnectionAbortedError("cancelled")
            if left <= 0:
                raise TimeoutError("timed out")
            self._socket.settimeout(min(left, _SLICE))
            try:
                count = self._socket.recv_into(buffer)
            except TimeoutError:
                continue
            self._wanted -= count
            if self._wanted <= 0:
                self._begin_period()
            return count

    def close(self) -> None:
        if not self.closed:
            self._hold.close()
            if self._socket.fileno() >= 0:  # it lives on, and its next use is not ours
                self._socket.settimeout(self._watch.timing.stall)
        super().close()

    def _begin_period(self) -> None:
        self._end = time.monotonic() + self._watch.timing.stall
        self._wanted = self._watch.timing.stall_bytes


class _Response(http.client.HTTPResponse):
    """An answer read through a _TimedReader."""

    def __init__(self, sock: socket.socket, *args: Any, watch: Watch, **kwargs: Any) -> None:
        self._reader = _TimedReader(sock, watch)
        super().__init__(self, *args, **kwargs)  # type: ignore[arg-type]  # it only wants what makefile() returns

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        self._reader.expect_body()


class _Watched:
    """What both kinds of connection have in addition."""

    _dns_host: str
    port: int
    timeout: Any
    response_class: Any
    sock: Any

    def __init__(self, *args: Any, watch: Watch, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._watch = watch
        self.response_class = partial(_Response, watch=watch)

    def send(self, data: Any) -> None:
        """As http.client's. Raises TimeoutError where nothing is taken for a while, ConnectionAbortedError on a cancel.

        Python's sendall() counts its timeout over all of the data, which a slow line needs longer for.
        """
        if self.sock is None or not isinstance(data, (bytes, memoryview)):
            super().send(data)  # type: ignore[misc]  # it is mixed into what has it
            return
        timeout, rest = self.sock.gettimeout(), memoryview(data)
        try:
            while rest:
                rest = rest[self._send_some(rest) :]
        finally:
            if self.sock is not None:
                self.sock.settimeout(timeout)

    def _send_some(self, data: memoryview) -> int:
        end = time.monotonic() + self._watch.timing.stall
        while True:
            if self._watch.cancelled.is_set():
                raise ConnectionAbortedError("cancelled")
            self.sock.settimeout(_SLICE)
            try:
                count: int = self.sock.send(data)
            except TimeoutError:
                if time.monotonic() > end:
                    raise
                continue
            return count

    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port, self._watch.timing.connect)


class _Connection(_Watched, HTTPConnection):
    pass


class _TlsConnection(_Watched, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection
