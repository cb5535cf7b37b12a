"""Which rung it is, on trees that are made of directories."""

import os
from pathlib import Path

import pytest

from rootless.errors import InvalidInput
from rootless.runtime import cgroup_ladder

UID = os.getuid()
USERS = f"/user.slice/user-{UID}.slice"


def made(tree: Path, path: str, controllers: str = "cpu memory pids", *, writable: bool = True) -> Path:
    directory = tree / path.lstrip("/")
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (directory / name).touch(mode=0o600 if writable else 0o400)
    (directory / "cgroup.controllers").write_text(f"{controllers}\n")
    return directory


def test_a_cgroup_that_is_ours_is_divided(tmp_path: Path) -> None:
    base = made(tmp_path, "/job_7/step_0")
    for own in ("/job_7/step_0", "/job_7/step_0/rootless.rest"):
        made(tmp_path, own)
        rung = cgroup_ladder.find(tree=str(tmp_path), own=own, socket="")
        assert (rung.kind, rung.base, rung.controllers) == ("subtree", str(base), ["cpu", "memory", "pids"])


def test_from_a_session_systemd_is_asked(tmp_path: Path) -> None:
    made(tmp_path, f"{USERS}/session-1.scope", writable=False)
    made(tmp_path, f"{USERS}/user@{UID}.service")
    own = f"{USERS}/session-1.scope"
    rung = cgroup_ladder.find(tree=str(tmp_path), own=own, socket="/bus")
    assert (rung.kind, rung.controllers) == ("systemd", ["cpu", "memory", "pids"])
    rung = cgroup_ladder.find(tree=str(tmp_path), own=own, socket="")
    assert rung.kind == "none"
    assert "no systemd" in rung.why


def test_a_unit_of_the_users_systemd_is_not_ours_though_we_could_write_to_it(tmp_path: Path) -> None:
    own = f"{USERS}/user@{UID}.service/app.slice/terminal.scope"
    made(tmp_path, own)
    assert cgroup_ladder.find(tree=str(tmp_path), own=own, socket="/bus").kind == "systemd"


def test_a_parent_is_taken_at_its_word(tmp_path: Path) -> None:
    base = made(tmp_path, "/mine")
    made(tmp_path, "/others", writable=False)
    rung = cgroup_ladder.find("/mine", tree=str(tmp_path), own="/", socket="/bus")
    assert (rung.kind, rung.base) == ("subtree", str(base))
    rung = cgroup_ladder.find("builds.slice", tree=str(tmp_path), own="/mine", socket="/bus")
    assert (rung.kind, rung.slice) == ("systemd", "builds.slice")
    for parent in ("/others", "/nosuch", "/mine/../others", "/"):
        with pytest.raises(InvalidInput, match="invalid cgroup parent"):
            cgroup_ladder.find(parent, tree=str(tmp_path), own="/", socket="/bus")
    with pytest.raises(InvalidInput, match=r"a slice is systemd's"):
        cgroup_ladder.find("builds.slice", tree=str(tmp_path), own="/", socket="")


def test_without_version_2_there_is_no_rung() -> None:
    assert cgroup_ladder.find(tree="").kind == "none"


def test_what_this_namespace_does_not_show_is_not_ours(tmp_path: Path) -> None:
    assert cgroup_ladder.find(tree=str(tmp_path), own="/../elsewhere", socket="").kind == "none"
