"""exec: another program in a container that runs."""

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box, cpu_seconds, is_alive

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

MEBIBYTE = 1 << 20


OPTIONS = ("-e", "A=image", "-w", "/tmp")


@pytest.fixture(scope="module")
def web(shared_box: Box) -> Iterator[str]:
    """A container that runs, for all tests that do it no harm."""
    shared_box.detached("exec sleep 600", "--name", "web", *OPTIONS)
    yield "web"
    shared_box("rm", "-f", "web")


@pytest.fixture
def own(box: Box) -> str:
    """The same for one test."""
    box.detached("exec sleep 600", "--name", "own", *OPTIONS)
    return "own"


# --- exit codes


@pytest.mark.parametrize("code", [0, 1, 42, 125, 126, 127, 128, 255])
def test_the_exit_code_is_the_programs(code: int, web: str, box: Box) -> None:
    done = box("exec", web, "sh", "-c", f"exit {code}", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize("signum", [1, 2, 9, 15])
def test_a_program_that_a_signal_ended_has_128_more(signum: int, web: str, box: Box) -> None:
    assert box("exec", web, "sh", "-c", f"kill -{signum} $$", check=False).returncode == 128 + signum


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nothere"], 127, "exec: 'nothere': executable file not found in $PATH"),
        (["/no/where"], 127, "exec: '/no/where': no such file or directory"),
        (["/etc/passwd"], 126, "exec: '/etc/passwd': permission denied"),
        (["/etc"], 126, "exec: '/etc': permission denied"),
    ],
)
def test_a_program_that_cannot_be_run_is_told_in_one_line(
    words: list[str], code: int, message: str, web: str, box: Box
) -> None:
    done = box("exec", web, *words, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"rootless: {message}\n")


def test_a_container_that_does_not_run_is_told(box: Box) -> None:
    box("create", "--name", "created", box.image, "true")
    done = box("exec", "created", "true", check=False)
    assert (done.returncode, "is not running" in done.stderr) == (1, True)
    done = box("exec", "nobody", "true", check=False)
    assert (done.returncode, done.stderr) == (1, "rootless: No such container: nobody\n")


def test_a_container_that_is_paused_is_told(own: str, box: Box) -> None:
    box("pause", own)
    done = box("exec", own, "true", check=False)
    assert (done.returncode, "is paused, unpause" in done.stderr) == (1, True)


def test_a_program_that_ends_with_its_container_was_killed(own: str, box: Box) -> None:
    with box.start("exec", own, "sh", "-c", "echo on; sleep 60") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"on\n"
        box("kill", own)
        assert running.wait(20) == 137


# --- streams


