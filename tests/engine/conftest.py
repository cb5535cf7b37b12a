"""An installation with busybox, for the tests of containers; what a test makes goes with it.

Its containers have no network unless a test asks for one: most tests are about something else. The modules that are
about the files of containers, and how they live, run with both storage drivers.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import installation
from tests.support.compose import Project
from tests.support.containers import Box
from tests.support.podman import Podman
from tests.support.registry import Registry

_ON_BOTH_DRIVERS = ("test_diff", "test_files_of_containers", "test_lifecycle", "test_run", "test_volumes_in_containers")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Of the modules above, each test that has a box has one of either driver."""
    if "storage_driver" in metafunc.fixturenames and metafunc.module.__name__.split(".")[-1] in _ON_BOTH_DRIVERS:
        drivers = ("overlay", pytest.param("fuse", marks=pytest.mark.fuse))
        metafunc.parametrize("storage_driver", drivers, indirect=True, scope="session")


@pytest.fixture(scope="session")
def storage_driver(request: pytest.FixtureRequest) -> str:
    """How the containers of the box get their root."""
    return str(getattr(request, "param", "overlay"))


@pytest.fixture(scope="session")
def shared_box(image: Callable[[str], str], storage_driver: str) -> Iterator[Box]:
    with installation() as installed:
        configuration = installed.home / ".config/rootless/config.toml"
        configuration.parent.mkdir(parents=True, exist_ok=True)
        configuration.write_text(f'[storage]\ndriver = "{storage_driver}"\n[run]\nnetwork = "none"\n')
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


@pytest.fixture
def committed(box: Box) -> Any:
    """`committed(container, *options)` commits as `test:commit`; the image goes in the end."""
    images = []

    def commit(container: str, *options: str) -> str:
        images.append(box("commit", *options, container, "test:commit").stdout.strip())
        return "test:commit"

    yield commit
    box.clear(keep=[])
    box("rmi", "-f", *images)


@pytest.fixture(scope="module")
def podman(registry: Registry) -> Iterator[Podman]:
    """podman of its own, which knows the tests' registry, at a short path: with a long one it waits for its sockets."""
    if not Podman.is_here():
        pytest.skip("podman is not installed")
    directory = Path(tempfile.mkdtemp(prefix="podman-", dir="/tmp"))
    peer = Podman(directory, registry.host)
    try:
        yield peer
    finally:
        peer.close()
        shutil.rmtree(directory)


@pytest.fixture
def project(box: Box, tmp_path: Path) -> Iterator[Project]:
    """A directory for Compose files; the project goes with the test."""
    found = Project(box, tmp_path)
    yield found
    box("compose", "-p", "p", "down", "-v", "-t", "0")
    assert box("ps", "-aq", "--filter", "label=com.docker.compose.project=p").stdout == ""
    assert "p_" not in box("network", "ls", "--format", "{{.Name}}").stdout
