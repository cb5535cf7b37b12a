import os
import random
import resource
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import CorruptData
from rootless.store.tar import DEFAULT_LIMITS, MAX_RECORD, Kind, Member, Segment, TarLimits, TarReader
from tests.support import evil_tar
from tests.support.evil_tar import archive, base256, entry, header, long_name, number, padded, pax_header, record

MUTATIONS = int(os.environ.get("ROOTLESS_TAR_MUTATIONS") or 4000)  # of an archive, compared with GNU tar; T16
EIB = 1 << 60
ENV = {"LC_ALL": "C", "PATH": os.environ["PATH"]}


def chunks(data: bytes, size: int = 1 << 20) -> Iterator[bytes]:
    yield from (data[at : at + size] for at in range(0, len(data), size))


def members(data: bytes, size: int = 1 << 20, limits: TarLimits = DEFAULT_LIMITS) -> list[Member]:
    return list(TarReader(chunks(data, size), limits))


def only(data: bytes) -> Member:
    (member,) = members(archive(data))
    return member


def contents(data: bytes, size: int = 1 << 20) -> list[tuple[bytes, bytes]]:
    """Names and what is stored of each member."""
    reader = TarReader(chunks(data, size))
    return [(member.name, b"".join(iter(lambda: bytes(reader.take()), b""))) for member in reader]


def refused(data: bytes, why: str = ".", limits: TarLimits = DEFAULT_LIMITS) -> None:
    with pytest.raises(CorruptData, match=why):
        members(data, limits=limits)


# Formats


def test_a_member_has_all_that_its_header_says() -> None:
    member = only(
        entry(b"dir/name", evil_tar.SYMLINK, link=b"../to", mode=0o4755, uid=1, gid=2, mtime=1234567890, prefix=b"pre")
    )
    assert (member.name, member.kind, member.link) == (b"pre/dir/name", Kind.SYMLINK, b"../to")
    assert (member.mode, member.uid, member.gid, member.size) == (0o4755, 1, 2, 0)
    assert (member.mtime_ns, member.xattrs, member.sparse) == (1234567890 * 10**9, {}, None)


@pytest.mark.parametrize(
    ("flag", "kind"),
    [
        (b"0", Kind.FILE),
        (b"\0", Kind.FILE),
        (b"7", Kind.FILE),
        (b"1", Kind.HARD_LINK),
        (b"2", Kind.SYMLINK),
        (b"3", Kind.CHARACTER),
        (b"4", Kind.BLOCK),
        (b"5", Kind.DIRECTORY),
        (b"6", Kind.FIFO),
    ],
)
def test_kinds(flag: bytes, kind: Kind) -> None:
    member = only(entry(b"a", flag, link=b"x", major=8, minor=300))
    assert member.kind is kind
    assert (member.major, member.minor) == ((8, 300) if kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0))


def test_a_file_before_posix_is_a_directory_if_its_name_ends_in_a_slash() -> None:
    assert only(entry(b"a/", b"\0", magic=evil_tar.V7)).kind is Kind.DIRECTORY


def test_the_prefix_is_one_in_posix_archives_only() -> None:
    assert only(entry(b"a", magic=evil_tar.GNU, prefix=b"p")).name == b"a"
    assert only(entry(b"a", magic=evil_tar.V7, prefix=b"p")).name == b"a"
    assert only(entry(b"a", magic=b"ustar\x0099", prefix=b"p")).name == b"p/a"


def test_long_names_of_gnu() -> None:
    name, link = b"n" * 300, b"l" * 5000
    member = only(entry(name, evil_tar.SYMLINK, link=link, magic=evil_tar.GNU))
    assert (member.name, member.link) == (name, link)
    assert only(long_name(b"ab\0cd") + entry(b"a")).name == b"ab"


