"""What containers do not reach, and cannot pretend, with slirp as it runs: SECURITY.md, N01, N02, N06, N08, A02."""

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.network import FAR4, FAR6, HOST4, HOST_LOOPBACK, Box, Machine, Slirp, on
from tests.support.network_servers import Zone, answering, ask, echo, hello, read_all, serving

pytestmark = pytest.mark.kernel

Fresh = Callable[..., dict[str, Any]]


# Networks and what separates them


def test_an_internal_network_has_peers_but_no_outside(slirp: Slirp, fresh: Fresh, machine: Machine, zone: Zone) -> None:
    place = fresh(internal=True, names=True)
    web, db = slirp.box("web", [on(place)]), slirp.box("db", [on(place)])
    with db.server(echo, 80), web.tcp(db.ipv4, 80):
        pass
    assert web.lookup("db") == [db.ipv4]
    zone.asked.clear()
    for name in ("www.example.org", "secret.attacker.example"):
        assert "status: NXDOMAIN" in web.dig(name)
    assert zone.asked == []
    with machine.server(FAR4, echo) as (_, port), machine.server(HOST4, echo) as (_, host_port):
        assert web.failure(FAR4, port, timeout=2) in ("ENETUNREACH", "EHOSTUNREACH")
        assert web.failure(HOST4, host_port, timeout=2) in ("ENETUNREACH", "EHOSTUNREACH")
        web.run("ip", "route", "add", "default", "via", web.gateway, check=False)  # root in there may try
        assert web.failure(FAR4, port, timeout=2) in ("ENETUNREACH", "EHOSTUNREACH", "TIMEOUT")
        web.run("ip", "-6", "route", "add", "default", "via", web.endpoints[0]["gateway6"], check=False)
        with machine.udp_server(FAR4) as far4, machine.udp_server(FAR6) as far6:
            for address, far in (("0.0.0.0", far4), ("::", far6)):
                with web.udp(address) as sock:
                    assert ask(sock, *far) == b""
    for address in (FAR4, FAR6):
        assert "100% packet loss" in web.run("ping", "-c", "1", "-W", "1", address, check=False).stdout
    assert "status: NXDOMAIN" in web.dig("www.example.org", "+tcp")
    assert zone.asked == []


def test_networks_do_not_reach_each_other(slirp: Slirp, fresh: Fresh) -> None:
    one, two = slirp.box("one", [on(fresh(names=True))]), slirp.box("two", [on(fresh(names=True))])
    with two.server(echo, 80), two.udp_server(53530), two.server(echo, 81, "::"):
        for address, port in ((two.ipv4, 80), (two.ipv6, 81), (two.gateway, 53), (two.gateway, 80)):
            assert one.failure(address, port, timeout=2) in ("ENETUNREACH", "EHOSTUNREACH", "TIMEOUT"), address
        with one.udp() as sock:
            sock.settimeout(1)
            sock.sendto(b"?", (two.ipv4, 53530))
            with pytest.raises(OSError, match=r"timed out|unreachable"):
                sock.recv(10)
    assert "100% packet loss" in one.run("ping", "-c", "1", "-W", "1", two.ipv4, check=False).stdout
    assert one.lookup("two") == []
    assert "NOERROR" not in one.dig("www.example.org", "+time=1", server=two.gateway)


def test_containers_of_a_network_without_icc_do_not_reach_each_other(
    slirp: Slirp, fresh: Fresh, machine: Machine
) -> None:
    place = fresh(icc=False)
    web, db = slirp.box("web", [on(place)]), slirp.box("db", [on(place)])
    with db.server(echo, 80), machine.server(FAR4, echo) as address:
        assert web.failure(db.ipv4, 80, timeout=1) != ""
        assert web.failure(*address) == ""
    assert "100% packet loss" in web.run("ping", "-c", "1", "-W", "1", db.ipv6, check=False).stdout


