"""A neighbour that changes the tree while a container is being put together on it."""

import os
from pathlib import Path

import pytest

from tests.support.canary import Canary
from tests.support.hostile import LONG, Box, no_traceback, running
from tests.support.racer import racing

pytestmark = pytest.mark.kernel

STARTS = 1000 if LONG else 12


def test_a_mount_below_a_shared_volume_stays_inside(box: Box, tmp_path: Path) -> None:  # X08, CVE-2021-30465
    """A directory on the way to mount points and to the working directory is swapped for a link that leads outside."""
    canary = Canary(tmp_path / "victim")
    shared, other = tmp_path / "shared", tmp_path / "other"
    (shared / "b").mkdir(parents=True)
    (shared / "link").symlink_to(canary.top)
    other.mkdir()
    (other / "file").write_text("the other's")
    outcomes = set()
    options = ["-v", f"{shared}:/a", "-v", f"{other}:/a/b/sub", "-v", f"{other}/file:/a/b/file", "--tmpfs", "/a/b/t/t"]
    options += ["-v", "/a/b/volume", "-w", "/a/b/work/dir"]
    starts = 0
    with racing(shared / "b", shared / "link") as racer:
        while starts < STARTS or racer.goes_on():
            script = "echo x > file; cat /proc/self/mountinfo"
            status, said = no_traceback(box.rootless, "run", "--rm", *options, box.image, "sh", "-c", script)
            assert status in (0, 125, 126), said
            outcomes.add(status)
            starts += 1
    assert 0 in outcomes
    assert canary.changes() == []
    assert (other / "file").read_text() in ("the other's", "x\n")
    assert {path.name for path in tmp_path.iterdir()} == {"victim", "shared", "other"}
    assert {path.name for path in other.iterdir()} <= {"file", "work", "sub", "t", "volume"}


def test_an_exec_starts_inside_whatever_is_swapped(box: Box, tmp_path: Path) -> None:  # X03, X08
    canary = Canary(tmp_path / "victim")
    shared = tmp_path / "shared"
    (shared / "b").mkdir(parents=True)
    (shared / "link").symlink_to(canary.top)
    with (
        running(box.rootless, box.image, "-v", f"{shared}:/a") as container,
        racing(shared / "b", shared / "link") as racer,
    ):
        starts = 0
        while starts < STARTS or racer.goes_on():
            command = ["exec", "-w", "/a/b", container, "sh", "-c", "cat passwd; echo x > file"]
            _, said = no_traceback(box.rootless, *command)
            assert "canary-secret" not in said
            starts += 1
    assert canary.changes() == []


def test_what_a_volume_gets_at_first_is_not_taken_from_outside(box: Box, tmp_path: Path) -> None:  # X08, CVE-2022-23648
    """A new volume is filled from a directory of the container, which a neighbour swaps meanwhile."""
    canary = Canary(tmp_path / "victim")
    shared = tmp_path / "shared"
    (shared / "b/data").mkdir(parents=True)
    (shared / "b/data/own").write_text("own")
    os.symlink(canary.top, shared / "b/link")
    with racing(shared / "b/data", shared / "b/link") as racer:
        starts = 0
        while starts < STARTS // 2 or racer.goes_on():
            options = ["-v", f"{shared}:/a", "-v", f"filled{starts}:/a/b/data"]
            no_traceback(box.rootless, "run", "--rm", *options, box.image, "true")
            starts += 1
    volumes = box.rootless.data / "rootless/volumes"
    assert canary.leaks_into(volumes) == []
    assert canary.changes() == []
    box.rootless.run("volume", "rm", *(f"filled{number}" for number in range(starts)))
