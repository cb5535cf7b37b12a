"""commit: what is in the image, what is left out, and that the container goes on."""

import os
import signal
import subprocess
from typing import Any

import pytest

from rootless.engine.config_changes import apply_changes
from rootless.errors import InvalidInput
from tests.support.account import wait_until
from tests.support.containers import Box, config, made

pytestmark = pytest.mark.kernel


def test_it_prints_the_id_and_the_image_stands_by_itself(box: Box) -> None:
    container = made(box, "echo a > /a")
    image = box("commit", container).stdout
    assert image.startswith("sha256:")
    assert len(image) == 72
    box("rm", container)
    assert box("run", "--rm", image.strip(), "cat", "/a").stdout == "a\n"
    box("rmi", image.strip())


def test_a_container_that_changed_nothing_adds_no_layer(box: Box, committed: Any) -> None:
    image = committed(made(box, "true"), "-m", "the same")
    assert config(box, image)["RootFS"] == config(box, box.image)["RootFS"]
    newest, *_ = box("history", "--format", "{{.Size}} {{.Comment}}", image).stdout.splitlines()
    assert newest == "0B the same"


def test_the_image_gets_the_options_of_the_container_and_the_changes(box: Box, committed: Any) -> None:
    container = made(
        box, "true", "-e", "A=1", "-l", "b=2", "-w", "/tmp", "-u", "1000", "--expose", "80", "--stop-signal", "INT"
    )
    changes = ('CMD ["echo", "hello"]', "ENV C=$A D='x y'", "LABEL e=f", "EXPOSE 81/udp", "WORKDIR sub", "USER 0")
    image = committed(
        container, "-a", "Somebody <x@y>", "-m", "a message", *(word for c in changes for word in ("-c", c))
    )
    document = config(box, image)
    found = document["Config"]
    assert {"A=1", "C=1", "D=x y"} <= set(found["Env"])
    assert (found["Labels"], found["ExposedPorts"]) == ({"b": "2", "e": "f"}, {"80/tcp": {}, "81/udp": {}})
    assert (found["WorkingDir"], found["User"], found["StopSignal"]) == ("/tmp/sub", "0", "SIGINT")
    assert (document["Author"], document["Comment"]) == ("Somebody <x@y>", "a message")
    assert box("run", "--rm", image).stdout == "hello\n"


def test_a_running_container_is_paused_for_it_and_goes_on(box: Box, committed: Any) -> None:
    container = box.detached("while :; do date > /now; sleep 0.01; done")
    assert wait_until(lambda: "A /now" in box("diff", container).stdout)
    for options in ((), ("--no-pause",), ("--pause=false",)):
        committed(container, *options)
        assert box.state(container)["Status"] == "running"
    assert box("run", "--rm", "test:commit", "ls", "/now").stdout == "/now\n"


def test_a_paused_container_stays_so(box: Box, committed: Any) -> None:
    container = box.detached("echo x > /x; exec sleep 1000")
    assert wait_until(lambda: "A /x" in box("diff", container).stdout)
    box("pause", container)
    image = committed(container)
    assert box.state(container)["Status"] == "paused"
    box("unpause", container)
    assert box("run", "--rm", image, "cat", "/x").stdout == "x\n"


def test_names_of_whiteouts_and_sockets_are_not_taken_along(box: Box, committed: Any) -> None:
    image = committed(made(box, "echo x > /.wh.etc || true; echo y > /y"))
    assert box("run", "--rm", image, "sh", "-c", "cat /y; ls -a / | grep wh; ls -d /etc").stdout == "y\n/etc\n"


def test_the_same_changes_make_the_same_layer(box: Box, committed: Any) -> None:
    script = "echo x > /x; touch -d @1 /x; mkdir /d; touch -d @1 /d"
    one, two = (config(box, committed(made(box, script)))["RootFS"]["Layers"][-1] for _ in range(2))
    assert one == two


