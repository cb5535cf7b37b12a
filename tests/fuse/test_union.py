"""What operations mean, without a mount: the calls of a union, on directories."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuse.node import Directory, Node
from fuse.options import MountOptions
from fuse.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE
from fuse.union import Caller, Change, Union

Mounted = Callable[..., Union]
ME = Caller(os.getuid(), os.getgid())


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    for name in ("top", "bottom", "upper", "work"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def mounted(layers: Path) -> Iterator[Mounted]:
    made: list[Union] = []

    def make(**more: object) -> Union:
        lower = tuple(os.fsencode(layers / name) for name in ("top", "bottom"))
        upper, work = (os.fsencode(layers / name) for name in ("upper", "work"))
        made.append(Union(MountOptions(lower, upper, work, userxattr=True, **more)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for union in made:
        union.close()


def at(union: Union, path: str) -> Node:
    node: Node = union.root
    for name in filter(None, path.split("/")):
        assert isinstance(node, Directory)
        found = union.lookup(node, name.encode())
        if found is None:
            raise FileNotFoundError(path)
        node = found[0]
    return node


def directory(union: Union, path: str = "") -> Directory:
    node = at(union, path)
    assert isinstance(node, Directory)
    return node


def names(union: Union, path: str = "") -> list[bytes]:
    return sorted(name for name, *_ in union.readdir(directory(union, path), 2))


def content(union: Union, path: str) -> bytes:
    return os.pread(union.file_fd(at(union, path)), 1000, 0)


def test_the_topmost_file_is_shown_and_directories_are_merged(layers: Path, mounted: Mounted) -> None:
    for layer in ("top", "bottom"):
        (layers / layer / "etc").mkdir()
        (layers / layer / "etc/both").write_text(layer)
        (layers / layer / f"etc/{layer}").touch()
    union = mounted()
    assert names(union, "etc") == [b"both", b"bottom", b"top"]
    assert content(union, "etc/both") == b"top"


def test_every_mark_of_a_layer_hides_what_is_below(layers: Path, mounted: Mounted) -> None:
    for name in ("device", "file", "kept"):
        (layers / "bottom" / name).touch()
    os.mknod(layers / "top/device", stat.S_IFCHR)
    (layers / "top/.wh.file").touch()
    for name, mark in (("attribute", None), ("marked", ".wh..wh..opq")):
        for layer in ("top", "bottom"):
            (layers / layer / name).mkdir()
            (layers / layer / name / layer).touch()
        if mark:
            (layers / "top" / name / mark).touch()
        else:
            os.setxattr(layers / "top" / name, "user.fuseoverlayfs.opaque", b"y")
    union = mounted()
    assert names(union) == [b"attribute", b"kept", b"marked"]
    assert names(union, "attribute") == names(union, "marked") == [b"top"]
    assert union.lookup(union.root, b"device") is None


def test_names_of_marks_are_neither_shown_nor_made(layers: Path, mounted: Mounted) -> None:
    (layers / "bottom/.wh.x").touch()
    union = mounted()
    assert union.lookup(union.root, b".wh.x") is None
    for name in (b".wh.y", b".wh..wh..opq"):
        with pytest.raises(PermissionError):
            union.create(union.root, name, 0o644, ME)
    with pytest.raises(PermissionError):
        union.mknod(union.root, b"device", stat.S_IFCHR | 0o600, 0, ME)
    assert os.listdir(layers / "upper") == []


def test_names_of_marks_are_names_where_only_overlayfs_marks_count(layers: Path, mounted: Mounted) -> None:
    for name in ("x", ".wh.x", ".wh..wh..opq", "y"):
        (layers / "bottom" / name).touch()
    (layers / "top/.wh.y").mkdir()
    union = mounted(mark_files=False)
    assert union.lookup(union.root, b".wh.x") is not None
    union.create(union.root, b".wh.z", 0o644, ME)
    union.rename(union.root, b".wh.x", union.root, b".wh.w")
    for view in (union, mounted(mark_files=False)):
        assert names(view) == [b".wh..wh..opq", b".wh.w", b".wh.y", b".wh.z", b"x", b"y"]
    assert stat.S_ISCHR((layers / "upper/.wh.x").stat().st_mode)


def test_what_is_written_goes_to_the_upper_layer_and_what_is_read_does_not(layers: Path, mounted: Mounted) -> None:
    (layers / "bottom/a").mkdir(mode=0o750)
    (layers / "bottom/a/file").write_text("below")
    os.utime(layers / "bottom/a", ns=(1, 5_000_000_000))
    union = mounted()
    assert content(union, "a/file") == b"below"
    assert os.listdir(layers / "upper") == []
    node = at(union, "a/file")
    number = node.number
    union.write(node, b"above", 0)
    assert (layers / "upper/a/file").read_text() == "above"
    assert (layers / "bottom/a/file").read_text() == "below"
    assert at(union, "a/file").number == number
    st = union.stat(at(union, "a"))
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o750, 5_000_000_000)


def test_whoever_reads_below_reads_on_in_the_copy(layers: Path, mounted: Mounted) -> None:
    (layers / "bottom/file").write_text("below")
    union = mounted()
    node = at(union, "file")
    assert os.pread(union.file_fd(node), 5, 0) == b"below"
    union.write(node, b"ABOVE", 0)
    assert os.pread(union.file_fd(node), 5, 0) == b"ABOVE"


def test_a_truncated_file_is_brought_up_without_its_content(layers: Path, mounted: Mounted) -> None:
    (layers / "bottom/file").write_text("below")
    union = mounted()
    assert union.setattr(at(union, "file"), Change(size=0)).st_size == 0
    assert (layers / "upper/file").read_bytes() == b""


@pytest.mark.parametrize("devices", [True, False])
def test_what_is_removed_stays_removed_and_may_come_again(layers: Path, mounted: Mounted, devices: bool) -> None:
    (layers / "bottom/file").write_text("below")
    (layers / "bottom/old").mkdir()
    (layers / "bottom/old/inside").touch()
    union = mounted()
    union.marks.devices = devices
    union.unlink(union.root, b"file")
    union.unlink(directory(union, "old"), b"inside")
    union.rmdir(union.root, b"old")
    assert names(union) == names(mounted()) == []
    union.create(union.root, b"file", 0o644, ME)
    union.mkdir(union.root, b"old", 0o755, ME)
    again = mounted()
    assert names(union) == names(again) == [b"file", b"old"]
    assert content(again, "file") == b""
    assert names(again, "old") == [], "what was below does not come back"


def test_a_directory_with_something_in_it_is_not_removed(layers: Path, mounted: Mounted) -> None:
    (layers / "bottom/a").mkdir()
    (layers / "bottom/a/file").touch()
    union = mounted()
    with pytest.raises(OSError, match="not empty") as caught:
        union.rmdir(union.root, b"a")
    assert caught.value.errno == errno.ENOTEMPTY


def test_a_directory_of_a_lower_layer_is_renamed_with_all_that_is_in_it(layers: Path, mounted: Mounted) -> None:
    (layers / "bottom/a/b").mkdir(parents=True)
    (layers / "bottom/a/b/file").write_text("deep")
    (layers / "bottom/a/gone").touch()
    (layers / "bottom/c").mkdir()
    (layers / "bottom/c/below").touch()
    union = mounted()
    union.unlink(directory(union, "a"), b"gone")
    union.unlink(directory(union, "c"), b"below")
    node = at(union, "a")
    union.rename(union.root, b"a", union.root, b"c")
    for view in (union, mounted()):
        assert names(view) == [b"c"]
        assert names(view, "c") == [b"b"]
        assert content(view, "c/b/file") == b"deep"
    assert at(union, "c") is node


def test_renames_that_must_not_replace_and_that_exchange(layers: Path, mounted: Mounted) -> None:
    (layers / "bottom/a").write_text("a")
    (layers / "bottom/d").mkdir()
    (layers / "bottom/d/inside").touch()
    union = mounted()
    with pytest.raises(FileExistsError):
        union.rename(union.root, b"a", union.root, b"d", RENAME_NOREPLACE)
    union.rename(union.root, b"a", union.root, b"d", RENAME_EXCHANGE)
    for view in (union, mounted()):
        assert content(view, "d") == b"a"
        assert names(view, "a") == [b"inside"]
    with pytest.raises(FileNotFoundError):
        union.rename(union.root, b"a", union.root, b"nothing", RENAME_EXCHANGE)


def test_hard_links_below_stay_one_file_when_one_is_written(layers: Path, mounted: Mounted) -> None:
    (layers / "bottom/a").write_text("below")
    os.link(layers / "bottom/a", layers / "bottom/b")
    union = mounted()
    node, other = at(union, "a"), at(union, "b")
    assert node is other
    union.write(node, b"above", 0)
    assert content(union, "b") == content(mounted(), "b") == b"above"
    assert union.nlink(node, union.stat(node)) == 2
    union.unlink(union.root, b"a")
    assert union.nlink(node, union.stat(node)) == 1


@pytest.mark.parametrize("layer", ["bottom", "upper"])
def test_a_file_that_has_lost_the_name_by_which_it_is_known_is_the_same_by_another(
    layers: Path, mounted: Mounted, layer: str
) -> None:
    (layers / layer / "a").write_text("text")
    for name in "bc":
        os.link(layers / layer / "a", layers / layer / name)
    union = mounted()
    node = at(union, "a")
    union.unlink(union.root, b"a")
    assert union.nlink(node, union.stat(node)) == 2
    assert at(union, "c") is node
    assert union.nlink(node, union.stat(node)) == 2
    union.write(node, b"T", 0)
    assert content(union, "b") == content(union, "c") == b"Text"
    for last in (b"c", b"b"):
        union.unlink(union.root, last)
    assert union.nlink(node, union.stat(node)) == 0
    union.create(union.root, b"a", 0o644, ME)
    assert at(union, "a") is not node


def test_a_removed_file_is_read_and_written_by_those_who_have_it(layers: Path, mounted: Mounted) -> None:
    (layers / "bottom/file").write_text("below")
    union = mounted()
    lower, (upper, _) = at(union, "file"), union.create(union.root, b"new", 0o644, ME)
    union.write(upper, b"content", 0)
    for name in (b"file", b"new"):
        union.unlink(union.root, name)
    assert os.pread(union.file_fd(lower), 10, 0) == b"below"
    union.write(upper, b"C", 0)
    assert os.pread(union.file_fd(upper), 10, 0) == b"Content"
    before = len(os.listdir("/proc/self/fd"))
    union.forget([(lower.number, 1), (upper.number, 1)])
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_what_the_kernel_forgets_is_forgotten_and_has_its_number_again(layers: Path, mounted: Mounted) -> None:
    (layers / "bottom/a/b").mkdir(parents=True)
    (layers / "bottom/a/b/file").touch()
    union = mounted()
    before = len(os.listdir("/proc/self/fd"))
    numbers = [at(union, path).number for path in ("a/b/file", "a/b", "a")]
    told = [(node.number, node.lookups) for node in union.nodes.values() if node is not union.root]
    union.forget(told)
    assert list(union.nodes) == [union.root.number]
    assert len(os.listdir("/proc/self/fd")) == before
    assert [at(union, path).number for path in ("a/b/file", "a/b", "a")] == numbers


def test_a_listing_stays_in_place_while_names_come_and_go(layers: Path, mounted: Mounted) -> None:
    for number in range(100):
        (layers / "bottom" / f"f{number}").touch()
    union = mounted()
    seen = []
    for name, node, _, following in union.readdir(union.root, 2):
        position = following
        seen.append(name)
        node.lookups += 1
        if len(seen) == 50:
            break
    for name in seen[:25]:
        union.unlink(union.root, name)
    union.create(union.root, b"new", 0o644, ME)
    rest = [name for name, *_ in union.readdir(union.root, position)]
    assert len(rest) == len(set(rest)) == 51
    assert not set(rest) & set(seen)
    assert b"new" in rest


def test_descriptors_of_directories_are_bounded_and_opened_again(layers: Path, mounted: Mounted) -> None:
    for number in range(50):
        (layers / f"bottom/d{number}").mkdir()
        (layers / f"bottom/d{number}/file").write_text(str(number))
    union = mounted()
    for number in range(50):
        assert content(union, f"d{number}/file") == str(number).encode()
    many = len(os.listdir("/proc/self/fd"))
    union.trim(10)
    assert len(os.listdir("/proc/self/fd")) <= many - 40
    for number in range(50):
        assert union.stat(at(union, f"d{number}/file")).st_size == len(str(number))


def test_a_work_directory_is_emptied_of_what_a_crash_left(layers: Path, mounted: Mounted) -> None:
    (layers / "work/work/1/half").mkdir(parents=True)
    (layers / "work/work/2").write_text("half a file")
    mounted()
    assert os.listdir(layers / "work/work") == []


def test_nothing_is_changed_without_an_upper_layer(layers: Path) -> None:
    (layers / "bottom/file").touch()
    union = Union(MountOptions((os.fsencode(layers / "bottom"),), read_only=True))
    try:
        node = at(union, "file")
        changes: list[Callable[[], object]] = [
            lambda: union.setattr(node, Change(mode=0o600)),
            lambda: union.write(node, b"x", 0),
            lambda: union.unlink(union.root, b"file"),
            lambda: union.mkdir(union.root, b"d", 0o755, ME),
            lambda: union.rename(union.root, b"file", union.root, b"other"),
            lambda: union.setxattr(node, b"user.a", b""),
        ]
        for change in changes:
            with pytest.raises(OSError, match="Read-only") as caught:
                change()
            assert caught.value.errno == errno.EROFS
    finally:
        union.close()
    assert os.listdir(layers / "bottom") == ["file"]


def test_a_directory_that_cannot_be_opened_is_named_and_leaves_nothing_open(layers: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    missing = os.fsencode(layers / "missing")
    with pytest.raises(FileNotFoundError) as caught:
        Union(MountOptions((os.fsencode(layers / "top"), missing)))
    assert caught.value.filename == missing
    assert len(os.listdir("/proc/self/fd")) == before
