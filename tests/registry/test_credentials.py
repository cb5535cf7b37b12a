import base64
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import CorruptData, InvalidInput, RegistryFailure
from rootless.registry.credentials import Credential, Credentials, default_credentials

SECRET = "s3cret-pa:ss"


def auth(username: str = "alice", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def write(path: Path, document: object) -> Credentials:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return Credentials((str(path),))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`helper(name, body)` installs docker-credential-name, a Python program in which *body* is to be found."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)

    def install(name: str, body: str) -> None:
        program = directory / f"docker-credential-{name}"
        program.write_text(f"#!{sys.executable} -IS\nimport sys, time\nverb = sys.argv[1]\n{body}\n")
        program.chmod(0o755)

    return install


def test_a_password_is_found_by_the_registry_s_name(config: Path) -> None:
    credentials = write(config, {"auths": {"quay.io": auth(), "x.example:5000": auth("bob", "")}})
    assert credentials.find("quay.io") == ("alice", SECRET, "")
    assert credentials.find("x.example:5000") == ("bob", "", "")


# R09
@pytest.mark.parametrize(
    "kept, asked, found",
    [
        ("quay.io", "quay.io", True),
        ("quay.io", "quay.io:443", False),
        ("quay.io:443", "quay.io", False),
        ("quay.io", "cdn.quay.io", False),
        ("quay.io", "evilquay.io", False),
        ("quay.io", "quay.io.evil.example", False),
        ("localhost:5000", "localhost:5001", False),
        ("localhost", "127.0.0.1", False),
        ("https://quay.io", "quay.io", True),
        ("https://quay.io/v1/", "quay.io", True),
        ("http://quay.io:5000/v2/", "quay.io:5000", True),
        ("http://quay.io:5000/v2/", "quay.io", False),
        ("https://index.docker.io/v1/", "docker.io", True),
        ("docker.io", "docker.io", True),
        ("index.docker.io", "docker.io", True),
        ("registry-1.docker.io", "docker.io", True),
        ("docker.io", "quay.io", False),
        ("docker.io.evil.example", "docker.io", False),
    ],
)
def test_a_password_is_for_exactly_one_host_and_port(config: Path, kept: str, asked: str, found: bool) -> None:
    credentials = write(config, {"auths": {kept: auth()}})
    assert (credentials.find(asked) is not None) is found


def test_podman_s_keys_for_a_part_of_a_registry_come_first(config: Path) -> None:
    auths = {"quay.io": auth("all"), "quay.io/team": auth("team"), "quay.io/team/app": auth("app")}
    credentials = write(config, {"auths": auths})

    def who(repository: str) -> str:
        found = credentials.find("quay.io", repository)
        return found.username if found else ""

    assert [who("team/app"), who("team/other"), who("teamx/app"), who("")] == ["app", "team", "all", "all"]
    assert write(config, {"auths": {"quay.io/team": auth()}}).find("quay.io", "other/app") is None


def test_an_identity_token_and_fields_in_the_clear_are_read(config: Path) -> None:
    credentials = write(
        config,
        {"auths": {"a": {**auth("u", ""), "identitytoken": "idt"}, "b": {"username": "u", "password": "p"}, "c": {}}},
    )
    assert credentials.find("a") == ("u", "", "idt")
    assert credentials.find("b") == ("u", "p", "")
    assert credentials.find("c") is None


def test_files_are_asked_in_their_order(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
    }
    write(tmp_path / "docker/config.json", {"auths": {"a": auth("docker")}})
    write(tmp_path / "run/containers/auth.json", {"auths": {"a": auth("run"), "b": auth("run")}})
    write(tmp_path / ".config/containers/auth.json", {"auths": {"b": auth("home"), "c": auth("home")}})
    write(tmp_path / "named.json", {"auths": {"b": auth("named")}})
    found = [default_credentials(environment).find(name) for name in "abcd"]
    assert [entry and entry.username for entry in found] == ["docker", "run", "home", None]
    named = default_credentials({**environment, "REGISTRY_AUTH_FILE": str(tmp_path / "named.json")})
    assert [(e := named.find(name)) and e.username for name in "abc"] == ["docker", "named", None]
    del environment["DOCKER_CONFIG"]
    assert default_credentials(environment).files[0] == str(tmp_path / ".docker/config.json")


def test_nothing_there_is_no_credential(tmp_path: Path, config: Path) -> None:
    assert Credentials().find("a") is None
    assert Credentials((str(config), str(config / "below" / "a file"))).find("a") is None
    assert write(config, "").find("a") is None
    assert write(config, {"auths": None, "credHelpers": None, "credsStore": None}).find("a") is None


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        {"auths": []},
        {"auths": {"a": "x"}},
        {"auths": {"a": {"auth": 1}}},
        {"auths": {"a": {"auth": "!"}}},
        {"auths": {"a": {"auth": base64.b64encode(b"nocolon").decode()}}},
        {"auths": {"a": {"auth": base64.b64encode(b"\xff:\xff").decode()}}},
    ],
)
def test_a_broken_file_is_an_error_that_names_it_and_no_secret(config: Path, document: object) -> None:
    with pytest.raises(InvalidInput, match=str(config)) as caught:
        write(config, document).find("a")
    assert SECRET not in str(caught.value)


