"""Names and words that would mean something else where they are used: as a path, an option, a second line."""

from pathlib import Path

import pytest

from tests.support.canary import Canary, snapshot
from tests.support.hostile import Box, failure, running

pytestmark = pytest.mark.kernel

BAD_NAMES = [
    "../../x",
    "..",
    ".",
    "/",
    "/etc/passwd",
    "a/b",
    "-rf",
    "a\nb",
    "a b",
    "",
    "x" * 300,
    "é",
    "%2e%2e",
    "*",
    "$(id)",
]
VERBS_FOR_MANY = ["inspect", "start", "stop", "kill", "rm", "rm -f", "wait", "pause", "unpause", "restart", "rmi"]
VERBS_FOR_ONE = ["logs", "attach", "top", "diff", "exec"]


def records(box: Box) -> dict[str, str]:
    """All that the store says of containers, images and volumes, and the run directory of containers."""
    places = ("containers", "images", "names", "tags", "volumes")
    trees = [box.rootless.data / "rootless" / place for place in places]
    trees.append(box.rootless.runtime / "rootless" / "containers")
    return {f"{tree}/{path}": facts.content for tree in trees for path, facts in snapshot(tree).items()}


@pytest.mark.parametrize("verb", VERBS_FOR_MANY)
def test_a_name_that_is_a_path_names_no_container(box: Box, tmp_path: Path, verb: str) -> None:  # X25
    canary, before = Canary(tmp_path / "victim"), records(box)
    relative = "/".join([".."] * 12) + str(canary.top)
    arguments = [*verb.split(), "--", *BAD_NAMES, relative, str(canary.top)]
    if verb == "rm -f":  # as in Docker, it is fine if there is nothing
        assert box.rootless.run(*arguments, check=False).returncode in (0, 1)
    else:
        failure(box.rootless, *arguments, status=[1])
    assert canary.changes() == []
    assert records(box) == before


@pytest.mark.parametrize("verb", VERBS_FOR_ONE)
def test_the_same_for_verbs_that_take_one(box: Box, tmp_path: Path, verb: str) -> None:  # X25
    before = records(box)
    for name in BAD_NAMES if verb == "logs" else BAD_NAMES[:2]:
        failure(box.rootless, verb, "--", name, *(["true"] if verb == "exec" else []), status=[1])
    assert records(box) == before


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_container_is_called_so(box: Box, name: str) -> None:  # X25
    if name == "":  # as if nothing had been said
        return
    before = records(box)
    failure(box.rootless, "run", "--rm", "--name", name, box.image, "true", status=[125])
    assert records(box) == before


def test_no_container_is_renamed_so(box: Box) -> None:  # X25
    with running(box.rootless, box.image) as container:
        for name in BAD_NAMES:
            failure(box.rootless, "rename", "--", container, name, status=[1])
        name = box.rootless.run("inspect", "-f", "{{.Name}}", container).stdout
        assert name.startswith("/")


def test_no_volume_is_called_so(box: Box) -> None:  # X25
    before = records(box)
    for name in BAD_NAMES:
        if name:
            failure(box.rootless, "volume", "create", "--", name, status=[1])
    failure(box.rootless, "volume", "rm", "--", *BAD_NAMES, status=[1])
    failure(box.rootless, "volume", "inspect", "--", *BAD_NAMES, status=[1])
    for name in ("-rf", "a\nb", "é"):
        failure(box.rootless, "run", "--rm", "-v", f"{name}:/v", box.image, "true", status=[125])
    assert records(box) == before


@pytest.mark.parametrize("option", ["--pid", "--ipc", "--network", "--volumes-from"])
def test_no_other_container_is_meant_by_a_path(box: Box, option: str) -> None:  # X25
    for name in ("../../x", "-rf", "a\nb", "x" * 300):
        value = name if option == "--volumes-from" else f"container:{name}"
        failure(box.rootless, "run", "--rm", f"{option}={value}", box.image, "true", status=[125])


@pytest.mark.parametrize(
    "options",
    [
        ["--hostname", "a\nb"],
        ["--hostname", "a b"],
        ["--hostname", "x" * 65],
        ["--domainname", "a\nb"],
        ["--add-host", "a\n6.6.6.6 b:1.2.3.4"],
        ["--add-host", "a b:1.2.3.4"],
        ["--dns-search", "a\nnameserver 6.6.6.6"],
        ["--dns-search", "a b"],
        ["--dns-option", "ndots:1\nnameserver 6.6.6.6"],
        ["--dns", "1.2.3.4\nnameserver 6.6.6.6"],
    ],
)
def test_a_word_is_no_second_line(box: Box, options: list[str]) -> None:  # X26
    failure(box.rootless, "run", "--rm", *options, box.image, "cat", "/etc/hosts", status=[125])
