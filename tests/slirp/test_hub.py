"""The hub as a process: what is attached and what is left when it is not; who dies, and who lives on.

The machine is made up (tests/support/network.py), and each test has a process of its own where it ends one.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slirp import channel, options, supervision
from slirp import spare as spare_process
from slirp.log import Log
from slirp.loop import Loop
from slirp.supervision import Stack
from tests.support.network import Box, Machine, Refused, Slirp, eventually, network, on, published
from tests.support.network_servers import echo, hello, read_all

pytestmark = pytest.mark.kernel

LINGER = ("--linger", "0.2")
BACK = network("back", "10.1.0.0/29", ipv6="fd00:1::/64", names=True)
FRONT = network("front", "10.2.0.0/16")
INSIDE = network("aside", "10.3.0.0/16", internal=True)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine")) as machine:
        machine.resolv_conf("nameserver 127.0.0.53\n")
        yield machine


@pytest.fixture(scope="module")
def shared(machine: Machine) -> Iterator[Slirp]:
    with machine.slirp("auto", *LINGER) as slirp:
        holder = slirp.client()  # or it would leave between two tests
        yield slirp
        holder.sock.close()
        assert "error in a handler" not in slirp.log(), slirp.log()[-4000:]


@pytest.fixture
def slirp(shared: Slirp) -> Iterator[Slirp]:
    """A process without containers and networks."""
    yield shared
    for box in shared.boxes:
        box.close()
    shared.boxes.clear()
    assert eventually(lambda: (shared.request("hello")["containers"], shared.request("hello")["networks"]) == (0, 0))


def listens(machine: Machine, port: int, address: str = "127.0.0.1") -> bool:
    with machine.open_socket() as sock:
        return sock.connect_ex((address, port)) == 0


def says(box: Box, address: str, port: int) -> bytes:
    with box.tcp(address, port) as connection:
        return read_all(connection)


# attach


def test_the_command_line_tells_what_it_is(machine: Machine) -> None:
    done = machine.run(sys.executable, "-B", "-m", "slirp", "--help")
    assert "--socket PATH" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--socket"],
        ["--socket="],
        ["--sock", "x"],
        ["socket", "x"],
        ["--socket", "x", "--path", "fast"],
        ["--socket", "x", "--linger", "soon"],
        ["--socket", "x", "--linger=nan"],
        ["--socket", "x", "--ready-fd", "one"],
    ],
)
def test_a_command_line_that_cannot_be_is_refused(arguments: list[str]) -> None:
    with pytest.raises(options.Misused):
        options.parse(arguments)


def test_options_are_read_in_both_forms() -> None:
    told = ["--socket=/run/s", "--linger", "0.5", "--path=user", "--ready-fd", "3", "--exit-fd=4", "--log", "/l"]
    assert options.parse(told) == options.Options("/run/s", 3, 4, "/l", 0.5, "user")


def test_a_second_process_says_in_one_line_that_there_is_one(slirp: Slirp, machine: Machine) -> None:
    done = machine.run(sys.executable, "-B", "-m", "slirp", "--socket", str(slirp.socket_path), check=False)
    assert (done.returncode, done.stderr) == (1, f"slirp: another slirp serves {slirp.socket_path}\n")
    assert slirp.request("hello")["ok"]


def test_one_that_cannot_start_says_why_and_leaves_nothing(machine: Machine) -> None:
    directory = machine.directory / "empty"
    directory.mkdir()
    argv = [sys.executable, "-B", "-m", "slirp", "--socket", str(directory / "s"), "--log", "/nowhere/log"]
    done = machine.run(*argv, check=False)
    assert (done.returncode, done.stderr) == (1, "slirp: /nowhere/log: No such file or directory\n")
    assert list(directory.iterdir()) == []


def test_containers_of_a_network_reach_each_other_by_either_family(slirp: Slirp) -> None:
    one, two = (slirp.box(name, [on(BACK)]) for name in ("one", "two"))
    assert [(box.ipv4, box.ipv6) for box in (one, two)] == [("10.1.0.2", "fd00:1::2"), ("10.1.0.3", "fd00:1::3")]
    assert one.endpoints[0]["mac"] == "02:42:0a:01:00:02"
    for address in (two.ipv4, two.ipv6):
        one.run("ping", "-c1", "-w5", address)


def test_an_attachment_that_fails_leaves_nothing(slirp: Slirp, machine: Machine) -> None:
    taken = slirp.box("taken", [on(FRONT)], ports=[published(80)])
    other = taken.port(80)
    wrong = [on(BACK), on(FRONT, "10.9.9.9")]
    for endpoints, ports in ((wrong, []), ([on(BACK), on(FRONT)], [published(81), published(80, other)])):
        with pytest.raises(Refused):
            slirp.box("new", endpoints, ports=ports, plug=False)
    assert [row["name"] for row in slirp.request("list")["containers"]] == ["taken"]
    assert eventually(lambda: slirp.request("hello")["networks"] == 1)
    assert slirp.box("new", [on(BACK)]).ipv4 == "10.1.0.2"


def test_addresses_run_out_and_come_back(slirp: Slirp) -> None:
    boxes = [slirp.box(f"n{number}", [on(BACK)], plug=False) for number in range(5)]
    with pytest.raises(Refused, match="no available IPv4 addresses on this network's address pools: back"):
        slirp.box("more", [on(BACK)], plug=False)
    boxes[2].close()
    assert eventually(lambda: slirp.request("hello")["containers"] == 4)
    assert slirp.box("more", [on(BACK)], plug=False).ipv4 == boxes[2].ipv4


def test_what_a_container_had_it_gets_again(slirp: Slirp) -> None:
    had = {"ipv4": "10.1.0.5", "ipv6": "fd00:1::9", "mac": "02:42:0a:01:00:05"}
    first, second = (slirp.box(name, [on(BACK, previous=had)], plug=False) for name in ("first", "second"))
    assert (first.ipv4, first.ipv6, second.ipv4, second.ipv6) == ("10.1.0.5", "fd00:1::9", "10.1.0.2", "fd00:1::2")


@pytest.mark.parametrize(
    "endpoint, kind",
    [
        (on(network("back", "10.1.0.0/24")), "Conflict"),
        (on(BACK, "10.1.0.2"), "Conflict"),
        (on(BACK, mac="02:42:0a:01:00:02"), "Conflict"),
        (on(BACK, "10.1.0.1"), "Conflict"),
        (on(FRONT, ipv6="fd00::5"), "InvalidInput"),
        (on(BACK, mac="01:00:5e:00:00:01"), "InvalidInput"),
        (on(network("bare")), "InvalidInput"),
        (on(network("odd", "10.7.0.1/16")), "InvalidInput"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(slirp: Slirp, endpoint: dict[str, Any], kind: str) -> None:
    slirp.box("there", [on(BACK)])
    with pytest.raises(Refused) as told:
        slirp.box("new", [endpoint], plug=False)
    assert told.value.kind == kind


def test_a_container_is_attached_once(slirp: Slirp) -> None:
    one = slirp.box("one", [on(BACK)])
    with pytest.raises(Refused, match="container one is attached already"):
        slirp.box("one", [on(FRONT)])
    with pytest.raises(Refused, match="this connection has a container"):
        one.client.request("attach", container={"id": "b"}, endpoints=[])


def test_when_the_holder_goes_everything_goes(slirp: Slirp, machine: Machine) -> None:
    one = slirp.box("one", [on(BACK)], ports=[published(80)])
    port = one.port(80)
    netns = os.dup(one.netns)
    try:
        one.close()
        assert eventually(lambda: "eth0" not in machine.run("ip", "-br", "link", net=netns).stdout)
    finally:
        os.close(netns)
    assert slirp.request("list")["containers"] == []
    assert not listens(machine, port)
    assert slirp.box("two", [on(BACK)], ports=[published(80, port)]).port(80) == port


# plug


def test_a_restarted_container_has_its_addresses_in_its_next_namespace(slirp: Slirp, machine: Machine) -> None:
    one, two = (slirp.box(name, [on(BACK)], ports=[published(80)]) for name in ("one", "two"))
    for _ in range(2):
        one.restart()
        with one.server(hello(b"here"), 80), machine.open_socket() as sock:
            assert says(two, one.ipv4, 80) == b"here"
            sock.connect(("127.0.0.1", one.port(80)))
            assert read_all(sock) == b"here"


def test_a_port_listens_from_attach_on_and_answers_from_plug_on(slirp: Slirp, machine: Machine) -> None:
    one = slirp.box("one", [on(BACK)], ports=[published(80)], plug=False)
    with one.server(hello(b"here"), 80), machine.open_socket() as sock:
        sock.connect(("127.0.0.1", one.port(80)))
        one.plug()
        assert read_all(sock) == b"here"


def test_only_another_network_namespace_can_be_plugged(slirp: Slirp, machine: Machine) -> None:
    one = slirp.box("one", [on(BACK)], plug=False)
    with open("/proc/self/ns/user", "rb") as user, open("/proc/version", "rb") as file:
        for fd, words in ((user.fileno(), "not that of a network"), (file.fileno(), "not that of a network")):
            with pytest.raises(Refused, match=words):
                one.client.request("plug", [fd])
    with pytest.raises(Refused, match="is the host's"):
        one.client.request("plug", [machine.net])
    for fds in ([], [one.netns, one.netns]):
        with pytest.raises(Refused, match="one descriptor"):
            one.client.request("plug", fds)
    with slirp.client() as client, pytest.raises(Refused, match="nothing is attached"):
        client.request("plug", [one.netns])
    one.plug()
    one.plug()  # the same once more is nothing wrong


# connect and disconnect


def default_route(box: Box) -> str:
    return box.run("ip", "-4", "route", "show", "default").stdout.strip()


def test_networks_come_and_go_while_a_container_runs(slirp: Slirp) -> None:
    one = slirp.box("one", [on(FRONT)])
    peer = slirp.box("peer", [on(BACK)])
    answer = slirp.request("connect", container=one.id, endpoint=on(BACK, gw_priority=5))["endpoint"]
    assert (answer["interface"], answer["ipv4"], answer["default"]) == ("eth1", "10.1.0.3", True)
    assert default_route(one).startswith("default via 10.1.0.1 dev eth1")
    one.run("ping", "-c1", "-w5", peer.ipv4)
    slirp.request("disconnect", container=one.id, network=BACK["id"])
    assert default_route(one).startswith("default via 10.2.0.1 dev eth0")
    assert "eth1" not in one.run("ip", "-br", "link").stdout
    with pytest.raises(Refused, match="not connected") as told:
        slirp.request("disconnect", container=one.id, network=BACK["id"])
    assert told.value.kind == "NotFound"


def test_a_connection_that_fails_changes_nothing(slirp: Slirp) -> None:
    one = slirp.box("one", [on(FRONT)])
    before = slirp.request("list")
    for endpoint in (on(FRONT), on(BACK, "10.9.9.9"), on(BACK, aliases=["x" * 300])):
        with pytest.raises(Refused):
            slirp.request("connect", container=one.id, endpoint=endpoint)
    assert slirp.request("list") == before
    assert default_route(one).startswith("default via 10.2.0.1")


def test_the_way_out_is_the_first_network_with_an_outside(slirp: Slirp) -> None:
    one = slirp.box("one", [on(INSIDE), on(FRONT), on(BACK)])
    assert [endpoint["default"] for endpoint in one.endpoints] == [False, False, True]
    assert one.nameservers[0] == "10.1.0.1"
    two = slirp.box("two", [on(BACK), on(FRONT, gw_priority=1)])
    assert [endpoint["default"] for endpoint in two.endpoints] == [False, True]
    inside = slirp.box("inside", [on(INSIDE)])
    assert [endpoint["default"] for endpoint in inside.endpoints] == [False]
    assert default_route(inside) == ""


# ports


def test_ports_come_and_go_while_a_container_runs(slirp: Slirp, machine: Machine) -> None:
    one = slirp.box("one", [on(BACK)], ports=[published(80)])
    with one.server(hello(b"here"), 81):
        ports = slirp.request("ports", container=one.id, add=[published(81)], remove=[])["ports"]
        [number] = {port["host_port"] for port in ports if port["container_port"] == 81}
        with machine.open_socket() as sock:
            sock.connect(("127.0.0.1", number))
            assert read_all(sock) == b"here"
    left = slirp.request("ports", container=one.id, remove=[published(81)])["ports"]
    assert {port["container_port"] for port in left} == {80}
    assert not listens(machine, number)
    with pytest.raises(Refused, match="not published"):
        slirp.request("ports", container=one.id, add=[published(82)], remove=[published(81)])
    assert slirp.request("ports", container=one.id)["ports"] == left


def test_of_many_at_once_one_gets_the_port(slirp: Slirp) -> None:
    [port] = {row["host_port"] for row in slirp.box("first", [on(BACK)], ports=[published(80)]).ports}
    slirp.boxes.pop().close()
    assert eventually(lambda: slirp.request("hello")["containers"] == 0)
    results: list[str] = []

    def attach(number: int) -> None:
        try:
            slirp.box(f"n{number}", [on(FRONT)], ports=[published(80, port)], plug=False)
            results.append("")
        except Refused as error:
            results.append(error.message)

    threads = [threading.Thread(target=attach, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(results)) == ["", f"Bind for 0.0.0.0:{port} failed: port is already allocated"]
    assert results.count("") == 1
    assert len(slirp.request("list")["containers"]) == 1


def test_a_port_of_udp_can_be_had_again_at_once(slirp: Slirp) -> None:
    port = slirp.box("first", [on(BACK)], ports=[published(53, protocol="udp")]).port(53, "udp")
    for number in range(10):
        slirp.boxes.pop().close()
        slirp.box(f"next{number}", [on(BACK)], ports=[published(53, port, protocol="udp")])


# the rest


def test_what_is_there_is_listed_and_counted(slirp: Slirp) -> None:
    one, two = (slirp.box(name, [on(BACK)], ports=[published(80)]) for name in ("one", "two"))
    one.run("ping", "-c3", "-i0.1", "-w5", "-s", "1000", two.ipv4)
    listed = {row["id"]: row for row in slirp.request("list")["containers"]}
    assert listed[one.id] == {"id": one.id, "name": "one", "endpoints": one.endpoints, "ports": one.ports}
    counted = slirp.request("stats", container=one.id)["containers"]
    assert set(counted) == {one.id}
    assert counted[one.id]["eth0"]["tx_bytes"] > 3000 < counted[one.id]["eth0"]["rx_bytes"]
    assert set(slirp.request("stats")["containers"]) == {one.id, two.id}
    assert slirp.request("flows", container=one.id)["flows"] == []


def test_a_long_list_comes_whole(slirp: Slirp) -> None:
    names = [f"container-{number}" for number in range(60)]
    aliases = [f"alias-{number}-{'x' * 40}" for number in range(60)]
    for name in names:
        slirp.box(name, [on(FRONT, aliases=aliases)], plug=False)
    listed = slirp.request("list")["containers"]
    assert [row["name"] for row in listed] == names
    assert all(row["endpoints"][0]["aliases"] == aliases for row in listed)


def test_a_container_can_be_renamed(slirp: Slirp) -> None:
    one, two = (slirp.box(name, [on(BACK)]) for name in ("one", "two"))
    slirp.request("update", container=one.id, name="uno", aliases={BACK["id"]: ["eins"]})
    assert [two.lookup(name) for name in ("uno", "eins", "one")] == [[one.ipv4], [one.ipv4], []]
    with pytest.raises(Refused):
        slirp.request("update", container=one.id, name="due", aliases={FRONT["id"]: []})
    assert [row["name"] for row in slirp.request("list")["containers"]] == ["uno", "two"]


@pytest.mark.parametrize("op", ["connect", "disconnect", "ports", "update", "stats", "flows"])
def test_a_container_that_is_not_there_is_not_found(slirp: Slirp, op: str) -> None:
    with pytest.raises(Refused) as told:
        slirp.request(op, container="f" * 64, endpoint=on(BACK), network=BACK["id"])
    assert told.value.kind == "NotFound"


def test_more_than_the_stack_can_be_told_is_refused_and_changes_nothing(slirp: Slirp) -> None:
    one = slirp.box("one", [on(BACK), on(FRONT)])
    many = [f"{number}{'x' * 240}" for number in range(64)]
    slirp.request("update", container=one.id, aliases={BACK["id"]: many}, links=[["a", name] for name in many])
    for fields in ({"egress": many * 2}, {"egress": ["none"], "links": [[name, name] for name in many * 4]}):
        with pytest.raises(Refused, match=r"too many aliases, links and rules|are more than"):
            slirp.request("update", container=one.id, name="uno", **fields)
    assert [row["name"] for row in slirp.request("list", container=one.id)["containers"]] == ["one"]


def test_an_unknown_request_is_refused(slirp: Slirp) -> None:
    with pytest.raises(Refused, match="unknown request 'dance'"):
        slirp.request("dance")


# life and death


def processes(slirp: Slirp) -> set[int]:
    """All of its session that live (the machine's agent may not have waited for the first)."""
    listed = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(slirp.pid)], capture_output=True, text=True).stdout
    rows = (line.split() for line in listed.splitlines())
    return {int(pid) for pid, state in rows if not state.startswith("Z")}


