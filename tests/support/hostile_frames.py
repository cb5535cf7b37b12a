"""Packets and frames as an attacker makes them: whole ones, and what becomes of them by mutation.

Everything is bytes and is the same for the same seed, so that what was found once is found again. Sending is the
test's: a socket(AF_PACKET) on the device in question.
"""

import random
import struct
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

IPV4, ARP, IPV6 = b"\x08\x00", b"\x08\x06", b"\x86\xdd"
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
NO_OFFLOAD = bytes(10)  # a struct virtio_net_hdr that asks for nothing
_EDGES = (0, 1, 0x7F, 0x80, 0xFF)
_WORDS = (b"\0\0", b"\0\x01", b"\x7f\xff", b"\x80\0", b"\xff\xff")


def checksum(data: bytes) -> int:
    """Of the Internet (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF
    return 0xFFFF - total


def packet(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    fragment: int = 0,
    identification: int = 1,
    options: bytes = b"",
    hops: int = 64,
) -> bytes:
    """An IPv4 packet with a right checksum, or an IPv6 one, by its addresses. *fragment*: IPv4's flags and offset."""
    src, dst = ip_address(source).packed, ip_address(destination).packed
    if len(src) == 16:
        return b"\x60\0\0\0" + struct.pack("!HBB", len(payload), protocol, hops) + src + dst + payload
    size = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH", 0x40 | size // 4, 0, size + len(payload), identification, fragment, hops, protocol, 0
    )
    head += src + dst + options
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + payload


def summed(source: str, destination: str, protocol: int, payload: bytes, at: int) -> bytes:
    """*payload* with its checksum, pseudo header included, at byte *at*."""
    pseudo = ip_address(source).packed + ip_address(destination).packed + struct.pack("!IHH", len(payload), 0, protocol)
    total = checksum(pseudo + payload) or 0xFFFF
    return payload[:at] + total.to_bytes(2, "big") + payload[at + 2 :]


def segment(
    source: tuple[str, int],
    destination: tuple[str, int],
    flags: int,
    *,
    sequence: int = 0,
    acknowledgement: int = 0,
    window: int = 65535,
    urgent: int = 0,
    options: bytes = b"",
    data: bytes = b"",
) -> bytes:
    """An IP packet with a TCP segment, its checksums right. *options* are a multiple of four bytes."""
    offset = (20 + len(options)) << 2
    numbers = source[1], destination[1], sequence & 0xFFFFFFFF, acknowledgement & 0xFFFFFFFF
    head = struct.pack("!HHIIBBHHH", *numbers, offset, flags, window, 0, urgent)
    body = summed(source[0], destination[0], TCP, head + options + data, 16)
    return packet(source[0], destination[0], TCP, body)


def datagram(source: tuple[str, int], destination: tuple[str, int], data: bytes = b"") -> bytes:
    """An IP packet with a UDP datagram, its checksums right."""
    body = struct.pack("!HHHH", source[1], destination[1], 8 + len(data), 0) + data
    return packet(source[0], destination[0], UDP, summed(source[0], destination[0], UDP, body, 6))


def icmp(source: str, destination: str, kind: int, code: int = 0, rest: bytes = bytes(4), hops: int = 64) -> bytes:
    """An IP packet with an ICMP message (of the addresses' version): *rest* follows the checksum."""
    body = bytes((kind, code, 0, 0)) + rest
    if ":" in source:
        return packet(source, destination, ICMPV6, summed(source, destination, ICMPV6, body, 2), hops=hops)
    return packet(source, destination, ICMP, body[:2] + checksum(body).to_bytes(2, "big") + body[4:], hops=hops)


def frame(source: bytes, destination: bytes, ethertype: bytes, payload: bytes) -> bytes:
    """An Ethernet frame, padded."""
    return destination + source + ethertype + payload.ljust(46, b"\0")


def mac(text: str) -> bytes:
    """A MAC address as it is in a frame."""
    return bytes.fromhex(text.replace(":", ""))


def extensions(source: str, destination: str, count: int, kind: int, last: int = TCP) -> bytes:
    """An IPv6 packet with *count* extension headers of one *kind* (0, 43, 60 …), 8 bytes each."""
    chain = b"".join(bytes((kind if at < count - 1 else last, 0, 1, 4, 0, 0, 0, 0)) for at in range(count))
    return packet(source, destination, kind, chain + bytes(20))


def fragment6(source: str, destination: str, offset: int, more: bool, data: bytes, identification: int = 1) -> bytes:
    """An IPv6 packet with a fragment of a UDP datagram: *offset* in bytes."""
    head = struct.pack("!BBHI", UDP, 0, offset & ~7 | more, identification)
    return packet(source, destination, 44, head + data)


