"""Everything here happens as root of a user namespace of an ordinary account, as in the product."""

import errno
import os
import random
import resource
import stat
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootless.errors import CorruptData
from rootless.store import unpack as unpack_module
from rootless.store.unpack import Ids, WhiteoutStyle, unpack_layer
from tests.support import evil_tar
from tests.support.canary import Canary
from tests.support.evil_tar import CHARACTER, DIRECTORY, FIFO, HARD_LINK, SYMLINK, archive, base256, entry
from tests.support.layers import (
    Tree,
    directory,
    folder,
    hard,
    link,
    look_below,
    mounted,
    opened,
    paths,
    pieces,
    unpack,
)
from tests.support.userns import in_namespace

pytestmark = pytest.mark.kernel

ENV = {"LC_ALL": "C", "PATH": os.environ["PATH"]}


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    canary = Canary(tmp_path / "victim")
    yield canary
    assert canary.changes() == []


# What a layer has


def test_a_file_is_what_its_member_says(tmp_path: Path) -> None:  # Y04
    data = archive(
        entry(b"./", DIRECTORY, mode=0o755, mtime=11),
        entry(b"dir/", DIRECTORY, mode=0o2750, uid=3, gid=4, mtime=-2147483000),
        entry(b"dir/file", content=b"text", mode=0o640, uid=65535, gid=12, pax={b"mtime": b"4291747200.123456789"}),
        entry(b"dir/suid", mode=0o6755, uid=1, gid=1),
        entry(b"dir/locked", mode=0, content=b"x"),
        entry(b"link", SYMLINK, link=b"/dir/file", uid=5, gid=6, mtime=7),
        entry(b"fifo", FIFO, mode=0o622, uid=8, gid=9, mtime=10),
    )
    done = unpack(tmp_path, data).checked()
    tree = done.tree
    assert (done.entries, done.size, done.implicit, done.recorded) == (7, 5, [], [])
    assert tree[b""].mtime_ns == 11 * 10**9
    assert (tree[b"dir"].permissions, tree[b"dir"].owner, tree[b"dir"].mtime_ns) == (
        0o2750,
        (3, 4),
        -2147483000 * 10**9,
    )
    file = tree[b"dir/file"]
    assert (file.content, file.permissions, file.owner) == (b"text", 0o640, (65535, 12))
    assert file.mtime_ns == 4291747200_123456789
    assert (tree[b"dir/suid"].permissions, tree[b"dir/suid"].owner) == (0o6755, (1, 1))
    assert (tree[b"dir/locked"].permissions, tree[b"dir/locked"].content) == (0, b"x")
    symlink = tree[b"link"]
    assert (symlink.content, symlink.owner, symlink.mtime_ns) == (b"/dir/file", (5, 6), 7 * 10**9)
    fifo = tree[b"fifo"]
    assert (fifo.kind, fifo.permissions, fifo.owner, fifo.mtime_ns) == (stat.S_IFIFO, 0o622, (8, 9), 10 * 10**9)


@pytest.mark.parametrize("umask", [0, 0o077, 0o177])
def test_the_umask_and_the_store_leave_no_trace(tmp_path: Path, umask: int) -> None:  # F01
    modes = [0o777, 0o666, 0o444, 0o4711, 0o1777]
    data = archive(
        *(entry(b"f%o" % mode, mode=mode) for mode in modes), *(folder(b"d%o" % mode, mode) for mode in modes)
    )

    tmp_path.chmod(0o2700)  # what is made here inherits setgid
    tree = unpack(tmp_path, data, umask=umask).checked().tree
    for kind in (b"f", b"d"):
        assert [tree[kind + b"%o" % mode].permissions for mode in modes] == modes
    assert tree[b""].permissions == 0o755


def test_members_may_come_in_any_order_into_closed_directories(tmp_path: Path) -> None:
    data = archive(
        folder(b"a", 0),
        folder(b"a/b", 0),
        entry(b"a/b/c", content=b"1"),
        entry(b"x/y/z", content=b"2"),
        folder(b"x", 0o500),
    )
    done = unpack(tmp_path, data).checked()
    assert done.tree[b"a/b/c"].content == b"1"
    assert [done.tree[path].permissions for path in (b"a", b"a/b", b"x", b"x/y")] == [0, 0, 0o500, 0o755]
    assert done.implicit == [b"", b"x/y"]


def test_sparse_files_keep_their_holes(tmp_path: Path) -> None:  # Y04
    pax = {b"GNU.sparse.map": b"1048576,4,3145728,4", b"GNU.sparse.numblocks": b"2", b"GNU.sparse.size": b"4194304"}
    done = unpack(tmp_path, archive(entry(b"s", content=b"12345678", pax=pax))).checked()
    content = done.tree[b"s"].content
    assert len(content) == 4 << 20
    assert content == bytes(1 << 20) + b"1234" + bytes((2 << 20) - 4) + b"5678" + bytes((1 << 20) - 4)
    assert done.tree[b"s"].blocks * 512 < 100_000
    assert done.size == 8