def test_output_and_errors_stay_apart(web: str, box: Box) -> None:
    done = box("exec", web, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_piped_input_ends_where_the_pipe_ends(web: str, box: Box) -> None:
    assert box("exec", "-i", web, "cat", input="one\ntwo").stdout == "one\ntwo"


def test_without_i_there_is_no_input(web: str, box: Box) -> None:
    assert box("exec", web, "sh", "-c", "cat; readlink /proc/self/fd/0", input="secret").stdout == "/dev/null\n"


def test_input_and_output_are_binary_and_large(web: str, box: Box) -> None:
    data = random.Random(2).randbytes(64 * MEBIBYTE)
    done = box.installed.run_bytes("exec", "-i", web, "cat", input=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert done.stderr == b""


def test_a_program_that_says_more_than_it_reads_gets_all_its_input(web: str, box: Box) -> None:
    data = "x" * (150 << 10)  # what the pipes hold before the program begins to read
    done = box("exec", "-i", web, "sh", "-c", "sleep 0.3; od -v -A n -t x1", input=data, timeout=20)
    assert done.stdout.split() == ["78"] * len(data)


def test_a_program_that_reads_no_more_ends_all_the_same(web: str, box: Box) -> None:
    assert box("exec", "-i", web, "head", "-c", "3", input="x" * 4 * MEBIBYTE).stdout == "xxx"


def test_many_nulls_come_out(web: str, box: Box) -> None:
    assert box("exec", web, "head", "-c", "700000", "/dev/zero").stdout == "\0" * 700_000


@pytest.mark.parametrize(("options", "signum"), [((), signal.SIGPIPE), (("-t",), signal.SIGHUP)])
def test_a_reader_that_goes_away_ends_the_program(options: tuple[str, ...], signum: int, own: str, box: Box) -> None:
    with box.start("exec", *options, own, "yes") as running:
        assert running.stdout is not None
        assert running.stdout.read(1) == b"y"
        running.stdout.close()
        assert running.wait(20) == 128 + signum
    assert wait_until(lambda: "yes" not in box("top", own, "-o", "comm").stdout.split())


def test_a_slow_reader_gets_everything(web: str, box: Box) -> None:
    with box.start("exec", web, "seq", "1", "60000") as running:
        time.sleep(1)
        assert running.stdout is not None
        assert running.stdout.read().count(b"\n") == 60_000
        assert running.wait(20) == 0


def test_output_of_what_the_program_leaves_behind_does_not_keep_us(web: str, box: Box) -> None:
    done = box("exec", web, "sh", "-c", "sleep 60 & echo done", timeout=10)
    assert done.stdout == "done\n"


def test_nobody_spins_while_nothing_happens(web: str, box: Box) -> None:
    before = set(box.installed.processes())
    with box.start("exec", "-i", web, "cat") as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"x\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"x\n"
        helpers = set(box.installed.processes()) - before
        used = sum(map(cpu_seconds, helpers))
        time.sleep(0.5)
        assert sum(map(cpu_seconds, helpers)) - used < 0.03
        running.stdin.close()
        assert running.wait(20) == 0


# --- the terminal


def test_a_terminal_is_one_with_the_callers_size_and_type(web: str, box: Box) -> None:
    script = "tty; stty size; echo $TERM; trap 'stty size' WINCH; echo ready; read line; read line"
    with box.terminal("exec", "-it", web, "sh", "-c", script, rows=33, columns=99) as terminal:
        terminal.expect(r"^/dev/pts/\d\r\n33 99\r\nxterm\r\nready\r\n")
        terminal.resize(40, 120)
        terminal.expect("^40 120\r\n")
        terminal.send("x\ny\n")
        assert terminal.wait() == 0


def test_ctrl_c_and_ctrl_d_are_for_the_program(web: str, box: Box) -> None:
    with box.terminal(
        "exec", "-it", web, "sh", "-c", "trap 'echo int' INT; echo on; sleep 60; cat; exit 5"
    ) as terminal:
        terminal.expect("^on")
        time.sleep(0.2)  # so that it is sleep that is interrupted
        terminal.send("\x03")
        terminal.expect("int")
        terminal.send("\x04")
        assert terminal.wait() == 5


def test_an_interactive_shell_has_job_control(web: str, box: Box) -> None:
    with box.terminal("exec", "-it", web, "sh") as terminal:
        terminal.expect("[#] ")
        terminal.send("sleep 60\n")
        terminal.expect("sleep 60\r\n")
        time.sleep(0.2)
        terminal.send("\x1a")
        terminal.expect("Stopped")
        terminal.send("fg\n")
        terminal.expect("sleep 60\r\n")
        time.sleep(0.2)
        terminal.send("\x03")
        terminal.expect("[#] ")
        terminal.send("exit 4\n")
        assert terminal.wait() == 4
        assert "job control" not in terminal.shown


def test_the_callers_terminal_comes_back_as_it_was(own: str, box: Box) -> None:
    with box.terminal("exec", "-it", own, "sh", "-c", "echo on; read x") as terminal:
        before = terminal.modes()
        terminal.expect("^on")
        assert terminal.modes() != before
        box("kill", own)
        assert terminal.wait() == 137
        assert terminal.modes() == before


def test_detach_keys_leave_the_program_to_itself(web: str, box: Box) -> None:
    with box.terminal("exec", "-it", "--detach-keys", "ctrl-x,x", web, "sh", "-c", "echo on; sleep 77") as terminal:
        before = terminal.modes()
        terminal.expect("^on")
        terminal.send("\x18x")
        assert terminal.wait() == 0
        assert terminal.modes() == before


def test_t_without_a_terminal_is_an_error_only_with_i(web: str, box: Box) -> None:
    done = box("exec", "-it", web, "true", check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "rootless: the input device is not a TTY")
    assert box("exec", "-t", web, "tty").stdout == "/dev/pts/0\r\n"


# --- what it runs as


def test_it_has_the_containers_environment_directory_and_user(web: str, box: Box) -> None:
    done = box("exec", "-e", "B=mine", web, "sh", "-c", 'echo "$A $B $HOME $(hostname)"; pwd; id -u')
    assert done.stdout.splitlines()[1:] == ["/tmp", "0"]
    first = done.stdout.split()
    assert first[:3] == ["image", "mine", "/root"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("-u", "user"), "uid=1000(user) gid=1000(user) groups=10(wheel),1000(user)"),
        (("-u", "1000:0"), "uid=1000(user) gid=0(root) groups=0(root)"),
        (("-u", "4321"), "uid=4321 gid=0(root) groups=0(root)"),
    ],
)
def test_it_runs_as_whom_it_is_told(options: tuple[str, ...], expected: str, web: str, box: Box) -> None:
    assert box("exec", *options, web, "id").stdout == f"{expected}\n"


