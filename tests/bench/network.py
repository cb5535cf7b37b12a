"""The bars of the networks: against slirp4netns, pasta, podman's own forwarder and a bare veth, in the same run.

Throughput is shown as seconds for a gigabyte, so that here too less is better and a bar is the ratio of two times.
Every container is the machine itself (`host`), so that its iperf3 and python3 are the same on both sides.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench.measure import Result, compare, quiet
from tests.support.account import Installation, wait_until
from tests.support.podman import Podman

PROGRAMS = ("iperf3", "slirp4netns", "pasta", "ip", "unshare", "nsenter")
_ROUNDS = 5
_SECONDS = 3
_MTU = 65520
_HOST = "169.254.1.2"  # the host's loopback, from a container with --host-loopback
_SLIRP_HOST = "10.0.2.2"

Run = Callable[[Sequence[str]], str]  # runs a command at some place, returns its output


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


@contextlib.contextmanager
def process(command: Sequence[str], env: dict[str, str] | None = None) -> Iterator[int]:
    """A process that is ended at the end, with what it has started; its pid."""
    running = subprocess.Popen(
        command,
        env=env,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield running.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


@contextlib.contextmanager
def iperf_server(port: int, address: str = "127.0.0.1") -> Iterator[None]:
    """iperf3 on the host."""
    with process(["iperf3", "-s", "-B", address, "-p", str(port)]):
        assert wait_until(lambda: listens(address, port))
        yield


def listens(address: str, port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex((address, port)) == 0


def throughput(run: Run, address: str, port: int, *options: str) -> float:
    """Seconds for a gigabyte, by iperf3's client at the place where *run* runs things."""
    omit = [] if "-u" in options else ["-O", "1"]  # what UDP loses at first would be counted against the rest
    words = ["iperf3", "-c", address, "-p", str(port), "-t", str(_SECONDS), "-J", *omit, *options]
    bits = json.loads(run(words))["end"]["sum_received"]["bits_per_second"]
    return float(8e9 / bits)


def here(command: Sequence[str]) -> str:
    """On the host."""
    return quiet(command, {"PATH": os.environ["PATH"]})