def test_pax_records_go_before_the_header() -> None:
    records = {
        b"path": b"p" * 200,
        b"linkpath": b"l" * 200,
        b"uid": b"3000000",
        b"gid": b"4294967294",
        b"mtime": b"1350244992.023960108",
        b"comment": b"",
        b"atime": b"whatever",
        b"SCHILY.xattr.user.a%3Db%25": b"1\n\0=2",
        b"SCHILY.xattr.user.empty": b"",
        b"LIBARCHIVE.xattr.user.%C3%A4": b"dmFsdWU=",
        b"hdrcharset": b"BINARY",
    }
    member = only(entry(b"a", evil_tar.SYMLINK, pax=records, uid=1))
    assert (member.name, member.link, member.uid, member.gid) == (b"p" * 200, b"l" * 200, 3000000, 4294967294)
    assert member.mtime_ns == 1350244992_023960108
    assert member.xattrs == {b"user.a=b%": b"1\n\0=2", b"user.empty": b"", b"user.\xc3\xa4": b"value"}


def test_libarchives_copy_of_an_attribute_counts_only_without_the_other() -> None:
    records = {b"LIBARCHIVE.xattr.user.a": b"bGli", b"SCHILY.xattr.user.a": b"star"}
    assert only(entry(b"a", pax=records)).xattrs == {b"user.a": b"star"}
    assert only(entry(b"a", pax=list(records.items())[::-1])).xattrs == {b"user.a": b"star"}


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [(b"0", 0), (b"-1", -(10**9)), (b"-1.5", -1500000000), (b"1.", 10**9), (b"1.1234567899", 1123456789)],
)
def test_times_are_exact_to_the_nanosecond(text: bytes, time_ns: int) -> None:  # Y04
    assert only(entry(b"a", pax={b"mtime": text})).mtime_ns == time_ns


@pytest.mark.parametrize("seconds", [-2174774400, 4291747200, -1, 1 << 40])
def test_times_of_1901_and_2106_fit(seconds: int) -> None:  # Y04
    assert only(entry(b"a", mtime=seconds)).mtime_ns == seconds * 10**9


def test_the_size_in_a_pax_record_is_the_one_that_counts() -> None:
    inner = entry(b"inner", content=b"x")
    assert contents(archive(entry(b"a", content=inner, pax={b"size": b"0"}))) == [(b"a", b""), (b"inner", b"x")]
    assert contents(archive(entry(b"a", content=inner, pax={b"size": b"1024"}, size=0))) == [(b"a", inner)]


def test_a_global_header_counts_for_all_that_follow() -> None:
    data = archive(pax_header({b"uid": b"7", b"comment": b"x"}, b"g"), entry(b"a"), entry(b"b", pax={b"uid": b"8"}))
    assert [member.uid for member in members(data)] == [7, 8]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"00000012", 10),
        (b"     12\0", 10),
        (b"12     \0", 10),
        (b"12\0garba", 10),
        (bytes(8), 0),
        (b" " * 8, 0),
        (base256(3_000_000_000, 8), 3_000_000_000),
        (base256(0, 8), 0),
    ],
)
def test_numbers_as_different_programs_write_them(field: bytes, value: int) -> None:
    assert only(entry(b"a", uid=field)).uid == value


@given(st.integers(0, (1 << 32) - 2), st.sampled_from([8, 12]))
def test_a_number_comes_back_octal_or_binary(value: int, width: int) -> None:
    assert only(entry(b"a", gid=number(value, 8), mtime=number(value, 12))).gid == value
    assert only(entry(b"a", gid=base256(value, 8), mtime=base256(value, 12))).mtime_ns == value * 10**9


def test_a_checksum_of_signed_bytes_is_one() -> None:
    block = header(b"\xff\xfe")
    total = sum(block[:148]) + sum(block[156:]) + 256 - 2 * 256
    assert only(header(b"\xff\xfe", checksum=total)).name == b"\xff\xfe"
    refused(archive(header(b"\xff\xfe", checksum=total + 1)), "checksum")
    refused(archive(header(b"a", checksum=total)), "checksum")


# Content


PARTS = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=120).map(lambda b: b.replace(b"\0", b"0").rstrip(b"/") + b"n"), st.binary()
    ),
    max_size=8,
)


@given(PARTS, st.integers(1, 3000), st.sampled_from([b"", bytes(512), evil_tar.END, evil_tar.END + b"junk" * 500]))
def test_names_and_content_come_back_however_the_bytes_come(
    parts: list[tuple[bytes, bytes]], size: int, end: bytes
) -> None:  # T10
    data = archive(*(entry(name, content=content) for name, content in parts), end=end)
    assert contents(data, size) == parts


