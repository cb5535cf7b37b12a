"""info and version, as somebody types them."""

import json
import os

import pytest

from tests.support.account import Installation

pytestmark = pytest.mark.kernel


def test_info_has_dockers_lines_and_warnings_beside_them(rootless: Installation) -> None:
    done = rootless.run("info")
    lines = done.stdout.splitlines()
    for line in (
        "Client:",
        " Context:    default",
        "Server:",
        " Containers: 0",
        "  Running: 0",
        " Images: 0",
        " Storage Driver: overlay",
        "  Usable: true",
        " Security Options:",
        "  seccomp",
        "   Profile: builtin",
        "  rootless",
        " OSType: linux",
        f" Docker Root Dir: {rootless.data}/rootless",
        f" Run Dir: {rootless.runtime}/rootless",
    ):
        assert line in lines
    assert all(line.startswith("WARNING: ") for line in done.stderr.splitlines())
    assert "seccomp" not in done.stderr


def test_info_finds_the_rung_that_containers_get(rootless: Installation) -> None:
    namespace = json.loads(rootless.run("info", "-f", "{{json .Rootless.UserNamespace}}").stdout)
    ids = rootless.run("run", "--rm", "host", "cat", "/proc/self/uid_map").stdout.split()
    assert namespace["Ids"] == sum(int(count) for count in ids[2::3])
    assert namespace["Rung"] == ("range" if namespace["Ids"] > 1 else "single")
    assert bool(namespace["Remedy"]) == (namespace["Rung"] == "single")


def test_info_leaves_nothing_in_the_store(rootless: Installation) -> None:
    rootless.run("info")
    with rootless.no_leaks():
        rootless.run("info")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("{{.Driver}} {{.CgroupDriver}} {{.OSType}}", "overlay none linux"),
        ("{{.ContainersRunning}} {{.Images}}", "0 0"),
        ('{{range .SecurityOptions}}{{if eq . "name=rootless"}}yes{{end}}{{end}}', "yes"),
        ("{{.Architecture}}", os.uname().machine),
        ("{{.ServerVersion}} {{.ClientInfo.Version}}", "0.1.0 0.1.0"),
        ("{{.HTTPProxy}}", ""),
    ],
)
def test_info_fills_a_template(form: str, expected: str, rootless: Installation) -> None:
    done = rootless.run("info", "--format", form)
    assert (done.stdout, done.stderr) == (f"{expected}\n", "")


def test_info_and_version_are_json_objects_on_a_line(rootless: Installation) -> None:
    for words in (["info"], ["system", "info"], ["version"]):
        text = rootless.run(*words, "--format", "json").stdout
        assert text.count("\n") == 1
        assert isinstance(json.loads(text), dict)


def test_a_store_elsewhere_is_another_one(rootless: Installation) -> None:
    elsewhere = str(rootless.home / "elsewhere")
    here = rootless.run("info", "-f", "{{.ID}}").stdout
    assert rootless.run("--root", elsewhere, "info", "-f", "{{.DockerRootDir}}").stdout == f"{elsewhere}\n"
    assert rootless.run("--root", elsewhere, "info", "-f", "{{.ID}}").stdout != here


@pytest.mark.parametrize("command", ["info", "version"])
def test_a_field_that_is_not_there_is_an_error(command: str, rootless: Installation) -> None:
    done = rootless.run(command, "-f", "{{.Nope}}", check=False)
    assert done.returncode != 0
    assert "can't evaluate field Nope" in done.stderr


def test_version_says_that_there_is_no_daemon(rootless: Installation) -> None:
    text = rootless.run("version").stdout
    assert text.startswith("Client:\n Version:")
    assert "Server: none" in text


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("{{.Server.Version}} {{.Client.Version}}", "0.1.0 0.1.0"),
        ("{{.Server.APIVersion}} {{.Server.ApiVersion}} {{.Client.APIVersion}}", "1.49 1.49 1.49"),
        ("{{.Server.Os}}", "linux"),
        ("{{range .Server.Components}}{{.Name}} {{.Version}}{{end}}", "Engine 0.1.0"),
    ],
)
def test_version_fills_a_template(form: str, expected: str, rootless: Installation) -> None:
    assert rootless.run("version", "-f", form).stdout == f"{expected}\n"
