"""apt-get in a Debian container, from the mirror that this machine itself uses."""

import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.account import installation, wait_until
from tests.support.containers import Box
from tests.support.debian import NoDebian, sources
from tests.support.network import PATHS

pytestmark = [pytest.mark.kernel, pytest.mark.registry]


@pytest.fixture
def mirror() -> str:
    """A line of sources.list whose server answers; skips the test where there is none, or only with a proxy's help."""
    try:
        line = sources()[0]
    except NoDebian as why:
        pytest.skip(str(why))
    _, uri, suite, *_ = line.split()
    if not uri.startswith("http"):
        pytest.skip(f"this machine's mirror is no server: {uri}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(f"{uri.rstrip('/')}/dists/{suite}/InRelease", timeout=10).close()
    except (OSError, urllib.error.URLError) as error:
        pytest.skip(f"the machine itself does not reach {uri}: {error}")
    return line


@pytest.fixture(scope="module")
def debian(image: Callable[[str], str]) -> Iterator[Box]:
    """An installation with Debian: to unpack it takes longer than all that is done in it."""
    name = image("debian")
    with installation() as installed:
        box = Box(installed, name)
        box("pull", "-q", name)
        yield box


@contextmanager
def tcp_by(box: Box, path: str) -> Iterator[None]:
    """slirp, with TCP on that path; ended afterwards, for it would stay for some seconds."""
    config = box.installed.home / ".config/rootless/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f'[network]\ntcp = "{path}"\n')
    yield
    used, number = box("info", "--format", "{{.Rootless.Network.Tcp}} {{.Rootless.Network.Pid}}").stdout.split()
    assert used == path
    pid = int(number)
    os.kill(pid, signal.SIGTERM)
    assert wait_until(lambda: pid not in box.installed.processes())


@pytest.mark.parametrize("path", PATHS)
def test_apt_get_installs_a_package(debian: Box, mirror: str, path: str) -> None:
    script = f"set -e; rm -rf /etc/apt/sources.list.d; echo '{mirror}' > /etc/apt/sources.list"
    script += "; apt-get update -q -o Acquire::Languages=none"
    script += "; apt-get install -q -y --no-install-recommends hello; hello"
    with tcp_by(debian, path):
        said = debian.sh(script, "--network", "bridge")
    assert said.splitlines()[-1] == "Hello, world!"
