"""DNS messages: questions parsed, answers built and read; nothing that arrives raises."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slirp.wire import dns
from slirp.wire.dns import Query, parse_answer, parse_query

LABELS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=20)
NAMES = st.lists(LABELS, min_size=1, max_size=6).map(".".join)


def packed(name: str) -> bytes:
    data = dns.packed_name(name)
    assert data is not None
    return data


def question(name: str = "example.org", kind: int = dns.A, *, flags: int = 0x0100, extra: bytes = b"") -> bytes:
    head = struct.pack("!6H", 0x1234, flags, 1, 0, 0, 1 if extra else 0)
    return head + packed(name) + struct.pack("!HH", kind, dns.IN) + extra


def opt(size: int, flags: int = 0) -> bytes:
    return b"\0" + struct.pack("!HHIH", dns.OPT, size, flags, 0)


def record(name: bytes, kind: int, ttl: int, data: bytes) -> bytes:
    return name + struct.pack("!HHIH", kind, dns.IN, ttl, len(data)) + data


def parsed(data: bytes) -> Query:
    query = parse_query(data)
    assert query is not None
    return query


def reply(query: Query, *records: bytes, flags: int = 0x8180, message_id: int = 7) -> bytes:
    return struct.pack("!6H", message_id, flags, 1, len(records), 0, 0) + query.section + b"".join(records)


def test_a_question_is_taken_apart() -> None:
    query = parsed(question("Db.Example.org", dns.AAAA))
    assert (query.id, query.name, query.kind, query.klass) == (0x1234, "Db.Example.org", dns.AAAA, dns.IN)
    assert (query.size, query.edns, query.opcode) == (512, None, 0)


def test_edns_says_how_large_an_answer_may_be() -> None:
    query = parsed(question(extra=opt(4096, 0x8000)))
    assert (query.size, query.edns) == (4096, 0x8000)
    assert parsed(question(extra=opt(12))).size == 512


@pytest.mark.parametrize(
    "data",
    [
        b"",
        question()[:-1],
        question()[:20],
        question(flags=0x8100),  # an answer
        question()[:4] + b"\0\2" + question()[6:],  # two questions
        question()[:12] + b"\xc0\x0c" + question()[-4:],  # a pointer to itself
        question()[:12] + b"\x40" + b"a" * 64 + b"\0" + question()[-4:],  # a label of 64 bytes
        question()[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0" + question()[-4:],  # a name of 257 bytes
        question(extra=opt(512)[:-3]),
    ],
)
def test_what_is_no_question_is_none(data: bytes) -> None:
    assert parse_query(data) is None


def test_a_dot_within_a_label_is_not_one_between_labels() -> None:
    data = question()[:12] + b"\x04a.\0b\0" + question()[-4:]
    assert parsed(data).name == "a\\046\\000b"


def test_answers_have_addresses_for_the_name_asked_for() -> None:
    query = parsed(question("db"))
    data = dns.answer(query, dns.NOERROR, [(dns.A, bytes((10, 0, 0, n))) for n in (1, 2)], ttl=3)
    found = parse_answer(data, query)
    assert found is not None
    assert (found.id, found.code, found.truncated) == (0x1234, dns.NOERROR, False)
    assert [(r.name, r.ttl, r.value) for r in found.records] == [("db", 3, b"\n\0\0\1"), ("db", 3, b"\n\0\0\2")]


def test_what_does_not_fit_is_cut_off_and_said_to_be() -> None:
    query = parsed(question("db"))
    data = dns.answer(query, dns.NOERROR, [(dns.A, bytes((10, 0, 0, n))) for n in range(100)], size=512)
    found = parse_answer(data, query)
    assert found is not None
    assert found.truncated
    assert 0 < len(found.records) < 100
    assert len(data) <= 512


def test_edns_is_answered_with_edns() -> None:
    query = parsed(question(extra=opt(4096, 0x8000)))
    assert dns.answer(query, dns.NXDOMAIN).endswith(opt(dns.OURS, 0x8000))
    assert not dns.answer(parsed(question()), dns.NXDOMAIN).endswith(opt(dns.OURS))


def test_an_answer_to_another_question_is_none() -> None:
    query = parsed(question("example.org"))
    for other in (question("example.net"), question("example.org", dns.AAAA), question("xexample.org")):
        assert parse_answer(dns.answer(parsed(other), dns.NOERROR), query) is None
    assert parse_answer(question("example.org"), query) is None


def test_case_of_the_name_may_change_but_not_the_type() -> None:
    query = parsed(question("example.org", 65))
    assert parse_answer(dns.answer(parsed(question("EXAMPLE.org", 65)), dns.NOERROR), query) is not None
    assert parse_answer(dns.answer(parsed(question("example.org", 97)), dns.NOERROR), query) is None


def test_a_refusal_may_be_a_header_alone() -> None:
    found = parse_answer(struct.pack("!6H", 9, 0x8185, 0, 0, 0, 0), parsed(question()))
    assert found is not None
    assert (found.id, found.code) == (9, dns.REFUSED)
    assert parse_answer(struct.pack("!6H", 9, 0x8180, 0, 0, 0, 0), parsed(question())) is None


def test_addresses_are_learned_by_way_of_aliases() -> None:
    query = parsed(question("www.example.org"))
    data = reply(
        query,
        record(b"\xc0\x0c", dns.CNAME, 60, packed("cdn.example.net")),
        record(packed("CDN.example.net"), dns.A, 600, b"\1\2\3\4"),
        record(packed("cdn.example.net"), dns.A, 5, b"\1\2\3\5"),
        record(packed("other.example.net"), dns.A, 600, b"\6\6\6\6"),
    )
    found = parse_answer(data, query)
    assert found is not None
    assert dns.learned(query, found) == [(b"\1\2\3\4", 60), (b"\1\2\3\5", 5)]


def test_aliases_in_a_circle_come_to_an_end() -> None:
    query = parsed(question("a"))
    data = reply(
        query,
        record(packed("a"), dns.CNAME, 60, packed("b")),
        record(packed("b"), dns.CNAME, 60, packed("a")),
        record(packed("b"), dns.A, 60, b"\1\2\3\4"),
    )
    found = parse_answer(data, query)
    assert found is not None
    assert dns.learned(query, found) == [(b"\1\2\3\4", 60)]


def test_pointers_forward_and_in_circles_are_malformed() -> None:
    query = parsed(question("a"))
    at = 12 + len(query.section)
    for pointer in (at, at + 2, at + 40):
        data = reply(query, record(struct.pack("!H", 0xC000 | pointer), dns.A, 60, b"\1\2\3\4"))
        found = parse_answer(data, query)
        assert found is None or found.records == ()


def test_compressed_names_are_followed() -> None:
    query = parsed(question("www.example.org"))
    alias = b"\3cdn\xc0\x10"  # cdn + .example.org, within the question
    data = reply(
        query, record(b"\xc0\x0c", dns.CNAME, 9, alias), record(packed("cdn.example.org"), dns.A, 9, b"\1\2\3\4")
    )
    found = parse_answer(data, query)
    assert found is not None
    assert dns.learned(query, found) == [(b"\1\2\3\4", 9)]


def test_a_message_that_is_no_question_is_refused_by_a_header() -> None:
    refusal = dns.refusal(b"\1\2\1\0" + b"\xff" * 20, dns.FORMERR)
    assert refusal == b"\1\2\x81\x81" + bytes(8)
    assert dns.refusal(b"\1\2\x81\0" + b"\xff" * 20, dns.FORMERR) is None
    assert dns.refusal(b"\1\2", dns.FORMERR) is None


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.10.in-addr.arpa", bytes((10, 2, 3, 4))),
        ("4.3.2.10.IN-ADDR.ARPA", bytes((10, 2, 3, 4))),
        ("1." + "0." * 22 + "0.8.b.d.0.1.0.0.2.ip6.arpa", bytes.fromhex("20010db8" + "0" * 23 + "1")),
        ("3.2.10.in-addr.arpa", None),
        ("4.3.2.256.in-addr.arpa", None),
        ("04.3.2.10.in-addr.arpa", None),
        ("x.3.2.10.in-addr.arpa", None),
        ("1.0.ip6.arpa", None),
        ("example.org", None),
    ],
)
def test_names_that_ask_back_from_an_address(name: str, address: bytes | None) -> None:
    assert dns.reverse_address(name) == address


@pytest.mark.parametrize("name", ["", "a..b", ".a", "a" * 64, ".".join(["a" * 60] * 5)])
def test_names_that_do_not_go_into_a_message(name: str) -> None:
    assert dns.packed_name(name) is None


@given(NAMES, st.integers(0, 65535), st.integers(0, 65535))
def test_a_question_reads_as_it_was_written(name: str, kind: int, size: int) -> None:
    query = parsed(question(name, kind, extra=opt(size)))
    assert (query.name, query.kind, query.size) == (name, kind, max(size, 512))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_question_or_none(data: bytes) -> None:
    query = parse_query(data)
    if query is not None:
        assert parse_answer(dns.answer(query, dns.REFUSED), query) is not None or query.opcode


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 6))
def test_any_bytes_are_an_answer_or_none(noise: bytes, at: int, count: int) -> None:
    query = parsed(question("www.example.org"))
    good = reply(query, record(b"\xc0\x0c", dns.CNAME, 9, b"\3cdn\xc0\x10"), record(b"\xc0\x0c", dns.A, 9, b"\1\2\3\4"))
    for data in (noise, good[:at] + noise, good[:at] + noise[:count] + good[at + count :]):
        found = parse_answer(data, query)
        if found is not None:
            dns.learned(query, found)
        dns.refusal(data, dns.FORMERR)


@given(st.text(max_size=80))
def test_any_name_is_asked_back_from_or_not(name: str) -> None:
    assert dns.reverse_address(name) is None or name.lower().endswith(".arpa")
