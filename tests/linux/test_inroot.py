"""Each test runs twice: with openat2, and with the walk by hand that stands in for it on old kernels."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.linux import inroot
from rootless.linux.files import openat2
from rootless.linux.inroot import make_directories, open_in_root, open_parent, read_regular
from tests.support.canary import SECRET, Canary
from tests.support.racer import racing


def by_hand() -> bool:
    return False


@pytest.fixture(params=["openat2", "by hand"])
def _resolver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "by hand":
        monkeypatch.setattr(inroot, "_kernel_resolves", by_hand)
    elif not inroot._kernel_resolves():
        pytest.skip("no openat2 on this kernel")


pytestmark = pytest.mark.usefixtures("_resolver")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root-sibling").mkdir()
    return tmp_path / "root"


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def canary(tmp_path: Path, root: Path) -> Iterator[Canary]:
    canary = Canary(tmp_path / "victim")
    yield canary
    assert canary.changes() == []
    assert canary.leaks_into(root) == []


@pytest.fixture(autouse=True)
def _no_leaked_fds() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


def place(fd: int) -> Path:
    """Where *fd*, which is closed, is."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def content(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


@pytest.mark.parametrize("path", ["a/b/file", "/a/b/file", "a//b/./file", "../../a/b/file", "/a/../a/b/../b/file"])
def test_a_path_is_resolved_as_if_root_were_the_root(root: Path, root_fd: int, path: str) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_bytes(b"here")
    assert content(open_in_root(root_fd, path, os.O_RDONLY)) == b"here"
    assert content(open_in_root(root_fd, os.fsencode(path), os.O_RDONLY)) == b"here"


@pytest.mark.parametrize("path", ["/", ".", "..", "../..", "/..", "a/..", "a/../..", "up", "up/up", "abs", "a/", "a/."])
def test_nothing_is_above_the_root(root: Path, root_fd: int, path: str) -> None:
    (root / "a").mkdir()
    (root / "up").symlink_to("../..")
    (root / "abs").symlink_to("/")
    expected = root / "a" if path.startswith("a") and ".." not in path else root
    if path == "abs":
        expected = root
    assert place(open_in_root(root_fd, path, os.O_PATH)) == expected


@pytest.mark.parametrize(
    "target", ["../victim", "/victim", "up/../../victim", "../../../../../../{top}/victim", "{top}/victim"]
)
def test_links_never_lead_outside(root: Path, root_fd: int, canary: Canary, target: str) -> None:  # T02
    (root / "up").symlink_to("..")
    (root / "etc").symlink_to(target.format(top=canary.top.parent))
    with pytest.raises(FileNotFoundError):
        open_in_root(root_fd, "etc/passwd", os.O_RDONLY)
    assert read_regular(root_fd, "etc/passwd", 1000) is None


def test_a_chain_of_links_and_a_sibling_with_our_name_as_prefix_stay_outside(  # T03
    root: Path, root_fd: int, canary: Canary
) -> None:
    (root / "inner").mkdir()
    (root / "inner/up").symlink_to("..")
    (root / "inner/up/esc").symlink_to("../victim")
    (root / "sibling").symlink_to("../root-sibling")
    for path in ("inner/up/esc/passwd", "esc/passwd", "inner/up/../../victim/passwd", "sibling/x"):
        with pytest.raises(FileNotFoundError):
            open_in_root(root_fd, path, os.O_RDONLY | os.O_CREAT)
    os.close(make_directories(root_fd, "inner/up/esc/new"))
    os.close(make_directories(root_fd, "sibling"))
    assert (root / "victim/new").is_dir()
    assert (root / "root-sibling").is_dir()
    assert list((root.parent / "root-sibling").iterdir()) == []


def test_a_legal_absolute_link_leads_to_its_target_in_root(root: Path, root_fd: int) -> None:  # T02
    (root / "var").mkdir()
    (root / "run").mkdir()
    (root / "var/run").symlink_to("/run")
    assert place(open_in_root(root_fd, "var/run", os.O_PATH | os.O_DIRECTORY)) == root / "run"
    os.close(open_in_root(root_fd, "var/run/pid", os.O_WRONLY | os.O_CREAT, 0o600))
    assert stat.S_IMODE((root / "run/pid").stat().st_mode) == 0o600