def test_content_that_nobody_takes_is_skipped() -> None:
    data = archive(*(entry(b"%d" % i, content=b"x" * 5000) for i in range(5)))
    for size in (1, 511, 512, 513, 4096, 1 << 20):
        reader = TarReader(chunks(data, size))
        taken = [(member.name, bytes(reader.take(1))) for member in reader]
        assert taken == [(b"%d" % i, b"x") for i in range(5)]


def test_content_is_not_copied() -> None:
    data = archive(entry(b"a", content=b"x" * 5000))
    reader = TarReader([data])
    reader.next_member()
    assert reader.take().obj is data


def test_a_small_file_can_be_read_whole() -> None:
    reader = TarReader(chunks(archive(entry(b"a", content=b"x" * 700), entry(b"b", content=b"y" * 10)), 100))
    reader.next_member()
    assert reader.read(700) == b"x" * 700
    reader.next_member()
    with pytest.raises(CorruptData, match="at most 9"):
        reader.read(9)


# Sparse files


def old_gnu(segments: list[tuple[int, int]], size: int, content: bytes, *, stored: int | None = None) -> bytes:
    """A type S member, its map in the header and in blocks after it."""

    def fields(pairs: list[tuple[int, int]], count: int) -> bytes:
        return b"".join(number(offset, 12) + number(length, 12) for offset, length in pairs).ljust(24 * count, b"\0")

    front = bytes(41) + fields(segments[:4], 4) + (b"\1" if segments[4:] else b"\0") + number(size, 12)
    own = header(b"s", b"S", size=len(content) if stored is None else stored, magic=evil_tar.GNU, prefix=front)
    rest = segments[4:]
    while rest:
        own += fields(rest[:21], 21) + (b"\1" if rest[21:] else b"\0") + bytes(7)
        rest = rest[21:]
    return own + padded(content)


SEGMENTS = [(0, 3), (4096, 512), (10_000, 1), (20_000, 0)]
STORED = b"abc" + b"d" * 512 + b"e"
FLAT = [number for segment in SEGMENTS for number in segment]
SPARSE = {
    "old": old_gnu(SEGMENTS, 20_000, STORED),
    "0.0": entry(
        b"x",
        content=STORED,
        pax=[
            (b"GNU.sparse.size", b"20000"),
            (b"GNU.sparse.numblocks", b"4"),
            *[
                (b"GNU.sparse." + key, b"%d" % value)
                for segment in SEGMENTS
                for key, value in zip((b"offset", b"numbytes"), segment, strict=True)
            ],
            (b"GNU.sparse.name", b"s"),
        ],
    ),
    "0.1": entry(
        b"x",
        content=STORED,
        pax={
            b"GNU.sparse.name": b"s",
            b"path": b"later",
            b"GNU.sparse.size": b"20000",
            b"GNU.sparse.numblocks": b"4",
            b"GNU.sparse.map": b",".join(b"%d" % value for value in FLAT),
        },
    ),
    "1.0": entry(
        b"x",
        content=padded(b"4\n" + b"".join(b"%d\n" % value for value in FLAT)) + STORED,
        pax={
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": b"s",
            b"GNU.sparse.realsize": b"20000",
        },
    ),
}


@pytest.mark.parametrize("data", SPARSE.values(), ids=SPARSE)
@pytest.mark.parametrize("size", [1, 700, 1 << 20])
def test_sparse_files_of_all_versions(data: bytes, size: int) -> None:
    reader = TarReader(chunks(archive(data, entry(b"next", content=b"n")), size))
    member = reader.next_member()
    assert member
    assert (member.name, member.size, member.sparse) == (b"s", 20_000, [Segment(*pair) for pair in SEGMENTS])
    assert b"".join(iter(lambda: bytes(reader.take()), b"")) == STORED
    following = reader.next_member()
    assert following
    assert following.name == b"next"


def test_an_old_sparse_map_goes_on_after_the_header() -> None:
    segments = [(i * 10, 1) for i in range(100)]
    member = only(old_gnu(segments, 1000, b"x" * 100))
    assert member.sparse == [Segment(*pair) for pair in segments]


