"""run: what the options make of the program's environment, user, rights, names and namespaces."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.containers import Box
from tests.support.layout import NATIVE

pytestmark = [pytest.mark.kernel, pytest.mark.registry]


def status(box: Box, field: str, *options: str) -> str:
    """A field of the program's /proc/self/status."""
    return box.run("grep", f"^{field}:", "/proc/self/status", options=options).stdout.split()[1]


# --- the program


def test_the_environment_is_the_images_with_ours_and_home_and_hostname(box: Box) -> None:
    lines = box.run("env", options=("-e", "A=1", "-e", "B=", "-e", "C=a b=c", "--hostname", "h")).stdout.splitlines()
    assert set(lines) == {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=h", "HOME=/root", "A=1", "B=",
        "C=a b=c",
    }  # fmt: skip


def test_a_bare_name_takes_the_callers_value_or_none(box: Box) -> None:
    shown = box.run("env", options=("-e", "USER", "-e", "NOT_THERE", "-e", "HOME=/x")).stdout.splitlines()
    assert f"USER={box.installed.env['USER']}" in shown
    assert "HOME=/x" in shown
    assert not any(line.startswith("NOT_THERE") for line in shown)


def test_files_of_variables_and_labels(box: Box, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\n\nA=file\nB=two words\nUSER\n")
    (tmp_path / "labels").write_text("a=file\nb=two\n")
    options = ("--env-file", str(tmp_path / "env"), "-e", "A=option", "--label-file", str(tmp_path / "labels"))
    box("run", "--name", "job", *options, "-l", "a=option", box.image, "env")
    shown = box.logs("job").splitlines()
    assert {"A=option", "B=two words", f"USER={box.installed.env['USER']}"} <= set(shown)
    assert box.inspect("job")["Config"]["Labels"] == {"a": "option", "b": "two"}
    done = box.run("true", options=("--env-file", "/no/where"), check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (125, False)


def test_the_working_directory_is_made_if_it_is_missing(box: Box) -> None:
    assert box.sh("pwd; stat -c %u .", "-w", "/new/one", "-u", "user") == "/new/one\n0\n"
    done = box.run("true", options=("-w", "/etc/passwd/x"), check=False)
    assert done.returncode in (125, 126)
    assert box.run("true", options=("-w", "relative"), check=False).returncode == 125


def test_the_entrypoint_takes_the_command_as_arguments(box: Box) -> None:
    assert box.run("a", "b", options=("--entrypoint", "echo")).stdout == "a b\n"
    done = box("run", "--rm", "--entrypoint", "", box.image, check=False)
    assert (done.returncode, "no command specified" in done.stderr) == (125, True)


# --- users


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "uid=0(root) gid=0(root) groups=0(root),10(wheel)"),
        (("-u", "user"), "uid=1000(user) gid=1000(user) groups=10(wheel),1000(user)"),
        (("-u", "user:wheel"), "uid=1000(user) gid=10(wheel) groups=10(wheel)"),
        (("-u", "1000"), "uid=1000(user) gid=1000(user) groups=10(wheel),1000(user)"),
        (("-u", "1234:5678"), "uid=1234 gid=5678 groups=5678"),
        (("-u", "0:0"), "uid=0(root) gid=0(root) groups=0(root)"),
        (
            ("-u", "1234", "--group-add", "wheel", "--group-add", "77"),
            "uid=1234 gid=0(root) groups=0(root),10(wheel),77",
        ),
    ],
)
def test_the_program_runs_as_whom_it_is_told(options: tuple[str, ...], expected: str, box: Box) -> None:
    assert box.run("id", options=options).stdout == f"{expected}\n"


def test_a_user_has_its_home_and_its_streams(box: Box) -> None:
    assert (
        box.sh("echo $HOME; echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/null </dev/stdin", "-u", "user")
        == "/home/user\nout\n"
    )


# --- rights


