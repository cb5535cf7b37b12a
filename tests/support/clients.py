"""Real programs as clients and servers: a user's installation with two containers that have this machine's programs.

`client` runs nothing by itself; it may reach the host's loopback. `server` is on the same network and has redis-server
(6379), iperf3 (5201), peer.py's services (7000 to 7002) and a web server (8000), of which all but redis are published.
What they share with the test is /shared, read-only.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import PATH, ROOT, Installation, installation, wait_until
from tests.support.registry import free_port
from tests.support.webserver import WebServer

HOST = "host.docker.internal"
PEER = "/shared/peer.py"
SERVICES = """
redis-server --port 6379 --bind '* -::*' --protected-mode no --save '' --daemonize yes --dir /tmp >/dev/null
iperf3 --server --daemon
python3 -m http.server --directory /shared --bind :: 8000 >/dev/null 2>&1 &
exec python3 /shared/peer.py serve :: 7000
"""
PUBLISHED = ("5201", "7000-7002", "7000/udp", "7002/udp", "8000")
POSTGRES_HBA = "host all all all trust\n"
KEPT = 1000  # descriptors that slirp may have in stock; each test with a crowd would leave more if one were forgotten


def big_mebibytes() -> int:
    """How much "a large transfer" is: ROOTLESS_TESTS_TRANSFER MiB, 100 without."""
    return int(os.environ.get("ROOTLESS_TESTS_TRANSFER", "100"))


class Site:
    """The installation with its two containers, and this machine as their host."""

    def __init__(self, installed: Installation, path: str, shared: Path) -> None:
        self.installed, self.path, self.shared = installed, path, shared

    def start(self) -> None:
        """Make the network and the containers."""
        config = self.installed.home / ".config/rootless/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f'[network]\ntcp = "{self.path}"\n')
        run = self.installed.run
        families = ["--ipv6"] if Path("/proc/net/if_inet6").exists() else []
        run("network", "create", *families, "net")
        on = ("run", "-d", "--network", "net", "-v", f"{self.shared}:/shared:ro", "--hostname")
        ports = [word for port in PUBLISHED for word in ("-p", port)]
        run(*on, "client", "--name", "client", "--host-loopback", "host", "sleep", "infinity")
        run(*on, "server", "--name", "server", *ports, "host", "sh", "-c", SERVICES)
        ready = wait_until(lambda: self.installed.run("logs", "server").stdout == "7000\n", 20)
        assert ready, self.installed.run("logs", "server").stderr
        assert run("info", "--format", "{{.Rootless.Network.Tcp}}").stdout.strip() == self.path

    @property
    def log(self) -> str:
        """What slirp had to say."""
        return (self.installed.runtime / "rootless/slirp.log").read_text()

    def flows(self) -> list[str]:
        """The connections that slirp carries."""
        lines = self.installed.run(
            "network", "flows", "--format", "{{.Protocol}} {{.Source}} {{.Destination}} {{.State}}"
        )
        return [line for line in lines.stdout.splitlines() if line.startswith("tcp ")]

    def descriptors(self) -> int:
        """How many descriptors the processes of slirp have."""
        processes = [pid for pid, line in self.installed.processes().items() if "from slirp.__main__" in line]
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in processes)

    def client(
        self, *argv: str, input: str = "", check: bool = True, timeout: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program in `client`."""
        return self.installed.run("exec", "-i", "client", *argv, input=input, check=check, timeout=timeout)

    def says(self, *argv: str, input: str = "", timeout: float = 60) -> str:
        """What a program in `client` prints."""
        return self.client(*argv, input=input, timeout=timeout).stdout.strip()

    def peer(self, *words: str | int) -> str:
        """What peer.py prints in `client`."""
        return self.says("python3", PEER, *map(str, words))

    def start_peer(self, *words: str | int) -> "subprocess.Popen[bytes]":
        """peer.py in `client`, with pipes."""
        return self.installed.start("exec", "-i", "client", "python3", "-u", PEER, *map(str, words))

    @cached_property
    def published(self) -> dict[str, int]:
        """The port of the host for each of the server's: "7000/tcp" …"""
        document = json.loads(self.installed.run("inspect", "server").stdout)[0]
        ports: dict[str, list[dict[str, str]]] = document["NetworkSettings"]["Ports"]
        return {name: int(places[0]["HostPort"]) for name, places in ports.items()}

    def addresses(self, name: str) -> list[str]:
        """IPv4, and IPv6 if it has one."""
        document = json.loads(self.installed.run("inspect", name).stdout)[0]
        endpoint = document["NetworkSettings"]["Networks"]["net"]
        return [address for address in (endpoint["IPAddress"], endpoint["GlobalIPv6Address"]) if address]

    def gateways(self) -> list[str]:
        """Of the network, the same."""
        document = json.loads(self.installed.run("inspect", "server").stdout)[0]
        endpoint = document["NetworkSettings"]["Networks"]["net"]
        return [address for address in (endpoint["Gateway"], endpoint["IPv6Gateway"]) if address]