def test_other_options(web: str, box: Box, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nC=file\n")
    done = box("exec", "--env-file", str(tmp_path / "env"), "-e", "A", "-w", "/etc", web, "sh", "-c", "echo $C; pwd")
    assert done.stdout == "file\n/etc\n"


def test_a_directory_that_is_not_there_is_told(web: str, box: Box) -> None:
    done = box("exec", "-w", "/no/where", web, "true", check=False)
    assert (done.returncode, "/no/where" in done.stderr) == (126, True)


def test_privileged_has_more_capabilities(web: str, box: Box) -> None:
    usual, more = (
        box("exec", *options, web, "grep", "CapEff", "/proc/self/status").stdout for options in [(), ("--privileged",)]
    )
    assert usual == "CapEff:\t00000000a80425fb\n"
    assert int(more.split()[1], 16).bit_count() > 30


def test_it_may_run_in_the_background(web: str, box: Box) -> None:
    with box.start("exec", "-d", web, "sh", "-c", "sleep 0.3; echo done >/tmp/done") as running:
        assert running.wait(20) == 0
    assert wait_until(lambda: box("exec", web, "cat", "/tmp/done", check=False).stdout == "done\n")


def test_who_goes_away_takes_the_program_along(web: str, box: Box) -> None:
    with box.start(
        "exec", web, "sh", "-c", "trap 'echo bye >/tmp/bye; exit' TERM; echo on; sleep 60 & wait"
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"on\n"
        running.kill()
    assert wait_until(lambda: box("exec", web, "cat", "/tmp/bye", check=False).stdout == "bye\n")


# --- many


def test_a_container_does_not_grow_with_what_is_executed_in_it(own: str, box: Box) -> None:
    monitor = box.monitor(box.inspect(own)["Id"])
    for _ in range(5):
        box("exec", own, "true")
    before = facts(monitor)
    processes = len(box.installed.processes())
    for n in range(60):
        assert box("exec", own, "echo", str(n)).stdout == f"{n}\n"
    after = facts(monitor)
    assert after[0] == before[0]
    assert after[1] - before[1] < 200, "KiB"
    assert wait_until(lambda: len(box.installed.processes()) == processes)


def facts(pid: int) -> tuple[int, int]:
    """(descriptors, resident KiB) of a process."""
    [rss] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return len(descriptors(pid)), int(rss.split()[1])


def descriptors(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return []  # not dumpable: nobody may look


def test_ten_at_once(web: str, box: Box) -> None:
    running = [box.start("exec", web, "sh", "-c", f"echo {n}; exit {n}") for n in range(10)]
    results = [(process.communicate(timeout=60), process.returncode) for process in running]
    assert results == [((b"%d\n" % n, b""), n) for n in range(10)]


def test_who_is_orphaned_does_not_keep_the_container_from_ending(own: str, box: Box) -> None:
    box("exec", "-d", own, "sleep", "70")
    with box.start("exec", own, "sh", "-c", "trap '' TERM; echo on; sleep 71") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"on\n"
        running.kill()
    begun = time.monotonic()
    box("rm", "-f", own)
    assert time.monotonic() - begun < 1


def test_nothing_is_left_of_one_that_was_killed(own: str, box: Box) -> None:
    with box.installed.no_leaks(), box.start("exec", own, "sleep", "50") as running:
        assert wait_until(lambda: "sleep" in box("top", own, "-o", "args").stdout)
        running.kill()
    assert is_alive(box.state(own)["Pid"])
