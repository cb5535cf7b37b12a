"""The user's config.toml: what it can say, and that nothing misspelt is passed over."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.engine.configuration import Configuration, configuration_path, load_configuration, parse_configuration
from rootless.errors import InvalidInput

EVERYTHING = b"""
[storage]
root = "/scratch/alice/rootless"

[run]
network = "host"
detach_keys = "ctrl-a,d"

[registry."docker.io"]
mirrors = ["mirror.example.org"]

[registry."registry.example.org:5000"]
insecure = true
ca_file = "/etc/ssl/private-ca.pem"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROOTLESS_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path / "config.toml"


def test_everything_that_can_be_said() -> None:
    configuration = parse_configuration(EVERYTHING, "config.toml")
    assert configuration == Configuration(
        "/scratch/alice/rootless",
        "host",
        "ctrl-a,d",
        {
            "docker.io": {"mirrors": ["mirror.example.org"]},
            "registry.example.org:5000": {"insecure": True, "ca_file": "/etc/ssl/private-ca.pem"},
        },
    )


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"[run]\n", b"[storage]\n[run]\n[registry]\n"])
def test_what_is_not_said_is_as_usual(data: bytes) -> None:
    assert parse_configuration(data, "config.toml") == Configuration()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[run\n", r"config\.toml: .*line 1"),
        (b"\xff", r"config\.toml: "),
        (b"[rum]\nnetwork = 'none'", r"config\.toml: unknown section \[rum\]"),
        (b"[run]\nnetwrok = 'none'", r"unknown key 'netwrok' in \[run\]"),
        (b"[run]\nnetwork = 1", r"network in \[run\] must be a str"),
        (b"run = 'x'", "run must be a section"),
        (b"networks = 'none'", r"unknown section \[networks\]"),
        (b"network = 'none'", r"network must be a section"),
        (b"[network]\ntcp = 'fast'", r"tcp in \[network\] must be one of auto, kernel, user"),
        (b"[registry.'a']\nmirror = []", r"unknown key 'mirror' in \[registry\.a\]"),
        (b"[registry.'a']\ninsecure = 'yes'", r"insecure in \[registry\.a\] must be a bool"),
        (b"[registry.'a']\nmirrors = 'b'", r"mirrors in \[registry\.a\] must be a list"),
        (b"[registry.'a']\nmirrors = [1]", r"mirrors in \[registry\.a\] must be a list of strings"),
        (b"[registry]\na = 1", r"registry\.a must be a section"),
        (b"registry = 1", "registry must be a section"),
    ],
)
def test_what_cannot_be_right_is_named(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_configuration(data, "config.toml")


def test_the_file_is_where_the_environment_says(file: Path) -> None:
    file.write_bytes(EVERYTHING)
    assert configuration_path() == str(file)
    assert load_configuration().network == "host"


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"HOME": "/home/a", "XDG_CONFIG_HOME": "/cfg"}, "/cfg/rootless/config.toml"),
        ({"HOME": "/home/a", "XDG_CONFIG_HOME": ""}, "/home/a/.config/rootless/config.toml"),
        ({"HOME": "/home/a"}, "/home/a/.config/rootless/config.toml"),
    ],
)
def test_the_file_is_where_such_files_are(
    variables: dict[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ROOTLESS_CONFIG", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert configuration_path() == path


def test_without_a_file_all_is_as_usual(file: Path) -> None:
    assert load_configuration() == Configuration()


def test_a_file_that_cannot_be_read_is_an_error(file: Path) -> None:
    file.mkdir()
    with pytest.raises(InvalidInput, match=r"cannot read .*config\.toml: Is a directory"):
        load_configuration()


@given(st.binary() | st.text().map(str.encode))
def test_any_file_is_a_configuration_or_an_error(data: bytes) -> None:
    try:
        parse_configuration(data, "config.toml")
    except InvalidInput as error:
        message = str(error)
    else:
        message = "config.toml: "
    assert message.startswith("config.toml: ")
