"""run: exit codes, streams, and what becomes of a container that ran."""

import hashlib
import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box, cpu_seconds

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

MEBIBYTE = 1 << 20


def test_the_root_is_mounted_by_the_driver(box: Box, storage_driver: str) -> None:
    assert box.sh("grep ' / ' /proc/self/mounts").split()[2] == storage_driver


# --- exit codes


@pytest.mark.parametrize("code", [0, 1, 2, 42, 64, 124, 125, 126, 127, 128, 130, 137, 143, 255])
def test_the_exit_code_is_the_programs(code: int, box: Box) -> None:
    done = box.run("sh", "-c", f"exit {code}", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize("signum", [1, 2, 4, 6, 9, 10, 11, 13, 14, 15, 31])
def test_a_program_that_a_signal_ended_has_128_more(signum: int, box: Box) -> None:
    done = box.run("sh", "-c", f"kill -{signum} $$", options=("--init",), check=False)
    assert (done.returncode, done.stderr) == (128 + signum, "")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nothere"], 127, "exec: 'nothere': executable file not found in $PATH"),
        (["/no/where"], 127, "exec: '/no/where': no such file or directory"),
        (["./nothere"], 127, "exec: './nothere': no such file or directory"),
        (["/etc/passwd/x"], 127, "exec: '/etc/passwd/x': no such file or directory"),
        ([""], 127, "exec: '': executable file not found in $PATH"),
        (["/etc/passwd"], 126, "exec: '/etc/passwd': permission denied"),
        (["/etc"], 126, "exec: '/etc': permission denied"),
        (["/made/no-interpreter"], 127, "exec: '/made/no-interpreter': no such file or directory"),
        (["/made/no-format"], 126, "exec: '/made/no-format': exec format error"),
        (["not-executable"], 126, "exec: 'not-executable': permission denied"),
    ],
)
def test_a_program_that_cannot_be_run_is_told_in_one_line(
    words: list[str], code: int, message: str, box: Box, tmp_path: Path
) -> None:
    for name, content, mode in (
        ("no-interpreter", "#!/no/such/shell\n", 0o755),
        ("no-format", "\0\0", 0o755),
        ("not-executable", "#!/bin/sh\n", 0o644),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    options = ("-v", f"{tmp_path}:/made", "-e", "PATH=/bin:/made")
    done = box.run(*words, options=options, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"rootless: {message}\n")
    assert box.ids() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--nonsense",), "unknown flag: --nonsense"),
        (("--name", "-x"), "Invalid container name"),
        (("--network", "nosuch"), "network nosuch not found"),
        (("--memory", "1k"), "Minimum memory limit allowed is 6MB"),
        (("-p", "80:80:80:80"), "invalid IP address: 80:80"),
        (("-v", "a/b:/x"), "invalid characters for a local volume name"),
        (("--mount", "type=bind,source=/no/where,target=/x"), "bind source path does not exist: /no/where"),
        (("-u", "ghost"), "unable to find user ghost"),
        (("-u", "4294967296"), "user id 4294967296 is out of range"),
        (("-u", "0:ghosts"), "unable to find group ghosts"),
        (("--cap-add", "NONSENSE"), "invalid capability: NONSENSE"),
        (("--sysctl", "kernel.nonsense=1"), "cannot set sysctl kernel.nonsense"),
        (("--device", "/dev/nonexistent"), "error gathering device information"),
        (("--pid", "container:nobody"), "No such container: nobody"),
        (("--restart", "always"), "cannot specify both --restart and --rm"),
        (("--ulimit", "nofile=999999999999"), "cannot set RLIMIT_NOFILE"),
    ],
)
def test_our_own_failures_are_125_and_leave_nothing(options: tuple[str, ...], message: str, box: Box) -> None:
    with box.installed.no_leaks():
        done = box.run("true", options=options, check=False)
    assert done.returncode == 125
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_image_that_may_not_be_pulled_and_is_not_here(box: Box) -> None:
    done = box("run", "--rm", "--pull", "never", "127.0.0.1:1/nothing", check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert "No such image: 127.0.0.1:1/nothing" in done.stderr


def test_a_failure_without_rm_leaves_a_container_that_tells_of_it(box: Box) -> None:
    assert box("run", "--name", "failed", box.image, "nothere", check=False).returncode == 127
    state = box.state("failed")
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert state["Error"] == "exec: 'nothere': executable file not found in $PATH"


# --- streams


def test_output_and_errors_stay_apart(box: Box) -> None:
    done = box.run("sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_piped_input_ends_where_the_pipe_ends(box: Box) -> None:
    assert box.run("cat", options=("-i",), input="one\ntwo").stdout == "one\ntwo"


def test_without_i_there_is_no_input(box: Box) -> None:
    assert box.run("sh", "-c", "cat; readlink /proc/self/fd/0", input="secret").stdout == "/dev/null\n"


def test_a_program_that_reads_no_more_ends_all_the_same(box: Box) -> None:
    assert box.run("head", "-c", "3", options=("-i",), input="x" * 4 * MEBIBYTE).stdout == "xxx"


def test_a_program_that_ends_does_not_wait_for_the_end_of_its_input(box: Box) -> None:
    with box.start("run", "--rm", "-i", box.image, "true") as running:
        assert running.wait(20) == 0


def test_input_and_output_are_binary_and_large(box: Box) -> None:
    data = random.Random(1).randbytes(64 * MEBIBYTE)
    done = box.installed.run_bytes("run", "--rm", "-i", "--log-driver", "none", box.image, "cat", input=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert done.stderr == b""


def test_many_nulls_come_out_and_are_in_the_log(box: Box) -> None:
    box("create", "--name", "nulls", box.image, "head", "-c", "700000", "/dev/zero")
    assert box("start", "-a", "nulls").stdout == "\0" * 700_000
    assert box.logs("nulls") == "\0" * 700_000


def test_both_streams_are_whole_when_both_are_busy(box: Box) -> None:
    script = "(seq 1 20000) & (seq 20001 40000 >&2) & wait"
    done = box.run("sh", "-c", script)
    assert done.stdout.split() == [str(n) for n in range(1, 20001)]
    assert done.stderr.split() == [str(n) for n in range(20001, 40001)]


def test_the_last_output_before_the_end_is_there(box: Box) -> None:
    assert [box.sh("head -c 100000 /dev/zero; echo end")[-5:] for _ in range(5)] == ["\0end\n"] * 5


@pytest.mark.parametrize("options", [(), ("-i",), ("-t",)])
def test_a_reader_that_goes_away_ends_the_program_as_in_a_pipe(options: tuple[str, ...], box: Box) -> None:
    with box.start("run", "--rm", *options, box.image, "yes") as running:
        assert running.stdout is not None
        assert running.stdout.read(1) == b"y"
        running.stdout.close()
        assert running.wait(20) == 1  # of yes, which is told EPIPE: signals do not end a pid 1
        assert running.stderr is not None
        assert (b"Broken pipe" in running.stderr.read()) == (options != ("-t",))
    assert wait_until(lambda: box.ids() == [])


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_output_that_cannot_be_written_is_a_failure(verb: str, box: Box) -> None:
    """/dev/full answers ENOSPC. The program ends first, and is not left to itself."""
    box("run", "-d", "--name", "web", box.image, "sleep", "60")
    command = ["run", "--rm", box.image] if verb == "run" else ["exec", "web"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            box.installed.command(*command, "sh", "-c", "echo x; sleep 0.2; echo end >&2"),
            env=box.installed.env, stdout=full, stderr=subprocess.PIPE, timeout=20, text=True,
        )  # fmt: skip
    assert done.returncode == (125 if verb == "run" else 1)
    assert done.stderr.splitlines()[-2:] == ["end", "rootless: cannot write the output: No space left on device"]
    assert len(box.ids()) == 1


def test_streams_may_be_closed(box: Box) -> None:
    for redirections in (">&-", "2>&-", "<&-", "<&- >&- 2>&-"):
        command = box.installed.command("run", "--rm", "-i", box.image, "sh", "-c", "echo x; echo y >&2; cat; exit 7")
        done = subprocess.run(
            ["sh", "-c", f'"$@" {redirections}', "sh", *command], env=box.installed.env, capture_output=True, timeout=20
        )
        assert done.returncode == 7, redirections
        assert done.stdout == (b"" if ">&- " in f" {redirections} ".replace("2>&-", "") else b"x\n")


def test_arguments_may_be_any_bytes(box: Box) -> None:
    words = [b"run", b"--rm", box.image.encode(), b"printf", b"%s", b"\xff\xfe\n", b"", b"\xc3\xbc"]
    command = [*map(os.fsencode, box.installed.command()), *words]
    done = subprocess.run(command, env=box.installed.env, capture_output=True, timeout=20)
    assert done.stdout == b"\xff\xfe\n\xc3\xbc"


def test_a_slow_reader_gets_everything_and_the_container_waits_for_it(box: Box) -> None:
    with box.start("run", "--rm", "--log-driver", "none", box.image, "seq", "1", "1000000") as running:
        assert wait_until(lambda: box.ids() != [])
        time.sleep(0.8)
        [container_id] = box.ids()
        assert box.state(container_id)["Running"], "4 MB and more do not fit into all buffers"
        assert running.stdout is not None
        assert running.stdout.read().count(b"\n") == 1_000_000
        assert running.wait(20) == 0


def test_a_reader_that_sleeps_over_the_end_gets_everything(box: Box) -> None:
    with box.start("run", "--rm", box.image, "seq", "1", "60000") as running:  # 350 kB: more than pipe and socket hold
        assert wait_until(lambda: box.ids() != [])
        time.sleep(3)
        assert running.stdout is not None
        assert running.stdout.read().split()[-1] == b"60000"
        assert running.wait(20) == 0


def test_nobody_spins_while_nothing_happens(box: Box) -> None:
    with box.start("run", "--rm", "-i", "--name", "idle", box.image, "cat") as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"x\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"x\n"
        helpers = [pid for pid in box.installed.processes() if pid != box.state("idle")["Pid"]]
        before = sum(map(cpu_seconds, helpers))
        time.sleep(1)
        assert sum(map(cpu_seconds, helpers)) - before < 0.05
        running.stdin.close()
        assert running.wait(20) == 0


def test_a_producer_faster_than_the_program_is_not_taken_into_memory(box: Box) -> None:
    script = "read line; sleep 1; cat >/dev/null"
    with box.start("run", "--rm", "-i", "--name", "slow", box.image, "sh", "-c", script) as running:
        assert running.stdin is not None
        os.set_blocking(running.stdin.fileno(), False)
        written = 0
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            try:
                written += os.write(running.stdin.fileno(), b"x" * 65536)
            except BlockingIOError:
                time.sleep(0.01)
        assert 0 < written < 4 * MEBIBYTE
        running.stdin.close()
        assert running.wait(20) == 0


# --- helpers


def test_init_reaps_orphans_and_passes_signals_on(box: Box) -> None:
    script = "trap 'echo got it; exit 7' USR1; sleep 0.1 & (sleep 0.2 &) & echo on; while :; do sleep 0.05; done"
    container_id = box.detached(script, "--init", "--name", "parent")
    assert box.says("parent", "on")
    time.sleep(0.4)
    for looked in (("exec", "parent", "ps", "-o", "stat"), ("top", "parent", "-o", "stat")):
        # Now and then one is seen that the script itself has just ended, and is about to ask for.
        assert wait_until(lambda words=looked: "Z" not in box(*words).stdout.split(), 5)  # type: ignore[misc]
    box("kill", "-s", "USR1", container_id)
    assert box("wait", "parent").stdout == "7\n"
    assert box.logs("parent") == "on\ngot it\n"


def test_init_shows_nothing_of_the_host(box: Box) -> None:
    shown = box.sh("tr -d '\\0' </proc/1/cmdline; cat /proc/1/comm; readlink /proc/1/cwd /proc/1/exe; true", "--init")
    assert shown == "initinit\n"


def test_helpers_do_not_show_what_the_command_was_told(box: Box) -> None:
    container_id = box.detached("sleep 60", "-e", "SECRET=hunter2")
    with box.start("exec", "-i", "-e", "SECRET=hunter2", container_id, "cat") as running:
        assert running.stdin is not None
        running.stdin.write(b"x")
        running.stdin.flush()
        assert wait_until(lambda: "cat" in box.installed.processes().values())
        ours = {pid for pid, line in box.installed.processes().items() if "hunter2" in line} - {running.pid}
        assert ours == set()
        told = [Path(f"/proc/{pid}/environ") for pid in box.installed.processes()]
        assert not any(b"XDG_RUNTIME_DIR" in readable(path) for path in told if str(running.pid) not in path.parts)
        running.stdin.close()


def readable(path: Path) -> bytes:
    """The content of *path*, if it can be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


# --- what becomes of it


def test_rm_removes_the_container_its_name_and_its_anonymous_volumes(box: Box) -> None:
    with box.installed.no_leaks():
        box.run("true", options=("--name", "gone", "-v", "/data", "-v", "kept:/kept"))
        box("volume", "rm", "kept")


def test_rm_in_the_background_removes_it_too(box: Box) -> None:
    with box.installed.no_leaks():
        box.detached("exit 3", "--rm", "--name", "gone", "-v", "/data")
        assert wait_until(lambda: box.ids() == [])


def test_a_command_that_is_killed_leaves_a_container_that_ends_well_and_goes(box: Box) -> None:
    with box.installed.no_leaks():
        with box.start("run", "--rm", "-i", "-v", "/data", box.image, "sh", "-c", "echo on; cat; sleep 0.5") as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"on\n"
            running.kill()
        [container_id] = box.ids()
        assert box.state(container_id)["Running"]
        assert wait_until(lambda: box.ids() == [])


def test_many_at_once_all_end_well(box: Box) -> None:
    with box.installed.no_leaks():
        running = [box.start("run", "--rm", box.image, "sh", "-c", f"echo {n}; exit {n}") for n in range(20)]
        results = [(process.communicate(timeout=60), process.returncode) for process in running]
    assert results == [((b"%d\n" % n, b""), n) for n in range(20)]


def test_cidfile_has_the_id_and_outlives_the_container(box: Box, tmp_path: Path) -> None:
    box.run("true", options=("--cidfile", str(tmp_path / "cid")))
    assert len((tmp_path / "cid").read_text()) == 64
    again = box.run("true", options=("--cidfile", str(tmp_path / "cid")), check=False)
    assert again.returncode == 125
    assert "container ID file found" in again.stderr


def test_a_detached_container_survives_the_session_of_its_caller(box: Box) -> None:
    command = box.installed.command("run", "-d", "--name", "survivor", box.image, "sleep", "60")
    session = ["setsid", "--wait", "sh", "-c", '"$@"; kill -HUP 0', "sh", *command]
    subprocess.run(session, env=box.installed.env, cwd=box.installed.home, capture_output=True, timeout=20)
    time.sleep(0.2)
    assert box.state("survivor")["Running"]
