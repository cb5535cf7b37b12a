import errno
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.linux import removal
from rootless.linux.removal import remove_tree
from tests.support.canary import Canary
from tests.support.racer import racing


@pytest.fixture
def parent_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = os.listdir("/proc/self/fd")
    yield fd
    assert len(os.listdir("/proc/self/fd")) == len(before)
    os.close(fd)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    canary = Canary(tmp_path / "victim")
    yield canary
    assert canary.changes() == []


@pytest.fixture
def _few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def make_chain(tmp_path: Path, depth: int) -> None:
    """tmp_path/tree/d/d/d/…, with a file in every hundredth."""
    fd = os.open(tmp_path, os.O_PATH)
    for i in range(depth):
        name = "d" if i else "tree"
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
        if i % 100 == 0:
            os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def test_a_tree_goes_with_all_that_is_in_it(tmp_path: Path, parent_fd: int, canary: Canary) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/file").write_bytes(b"x")
    (tree / "a/b/dir-link").symlink_to(canary.top)
    (tree / "a/b/file-link").symlink_to(canary.top / "file")
    (tree / "a/hard").hardlink_to(tree / "a/file")
    os.mkfifo(tree / "fifo")
    (tmp_path / "other").mkdir()
    remove_tree(parent_fd, "tree")
    assert sorted(os.listdir(tmp_path)) == ["other", "victim"]


def test_the_top_may_be_any_kind_of_file(tmp_path: Path, parent_fd: int, canary: Canary) -> None:
    (tmp_path / "link").symlink_to(canary.top)
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for name in ("link", b"file", "empty", "nothing"):
        remove_tree(parent_fd, name)
    assert os.listdir(tmp_path) == ["victim"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", b".."])
def test_only_a_name_is_taken(parent_fd: int, name: str | bytes) -> None:
    with pytest.raises(OSError) as caught:
        remove_tree(parent_fd, name)
    assert caught.value.errno == errno.EINVAL


def test_names_are_bytes(tmp_path: Path, parent_fd: int) -> None:  # T10
    top = os.fsencode(tmp_path) + b"/\xff\n"
    os.makedirs(top + b"/\xfe\x1b/x")
    remove_tree(parent_fd, b"\xff\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", [0o000, 0o200, 0o400, 0o500, 0o300])
def test_a_directory_that_nobody_may_enter_goes(tmp_path: Path, parent_fd: int, mode: int) -> None:  # T21
    inner = tmp_path / "tree/a/b"
    inner.mkdir(parents=True)
    (inner / "file").write_bytes(b"x")
    for directory in (inner, inner.parent, inner.parent.parent):
        directory.chmod(mode)
    remove_tree(parent_fd, "tree")
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("_few_descriptors")
def test_ten_thousand_directories_inside_each_other_go(tmp_path: Path, parent_fd: int) -> None:  # T18
    make_chain(tmp_path, 10_000)
    remove_tree(parent_fd, "tree")
    assert os.listdir(tmp_path) == []


def test_deep_directories_are_lifted_whatever_is_in_the_top_already(tmp_path: Path, parent_fd: int) -> None:  # T18
    make_chain(tmp_path, 200)
    tree = tmp_path / "tree"
    (tree / ".lifted-0").write_bytes(b"a file")
    (tree / ".lifted-1").mkdir()
    (tree / ".lifted-1/full").write_bytes(b"")
    (tree / ".lifted-2").mkdir()
    for depth in range(removal.MAX_DEPTH + 1, removal.MAX_DEPTH - 3, -1):
        (tree / ("d/" * depth)).chmod(0)  # moving a directory takes the right to change it
    remove_tree(parent_fd, "tree")
    assert os.listdir(tmp_path) == []


@pytest.mark.kernel
def test_what_stands_in_the_way_is_named_and_all_else_goes(tmp_path: Path) -> None:  # T21, Y05
    """A mount point cannot be removed, not even by root of the namespace."""
    for directory in ("a", "b/busy", "c"):
        (tmp_path / "tree" / directory).mkdir(parents=True)
        (tmp_path / "tree" / directory / "file").write_bytes(b"x")
    code = (
        "import os, sys; from rootless.linux.removal import remove_tree\n"
        "try: remove_tree(os.open(sys.argv[1], os.O_RDONLY), 'tree')\n"
        "except OSError as error: print(error.errno, error.filename)\n"
    )
    script = 'mount -t tmpfs none "$1/tree/b/busy" && exec "$2" -B -c "$3" "$1"'
    shell = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path)]
    done = subprocess.run([*shell, sys.executable, code], capture_output=True, text=True, cwd=os.getcwd())
    assert (done.stdout, done.stderr) == (f"{errno.EBUSY} tree/b/busy\n", "")
    left = [os.path.relpath(os.path.join(w, n), tmp_path) for w, d, f in os.walk(tmp_path) for n in d + f]
    assert sorted(left) == ["tree", "tree/b", "tree/b/busy", "tree/b/busy/file"]


