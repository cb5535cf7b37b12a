"""Networks of containers that run: connecting, disconnecting, ports, flows, by the slirp that is there."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from rootless.network import slirp
from tests.support.account import wait_until
from tests.support.containers import Box

pytestmark = pytest.mark.kernel

SERVER = "while :; do echo hello | nc -l -p 80; done"


@pytest.fixture(autouse=True)
def nothing_left(box: Box) -> Iterator[None]:
    yield
    box.clear(keep=[])
    box("network", "prune", "-f")


def detached(box: Box, name: str, *options: str, script: str = "sleep 600") -> str:
    network = () if "--network" in options else ("--network", "bridge")
    return box.detached(script, "--name", name, *network, *options)


def addresses(box: Box, name: str) -> dict[str, str]:
    """The IPv4 address of each interface of a container."""
    found = {}
    for line in box("exec", name, "ip", "-4", "-o", "addr").stdout.splitlines():
        interface, _, address = line.split()[1:4]
        found[interface] = address
    found.pop("lo")
    return found


def hosts(box: Box, name: str) -> list[str]:
    """The addresses by which a container knows itself."""
    lines = box("exec", name, "cat", "/etc/hosts").stdout.splitlines()
    return [line.split()[0] for line in lines if not re.match(r"127|[:f]", line)]


def resolves(box: Box, name: str, wanted: str) -> str:
    """The address that container *name* learns for the name *wanted*; "" for none."""
    done = box("exec", name, "nslookup", "-type=a", wanted, check=False)
    found = re.findall(r"^Address:\s+([0-9.]+)$", done.stdout, re.MULTILINE)
    return found[-1] if found else ""


def document(box: Box, name: str) -> dict[str, Any]:
    [found] = json.loads(box("network", "inspect", name).stdout)
    return dict(found)


def hello(port: int, host: str = "127.0.0.1") -> str:
    """What is said at that port; "" where nobody listens."""
    try:
        with socket.create_connection((host, port), 5) as sock:
            return sock.makefile().read()
    except OSError:
        return ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def listener() -> Iterator[int]:
    """A server on loopback that takes connections and keeps them; its port."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    kept.append(server.accept()[0])
            except OSError:
                return  # it has been shut down

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for sock in kept:
                sock.close()


# --- connect and disconnect


def test_a_container_that_runs_is_on_the_network_at_once_and_known_there(box: Box) -> None:
    box("network", "create", "--subnet", "10.91.0.0/24", "web")
    container = detached(box, "one")
    detached(box, "peer", "--network", "web")
    before = addresses(box, "one")
    assert resolves(box, "peer", "alias") == ""
    box("network", "connect", "--ip", "10.91.0.9", "--alias", "alias", "web", "one")
    assert addresses(box, "one") == {**before, "eth1": "10.91.0.9/24"}
    assert hosts(box, "one") == [before["eth0"].partition("/")[0], "10.91.0.9"]
    assert resolves(box, "peer", "alias") == resolves(box, "peer", "one") == "10.91.0.9"
    assert resolves(box, "one", "peer") == "10.91.0.2"
    member = document(box, "web")["Containers"][container]
    assert (member["Name"], member["IPv4Address"]) == ("one", "10.91.0.9/24")
    assert set(box.inspect("one")["NetworkSettings"]["Networks"]) == {"bridge", "web"}


def test_a_container_that_runs_leaves_a_network_and_its_names(box: Box) -> None:
    box("network", "create", "--subnet", "10.91.0.0/24", "web")
    detached(box, "one", "--network", "web")
    detached(box, "peer", "--network", "web")
    box("network", "connect", "bridge", "one")
    box("network", "disconnect", "web", "one")
    [address] = addresses(box, "one").values()
    assert address.endswith("/16")
    assert hosts(box, "one") == [address.partition("/")[0]]
    assert resolves(box, "peer", "one") == ""
    assert box("exec", "one", "ip", "route", "show", "default").stdout.split()[2] == "172.17.0.1"
    done = box("network", "disconnect", "web", "one", check=False)
    assert "is not connected to network web" in done.stderr


def test_what_was_connected_stays_so_when_the_container_starts_again(box: Box) -> None:
    box("network", "create", "--subnet", "10.91.0.0/24", "web")
    detached(box, "one")
    box("network", "connect", "--ip", "10.91.0.9", "web", "one")
    before = addresses(box, "one")
    box("restart", "-t", "0", "one")
    assert set(addresses(box, "one").values()) == set(before.values())
    box("network", "disconnect", "bridge", "one")
    box("restart", "-t", "0", "one")
    assert set(addresses(box, "one").values()) == {"10.91.0.9/24"}


def test_a_network_in_use_stays_and_goes_when_the_last_has_left(box: Box) -> None:
    box("network", "create", "web")
    container = detached(box, "one", "--network", "web")
    done = box("network", "rm", "web", check=False)
    assert done.stderr.splitlines()[0] == (
        f'rootless: error while removing network: network web has active endpoints (name:"one" id:"{container[:12]}")'
    )
    box("network", "disconnect", "web", "one")
    assert addresses(box, "one") == {}
    assert box("network", "rm", "web").stdout == "web\n"


