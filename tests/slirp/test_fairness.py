"""Tables that all containers share: whoever fills them loses his own first, and nobody else anything."""

import socket

import pytest

from slirp import forwarding, handover, udp_flow
from slirp.forwarding import Forwarder, Question
from slirp.handover import Handover
from slirp.loop import Loop
from slirp.model import Model
from slirp.outward import Outward
from slirp.relay import Pipes
from slirp.services import Services, Stock
from slirp.udp_flow import Flow, Flows
from slirp.wire import dns, ip
from tests.support import hostile_frames as hostile


def test_a_flood_of_udp_flows_takes_nobody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_flow, "MOST", 64)
    table = Flows(1024)
    with socket.socket() as host:
        quiet = Flow(("net", b"\x0a\0\0\x02", 1, b"\x01\x01\x01\x01", 443), "quiet", host, (b"", 0), now=0.0)
        table.add(quiet)
        for number in range(400):
            container = f"flooder{number % 3}"
            for flow in table.surplus(container):
                table.remove(flow)
            key = ("net", container.encode(), number, b"\x01\x01\x01\x01", 443)
            table.add(Flow(key, container, host, (b"", 0), float(number)))
            assert len(table.all) <= 64
    assert table.of("quiet") == [quiet]


def question(container: str, number: int) -> Question:
    message = number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + b"\3www\0" + b"\0\1\0\1"
    query = dns.parse_query(message)
    assert query is not None
    return Question(container, "net", message, query, False)


def test_names_that_some_wait_for_do_not_keep_others_from_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "MAX_EXCHANGES", 8)
    forwarder = Forwarder(Loop(), port=1)
    ended: list[str] = []
    assert forwarder.ask(question("quiet", 0), list, lambda *_: ended.append("quiet"))
    for number in range(100):
        name = f"flooder{number % 3}"
        assert forwarder.ask(question(name, number), list, lambda *_, name=name: ended.append(name))
        assert len(forwarder) <= 8
    assert "quiet" not in ended
    assert forwarder.ask(question("late", 0), list, lambda *_: None)
    assert "quiet" not in ended


def test_calls_that_nobody_answers_do_not_keep_others_from_calling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "MOST_HALF_OPEN", 8)
    monkeypatch.setattr(Handover, "_connect", lambda self, flow: None)
    loop, model = Loop(), Model()
    model.add_network({"id": "net", "name": "net", "kernel": True})
    for number, name in enumerate(("quiet", "flooder1", "flooder2", "flooder3"), 2):
        endpoints = [{"network": "net", "ipv4": f"10.0.0.{number}", "default": True}]
        model.set_container({"id": name, "name": name, "endpoints": endpoints})
    services = Services(loop, model, Outward(model, loop, print), print, Stock(loop, lambda *_: None))
    calls = Handover(services, Pipes())

    def call(number: int, port: int) -> None:
        packet = ip.parse(memoryview(hostile.segment((f"10.0.0.{number}", port), ("192.0.2.1", 80), hostile.SYN)))
        assert packet is not None
        network = model.networks["net"]
        calls.packet(network, network.endpoints[packet.source], packet, bytes(10))
        assert len(calls.flows(None)) <= 8

    call(2, 1)
    for port in range(1, 101):
        call(3 + port % 3, port)
    call(2, 2)
    assert len(calls.flows("quiet")) == 2
