"""What tests of several rooms share: what a marker needs of the machine, and fixtures from tests/support."""

import functools
import os
import shutil
import subprocess

import pytest
from hypothesis import settings

# The machines that run this are slow and shared: how long an example takes says nothing about the code.
settings.register_profile("rootless", deadline=None)
settings.load_profile("rootless")


@functools.cache
def missing_for(marker: str) -> str:
    """Why this machine cannot run the tests with *marker*; empty where it can."""
    if marker == "kernel":
        tried = subprocess.run(["unshare", "--user", "--map-root-user", "true"], capture_output=True, text=True)
        return tried.stderr.strip() and f"no user namespaces here: {tried.stderr.strip()}"
    if marker == "registry":
        return "" if shutil.which("docker-registry") else "docker-registry is not installed"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here; where tests/setup/prepare has been, everything must be there: fail."""
    for marker in ("kernel", "registry"):
        if item.get_closest_marker(marker) and (why := missing_for(marker)):
            if os.environ.get("ROOTLESS_TESTS_PREPARED"):
                pytest.fail(why, pytrace=False)
            pytest.skip(why)
