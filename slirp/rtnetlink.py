"""Requests about links, addresses, routes and rules: rtnetlink(7). Kinds of attributes are numbers of the headers."""

import errno
import socket
import struct
from ipaddress import ip_address, ip_interface

from slirp.netlink import CREATE, REPLACE, Request, attribute, attributes_of, nested, number, request, text

# <linux/rtnetlink.h> and the headers it takes in
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETSTATS = 16, 17, 94
_RTM_NEWADDR, _RTM_NEWROUTE, _RTM_NEWNEIGH, _RTM_NEWRULE = 20, 24, 28, 32
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_TXQLEN, _IFLA_LINKINFO, _IFLA_NET_NS_FD = (
    1,
    3,
    4,
    10,
    13,
    18,
    28,
)
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_BR_FORWARD_DELAY, _IFLA_BR_STP_STATE, _IFLA_BR_MCAST_SNOOPING = 1, 5, 23
_IFLA_BRPORT_LEARNING, _IFLA_BRPORT_UNICAST_FLOOD, _IFLA_BRPORT_ISOLATED, _IFLA_BRPORT_LOCKED = 8, 9, 33, 39
_VETH_INFO_PEER = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 4, 5, 15
_FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE = 6, 10, 15
_NDA_LLADDR = 2
_IFF_UP = 1
_IFA_F_NODAD = 2
_NTF_MASTER, _NUD_NOARP = 4, 0x40
_RT_TABLE_MAIN, _RTPROT_BOOT = 254, 3
_RT_SCOPE_UNIVERSE, _RT_SCOPE_HOST = 0, 254
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_RTNH_F_ONLINK = 4
_FR_ACT_TO_TBL = 1
_STATS_LINK_64 = 1

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type of hardware, index, flags, which of them to change
_IFADDRMSG = struct.Struct("=BBBBI")  # family, length of the prefix, flags, scope, index
_RTMSG = struct.Struct("=BxxxBBBBI")  # family, lengths and service left out, table, protocol, scope, type, flags
_FIB_RULE_HDR = struct.Struct("=BxxxBxxBI")  # family, likewise, table, action, flags
_NDMSG = struct.Struct("=BxxxiHBx")  # family, index, state, flags
_IF_STATS_MSG = struct.Struct("=BxxxII")  # family, index, which statistics
_LINK_STATS64 = struct.Struct("=8Q")  # the beginning of struct rtnl_link_stats64
_COUNTERS = tuple(f"{way}_{what}" for what in ("packets", "bytes", "errors", "dropped") for way in ("rx", "tx"))
_NLMSGHDR = 16  # bytes


def family_of(address: str) -> int:
    """AF_INET or AF_INET6, for an address with or without its prefix length."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def add_bridge(index: int, name: str, mac: str, mtu: int) -> Request:
    """A bridge that learns no groups and speaks no spanning tree; down."""
    data = (number(_IFLA_BR_FORWARD_DELAY, 0), number(_IFLA_BR_STP_STATE, 0), _byte(_IFLA_BR_MCAST_SNOOPING, 0))
    attributes = (
        text(_IFLA_IFNAME, name),
        _mac(_IFLA_ADDRESS, mac),
        number(_IFLA_MTU, mtu),
        nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"), nested(_IFLA_INFO_DATA, *data)),
    )
    return request(f"bridge {name}", _RTM_NEWLINK, _link(index), *attributes, flags=CREATE)


def add_veth(index: int, name: str, master: int, mtu: int, peer: str, peer_mac: str, netns_fd: int) -> Request:
    """A veth pair, down: *name*, with this index, a port of the bridge *master*; *peer* in the other namespace."""
    other = (
        _link(0),
        text(_IFLA_IFNAME, peer),
        _mac(_IFLA_ADDRESS, peer_mac),
        number(_IFLA_MTU, mtu),
        number(_IFLA_NET_NS_FD, netns_fd),
    )
    data = nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, *other))
    attributes = (
        text(_IFLA_IFNAME, name),
        number(_IFLA_MTU, mtu),
        number(_IFLA_MASTER, master),
        nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "veth"), data),
    )
    return request(f"interface {peer}", _RTM_NEWLINK, _link(index), *attributes, flags=CREATE)


def set_port(index: int, *, isolated: bool) -> Request:
    """A bridge's port that knows the one address it is told, and gets no frame for another; up.

    Locked (Linux 5.18): no frame from another source address either; older kernels pass over the attribute.
    """
    data = (
        _byte(_IFLA_BRPORT_LEARNING, 0),
        _byte(_IFLA_BRPORT_UNICAST_FLOOD, 0),
        _byte(_IFLA_BRPORT_ISOLATED, int(isolated)),
        _byte(_IFLA_BRPORT_LOCKED, 1),
    )
    info = nested(_IFLA_LINKINFO, text(_IFLA_INFO_SLAVE_KIND, "bridge"), nested(_IFLA_INFO_SLAVE_DATA, *data))
    return request("bridge port", _RTM_NEWLINK, _link(index), info)


def set_up(index: int, *, mtu: int = 0, queue: int = 0) -> Request:
    """Bring a link up, with this MTU and so many packets in its queue where they are given."""
    attributes = [number(kind, value) for kind, value in ((_IFLA_MTU, mtu), (_IFLA_TXQLEN, queue)) if value]
    return request(f"link {index} up", _RTM_NEWLINK, _link(index, _IFF_UP), *attributes)


def remove_link(index: int) -> Request:
    """Remove a link; that it is gone already is no failure: its other end's namespace may have ended."""
    return request(f"remove link {index}", _RTM_DELLINK, _link(index), ignore=(errno.ENODEV,))


