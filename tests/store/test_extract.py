"""Archives into directories that have something already: what is replaced, what stays, and what leads nowhere."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootless.errors import CorruptData, RootlessError
from rootless.linux.inroot import open_in_root
from rootless.store.extract import Extracted, extract
from tests.support.canary import Canary
from tests.support.evil_tar import CHARACTER, DIRECTORY, FIFO, HARD_LINK, SYMLINK, archive, entry


def into(top: Path, *entries: bytes, follow: Callable[[bytes], int] | None = None) -> Extracted:
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return extract([archive(*entries)], fd, owner=None, follow=follow)
    finally:
        os.close(fd)


def test_what_is_there_stays_but_for_what_the_archive_has(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/kept").write_text("kept")
    (tmp_path / "dir/file").write_text("old")
    os.link(tmp_path / "dir/file", tmp_path / "other")
    (tmp_path / "dir/link").symlink_to("kept")
    done = into(
        tmp_path,
        entry(b"dir/", DIRECTORY, mode=0o750, mtime=7),
        entry(b"dir/file", content=b"new", mode=0o4640, mtime=5),
        entry(b"dir/link", content=b"a file"),
        entry(b"made/below", content=b"x"),
        entry(b"hard", HARD_LINK, link=b"dir/file"),
        entry(b"fifo", FIFO, mode=0o600),
    )
    assert done == ([], 0)
    assert (tmp_path / "dir/kept").read_text() == "kept"
    assert (tmp_path / "other").read_text() == "old"  # the other name of what was replaced
    info = (tmp_path / "dir/file").lstat()
    assert (stat.S_IMODE(info.st_mode), info.st_mtime, info.st_nlink) == (0o640, 5, 2)
    assert not (tmp_path / "dir/link").is_symlink()
    assert stat.S_ISFIFO((tmp_path / "fifo").lstat().st_mode)
    assert (stat.S_IMODE((tmp_path / "dir").stat().st_mode), (tmp_path / "dir").stat().st_mtime) == (0o750, 7)


@pytest.mark.parametrize(
    ("name", "kind", "error"),
    [(b"dir", b"0", "cannot overwrite directory"), (b"file", DIRECTORY, "cannot overwrite non-directory")],
)
def test_a_directory_and_something_else_do_not_replace_each_other(
    tmp_path: Path, name: bytes, kind: bytes, error: str
) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(RootlessError, match=error):
        into(tmp_path, entry(name, kind))


def test_devices_are_left_out_and_told(tmp_path: Path) -> None:
    assert into(tmp_path, entry(b"null", CHARACTER, major=1, minor=3)).left_out == [b"null"]
    assert os.listdir(tmp_path) == []


EVIL = {
    "up": [entry(b"../victim/new", content=b"x")],
    "link, then through it": [entry(b"l", SYMLINK, link=b"../victim"), entry(b"l/new", content=b"x")],
    "link that was there": [entry(b"there/new", content=b"x")],
    "absolute link": [entry(b"l", SYMLINK, link=b"/"), entry(b"l/tmp/new", content=b"x")],
    "hard link through a link": [entry(b"h", HARD_LINK, link=b"there/file"), entry(b"h", content=b"x")],
    "hard link up": [entry(b"h", HARD_LINK, link=b"../victim/file")],
    "directory over a link": [entry(b"there/", DIRECTORY, mode=0o777)],
    "mode of a link": [entry(b"there", FIFO, mode=0o777), entry(b"there", mode=0o777)],
}


@pytest.mark.parametrize("name", EVIL)
def test_nothing_outside_is_touched(tmp_path: Path, name: str) -> None:  # T02 T03 T04 T06, X09
    canary = Canary(tmp_path / "victim")
    top = tmp_path / "top"
    top.mkdir()
    (top / "there").symlink_to("../victim")
    try:
        into(top, *EVIL[name])
    except (CorruptData, RootlessError, OSError):
        pass
    assert canary.changes() == []


def test_links_that_were_there_are_followed_where_the_caller_says(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("/real")
    root_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    flags = os.O_RDONLY | os.O_DIRECTORY
    into(tmp_path, entry(b"link/x", content=b"x"), follow=lambda path: open_in_root(root_fd, path, flags))
    os.close(root_fd)
    assert (tmp_path / "real/x").read_bytes() == b"x"


NAMES = st.lists(st.sampled_from([b"a", b"b", b"..", b".", b"", b"there"]), min_size=1, max_size=4).map(b"/".join)
MEMBERS = st.builds(
    lambda name, kind, link: entry(name, kind, link=link if kind in (SYMLINK, HARD_LINK) else b"", content=b""),
    NAMES.filter(bool),
    st.sampled_from([b"0", DIRECTORY, SYMLINK, HARD_LINK]),
    NAMES.filter(bool),
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MEMBERS, max_size=6))
def test_no_archive_gets_out(tmp_path_factory: pytest.TempPathFactory, members: list[bytes]) -> None:
    base = tmp_path_factory.mktemp("extract")
    canary = Canary(base / "victim")
    (base / "top").mkdir()
    (base / "top/there").symlink_to("../victim")
    try:
        into(base / "top", *members)
    except (CorruptData, RootlessError, OSError):
        pass
    assert canary.changes() == []
    assert sorted(os.listdir(base)) == ["top", "victim"]