def test_a_file_that_is_no_json_is_an_error_that_names_it(config: Path) -> None:
    with pytest.raises(CorruptData, match=f"{config} is not valid JSON"):
        write(config, "{").find("a")


# -- helpers: R10


def test_a_helper_s_answer_is_the_credential(config: Path, helper: Any) -> None:
    helper("one", f"""print('{{"ServerURL": "' + sys.stdin.read() + '", "Username": "u", "Secret": "{SECRET}"}}')""")
    helper("two", """print('{"Username": "<token>", "Secret": "' + sys.stdin.read() + '"}')""")
    credentials = write(config, {"credsStore": "one", "credHelpers": {"b:5000": "two", "docker.io": "two"}})
    assert credentials.find("a") == ("u", SECRET, "")
    assert credentials.find("b:5000") == ("", "", "b:5000")
    assert credentials.find("docker.io") == ("", "", "https://index.docker.io/v1/")


def test_a_helper_decides_even_where_the_file_has_a_password(config: Path, helper: Any) -> None:
    helper("empty", "print('credentials not found in native keychain'); sys.exit(1)")
    assert write(config, {"credsStore": "empty", "auths": {"a": auth()}}).find("a") is None


# R10
@pytest.mark.parametrize("name", ["../evil", "a/b", "/bin/sh", "..", "a b", "a\nb", "a;b", "$(x)", "-\0", 7, ["x"]])
def test_a_helper_s_name_must_be_a_word(config: Path, name: object) -> None:
    for document in ({"credsStore": name}, {"credHelpers": {"a": name}}):
        with pytest.raises(InvalidInput, match="invalid name of a credential helper"):
            write(config, document).find("a")


# R10
@pytest.mark.parametrize("registry", ["a\nb", "a b", "a\0", "\x1b[2J", "a\u2028b"])
def test_a_server_s_name_must_be_on_one_line(config: Path, helper: Any, registry: str) -> None:
    helper("x", 'print(\'{"Username": "u", "Secret": "s"}\')')
    with pytest.raises(InvalidInput, match="invalid registry"):
        write(config, {"credsStore": "x"}).find(registry)


