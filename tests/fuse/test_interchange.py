"""Layers that one program has written, and another reads: the kernel's overlayfs, fuse-overlayfs and this one."""

import os
import stat
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from rootless.linux.mounts import mount
from tests.fuse.test_crashes import LAYERS, SEQUENCES, comparable
from tests.support.union_model import Entry, Operation, Tree, replay, show
from tests.support.union_rig import Rig, rig

pytestmark = [pytest.mark.kernel, pytest.mark.fuse]

KINDS = ["ours", "kernel", "fuse-overlayfs"]
BY_COPYING: list[Operation] = [  # what mv(1) does where renaming a directory of a lower layer is refused
    ("remove", "d"),
    ("mkdir", "d", 0o750),
    ("mknod", "d/2", stat.S_IFREG | 0o600, 0),
    ("unlink", "a"),
    ("mkdir", "a", 0o755),
    ("rename", "b", "a/b", 0),
    ("remove", "e"),
    ("symlink", "a", "e"),
    ("mkdir", "g/z", 0o700),
    ("unlink", "g/x/y"),
    ("mknod", "g/x/y", stat.S_IFIFO | 0o600, 0),
]


@pytest.fixture
def bench() -> Iterator[Rig]:
    """A namespace of its own."""
    with rig() as made:
        yield made


def told(tree: Tree) -> Tree:
    """What everybody tells the same: no link is followed across layers, and fuse-overlayfs counts links its own way."""
    return {
        path: {name: fact for name, fact in facts.items() if name not in ("same as", "links", "d_ino", "mtime")}
        for path, facts in comparable(tree).items()
    }


@pytest.mark.parametrize("reader", KINDS)
@pytest.mark.parametrize("writer", KINDS)
@pytest.mark.parametrize("name", ["by copying", *SEQUENCES])
def test_what_one_has_written_the_others_read(bench: Rig, writer: str, reader: str, name: str) -> None:
    if "ours" not in (writer, reader) or (name == "directories are renamed" and writer != "ours"):
        pytest.skip("not ours to say")
    bench.build(LAYERS)
    with bench.mounted("written", writer) as root:
        results, _, written = bench.call(replay, root, BY_COPYING if name == "by copying" else SEQUENCES[name])
        if writer != "fuse-overlayfs":  # which answers EIO to utimensat(2) on a FIFO
            assert [result for result, _ in results] == ["ok"] * len(results)
    with bench.mounted("below", reader, above="written") as root:
        assert told(bench.call(show, root)) == told(written)
    with bench.mounted("written", reader) as root:
        assert told(bench.call(show, root)) == told(written)


MARKED: list[list[Entry]] = [
    [
        ("file", "a/.wh.x", 0o644, 0, "", 0),
        ("file", "b/.wh..wh..opq", 0o644, 0, "", 0),
        ("file", "b/own", 0o644, 0, "own", 1),
        ("dir", "c", 0o755, 0, False),
        ("xattr", "c", "user.fuseoverlayfs.opaque", "y"),
        ("dir", "d", 0o755, 0, True),
        ("file", ".wh.e", 0o644, 0, "", 0),
        ("file", "f/.wh.gone", 0o644, 0, "", 0),
        ("file", "f/gone", 0o644, 0, "in the layer with the mark", 1),
        ("whiteout", "g/x"),
        ("dir", "h", 0o755, 0, False),
        ("xattr", "h", "user.overlay.opaque", "x"),
        ("file", "h/x", 0o644, 0, "", 0),
        ("xattr", "h/x", "user.overlay.whiteout", ""),
    ],
    [
        *(("file", f"{directory}/{name}", 0o644, 0, name, 1) for directory in "abcdefgh" for name in "xy"),
        ("file", "f/gone", 0o644, 0, "below", 1),
    ],
]


@pytest.mark.parametrize("reader", ["ours", "fuse-overlayfs"])
def test_every_mark_of_absence_is_understood(bench: Rig, reader: str) -> None:
    bench.build(MARKED)
    with bench.mounted("read", reader) as root:
        files = {path for path, facts in bench.call(show, root).items() if facts["type"] == "f"}
    if reader == "fuse-overlayfs":
        files.add("f/gone")  # OCI's image-spec has it that a whiteout hides what is in layers below, not in its own
        files.discard("h/x")  # it does not know these
    assert files == {"a/y", "b/own", "f/gone", "f/x", "f/y", "g/y", "h/y"}


def test_names_of_marks_that_the_kernel_takes_are_names_here_too(bench: Rig) -> None:  # F03
    """And the other way round, with `marks=overlay`."""
    made: list[Operation] = [
        *(("mknod", path, stat.S_IFREG | 0o644, 0) for path in (".wh.a", "d/.wh..wh..opq", "g/.wh.", "g/.wh.x")),
        ("mkdir", ".wh.e", 0o755),
        ("rename", "g/.wh.x", "g/.wh.y", 0),
        ("unlink", "g/.wh."),
    ]
    written = {}
    for writer in ("kernel", "ours"):
        bench.build(LAYERS)
        with bench.mounted("written", writer, options="marks=overlay" if writer == "ours" else "") as root:
            results, _, written[writer] = bench.call(replay, root, made)
            assert [result for result, _ in results] == ["ok"] * len(results)
        for reader, options in (("kernel", ""), ("ours", "marks=overlay")):
            with bench.mounted("below", reader, above="written", options=options) as root:
                assert told(bench.call(show, root)) == told(written[writer])
    assert told(written["kernel"]) == told(written["ours"])


def test_an_upper_file_system_without_attributes_is_marked_by_files(bench: Rig) -> None:
    bench.build(LAYERS)
    bench.call(mount_ramfs, f"{bench.place}/written")
    expected: dict[str, Any] = {}
    for name, operations in SEQUENCES.items():
        if name != "directories are renamed":  # that needs RENAME_EXCHANGE, which ramfs has not
            operations = [operation for operation in operations if operation[0] not in ("setxattr", "rename", "link")]
            with bench.mounted("written", "ours") as root:
                _, _, expected = bench.call(replay, root, operations)
    assert any(name.startswith(".wh.") or name == "e" for name in bench.call(os.listdir, bench.upper("written")))
    bench.call(copy, f"{bench.place}/written", f"{bench.place}/copied")  # fuse-overlayfs needs ACLs to read
    for reader, above in (("ours", "written"), ("ours", "copied"), ("fuse-overlayfs", "copied")):
        with bench.mounted("below", reader, above=above) as root:
            assert told(bench.call(show, root)) == told(expected)


def copy(source: str, target: str) -> None:
    """All of it as it is."""
    subprocess.run(["cp", "-a", source, target], check=True)


def mount_ramfs(place: str) -> None:
    """The least that there is: no attributes."""
    os.mkdir(place)
    mount("ramfs", place, "ramfs", 0, "mode=755")
