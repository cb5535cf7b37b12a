"""ruff and mypy, run as anybody runs them: with the settings of pyproject.toml and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def cache_directory(tool: str) -> Path:
    """Where *tool* keeps what it knows from the last run: not in the tree, which may belong to somebody else."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "rootless-tests", tool)


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--no-cache", "--quiet"],
        ["ruff", "format", "--no-cache", "--check", "--quiet"],
        ["mypy", "--cache-dir", str(cache_directory("mypy")), "--no-error-summary"],
    ],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_tool_has_nothing_to_say(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
