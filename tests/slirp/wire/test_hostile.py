"""Any bytes in, a record or None out: SECURITY.md N03 and N04."""

import random
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from slirp.wire import checksum, icmp, ip, udp
from slirp.wire.icmp import Unreachable

A4, B4 = bytes((172, 17, 0, 2)), bytes((203, 0, 113, 9))
A6, B6 = bytes.fromhex("fd000000000000000000000000000002"), bytes.fromhex("20010db8000000000000000000000009")


def real_packets() -> list[bytes]:
    packets = []
    for source, destination in ((A4, B4), (A6, B6)):
        datagram = udp.header(40000, 53, 20) + bytes(20)
        echo = icmp.echo(source, destination, 3, 4, bytes(range(56)))
        protocol = icmp.PROTOCOL4 if len(source) == 4 else icmp.PROTOCOL6
        packets.append(ip.header(source, destination, 17, len(datagram)) + datagram)
        packets.append(ip.header(source, destination, protocol, len(echo)) + echo)
        pieces = ip.fragments(source, destination, 17, datagram * 9, 120, 5)
        packets += [header + bytes(piece) for header, piece in pieces]
    options = bytes((60, 0)) + bytes(6) + bytes((17, 1)) + bytes(14)
    packets.append(ip.header(A6, B6, 0, len(options) + 28) + options + udp.header(1, 2, 20) + bytes(20))
    return packets


REAL = real_packets()


def everything(data: bytes) -> None:
    """What the stack does with a packet, as far as the headers go."""
    packet = ip.parse(memoryview(data))
    if packet is None:
        return
    assert len(packet.source) == len(packet.destination) == (4 if packet.version == 4 else 16)
    assert len(packet.header) + len(packet.payload) <= len(data)
    udp.parse(packet.payload)
    icmp.parse_echo(packet)
    checksum.intact(packet.source, packet.destination, packet.protocol, packet.payload)
    for message in (icmp.unreachable(packet, Unreachable.PORT), icmp.too_big(packet, 1280)):
        assert message is None or len(message) <= 1280


def sealed(data: bytearray) -> bytes:
    """With the IPv4 header's checksum put right, so that it does not hide the rest from the test."""
    length = (data[0] & 15) * 4 if data else 0
    if data and data[0] >> 4 == 4 and 20 <= length <= len(data):
        data[10:12] = b"\0\0"
        data[10:12] = checksum.checksum(bytes(data[:length])).to_bytes(2, "big")
    return bytes(data)


@given(st.binary(max_size=300))
def test_bytes_without_sense_do_no_harm(data: bytes) -> None:
    everything(data)
    everything(sealed(bytearray(b"\x45" + data)))
    everything(b"\x60" + data)


@settings(max_examples=300)
@given(st.sampled_from(REAL), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6), st.data())
def test_damaged_packets_do_no_harm(real: bytes, damage: list[tuple[int, int]], data: st.DataObject) -> None:
    packet = bytearray(real)
    for at, value in damage:
        packet[at % len(packet)] = value
    everything(sealed(packet)[: data.draw(st.integers(0, len(packet)))])
    everything(sealed(packet))


def test_many_damaged_packets_leave_nothing_behind() -> None:
    chance = random.Random(7)
    tracemalloc.start()
    before = 0
    for round_ in range(2):
        for _ in range(20_000):
            packet = bytearray(chance.choice(REAL))
            for _ in range(chance.randrange(1, 5)):
                packet[chance.randrange(min(len(packet), 64))] = chance.randrange(256)
            everything(sealed(packet))
        size = tracemalloc.get_traced_memory()[0]
        if round_:
            assert size - before < 20_000
        before = size
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
