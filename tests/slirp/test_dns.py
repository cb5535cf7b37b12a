"""The gateway's DNS with sockets on loopback: dig(1) asks, servers of the test answer, lie, or are silent."""

import functools
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slirp import dns as gateway_dns
from slirp import dns_stream, forwarding
from slirp.dns import Dns
from slirp.loop import Loop
from slirp.model import Model
from slirp.outward import Outward
from slirp.services import Services, Stock
from slirp.wire import dns as wire

Handler = Callable[[wire.Query, bytes, bool], bytes | None]

needs_dig = pytest.mark.skipif(not shutil.which("dig"), reason="dig (bind9-dnsutils) is not installed")


class Upstream:
    """A resolver of the test's, by UDP and TCP on one port; *handler* makes its answers (None: silence)."""

    def __init__(self, handler: Handler, address: str, port: int) -> None:
        self.handler, self.by_tcp = handler, 0
        self.asked: list[wire.Query] = []
        self.sources: list[tuple[str, int]] = []
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, port))
        self.tcp = socket.create_server(self.udp.getsockname())
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self.udp.fileno(), self.tcp.fileno(), self._wake[0]], [], [])
            if self._wake[0] in ready:
                return
            if self.udp.fileno() in ready:
                data, source = self.udp.recvfrom(65535)
                self.sources.append(source)
                if answer := self._answer(data, False):
                    self.udp.sendto(answer, source)
            if self.tcp.fileno() in ready:
                with self.tcp.accept()[0] as connection:
                    length = int.from_bytes(connection.recv(2), "big")
                    self.by_tcp += 1
                    if answer := self._answer(connection.recv(length), True):
                        connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, data: bytes, stream: bool) -> bytes | None:
        query = wire.parse_query(data)
        assert query is not None
        self.asked.append(query)
        return self.handler(query, data, stream)

    def close(self) -> None:
        os.write(self._wake[1], b".")
        self._thread.join()
        for end in (self.udp, self.tcp):
            end.close()
        for fd in self._wake:
            os.close(fd)


def address_of(query: wire.Query, data: bytes, stream: bool) -> bytes:
    """192.0.2.7 to everybody."""
    return wire.answer(query, wire.NOERROR, [(wire.A, b"\xc0\0\2\7")] if query.kind == wire.A else [], ttl=30)


class Gateway:
    """The DNS of one network, served by a thread of the test on a port of loopback.

    The asker is 127.0.0.1, known as container `web`; 127.0.0.9 is nobody.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.rechecks = 0
        self.loop = Loop(self.lines.append)
        self.model = Model()
        self.network = self.model.add_network({"id": "back", "name": "back", "subnet4": "127.0.0.0/24", "names": True})
        self.outward = Outward(self.model, self.loop, self.lines.append)
        services = Services(self.loop, self.model, self.outward, self.lines.append, Stock(self.loop, self._order))
        udp, tcp = both_on_one_port()
        self.port = udp.getsockname()[1]
        self.upstream_port = free_port()
        self.dns = Dns(services, self._recheck, port=self.upstream_port)
        self.dns.serve(self.network, [udp.detach()], [tcp.detach()])
        self.upstreams: list[Upstream] = []
        self._wake = os.pipe()
        self._todo: list[Callable[[], None]] = []
        self.loop.watch(self._wake[0], select.EPOLLIN, self._woken)
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()
        self.web()

    def web(self, **told: Any) -> None:
        """Tell of the asker, and of its peers `db` and `cache`."""
        row = {"network": "back", "ipv4": "127.0.0.1", "default": True}
        self.do(lambda: self.model.set_container({"id": "web" * 20, "name": "web", "endpoints": [row]} | told))

    def peer(self, name: str, address: str, **told: Any) -> None:
        row = {"network": "back", "ipv4": address} | told
        self.do(lambda: self.model.set_container({"id": name * 20, "name": name, "endpoints": [row]}))

    def do(self, action: Callable[[], object]) -> None:
        """Do it in the loop's thread, and wait for that."""
        done = threading.Event()

        def run() -> None:
            action()
            done.set()

        self._todo.append(run)
        os.write(self._wake[1], b".")
        assert done.wait(10)

    def resolvers(self, *addresses: str) -> None:
        self.do(lambda: self.dns.resolvers(list(addresses)))

    def upstream(self, handler: Handler = address_of, address: str = "127.0.0.1") -> Upstream:
        """A resolver there, that is not yet one of the host's."""
        upstream = Upstream(handler, address, self.upstream_port)
        self.upstreams.append(upstream)
        return upstream

    def close(self) -> None:
        self.do(lambda: self.dns.forget(self.network))
        assert not self.dns._forwarder  # nothing is under way any more
        self.do(self.loop.stop)
        self._thread.join()
        for upstream in self.upstreams:
            upstream.close()
        assert self.loop.errors == 0, self.lines

    def _woken(self, events: int) -> None:
        os.read(self._wake[0], 100)
        while self._todo:
            self._todo.pop(0)()

    def _recheck(self) -> None:
        self.rechecks += 1

    def _order(self, network: str, kind: str, count: int) -> None:
        """The hub's part: ordinary sockets do here."""
        stream = kind.startswith("plain")
        fds = [
            socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM).detach()
            for _ in range(count)
        ]
        self.loop.later(0, lambda: self._stock_deliver(network, kind, fds))

    def _stock_deliver(self, network: str, kind: str, fds: list[int]) -> None:
        self.dns._services.stock.deliver(network, kind, fds)