def test_a_large_file_comes_through_small_chunks(tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    assert unpack(tmp_path, archive(entry(b"f", content=content))).checked().tree[b"f"].content == content


def test_all_chunks_are_taken_those_after_the_end_too(tmp_path: Path) -> None:  # T16
    data = archive(entry(b"a")) + b"junk" * 1000
    left = pieces(data)
    with opened(tmp_path) as fd:
        unpack_layer(left, fd, whiteouts=WhiteoutStyle.FUSE, ids=Ids.present())
    assert list(left) == []


# Where names lead


@pytest.mark.parametrize(
    "name", [b"..", b"../x", b"/../x", b"a/../../x", b"a/..", b"./../x", b"a/b/../c", b"//..//x", b"../"]
)
@pytest.mark.parametrize("kind", [evil_tar.FILE, SYMLINK, DIRECTORY, FIFO, HARD_LINK])
def test_a_name_that_leads_up_is_refused(tmp_path: Path, canary: Canary, name: bytes, kind: bytes) -> None:  # T01
    kind = b"\0" if kind == evil_tar.FILE else kind
    done = unpack(tmp_path, archive(folder(b"a"), entry(b"f"), entry(name, kind, link=b"f")))
    assert done.error.startswith("CorruptData")
    assert "leads out" in done.error
    assert paths(done.tree) == {b"a", b"f"}


def test_an_absolute_name_starts_at_the_layers_root(tmp_path: Path, canary: Canary) -> None:  # T01
    name = os.fsencode(canary.top / "passwd")
    tree = unpack(tmp_path, archive(entry(name, content=b"x"), entry(b"//a//./b", content=b"y"))).checked().tree
    assert tree[name[1:]].content == b"x"
    assert tree[b"a/b"].content == b"y"


@pytest.mark.parametrize(
    "target", [b"/victim", b"../victim", b"../../../../../../victim", b"/../victim", b"up/../../victim", b"x/../victim"]
)
def test_a_link_in_a_members_path_is_resolved_in_the_layer(
    tmp_path: Path, canary: Canary, target: bytes
) -> None:  # T02
    data = archive(folder(b"x"), link(b"up", b".."), link(b"etc", target), entry(b"etc/passwd", content=b"in"))
    tree = unpack(tmp_path, data).checked().tree
    assert tree[b"victim/passwd"].content == b"in"
    assert tree[b"etc"].content == target


def test_the_legal_link_works(tmp_path: Path) -> None:  # T02
    data = archive(
        folder(b"run", 0o700), link(b"var/run", b"/run"), entry(b"var/run/pid", content=b"1"), folder(b"var/run/lock")
    )
    tree = unpack(tmp_path, data).checked().tree
    assert paths(tree) == {b"run", b"run/pid", b"run/lock", b"var", b"var/run"}
    assert tree[b"run"].permissions == 0o700


def test_a_chain_of_links_does_not_lead_out(tmp_path: Path, canary: Canary) -> None:  # T03
    data = archive(
        folder(b"inner"),
        link(b"inner/up", b".."),
        link(b"inner/up/esc", b"../victim"),
        entry(b"inner/up/esc/passwd", content=b"in"),
        link(b"sibling", b"../layer-evil"),
        entry(b"sibling/x", content=b"in"),
    )
    (tmp_path / "layer-evil").mkdir()
    tree = unpack(tmp_path, data).checked().tree
    assert paths(tree) == {
        *(b"inner", b"inner/up", b"esc", b"victim", b"victim/passwd"),
        *(b"sibling", b"layer-evil", b"layer-evil/x"),
    }
    assert os.listdir(tmp_path / "layer-evil") == []


@pytest.mark.parametrize("target", [b"loop", b"/a/loop", b"../loop2"])
def test_links_in_a_circle_are_refused(tmp_path: Path, target: bytes) -> None:
    data = archive(link(b"loop2", b"loop"), link(b"loop", target), link(b"a/loop", b"/loop"), entry(b"loop/x"))
    assert "Too many levels" in unpack(tmp_path, data).error


@pytest.mark.parametrize("target", [b"/victim/file", b"../victim/file", b"etc/file", b"/etc/../../victim/file"])
def test_a_hard_link_is_to_what_is_in_the_layer(tmp_path: Path, canary: Canary, target: bytes) -> None:  # T04
    members = [link(b"etc", b"/victim"), hard(b"h", target)]
    tree = unpack(tmp_path, archive(entry(b"victim/file", content=b"in"), *members)).checked().tree
    assert tree[b"h"].content == b"in"
    assert tree[b"h"].inode == tree[b"victim/file"].inode
    done = unpack(tmp_path, archive(folder(b"victim"), *members))
    assert "'h': No such file" in done.error
    assert b"h" not in done.tree


def test_a_hard_link_to_a_link_is_one(tmp_path: Path, canary: Canary) -> None:  # T04, P04
    data = archive(link(b"l", b"/victim/file"), entry(b"h", HARD_LINK, link=b"l", mode=0o4777, uid=7, mtime=9))
    tree = unpack(tmp_path, data).checked().tree
    assert tree[b"h"].content == b"/victim/file"
    assert tree[b"h"].inode == tree[b"l"].inode


def test_a_hard_link_to_a_directory_is_refused(tmp_path: Path) -> None:  # T04
    for target in (b"d", b".", b"/", b"d/.."):
        assert "hard link to a directory" in unpack(tmp_path, archive(folder(b"d"), hard(b"h", target))).error


def test_a_hard_link_may_replace_and_may_be_to_itself(tmp_path: Path) -> None:  # T13
    data = archive(
        entry(b"a", content=b"1"),
        hard(b"a", b"a"),
        entry(b"b", content=b"2"),
        hard(b"b", b"./a"),
        hard(b"b", b"a"),
        folder(b"d"),
        entry(b"d/f"),
        hard(b"d", b"a"),
    )
    tree = unpack(tmp_path, data).checked().tree
    assert paths(tree) == {b"a", b"b", b"d"}
    assert {node.inode for path, node in tree.items() if path} == {tree[b"a"].inode}


def test_metadata_never_goes_through_a_link(tmp_path: Path, canary: Canary) -> None:  # T06
    for target in (canary.top, canary.top / "file", canary.top / "fifo"):
        raw = os.fsencode(target)
        xattr = {b"SCHILY.xattr.user.evil": b"1"}
        data = archive(
            entry(b"l", SYMLINK, link=raw, mode=0o777, uid=7, gid=7, mtime=7, pax=xattr),
            entry(b"h", HARD_LINK, link=b"l", mode=0o4777, uid=8, gid=8, mtime=8, pax=xattr),
            entry(b"l/", DIRECTORY, mode=0, uid=9, gid=9, mtime=9, pax=xattr),
            entry(b"h", mode=0o4777, uid=9, gid=9, mtime=9, pax=xattr),
        )
        tree = unpack(tmp_path, data).checked().tree
        assert (tree[b"l"].kind, tree[b"h"].kind) == (stat.S_IFDIR, stat.S_IFREG)
        assert canary.changes() == []


def test_links_that_are_there_before_are_not_followed_either(tmp_path: Path, canary: Canary) -> None:  # F02
    def act() -> list[bytes]:
        with directory(tmp_path / "layer") as fd:
            for name in ("file", "fifo", "directory", "link", "in-the-way"):
                (tmp_path / "layer" / name).symlink_to(canary.top / "sub")
            data = archive(
                *(entry(b"file", mode=0o777), entry(b"fifo", FIFO), folder(b"directory", 0o777), link(b"link", b"x")),
                entry(b"in-the-way/file"),
            )
            unpack_layer(pieces(data), fd, whiteouts=WhiteoutStyle.OVERLAY, ids=Ids.present())
            tree = look_below(tmp_path / "layer")
            return sorted(path for path, node in tree.items() if node.kind == stat.S_IFLNK)

    assert in_namespace(act) == [b"in-the-way", b"link"]


# What comes twice


@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"3", b"5", b"6"])
@pytest.mark.parametrize("before", [b"0", b"1", b"2", b"3", b"5", b"6"])
def test_the_last_member_of_a_name_wins(tmp_path: Path, canary: Canary, before: bytes, kind: bytes) -> None:  # T13
    def member(name: bytes, kind: bytes, content: bytes) -> bytes:
        target = {HARD_LINK: b"other", SYMLINK: b"/victim"}.get(kind, b"")
        return entry(name, kind, content=content if kind == b"0" else b"", link=target, major=1, minor=3)

    parts = [entry(b"other", content=b"o"), member(b"x", before, b"1")]
    if before == DIRECTORY:
        parts += [entry(b"x/inner/file"), entry(b"x/.wh.gone"), entry(b"x/.wh..wh..opq"), entry(b"x/d", b"3", major=1)]
    done = unpack(tmp_path, archive(*parts, member(b"x", kind, b"2"))).checked()
    expected = {b"0": stat.S_IFREG, b"1": stat.S_IFREG, b"2": stat.S_IFLNK, b"5": stat.S_IFDIR, b"6": stat.S_IFIFO}
    if kind == CHARACTER:
        assert b"x" not in done.tree
    else:
        assert done.tree[b"x"].kind == expected[kind]
    if (before, kind) == (DIRECTORY, DIRECTORY):
        assert paths(done.tree) == {b"other", b"x", b"x/inner", b"x/inner/file"}
        assert done.tree[b"x"].is_opaque
    else:
        assert paths(done.tree) - {b"x"} == {b"other"}
        assert [record[0] for record in done.recorded] == ([b"x"] if kind == CHARACTER else [])
    assert done.tree[b"other"].content == b"o"


