"""The commands of rootless-oci, as callers use them."""

import array
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.oci.commands import Runtime

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    made = Runtime(tmp_path_factory.mktemp("oci"))
    yield made
    made.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_container_goes_through_its_states(runtime: Runtime) -> None:
    runtime.create("states", "/bin/sleep", "600")
    state = json.loads(runtime.run("state", "states"))
    assert (state["status"], state["id"], state["bundle"]) == ("created", "states", str(runtime.bundle))
    assert state["rootfs"] == str(runtime.bundle / "rootfs")
    assert state["ociVersion"] == "1.2.0"
    assert state["pid"] > 0
    runtime.run("start", "states")
    assert runtime.status("states") == "running"
    assert "not created" in runtime.try_run("start", "states").stderr
    assert "not stopped: running" in runtime.try_run("delete", "states").stderr
    assert "already exists" in runtime.try_run("create", "states").stderr
    runtime.run("pause", "states")
    assert runtime.status("states") == "paused"
    assert "is paused" in runtime.try_run("exec", "states", "/bin/true").stderr
    runtime.run("resume", "states")
    runtime.run("kill", "states", "KILL")
    wait_until(lambda: runtime.status("states") == "stopped")
    assert json.loads(runtime.run("state", "states"))["pid"] == 0
    assert "not running" in runtime.try_run("kill", "states").stderr
    runtime.run("delete", "states")
    assert "does not exist" in runtime.try_run("state", "states").stderr
    runtime.run("delete", "--force", "states")


def test_what_was_created_and_never_started_can_be_deleted(runtime: Runtime) -> None:
    runtime.create("early", "/bin/sleep", "600")
    runtime.run("delete", "early")
    assert "early" not in runtime.names()


def test_a_missing_program_is_told_of_by_create(runtime: Runtime) -> None:
    runtime.configure("/not/there")
    done = runtime.try_run("create", "missing")
    assert (done.returncode, "no such file or directory" in done.stderr) == (1, True)
    runtime.configure("nothing")
    assert "executable file not found in $PATH" in runtime.try_run("create", "missing").stderr
    assert "missing" not in runtime.names()


@pytest.fixture(scope="module")
def running(runtime: Runtime) -> str:
    runtime.begin("running", "/bin/sleep", "600")
    return "running"


def test_exec_takes_its_options(runtime: Runtime, running: str, tmp_path: Path) -> None:
    assert runtime.try_run("exec", running, "/bin/sh", "-c", "exit 7").returncode == 7
    assert runtime.try_run("exec", running, "/bin/sh", "-c", "kill -9 $$").returncode == 137
    assert runtime.run("exec", "-e", "A=b", "--cwd", "/data", running, "sh", "-c", "echo $A $PWD") == "b /data\n"
    assert "uid=5 gid=6 groups=7" in runtime.run("exec", "-u", "5:6", "-g", "7", running, "id")
    show = ("exec", "--cap", "CAP_NET_ADMIN", running, "grep", "CapEff", "/proc/self/status")
    assert int(runtime.run(*show).split()[1], 16) >> 12 & 1
    process = {"args": ["sh", "-c", "echo $X; exit 4"], "cwd": "/", "env": ["PATH=/bin", "X=y"]}
    (tmp_path / "process.json").write_text(json.dumps(process))
    done = runtime.try_run("exec", "--process", str(tmp_path / "process.json"), running)
    assert (done.returncode, done.stdout) == (4, "y\n")
    (tmp_path / "process.json").write_text(json.dumps({**process, "cwd": 3}))
    failed = runtime.try_run("exec", "--process", str(tmp_path / "process.json"), running)
    assert "process.cwd: a string is needed, not a number" in failed.stderr
    assert "no such file" in runtime.try_run("exec", running, "/nothing").stderr


