"""--userns: what ids a container has, on disk and inside, beside podman's; and that two of them share none."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.engine.options import UserNamespace
from rootless.engine.userns import Row, disk_rows, free_stretch, keep_id_rows, parse_userns
from rootless.errors import Conflict, RootlessError
from tests.support.account import Installation
from tests.support.containers import Box
from tests.support.podman import Podman

ME, MY_GROUP = os.getuid(), os.getgid()
IDS = st.integers(min_value=0, max_value=200_000)

real = [pytest.mark.kernel, pytest.mark.fuse]


def test_modes_are_known_or_refused() -> None:
    for usual in ("", "host", "private"):
        assert parse_userns(usual) is None
    assert parse_userns("keep-id") == UserNamespace("keep-id")
    assert parse_userns("keep-id:uid=200,gid=210") == UserNamespace("keep-id", 200, 210)
    assert parse_userns("auto:size=4096") == UserNamespace("auto", size=4096)
    for wrong in ("keep", "keep-id:size=1", "keep-id:uid=", "keep-id:uid=-1", "keep-id:", "keep-id:uid=4294967295",
                  "nomap:uid=1", "auto:size=0", "auto:size=x", "container:x", "ns:/proc/1/ns/user"):  # fmt: skip
        with pytest.raises(RootlessError):
            parse_userns(wrong)


@given(own=IDS, highest=IDS)
def test_with_keep_id_each_id_has_one_name_and_the_user_his_own(own: int, highest: int) -> None:
    rows = keep_id_rows(own, highest)
    assert Row(own, 0, 1) in rows
    for kind in ("inside", "outside"):
        ranges = sorted((getattr(row, kind), getattr(row, kind) + row.size) for row in rows)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(ranges))
        if kind == "outside":
            assert (ranges[0][0], ranges[-1][1]) == (0, highest + 1)
            assert sum(end - begin for begin, end in ranges) == highest + 1
    shown = disk_rows(own, highest) or [Row(row.inside, row.inside, row.size) for row in rows]
    assert all(row.outside >= 0 and row.outside + row.size - 1 <= max(highest, own) for row in shown)


@given(st.lists(st.integers(min_value=1, max_value=900), max_size=12))
def test_stretches_of_auto_never_meet(sizes: list[int]) -> None:
    taken: list[Row] = []
    for size in sizes:
        try:
            first = free_stretch(taken, size, 5000)
        except Conflict:
            assert sum(row.size for row in taken) + size > 5000
            continue
        assert first >= 1
        assert first + size <= 5001
        assert all(first + size <= row.outside or row.outside + row.size <= first for row in taken)
        taken.append(Row(0, first, size))


def test_what_was_released_is_used_again() -> None:
    taken = [Row(0, 4001, 1000), Row(0, 2001, 1000)]
    assert free_stretch(taken, 1000, 5000) == 3001
    assert free_stretch(taken, 1001, 5000) == 1000


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory of the user's with a file that is nobody else's."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        (path / "mine").write_text("mine\n")
        (path / "mine").chmod(0o600)
        yield path


LOOK = "id -u; id -g; stat -c '%u %g' /shared/mine /bin/busybox /etc; cat /shared/mine; grep Cap /proc/self/status"


class TestKeepId:
    """The user inside is who he is outside; the image's root is still root."""

    pytestmark = real

    def test_it_is_as_with_podman(
        self, image: Callable[[str], str], rootless: Installation, podman: Podman, shared: Path
    ) -> None:
        def ask(options: str, script: str) -> list[str]:
            words = ("run", "--rm", "--net=none", "--cap-drop=all", "-v", f"{shared}:/shared", *options.split())
            command = (*words, image("busybox"), "sh", "-c", script)
            theirs, ours = podman.run(*command), rootless.run(*command).stdout
            assert ours == theirs, options
            return ours.splitlines()

        said = ask("--userns keep-id", LOOK)
        assert said[:6] == [str(ME), str(MY_GROUP), f"{ME} {MY_GROUP}", "0 0", "0 0", "mine"]
        name = f"cat /proc/self/uid_map /proc/self/gid_map; grep ':{ME}:' /etc/passwd | cut -d: -f1,3,4"
        assert ask("--userns keep-id", name)[-1].endswith(f":{ME}:{MY_GROUP}")
        ask("--userns keep-id -u 0", LOOK)
        ask("--userns keep-id -u 33:34", "id -u; id -g; touch /tmp/x; stat -c '%u %g' /tmp/x")
        ask("--userns keep-id:uid=2000,gid=3000", LOOK + "; cat /proc/self/uid_map")
        ask("--userns keep-id", "touch /shared/made; stat -c '%u %g' /shared/made; touch /etc/x 2>/dev/null || echo no")
        assert (shared / "made").stat().st_uid == ME

    def test_files_are_the_images_ids_for_everybody_who_looks(self, box: Box, shared: Path) -> None:
        script = "echo x > /tmp/of-user; while :; do sleep 1; done"
        name = box.detached(script, "--userns", "keep-id", "-v", f"{shared}:/shared")
        assert box("exec", name, "id", "-u").stdout.strip() == str(ME)
        root = "touch /root/of-root; id -u; cat /shared/mine; echo y > /dev/stdout"
        assert box("exec", "-u", "0", name, "sh", "-c", root).stdout.split() == ["0", "mine", "y"]
        (shared / "in").write_text("in\n")
        box("cp", str(shared / "in"), f"{name}:/etc/in")
        box("cp", "-a", str(shared / "in"), f"{name}:/etc/mine")
        assert box("exec", name, "stat", "-c", "%u", "/etc/in", "/etc/mine").stdout.split() == ["0", str(ME)]
        box("cp", f"{name}:/tmp/of-user", str(shared / "out"))
        assert (shared / "out").read_text() == "x\n"
        assert (shared / "out").stat().st_uid == ME
        assert {"A /root/of-root", "A /etc/in", "A /tmp/of-user"} <= set(box("diff", name).stdout.splitlines())
        document = box.inspect(name)
        assert (document["HostConfig"]["UsernsMode"], document["Security"]["UserNamespace"]) == ("keep-id", "keep-id")
        assert document["Security"]["Uids"][0][:2] == [0, 1]
        assert document["Security"]["WritableHostPaths"] == [str(shared)]
        box("commit", name, "test:kept")
        owners = box("run", "--rm", "test:kept", "stat", "-c", "%u", "/root/of-root", "/etc/in", "/tmp/of-user")
        box("rmi", "test:kept")
        assert owners.stdout.split() == ["0", "0", str(ME)]
        box("restart", "-t", "0", name)
        assert box("exec", name, "sh", "-c", "id -u; cat /tmp/of-user").stdout.split() == [str(ME), "x"]

    def test_a_number_beyond_the_subordinate_ids_makes_files_as_well(self, box: Box) -> None:
        script = "id -u; touch /tmp/x; mkdir /tmp/d; stat -c %u /tmp/x /tmp/d; stat -c %u /etc"
        assert box.sh(script, "--userns", "keep-id:uid=1234567").split() == ["1234567"] * 3 + ["0"]

    def test_namespaces_of_others_cannot_be_shared(self, box: Box) -> None:
        name = box.detached("sleep 1000")
        for kind in ("--pid", "--ipc"):
            done = box.run("true", options=("--userns", "keep-id", kind, f"container:{name}"), check=False)
            assert done.returncode == 125
            assert "another user namespace" in done.stderr