def test_a_directory_that_became_a_link_is_not_written_through_by_memory(tmp_path: Path, canary: Canary) -> None:  # T13
    data = archive(
        entry(b"d/a", content=b"1"),
        entry(b"d/b", content=b"2"),
        link(b"d", os.fsencode(canary.top)),
        entry(b"d/c", content=b"3"),
        link(b"d", b"e"),
        entry(b"d/f", content=b"4"),
    )
    tree = unpack(tmp_path, data).checked().tree
    there = os.fsencode(canary.top).lstrip(b"/")
    assert tree[there + b"/c"].content == b"3"
    assert tree[b"e/f"].content == b"4"
    assert tree[b"d"].kind == stat.S_IFLNK


def test_the_looks_of_a_directory_are_those_of_its_last_member(tmp_path: Path) -> None:  # T13
    data = archive(entry(b"d", DIRECTORY, mode=0, uid=1), entry(b"d/f"), entry(b"d", DIRECTORY, mode=0o750, uid=2))
    tree = unpack(tmp_path, data).checked().tree
    assert (tree[b"d"].permissions, tree[b"d"].owner, b"d/f" in tree) == (0o750, (2, 0), True)


@pytest.mark.parametrize("name", [b".", b"./", b"/", b"", b"//./"])
def test_the_root_stays_our_directory(tmp_path: Path, name: bytes) -> None:  # T13
    for kind in (SYMLINK, HARD_LINK, FIFO, CHARACTER):
        done = unpack(tmp_path, archive(entry(b"a"), entry(name, kind, link=b"a")))
        assert "the root of a layer is a directory" in done.error
    tree = unpack(tmp_path, archive(entry(name, DIRECTORY, mode=0o1000, uid=3), entry(b"a"))).checked().tree
    assert (tree[b""].permissions, tree[b""].owner) == (0o1700, (3, 0))


@pytest.mark.parametrize("before", [entry(b"a"), entry(b"a", FIFO), entry(b"b") + link(b"a", b"b")])
def test_a_file_is_no_directory(tmp_path: Path, before: bytes) -> None:
    assert "'a/x': Not a directory" in unpack(tmp_path, archive(before, entry(b"a/x"))).error
    assert "'h': Not a directory" in unpack(tmp_path, archive(before, hard(b"h", b"a/x"))).error


# Names


@pytest.mark.parametrize(
    "name", [b"n" * 256, b"d/" * 2100 + b"x", (b"d" * 200 + b"/") * 21, b"n" * 256 + b"/x", b".wh." + b"n" * 255]
)
def test_a_name_that_is_too_long_is_named(tmp_path: Path, name: bytes) -> None:  # T10
    error = unpack(tmp_path, archive(entry(name, b"\0"))).error
    assert error.startswith("CorruptData: '" + name[:100].decode())
    assert len(error) < 400


def test_names_are_kept_byte_by_byte(tmp_path: Path) -> None:  # T10
    names = [b"\xff\xfe", b"new\nline", b"\x1b[31m", "ä".encode(), b"a\\", b" ", b"-rf", b"n" * 255, b"d" * 255 + b"/x"]
    tree = unpack(tmp_path, archive(*(entry(name) for name in names), link(b"l", b"\xff\n"))).checked().tree
    assert paths(tree) == {*names, b"d" * 255, b"l"}
    assert tree[b"l"].content == b"\xff\n"


def test_a_link_with_a_target_that_is_too_long_is_named(tmp_path: Path) -> None:  # T18
    assert "'l': File name too long" in unpack(tmp_path, archive(link(b"l", b"x" * 1_000_000))).error
    assert unpack(tmp_path, archive(link(b"l", b"x" * 4095))).checked().tree[b"l"].content == b"x" * 4095
    assert "'l': " in unpack(tmp_path, archive(link(b"l", b""))).error


# Owners