def test_an_address_that_is_taken_is_refused_and_nothing_changes(box: Box) -> None:
    box("network", "create", "--subnet", "10.91.0.0/24", "web")
    detached(box, "peer", "--network", "web", "--ip", "10.91.0.9")
    detached(box, "one")
    before = addresses(box, "one")
    done = box("network", "connect", "--ip", "10.91.0.9", "web", "one", check=False)
    assert (done.returncode, done.stderr) == (1, "rootless: Address already in use: 10.91.0.9 on network web\n")
    assert addresses(box, "one") == before
    assert list(box.inspect("one")["NetworkSettings"]["Networks"]) == ["bridge"]


def test_addresses_come_from_the_range_and_none_is_an_auxiliary_one(box: Box) -> None:
    options = ["--subnet", "10.91.0.0/24", "--ip-range", "10.91.0.128/29", "--aux-address", "router=10.91.0.128"]
    box("network", "create", *options, "web")
    for number in range(2):
        detached(box, f"c{number}", "--network", "web")
    assert [addresses(box, f"c{number}")["eth0"] for number in range(2)] == ["10.91.0.129/24", "10.91.0.130/24"]


def test_a_network_without_traffic_between_containers_keeps_them_apart(box: Box) -> None:
    box("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart")
    box("network", "create", "together")
    for network, reached in (("together", "hello\n"), ("apart", "")):
        detached(box, f"server-{network}", "--network", network, script=SERVER)
        address = addresses(box, f"server-{network}")["eth0"].partition("/")[0]
        assert wait_until(lambda: box("exec", f"server-{network}", "nc", "-z", "127.0.0.1", "80", check=False))  # noqa: B023  # called at once
        done = box.run("nc", "-w", "2", address, "80", options=("--network", network), check=False)
        assert done.stdout == reached


def test_the_death_of_slirp_is_mended_before_a_container_is_connected(box: Box) -> None:
    box("network", "create", "--subnet", "10.91.0.0/24", "web")
    detached(box, "one")
    before = addresses(box, "one")
    kill_slirp(box)
    box("network", "connect", "web", "one")
    assert addresses(box, "one") == {**before, "eth1": "10.91.0.2/24"}


def kill_slirp(box: Box) -> None:
    connection = slirp.connect(str(box.session))
    assert connection is not None
    with connection:
        pid = int(connection.request("hello")["pid"])
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


# --- ports


def test_a_port_of_a_container_that_runs_is_published_and_no_longer(box: Box) -> None:
    first, second = free_port(), free_port()
    detached(box, "one", "-p", f"127.0.0.1:{first}:80", script=SERVER)
    assert wait_until(lambda: hello(first) == "hello\n")
    assert box("port", "add", "one", f"127.0.0.1:{second}:80").stdout.splitlines() == sorted(
        f"80/tcp -> 127.0.0.1:{port}" for port in (first, second)
    )
    assert wait_until(lambda: hello(second) == "hello\n")
    assert box("port", "rm", "one", f"127.0.0.1:{first}:80").stdout == f"80/tcp -> 127.0.0.1:{second}\n"
    assert hello(first) == ""
    assert box("port", "one", "80").stdout == f"127.0.0.1:{second}\n"
    assert box("ps", "--format", "{{.Ports}}").stdout == f"127.0.0.1:{second}->80/tcp\n"
    box("restart", "-t", "0", "one")
    assert box("port", "one").stdout == f"80/tcp -> 127.0.0.1:{second}\n"
    assert wait_until(lambda: hello(second) == "hello\n")


