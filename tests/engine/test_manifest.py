"""Lists of manifests: made here, pushed, pulled by us and others."""

import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import Installation, installation
from tests.support.fault_registry import FaultRegistry
from tests.support.hostile import busybox, packed
from tests.support.layout import NATIVE, file
from tests.support.registry import Registry, make_certificates

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

FOREIGN = "s390x" if NATIVE != "s390x" else "amd64"


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    with installation() as made:
        yield made


@pytest.fixture
def two() -> Iterator[FaultRegistry]:
    """A registry with an image for this machine and one for another."""
    with FaultRegistry() as registry:
        registry.add_image("native/app:1", [busybox()], architecture=NATIVE, config={"Cmd": ["sh"]})
        registry.add_image("foreign/app:1", [packed([file("x", b"x")])], architecture=FOREIGN)
        yield registry


def shown(installed: Installation, *words: str) -> Any:
    return json.loads(installed.run("manifest", "inspect", *words).stdout)


def test_a_list_is_made_pushed_and_pulled(installed: Installation, two: FaultRegistry) -> None:
    name = f"{two.host}/list/app:1"
    sources = [f"{two.host}/native/app:1", f"{two.host}/foreign/app:1"]
    assert installed.run("manifest", "create", name, *sources).stdout == f"Created manifest list {name}\n"
    index = shown(installed, name)
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == [NATIVE, FOREIGN]
    pushed = installed.run("manifest", "push", name).stdout.splitlines()
    digests = [entry["digest"] for entry in index["manifests"]]
    assert pushed[:2] == [f"Pushed ref {name[:-2]}@{digest} with digest: {digest}" for digest in digests]
    assert json.loads(two.manifest("list/app", "1")) == index
    assert two.manifest("list/app", pushed[2]) == two.manifest("list/app", "1")
    mounts = [r.query["from"] for r in two.seen("/v2/list/app/blobs/uploads/", "POST")]
    assert mounts == [["native/app"]] * 2 + [["foreign/app"]] * 2
    installed.run("pull", "-q", name)
    assert installed.run("run", "--rm", "--net=none", name, "echo", "hello").stdout == "hello\n"
    installed.run("manifest", "rm", name)


def test_blobs_that_the_registry_does_not_take_over_are_copied(installed: Installation, two: FaultRegistry) -> None:
    two.mounts = False
    name = f"{two.host}/copied/app:1"
    installed.run("manifest", "create", name, f"{two.host}/foreign/app:1")
    installed.run("manifest", "push", "--purge", name)
    assert json.loads(two.manifest("copied/app", "1"))["manifests"]
    assert "No such manifest" in installed.run("manifest", "push", name, check=False).stderr
    assert not list((installed.data / "rootless/trash").iterdir())


def test_an_image_that_is_here_alone_is_pushed_along(
    installed: Installation, two: FaultRegistry, image: Callable[[str], str]
) -> None:
    installed.run("pull", "-q", image("busybox"))
    local, name = f"{two.host}/only/here:1", f"{two.host}/along/app:1"
    installed.run("tag", image("busybox"), local)
    installed.run("manifest", "create", name, local, f"{two.host}/foreign/app:1")
    installed.run("manifest", "push", "-p", name)
    first, second = json.loads(two.manifest("along/app", "1"))["manifests"]
    assert two.manifest("along/app", first["digest"])
    assert second["platform"]["architecture"] == FOREIGN


def test_a_registry_without_a_known_certificate_takes_it_where_that_is_said(
    installed: Installation, image: Callable[[str], str], tmp_path: Path
) -> None:
    make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    installed.run("pull", "-q", image("busybox"))
    with FaultRegistry(tls=context) as registry:
        local, name = f"{registry.host}/only/here:1", f"{registry.host}/along/app:1"
        installed.run("tag", image("busybox"), local)
        installed.run("manifest", "create", "--insecure", name, local)
        assert "certificate" in installed.run("manifest", "push", name, check=False).stderr
        installed.run("manifest", "push", "--insecure", "-p", name)
        [entry] = json.loads(registry.manifest("along/app", "1"))["manifests"]
        assert registry.manifest("along/app", entry["digest"])


