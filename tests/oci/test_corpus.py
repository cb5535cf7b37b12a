"""The corpus of bundles: inside, the same is seen by rootless-oci, crun and runc, but for a list with reasons."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.oci import rig
from tests.oci.corpus import CASES, DIFFERENCES, Case

_MISSING = [name for name in ("crun", "runc", "busybox", "newuidmap") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]
PEERS = ("crun", "runc")
Seen = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("corpus")
    for place in (directory, *directory.parents):
        if os.stat(place).st_uid == os.geteuid():
            place.chmod(0o711)  # the root of another user namespace has to get there
    yield rig.run_all(directory)
    subprocess.run(["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", str(directory)], check=True)


def differences(case: Case, ours: dict[str, Any], peers: dict[str, Any], peer: str) -> tuple[str, ...]:
    """In what the peer's result differs: "status", or parts of what was seen."""
    if case.said:
        return ("status",) if peers["status"] == 0 else ()
    if ours["status"] != peers["status"]:
        return ("status",)
    if ours["status"]:
        return ()
    names = sorted({*ours["sections"], *peers["sections"]})
    return tuple(name for name in names if part(ours, name, peer) != part(peers, name, peer))


def part(result: dict[str, Any], name: str, peer: str) -> list[str]:
    """A part of what was seen. runc, as every program in Go, raises its own limit of open files, and hands that on."""
    lines: list[str] = result["sections"].get(name, [])
    return [line for line in lines if peer != "runc" or not line.startswith("Max open files")]


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_is_seen_as_by_the_peer_but_for_what_is_listed(seen: Seen, case: Case, peer: str) -> None:
    ours, peers = seen["rootless"][case.name], seen[peer][case.name]
    listed, _ = DIFFERENCES.get((case.name, peer), ((), ""))
    told = f"{ours}\n{peers}"
    assert differences(case, ours, peers, peer) == listed, told
    assert ours["log"] == peers["log"] or ours["status"] or listed, told


@pytest.mark.parametrize("case", [c for c in CASES if c.said], ids=lambda case: case.name)
def test_what_is_wrong_is_said_with_its_place_and_nothing_is_left(seen: Seen, case: Case) -> None:
    ours = seen["rootless"][case.name]
    assert ours["status"] == 1
    assert ours["stderr"].startswith(f"rootless-oci: config.json: {case.said}")


def test_no_error_is_a_traceback_and_no_state_is_left(seen: Seen) -> None:
    assert [name for name, result in seen["rootless"].items() if "Traceback" in result["stderr"]] == []
    assert seen["rootless"][CASES[-1].name]["left"] in ([], ["state"])


def test_the_corpus_has_each_name_once_and_no_difference_without_a_case() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 80
    assert {name for name, _ in DIFFERENCES} - set(names) == set()


def test_hooks_run_in_order_with_a_state(seen: Seen) -> None:
    assert seen["rootless"]["hooks"]["log"].split() == [
        "prestart", "createRuntime", "createContainer", "poststart", "poststop"]  # fmt: skip


def test_a_bundle_is_not_changed_by_who_wrote_it(tmp_path: Path) -> None:
    first, second = (rig.configuration(CASES[0], tmp_path) for _ in range(2))
    assert first == second
