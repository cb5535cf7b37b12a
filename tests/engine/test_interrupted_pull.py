"""Ctrl-C while an image is pulled: quiet, at once, and nothing is left behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.support.account import Installation, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.registry]


def test_ctrl_c_ends_a_pull_at_once_and_quietly(image: Callable[[str], str], rootless: Installation) -> None:
    name = image("big")
    rootless.run("run", "--rm", "host", "true")
    before = rootless.leftovers()
    # A process group of its own, as a terminal's foreground is: the signal reaches the workers too.
    pull = subprocess.Popen(
        rootless.command("pull", name), env=rootless.env, stderr=subprocess.PIPE, start_new_session=True
    )
    trash = rootless.data / "rootless/trash"
    assert wait_until(lambda: any(trash.glob("*/diff/*")), seconds=20)
    began = time.monotonic()
    os.killpg(pull.pid, signal.SIGINT)
    _, said = pull.communicate(timeout=10)
    assert time.monotonic() - began < 3
    assert (pull.returncode, said) == (130, b"")
    left = rootless.leftovers().beyond(before)
    assert (left.processes, left.mounts, list(trash.iterdir())) == ([], [], [])
    assert rootless.run("images", "-q").stdout == ""
    rootless.run("pull", "-q", name)
