"""cp: Docker's rules, ownership, what may not be written, and containers that plant traps."""

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.engine.cp_paths import Place, Placement, absolute, check_places, parse_place, place
from rootless.errors import InvalidInput, NotFound
from tests.support.account import wait_until
from tests.support.canary import SECRET, Canary
from tests.support.containers import Box
from tests.support.evil_tar import HARD_LINK, SYMLINK, archive, entry

# --- the rules alone


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web:/a", Place("web", "/a")),
        ("web:a:b", Place("web", "a:b")),
        ("/a:b", Place("", "/a:b")),
        ("./a:b", Place("", "./a:b")),
        ("../a:b", Place("", "../a:b")),
        ("a/b", Place("", "a/b")),
        ("web:", Place("web", "")),
    ],
)
def test_a_word_names_a_container_or_a_path_here(text: str, expected: Place) -> None:
    assert parse_place(text) == expected


RULES = [
    # source, is it a directory, target, what is there, where it goes: as the manual of `docker cp` has it
    ("/s", False, "/t", None, Placement("/", "t")),
    ("/s", False, "/t/", None, "no such directory"),
    ("/s", False, "/d/t", False, Placement("/d", "t")),
    ("/s", False, "/t/", False, "not a directory"),
    ("/a/s", False, "/t", True, Placement("/t", "s")),
    ("/s", True, "/d/t", None, Placement("/d", "t")),
    ("/s", True, "/d/t/", None, Placement("/d", "t")),
    ("/s", True, "/t", False, "cannot copy directory"),
    ("/s", True, "/t", True, Placement("/t", "s")),
    ("/s/", True, "/t", True, Placement("/t", "s")),
    ("/s/.", True, "/t", True, Placement("/t", "")),
    ("/s/.", True, "/d/t", None, Placement("/d", "t")),
    ("/", True, "/t", True, Placement("/t", "")),
    ("/s", False, "t", None, Placement(".", "t")),
    ("/a/s/..", True, "/t", True, Placement("/t", "a")),
]


@pytest.mark.parametrize(("source", "is_directory", "target", "there", "expected"), RULES)
def test_what_is_copied_goes_where_the_manual_says(
    source: str, is_directory: bool, target: str, there: bool | None, expected: Placement | str
) -> None:
    if isinstance(expected, Placement):
        assert place(source, is_directory, target, there) == expected
    else:
        with pytest.raises((InvalidInput, NotFound), match=expected):
            place(source, is_directory, target, there)


@given(st.text("./ab", min_size=1, max_size=8), st.booleans(), st.text("./ab", min_size=1, max_size=8))
def test_a_name_in_a_directory_is_one_name(source: str, is_directory: bool, target: str) -> None:
    for there in (None, False, True):
        try:
            where = place(absolute(source, "/cwd"), is_directory, "/" + target, there)
        except (InvalidInput, NotFound):
            continue
        assert "/" not in where.name
        assert where.directory


def test_exactly_one_side_is_a_container() -> None:
    for source, target, error in (
        ("a:/x", "b:/y", "copying between containers is not supported"),
        ("/x", "/y", "must specify at least one container source"),
        ("a:", "/y", "source can not be empty"),
    ):
        with pytest.raises(InvalidInput, match=error):
            check_places(parse_place(source), parse_place(target))


# --- with containers

