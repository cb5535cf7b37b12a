"""Two sockets as one connection: what passes, what ends, and what is held meanwhile. Kernel TCP over loopback."""

import errno
import hashlib
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slirp.loop import Loop
from slirp.relay import LARGE, LARGE_FROM, PAGE, SMALL, Pipes, Relay, available_pages, prepare

RESET = struct.pack("ii", 1, 0)


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
        return one, other


class Line:
    """application ⇄ inner, relay, outer ⇄ peer"""

    def __init__(self, loop: Loop, pipes: Pipes) -> None:
        self.loop, self.pipes = loop, pipes
        self.application, inner = connected()
        outer, self.peer = connected()
        self.ended = 0
        for sock in (inner, outer):
            sock.setblocking(False)
            prepare(sock)
        for sock in (self.application, self.peer):
            sock.setblocking(False)
        self.relay = Relay(loop, inner, outer, self._end, pipes)

    def _end(self, relay: Relay) -> None:
        self.ended += 1

    def run(self) -> None:
        """Until nothing happens any more."""
        for _ in range(200):
            before = self.relay.sent, self.relay.received, self.ended
            self.loop.turn(0.01)
            self.loop.turn(0)
            leaving = self.relay.state == "closing" and not self.ended
            if before == (self.relay.sent, self.relay.received, self.ended) and not leaving:
                return

    def read(self, sock: socket.socket, length: int) -> bytes:
        """So many bytes, or what there is until the end."""
        got = bytearray()
        for _ in range(20000):
            try:
                data = sock.recv(length - len(got))
            except BlockingIOError:
                self.loop.turn(0.01)
                continue
            got += data
            if not data or len(got) == length:
                return bytes(got)
        raise AssertionError(f"{len(got)} of {length} bytes came")

    def close(self) -> None:
        self.relay.close()
        self.application.close()
        self.peer.close()


@pytest.fixture
def loop() -> Loop:
    return Loop(pytest.fail)


@pytest.fixture(params=["pipes", "none"])
def pipes(request: pytest.FixtureRequest) -> Pipes:
    """With pipes, and where there are none left."""
    return Pipes(8192 if request.param == "pipes" else 0)


@pytest.fixture
def line(loop: Loop, pipes: Pipes) -> Iterator[Line]:
    made = Line(loop, pipes)
    yield made
    made.close()
    assert made.ended == 1
    assert pipes.lent == 0


def fill(sock: socket.socket, line: Line) -> int:
    """Write until nobody takes more."""
    sent = 0
    while True:
        try:
            sent += sock.send(b"x" * 65536)
        except BlockingIOError:
            before = line.relay.sent + line.relay.received
            line.run()
            if before == line.relay.sent + line.relay.received:
                return sent


