"""What a command costs before its work begins, the modules that are loaded, and after it has ended."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.account import ROOT, Installation, installation

# Each takes a millisecond at least, with what it imports, and some take thirty: a whole `rootless ps` may take twenty.
HEAVY = {
    "argparse",
    "ast",
    "asyncio",
    "click",
    "concurrent",
    "dataclasses",
    "http",
    "importlib.metadata",
    "inspect",
    "isal",
    "logging",
    "pathlib",
    "platform",
    "pyroute2",
    "requests",
    "shutil",
    "socket",
    "ssl",
    "subprocess",
    "tarfile",
    "tempfile",
    "urllib",
    "urllib3",
    "uuid",
    "zipfile",
    "zstandard",
}

# Lines whose options are read, and that end with this soon after: their status, and how their output begins.
LINES = [
    (["ps"], 0, "CONTAINER ID"),
    (["run", "--rm", "-i", "-v", "/tmp:/tmp", "-e", "A=b", "NoReference"], 125, "rootless: invalid reference format"),
    (["exec", "-it", "-e", "A=b", "nosuch", "true"], 1, "rootless: No such container: nosuch"),
]


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    """An installation whose user namespace is there, as it is for every command but the first."""
    with installation() as fresh:
        fresh.run("exec", "nosuch", "true", check=False)
        yield fresh


@pytest.mark.parametrize(("words", "status", "beginning"), LINES)
def test_an_ordinary_line_loads_nothing_heavy(
    installed: Installation, words: list[str], status: int, beginning: str
) -> None:
    # PYTHONPROFILEIMPORTTIME: each module that the process loads is a line on stderr, "import time: 12 | 34 | name".
    done = subprocess.run(
        installed.command(*words), env={**installed.env, "PYTHONPROFILEIMPORTTIME": "1"}, text=True, capture_output=True
    )
    lines = done.stderr.splitlines()
    loaded = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    said = done.stdout + "\n".join(line for line in lines if not line.startswith("import time:"))
    assert (done.returncode, said[: len(beginning)]) == (status, beginning)
    assert "rootless.cli.command" in loaded
    assert {name for name in loaded if name in HEAVY or name.partition(".")[0] in HEAVY} == set()


def test_what_begins_every_command_imports_next_to_nothing() -> None:
    code = "import sys; before = {*sys.modules}; import rootless.cli.command; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-B", "-S", "-c", code], cwd=ROOT, text=True, capture_output=True)
    assert set(done.stdout.split()) == {"errno", "rootless", "rootless.cli", "rootless.cli.command", "rootless.errors"}


@pytest.mark.parametrize("words", [words for words, _, _ in LINES])
def test_nothing_waits_for_the_end_of_the_interpreter(installed: Installation, words: list[str]) -> None:
    # main() ends the process with os._exit(), which forgets what is registered with atexit.
    code = """
import atexit, os, sys
def show(status):
    print(atexit._ncallbacks(), flush=True)
    leave(status)
leave, os._exit = os._exit, show
from rootless.cli.main import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, *words], cwd=ROOT, env=installed.env, text=True, capture_output=True
    )
    assert done.stdout.splitlines()[-1] == "0"


def test_the_interpreter_does_not_tidy_up() -> None:
    code = "import atexit; atexit.register(print, 'late'); from rootless.cli.main import main; main(['--version'])"
    done = subprocess.run([sys.executable, "-B", "-c", code], cwd=ROOT, text=True, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "rootless version 0.1.0\n", "")