def kill_while_it_is_paused(box: Box, container: str, process: "subprocess.Popen[bytes]") -> None:
    assert wait_until(lambda: box.recorded(container)["status"] == "paused" or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert wait_until(lambda: box.state(container)["Status"] == "running")


def test_a_commit_that_is_killed_lets_the_container_go_on_and_leaves_nothing(box: Box) -> None:
    container = box.detached(
        "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i > /f$i; done; echo ready; exec sleep 1000"
    )
    assert box.says(container, "ready")
    box("image", "prune", "-f")
    images, before = box("images", "-q").stdout, box.installed.leftovers()
    for _ in range(4):
        kill_while_it_is_paused(box, container, box.start("commit", container))
    box("image", "prune", "-f")
    left = box.installed.leftovers().beyond(before)
    assert (left.processes, left.mounts, os.listdir(box.store / "trash")) == ([], [], [])
    assert box("exec", container, "echo", "alive").stdout == "alive\n"
    assert box("images", "-q").stdout == images


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("nobody",), "No such container: nobody"),
        (("CONTAINER", "BAD NAME"), "is not a valid repository/tag"),
        (("-c", "RUN true", "CONTAINER"), "RUN is not a valid change command"),
        (("-c", "EXPOSE x", "CONTAINER"), "EXPOSE x: not a port"),
        (("--squash", "CONTAINER"), "--squash is not there"),
    ],
)
def test_errors_say_what_is_wrong_and_leave_nothing(box: Box, words: tuple[str, ...], error: str) -> None:
    container = made(box, "true")
    done = box("commit", *(container if word == "CONTAINER" else word for word in words), check=False)
    assert done.returncode == 1
    assert error in done.stderr
    assert os.listdir(box.store / "trash") == []


# --- changes


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("CMD echo hello", {"Cmd": ["/bin/sh", "-c", "echo hello"]}),
        ('ENTRYPOINT ["/a", "b c"]', {"Entrypoint": ["/a", "b c"]}),
        ("env A=b\\ c", {"Env": ["P=/bin", "A=b c"]}),
        ("ENV P=$P:/x Q='$P'", {"Env": ["P=/bin:/x", "Q=$P"]}),
        ("ENV A the rest", {"Env": ["P=/bin", "A=the rest"]}),
        ("ENV A=${X:-y} B=${P:+z}", {"Env": ["P=/bin", "A=y", "B=z"]}),
        ("EXPOSE 80-82 53/UDP", {"ExposedPorts": {"80/tcp": {}, "81/tcp": {}, "82/tcp": {}, "53/udp": {}}}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl x",
            {"Healthcheck": {"Interval": 90_000_000_000, "Retries": 3, "Test": ["CMD-SHELL", "curl x"]}},
        ),
        ('LABEL "a b"="c d" e=f', {"Labels": {"a b": "c d", "e": "f"}}),
        ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
        ("STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}),
        ("USER 1:2", {"User": "1:2"}),
        ('VOLUME ["/a"]', {"Volumes": {"/a": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ("WORKDIR a/../b", {"WorkingDir": "/b"}),
        ("CMD a\nUSER b", {"Cmd": ["/bin/sh", "-c", "a"], "User": "b"}),
        ("# comment", {}),
    ],
)
def test_an_instruction_changes_the_config(change: str, expected: dict[str, Any]) -> None:
    changed: dict[str, Any] = {"Env": ["P=/bin"]}
    apply_changes(changed, [change])
    assert changed == {"Env": ["P=/bin"], **expected}


@pytest.mark.parametrize(
    "change",
    ["FROM x", "ENV", "ENV A", "ENV =x y=z w", "EXPOSE 70000", "ONBUILD ONBUILD RUN x",
     "ONBUILD FROM x", "STOPSIGNAL NO", "HEALTHCHECK X", "HEALTHCHECK --x=1 CMD y",
     "HEALTHCHECK --timeout=x CMD y", "LABEL a=\"b"],
)  # fmt: skip
def test_what_is_no_instruction_is_refused(change: str) -> None:
    with pytest.raises(InvalidInput):
        apply_changes({}, [change])


def test_checks_of_health_and_the_end_of_a_terminal_go_into_the_config_as_they_were_asked_for(
    box: Box, committed: Any
) -> None:
    asked = ("--health-cmd", "true", "--health-interval", "7s", "--health-retries", "2", "-t")
    one = committed(made(box, "true", *asked))
    found = config(box, one)["Config"]
    assert (found["Healthcheck"]["Test"], found["Healthcheck"]["Interval"]) == (["CMD-SHELL", "true"], 7_000_000_000)
    assert "TERM=xterm" not in found["Env"]
    without = box("create", "--no-healthcheck", one).stdout.strip()
    two = box("commit", without).stdout.strip()
    assert config(box, two)["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    box("rmi", "-f", two)