def test_an_entry_that_another_owner_keeps_does_not_stop_the_rest(
    tmp_path: Path, parent_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_chain(tmp_path, 80)
    for place in ("1", "d/2", "d/d/3"):
        (tmp_path / "tree" / place).write_bytes(b"")
    unlink, asked = os.unlink, []

    def refuse(name: str, *, dir_fd: int) -> None:
        asked.append(name)
        if name in ("2", "3"):
            raise PermissionError(errno.EPERM, "refused")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(PermissionError) as caught:
        remove_tree(parent_fd, "tree")
    assert caught.value.filename in ("tree/d/2", "tree/d/d/3")
    monkeypatch.undo()
    left = sorted(os.path.relpath(os.path.join(w, n), tmp_path) for w, d, f in os.walk(tmp_path) for n in d + f)
    assert left == ["tree", "tree/d", "tree/d/2", "tree/d/d", "tree/d/d/3"]
    assert len(asked) < 20


@pytest.mark.slow
def test_a_directory_swapped_for_a_link_meanwhile_leads_nowhere(tmp_path: Path, canary: Canary) -> None:  # T21
    store = tmp_path / "store"
    store.mkdir()
    store_fd = os.open(store, os.O_RDONLY)
    errors = set()
    with racing(store / "tree/sub", store / "tree/evil") as racer:
        while racer.goes_on():
            make_bait(tmp_path / "new", canary.top)
            os.rename(tmp_path / "new", store / "tree")
            try:
                remove_tree(store_fd, "tree")
            except OSError as error:
                errors.add(error.errno)
                remove_tree(store_fd, "tree")
    assert os.listdir(store) == []
    assert errors <= {errno.ENOTEMPTY}
    os.close(store_fd)


def make_bait(tree: Path, victim: Path) -> None:
    """A directory that takes a while to empty, and a link to be swapped for it."""
    (tree / "sub/sub").mkdir(parents=True)
    (tree / "evil").symlink_to(victim)
    for i in range(50):
        (tree / f"sub/{i}").touch()
        (tree / f"sub/sub/{i}").symlink_to(victim)


@pytest.mark.bench
def test_ten_thousand_files_go_as_fast_as_with_rm(tmp_path: Path, parent_fd: int) -> None:
    def best(remove: list[str] | None) -> float:
        times = []
        for _ in range(3):
            for directory in range(200):
                place = tmp_path / "tree" / str(directory % 20) / str(directory)
                place.mkdir(parents=True)
                for i in range(50):
                    (place / str(i)).touch()
            start = time.perf_counter()
            if remove:
                subprocess.run(remove, check=True)
            else:
                remove_tree(parent_fd, "tree")
            times.append(time.perf_counter() - start)
        return min(times)

    rm = shutil.which("rm")
    assert rm
    assert best(None) < 1.2 * best([rm, "-rf", str(tmp_path / "tree")])