def packets_in(sock: socket.socket) -> int:
    """tcpi_segs_in of struct tcp_info (linux/tcp.h): segments that have come, with data or without."""
    length: int = struct.unpack_from("@I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 140)[0]
    return length


def test_bytes_pass_both_ways_and_are_counted(line: Line) -> None:
    line.application.sendall(b"question")
    line.peer.sendall(b"an answer")
    assert line.read(line.peer, 8) == b"question"
    assert line.read(line.application, 9) == b"an answer"
    assert (line.relay.sent, line.relay.received, line.relay.state) == (8, 9, "established")


def test_an_idle_connection_holds_no_pipe(line: Line) -> None:
    line.application.sendall(b"question")
    line.run()
    assert line.pipes.lent == 0


def test_the_end_passes_after_the_last_byte_and_the_other_way_stays_open(line: Line) -> None:
    line.application.sendall(b"question")
    line.application.shutdown(socket.SHUT_WR)
    assert line.read(line.peer, 100) == b"question"
    assert line.relay.state == "half-closed"
    line.peer.sendall(b"answer")
    line.peer.shutdown(socket.SHUT_WR)
    assert line.read(line.application, 100) == b"answer"
    line.run()
    assert line.ended == 1


@pytest.mark.parametrize("by_the_application", [True, False])
def test_a_reset_passes(line: Line, by_the_application: bool) -> None:
    one, other = (line.application, line.peer) if by_the_application else (line.peer, line.application)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    one.close()
    line.run()
    with pytest.raises(ConnectionResetError):
        other.recv(1)
    assert line.ended == 1


def test_data_before_a_reset_arrives_first(line: Line) -> None:
    line.peer.sendall(b"error: go away")
    line.run()
    line.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    line.peer.close()
    line.run()
    assert line.application.recv(100) == b"error: go away"


def test_who_does_not_read_stops_the_sender_and_the_sum_is_right(line: Line) -> None:
    sent = fill(line.application, line)
    assert 0 < sent < 64 << 20
    line.application.shutdown(socket.SHUT_WR)
    assert len(line.read(line.peer, sent + 1)) == sent


@pytest.mark.parametrize("size", [100, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
def test_short_pieces_to_somebody_who_does_not_read_are_kept_in_order(line: Line, size: int) -> None:
    sent = hashlib.sha256()
    length, before = 0, -1
    while line.relay.sent != before:
        before = line.relay.sent
        for number in range(400):
            piece = number.to_bytes(2, "big") * (size // 2)
            try:
                taken = line.application.send(piece)
            except BlockingIOError:
                taken = 0
            sent.update(piece[:taken])
            length += taken
            line.loop.turn(0)
    line.application.shutdown(socket.SHUT_WR)
    got = line.read(line.peer, length + 1)
    assert (len(got), hashlib.sha256(got).digest()) == (length, sent.digest())


def test_the_end_comes_in_one_packet_with_the_last_bytes(line: Line) -> None:
    before = packets_in(line.peer)
    line.application.sendall(b"question")
    line.application.shutdown(socket.SHUT_WR)
    assert line.read(line.peer, 100) == b"question"
    assert packets_in(line.peer) == before + 1


def test_close_and_abort_tell_once(line: Line) -> None:
    line.relay.abort()
    line.relay.close()
    assert line.ended == 1
    with pytest.raises(ConnectionResetError):
        line.peer.recv(1)


def test_urgent_bytes_stay_in_line(line: Line) -> None:
    line.application.send(b"a")
    line.application.send(b"!", socket.MSG_OOB)
    line.application.send(b"b")
    line.application.shutdown(socket.SHUT_WR)
    assert line.read(line.peer, 100) == b"a!b"


def test_a_busy_direction_gets_a_large_pipe_and_gives_it_back(loop: Loop) -> None:
    pipes = Pipes(8192)
    line = Line(loop, pipes)
    for _ in range(LARGE_FROM // (1 << 20) + 1):
        for offset in range(0, 1 << 20, 1 << 16):
            line.application.sendall(bytes(1 << 16))
            assert len(line.read(line.peer, 1 << 16)) == 1 << 16, offset
    fill(line.application, line)
    assert pipes.lent == LARGE
    line.close()
    assert pipes.lent == 0


def test_slow_readers_do_not_take_more_pages_than_there_are(loop: Loop) -> None:
    pipes = Pipes(2 * SMALL)
    lines = [Line(loop, pipes) for _ in range(4)]
    sent = [fill(line.application, line) for line in lines]
    assert pipes.lent == 2 * SMALL
    for line, length in zip(lines, sent, strict=True):
        assert len(line.read(line.peer, length)) == length
        line.close()
    assert pipes.lent == 0


def test_one_who_always_has_more_does_not_keep_the_others_waiting(loop: Loop) -> None:
    pipes = Pipes(8192)
    busy, other = Line(loop, pipes), Line(loop, pipes)
    block = bytes(1 << 20)

    def keep_busy() -> None:
        try:
            busy.application.send(block)
            busy.peer.recv(1 << 20)
        except BlockingIOError:
            pass  # one of them is not ready; the other has done its part
        loop.turn(0)

    for _ in range(200):
        keep_busy()
    other.application.sendall(b"me too")
    for _ in range(3):
        keep_busy()
    assert other.peer.recv(10) == b"me too"
    busy.close()
    other.close()


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=3000)), max_size=20), st.booleans())
def test_whatever_is_written_in_whatever_order_arrives(pieces: list[tuple[bool, bytes]], with_pipes: bool) -> None:
    line = Line(Loop(pytest.fail), Pipes(8192 if with_pipes else 0))
    out, back = b"", b""
    for outward, data in pieces:
        if outward:
            line.application.sendall(data)
            out += data
        else:
            line.peer.sendall(data)
            back += data
        line.loop.turn(0)
    line.application.shutdown(socket.SHUT_WR)
    line.peer.shutdown(socket.SHUT_WR)
    assert line.read(line.peer, len(out) + 1) == out
    assert line.read(line.application, len(back) + 1) == back
    line.run()
    assert line.ended == 1
    line.close()


def test_pipes_that_were_given_back_full_are_empty_when_lent_again() -> None:
    pipes = Pipes(64)
    pipe = pipes.take(large=False)
    assert pipe is not None
    os.write(pipe.write_fd, b"left over")
    pipes.give_back(pipe, empty=False)
    again = pipes.take(large=False)
    assert again is not None
    with pytest.raises(OSError) as caught:
        os.read(again.read_fd, 1)
    assert caught.value.errno == errno.EAGAIN
    pipes.give_back(again)


def test_only_half_of_what_the_kernel_lets_the_user_have_is_taken() -> None:
    with open("/proc/sys/fs/pipe-user-pages-soft") as file:
        limit = int(file.read())
    assert available_pages() == (limit or 16384) // 2