class TestOthers:
    """Containers in which the user is nobody."""

    pytestmark = real

    @pytest.mark.parametrize("mode", ["nomap", "auto"])
    def test_the_user_is_nobody_and_root_is_root(self, mode: str, box: Box, shared: Path) -> None:
        shared.chmod(0o755)
        name = box.detached(
            "touch /data/x /tmp/y; echo ready > /dev/stdout; sleep 1000",
            *("--userns", mode, "-v", f"{shared}:/shared", "-v", "/data"),
        )
        assert box.says(name, "ready")
        script = "id -u; stat -c %u /shared/mine /etc /data/x /tmp/y; cat /shared/mine || echo no; echo z > /dev/stdout"
        said = box("exec", name, "sh", "-c", script).stdout.split()
        assert said == ["0", "65534", "0", "0", "0", "no", "z"]
        pid = box.recorded(name)["pid"]
        [uids] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:")]
        assert str(ME) not in uids.split()
        assert "A /tmp/y" in box("diff", name).stdout.splitlines()
        assert "stop it first" in box("cp", f"{name}:/tmp/y", str(shared), check=False).stderr
        box("stop", "-t", "0", name)
        box("cp", f"{name}:/tmp/y", str(shared))
        box("start", name)
        assert box("exec", name, "ls", "/tmp").stdout.split() == ["y"]

    def test_containers_with_auto_share_no_id(self, box: Box) -> None:
        maps = []
        for _ in range(3):
            name = box.detached("sleep 1000", "--userns", "auto:size=2000")
            maps.append(json.loads((box.store / "containers" / name / "container.json").read_text())["userns"]["uids"])
        stretches = [set(range(first, first + size)) for [[_, first, size]] in maps]
        assert [len(ids) for ids in stretches] == [2000] * 3
        assert not stretches[0] & stretches[1]
        assert not (stretches[0] | stretches[1]) & stretches[2]
        done = box.run("true", options=("--userns", "auto:size=1000000"), check=False)
        assert done.returncode == 125
        assert "ids left" in done.stderr
