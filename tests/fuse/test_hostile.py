"""What a container may do to the union from inside, and what must not come of it (SECURITY.md F01 to F07, M02)."""

import errno
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.linux.files import RESOLVE_NO_SYMLINKS, openat2, renameat2
from tests.support import fuse
from tests.support.fuse import Tree, Union, union
from tests.support.hostile import LONG
from tests.support.racer import racing
from tests.support.union_model import replay, show
from tests.support.union_rig import Rig, rig

pytestmark = [pytest.mark.kernel, pytest.mark.fuse]

GONE = (errno.ENOTCONN, errno.ECONNABORTED)


@pytest.fixture
def bench() -> Iterator[Rig]:
    """A namespace of its own."""
    with rig() as made:
        yield made


# Names and marks (F03)

ODD = [
    "n" * 255,
    "\udcff\udcfe",
    "new\nline",
    "tab\tand\x01",
    "back\\slash",
    "...",
    " ",
    "-rf",
    "é" * 127,
    "e\u0301",
    "comma,colon:=",
    "%s%n",
    ".wh",
    "a.wh.b",
    "lost+found",
]


def test_a_name_is_any_255_bytes(bench: Rig) -> None:  # F03
    operations = [
        operation
        for name in ODD
        for operation in (
            ("lstat", name),
            ("chmod", name, 0o600),
            ("mkdir", f"d{name}"[:200], 0o755),
            ("rename", name, f"d{name}"[:200] + "/x", 0),
            ("rename", f"d{name}"[:200] + "/x", name, 0),
            ("unlink", name),
            ("mknod", name, stat.S_IFREG | 0o644, 0),
            ("setxattr", name, "user.a", "v", 0),
            ("lstat", name + "n" * 250),
            ("mknod", name + "n" * 250, stat.S_IFREG | 0o644, 0),
        )
    ]
    bench.build([[("file", name, 0o644, 0, "odd", 1) for name in ODD]])
    with bench.mounted("kernel", "kernel") as root:
        expected = bench.call(replay, root, operations)
    with bench.mounted("ours", "ours") as root:
        assert bench.call(replay, root, operations) == expected
    with bench.mounted("read", "kernel", above="ours") as root:
        assert bench.call(show, root) == expected[2]


HIDING: dict[str, list[tuple[object, ...]]] = {
    "a file": [("mknod", "d/.wh.x", stat.S_IFREG | 0o644, 0), ("mknod", ".wh.d", stat.S_IFREG | 0o644, 0)],
    "a directory": [("mkdir", "d/.wh.x", 0o755), ("mkdir", "d/.wh..wh..opq", 0o755)],
    "an opaque file": [("mknod", "d/.wh..wh..opq", stat.S_IFREG | 0o644, 0)],
    "a symlink": [("symlink", "x", "d/.wh.x")],
    "a link": [("link", "own", "d/.wh.x"), ("link", "own", ".wh.d")],
    "a rename": [("rename", "own", "d/.wh.x", 0), ("rename", "own", ".wh.d", 0)],
    "an open": [("open", 0, "d/.wh.x", os.O_CREAT | os.O_RDWR, 0o644)],
    "a device": [("mknod", "d/x", stat.S_IFCHR, 0), ("mknod", "z", stat.S_IFCHR, 0), ("rename", "z", "d/x", 0)],
    "an attribute": [
        ("setxattr", "d", f"{prefix}.{name}", value, 0)
        for prefix in (
            "user.overlay",
            "trusted.overlay",
            "user.fuseoverlayfs",
            "user.overlay.overlay",
            "user.containers",
        )
        for name, value in (
            ("opaque", "y"),
            ("whiteout", "y"),
            ("redirect", "/etc"),
            ("metacopy", ""),
            ("override_stat", "0:0:4755"),
        )
    ],
    "an attribute of a file": [
        ("setxattr", "own", f"{prefix}.{name}", value, 0)
        for prefix in ("user.overlay", "user.fuseoverlayfs", "user.containers")
        for name, value in (
            ("whiteout", "y"),
            ("redirect", "/etc/passwd"),
            ("metacopy", ""),
            ("override_stat", "0:0:4755"),
        )
    ],
}


@pytest.mark.parametrize("name", HIDING)
def test_nothing_is_hidden_by_what_looks_like_a_mark(bench: Rig, name: str) -> None:  # F03
    bench.build(
        [[("file", "d/x", 0o644, 0, "x", 1), ("file", "own", 0o600, 1000, "own", 1), ("file", "d/y", 0o644, 0, "y", 1)]]
    )
    with bench.mounted("ours", "ours") as root:
        bench.call(replay, root, [("mkdir", "d/here", 0o755), ("chmod", "d/y", 0o600)])
        _, _, seen = bench.call(replay, root, HIDING[name])
    assert {"d", "d/x", "d/y", "d/here"} <= set(seen)
    for reader, above in (("ours", ""), ("ours", "ours"), ("kernel", "ours")):
        with bench.mounted("read" if above else "ours", reader, above=above) as root:
            again = bench.call(show, root)
            assert set(again) == set(seen), reader
            assert {path: facts["mode"] for path, facts in again.items()} == {
                path: facts["mode"] for path, facts in seen.items()
            }


