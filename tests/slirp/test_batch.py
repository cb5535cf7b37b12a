"""Datagrams from socket to socket, over loopback."""

import errno
import socket
from collections.abc import Iterator

import pytest

from slirp.batch import SLOTS, Batch, Relayed, run_of


class Pipe:
    """`inward` → `source` ⇒ `destination` → `outward`: two pairs of sockets, with the batch between."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.inward, self.source = pair()
        self.destination, self.outward = pair()

    def send(self, sizes: list[int]) -> list[bytes]:
        datagrams = [bytes((number & 255,)) * size for number, size in enumerate(sizes)]
        for datagram in datagrams:
            self.inward.send(datagram)
        return datagrams

    def received(self) -> list[bytes]:
        datagrams = []
        while True:
            try:
                datagrams.append(self.outward.recv(70000))
            except BlockingIOError:
                return datagrams

    def close(self) -> None:
        for one in (self.inward, self.source, self.destination, self.outward):
            one.close()


def pair() -> tuple[socket.socket, socket.socket]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sockets[0].connect(sockets[1].getsockname())
    sockets[1].connect(sockets[0].getsockname())
    return sockets[0], sockets[1]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe(Batch())
    yield made
    made.close()
    made.batch.close()


@pytest.mark.parametrize(
    "sizes",
    [
        *([0], [1], [65507], [5, 0, 1400, 7], [0, 0, 0]),
        *([1400] * SLOTS, [100] * SLOTS, [1400] * 10 + [3], [1400] * 10 + [1401], [8, 1400, 1400]),
        [60000] * 3,
    ],
    ids=str,
)
@pytest.mark.parametrize("segmented", [True, False])
def test_datagrams_arrive_as_they_were(pipe: Pipe, sizes: list[int], segmented: bool) -> None:
    if not segmented:
        pipe.batch.unsegmented.add(pipe.destination.fileno())
    sent = pipe.send(sizes)
    done = pipe.batch.relay(pipe.source.fileno(), pipe.destination.fileno())
    assert (done.datagrams, done.size, done.full) == (len(sizes), sum(sizes), len(sizes) == SLOTS)
    assert pipe.received() == sent


def test_slots_are_used_again(pipe: Pipe) -> None:
    for sizes in ([1400] * 20, [10], [9] * 3, [1500] * 20):
        sent = pipe.send(sizes)
        pipe.batch.relay(pipe.source.fileno(), pipe.destination.fileno())
        assert pipe.received() == sent
        pipe.batch.shrink()


def test_one_at_a_time(pipe: Pipe) -> None:
    sent = pipe.send([3, 0, 65507])
    assert [pipe.batch.relay_one(pipe.source, pipe.destination) for _ in range(4)] == [3, 0, 65507, -1]
    assert pipe.batch.trouble == Relayed(0, 0, False, 0, 0)
    assert pipe.received() == sent


def test_nothing_to_receive_is_no_error(pipe: Pipe) -> None:
    done = pipe.batch.relay(pipe.source.fileno(), pipe.destination.fileno())
    assert (done.datagrams, done.full, done.receive_error, done.send_error) == (0, False, 0, 0)


def test_what_icmp_has_told_does_not_cost_the_next_datagrams(pipe: Pipe) -> None:
    pipe.outward.close()
    for _ in range(2):
        pipe.send([10, 10])
        first = pipe.batch.relay(pipe.source.fileno(), pipe.destination.fileno())
    assert (first.datagrams, first.send_error) == (2, errno.ECONNREFUSED)
    pipe.send([10])
    assert pipe.batch.relay_one(pipe.source, pipe.destination) == -1
    assert pipe.batch.trouble == Relayed(1, 10, False, 0, errno.ECONNREFUSED)


def test_errors_of_the_receiving_side_are_told(pipe: Pipe) -> None:
    pipe.inward.close()
    pipe.source.send(b"into the void")
    done = pipe.batch.relay(pipe.source.fileno(), pipe.destination.fileno())
    assert done.receive_error == errno.ECONNREFUSED
    pipe.source.send(b"and again")
    assert pipe.batch.relay_one(pipe.source, pipe.destination) == -1
    assert pipe.batch.trouble == Relayed(0, 0, False, errno.ECONNREFUSED, 0)


def test_what_cannot_be_sent_is_dropped(pipe: Pipe) -> None:
    pipe.destination.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    pipe.send([60000] * 8)
    done = pipe.batch.relay(pipe.source.fileno(), pipe.destination.fileno())
    assert done.datagrams == len(pipe.received())
    assert not pipe.batch.relay(pipe.source.fileno(), pipe.destination.fileno()).datagrams


def test_path_without_segmentation_takes_them_one_by_one(pipe: Pipe) -> None:
    # A segment above the path's MTU is refused with EINVAL. No datagram is above that of loopback, so SO_NO_CHECK
    # stands for it: the kernel does not cut without a checksum, and says EINVAL as well.
    pipe.destination.setsockopt(socket.SOL_SOCKET, 11, 1)
    sent = pipe.send([1400] * 5)
    done = pipe.batch.relay(pipe.source.fileno(), pipe.destination.fileno())
    assert done.datagrams == 5
    assert pipe.received() == sent
    assert pipe.batch.unsegmented == {pipe.destination.fileno()}
    pipe.batch.forget(pipe.destination.fileno())
    assert not pipe.batch.unsegmented


@pytest.mark.parametrize(
    "lengths, run",
    [
        ([1400], 0),
        ([1400, 1400], 46),
        ([1400, 1400, 9], 46),
        ([1400, 9, 1400], 0),
        ([1400, 1400, 1401], 0),
        ([1400, 1400, 0], 0),
        ([0, 0], 0),
        ([100] * 64, 64),
        ([40000, 40000], 0),
    ],
)
def test_runs_are_datagrams_of_one_size(lengths: list[int], run: int) -> None:
    assert run_of(lengths) == run
