"""Containers on networks, with slirp behind them: names, ports, lives and deaths."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.support.account import Installation, installation, wait_until
from tests.support.containers import Box

pytestmark = pytest.mark.kernel

HTTPD = "mkdir -p /www; echo hello > /www/index.html; httpd -f -p 80 -h /www"


@pytest.fixture(scope="module")
def networked(image: Callable[[str], str]) -> Iterator[Box]:
    with installation() as installed:
        box = Box(installed, image("busybox"))
        box("pull", "-q", box.image)
        yield box


@pytest.fixture
def box(networked: Box) -> Iterator[Box]:
    yield networked
    networked.clear(keep=[])
    networked("network", "prune", "-f")


def slirp(installed: Installation) -> int:
    """The pid of the process of the networks: of those that are it, the first."""
    found = (pid for pid, line in sorted(installed.processes().items()) if "slirp.__main__" in line)
    return next(found)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def fetch(port: int, host: str = "127.0.0.1") -> str:
    """What the host's side gets from a published port; "" where nobody answers."""
    try:
        with socket.create_connection((host, port), 5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while data := connection.recv(4096):
                answer += data
            return answer.decode()
    except OSError:
        return ""


def published(box: Box, name: str, port: str = "80/tcp") -> int:
    return int(box.inspect(name)["NetworkSettings"]["Ports"][port][0]["HostPort"])


def test_a_container_has_an_address_a_route_and_names_by_default(box: Box) -> None:
    container_id = box.detached("sleep 60")
    endpoint = box.inspect(container_id)["NetworkSettings"]["Networks"]["bridge"]
    script = "ip -o -4 addr show eth0; ip route; cat /etc/resolv.conf /etc/hosts"
    shown = box("exec", container_id, "sh", "-c", script).stdout
    for line in (
        f" {endpoint['IPAddress']}/{endpoint['IPPrefixLen']} ",
        f"default via {endpoint['Gateway']} ",
        f"nameserver {endpoint['Gateway']}\n",
        f"{endpoint['IPAddress']}\t{container_id[:12]}\n",
    ):
        assert line in shown


def test_what_listens_on_the_hosts_loopback_is_out_of_reach_unless_asked_for(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"nc -w 3 ADDRESS {port} -e true; echo $?"
        for address in ("127.0.0.1", "169.254.1.2", "0.0.0.0"):
            assert box.sh(connect.replace("ADDRESS", address)) == "1\n", address
        assert box.sh(connect.replace("ADDRESS", "host.docker.internal"), "--host-loopback") == "0\n"


def test_containers_of_a_network_find_each_other_by_name_alias_and_id(box: Box) -> None:
    box("network", "create", "one")
    container_id = box.detached(HTTPD, "--network", "one", "--name", "web", "--network-alias", "www", "-h", "webhost")

    def finds(name: str) -> bool:
        return box.sh(f"wget -qO- http://{name}/", "--network", "one") == "hello\n"

    for name in ("web", "www", container_id[:12]):
        assert wait_until(partial(finds, name), 10), name
    assert box.run("ping", "-c1", "web", check=False).stderr == "ping: bad address 'web'\n"
    box("rename", "web", "other")
    assert box.sh("wget -qO- http://other/", "--network", "one") == "hello\n"


def test_a_published_port_is_there_as_soon_as_run_returns_and_goes_with_the_container(box: Box) -> None:
    port = free_port()
    box.detached(HTTPD, "--name", "web", "-p", f"{port}:80")
    with suppress(ConnectionResetError):  # by the container, whose server may not listen yet: the port itself is there
        socket.create_connection(("127.0.0.1", port), 5).close()
    assert wait_until(lambda: "hello" in fetch(port), 10)
    box("rm", "-f", "web")
    assert wait_until(lambda: not fetch(port), 5)


def test_a_port_in_use_is_an_error_before_anything_runs(box: Box, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        options = ("-p", f"127.0.0.1:{port}:80", "-v", f"{tmp_path}:/here")
        done = box.run("touch", "/here/ran", options=options, check=False)
    assert (done.returncode, port in done.stderr, len(done.stderr.splitlines()) <= 2) == (125, True, True)
    assert (os.listdir(tmp_path), box.ids()) == ([], [])


def test_restart_keeps_address_and_port_also_one_that_was_chosen(box: Box) -> None:
    box.detached(HTTPD, "--name", "web", "-p", "80")
    before = box.inspect("web")["NetworkSettings"]
    box("restart", "-t", "0", "web")
    after = box.inspect("web")["NetworkSettings"]
    assert (after["Ports"], after["Networks"]) == (before["Ports"], before["Networks"])
    assert wait_until(lambda: "hello" in fetch(published(box, "web")), 10)


def test_a_restart_policy_brings_the_port_back(box: Box) -> None:
    box.detached(f"{HTTPD} & sleep 60", "--name", "web", "-p", "80", "--restart", "always")
    port = published(box, "web")
    assert wait_until(lambda: "hello" in fetch(port), 10)
    started = box.state("web")["StartedAt"]
    os.kill(box.recorded(box.inspect("web")["Id"])["pid"], signal.SIGKILL)
    assert wait_until(lambda: box.state("web")["StartedAt"] != started, 10)
    assert wait_until(lambda: "hello" in fetch(port), 10)


def test_a_killed_slirp_comes_back_and_nobody_has_to_do_anything(box: Box) -> None:
    box("network", "create", "one")
    for name in ("web", "other"):
        box.detached(HTTPD, "--name", name, "--network", "one", "-p", "80")
    ports = [published(box, name) for name in ("web", "other")]
    before = [box.inspect(name)["NetworkSettings"]["Networks"] for name in ("web", "other")]
    os.kill(slirp(box.installed), signal.SIGKILL)
    assert wait_until(lambda: all("hello" in fetch(port) for port in ports), 20)
    assert [box.inspect(name)["NetworkSettings"]["Networks"] for name in ("web", "other")] == before
    box.detached(HTTPD, "--name", "late", "--network", "one")
    fetch_both = "wget -qO- http://other/ && wget -qO- http://late/"
    assert wait_until(lambda: box("exec", "web", "sh", "-c", fetch_both, check=False).stdout == "hello\nhello\n", 10)


def test_the_user_namespace_is_found_again_by_way_of_slirp(box: Box) -> None:
    """Its keeper is killed, and no container runs: what is made anew could not be plugged into slirp's networks."""
    box.sh("true")
    pid = slirp(box.installed)
    os.kill(int((box.session / "namespace").read_text().split()[0]), signal.SIGKILL)
    assert "eth0" in box.sh("ip addr")
    assert slirp(box.installed) == pid


def test_a_killed_monitor_frees_address_and_port(box: Box) -> None:
    port = free_port()
    container_id = box.detached(HTTPD, "--name", "web", "-p", f"{port}:80", "--restart", "always")
    os.kill(box.monitor(container_id), signal.SIGKILL)
    assert wait_until(lambda: not fetch(port), 5)
    box.detached(HTTPD, "--name", "next", "-p", f"{port}:80")
    assert wait_until(lambda: "hello" in fetch(port), 10)


def test_twenty_at_once_have_twenty_addresses(box: Box) -> None:
    command = box.installed.command("run", "--rm", box.image, "sh", "-c", "ip -4 -o addr show eth0; sleep 3")
    runs = [
        subprocess.Popen(command, env=box.installed.env, cwd=box.installed.home, stdout=subprocess.PIPE, text=True)
        for _ in range(20)
    ]
    shown = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 20
    assert len({line.split()[3] for line in shown}) >= 15  # those that ran at the same time differ
    assert all(line.split()[3].endswith("/16") for line in shown)


def test_slirp_leaves_when_nobody_is_attached(box: Box) -> None:
    box.sh("true")
    pid = slirp(box.installed)
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists(), 30)
    began = time.monotonic()
    assert box.sh("echo again") == "again\n"
    assert time.monotonic() - began < 10


def test_other_users_of_a_containers_network_are_on_it(box: Box) -> None:
    box.detached(HTTPD, "--name", "web")
    assert wait_until(lambda: box.sh("wget -qO- http://127.0.0.1/", "--network", "container:web") == "hello\n", 10)


def test_a_container_on_two_networks_reaches_both_and_they_do_not_reach_each_other(box: Box) -> None:
    for name in ("one", "two"):
        box("network", "create", name)
        box.detached(HTTPD, "--name", f"in-{name}", "--network", name)
    both = "wget -qO- http://in-one/; wget -qO- http://in-two/"
    assert wait_until(lambda: box.sh(both, "--network", "one", "--network", "two") == "hello\nhello\n", 10)
    address = box.inspect("in-two")["NetworkSettings"]["Networks"]["two"]["IPAddress"]
    assert box.sh(f"timeout 3 wget -qO- http://{address}/ || true", "--network", "one") == ""


def test_every_user_may_ping_and_use_low_ports(box: Box) -> None:
    box.detached(HTTPD, "--name", "web", "-u", "1000", "--tmpfs", "/www:mode=777")
    assert wait_until(lambda: box.sh("wget -qO- http://127.0.0.1/", "--network", "container:web") == "hello\n", 10)
    ping = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); print('pings')"
    assert box("run", "--rm", "-u", "1000", "host", "/usr/bin/python3", "-c", ping).stdout == "pings\n"


def test_links_mean_the_other_container_whatever_becomes_of_it(box: Box) -> None:
    box.detached(HTTPD, "--name", "db")
    box.detached("sleep 60", "--name", "web", "--link", "db:database")
    assert wait_until(
        lambda: box("exec", "web", "wget", "-qO-", "http://database/", check=False).stdout == "hello\n", 10
    )
    box("stop", "-t", "0", "db")
    box.detached("sleep 60", "--name", "taker")  # of the address, perhaps
    box("start", "db")
    assert wait_until(
        lambda: box("exec", "web", "wget", "-qO-", "http://database/", check=False).stdout == "hello\n", 10
    )