def test_the_last_link_is_followed_unless_told_otherwise(root: Path, root_fd: int) -> None:
    (root / "file").write_bytes(b"x")
    (root / "link").symlink_to("/file")
    assert place(open_in_root(root_fd, "link", os.O_PATH)) == root / "file"
    assert place(open_in_root(root_fd, "link", os.O_PATH | os.O_NOFOLLOW)) == root / "link"
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        open_in_root(root_fd, "link", os.O_RDONLY | os.O_NOFOLLOW)
    with pytest.raises(FileExistsError):
        open_in_root(root_fd, "link", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def test_a_file_created_through_a_dangling_link_is_made_where_it_leads(root: Path, root_fd: int) -> None:
    (root / "link").symlink_to("/new")
    os.close(open_in_root(root_fd, "link", os.O_WRONLY | os.O_CREAT, 0o640))
    assert (root / "new").is_file()


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("missing", errno.ENOENT),
        ("missing/x", errno.ENOENT),
        ("", errno.ENOENT),
        ("file/x", errno.ENOTDIR),
        ("file/", errno.ENOTDIR),
        ("file/..", errno.ENOTDIR),
        ("loop", errno.ELOOP),
        ("loop/x", errno.ELOOP),
        ("many41", errno.ELOOP),
        ("a" * 256, errno.ENAMETOOLONG),
        ("a/" * 2500, errno.ENAMETOOLONG),
        ("a\0b", errno.EINVAL),
        ("shut/x", errno.EACCES),
    ],
)
def test_what_cannot_be_resolved_is_an_error_of_open(root: Path, root_fd: int, path: str, error: int) -> None:  # T10
    (root / "file").write_bytes(b"x")
    (root / "loop").symlink_to("loop")
    (root / "many0").symlink_to("file")
    for i in range(41):
        (root / f"many{i + 1}").symlink_to(f"many{i}")
    (root / "shut").mkdir(mode=0)
    with pytest.raises(OSError) as caught:
        open_in_root(root_fd, path, os.O_RDONLY)
    assert caught.value.errno == error
    assert place(open_in_root(root_fd, "many39", os.O_PATH)) == root / "file"


def test_names_are_bytes(root: Path, root_fd: int) -> None:  # T10
    name = b"\xff\xfe\n\x1b[31m "
    os.close(open_in_root(root_fd, b"./" + name, os.O_WRONLY | os.O_CREAT, 0o600))
    assert os.listdir(os.fsencode(root)) == [name]
    assert read_regular(root_fd, os.fsdecode(name), 10) == b""


def test_magic_links_are_not_jumped_through() -> None:
    proc_fd = os.open("/proc/self", os.O_PATH)
    try:
        with pytest.raises(OSError) as caught:
            open_in_root(proc_fd, "root/etc/passwd", os.O_RDONLY)
        assert caught.value.errno in (errno.ELOOP, errno.ENOENT)
        with pytest.raises(OSError):
            open_in_root(proc_fd, "exe", os.O_RDONLY)
    finally:
        os.close(proc_fd)


def test_what_is_opened_is_not_inherited(root_fd: int) -> None:
    for fd in (open_in_root(root_fd, ".", os.O_RDONLY), make_directories(root_fd, "a")):
        assert not os.get_inheritable(fd)
        os.close(fd)


# open_parent


@pytest.mark.parametrize(
    ("path", "parent", "name"),
    [("x", ".", b"x"), ("/x", ".", b"x"), ("a/x", "a", b"x"), ("l/x//", "a", b"x"), ("../a/../l/l", "a", b"l")],
)
def test_a_parent_and_a_name_come_apart(root: Path, root_fd: int, path: str, parent: str, name: bytes) -> None:
    (root / "a").mkdir()
    (root / "l").symlink_to("/a")
    fd, found = open_parent(root_fd, path)
    assert (place(fd), found) == (root / parent, name)


@pytest.mark.parametrize("path", ["", "/", ".", "..", "a/.", "a/..", "a/../"])
def test_a_path_that_names_no_entry_has_no_parent(root: Path, root_fd: int, path: str) -> None:  # T13
    (root / "a").mkdir()
    with pytest.raises(OSError) as caught:
        open_parent(root_fd, path)
    assert caught.value.errno == errno.EINVAL


# make_directories


def test_missing_directories_are_made_with_the_mode(root: Path, root_fd: int) -> None:
    (root / "a").mkdir(mode=0o755)
    assert place(make_directories(root_fd, "/a/b/../c/d", 0o700)) == root / "a/c/d"
    assert [stat.S_IMODE((root / p).stat().st_mode) for p in ("a", "a/b", "a/c", "a/c/d")] == [0o755] + [0o700] * 3


def test_directories_are_made_where_links_lead(root: Path, root_fd: int, canary: Canary) -> None:  # T02
    (root / "abs").symlink_to("/target/deep")
    (root / "out").symlink_to(canary.top)
    (root / "up").symlink_to("../../x")
    assert place(make_directories(root_fd, "abs/b")) == root / "target/deep/b"
    assert place(make_directories(root_fd, "abs/b")) == root / "target/deep/b"
    assert place(make_directories(root_fd, "out/b")) == root / str(canary.top).lstrip("/") / "b"
    assert place(make_directories(root_fd, "up")) == root / "x"
    assert place(make_directories(root_fd, "/")) == root


def test_a_file_in_the_way_of_directories_is_an_error(root: Path, root_fd: int) -> None:
    (root / "file").write_bytes(b"x")
    (root / "link").symlink_to("file")
    (root / "loop").symlink_to("loop")
    for path in ("file", "file/x", "link", "link/x", "a/../link/x"):
        with pytest.raises(NotADirectoryError):
            make_directories(root_fd, path)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        make_directories(root_fd, "loop/x")


