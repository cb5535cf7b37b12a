import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from rootless.registry.connections import connect


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def black_hole() -> Iterator[tuple[str, int]]:
    """An address that answers nothing: the queue of its listener is full, and the kernel drops what comes."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.3", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *places: tuple[str, int]) -> None:
    """Have every name stand for *places*."""

    def getaddrinfo(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        families = [socket.AF_INET6 if ":" in host else socket.AF_INET for host, _ in places]
        return [(f, socket.SOCK_STREAM, 6, "", place) for f, place in zip(families, places, strict=True)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


# G06
def test_a_dead_address_costs_a_moment_and_not_the_whole_timeout(
    listener: socket.socket, black_hole: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, black_hole, black_hole, listener.getsockname())
    start = time.monotonic()
    with connect("registry.example", 443, timeout=10) as sock:
        assert sock.getpeername() == listener.getsockname()
        assert sock.gettimeout() == 10
    assert time.monotonic() - start < 3


# G06
def test_a_family_that_this_machine_does_not_route_is_passed_over(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, ("100::1", 443), ("2001:db8::1", 443), listener.getsockname())
    start = time.monotonic()
    with connect("registry.example", 443, timeout=10) as sock:
        assert sock.getpeername() == listener.getsockname()
    assert time.monotonic() - start < 3


def test_the_second_address_is_tried_at_once_where_the_first_refuses(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = closed.getsockname()
    resolve_to(monkeypatch, place, listener.getsockname())
    start = time.monotonic()
    connect("registry.example", 443, timeout=10).close()
    assert time.monotonic() - start < 0.2


def test_where_nothing_answers_the_timeout_is_for_all_addresses_together(
    black_hole: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, black_hole, black_hole, black_hole)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        connect("registry.example", 443, timeout=0.6)
    assert time.monotonic() - start < 1.5


def test_where_all_refuse_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = closed.getsockname()
    resolve_to(monkeypatch, place, place)
    with pytest.raises(ConnectionRefusedError):
        connect("registry.example", 443, timeout=10)


def test_no_socket_is_left_open(
    black_hole: tuple[str, int], listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, black_hole, listener.getsockname())
    before = threading.active_count()
    connect("registry.example", 443, timeout=10).close()  # an unclosed socket would be a ResourceWarning: an error here
    assert threading.active_count() == before
