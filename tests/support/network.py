"""A made-up machine with networks: slirp as it really runs, its containers, the host's loopback, and the world outside.

    with Machine(tmp_path) as machine, machine.slirp("kernel") as slirp:
        box = slirp.box("web", [on(network("back", "10.1.0.0/16", names=True))])
        with machine.server("203.0.113.1", echo) as address, box.tcp(*address) as connection:
            ...

Nothing in it depends on the machine that the tests run on, or touches it: all networks are namespaces of one process
(network_agent.py). Sockets are made there and used here, in the test's own process and threads.

    containers ── slirp ── machine, 203.0.113.10, 2001:db8::10 ── router 203.0.113.1, 2001:db8::1 ── 198.51.100.1,
                           127.0.0.1, ::1                                                           2001:db8:1::1
    Behind the router, 192.0.2.1 is unreachable, 192.0.2.65 prohibited, 192.0.2.129 silent; 2001:db8:2::1 is
    unreachable, 2001:db8:3::1 silent.
"""

import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from slirp import channel
from slirp.wire import dns
from tests.support.network_servers import Serve, answering, family_of, serving
from tests.support.userns import map_ids

ROOT = Path(__file__).resolve().parent.parent.parent
HOST4, HOST6 = "203.0.113.10", "2001:db8::10"
ROUTER4, ROUTER6 = "203.0.113.1", "2001:db8::1"
FAR4, FAR6 = "198.51.100.1", "2001:db8:1::1"
UNREACHABLE4, PROHIBITED4, SILENT4 = "192.0.2.1", "192.0.2.65", "192.0.2.129"
UNREACHABLE6, SILENT6 = "2001:db8:2::1", "2001:db8:3::1"
HOST_LOOPBACK = "169.254.1.2"
PATHS = ("kernel", "user")  # of TCP


class Refused(AssertionError):
    """slirp says that it cannot: *kind* of error, message, hint."""

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(f"{kind}: {message} ({hint})")
        self.kind, self.message, self.hint = kind, message, hint