def sparse_1_0(content: bytes, realsize: bytes = b"100", version: tuple[bytes, bytes] = (b"1", b"0")) -> bytes:
    keys = {b"GNU.sparse.major": version[0], b"GNU.sparse.minor": version[1], b"GNU.sparse.realsize": realsize}
    return entry(b"s", content=content, pax=keys)


def sparse_0(**records: bytes) -> bytes:
    """A sparse file of one byte in nine, but for *records*; without a map unless that is one."""
    records = {"size": b"9", "numblocks": b"1", **records}
    return entry(b"s", content=b"x", pax={b"GNU.sparse." + key.encode(): value for key, value in records.items()})


def test_the_least_sparse_file_is_one() -> None:
    assert only(sparse_0(map=b"0,1")).sparse == [Segment(0, 1)]


@pytest.mark.parametrize(
    "data",
    [
        old_gnu([(10, 5), (5, 5)], 100, b"x" * 10),
        old_gnu([(0, 5)], 4, b"x" * 5),
        old_gnu([(0, 5)], 100, b"x" * 6),
        old_gnu([(0, 10)], 100, b"x" * 6),
        old_gnu([(0, -5), (0, 10)], 100, b"x" * 5),
        old_gnu([(0, 5)], -1, b"x" * 5),
        old_gnu([(0, 5)], 8 * EIB - 1, b"x" * 5),
        old_gnu([(1 << 62, 5)], 8 * EIB - 1, b"x" * 5),
        entry(b"s", b"S", content=b"x"),
        sparse_0(size=b"-1"),
        sparse_0(size=b""),
        sparse_0(map=b"0,1,2"),
        sparse_0(map=b"a,b"),
        sparse_0(map=b""),
        sparse_0(map=b"0,1,2,0"),
        sparse_0(numblocks=b"2"),
        sparse_0(numblocks=b""),
        sparse_0(numbytes=b"1"),
        sparse_0(map=b"0,1", minor=b"2"),
        sparse_1_0(padded(b"1\n0\n1\n") + b"x", version=(b"2", b"0")),
        sparse_1_0(padded(b"2\n0\n1\n") + b"x"),
        sparse_1_0(b"1\n0\n1\n"),
        sparse_1_0(padded(b"99999999999999999999\n")),
        sparse_1_0(padded(b"-1\n")),
        sparse_1_0(padded(b"1" * 600)),
        sparse_1_0(b"\n" * 512),
        sparse_1_0(b"600000\n" + b"0\n" * 1_200_000),
    ],
)
def test_a_sparse_map_that_makes_no_sense_is_refused(data: bytes) -> None:  # T11
    refused(archive(data))


# Where programs differ


@pytest.mark.parametrize(
    "data",
    [
        entry(b"a", evil_tar.SYMLINK, link=b"x", content=b"x"),
        entry(b"a", evil_tar.FIFO, content=b"x"),
        entry(b"a", evil_tar.CHARACTER, content=b"x"),
        entry(b"a", evil_tar.HARD_LINK, link=b"x", pax={b"size": b"512"}, size=0, content=b"x"),
        entry(b"a/", content=b""),
        entry(b"a/", b"\0", content=b"x"),
        entry(b"a", b"Z"),
        entry(b"a", b"V"),
        entry(b"a", b"D", content=b"Yb\0\0"),
        entry(b"a", b"M"),
        entry(b"a", mode=bytes(8)),
        pax_header({b"path": b"b"}) + long_name(b"c") + entry(b"a"),
        long_name(b"c") + pax_header({b"path": b"b"}) + entry(b"a"),
        long_name(b"c", b"K") + entry(b"a", evil_tar.SYMLINK, pax={b"linkpath": b"b"}),
        entry(b"a", pax={b"path": b""}),
        entry(b"a", pax={b"path": b"b\0c"}),
        entry(b"a", pax={b"uid": b""}),
        long_name(b"") + entry(b"a"),
        pax_header({b"path": b"b"}, b"g") + entry(b"a"),
        pax_header({b"size": b"0"}, b"g") + entry(b"a"),
        pax_header({b"linkpath": b"b"}, b"g") + entry(b"a"),
        pax_header({b"SCHILY.xattr.user.x": b"b"}, b"g") + entry(b"a"),
        pax_header({b"path": b"b"}, b"X") + entry(b"a"),
        bytes(512) + entry(b"a"),
        pax_header({b"path": b"b"}),
        long_name(b"b"),
    ],
)
def test_what_programs_read_differently_is_refused(data: bytes) -> None:  # T16
    refused(archive(entry(b"before"), data))


