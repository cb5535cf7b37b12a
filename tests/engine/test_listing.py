"""ps, inspect, top: what they show, and what can be asked of them."""

import json
import time

import pytest

from tests.support.containers import Box

pytestmark = [pytest.mark.kernel, pytest.mark.registry]


def names(box: Box, *options: str) -> list[str]:
    return box("ps", "--format", "{{.Names}}", *options).stdout.split()


@pytest.fixture
def zoo(box: Box) -> dict[str, str]:
    """One container of each kind: name -> id, the oldest first."""
    ids = {}
    ids["created"] = box("create", "--name", "created", "--label", "a=1", box.image, "true").stdout.strip()
    ids["failed"] = box.detached("exit 3", "--name", "failed", "--label", "a=2", "--label", "b")
    ids["running"] = box("run", "-d", "--name", "running", "-v", "vol:/data", box.image, "sleep", "60").stdout.strip()
    ids["paused"] = box("run", "-d", "--name", "paused", "--network", "host", box.image, "sleep", "61").stdout.strip()
    box("pause", "paused")
    box("wait", "failed")
    return ids


def test_ps_shows_what_runs_and_all_of_it_with_a(zoo: dict[str, str], box: Box) -> None:
    assert names(box) == ["paused", "running"]
    assert names(box, "-a") == ["paused", "running", "failed", "created"]
    assert names(box, "-n", "3") == ["paused", "running", "failed"]
    assert names(box, "-l") == ["paused"]
    table = [line.split("   ") for line in box("ps", "-a").stdout.splitlines()]
    assert [cell.strip() for cell in table[0] if cell.strip()] == [
        *("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"),
    ]
    rows = ["   ".join(row) for row in table[1:]]
    for row, (name, status) in zip(
        rows,
        [("paused", "(Paused)"), ("running", "Up "), ("failed", "Exited (3) "), ("created", "Created")],
        strict=True,
    ):
        assert row.startswith(zoo[name][:12])
        assert row.endswith(name)
        assert status in row
        assert box.image in row


def test_ps_q_shows_ids_only(zoo: dict[str, str], box: Box) -> None:
    assert box("ps", "-q").stdout.split() == [zoo["paused"][:12], zoo["running"][:12]]
    assert box("ps", "-q", "--no-trunc", "-l").stdout == f"{zoo['paused']}\n"


def test_the_command_stands_quoted_on_one_line_wherever_it_goes(box: Box) -> None:
    box("create", "--name", "lines", box.image, "sh", "-c", 'echo "a\\b"\nexit')
    shown = box("ps", "-a", "--no-trunc", "--format", "{{.Command}}", "--filter", "name=lines").stdout
    assert shown == '"sh -c echo \\"a\\\\b\\"\\nexit"\n'


def test_filters(zoo: dict[str, str], box: Box) -> None:
    expected = {
        ("status=running",): ["running"],
        ("status=exited", "status=created"): ["failed", "created"],
        ("status=paused",): ["paused"],
        ("exited=3",): ["failed"],
        ("exited=0",): [],
        ("name=ru",): ["running"],
        ("name=^(un|run)",): ["running"],
        (f"id={zoo['failed'][:10]}",): ["failed"],
        ("label=a",): ["failed", "created"],
        ("label=a=2",): ["failed"],
        ("label=a", "label=b"): ["failed"],
        ("volume=vol",): ["running"],
        ("volume=/data",): ["running"],
        ("network=host",): ["paused"],
        (f"ancestor={box.image}",): ["paused", "running", "failed", "created"],
        ("before=running",): ["failed", "created"],
        (f"since={zoo['failed'][:12]}",): ["paused", "running"],
        ("health=none", "status=running"): ["running"],
    }
    for filters, found in expected.items():
        assert names(box, "-a", *(f"--filter={text}" for text in filters)) == found, filters


@pytest.mark.parametrize(
    "text", ["nonsense=1", "status=nonsense", "exited=x", "health=ill", "before=nobody", "name", "=x"]
)
def test_filters_that_cannot_be_are_refused(text: str, box: Box) -> None:
    done = box("ps", "-a", "--filter", text, check=False)
    assert (done.returncode != 0, "Traceback" in done.stderr, done.stdout) == (True, False, "")


def test_formats(zoo: dict[str, str], box: Box) -> None:
    assert box(
        "ps", "-l", "--format", "{{.ID}} {{.Image}} {{.Command}} {{.State}} {{.Names}} {{.Networks}}"
    ).stdout == (f'{zoo["paused"][:12]} {box.image} "sleep 61" paused paused host\n')
    assert box("ps", "--format", "table {{.Names}}\t{{.State}}").stdout == (
        "NAMES     STATE\npaused    paused\nrunning   running\n"
    )
    rows = [json.loads(line) for line in box("ps", "-a", "--format", "json").stdout.splitlines()]
    assert [row["Names"] for row in rows] == ["paused", "running", "failed", "created"]
    assert (rows[2]["Labels"], rows[1]["Mounts"], rows[1]["LocalVolumes"]) == ("a=2,b=", "vol", "1")
    done = box("ps", "--format", "{{.Nonsense}}", check=False)
    assert (done.returncode != 0, "Traceback" in done.stderr) == (True, False)