def test_an_owner_outside_of_the_map_is_squashed_and_recorded(tmp_path: Path) -> None:  # T17
    data = archive(
        entry(b"a", uid=3_000_000_000, gid=3, mode=0o6755),
        entry(b"b", uid=3, gid=(1 << 31) + 5, mode=0o6755),
        entry(b"d", DIRECTORY, uid=base256((1 << 32) - 2, 8), mode=0o6755),
        entry(b"l", SYMLINK, link=b"x", uid=3_000_000_000),
        entry(b"p", FIFO, uid=3_000_000_000),
        entry(b"ok", uid=65_535, gid=65_535, mode=0o6755),
    )
    done = unpack(tmp_path, data).checked()
    owners = {path: node.owner for path, node in done.tree.items() if path}
    assert owners == {b"a": (0, 3), b"b": (3, 0), b"d": (0, 0), b"l": (0, 0), b"p": (0, 0), b"ok": (65_535, 65_535)}
    modes = {path: done.tree[path].permissions for path in (b"a", b"b", b"d", b"ok")}
    assert modes == {b"a": 0o2755, b"b": 0o4755, b"d": 0o2755, b"ok": 0o6755}
    recorded = {record[0]: record[1:4] for record in done.recorded}
    assert recorded == {
        b"a": (3_000_000_000, 3, stat.S_IFREG | 0o6755),
        b"b": (3, (1 << 31) + 5, stat.S_IFREG | 0o6755),
        b"d": ((1 << 32) - 2, 0, stat.S_IFDIR | 0o6755),
        b"l": (3_000_000_000, 0, stat.S_IFLNK | 0o644),
        b"p": (3_000_000_000, 0, stat.S_IFIFO | 0o644),
    }
    assert done.squashed == 5


def test_with_one_id_everything_is_the_users_and_all_else_recorded(tmp_path: Path) -> None:  # T17
    data = archive(
        entry(b"./", DIRECTORY, uid=1),
        entry(b"d/", DIRECTORY, uid=1000, gid=1000, mode=0o700),
        entry(b"d/f", content=b"x", uid=1000, gid=0, mode=0o4755, pax={b"SCHILY.xattr.user.a": b"1"}),
        entry(b"own", mode=0o4755),
        hard(b"again", b"d/f"),
    )
    done = unpack(tmp_path, data, one_id=True).checked()
    assert {node.owner for node in done.tree.values()} == {(0, 0)}
    assert done.tree[b"d/f"].permissions == 0o755
    assert done.tree[b"own"].permissions == 0o4755
    assert sorted(record[:4] for record in done.recorded) == [
        (b"", 1, 0, stat.S_IFDIR | 0o755),
        (b"again", 1000, 0, stat.S_IFREG | 0o4755),
        (b"d", 1000, 1000, stat.S_IFDIR | 0o700),
        (b"d/f", 1000, 0, stat.S_IFREG | 0o4755),
    ]
    assert done.squashed == 3


def test_an_owner_that_the_kernel_refuses_is_recorded(tmp_path: Path) -> None:
    """A map that promises more than there is: what chown(2) answers counts."""
    everybody = Ids(((0, 1 << 32),), ((0, 1 << 32),))
    done = unpack(tmp_path, archive(entry(b"a", uid=5), link(b"l", b"x")), one_id=True, ids=everybody).checked()
    assert done.tree[b"a"].owner == (0, 0)
    assert [record[:2] for record in done.recorded] == [(b"a", 5)]


def test_what_became_something_else_is_recorded_no_more(tmp_path: Path) -> None:
    data = archive(
        *(entry(b"a", uid=3_000_000_000), entry(b"a")),
        *(entry(b"b", CHARACTER, major=1, minor=3), entry(b"b/c")),
        *(entry(b"d/x/f", uid=3_000_000_000), link(b"d/x", b"y")),
        *(entry(b"e", CHARACTER, major=1, minor=3), hard(b"e", b"a")),
        *(entry(b"f", CHARACTER, major=1, minor=3), folder(b"f")),
    )
    done = unpack(tmp_path, data).checked()
    assert done.recorded == []
    assert paths(done.tree) == {b"a", b"b", b"b/c", b"d", b"d/x", b"e", b"f"}


def test_ids_tell_the_present_namespace(tmp_path: Path) -> None:
    present = in_namespace(lambda: tuple(Ids.present()))
    ids = Ids(*present)
    assert (ids.has_uid(0), ids.has_uid(65_535), ids.has_uid(1 << 31), ids.has_gid(1 << 31)) == (
        True,
        True,
        False,
        False,
    )
    assert in_namespace(lambda: tuple(Ids.present()), one_id=True) == (((0, 1),), ((0, 1),))


# Devices


@pytest.mark.timeout(20)
def test_no_device_is_made_and_none_is_opened(tmp_path: Path) -> None:  # T07
    data = archive(
        entry(b"dev/null", CHARACTER, major=1, minor=3, mode=0o666, uid=1),
        entry(b"dev/sda", evil_tar.BLOCK, major=8, minor=0),
        entry(b"dev/zero", CHARACTER, major=0, minor=0),
        entry(b"dev/again", HARD_LINK, link=b"dev/null"),
        entry(b"dev/fifo", FIFO),
        entry(b"dev/fifo", FIFO, mode=0o600),
        hard(b"dev/fifo2", b"dev/fifo"),
    )
    done = unpack(tmp_path, data).checked()
    assert paths(done.tree) == {b"dev", b"dev/fifo", b"dev/fifo2"}
    assert sorted((record[0], record[3], record[4]) for record in done.recorded) == [
        (b"dev/again", stat.S_IFCHR | 0o666, (1, 3)),
        (b"dev/null", stat.S_IFCHR | 0o666, (1, 3)),
        (b"dev/sda", stat.S_IFBLK | 0o644, (8, 0)),
        (b"dev/zero", stat.S_IFCHR | 0o644, (0, 0)),
    ]


# Extended attributes


def capability(rights: int) -> bytes:
    """security.capability, version 2, as setcap(8) writes it: <linux/capability.h>."""
    return struct.pack("<IIIII", 0x02000001, rights, 0, 0, 0)