@pytest.mark.parametrize(
    ("options", "effective"),
    [
        ((), "00000000a80425fb"),
        (("--cap-add", "SYS_TIME"), "00000000aa0425fb"),
        (("--cap-drop", "CAP_CHOWN", "--cap-drop", "kill"), "00000000a80425da"),
        (("--cap-drop", "ALL"), "0000000000000000"),
        (("--cap-drop", "all", "--cap-add", "chown"), "0000000000000001"),
        (("-u", "user"), "0000000000000000"),
    ],
)
def test_capabilities(options: tuple[str, ...], effective: str, box: Box) -> None:
    assert status(box, "CapEff", *options) == effective


def test_capabilities_cannot_be_gained_beyond_the_set_and_none_are_inherited(box: Box) -> None:
    assert status(box, "CapBnd", "--cap-drop", "ALL", "--cap-add", "CHOWN") == "0000000000000001"
    assert status(box, "CapInh", "--cap-add", "ALL") == status(box, "CapAmb", "--cap-add", "ALL") == "0" * 16
    assert status(box, "CapBnd", "-u", "user") == "00000000a80425fb"


def test_privileged_is_all_that_a_user_can_grant(box: Box) -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert int(status(box, "CapEff", "--privileged"), 16) == (1 << last + 1) - 1
    assert box.sh("mkdir /m; mount -t tmpfs tmpfs /m && echo mounted", "--privileged") == "mounted\n"
    assert box.run("mount", "-t", "tmpfs", "tmpfs", "/mnt", check=False).returncode != 0


def test_no_new_privileges(box: Box) -> None:
    assert status(box, "NoNewPrivs") == "0"
    assert status(box, "NoNewPrivs", "--security-opt", "no-new-privileges") == "1"
    assert status(box, "NoNewPrivs", "--security-opt", "no-new-privileges:true") == "1"


def test_limits(box: Box) -> None:
    options = ("--ulimit", "nofile=100:200", "--ulimit", "core=0", "--oom-score-adj", "500")
    shown = box.sh("grep -E 'open files|core' /proc/self/limits; cat /proc/self/oom_score_adj", *options).split()
    assert [word for word in shown if word.isdigit()] == ["0", "0", "100", "200", "500"]
    box("run", "-d", "--name", "web", *options, box.image, "sleep", "60")
    assert box("exec", "web", "sh", "-c", "ulimit -n; cat /proc/self/oom_score_adj").stdout == "100\n500\n"
    done = box.run("true", options=("--oom-score-adj", "-999"), check=False)
    assert (done.returncode, "without root it can only be raised" in done.stderr) == (125, True)


def test_settings_of_its_own_network(box: Box) -> None:
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ping_group_range"
    options = ("--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "net.ipv4.ping_group_range=0 5")
    assert box.sh(script, *options).split() == ["1", "0", "5"]


# --- names


def test_hostname_hosts_and_name_servers(box: Box) -> None:
    options = (
        *("-h", "box", "--domainname", "example.org", "--add-host", "db:10.1.2.3", "--add-host", "v6=fd00::1"),
        *("--dns", "192.0.2.1", "--dns-search", "example.org", "--dns-option", "ndots:2"),
    )
    shown = box.sh("hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf", *options).splitlines()
    assert shown[:2] == ["box", "box"]
    words = [line.split() for line in shown[2:]]
    assert ["10.1.2.3", "db"] in words
    assert ["fd00::1", "v6"] in words
    assert ["127.0.0.1", "localhost"] in words
    assert any(line[1:] == ["box.example.org", "box"] for line in words)
    assert words[-3:] == [["nameserver", "192.0.2.1"], ["search", "example.org"], ["options", "ndots:2"]]


def test_a_hostname_is_made_of_the_id(box: Box) -> None:
    container_id = box.detached("hostname; sleep 60", "--name", "web")
    assert box.says("web", container_id[:12])


# --- namespaces


def namespace(box: Box, kind: str, *options: str) -> str:
    return box.run("readlink", f"/proc/self/ns/{kind}", options=options).stdout.strip()


def test_namespaces_are_its_own_unless_the_hosts_are_asked_for(box: Box) -> None:
    ours = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "ipc", "uts", "net")}
    for kind, option in (("pid", "--pid"), ("ipc", "--ipc"), ("uts", "--uts"), ("net", "--network")):
        assert namespace(box, kind) != ours[kind]
        assert namespace(box, kind, option, "host") == ours[kind]