def both_on_one_port() -> tuple[socket.socket, socket.socket]:
    """A socket for datagrams and a listener with the same number, which somebody may have for one of the two."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        try:
            return udp, socket.create_server(udp.getsockname())
        except OSError:
            udp.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.close()


def dig(gateway: Gateway, name: str, *options: str) -> str:
    """What dig prints of it, with status and flags."""
    command = ["dig", "@127.0.0.1", "-p", str(gateway.port), "+tries=1", "+time=9", "+noall", "+comments", "+answer"]
    return subprocess.run([*command, *options, name], capture_output=True, text=True, timeout=30).stdout


def ask(gateway: Gateway, name: str, kind: int = wire.A, *, source: str = "127.0.0.1", seconds: float = 15) -> bytes:
    """One question by UDP; the answer, b"" where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((source, 0))
        client.connect(("127.0.0.1", gateway.port))
        client.settimeout(seconds)
        client.send(message(name, kind))
        try:
            return client.recv(65535)
        except TimeoutError:
            return b""


def message(name: str, kind: int = wire.A, message_id: int = 0x4242) -> bytes:
    return (
        struct.pack("!6H", message_id, 0x0100, 1, 0, 0, 0)
        + (wire.packed_name(name) or b"")
        + struct.pack("!HH", kind, wire.IN)
    )


def outcome(data: bytes, name: str, kind: int = wire.A) -> tuple[int, list[bytes | str]]:
    """Code, and addresses."""
    query = wire.parse_query(message(name, kind))
    assert query is not None
    answer = wire.parse_answer(data, query)
    assert answer is not None
    assert answer.id == query.id
    return answer.code, [record.value for record in answer.records]


def receive(connection: socket.socket) -> bytes:
    """One message by TCP."""
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
        more = connection.recv(1 if len(data) < 2 else 2 + int.from_bytes(data[:2], "big") - len(data))
        if not more:
            return b""
        data += more
    return data[2:]


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


@needs_dig
def test_dig_is_told_of_peers_by_udp_and_tcp(gateway: Gateway) -> None:
    gateway.peer("db", "127.0.0.3", aliases=["sql"])
    for options in ((), ("+tcp",), ("+noedns",), ("+bufsize=4096", "+dnssec")):
        printed = dig(gateway, "SQL", *options)
        assert "status: NOERROR" in printed, printed
        assert "127.0.0.3" in printed
        assert ";; Warning" not in printed
    assert "status: NOERROR" in dig(gateway, "db", "-t", "AAAA")
    assert "ANSWER: 0" in dig(gateway, "db", "-t", "AAAA")
    assert "ANSWER: 0" in dig(gateway, "db", "-t", "MX")
    assert "db.back." in dig(gateway, "ignored", "-x", "127.0.0.3")


