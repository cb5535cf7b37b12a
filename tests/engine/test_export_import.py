"""export and import: what is in the archive, and the image that is made of one."""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box
from tests.support.evil_tar import CHARACTER, DIRECTORY, FIFO, SYMLINK, archive, entry

pytestmark = pytest.mark.kernel

ROOT = archive(
    entry(b"bin/", DIRECTORY, mode=0o755),
    entry(b"etc/", DIRECTORY, mode=0o755),
    entry(b"etc/file", content=b"text", mode=0o640, uid=7, gid=8, mtime=11),
    entry(b"link", SYMLINK, link=b"/etc/file"),
    entry(b"fifo", FIFO, mode=0o622),
)
Import = Callable[..., dict[str, Any]]


def exported(box: Box, container: str) -> bytes:
    return box.installed.run_bytes("export", container).stdout


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        return {member.name: member for member in file}


@pytest.fixture
def imported(box: Box) -> Iterator[Import]:
    """`imported(data, *options)` imports an archive, and returns the document of its image, which goes in the end."""
    images = []

    def run(data: bytes, *options: str) -> dict[str, Any]:
        done = box.installed.run_bytes("import", *options, "-", "test:import", input=data)
        images.append(done.stdout.decode().strip())
        [document] = json.loads(box("image", "inspect", images[-1]).stdout)
        return dict(document)

    yield run
    box.clear(keep=[])
    box("rmi", "-f", *images)


def diff_of(document: dict[str, Any]) -> Path:
    return Path(document["GraphDriver"]["Data"]["UpperDir"])


def test_the_same_files_make_the_same_archive(box: Box) -> None:
    container = box.detached("exec sleep 1000")
    assert exported(box, container) == exported(box, container)


def test_an_archive_is_written_to_a_file_whole_or_not_at_all(box: Box, tmp_path: Path) -> None:
    container = box("create", box.image).stdout.strip()
    box("export", "-o", str(tmp_path / "out.tar"), container)
    assert "bin/busybox" in members((tmp_path / "out.tar").read_bytes())
    assert os.listdir(tmp_path) == ["out.tar"]
    for path, error in ((tmp_path, "is a directory"), (tmp_path / "x/y", "does not exist")):
        done = box("export", "-o", str(path), container, check=False)
        assert (done.returncode, error in done.stderr) == (1, True)


def test_behind_a_link_it_is_the_file_that_is_written(box: Box, tmp_path: Path) -> None:
    container = box("create", box.image).stdout.strip()
    target, link = tmp_path / "target.tar", tmp_path / "link.tar"
    target.write_bytes(b"old")
    link.symlink_to(target)
    box("export", "-o", str(link), container)
    assert link.is_symlink()
    assert tarfile.is_tarfile(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.tar", "target.tar"]


def test_a_terminal_gets_no_archive(box: Box) -> None:
    container = box("create", box.image).stdout.strip()
    with box.terminal("export", container) as terminal:
        terminal.expect("cowardly refusing to save to a terminal")


def test_what_was_exported_can_be_imported_and_run(box: Box, imported: Import) -> None:
    container = box.detached("echo x > /x; rm /etc/group")
    box("wait", container)
    imported(exported(box, container))
    shown = box("run", "--rm", "test:import", "sh", "-c", "cat /x; ls /etc/group; ls -ld /tmp").stdout
    assert shown.startswith("x\ndrwxrwxrwt")


def test_an_image_has_what_its_archive_has(imported: Import) -> None:
    document = imported(ROOT, "-c", 'CMD ["/bin/sh"]', "-c", "ENV A=b", "-m", "by hand", "--platform", "linux/arm64")
    info = (diff_of(document) / "etc/file").lstat()
    assert (info.st_size, int(info.st_mtime)) == (4, 11)
    assert (document["Config"]["Cmd"], document["Config"]["Env"]) == (["/bin/sh"], ["A=b"])
    assert (document["Architecture"], document["Comment"]) == ("arm64", "by hand")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_an_archive_may_be_compressed(imported: Import, compress: Callable[[bytes], bytes]) -> None:
    plain = imported(ROOT)["RootFS"]["Layers"]
    assert imported(compress(ROOT[:700]) + compress(ROOT[700:]))["RootFS"]["Layers"] == plain


def test_from_a_file_and_from_a_web_server(box: Box, tmp_path: Path, web: str) -> None:
    (tmp_path / "root.tar").write_bytes(ROOT)
    one = box("import", str(tmp_path / "root.tar")).stdout.strip()
    two = box("import", f"{web}/root.tar", "test:web").stdout.strip()
    assert f"Imported from {web}/root.tar" in box("history", two).stdout
    box("rmi", one, two)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_marks_of_absence_in_an_archive_hide_nothing(imported: Import) -> None:
    document = imported(archive(entry(b"a/", DIRECTORY), entry(b"a/.wh.b"), entry(b"a/c", content=b"x")))
    assert [path.name for path in (diff_of(document) / "a").iterdir()] == ["c"]


def test_devices_are_recorded_and_come_out_again(box: Box, imported: Import) -> None:
    document = imported(archive(entry(b"dev/", DIRECTORY), entry(b"dev/x", CHARACTER, major=1, minor=3)))
    assert list((diff_of(document) / "dev").iterdir()) == []
    assert "dev/x" not in members(exported(box, box("create", "test:import", "x").stdout.strip()))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "the archive is empty"),
        (b"no archive" * 100, "tar archive"),
        (ROOT[:900], "cut short"),
        (bz2.compress(ROOT)[:-9], "a bad compressed stream"),
        (lzma.compress(ROOT)[:-9], "a bad compressed stream"),
        (archive(entry(b"../x", content=b"x")), "leads out of the layer"),
    ],
)
def test_what_is_no_archive_makes_no_image(box: Box, data: bytes, error: str) -> None:
    images = box("images", "-aq").stdout
    done = box.installed.run_bytes("import", "-", input=data, check=False)
    assert (done.returncode, error in done.stderr.decode()) == (1, True), done.stderr
    assert (os.listdir(box.store / "trash"), box("images", "-aq").stdout) == ([], images)


def test_gnu_tar_reads_what_is_exported(box: Box, tmp_path: Path) -> None:
    container = box.detached("mkdir -p /a/b; echo x > /a/b/c; ln /a/b/c /a/d; chmod 2750 /a")
    box("wait", container)
    names = subprocess.run(["tar", "-t"], input=exported(box, container), check=True, capture_output=True).stdout
    assert {"a/", "a/b/", "a/b/c", "a/d", "bin/busybox"} <= set(names.decode().splitlines())


def test_an_import_that_is_killed_leaves_nothing(box: Box) -> None:
    before = box.installed.leftovers()
    process = box.start("import", "-")
    assert process.stdin
    process.stdin.write(ROOT[:1024])
    process.stdin.flush()
    assert wait_until(lambda: os.listdir(box.store / "trash"))
    process.kill()
    process.communicate()
    box("image", "prune", "-f")
    left = box.installed.leftovers().beyond(before)
    assert (left.processes, left.mounts, os.listdir(box.store / "trash")) == ([], [], [])