# read_regular


def test_a_regular_file_is_read_up_to_the_limit(root: Path, root_fd: int) -> None:  # X11
    (root / "file").write_bytes(b"12345")
    assert read_regular(root_fd, "file", 5) == b"12345"
    with pytest.raises(OSError) as caught:
        read_regular(root_fd, "file", 4)
    assert caught.value.errno == errno.EFBIG


def test_what_says_it_is_empty_is_read_up_to_the_limit_too() -> None:
    proc_fd = os.open("/proc", os.O_PATH)
    try:
        assert read_regular(proc_fd, "version", 1 << 16)
        with pytest.raises(OSError, match="larger than 3 bytes"):
            read_regular(proc_fd, "version", 3)
    finally:
        os.close(proc_fd)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("make", [make_fifo, Path.mkdir], ids=["fifo", "directory"])
def test_nothing_but_a_regular_file_is_read(root: Path, root_fd: int, make: Callable[[Path], None]) -> None:  # X11
    make(root / "passwd")
    (root / "link").symlink_to("passwd")
    for path in ("passwd", "link"):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(root_fd, path, 100)


def test_a_device_is_not_read() -> None:  # X11
    dev_fd = os.open("/dev", os.O_PATH)
    try:
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(dev_fd, "zero", 100)
    finally:
        os.close(dev_fd)


@pytest.mark.parametrize("path", ["missing", "missing/passwd", "file/passwd", "dangling"])
def test_a_file_that_is_not_there_is_none(root: Path, root_fd: int, path: str) -> None:
    (root / "file").write_bytes(b"")
    (root / "dangling").symlink_to("/nowhere")
    assert read_regular(root_fd, path, 100) is None


# races


@pytest.mark.slow
def test_a_directory_swapped_for_a_link_leads_nowhere(root: Path, root_fd: int, canary: Canary) -> None:  # T02, T20
    (root / "etc").mkdir()
    (root / "etc/passwd").write_bytes(b"inside")
    (root / "evil").symlink_to("../victim")
    (root / "deep/er").mkdir(parents=True)
    seen, errors = set(), set()
    with racing(root / "etc", root / "evil") as racer:
        while racer.goes_on():
            try:
                seen.add(read_regular(root_fd, "deep/../etc/../etc/passwd", 100))
                os.close(make_directories(root_fd, "etc/made"))
            except OSError as error:
                errors.add(error.errno)
    assert SECRET not in seen
    assert seen <= {None, b"inside"}
    assert errors <= {errno.ENOTDIR, errno.ELOOP, errno.ENOENT}


@pytest.mark.slow
def test_a_directory_moved_out_of_the_root_does_not_lead_its_parent_out(  # T20
    root: Path, root_fd: int, canary: Canary
) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/passwd").write_bytes(b"inside")
    (root.parent / "outside").mkdir()
    seen = set()
    with racing(root / "a/b", root.parent / "victim/../outside") as racer:
        while racer.goes_on():
            seen.add(read_regular(root_fd, "a/b/../../victim/passwd", 100))
            seen.add(read_regular(root_fd, "a/b/../passwd", 100))
    assert seen <= {None, b"inside"}


# both are one

NAMES = st.sampled_from(["a", "b", "l", "m", ".", "..", ""])
PATHS = st.lists(NAMES, min_size=1, max_size=8).map("/".join).filter(bool)


@settings(max_examples=150)
@given(links=st.lists(st.tuples(PATHS, PATHS), max_size=6), path=PATHS, flags=st.sampled_from([0, os.O_NOFOLLOW]))
def test_the_walk_by_hand_finds_what_the_kernel_finds(
    tmp_path_factory: pytest.TempPathFactory, links: list[tuple[str, str]], path: str, flags: int
) -> None:
    top = tmp_path_factory.mktemp("root")
    (top / "a/b/a").mkdir(parents=True)
    (top / "b").write_bytes(b"")
    root_fd = os.open(top, os.O_PATH)
    try:
        for where, target in links:
            make_link(root_fd, where, target)
        kernel = outcome(lambda: openat2(root_fd, path, os.O_PATH | flags, 0, inroot._RESOLVE))
        assert outcome(lambda: inroot._Walk(root_fd, os.fsencode(path)).open(os.O_PATH | flags, 0)) == kernel
    finally:
        os.close(root_fd)


def make_link(root_fd: int, where: str, target: str) -> None:
    """A link at *where* to *target*, if that is possible."""
    with suppress(OSError):
        parent_fd, name = open_parent(root_fd, where)
        try:
            os.symlink(target, name, dir_fd=parent_fd)
        finally:
            os.close(parent_fd)


def outcome(look_up: Callable[[], int]) -> tuple[Path | None, int]:
    """Where the file is that *look_up* opens, or the errno."""
    try:
        return place(look_up()), 0
    except OSError as error:
        return None, error.errno or 0
