"""A hub for tests of the stack: networks and containers of the kernel, around a real STACK process.

`Hub` starts this file as a program in user and network namespaces of its own. That namespace is the host in these
tests: 192.0.2.1 and 2001:db8::1 are its addresses, and some of its routes lead nowhere (UNREACHABLE …). The program
makes networks by slirp's own links.py, forks a STACK (slirp/stack.py, sandbox included), tells it what it is told, and
makes sockets in any of the namespaces, whose descriptors it sends: a test is plain code with sockets, some of which
happen to be a container's.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from slirp import channel

HOST, HOST6 = "192.0.2.1", "2001:db8::1"
CLIENT, CLIENT6 = "192.0.2.7", "2001:db8::7"  # more addresses of the host's: clients of published ports
UNREACHABLE, PROHIBITED, NO_NETWORK, SILENT = "198.51.100.1", "198.51.100.2", "203.0.113.1", "198.51.100.3"
UNREACHABLE6, SILENT6 = "2001:db8:1::1", "2001:db8:1::3"
LOOPBACK = "169.254.1.2"
PATIENCE = 10.0

_SETUP = f"""
link set lo up
link add host0 type bridge
link set host0 up mtu 65520
address add {HOST}/24 dev host0
address add {CLIENT}/24 dev host0
address add {HOST6}/64 dev host0 nodad
address add {CLIENT6}/64 dev host0 nodad
route add unreachable {UNREACHABLE}
route add prohibit {PROHIBITED}
route add {SILENT} dev host0 via 192.0.2.99 onlink
neighbour add 192.0.2.99 lladdr 02:00:00:00:00:99 dev host0
route add unreachable {UNREACHABLE6}
route add {SILENT6} dev host0 via 2001:db8::99 onlink
neighbour add 2001:db8::99 lladdr 02:00:00:00:00:99 dev host0
"""


def eventually(condition: Callable[[], Any], what: str = "what was waited for") -> Any:
    """The first true value of *condition*; an AssertionError after some seconds without one."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)
    return value