def test_a_directory_and_a_hard_link_have_no_content_whatever_their_size_says() -> None:  # T16
    inner = entry(b"inner", content=b"x")
    for kind in (evil_tar.DIRECTORY, evil_tar.HARD_LINK):
        assert [name for name, _ in contents(archive(entry(b"a", kind, content=inner, link=b"l")))] == [b"a", b"inner"]


@pytest.mark.parametrize(
    "end", [b"", bytes(512), bytes(1024), bytes(10240), bytes(1024) + entry(b"c"), bytes(1024) + b"j"]
)
def test_an_archive_ends_with_two_zero_blocks_or_with_the_input(end: bytes) -> None:  # T16
    assert [m.name for m in members(archive(entry(b"a"), entry(b"b", content=b"x"), end=end))] == [b"a", b"b"]


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 600, 1023, 1025, 1500, 2047])
def test_an_archive_that_is_cut_is_refused(cut: int) -> None:  # T16
    data = archive(entry(b"a", content=b"x" * 700), entry(b"b", content=b"y" * 10), end=b"")
    assert len(data) == 2560
    refused(data[:cut], "cut short")
    refused(archive(data[:1536], end=bytes(100)), "cut short")


# Limits


@pytest.mark.parametrize(
    "data",
    [
        entry(b"a", size=base256(8 * EIB - 1, 12)),
        entry(b"a", size=base256(-1, 12)),
        entry(b"a", size=b"\x80" + b"\xff" * 11),
        entry(b"a", size=b"\xff" + b"\0" * 11),
        entry(b"a", size=b"\x81" + b"\0" * 11),
        entry(b"a", size=b"777777777777"),
        entry(b"a", pax={b"size": b"-1"}),
        entry(b"a", pax={b"size": b"+1"}),
        entry(b"a", pax={b"size": b"9" * 19}),
        entry(b"a", pax={b"size": b"9" * 5000}),
        entry(b"a", pax={b"size": b"1_0"}),
        header(b"x", b"x", size=1 << 30),
        header(b"x", b"L", size=1 << 30),
        header(b"x", b"g", size=1 << 30),
        header(b"x", b"x", size=base256(-512, 12)),
        pax_header({b"comment": b"x" * MAX_RECORD}),
        b"".join(pax_header({b"comment": b"x"}, b"g") for _ in range(100)) + entry(b"a"),
        b"".join(long_name(b"b") for _ in range(100)) + entry(b"a"),
        b"".join(pax_header({b"%d" % i: b"x" * 100_000}, b"g") + entry(b"a") for i in range(11)),
    ],
)
def test_what_would_take_memory_or_disk_is_refused_before_it_does(data: bytes) -> None:  # T05, T11
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    refused(archive(data))
    assert time.process_time() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_limits_can_be_set() -> None:  # T11
    data = archive(*(entry(b"a", content=b"x" * 10) for _ in range(3)))
    assert len(members(data, limits=TarLimits(member_size=10, members=3))) == 3
    refused(data, "10 bytes", TarLimits(member_size=9))
    refused(data, "more than 2 members", TarLimits(members=2))


@pytest.mark.parametrize(
    "records",
    [
        b"0 a=b\n",
        b"6 a=b",
        b"6 a=b\n7",
        b"7 a=b\n",
        b"5 a=b\n",
        b"99 a=b\n",
        b"-6 a=b\n",
        b" 6 a=b\n",
        b"6a=b\n",
        b"5 =b\n",
        b"4 a\n",
        b"6 a=b\n\0\0",
        b"\n",
        b"1" * 5000,
        b"6 a\nb\n6 c=d\n",
        b"8 a\0b=c\n",
    ],
)
def test_a_malformed_record_is_refused(records: bytes) -> None:  # T05
    refused(archive(pax_header(records), entry(b"a")))


