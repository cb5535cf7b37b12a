"""The control socket, without a hub behind it: both ends in this process, the loop turned by hand."""

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slirp import channel, control, requests
from slirp.control import Connection, Server
from slirp.errors import Conflict, InvalidInput, SlirpError
from slirp.loop import Loop
from slirp.resolvers import Resolvers, parse

BIG = "x" * 60_000


class Rig:
    """A server whose requests are in *asked*, answered by *answer*."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = Loop(self._failed)
        self.failures: list[str] = []
        self.asked: list[tuple[Connection, dict[str, Any], list[int]]] = []
        self.gone: list[Connection] = []
        self.answer: Callable[[Connection, dict[str, Any]], None] = lambda connection, told: connection.answer(**told)
        self.server = Server(str(path))
        self.server.serve(self.loop, self._handle, self.gone.append)

    def _failed(self, line: str) -> None:
        self.failures.append(line)

    def _handle(self, connection: Connection, told: dict[str, Any], fds: list[int]) -> None:
        self.asked.append((connection, told, list(fds)))
        self.answer(connection, told)

    def close(self) -> None:
        for connection in list(self.server.connections):
            connection.close()
        self.server.close()

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(5)
        sock.connect(str(self.path))
        self.turn()
        return sock

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            self.loop.turn(0)

    def ask(self, sock: socket.socket, **told: Any) -> dict[str, Any]:
        channel.send(sock, told)
        self.turn()
        return received(sock)


def received(sock: socket.socket) -> dict[str, Any]:
    message, _ = channel.receive(sock)
    assert message is not None, "the connection has ended"
    return message


def ended(sock: socket.socket) -> bool:
    try:
        return channel.receive(sock)[0] is None
    except ConnectionError:
        return True


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "control")
    yield made
    made.close()


def test_a_request_is_answered(rig: Rig) -> None:
    with rig.connect() as sock:
        assert rig.ask(sock, op="hello") == {"ok": True, "op": "hello"}


def test_the_socket_is_its_owner_s_alone(rig: Rig) -> None:
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600


def test_a_second_server_is_told_that_there_is_one(rig: Rig) -> None:
    with pytest.raises(Conflict, match=f"another slirp serves {rig.path}"):
        Server(str(rig.path))
    with rig.connect() as sock:
        assert rig.ask(sock, op="still there")["ok"]


def test_the_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    (tmp_path / "control.held").touch()
    rig = Rig(path)
    with rig.connect() as sock:
        assert rig.ask(sock, op="hello")["ok"]
    rig.close()


def test_closed_it_leaves_no_socket_and_its_place_to_the_next(tmp_path: Path) -> None:
    first = Rig(tmp_path / "control")
    first.server.close()
    assert list(tmp_path.iterdir()) == []
    Rig(tmp_path / "control").server.close()


def test_of_many_that_come_and_go_there_is_never_more_than_one(tmp_path: Path) -> None:
    """Each takes the place and leaves it again, as fast as it can; two at once would see each other's mark."""
    path, mark = str(tmp_path / "control"), tmp_path / "mark"
    trouble: list[BaseException] = []

    def come_and_go() -> None:
        for _ in range(100):
            try:
                server = Server(path)
            except Conflict:
                continue
            try:
                mark.touch(exist_ok=False)
                mark.unlink()
                server.close()
            except BaseException as error:
                trouble.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (trouble, list(tmp_path.iterdir())) == ([], [])


def test_a_place_that_cannot_be_taken_is_told(tmp_path: Path) -> None:
    with pytest.raises(SlirpError, match="cannot open"):
        Server(str(tmp_path / "missing" / "control"))
    (tmp_path / "link.held").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SlirpError, match="cannot open"):
        Server(str(tmp_path / "link"))
    with pytest.raises(SlirpError, match="cannot listen at"):
        Server(str(tmp_path / ("x" * 120)))
    assert [path.name for path in tmp_path.iterdir()] == ["link.held"]


