"""Containers against their network, their neighbours and the machine, by the command: SECURITY.md, N02 to N09."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from slirp.wire import dns
from tests.support import hostile_frames as hostile
from tests.support import hostile_network as programs
from tests.support.account import installation, wait_until
from tests.support.containers import Box
from tests.support.hostile import LONG, failure
from tests.support.network import FAR4, Machine, network, on
from tests.support.network_servers import answering

pytestmark = pytest.mark.kernel

PYTHON = "/usr/bin/python3"
HTTPD = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"
PORT = "7777"


@pytest.fixture(scope="module")
def installed(image: Callable[[str], str]) -> Iterator[Box]:
    with installation() as installed:
        box = Box(installed, image("busybox"))
        box("pull", "-q", box.image)
        box.sh("true")  # what the first one makes stays: a log, locks
        yield box


@pytest.fixture
def box(installed: Box) -> Iterator[Box]:
    yield installed
    installed.clear(keep=[])
    installed("network", "prune", "-f")


def python(box: Box, program: str, *words: str, options: tuple[str, ...] = ()) -> Any:
    """What a program of hostile_network prints in a container of its own."""
    return json.loads(box("run", "--rm", *options, "host", PYTHON, "-c", program, *words, timeout=90).stdout)


def serving(box: Box, name: str, *networks: str, options: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """A container that answers with its name; where it is on its networks."""
    on_them = [word for one in networks for word in ("--network", one)]
    box("run", "-d", "--name", name, *on_them, *options, "host", PYTHON, "-c", programs.SERVICE, name, PORT)
    assert box.says(name, "serving")
    found: dict[str, dict[str, Any]] = box.inspect(name)["NetworkSettings"]["Networks"]
    return found


def addresses(endpoint: dict[str, Any]) -> list[str]:
    return [address for address in (endpoint["IPAddress"], endpoint["GlobalIPv6Address"]) if address]


def slirp(box: Box) -> dict[str, int]:
    """The processes of it, by name."""
    found = {}
    for pid, line in box.installed.processes().items():
        if "slirp" in line:
            with suppress(FileNotFoundError):  # it has ended meanwhile
                found[Path(f"/proc/{pid}/comm").read_text().strip()] = pid
    return found


# Walls


def test_nothing_crosses_between_networks_or_reaches_who_has_none(box: Box) -> None:
    """A full mesh of two networks, one of them internal, and of a container without any."""
    box("network", "create", "--ipv6", "one")
    box("network", "create", "--ipv6", "--internal", "two")
    where = {
        name: serving(box, name, place) for name, place in (("a1", "one"), ("a2", "one"), ("b1", "two"), ("b2", "two"))
    }
    serving(box, "alone", "none")
    everywhere = {name: addresses(next(iter(places.values()))) for name, places in where.items()}
    assert all(len(own) == 2 for own in everywhere.values())
    targets = [address for own in everywhere.values() for address in own]
    for name in (*everywhere, "alone"):
        got = json.loads(box("exec", name, PYTHON, "-c", programs.PROBE, PORT, *targets).stdout)
        near = [address for other, own in everywhere.items() if other[0] == name[0] for address in own]
        assert got == ({} if name == "alone" else {address: ["ping", "tcp", "udp"] for address in near}), name


def test_gateways_answer_on_port_53_and_no_other(box: Box) -> None:
    """By every address that they have, the link-local one too; those of other networks not at all."""
    for name in ("one", "two"):
        box("network", "create", "--ipv6", name)
    one, two = (serving(box, f"on-{name}", name)[name] for name in ("one", "two"))
    box("exec", "on-one", "ping", "-6", "-c", "1", "-W", "2", "ff02::1%eth0", check=False)
    link_local = box("exec", "on-one", "ip", "-6", "neigh", check=False).stdout
    gateway_mac = hostile.mac(re.findall(r"lladdr (\S+)", link_local)[0])
    local = "fe80::" + ":".join(
        part.hex()
        for part in (
            bytes((gateway_mac[0] ^ 2, gateway_mac[1])),
            gateway_mac[2:3] + b"\xff",
            b"\xfe" + gateway_mac[3:4],
            gateway_mac[4:],
        )
    )
    own = (one["Gateway"], one["IPv6Gateway"], f"{local}%eth0")
    others = (two["Gateway"], two["IPv6Gateway"])
    scan = box("exec", "on-one", PYTHON, "-c", programs.SCAN, "97", *own, *others, timeout=90)
    found = json.loads(scan.stdout)
    assert [found[address] for address in own[:2]] == [[[53], [53]]] * 2
    assert found[own[2]] == [[], []]
    assert [found[address] for address in others] == [[[], []]] * 2


LIAR = "import socket, sys; sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); sock.bind(('eth0', 3))\n"
LIAR += "for line in sys.stdin: sock.send(bytes.fromhex(line))\nprint('null')"


def forgeries(liar: dict[str, Any], victim: dict[str, Any], target: dict[str, Any]) -> list[bytes]:
    """Frames to *target* in the victim's or the gateway's name, or that would change its mind about its neighbours."""
    own, its, to = (hostile.mac(one["MacAddress"]) for one in (liar, victim, target))
    word, frames = b"forged" * 4, []
    for version in ("IPAddress", "GlobalIPv6Address"):
        ether = hostile.IPV6 if version[0] == "G" else hostile.IPV4
        honest, goal = liar[version], target[version]
        gateway = target["IPv6Gateway" if version[0] == "G" else "Gateway"]
        for source in (victim[version], gateway, "2001:db8::66" if version[0] == "G" else "198.51.100.66"):
            for mac in (own, its):
                packet = hostile.datagram((source, 53), (goal, 9), word)
                frames += [hostile.frame(mac, to, ether, packet), hostile.frame(mac, b"\xff" * 6, ether, packet)]
                frames.append(hostile.frame(mac, to, b"\x81\0\0\1" + ether, packet))
                frames.append(hostile.frame(mac, to, b"\x88\xa8\0\1\x81\0\0\1" + ether, packet))
        frames.append(hostile.frame(its, to, ether, hostile.datagram((honest, 9), (goal, 9), word)))
        frames.append(
            hostile.frame(
                own, to, ether, hostile.datagram((honest, 67 if ether == hostile.IPV4 else 547), (goal, 9), word)
            )
        )
        redirect = 137 if version[0] == "G" else 5
        frames.append(hostile.frame(own, to, ether, hostile.icmp(honest, goal, redirect, 0, bytes(20) + word, 255)))
    claim = bytes.fromhex("0001080006040002") + own + socket.inet_aton(victim["IPAddress"]) + to + bytes(4) + word
    frames += [hostile.frame(mac, where, hostile.ARP, claim) for mac in (own, its) for where in (to, b"\xff" * 6)]
    frames.append(hostile.frame(own, to, b"\x88\xb5", word))
    frames += [
        hostile.frame(own, b"\x01\x80\xc2\0\0" + bytes((last,)), hostile.IPV4, word) for last in (0, 1, 2, 3, 14)
    ]
    flood = [bytes((2, 0x42, at >> 8, at & 255, 9, 9)) for at in range(3000)]  # for a bridge that learns, and forgets
    return frames + [hostile.frame(mac, b"\xff" * 6, hostile.IPV4, word) for mac in flood]


def test_forged_frames_reach_nobody_and_nobody_overhears(box: Box) -> None:
    """From a container that has NET_RAW and NET_ADMIN, and listens to everything, while it floods the bridge."""
    box("network", "create", "--ipv6", "one")
    raw = ("--cap-add", "NET_RAW")
    places = [serving(box, name, "one", options=raw)["one"] for name in ("liar", "victim", "target")]
    sniffers = {
        name: box.start("exec", "-i", name, PYTHON, "-c", programs.SNIFF) for name in ("liar", "victim", "target")
    }
    for sniffer in sniffers.values():
        assert sniffer.stdout is not None
        assert sniffer.stdout.readline() == b"listening\n"
    liar, target = places[0], places[2]
    honest = hostile.datagram((liar["IPAddress"], 9), (target["IPAddress"], int(PORT)), b"not forged")
    control = hostile.frame(hostile.mac(liar["MacAddress"]), hostile.mac(target["MacAddress"]), hostile.IPV4, honest)
    lines = "".join(frame.hex() + "\n" for frame in [*forgeries(*places), control])
    box("exec", "-i", "liar", PYTHON, "-c", LIAR, input=lines)
    everybody = addresses(places[1])
    got = json.loads(box("exec", "target", PYTHON, "-c", programs.PROBE, PORT, *everybody).stdout)
    assert got == {address: ["ping", "tcp", "udp"] for address in everybody}
    heard = {
        name: json.loads(sniffer.communicate(timeout=20)[0].splitlines()[-1]) for name, sniffer in sniffers.items()
    }
    assert heard == {"liar": [0, 0], "victim": [0, 0], "target": [0, 1]}


def test_an_interface_of_another_address_is_cut_off_and_harms_nobody(box: Box) -> None:
    """A container may give itself its neighbour's address and MAC, a VLAN, or put its interface into another bridge."""
    box("network", "create", "--ipv6", "one")
    victim = serving(box, "victim", "one")["one"]
    asker = serving(box, "asker", "one")["one"]
    script = f"""
        ip addr add {victim["IPAddress"]}/16 dev eth0; ip -6 addr add {victim["GlobalIPv6Address"]}/64 dev eth0 nodad
        ip link add link eth0 name vlan5 type vlan id 5 && ip link set vlan5 up
        arping -c 2 -A -I eth0 {victim["IPAddress"]}; ip link set eth0 down
        ip link set eth0 address {victim["MacAddress"]}; ip link set eth0 up
        arping -c 2 -U -I eth0 {victim["IPAddress"]}
        ping -c 1 -W 1 {asker["IPAddress"]}; httpd -f -p {PORT} & sleep 1; ip link set eth0 promisc on; sleep 60"""
    box.detached(script, "--name", "taker", "--network", "one", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW")
    assert wait_until(lambda: "100% packet loss" in box.logs("taker"), 20)
    got = box("exec", "asker", PYTHON, "-c", programs.PROBE, PORT, *addresses(victim)).stdout
    assert json.loads(got) == {address: ["ping", "tcp", "udp"] for address in addresses(victim)}


def test_the_numbers_of_namespaces_lead_nowhere(box: Box) -> None:
    """rtnetlink(7) takes the number of a peer's namespace for who has CAP_NET_ADMIN there: see docs/security.md."""
    box("network", "create", "one")
    box("network", "create", "two")
    serving(box, "neighbour", "one")
    far = serving(box, "far", "two")["two"]
    serving(box, "asker", "two")
    for options in ((), ("--cap-add", "NET_RAW"), ("--cap-drop", "ALL")):
        assert python(box, programs.REACH, "remove", options=("--network", "one", *options)) == []
    links = python(box, programs.REACH, "remove", options=("--network", "one", "--cap-add", "NET_ADMIN"))
    assert {name for _, name in links} >= {"br0", "out"}  # as with Docker, such a container has its network's links
    got = json.loads(box("exec", "asker", PYTHON, "-c", programs.PROBE, PORT, *addresses(far)).stdout)
    assert got[far["IPAddress"]] == ["ping", "tcp", "udp"]
    assert "eth0" in box.sh("ip addr", "--network", "two")
    box("rm", "-f", "neighbour")
    run = ("run", "--rm", "--network", "one", box.image, "true")
    assert wait_until(lambda: box(*run, check=False).returncode == 0, 5)  # the first that fails has it made anew


# Ports


def test_of_many_starts_at_once_one_gets_the_port(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    runs = [box.start("run", "-d", "-p", f"{port}:80", box.image, "sh", "-c", HTTPD) for _ in range(50 if LONG else 20)]
    done = [(run.wait(120), run.communicate()[1].decode()) for run in runs]
    assert sorted(status for status, _ in done) == [0] + [125] * (len(runs) - 1)
    assert all(str(port) in said and "Traceback" not in said for status, said in done if status)
    assert len(box("ps", "-q").stdout.split()) == 1


@pytest.mark.parametrize(
    ("spec", "open_at", "shut_at"),
    [
        ("127.0.0.1:{}:80", ["127.0.0.1"], ["::1", "OTHER"]),
        ("[::1]:{}:80", ["::1"], ["127.0.0.1", "OTHER"]),
        ("{}:80", ["127.0.0.1", "::1", "OTHER"], []),
        ("0.0.0.0:{}:80", ["127.0.0.1", "OTHER"], ["::1"]),
        ("[::]:{}:80", ["::1"], ["127.0.0.1", "OTHER"]),
    ],
)
def test_a_port_is_open_at_exactly_the_addresses_that_were_said(
    box: Box, spec: str, open_at: list[str], shut_at: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    box.detached(HTTPD, "-p", spec.format(port))
    listening = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True).stdout
    bound = {line.split()[3].rpartition(":")[0] for line in listening.splitlines()}
    table = {"127.0.0.1:": {"127.0.0.1"}, "[::1]:{}:": {"[::1]"}, "{}:80": {"0.0.0.0", "[::]"}}
    table |= {"0.0.0.0:": {"0.0.0.0"}, "[::]:{}:8": {"[::]"}}
    [expected] = [value for key, value in table.items() if spec.startswith(key)]
    assert bound == expected
    for address in (a for a in open_at if a != "OTHER"):
        with suppress(ConnectionResetError):  # by the container, whose server may not listen yet: the port is open
            socket.create_connection((address, port), 5).close()
    for address in (a for a in shut_at if a != "OTHER"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), 5)


# Processes


def test_the_processes_of_the_networks_have_given_up_what_they_do_not_need(box: Box) -> None:
    box.detached("sleep 60")
    found = slirp(box)
    assert len(found) == 3
    del found["slirp-spare"]  # which hears two words, of the hub, and must be able to make a stack
    for name, pid in found.items():
        kept = 0 if name.startswith("slirp-") else 1 << 10 | 1 << 12 | 1 << 13 | 1 << 21  # the hub: see test_sandbox.py
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        told = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2"), name
        for field in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
            assert int(told[field], 16) & ~kept == 0, (name, field)
    stack = Path(f"/proc/{found['slirp-stack']}")
    assert os.listdir(stack / "root") == []
    opened = {re.sub(r"\d+", "N", os.readlink(path)) for path in (stack / "fd").iterdir()}
    assert opened <= {"socket:[N]", "pipe:[N]", "anon_inode:[eventpoll]", "/dev/net/tun", "/dev/null"}
    assert "/dev/net/tun" in opened


def test_a_stack_that_is_killed_in_the_middle_costs_connections_and_nothing_else(box: Box) -> None:
    box.detached(HTTPD, "--name", "web", "-p", "80")
    before = box.inspect("web")["NetworkSettings"]
    port = int(before["Ports"]["80/tcp"][0]["HostPort"])
    assert wait_until(lambda: reaches(port), 10)
    for _ in range(3):
        os.kill(slirp(box)["slirp-stack"], signal.SIGKILL)
        assert wait_until(lambda: reaches(port), 10)
    assert box.inspect("web")["NetworkSettings"] == before
    assert box.state("web")["Running"]


def reaches(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(4) == b"HTTP"
    except OSError:
        return False


def test_a_start_that_is_killed_at_any_moment_gives_back_port_and_address(box: Box) -> None:
    """Whatever was started is either managed and ends with `rm -f`, or is not there."""
    box("network", "create", "--subnet", "10.77.0.0/29", "small")  # room for five
    keep = box.detached("sleep 600", "--network", "small")
    before = len(box.installed.processes())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    box("rm", "-f", box.detached("sleep 600", "--network", "small", "-p", f"{port}:80"))
    whole, numbers = time.monotonic() - began, random.Random(4)
    assert wait_until(lambda: len(box.installed.processes()) <= before)
    for step in range(24 if LONG else 10):
        options = ("--network", "small", "-p", f"{port}:80")
        run = box.start("run", "-d", *options, box.image, "sleep", "600")
        time.sleep(whole * (step + numbers.random()) / 12)
        os.killpg(run.pid, signal.SIGKILL) if os.getpgid(run.pid) == run.pid else run.kill()
        run.communicate()
        box.clear(keep=[keep])
        again = box("run", "-d", *options, box.image, "sleep", "600", check=False)
        assert again.returncode == 0, f"step {step}: {again.stderr}"
        box.clear(keep=[keep])
        assert wait_until(lambda: len(box.installed.processes()) <= before), box.installed.processes()
    rows = box("network", "inspect", "-f", "{{len .Containers}}", "small").stdout
    assert rows == "1\n"


def test_a_network_that_is_killed_in_the_making_is_there_or_not(box: Box) -> None:
    box("network", "rm", box("network", "create", "first").stdout.strip())
    began = time.monotonic()
    box("network", "rm", box("network", "create", "half").stdout.strip())
    whole = time.monotonic() - began
    with box.installed.no_leaks(killed=True):
        for step in range(24 if LONG else 8):
            run = box.start("network", "create", "--label", "is=half", "half")
            time.sleep(whole * step / 12)
            run.kill()
            run.communicate()
            if "half" not in box("network", "ls", "--format", "{{.Name}}").stdout.splitlines():
                box("network", "create", "--label", "is=half", "half")
            assert box("network", "inspect", "-f", '{{index .Labels "is"}}', "half").stdout == "half\n"
            box("network", "rm", "half")


def test_many_on_one_network_have_names_and_addresses_of_their_own(box: Box) -> None:
    count = 50 if LONG else 24
    box("network", "create", "one")
    with box.installed.no_leaks(), ExitStack() as ends:
        runs = [
            box.start("run", "--rm", "--network", "one", box.image, "sh", "-c", "hostname; hostname -i; cat")
            for _ in range(count)
        ]
        said = []
        for run in runs:
            ends.callback(run.communicate, timeout=60)
            assert run.stdout is not None
            said.append((run.stdout.readline(), run.stdout.readline()))
        assert len(set(said)) == count
        assert len({name for name, _ in said}) == len({address for _, address in said}) == count
        ends.close()
        assert [run.returncode for run in runs] == [0] * count
        wait_until(lambda: not slirp(box), 30)


# Words

ODD = ["a\nb", "a\x1b]0;x\x07", "", "a\tb", "a\u202eb", "x" * 300]


def test_a_word_that_is_no_name_is_no_alias_link_or_network(box: Box) -> None:
    box("network", "create", "one")
    box.detached("sleep 60", "--name", "db", "--network", "one")
    for word in ODD:
        failure(box.installed, "network", "create", "--", word)
        for options in (("--network", f"name=one,alias={word}"), (f"--network-alias={word}",), (f"--link=db:{word}",)):
            failure(box.installed, "run", "--rm", "--network", "one", *options, box.image, "true")
        failure(box.installed, "network", "connect", f"--alias={word}", "one", box.detached("sleep 60"))


def test_a_word_that_is_an_odd_name_stands_in_no_file(box: Box) -> None:
    box("network", "create", "one")
    box.detached("sleep 60", "--name", "db", "--network", "one")
    for word in ("a b", "../x", "-x", "#", "1.2.3.4 db"):
        options = ("--network", "one", f"--network-alias={word}", f"--link=db:{word}")
        assert word not in box.sh("cat /etc/hosts /etc/resolv.conf /etc/hostname", *options).replace("# ", "")


def test_names_from_outside_do_not_steer_the_terminal_of_who_looks_at_flows(tmp_path: Path) -> None:
    """A zone that has every name, a container that asks for one with escape sequences in it, and rules that deny it."""

    def everything(data: bytes, _: object) -> bytes | None:
        query = dns.parse_query(data)
        return query and dns.answer(query, dns.NOERROR, [(dns.A, socket.inet_aton(FAR4))], ttl=60)

    name = b"\x1b]0;x\x07\r\n1.1 forged"
    question = b"\0\1\1\0\0\1\0\0\0\0\0\0" + bytes((len(name),)) + name + b"\7example\3org\0\0\1\0\1"
    with Machine(tmp_path) as machine:
        machine.resolv_conf("nameserver 127.0.0.53\n")
        with answering(machine.datagrams("127.0.0.53", 53), everything), machine.slirp("auto") as slirp:
            box = slirp.box("web", [on(network("one", "10.1.0.0/16"))], egress=["*.example.org:443"])
            with box.udp() as sock:
                sock.sendto(question, (box.gateway, 53))
                assert len(sock.recv(1000)) > len(question)
            assert box.failure(FAR4, 80) == "ECONNREFUSED"
            [denied] = slirp.request("flows")["denied"]
            assert denied["name"].endswith("forged.example.org")
            assert denied["name"].isprintable()
            assert all(line.isprintable() for line in slirp.log().splitlines())
            assert "denied by --egress" in slirp.log()


def test_who_floods_the_name_server_does_not_silence_it_for_others(tmp_path: Path) -> None:
    """Four containers ask for names that nobody answers, as fast as they can."""
    with Machine(tmp_path) as machine:
        machine.resolv_conf("nameserver 127.0.0.53\n")
        with answering(machine.datagrams("127.0.0.53", 53), lambda *_: None), machine.slirp("auto") as slirp:
            place, other = (network(name, f"10.{at}.0.0/16", names=True) for at, name in ((1, "one"), (2, "two")))
            crowd = [slirp.box(f"crowd{at}", [on(place)]) for at in range(4)]
            quiet = [slirp.box("near", [on(place)]), slirp.box("far", [on(other)])]
            end = time.monotonic() + 2
            socks = [box.udp() for box in crowd]
            took: dict[str, list[float]] = {box.name: [] for box in quiet}
            at = 0
            while time.monotonic() < end:
                for sock, box in zip(socks, crowd, strict=True):
                    for _ in range(50):
                        at += 1
                        text = b"%09d" % at
                        packed = b"\0\1\1\0\0\1\0\0\0\0\0\0\x09" + text + b"\3org\0\0\1\0\1"
                        sock.sendto(packed, (box.gateway, 53))
                for box in quiet:
                    began = time.monotonic()
                    assert box.addresses(box.name) == [box.ipv4]
                    took[box.name].append(time.monotonic() - began)
            print(at, {name: (len(times), max(times)) for name, times in took.items()})
            for sock in socks:
                sock.close()
            assert all(max(times) < 1 for times in took.values())