def test_nobody_lists_the_attributes_of_the_union_itself(bench: Rig) -> None:  # F03
    bench.build([[("file", "d/x", 0o644, 0, "x", 1)]])
    with bench.mounted("ours", "ours") as root:
        results, _, _ = bench.call(
            replay,
            root,
            [
                ("remove", "d"),
                ("mkdir", "d", 0o755),
                ("listxattr", "d"),
                ("getxattr", "d", "user.overlay.opaque"),
                ("removexattr", "d", "user.overlay.opaque"),
                ("list", "d"),
            ],
        )
    assert results[2:] == [("ok", []), ("ENODATA", None), ("ENODATA", None), ("ok", [])]
    with bench.mounted("ours", "ours") as root:
        assert set(bench.call(show, root)) == {"", "d"}


# Races (F04)


def try_to_be_led_outside(merged: str) -> list[str]:
    """Open, make and change files in a directory that changes places with a symlink; what went wrong."""
    root_fd = os.open(merged, os.O_PATH | os.O_DIRECTORY)
    wrong, count = [], 0
    os.makedirs(f"{merged}/d/sub", exist_ok=True)
    with racing(Path(merged, "d/sub"), Path(merged, "d/link")) as race:
        while race.goes_on():
            count += 1
            for name, flags in (
                (f"f{count % 50}", os.O_CREAT | os.O_RDWR),
                ("secret", os.O_RDWR),
                ("lower", os.O_RDWR),
            ):
                try:
                    mode = 0o644 if flags & os.O_CREAT else 0
                    fd = openat2(root_fd, f"d/sub/{name}", flags, mode, RESOLVE_NO_SYMLINKS)
                except OSError as error:
                    if error.errno not in (errno.ELOOP, errno.ENOENT, errno.ESTALE, errno.EAGAIN, errno.ENOTDIR):
                        wrong.append(f"{name}: {error}")
                    continue
                if name == "secret":
                    wrong.append("opened what is outside")
                os.fchmod(fd, 0o600 + count % 8)
                os.close(fd)
    os.close(root_fd)
    return wrong[:10]


def test_a_directory_that_becomes_a_symlink_leads_nowhere(tmp_path: Path) -> None:  # F04
    with union([{"d/sub/lower": "lower", "d/other": ""}]) as u:
        outside = u.base / "outside"
        outside.mkdir()
        (outside / "secret").write_text("secret")
        (outside / "lower").write_text("not this one")
        u.call(os.symlink, str(outside), u.at("d/link"))
        assert u.call(try_to_be_led_outside, str(u.merged)) == []
        assert sorted(os.listdir(outside)) == ["lower", "secret"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in outside.iterdir()} == {0o644}
        assert u.log() == ""


# Numbers (F06, F07)


def memory(u: Union) -> int:
    """KiB that the processes of the server take."""
    assert u.server is not None
    return u.call(group_memory, u.server)


def group_memory(group: int) -> int:
    """KiB that the processes of *group* have resident."""
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(pid)) == group:
                status = Path("/proc", pid, "status").read_text()
                total += int(status.partition("VmRSS:")[2].split()[0])
        except (ProcessLookupError, FileNotFoundError):
            continue  # it has ended
    return total


def look_for(merged: str, count: int) -> int:
    """How many of *count* names that are not there are there."""
    return sum(os.path.lexists(f"{merged}/no{number}") for number in range(count))


def make_and_remove(merged: str, count: int) -> None:
    """*count* files, one after the other, each of another name."""
    for number in range(count):
        os.close(os.open(f"{merged}/made{number}", os.O_CREAT | os.O_WRONLY))
        os.unlink(f"{merged}/made{number}")


def test_names_that_are_not_there_take_no_memory() -> None:  # F07
    with union([{"a": ""}]) as u:
        u.call(look_for, str(u.merged), 1000)
        before = memory(u)
        assert u.call(look_for, str(u.merged), 200_000 if LONG else 15_000) == 0
        assert memory(u) - before < 2048


def test_files_that_are_removed_take_no_memory() -> None:  # F07
    with union([{"a": ""}]) as u:
        u.call(make_and_remove, str(u.merged), 500)
        before = memory(u)
        u.call(make_and_remove, str(u.merged), 50_000 if LONG else 4000)
        assert memory(u) - before < 2048