@contextmanager
def site(path: str, shared: Path) -> Iterator[Site]:
    """A site whose TCP takes that *path*, "kernel" or "user"; at the end slirp must not have had an error."""
    with installation() as installed:
        made = Site(installed, path, shared)
        made.start()
        before = made.descriptors()
        yield made
        assert wait_until(lambda: not made.flows()), made.flows()
        assert made.descriptors() < before + KEPT, "slirp does not close what has ended"
        assert "Traceback" not in made.log, made.log[-4000:]


def shared_directory(directory: Path) -> Path:
    """What containers find at /shared: peer.py, and `big`, which has no two equal parts."""
    shutil.copy(ROOT / "tests/support/peer.py", directory)
    with (directory / "big").open("wb") as file:
        for _ in range(big_mebibytes()):
            file.write(os.urandom(1 << 20))
    return directory


def run(*argv: str, input: str | None = None, timeout: float = 60) -> str:
    """What a program prints on the host. Raises AssertionError with what it says where it fails."""
    done = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


@contextmanager
def program(argv: Sequence[str], **more: Any) -> Iterator["subprocess.Popen[str]"]:
    """A program of the host's that is ended at the end."""
    environment = {"PATH": PATH, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True, **more) as running:
        try:
            yield running
        finally:
            running.kill()


@contextmanager
def host_services(address: str = "127.0.0.1") -> Iterator[int]:
    """peer.py's services on the host: the port of the first."""
    with program(["python3", str(ROOT / "tests/support/peer.py"), "serve", address]) as running:
        assert running.stdout
        yield int(running.stdout.readline())


@contextmanager
def redis(directory: Path) -> Iterator[int]:
    """redis-server on the host's loopback; its port."""
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory))
    with program(["redis-server", *options]):
        assert wait_until(lambda: listens(port), 20)
        yield port


@contextmanager
def iperf() -> Iterator[int]:
    """iperf3 on the host's loopback; its port."""
    port = free_port()
    with program(["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(port)]):
        assert wait_until(lambda: listens(port), 20)
        yield port


def listens(port: int) -> bool:
    """Whether somebody is at that port of the loopback."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def postgres_programs() -> Path:
    """Where initdb and postgres are; skips the test where they are not."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed")
    return found[-1].parent


def make_cluster(directory: Path) -> None:
    """A database cluster whose superuser is `test`, and that anybody may use who reaches it."""
    run(str(postgres_programs() / "initdb"), "-D", str(directory), "-A", "trust", "-U", "test", "-N", "-E", "UTF8")
    (directory / "pg_hba.conf").write_text(POSTGRES_HBA)


@contextmanager
def postgres(cluster: Path) -> Iterator[int]:
    """PostgreSQL on the host's loopback; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as place:
        data = Path(shutil.copytree(cluster, Path(place, "data")))
        data.chmod(0o700)
        options = ("-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F")
        with program([str(postgres_programs() / "postgres"), *options], stderr=subprocess.DEVNULL) as running:
            assert wait_until(lambda: listens(port), 20)
            yield port
            running.terminate()
            running.wait(20)


@contextmanager
def web(directory: Path, certificates: Path | None = None) -> Iterator[WebServer]:
    """A web server on the host's loopback for what is in *directory*; with TLS by registry.make_certificates."""
    context = None
    if certificates:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    with WebServer(directory, context).serving() as server:
        yield server


def own_address(family: socket.AddressFamily) -> str:
    """The machine's own address that it would use towards the world; skips the test where there is none."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("2001:db8::1" if family == socket.AF_INET6 else "198.51.100.1", 9))  # nothing is sent
        except OSError as error:
            pytest.skip(f"this machine has no way out by {family.name}: {error.strerror}")
        address: str = sock.getsockname()[0]
    if address in ("127.0.0.1", "::1"):
        pytest.skip(f"this machine has but its loopback by {family.name}")
    return address
