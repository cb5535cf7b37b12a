"""apt-get in a Debian container, from the mirror that this machine itself uses."""

import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from tests.support.account import installation
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


@pytest.mark.parametrize("path", PATHS)
def test_apt_get_installs_a_package(image: Callable[[str], str], mirror: str, path: str) -> None:
    script = f"set -e; rm -rf /etc/apt/sources.list.d; echo '{mirror}' > /etc/apt/sources.list"
    script += "; apt-get update -q; apt-get install -q -y --no-install-recommends hello; hello"
    name = image("debian")
    with installation() as installed:
        config = installed.home / ".config/rootless/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f'[network]\ntcp = "{path}"\n')
        said = installed.run("run", "--rm", name, "sh", "-c", script, timeout=110).stdout
    assert said.splitlines()[-1] == "Hello, world!"
