"""A copy of a file is the same file, holes and all; what was being made is not there before it is complete."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fuse import copyup, xattrs
from fuse.copyup import Stage
from fuse.layer import open_layer

Copy = Callable[[str], Path]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    (tmp_path / "stage").mkdir()
    return Stage(open_layer(os.fsencode(tmp_path / "stage")))


@pytest.fixture
def copy(tmp_path: Path, source: Path, stage: Stage) -> Copy:
    def make(name: str) -> Path:
        fd = open_layer(os.fsencode(source))
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
        made = copyup.copy_file(fd, os.fsencode(name), st, stage, data=True, sync=True)
        if made.fd >= 0:
            os.close(made.fd)
        return tmp_path / "stage" / os.fsdecode(made.name)

    return make


def facts(path: Path) -> tuple[object, ...]:
    st = os.lstat(path)
    return stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode), st.st_size, st.st_uid, st.st_gid, st.st_mtime_ns


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3_000_001])
def test_content_mode_times_and_attributes_come_along(source: Path, copy: Copy, size: int) -> None:
    content = os.urandom(size)
    (source / "file").write_bytes(content)
    os.setxattr(source / "file", "user.kept", b"value")
    os.setxattr(source / "file", "user.overlay.mark", b"ours")
    (source / "file").chmod(0o4751)
    os.utime(source / "file", ns=(7, 1_234_567_890_123_456_789))
    made = copy("file")
    assert made.read_bytes() == content
    assert facts(made) == facts(source / "file")
    assert os.listxattr(made) == ["user.kept"]


def test_holes_stay_holes(source: Path, copy: Copy) -> None:
    with (source / "file").open("wb") as file:
        file.seek(8 << 20)
        file.write(b"x" * 4096)
        file.truncate(64 << 20)
    made = copy("file")
    assert made.read_bytes() == (source / "file").read_bytes()
    assert os.stat(made).st_blocks * 512 < 1 << 20


def test_a_copy_by_hand_is_the_same(source: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    (source / "file").write_bytes(os.urandom(2_500_000))
    assert copy("file").read_bytes() == (source / "file").read_bytes()


def test_what_is_no_regular_file_is_copied_without_being_opened(source: Path, copy: Copy) -> None:
    os.mkfifo(source / "fifo", 0o640)
    os.symlink("/nowhere/at all", source / "link")
    os.utime(source / "link", ns=(1, 2), follow_symlinks=False)
    assert facts(copy("fifo")) == facts(source / "fifo")
    assert os.readlink(copy("link")) == "/nowhere/at all"
    assert facts(copy("link")) == facts(source / "link")


def test_a_copy_that_fails_leaves_nothing(
    source: Path, tmp_path: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    (source / "file").write_bytes(b"content")
    with pytest.raises(OSError, match="No space"):
        copy("file")
    assert os.listdir(tmp_path / "stage") == []


def test_a_stage_is_emptied_of_what_others_left(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "stage/1/deep/deeper").mkdir(parents=True)
    (tmp_path / "stage/1/deep/file").touch()
    os.symlink("/", tmp_path / "stage/root")
    stage.empty()
    assert os.listdir(tmp_path / "stage") == []


def test_attributes_of_ours_are_stored_under_another_name_and_hidden() -> None:
    assert xattrs.stored(b"user.overlay.opaque") == b"user.overlay.overlay.opaque"
    assert xattrs.stored(b"user.a") == b"user.a"
    names = [b"user.a", b"user.overlay.opaque", b"user.overlay.overlay.opaque", b"user.fuseoverlayfs.opaque"]
    assert xattrs.shown(names) == [b"user.a", b"user.overlay.opaque"]
    with pytest.raises(PermissionError):
        xattrs.stored(b"user.fuseoverlayfs.origin")
