"""`python -m fuse` as a program: when it is ready, how it ends, what it says where it cannot begin."""

import os
import select
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless.linux.mounts import mount
from tests.support.fuse import ROOT, Union, escape, union

pytestmark = [pytest.mark.kernel, pytest.mark.fuse]


@pytest.fixture
def mounted() -> Iterator[Union]:
    with union([{"a": "content"}]) as u:
        yield u


@pytest.fixture
def layers() -> Iterator[Union]:
    """Not mounted."""
    with union([{"a": "content"}, {}], mounted=False) as u:
        yield u


def fuse(words: list[str], env: dict[str, str], directory: str = "/") -> tuple[int, str]:
    """`python -m fuse`, started in the namespace and in *directory*: its exit status, and what it says."""
    path = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(ROOT)]))
    done = subprocess.run(
        [sys.executable, "-m", "fuse", *words],
        cwd=directory,
        env={**os.environ, **env, "PYTHONPATH": path},
        capture_output=True,
        timeout=30,
    )
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


def started(u: Union, *words: str, **env: str) -> tuple[int, str]:
    return u.call(fuse, list(words), env)


def processes(base: str) -> list[int]:
    """Those with *base* in their command line, oldest first."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if base.encode() in Path("/proc", pid, "cmdline").read_bytes():
                found.append(int(pid))
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended
    return sorted(found)


def server_of(u: Union) -> int:
    """The process that serves, a child of the supervisor."""
    assert u.server is not None
    return int(Path(f"/proc/{u.server}/task/{u.server}/children").read_text())


def wait_until_gone(u: Union) -> None:
    for pid in processes(str(u.base)):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        os.close(pidfd) if _ended(pidfd) else pytest.fail(f"process {pid} is still there")


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(10_000))


def test_once_the_line_is_there_the_file_system_can_be_used(mounted: Union) -> None:
    assert mounted.run("cat", "a").stdout == "content"
    assert mounted.log() == ""


def test_in_the_background_it_returns_once_the_file_system_can_be_used(layers: Union) -> None:
    assert started(layers, "-o", layers.options(), layers.at()) == (0, "")
    assert layers.run("cat", "a").stdout == "content"
    assert len(processes(str(layers.base))) == 2
    layers.call(unmount, layers.at())
    wait_until_gone(layers)


def unmount(path: str) -> None:
    subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts(mounted: Union, number: signal.Signals) -> None:
    assert mounted.server is not None
    os.kill(mounted.server, number)
    assert mounted.wait() == 0
    assert not mounted.mounted()
    assert processes(str(mounted.base)) == []


def test_the_end_of_whoever_started_it_unmounts(mounted: Union) -> None:
    mounted.let_go()
    assert mounted.wait() == 0
    assert not mounted.mounted()


def test_the_end_of_whoever_started_it_is_seen_while_it_starts(layers: Union) -> None:
    slow = "import time\ntime.sleep(100)\n"
    (layers.base / "pyfuse3.py").write_text(slow)
    status = layers.call(let_go_at_once, layers.options(), layers.at(), str(layers.base))
    assert status == 0
    assert processes(str(layers.base)) == []


def let_go_at_once(options: str, place: str, modules: str) -> int:
    exit_fd, keep_fd = os.pipe()
    words = [sys.executable, "-m", "fuse", "-f", f"--exit-fd={exit_fd}", "-o", options, place]
    env = {**os.environ, "PYTHONPATH": f"{modules}{os.pathsep}{ROOT}"}
    with subprocess.Popen(words, cwd="/", env=env, pass_fds=[exit_fd]) as server:
        os.close(exit_fd)
        os.close(keep_fd)
        return server.wait(20)


def test_unmounted_by_somebody_else_it_leaves(mounted: Union) -> None:
    mounted.call(unmount, mounted.at())
    assert mounted.wait() == 0
    assert processes(str(mounted.base)) == []


def open_file(path: str) -> int:
    return os.open(path, os.O_RDWR)


def test_it_leaves_though_a_file_is_open_which_then_cannot_be_used(mounted: Union) -> None:
    fd = mounted.call(open_file, mounted.at("a"))
    assert mounted.server is not None
    os.kill(mounted.server, signal.SIGTERM)
    assert mounted.wait() == 0
    assert not mounted.mounted()
    with pytest.raises(OSError, match="Transport endpoint is not connected"):
        mounted.call(write_to, fd)


def write_to(fd: int) -> None:
    os.pwrite(fd, b"x", 0)
    os.fsync(fd)


def test_a_server_that_is_killed_leaves_no_dead_mount(mounted: Union) -> None:
    os.kill(server_of(mounted), signal.SIGKILL)
    assert mounted.wait() == 1
    assert not mounted.mounted()
    assert (
        mounted.log()
        == f"fuse: the process that served {mounted.merged} was killed by signal 9; nobody serves it any more\n"
    )


def test_a_server_whose_supervisor_is_killed_ends(mounted: Union) -> None:
    assert mounted.server is not None
    os.kill(mounted.server, signal.SIGKILL)
    mounted.wait()
    wait_until_gone(mounted)


def test_a_second_mount_of_the_same_upper_directory_is_refused(mounted: Union) -> None:
    mounted.call(os.mkdir, str(mounted.base / "other"))
    status, said = started(mounted, "-f", "-o", mounted.options(), str(mounted.base / "other"))
    assert status == 1
    assert said.startswith(f"fuse: workdir {mounted.work} is in use by another mount; ")


def broken(name: str) -> Callable[[Union], None]:
    def remove(u: Union) -> None:
        (u.base / name).rmdir()

    return remove


def work_elsewhere(u: Union) -> None:
    u.call(subprocess_mount, "tmpfs", str(u.work))


def subprocess_mount(kind: str, path: str) -> None:
    subprocess.run(["mount", "-t", kind, kind, path], check=True)


def work_with_a_file(u: Union) -> None:
    (u.work / "precious").touch()


def volatile_before(u: Union) -> None:
    (u.work / "work/incompat/volatile").mkdir(parents=True)


def work_in_upper(u: Union) -> None:
    u.work.rmdir()
    (u.upper / "work").mkdir()
    u.work.symlink_to("upper/work")


def upper_in_lower(u: Union) -> None:
    u.upper.rmdir()
    (u.lower[1] / "upper").mkdir()
    u.upper.symlink_to("lower1/upper")


def mount_point_is_a_file(u: Union) -> None:
    u.merged.rmdir()
    u.merged.touch()


def lower_is_a_file(u: Union) -> None:
    u.lower[1].rmdir()
    u.lower[1].touch()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (broken("lower1"), "lowerdir {base}/lower1: No such file or directory; names are separated by colons"),
        (lower_is_a_file, "lowerdir {base}/lower1: not a directory; "),
        (broken("upper"), "upperdir {base}/upper: No such file or directory; make the directory, empty"),
        (broken("work"), "workdir {base}/work: No such file or directory; make the directory, empty"),
        (broken("merged"), "mount point {base}/merged: No such file or directory; make the directory"),
        (mount_point_is_a_file, "mount point {base}/merged: not a directory; make the directory"),
        (work_elsewhere, "upperdir {base}/upper and workdir {base}/work are on different file systems; put workdir"),
        (work_with_a_file, "workdir {base}/work is not empty: it has precious; "),
        (volatile_before, "workdir {base}/work was last mounted volatile; changes may be lost"),
        (work_in_upper, "upperdir {base}/upper and workdir {base}/work are not apart; "),
        (upper_in_lower, "upperdir {base}/upper and lowerdir {base}/lower1 are not apart; "),
    ],
)
def test_what_stands_in_the_way_is_one_line_with_a_hint(
    layers: Union, spoil: Callable[[Union], None], says: str
) -> None:
    spoil(layers)
    before = layers.call(mounts)
    for words in ([], ["-f"]):
        status, said = started(layers, *words, "-o", layers.options(), layers.at())
        assert status == 1
        assert said.startswith("fuse: " + says.format(base=layers.base))
        assert said.count("\n") == 1
    assert layers.call(mounts) == before
    assert processes(str(layers.base)) == []


def hide_device() -> None:
    subprocess_mount("tmpfs", "/dev")
    Path("/dev/null").touch(0o666)


def test_without_the_device_it_says_how_to_get_it() -> None:
    with union(mounted=False, base="/tmp") as u:  # /dev/shm is hidden, too
        u.call(hide_device)
        for words in ([], ["-f"]):
            said = "fuse: /dev/fuse: No such file or directory; have root run: modprobe fuse\n"
            assert started(u, *words, "-o", u.options(), u.at()) == (1, said)
        assert processes(str(u.base)) == []


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_without_pyfuse3_it_says_how_to_get_it(layers: Union, tmp_path: Path) -> None:
    (tmp_path / "pyfuse3.py").write_text("raise ImportError('libfuse3.so.3: no such file')")
    status, said = started(layers, "-o", layers.options(), layers.at(), PYTHONPATH=str(tmp_path))
    assert status == 1
    assert said.startswith("fuse: pyfuse3 is not there: libfuse3.so.3: no such file; pip install 'rootless[fuse]'")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-o", "lowerdir=/etc,frobnicate", "/mnt"], "fuse: unknown mount option frobnicate; "),
        (["-o", "lowerdir=/etc"], "fuse: one mount point is needed, not 0; "),
        (["-o", "lowerdir=/etc", "--ready-fd=999", "/mnt"], "fuse: --ready-fd 999: Bad file descriptor; "),
    ],
)
def test_a_wrong_command_line_is_one_line_with_a_hint(words: list[str], says: str) -> None:
    status, said = fuse(words, {})
    assert status in (1, 2)
    assert said.startswith(says)
    assert said.count("\n") == 1


def test_what_has_no_effect_is_told(layers: Union) -> None:
    layers.mount("max_threads=4,auto_unmount")
    assert layers.log() == "fuse: without effect here: max_threads=4, auto_unmount\n"


def test_any_directory_can_be_named(layers: Union) -> None:
    odd = layers.base / "a,b:c\\d\ne f\udcff"
    layers.call(os.mkdir, str(odd))
    (odd / "here").touch()
    options = f"lowerdir={os.fsdecode(escape(os.fsencode(odd)))}"
    assert started(layers, "-o", options, str(odd)) == (0, "")
    assert layers.call(os.listdir, str(odd)) == ["here"]
    layers.call(unmount, str(odd))
    wait_until_gone(layers)


def test_a_mount_that_somebody_else_made_is_served_until_he_takes_it_off(layers: Union) -> None:
    assert layers.call(serve_given, layers.options(), layers.at()) == ("content", 0)
    assert not layers.mounted()
    assert processes(str(layers.base)) == []


def serve_given(options: str, place: str) -> tuple[str, int]:
    """What a file in it has, and the status of the server at the end."""
    device = os.open("/dev/fuse", os.O_RDWR)
    ready_fd, tell_fd = os.pipe()
    mount("union", place, "fuse.union", 0, f"fd={device},rootmode=40000,user_id=0,group_id=0,default_permissions")
    words = [sys.executable, "-m", "fuse", "-f", f"--ready-fd={tell_fd}", "-o", options, f"/dev/fd/{device}"]
    with subprocess.Popen(words, cwd=ROOT, pass_fds=[device, tell_fd]) as server:
        os.close(device)
        os.close(tell_fd)
        with open(ready_fd) as told:
            assert told.read() == "ready\n"
        content = Path(place, "a").read_text()
        unmount(place)
        return content, server.wait(20)


def test_names_may_be_relative(layers: Union) -> None:
    words = ["-o", "lowerdir=lower0:lower1,upperdir=upper,workdir=./work", "merged"]
    assert layers.call(fuse, words, {}, str(layers.base)) == (0, "")
    assert layers.run("cat", "a").stdout == "content"


def test_another_union_keeps_none_from_being_unmounted(mounted: Union) -> None:
    other = str(mounted.base / "other")
    mounted.call(os.mkdir, other)
    assert started(mounted, "-o", f"lowerdir={mounted.lower[0]}", other) == (0, "")
    mounted.unmount()
    assert mounted.call(os.listdir, other) == ["a"]
    mounted.call(unmount, other)
    wait_until_gone(mounted)


def test_a_layer_may_contain_the_mount_point(layers: Union) -> None:
    (layers.lower[0] / "m").mkdir()
    assert started(layers, "-o", f"lowerdir={layers.lower[0]}", str(layers.lower[0] / "m")) == (0, "")
    assert layers.call(os.listdir, str(layers.lower[0] / "m/m")) == []
    layers.call(unmount, str(layers.lower[0] / "m"))
    wait_until_gone(layers)


def test_without_an_upper_directory_nothing_can_be_changed(layers: Union) -> None:
    layers.mount(writable=False)
    assert layers.run("cat", "a").stdout == "content"
    with pytest.raises(OSError, match="Read-only file system"):
        layers.call(os.unlink, layers.at("a"))


def test_flags_and_names_are_those_of_the_mount(layers: Union) -> None:
    layers.mount("nosuid,nodev,noexec,noatime,fsname=what,subtype=kind")
    (line,) = [line for line in layers.call(mounts).splitlines() if f" {layers.merged} " in line]
    assert line.split(" - ")[1].startswith("fuse.kind what rw,user_id=0,group_id=0,default_permissions,allow_other")
    assert " rw,nosuid,nodev,noexec,noatime " in line


def test_the_server_has_given_up_what_it_does_not_need(mounted: Union) -> None:
    lines = Path(f"/proc/{server_of(mounted)}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    kept = sum(1 << number for number in (0, 1, 2, 3, 4, 27, 31))
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")] == [kept] * 3
    assert [int(status[name], 16) for name in ("CapInh", "CapAmb")] == [0, 0]


def test_the_server_may_have_as_many_files_as_the_machine_lets_it(mounted: Union) -> None:
    (line,) = [
        row for row in Path(f"/proc/{server_of(mounted)}/limits").read_text().splitlines() if "open files" in row
    ]
    soft, hard = line.split()[3:5]
    assert soft == hard


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Layers of an ordinary user in no user namespace, who needs fusermount3."""
    if not (helper := shutil.which("fusermount3")) or not os.stat(helper).st_mode & stat.S_ISUID:
        pytest.skip("fusermount3 is not installed, or is not setuid")
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/a").write_text("content")
    yield tmp_path
    subprocess.run(["fusermount3", "-u", "-z", "-q", tmp_path / "merged"], capture_output=True)