@needs_dig
def test_dig_gets_what_the_host_s_resolver_says(gateway: Gateway) -> None:
    upstream = gateway.upstream()
    gateway.resolvers("127.0.0.1")
    assert "192.0.2.7" in dig(gateway, "www.example.org")
    assert "192.0.2.7" in dig(gateway, "single")
    assert upstream.by_tcp == 0
    assert "192.0.2.7" in dig(gateway, "www.example.org", "+tcp")
    assert upstream.by_tcp == 1
    assert gateway.rechecks >= 1


@needs_dig
def test_an_answer_that_is_cut_off_is_asked_for_again_by_tcp(gateway: Gateway) -> None:
    def many(query: wire.Query, data: bytes, stream: bool) -> bytes:
        records = [(wire.A, bytes((10, 9, 8, n))) for n in range(100)]
        return wire.answer(query, wire.NOERROR, records, size=65535 if stream else query.size)

    upstream = gateway.upstream(many)
    gateway.resolvers("127.0.0.1")
    printed = dig(gateway, "many.example.org", "+noedns")
    assert printed.count("10.9.8.") == 100
    assert upstream.by_tcp == 1


@needs_dig
def test_a_question_by_tcp_is_asked_by_udp_where_no_server_speaks_tcp(gateway: Gateway) -> None:
    upstream = gateway.upstream(lambda query, data, stream: None if stream else address_of(query, data, stream))
    gateway.resolvers("127.0.0.1")
    assert "192.0.2.7" in dig(gateway, "www.example.org", "+tcp")
    assert upstream.by_tcp == 1


def test_many_addresses_of_peers_are_cut_off_by_udp_and_whole_by_tcp(gateway: Gateway) -> None:
    for n in range(50):
        gateway.peer(f"db{n}", f"127.0.0.{100 + n}", aliases=["db"])
    data = ask(gateway, "db")
    assert len(data) <= 512
    assert data[2] & 0x02
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(framed(message("db")))
        assert len(outcome(receive(connection), "db")[1]) == 50


def test_addresses_of_one_name_take_turns(gateway: Gateway) -> None:
    for n in (3, 4):
        gateway.peer(f"db{n}", f"127.0.0.{n}", aliases=["db"])
    first = {outcome(ask(gateway, "db"), "db")[1][0] for _ in range(4)}
    assert first == {b"\x7f\0\0\3", b"\x7f\0\0\4"}


def test_strangers_are_refused(gateway: Gateway) -> None:
    upstream = gateway.upstream()
    gateway.resolvers("127.0.0.1")
    assert outcome(ask(gateway, "www.example.org", source="127.0.0.9"), "www.example.org") == (wire.REFUSED, [])
    assert upstream.asked == []


def test_internal_networks_ask_nobody_outside(gateway: Gateway) -> None:
    upstream = gateway.upstream()
    gateway.resolvers("127.0.0.1")
    gateway.do(lambda: gateway.model.add_network({"id": "back", "name": "back", "names": True, "internal": True}))
    gateway.peer("db", "127.0.0.3")
    gateway.web()
    assert outcome(ask(gateway, "db"), "db") == (wire.NOERROR, [b"\x7f\0\0\3"])
    for name, kind in (
        ("www.example.org", wire.A),
        ("secret.attacker.example", 16),
        ("8.8.8.8.in-addr.arpa", wire.PTR),
    ):
        assert outcome(ask(gateway, name, kind), name, kind) == (wire.NXDOMAIN, [])
    gateway.web(dns=["127.0.0.7"])  # its own servers are outside, too
    assert outcome(ask(gateway, "www.example.org"), "www.example.org") == (wire.NXDOMAIN, [])
    assert upstream.asked == []
    assert gateway.rechecks == 0


def test_each_question_has_a_port_and_an_id_of_its_own(gateway: Gateway) -> None:
    upstream = gateway.upstream()
    gateway.resolvers("127.0.0.1")
    for _ in range(40):
        assert outcome(ask(gateway, "www.example.org"), "www.example.org")[1] == [b"\xc0\0\2\7"]
    assert len({query.id for query in upstream.asked}) > 35
    assert len({port for _, port in upstream.sources}) > 35