def acl(user: int) -> bytes:
    """system.posix_acl_access: rwx for *user*."""
    entries = [(1, 6, 0xFFFFFFFF), (2, 7, user), (4, 4, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


def xattrs(**values: bytes) -> dict[bytes, bytes]:
    return {b"SCHILY.xattr." + name.replace("__", ".").encode(): value for name, value in values.items()}


def test_attributes_and_capabilities_are_set(tmp_path: Path) -> None:  # Y04
    pax = xattrs(user__a=b"1\0\n=", user__empty=b"", security__capability=capability(1 << 10))
    pax |= xattrs(system__posix_acl_access=acl(1000))
    data = archive(
        entry(b"f", mode=0o674, uid=7, pax=pax, content=b"x"),
        entry(b"d", DIRECTORY, mode=0o555, pax=xattrs(user__b=b"2")),
    )
    done = unpack(tmp_path, data).checked()
    found = dict(done.tree[b"f"].xattrs)
    assert (found["user.a"], found["user.empty"], done.tree[b"f"].owner) == (b"1\0\n=", b"", (7, 0))
    assert found["security.capability"][4:12] == capability(1 << 10)[4:12]
    assert found["system.posix_acl_access"] == acl(1000)
    assert dict(done.tree[b"d"].xattrs) == {"user.b": b"2"}
    assert (done.dropped, done.recorded) == (0, [])


def test_attributes_that_no_archive_may_set_are_dropped(tmp_path: Path) -> None:  # T09
    pax = xattrs(
        trusted__overlay__opaque=b"y",
        trusted__other=b"y",
        user__overlay__opaque=b"y",
        user__overlay__redirect=b"/etc",
        user__overlay__metacopy=b"",
        user__overlay__overlay__opaque=b"y",
        user__rootless__owner=b"0:0",
        security__selinux=b"x",
        security__ima=b"x",
        system__other=b"x",
        user__huge=b"x" * 100_000,
        nothing=b"x",
    )
    pax |= {b"SCHILY.xattr.": b"x", b"SCHILY.xattr.user.": b"x", b"SCHILY.xattr.user." + b"n" * 255: b"x"}
    kept = xattrs(user__fine=b"x")
    data = archive(
        entry(b"f", pax=pax | kept), entry(b"d", DIRECTORY, pax=pax | kept), entry(b"l", SYMLINK, link=b"f", pax=kept)
    )
    done = unpack(tmp_path, data).checked()
    assert {node.xattrs for path, node in done.tree.items() if path in (b"f", b"d")} == {(("user.fine", b"x"),)}
    assert (done.dropped, done.recorded) == (31, [])


def test_attributes_of_an_archive_change_no_whiteout_and_no_opaqueness(tmp_path: Path) -> None:  # T09
    lower = archive(folder(b"d"), entry(b"d/below", content=b"b"), folder(b"e"), entry(b"e/below"))
    upper = archive(
        entry(b"d", DIRECTORY, pax=xattrs(user__overlay__opaque=b"y")),
        entry(b"e", DIRECTORY, pax=xattrs(user__overlay__redirect=b"/d", trusted__overlay__redirect=b"/d")),
        entry(b"w", CHARACTER, major=0, minor=0, pax=xattrs(user__overlay__whiteout=b"y")),
        entry(b"v", pax=xattrs(user__overlay__whiteout=b"y", user__overlay__metacopy=b"")),
    )
    tree = mounted(tmp_path, lower, upper)
    assert paths(tree) == {b"d", b"d/below", b"e", b"e/below", b"v"}


def test_an_attribute_that_the_file_system_refuses_is_recorded(tmp_path: Path) -> None:  # T09
    bad = b"no capability at all"
    done = unpack(tmp_path, archive(entry(b"f", pax=xattrs(security__capability=bad, user__a=b"1")))).checked()
    assert done.tree[b"f"].xattrs == (("user.a", b"1"),)
    assert [(record[0], record[5]) for record in done.recorded] == [(b"f", ((b"security.capability", bad),))]


# Modes


@pytest.mark.parametrize("style", WhiteoutStyle)
def test_setuid_bits_are_kept_however_a_layer_is_marked(tmp_path: Path, style: WhiteoutStyle) -> None:
    data = archive(entry(b"f", mode=0o6755), folder(b"d", 0o3777), entry(b"g", mode=0o755))
    done = unpack(tmp_path, data, style=style).checked()
    assert [done.tree[path].permissions for path in (b"f", b"d", b"g")] == [0o6755, 0o3777, 0o755]
    assert done.recorded == []
    assert done.squashed == 0


# Whiteouts


@pytest.mark.parametrize("style", WhiteoutStyle)
def test_marks_of_absence(tmp_path: Path, style: WhiteoutStyle) -> None:  # T14
    data = archive(entry(b"a/.wh.x"), entry(b"b/.wh..wh..opq"), entry(b".wh.y"), entry(b"b/own"))
    tree = unpack(tmp_path, data, style=style).checked().tree
    if style is WhiteoutStyle.OVERLAY:
        assert paths(tree) == {b"a", b"a/x", b"b", b"b/own", b"y"}
        assert tree[b"a/x"].is_whiteout
        assert tree[b"y"].is_whiteout
        assert tree[b"b"].is_opaque
        assert not tree[b"a"].is_opaque
    else:
        assert paths(tree) == {b"a", b"a/.wh.x", b"b", b"b/.wh..wh..opq", b"b/own", b".wh.y"}
        assert {tree[path].content for path in (b"a/.wh.x", b"b/.wh..wh..opq", b".wh.y")} == {b""}


@pytest.mark.parametrize(
    "name", [b".wh.", b".wh..", b".wh...", b".wh..wh.x", b".wh..wh..opq/x", b".wh.x/y", b".wh..wh..wh.x"]
)
@pytest.mark.parametrize("parent", [b"", b"etc/", b"link/", b"etc/deep/"])
def test_a_name_that_no_whiteout_can_have_is_refused(
    tmp_path: Path, canary: Canary, parent: bytes, name: bytes
) -> None:  # T14
    done = unpack(tmp_path, archive(entry(b"etc/passwd"), link(b"link", b"../victim"), entry(parent + name)))
    if parent + name in (b".wh..wh.x", b".wh..wh..wh.x"):  # in the root, these are files of aufs
        assert paths(done.checked().tree) == {b"etc", b"etc/passwd", b"link"}
    else:
        assert "whiteout" in done.error


def test_a_whiteout_through_a_link_or_upwards_stays_inside(tmp_path: Path, canary: Canary) -> None:  # T14
    data = archive(folder(b"etc"), link(b"l", b"../victim"), entry(b"l/.wh.file"), entry(b"l/.wh..wh..opq"))
    tree = unpack(tmp_path, data).checked().tree
    assert tree[b"victim"].is_opaque
    tree = unpack(tmp_path, archive(folder(b"etc"), link(b"l", b"../victim"), entry(b"l/.wh.file"))).checked().tree
    assert tree[b"victim/file"].is_whiteout
    assert "leads out" in unpack(tmp_path, archive(entry(b"x/../.wh.etc"))).error


@pytest.mark.parametrize("style", WhiteoutStyle)
@pytest.mark.parametrize("backwards", [False, True])
def test_a_layers_own_files_stay_whatever_its_whiteouts_say(
    tmp_path: Path, style: WhiteoutStyle, backwards: bool
) -> None:  # T15
    parts = [
        *(entry(b"f", content=b"own"), entry(b".wh.f")),
        *(entry(b"d/own"), entry(b".wh.d")),
        *(entry(b"o/own"), entry(b"o/.wh..wh..opq"), entry(b"o/.wh.own"), entry(b"o/.wh.other")),
        *(link(b"l", b"x"), entry(b".wh.l")),
    ]
    tree = unpack(tmp_path, archive(*(parts[::-1] if backwards else parts)), style=style).checked().tree
    own = {b"f", b"d", b"d/own", b"o", b"o/own", b"l"}
    if style is WhiteoutStyle.OVERLAY:
        assert paths(tree) == own  # in an opaque directory, there is nothing for a whiteout to hide
        assert (tree[b"d"].is_opaque, tree[b"o"].is_opaque) == (True, True)
    else:
        assert paths(tree) == {*own, b"d/.wh..wh..opq", b"o/.wh..wh..opq"}
    assert tree[b"f"].content == b"own"


def test_what_aufs_kept_is_not_in_the_layer(tmp_path: Path) -> None:
    data = archive(
        entry(b".wh..wh.aufs"),
        folder(b".wh..wh.orph"),
        folder(b".wh..wh.plnk"),
        entry(b".wh..wh.plnk/12.34", content=b"linked"),
        hard(b"a", b".wh..wh.plnk/12.34"),
        hard(b"b", b".wh..wh.plnk/12.34"),
    )
    tree = unpack(tmp_path, data).checked().tree
    assert paths(tree) == {b"a", b"b"}
    assert tree[b"a"].inode == tree[b"b"].inode


# Implicit directories


def test_directories_that_no_member_is_are_told(tmp_path: Path) -> None:
    data = archive(
        entry(b"a/b/c"),
        folder(b"a"),
        folder(b"x/y"),
        entry(b"o/.wh..wh..opq"),
        entry(b"o/p/q"),
        entry(b"w/z"),
        entry(b".wh.w"),
    )
    assert unpack(tmp_path, data).checked().implicit == [b"", b"a/b", b"x"]
    assert unpack(tmp_path, archive(folder(b"."), entry(b"a"))).checked().implicit == []


# containerd's TestBreakouts, by the names they have there: each in one layer, or over one

OK = b"inside"
PASSWD = [folder(b"etc", 0o770), entry(b"/etc/passwd", content=OK)]
FAR = b"../../../../../../../etc"
BREAKOUTS: dict[str, tuple[list[bytes], list[bytes], dict[bytes, bytes] | None]] = {
    "SymlinkAbsolute": ([folder(b"etc"), link(b"l", b"/etc"), entry(b"/l/x", content=OK)], [], {b"etc/x": OK}),
    "SymlinkUpAndOut": (
        [folder(b"etc"), folder(b"d"), link(b"l", b"/d/../etc"), entry(b"/l/x", content=OK)],
        [],
        {b"etc/x": OK},
    ),
    "SymlinkMultipleAbsolute": (
        [folder(b"etc"), folder(b"d"), link(b"/d/etc", b"/etc"), link(b"l", b"/d/etc"), entry(b"/l/x", content=OK)],
        [],
        {b"etc/x": OK},
    ),
    "SymlinkMultipleRelative": (
        [folder(b"etc"), folder(b"d"), link(b"/d/etc", b"/etc"), link(b"l", b"./d/etc"), entry(b"/l/x", content=OK)],
        [],
        {b"etc/x": OK},
    ),
    "SymlinkEmptyFile": (
        [folder(b"etc"), entry(b"etc/x", content=b"full"), link(b"l", b"/etc"), entry(b"/l/x")],
        [],
        {b"etc/x": b""},
    ),
    "HardlinkRelative": (
        [*PASSWD, folder(b"b"), link(b"b/d", b"../../etc"), hard(b"b/h", b"/b/d/passwd")],
        [],
        {b"b/h": OK},
    ),
    "HardlinkDownAndOut": (
        [*PASSWD, folder(b"b"), folder(b"down"), link(b"b/d", b"../down/../../etc"), hard(b"b/h", b"/b/d/passwd")],
        [],
        {b"b/h": OK},
    ),
    "HardlinkAbsolute": ([*PASSWD, link(b"l", b"/etc"), hard(b"h", b"/l/passwd")], [], {b"h": OK}),
    "HardlinkRelativeLong": ([*PASSWD, link(b"l", FAR), hard(b"h", b"/l/passwd")], [], {b"h": OK}),
    "HardlinkRelativeUpAndOut": (
        [*PASSWD, folder(b"up"), link(b"l", b"up/../../../etc"), hard(b"h", b"/l/passwd")],
        [],
        {b"h": OK},
    ),
    "HardlinkDirectRelative": ([*PASSWD, hard(b"h", FAR + b"/passwd")], [], {b"h": OK}),
    "HardlinkDirectAbsolute": ([*PASSWD, hard(b"h", b"/etc/passwd")], [], {b"h": OK}),
    "SymlinkParentDirectory": ([*PASSWD, link(b"..", b"/etc/")], [], None),
    "SymlinkEmptyFilename": ([*PASSWD, link(b"", b"/etc/")], [], None),
    "SymlinkParentRelative": ([*PASSWD, link(b"l/sub/..", b"/etc/")], [], None),
    "SymlinkSlashEnded": ([*PASSWD, folder(b"l/"), hard(b"/l/h", b"/etc/passwd")], [], {b"l/h": OK}),
    "SymlinkOverrideDirectory": (
        [link(b"l", b"/etc"), entry(b"/l/x", content=OK)],
        [*PASSWD, folder(b"l"), entry(b"l/below")],
        {b"etc/x": OK, b"etc/passwd": OK},
    ),
    "SymlinkOverrideDirectoryRelative": (
        [link(b"l", b"../../etc"), entry(b"/l/x", content=OK)],
        [*PASSWD, folder(b"l")],
        {b"etc/x": OK, b"etc/passwd": OK},
    ),
    "DirectoryOverrideSymlink": (
        [folder(b"/l/"), entry(b"/l/x", content=OK)],
        [*PASSWD, link(b"l", b"/etc")],
        {b"l/x": OK, b"etc/passwd": OK},
    ),
    "DirectoryOverrideSymlinkAndHardlink": (
        [folder(b"/l/"), entry(b"/l/h", content=b"different")],
        [*PASSWD, hard(b"etc/h", b"etc/passwd"), link(b"l", b"etc")],
        {b"l/h": b"different", b"etc/h": OK, b"etc/passwd": OK},
    ),
    "WhiteoutRootParent": ([entry(b".wh...")], PASSWD, None),
    "WhiteoutParent": ([entry(b"etc/.wh...")], PASSWD, None),
    "WhiteoutRoot": ([entry(b".wh..")], PASSWD, None),
    "WhiteoutCurrentDirectory": ([entry(b"etc/.wh..")], PASSWD, None),
    "WhiteoutSymlink": ([entry(b".wh.l")], [*PASSWD, link(b"l", b"/etc")], {b"etc/passwd": OK, b"l": b""}),
    "WhiteoutSymlinkPath": (
        [entry(b"l/.wh.gone")],
        [*PASSWD, entry(b"etc/gone", content=b"x"), link(b"l", b"/etc")],
        {b"etc/passwd": OK, b"etc/gone": b""},
    ),
    "WhiteoutDirectoryName": ([entry(b".wh.etc/some", content=b"x")], PASSWD, None),
    "WhiteoutDeadSymlinkParent": ([entry(b"l/.wh.etc")], [*PASSWD, link(b"l", b"/dne")], {b"etc/passwd": OK}),
    "WhiteoutRelativePath": ([entry(b"dne/../.wh.etc")], PASSWD, None),
    "HardlinkSymlinkBeforeCreateTarget": (
        [folder(b"etc"), link(b"l", b"/etc/passwd"), hard(b"h", b"l"), entry(b"/etc/passwd", content=OK)],
        [],
        {b"h": b"/etc/passwd", b"l": b"/etc/passwd", b"etc/passwd": OK},
    ),
    "HardlinkSymlinkRelative": (
        [*PASSWD, link(b"l", FAR + b"/passwd"), hard(b"h", b"/l")],
        [],
        {b"h": FAR + b"/passwd"},
    ),
    "HardlinkSymlinkAbsolute": ([*PASSWD, link(b"l", b"/etc/passwd"), hard(b"h", b"/l")], [], {b"h": b"/etc/passwd"}),
    "HardlinkSymlinkChmod": (
        [link(b"there", FAR + b"/passwd"), entry(b"h", HARD_LINK, link=b"there", mode=0o4777, uid=5)],
        [],
        {b"h": FAR + b"/passwd"},
    ),
}


@pytest.mark.parametrize("name", BREAKOUTS)
def test_breakouts(tmp_path: Path, canary: Canary, name: str) -> None:  # T13, T14
    members, below, expected = BREAKOUTS[name]
    if expected is None:
        assert unpack(tmp_path, archive(*members)).error.startswith("CorruptData")
        return
    tree = mounted(tmp_path, archive(*below), archive(*members))
    assert {path: tree[path].content if path in tree else b"" for path in expected} == expected


# Limits


def on_small_disk(tmp_path: Path, chunks: Iterable[bytes], options: str) -> str:
    """The error of unpacking onto a tmpfs; afterwards, what is there can be removed."""

    def act() -> str:
        disk = tmp_path / "disk"
        disk.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(disk)], check=True)
        with directory(disk / "layer") as fd:
            try:
                unpack_layer(chunks, fd, whiteouts=WhiteoutStyle.FUSE, ids=Ids.present())
            except (CorruptData, OSError) as error:
                return f"{type(error).__name__} {getattr(error, 'errno', '')}"
        return ""

    return in_namespace(act)