WIDE: Tree = {f"d{number}/e/f": str(number) for number in range(100)}


def mount_with_descriptors(base: str, options: str, count: int) -> int:
    """Mount ours with room for *count* open files."""
    with open(f"{base}/log", "ab") as log:
        limit = ["prlimit", f"--nofile={count}:{count}", "--"]
        started = fuse._start_ours(options, f"{base}/merged", log.fileno(), {}, limit)
    fuse._servers[base] = started
    return started[0].pid


def open_many(merged: str) -> tuple[int, list[str]]:
    """Open 100 files in as many directories: how many could be, and the errors; then all again, one by one."""
    opened, errors = [], set()
    for number in range(100):
        try:
            opened.append(os.open(f"{merged}/d{number}/e/f", os.O_RDWR))
        except OSError as error:
            errors.add(errno.errorcode[error.errno or 0])
    for fd in opened:
        os.close(fd)
    deadline = time.monotonic() + 5
    for number in range(100):  # closing is told to the server a moment later
        while True:
            try:
                with open(f"{merged}/d{number}/e/f", encoding="ascii") as file:
                    assert file.read() == str(number)
                break
            except OSError:
                assert time.monotonic() < deadline
    return len(opened), sorted(errors)


def test_a_server_without_descriptors_says_so_and_lives_on() -> None:  # F07
    with union([WIDE], mounted=False) as u:
        u.server = u.call(mount_with_descriptors, str(u.base), u.options(), 64)
        opened, errors = u.call(open_many, str(u.merged))
        assert opened >= 5
        assert errors in (["EMFILE"], ["ENFILE"], [])
        assert "Traceback" not in u.log()


def wait_in_fifos(merged: str, count: int) -> list[int]:
    """Processes that wait for somebody to write into the FIFO."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                os.open(f"{merged}/fifo", os.O_RDONLY)
            finally:
                os._exit(0)
        pids.append(pid)
    return pids


def end(pids: list[int]) -> None:
    """Kill them."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_whoever_waits_at_a_fifo_stops_nobody_else(bench: Rig) -> None:  # F06
    bench.build([[("fifo", "fifo", 0o644), ("socket", "socket", 0o644), ("file", "a", 0o644, 0, "a", 1)]])
    with bench.mounted("ours", "ours") as root:
        waiting = bench.call(wait_in_fifos, root, 30)
        try:
            operations = [("chmod", "fifo", 0o600), ("chmod", "socket", 0o600), ("content", "a"), ("list", "")]
            results, _, _ = bench.call(replay, root, operations)
            assert [result for result, _ in results] == ["ok"] * 4
        finally:
            bench.call(end, waiting)


# A server that is killed (M02)


def use_while_it_dies(merged: str, group: int) -> tuple[float, int, list[int]]:
    """Processes that read, write and list; the server is killed: seconds until all have ended, and their errors."""
    pids = []
    for work in (_read_on, _write_on, _list_on, _map_on):
        pid = os.fork()
        if pid == 0:
            status = 255
            try:
                work(merged)
            except OSError as error:
                status = error.errno or 254
            finally:
                os._exit(status)
        pids.append(pid)
    time.sleep(0.2)  # in the middle of it
    begun = time.monotonic()
    os.killpg(group, signal.SIGKILL)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    took = time.monotonic() - begun
    try:
        os.stat(f"{merged}/big")
    except OSError as error:
        return took, error.errno or 0, statuses
    return took, 0, statuses


def _read_on(merged: str) -> None:
    fd = os.open(f"{merged}/big", os.O_RDONLY)
    while True:
        os.pread(fd, 1 << 20, 0)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _write_on(merged: str) -> None:
    fd = os.open(f"{merged}/written", os.O_CREAT | os.O_RDWR)
    while True:
        os.pwrite(fd, bytes(1 << 20), 0)
        os.fsync(fd)


def _list_on(merged: str) -> None:
    number = 0
    while True:
        number += 1
        os.mkdir(f"{merged}/d{number}")
        os.listdir(merged)
        os.rmdir(f"{merged}/d{number}")


def _map_on(merged: str) -> None:
    number = 0
    while True:
        number += 1
        renameat2(-100, f"{merged}/x{number - 1}", -100, f"{merged}/x{number}", 0)


def test_who_uses_the_union_of_a_killed_server_gets_an_error_at_once() -> None:  # M02
    with union([{"big": b"x" * (4 << 20), "x0": ""}]) as u:
        took, error, statuses = u.call(use_while_it_dies, str(u.merged), u.server)
        assert took < 5
        assert error in GONE
        assert set(statuses) <= {*GONE, errno.EIO}
        u.kill()
        u.mount()
        assert u.call(os.path.getsize, u.at("big")) == 4 << 20