def test_spoofed_answers_are_not_taken(gateway: Gateway) -> None:
    """The true server is slow; meanwhile others answer: from another port, with another id, to another question."""
    spoofer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    spoofer.bind(("127.0.0.1", 0))
    lie = [(wire.A, b"\6\6\6\6")]

    def slow(query: wire.Query, data: bytes, stream: bool) -> bytes:
        source = upstream.sources[-1]
        right = wire.answer(query, wire.NOERROR, lie)
        for _ in range(50):
            spoofer.sendto(right, source)  # all is right but where it comes from
        other = wire.parse_query(message("other.example.org"))
        assert other is not None
        for wrong in (
            wire.answer(query._replace(id=query.id ^ 1), wire.NOERROR, lie),
            wire.answer(other._replace(id=query.id), wire.NOERROR, lie),
            data,
            b"",
            right[:20],
        ):
            upstream.udp.sendto(wrong, source)  # all is right but what it says
        return address_of(query, data, stream)

    upstream = gateway.upstream(slow)
    gateway.resolvers("127.0.0.1")
    assert outcome(ask(gateway, "www.example.org"), "www.example.org") == (wire.NOERROR, [b"\xc0\0\2\7"])
    spoofer.close()


def test_who_guesses_too_often_has_to_begin_anew(gateway: Gateway) -> None:
    def guess(query: wire.Query, data: bytes, stream: bool) -> bytes | None:
        if len(upstream.asked) > 1:
            return address_of(query, data, stream)
        for n in range(1, 200):
            wrong = wire.answer(query._replace(id=query.id ^ n), wire.NOERROR, [(wire.A, b"\6\6\6\6")])
            upstream.udp.sendto(wrong, upstream.sources[-1])
        return wire.answer(query, wire.NOERROR, [(wire.A, b"\6\6\6\6")])

    upstream = gateway.upstream(guess)
    gateway.resolvers("127.0.0.1")
    assert outcome(ask(gateway, "www.example.org"), "www.example.org") == (wire.NOERROR, [b"\xc0\0\2\7"])
    assert len({port for _, port in upstream.sources}) == 2


def test_a_server_that_refuses_to_listen_is_followed_by_the_next_at_once(gateway: Gateway) -> None:
    gateway.upstream(address="127.0.0.5")
    gateway.resolvers("127.0.0.4", "127.0.0.5")
    assert outcome(ask(gateway, "www.example.org", seconds=1.5), "www.example.org")[1] == [b"\xc0\0\2\7"]


def test_a_silent_server_is_followed_by_the_next_and_asked_last_then(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "_UDP_ROUNDS", (0.2, 0.2))
    silent = gateway.upstream(lambda query, data, stream: None, address="127.0.0.4")
    gateway.upstream(address="127.0.0.5")
    gateway.resolvers("127.0.0.4", "127.0.0.5")
    for _ in range(3):
        assert outcome(ask(gateway, "www.example.org"), "www.example.org")[1] == [b"\xc0\0\2\7"]
    assert len(silent.asked) == 1