def test_with_the_hosts_names_it_has_them(box: Box) -> None:
    assert box.sh("hostname", "--uts", "host").strip() == socket.gethostname()


def test_without_a_network_there_is_loopback_only(box: Box) -> None:
    assert box.sh("ls /sys/class/net; ip addr show lo | grep -c 'inet 127.0.0.1'", "--network", "none") == "lo\n1\n"


def test_with_the_hosts_network_its_ports_are_reached(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        connect = f"nc -w 5 127.0.0.1 {port} -e true; echo $?"
        assert box.sh(connect, "--network", "host") == "0\n"
        assert box.sh(connect) == "1\n"


def test_namespaces_of_another_container(box: Box) -> None:
    box("run", "-d", "--name", "web", "-h", "of-web", box.image, "sleep", "61")
    assert box.sh("ps -o args | grep -cx 'sleep 61'", "--pid", "container:web") == "1\n"
    for kind, option in (("ipc", "--ipc"), ("uts", "--uts"), ("net", "--network")):
        theirs = box("exec", "web", "readlink", f"/proc/self/ns/{kind}").stdout.strip()
        assert namespace(box, kind, option, "container:web") == theirs
    box("stop", "-t", "0", "web")
    done = box.run("true", options=("--network", "container:web"), check=False)
    assert (done.returncode, "it is not running" in done.stderr) == (125, True)


def test_with_the_hosts_processes_it_still_ends_and_is_stopped(box: Box) -> None:
    assert box.sh("test $$ != 1 && echo other", "--pid", "host") == "other\n"
    box("run", "-d", "--pid", "host", "--name", "web", box.image, "sleep", "60")
    box("stop", "-t", "0", "web")
    assert box.state("web")["ExitCode"] == 143


# --- images


def test_a_platform_of_several(box: Box, image: Callable[[str], str]) -> None:
    other = "arm64" if NATIVE != "arm64" else "amd64"
    name = image("multiarch")
    box("create", "--name", "own", name, "true")
    assert box("run", "--rm", name, "uname").stdout == "Linux\n"
    box("create", "--name", "foreign", "--platform", f"linux/{other}", name, "true")
    assert box.inspect("foreign")["Image"] != box.inspect("own")["Image"]
    assert box("run", "--rm", "--platform", f"linux/{NATIVE}", name, "uname").stdout == "Linux\n"
    done = box("run", "--rm", "--platform", "linux/s390x", name, "true", check=False)
    assert (done.returncode, "no matching manifest for linux/s390x" in done.stderr) == (125, True)


def test_pulling_before_the_run(box: Box, image: Callable[[str], str]) -> None:
    name = image("docker-busybox")
    done = box("run", "--rm", "--pull", "never", name, "true", check=False)
    assert (done.returncode, f"No such image: {name}" in done.stderr) == (125, True)
    done = box("run", "--rm", name, "echo", "x")
    assert (done.stdout, "Unable to find image" in done.stderr) == ("x\n", True)
    assert box("run", "--rm", name, "echo", "x").stderr == ""
    assert "Unable to find" not in box("run", "--rm", "--pull", "always", name, "true").stderr
    done = box("run", "--rm", "-q", "--pull", "always", name, "echo", "x")
    assert (done.stdout, done.stderr) == ("x\n", "")
    box("rmi", name)


def test_the_machine_itself_is_an_image(box: Box) -> None:
    done = box("run", "--rm", "host", "sh", "-c", "id -u; touch /usr/x 2>/dev/null; test -d /usr/bin && echo there")
    assert done.stdout == "0\nthere\n"
    assert not os.path.exists("/usr/x")