class Namespace:
    """A user and network namespace, kept by a process that sleeps."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(self, command: Sequence[str]) -> str:
        return here(["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(self.pid), "--", *command])


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    with process(["unshare", "-Urn", "--", "sleep", "1000"]) as pid:
        own = os.readlink("/proc/self/ns/net")
        assert wait_until(lambda: os.readlink(f"/proc/{pid}/ns/net") != own)
        yield Namespace(pid)


@contextlib.contextmanager
def slirp4netns() -> Iterator[Run]:
    """A namespace behind slirp4netns; it reaches the host's loopback at 10.0.2.2."""
    with namespace() as place:
        ready_r, ready_w = os.pipe()
        command = ["slirp4netns", "--configure", f"--mtu={_MTU}", f"--ready-fd={ready_w}", str(place.pid), "tap0"]
        running = subprocess.Popen(command, pass_fds=[ready_w], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(ready_w)
        try:
            assert os.read(ready_r, 1) == b"1"
            yield place.run
        finally:
            os.close(ready_r)
            running.kill()
            running.wait()


@contextlib.contextmanager
def pasta() -> Iterator[Run]:
    """A namespace behind pasta; the host's loopback is at its gateway's address."""
    with namespace() as place:
        done = subprocess.run(
            ["pasta", "--config-net", "--quiet", "-t", "none", "-u", "none", str(place.pid)], capture_output=True
        )
        assert done.returncode == 0, done.stderr
        try:
            yield place.run
        finally:
            for pid, words in command_lines():
                if b"pasta" in words[0] and str(place.pid).encode() in words:
                    os.kill(pid, signal.SIGKILL)


def command_lines() -> Iterator[tuple[int, list[bytes]]]:
    """Pid and command line of all processes."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes().split(b"\0")


def gateway(run: Run) -> str:
    """The default gateway at that place."""
    return run(["ip", "route", "show", "default"]).split()[2]


class NetworkBench:
    """Each method measures one bar, or a few that share what they need."""

    NAMES = ("outward", "inward", "ports", "pair", "short", "udp", "start", "memory")

    def __init__(self, ours: Installation, podman: Podman, images: dict[str, str]) -> None:
        self.ours = ours
        self.podman = podman
        self.images = images

    @staticmethod
    def missing() -> list[str]:
        return [name for name in PROGRAMS if not shutil.which(name)]

    @contextlib.contextmanager
    def container(self, *options: str, name: str = "bench") -> Iterator[Run]:
        """A container of the machine's own programs; where a command runs in it."""
        words = ("run", "-d", "--name", name, *options, "host", "sleep", "1000")
        self.ours.run(*words)
        try:
            yield lambda command: quiet([str(self.ours.program), "exec", name, *command], self.ours.env)
        finally:
            self.ours.run("rm", "-f", name)

    def outward(self) -> Iterator[Result]:
        """TCP from a container to the host."""
        yield from self._tcp("out", [])

    def inward(self) -> Iterator[Result]:
        """TCP from the host, over a connection that the container has made."""
        yield from self._tcp("in", ["-R"])

    def _tcp(self, direction: str, options: list[str]) -> Iterator[Result]:
        port = free_port()
        with (
            iperf_server(port),
            self.container("--host-loopback") as ours,
            slirp4netns() as slirp,
            pasta() as passt,
        ):
            peers = {
                "slirp4netns": (slirp, _SLIRP_HOST, 0.5),
                "pasta": (passt, gateway(passt), 1.0 if direction == "out" else 1 / 0.9),
            }
            for streams in (1, 8):
                words = [*options, "-P", str(streams)]
                for peer, (run, address, bar) in peers.items():
                    yield in_turns(
                        f"TCP {direction}, {streams} streams / {peer}",
                        lambda words=words: throughput(ours, _HOST, port, *words),  # type: ignore[misc]
                        lambda run=run, address=address, words=words: throughput(run, address, port, *words),  # type: ignore[misc]
                        bar,
                    )
        yield from self._user_path(direction, options)

    def _user_path(self, direction: str, options: list[str]) -> Iterator[Result]:
        """The same without the kernel's transparent proxy."""
        port = free_port()
        self.ours.run("network", "prune", "-f")
        with self.user_path(), iperf_server(port), self.container("--host-loopback") as ours, slirp4netns() as slirp:
            yield in_turns(
                f"TCP {direction}, user space / slirp4netns",
                lambda: throughput(ours, _HOST, port, *options),
                lambda: throughput(slirp, _SLIRP_HOST, port, *options),
                1.0,
            )

    @contextlib.contextmanager
    def user_path(self) -> Iterator[None]:
        """slirp started anew with its own TCP, and as it was afterwards."""
        config = self.ours.home / ".config/rootless/config.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        before = config.read_text() if config.exists() else None
        config.write_text((before or "") + '\n[network]\ntcp = "user"\n')
        self.stop_slirp()
        try:
            yield
        finally:
            config.unlink() if before is None else config.write_text(before)
            self.stop_slirp()

    def stop_slirp(self) -> None:
        """End the resident process."""
        for pid in self.slirp():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        assert wait_until(lambda: not self.slirp())

    def slirp(self) -> list[int]:
        """The processes of slirp, whoever started it."""
        mark = str(self.ours.runtime).encode()
        return [pid for pid, words in command_lines() if mark in b" ".join(words) and b"slirp" in b" ".join(words)]

    def ports(self) -> Iterator[Result]:
        """A published port, both ways."""
        ours_port, theirs_port = free_port(), free_port()
        inside = ("iperf3", "-s", "-p", "5201")
        name = self.images["tools"]
        self.podman.run("run", "-d", "--name", "bench", "-p", f"127.0.0.1:{theirs_port}:5201", name, *inside)
        self.ours.run("run", "-d", "--name", "bench", "-p", f"127.0.0.1:{ours_port}:5201", name, *inside)
        try:
            for direction, options in (("in", []), ("out", ["-R"])):
                yield in_turns(
                    f"published port, {direction} / podman",
                    lambda options=options: throughput(here, "127.0.0.1", ours_port, *options),  # type: ignore[misc]
                    lambda options=options: throughput(here, "127.0.0.1", theirs_port, *options),  # type: ignore[misc]
                    1.0,
                )
        finally:
            self.podman.run("rm", "-f", "-t", "0", "bench")
            self.ours.run("rm", "-f", "bench")

    def pair(self) -> Iterator[Result]:
        """Between two containers of a network."""
        with bare_veth() as (veth, address), self.container(name="one") as one, self.container(name="two") as two:
            words = ["exec", "-d", "one", "iperf3", "-s"]
            quiet([str(self.ours.program), *words], self.ours.env)
            own = one(["ip", "-4", "-o", "addr", "show", "eth0"]).split()[3].partition("/")[0]
            assert wait_until(lambda: "5201" in one(["ss", "-ltn"]))
            yield in_turns(
                "between containers / bare veth",
                lambda: throughput(two, own, 5201),
                lambda: throughput(veth, address, 5201),
                1 / 0.9,
            )

    def short(self) -> Iterator[Result]:
        """2,000 connections, one after the other: connect, a word each way, close."""
        with echo_server() as port, self.container("--host-loopback") as ours, slirp4netns() as slirp:
            yield in_turns(
                "2000 short connections / slirp4netns",
                lambda: float(ours([sys.executable, "-c", _CONNECTIONS, _HOST, str(port)])),
                lambda: float(slirp([sys.executable, "-c", _CONNECTIONS, _SLIRP_HOST, str(port)])),
                1.0,
            )

    def udp(self) -> Iterator[Result]:
        """Round trips, and as many datagrams of 1,400 bytes as go through."""
        port = free_port()
        with (
            echo_server() as echo,
            iperf_server(port),
            self.container("--host-loopback") as ours,
            slirp4netns() as slirp,
        ):
            yield in_turns(
                "UDP round trips / slirp4netns",
                lambda: float(ours([sys.executable, "-c", _ROUND_TRIPS, _HOST, str(echo)])),
                lambda: float(slirp([sys.executable, "-c", _ROUND_TRIPS, _SLIRP_HOST, str(echo)])),
                1 / 0.7,
            )
            words = ["-u", "-b", "0", "-l", "1400"]
            yield in_turns(
                "UDP of 1400 bytes / slirp4netns",
                lambda: throughput(ours, _HOST, port, *words),
                lambda: throughput(slirp, _SLIRP_HOST, port, *words),
                1 / 0.7,
            )

    def start(self) -> Iterator[Result]:
        """`run --rm` on the default network: with slirp up, and without."""
        words = ("run", "--rm", self.images["busybox"], "true")

        def ours() -> None:
            quiet([str(self.ours.program), *words], self.ours.env)

        def cold() -> None:
            began = time.perf_counter()
            ours()
            times.append(time.perf_counter() - began)
            self.stop_slirp()

        with self.container(name="keeps"):
            yield compare("run --rm, slirp up / podman", ours, lambda: self.podman.run(*words), bar=0.5, rounds=15)
        self.stop_slirp()
        times: list[float] = []
        for _ in range(7):
            cold()
        theirs = [timed_run(lambda: self.podman.run(*words)) for _ in range(7)]
        yield Result("run --rm, cold / podman", statistics.median(times), statistics.median(theirs), 1.0)

    def memory(self) -> Iterator[Result]:
        """MB resident in slirp with a hundred containers attached."""
        names = [f"many{n}" for n in range(100)]
        for name in names:
            self.ours.run("run", "-d", "--name", name, self.images["busybox"], "sleep", "1000")
        resident, shared = 0.0, 0.0
        for pid in self.slirp():
            resident += kilobytes(pid, "status", "VmRSS") / 1e3
            shared += kilobytes(pid, "smaps_rollup", "Pss") / 1e3
        self.ours.run("rm", "-f", *names, timeout=300)
        yield Result("slirp's MB resident, 100 containers", resident, 45.0, 1.0)
        yield Result("  with shared pages counted once", shared, 45.0, 1.0)


def kilobytes(pid: int, file: str, field: str) -> float:
    rows = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return float(next(row.split()[1] for row in rows if row.startswith(f"{field}:")))


def timed_run(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def in_turns(name: str, ours: Callable[[], float], theirs: Callable[[], float], bar: float) -> Result:
    """Medians of what both say they took, in turns."""
    pairs = [(ours(), theirs()) for _ in range(_ROUNDS)]
    return Result(name, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), bar)


@contextlib.contextmanager
def bare_veth() -> Iterator[tuple[Run, str]]:
    """Two namespaces joined by a veth pair alone: how to run in one, and where iperf3 listens in the other."""
    with namespace() as one:
        inner = ["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(one.pid), "unshare", "-n", "sleep", "1000"]
        with process(inner) as pid:
            own = os.readlink(f"/proc/{one.pid}/ns/net")
            hosts = os.readlink("/proc/self/ns/net")
            assert wait_until(lambda: os.readlink(f"/proc/{pid}/ns/net") not in (own, hosts))
            two = Namespace(pid)
            add = f"ip link add v0 mtu {_MTU} type veth peer name v1 mtu {_MTU} netns {pid}"
            one.run(add.split())
            for place, name, address in ((one, "v0", "10.99.0.1/24"), (two, "v1", "10.99.0.2/24")):
                for words in (f"addr add {address} dev {name}", f"link set {name} up", "link set lo up"):
                    place.run(["ip", *words.split()])
            server = ["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(one.pid), "iperf3", "-s"]
            with process(server):
                assert wait_until(lambda: "5201" in one.run(["ss", "-ltn"]))
                yield two.run, "10.99.0.1"


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """What it hears, TCP and UDP, on one port of the host's loopback."""
    port = free_port()
    with process([sys.executable, "-c", _ECHO, str(port)]):
        assert wait_until(lambda: listens("127.0.0.1", port))
        yield port


_ECHO = """
import select, socket, sys
port = int(sys.argv[1])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", port))
tcp = socket.socket()
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
tcp.bind(("127.0.0.1", port))
tcp.listen(1000)
while True:
    for sock in select.select([udp, tcp], [], [])[0]:
        if sock is udp:
            data, peer = udp.recvfrom(65536)
            udp.sendto(data, peer)
        else:
            connection, _ = tcp.accept()
            connection.sendall(connection.recv(100))
            connection.close()
"""

_CONNECTIONS = """
import socket, sys, time
address = sys.argv[1], int(sys.argv[2])
began = time.perf_counter()
for _ in range(2000):
    with socket.create_connection(address, 10) as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
print(time.perf_counter() - began)
"""

_ROUND_TRIPS = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(5)
sock.connect((sys.argv[1], int(sys.argv[2])))
began = time.perf_counter()
for _ in range(5000):
    sock.send(b"x" * 64)
    sock.recv(100)
print(time.perf_counter() - began)
"""
