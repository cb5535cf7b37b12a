"""What is governed and shown, and what survives, with slirp as it runs, by both paths of TCP."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.network import (
    FAR4,
    HOST4,
    PATHS,
    ROUTER4,
    Machine,
    Refused,
    Slirp,
    eventually,
    network,
    on,
    published,
)
from tests.support.network_servers import Zone, ask, echo, ended, hello, read_all

pytestmark = pytest.mark.kernel

Fresh = Callable[..., dict[str, Any]]


# Governing and observing


def test_egress_allows_what_it_speaks_of_by_name(slirp: Slirp, fresh: Fresh, machine: Machine, zone: Zone) -> None:
    with machine.server(FAR4, hello(b"hello")) as (_, port), machine.server(FAR4, hello(b"no")) as (_, other):
        web = slirp.box("web", [on(fresh(names=True))], egress=[f"www.example.org:{port}", "203.0.113.0/30"])
        assert web.failure(FAR4, port) == "ECONNREFUSED"  # before it has asked for the name
        assert web.lookup("www.example.org") == [FAR4]
        with web.tcp(FAR4, port) as connection:
            assert read_all(connection) == b"hello"
        assert web.failure(FAR4, other) == "ECONNREFUSED"
        with machine.server(ROUTER4, hello(b"by address")) as router, web.tcp(*router) as connection:
            assert read_all(connection) == b"by address"
        assert web.failure(HOST4, 9) == "ECONNREFUSED"
        zone.asked.clear()
        assert "status: REFUSED" in web.dig("data.attacker.example")
        assert zone.asked == []
        denied = slirp.request("flows", container=web.id)["denied"]
        assert {row["destination"] for row in denied} >= {f"{FAR4}:{port}", f"{FAR4}:{other}"}
        assert "denied" in slirp.log()


def test_egress_none_leaves_the_peers(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    place = fresh(names=True)
    web, db = slirp.box("web", [on(place)], egress=["none"]), slirp.box("db", [on(place)])
    with machine.server(FAR4, echo) as address, machine.udp_server(FAR4) as udp_address, db.server(echo, 80):
        assert web.failure(*address) == "ECONNREFUSED"
        with web.udp() as sock:
            sock.settimeout(1)
            sock.connect(udp_address)
            sock.send(b"?")
            with pytest.raises(OSError):
                sock.recv(10)
        web.tcp(web.lookup("db")[0], 80).close()
        slirp.request("update", container=web.id, egress=None)
        web.tcp(*address).close()


def test_egress_of_a_network_holds_for_datagrams_and_ping_too(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    place = fresh(names=True, egress=["*.example.org", f"{ROUTER4}/32"])
    web = slirp.box("web", [on(place)])
    with machine.udp_server(FAR4) as far, machine.udp_server(ROUTER4) as router, web.udp() as sock:
        assert ask(sock, *far) == b""
        assert ask(sock, *router) == b"?"
        assert web.lookup("www.example.org") == [FAR4]
        assert ask(sock, *far) == b"?"
    for address, lost in ((FAR4, "0%"), (HOST4, "100%")):
        assert f" {lost} packet loss" in web.run("ping", "-c", "1", "-W", "2", address, check=False).stdout
    assert "status: REFUSED" in web.dig("example.org")  # a star stands for something


def test_the_way_out_is_the_network_s_with_the_highest_priority(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    inside, first, second = fresh(internal=True), fresh(), fresh(egress=["none"])
    web = slirp.box("web", [on(inside), on(first), on(second)])
    assert [endpoint["default"] for endpoint in web.endpoints].count(True) == 1
    with machine.server(FAR4, hello(b"out")) as address:
        with web.tcp(*address) as connection:
            assert read_all(connection) == b"out"
        slirp.request("disconnect", container=web.id, network=first["id"])
        assert web.failure(*address) == "ECONNREFUSED"  # it leads over the second one now, which allows nothing
        slirp.request("connect", container=web.id, endpoint=on(first, gw_priority=10))
        assert web.failure(*address) == ""


def test_flows_and_bytes_are_shown(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    place = fresh()
    web = slirp.box("web", [on(place)])
    with machine.server(FAR4, echo) as address, web.tcp(*address) as connection:
        connection.sendall(b"x" * 1000)
        received = 0
        while received < 1000:
            received += len(connection.recv(1000))
        flows = slirp.request("flows", container=web.id)["flows"]
        [flow] = [flow for flow in flows if flow["protocol"] == "tcp"]
        assert flow["container"] == web.id
        assert flow["direction"] == "out"
        assert flow["destination"] == f"{FAR4}:{address[1]}"
        assert flow["source"].startswith(f"{web.ipv4}:")
        assert (flow["sent"], flow["received"]) == (1000, 1000)
    assert eventually(lambda: not slirp.request("flows", container=web.id)["flows"])
    [counters] = slirp.request("stats", container=web.id)["containers"][web.id].values()
    assert counters["tx_bytes"] > 1000
    assert counters["rx_bytes"] > 1000
    assert [row["id"] for row in slirp.request("list")["containers"]] == [web.id]


# Life


@pytest.mark.parametrize("path", PATHS)
def test_a_stack_that_is_killed_is_followed_by_one_that_goes_on(machine: Machine, path: str) -> None:
    with machine.slirp(path) as slirp:
        place = network("home", "10.250.0.0/16", names=True)
        web = slirp.box("web", [on(place)], ports=[published(80)])
        db = slirp.box("db", [on(place)])
        with machine.server(FAR4, echo) as address, web.server(hello(b"hello"), 80):
            with web.tcp(*address) as connection:
                connection.sendall(b"x")
                assert connection.recv(1) == b"x"
                for pid in slirp.stack_pids():
                    os.kill(pid, signal.SIGKILL)
                assert eventually(lambda: ended(connection))
            assert eventually(lambda: web.failure(*address, timeout=2) == "")
            assert eventually(lambda: web.lookup("db") == [db.ipv4])
            with machine.open_socket(net=machine.world) as sock:
                sock.connect((HOST4, web.port(80)))
                assert read_all(sock) == b"hello"
        assert not slirp.ended()


@pytest.mark.parametrize("path", PATHS)
def test_who_holds_an_attachment_learns_that_the_hub_was_killed(machine: Machine, path: str) -> None:
    place = network("home", "10.251.0.0/16", names=True)
    with machine.slirp(path) as slirp:
        web = slirp.box("web", [on(place)], ports=[published(80)])
        before, port = web.endpoints[0], web.port(80)
        slirp.kill()
        web.client.sock.settimeout(10)
        assert web.client.sock.recv(1) == b""
        assert slirp.ended(10)
    with machine.slirp(path) as slirp, machine.server(FAR4, echo) as address:
        previous = {name: before[name] for name in ("ipv4", "ipv6", "mac")}
        web = slirp.box("web", [on(place, previous=previous)], ports=[published(80, port)])
        assert web.endpoints[0] == before
        web.tcp(*address).close()


def test_it_leaves_when_nothing_is_attached_for_a_while(machine: Machine) -> None:
    with machine.slirp("auto", "--linger", "0.2") as slirp:
        web = slirp.box("web", [on(network("home", "10.252.0.0/16"))])
        assert not slirp.ended(0.5)
        web.close()
        assert slirp.ended(15)


def test_it_works_for_a_user_with_one_id(tmp_path: Path) -> None:
    """As where there are no subordinate ids."""
    with Machine(tmp_path, one_id=True) as machine, machine.slirp() as slirp:
        place = network("home", "10.253.0.0/16", names=True)
        web, db = slirp.box("web", [on(place)], ports=[published(80)]), slirp.box("db", [on(place)])
        assert web.lookup("db") == [db.ipv4]
        with machine.server(FAR4, echo) as address, web.server(hello(b"hello"), 80):
            web.tcp(*address).close()
            with machine.open_socket() as sock:
                sock.connect((HOST4, web.port(80)))
                assert read_all(sock) == b"hello"


def test_what_meets_the_packets_can_do_nothing_else(machine: Machine) -> None:
    with machine.slirp() as slirp:
        slirp.box("web", [on(network("home", "10.254.0.0/16"))])
        [pid] = slirp.stack_pids()
        status = machine.run("cat", f"/proc/{pid}/status").stdout
        for line in ("CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000"):
            assert line in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        assert machine.run("ls", "-A", f"/proc/{pid}/root").stdout == ""


def test_nothing_of_it_is_left_when_it_has_ended(machine: Machine) -> None:
    before = running()
    with machine.slirp() as slirp:
        slirp.box("web", [on(network("home", "10.254.0.0/16"))], ports=[published(80)])
        socket_path = slirp.socket_path
        assert running() - before
    assert eventually(lambda: not running() - before), running() - before
    assert not socket_path.exists()


def running() -> set[int]:
    """Processes with slirp's command line, or its name."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"\0slirp\0" in (entry / "cmdline").read_bytes() or "slirp" in (entry / "comm").read_text():
                found.add(int(entry.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def test_what_cannot_be_attached_leaves_nothing_reserved(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    place = fresh()
    address = place["ipv4"]["subnet"].rpartition(".")[0] + ".77"
    with machine.listener("0.0.0.0") as foreign:
        taken = published(80, foreign.getsockname()[1])
        with pytest.raises(Refused):
            slirp.box("web", [on(place, address)], ports=[published(81, 40081), taken])
    assert slirp.request("hello")["containers"] == 0
    web = slirp.box("web", [on(place, address)], ports=[published(81, 40081), taken])
    assert web.ipv4 == address


def test_a_plug_that_fails_is_told_and_can_be_tried_again(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    web = slirp.box("web", [on(fresh())], plug=False)
    with open("/dev/null") as file, pytest.raises(Refused):
        web.client.request("plug", [file.fileno()])
    with pytest.raises(Refused):
        web.client.request("plug", [machine.net])  # not the user's
    with pytest.raises(Refused):
        web.client.request("plug", [])
    web.plug()
    with machine.server(FAR4, echo) as address:
        web.tcp(*address).close()


def test_of_many_that_want_one_port_at_once_one_gets_it(slirp: Slirp, fresh: Fresh) -> None:
    place, lock = fresh(), threading.Lock()
    outcomes: list[str] = []

    def attach(number: int) -> None:
        try:
            slirp.box(f"web{number}", [on(place)], ports=[published(80, 40090)])
            outcome = "attached"
        except Refused as error:
            outcome = error.kind
        with lock:
            outcomes.append(outcome)

    threads = [threading.Thread(target=attach, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["Conflict"] * 19 + ["attached"]
    assert len({box.ipv4 for box in slirp.boxes}) == 1


def test_many_containers_that_come_and_go_at_once_get_along(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    place = fresh(names=True)
    problems: list[BaseException] = []

    def live(number: int) -> None:
        try:
            for turn in range(3):
                box = slirp.box(f"box{number}-{turn}", [on(place)], ports=[published(80)])
                assert box.lookup(f"box{number}-{turn}") == [box.ipv4]
                box.tcp(*far).close()
                box.close()
        except BaseException as error:
            problems.append(error)

    with machine.server(FAR4, echo) as far:
        threads = [threading.Thread(target=live, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []


def test_a_stack_that_is_killed_again_and_again_comes_back(machine: Machine) -> None:
    with machine.slirp() as slirp, machine.server(FAR4, echo) as address:
        web = slirp.box("web", [on(network("home", "10.249.0.0/16"))], ports=[published(53, protocol="udp")])
        with web.udp_server(53):
            for _ in range(3):
                [pid] = slirp.stack_pids()
                os.kill(pid, signal.SIGKILL)
                assert eventually(lambda pid=pid: slirp.stack_pids() not in ([], [pid]))  # type: ignore[misc]
                assert eventually(lambda: web.failure(*address, timeout=2) == "")
                with machine.datagrams(ROUTER4) as client:
                    assert eventually(lambda client=client: ask(client, HOST4, web.port(53, "udp")) == b"?")  # type: ignore[misc]
