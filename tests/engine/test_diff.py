"""diff: what a container changed, and nothing that it did not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box

pytestmark = [pytest.mark.kernel, pytest.mark.registry]


def changes(box: Box, script: str, *options: str, image: str = "") -> list[str]:
    box("run", "--name", "changed", *options, image or box.image, "sh", "-c", script)
    return box("diff", "changed").stdout.splitlines()


def test_what_only_ran_changed_nothing(box: Box) -> None:
    assert changes(box, "true", "-v", "/data", "--tmpfs", "/mem", "-w", "/") == []


def test_files_that_are_added_changed_and_deleted(box: Box) -> None:
    script = "echo x >/new; mkdir -p /dir/sub; echo x >/dir/sub/file; echo x >>/etc/passwd; rm /etc/group; rmdir /var"
    assert changes(box, script) == [
        "A /dir", "A /dir/sub", "A /dir/sub/file", "C /etc", "D /etc/group", "C /etc/passwd", "A /new", "D /var",
    ]  # fmt: skip


def test_a_change_of_mode_or_owner_is_a_change(box: Box) -> None:
    assert changes(box, "chmod 600 /etc/passwd; chown 5 /home/user") == [
        "C /etc",
        "C /etc/passwd",
        "C /home",
        "C /home/user",
    ]


def test_what_became_something_else(box: Box) -> None:
    script = "rm /etc/passwd; mkdir /etc/passwd; touch /etc/passwd/x; rm -r /home; ln -s /tmp /home; mv /root /moved"
    found = changes(box, script)
    assert "C /etc/passwd" in found
    assert "A /etc/passwd/x" in found
    assert "C /home" in found
    assert {"A /moved", "D /root"} <= set(found)


def test_a_directory_that_was_made_anew_hides_what_it_had(box: Box) -> None:
    found = changes(box, "rm -r /home; mkdir -p /home/other; chmod 700 /home")
    assert found == ["C /home", "A /home/other", "D /home/user"]


def test_over_several_layers(box: Box, image: Callable[[str], str]) -> None:
    script = "cd /data; rm -r opaque again; mkdir opaque; echo x | tee opaque/old gone became-directory/inside"
    assert changes(box, script, image=image("whiteouts")) == [
        "C /data", "D /data/again", "C /data/became-directory", "C /data/became-directory/inside", "A /data/gone",
        "C /data/opaque", "D /data/opaque/new", "A /data/opaque/old",
    ]  # fmt: skip


def test_files_in_a_volume_are_no_changes_but_those_beside_it_are(box: Box) -> None:
    found = changes(box, "echo x >/data/sub/in; echo x >/data/beside", "-v", "/data/sub")
    assert found == ["A /data", "A /data/beside"]


def test_of_a_container_that_runs_and_of_none(box: Box) -> None:
    box.detached("echo x >/new; sleep 60", "--name", "runs")
    assert wait_until(lambda: box("diff", "runs").stdout == "A /new\n")
    assert box("diff", "nobody", check=False).returncode == 1


def test_of_the_machines_own_tree(box: Box, storage_driver: str) -> None:
    home = os.path.expanduser("~")
    above = [str(path) for path in reversed(Path(home).parents[:-1])]  # belong to it where it is one layer
    box("run", "--name", "own", "host", "sh", "-c", f"echo x >{home}/written-in-a-container")
    changed = [*(above if storage_driver == "fuse" else []), home]
    assert box("diff", "own").stdout.splitlines() == [*(f"C {p}" for p in changed), f"A {home}/written-in-a-container"]
    assert not os.path.exists(f"{home}/written-in-a-container")
