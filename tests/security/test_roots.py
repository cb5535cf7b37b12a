"""An image, or a volume, that is laid out to lead a container's mounts somewhere else."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.canary import SECRET, Canary
from tests.support.evil_tar import FIFO, FILE, SYMLINK, archive, entry
from tests.support.fault_registry import FaultRegistry
from tests.support.hostile import LONG, Box, busybox, failure, no_traceback, packed, running, serve, tools
from tests.support.layout import directory, file, symlink

pytestmark = pytest.mark.kernel

Served = Callable[..., str]
RUN = ("run", "--rm", "--quiet")  # an image that is not here is pulled


@pytest.fixture
def canary(box: Box, tmp_path: Path) -> Iterator[Canary]:
    """What lies outside of the container, untouched in the end, its secret nowhere in the store."""
    canary = Canary(tmp_path / "victim")
    yield canary
    assert canary.changes() == []
    assert canary.leaks_into(box.rootless.data / "rootless" / "blobs") == []


@pytest.fixture
def image(box: Box, hostile: FaultRegistry) -> Served:
    """Makes an image of busybox and one layer, with a config, that can be pulled."""

    def made(layer: bytes, **config: object) -> str:
        return serve(hostile, busybox(), tools(), layer, config=config)

    return made


# /proc, /sys, /dev (X05 to X07)


@pytest.mark.parametrize(
    "place, kind, target",
    [
        ("/proc", SYMLINK, "/etc"),
        ("/proc", SYMLINK, "VICTIM/sub"),
        ("/proc", FIFO, ""),
        ("/sys", SYMLINK, "VICTIM/sub"),
        ("/sys", FILE, ""),
        ("/dev", SYMLINK, "VICTIM/sub"),
        ("/dev", SYMLINK, "usr"),
    ],
)
def test_a_place_for_the_kernels_files_must_be_a_directory(  # X06, X07
    box: Box, image: Served, canary: Canary, place: str, kind: bytes, target: str
) -> None:
    link = target.replace("VICTIM", str(canary.top))
    name = image(archive(entry(f".wh.{place[1:]}".encode()), entry(place[1:].encode(), kind, link=link.encode())))
    said = failure(box.rootless, *RUN, name, "true")
    assert f"{place} of the image must be an ordinary directory" in said


def test_what_an_image_has_in_dev_is_hidden(box: Box, image: Served, canary: Canary) -> None:  # X05
    links = [symlink(f"dev/{name}", f"{canary.top}/file") for name in ("null", "console", "tty", "ptmx", "pts", "shm")]
    name = image(packed(links))
    for terminal in ([], ["-t"]):
        command = ["sh", "-c", "stat -L -c %t:%T /dev/null; test -c /dev/null && test -d /dev/pts && test -d /dev/shm"]
        assert box.rootless.run(*RUN, *terminal, name, *command).stdout.strip() == "1:3"


def test_masks_are_real_whatever_the_image_has(box: Box, image: Served, canary: Canary) -> None:  # X05
    name = image(packed([symlink("dev/null", f"{canary.top}/file")]))
    script = "cat /proc/keys /proc/timer_list /proc/kcore /proc/interrupts 2>/dev/null; ls -A /sys/firmware /proc/acpi"
    said = box.rootless.run(*RUN, name, "sh", "-c", script, check=False).stdout
    assert [line for line in said.splitlines() if line and not line.startswith("/")] == []  # ls has headings


@pytest.mark.parametrize("terminal", [[], ["-t"]])
def test_a_volume_on_dev_leads_nowhere(box: Box, canary: Canary, tmp_path: Path, terminal: list[str]) -> None:  # X05
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in ("null", "console", "tty", "ptmx", "zero", "full"):
        (shared / name).symlink_to(canary.top / "file")
    (shared / "pts").symlink_to(canary.top / "sub")
    before = sorted(path.name for path in shared.iterdir())
    status, _ = no_traceback(box.rootless, "run", "--rm", *terminal, "-v", f"{shared}:/dev", box.image, "true")
    assert status in (0, 125)
    assert sorted(path.name for path in shared.iterdir()) == before


def test_proc_and_sys_are_not_taken_from_a_volume(box: Box, canary: Canary, tmp_path: Path) -> None:  # X06
    """A volume over /proc is the user's wish; masks and read-only paths in it must lead nowhere else."""
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in ("keys", "kcore", "sys", "bus", "sysrq-trigger"):
        (shared / name).symlink_to(canary.top / "file")
    command = ["run", "--rm", "-v", f"{shared}:/proc", "--sysctl", "net.ipv4.ip_forward=1", box.image, "true"]
    said = failure(box.rootless, *command)
    assert "sysctl" in said


# Mount points (X26, B10)


