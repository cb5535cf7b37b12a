"""The nftables rules of a network's namespace: nobody pretends to be another, nothing comes in unasked.

    table bridge slirp                 every frame that enters by a container's port, before the bridge looks at it
      set addresses4, addresses6       (port . MAC . address) of each container: attaching adds to it, detaching removes
      prerouting                       IP, ARP and IPv6 alone, from the port's own MAC and address; no router's and no
                                       DHCP server's messages; an IPv6 neighbour speaks for its own address
    table inet slirp
      prerouting                       a SYN that the stack writes to the tun goes to the transparent listener, packets
                                       of connections so made go to their sockets (mark 1 → routing table 100)
      input                            from containers: DNS, echo, neighbours, and what belongs to our own sockets
      forward                          between bridge and tun, and nowhere else

Connection tracking is not used: `socket transparent` finds the packets of our sockets, and is cheaper. Links are
compared by index, since links.py decides these.

Frames to 01:80:c2:00:00:0X pass the bridge's prerouting by and come in by the port itself (br_handle_frame): that is
why input, forward and prerouting name the bridge, and drop what is from elsewhere.
"""

import functools
import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_address
from typing import NamedTuple

from slirp import nft
from slirp.namespaces import new_network, run_in
from slirp.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Netlink, Request
from slirp.rtnetlink import add_local_route, add_mark_rule, set_up

TABLE = "slirp"
LO, BRIDGE, TUN = 1, 2, 3  # indices of the links in a network's namespace
# Where the transparent listeners are, in each network's namespace: a container cannot send anything to its loopback.
LISTENER4, LISTENER6, LISTENER_PORT = "127.0.0.1", "::1", 1
MARK, MARK_TABLE, MARK_PRIORITY = 1, 100, 100

_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_ETHERTYPE_IP, _ETHERTYPE_ARP, _ETHERTYPE_IPV6 = b"\x08\x00", b"\x08\x06", b"\x86\xdd"
_PRIORITY_FIRST, _PRIORITY_MANGLE, _PRIORITY_FILTER = -300, -150, 0
_SYN, _SYN_ACK = b"\x02", b"\x12"
_ARP_ETHERNET_IP = bytes.fromhex("000108000604")  # hardware Ethernet, protocol IP, lengths 6 and 4
_DNS, _DHCP_SERVER, _DHCP6_SERVER = (struct.pack(">H", port) for port in (53, 67, 547))
# What a container may send to the gateway: errors about our packets (unreachable, too big, time exceeded, parameter
# problem), echo requests, and IPv6's neighbour solicitations and advertisements.
_ICMP_IN, _ICMPV6_IN = (3, 8, 11, 12), (1, 2, 3, 4, 128, 135, 136)
_ICMP_REDIRECT = 5
_ROUTER_ADVERTISEMENT, _NEIGHBOUR_ADVERTISEMENT, _ICMPV6_REDIRECT = 134, 136, 137
# nft's numbers for the types of keys, so that it can print them
_KEY4, _KEY6 = (20, 9, 7), (20, 9, 8)  # interface index, MAC, address
_TYPE_ICMP, _TYPE_ICMPV6 = 14, 29


class Support(NamedTuple):
    """What this kernel lets us do: filter at all, hand connections over to sockets; and why not."""

    filters: bool
    tproxy: bool
    reason: str


class Owner(NamedTuple):
    """Who enters by *port*, which is its index as a link: its MAC (6 bytes) and its addresses (4 or 16 bytes each)."""

    port: int
    mac: bytes
    addresses: tuple[bytes, ...]


def probe() -> Support:
    """Try the rules in a namespace that is thrown away."""
    netns_fd = new_network()
    try:
        return run_in(netns_fd, _probe_here)
    finally:
        os.close(netns_fd)


@functools.cache  # encoding takes 20 ms, and all networks have the same rules
def network_rules(*, tproxy: bool) -> list[Request]:
    """All tables, for one transaction. Without *tproxy* no connection is handed over; the rest holds all the same."""
    return _bridge_table() + _inet_table(tproxy)


def add_owner(owner: Owner) -> list[Request]:
    """Let the owner's frames in."""
    return [nft.add_elements(name, TABLE, nft.BRIDGE, keys) for name, keys in _keys(owner)]


def remove_owner(owner: Owner) -> list[Request]:
    return [nft.remove_elements(name, TABLE, nft.BRIDGE, keys) for name, keys in _keys(owner)]


def mark_routing(families: Iterable[int]) -> list[Request]:
    """Packets that prerouting has marked are for this machine, whatever their destination."""
    requests = []
    for family in families:
        requests += [
            add_mark_rule(family, MARK, MARK_TABLE, MARK_PRIORITY),
            add_local_route(LO, family, MARK_TABLE),
        ]
    return requests