def test_it_leaves_when_nothing_has_been_attached_for_a_while(machine: Machine) -> None:
    with machine.slirp("auto", *LINGER) as slirp:
        box = slirp.box("one", [on(BACK)])
        assert not slirp.ended(0.5)
        box.close()
        assert slirp.ended(5)
        assert not list(slirp.socket_path.parent.glob(f"{slirp.socket_path.name}*[!g]"))  # but for its log
        assert processes(slirp) == set()


@pytest.mark.parametrize("how", ["signal", "stop"])
def test_told_to_leave_it_leaves_nothing(machine: Machine, how: str) -> None:
    with machine.slirp() as slirp:
        one = slirp.box("one", [on(BACK)], ports=[published(80)])
        if how == "stop":
            slirp.request("stop")
        else:
            slirp.kill(signal.SIGTERM)
        assert slirp.ended(5)
        assert not slirp.socket_path.exists()
        assert processes(slirp) == set()
        assert eventually(lambda: "eth0" not in one.run("ip", "-br", "link").stdout)
        assert not listens(machine, one.port(80))


def test_killed_it_takes_the_others_along(machine: Machine) -> None:
    with machine.slirp() as slirp:
        slirp.box("one", [on(BACK)])
        assert len(processes(slirp)) == 3
        slirp.kill()
        assert slirp.ended(5)
        assert eventually(lambda: processes(slirp) == set())