FILES = """
    mkdir -p /s/sub /e; echo one > /s/file; echo two > /s/sub/deep; ln -s file /s/link; ln /s/file /s/hard
    chown 7:8 /s/file; chmod 4750 /s/file; touch -d @12345 /s/sub; ln -s /s /dirlink; mkfifo /s/fifo
    echo ready; exec sleep 1000
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def with_files(box: Box, name: str) -> str:
    """A container that runs, with FILES and a volume."""
    assert box.says(box.detached(FILES, "-v", "/data", "--name", name), "ready")
    return name


@pytest.fixture(scope="module")
def container(shared_box: Box) -> Iterator[str]:
    yield with_files(shared_box, "cp")
    shared_box("rm", "-f", "-v", "cp")


def tree(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


@pytest.mark.kernel
def test_a_directory_comes_out_with_all_that_is_in_it(box: Box, container: str, here: Path) -> None:
    shown = box("cp", "cp:/s", str(here)).stderr
    assert shown.startswith("Successfully copied ")
    assert shown.endswith(f" to {here}\n")
    assert tree(here / "s") == ["fifo", "file", "hard", "link", "sub", "sub/deep"]
    info = (here / "s/file").lstat()
    assert (info.st_uid, stat.S_IMODE(info.st_mode), info.st_nlink) == (os.geteuid(), 0o750, 2)
    assert (os.readlink(here / "s/link"), int((here / "s/sub").lstat().st_mtime)) == ("file", 12345)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("s/file", "new", ["new"]),
        ("s/.", ".", ["fifo", "file", "hard", "link", "sub", "sub/deep"]),
        ("s/sub", "new", ["new", "new/deep"]),
        ("s/sub/.", "new/", ["new", "new/deep"]),
        ("s/link", ".", ["link"]),
        ("dirlink/", ".", ["dirlink", "dirlink/fifo", "dirlink/file", "dirlink/hard", "dirlink/link", "dirlink/sub",
                           "dirlink/sub/deep"]),
    ],
)  # fmt: skip
def test_paths_out_of_a_container(
    box: Box, container: str, here: Path, source: str, target: str, expected: list[str]
) -> None:
    box("cp", "-q", f"cp:{source}", f"{here}/{target}")
    assert tree(here) == expected


@pytest.mark.kernel
def test_a_link_is_followed_if_asked_for(box: Box, container: str, here: Path) -> None:
    box("cp", "cp:/s/link", str(here))
    box("cp", "-L", "cp:/s/link", str(here / "followed"))
    assert (here / "link").is_symlink()
    assert (here / "followed").read_text() == "one\n"


@pytest.mark.kernel
@pytest.mark.parametrize("running", [True, False])
def test_files_go_in_and_belong_to_root(box: Box, here: Path, running: bool) -> None:
    container = with_files(box, "own")
    if not running:
        box("kill", container)
        box("wait", container)
    (here / "in").mkdir(mode=0o750)
    (here / "in/x").write_text("text")
    shown = box("cp", f"{here}/in", "own:/e").stderr
    assert shown.startswith("Successfully copied ")
    assert shown.endswith(" to own:/e\n")
    box("cp", "-q", f"{here}/in/x", "own:/data/in-volume")
    box("cp", "-q", "-a", f"{here}/in/x", "own:/e/mine")
    out = here / "out"
    out.mkdir()
    data = box.installed.run_bytes("cp", "own:/e", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        found = {m.name: (m.uid, m.gid, m.mode) for m in file}
    assert found["e/in"] == (0, 0, 0o750)
    assert found["e/in/x"][:2] == (0, 0)
    assert found["e/mine"][:2] == (os.getuid(), os.getgid())
    box("cp", "own:/data/in-volume", str(out))
    assert (out / "in-volume").read_text() == "text"
    if not running:
        box("start", container)
    assert box("exec", container, "cat", "/data/in-volume", "/e/in/x").stdout == "texttext"


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("source", "target", "error"),
    [
        ("cp:/nope", ".", "Could not find the file /nope in container cp"),
        ("cp:/s", "nowhere/x", 'invalid output path: directory "nowhere" does not exist'),
        ("cp:/s", "file", "cannot copy directory"),
        ("cp:/s/file", "none/", 'invalid output path: directory "none" does not exist|no such directory'),
        ("file", "cp:/nowhere/x", "Could not find the file /nowhere in container cp"),
        ("file", "cp:/none/", "no such directory"),
        ("dir", "cp:/s/file", "cannot copy directory"),
        ("file", "cp:/s/fifo", 'destination "cp:/s/fifo" must be a directory or a regular file'),
        ("dir", "cp:/clash", "cannot overwrite non-directory"),
        ("none", "cp:/e", "no such file or directory"),
        ("-", "cp:/s/file", 'destination "cp:/s/file" must be a directory'),
        ("file", "nobody:/e", "No such container: nobody"),
        ("cp:/s", "cp:/e", "copying between containers is not supported"),
    ],
)
def test_errors_are_docker_s(box: Box, container: str, here: Path, source: str, target: str, error: str) -> None:
    home = box.installed.home
    (home / "file").write_text("x")
    (home / "dir").mkdir(exist_ok=True)
    box("exec", container, "sh", "-c", "mkdir -p /clash; touch /clash/dir")
    done = box("cp", source, target, check=False)
    assert done.returncode == 1
    assert any(part in done.stderr for part in error.split("|")), done.stderr


@pytest.mark.kernel
@pytest.mark.parametrize("running", [True, False])
def test_what_is_read_only_for_the_container_is_so_for_cp(box: Box, here: Path, running: bool) -> None:
    (here / "x").write_text("x")
    (here / "ro").mkdir()
    options = ("--read-only", "-v", f"{here / 'ro'}:/ro:ro", "-v", "/rw", "--name", "fixed")
    box("run", "-d", *options, box.image, "sleep", "1000")
    if not running:
        box("kill", "fixed")
        box("wait", "fixed")
    for target, error in (
        ("/root", "container rootfs is marked read-only"),
        ("/ro", "mounted volume is marked read-only"),
    ):
        done = box("cp", str(here / "x"), f"fixed:{target}", check=False)
        assert (done.returncode, error in done.stderr) == (1, True), done.stderr
    box("cp", str(here / "x"), "fixed:/rw")
    box("cp", "fixed:/rw/x", str(here / "y"))


@pytest.mark.kernel
def test_an_archive_goes_in_with_its_owners_and_comes_out(box: Box, container: str) -> None:
    data = archive(
        entry(b"a/b", content=b"text", mode=0o640, uid=7, gid=8),
        entry(b"dirlink/through", content=b"x"),
        entry(b"l", SYMLINK, link=b"/etc"),
        entry(b"h", HARD_LINK, link=b"a/b"),
    )
    box.installed.run_bytes("cp", "-", "cp:/", input=data)
    shown = box(
        "exec", container, "sh", "-c", "stat -c '%a %u:%g %h' /a/b; readlink /l; cat /s/through; ls -ld /dirlink"
    ).stdout
    assert shown.splitlines()[:3] == ["640 7:8 2", "/etc", "x" + shown.splitlines()[2][1:]]
    assert " -> /s" in shown
    out = box.installed.run_bytes("cp", "cp:/a/.", "-").stdout
    assert subprocess.run(["tar", "-t"], input=out, check=True, capture_output=True).stdout == b"./b\n"


@pytest.mark.kernel
def test_a_file_that_is_mounted_is_written_to(box: Box, container: str, here: Path) -> None:
    (here / "hosts").write_text("1.2.3.4 x\n")
    box("cp", str(here / "hosts"), "cp:/etc/hosts")
    assert box("exec", container, "cat", "/etc/hosts").stdout == "1.2.3.4 x\n"


@pytest.mark.kernel
def test_copying_leaves_nothing_behind_even_if_it_is_killed(box: Box, here: Path) -> None:
    box("create", "--name", "still", "-v", "/data", box.image, "true")
    with open(here / "big", "wb") as file:
        file.truncate(400 << 20)
    before = box.installed.leftovers()
    for words in ((str(here / "big"), "still:/data"), ("still:/bin/busybox", "-")):
        process = box.start("cp", *words)
        assert wait_until(lambda: len(box.installed.processes()) > len(before.processes) + 1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert wait_until(lambda: box.installed.leftovers().processes == before.processes)
    assert box.installed.leftovers().beyond(before).mounts == []
    box("start", "still")


@pytest.mark.kernel
def test_a_terminal_shows_how_far_it_is_and_gets_no_archive(box: Box, container: str, here: Path) -> None:
    with box.terminal("cp", "cp:/bin/busybox", str(here)) as terminal:
        terminal.expect("Copying from container - ")
        terminal.expect("Successfully copied ")
    with box.terminal("cp", "cp:/bin/busybox", "-") as terminal:
        terminal.expect("cowardly refusing to write an archive to a terminal")


# --- traps


@pytest.mark.kernel
def test_links_of_a_container_lead_nowhere_outside(box: Box, here: Path) -> None:  # X09
    canary = Canary(here / "victim")
    victim = str(here / "victim")
    script = f"ln -s {victim} /trap; mkdir -p /d; ln -s {victim} /d/in; ln -s ../../../..{victim} /up"
    assert box.says(box.detached(f"{script}; echo ready; exec sleep 1000", "--name", "trap"), "ready")
    (here / "x").write_text("x")
    for target in ("trap:/trap", "trap:/trap/x", "trap:/d/in/x", "trap:/up/x"):
        box("cp", str(here / "x"), target, check=False)
    data = archive(
        *(entry(name, content=b"x") for name in (b"trap/x", b"d/in/y")),
        entry(b"s", SYMLINK, link=victim.encode()),
        entry(b"s/z", content=b"x"),
    )
    box.installed.run_bytes("cp", "-", "trap:/", input=data, check=False)
    for source in ("trap:/trap/.", "trap:/up/.", "trap:/d/in/secret"):
        done = box("cp", "-L", source, "-", check=False)
        assert "Could not find the file" in done.stderr
    assert canary.changes() == []
    shutil.rmtree(here / "victim")


@pytest.fixture
def racer(box: Box, here: Path) -> Iterator[Canary]:
    """A container, `racer`, that goes on swapping a directory for a link to the canary's."""
    canary = Canary(here / "victim")
    swap = f"while :; do mv /d/t /d/u; ln -s {here / 'victim'} /d/t; rm /d/t; mv /d/u /d/t; done"
    script = f"mkdir -p /d/t; echo inside > /d/t/passwd; echo ready; {swap}"
    assert box.says(box.detached(script, "--name", "racer"), "ready")
    yield canary
    assert canary.changes() == []
    shutil.rmtree(here / "victim")


@pytest.mark.kernel
def test_a_container_that_swaps_directories_for_links_gains_nothing(box: Box, here: Path, racer: Canary) -> None:  # X09
    (here / "src").mkdir()
    (here / "src/passwd").write_text("planted")
    for number in range(5):
        box("cp", "-q", f"{here}/src/.", "racer:/d/t", check=False)
        box("cp", "-q", "racer:/d", str(here / f"out{number}"), check=False)
        for path in (here / f"out{number}").rglob("passwd"):
            assert path.parent.is_symlink() or path.read_text() in ("inside\n", "planted")


@pytest.mark.kernel
def test_nothing_from_outside_is_exported_or_committed(box: Box, racer: Canary) -> None:  # T20
    for _ in range(4):
        assert SECRET not in box.installed.run_bytes("export", "racer", check=False).stdout
        committed = box("commit", "--no-pause", "racer", check=False).stdout.strip()
        if committed:
            [document] = json.loads(box("image", "inspect", committed).stdout)
            assert racer.leaks_into(Path(document["GraphDriver"]["Data"]["UpperDir"])) == []
            box("rmi", "-f", committed)
