"""A program for either end of a connection, in a container or on the host: nothing but the standard library is needed.

peer.py serve ADDRESS [PORT]               echo, hash, whoami on three ports from PORT on, TCP and (first, last) UDP;
                                           prints the first port once all are there
peer.py crowd HOST PORT COUNT              COUNT connections at once to an echo, all open before the first is used
peer.py idle HOST PORT SECONDS             an echo by TCP and by UDP, before and after so long a silence
peer.py read HOST PORT                     connect, "connected", wait for a line, read to the end, the SHA-256
peer.py write HOST PORT MIB                write that much and tell of each MiB; at the end, what hash answers
peer.py udp HOST PORT SIZE…                the sizes that came back whole
"""

import asyncio
import hashlib
import json
import random
import resource
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

MIB = 1 << 20
_TIMEOUT = 30  # seconds


class Datagrams(asyncio.DatagramProtocol):
    """Answers with what came, or with who it came from; by the socket itself, as asyncio sends no empty datagrams."""

    def __init__(self, sock: socket.socket, whoami: bool) -> None:
        self.sock, self.whoami = sock, whoami

    def datagram_received(self, data: bytes, peer: Any) -> None:
        self.sock.sendto(_peer_name(peer) if self.whoami else data, peer)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything back, and then the end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def hash_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The SHA-256 of everything up to the end."""
    seen = hashlib.sha256()
    while data := await reader.read(1 << 18):
        seen.update(data)
    writer.write(f"{seen.hexdigest()}\n".encode())


async def whoami(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The address and port of who asks."""
    writer.write(_peer_name(writer.get_extra_info("peername")))


def _peer_name(peer: Any) -> bytes:
    return json.dumps([peer[0].removeprefix("::ffff:"), peer[1]]).encode()


async def serve(address: str, port: int) -> None:
    """All services, until the process is ended."""
    port, streams, datagrams = sockets(address, port)
    for service, sock in zip((echo, hash_all, whoami), streams, strict=True):
        await asyncio.start_server(_until_end(service), sock=sock, limit=1 << 18)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Datagrams(datagrams[0], False), sock=datagrams[0])
    await loop.create_datagram_endpoint(lambda: Datagrams(datagrams[1], True), sock=datagrams[1])
    print(port, flush=True)
    await asyncio.Event().wait()


def sockets(address: str, port: int) -> tuple[int, list[socket.socket], list[socket.socket]]:
    """The first port (chosen, where *port* is 0), the listening sockets on it and the two behind, the UDP sockets."""
    for _ in range(100):
        base = port or random.randrange(10_000, 30_000)
        try:
            streams = [listener(address, base + offset) for offset in range(3)]
            return base, streams, [bound(socket.SOCK_DGRAM, address, base + offset) for offset in (0, 2)]
        except OSError:
            if port:
                raise
    raise SystemExit("no free ports")


def _until_end(service: Any) -> Any:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await service(reader, writer)
            await writer.drain()
        except ConnectionError:
            pass  # the other side went away: it will know why
        finally:
            writer.close()

    return handle


def bound(kind: int, address: str, port: int) -> socket.socket:
    """A socket there; "::" is both families."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((address, port))
    return sock


def listener(address: str, port: int) -> socket.socket:
    """The same, listening."""
    sock = bound(socket.SOCK_STREAM, address, port)
    sock.listen(2048)
    return sock


async def crowd(host: str, port: int, count: int) -> None:
    """Each of the connections has its own text echoed, once all of them are open."""
    everybody = asyncio.Event()
    opened = 0
    address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])

    async def one(number: int) -> bool:
        nonlocal opened
        reader, writer = await asyncio.open_connection(address, port)
        opened += 1
        if opened == count:
            everybody.set()
        await everybody.wait()
        text = f"{number} ".encode() * 1000
        writer.write(text)
        writer.write_eof()
        whole = await reader.read(-1) == text
        writer.close()
        return whole

    done = await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(count))), _TIMEOUT)
    print(sum(done))


def idle(host: str, port: int, seconds: int) -> None:
    """What is silent for a while is still there."""
    with (
        socket.create_connection((host, port), _TIMEOUT) as stream,
        socket.socket(stream.family, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.settimeout(_TIMEOUT)
        datagrams.connect(stream.getpeername())
        for text in (b"before", b"after"):
            for sock in (stream, datagrams):
                sock.sendall(text)
                print(sock.recv(100).decode(), flush=True)
            if text == b"before":
                time.sleep(seconds)


def read(host: str, port: int) -> None:
    """Read nothing until told to."""
    with socket.create_connection((host, port), _TIMEOUT) as sock:
        print("connected", flush=True)
        sys.stdin.readline()
        seen = hashlib.sha256()
        while data := sock.recv(1 << 18):
            seen.update(data)
    print(seen.hexdigest(), flush=True)


def write(host: str, port: int, mebibytes: int) -> None:
    """Write as fast as it is taken."""
    with socket.create_connection((host, port)) as sock:
        for number, block in enumerate(blocks(mebibytes)):
            sock.sendall(block)
            print(number + 1, flush=True)
        sock.shutdown(socket.SHUT_WR)
        print(sock.makefile().read().strip(), flush=True)


def blocks(count: int) -> Iterator[bytes]:
    """So many MiB, no two of them the same."""
    for number in range(count):
        yield number.to_bytes(4, "big") * (MIB // 4)


def udp(host: str, port: int, sizes: list[int]) -> None:
    """A question and its answer, of each size."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as sock:
        sock.settimeout(_TIMEOUT)
        sock.connect(address)
        for size in sizes:
            text = bytes(number % 251 for number in range(size))
            sock.send(text)
            print(size if sock.recv(65536) == text else f"{size} damaged")


def main() -> None:
    """See above."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    what, host, *rest = sys.argv[1:]
    numbers = [int(word) for word in rest]
    if what == "serve":
        asyncio.run(serve(host, numbers[0] if numbers else 0))
    elif what == "crowd":
        asyncio.run(crowd(host, *numbers))
    elif what == "udp":
        udp(host, numbers[0], numbers[1:])
    elif what == "idle":
        idle(host, *numbers)
    elif what == "read":
        read(host, *numbers)
    elif what == "write":
        write(host, *numbers)


if __name__ == "__main__":
    main()
