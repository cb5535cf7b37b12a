"""An installation with busybox, for the tests of containers; what a test makes goes with it.

Its containers have no network unless a test asks for one: most tests are about something else.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.support.account import installation
from tests.support.containers import Box


@pytest.fixture(scope="session")
def shared_box(image: Callable[[str], str]) -> Iterator[Box]:
    with installation() as installed:
        configuration = installed.home / ".config/rootless/config.toml"
        configuration.parent.mkdir(parents=True)
        configuration.write_text('[run]\nnetwork = "none"\n')
        box = Box(installed, image("busybox"))
        box("pull", "-q", box.image)
        box("volume", "rm", box("volume", "create").stdout.strip())  # files of locks stay: no test shall miss them
        yield box


@pytest.fixture
def box(shared_box: Box) -> Iterator[Box]:
    """`box.sh("echo x")` runs that in a busybox container, `box("ps")` runs any command."""
    before = shared_box.ids()
    yield shared_box
    shared_box.clear(keep=before)
