"""What a container's start, life and end ask of slirp, and what becomes of the answers: without a network behind it."""

from collections.abc import Iterator

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box
from tests.support.fake_slirp import FakeSlirp

pytestmark = pytest.mark.kernel


@pytest.fixture
def slirp(box: Box) -> Iterator[FakeSlirp]:
    with FakeSlirp(box.session / "slirp") as fake:
        yield fake
        box.clear(keep=[])


def detached(box: Box, *options: str, script: str = "sleep 60") -> str:
    return (
        box.detached(script, "--network", "bridge", *options)
        if "--network" not in options
        else box.detached(script, *options)
    )


def test_a_container_is_plugged_before_its_program_runs_and_let_go_at_its_end(
    box: Box, slirp: FakeSlirp
) -> None:
    container_id = detached(box)
    [netns] = slirp.plugged(container_id)
    assert box("exec", container_id, "stat", "-Lc", "%i", "/proc/1/ns/net").stdout == f"{netns}\n"
    box("rm", "-f", container_id)
    assert wait_until(lambda: not slirp.ids, 5)