def test_a_port_that_somebody_has_is_refused_and_nothing_changes(box: Box) -> None:
    detached(box, "one")
    with listener() as taken:
        done = box("port", "add", "one", f"127.0.0.1:{taken}:80", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: Bind for 127.0.0.1:{taken} failed: address already in use\nhint: ")
    assert box("port", "one").stdout == ""
    assert box.inspect("one")["HostConfig"]["PortBindings"] == {}


def test_of_a_range_the_first_free_port_is_taken(box: Box) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = int(taken.getsockname()[1])
        detached(box, "one", "-p", f"127.0.0.1:{first}-{first + 20}:80")
        line = box("port", "one", "80").stdout.strip()
    assert first < int(line.rpartition(":")[2]) <= first + 20


def test_ports_below_the_limit_of_the_machine_are_refused_with_what_can_be_done(box: Box) -> None:
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        if int(file.read()) <= 80:
            pytest.skip("port 80 is everybody's on this machine")
    detached(box, "one")
    done = box("port", "add", "one", "80:80", check=False)
    assert done.returncode == 1
    assert "permission denied" in done.stderr
    assert "sysctl net.ipv4.ip_unprivileged_port_start=80" in done.stderr


# --- flows


def test_connections_to_the_outside_are_listed_while_they_last(box: Box) -> None:
    with listener() as port:
        detached(box, "one", "--host-loopback", script=f"nc 169.254.1.2 {port} < /dev/zero > /dev/null; sleep 600")
        form = "{{.Container}} {{.Protocol}} {{.Direction}} {{.Destination}} {{.Host}}"
        expected = f"one tcp out 169.254.1.2:{port} 127.0.0.1:{port}\n"
        assert wait_until(lambda: box("network", "flows", "one", "--format", form).stdout == expected)
        assert box("network", "flows", "--format", form).stdout == expected
        detached(box, "two")
        assert box("network", "flows", "two", "--format", form).stdout == ""


def test_what_a_rule_denies_is_listed_with_how_often(box: Box) -> None:
    detached(box, "one", "--egress", "none")
    for _ in range(2):
        assert box("exec", "one", "nc", "-w", "1", "192.0.2.1", "80", check=False).returncode != 0
    form = "{{.Container}} {{.State}} {{.Protocol}} {{.Destination}} {{.Count}}"
    assert box("network", "flows", "--format", form).stdout == "one denied tcp 192.0.2.1:80 2\n"
    line = box("network", "flows", "one").stdout.splitlines()[1]
    assert line.split()[:4] == ["one", "tcp", "out", "192.0.2.1:80"]


def test_a_network_denies_what_its_rules_do_not_allow(box: Box) -> None:
    with listener() as port:
        box("network", "create", "--egress", "192.0.2.0/24", "strict")
        options = ("--network", "strict", "--host-loopback")
        done = box.run("nc", "-w", "2", "169.254.1.2", str(port), options=options, check=False)
        assert done.returncode != 0


# --- many, and again


def test_a_thousand_ports_are_published_listed_and_gone(box: Box) -> None:
    first = 24000  # below those that the kernel gives to whoever asks for any
    ports = f"127.0.0.1:{first}-{first + 1023}:{first}-{first + 1023}"
    detached(box, "one", "-p", ports)
    assert (
        box("ps", "--format", "{{.Ports}}").stdout == f"127.0.0.1:{first}-{first + 1023}->{first}-{first + 1023}/tcp\n"
    )
    box("network", "create", "web")
    box("network", "connect", "web", "one")
    assert len(box("port", "one").stdout.splitlines()) == 1024
    assert box("port", "rm", "one", ports).stdout == ""


def test_a_link_that_comes_with_a_network_is_a_name_at_once(box: Box) -> None:
    box("network", "create", "--subnet", "10.91.0.0/24", "web")
    detached(box, "db", "--network", "web", "--ip", "10.91.0.7")
    detached(box, "one")
    box("network", "connect", "--link", "db:database", "web", "one")
    assert resolves(box, "one", "database") == "10.91.0.7"
    box("restart", "-t", "0", "one")
    assert resolves(box, "one", "database") == "10.91.0.7"


def test_a_container_without_any_network_is_connected_when_it_starts_again(box: Box) -> None:
    detached(box, "one")
    box("network", "disconnect", "bridge", "one")
    box("restart", "-t", "0", "one")
    done = box("network", "connect", "bridge", "one", check=False)
    assert done.stderr.splitlines()[0] == (
        "rootless: container one runs without networks, and can be on one when it starts again"
    )
    box("stop", "-t", "0", "one")
    box("network", "connect", "bridge", "one")
    box("start", "one")
    assert list(addresses(box, "one")) == ["eth0"]


def test_a_container_whose_network_is_gone_does_not_start_until_it_is_taken_off_it(box: Box) -> None:
    box("network", "create", "web")
    box("create", "--name", "one", "--network", "web", box.image, "true")
    box("network", "rm", "web")
    done = box("start", "one", check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "rootless: network web not found")
    box("network", "disconnect", "-f", "web", "one")
    box("start", "-a", "one")


def test_many_commands_at_once_change_one_container(box: Box) -> None:
    detached(box, "one")
    ports = [free_port() for _ in range(6)]
    started = [box.start("port", "add", "one", f"127.0.0.1:{port}:80") for port in ports]
    for process in started:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    assert {line.rpartition(":")[2] for line in box("port", "one").stdout.split("\n") if line} == set(map(str, ports))
    assert len(box.inspect("one")["HostConfig"]["PortBindings"]["80/tcp"]) == 6


def test_a_run_directory_whose_path_is_longer_than_a_sockets_address_will_do(box: Box) -> None:
    runtime = box.installed.tree / ("d" * 110)
    runtime.mkdir(mode=0o700)
    environment = {**box.installed.env, "XDG_RUNTIME_DIR": str(runtime)}
    command = box.installed.command("run", "--rm", "--network", "bridge", box.image, "ip", "-4", "-o", "addr")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert "eth0" in done.stdout, done.stderr
