"""create, start, stop, kill, pause, rename, wait, rm: one after the other, all at once, and killed half-way."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box, is_alive

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

TRAPS = "trap 'echo term; exit 5' TERM; trap 'echo usr1; exit 6' USR1; echo on; while :; do sleep 0.02; done"


# --- create and start


def test_a_container_is_made_started_and_started_again(box: Box) -> None:
    container_id = box(
        "create", "--name", "job", box.image, "sh", "-c", "echo x >>/made; cat /made; exit 4"
    ).stdout.strip()
    assert len(container_id) == 64
    state = box.state("job")
    assert (state["Status"], state["Running"], state["Pid"], state["ExitCode"]) == ("created", False, 0, 0)
    assert state["StartedAt"] == state["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert box("start", "-a", "job", check=False).returncode == 4
    assert box("start", "-a", "job", check=False).stdout == "x\nx\n"
    state = box.state("job")
    assert (state["Status"], state["Running"], state["Pid"], state["ExitCode"]) == ("exited", False, 0, 4)
    assert state["FinishedAt"] >= state["StartedAt"] > "2020"


@pytest.mark.parametrize("code", [0, 1, 42, 125, 126, 127, 255])
def test_start_attached_and_wait_give_the_exit_code(code: int, box: Box) -> None:
    box("create", "--name", "job", box.image, "sh", "-c", f"exit {code}")
    assert box("start", "-a", "job", check=False).returncode == code
    assert box("wait", "job").stdout == f"{code}\n"


def test_what_cannot_be_started_says_so_each_time(box: Box) -> None:
    box("create", "--name", "job", box.image, "nothere")
    for command in (("start", "job"), ("start", "-a", "job")):
        done = box(*command, check=False)
        assert (done.returncode, done.stdout) == (127 if "-a" in command else 1, "")
        assert done.stderr == "rootless: exec: 'nothere': executable file not found in $PATH\n"
    assert box.state("job")["ExitCode"] == 127


def test_several_are_started_and_the_failure_of_one_keeps_no_other_from_it(box: Box) -> None:
    for name in ("one", "two"):
        box("create", "--name", name, box.image, "sleep", "60")
    done = box("start", "one", "nobody", "two", check=False)
    assert (done.returncode, done.stdout) == (1, "one\ntwo\n")
    assert done.stderr == "rootless: No such container: nobody\n"
    assert box.state("one")["Running"]
    assert box.state("two")["Running"]
    done = box("start", "-a", "one", "two", check=False)
    assert (done.returncode, "multiple containers" in done.stderr) == (1, True)


def test_starting_what_runs_is_well(box: Box) -> None:
    box("run", "-d", "--name", "web", box.image, "sleep", "60")
    pid = box.state("web")["Pid"]
    assert box("start", "web").stdout == "web\n"
    assert box.state("web")["Pid"] == pid


def test_create_with_rm_removes_it_after_its_run(box: Box) -> None:
    with box.installed.no_leaks():
        box("create", "--rm", "--name", "job", box.image, "true")
        box("start", "job")
        assert wait_until(lambda: box.ids() == [])


def test_create_fails_with_1_or_125_and_leaves_nothing(box: Box) -> None:
    with box.installed.no_leaks():
        done = box("create", "--pull", "never", "127.0.0.1:1/nothing", check=False)
        assert (done.returncode, "No such image" in done.stderr) == (1, True)
        assert box("create", "--nonsense", box.image, check=False).returncode == 125


# --- stop and kill


def test_stop_asks_and_reports_the_programs_own_code(box: Box) -> None:
    box.detached(TRAPS, "--name", "web")
    assert box.says("web", "on")
    assert box("stop", "web").stdout == "web\n"
    assert (box.state("web")["Status"], box.state("web")["ExitCode"]) == ("exited", 5)
    assert box.logs("web") == "on\nterm\n"


def test_stop_kills_what_does_not_listen_after_the_timeout(box: Box) -> None:
    box("run", "-d", "--name", "deaf", box.image, "sleep", "60")
    begun = time.monotonic()
    box("stop", "-t", "1", "deaf")
    assert 1 <= time.monotonic() - begun < 3
    assert box.state("deaf")["ExitCode"] == 137


@pytest.mark.parametrize("option", [("--stop-timeout", "1"), ("--stop-timeout", "0")])
def test_the_container_knows_its_own_timeout(option: tuple[str, str], box: Box) -> None:
    box("run", "-d", *option, "--name", "deaf", box.image, "sleep", "60")
    begun = time.monotonic()
    box("stop", "deaf")
    assert int(option[1]) <= time.monotonic() - begun < 3
    assert box.inspect("deaf")["Config"]["StopTimeout"] == int(option[1])


def test_the_container_knows_its_own_stop_signal(box: Box) -> None:
    box.detached(TRAPS, "--name", "web", "--stop-signal", "SIGUSR1")
    assert box.says("web", "on")
    box("stop", "web")
    assert (box.state("web")["ExitCode"], box.logs("web")) == (6, "on\nusr1\n")
    assert box.inspect("web")["Config"]["StopSignal"] == "SIGUSR1"


def test_stop_with_another_signal(box: Box) -> None:
    box.detached(TRAPS, "--name", "web")
    assert box.says("web", "on")
    box("stop", "-s", "USR1", "web")
    assert box.state("web")["ExitCode"] == 6


def test_stop_without_limit_waits_for_the_program(box: Box) -> None:
    box.detached("trap 'sleep 0.5; exit 3' TERM; echo on; while :; do sleep 0.02; done", "--name", "slow")
    assert box.says("slow", "on")
    box("stop", "-t", "-1", "slow")
    assert box.state("slow")["ExitCode"] == 3


def test_stop_of_a_paused_container_lets_it_handle_the_signal(box: Box) -> None:
    box.detached(TRAPS, "--name", "web")
    assert box.says("web", "on")
    box("pause", "web")
    box("stop", "web")
    assert (box.state("web")["ExitCode"], box.state("web")["Status"]) == (5, "exited")


def test_stop_of_what_does_not_run_is_well_and_of_what_is_not_there_is_not(box: Box) -> None:
    box("create", "--name", "job", box.image, "true")
    assert box("stop", "job").stdout == "job\n"
    done = box("stop", "nobody", check=False)
    assert (done.returncode, done.stderr) == (1, "rootless: No such container: nobody\n")


def test_kill_sends_any_signal_by_name_and_number(box: Box) -> None:
    for name, given in (("one", "USR1"), ("two", "SIGUSR1"), ("three", "10"), ("four", "TERM")):
        box.detached(TRAPS, "--name", name)
        assert box.says(name, "on")
        box("kill", "-s", given, name)
        assert box("wait", name).stdout == ("5\n" if given == "TERM" else "6\n")


def test_kill_of_what_does_not_run_is_an_error(box: Box) -> None:
    box("create", "--name", "job", box.image, "true")
    done = box("kill", "job", check=False)
    assert (done.returncode, "is not running" in done.stderr) == (1, True)
    assert box("kill", "-s", "NONE", "job", check=False).returncode == 125


def test_a_program_can_be_killed_that_was_told_to_ignore_all(box: Box) -> None:
    script = "trap '' TERM INT HUP USR1; echo on; sleep 60 & wait; sleep 60"
    box.detached(script, "--name", "deaf")
    assert box.says("deaf", "on")
    for name in ("TERM", "INT", "HUP", "USR1"):
        box("kill", "-s", name, "deaf")
    assert box.state("deaf")["Running"]
    box("kill", "deaf")
    assert box("wait", "deaf").stdout == "137\n"


# --- pause


def test_pause_stops_all_processes_and_unpause_lets_them_go_on(box: Box) -> None:
    box.detached("while :; do date +%s%N >/now; sleep 0.01; done & wait", "--name", "ticks")
    assert wait_until(lambda: box("exec", "ticks", "cat", "/now", check=False).stdout)
    assert box("pause", "ticks").stdout == "ticks\n"
    assert box.state("ticks")["Paused"]
    assert "(Paused)" in box("ps", "--format", "{{.Status}}").stdout
    upper = Path(box.inspect("ticks")["GraphDriver"]["Data"]["UpperDir"])
    before = (upper / "now").read_text()
    time.sleep(0.3)
    assert (upper / "now").read_text() == before
    done = box("pause", "ticks", check=False)
    assert (done.returncode, "already paused" in done.stderr) == (1, True)
    box("unpause", "ticks")
    assert wait_until(lambda: (upper / "now").read_text() not in ("", before))
    assert box.state("ticks")["Status"] == "running"
    done = box("unpause", "ticks", check=False)
    assert (done.returncode, "not paused" in done.stderr) == (1, True)


def test_pause_reaches_what_exec_started(box: Box) -> None:
    box("run", "-d", "--name", "web", box.image, "sleep", "60")
    box("exec", "-d", "web", "sh", "-c", "while :; do date +%s%N >/now; sleep 0.01; done")
    upper = Path(box.inspect("web")["GraphDriver"]["Data"]["UpperDir"])
    assert wait_until((upper / "now").exists)
    box("pause", "web")
    before = (upper / "now").read_text()
    time.sleep(0.2)
    assert (upper / "now").read_text() == before
    box("rm", "-f", "web")


def test_a_paused_container_can_be_killed_and_removed(box: Box) -> None:
    for name in ("one", "two"):
        box("run", "-d", "--name", name, box.image, "sleep", "60")
        box("pause", name)
    box("kill", "one")
    assert box("wait", "one").stdout == "137\n"
    box("rm", "-f", "two")


# --- names and ids


def test_a_container_is_found_by_name_id_and_beginning_of_it(box: Box) -> None:
    container_id = box("create", "--name", "web", box.image, "true").stdout.strip()
    for text in ("web", "/web", container_id, container_id[:12], container_id[:2], container_id[:1]):
        assert box("inspect", "--format", "{{.Id}}", text).stdout == f"{container_id}\n"


def test_a_beginning_that_two_ids_have_is_ambiguous(box: Box) -> None:
    """Seventeen containers: two of them begin with the same digit."""
    ids = [box("create", "--name", "kept", box.image, "true").stdout.strip()]
    containers = box.store / "containers"
    twin = ids[0][:5] + ("0" if ids[0][5] != "0" else "1") + ids[0][6:]
    (containers / twin).mkdir()
    for name in ("container.json", "state.json"):
        text = (containers / ids[0] / name).read_text().replace(ids[0], twin).replace('"kept"', '"twin"')
        (containers / twin / name).write_text(text)
    done = box("inspect", "--type", "container", ids[0][:4], check=False)
    assert (done.returncode, "ambiguous" in done.stderr) == (1, True)
    assert box("rm", ids[0][:4], check=False).returncode == 1
    assert box("inspect", "--format", "{{.Name}}", ids[0][:6]).stdout == "/kept\n"
    box("rm", ids[0][:6], twin)


@pytest.mark.parametrize("text", ["", "/", "..", "../names", "-", "*", "a b", "a\nb", "A" * 300, "é"])
def test_what_can_be_no_name_is_nothing(text: str, box: Box) -> None:
    done = box("rm", "--", text, check=False)
    assert (done.returncode, done.stderr.startswith("rootless: No such container: ")) == (1, True)


def test_a_name_is_free_again_after_its_container(box: Box) -> None:
    for _ in range(2):
        box("create", "--name", "web", box.image, "true")
        done = box("create", "--name", "web", box.image, "true", check=False)
        assert (done.returncode, 'name "/web" is already in use' in done.stderr) == (1, True)
        box("rm", "web")


def test_rename_frees_the_old_name_and_takes_the_new(box: Box) -> None:
    box("run", "-d", "--name", "old", box.image, "sleep", "60")
    box("create", "--name", "taken", box.image, "true")
    box("rename", "old", "new")
    assert box.inspect("new")["Name"] == "/new"
    assert box("inspect", "old", check=False).returncode == 1
    assert box("exec", "new", "echo", "x").stdout == "x\n"
    for name, message in (("taken", "is already in use"), ("new", "same name"), (".x", "Invalid container name")):
        done = box("rename", "new", name, check=False)
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    box("create", "--name", "old", box.image, "true")


# --- wait


def test_wait_blocks_until_the_end_and_prints_each_code(box: Box) -> None:
    for n in (3, 4):
        box.detached(f"sleep 0.{n}; exit {n}", "--name", f"n{n}")
    box("create", "--name", "idle", box.image, "true")
    done = box("wait", "n4", "nobody", "n3", "idle", check=False)
    assert (done.returncode, done.stdout) == (1, "4\n3\n0\n")
    assert done.stderr == "rootless: No such container: nobody\n"


def test_wait_for_one_that_removes_itself(box: Box) -> None:
    box.detached("sleep 0.8; exit 3", "--rm", "--name", "gone")
    assert box("wait", "gone").stdout == "3\n"


# --- rm


def test_rm_refuses_what_runs_unless_forced(box: Box) -> None:
    box("run", "-d", "--name", "web", box.image, "sleep", "60")
    done = box("rm", "web", check=False)
    assert (done.returncode, 'cannot remove container "web": container is running' in done.stderr) == (1, True)
    pid = box.state("web")["Pid"]
    assert box("rm", "-f", "web").stdout == "web\n"
    assert not is_alive(pid)


def test_rm_of_what_is_not_there(box: Box) -> None:
    done = box("rm", "nobody", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "rootless: No such container: nobody\n")
    assert box("rm", "-f", "nobody").returncode == 0


def test_rm_v_takes_anonymous_volumes_along_and_no_others(box: Box) -> None:
    for name in ("one", "two"):
        box("create", "--name", name, "-v", "/data", "-v", "named:/named", box.image, "true")
    box("rm", "one")
    assert len(box("volume", "ls", "-q").stdout.split()) == 3
    box("rm", "-v", "two")
    left = box("volume", "ls", "-q").stdout.split()
    assert (len(left), "named" in left) == (2, True)


def test_files_of_any_owner_and_mode_are_removed(box: Box) -> None:
    script = "mkdir -p /a/b; touch /a/b/c; chown -R 1000:1000 /a; chmod 0 /a/b /a; mknod /pipe p; ln -s / /root-link"
    with box.installed.no_leaks():
        box.run("sh", "-c", script)


def test_prune_removes_what_does_not_run(box: Box) -> None:
    box("run", "-d", "--name", "web", box.image, "sleep", "60")
    box("run", "--name", "ended", box.image, "sh", "-c", "head -c 5000 /dev/zero >/file")
    box("create", "--name", "created", "--label", "keep=yes", box.image, "true")
    ended = box.inspect("ended")["Id"]
    done = box("container", "prune", "-f", "--filter", "label!=keep=yes")
    assert done.stdout == f"Deleted Containers:\n{ended}\n\nTotal reclaimed space: 5kB\n"
    assert box("container", "prune", input="n\n", check=False).returncode == 1
    assert len(box.ids()) == 2
    box("container", "prune", input="y\n")
    assert box("ps", "-a", "--format", "{{.Names}}").stdout == "web\n"


# --- all at once


def test_of_many_removals_one_wins_and_none_fails(box: Box) -> None:
    box("run", "-d", "--name", "web", "-v", "/data", box.image, "sleep", "60")
    with box.installed.no_leaks():
        results = at_once(box, [["rm", "-f", "-v", "web"]] * 20)
    assert {status for status, _ in results} == {0}
    assert box.ids() == []
    assert box("volume", "ls", "-q").stdout == ""


def test_of_many_starts_one_makes_it_run(box: Box) -> None:
    box("create", "--name", "web", box.image, "sh", "-c", "echo on; exec sleep 60")
    results = at_once(box, [["start", "web"]] * 20)
    assert {status for status, _ in results} == {0}
    assert box.logs("web") == "on\n"
    assert box.state("web")["Running"]


def test_of_many_who_stop_all_are_content(box: Box) -> None:
    box.detached(TRAPS, "--name", "web")
    assert box.says("web", "on")
    results = at_once(box, [["stop", "web"]] * 20)
    assert {status for status, _ in results} == {0}
    assert box.logs("web") == "on\nterm\n"


def test_of_many_who_kill_the_late_are_told(box: Box) -> None:
    box("run", "-d", "--name", "web", box.image, "sleep", "60")
    results = at_once(box, [["kill", "web"]] * 20)
    assert 0 in {status for status, _ in results}
    assert all(status == 0 or "is not running" in text or "just ended" in text for status, text in results)
    assert box("wait", "web").stdout == "137\n"


def test_everything_at_once_ends_in_some_order(box: Box) -> None:
    box("create", "--name", "web", box.image, "sleep", "60")
    verbs = [
        ["start", "web"],
        ["stop", "-t", "0", "web"],
        ["kill", "web"],
        ["pause", "web"],
        ["restart", "-t", "0", "web"],
    ]
    at_once(box, verbs * 4)
    assert box.state("web")["Status"] in ("created", "running", "paused", "exited")
    with box.installed.no_leaks():
        at_once(box, [["rm", "-f", "web"], ["start", "web"], ["stop", "-t", "0", "web"]] * 4)
        box("rm", "-f", "web")
        assert box.ids() == []


def test_of_many_who_want_a_name_one_gets_it(box: Box) -> None:
    results = at_once(box, [["create", "--name", "web", box.image, "true"]] * 12)
    assert sorted(status for status, _ in results) == [0] + [1] * 11
    assert len(box.ids()) == 1


def at_once(box: Box, commands: list[list[str]]) -> list[tuple[int, str]]:
    """(exit status, stderr) of commands that are started together; none ends in a traceback."""
    running = [box.start(*command) for command in commands]
    results = []
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert b"Traceback" not in errors, errors.decode()
        results.append((process.returncode, errors.decode()))
    return results


# --- killed half-way


def test_a_kill_at_any_moment_leaves_what_can_be_listed_and_removed(box: Box) -> None:
    """25 times, a command is killed at some moment; what is there then works, and goes without a trace."""
    chance = random.Random(3)
    with box.installed.no_leaks():
        for n in range(25):
            verb = ("create", "start", "run", "rm")[n % 4]
            if verb in ("start", "rm"):
                box("create", "--name", "victim", box.image, "sleep", "60")
            command = {
                "create": ["create", "--name", "victim", box.image, "sleep", "60"],
                "start": ["start", "victim"],
                "run": ["run", "-d", "--name", "victim", box.image, "sleep", "60"],
                "rm": ["rm", "-f", "victim"],
            }[verb]
            with box.start(*command) as running:
                time.sleep(chance.uniform(0.02, 0.16))
                running.kill()
                _, errors = running.communicate()
            assert b"Traceback" not in errors
            assert box("ps", "-a").returncode == 0
            box("rm", "-f", "victim")
            if n % 5 == 0:
                box("create", "--name", "victim", box.image, "true")
                box("rm", "victim")
        assert box.ids() == []


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGINT] * 3, [signal.SIGTERM]])
def test_a_signal_before_the_program_runs_leaves_nothing_that_nobody_knows(signals: list[int], box: Box) -> None:
    with box.installed.no_leaks(killed=True):  # a second signal keeps the first from removing
        for delay in (0.04, 0.06, 0.07, 0.08, 0.09, 0.1, 0.11, 0.12):
            with box.start("run", "--rm", "--name", "hasty", box.image, "sleep", "60") as running:
                time.sleep(delay)
                for signum in signals:
                    os.kill(running.pid, signum)
                    time.sleep(0.001)
                time.sleep(0.1)
                box("rm", "-f", "hasty")
                assert running.wait(20) in (130, 137, -signal.SIGINT, -signal.SIGTERM)


@pytest.mark.parametrize("damaged", ["container.json", "state.json"])
def test_a_container_whose_record_is_damaged_is_shown_and_can_be_removed(damaged: str, box: Box) -> None:
    container_id = box("create", "--name", "web", box.image, "true").stdout.strip()
    directory = box.store / "containers" / container_id
    assert json.loads((directory / "container.json").read_text())["name"] == "web"
    assert json.loads((directory / "state.json").read_text())["status"] == "created"
    (directory / damaged).write_text("{")
    assert "Dead" in box("ps", "-a", "-s").stdout
    for verb in ("start", "logs", "inspect", "wait", "rm"):
        done = box(verb, container_id[:12], check=False)
        assert "Traceback" not in done.stderr
        assert verb not in ("start", "inspect") or f"{damaged} is damaged" in done.stderr
    assert box.ids() == []
    box("create", "--name", "web", box.image, "true")