def test_the_next_one_takes_over_where_one_was_killed(machine: Machine) -> None:
    with machine.slirp() as slirp:
        slirp.kill()
        assert slirp.ended(5)
        argv = [sys.executable, "-B", "-m", "slirp", "--socket", str(slirp.socket_path), "--ready-fd", "1"]
        ready, write = os.pipe()
        os.set_inheritable(write, True)
        with open("/dev/null", "rb") as null:
            machine.spawn(argv, [null.fileno(), write])
        os.close(write)
        with open(ready, encoding="ascii") as file:
            assert file.readline() == "ready\n"
        slirp.request("stop")


def test_a_stack_that_is_killed_is_followed_by_one_that_knows_all(machine: Machine) -> None:
    with machine.slirp() as slirp:
        one, two = (slirp.box(name, [on(BACK)], ports=[published(80)]) for name in ("one", "two"))
        [pid] = slirp.stack_pids()
        with two.server(hello(b"here"), 80), machine.server("203.0.113.1", echo) as outside:
            broken = one.tcp(*outside)
            os.kill(pid, signal.SIGKILL)
            assert eventually(lambda: slirp.stack_pids() not in ([], [pid]))
            one.run("ping", "-c1", "-w5", two.ipv4)
            assert one.lookup("two") == [two.ipv4]
            with broken, one.tcp(*outside) as again, machine.open_socket() as client:
                again.sendall(b"x")
                assert again.recv(1) == b"x"
                client.connect(("127.0.0.1", two.port(80)))
                assert read_all(client) == b"here"
        assert "STACK (the process of all flows) was killed by signal 9" in slirp.log()
        assert "error in a handler" not in slirp.log(), slirp.log()