def test_images_that_are_here_go_out_under_one_index(installed: Installation, two: FaultRegistry) -> None:
    """engine.push.push_index, in a process of its own, as a build for several platforms calls it."""
    for name in ("native", "foreign"):
        options = ("--platform", f"linux/{FOREIGN}") if name == "foreign" else ()
        installed.run("pull", "-q", *options, f"{two.host}/{name}/app:1")
        installed.run("tag", f"{two.host}/{name}/app:1", f"here:{name}")
    calls = (
        "import sys; from rootless.engine import context, images, push; from rootless.spec import reference as r;"
        "e = context.open_engine(); found = [images.find_image(e, name) for name in sys.argv[2:]];"
        "print(push.push_index(e, r.parse_reference(sys.argv[1]), found, annotations={'a': 'b'}).digest)"
    )
    command = [sys.executable, "-c", calls, f"{two.host}/index/app", "here:native", "here:foreign"]
    done = subprocess.run(command, env=installed.env, check=True, capture_output=True, text=True, timeout=60)
    index = json.loads(two.manifest("index/app", "latest"))
    assert two.manifest("index/app", done.stdout.strip()) == two.manifest("index/app", "latest")
    assert index["annotations"] == {"a": "b"}
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == [NATIVE, FOREIGN]
    assert all(two.manifest("index/app", entry["digest"]) for entry in index["manifests"])


def test_entries_are_annotated(installed: Installation, two: FaultRegistry) -> None:
    name, source = f"{two.host}/noted/app:1", f"{two.host}/foreign/app:1"
    installed.run("manifest", "create", name, source)
    options = ("--arch", "arm", "--variant", "v6", "--os-version", "1", "--os-features", "a,b")
    installed.run("manifest", "annotate", *options, name, source)
    [entry] = shown(installed, name)["manifests"]
    assert entry["platform"] == {
        "architecture": "arm",
        "os": "linux",
        "os.version": "1",
        "os.features": ["a", "b"],
        "variant": "v6",
    }
    assert shown(installed, "-v", name)["Descriptor"]["platform"] == entry["platform"]
    assert shown(installed, name, source) == json.loads(two.manifest("foreign/app", "1"))
    assert "does not exist in" in installed.run("manifest", "annotate", name, "other", check=False).stderr
    installed.run("manifest", "rm", name)


def test_a_list_is_amended_only_where_that_is_said(installed: Installation, two: FaultRegistry) -> None:
    name, source = f"{two.host}/amended/app:1", f"{two.host}/foreign/app:1"
    installed.run("manifest", "create", name, source)
    done = installed.run("manifest", "create", name, source, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        "rootless: refusing to amend an existing manifest list with no --amend flag",
    )
    installed.run("manifest", "create", "--amend", name, f"{two.host}/native/app:1")
    assert len(shown(installed, name)["manifests"]) == 2
    assert installed.run("manifest", "rm", name, "no/such", check=False).returncode == 1


def test_what_a_registry_has_is_shown(installed: Installation, two: FaultRegistry) -> None:
    assert shown(installed, f"{two.host}/native/app:1") == json.loads(two.manifest("native/app", "1"))
    verbose = shown(installed, "--verbose", f"{two.host}/native/app:1")
    assert verbose["Descriptor"]["platform"] == {"architecture": NATIVE, "os": "linux"}
    assert verbose["OCIManifest"] == json.loads(two.manifest("native/app", "1"))


def test_images_of_another_registry_are_refused(installed: Installation, two: FaultRegistry) -> None:
    installed.run("manifest", "create", "example.org/app:1", f"{two.host}/native/app:1")
    done = installed.run("manifest", "push", "example.org/app:1", check=False)
    assert "cannot use source images from a different registry than the target image" in done.stderr


def test_the_real_registry_takes_a_list_and_skopeo_reads_it(
    installed: Installation, registry: Registry, image: Callable[[str], str]
) -> None:
    name = f"{registry.host}/lists/busybox:1"
    installed.run("manifest", "create", name, image("multiarch"), image("docker-busybox"))
    digest = installed.run("manifest", "push", name).stdout.splitlines()[-1]
    if shutil.which("skopeo"):
        command = ["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{name}"]
        raw = subprocess.run(command, check=True, capture_output=True).stdout
        assert len(json.loads(raw)["manifests"]) == 4
    installed.run("pull", "-q", f"{name.rpartition(':')[0]}@{digest}")
