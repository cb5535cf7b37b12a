"""What tests of several rooms share: what a marker needs of the machine, and fixtures from tests/support."""

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.account import Installation, installation
from tests.support.debian import NoDebian
from tests.support.images import layout_of
from tests.support.layout import push
from tests.support.registry import Registry, plain_registry
from tests.support.registry import secure_registry as serve_secure_registry

# The machines that run this are slow and shared: how long an example takes says nothing about the code. CI tries the
# same examples each time, so that it fails for what a change did and for nothing else.
settings.register_profile(
    "rootless", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("rootless")


@functools.cache
def missing_for(marker: str) -> str:
    """Why this machine cannot run the tests with *marker*; empty where it can."""
    if marker == "kernel":
        tried = subprocess.run(["unshare", "--user", "--map-root-user", "true"], capture_output=True, text=True)
        return tried.stderr.strip() and f"no user namespaces here: {tried.stderr.strip()}"
    if marker == "fuse":
        return missing_for_fuse()
    if marker == "registry":
        return "" if shutil.which("docker-registry") else "docker-registry is not installed"
    return ""


def missing_for_fuse() -> str:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not usable: have root run modprobe fuse && chmod 0666 /dev/fuse"
    return (
        ""
        if importlib.util.find_spec("pyfuse3")
        else "pyfuse3 is not installed: tests/setup/missing says what it takes"
    )


def pytest_configure() -> None:
    if os.geteuid() == 0:
        raise pytest.UsageError("the tests are an ordinary user's: `make test` as root makes one")
    for number in (
        signal.SIGINT,
        signal.SIGHUP,
    ):  # which `make test &` and nohup have ignored, in all that is started, too
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here; where tests/setup/prepare has been, everything must be there: fail."""
    for marker in ("fuse", "kernel", "registry"):
        if item.get_closest_marker(marker) and (why := missing_for(marker)):
            if os.environ.get("ROOTLESS_TESTS_PREPARED"):
                pytest.fail(why, pytrace=False)
            pytest.skip(why)


@pytest.fixture
def rootless() -> Iterator[Installation]:
    """A fresh installation, whose `run("ps", "-a")` runs the command; ended and removed after the test."""
    with installation() as installed:
        yield installed


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for what the whole session shares."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def registry(scratch: Path) -> Iterator[Registry]:
    """A registry on loopback with neither TLS nor password."""
    with plain_registry(scratch / "registry") as serving:
        yield serving


@pytest.fixture(scope="session")
def secure_registry(scratch: Path) -> Iterator[Registry]:
    """A registry on loopback with TLS from a CA that nobody knows, and a password."""
    with serve_secure_registry(scratch / "secure-registry") as serving:
        yield serving


@pytest.fixture(scope="session")
def image(scratch: Path, registry: Registry) -> Callable[[str], str]:
    """`image("busybox")` puts that image of tests/support/images.py into the registry and returns its full name."""

    @functools.cache
    def pushed(name: str) -> str:
        try:
            return push(layout_of(name, scratch), registry, name)
        except NoDebian as why:
            pytest.skip(str(why))

    return pushed
