"""The same image through podman and through us: the same tree, seen from inside (SECURITY.md T15, Y04)."""

from collections.abc import Callable

import pytest

from tests.support.account import Installation
from tests.support.podman import Podman

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

# What each runtime puts there itself, and podman's stubs for it.
OWN = "/proc /sys /dev /run /etc/hosts /etc/hostname /etc/resolv.conf /etc/mtab /.dockerenv"
PRUNE = " -o ".join(f"-path {path}" for path in OWN.split())
# Type and mode, owner, links, size of what has one, time to the second, name, where a link leads; then the contents. No
# times of directories: podman lets those that a layer changes without an entry of their own have the time of the pull.
LIST = f"""
find / \\( {PRUNE} \\) -prune -o ! -path / ! -path /etc ! -type d -exec stat -c '%A %u:%g %h %s %Y %N' {{}} +
find / \\( {PRUNE} \\) -prune -o ! -path / ! -path /etc -type d -exec stat -c '%A %u:%g %N' {{}} +
find / \\( {PRUNE} \\) -prune -o -type f -links 1 -exec sha256sum {{}} +
"""


@pytest.mark.parametrize("name", ["busybox", "whiteouts", "debian"])
def test_an_image_looks_the_same_from_inside(
    name: str, image: Callable[[str], str], rootless: Installation, podman: Podman
) -> None:
    words = ("run", "--rm", "--net=none", image(name), "sh", "-c", LIST)
    theirs = sorted(podman.run(*words).splitlines())
    ours = sorted(rootless.run(*words).stdout.splitlines())
    assert len(ours) > 100
    assert sorted(set(ours) ^ set(theirs)) == []
    assert ours == theirs
