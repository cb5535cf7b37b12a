"""login and logout as people use them, against a registry that knows alice."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import Installation, installation
from tests.support.containers import Box
from tests.support.fault_registry import FaultRegistry
from tests.support.terminal import Terminal

PASSWORD = "s3cret: pässword"

HELPER = """\
#!/bin/sh
case $1 in
    store) cat >{kept} ;;
    get) cat {kept} 2>/dev/null || {{ echo "credentials not found"; exit 1; }} ;;
    erase) rm {kept} ;;
esac
"""


@pytest.fixture
def installed() -> Iterator[Installation]:
    with installation() as made:
        yield made


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    with FaultRegistry(auth="basic", users={"alice": PASSWORD}) as serving:
        yield serving


def config_file(installed: Installation) -> Path:
    return installed.home / ".docker/config.json"


def config(installed: Installation) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(config_file(installed).read_text())
    return document


def log_in(installed: Installation, registry: FaultRegistry, password: str = PASSWORD) -> str:
    words = ("login", "-u", "alice", "--password-stdin", registry.host)
    return installed.run(*words, input=f"{password}\n").stdout


def test_a_password_from_stdin_is_tried_and_kept(installed: Installation, registry: FaultRegistry) -> None:
    assert log_in(installed, registry) == "Login Succeeded\n"
    assert list(config(installed)["auths"]) == [registry.host]
    assert stat.S_IMODE(config_file(installed).stat().st_mode) == 0o600
    assert os.listdir(config_file(installed).parent) == ["config.json"]


def test_a_wrong_one_is_not_kept(installed: Installation, registry: FaultRegistry) -> None:
    done = installed.run("login", "-u", "alice", "--password-stdin", registry.host, input="wrong", check=False)
    assert done.returncode == 1
    assert "unauthorized: authentication required" in done.stderr
    assert not config_file(installed).exists()


def test_what_other_programs_keep_in_the_file_stays(installed: Installation, registry: FaultRegistry) -> None:
    config_file(installed).parent.mkdir()
    others = {"detachKeys": "ctrl-x", "auths": {"other.example": {"auth": "YTpi"}}, "plugins": {"x": {"y": "z"}}}
    config_file(installed).write_text(json.dumps(others))
    log_in(installed, registry)
    installed.run("logout", registry.host)
    assert config(installed) == others


def test_p_works_and_warns(installed: Installation, registry: FaultRegistry) -> None:
    done = installed.run("login", "--username=alice", "-p", PASSWORD, registry.host)
    assert done.stdout == "Login Succeeded\n"
    assert "WARNING! Using --password via the CLI is insecure. Use --password-stdin." in done.stderr


def test_the_server_may_be_said_as_a_url(installed: Installation, registry: FaultRegistry) -> None:
    words = ("login", "-u", "alice", "--password-stdin")
    installed.run(*words, f"https://{registry.host}/v2/", input=PASSWORD)
    assert list(config(installed)["auths"]) == [registry.host]


def test_logout_forgets_and_says_where_there_was_nothing(installed: Installation, registry: FaultRegistry) -> None:
    log_in(installed, registry)
    assert installed.run("logout", registry.host).stdout == f"Removing login credentials for {registry.host}\n"
    assert installed.run("logout", registry.host).stdout == f"Not logged in to {registry.host}\n"
    assert installed.run("logout").stdout == "Not logged in to https://index.docker.io/v1/\n"
    assert config(installed) == {"auths": {}}


def test_logout_tells_of_passwords_that_others_keep(installed: Installation, registry: FaultRegistry) -> None:
    auth = installed.runtime / "containers/auth.json"
    auth.parent.mkdir()
    auth.write_text(json.dumps({"auths": {registry.host: {"auth": "YTpi"}}}))
    done = installed.run("logout", registry.host)
    assert "there still are credentials" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-p", "x", "--password-stdin", "-u", "a"), "cannot specify both --password and --password-stdin"),
        (("--password-stdin",), "requires --username"),
        ((), "from a non-TTY device"),
        (("-u", "alice"), "from a non-TTY device"),
        (("-u", "alice", "--password-stdin"), "no password on stdin"),
        (("-u", "alice", "-p", "x", "bad registry"), "invalid registry 'bad registry'"),
    ],
)
def test_what_makes_no_sense_is_said(options: tuple[str, ...], words: str, installed: Installation) -> None:
    done = installed.run("login", *options, check=False)
    assert done.returncode == 1
    assert words in done.stderr


def test_at_a_terminal_name_and_password_are_asked_for_and_the_password_is_not_shown(
    installed: Installation, registry: FaultRegistry
) -> None:
    box = Box(installed, "")
    with box.terminal("login", registry.host) as terminal:
        answer(terminal, "Username: ", "alice")
        answer(terminal, "Password: ", PASSWORD)
        terminal.expect("Login Succeeded")
        assert "s3cret" not in terminal.shown
    with box.terminal("login", registry.host) as terminal:
        terminal.expect(r"Authenticating with existing credentials... \[Username: alice\]")
        terminal.expect("Login Succeeded")


def answer(terminal: Terminal, question: str, text: str) -> None:
    terminal.expect(question)
    terminal.send(f"{text}\n")


def test_a_helper_keeps_the_password_and_the_file_does_not(installed: Installation, registry: FaultRegistry) -> None:
    helper = installed.home / "bin/docker-credential-keep"
    helper.parent.mkdir()
    kept = installed.home / "kept"
    helper.write_text(HELPER.format(kept=kept))
    helper.chmod(0o755)
    installed.env["PATH"] = f"{helper.parent}:{installed.env['PATH']}"
    config_file(installed).parent.mkdir()
    config_file(installed).write_text('{"credsStore": "keep"}')
    log_in(installed, registry)
    assert json.loads(kept.read_text()) == {"ServerURL": registry.host, "Username": "alice", "Secret": PASSWORD}
    assert config(installed) == {"credsStore": "keep", "auths": {registry.host: {}}}
    installed.run("logout", registry.host)
    assert not kept.exists()
    assert config(installed) == {"credsStore": "keep", "auths": {}}


def test_config_says_where_the_file_is(installed: Installation, registry: FaultRegistry) -> None:
    elsewhere = installed.home / "elsewhere"
    words = ("--config", str(elsewhere), "login", "-u", "alice", "--password-stdin", registry.host)
    installed.run(*words, input=PASSWORD)
    assert not config_file(installed).exists()
    assert list(json.loads((elsewhere / "config.json").read_text())["auths"]) == [registry.host]


# R11
def test_the_password_is_in_no_message_of_any_level(installed: Installation, registry: FaultRegistry) -> None:
    words = ("--debug", "--log-level=debug", "login", "-u", "alice", "--password-stdin", registry.host)
    for password in (PASSWORD, "wr0ng-one"):
        done = installed.run(*words, input=password, check=False)
        assert password not in done.stdout + done.stderr
