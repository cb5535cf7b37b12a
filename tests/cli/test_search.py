"""search as people see it, of a registry with a search and of one with a catalog."""

import json
from collections.abc import Iterator

import pytest

from tests.support.account import Installation, installation
from tests.support.fault_registry import Fault, FaultRegistry

ROWS = [
    {"name": "team/debian", "description": "A\nlong " + "word " * 20, "star_count": 12, "is_official": True},
    {"name": "team/other", "description": "", "star_count": 1, "is_official": False},
]


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    with installation() as made:
        yield made


@pytest.fixture
def searching() -> Iterator[FaultRegistry]:
    with FaultRegistry() as registry:
        answer = Fault(status=200, body=json.dumps({"results": ROWS}).encode())
        registry.script("/v1/search", [answer], forever=True)
        yield registry


def test_a_table_says_what_there_is(installed: Installation, searching: FaultRegistry) -> None:
    heading, first, second = installed.run("search", f"{searching.host}/deb").stdout.splitlines()
    assert heading.split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert first.split()[0] == f"{searching.host}/team/debian"
    assert first.split()[-2:] == ["12", "[OK]"]
    assert "…" in first
    assert second.split() == [f"{searching.host}/team/other", "1"]
    assert searching.seen("/v1/search")[0].query == {"q": ["deb"], "n": ["25"]}


def test_filters_limits_and_templates(installed: Installation, searching: FaultRegistry) -> None:
    words = ("search", "--format", "{{.Name}} {{.StarCount}}")
    for options in (("-f", "stars=5"), ("-f", "is-official=true"), ("--limit", "1")):
        lines = installed.run(*words, *options, f"{searching.host}/deb").stdout.splitlines()
        assert lines == [f"{searching.host}/team/debian 12"]
    full = installed.run("search", "--no-trunc", f"{searching.host}/deb").stdout
    assert ("word " * 20).strip() in full


def test_a_registry_without_a_search_has_a_catalog(installed: Installation) -> None:
    with FaultRegistry() as registry:
        names = json.dumps({"repositories": ["a/debian", "b"]}).encode()
        registry.script("/v2/_catalog", [Fault(status=200, body=names)], forever=True)
        assert f"{registry.host}/a/debian" in installed.run("search", f"{registry.host}/deb").stdout
        everything = installed.run("search", "--format", "{{.Name}}", f"{registry.host}/").stdout
        assert everything.splitlines() == [f"{registry.host}/a/debian", f"{registry.host}/b"]


def test_one_that_has_neither_says_so(installed: Installation) -> None:
    with FaultRegistry() as registry:
        done = installed.run("search", f"{registry.host}/deb", check=False)
        assert done.returncode == 1
        assert f"rootless: {registry.host} does not search, and does not let us list its repositories" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--limit", "0", "x"), "limit 0 is outside the range of [1, 100]"),
        (("--limit", "101", "x"), "limit 101 is outside the range of [1, 100]"),
        (("https://example.org/x",), "should not have a scheme"),
        (("-f", "stars=many", "x"), "invalid filter 'stars=many'"),
        (("-f", "colour=red", "x"), "invalid filter"),
    ],
)
def test_what_makes_no_sense_is_said(words: tuple[str, ...], said: str, installed: Installation) -> None:
    done = installed.run("search", *words, check=False)
    assert done.returncode == 1
    assert said in done.stderr