def add_address(index: int, address: str) -> Request:
    """Give a link *address*/PREFIX, at once: IPv6 without asking whether somebody else has it."""
    interface = ip_interface(address)
    attributes = [attribute(_IFA_LOCAL, interface.packed), attribute(_IFA_ADDRESS, interface.packed)]
    if interface.version == 4:
        attributes.append(attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed))
    flags = _IFA_F_NODAD if interface.version == 6 else 0
    header = _IFADDRMSG.pack(family_of(address), interface.network.prefixlen, flags, 0, index)
    return request(f"address {address}", _RTM_NEWADDR, header, *attributes, flags=CREATE)


def add_default_route(index: int, family: int, gateway: str = "") -> Request:
    """The default route: through *gateway*, which is on the link whatever its addresses say; or simply the link."""
    where = family, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, _RTNH_F_ONLINK if gateway else 0
    attributes = [number(_RTA_OIF, index), number(_RTA_TABLE, _RT_TABLE_MAIN)]
    if gateway:
        attributes.append(attribute(_RTA_GATEWAY, ip_address(gateway).packed))
    what = f"default route through {gateway or index}"
    return request(what, _RTM_NEWROUTE, _RTMSG.pack(*where), *attributes, flags=REPLACE)


def add_local_route(index: int, family: int, table: int) -> Request:
    """In *table*, every address is the machine's own."""
    header = _RTMSG.pack(family, table, _RTPROT_BOOT, _RT_SCOPE_HOST, _RTN_LOCAL, 0)
    attributes = number(_RTA_OIF, index), number(_RTA_TABLE, table)
    return request(f"local route in table {table}", _RTM_NEWROUTE, header, *attributes, flags=CREATE)


def add_mark_rule(family: int, mark: int, table: int, priority: int) -> Request:
    """Packets with *mark* are routed by *table*."""
    header = _FIB_RULE_HDR.pack(family, table, _FR_ACT_TO_TBL, 0)
    attributes = number(_FRA_PRIORITY, priority), number(_FRA_FWMARK, mark), number(_FRA_TABLE, table)
    return request(f"rule for mark {mark}", _RTM_NEWRULE, header, *attributes, flags=CREATE)


def add_forwarding_entry(index: int, mac: str) -> Request:
    """Frames to *mac* leave the bridge by this port, for good, and no longer by another that may be on its way out."""
    header = _NDMSG.pack(socket.AF_BRIDGE, index, _NUD_NOARP, _NTF_MASTER)
    return request(f"forwarding entry {mac}", _RTM_NEWNEIGH, header, _mac(_NDA_LLADDR, mac), flags=REPLACE)


def get_statistics() -> Request:
    """The counters of all links, to be dumped."""
    return request("statistics", _RTM_GETSTATS, _IF_STATS_MSG.pack(0, 0, 1 << _STATS_LINK_64 - 1))


def decode_statistics(message: bytes) -> tuple[int, dict[str, int]]:
    """Index of a link, and its counters (rx_bytes, rx_packets, rx_dropped, tx_bytes …); none where there are none."""
    _, index, _ = _IF_STATS_MSG.unpack_from(message, _NLMSGHDR)
    for kind, value in attributes_of(message[_NLMSGHDR + _IF_STATS_MSG.size :]):
        if kind == _STATS_LINK_64:
            return index, dict(zip(_COUNTERS, _LINK_STATS64.unpack_from(value), strict=True))
    return index, {}


def _link(index: int, flags: int = 0) -> bytes:
    """The header of a message about a link; of its flags, these are set."""
    return _IFINFOMSG.pack(0, 0, index, flags, flags)


def _byte(kind: int, value: int) -> bytes:
    return attribute(kind, bytes((value,)))


def _mac(kind: int, mac: str) -> bytes:
    return attribute(kind, bytes.fromhex(mac.replace(":", "")))
