"""commit and cp through podman and through us: the same files, the same config, the same cases that are errors."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import Installation, installation
from tests.support.podman import Podman

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

CHANGES = """
    mkdir -p /new/deep; echo x > /new/deep/file; ln /new/deep/file /new/hard; ln -s /nowhere /new/link; mkfifo /new/fifo
    echo more >> /etc/passwd; chmod 4755 /etc/group; chown 7:8 /etc/shadow; rm -r /home/user; rm -r /var; mkdir /var
    echo x > /var/x; chmod 1700 /tmp; touch -d @12345 /new/deep
"""
# All that is there, but for what each runtime puts there itself.
LIST = r"""
find / \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /etc/hosts -o -path /etc/hostname -o \
    -path /etc/resolv.conf -o -path /etc/mtab -o -path /.dockerenv \) -prune -o ! -path / ! -path /etc ! -type d \
    -exec stat -c '%A %u:%g %h %s %N' {} + -o ! -path / ! -path /etc -type d -exec stat -c '%A %u:%g %N' {} +
"""
CONFIG = ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels", "ExposedPorts", "StopSignal", "Volumes")
# podman forgets --expose and --stop-signal in a commit, and expands no variables in its changes.
OPTIONS = ("-e", "A=1", "-w", "/tmp", "-u", "0", "-l", "b=c")
INSTRUCTIONS = (
    'CMD ["echo", "hello"]',
    "ENV B=2",
    "LABEL d=e",
    "EXPOSE 81",
    "USER 5",
    "WORKDIR /tmp/sub",
    "VOLUME /v",
)

Run = Callable[..., str]


@pytest.fixture(scope="module")
def both(podman: Podman, image: Callable[[str], str]) -> Iterator[tuple[Run, Run]]:
    """`rootless` and `podman`, each with a container `made` that has made CHANGES."""
    with installation() as rootless:
        yield prepared(rootless, podman, image("busybox"))


def prepared(rootless: Installation, podman: Podman, image: str) -> tuple[Run, Run]:
    runs: tuple[Run, Run] = (lambda *words: rootless.run(*words).stdout, podman.run)
    for run in runs:
        run("run", "--name", "made", "--net=none", *OPTIONS, image, "sh", "-c", CHANGES)
    return runs


def test_an_image_of_a_container_has_the_same_files_and_the_same_config(both: tuple[Run, Run]) -> None:
    files, configs = [], []
    for run in both:
        run(
            "commit",
            *(("-f", "docker") if run is both[1] else ()),
            "-a",
            "me",
            "-m",
            "why",
            *(word for text in INSTRUCTIONS for word in ("-c", text)),
            "made",
            "local:1",
        )
        words = ("run", "--rm", "--net=none", "--user=0", "--entrypoint", "sh", "local:1", "-c", LIST)
        files.append(sorted(run(*words).splitlines()))
        configs.append(config(json.loads(run("image", "inspect", "local:1"))[0]))
    assert len(files[0]) > 100
    assert sorted(set(files[0]) ^ set(files[1])) == []
    assert configs[0] == configs[1]


def config(document: dict[str, Any]) -> dict[str, Any]:
    """What both have to say the same of; podman adds variables of its own."""
    found = {name: document["Config"].get(name) or None for name in CONFIG}
    found["Env"] = sorted(
        entry for entry in found["Env"] or () if not entry.startswith(("container=", "HOME=", "HOSTNAME=", "TERM="))
    )
    return {**found, "Author": document["Author"], "Comment": document["Comment"]}


OUT = [  # a source in the container, a target here; relative sources are not alike: podman takes the working directory
    ("/new", "new"), ("/new", "dir"), ("/new/", "dir"), ("/new/.", "dir"), ("/new/.", "new"), ("/new", "file"),
    ("/new/deep/file", "new"), ("/new/deep/file", "dir"), ("/new/deep/file", "file"), ("/new/deep/file", "dir/"),
    ("/new/deep/file", "none/new"), ("/nothing", "dir"), ("/var", "dir/new"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target"), OUT)
def test_the_same_comes_out_of_a_container(both: tuple[Run, Run], tmp_path: Path, source: str, target: str) -> None:
    found = []
    for number, run in enumerate(both):
        top = tmp_path / str(number)
        local_tree(top)
        end = "/" if target.endswith("/") else ""
        failed = fails(run, "cp", f"made:{source}", f"{top / target}{end}")
        found.append((failed, [] if failed else tree(top)))
    assert found[0] == found[1]


IN = [  # a source here, a target in a directory of the container that has `dir`, `file`, and `link` to `dir`
    ("dir", "new"), ("dir", "dir"), ("dir/.", "dir"), ("dir/", "dir"), ("dir", "file"), ("file", "new"),
    ("file", "dir"), ("file", "file"), ("file", "none/new"), ("none", "."), ("file", "link"),
]  # fmt: skip


def test_the_same_goes_into_a_container(both: tuple[Run, Run], tmp_path: Path, image: Callable[[str], str]) -> None:
    local_tree(tmp_path)
    script = "; ".join(f"mkdir -p /in/{n}/dir; echo x > /in/{n}/file; ln -s dir /in/{n}/link" for n in range(len(IN)))
    seen = []
    for run in both:
        run("run", "--name", "into", "--net=none", image("busybox"), "sh", "-c", script)
        failed = [
            (source, target, fails(run, "cp", f"{tmp_path}/{source}", f"into:/in/{number}/{target}"))
            for number, (source, target) in enumerate(IN)
        ]
        run("commit", "-q", "into", "in:1")
        words = ("find", "/in", "-exec", "stat", "-c", "%A %u:%g %N", "{}", "+")
        seen.append((failed, sorted(run("run", "--rm", "--net=none", "in:1", *words).splitlines())))
    assert seen[0] == seen[1]


def fails(run: Run, *words: str) -> bool:
    try:
        run(*words)
    except AssertionError:
        return True
    return False


def local_tree(top: Path) -> None:
    (top / "dir").mkdir(parents=True)
    (top / "dir/inner").write_text("inner")
    (top / "file").write_text("file")


def tree(top: Path) -> list[tuple[str, int, str]]:
    return sorted(
        (str(path.relative_to(top)), path.lstat().st_mode & 0o170777, os.readlink(path) if path.is_symlink() else "")
        for path in top.rglob("*")
    )