def seeds(sources: Sequence[str], destinations: Sequence[str], ports: Sequence[int]) -> list[bytes]:
    """Packets that a stack takes seriously: parts of connections, datagrams, echoes, errors, fragments, chains."""
    made: list[bytes] = []
    options = bytes.fromhex("020405b40402080a0000000100000000 0103030a")
    for source in sources:
        for destination in [address for address in destinations if (":" in address) == (":" in source)]:
            for port in ports:
                ends = (source, 40000), (destination, port)
                made += [
                    segment(*ends, flags, sequence=9, acknowledgement=7) for flags in (ACK, RST, FIN | ACK, SYN | ACK)
                ]
                made += [
                    segment(*ends, SYN, sequence=8, options=options),
                    segment(*ends, SYN, sequence=8, data=b"early"),
                ]
                made += [segment(*ends, ACK | PSH | URG, sequence=9, urgent=3, data=b"x" * 40, options=options)]
                made += [datagram(*ends), datagram(*ends, b"question" * 9), datagram(ends[1], ends[0], b"answer")]
            made += _of_ip(source, destination)
    return made


def _of_ip(source: str, destination: str) -> list[bytes]:
    inner = datagram((destination, 9), (source, 40000), b"lies")  # what errors quote was never sent
    if ":" in source:
        made = [icmp(source, destination, kind, rest=bytes(4) + inner) for kind in (1, 2, 3, 4, 137)]
        made += [icmp(source, destination, kind, rest=b"\0\1\0\1ping") for kind in (128, 129, 133, 134, 135, 136, 255)]
        made += [extensions(source, destination, count, kind) for count in (1, 8, 9, 200) for kind in (0, 43, 60, 51)]
        made += [fragment6(source, destination, at, more, bytes(64)) for at in (0, 8, 65528) for more in (True, False)]
        return made
    made = [icmp(source, destination, kind, code, bytes(4) + inner) for kind in (3, 5, 11, 12) for code in (0, 4, 255)]
    made += [icmp(source, destination, kind, rest=b"\0\1\0\1ping") for kind in (0, 8, 13, 17)]
    offsets = (0x2000, 0x2001, 0x1FFF, 0x3FFF, 0x0001)
    made += [packet(source, destination, UDP, bytes(64), fragment=offset) for offset in offsets]
    loops = (b"\x07\x00\x00\x00", b"\x44\x01\x00\x00", b"\x83\x07\x04\x7f\0\0\x01\0", b"\x07\xff\x04\x00", bytes(40))
    made += [packet(source, destination, UDP, bytes(16), options=option) for option in loops]
    made += [packet(source, destination, protocol, bytes(24)) for protocol in (0, 2, 4, 41, 47, 132, 255)]
    return made


def mutated(numbers: random.Random, whole: Sequence[bytes], count: int) -> Iterator[bytes]:
    """*count* packets: each one of *whole*, most with one to four injuries, every fourth with its sums put right."""
    for at in range(count):
        data = bytearray(numbers.choice(whole))
        for _ in range(numbers.choice((0, 1, 1, 2, 4))):
            _injure(numbers, data)
        yield _put_right(bytes(data)) if at % 4 == 0 else bytes(data)


def _injure(numbers: random.Random, data: bytearray) -> None:
    """One injury, at the headers more often than behind them."""
    at = numbers.randrange(min(len(data), numbers.choice((8, 48, 80, 2000))) or 1) if data else 0
    kind = numbers.randrange(7)
    if kind == 0:
        data[at : at + 1] = bytes((numbers.choice(_EDGES),))
    elif kind == 1 and data:
        data[at] ^= 1 << numbers.randrange(8)
    elif kind == 2:
        data[at & ~1 : (at & ~1) + 2] = numbers.choice(_WORDS)
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        data[at:at] = numbers.randbytes(numbers.choice((1, 4, 8)))
    elif kind == 5:
        data += numbers.randbytes(numbers.choice((1, 100, 1400)))
    else:
        data[at : at + 4] = numbers.randbytes(4)


def _put_right(data: bytes) -> bytes:
    """With the header's and the payload's checksums as they should be, as far as there is what they are of."""
    if len(data) < 20 or data[0] >> 4 != 4:
        return data
    size = max(20, (data[0] & 15) * 4)
    data = data[:2] + min(len(data), 65535).to_bytes(2, "big") + data[4:10] + b"\0\0" + data[12:]
    data = data[:10] + checksum(data[:size]).to_bytes(2, "big") + data[12:]
    at = {TCP: 16, UDP: 6, ICMP: 2}.get(data[9])
    body = data[size:]
    if at is None or len(body) < at + 2:
        return data
    pseudo = b"" if data[9] == ICMP else data[12:20] + struct.pack("!HH", data[9], len(body))
    body = body[:at] + b"\0\0" + body[at + 2 :]
    return data[:size] + body[:at] + checksum(pseudo + body).to_bytes(2, "big") + body[at + 2 :]
