"""From a layer's directory to its archive. All of it as root of a user namespace of an ordinary account, as it is."""

import hashlib
import os
import random
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootless.store.marks import WhiteoutStyle, make_opaque, write_whiteout
from rootless.store.pack import Packed, pack
from rootless.store.tar import Kind, TarReader
from rootless.store.tar_write import TarWriter
from rootless.store.unpack import Ids, Recorded, unpack_layer
from tests.support.layers import Tree, directory, look_below, opened, pieces
from tests.support.userns import in_namespace

pytestmark = pytest.mark.kernel

OVERLAY, FUSE = WhiteoutStyle.OVERLAY, WhiteoutStyle.FUSE
SECOND = 10**9


def packed(fd: int, style: WhiteoutStyle = OVERLAY, recorded: Iterable[Recorded] = ()) -> tuple[bytes, Packed]:
    parts: list[bytes] = []
    done = pack(fd, lambda data: parts.append(bytes(data)), style=style, recorded=recorded)
    return b"".join(parts), done


def members(data: bytes) -> dict[bytes, tuple[Any, ...]]:
    return {m.name: (m.kind, m.mode, (m.uid, m.gid), m.mtime_ns, m.link, m.size) for m in TarReader([data])}


def make(path: str, content: bytes = b"", mode: int = 0o644, mtime: int = 5) -> None:
    Path(path).write_bytes(content)
    os.chmod(path, mode)
    os.utime(path, ns=(mtime * SECOND, mtime * SECOND))


def in_layer(tmp_path: Path, work: Any) -> Any:
    """What *work* returns in a namespace, given the path and fd of an empty directory."""

    def inside() -> Any:
        with directory(tmp_path / "layer") as fd:
            return work(str(tmp_path / "layer"), fd)

    return in_namespace(inside)


def test_members_come_sorted_and_say_what_the_files_are(tmp_path: Path) -> None:
    def work(top: str, fd: int) -> Any:
        os.chmod(top, 0o755)
        make(f"{top}/b", b"text", 0o4750, 1_000_000_007)
        os.mkdir(f"{top}/a")
        make(f"{top}/a/file", b"x" * 600)
        os.link(f"{top}/a/file", f"{top}/a/other")
        os.symlink("../b", f"{top}/a/link")
        os.chown(f"{top}/b", 12, 34)
        os.mkfifo(f"{top}/fifo")
        data, done = packed(fd)
        return [(m.name, m.kind.name, m.mode, m.uid, m.gid, m.link, m.size) for m in TarReader([data])], tuple(done)

    found, done = in_layer(tmp_path, work)
    assert [row[:2] for row in found] == [
        (b"a/", "DIRECTORY"),
        (b"b", "FILE"),
        (b"fifo", "FIFO"),
        (b"a/file", "FILE"),
        (b"a/link", "SYMLINK"),
        (b"a/other", "HARD_LINK"),
    ]
    assert found[1][2:] == (0o750, 12, 34, b"", 4)  # chown(2) takes setuid away
    assert (found[4][5], found[5][5]) == (b"../b", b"a/file")
    assert (done[2], done[3]) == (604, 6)


def test_the_digest_is_that_of_what_was_written(tmp_path: Path) -> None:
    def work(top: str, fd: int) -> Any:
        make(f"{top}/big", random.Random(1).randbytes(3 << 20))
        data, done = packed(fd)
        return len(data), hashlib.sha256(data).hexdigest(), tuple(done)

    length, digest, done = in_layer(tmp_path, work)
    assert (done[0], done[1], done[2]) == (f"sha256:{digest}", length, 3 << 20)


@pytest.mark.parametrize("style", list(WhiteoutStyle))
def test_marks_of_absence_become_those_of_the_specification(tmp_path: Path, style: WhiteoutStyle) -> None:
    def work(top: str, fd: int) -> Any:
        os.mkdir(f"{top}/dir")
        make(f"{top}/dir/kept")
        write_whiteout(fd, b"gone", style)
        with opened(Path(top, "dir")) as below:
            make_opaque(below, style)
        return list(members(packed(fd, style)[0]))

    assert in_layer(tmp_path, work) == [b"dir/", b".wh.gone", b"dir/.wh..wh..opq", b"dir/kept"]