def layers_of(base: Path) -> str:
    return f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"


def test_outside_of_a_user_namespace_fusermount3_mounts(outside: Path) -> None:
    assert fuse(["-o", layers_of(outside) + r",nosuid,fsname=a\,b", str(outside / "merged")], {}) == (0, "")
    assert (outside / "merged/a").read_text() == "content"
    (line,) = [line for line in mounts().splitlines() if f" {outside}/merged " in line]
    assert " rw,nosuid,nodev," in line
    assert " - fuse.union a,b " in line
    ended = [os.pidfd_open(pid) for pid in processes(str(outside))]
    subprocess.run(["fusermount3", "-u", outside / "merged"], check=True)
    for pidfd in ended:
        assert _ended(pidfd)
        os.close(pidfd)


def test_outside_of_a_user_namespace_a_signal_unmounts(outside: Path) -> None:
    told_fd, tell_fd = os.pipe()
    words = [sys.executable, "-m", "fuse", "-f", f"--ready-fd={tell_fd}", "-o", layers_of(outside)]
    with subprocess.Popen(
        [*words, str(outside / "merged")], cwd=ROOT, pass_fds=[tell_fd], stderr=subprocess.PIPE
    ) as server:
        os.close(tell_fd)
        with open(told_fd) as told:
            assert told.read() == "ready\n"
        server.terminate()
        assert server.wait(20) == 0
    assert f" {outside}/merged " not in mounts()


@pytest.mark.parametrize(
    ("options", "place", "says"),
    [
        (
            "lowerdir={base}/lower",
            "/",
            "fuse: cannot mount at /: fusermount3: user has no write access to mountpoint /; ",
        ),
        (
            "lowerdir={base}",
            "{base}/merged",
            "fuse: mount point {base}/merged is in the layer {base}; mount it elsewhere",
        ),
    ],
)
def test_outside_of_a_user_namespace_a_refusal_is_one_line(outside: Path, options: str, place: str, says: str) -> None:
    status, said = fuse(["-o", options.format(base=outside), place.format(base=outside)], {})
    assert status == 1
    assert said.startswith(says.format(base=outside))
    assert said.count("\n") == 1