def test_a_full_disk_is_an_error_and_can_be_cleaned(tmp_path: Path) -> None:  # D01
    big = archive(entry(b"a", content=bytes(3 << 20)))
    many = archive(*(entry(b"d%d/%d" % (i % 7, i), content=b"x") for i in range(300)))
    for data, options in ((big, "size=1m"), (many, "nr_inodes=100"), (many, "size=200k")):
        assert on_small_disk(tmp_path, pieces(data), options) == f"OSError {errno.ENOSPC}"


@pytest.mark.parametrize("size", [b"8EiB", b"sparse", b"negative"])
def test_a_file_that_no_disk_holds_is_refused_before_it_is_made(tmp_path: Path, size: bytes) -> None:  # T11
    eib = (8 << 60) - 1
    members = {
        b"8EiB": entry(b"f", size=base256(eib, 12)),
        b"sparse": entry(
            b"f",
            content=b"x",
            pax={b"GNU.sparse.map": b"0,1", b"GNU.sparse.numblocks": b"1", b"GNU.sparse.size": b"%d" % eib},
        ),
        b"negative": entry(b"f", pax={b"size": b"-1"}),
    }
    done = unpack(tmp_path, archive(members[size]))
    assert done.error.startswith("CorruptData")
    assert paths(done.tree) == set()