def test_a_stack_that_does_nothing_any_more_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_STUCK", 0.2)
    monkeypatch.setattr(supervision, "_CHECK_EVERY", 0.0)
    ours, spare = channel.pair()
    loop, log = Loop(), Log(str(tmp_path / "log"))
    stack = Stack(loop, log, ours, hear=lambda told: None, tell_all=lambda: None, give_up=lambda why: None)
    stack.adopt(*supervision.order(ours))
    word, [fd, error_fd] = spare_process._receive(spare)
    with socket.socket(fileno=fd) as other, ours, spare:
        os.close(error_fd)
        spare.send(b"started 5")
        channel.send(other, {"do": "ready"})
        while not (stack.ready and stack.pid):
            loop.turn(1)
        for answered in (True, False):
            stack.check()
            loop.turn(0)
            asked, _ = channel.receive(other)
            assert asked is not None
            if answered:
                channel.send(other, {"do": "answer", "tag": asked["tag"], "flows": []})
            else:
                while "has not answered" not in (tmp_path / "log").read_text():
                    loop.turn(0.1)
            loop.turn(0)
        assert (word, spare.recv(64)) == (b"start", b"kill")
        stack._close_channel()


def test_a_stack_that_will_not_live_ends_it(machine: Machine) -> None:
    with machine.slirp() as slirp:
        while not slirp.ended():
            for pid in slirp.stack_pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it is the one before
        assert "STACK died 6 times in 10 seconds" in slirp.log()
        assert processes(slirp) == set()


