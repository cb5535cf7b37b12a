"""Requests about links, addresses, routes and rules, as pyroute2 encodes them: rtnetlink(7)."""

import errno
import socket
from ipaddress import ip_interface

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ifstatsmsg import ifstatsmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from slirp.netlink import CREATE, REPLACE, Request, request

# <linux/rtnetlink.h> and the headers it takes in
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETSTATS = 16, 17, 94
_RTM_NEWADDR, _RTM_NEWROUTE, _RTM_NEWNEIGH, _RTM_NEWRULE = 20, 24, 28, 32
_IFF_UP = 1
_IFA_F_NODAD = 2
_NTF_MASTER, _NUD_NOARP = 4, 0x40
_RT_TABLE_MAIN, _RTPROT_BOOT = 254, 3
_RT_SCOPE_UNIVERSE, _RT_SCOPE_HOST = 0, 254
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_RTNH_F_ONLINK = 4
_FR_ACT_TO_TBL = 1
_STATS_LINK_64 = 1

_UP = {"flags": _IFF_UP, "change": _IFF_UP}


def family_of(address: str) -> int:
    """AF_INET or AF_INET6, for an address with or without its prefix length."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def add_bridge(index: int, name: str, mac: str, mtu: int) -> Request:
    """A bridge that learns no groups and speaks no spanning tree; down."""
    data = [("IFLA_BR_FORWARD_DELAY", 0), ("IFLA_BR_STP_STATE", 0), ("IFLA_BR_MCAST_SNOOPING", 0)]
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac),
        ("IFLA_MTU", mtu),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": data})]}),
    ]
    return request(f"bridge {name}", _RTM_NEWLINK, ifinfmsg(), attributes, {"index": index}, flags=CREATE)


def add_veth(index: int, name: str, master: int, mtu: int, peer: str, peer_mac: str, netns_fd: int) -> Request:
    """A veth pair, down: *name*, with this index, a port of the bridge *master*; *peer* in the other namespace."""
    other = [
        ("IFLA_IFNAME", peer),
        ("IFLA_ADDRESS", peer_mac),
        ("IFLA_MTU", mtu),
        ("IFLA_NET_NS_FD", netns_fd),
    ]
    data = [("VETH_INFO_PEER", {"attrs": other})]
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", mtu),
        ("IFLA_MASTER", master),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": data})]}),
    ]
    return request(f"interface {peer}", _RTM_NEWLINK, ifinfmsg(), attributes, {"index": index}, flags=CREATE)


def set_port(index: int, *, isolated: bool) -> Request:
    """A bridge's port that knows the one address it is told, and gets no frame for another; up.

    Locked (Linux 5.18): no frame from another source address either; older kernels pass over the attribute.
    """
    data = [
        ("IFLA_BRPORT_LEARNING", 0),
        ("IFLA_BRPORT_UNICAST_FLOOD", 0),
        ("IFLA_BRPORT_ISOLATED", int(isolated)),
        ("IFLA_BRPORT_LOCKED", 1),
    ]
    info = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": data})]
    attributes: list[tuple[str, object]] = [("IFLA_LINKINFO", {"attrs": info})]
    return request("bridge port", _RTM_NEWLINK, ifinfmsg(), attributes, {"index": index})


def set_up(index: int, *, mtu: int = 0, queue: int = 0) -> Request:
    """Bring a link up, with this MTU and so many packets in its queue where they are given."""
    attributes: list[tuple[str, object]] = []
    if mtu:
        attributes.append(("IFLA_MTU", mtu))
    if queue:
        attributes.append(("IFLA_TXQLEN", queue))
    return request(f"link {index} up", _RTM_NEWLINK, ifinfmsg(), attributes, {"index": index, **_UP})


def remove_link(index: int) -> Request:
    """Remove a link; that it is gone already is no failure: its other end's namespace may have ended."""
    return request(f"remove link {index}", _RTM_DELLINK, ifinfmsg(), fields={"index": index}, ignore=(errno.ENODEV,))


def add_address(index: int, address: str) -> Request:
    """Give a link *address*/PREFIX, at once: IPv6 without asking whether somebody else has it."""
    interface = ip_interface(address)
    attributes: list[tuple[str, object]] = [("IFA_LOCAL", str(interface.ip)), ("IFA_ADDRESS", str(interface.ip))]
    if interface.version == 4:
        attributes.append(("IFA_BROADCAST", str(interface.network.broadcast_address)))
    fields = {"index": index, "family": family_of(address), "prefixlen": interface.network.prefixlen}
    if interface.version == 6:
        fields["flags"] = _IFA_F_NODAD
    return request(f"address {address}", _RTM_NEWADDR, ifaddrmsg(), attributes, fields, flags=CREATE)


def add_default_route(index: int, family: int, gateway: str = "") -> Request:
    """The default route: through *gateway*, which is on the link whatever its addresses say; or simply the link."""
    attributes: list[tuple[str, object]] = [("RTA_OIF", index), ("RTA_TABLE", _RT_TABLE_MAIN)]
    fields = {
        "family": family,
        "table": _RT_TABLE_MAIN,
        "proto": _RTPROT_BOOT,
        "scope": _RT_SCOPE_UNIVERSE,
        "type": _RTN_UNICAST,
    }
    if gateway:
        attributes.append(("RTA_GATEWAY", gateway))
        fields["flags"] = _RTNH_F_ONLINK
    what = f"default route through {gateway or index}"
    return request(what, _RTM_NEWROUTE, rtmsg(), attributes, fields, flags=REPLACE)


def add_local_route(index: int, family: int, table: int) -> Request:
    """In *table*, every address is the machine's own."""
    attributes: list[tuple[str, object]] = [("RTA_OIF", index), ("RTA_TABLE", table)]
    fields = {
        "family": family,
        "table": table,
        "proto": _RTPROT_BOOT,
        "scope": _RT_SCOPE_HOST,
        "type": _RTN_LOCAL,
    }
    return request(f"local route in table {table}", _RTM_NEWROUTE, rtmsg(), attributes, fields, flags=CREATE)


def add_mark_rule(family: int, mark: int, table: int, priority: int) -> Request:
    """Packets with *mark* are routed by *table*."""
    attributes: list[tuple[str, object]] = [
        ("FRA_PRIORITY", priority),
        ("FRA_FWMARK", mark),
        ("FRA_TABLE", table),
    ]
    fields = {"family": family, "table": table, "action": _FR_ACT_TO_TBL}
    return request(f"rule for mark {mark}", _RTM_NEWRULE, fibmsg(), attributes, fields, flags=CREATE)


def add_forwarding_entry(index: int, mac: str) -> Request:
    """Frames to *mac* leave the bridge by this port, for good, and no longer by another that may be on its way out."""
    fields = {"family": socket.AF_BRIDGE, "ifindex": index, "state": _NUD_NOARP, "flags": _NTF_MASTER}
    attributes: list[tuple[str, object]] = [("NDA_LLADDR", mac)]
    return request(f"forwarding entry {mac}", _RTM_NEWNEIGH, ndmsg(), attributes, fields, flags=REPLACE)


def get_statistics() -> Request:
    """The counters of all links, to be dumped."""
    return request("statistics", _RTM_GETSTATS, ifstatsmsg(), fields={"filter_mask": _STATS_LINK_64})


def decode_statistics(message: bytes) -> tuple[int, dict[str, int]]:
    """Index of a link, and its counters (rx_bytes, rx_packets, rx_dropped, tx_bytes …)."""
    decoded = ifstatsmsg(message)
    decoded.decode()
    return decoded["ifindex"], decoded.get_attr("IFLA_STATS_LINK_64")
