"""Where there is no session (su, cron, CI): no XDG_RUNTIME_DIR, and the run directory is found all the same."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.account import Installation

pytestmark = pytest.mark.kernel


@pytest.fixture
def sessionless(rootless: Installation) -> Iterator[Installation]:
    """An installation that is not told of a runtime directory."""
    del rootless.env["XDG_RUNTIME_DIR"]
    uid = os.getuid()
    usual = Path(f"/run/user/{uid}")
    run = (usual if usual.is_dir() else Path(f"/tmp/rootless-{uid}")) / "rootless"
    before = set(run.glob("*")) if run.exists() else None
    yield rootless
    rootless.run("rm", "-f", "alone", check=False)
    if before is None:
        rootless.remove()
        shutil.rmtree(run, ignore_errors=True)


def test_every_command_finds_what_the_one_before_has_started(sessionless: Installation) -> None:
    sessionless.run("run", "-d", "--name", "alone", "host", "sh", "-c", "echo started; exec sleep 600")
    assert sessionless.run("ps", "--format", "{{.Names}} {{.State}}").stdout == "alone running\n"
    assert sessionless.run("exec", "alone", "echo", "inside").stdout == "inside\n"
    assert sessionless.run("logs", "alone").stdout == "started\n"
    assert sessionless.run("stop", "-t", "0", "alone").stdout == "alone\n"
    assert sessionless.run("start", "alone").stdout == "alone\n"
    assert sessionless.run("inspect", "-f", "{{.State.Status}}", "alone").stdout == "running\n"
