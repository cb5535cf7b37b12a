"""The harness: what tests/support promises to the tests of the rooms."""

import io
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import Installation, command_line, wait_until
from tests.support.images import BUILDERS, KEPT
from tests.support.layout import Layout, directory, file, push, whiteout
from tests.support.registry import Registry

SMALL = sorted(set(BUILDERS) - set(KEPT))


def start_marked(rootless: Installation, *command: str) -> "subprocess.Popen[bytes]":
    """Start *command* as if rootless had."""
    prefix = rootless.command()[:-1]
    return subprocess.Popen([*prefix, *command], env=rootless.env)


def test_meter_finds_a_process_that_left_its_session_and_parent(rootless: Installation) -> None:
    with start_marked(rootless, "setsid", "--fork", "env", "-i", "/bin/sleep", "60"):
        pass
    assert wait_until(lambda: list(rootless.processes().values()) == ["/bin/sleep 60"])
    [pid] = rootless.processes()
    rootless.remove()
    assert rootless.processes() == {}
    assert command_line(Path("/proc", str(pid))) == ""
    assert not rootless.tree.exists()


@pytest.mark.kernel
def test_meter_finds_a_process_in_namespaces_of_its_own(rootless: Installation) -> None:
    namespaces = ("unshare", "--user", "--map-root-user", "--pid", "--mount", "--fork", "--kill-child")
    with start_marked(rootless, *namespaces, "/bin/sleep", "60"):
        assert wait_until(lambda: "/bin/sleep 60" in rootless.processes().values())
        rootless.remove()


def test_meter_finds_a_file_and_names_it(rootless: Installation) -> None:
    with pytest.raises(AssertionError, match="tmp/forgotten"), rootless.no_leaks():
        (rootless.tree / "tmp/forgotten").touch()


def test_meter_is_content_where_nothing_is_left(rootless: Installation) -> None:
    with rootless.no_leaks(), start_marked(rootless, "true"):
        pass


@pytest.mark.kernel
def test_removal_reaches_files_of_subordinate_ids(rootless: Installation) -> None:
    foreign = rootless.tree / "foreign"
    as_other = "mkdir $0 && touch $0/file && chmod 0 $0 && chown -R 5:5 $0"
    subprocess.run(
        ["unshare", "--user", "--map-root-user", "--map-auto", "sh", "-c", as_other, str(foreign)], check=True
    )
    rootless.remove()
    assert not rootless.tree.exists()


def test_sockets_of_an_installation_have_short_paths(rootless: Installation) -> None:
    assert len(str(rootless.runtime)) < 30


@pytest.mark.parametrize("name", SMALL)
def test_an_image_is_the_same_at_each_build(name: str, tmp_path: Path) -> None:
    first, second = (BUILDERS[name](Layout(tmp_path / str(n))) for n in range(2))
    assert first == second


def test_a_layer_is_a_tar_file_that_others_can_read(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layer = layout.add_layer([directory("a"), file("a/b", b"x" * 1000, 0o600, 5, 6), whiteout("a/c")])
    data = zlib.decompress(layout.blob(layer.descriptor).read_bytes(), wbits=31)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = [(m.name, m.mode, m.uid, m.gid, m.size) for m in archive]
    assert found == [("a", 0o755, 0, 0, 0), ("a/b", 0o600, 5, 6, 1000), ("a/.wh.c", 0o644, 0, 0, 0)]


@pytest.mark.registry
@pytest.mark.parametrize("name", SMALL)
def test_registry_takes_every_image(name: str, image: Callable[[str], str]) -> None:
    assert image(name).endswith(f"/{name}:latest")


@pytest.mark.registry
def test_secure_registry_wants_its_password(secure_registry: Registry, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.set_top(BUILDERS["busybox"](layout))
    assert push(layout, secure_registry, "private/busybox") == f"{secure_registry.host}/private/busybox:latest"
    request = urllib.request.Request(f"{secure_registry.url}/v2/")
    with pytest.raises(urllib.error.HTTPError) as refusal:
        Registry(secure_registry.port, secure_registry.directory, secure_registry.ca).open(request)
    refusal.value.close()
    assert refusal.value.code == 401


@pytest.mark.registry
def test_secure_registry_is_trusted_only_through_its_ca(secure_registry: Registry) -> None:
    with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
        urllib.request.urlopen(f"{secure_registry.url}/v2/")


def test_waiting_gives_up() -> None:
    start = time.monotonic()
    assert not wait_until(lambda: False, seconds=0.05)
    assert time.monotonic() - start < 1
