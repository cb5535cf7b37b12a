"""commit, cp and export, where they depend on what carries the roots of containers."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box, layer_of, made

pytestmark = pytest.mark.kernel


def test_an_image_has_what_the_container_changed(box: Box, committed: Any) -> None:
    script = """
        echo new > /new; ln /new /hard; ln -s /nowhere /link; mkfifo /fifo; mkdir -p /a/b; chmod 700 /a/b
        echo more >> /etc/passwd; rm /etc/group; rm -r /home; mkdir /home; echo x > /home/x
        chown 7:8 /new; chmod 4711 /new; touch -d @12345 /a/b
    """
    container = made(box, script)
    image = committed(container)
    shown = box("run", "--rm", image, "sh", "-c", """
        cat /new /hard; readlink /link; stat -c '%a %u:%g %h' /new; tail -n 1 /etc/passwd; ls /etc/group 2>&1; ls /home
        test -p /fifo && echo fifo; stat -c '%a %Y' /a/b
    """).stdout  # fmt: skip
    assert shown.splitlines() == [
        "new", "new", "/nowhere", "4711 7:8 2", "more", "ls: /etc/group: No such file or directory", "x",
        "fifo", "700 12345",
    ]  # fmt: skip


def test_mount_points_and_what_is_in_volumes_are_left_out(box: Box, committed: Any) -> None:
    container = made(box, "echo x > /data/x; echo y > /made", "-v", "/data", "--tmpfs", "/scratch", "-v", "/opt/deep")
    image = committed(container)
    names = {path.name for path in layer_of(box, image).iterdir()}
    assert names == {"made", "opt"}
    assert [path.name for path in (layer_of(box, image) / "opt").iterdir()] == []


def test_what_is_still_in_memory_is_in_the_image(box: Box, committed: Any) -> None:
    container = box.detached("exec 3> /open; echo written >&3; echo ready; exec sleep 1000")
    assert box.says(container, "ready")
    assert box("run", "--rm", committed(container), "cat", "/open").stdout == "written\n"


def exported(box: Box, container: str) -> dict[str, tarfile.TarInfo]:
    data = box.installed.run_bytes("export", container).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        return {member.name: member for member in file}


@pytest.mark.parametrize("state", ["running", "exited"])
def test_an_archive_has_all_files_but_those_of_mounts(box: Box, state: str) -> None:
    script = "echo new > /new; rm /etc/group; echo x > /data/x; mkfifo /fifo; chmod 2750 /home; echo ready; "
    container = box.detached(script + ("exec sleep 1000" if state == "running" else ""), "-v", "/data")
    assert box.says(container, "ready")
    assert wait_until(lambda: box.state(container)["Status"] == state)
    found = exported(box, container)
    assert {"bin/busybox", "new", "data", "proc", "fifo"} <= found.keys()
    assert not {"etc/group", "data/x", "proc/self", "dev/null"} & found.keys()
    assert (found["home"].mode, found["bin/sh"].linkname) == (0o2750, found["bin/["].linkname or "bin/[")
    assert found["etc/hosts"].size == 0


@pytest.mark.parametrize("state", ["running", "exited"])
def test_files_are_copied_out_and_in(box: Box, tmp_path: Path, state: str) -> None:
    script = (
        "mkdir /s; echo one > /s/file; ln /s/file /s/hard; exec 3> /s/open; echo two >&3; rm -r /home; echo ready; "
    )
    container = box.detached(script + ("exec sleep 1000" if state == "running" else ""), "-v", "/data")
    assert box.says(container, "ready")
    assert wait_until(lambda: box.state(container)["Status"] == state)
    (tmp_path / "in").write_text("in")
    before = box.installed.leftovers()
    box("cp", "-q", f"{container}:/s", str(tmp_path / "out"))
    box("cp", "-q", str(tmp_path / "in"), f"{container}:/home")
    box("cp", "-q", str(tmp_path / "in"), f"{container}:/data")
    assert wait_until(lambda: not box.installed.leftovers().beyond(before).processes)
    assert not box.installed.leftovers().beyond(before).mounts
    assert (tmp_path / "out/file").read_text() == "one\n"
    assert (tmp_path / "out/open").read_text() == "two\n"
    assert (tmp_path / "out/hard").samefile(tmp_path / "out/file")
    assert {("A", "/s"), ("A", "/s/hard")} <= {
        tuple(line.split()) for line in box("diff", container).stdout.splitlines()
    }
    assert box("cp", f"{container}:/data/in", "-").stdout.startswith("in\0")
    assert box("cp", f"{container}:/home", "-").stdout.startswith("home\0")
    if state == "exited":
        box("start", container)


def test_the_machine_s_own_files_are_read_and_its_copies_written(box: Box, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("in")
    box("create", "--name", "machine", "host", "cat", "/etc/in")
    box("cp", "-q", str(tmp_path / "in"), "machine:/etc")
    box("cp", "-q", "machine:/etc/passwd", str(tmp_path))
    assert (tmp_path / "passwd").read_bytes() == Path("/etc/passwd").read_bytes()
    assert not Path("/etc/in").exists()
    assert box("start", "-a", "machine").stdout == "in"
    assert "has no image" in box("commit", "machine", check=False).stderr
