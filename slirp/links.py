"""The kernel's part of one network: its namespace, the bridge, the way out and the containers' ports.

    container A        the network's own namespace                     container B
      eth0 ═══════ v10 ┐                                        ┌ v11 ═══════ eth0
                       └─ br0 (the gateway's addresses) ────────┘
                           └─ routing ─ out (a tun device, whose other side is the stack)

Everything is in a namespace of its own, so networks cannot reach one another, and closing its descriptors removes it.
We choose the indices of the links (BRIDGE, TUN, and upwards from _FIRST_PORT), so that one batch of requests can make a
link and go on with it, and the rules can know a port before it is there.

Without nftables the bridge still keeps MAC addresses apart (set_port), while addresses in packets can be forged.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from ipaddress import ip_address, ip_interface
from typing import NamedTuple

from slirp.namespaces import new_network, run_in, start_in, write_sysctls
from slirp.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Netlink, Request
from slirp.rtnetlink import (
    add_address,
    add_bridge,
    add_default_route,
    add_forwarding_entry,
    add_veth,
    decode_statistics,
    family_of,
    get_statistics,
    remove_link,
    set_port,
    set_up,
)
from slirp.rules import (
    BRIDGE,
    LISTENER4,
    LISTENER6,
    LISTENER_PORT,
    LO,
    TUN,
    Owner,
    Support,
    add_owner,
    mark_routing,
    network_rules,
    remove_owner,
)
from slirp.transparent import dns_sockets, listener

_FIRST_PORT = 10
_LINK_LOCAL = "fe80::1/64"  # of the bridge: where a packet is not from itself, the kernel asks for neighbours with this
_BRIDGE_MAC = "02:42:00:00:00:01"  # the same on each network: they never meet
_QUEUE = 4096  # packets that wait for the stack; what their senders' sockets may hold bounds the memory

# <linux/if_tun.h>
_TUNSETIFF, _TUNSETOFFLOAD, _TUNSETVNETHDRSZ, _TUNSETIFINDEX = 0x400454CA, 0x400454D0, 0x400454D8, 0x400454DA
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6 = 1, 2, 4
_VNET_HEADER = 10
_SIOCGIFHWADDR = 0x8927  # <linux/sockios.h>

# By name below /proc/sys/net. What the host has set for links in general, a namespace begins with, whatever it is.
_SYSCTLS = {
    "ipv4/ip_forward": "1",
    "ipv4/ip_unprivileged_port_start": "0",  # the stack, without capabilities, binds sockets to the servers' ports
    # None in TIME-WAIT: a container that uses its port again would be answered for the connection before, and wait for
    # a second. The wires here lose nothing that could come late, and each end has a TIME-WAIT of its own further on.
    "ipv4/tcp_max_tw_buckets": "0",
    "ipv6/conf/all/forwarding": "1",
    "ipv6/conf/lo/disable_ipv6": "0",  # marked packets are routed to it
    "ipv6/conf/default/disable_ipv6": "1",  # for the ports, which have no addresses
    # br_netfilter would send bridged packets through the rules for routed ones.
    "bridge/bridge-nf-call-iptables": "0",
    "bridge/bridge-nf-call-ip6tables": "0",
    "bridge/bridge-nf-call-arptables": "0",
}
_IPV4_OFF = (
    "rp_filter",  # what comes back from the tun has its sender behind the bridge
    "send_redirects",
    "accept_redirects",
    "accept_source_route",
    "accept_local",
    "route_localnet",  # or 127.0.0.1, where the listener is, could be addressed
    "proxy_arp",
    "arp_filter",
    "arp_ignore",
)


class Plan(NamedTuple):
    """What the network is to be. Gateways as ADDRESS/PREFIX, "" where there are none; *icc*: containers may talk."""

    gateway4: str
    gateway6: str
    mtu: int
    icc: bool


class Interface(NamedTuple):
    """A container's end: addresses as ADDRESS/PREFIX or "", gateways without prefix; *default*: it is the way out.

    *sysctls* are written in the container's namespace, as write_sysctls() takes them.
    """

    name: str
    mac: str
    ipv4: str
    ipv6: str
    gateway4: str
    gateway6: str
    mtu: int
    default: bool
    sysctls: Mapping[str, str] = {}


class NetworkLinks:
    """A network, up and running. *fds* are what the stack needs of it, by the names that channel.py has for them.

    Raises OSError if the kernel does not allow something, and then nothing is left.
    """

    def __init__(self, plan: Plan, support: Support) -> None:
        self.plan = plan
        self.support = support
        self.fds: dict[str, int] = {}
        self._owners: dict[int, Owner] = {}
        self._next_port = _FIRST_PORT
        self._route: Netlink | None = None
        self._netfilter: Netlink | None = None
        self.netns_fd = new_network()
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of everything; the namespace ends once the stack has closed its copies, too."""
        for netlink in (self._route, self._netfilter):
            if netlink:
                netlink.close()
        for fd in (*self.fds.values(), self.netns_fd):
            if fd >= 0:
                os.close(fd)
        self.fds.clear()
        self._owners.clear()
        self._route, self._netfilter, self.netns_fd = None, None, -1

    def attach(self, netns_fd: int, interface: Interface) -> int:
        """Give the namespace of *netns_fd* an interface on this network, up and with its addresses and routes.

        Returns the port, for detach() and statistics(). Raises OSError, and then nothing is left of it.
        """
        port = self._next_port
        self._next_port += 1
        try:
            self._open_port(port, netns_fd, interface)
            _furnish(netns_fd, interface)
        except BaseException:
            self.detach(port)
            raise
        return port

    def detach(self, port: int, *, wait: bool = True) -> None:
        """Remove a container's interface; that it went with the container is no failure.

        The kernel takes some 10 to 40 ms for it, unless it is gone. Without *wait* that is a thread's matter, and what
        the rules let through is over at once.
        """
        owner = self._owners.pop(port, None)
        if owner is None:
            return
        try:
            if self._netfilter:
                self._netfilter.transaction(remove_owner(owner))
        finally:
            if wait:
                self._routes().run([remove_link(port)])
            else:
                start_in(self.netns_fd, lambda: _run_here([remove_link(port)]))

    def statistics(self) -> dict[int, dict[str, int]]:
        """Counters of each port (rx_bytes, rx_packets, rx_dropped, tx_bytes …), as the container sees them."""
        seen = {}
        for message in self._routes().dump(get_statistics()):
            index, counters = decode_statistics(message)
            if index in self._owners:
                seen[index] = _from_the_other_end(counters)
        return seen

    def _build(self) -> None:
        self._route = run_in(self.netns_fd, lambda: Netlink(NETLINK_ROUTE))
        self._route.run([add_bridge(BRIDGE, "br0", _BRIDGE_MAC, self.plan.mtu)])
        run_in(self.netns_fd, self._configure)
        self._route.run(self._links_and_routes())
        if self.support.filters:
            self._netfilter = run_in(self.netns_fd, lambda: Netlink(NETLINK_NETFILTER))
            self._netfilter.transaction(network_rules(tproxy=self.support.tproxy))
        run_in(self.netns_fd, self._listen)

    def _configure(self) -> None:
        write_sysctls(_SYSCTLS)
        write_sysctls({f"ipv4/conf/{link}/{name}": "0" for link in ("all", "default", "br0") for name in _IPV4_OFF})
        self.fds["tun"] = _open_tun("out", TUN)
        disable = "0" if self.plan.gateway6 else "1"
        for link in ("br0", "out"):
            here = f"ipv6/conf/{link}"
            write_sysctls({f"{here}/addr_gen_mode": "1", f"{here}/accept_ra": "0", f"{here}/disable_ipv6": disable})

    def _links_and_routes(self) -> list[Request]:
        gateways = self._gateways()
        addresses = [*gateways, _LINK_LOCAL] if self.plan.gateway6 else gateways
        families = [family_of(gateway) for gateway in gateways]
        return [
            set_up(LO),
            set_up(BRIDGE),
            set_up(TUN, mtu=self.plan.mtu, queue=_QUEUE),
            *(add_address(BRIDGE, address) for address in addresses),
            *(add_default_route(TUN, family) for family in families),
            *(mark_routing(families) if self.support.tproxy else ()),
        ]

    def _listen(self) -> None:
        for gateway in self._gateways():
            self.fds.update(dns_sockets(str(ip_interface(gateway).ip)))
            if self.support.tproxy:
                self.fds.update(listener(LISTENER6 if ":" in gateway else LISTENER4, LISTENER_PORT))

    def _gateways(self) -> list[str]:
        return [gateway for gateway in (self.plan.gateway4, self.plan.gateway6) if gateway]

    def _open_port(self, port: int, netns_fd: int, interface: Interface) -> None:
        owner = _owner(port, interface)
        self._owners[port] = owner
        if self._netfilter:
            self._netfilter.transaction(add_owner(owner))
        pair = add_veth(port, f"v{port}", BRIDGE, interface.mtu, interface.name, interface.mac, netns_fd)
        try:
            self._routes().run([pair])
        except FileExistsError:
            if not run_in(netns_fd, lambda: _remove_predecessor(interface)):
                raise
            self._routes().run([pair])
        isolated = not self.plan.icc
        self._routes().run([set_port(port, isolated=isolated), add_forwarding_entry(port, interface.mac), set_up(port)])

    def _routes(self) -> Netlink:
        if self._route is None:
            raise OSError(errno.EBADF, "the network has been removed")
        return self._route


