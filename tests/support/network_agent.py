"""The inside of network.py's machine: a process that is root there, and does there what the tests ask for.

    python network_agent.py FD

FD is a SOCK_SEQPACKET socket (slirp/channel.py) that each request and answer goes over; at its end everything that was
started here is killed. The machine is made of two user namespaces, as on a real one: that of its administrator, which
its network belongs to, and within it that of a user, where slirp and the containers are. Next to the machine is the
world: a router with hosts behind it, some of which cannot be reached, each in its own way.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

from rootless.linux.namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, bring_up_loopback, setns, unshare
from slirp import channel

MACHINE = """
link set lo up
link set ext0 up
addr add 203.0.113.10/24 dev ext0
addr add 2001:db8::10/64 dev ext0 nodad
route add default via 203.0.113.1
route add default via 2001:db8::1
"""
WORLD = """
link set lo up
link set w0 up
addr add 203.0.113.1/24 dev w0
addr add 2001:db8::1/64 dev w0 nodad
addr add 198.51.100.1/32 dev lo
addr add 2001:db8:1::1/128 dev lo nodad
route add unreachable 192.0.2.0/26
route add prohibit 192.0.2.64/26
route add blackhole 192.0.2.128/25
route add unreachable 2001:db8:2::/64
route add blackhole 2001:db8:3::/64
"""
FORWARD = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


class Agent:
    """Serves the requests."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.children: list[int] = []
        self.net_fd, self.user_fd, self.world_fd = -1, -1, -1

    def become(self) -> None:
        """Make the machine; the test maps our ids in between."""
        unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)
        channel.send(self.sock, {"ok": True})
        channel.receive(self.sock)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        self.net_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.user_fd = self._make_user()
        self.world_fd = self._make_world()
        _write("/proc/sys/net/ipv4/ping_group_range", f"0 {_mapped_ids() - 1}")

    def serve(self) -> None:
        """Until the test closes its end."""
        while True:
            message, fds = channel.receive(self.sock)
            if message is None:
                return
            try:
                answer, out = getattr(self, f"do_{message.pop('op')}")(fds, **message)
            except OSError as error:
                answer, out = {"ok": False, "errno": error.errno or 0, "error": str(error)}, []
            except Exception:
                answer, out = {"ok": False, "errno": 0, "error": traceback.format_exc()[-4000:]}, []
            channel.send(self.sock, {"ok": True, **answer}, out)
            for fd in (*fds, *out):
                os.close(fd)

    def end(self) -> None:
        """Kill what is left."""
        for pid in self.children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def do_socket(
        self,
        fds: list[int],
        *,
        family: int,
        kind: int,
        protocol: int,
        bind: list[Any] | None,
        options: list[list[int]],
    ) -> tuple[dict[str, Any], list[int]]:
        """A socket of the network namespace that came along, or of the machine's."""
        if fds:
            setns(fds[0], CLONE_NEWNET)
        try:
            sock = socket.socket(family, kind, protocol)
            try:
                for level, name, value in options:
                    sock.setsockopt(level, name, value)
                if bind:
                    sock.bind(tuple(bind))
            except BaseException:
                sock.close()
                raise
        finally:
            setns(self.net_fd, CLONE_NEWNET)
        return {}, [sock.detach()]

    def do_netns(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """A network namespace of the user's, as a container has one."""

        def make() -> int:
            setns(self.user_fd, CLONE_NEWUSER)
            unshare(CLONE_NEWNET)
            bring_up_loopback()
            return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        return {}, [_from_child(make)]

    def do_world(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """The network namespace of the world, and of the machine."""
        return {}, [os.dup(self.world_fd), os.dup(self.net_fd)]

    def do_file(self, fds: list[int], *, path: str, source: str) -> tuple[dict[str, Any], list[int]]:
        """Show *source* at *path*."""
        subprocess.run(["mount", "--bind", source, path], check=True)
        return {}, []

    def do_spawn(self, fds: list[int], *, argv: list[str], env: dict[str, str]) -> tuple[dict[str, Any], list[int]]:
        """Start a program as root of the user's namespace; the descriptors become its 0, 1, 2, 3 …"""
        pid = os.fork()
        if pid == 0:
            try:
                self._exec(fds, argv, env)
            finally:
                os._exit(126)
        self.children.append(pid)
        return {"pid": pid}, []

    def _exec(self, fds: list[int], argv: list[str], env: dict[str, str]) -> None:
        setns(self.user_fd, CLONE_NEWUSER)
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        high = [os.dup2(fd, 100 + number) for number, fd in enumerate(fds)]
        for target, fd in enumerate(high):
            os.dup2(fd, target)
        os.closerange(len(fds), 200)
        os.execve(argv[0], argv, env)

    def _make_user(self) -> int:
        """The user's namespace: all of our ids, under the same numbers."""
        count = _mapped_ids()

        def make() -> int:
            unshare(CLONE_NEWUSER)
            return os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)

        def map_ids(pid: int) -> None:
            if count == 1:
                _write(f"/proc/{pid}/setgroups", "deny")
            _write(f"/proc/{pid}/uid_map", f"0 0 {count}")
            _write(f"/proc/{pid}/gid_map", f"0 0 {count}")

        return _from_child(make, map_ids)

    def _make_world(self) -> int:
        def make() -> int:
            unshare(CLONE_NEWNET)
            return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        def connect(pid: int) -> None:
            _ip(f"link add ext0 mtu 1500 type veth peer name w0 mtu 1500 netns {pid}")

        _settle_at_once("default")
        fd = _from_child(make, connect)
        setns(fd, CLONE_NEWNET)
        _settle_at_once("w0")
        for name in FORWARD:
            _write(f"/proc/sys/{name}", "1")
        _ip(WORLD)
        setns(self.net_fd, CLONE_NEWNET)
        _ip(MACHINE)
        return fd


def _from_child(make: Callable[[], int], meanwhile: Callable[[int], None] | None = None) -> int:
    """The descriptor that *make* opens in a child; the child lives until *meanwhile* has been called with its pid."""
    here, there = channel.pair()
    pid = os.fork()
    if pid == 0:
        try:
            here.close()
            channel.send(there, {}, [make()])
            channel.receive(there)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    there.close()
    try:
        _, fds = channel.receive(here)
        if meanwhile:
            meanwhile(pid)
        return fds[0]
    finally:
        here.close()


def _settle_at_once(interface: str) -> None:
    """Nobody else has its addresses: do not wait a second to find out."""
    _write(f"/proc/sys/net/ipv6/conf/{interface}/accept_dad", "0")


def _ip(commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True)


def _mapped_ids() -> int:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return int(file.readline().split()[2])


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def main() -> None:
    """Be the agent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    agent = Agent(socket.socket(fileno=int(sys.argv[1])))
    try:
        agent.become()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        channel.send(agent.sock, {"ok": True})
        agent.serve()
    finally:
        agent.end()


if __name__ == "__main__":
    main()
