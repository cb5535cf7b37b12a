"""Layers over layers, looked at through the kernel's overlayfs."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.store.unpack import WhiteoutStyle
from tests.support.canary import Canary
from tests.support.evil_tar import DIRECTORY, archive, entry
from tests.support.layers import folder, link, mounted, paths

pytestmark = pytest.mark.kernel


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    canary = Canary(tmp_path / "victim")
    yield canary
    assert canary.changes() == []


# Whiteouts


def test_three_layers_with_whiteouts_through_a_mount(tmp_path: Path) -> None:  # T15
    base = archive(
        *(entry(b"keep/%d" % i, content=b"base") for i in range(3)),
        *(entry(b"opaque/%d" % i, content=b"base") for i in range(3)),
        entry(b"gone/x/y"),
        entry(b"file"),
        entry(b"again/old"),
    )
    middle = archive(
        entry(b"keep/.wh.1"),
        entry(b"opaque/new"),
        entry(b"opaque/1", content=b"middle"),
        entry(b"opaque/.wh..wh..opq"),
        entry(b".wh.gone"),
        entry(b".wh.file"),
        entry(b".wh.again"),
    )
    top = archive(
        entry(b"file/now/a/directory"), entry(b"again/new"), entry(b"opaque/.wh.new"), entry(b".wh.not-there")
    )
    tree = mounted(tmp_path, base, middle, top)
    assert {path for path, node in tree.items() if node.kind != stat.S_IFDIR} == {
        *(b"keep/0", b"keep/2", b"opaque/1", b"file/now/a/directory", b"again/new"),
    }
    assert tree[b"opaque/1"].content == b"middle"
    assert b"gone" not in tree


def test_a_whiteout_of_nothing_does_not_show(tmp_path: Path) -> None:  # T15
    """In a directory that only one layer has, overlayfs would list the mark and not find it."""
    top = archive(folder(b"new"), entry(b"new/.wh.x"), entry(b"made/up/.wh.x"), entry(b"new/own"), entry(b"old/.wh.x"))
    tree = mounted(tmp_path, archive(entry(b"old/y")), top)
    assert paths(tree) == {b"new", b"new/own", b"made", b"made/up", b"old", b"old/y"}
    covered = archive(entry(b"old/.wh..wh..opq"), entry(b"old/.wh.x"), entry(b"old/sub/.wh.x"), entry(b"old/own"))
    assert paths(mounted(tmp_path, archive(entry(b"old/y")), covered)) == {b"old", b"old/sub", b"old/own"}


def test_an_opaque_root_hides_all_that_is_below(tmp_path: Path) -> None:  # T15
    base = archive(entry(b"a"), entry(b"d/x"), entry(b"d/y"), entry(b"e/x"))
    tree = mounted(tmp_path, base, archive(entry(b"d/z"), entry(b".wh..wh..opq"), entry(b"b")))
    assert paths(tree) == {b"b", b"d", b"d/z"}


# Implicit directories


def test_implicit_directories_look_as_in_the_layers_below(tmp_path: Path) -> None:
    def styled(name: bytes, mode: int) -> bytes:
        return entry(name, DIRECTORY, mode=mode, uid=3, gid=4, mtime=1000, pax={b"SCHILY.xattr.user.a": b"1"})

    base = archive(
        *(styled(b".", 0o711), styled(b"tmp", 0o1777), styled(b"tmp/deep", 0o2700), styled(b"hidden", 0o700)),
        folder(b"over", 0o700),
    )
    middle = archive(entry(b".wh.hidden"), entry(b"over", DIRECTORY, mode=0o751, mtime=5), entry(b"tmp/deep/file"))
    top = archive(entry(b"tmp/deep/own"), entry(b"hidden/own"), entry(b"over/own"), entry(b"new/own"))
    for tree in (mounted(tmp_path, base, middle, top), mounted(tmp_path, base, middle, top, mount=False)):
        for path, mode in ((b"", 0o711), (b"tmp", 0o1777), (b"tmp/deep", 0o2700)):
            node = tree[path]
            assert (node.permissions, node.owner, node.mtime_ns) == (mode, (3, 4), 1000 * 10**9)
            assert dict(node.xattrs) == {"user.a": b"1"}
        assert (tree[b"over"].permissions, tree[b"over"].mtime_ns) == (0o751, 5 * 10**9)
        assert (tree[b"hidden"].permissions, tree[b"hidden"].owner) == (0o755, (0, 0))
        assert (tree[b"new"].permissions, tree[b"new"].owner) == (0o755, (0, 0))


@pytest.mark.parametrize("style", WhiteoutStyle)
def test_whiteouts_between_the_layers_are_heeded(tmp_path: Path, style: WhiteoutStyle) -> None:
    base = archive(folder(b"a", 0o700), folder(b"b", 0o700), folder(b"b/c", 0o700), link(b"l", b"a"))
    middle = archive(entry(b".wh.a"), entry(b".wh.l"), folder(b"b", 0o711), entry(b"b/.wh..wh..opq"))
    top = archive(entry(b"a/own"), entry(b"b/c/own"), entry(b"l/own"))
    tree = mounted(tmp_path, base, middle, top, style=style, mount=False)
    modes = {path: tree[path].permissions for path in (b"a", b"b", b"b/c", b"l")}
    assert modes == {b"a": 0o755, b"b": 0o711, b"b/c": 0o755, b"l": 0o755}


@pytest.mark.parametrize("target", [b"/run", b"../run", b"../x/../../run", b"../via"])
def test_content_moves_to_where_a_link_below_leads(tmp_path: Path, canary: Canary, target: bytes) -> None:  # T02
    base = archive(
        entry(b"run", DIRECTORY, mode=0o1755, mtime=5),
        folder(b"x"),
        link(b"via", b"run"),
        entry(b"var", DIRECTORY, mtime=6),
        link(b"var/run", target),
        folder(b"run/sub", 0o700),
    )
    top = archive(
        entry(b"var/run/pid", content=b"1"),
        entry(b"var/run/sub/x"),
        entry(b"var/run/.wh.gone"),
        folder(b"var/run/own", 0o711),
    )
    tree = mounted(tmp_path, base, top)
    assert (tree[b"var/run"].content, tree[b"run/pid"].content) == (target, b"1")
    looks = {path: tree[path].permissions for path in (b"run", b"run/sub", b"run/own")}
    assert looks == {b"run": 0o1755, b"run/sub": 0o700, b"run/own": 0o711}
    assert (tree[b"run"].mtime_ns, tree[b"var"].mtime_ns) == (5 * 10**9, 6 * 10**9)
    assert b"run/sub/x" in tree
    alone = mounted(tmp_path, base, top, mount=False)
    assert alone[b"run/gone"].is_whiteout
    assert b"var/run" not in alone


@pytest.mark.parametrize("target", [b"/victim", b"../../../victim", b"{top}"])
def test_a_link_below_does_not_lead_content_out(tmp_path: Path, canary: Canary, target: bytes) -> None:  # T02
    target = target.replace(b"{top}", os.fsencode(canary.top))
    tree = mounted(tmp_path, archive(link(b"etc", target)), archive(entry(b"etc/passwd", content=b"in")))
    inside = target.replace(b"../", b"").lstrip(b"/")
    assert tree[inside + b"/passwd"].content == b"in"
    assert tree[b"etc"].kind == stat.S_IFLNK


def test_what_is_where_a_link_leads_already_stays(tmp_path: Path) -> None:
    base = archive(folder(b"run"), link(b"var/run", b"/run"))
    top = archive(
        entry(b"run/a", content=b"direct"),
        entry(b"run/d/x", content=b"direct"),
        entry(b"var/run/a", content=b"through the link"),
        entry(b"var/run/d/x", content=b"through the link"),
        entry(b"var/run/d/y", content=b"through the link"),
    )
    tree = mounted(tmp_path, base, top)
    assert [tree[path].content for path in (b"run/a", b"run/d/x", b"run/d/y")] == [
        b"direct",
        b"direct",
        b"through the link",
    ]


@pytest.mark.parametrize("target", [b"l", b"../d/l/x", b"file", b".", b"..", b"own", b"/d/l"])
def test_a_link_below_that_leads_nowhere_is_replaced_or_harmless(tmp_path: Path, target: bytes) -> None:
    base = archive(folder(b"d"), entry(b"d/file"), link(b"d/l", target))
    tree = mounted(tmp_path, base, archive(entry(b"d/l/l/own", content=b"here"), folder(b"other")))
    assert [node.content for path, node in tree.items() if path.endswith(b"own") and node.kind == stat.S_IFREG] == [
        b"here"
    ]
    assert b"other" in tree


def test_a_directory_that_a_member_is_replaces_a_link_below(tmp_path: Path) -> None:
    base = archive(folder(b"usr/lib"), entry(b"usr/lib/a"), link(b"lib", b"usr/lib"))
    tree = mounted(tmp_path, base, archive(folder(b"lib"), entry(b"lib/b")))
    assert tree[b"lib"].kind == stat.S_IFDIR
    assert b"lib/b" in tree
    assert b"usr/lib/b" not in tree