def _probe_here() -> Support:
    route, netfilter = Netlink(NETLINK_ROUTE), Netlink(NETLINK_NETFILTER)
    try:
        try:
            route.run([set_up(LO), *mark_routing((socket.AF_INET,))])
            netfilter.transaction(network_rules(tproxy=True))
            return Support(True, True, "")
        except OSError as error:
            reason = str(error.strerror)
        try:
            netfilter.transaction(network_rules(tproxy=False))
        except OSError as error:
            return Support(False, False, str(error.strerror))
        return Support(True, False, reason)
    finally:
        route.close()
        netfilter.close()


def _keys(owner: Owner) -> list[tuple[str, list[bytes]]]:
    """The elements of *owner*, by set."""
    start = struct.pack("=I6s2x", owner.port, owner.mac)
    by_set = []
    for name, size in (("addresses4", 4), ("addresses6", 16)):
        keys = [start + address for address in owner.addresses if len(address) == size]
        if keys:
            by_set.append((name, keys))
    return by_set


def _bridge_table() -> list[Request]:
    family = nft.BRIDGE
    requests = [
        nft.table(TABLE, family),
        nft.hash_set("addresses4", TABLE, family, 1, _KEY4, 16),
        nft.hash_set("addresses6", TABLE, family, 2, _KEY6, 28),
        nft.base_chain("prerouting", TABLE, family, nft.PREROUTING, _PRIORITY_FIRST, nft.DROP),
    ]
    kinds = (("ip", _ETHERTYPE_IP, _ip()), ("ip6", _ETHERTYPE_IPV6, _ip6()), ("arp", _ETHERTYPE_ARP, _arp()))
    for name, ethertype, rules in kinds:
        requests.append(nft.chain(name, TABLE, family))
        requests += [nft.rule(name, TABLE, family, rule) for rule in rules]
        # The type in the frame itself: for the kernel, a frame of a VLAN has the type of what it carries.
        lead = [nft.payload(nft.LINK, 12, 2), nft.equals(ethertype), nft.goto(name)]
        requests.append(nft.rule("prerouting", TABLE, family, lead))
    return requests


def _ip() -> list[nft.Rule]:
    return [
        [*_port_and_mac(), nft.payload(nft.NETWORK, 12, 4, word=3), nft.is_not_in("addresses4"), nft.drop()],
        [*nft.is_protocol(_TCP), nft.accept()],
        [*_from_udp_port(_DHCP_SERVER), nft.drop()],
        [*_icmp(_ICMP, _ICMP_REDIRECT), nft.drop()],
        [nft.accept()],
    ]


def _ip6() -> list[nft.Rule]:
    target = nft.payload(nft.TRANSPORT, 8, 16, word=3)
    advertisement = _icmp(_ICMPV6, _NEIGHBOUR_ADVERTISEMENT)
    return [
        [*_port_and_mac(), nft.payload(nft.NETWORK, 8, 16, word=3), nft.is_not_in("addresses6"), nft.drop()],
        [*nft.is_protocol(_TCP), nft.accept()],
        [*_from_udp_port(_DHCP6_SERVER), nft.drop()],
        [*_icmp(_ICMPV6, _ROUTER_ADVERTISEMENT), nft.drop()],
        [*_icmp(_ICMPV6, _ICMPV6_REDIRECT), nft.drop()],
        [*advertisement, *_port_and_mac(), target, nft.is_not_in("addresses6"), nft.drop()],
        [nft.accept()],
    ]


def _arp() -> list[nft.Rule]:
    """The sender that an ARP packet speaks of is the port's owner, and so is the sender of its frame."""
    sender_mac = nft.payload(nft.NETWORK, 8, 6, word=1)
    sender_address = nft.payload(nft.NETWORK, 14, 4, word=3)
    return [
        [nft.payload(nft.NETWORK, 0, 6), nft.differs(_ARP_ETHERNET_IP), nft.drop()],
        [nft.meta(nft.IIF), sender_mac, sender_address, nft.is_not_in("addresses4"), nft.drop()],
        [*_port_and_mac(), sender_address, nft.is_in("addresses4"), nft.accept()],
        [nft.drop()],
    ]