def test_where_all_are_silent_the_question_failed(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_UDP_ROUNDS", (0.1, 0.1))
    silent = gateway.upstream(lambda query, data, stream: None)
    gateway.resolvers("127.0.0.1")
    assert outcome(ask(gateway, "www.example.org"), "www.example.org") == (wire.SERVFAIL, [])
    assert len(silent.asked) == 2
    gateway.resolvers()
    assert outcome(ask(gateway, "www.example.org"), "www.example.org") == (wire.SERVFAIL, [])


def test_a_server_that_fails_is_followed_by_the_next(gateway: Gateway) -> None:
    gateway.upstream(lambda query, data, stream: wire.answer(query, wire.SERVFAIL), address="127.0.0.4")
    gateway.upstream(address="127.0.0.5")
    gateway.resolvers("127.0.0.4", "127.0.0.5")
    assert outcome(ask(gateway, "www.example.org"), "www.example.org")[1] == [b"\xc0\0\2\7"]
    gateway.resolvers("127.0.0.4")
    assert outcome(ask(gateway, "www.example.org"), "www.example.org") == (wire.SERVFAIL, [])


def test_a_name_that_does_not_exist_is_not_asked_of_the_next(gateway: Gateway) -> None:
    gateway.upstream(lambda query, data, stream: wire.answer(query, wire.NXDOMAIN), address="127.0.0.4")
    other = gateway.upstream(address="127.0.0.5")
    gateway.resolvers("127.0.0.4", "127.0.0.5")
    assert outcome(ask(gateway, "www.example.org"), "www.example.org") == (wire.NXDOMAIN, [])
    assert other.asked == []


def test_servers_that_change_while_a_question_waits_get_it(gateway: Gateway) -> None:
    changed = threading.Event()

    def silent(query: wire.Query, data: bytes, stream: bool) -> None:
        changed.set()

    gateway.upstream(silent, address="127.0.0.4")
    gateway.upstream(address="127.0.0.5")
    gateway.resolvers("127.0.0.4")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1.9)  # before the silent one is given up
        client.bind(("127.0.0.1", 0))
        client.sendto(message("www.example.org"), ("127.0.0.1", gateway.port))
        assert changed.wait(5)
        gateway.resolvers("127.0.0.5")
        assert outcome(client.recv(1000), "www.example.org")[1] == [b"\xc0\0\2\7"]


def test_a_container_s_own_servers_are_asked_instead(gateway: Gateway) -> None:
    hosts = gateway.upstream(address="127.0.0.4")
    own = gateway.upstream(address="127.0.0.5")
    gateway.resolvers("127.0.0.4")
    gateway.web(dns=["127.0.0.5"])
    assert outcome(ask(gateway, "www.example.org"), "www.example.org")[1] == [b"\xc0\0\2\7"]
    assert (len(hosts.asked), len(own.asked)) == (0, 1)


def test_a_server_that_is_a_peer_is_asked_from_inside_the_network(gateway: Gateway) -> None:
    gateway.do(lambda: gateway.model.add_network({"id": "back", "name": "back", "names": True, "internal": True}))
    pihole = gateway.upstream(address="127.0.0.6")
    gateway.peer("pihole", "127.0.0.6")
    gateway.web(dns=["127.0.0.6"])
    for kind in ("udp4", "plain4"):
        gateway.do(functools.partial(gateway.dns._services.stock.prepare, "back", kind))
    assert outcome(ask(gateway, "www.example.org"), "www.example.org")[1] == [b"\xc0\0\2\7"]
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(framed(message("www.example.org")))
        assert outcome(receive(connection), "www.example.org")[1] == [b"\xc0\0\2\7"]
    assert (len(pihole.asked), pihole.by_tcp) == (2, 1)


def test_names_that_no_egress_rule_speaks_of_are_not_asked_for(gateway: Gateway) -> None:
    upstream = gateway.upstream()
    gateway.resolvers("127.0.0.1")
    gateway.web(egress=["www.example.org:443"])
    assert outcome(ask(gateway, "data.attacker.example"), "data.attacker.example") == (wire.REFUSED, [])
    assert upstream.asked == []
    destination = b"\xc0\0\2\7"
    endpoint = gateway.network.endpoints[b"\x7f\0\0\1"]
    route = gateway.outward.route
    assert isinstance(route(gateway.network, endpoint, "tcp", destination, 443), int)
    assert outcome(ask(gateway, "www.example.org"), "www.example.org") == (wire.NOERROR, [destination])
    gateway.do(lambda: None)
    assert not isinstance(route(gateway.network, endpoint, "tcp", destination, 443), int)
    assert isinstance(route(gateway.network, endpoint, "tcp", destination, 80), int)


