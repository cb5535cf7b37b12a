"""Packets of a connection, byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slirp.tcp_envelope import Envelope
from slirp.tcp_states import Out
from slirp.wire import ip, tcp, vnet
from slirp.wire.checksum import pseudo

addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
numbers, shorts = st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFF)


@given(addresses, st.data(), shorts, shorts, numbers, numbers, st.integers(0, 255), shorts, st.integers(0, 65000))
def test_headers_are_those_that_the_wire_modules_make(
    source: bytes,
    data: st.DataObject,
    ours: int,
    theirs: int,
    sequence: int,
    ack: int,
    flags: int,
    window: int,
    size: int,
) -> None:
    destination = data.draw(st.binary(min_size=len(source), max_size=len(source)))
    options = data.draw(st.sampled_from((b"", tcp.syn_options(1460, 7))))
    out = Out(flags, sequence, ack, window, options, bytes(size))
    virtio, headers = Envelope(source, destination, ours, theirs, 65520).headers(out)
    plain = tcp.header(ours, theirs, sequence, ack, flags, window, options)
    length = len(plain) + size
    partial = pseudo(source, destination, 6, length).to_bytes(2, "big")
    expected = ip.header(source, destination, 6, length)
    assert headers[: len(expected)] == expected
    assert headers[len(expected) :] == plain[:16] + partial + plain[18:]
    assert virtio == vnet.needs_checksum(len(expected), tcp.CHECKSUM_OFFSET)


@pytest.mark.parametrize("size, kind", [(4, vnet.GSO_TCP4), (16, vnet.GSO_TCP6)])
def test_what_is_larger_than_the_device_takes_is_to_be_cut(size: int, kind: int) -> None:
    envelope = Envelope(bytes(size), bytes(size), 1, 2, 1500)
    out = Out(tcp.ACK, 1, 2, 3, b"", bytes(3000))
    header = vnet.parse(envelope.headers(out)[0])
    assert header is not None
    assert (header.gso_type, header.segment_size) == (kind, 1500 - header.checksum_start - 20)
    assert header.header_length == header.checksum_start + 20
