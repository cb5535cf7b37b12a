"""What is mounted into a container: binds, volumes, tmpfs."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.containers import Box
from tests.support.images import busybox_layer
from tests.support.layout import Layout, directory, file, push, symlink
from tests.support.registry import Registry

pytestmark = [pytest.mark.kernel, pytest.mark.registry]


@pytest.fixture(scope="session")
def filled(registry: Registry, scratch: Path) -> str:
    """An image with VOLUME /data, where it has files of several owners and kinds."""
    layout = Layout(scratch / "filled")
    entries = [
        directory("data", 0o750, 1000, 1000),
        file("data/file", b"from the image", 0o640, 1000, 42),
        directory("data/sub", 0o700, 33, 33),
        file("data/sub/inner", b"inner", 0o600, 33, 33),
        symlink("data/link", "sub/inner"),
        file("data/setuid", b"", 0o4755),
    ]
    config = {"Volumes": {"/data": {}}, "Cmd": ["sh"]}
    layout.set_top(layout.add_image([busybox_layer(layout), layout.add_layer(entries)], config))
    return push(layout, registry, "filled")


LISTING = "cd /data; stat -c '%a %u:%g %n' . * */*; cat file link"
CONTENT = """750 1000:1000 .
640 1000:42 file
777 0:0 link
4755 0:0 setuid
700 33:33 sub
600 33:33 sub/inner
from the imageinner"""


# --- binds


def test_a_directory_of_the_hosts_is_shared_both_ways(box: Box, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from outside")
    assert box.sh("cat /x/in; echo inside >/x/out; stat -c %u:%g /x/in", "-v", f"{tmp_path}:/x") == "from outside0:0\n"
    assert (tmp_path / "out").read_text() == "inside\n"
    assert (tmp_path / "out").stat().st_uid == os.getuid()


def test_a_file_of_the_hosts_is_shared_and_its_place_is_made(box: Box, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    options = ("-v", f"{tmp_path}/file:/new/place", "-v", f"{tmp_path}/file:/etc/passwd")
    assert box.sh("cat /new/place /etc/passwd; echo new >/new/place; cat /etc/passwd", *options) == "oldoldnew\n"
    assert (tmp_path / "file").read_text() == "new\n"


def test_read_only_is_read_only_with_all_that_is_below(box: Box, tmp_path: Path) -> None:
    done = box.run("sh", "-c", "echo x >/x/y", options=("-v", f"{tmp_path}:/x:ro"), check=False)
    assert (done.returncode, "Read-only file system" in done.stderr) == (1, True)
    done = box.run("sh", "-c", "echo x >/x/mqueue/y", options=("-v", "/dev:/x:ro"), check=False)
    assert done.returncode == 1


def test_a_source_that_is_missing_is_made_by_v_and_not_by_mount(box: Box, tmp_path: Path) -> None:
    box.run("touch", "/x/y", options=("-v", f"{tmp_path}/one/two:/x"))
    assert (tmp_path / "one/two/y").exists()
    mount = f"type=bind,source={tmp_path}/three,target=/x"
    done = box.run("true", options=("--mount", mount), check=False)
    assert (done.returncode, "bind source path does not exist" in done.stderr) == (125, True)


def test_a_relative_source_is_relative_to_the_caller(box: Box) -> None:
    (box.installed.home / "here").mkdir()
    box.run("touch", "/x/y", options=("-v", "./here:/x"))
    assert (box.installed.home / "here/y").exists()
    (box.installed.home / "here/y").unlink()
    (box.installed.home / "here").rmdir()


def test_binds_below_each_other_are_mounted_from_the_top_down(box: Box, tmp_path: Path) -> None:
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    options = ("-v", f"{tmp_path}/inner:/x/y", "-v", f"{tmp_path}/outer:/x")
    assert box.sh("cat /x/which /x/y/which", *options) == "outerinner"


def test_set_user_id_bits_and_devices_mean_nothing_in_a_bind(box: Box, tmp_path: Path) -> None:
    assert {"nosuid", "nodev"} <= set(box.sh("grep ' /x ' /proc/mounts", "-v", f"{tmp_path}:/x").split()[3].split(","))


def test_names_with_odd_characters(box: Box, tmp_path: Path) -> None:
    odd = tmp_path / "a, b=\t'ü\\"
    odd.mkdir()
    (odd / "file").write_text("odd")
    assert box.sh("cat '/ö, \\/file'", "-v", f"{odd}:/ö, \\") == "odd"


def test_other_forms_of_mount(box: Box, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("x")
    for form in (
        f"type=bind,src={tmp_path},dst=/x,readonly",
        f"type=bind,source={tmp_path},destination=/x,ro=true",
        f'"type=bind","source={tmp_path}","target=/x",readonly',
    ):
        done = box.run("sh", "-c", "cat /x/in; touch /x/new", options=("--mount", form), check=False)
        assert (done.stdout, done.returncode) == ("x", 1)
    assert box.sh("df /x | grep -c tmpfs", "--mount", "type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=700") == "1\n"
    box.sh("echo x >/x/y", "--mount", "type=volume,source=named,target=/x")
    assert box.sh("cat /x/y", "-v", "named:/x") == "x\n"
    assert box.sh("cat /x/y", "--mount", "type=volume,source=named,target=/x,readonly") == "x\n"


# --- volumes


def test_a_named_volume_outlives_its_containers(box: Box) -> None:
    box.sh("echo kept >/data/file", "-v", "vol:/data")
    assert box.sh("cat /other/file", "-v", "vol:/other:ro") == "kept\n"
    assert box("volume", "ls", "-q").stdout == "vol\n"
    done = box.run("touch", "/x/y", options=("-v", "vol:/x:ro"), check=False)
    assert done.returncode == 1


def test_a_new_volume_gets_what_the_image_has_there(filled: str, box: Box) -> None:
    assert box("run", "--rm", "-v", "vol:/data", filled, "sh", "-c", LISTING).stdout == CONTENT


def test_the_volume_of_an_image_is_anonymous_and_filled_too(filled: str, box: Box) -> None:
    assert box("run", "--name", "own", filled, "sh", "-c", LISTING).stdout == CONTENT
    [mount] = box.inspect("own")["Mounts"]
    assert (mount["Type"], mount["Destination"], len(mount["Name"])) == ("volume", "/data", 64)
    assert box("volume", "ls", "-q").stdout == f"{mount['Name']}\n"
    box("rm", "-v", "own")
    assert box("volume", "ls", "-q").stdout == ""


def test_a_volume_is_filled_once(filled: str, box: Box) -> None:
    box("run", "--rm", "-v", "vol:/data", filled, "sh", "-c", "rm /data/file; echo mine >/data/other")
    assert (
        box("run", "--rm", "-v", "vol:/data", filled, "sh", "-c", "cd /data; ls").stdout == "link\nother\nsetuid\nsub\n"
    )


def test_a_volume_with_something_in_it_stays_as_it_is(filled: str, box: Box) -> None:
    box.sh("echo mine >/data/file", "-v", "vol:/data")
    assert box("run", "--rm", "-v", "vol:/data", filled, "sh", "-c", "cat /data/*").stdout == "mine\n"


@pytest.mark.parametrize(
    "how", [("-v", "vol:/data:nocopy"), ("--mount", "type=volume,src=vol,dst=/data,volume-nocopy")]
)
def test_nocopy_leaves_it_empty(how: tuple[str, str], filled: str, box: Box) -> None:
    assert box("run", "--rm", *how, filled, "ls", "/data").stdout == ""


def test_binds_and_tmpfs_are_not_filled(filled: str, box: Box, tmp_path: Path) -> None:
    assert box("run", "--rm", "-v", f"{tmp_path}:/data", filled, "ls", "/data").stdout == ""
    assert box("run", "--rm", "--tmpfs", "/data", filled, "ls", "/data").stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_containers_that_begin_together_fill_a_volume_once(filled: str, box: Box) -> None:
    box("pull", "-q", filled)
    running = [box.start("run", "--rm", "-v", "vol:/data", filled, "sh", "-c", LISTING) for _ in range(8)]
    results = [process.communicate(timeout=60) for process in running]
    assert results == [(CONTENT.encode(), b"")] * 8


def test_a_user_of_the_image_can_write_to_its_volume(filled: str, box: Box) -> None:
    assert box("run", "--rm", "-u", "1000:1000", filled, "sh", "-c", "echo x >/data/new; cat /data/new").stdout == "x\n"


def test_volumes_of_another_container(filled: str, box: Box, tmp_path: Path) -> None:
    box(
        "run",
        "--name",
        "source",
        "-v",
        "vol:/vol",
        "-v",
        f"{tmp_path}:/bound",
        filled,
        "sh",
        "-c",
        "echo x | tee /vol/f /bound/f >/data/f",
    )
    assert box.sh("cat /vol/f /bound/f /data/f", "--volumes-from", "source") == "x\nx\nx\n"
    done = box.run("touch", "/data/new", options=("--volumes-from", "source:ro"), check=False)
    assert (done.returncode, "Read-only" in done.stderr) == (1, True)
    assert len(box("volume", "ls", "-q").stdout.split()) == 2, "they are not the borrower's to remove"


def test_a_volume_in_use_cannot_be_removed(box: Box) -> None:
    box("create", "--name", "user", "-v", "vol:/data", box.image, "true")
    done = box("volume", "rm", "vol", check=False)
    assert (done.returncode, "volume is in use" in done.stderr) == (1, True)
    box("rm", "user")
    box("volume", "rm", "vol")


def test_a_volume_that_is_a_name_for_a_directory(box: Box, tmp_path: Path) -> None:
    box("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}", "linked")
    box.sh("echo x >/data/file", "-v", "linked:/data")
    assert (tmp_path / "file").read_text() == "x\n"
    box("volume", "rm", "linked")
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("relative:x", "mount path must be absolute"),
        ("/x:/", "destination can't be '/'"),
        ("/x:/y:nonsense", "invalid mode: nonsense"),
        ("a/b:/y", "invalid characters for a local volume name"),
        ("/a:/b:/c:/d", "too many colons"),
        (":/x", "empty section between colons"),
    ],
)
def test_what_cannot_be_mounted_is_refused(spec: str, message: str, box: Box) -> None:
    done = box.run("true", options=("-v", spec), check=False)
    assert (done.returncode, message in done.stderr) == (125, True), done.stderr
    assert box.ids() == []


# --- tmpfs and the root


def test_tmpfs_is_empty_private_and_of_the_size_and_mode_that_were_asked_for(box: Box) -> None:
    script = "stat -c '%a' /mem; grep ' /mem ' /proc/mounts; df -k /mem | tail -1; echo x >/mem/y; ls /mem"
    mode, mount, size, listing = box.sh(script, "--tmpfs", "/mem:size=512k,mode=750").splitlines()
    assert (mode, listing, size.split()[1]) == ("750", "y", "512")
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(mount.split()[3].split(","))
    assert "noexec" not in box.sh("grep ' /mem ' /proc/mounts", "--tmpfs", "/mem:exec")
    done = box.run("sh", "-c", "echo x >/mem/y", options=("--tmpfs", "/mem:ro"), check=False)
    assert done.returncode == 1


def test_a_read_only_root_has_writable_mounts(box: Box, tmp_path: Path) -> None:
    script = (
        "for f in /x /etc/x /tmp/x /bound/x /mem/x /data/x /dev/shm/x; do echo x >$f && echo $f; done 2>/dev/null; true"
    )
    options = ("--read-only", "-v", f"{tmp_path}:/bound", "--tmpfs", "/mem", "-v", "/data")
    assert box.sh(script, *options).split() == ["/bound/x", "/mem/x", "/data/x", "/dev/shm/x"]


def test_shm_has_the_size_that_was_asked_for(box: Box) -> None:
    assert box.sh("df -k /dev/shm | tail -1").split()[1] == "65536"
    assert box.sh("df -k /dev/shm | tail -1", "--shm-size", "2m").split()[1] == "2048"


def test_devices_of_the_hosts(box: Box) -> None:
    node = os.stat("/dev/fuse")
    expected = f"{os.major(node.st_rdev):x}:{os.minor(node.st_rdev):x}"
    script = "stat -c '%t:%T' $0; test -c $0 && echo device"
    for spec, path in (
        ("/dev/fuse", "/dev/fuse"),
        ("/dev/fuse:/dev/mine", "/dev/mine"),
        ("/dev/fuse:/dev/mine:r", "/dev/mine"),
    ):
        assert box.run("sh", "-c", script, path, options=("--device", spec)).stdout == f"{expected}\ndevice\n"


def test_a_store_at_an_odd_path(box: Box, image: Callable[[str], str], tmp_path: Path) -> None:
    """Colons, commas and backslashes separate what overlayfs is told."""
    root = tmp_path / "a:b,c\\d e"
    command = box.installed.command("--root", str(root), "run", "--rm", "-q", "-v", "vol:/data", image("whiteouts"))
    done = subprocess.run(
        [*command, "sh", "-c", "cat /data/kept; echo x >/new; cat /new"],
        env=box.installed.env, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "firstx\n"), done.stderr