@pytest.mark.parametrize(
    "text", [b"", b"x", b"1e9", b"nan", b"inf", b"1.2.3", b"--1", b"9" * 19, b"1 ", b"0x10", b"1_0"]
)
def test_a_time_that_is_none_is_refused(text: bytes) -> None:
    refused(archive(entry(b"a", pax={b"mtime": text})))


@pytest.mark.parametrize("value", [-1, (1 << 32) - 1, 1 << 32, (1 << 63) - 1])
def test_an_owner_that_nobody_can_be_is_refused(value: int) -> None:  # T17
    refused(archive(entry(b"a", uid=base256(value, 8))), "owner")
    refused(archive(entry(b"a", gid=base256(value, 8))), "owner")
    refused(archive(entry(b"a", pax={b"uid": b"%d" % value})))
    refused(archive(entry(b"a", pax={b"gid": b"%d" % value})))


@pytest.mark.parametrize(("major", "minor"), [(-1, 0), (0, -1), (1 << 32, 0), (0, 1 << 32)])
def test_a_device_number_out_of_range_is_refused(major: int, minor: int) -> None:  # T07
    for kind in (evil_tar.CHARACTER, evil_tar.BLOCK):
        refused(archive(entry(b"a", kind, major=major, minor=minor)), "device")


@pytest.mark.parametrize(
    "field", [b"0000999\0", b"12 34\0\0\0", b"0x10\0\0\0\0", b"+1\0\0\0\0\0\0", b"1_0\0\0\0\0\0", b"\0001\0\0\0\0\0\0"]
)
def test_a_number_that_is_none_is_refused(field: bytes) -> None:
    refused(archive(entry(b"a", uid=field)), "number")


def test_a_bad_attribute_value_is_refused() -> None:
    refused(archive(entry(b"a", pax={b"LIBARCHIVE.xattr.user.a": b"%%%a"})), "attribute")


def test_an_endless_archive_takes_no_memory() -> None:  # T18
    one = entry(b"a", content=b"x")

    def endless() -> Iterator[bytes]:
        while True:
            yield one * 500

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptData, match="more than 100000 members"):
        for _ in TarReader(endless(), TarLimits(members=100_000)):
            pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


@given(st.binary(max_size=3000))
def test_anything_at_all_is_read_or_refused(data: bytes) -> None:  # T05
    try:
        members(data)
    except CorruptData:
        return


# GNU tar


def gnu_tar_lists(data: bytes) -> bytes:
    """Names as GNU tar reads them, each with a newline. It complains about more than we do, such as access times."""
    command = ["tar", "--list", "--file=-", "--absolute-names", "--quoting-style=literal"]
    return subprocess.run(command, input=data, capture_output=True, env=ENV).stdout


