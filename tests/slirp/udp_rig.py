"""A network with one container and the handlers of UDP and echo, in one process and one thread.

`alone` runs a test in a child that is root of a user namespace and has a network namespace of its own, which plays the
host: it has addresses of the outside world on its loopback device. The container's namespace is another; `inside` makes
sockets there, which any code can then use. Nothing moves unless the loop is turned: `Rig.until` does that until
something is so.
"""

import functools
import os
import select
import socket
import time
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import pytest

from slirp.icmp import Icmp
from slirp.links import Interface, NetworkLinks, Plan
from slirp.loop import Loop
from slirp.model import Model
from slirp.namespaces import new_network, run_in
from slirp.netlink import NETLINK_ROUTE, Netlink
from slirp.outward import Outward
from slirp.reassembly import Reassembly
from slirp.rtnetlink import add_address, set_up
from slirp.rules import Support, probe
from slirp.services import Services, Stock
from slirp.syscalls import CLONE_NEWNET, unshare
from slirp.transparent import make_sockets
from slirp.tun import Tun
from slirp.udp import Udp
from slirp.wire import ip

P = ParamSpec("P")
T = TypeVar("T")

CLONE_NEWUSER = 0x10000000
CONTAINER4, CONTAINER6 = "172.30.0.2", "fd00:30::2"
GATEWAY4, GATEWAY6 = "172.30.0.1", "fd00:30::1"
SUBNET4, SUBNET6 = "172.30.0.0/24", "fd00:30::/64"
WORLD4, WORLD6 = "203.0.113.9", "2001:db8::9"  # a server out there
CLIENT4, CLIENT6 = "203.0.113.77", "2001:db8::77"  # and somebody who calls
PATIENCE = 10.0


def alone(test: Callable[P, None]) -> Callable[P, None]:
    """The test, in a process and in namespaces of its own; what it asserts is reported here."""

    @functools.wraps(test)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        here, there = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(here)
            with os.fdopen(there, "w") as report:
                report.write(_outcome(lambda: test(*args, **kwargs)))
            os._exit(0)
        os.close(there)
        with os.fdopen(here) as report:
            outcome = report.read()
        os.waitpid(pid, 0)
        if outcome.startswith("skip "):
            pytest.skip(outcome[5:])
        assert outcome == "passed", outcome

    return wrapped


def _outcome(test: Callable[[], None]) -> str:
    try:
        _enter()
    except OSError as error:
        return f"skip no namespaces for this account: {error}"
    try:
        test()
    except pytest.skip.Exception as skipped:
        return f"skip {skipped}"
    except BaseException:
        return traceback.format_exc() or "failed"
    return "passed"


def _enter() -> None:
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    unshare(CLONE_NEWNET)
    netlink = Netlink(NETLINK_ROUTE)
    addresses = [f"{a}/32" for a in (WORLD4, CLIENT4)] + [f"{a}/128" for a in (WORLD6, CLIENT6)]
    netlink.run([set_up(1), *(add_address(1, address) for address in addresses)])
    netlink.close()


class Rig:
    """See above. *kernel* False plays a machine without tproxy."""

    def __init__(
        self,
        *,
        kernel: bool = True,
        mtu: int = 65520,
        internal: bool = False,
        egress: list[str] | None = None,
        host_loopback: bool = False,
    ) -> None:
        support = probe()
        if not support.filters:
            pytest.skip(f"no nftables: {support.reason}")
        if kernel and not support.tproxy:
            pytest.skip(f"no tproxy: {support.reason}")
        self.links = NetworkLinks(Plan(f"{GATEWAY4}/24", f"{GATEWAY6}/64", mtu, True), Support(True, kernel, ""))
        self.netns = new_network()
        self.links.attach(
            self.netns,
            Interface(
                *("eth0", "02:42:ac:1e:00:02", f"{CONTAINER4}/24", f"{CONTAINER6}/64", GATEWAY4, GATEWAY6, mtu, True)
            ),
        )
        self.log: list[str] = []
        self.loop = Loop(report=self.log.append)
        self.model = Model()
        network = {"id": "n" * 64, "name": "lan", "mtu": mtu, "kernel": kernel, "internal": internal}
        gateways = {"gateway4": GATEWAY4, "gateway6": GATEWAY6, "subnet4": SUBNET4, "subnet6": SUBNET6}
        self.network = self.model.add_network({**network, **gateways})
        place = {"network": "n" * 64, "ipv4": CONTAINER4, "ipv6": CONTAINER6, "default": not internal}
        container = {"id": "c" * 64, "name": "web", "egress": egress, "host_loopback": host_loopback}
        self.model.set_container({**container, "endpoints": [place]})
        self.tun = self.network.tun = Tun(self.links.fds["tun"], mtu)
        self.stock = Stock(self.loop, self._order)
        outward = Outward(self.model, self.loop, self.log.append)
        self.services = Services(self.loop, self.model, outward, self.log.append, self.stock)
        self.reassembly = Reassembly()
        self.udp, self.icmp = Udp(self.services), Icmp(self.services)
        self.packets = 0  # that came by the tun
        self.loop.watch(self.tun.fd, select.EPOLLIN, self._from_tun)
        for kind in ("udp4", "udp6"):
            self.stock.prepare(self.network.id, kind)
        self.turn()

    def inside(self, make: Callable[[], T]) -> T:
        """What *make* makes in the container."""
        return run_in(self.netns, make)

    def turn(self) -> None:
        """Serve what is there."""
        self.loop.turn(0.01)

    def until(self, condition: Callable[[], object]) -> None:
        """Turn the loop until it holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited {PATIENCE} s; log: {self.log}"
            self.turn()

    def answer(self, of: socket.socket) -> tuple[bytes, tuple[str, int]]:
        """The next datagram at *of* and its sender, the loop turning."""
        self.until(lambda: readable(of))
        data, sender = of.recvfrom(70000)
        return data, sender[:2]

    def path(self) -> str:
        """By which path the one UDP flow goes."""
        (flow,) = self.udp.flows()
        return str(flow["path"])

    def _order(self, network: str, kind: str, count: int) -> None:
        fds = make_sockets(self.links.netns_fd, kind, count)
        self.loop.later(0, lambda: self.stock.deliver(network, kind, fds))

    def _from_tun(self, _events: int) -> None:
        while (received := self.tun.receive()) is not None:
            self.packet(*received)

    def packet(self, header: bytes, data: memoryview) -> None:
        """What the stack does with a packet of the tun."""
        packet = ip.parse(data)
        endpoint = packet and self.model.endpoint(self.network, packet.source)
        if packet is None or endpoint is None:
            return
        self.packets += 1
        whole = self.reassembly.add(endpoint, packet, self.loop.now())
        if whole is not None and whole.protocol == 17:
            self.udp.packet(self.network, endpoint, whole, header)
        elif whole is not None and whole.protocol in (1, 58):
            self.icmp.packet(self.network, endpoint, whole, header)


def udp_socket(address: str, port: int = 0) -> socket.socket:
    """A UDP socket bound there, in the caller's namespace."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.setblocking(False)
    return made


def readable(one: socket.socket) -> bool:
    """Whether there is something to read, or an error."""
    return bool(select.select([one], [], [], 0)[0])
