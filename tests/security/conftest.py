"""A registry of hostile images, and installations to pull them into."""

from collections.abc import Iterator

import pytest

from tests.support.account import installation
from tests.support.fault_registry import FaultRegistry
from tests.support.hostile import Box, busybox, serve, tools


@pytest.fixture(scope="session")
def hostile() -> Iterator[FaultRegistry]:
    """The registry. Who scripts faults scripts them for paths of his own."""
    with FaultRegistry() as registry:
        yield registry


@pytest.fixture(scope="module")
def box(hostile: FaultRegistry) -> Iterator[Box]:
    """An installation that the tests of a module share, each leaving it as it was."""
    with installation() as installed:
        image = serve(hostile, busybox(), tools())
        installed.run("pull", "-q", image)
        yield Box(installed, image)