def listed(names: Iterable[bytes]) -> bytes:
    return b"".join(name + b"\n" for name in names)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few files of all kinds, with names that are long enough for all formats to show what they do."""
    top = tmp_path_factory.mktemp("tree")
    (top / ("d" * 90) / ("e" * 90)).mkdir(parents=True)
    (top / ("d" * 90) / ("e" * 90) / ("f" * 90)).write_bytes(b"deep")
    (top / "file").write_bytes(b"x" * 1500)
    (top / "hard").hardlink_to(top / "file")
    (top / "link").symlink_to("l" * 120)
    os.mkfifo(top / "fifo")
    with open(top / "sparse", "wb") as file:
        for at in range(1 << 20, 12 << 20, 1 << 20):
            file.seek(at)
            file.write(b"y" * 5000)
        file.truncate(20 << 20)
    os.utime(top / "file", ns=(1, 1234567890_987654321))
    return top


FORMATS = {
    "v7": ["--format=v7"],
    "ustar": ["--format=ustar"],
    "oldgnu": ["--format=oldgnu", "--sparse"],
    "gnu": ["--format=gnu", "--sparse"],
    "posix 0.0": ["--format=posix", "--sparse", "--sparse-version=0.0"],
    "posix 0.1": ["--format=posix", "--sparse", "--sparse-version=0.1"],
    "posix 1.0": ["--format=posix", "--sparse", "--sparse-version=1.0"],
}


def archive_of(tree: Path, options: list[str]) -> bytes:
    done = subprocess.run(
        ["tar", "--create", "--file=-", f"--directory={tree}", "--sort=name", *options, "."],
        capture_output=True,
        env=ENV,
    )
    assert done.returncode in (0, 2)  # 2: names that do not fit are left out
    return done.stdout


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_archives_of_gnu_tar_are_read_as_it_reads_them(tree: Path, options: list[str]) -> None:
    data = archive_of(tree, options)
    found = {member.name: member for member in members(data)}
    assert listed(found) == gnu_tar_lists(data)
    assert found[b"./hard"].link == b"./file" or found[b"./file"].link == b"./hard"
    assert {found[b"./hard"].size, found[b"./file"].size} == {0, 1500}
    assert found[b"./sparse"].size == 20 << 20
    assert bool(found[b"./sparse"].sparse) == ("--sparse" in options)
    expected = 1234567890_987654321 if "posix" in options[0] else 1234567890_000000000
    assert found[b"./file"].mtime_ns == expected


def mutated(data: bytes, chance: random.Random) -> bytes:
    """*data* with one to three things wrong; mostly with checksums that are right again, so that more is looked at."""
    raw = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        block = 512 * chance.randrange(len(raw) // 512)
        how = chance.randrange(8)
        if how == 0:
            del raw[chance.randrange(512, len(raw)) :]
            raw += bytes(512)
        elif how == 1 and len(raw) > 1024:
            del raw[block : block + 512]
        elif how == 2:
            raw[block:block] = raw[512 * chance.randrange(len(raw) // 512) :][:512]
        elif how == 3:
            raw[block : block + 512] = bytes(512)
        else:
            if how > 4:  # where something is
                offset = chance.choice(
                    [chance.randrange(4), chance.randrange(100, 157), 156, 257 + chance.randrange(8)]
                )
            else:
                offset = chance.randrange(512)
            values = [chance.randrange(256), *b"\0 /0123457xgLKSX=\n,"]
            raw[block + offset] = chance.choice(values)
        if chance.random() < 0.9:
            fix_checksum(raw, block)
    return bytes(raw)


def fix_checksum(raw: bytearray, block: int) -> None:
    if len(raw) >= block + 512 and raw[block + 257 : block + 262] == b"ustar":
        raw[block + 148 : block + 156] = b" " * 8
        raw[block + 148 : block + 156] = b"%06o\0 " % sum(raw[block : block + 512])


@pytest.mark.slow
def test_a_damaged_archive_is_read_as_by_gnu_tar_or_refused(tree: Path) -> None:  # T16
    chance = random.Random(int(os.environ.get("ROOTLESS_TAR_SEED", "1")))
    small = [data[: -len(data) % 512 or None] for data in small_archives(tree)]
    accepted = 0
    for _ in range(MUTATIONS):
        data = mutated(chance.choice(small), chance)
        try:
            names = [member.name for member in members(data)]
        except CorruptData:
            continue
        accepted += 1
        assert listed(names) == gnu_tar_lists(data), data
    assert accepted > MUTATIONS / 20


def small_archives(tree: Path) -> list[bytes]:
    """One of each format, small enough for most damage to hit a header."""
    without = ["--exclude=./sparse", "--no-recursion", "./file", "./hard", "./link", f"./{'d' * 90}"]
    archives = [archive_of(tree, [*options, "--blocking-factor=1", *without]) for options in FORMATS.values()]
    return archives + [archive(data, entry(b"next", content=b"n")) for data in SPARSE.values()]


@pytest.mark.bench
def test_a_header_takes_less_than_ten_microseconds() -> None:
    data = archive(*(entry(b"usr/share/doc/%d" % i, content=b"x", mtime=i, uid=i % 10) for i in range(20_000)))
    start = time.perf_counter()
    assert len(members(data)) == 20_000
    assert time.perf_counter() - start < 20_000 * 10e-6


def test_a_records_length_counts_itself() -> None:
    assert [len(record(b"a", b"x" * n)) for n in (4, 5, 93, 94)] == [9, 11, 99, 101]