def test_the_name_files_are_bound_inside(box: Box, image: Served, canary: Canary) -> None:  # X26
    """One link to a file outside, one to a file that exists nowhere, one in a circle with itself."""
    links = {"hosts": f"{canary.top}/file", "resolv.conf": "../run/systemd/resolve/stub-resolv.conf"}
    name = image(packed([symlink(f"etc/{name}", target) for name, target in links.items()]))
    said = box.rootless.run(*RUN, "--dns", "1.2.3.4", name, "cat", "/etc/hosts", "/etc/resolv.conf").stdout
    assert SECRET.decode() not in said
    assert "nameserver 1.2.3.4" in said
    circle = image(packed([symlink("etc/hostname", "hostname")]))
    assert "symbolic links" in failure(box.rootless, *RUN, circle, "true")


def test_etc_itself_may_be_a_link(box: Box, image: Served, canary: Canary) -> None:  # X26
    layer = archive(entry(b".wh.etc"), entry(b"etc", SYMLINK, link=f"{canary.top}/sub".encode()))
    name = image(layer)
    assert "127.0.0.1" in box.rootless.run(*RUN, name, "cat", "/etc/hosts").stdout


@pytest.mark.parametrize(
    "workdir",
    ["/link/new", "/up/../../../../new", "/proc/self/fd/3", "/proc/self/root/x", "/fd", "/a\nb", "relative"],
)
def test_a_working_directory_is_made_inside_or_refused(  # B10
    box: Box, image: Served, canary: Canary, workdir: str
) -> None:
    layer = packed([symlink("link", str(canary.top / "sub")), directory("up"), symlink("fd", "/proc/self/fd/7")])
    name = image(layer, WorkingDir=workdir)
    status, said = no_traceback(box.rootless, *RUN, name, "sh", "-c", "pwd; ls; touch made-here")
    assert status in (0, 125, 126)
    assert "passwd" not in said or said.startswith("/\n")
    assert "Errno" not in said


@pytest.mark.parametrize(
    "volume",
    ["/link/new", "/up/../../new", "/proc/self/fd/3", "/proc/self/cwd", "/", "relative", "../../up", "/a\nb"],
)
def test_a_volume_of_the_image_is_mounted_inside_or_refused(  # B10
    box: Box, image: Served, canary: Canary, volume: str
) -> None:
    layer = packed([symlink("link", str(canary.top / "sub")), directory("up"), file("up/inside", b"from the image")])
    name = image(layer, Volumes={volume: {}})
    status, said = no_traceback(box.rootless, *RUN, name, "sh", "-c", "find / -xdev -name file; true")
    assert status in (0, 125)
    assert "Errno" not in said
    assert not [line for line in said.splitlines() if line.endswith("/file")]


def test_the_first_content_of_a_volume_is_the_images(box: Box, image: Served, canary: Canary) -> None:  # B10
    """CVE-2022-23648: what is copied up is found inside, and links in it are copied as links."""
    layer = packed(
        [
            directory("data"),
            symlink("data/link", str(canary.top / "file")),
            symlink("data/directory", str(canary.top)),
            file("data/own", b"own"),
            symlink("led", str(canary.top)),
        ]
    )
    name = image(layer, Volumes={"/data": {}, "/led": {}})
    box.rootless.run("volume", "create", "seen")
    script = "cat /data/* /led/* 2>/dev/null; ls /data /led; cp -a /data/. /out; cp -a /led/. /out"
    said = box.rootless.run(*RUN, "-v", "seen:/out", name, "sh", "-c", script, check=False).stdout
    assert SECRET.decode() not in said
    assert "own" in said
    assert canary.leaks_into(box.rootless.data / "rootless" / "volumes") == []
    box.rootless.run("volume", "rm", "seen")


# A working directory by way of a descriptor (X03, CVE-2024-21626)


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_no_descriptor_is_a_way_to_a_directory_outside(box: Box, canary: Canary, verb: str) -> None:  # X03
    """Where it is a directory at all, it is in the container; a descriptor that the caller leaks changes nothing."""
    fd = os.open(canary.top, os.O_RDONLY | os.O_DIRECTORY)
    with running(box.rootless, box.image) as container:
        try:
            for number in range(3, 1024) if LONG else [*range(3, 20), 50, fd]:
                where = f"/proc/self/fd/{number}"
                front = ["run", "--rm", "-w", where, box.image] if verb == "run" else ["exec", "-w", where, container]
                command = box.rootless.command(*front, "sh", "-c", "pwd -P; cat file; ls ../../../../../../../etc")
                done = subprocess.run(command, env=box.rootless.env, pass_fds=(fd,), capture_output=True, text=True)
                assert SECRET.decode() not in done.stdout
                assert "Traceback" not in done.stderr, done.stderr
                assert "Errno" not in done.stderr
                if "\n" in done.stdout:
                    assert done.stdout.startswith("/")
                    assert "rootless" not in done.stdout
                else:
                    assert done.returncode in (125, 126), done
        finally:
            os.close(fd)
