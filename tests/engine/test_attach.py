"""Terminals and attaching: keys, sizes, signals, and leaving without an end."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box, catches, has_open, is_alive

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

# A program that tells which signals it gets, until USR2 ends it.
TRAPS = (
    "for s in INT TERM HUP USR1 QUIT WINCH; do trap \"echo $s\" $s; done; trap 'echo end; exit 9' USR2;"
    " echo ready; while :; do sleep 0.02; done"
)


# --- a terminal of one's own


def test_a_terminal_is_one_with_the_callers_size_and_type(box: Box) -> None:
    script = "tty; stty size; echo $TERM; test -t 0 && test -t 1 && test -t 2 && ls -l /dev/console"
    with box.terminal("run", "--rm", "-it", box.image, "sh", "-c", script, rows=33, columns=99) as terminal:
        terminal.expect(r"^/dev/pts/0\r\n33 99\r\nxterm\r\nc.*136,   0.*/dev/console\r\n")
        assert terminal.wait() == 0


def test_the_size_follows_the_callers_in_a_storm(box: Box) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done"
    with box.terminal("run", "--rm", "-it", "--name", "storm", box.image, "sh", "-c", script) as terminal:
        terminal.expect("^ready")
        for rows in range(2, 200):
            terminal.resize(rows, rows + 1)
        terminal.expect("^199 200\r\n")
        terminal.resize(0, 0)
        terminal.resize(50, 60)
        terminal.expect("^50 60\r\n")
        box("kill", "storm")
        assert terminal.wait() == 137


def test_ctrl_c_and_ctrl_d_are_for_the_program(box: Box) -> None:
    script = "trap 'echo int' INT; echo on; sleep 60; cat; exit 5"
    with box.terminal("run", "--rm", "-it", box.image, "sh", "-c", script) as terminal:
        terminal.expect("^on")
        time.sleep(0.2)  # so that it is sleep that is interrupted
        terminal.send("\x03")
        terminal.expect("int")
        terminal.send("\x04")
        assert terminal.wait() == 5


def test_an_interactive_shell_has_job_control(box: Box) -> None:
    with box.terminal("run", "--rm", "-it", box.image) as terminal:
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
        assert "access tty" not in terminal.shown


def test_the_same_with_init(box: Box) -> None:
    with box.terminal("run", "--rm", "-it", "--init", box.image) as terminal:
        terminal.expect("[#] ")
        terminal.send("trap 'echo in''t' INT; sleep 60\n")
        terminal.expect("sleep 60\r\n")
        time.sleep(0.2)
        terminal.send("\x03")
        terminal.expect("int\r\n")
        terminal.send("exit 4\n")
        assert terminal.wait() == 4
        assert "access tty" not in terminal.shown


@pytest.mark.parametrize(("how", "status"), [("exit", 3), ("kill", 137)])
def test_the_callers_terminal_comes_back_as_it_was(how: str, status: int, box: Box) -> None:
    with box.terminal(
        "run", "--rm", "-it", "--name", "raw", box.image, "sh", "-c", "echo on; read x; exit 3"
    ) as terminal:
        before = terminal.modes()
        terminal.expect("^on")
        assert terminal.modes() != before
        if how == "exit":
            terminal.send("x\n")
        else:
            os.kill(box.state("raw")["Pid"], signal.SIGKILL)
        assert terminal.wait() == status
        assert terminal.modes() == before


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_it_comes_back_also_where_a_signal_ends_the_command(signum: int, box: Box) -> None:
    with box.terminal("run", "-it", "--name", "raw", box.image, "sh", "-c", "echo on; read x") as terminal:
        before = terminal.modes()
        terminal.expect("^on")
        os.kill(terminal.pid, signum)
        assert terminal.wait() == 128 + signum
        assert terminal.modes() == before
    assert box.state("raw")["Running"]


def test_it_comes_back_where_the_monitor_is_killed(box: Box) -> None:
    with box.terminal("run", "-it", "--name", "raw", box.image, "sh", "-c", "echo on; read x") as terminal:
        before = terminal.modes()
        terminal.expect("^on")
        os.kill(box.monitor(box.inspect("raw")["Id"]), signal.SIGKILL)
        assert terminal.wait() == 255
        assert terminal.modes() == before


def test_t_without_a_terminal_is_an_error_only_with_i(box: Box) -> None:
    done = box.run("true", options=("-it",), check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (125, "rootless: the input device is not a TTY")
    assert box.run("tty", options=("-t",)).stdout == "/dev/pts/0\r\n"


def test_output_of_a_terminal_is_whole(box: Box) -> None:
    with box.terminal("run", "--rm", "-it", box.image, "seq", "1", "30000") as terminal:
        terminal.expect("^30000\r\n", seconds=20)
        assert terminal.wait() == 0
    assert terminal.shown.split() == [str(n) for n in range(1, 30001)]


def test_a_user_other_than_root_owns_the_terminal(box: Box) -> None:
    with box.terminal(
        "run", "--rm", "-it", "-u", "user", box.image, "sh", "-c", "echo x >$(tty) && id -un"
    ) as terminal:
        terminal.expect("^x\r\nuser\r\n")
        assert terminal.wait() == 0


# --- leaving


def test_detach_keys_leave_the_container_running_and_attach_comes_back(box: Box) -> None:
    script = "echo on; while read line; do echo got $line; done; exit 6"
    with box.terminal("run", "-it", "--name", "kept", box.image, "sh", "-c", script) as terminal:
        before = terminal.modes()
        terminal.expect("^on")
        terminal.send("one\n\x10")
        terminal.expect("^got one\r\n")
        terminal.send("\x11")
        assert terminal.wait() == 0
        assert terminal.modes() == before
    with box.terminal("attach", "kept", rows=11, columns=22) as terminal:
        terminal.send("two\n")
        terminal.expect("^got two\r\n")
        terminal.send("\x04")
        assert terminal.wait() == 6


def test_other_detach_keys(box: Box) -> None:
    with box.terminal("run", "-it", "--name", "kept", "--detach-keys", "ctrl-a,d", box.image, "cat") as terminal:
        terminal.send("\x10one\n")
        terminal.expect(r"^\^Pone\r\n")
        terminal.send("\x01d")
        assert terminal.wait() == 0
    with box.terminal("attach", "--detach-keys", "~", "kept") as terminal:
        time.sleep(0.3)
        terminal.send("~")
        assert terminal.wait() == 0
    assert box.state("kept")["Running"]
    done = box("run", "--rm", "--detach-keys", "nonsense", box.image, "true", check=False)
    assert (done.returncode, "invalid detach keys" in done.stderr) == (125, True)


def test_detach_keys_of_the_configuration(box: Box) -> None:
    config = box.installed.home / ".config/rootless/config.toml"
    before = config.read_text()
    config.write_text(f'{before}detach_keys = "ctrl-x"\n')
    try:
        with box.terminal("run", "-it", "--rm", "--name", "kept", box.image, "cat") as terminal:
            terminal.send("one\n")
            terminal.expect("one\r\none\r\n")
            terminal.send("\x18")
            assert terminal.wait() == 0
    finally:
        config.write_text(before)
    box("kill", "kept")
    assert wait_until(lambda: box.ids() == [])


# --- attaching


def test_two_who_attach_see_the_same_and_both_get_the_exit_code(box: Box) -> None:
    script = "(while :; do echo tick; sleep 0.05; done) & read x; kill $!; echo $x; exit 7"
    box.detached(script, "-i", "--name", "both")
    with box.start("attach", "both") as first, box.start("attach", "both") as second:
        assert first.stdin is not None
        for process in (first, second):
            assert process.stdout is not None
            assert process.stdout.readline() == b"tick\n"
        first.stdin.write(b"hello\n")
        first.stdin.flush()
        results = [process.communicate(timeout=20)[0] for process in (first, second)]
    assert [result.replace(b"tick\n", b"") for result in results] == [b"hello\n"] * 2
    assert (first.returncode, second.returncode) == (7, 7)


def test_attach_does_not_end_the_input_of_a_background_container(box: Box) -> None:
    box.detached("while read x; do echo $x; done", "-i", "--name", "open")
    with box.start("attach", "open") as running:
        assert running.stdin is not None
        running.stdin.close()
        assert wait_until(lambda: has_open(running.pid, "socket:"))
        time.sleep(0.2)
        running.kill()
    assert box.state("open")["Running"]


def test_attach_without_input_sends_none(box: Box) -> None:
    box.detached("sleep 0.8; read -t 0 x && echo input; exit 3", "-i", "--name", "deaf")
    done = box("attach", "--no-stdin", "deaf", input="x\n", check=False)
    assert (done.returncode, done.stdout) == (3, "")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("created", "cannot attach to a stopped container, start it first"),
        ("paused", "cannot attach to a paused container, unpause it first"),
    ],
)
def test_what_does_not_run_cannot_be_attached_to(state: str, message: str, box: Box) -> None:
    if state == "created":
        box("create", "--name", "still", box.image, "true")
    else:
        box("run", "-d", "--name", "still", box.image, "sleep", "60")
        box("pause", "still")
    done = box("attach", "still", check=False)
    assert (done.returncode, done.stderr) == (1, f"rootless: {message}\n")


def test_a_reader_that_goes_away_ends_attach_and_not_the_container(box: Box) -> None:
    box.detached("while :; do echo x; sleep 0.02; done", "--name", "talks")
    with box.start("attach", "talks") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"x\n"
        running.stdout.close()
        assert running.wait(10) == 0
    assert box.state("talks")["Running"]


def test_who_attaches_and_never_reads_stops_nobody_for_good(box: Box) -> None:
    box("run", "-d", "--log-driver", "none", "--name", "talks", box.image, "yes")
    with box.start("attach", "talks") as running:
        time.sleep(1)
        box("rm", "-f", "talks")
        running.kill()


def test_start_attached_gives_output_input_and_exit_code(box: Box) -> None:
    box("create", "-i", "--name", "job", box.image, "sh", "-c", "cat; echo err >&2; exit 8")
    done = box("start", "-a", "-i", "job", input="hello\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (8, "hello\n", "err\n")


def test_start_attached_to_one_that_runs_attaches(box: Box) -> None:
    box.detached("sleep 0.9; echo late; exit 3", "--name", "job")
    done = box("start", "-a", "job", check=False)
    assert (done.returncode, done.stdout) == (3, "late\n")


def test_only_some_streams_are_attached(box: Box) -> None:
    done = box("run", "--rm", "-a", "stderr", box.image, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("", "err\n")


# --- signals


def test_signals_to_the_command_are_for_the_program_and_arrive_once(box: Box) -> None:
    with box.start("run", "--rm", box.image, "sh", "-c", TRAPS) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        for name in ("INT", "TERM", "HUP", "USR1", "QUIT"):
            os.kill(running.pid, signal.Signals[f"SIG{name}"])
            assert running.stdout.readline() == name.encode() + b"\n"
        os.kill(running.pid, signal.SIGUSR2)
        assert running.stdout.read() == b"end\n"
        assert running.wait(10) == 9


def test_signals_get_past_input_that_nobody_reads(box: Box) -> None:
    with box.start("run", "--rm", "-i", box.image, "sh", "-c", TRAPS) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        os.set_blocking(running.stdin.fileno(), False)
        for _ in range(40):
            try:
                os.write(running.stdin.fileno(), b"x" * 65536)
            except BlockingIOError:
                time.sleep(0.01)
        os.kill(running.pid, signal.SIGUSR2)
        assert running.wait(10) == 9


def test_without_sig_proxy_a_signal_ends_the_command_alone(box: Box) -> None:
    with box.start("run", "--sig-proxy=false", "--name", "left", box.image, "sh", "-c", TRAPS) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait(10) == -signal.SIGTERM
    assert box.state("left")["Running"]
    assert box.logs("left") == "ready\n"


def test_a_pid_1_that_handles_no_signal_ignores_it(box: Box) -> None:
    with box.start("run", "--rm", "--name", "deaf", box.image, "sleep", "60") as running:
        assert wait_until(lambda: catches(running.pid, signal.SIGTERM))
        os.kill(running.pid, signal.SIGTERM)
        time.sleep(0.3)
        assert is_alive(box.state("deaf")["Pid"])
        box("kill", "deaf")
        assert running.wait(10) == 137


def test_attach_passes_signals_on_too(box: Box) -> None:
    box.detached(TRAPS, "--name", "traps")
    assert box.says("traps", "ready")
    with box.start("attach", "traps") as running:
        assert wait_until(lambda: catches(running.pid, signal.SIGUSR1))
        os.kill(running.pid, signal.SIGUSR1)
        assert running.stdout is not None
        assert running.stdout.readline() == b"USR1\n"
        os.kill(running.pid, signal.SIGUSR2)
        assert running.wait(10) == 9
    assert Path(f"/proc/{running.pid}").exists() is False