# R10
@pytest.mark.parametrize(
    "body, reason",
    [
        ("time.sleep(60)", "did not answer within 0.4 seconds"),
        ("sys.stdout.close(); time.sleep(60)", "did not answer within 0.4 seconds"),
        ("while True: sys.stdout.write('x' * 65536)", "it wrote more than 1048576 bytes"),
        (f"print('{SECRET}'); print('{SECRET}', file=sys.stderr); sys.exit(3)", "get failed with status 3"),
        (f"print('{SECRET}')", "is not valid JSON"),
        (f"""print('["{SECRET}"]')""", "is not an object"),
        (f"""print('{{"Username": 1, "Secret": "{SECRET}"}}')""", "has no Username or no Secret"),
    ],
)
def test_a_helper_that_misbehaves_is_an_error_without_the_secret(
    config: Path, helper: Any, body: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    helper("bad", body)
    credentials = Credentials(write(config, {"credsStore": "bad"}).files, helper_seconds=0.4)
    start = time.monotonic()
    with pytest.raises((RegistryFailure, CorruptData), match="docker-credential-bad") as caught:
        credentials.find("a")
    assert reason in str(caught.value)
    assert SECRET not in f"{caught.value}{caught.value.hint}"
    assert SECRET not in "".join(capfd.readouterr())
    assert time.monotonic() - start < 5


def test_a_helper_that_is_not_installed_is_named(config: Path) -> None:
    with pytest.raises(RegistryFailure, match="docker-credential-nowhere is not in PATH"):
        write(config, {"credsStore": "nowhere"}).find("a")


# -- login and logout: R11


# R11
def test_a_secret_is_never_shown() -> None:
    credential = Credential("alice", SECRET, "idt-secret")
    assert SECRET not in f"{credential} {credential!r} {[credential]}"
    assert "idt-secret" not in f"{credential!r}"


# R11
def test_save_writes_for_the_owner_s_eyes_only_and_keeps_the_rest(config: Path) -> None:
    credentials = write(config, {"auths": {"b": auth("bob")}, "detachKeys": "ctrl-x", "unknown": [1]})
    config.chmod(0o644)
    assert credentials.save("docker.io", Credential("alice", SECRET)) == str(config)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    document = json.loads(config.read_text())
    assert document == {
        "auths": {"b": auth("bob"), "https://index.docker.io/v1/": auth()},
        "detachKeys": "ctrl-x",
        "unknown": [1],
    }
    assert credentials.find("docker.io") == ("alice", SECRET, "")
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]


def test_save_makes_the_directory_and_follows_a_link_to_the_file(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "new" / "config.json")
    Credentials((str(link),)).save("a", Credential("alice", "", "idt"))
    assert link.is_symlink()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert Credentials((str(tmp_path / "new" / "config.json"),)).find("a") == ("alice", "", "idt")


def test_erase_forgets_every_spelling_and_nothing_else(config: Path) -> None:
    credentials = write(config, {"auths": {"a:5": auth(), "https://a:5/v1/": auth(), "a": auth()}})
    assert credentials.erase("a:5")
    assert list(json.loads(config.read_text())["auths"]) == ["a"]
    before = config.stat().st_mtime_ns
    assert not credentials.erase("a:5")
    assert config.stat().st_mtime_ns == before


# R11
def test_a_helper_stores_and_erases_and_gets_no_secret_as_an_argument(
    config: Path, helper: Any, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    helper("log", f"open({str(record)!r}, 'a').write(repr(sys.argv[1:]) + sys.stdin.read() + '\\n')\nprint('{{}}')")
    credentials = write(config, {"credsStore": "log"})
    assert credentials.save("a", Credential("alice", SECRET)) == "docker-credential-log"
    credentials.save("b", Credential(identity_token="idt"))
    assert record.read_text().splitlines() == [
        f'[\'store\']{{"ServerURL": "a", "Username": "alice", "Secret": "{SECRET}"}}',
        '[\'store\']{"ServerURL": "b", "Username": "<token>", "Secret": "idt"}',
    ]
    helper(
        "log",
        f"open({str(record)!r}, 'a').write(verb + sys.stdin.read() + '\\n')\n"
        """print('{"Username": "u", "Secret": "s"}')""",
    )
    assert credentials.erase("a")
    assert record.read_text().splitlines()[2:] == ["geta", "erasea"]
    assert SECRET not in config.read_text()


@given(st.text(st.characters(codec="utf-8", exclude_characters=":\0")), st.text(st.characters(codec="utf-8")))
def test_any_name_and_password_make_a_basic_header(username: str, password: str) -> None:
    kind, _, value = Credential(username, password).basic().partition(" ")
    assert kind == "Basic"
    assert base64.b64decode(value).decode() == f"{username}:{password}"
