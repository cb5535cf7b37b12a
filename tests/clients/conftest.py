"""One site for each way that TCP can take (tests/support/clients.py), kept for all tests that are about it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import clients
from tests.support.clients import Site
from tests.support.network import PATHS
from tests.support.webserver import WebServer

PROGRAMS = ("curl", "dig", "git", "iperf3", "nc", "ping", "redis-benchmark", "redis-cli", "redis-server", "socat")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing and not os.environ.get("ROOTLESS_TESTS_PREPARED"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    assert not missing
    return clients.shared_directory(tmp_path_factory.mktemp("clients"))


@pytest.fixture(scope="session", params=PATHS)
def site(request: pytest.FixtureRequest, shared: Path) -> Iterator[Site]:
    with clients.site(request.param, shared) as made:
        yield made


@pytest.fixture
def web(shared: Path) -> Iterator[WebServer]:
    """A web server on the host's loopback."""
    with clients.web(shared) as server:
        yield server


@pytest.fixture(scope="session")
def services() -> Iterator[int]:
    """peer.py's services on the host's loopback: the first port."""
    with clients.host_services() as port:
        yield port