class Guest:
    """A container, as far as the stack knows: a network namespace with interfaces."""

    def __init__(self, hub: "Hub", name: str, told: dict[str, Any]) -> None:
        self.hub = hub
        self.name = name
        self.told = told

    def new_socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        """A socket of the container's, with a timeout that ends a test that hangs."""
        return self.hub.new_socket(kind, family, where=self.name)

    def connect(self, host: str, port: int) -> socket.socket:
        """A TCP connection out of the container."""
        sock = self.new_socket(family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            sock.connect((host, port))
        except OSError:
            sock.close()
            raise
        return sock

    def listen(self, port: int, family: int = socket.AF_INET) -> socket.socket:
        """A listening socket in the container."""
        sock = self.new_socket(family=family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
        sock.listen(2000)
        return sock


class Hub:
    """The test's side. *kernel*: whether STACK is to use transparent sockets; *descriptors*: how many it may have."""

    def __init__(self, *, kernel: bool = True, descriptors: int = 0) -> None:
        self._channel, theirs = channel.pair()
        self._channel.settimeout(PATIENCE)
        program = [sys.executable, "-B", "-m", "tests.support.stack_hub", str(theirs.fileno()), str(descriptors)]
        self._process = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--net", "--mount", *program],
            pass_fds=[theirs.fileno()],
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
        )
        theirs.close()
        self.kernel = kernel
        self._handle = 0

    def close(self) -> None:
        """End STACK and everything."""
        self._channel.close()
        self._process.wait(PATIENCE)

    def ask(self, op: str, fds: list[int] | None = None, **fields: Any) -> tuple[dict[str, Any], list[int]]:
        """One request to the program, and its answer."""
        channel.send(self._channel, {"op": op, **fields}, fds or [])
        answer, got = channel.receive(self._channel)
        assert answer is not None, "the hub of the test is dead"
        assert "error" not in answer, answer["error"]
        return answer, got

    def network(self, name: str = "net", *, ipv6: bool = True, mtu: int = 65520, icc: bool = True, **told: Any) -> None:
        """A network 172.30.N.0/24 and fd30:N::/64 (N counts from 0), with *told* beyond what there has to be."""
        self.ask("network", name=name, ipv6=ipv6, mtu=mtu, icc=icc, kernel=self.kernel, told=told)

    def guest(self, name: str = "guest", networks: tuple[str, ...] = ("net",), **told: Any) -> Guest:
        """A container with an interface on each network, the first of which is its way out."""
        told = {**self.ask("guest", name=name, networks=list(networks))[0], **told}
        self.tell("container", **told)
        return Guest(self, name, told)

    def tell(self, do: str, descriptors: list[int] | None = None, **fields: Any) -> None:
        """A message of the hub to STACK."""
        self.ask("tell", descriptors, message={"do": do, **fields})

    def publish(self, guest: Guest, port: int, *, host: str = "0.0.0.0", kind: str = "tcp") -> tuple[int, int]:
        """Publish *port* of a container; the handle, and the host's port."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = self.new_socket(socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM, family)
        sock.bind((host, 0))
        if kind == "tcp":
            sock.listen(1000)
        self._handle += 1
        host_port = sock.getsockname()[1]
        fields = {"container": guest.name, "protocol": kind, "container_port": port, "host_ip": host}
        with sock:
            self.tell("publish", [sock.fileno()], port=self._handle, host_port=host_port, fds=["listener"], **fields)
        return self._handle, host_port

    def new_socket(
        self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET, where: str = ""
    ) -> socket.socket:
        """A socket of the host's, or of the namespace *where*."""
        _, (fd,) = self.ask("new_socket", family=int(family), kind=int(kind), where=where)
        sock = socket.socket(family, kind, fileno=fd)
        sock.settimeout(PATIENCE)
        return sock

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> socket.socket:
        """A listening TCP socket of the host's."""
        sock = self.new_socket(family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.bind((host, port))
        sock.listen(2000)
        return sock

    def call(self, port: int, host: str = "127.0.0.1", source: str = "") -> socket.socket:
        """A TCP connection from the host to a published port."""
        sock = self.new_socket(family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            if source:
                sock.bind((source, 0))
            sock.connect((host, port))
        except OSError:
            sock.close()
            raise
        return sock

    def flows(self, container: str | None = None) -> list[dict[str, Any]]:
        """What STACK says of its flows."""
        flows: list[dict[str, Any]] = self.ask("flows", container=container)[0]["flows"]
        return flows

    def logs(self) -> list[str]:
        """What STACK has said so far."""
        lines: list[str] = self.ask("logs")[0]["lines"]
        return lines

    def status(self) -> dict[str, str]:
        """/proc/PID/status of STACK."""
        status: dict[str, str] = self.ask("status")[0]["status"]
        return status

    def in_guest(self, guest: Guest, *command: str) -> str:
        """What a command says that runs in the container's network namespace."""
        said: str = self.ask("command", where=guest.name, command=list(command))[0]["output"]
        return said


@contextlib.contextmanager
def running_hub(*, kernel: bool = True, descriptors: int = 0) -> Iterator[Hub]:
    """A hub with one network and nothing on it."""
    hub = Hub(kernel=kernel, descriptors=descriptors)
    try:
        hub.network()
        yield hub
    finally:
        hub.close()


# The program


class Program:
    """What `Hub` talks to."""

    def __init__(self, test: socket.socket, descriptors: int) -> None:
        self.stack, theirs = channel.pair()
        self.pid = _fork_stack(theirs, (test, self.stack), descriptors)  # before there is much in memory
        from slirp.loop import Loop
        from slirp.rules import probe

        for line in _SETUP.strip().splitlines():
            subprocess.run(["ip", *line.split()], check=True)
        self.loop = Loop()
        self.test = test
        self.support = probe()
        self.networks: dict[str, Any] = {}
        self.guests: dict[str, int] = {}
        self.lines: list[str] = []
        self.answered: list[dict[str, Any]] = []
        self.complete = False
        self.loop.watch(test.fileno(), select.EPOLLIN, self._asked)
        self.loop.watch(self.stack.fileno(), select.EPOLLIN, self._said)

    def _asked(self, events: int) -> None:
        request, fds = channel.receive(self.test)
        if request is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.loop.stop()
            return
        try:
            answer, sent = getattr(self, request.pop("op"))(request, fds)
        except Exception as error:
            answer, sent = {"error": repr(error)}, []
        channel.send(self.test, answer, sent)
        for fd in (*fds, *sent):
            os.close(fd)

    def _said(self, events: int) -> None:
        from slirp.transparent import make_sockets

        if not select.select([self.stack], [], [], 0)[0]:
            return  # read already, where flows were asked for
        message, _ = channel.receive(self.stack)
        if message is None:
            self.lines.append("STACK has ended")
            self.loop.unwatch(self.stack.fileno())
        elif message["do"] == "log":
            self.lines.append(message["line"])
        elif message["do"] == "answer":
            self.answered += message["flows"]
            self.complete = not message.get("more")
        elif message["do"] == "sockets":
            netns_fd = self.networks[message["network"]][1].netns_fd
            left = message["count"]
            while left:
                made = make_sockets(netns_fd, message["kind"], min(left, 60))
                left -= len(made)
                self._tell({"do": "sockets", "network": message["network"], "kind": message["kind"]}, made)

    def _tell(self, message: dict[str, Any], fds: list[int]) -> None:
        channel.send(self.stack, message, fds)
        for fd in fds:
            os.close(fd)

    def network(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        from slirp.links import NetworkLinks, Plan

        number = len(self.networks)
        gateway4 = f"172.30.{number}.1"
        gateway6 = f"fd30:{number}::1" if request["ipv6"] else ""
        kernel = request["kernel"] and self.support.tproxy
        plan = Plan(f"{gateway4}/24", gateway6 and f"{gateway6}/64", request["mtu"], request["icc"])
        links = NetworkLinks(plan, self.support._replace(tproxy=kernel))
        self.networks[request["name"]] = (number, links, bool(gateway6))
        told = {
            "do": "network",
            "id": request["name"],
            "name": request["name"],
            "gateway4": gateway4,
            "gateway6": gateway6,
            "subnet4": f"172.30.{number}.0/24",
            "subnet6": f"fd30:{number}::/64" if gateway6 else "",
            "kernel": kernel,
            "mtu": request["mtu"],
            "fds": list(links.fds),
            **request["told"],
        }
        channel.send(self.stack, told, list(links.fds.values()))
        return {}, []

    def guest(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        from slirp.links import Interface
        from slirp.namespaces import new_network, run_in

        netns_fd = new_network()
        run_in(netns_fd, lambda: subprocess.run(["ip", "link", "set", "lo", "up"], check=True))
        self.guests[request["name"]] = netns_fd
        place = len(self.guests) + 1
        endpoints = []
        for at, name in enumerate(request["networks"]):
            number, links, ipv6 = self.networks[name]
            ipv4, address6 = f"172.30.{number}.{place}", f"fd30:{number}::{place}" if ipv6 else ""
            interface = Interface(
                f"eth{at}",
                f"02:42:ac:1e:{number:02x}:{place:02x}",
                f"{ipv4}/24",
                address6 and f"{address6}/64",
                f"172.30.{number}.1",
                f"fd30:{number}::1" if ipv6 else "",
                links.plan.mtu,
                at == 0,
            )
            links.attach(netns_fd, interface)
            endpoints.append({"network": name, "ipv4": ipv4, "ipv6": address6, "default": at == 0})
        name = request["name"]
        return {"id": name, "name": name, "host_loopback": True, "endpoints": endpoints}, []

    def tell(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        channel.send(self.stack, request["message"], fds)
        return {}, []

    def new_socket(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        from slirp.namespaces import run_in

        family, kind = request["family"], request["kind"]
        if not request["where"]:
            made = socket.socket(family, kind)
        elif request["where"] in self.guests:
            made = run_in(self.guests[request["where"]], lambda: socket.socket(family, kind))
        else:
            made = run_in(self.networks[request["where"]][1].netns_fd, lambda: socket.socket(family, kind))
        return {}, [made.detach()]

    def flows(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        self.answered, self.complete = [], False
        channel.send(self.stack, {"do": "ask", "tag": 1, "what": "flows", "container": request["container"]})
        while not self.complete and not any("ended" in line for line in self.lines):
            select.select([self.stack], [], [])
            self._said(0)
        return {"flows": self.answered}, []

    def logs(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        return {"lines": self.lines}, []

    def status(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        with open(f"/proc/{self.pid}/status") as file:
            status = dict(line.strip().split(":\t", 1) for line in file if ":\t" in line)
        return {"status": {**status, "Pid": str(self.pid)}}, []

    def command(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        from slirp.namespaces import run_in

        where = request["where"]
        netns_fd = self.guests[where] if where in self.guests else self.networks[where][1].netns_fd
        done = run_in(netns_fd, lambda: subprocess.run(request["command"], capture_output=True, text=True, timeout=60))
        return {"output": done.stdout + done.stderr}, []


def _fork_stack(theirs: socket.socket, others: tuple[socket.socket, ...], descriptors: int) -> int:
    pid = os.fork()
    if pid:
        theirs.close()
        return pid
    try:
        for other in others:
            other.close()
        if descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        from slirp import sandbox, stack

        sandbox.die_with_parent(os.getppid())
        stack.main(theirs)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    Program(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])).loop.run()