def route_through(netns_fd: int, interface: Interface) -> None:
    """Make *interface*, which is there already, the container's way out."""

    def route() -> None:
        index = socket.if_nametoindex(interface.name)
        _run_here(_default_routes(index, interface))

    run_in(netns_fd, route)


def _furnish(netns_fd: int, interface: Interface) -> None:
    """What happens in the container's namespace, once the interface is there."""

    def furnish() -> None:
        here = f"ipv6/conf/{interface.name}"
        write_sysctls(
            {
                f"{here}/disable_ipv6": "0" if interface.ipv6 else "1",
                f"{here}/accept_ra": "0",
                f"{here}/accept_dad": "0",
                f"{here}/use_tempaddr": "0",
                f"{here}/addr_gen_mode": "0",  # fe80::… from the MAC: the one that the rules let through
                **interface.sysctls,
            }
        )
        index = socket.if_nametoindex(interface.name)
        addresses = [address for address in (interface.ipv4, interface.ipv6) if address]
        requests = [add_address(index, address) for address in addresses]
        requests.append(set_up(index))
        if interface.default:
            requests += _default_routes(index, interface)
        _run_here(requests)

    run_in(netns_fd, furnish)


def _remove_predecessor(interface: Interface) -> bool:
    """Whether *interface* itself was there, from a hub that has been killed: the kernel takes its time to remove it."""
    try:
        index = socket.if_nametoindex(interface.name)
    except OSError:
        return True  # it has just gone
    if _mac_here(interface.name) != interface.mac:
        return False
    _run_here([remove_link(index)])
    return True