def test_sizes_are_of_what_was_written(box: Box) -> None:
    box("run", "--name", "wrote", box.image, "sh", "-c", "head -c 1234567 /dev/zero >/file")
    size = box("ps", "-a", "-s", "--format", "{{.Size}}").stdout
    assert size.startswith("1.23MB (virtual ")
    assert box("inspect", "-s", "--format", "{{.SizeRw}}", "wrote").stdout == "1234567\n"


# --- inspect


def test_inspect_is_dockers_document(box: Box) -> None:
    options = (
        *("--name", "full", "-e", "A=b", "-l", "x=y", "-w", "/tmp", "-u", "user", "-h", "box", "--init"),
        *(
            "-v",
            "vol:/data:ro",
            "--tmpfs",
            "/mem:size=1m",
            "--cap-add",
            "SYS_TIME",
            "--cap-drop",
            "CHOWN",
            "--read-only",
        ),
        *("--restart", "on-failure:2", "--stop-signal", "INT", "--stop-timeout", "3", "--shm-size", "1m", "-t", "-i"),
        *("--add-host", "db:10.0.0.1", "--ulimit", "nofile=10:20", "--sysctl", "net.ipv4.ip_forward=1"),
        *("--log-opt", "max-size=1m", "--group-add", "wheel", "--security-opt", "no-new-privileges"),
    )
    container_id = box("create", *options, "--entrypoint", "echo", box.image, "one", "two").stdout.strip()
    document = box.inspect("full")
    config, host = document["Config"], document["HostConfig"]
    assert (document["Id"], document["Name"], document["Path"], document["Args"]) == (
        container_id, "/full", "echo", ["one", "two"],
    )  # fmt: skip
    assert document["Created"][:4] >= "2020"
    assert document["Image"].startswith("sha256:")
    assert (config["Entrypoint"], config["Cmd"], config["Image"]) == (["echo"], ["one", "two"], box.image)
    assert (config["User"], config["WorkingDir"], config["Hostname"]) == ("user", "/tmp", "box")
    assert (config["Tty"], config["OpenStdin"], config["StdinOnce"], config["Labels"]) == (True, True, True, {"x": "y"})
    assert {"A=b", "TERM=xterm"} <= set(config["Env"])
    assert (config["StopSignal"], config["StopTimeout"]) == ("SIGINT", 3)
    assert host["Binds"] == ["vol:/data:ro"]
    assert host["Tmpfs"] == {"/mem": "size=1m"}
    assert (host["CapAdd"], host["CapDrop"]) == (["SYS_TIME"], ["CHOWN"])
    assert (host["ReadonlyRootfs"], host["Init"], host["ShmSize"]) == (True, True, 1 << 20)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert host["ExtraHosts"] == ["db:10.0.0.1"]
    assert host["Ulimits"] == [{"Name": "nofile", "Hard": 20, "Soft": 10}]
    assert host["Sysctls"] == {"net.ipv4.ip_forward": "1"}
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}}
    assert (host["GroupAdd"], host["SecurityOpt"]) == (["wheel"], ["no-new-privileges"])
    [mount] = document["Mounts"]
    assert (mount["Type"], mount["Name"], mount["Destination"], mount["RW"]) == ("volume", "vol", "/data", False)
    assert document["NetworkSettings"]["Networks"].keys() == {"none"}


def test_templates_reach_into_the_document(box: Box) -> None:
    box("create", "--name", "web", "-l", "a.b=c", box.image, "sleep", "1")
    for template, expected in (
        ("{{.Name}} {{.State.Status}}", "/web created"),
        ("{{json .Config.Cmd}}", '["sleep","1"]'),
        ('{{index .Config.Labels "a.b"}}', "c"),
        ("{{range .Config.Cmd}}<{{.}}>{{end}}", "<sleep><1>"),
        ('{{join .Config.Cmd "+"}}', "sleep+1"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "down"),
        ("{{len .Config.Cmd}}", "2"),
    ):
        assert box("inspect", "-f", template, "web").stdout == f"{expected}\n"


def test_inspect_of_several_shows_what_there_is(box: Box) -> None:
    box("create", "--name", "web", box.image, "true")
    done = box("inspect", "web", "nobody", box.image, check=False)
    documents = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "rootless: No such object: nobody\n")
    assert documents[0]["Name"] == "/web"
    assert box.image in documents[1]["RepoTags"][0]


# --- top


def test_top_shows_the_processes_with_the_hosts_numbers(box: Box) -> None:
    box.detached("sleep 61 & exec sleep 62", "--name", "web", "-u", "user")
    time.sleep(0.1)
    lines = box("top", "web").stdout.splitlines()
    assert lines[0].split() == ["USER", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    pid = box.state("web")["Pid"]
    assert sorted(line.split()[-1] for line in lines[1:]) == ["61", "62"]
    assert str(pid) in [line.split()[1] for line in lines[1:]]
    table = [line.split() for line in box("top", "web", "-o", "pid,comm,args").stdout.splitlines()]
    assert table[0] == ["PID", "COMMAND", "COMMAND"]
    assert [str(pid), "sleep", "sleep", "62"] in table
    assert box("top", "web", "aux").stdout.startswith("USER")
    done = box("top", "web", "--nonsense", check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    box("create", "--name", "still", box.image, "true")
    done = box("top", "still", check=False)
    assert (done.returncode, "is not running" in done.stderr) == (1, True)