def _inet_table(tproxy: bool) -> list[Request]:
    family = nft.INET
    requests = [
        nft.table(TABLE, family),
        nft.hash_set("icmp_in", TABLE, family, 3, (_TYPE_ICMP,), 1),
        nft.hash_set("icmpv6_in", TABLE, family, 4, (_TYPE_ICMPV6,), 1),
        nft.add_elements("icmp_in", TABLE, family, (bytes((kind,)) for kind in _ICMP_IN)),
        nft.add_elements("icmpv6_in", TABLE, family, (bytes((kind,)) for kind in _ICMPV6_IN)),
    ]
    chains = (
        ("prerouting", nft.PREROUTING, _PRIORITY_MANGLE, nft.ACCEPT, _prerouting() if tproxy else []),
        ("input", nft.INPUT, _PRIORITY_FILTER, nft.DROP, _input(tproxy)),
        ("forward", nft.FORWARD, _PRIORITY_FILTER, nft.DROP, _forward()),
    )
    for name, hook, priority, policy, rules in chains:
        requests.append(nft.base_chain(name, TABLE, family, hook, priority, policy))
        requests += [nft.rule(name, TABLE, family, rule) for rule in rules]
    return requests


def _prerouting() -> list[nft.Rule]:
    rules = [
        [*nft.is_link(nft.IIF, BRIDGE), *nft.is_ours(), *nft.set_mark(MARK), nft.accept()],
        _hand_over(nft.IPV4, LISTENER4),
    ]
    if os.path.exists("/proc/net/if_inet6"):  # the kernel refuses the rule where it has no IPv6
        rules.append(_hand_over(nft.IPV6, LISTENER6))
    return rules


def _hand_over(family: int, address: str) -> nft.Rule:
    packed = ip_address(address).packed
    return [
        *nft.is_link(nft.IIF, TUN),
        *_opens_connection(),
        nft.meta(nft.NFPROTO),
        nft.equals(bytes((family,))),
        *nft.to_listener(family, packed, LISTENER_PORT),
        *nft.set_mark(MARK),
        nft.accept(),
    ]


def _input(tproxy: bool) -> list[nft.Rule]:
    # Without marks, an answer to a datagram of ours is like any other. Where no socket is, the kernel itself refuses.
    other_udp = nft.unreachable() if tproxy else nft.accept()
    no_opening = [*nft.is_protocol(_TCP), *_flags(_SYN_ACK), nft.differs(_SYN)]
    return [
        [nft.meta(nft.MARK), nft.equals(struct.pack("=I", MARK)), nft.accept()],
        [*nft.is_link(nft.IIF, LO), nft.accept()],
        [nft.meta(nft.IIF), nft.differs(struct.pack("=I", BRIDGE)), nft.drop()],
        [*no_opening, nft.accept()],  # an answer to a connection of ours: to no other does the kernel listen
        [*nft.is_protocol(_UDP), *_destination_port(_DNS), nft.accept()],
        [*nft.is_protocol(_TCP), *_destination_port(_DNS), nft.accept()],
        [*nft.is_protocol(_ICMP), nft.payload(nft.TRANSPORT, 0, 1), nft.is_in("icmp_in"), nft.accept()],
        [*nft.is_protocol(_ICMPV6), nft.payload(nft.TRANSPORT, 0, 1), nft.is_in("icmpv6_in"), nft.accept()],
        [*nft.is_protocol(_TCP), nft.reset()],
        [*nft.is_protocol(_UDP), other_udp],
    ]


def _forward() -> list[nft.Rule]:
    return [
        [*nft.is_link(nft.IIF, BRIDGE), *nft.is_link(nft.OIF, TUN), nft.accept()],
        [*nft.is_link(nft.IIF, TUN), *nft.is_link(nft.OIF, BRIDGE), nft.accept()],
    ]


def _port_and_mac() -> nft.Rule:
    """The first words of a key: the port that the frame came in by, and its source address."""
    return [nft.meta(nft.IIF), nft.payload(nft.LINK, 6, 6, word=1)]


def _opens_connection() -> nft.Rule:
    return [*nft.is_protocol(_TCP), *_flags(_SYN_ACK), nft.equals(_SYN)]


def _flags(mask: bytes) -> nft.Rule:
    return [nft.payload(nft.TRANSPORT, 13, 1), nft.masked(mask)]


def _from_udp_port(port: bytes) -> nft.Rule:
    return [*nft.is_protocol(_UDP), nft.payload(nft.TRANSPORT, 0, 2), nft.equals(port)]


def _destination_port(port: bytes) -> nft.Rule:
    return [nft.payload(nft.TRANSPORT, 2, 2), nft.equals(port)]


def _icmp(protocol: int, kind: int) -> nft.Rule:
    return [*nft.is_protocol(protocol), nft.payload(nft.TRANSPORT, 0, 1), nft.equals(bytes((kind,)))]
