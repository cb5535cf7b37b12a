"""Many containers, at once and one after another: what is left of them. (SECURITY.md C02, C06)"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.account import wait_until
from tests.support.hostile import Box

pytestmark = pytest.mark.kernel

LONG = bool(os.environ.get("ROOTLESS_TEST_LONG"))
AT_ONCE, IN_SEQUENCE = (100, 1000) if LONG else (30, 20)


def keyrings() -> Counter[str]:
    """Session keyrings that belong to the user, whoever shows them: proc_keys(5)."""
    rows = [line.split() for line in Path("/proc/keys").read_text().splitlines()]
    return Counter(row[8] for row in rows if row[5] == str(os.getuid()) and row[7] == "keyring")


def groups() -> Iterator[str]:
    """Control groups of containers and scopes that we made."""
    for directory, below, _ in os.walk("/sys/fs/cgroup"):
        yield from (os.path.join(directory, name) for name in below if "rootless" in name)


def state() -> tuple[set[str], int]:
    return set(groups()), keyrings()["_ses:"] + keyrings()["_ses"]


def test_many_at_once_leave_nothing(box: Box) -> None:  # C02
    box.rootless.run("run", "--rm", "--network", "none", box.image, "true")  # what is kept from the first on
    before = state()
    with box.rootless.no_leaks():
        runs = [
            box.rootless.start("run", "--rm", "--network", "none", "--tmpfs", "/t", box.image, "cat", "/etc/hostname")
            for _ in range(AT_ONCE)
        ]
        said = [run.communicate(timeout=120) for run in runs]
        assert [(run.returncode, errors) for run, (_, errors) in zip(runs, said, strict=True)] == [(0, b"")] * AT_ONCE
        assert len({output for output, _ in said}) == AT_ONCE
    assert wait_until(lambda: state()[0] <= before[0], 10), state()[0] - before[0]
    # Keys of dead processes go when the kernel comes to it, keyrings(7).
    assert wait_until(lambda: state()[1] <= before[1] + 3, 30), keyrings()


def test_many_one_after_another_leave_nothing(box: Box) -> None:  # C06
    before = state()
    with box.rootless.no_leaks():
        for number in range(IN_SEQUENCE):
            said = box.rootless.run("run", "--rm", "--network", "none", box.image, "echo", str(number))
            assert said.stdout == f"{number}\n"
    assert wait_until(lambda: state()[0] <= before[0], 10), state()[0] - before[0]
    assert wait_until(lambda: state()[1] <= before[1] + 3, 30), keyrings()
