"""The Internet checksum (RFC 1071), one division for a whole packet.

A number's value modulo 65535 is the ones' complement sum of its 16-bit digits, because 65536 is 1 modulo 65535. So the
sum over 64 KiB is `int.from_bytes(data) % 65535`: two linear passes in C, tens of microseconds, where a loop over the
words would take milliseconds. Only zero needs care: 65535 and 0 are the same number here, and not the same sum.

A *partial sum* is such a sum folded to 16 bits and not complemented: what the pseudo header contributes, and what the
kernel wants in the checksum field of a packet that it is asked to complete.
"""

UDP = 17


def partial(data: bytes | memoryview, initial: int = 0) -> int:
    """The folded ones' complement sum of *data*, padded to an even length with a zero, on top of the sum *initial*."""
    total = int.from_bytes(data, "big")
    if len(data) & 1:
        total <<= 8
    total += initial
    folded = total % 65535
    return 65535 if folded == 0 and total else folded


def checksum(data: bytes | memoryview, initial: int = 0) -> int:
    """What belongs into the checksum field: the complement of the sum. 0 over data that already holds its checksum."""
    return 65535 - partial(data, initial)


def pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """The partial sum of the pseudo header (RFC 9293 §3.1, RFC 8200 §8.1); *length* is that of the payload."""
    return partial(source + destination, protocol + length)


def intact(source: bytes, destination: bytes, protocol: int, payload: bytes | memoryview) -> bool:
    """Whether a TCP, UDP or ICMPv6 message holds its own checksum. Not to be asked where vnet.trusted() says so.

    UDP over IPv4 may come without one (a zero in the field).
    """
    if protocol == UDP and len(source) == 4 and len(payload) >= 8 and payload[6] == 0 and payload[7] == 0:
        return True
    return checksum(payload, pseudo(source, destination, protocol, len(payload))) == 0