def test_exec_in_the_background_writes_its_pid(runtime: Runtime, running: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    runtime.run("exec", "-d", "--pid-file", str(pid_file), running, "sleep", "600",
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    pid = int(pid_file.read_text())
    assert pid in json.loads(runtime.run("ps", "-f", "json", running))
    assert "sleep 600" in runtime.run("ps", running)
    runtime.run("kill", "--all", running, "CONT")
    runtime.run("exec", running, "sh", "-c", "kill -9 -1 2>/dev/null; true")
    wait_until(lambda: pid not in json.loads(runtime.run("ps", "-f", "json", running)))


def test_descriptors_are_handed_on_in_order(runtime: Runtime, running: str, tmp_path: Path) -> None:
    (tmp_path / "first").write_text("one\n")
    (tmp_path / "second").write_text("two\n")
    for verb in (
        ("exec", "--preserve-fds", "2", running, "sh", "-c", "cat <&3; cat <&4"),
        ("run", "--preserve-fds", "2", "fds"),
    ):
        runtime.configure("/bin/sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd | wc -l")
        command = f'exec "$@" 3<{tmp_path}/first 4<{tmp_path}/second'
        done = subprocess.run(["sh", "-c", command, "sh", *runtime.command(*verb)], env=runtime.env, cwd=runtime.bundle,
                              capture_output=True, text=True, timeout=60)  # fmt: skip
        assert done.stdout.split()[:2] == ["one", "two"], done.stderr
    assert "descriptor 3 is not open" in runtime.try_run("run", "--preserve-fds", "1", "fds").stderr


def receive_terminal(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
    fds = array.array("i")
    fds.frombytes(ancillary[0][2])
    connection.close()
    return int(fds[0])


def test_a_terminal_is_sent_to_the_console_socket(runtime: Runtime, tmp_path: Path) -> None:
    path = str(tmp_path / "console")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        script = "busybox stty size; test -t 0 && echo terminal; test -c /dev/console && echo console"
        runtime.configure("sh", "-c", script, terminal=True, consoleSize={"height": 33, "width": 77})
        assert "needs --console-socket" in runtime.try_run("create", "console").stderr
        # It holds what it inherits up to its start.
        runtime.run("create", "--console-socket", path, "console", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        fd = receive_terminal(listener)
    runtime.run("start", "console")
    output = b""
    try:
        while piece := os.read(fd, 1000):
            output += piece
    except OSError:
        pass  # EIO: the program has ended
    os.close(fd)
    assert output.split() == [b"33", b"77", b"terminal", b"console"]
    runtime.run("delete", "--force", "console")


def test_errors_go_to_the_log_that_a_caller_reads(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [
        str(runtime.script),
        "--root",
        str(runtime.root),
        "--log",
        str(log),
        "--log-format",
        "json",
        "state",
        "no",
    ]
    done = subprocess.run(command, env=runtime.env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", "container no does not exist")


@pytest.mark.parametrize("name", ["../x", "", ".", "..", "a/b", "a\nb", "x" * 300])
def test_an_id_that_is_none_is_refused(runtime: Runtime, name: str) -> None:
    done = runtime.try_run("state", name)
    assert (done.returncode, "invalid container id" in done.stderr) == (1, True)


def test_spec_and_features_are_documents(runtime: Runtime, tmp_path: Path) -> None:
    runtime.run("spec", "--rootless", "--bundle", str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["linux"]["uidMappings"][0]["hostID"] == os.geteuid()
    assert "is there already" in runtime.try_run("spec", "--bundle", str(tmp_path)).stderr
    features = json.loads(runtime.run("features"))
    assert features["ociVersionMax"] == "1.2.0"
    assert "rro" in features["mountOptions"]


def test_limits_without_a_control_group_are_refused_by_name(runtime: Runtime, running: str) -> None:
    done = runtime.try_run("update", "--memory", "10000000", running)
    assert (done.returncode, "memory" in done.stderr) == (1, True)
    assert json.loads(runtime.run("events", "--stats", running))["type"] == "stats"


def test_the_example_of_another_runtime_runs_with_its_own_user_namespace(runtime: Runtime) -> None:
    runtime.configure("/bin/sh", "-c", "cat /proc/self/uid_map | tr -s ' '; id")
    config = json.loads((runtime.bundle / "config.json").read_text())
    config["linux"]["namespaces"].append({"type": "user"})
    for kind, own in (("uid", os.geteuid()), ("gid", os.getegid())):
        config["linux"][f"{kind}Mappings"] = [{"containerID": 0, "hostID": own, "size": 1}]
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    assert runtime.run("run", "own").splitlines() == [" 0 0 1", "uid=0 gid=0 groups=0"]
    config["linux"]["uidMappings"][0]["hostID"] = 4000000000
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    assert "linux.uidMappings[0].hostID: 4000000000" in runtime.try_run("run", "own").stderr


def test_many_at_once_leave_nothing(runtime: Runtime) -> None:
    """In flights of 100 at most; ROOTLESS_TEST_LONG=1 has ten of these."""
    count = 1000 if os.environ.get("ROOTLESS_TEST_LONG") else 20
    runtime.configure("/bin/true")
    before = set(runtime.names())
    for first in range(0, count, 100):
        begun = [subprocess.Popen(runtime.command("run", f"many{n}"), env=runtime.env, cwd=runtime.bundle,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                 for n in range(first, min(first + 100, count))]  # fmt: skip
        assert [process.wait(300) for process in begun] == [0] * len(begun)
    assert set(runtime.names()) == before
    assert not any(name.startswith("many") for name in os.listdir(runtime.root))
