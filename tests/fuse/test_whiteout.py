"""The marks of absence: which are understood, and which are made."""

import os
import stat
from pathlib import Path

import pytest

from fuse import whiteout
from fuse.layer import open_layer, read_directory
from fuse.whiteout import Marks


@pytest.fixture
def place(tmp_path: Path) -> int:
    return open_layer(os.fsencode(tmp_path))


@pytest.mark.parametrize(
    ("name", "value", "opaque"),
    [
        ("user.overlay.opaque", b"y", True),
        ("user.overlay.opaque", b"x", False),
        ("user.fuseoverlayfs.opaque", b"y", True),
        ("user.overlay.opaque", b"n", False),
        ("user.other", b"y", False),
    ],
)
def test_attributes_that_make_a_directory_opaque(tmp_path: Path, name: str, value: bytes, opaque: bool) -> None:
    os.setxattr(tmp_path, name, value)
    assert whiteout.has_opaque_attribute(os.fsencode(tmp_path)) is opaque


def test_a_whiteout_is_a_device_of_number_0_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mknod(tmp_path / "device", stat.S_IFCHR)
    assert not whiteout.is_whiteout(os.stat(tmp_path / "file"))
    assert not whiteout.is_whiteout(os.stat("/dev/null"))
    assert whiteout.is_whiteout(os.stat(tmp_path / "device"))


def test_marks_are_devices_and_attributes_where_these_are_possible(place: int) -> None:
    marks = Marks(place, user_attributes=True)
    assert (marks.devices, marks.attribute) == (True, "user.overlay.opaque")
    assert not os.listdir(f"/proc/self/fd/{place}"), "trying it leaves nothing"
    marks.make_whiteout(place, b"gone")
    marks.make_opaque(place)
    assert whiteout.is_whiteout(os.stat("gone", dir_fd=place))
    assert whiteout.has_opaque_attribute(b"/proc/self/fd/%d" % place)


def test_marks_are_files_where_they_have_to_be(place: int) -> None:
    marks = Marks(place, user_attributes=True)
    marks.devices, marks.attribute = False, ""
    marks.make_whiteout(place, b"gone")
    marks.make_opaque(place)
    content = read_directory(place)
    assert (content.whiteouts, content.opaque) == ([b"gone"], True)


def test_a_name_too_long_for_a_mark_is_refused_as_the_system_does(place: int) -> None:
    marks = Marks(place, user_attributes=True)
    marks.devices = False
    with pytest.raises(OSError, match="File name too long"):
        marks.make_whiteout(place, b"x" * 252)