def test_a_second_network_comes_and_goes_while_the_container_runs(slirp: Slirp, fresh: Fresh) -> None:
    first, second = fresh(names=True), fresh(names=True)
    web, db = slirp.box("web", [on(first)]), slirp.box("db", [on(second)])
    assert web.lookup("db") == []
    slirp.request("connect", container=web.id, endpoint=on(second))
    assert web.lookup("db") == [db.ipv4]
    with db.server(echo, 80), web.tcp(db.ipv4, 80):
        pass
    slirp.request("disconnect", container=web.id, network=second["id"])
    assert web.lookup("db") == []
    assert web.failure(db.ipv4, 80, timeout=2) in ("ENETUNREACH", "EHOSTUNREACH", "TIMEOUT")


def test_only_port_53_of_the_gateway_is_open(machine: Machine, box: Box) -> None:
    for gateway in (box.gateway, box.endpoints[0]["gateway6"]):
        assert open_tcp_ports(machine, box, gateway) == [53]
        assert answering_udp_ports(machine, box, gateway) == [53]


def open_tcp_ports(machine: Machine, box: Box, address: str) -> list[int]:
    """All that accept, of 65535."""
    script = """
import errno, select, socket, sys
address, family, found = sys.argv[1], socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, []
for first in range(1, 65536, 500):
    poll, socks = select.poll(), {}
    for port in range(first, min(first + 500, 65536)):
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if sock.connect_ex((address, port)) == errno.EINPROGRESS:
            poll.register(sock, select.POLLOUT)
            socks[sock.fileno()] = sock, port
    while socks and (events := poll.poll(1500)):
        for fd, event in events:
            sock, port = socks.pop(fd)
            poll.unregister(fd)
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(port)
print(*sorted(found))
"""
    return [int(port) for port in box.run("python3", "-c", script, address, timeout=240).stdout.split()]


def answering_udp_ports(machine: Machine, box: Box, address: str) -> list[int]:
    """All that answer a question for a name, of 65535."""
    script = """
import select, socket, sys
address, family, found = sys.argv[1], socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, set()
question = bytes.fromhex("123401000001000000000000037765620000010001")
sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
def take(seconds):
    while select.select([sock], [], [], seconds)[0]:
        try:
            found.add(sock.recvfrom(1000)[1][1])
        except OSError:
            pass
for port in range(1, 65536):
    try:
        sock.sendto(question, (address, port))
    except OSError:
        pass
    if port % 100 == 0:
        take(0)
sock.sendto(question, (address, 53))
take(1)
print(*sorted(found))
"""
    return [int(port) for port in box.run("python3", "-c", script, address, timeout=120).stdout.split()]


# The host's loopback

