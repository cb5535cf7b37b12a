"""Servers for tests of networks: functions that serve a connection, and threads that have them do it."""

import hashlib
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from slirp.wire import dns

Serve = Callable[[socket.socket, Any], None]
BIG = os.urandom(1 << 20)


def family_of(address: str) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def echo(connection: socket.socket, peer: Any) -> None:
    """Send everything back, and the end."""
    while data := connection.recv(65536):
        connection.sendall(data)


def tell_peer(connection: socket.socket, peer: Any) -> None:
    """Tell whoever connects what address and port it is seen as, as JSON."""
    connection.sendall(json.dumps(list(peer[:2])).encode())


def hello(text: bytes) -> Serve:
    """A server that says *text* and hangs up."""

    def serve(connection: socket.socket, peer: Any) -> None:
        connection.sendall(text)

    return serve


def read_all(connection: socket.socket) -> bytes:
    """Everything to the end."""
    parts = []
    while data := connection.recv(1 << 16):
        parts.append(data)
    return b"".join(parts)


@contextmanager
def serving(listener: socket.socket, serve: Serve) -> Iterator[None]:
    """Accept in a thread, serve each in another; *listener* is closed afterwards, and so are the connections."""
    stop_read, stop = os.pipe()
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def one(connection: socket.socket, peer: Any) -> None:
        try:
            with connection:
                serve(connection, peer)
        except OSError:
            pass  # the other side is gone, or the test has ended: what the test wants to see, it looks at itself

    def accept() -> None:
        while True:
            ready, _, _ = select.select([listener.fileno(), stop_read], [], [])
            if stop_read in ready:
                return
            connection, peer = listener.accept()
            connection.settimeout(60)
            connections.append(connection)
            threads.append(threading.Thread(target=one, args=(connection, peer), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield
    finally:
        os.write(stop, b".")
        acceptor.join()
        listener.close()
        for connection in connections:
            _shut(connection)
        for thread in threads:
            thread.join(10)
        os.close(stop)
        os.close(stop_read)


@contextmanager
def answering(sock: socket.socket, answer: Callable[[bytes, Any], bytes | None]) -> Iterator[None]:
    """Answer datagrams in a thread; *sock* is closed afterwards."""
    stop_read, stop = os.pipe()

    def serve() -> None:
        while True:
            ready, _, _ = select.select([sock.fileno(), stop_read], [], [])
            if stop_read in ready:
                return
            try:
                data, peer = sock.recvfrom(65535)
                reply = answer(data, peer)
                if reply is not None:
                    sock.sendto(reply, peer)
            except OSError:
                continue  # an ICMP error about an earlier answer

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(stop, b".")
        thread.join()
        sock.close()
        os.close(stop)
        os.close(stop_read)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # closed already


def ended(connection: socket.socket) -> bool:
    """Whether the other side is gone. Something is sent: without that, one might not learn that it is."""
    connection.setblocking(False)
    try:
        connection.send(b"x")
        return connection.recv(100) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def swallow(connection: socket.socket, peer: Any) -> None:
    """Read everything, tell its hash."""
    connection.sendall(hashlib.sha256(read_all(connection)).hexdigest().encode())


def abort(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def ask(sock: socket.socket, address: str, port: int) -> bytes:
    """The answer to a datagram; b"" where none comes soon, or it cannot be sent."""
    sock.settimeout(0.3)
    try:
        sock.sendto(b"?", (address, port))
        return sock.recv(100)
    except OSError:
        return b""


class Zone:
    """A resolver: the names of *addresses* (IPv4, IPv6), and what it was asked."""

    def __init__(self, addresses: dict[str, tuple[str, str]]) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    def answer(self, data: bytes, peer: Any) -> bytes | None:
        query = dns.parse_query(data)
        assert query is not None
        self.asked.append(query.name)
        address4, address6 = self.addresses.get(query.name.lower(), ("", ""))
        if not address4:
            return dns.answer(query, dns.NXDOMAIN)
        address = {dns.A: address4, dns.AAAA: address6}.get(query.kind, "")
        packed = [(query.kind, socket.inet_pton(family_of(address), address))] if address else []
        return dns.answer(query, dns.NOERROR, packed, ttl=60)

    def serve(self, connection: socket.socket, peer: Any) -> None:
        while length := int.from_bytes(connection.recv(2), "big"):
            answer = self.answer(connection.recv(length), peer) or b""
            connection.sendall(len(answer).to_bytes(2, "big") + answer)