@final
class Machine:
    """The machine, its user, and the world; to be used in a `with`."""

    def __init__(self, directory: Path, *, one_id: bool = False) -> None:
        self.directory = directory
        self.one_id = one_id
        self._lock = threading.Lock()

    def __enter__(self) -> "Machine":
        self._sock, theirs = channel.pair()
        self._sock.settimeout(30)
        with theirs:
            argv = [sys.executable, "-B", str(ROOT / "tests/support/network_agent.py"), str(theirs.fileno())]
            env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
            self._agent = subprocess.Popen(argv, pass_fds=[theirs.fileno()], env=env, stdin=subprocess.DEVNULL)
        try:
            self._answer()
            map_ids(self._agent.pid, self.one_id)
            channel.send(self._sock, {})
            self._answer()
            _, (self.world, self.net) = self._ask("world")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.world, self.net):
            os.close(fd)
        self._end()

    def _end(self) -> None:
        self._sock.close()
        try:
            self._agent.wait(30)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            self._agent.wait()
            raise

    def _answer(self) -> tuple[dict[str, Any], list[int]]:
        answer, fds = channel.receive(self._sock)
        assert answer is not None, "the agent has ended"
        if not answer["ok"]:
            raise OSError(answer["errno"], answer["error"]) if answer["errno"] else AssertionError(answer["error"])
        return answer, fds

    def _ask(self, op: str, fds: Sequence[int] = (), **fields: Any) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            channel.send(self._sock, {"op": op, **fields}, list(fds))
            return self._answer()

    def open_socket(
        self,
        kind: int = socket.SOCK_STREAM,
        family: int = socket.AF_INET,
        protocol: int = 0,
        *,
        net: int | None = None,
        bind: tuple[Any, ...] | None = None,
        options: Sequence[tuple[int, int, int]] = (),
    ) -> socket.socket:
        """A socket of the machine's network, or of *net*'s; 20 seconds are its time-out."""
        fields = {"family": family, "kind": kind, "protocol": protocol, "bind": bind, "options": list(options)}
        _, [fd] = self._ask("socket", [] if net is None else [net], **fields)
        made = socket.socket(fileno=fd)
        made.settimeout(20)
        return made

    def listener(self, address: str, port: int = 0, *, net: int | None = None) -> socket.socket:
        """A TCP socket that listens there; *net* None: wherever the machine or the world has that address."""
        options = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)]
        made = self.open_socket(
            family=family_of(address), net=self._place(address, net), bind=(address, port), options=options
        )
        made.listen(512)
        return made

    def datagrams(self, address: str, port: int = 0, *, net: int | None = None) -> socket.socket:
        """A UDP socket there."""
        return self.open_socket(
            socket.SOCK_DGRAM, family_of(address), net=self._place(address, net), bind=(address, port)
        )

    def _place(self, address: str, net: int | None) -> int | None:
        return self.world if net is None and address in (ROUTER4, ROUTER6, FAR4, FAR6) else net

    @contextmanager
    def server(self, address: str, serve: Serve, port: int = 0, *, net: int | None = None) -> Iterator[tuple[str, int]]:
        """*serve*(connection, peer) for each TCP connection, in a thread of its own; gives where it listens."""
        listener = self.listener(address, port, net=net)
        with serving(listener, serve):
            yield address, listener.getsockname()[1]

    @contextmanager
    def udp_server(
        self,
        address: str,
        answer: Callable[[bytes, Any], bytes | None] = lambda data, peer: data,
        port: int = 0,
        *,
        net: int | None = None,
    ) -> Iterator[tuple[str, int]]:
        """Answers each datagram with what *answer*(data, peer) gives; by itself, the same."""
        sock = self.datagrams(address, port, net=net)
        with answering(sock, answer):
            yield address, sock.getsockname()[1]

    def netns(self) -> int:
        """A network namespace of the user's, as a container has one; the caller closes the descriptor."""
        return self._ask("netns")[1][0]

    def run(
        self, *argv: str, net: int | None = None, check: bool = True, timeout: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """A command of the machine's root, in the machine's network or in *net*."""
        net = self.net if net is None else net
        pid = self._agent.pid
        enter = [
            "nsenter",
            "--preserve-credentials",
            f"--user=/proc/{pid}/ns/user",
            f"--mount=/proc/{pid}/ns/mnt",
            f"--net=/proc/self/fd/{net}",
        ]
        done = subprocess.run([*enter, *argv], capture_output=True, text=True, pass_fds=[net], timeout=timeout)
        assert not check or done.returncode == 0, f"{argv}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def resolv_conf(self, text: str) -> None:
        """What /etc/resolv.conf says on this machine from now on."""
        path = self.directory / "resolv.conf"
        fresh = not path.exists()
        path.write_text(text)  # in place: it is the file that is bound
        if fresh:
            self._ask("file", path="/etc/resolv.conf", source=str(path))

    def spawn(self, argv: Sequence[str], fds: Sequence[int]) -> int:
        """Start a program as root of the user's namespace in the machine's network; *fds* become its 0, 1 … A pid."""
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        pid: int = self._ask("spawn", fds, argv=list(argv), env=env)[0]["pid"]
        return pid

    @contextmanager
    def slirp(self, path: str = "auto", *options: str) -> Iterator["Slirp"]:
        """`python -m slirp --path PATH OPTIONS` for this machine's user, ready; ended after it."""
        slirp = Slirp(self, path, *options)
        try:
            yield slirp
        finally:
            slirp.end()


class Slirp:
    """The process, and what a test asks of it."""

    def __init__(self, machine: Machine, path: str, *options: str) -> None:
        self.machine = machine
        self.socket_path = machine.directory / f"slirp-{time.monotonic_ns()}"
        self.log_path = self.socket_path.with_suffix(".log")
        self.boxes: list[Box] = []
        ready, write = os.pipe()
        exit_read, self._exit_fd = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        argv = [sys.executable, "-B", "-m", "slirp", "--socket", str(self.socket_path), "--path", path]
        argv += ["--ready-fd", "3", "--exit-fd", "4", "--log", str(self.log_path), *options]
        try:
            self.pid = machine.spawn(argv, [null, log, log, write, exit_read])
            self._pidfd = os.pidfd_open(self.pid)
        finally:
            for fd in (write, exit_read, null, log):
                os.close(fd)
        with open(ready, encoding="utf-8") as file:
            assert select.select([ready], [], [], 30)[0], self.log()
            assert file.readline().endswith("\n"), self.log()

    def log(self) -> str:
        """What it has said."""
        return self.log_path.read_text(encoding="utf-8") if self.log_path.exists() else ""

    def ended(self, seconds: float = 0) -> bool:
        """Whether it has ended, or does within so many seconds."""
        return bool(select.select([self._pidfd], [], [], seconds)[0])

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        signal.pidfd_send_signal(self._pidfd, number)

    def end(self) -> None:
        """Have it leave, by its exit-fd."""
        for box in self.boxes:
            box.close()
        os.close(self._exit_fd)
        if not self.ended(10):
            self.kill()
            raise AssertionError(f"slirp stays: {self.log()}")
        os.close(self._pidfd)

    def stack_pids(self) -> list[int]:
        """The processes of it that meet the packets (one, but while it is being replaced)."""
        found = []
        for comm in Path("/proc").glob("[0-9]*/comm"):
            try:
                if comm.read_text() == "slirp-stack\n" and self.pid in _ancestors(int(comm.parent.name)):
                    found.append(int(comm.parent.name))
            except OSError:
                continue  # it has ended meanwhile
        return found

    def client(self) -> "Client":
        """A connection of its own."""
        return Client(str(self.socket_path))

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request, on a connection of its own."""
        with self.client() as client:
            return client.request(op, **fields)

    def box(self, name: str, endpoints: "Sequence[dict[str, Any]]", *, plug: bool = True, **fields: Any) -> "Box":
        """A container with these endpoints; *fields* as in `attach`, and of its `container`."""
        box = Box(self, name, endpoints, **fields)
        self.boxes.append(box)
        if plug:
            box.plug()
        return box


@final
class Client:
    """A control connection."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(30)
        self.sock.connect(path)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def request(self, op: str, fds: Sequence[int] = (), **fields: Any) -> dict[str, Any]:
        """The answer, put together from its parts; what is not ok is raised as Refused."""
        channel.send(self.sock, {"op": op, **fields}, list(fds))
        whole: dict[str, Any] = {}
        while True:
            part, _ = channel.receive(self.sock)
            if part is None:
                raise EOFError("slirp has ended")
            if not part["ok"]:
                raise Refused(part["kind"], part["error"], part.get("hint", ""))
            for key, value in part.items():
                whole[key] = whole[key] + value if isinstance(value, list) and key in whole else value
            if not part.get("more"):
                return whole


class Box:
    """A container: a network namespace, and the connection that its attachment lasts as long as."""

    def __init__(self, slirp: Slirp, name: str, endpoints: "Sequence[dict[str, Any]]", **fields: Any) -> None:
        self.slirp, self.machine, self.name = slirp, slirp.machine, name
        self.id: str = fields.pop("id", name.encode().hex().ljust(64, "0")[:64])
        self.netns = self.machine.netns()
        self.client = slirp.client()
        described = {"id": self.id, "name": name, "hostname": fields.pop("hostname", "")}
        asked = {"ports": [], "links": [], "egress": None, "host_loopback": False, "dns": []} | fields
        try:
            answer = self.client.request("attach", container=described, endpoints=list(endpoints), **asked)
        except BaseException:
            self.close()
            raise
        self.endpoints: list[dict[str, Any]] = answer["endpoints"]
        self.ports: list[dict[str, Any]] = answer["ports"]
        self.nameservers: list[str] = answer["nameservers"]

    def plug(self) -> None:
        """Have its network namespace wired up."""
        self.client.request("plug", [self.netns])

    def restart(self) -> None:
        """A fresh network namespace, plugged."""
        os.close(self.netns)
        self.netns = self.machine.netns()
        self.plug()

    def close(self) -> None:
        """It is gone."""
        self.client.sock.close()
        if self.netns >= 0:
            os.close(self.netns)
            self.netns = -1

    @property
    def ipv4(self) -> str:
        """Its first address."""
        return str(self.endpoints[0]["ipv4"])

    @property
    def ipv6(self) -> str:
        """Its first IPv6 address."""
        return str(self.endpoints[0]["ipv6"])

    @property
    def gateway(self) -> str:
        """The gateway of its first endpoint."""
        return str(self.endpoints[0]["gateway4"])

    def port(self, container_port: int, protocol: str = "tcp") -> int:
        """Where a published port is on the host."""
        [found] = {
            p["host_port"] for p in self.ports if (p["container_port"], p["protocol"]) == (container_port, protocol)
        }
        return int(found)

    def tcp(self, address: str, port: int, *, timeout: float = 20) -> socket.socket:
        """A connection from within the container."""
        sock = self.machine.open_socket(family=family_of(address), net=self.netns)
        sock.settimeout(timeout)
        try:
            sock.connect((address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def udp(self, address: str = "0.0.0.0", port: int = 0) -> socket.socket:
        """A UDP socket of the container's."""
        return self.machine.open_socket(socket.SOCK_DGRAM, family_of(address), net=self.netns, bind=(address, port))

    def failure(self, address: str, port: int, *, timeout: float = 10) -> str:
        """With what a connection fails: "ECONNREFUSED" …, "TIMEOUT" after so long; "" where it does not."""
        try:
            self.tcp(address, port, timeout=timeout).close()
        except TimeoutError as error:
            return "ETIMEDOUT" if error.errno else "TIMEOUT"
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return ""

    def server(self, serve: Serve, port: int, address: str = "0.0.0.0") -> Any:
        """As Machine.server, in the container."""
        return self.machine.server(address, serve, port, net=self.netns)

    def udp_server(self, port: int, address: str = "0.0.0.0", **options: Any) -> Any:
        """As Machine.udp_server, in the container."""
        return self.machine.udp_server(address, port=port, net=self.netns, **options)

    def run(self, *argv: str, check: bool = True, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """A command in its network namespace."""
        return self.machine.run(*argv, net=self.netns, check=check, timeout=timeout)

    def dig(self, name: str, *options: str, server: str = "") -> str:
        """What dig prints of a name: status, flags and answers."""
        words = ["dig", f"@{server or self.nameservers[0]}", "+tries=1", "+time=9", "+noall", "+comments", "+answer"]
        return self.run(*words, *options, name, check=False).stdout

    def addresses(self, name: str) -> list[str]:
        """The IPv4 addresses of a name, asked for without a resolver of the C library's kind, or its resolv.conf."""
        packed = dns.packed_name(name)
        assert packed is not None
        question = struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + packed + struct.pack("!HH", dns.A, dns.IN)
        query = dns.parse_query(question)
        assert query is not None
        with self.udp() as sock:
            sock.sendto(question, (self.gateway, 53))
            answer = dns.parse_answer(sock.recv(65535), query)
        return [socket.inet_ntoa(r.value) for r in answer.records if isinstance(r.value, bytes)] if answer else []

    def lookup(self, name: str, kind: str = "A", *, server: str = "") -> list[str]:
        """The data of the answers to a name."""
        printed = self.dig(name, "-t", kind, server=server)
        lines = (line.split() for line in printed.splitlines() if line and not line.startswith(";"))
        return [words[4] for words in lines if words[3] == kind]


def network(name: str, ipv4: str = "", *, ipv6: str = "", **fields: Any) -> dict[str, Any]:
    """NETWORK of the control protocol. The gateway is the first address of the subnet."""
    told = {"id": name.encode().hex().ljust(64, "0")[:64], "name": name, "internal": False, "names": False, "icc": True}
    return {
        **told,
        "mtu": 65520,
        "egress": None,
        "ipv4": _addresses(ipv4),
        "ipv6": _addresses(ipv6),
        **fields,
    }


def _addresses(subnet: str) -> dict[str, str] | None:
    if not subnet:
        return None
    first = subnet.partition("/")[0]
    gateway = f"{first}1" if first.endswith(":") else f"{first.rpartition('.')[0]}.1"
    return {"subnet": subnet, "gateway": gateway, "range": ""}


def on(network: dict[str, Any], ipv4: str = "", **fields: Any) -> dict[str, Any]:
    """ENDPOINT of the control protocol."""
    asked = {"network": network, "ipv4": ipv4, "ipv6": "", "mac": "", "aliases": [], "gw_priority": 0, "previous": None}
    return asked | fields


def published(container_port: int, host_port: int = 0, *, host_ip: str = "", protocol: str = "tcp") -> dict[str, Any]:
    """PORT of the control protocol."""
    return {"protocol": protocol, "host_ip": host_ip, "host_port": host_port, "container_port": container_port}


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        status = Path(f"/proc/{pid}/status").read_text()
        pid = int(status.partition("PPid:")[2].split()[0])
        yield pid


def eventually(condition: Callable[[], object], seconds: float = 10) -> bool:
    """Wait until *condition* holds; whether it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