def test_what_a_container_calls_like_a_whiteout_is_left_out(tmp_path: Path) -> None:
    def work(top: str, fd: int) -> Any:
        make(f"{top}/.wh.passwd")
        make(f"{top}/.wh..wh..opq")
        data, done = packed(fd)
        return list(members(data)), done.left_out

    assert in_layer(tmp_path, work) == ([], (b".wh..wh..opq", b".wh.passwd"))


def test_attributes_of_the_mount_stay_out_and_capabilities_come_in(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")

    def work(top: str, fd: int) -> Any:
        make(f"{top}/file")
        os.setxattr(f"{top}/file", "user.overlay.origin", b"x")
        os.setxattr(f"{top}/file", "user.overlay.impure", b"y")
        os.setxattr(f"{top}/file", "security.capability", capability)
        os.setxattr(f"{top}/file", "user.a=b", b"\0=\n")
        (member,) = TarReader([packed(fd)[0]])
        return member.xattrs

    assert in_layer(tmp_path, work) == {b"security.capability": capability, b"user.a=b": b"\0=\n"}


def test_what_is_recorded_wins_over_what_is_on_disk(tmp_path: Path) -> None:
    recorded = [
        Recorded(b"dir", 70_000, 3_000_000, stat.S_IFDIR | 0o2755, None, ()),
        Recorded(b"dir/file", 1, 2, stat.S_IFREG | 0o4755, None, ((b"user.x", b"y"),)),
        Recorded(b"dir/null", 0, 6, stat.S_IFCHR | 0o666, (1, 3), ()),
        Recorded(b"disk", 0, 6, stat.S_IFBLK | 0o660, (8, 1), ()),
    ]

    def work(top: str, fd: int) -> Any:
        os.mkdir(f"{top}/dir")
        make(f"{top}/dir/file", b"x")
        found = TarReader([packed(fd, recorded=recorded)[0]])
        return [(m.name, m.kind.name, m.mode, m.uid, m.gid, m.major, m.minor, dict(m.xattrs)) for m in found]

    assert in_layer(tmp_path, work) == [
        (b"dir/", "DIRECTORY", 0o2755, 70_000, 3_000_000, 0, 0, {}),
        (b"disk", "BLOCK", 0o660, 0, 6, 8, 1, {}),
        (b"dir/file", "FILE", 0o4755, 1, 2, 0, 0, {b"user.x": b"y"}),
        (b"dir/null", "CHARACTER", 0o666, 0, 6, 1, 3, {}),
    ]


def test_a_socket_is_left_out_and_a_fifo_is_not_opened(tmp_path: Path) -> None:
    def work(top: str, fd: int) -> Any:
        os.mkfifo(f"{top}/fifo")
        os.mknod(f"{top}/socket", stat.S_IFSOCK | 0o666)
        data, done = packed(fd)
        return list(members(data)), done.left_out

    assert in_layer(tmp_path, work) == ([b"fifo"], (b"socket",))


def test_gnu_tar_unpacks_the_same_tree(tmp_path: Path) -> None:
    def work(top: str, fd: int) -> Any:
        os.chmod(top, 0o755)
        deep = top
        for name in ("d" * 90, "\udcff\udc80" * 30, "e" * 200):
            deep = f"{deep}/{name}"
            os.mkdir(deep)
        make(f"{deep}/file", b"content", 0o640, 1_234_567_890)
        os.link(f"{deep}/file", f"{deep}/hard")
        os.symlink("x" * 150, f"{top}/long link")
        make(f"{top}/new\nline", b"\0" * 5000, mtime=-7)
        os.setxattr(f"{top}/new\nline", "user.note", b"a\0b")
        os.chown(f"{top}/new\nline", 65535, 1)
        with directory(tmp_path / "other"):
            command = [
                "tar",
                "-x",
                "--xattrs",
                "--xattrs-include=*",
                "--same-owner",
                "-p",
                "-C",
                str(tmp_path / "other"),
            ]
            subprocess.run(command, input=packed(fd)[0], check=True)
            return same_content(look_below(Path(top)), look_below(tmp_path / "other"))

    assert in_layer(tmp_path, work) == []


def same_content(one: Tree, other: Tree) -> list[Any]:
    """What differs, but for the times of the root and of marks and for fractions of seconds."""
    rows = []
    for tree in (one, other):
        first = {node.inode: path for path, node in sorted(tree.items(), reverse=True)}
        timeless = {path for path, n in tree.items() if not path or n.is_whiteout or b"/.wh." in b"/" + path}
        rows.append(
            {
                path: (
                    *(n.mode, n.owner, n.content, n.xattrs, first[n.inode]),
                    None if path in timeless else n.mtime_ns // SECOND,
                )
                for path, n in tree.items()
            }
        )
    return [(path, rows[0].get(path), rows[1].get(path)) for path in rows[0].keys() | rows[1].keys()
            if rows[0].get(path) != rows[1].get(path)]  # fmt: skip


NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: not {0, 47} & set(name) and name not in (b".", b"..") and not name.startswith(b".wh.")
)
LEAVES = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=2000), st.integers(0, 0o777)),
    st.tuples(st.just("link"), st.binary(min_size=1, max_size=200).filter(lambda text: 0 not in text), st.just(0)),
    st.tuples(st.just("whiteout"), st.just(b""), st.just(0)),
)
TREES = st.recursive(LEAVES, lambda below: st.dictionaries(NAMES, below, max_size=4), max_leaves=12).filter(
    lambda tree: isinstance(tree, dict)
)