def test_memory_and_descriptors_are_bounded_whatever_comes(tmp_path: Path) -> None:  # T18
    """Directories 2,000 deep and members that jump between many of them, then many small ones."""

    def layer() -> Iterator[bytes]:
        yield entry(b"d/" * 2000 + b"f", content=b"deep")
        for i in range(40):
            yield entry(b"e%d/" % i + b"d/" * 100 + b"f")
        for i in range(400):
            yield entry(b"e%d/" % (i * 7 % 40) + b"d/" * (i % 100) + b"g%d" % i)
        for i in range(0, 20_000, 100):
            yield b"".join(entry(b"many/%d" % (i + k)) for k in range(100))
        yield evil_tar.END

    def act() -> list[int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with directory(tmp_path / "layer") as fd:
            done = unpack_layer(layer(), fd, whiteouts=WhiteoutStyle.OVERLAY, ids=Ids.present())
        return [done.entries, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10]

    entries, grown = in_namespace(act)
    assert entries == 20_441
    assert grown < 64


def test_what_has_to_be_remembered_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # T18
    monkeypatch.setattr(unpack_module, "MAX_REMEMBERED", 50)
    assert unpack(tmp_path, archive(*(entry(b"%d" % i) for i in range(100)))).error == ""
    for data in (
        archive(*(folder(b"%d" % i) for i in range(100))),
        archive(entry(b"d/" * 100 + b"f")),
        archive(*(entry(b".wh.%d" % i) for i in range(100))),
        archive(*(entry(b"%d" % i, uid=3_000_000_000) for i in range(100))),
        archive(*(entry(b"%d" % i, CHARACTER, major=1, minor=3) for i in range(100))),
        archive(*(entry(b".wh..wh.%d" % i) for i in range(100))),
    ):
        assert "too many" in unpack(tmp_path, data).error


# GNU tar


FORMATS = {
    "v7": ["--format=v7"],
    "ustar": ["--format=ustar"],
    "oldgnu": ["--format=oldgnu", "--sparse"],
    "gnu": ["--format=gnu", "--sparse"],
    "posix 0.0": ["--format=posix", "--sparse", "--sparse-version=0.0", "--xattrs"],
    "posix 1.0": ["--format=posix", "--sparse", "--xattrs", "--acls"],
}


def make_tree(top: Path) -> None:
    """Files of every kind that GNU tar archives, of different owners; as root of the namespace."""
    (top / "usr/share/doc/deep/er").mkdir(parents=True)
    (top / "usr/share/doc/file").write_bytes(b"text")
    (top / "usr/big").write_bytes(os.urandom(300_000))
    (top / "usr/hard").hardlink_to(top / "usr/big")
    (top / "usr/share/link").symlink_to("../../absent")
    (top / "abs").symlink_to("/usr/share")
    (top / "hardlink-to-link").hardlink_to(top / "abs")
    os.mkfifo(top / "fifo", 0o640)
    with open(top / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
        file.truncate(5 << 20)
    for name in (b"\xff\xfe", b"n" * 150, "ä".encode(), b"new\nline"):
        Path(os.fsdecode(os.fsencode(top) + b"/" + name)).write_bytes(name)
    (top / ("p" * 90) / ("q" * 90)).mkdir(parents=True)
    (top / ("p" * 90) / ("q" * 90) / "leaf").touch()
    os.setxattr(top / "usr/big", "user.note", b"a\0b")
    os.setxattr(top / "usr", "user.note", b"directory")
    modes = {"usr": 0o2755, "usr/big": 0o4711, "usr/share": 0o1777, "usr/share/doc": 0o500, "usr/share/doc/file": 0o000}
    for number, (path, mode) in enumerate(modes.items(), 1):
        os.chown(top / path, number, 1000 * number)
        (top / path).chmod(mode)
        os.utime(top / path, ns=(0, 1_000_000_000 * number + number))
    os.chown(top / "abs", 33, 33, follow_symlinks=False)


def grow(top: Path, chance: random.Random, *, links: bool) -> None:
    """Sixty more files at random places: any kind, owner, mode and time; with hard links, if *links*."""
    directories: list[Path] = [top]
    files: list[Path] = []
    for number in range(60):
        path = chance.choice(directories) / f"{number}{'-' * chance.choice([0, 5, 99, 200])}"
        kind = chance.randrange(6)
        if kind == 0:
            path.mkdir()
            directories.append(path)
        elif kind == 1:
            path.symlink_to(os.path.relpath(chance.choice(directories), path.parent))
        elif kind == 2 and files and links:
            path.hardlink_to(chance.choice(files))
        else:
            path.write_bytes(chance.randbytes(chance.choice([0, 1, 511, 512, 513, 5000])))
            files.append(path)
        os.chown(path, chance.randrange(65_536), chance.randrange(65_536), follow_symlinks=False)
        os.utime(path, ns=(0, chance.randrange(1 << 61)), follow_symlinks=False)
    for path in directories[1:] + files:  # the root of a layer always lets its owner in
        path.chmod(chance.randrange(0o10000))


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_a_tree_comes_out_as_gnu_tar_unpacks_it(tmp_path: Path, options: list[str]) -> None:  # Y04
    seed = int(os.environ.get("ROOTLESS_TREE_SEED") or time.time())

    def act() -> list[tuple[bytes, tuple[Any, ...], tuple[Any, ...]]]:
        with directory(tmp_path / "tree"), directory(tmp_path / "theirs"), directory(tmp_path / "ours") as fd:
            make_tree(tmp_path / "tree")
            # Formats without long names leave out what a hard link could be to.
            grow(tmp_path / "tree", random.Random(seed), links=options[0] not in ("--format=v7", "--format=ustar"))
            create = ["tar", "--create", f"--directory={tmp_path / 'tree'}", *options, "."]
            data = subprocess.run(create, capture_output=True, env=ENV).stdout  # v7 leaves long names out
            extract = [
                "tar",
                "-xpf-",
                f"--directory={tmp_path / 'theirs'}",
                "--xattrs",
                "--numeric-owner",
                "--same-owner",
            ]
            subprocess.run(extract, input=data, check=True, env=ENV)
            unpack_layer(pieces(data), fd, whiteouts=WhiteoutStyle.OVERLAY, ids=Ids.present())
            theirs, ours = look_below(tmp_path / "theirs"), look_below(tmp_path / "ours")
            same = [comparable(path, theirs) for path in theirs], [comparable(path, ours) for path in ours]
            return [(path, *pair) for path, pair in differences(*map(dict, same)).items()]

    assert in_namespace(act) == [], f"with ROOTLESS_TREE_SEED={seed}"


def comparable(path: bytes, tree: Tree) -> tuple[bytes, tuple[Any, ...]]:
    """All that must be equal, and which paths are one file; access times and numbers of inodes differ."""
    node = tree[path]
    same = sorted(other for other, found in tree.items() if found.inode == node.inode)
    holes = node.blocks * 512 < len(node.content) // 2
    return path, (node.mode, node.owner, node.mtime_ns, node.content, node.xattrs, same, holes)


def differences(one: dict[bytes, Any], other: dict[bytes, Any]) -> dict[bytes, tuple[Any, Any]]:
    return {path: (one.get(path), other.get(path)) for path in one | other if one.get(path) != other.get(path)}
