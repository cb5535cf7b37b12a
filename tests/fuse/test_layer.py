"""What a directory of a layer holds, and that nothing in it leads out of the layer."""

import os
import stat
from pathlib import Path

import pytest

from fuse import layer


@pytest.fixture
def place(tmp_path: Path) -> int:
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "layer").mkdir()
    return layer.open_layer(os.fsencode(tmp_path / "layer"))


def test_a_layer_that_is_not_there_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        layer.open_layer(os.fsencode(tmp_path / "nowhere"))
    assert caught.value.filename == os.fsencode(tmp_path / "nowhere")


def test_a_symlink_is_not_a_directory_of_a_layer(place: int) -> None:
    os.symlink("..", "up", dir_fd=place)
    with pytest.raises(NotADirectoryError):
        layer.open_directory(place, b"up")


def test_a_directory_is_told_of_by_kind_of_name(place: int) -> None:
    os.mkdir("directory", dir_fd=place)
    os.symlink("directory", "link", dir_fd=place)
    os.mkfifo("fifo", dir_fd=place)
    for name in ("file", ".wh.hidden", ".wh.hidden too"):
        os.close(os.open(name, os.O_CREAT, dir_fd=place))
    os.mknod("device", stat.S_IFCHR, 0, dir_fd=place)
    content = layer.read_directory(place)
    assert content.directories == [b"directory"]
    assert sorted(content.others) == [b"fifo", b"file", b"link"]
    assert sorted(content.whiteouts) == [b"device", b"hidden", b"hidden too"]
    assert not content.opaque


def test_the_file_that_makes_a_directory_opaque_is_no_whiteout(place: int) -> None:
    os.close(os.open(".wh..wh..opq", os.O_CREAT, dir_fd=place))
    assert layer.read_directory(place) == layer.Content([], [], [], True)


def test_a_directory_that_is_named_like_a_mark_is_not_shown(place: int) -> None:
    os.mkdir(".wh.directory", dir_fd=place)
    assert layer.read_directory(place) == layer.Content([], [], [], False)


def test_names_are_bytes_of_any_kind(place: int) -> None:
    names = {b"\xff\xfe", b"new\nline", "ü".encode(), b"x" * 255}
    for name in names:
        os.close(os.open(name, os.O_CREAT, dir_fd=place))
    assert set(layer.read_directory(place).others) == names