LOOPBACKS = [
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.0.0.1", HOST_LOOPBACK, "169.254.1.1"),
    *("::1", "::", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1"),
    *("gateway4", "gateway6"),
]


@pytest.fixture
def loopback(machine: Machine) -> Iterator[int]:
    """A port that echoes on all of the host's loopback, by TCP and UDP."""
    first = machine.listener("127.0.0.1")
    port = first.getsockname()[1]
    v6 = machine.listener("::1", port)
    udp4, udp6 = machine.datagrams("127.0.0.1", port), machine.datagrams("::1", port)
    with (
        serving(first, hello(b"the host")),
        serving(v6, hello(b"the host")),
        answering(udp4, lambda data, _: b"the host"),
        answering(udp6, lambda data, _: b"the host"),
    ):
        yield port


def test_the_host_s_loopback_is_out_of_reach_however_it_is_spelled(box: Box, loopback: int) -> None:
    for spelling in LOOPBACKS:
        address = box.endpoints[0].get(spelling, spelling)
        assert box.failure(address, loopback, timeout=1) != "", address
        with box.udp("::" if ":" in address else "0.0.0.0") as sock:
            assert ask(sock, address, loopback) == b"", address
    assert box.lookup("host.docker.internal") == []


def test_nor_does_a_route_for_it_lead_there(box: Box, loopback: int) -> None:
    """Root in a container may have the kernel send packets for 127.0.0.0/8 out of its interface."""
    box.run(
        "sh",
        "-c",
        "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet",
    )
    box.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo", check=False)
    box.run("ip", "route", "del", "local", "127.0.0.0/8", "table", "local", check=False)
    box.run("ip", "route", "add", "127.0.0.0/8", "via", box.gateway, "src", box.ipv4)
    assert box.failure("127.0.0.1", loopback, timeout=1) != ""
    with box.udp(box.ipv4) as sock:
        assert ask(sock, "127.0.0.1", loopback) == b""


def test_who_may_reach_the_host_s_loopback_does_by_its_address_and_name(
    slirp: Slirp, fresh: Fresh, machine: Machine, loopback: int
) -> None:
    admin = slirp.box("admin", [on(fresh(names=True))], host_loopback=True)
    assert admin.lookup("host.docker.internal") == admin.lookup("host.containers.internal") == [HOST_LOOPBACK]
    with admin.tcp(HOST_LOOPBACK, loopback) as connection:
        assert read_all(connection) == b"the host"
    with admin.udp() as sock:
        sock.sendto(b"?", (HOST_LOOPBACK, loopback))
        assert sock.recvfrom(100) == (b"the host", (HOST_LOOPBACK, loopback))
    with machine.server("::1", hello(b"by IPv6")) as (_, port), admin.tcp(HOST_LOOPBACK, port) as connection:
        assert read_all(connection) == b"by IPv6"
    assert admin.failure("127.0.0.1", loopback) == "ECONNREFUSED"  # its own


# Spoofing

SEND_AS = """
import socket, sys
source, destination, port = sys.argv[1:4]
payload = b"spoofed"
udp = (7).to_bytes(2, "big") + int(port).to_bytes(2, "big") + (8 + len(payload)).to_bytes(2, "big") + bytes(2) + payload
head = bytes((0x45, 0)) + (20 + len(udp)).to_bytes(2, "big") + bytes((0, 1, 0, 0, 64, 17, 0, 0))
packet = head + socket.inet_aton(source) + socket.inet_aton(destination) + udp
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for _ in range(3):
    sock.sendto(packet, (destination, 0))
"""
CLAIM = """
import socket, sys
victim = sys.argv[1]
target_mac, own_mac = (bytes.fromhex(mac.replace(":", "")) for mac in sys.argv[2:4])
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0x0806))
address = socket.inet_aton(victim)
for operation in (1, 2):
    arp = bytes.fromhex("0001080006040002") [:7] + bytes((operation,)) + own_mac + address + bytes(6) + address
    for destination in (b"\\xff" * 6, target_mac):
        sock.send(destination + own_mac + b"\\x08\\x06" + arp.ljust(46, b"\\0"))
"""


def test_a_source_address_that_is_somebody_else_s_does_not_arrive(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    place = fresh()
    liar, victim, target = (slirp.box(name, [on(place)]) for name in ("liar", "victim", "target"))
    with target.udp(target.ipv4) as inside, machine.datagrams(FAR4) as outside:
        for sock, address in ((inside, target.ipv4), (outside, FAR4)):
            port = str(sock.getsockname()[1])
            for source in (victim.ipv4, liar.gateway, "198.51.100.77", HOST4):
                liar.run("python3", "-c", SEND_AS, source, address, port, check=False)
            sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                print(sock.recvfrom(100))
            liar.run("python3", "-c", SEND_AS, liar.ipv4, address, port)
            sock.settimeout(10)
            assert sock.recvfrom(100)[0] == b"spoofed"


def test_a_claim_on_somebody_else_s_address_is_not_heard(slirp: Slirp, fresh: Fresh) -> None:
    place = fresh()
    liar, victim, target = (slirp.box(name, [on(place)]) for name in ("liar", "victim", "target"))
    assert "1 received" in target.run("ping", "-c", "1", "-W", "5", victim.ipv4).stdout
    macs = [box.endpoints[0]["mac"] for box in (target, liar)]
    for claimed in (victim.ipv4, target.gateway):
        liar.run("python3", "-c", CLAIM, claimed, *macs)
    neighbours = target.run("ip", "neigh").stdout
    assert macs[1] not in neighbours
    assert "1 received" in target.run("ping", "-c", "1", "-W", "5", victim.ipv4).stdout


FRAMES = r"""
import socket, sys
own, victim, target = (bytes.fromhex(mac.replace(":", "")) for mac in sys.argv[1:4])
victim6, target6 = (socket.inet_pton(socket.AF_INET6, address) for address in sys.argv[4:6])
victim4, target4 = (socket.inet_aton(address) for address in sys.argv[6:8])
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 3))

def checksum(data):
    total = sum(int.from_bytes(data[at:at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")

def advertisement(source):  # "victim6 is at our MAC", override
    body = bytes((136, 0, 0, 0, 0x20, 0, 0, 0)) + victim6 + b"\x02\x01" + own
    pseudo = source + target6 + len(body).to_bytes(4, "big") + bytes((0, 0, 0, 58))
    body = body[:2] + checksum(pseudo + body) + body[4:]
    return b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((58, 255)) + source + target6 + body

def datagram(source):
    body = bytes((0, 7, 0, 9, 0, 8, 0, 0))
    head = bytes((0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0)) + source + target4
    return head[:10] + checksum(head) + head[12:] + body

own6 = socket.inet_pton(socket.AF_INET6, sys.argv[8])
for _ in range(3):
    for source in (victim6, own6):
        sock.send(target + own + b"\x86\xdd" + advertisement(source))
        sock.send(target + own + b"\x81\0\0\1\x86\xdd" + advertisement(source))
    sock.send(target + victim + b"\x08\0" + datagram(victim4))
    sock.send(b"\xff" * 6 + victim + b"\x08\0" + datagram(victim4))
    sock.send(b"\xff" * 6 + victim + b"\x08\x06" + bytes(46))
    sock.send(target + own + b"\x88\xb5" + bytes(46))
"""


def test_neither_a_neighbour_s_address_nor_its_mac_can_be_taken(slirp: Slirp, fresh: Fresh) -> None:
    place = fresh()
    liar, victim, target = (slirp.box(name, [on(place)]) for name in ("liar", "victim", "target"))
    for address in (victim.ipv4, victim.ipv6):
        assert "1 received" in target.run("ping", "-c", "1", "-W", "5", address).stdout
    macs = [box.endpoints[0]["mac"] for box in (liar, victim, target)]
    addresses = (victim.ipv6, target.ipv6, victim.ipv4, target.ipv4, liar.ipv6)
    with target.udp(target.ipv4, 9) as caught, victim.udp(victim.ipv4) as sock:
        liar.run("python3", "-c", FRAMES, *macs, *addresses)
        with target.udp() as sender:  # a bridge that believes the liar sends this to it
            sender.sendto(b"to the victim", sock.getsockname())
            assert sock.recv(100) == b"to the victim"
        caught.settimeout(0.3)
        with pytest.raises(TimeoutError):
            caught.recv(100)
    neighbours = [line.split() for line in target.run("ip", "neigh").stdout.splitlines()]
    told = {words[0]: words[words.index("lladdr") + 1] for words in neighbours if "lladdr" in words}
    assert (told[victim.ipv4], told[victim.ipv6]) == (macs[1], macs[1])


def test_a_router_that_a_container_says_to_be_is_none(slirp: Slirp, fresh: Fresh) -> None:
    place = fresh()
    liar, target = slirp.box("liar", [on(place)]), slirp.box("target", [on(place)])
    target.run("sh", "-c", "echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra")  # it would believe one
    before = target.run("ip", "-6", "route").stdout
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(
        socket.AF_INET6, "2001:db8:bad::"
    )
    index = int(liar.run("ip", "-o", "link", "show", "dev", "eth0").stdout.partition(":")[0])
    with machine_raw(liar) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        assert sock.sendto(advertisement + prefix, ("ff02::1", 0, 0, index)) == 48
    assert (
        "1 received" in target.run("ping", "-c", "1", "-W", "5", liar.ipv6).stdout
    )  # what was sent has arrived by now
    assert target.run("ip", "-6", "route").stdout == before
    assert "2001:db8:bad" not in target.run("ip", "-6", "addr").stdout


def machine_raw(box: Box) -> socket.socket:
    return box.machine.open_socket(socket.SOCK_RAW, socket.AF_INET6, socket.IPPROTO_ICMPV6, net=box.netns)


# Noise

NOISE = """
import os, random, socket, sys
source, destination, mac, gateway_mac = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4]
random.seed(int(sys.argv[5]))
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0x0800))
ether = bytes.fromhex(gateway_mac.replace(":", "")) + bytes.fromhex(mac.replace(":", "")) + b"\\x08\\x00"

def checksum(data):
    total = sum(int.from_bytes(data[at:at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF

sent = 0
for _ in range(6000):
    payload = os.urandom(random.choice((0, 1, 4, 7, 8, 9, 19, 20, 21, 40, 60, 100, 1400)))
    protocol = random.choice((1, 6, 6, 17, 17, 58, random.randrange(256)))
    if protocol == 6 and len(payload) >= 20 and random.random() < 0.7:  # sometimes a header that is nearly right
        offset, flags = random.choice((0x50, 0x60, 0xF0, 0x00)), random.choice((2, 16, 18, 4, 63))
        payload = payload[:12] + bytes((offset, flags)) + payload[14:]
    fragment = random.choice((0, 0, 0, 0x2000, 0x2001, 0x1FFF, 0x3FFF, random.randrange(65536)))
    length = random.choice((20 + len(payload),) * 4 + (0, 19, 65535))
    first = random.choice((0x45,) * 6 + (0x46, 0x4F, 0x44, 0x65))
    head = bytearray((first, 0)) + length.to_bytes(2, "big") + os.urandom(2) + fragment.to_bytes(2, "big")
    head += bytes((64, protocol, 0, 0)) + socket.inet_aton(source) + socket.inet_aton(destination)
    if random.random() < 0.95:
        head[10:12] = checksum(bytes(head)).to_bytes(2, "big")
    try:
        sock.send(ether + bytes(head) + payload)
        sent += 1
    except OSError:
        pass
print(sent)
"""


def test_noise_harms_nobody(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    place = fresh(names=True)
    noisy, quiet = slirp.box("noisy", [on(place)]), slirp.box("quiet", [on(place)])
    stack = slirp.stack_pids()
    noisy.run("ping", "-c", "1", "-W", "5", noisy.gateway)
    neighbours = noisy.run("ip", "neigh", "show", noisy.gateway).stdout.split()
    gateway_mac = neighbours[neighbours.index("lladdr") + 1]
    for seed in range(3):
        for destination in (FAR4, noisy.gateway, "127.0.0.1", "255.255.255.255", HOST4):
            own_mac = noisy.endpoints[0]["mac"]
            sent = noisy.run("python3", "-c", NOISE, noisy.ipv4, destination, own_mac, gateway_mac, str(seed)).stdout
            assert int(sent) > 1000
    with machine.server(FAR4, echo) as address:
        for box in (quiet, noisy):
            box.tcp(*address).close()
            assert box.lookup("quiet") == [quiet.ipv4]
    assert slirp.stack_pids() == stack
    assert "error in a handler" not in slirp.log(), slirp.log()[-3000:]
    memory = machine.run("grep", "VmRSS", f"/proc/{stack[0]}/status").stdout
    assert int(memory.split()[1]) < 60_000, memory  # kB