def test_the_stack_is_worth_nothing_to_who_takes_it_over(slirp: Slirp, machine: Machine) -> None:
    [pid] = slirp.stack_pids()
    status = Path(f"/proc/{pid}/status").read_text()
    found = dict(re.findall(r"^(Cap\w+|Seccomp|NoNewPrivs):\s*(\w+)$", status, re.MULTILINE))
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert machine.run("ls", "-A", f"/proc/{pid}/root/").stdout == ""
    files = machine.run("ls", "-l", f"/proc/{pid}/fd").stdout
    assert not re.search(r"-> /(?!dev/)", files), files


def test_the_hub_has_no_more_than_it_needs(slirp: Slirp) -> None:
    status = Path(f"/proc/{slirp.pid}/status").read_text()
    found = dict(re.findall(r"^(Cap\w+|Seccomp|NoNewPrivs):\s*(\w+)$", status, re.MULTILINE))
    kept = f"{1 << 10 | 1 << 12 | 1 << 13 | 1 << 21:016x}"  # NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_ADMIN
    assert {found[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {kept}
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


# the log


def test_a_line_of_the_log_is_one_line_and_commands_no_terminal(tmp_path: Path) -> None:
    path = tmp_path / "log"
    Log(str(path)).write("one\ntwo\x1b[2Jé" + "x" * 9000)
    text = path.read_text(encoding="utf-8")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ one\\ntwo\\x1b\[2Jéx+…\n", text)
    assert len(text) < 5000


def test_the_log_is_bounded(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"))
    for _ in range(700):
        log.write("x" * 4000)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"log", "log.1"}
    assert max(sizes.values()) <= 1 << 20