def _mac_here(name: str) -> str:
    """The MAC of a link in this thread's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, _SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))
    return answer[18:24].hex(":")


def _run_here(requests: list[Request]) -> None:
    """Requests in the namespace of this thread."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        netlink.run(requests)
    finally:
        netlink.close()


def _default_routes(index: int, interface: Interface) -> list[Request]:
    gateways = [gateway for gateway in (interface.gateway4, interface.gateway6) if gateway]
    return [add_default_route(index, family_of(gateway), gateway) for gateway in gateways]


def _owner(port: int, interface: Interface) -> Owner:
    mac = bytes.fromhex(interface.mac.replace(":", ""))
    addresses = [ip_interface(address).packed for address in (interface.ipv4, interface.ipv6) if address]
    if interface.ipv6:
        addresses.append(_link_local(mac))
    return Owner(port, mac, tuple(addresses))


def _link_local(mac: bytes) -> bytes:
    """The address fe80::… that the kernel makes of a MAC: RFC 4291, appendix A."""
    return ip_address("fe80::").packed[:8] + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]


def _open_tun(name: str, index: int) -> int:
    """The stack's side of a tun device with virtio headers and large packets, in this thread's namespace."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFINDEX, struct.pack("=I", index))
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("=16sH22x", name.encode(), flags))
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("=i", _VNET_HEADER))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6)
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, f"tun device {name}: {error.strerror}") from None
    return fd


def _from_the_other_end(counters: dict[str, int]) -> dict[str, int]:
    swapped = {}
    for name, value in counters.items():
        direction, _, what = name.partition("_")
        if direction in ("rx", "tx") and what in ("bytes", "packets", "dropped", "errors"):
            swapped[f"{'tx' if direction == 'rx' else 'rx'}_{what}"] = value
    return swapped