def test_questions_by_tcp_are_answered_in_any_order_and_all(gateway: Gateway) -> None:
    gateway.peer("db", "127.0.0.3")
    gateway.upstream()
    gateway.resolvers("127.0.0.1")
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        names = [("www.example.org" if n % 2 else "db", n) for n in range(100)]
        data = b"".join(framed(message(name, message_id=n)) for name, n in names)
        for at in range(0, len(data), 777):
            connection.sendall(data[at : at + 777])
        connection.shutdown(socket.SHUT_WR)
        answers = [receive(connection) for _ in names]
        assert receive(connection) == b""
    assert sorted(int.from_bytes(answer[:2], "big") for answer in answers) == list(range(100))
    assert all(answer[3] & 0xF == wire.NOERROR for answer in answers)


def test_who_is_silent_by_tcp_is_hung_up_on(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_stream, "IDLE_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(framed(message("db"))[:-1])
        assert connection.recv(1) == b""


def test_what_is_no_question_ends_the_connection_or_is_refused(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(framed(b"\1\2\1\0" + b"\xff" * 30))
        assert receive(connection) == b"\1\2\x81\x81" + bytes(8)
        connection.sendall(framed(b""))
        assert connection.recv(1) == b""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.bind(("127.0.0.1", 0))
        for noise in (b"", b"\0", os.urandom(11), message("db")[:-1], message("db")):
            client.sendto(noise, ("127.0.0.1", gateway.port))
        assert client.recv(1000)[3] & 0xF == wire.FORMERR  # of the fourth; the first three are nothing at all


def test_connections_are_counted_for_each_asker(gateway: Gateway) -> None:
    connections = [
        socket.create_connection(("127.0.0.1", gateway.port), 10) for _ in range(gateway_dns.MAX_STREAMS_PER_ASKER + 1)
    ]
    gateway.peer("db", "127.0.0.3")
    try:
        for connection in connections[:-1]:
            connection.sendall(framed(message("db")))
            assert receive(connection)
        assert connections[-1].recv(1) == b""
    finally:
        for connection in connections:
            connection.close()


def test_questions_under_way_are_counted_for_each_asker(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "MAX_PER_CONTAINER", 3)
    gateway.upstream(lambda query, data, stream: None)
    gateway.resolvers("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.bind(("127.0.0.1", 0))
        for n in range(4):
            client.sendto(message("www.example.org", message_id=n), ("127.0.0.1", gateway.port))
        answer = client.recv(1000)
    assert (int.from_bytes(answer[:2], "big"), answer[3] & 0xF) == (3, wire.SERVFAIL)


def test_the_host_s_resolvers_are_looked_at_once_a_second_at_most(gateway: Gateway) -> None:
    gateway.upstream()
    gateway.resolvers("127.0.0.1")
    for _ in range(20):
        ask(gateway, "www.example.org")
    assert 1 <= gateway.rechecks <= 2


@settings(max_examples=300)
@given(st.data())
def test_no_message_has_an_answer_that_is_none(data: st.DataObject) -> None:
    """Questions with bytes changed, cut and put in; on both transports; what is answered can be parsed."""
    good = message("db") + b"\0" + struct.pack("!HHIH", wire.OPT, 1232, 0, 0)
    asked = bytearray(good[:10] + b"\0\1" + good[12:])
    for _ in range(data.draw(st.integers(0, 6))):
        asked[data.draw(st.integers(0, len(asked) - 1))] = data.draw(st.integers(0, 255))
    asked += data.draw(st.binary(max_size=20))
    del asked[data.draw(st.integers(0, len(asked))) :]
    replies: list[bytes] = []
    loop, model = Loop(), Model()
    model.add_network({"id": "back", "name": "back", "subnet4": "10.0.0.0/24", "names": True, "internal": True})
    row = {"network": "back", "ipv4": "10.0.0.2"}
    model.set_container({"id": "db" * 32, "name": "db", "endpoints": [row]})
    stock = Stock(loop, lambda network, kind, count: None)
    dns = Dns(Services(loop, model, Outward(model, loop, print), print, stock), lambda: None)
    dns._asked("back", bytes((10, 0, 0, 2)), bytes(asked), data.draw(st.booleans()), replies.append)
    [reply] = replies
    assert reply == b"" or reply[:2] == asked[:2]
    query = wire.parse_query(bytes(asked))
    if query is not None:
        assert wire.parse_answer(reply, query) is not None
