"""Services that follow their files: compose watch, and up --watch."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.account import wait_until
from tests.support.compose import Project

pytestmark = [pytest.mark.kernel, pytest.mark.registry]


@contextmanager
def watching(project: Project, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`watch`, from when it watches."""
    running = project.start(*(words or ("watch", "--no-up")))
    assert running.stderr is not None
    seen = b""
    while b"Watch  enabled" not in (line := running.stderr.readline()):
        seen += line
        assert line, seen
    try:
        yield running
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)


def reads(project: Project, script: str, text: str, service: str = "web") -> bool:
    """Whether a script in the service's container comes to print that."""
    return wait_until(lambda: project("exec", "-T", service, "sh", "-c", script, check=False).stdout == text)


def test_files_are_sent_to_all_replicas_and_what_is_gone_is_removed(project: Project) -> None:
    source = project.directory / "src"
    (source / "ignored").mkdir(parents=True)
    (source / "first").write_text("1")
    project.write(
        """
services:
  web:
    image: IMAGE
    command: STAYS
    scale: 2
    develop: {watch: [{path: ./src, action: sync, target: /link, ignore: [ignored], initial_sync: true}]}
"""
    )
    project("up", "-d")
    for index in ("1", "2"):
        project("exec", "-T", "--index", index, "web", "sh", "-c", "mkdir /app && ln -s app /link")
    with watching(project):
        assert reads(project, "cat /app/first; stat -c ' %u' /app/first", "1 0\n")
        (source / "ignored" / "x").touch()
        (source / "deep" / "er").mkdir(parents=True)
        (source / "deep" / "er" / "file").write_text("2")
        (source / "first").unlink()
        assert reads(project, "cat /app/deep/er/file; ls /app", "2deep\n")
        other = ("exec", "-T", "--index", "2", "web", "cat", "/app/deep/er/file")
        assert project(*other).stdout == "2"
        (source / "deep").rename(project.directory / "deep")
        assert reads(project, "ls /app", "")
        (source / "deep").write_text("a file")
        assert reads(project, "cat /app/deep", "a file")
        (source / "deep").unlink()
        (source / "deep").mkdir()
        (source / "deep" / "x").symlink_to("/etc")
        assert reads(project, "readlink /app/deep/x", "/etc\n")


def test_links_that_a_container_plants_lead_nowhere(project: Project, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "key").write_text("secret")
    (tmp_path / "src" / "in").mkdir(parents=True)
    project.write(
        """
services:
  web:
    image: IMAGE
    command: STAYS
    volumes: [./src:/shared]
    develop: {watch: [{path: ./src, action: sync, target: /app}]}
"""
    )
    project("up", "-d")
    with watching(project):
        # What the name leads to is not followed, here or there.
        links = f"rmdir /shared/in; ln -s {victim} /shared/in; mkdir /app; ln -s {victim} /app/x"
        project("exec", "-T", "web", "sh", "-c", links)
        assert reads(project, "readlink /app/in", f"{victim}\n")
        (tmp_path / "src" / "x").mkdir()
        (tmp_path / "src" / "x" / "key").write_text("public")
        assert reads(project, "cat /app/x/key", "public")
    assert (victim / "key").read_text() == "secret"


def test_a_service_is_restarted_told_or_built_anew(project: Project) -> None:
    directory = project.directory
    for name in ("conf", "told", "made"):
        (directory / name).write_text("1")
    (directory / "Dockerfile").write_text(
        f"FROM {project.box.image}\nCOPY made /made\nCMD cp /conf /seen; trap 'exit 0' TERM; while :; do sleep 1; done"
    )
    project.write(
        """
services:
  web:
    build: .
    develop:
      watch:
        - {path: ./conf, action: sync+restart, target: /conf, initial_sync: true}
        - {path: ./told, action: sync+exec, target: /told, exec: {command: [cp, /told, /heard]}}
        - {path: ./made, action: rebuild}
"""
    )
    with watching(project, "watch", "--quiet"):
        assert reads(project, "cat /conf", "1")
        (directory / "told").write_text("2")
        assert reads(project, "cat /heard", "2")
        (directory / "conf").write_text("3")
        assert reads(project, "cat /seen", "3")
        before = project.id("p-web-1")
        images = project.box("images", "-q").stdout.split()
        (directory / "made").write_text("4")
        assert reads(project, "cat /made", "4")
        assert project.id("p-web-1") != before
        assert wait_until(lambda: len(project.box("images", "-aq").stdout.split()) == len(images))
        (directory / "Dockerfile").write_text("FROM no/such/image:at-all\n")
        (directory / "made").write_text("5")
    assert project.containers()["p-web-1"]["State"] == "running"


def test_up_shows_output_while_it_watches(project: Project) -> None:
    (project.directory / "page").write_text("one")
    project.write(
        """
services:
  web:
    image: IMAGE
    command: [sh, -c, "trap 'exit 0' TERM; while :; do cat /page 2>/dev/null; sleep 0.1; done"]
    develop: {watch: [{path: ./page, action: sync, target: /page}]}
"""
    )
    with watching(project, "up", "--watch", "--no-log-prefix") as running:
        assert running.stdout is not None
        (project.directory / "page").write_text("two\n")
        assert running.stdout.readline() == b"two\n"
    assert project.containers()["p-web-1"]["State"] == "exited"
    refused = project("up", "--watch", "-d", check=False)
    assert "--detach cannot be combined" in refused.stderr