def test_another_user_is_not_heard(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_uid_of_peer", lambda sock: os.geteuid() + 1)
    with rig.connect() as sock:
        assert ended(sock)
    assert rig.asked == []


@pytest.mark.parametrize("data", [b"{", b"[]", b"null", b"\xff\xfe", b'{"a":' * 5000, b"{}" + b" " * (130 << 10)])
def test_nonsense_is_answered_and_the_connection_goes_on(rig: Rig, data: bytes) -> None:
    with rig.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.send(data)
        rig.turn()
        answer = received(sock)
        assert (answer["ok"], answer["kind"]) == (False, "InvalidInput")
        assert rig.ask(sock, op="hello")["ok"]


def test_a_failure_is_one_line_with_its_kind_and_hint(rig: Rig) -> None:
    def fail(connection: Connection, told: dict[str, Any]) -> None:
        raise Conflict("it is\nin use", hint="end it")

    rig.answer = fail
    with rig.connect() as sock:
        assert rig.ask(sock) == {"ok": False, "kind": "Conflict", "error": "it is in use", "hint": "end it"}


def test_a_bug_is_told_and_logged_and_ends_nothing(rig: Rig) -> None:
    def fail(connection: Connection, told: dict[str, Any]) -> None:
        raise ZeroDivisionError("a bug")

    rig.answer = fail
    with rig.connect() as sock:
        answer = rig.ask(sock)
        assert (answer["kind"], answer["error"]) == ("RootlessError", "slirp failed: ZeroDivisionError: a bug")
        assert "ZeroDivisionError: a bug" in rig.failures[0]
        rig.answer = lambda connection, told: connection.answer()
        assert rig.ask(sock) == {"ok": True}


def test_the_next_request_waits_for_the_answer(rig: Rig) -> None:
    rig.answer = lambda connection, told: None
    with rig.connect() as sock:
        channel.send(sock, {"n": 1})
        channel.send(sock, {"n": 2})
        rig.turn()
        assert [told["n"] for _, told, _ in rig.asked] == [1]
        rig.asked[0][0].answer(n=1)
        rig.turn()
        assert [told["n"] for _, told, _ in rig.asked] == [1, 2]
        assert received(sock)["n"] == 1


def test_a_client_that_leaves_while_it_waits_is_noticed(rig: Rig) -> None:
    rig.answer = lambda connection, told: None
    with rig.connect() as sock:
        channel.send(sock, {})
        rig.turn()
    rig.turn()
    assert len(rig.gone) == 1
    rig.gone[0].answer()  # too late, and harmless


def test_descriptors_are_there_for_the_request_and_closed_after_it(rig: Rig) -> None:
    rig.answer = lambda connection, told: connection.answer(pipe=os.fstat(rig.asked[-1][2][0]).st_ino)
    read_fd, write_fd = os.pipe()
    with rig.connect() as sock, open(read_fd, "rb") as file:
        channel.send(sock, {}, [write_fd])
        os.close(write_fd)
        rig.turn()
        assert received(sock)["pipe"] == os.fstat(read_fd).st_ino
        assert file.read() == b""  # nobody has the other end any more


def test_a_long_answer_comes_in_parts_that_fit(rig: Rig) -> None:
    rows = [BIG, BIG, BIG, "small", BIG]
    rig.answer = lambda connection, told: connection.answer_parts({"rows": part} for part in control.parts(rows))
    with rig.connect() as sock:
        channel.send(sock, {})
        parts: list[dict[str, Any]] = []
        while not parts or parts[-1].get("more"):
            rig.turn(1)
            parts.append(received(sock))
    assert len(parts) > 2
    assert [row for part in parts for row in part["rows"]] == rows


def test_who_does_not_take_answers_is_not_read_from_and_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_PATIENCE", 0.05)
    rig.answer = lambda connection, told: connection.answer_parts({"rows": [BIG]} for _ in range(20))
    with rig.connect() as sock, rig.connect() as other:
        for _ in range(3):
            channel.send(sock, {})
        rig.turn(20)
        assert len(rig.asked) == 1
        while not rig.gone:
            rig.loop.turn(0.02)
        assert len(rig.server.connections) == 1
        rig.answer = lambda connection, told: connection.answer()
        assert rig.ask(other)["ok"]


def test_a_silent_client_without_an_attachment_is_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_PATIENCE", 0.02)
    monkeypatch.setattr(control, "_IDLE", 0.05)
    with rig.connect() as idle, rig.connect() as holder:
        rig.ask(idle)
        rig.ask(holder)
        rig.asked[-1][0].attachment = object()
        while not rig.gone:
            rig.loop.turn(0.02)
        assert ended(idle)
        assert rig.ask(holder)["ok"]


def test_there_is_an_end_to_how_many_connect(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_MOST_CONNECTIONS", 2)
    with rig.connect() as first, rig.connect(), rig.connect() as third:
        assert ended(third)
        assert rig.ask(first)["ok"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["10.0.0.0/8", "10.0.0.1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("network", "ipv4", "ipv6", "mac", "aliases", "gw_priority", "previous", "id", "name", "subnet", "gateway")
ENDPOINT = st.recursive(JSON, lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner, max_size=9), max_leaves=6)


@given(ENDPOINT)
def test_whatever_is_asked_it_is_a_record_or_refused(told: Any) -> None:
    for parser in (requests.parse_endpoint, requests.parse_network):
        try:
            parser(told)
        except InvalidInput:
            pass  # as it should, most of the time


def test_an_endpoint_is_read_with_its_defaults() -> None:
    subnet = {"subnet": "10.0.0.0/8", "gateway": "10.0.0.1", "range": "", "aux": {"printer": "10.0.0.9"}}
    found = requests.parse_endpoint({"network": {"id": "ab", "name": "back", "ipv4": subnet}})
    assert found.network.ipv4 == requests.Subnet("10.0.0.0/8", "10.0.0.1", "", ("10.0.0.9",))
    assert (found.network.mtu, found.network.icc, found.network.internal, found.network.egress) == (
        65520,
        True,
        False,
        None,
    )
    assert found[1:] == ("", "", "", [], 0, ("", "", ""))


@pytest.mark.parametrize(
    "text, servers",
    [
        ("", ["127.0.0.1"]),
        ("search example.org\n", ["127.0.0.1"]),
        ("nameserver 9.9.9.9\nnameserver\t2620:fe::fe # far\n", ["9.9.9.9", "2620:fe::fe"]),
        ("nameserver fe80::1%eth0\r\n", ["fe80::1%eth0"]),
        (" nameserver 9.9.9.9\nnameservers 8.8.8.8\n;nameserver 1.1.1.1\n", ["127.0.0.1"]),
        ("nameserver x\nnameserver\nnameserver 1.1.1.1", ["1.1.1.1"]),
        ("".join(f"nameserver 10.0.0.{n}\n" for n in range(5)), ["10.0.0.0", "10.0.0.1", "10.0.0.2"]),
    ],
)
def test_name_servers_are_read_as_the_c_library_reads_them(text: str, servers: list[str]) -> None:
    assert parse(text) == servers


def test_resolvers_that_change_are_noticed_and_others_are_not(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "resolv.conf", tmp_path / "stub"
    resolvers = Resolvers(str(path))
    seen = [(resolvers.changed(), resolvers.servers)]
    elsewhere.write_text("nameserver 1.1.1.1\n")
    path.symlink_to(elsewhere)
    seen.append((resolvers.changed(), resolvers.servers))
    elsewhere.write_text("nameserver 1.1.1.1\n# nothing that matters\n")
    seen.append((resolvers.changed(), resolvers.servers))
    elsewhere.write_text("nameserver 2.2.2.2\n")
    seen.append((resolvers.changed(), resolvers.servers))
    assert seen == [(False, ["127.0.0.1"]), (True, ["1.1.1.1"]), (False, ["1.1.1.1"]), (True, ["2.2.2.2"])]


def test_answers_are_held_until_they_may_be_given(rig: Rig) -> None:
    rig.server.holds = True
    with rig.connect() as first, rig.connect() as second:
        channel.send(first, {"number": 1})
        rig.turn()
        assert [told for _, told, _ in rig.asked] == [{"number": 1}]
        first.settimeout(0)
        with pytest.raises(BlockingIOError):
            received(first)
        rig.server.release()
        assert received(first) == {"ok": True, "number": 1}
        assert rig.ask(second, number=2) == {"ok": True, "number": 2}


def test_what_was_held_may_turn_out_to_have_failed(rig: Rig) -> None:
    rig.server.holds = True
    with rig.connect() as asking, rig.connect() as silent:
        channel.send(asking, {"number": 1})
        rig.turn()
        rig.server.release(Conflict("it is not to be"))
        assert received(asking) == {"ok": False, "kind": "Conflict", "error": "it is not to be", "hint": ""}
        assert rig.ask(silent, number=2) == {"ok": True, "number": 2}