def plant(fd: int, tree: dict[bytes, Any], style: WhiteoutStyle, covered: bool = False) -> None:
    for number, (name, node) in enumerate(sorted(tree.items())):
        if isinstance(node, dict):
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            plant(below, node, style, covered or number % 2 == 1)
            if number % 2:
                make_opaque(below, style)
            os.utime(below, ns=(number * SECOND, number * SECOND))
            os.close(below)
        elif node[0] == "file":
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=fd)
            os.write(file, node[1])
            os.fchmod(file, node[2])
            os.utime(file, ns=(number * SECOND, number * SECOND))
            os.close(file)
        elif node[0] == "link":
            os.symlink(node[1], name, dir_fd=fd)
        elif not covered:
            write_whiteout(fd, name, style)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, style=st.sampled_from(list(WhiteoutStyle)))
def test_any_tree_packed_and_unpacked_is_the_same_tree_and_the_same_archive(
    tmp_path: Path, tree: dict[bytes, Any], style: WhiteoutStyle
) -> None:
    def work(top: str, fd: int) -> Any:
        os.chmod(top, 0o755)
        plant(fd, tree, style)
        data, _ = packed(fd, style)
        with directory(tmp_path / "other") as other:
            done = unpack_layer(pieces(data), other, whiteouts=style, ids=Ids.present())
            os.chmod(tmp_path / "other", 0o755)
            again, _ = packed(other, style, done.recorded)
            return same_content(look_below(Path(top)), look_below(tmp_path / "other")), data == again

    assert in_layer(tmp_path, work) == ([], True)


# The writer alone


@given(
    name=st.binary(min_size=1, max_size=300).filter(lambda name: 0 not in name and name.strip(b"/")),
    link=st.binary(min_size=1, max_size=300).filter(lambda name: 0 not in name),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, (1 << 32) - 2),
    mtime=st.integers(-(1 << 40), 1 << 40),
    key=st.binary(min_size=1, max_size=30).filter(lambda name: 0 not in name),
    value=st.binary(max_size=1000),
)
def test_what_is_written_is_read_again(
    name: bytes, link: bytes, mode: int, uid: int, mtime: int, key: bytes, value: bytes
) -> None:
    parts: list[bytes] = []
    writer = TarWriter(lambda data: parts.append(bytes(data)))
    xattrs = {b"user." + key: value}
    writer.header(name, Kind.SYMLINK, mode, (uid, uid), mtime * SECOND, link=link, xattrs=xattrs)
    writer.finish()
    (member,) = TarReader(parts)
    assert (member.name, member.link, member.mode, member.uid, member.gid, member.mtime_ns, member.xattrs) == (
        name, link, mode, uid, uid, mtime * SECOND, xattrs
    )  # fmt: skip


def test_too_much_or_too_little_content_is_an_error() -> None:
    writer = TarWriter(lambda data: None)
    writer.header(b"a", Kind.FILE, 0o644, (0, 0), 0, size=3)
    with pytest.raises(ValueError, match="missing"):
        writer.header(b"b", Kind.FILE, 0o644, (0, 0), 0)
    with pytest.raises(ValueError, match="more content"):
        writer.content(b"four")
