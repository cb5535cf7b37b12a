"""push as people use it: into the real registry, into one with faults, killed, and read by others."""

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.account import Installation, installation, wait_until
from tests.support.fault_registry import Fault, FaultRegistry, digest_of, errors
from tests.support.registry import Registry

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

Image = Callable[[str], str]


@pytest.fixture(scope="module")
def installed(image: Image) -> Iterator[Installation]:
    """An installation with an image that was pulled, and `made:1`, which has a layer above it that was made here."""
    with installation() as made:
        made.run("pull", "-q", image("whiteouts"))
        made.run("tag", image("whiteouts"), "pulled:1")
        script = "dd if=/dev/urandom of=/noise bs=1M count=4 2>/dev/null"
        made.run("run", "--name", "maker", "--net=none", "pulled:1", "sh", "-c", script)
        made.run("commit", "maker", "made:1")
        yield made


def inspect(installed: Installation, name: str) -> dict[str, Any]:
    [document] = json.loads(installed.run("image", "inspect", name).stdout)
    return dict(document)


def push(installed: Installation, source: str, target: str, *options: str) -> list[str]:
    installed.run("tag", source, target)
    return installed.run("push", *options, target).stdout.splitlines()


def digest_in(line: str) -> str:
    return line.split()[2]


def test_an_image_that_was_pulled_keeps_its_digest(installed: Installation) -> None:
    [before] = inspect(installed, "pulled:1")["RepoDigests"][:1]
    with FaultRegistry() as registry:
        lines = push(installed, "pulled:1", f"{registry.host}/team/app:1")
        digest = before.partition("@")[2]
        assert lines[0] == f"The push refers to repository [{registry.host}/team/app]"
        assert lines[-1] == f"1: digest: {digest} size: {len(registry.manifest('team/app', '1'))}"
        assert digest_of(registry.manifest("team/app", "1")) == digest
        assert f"{registry.host}/team/app@{digest}" in inspect(installed, "pulled:1")["RepoDigests"]
        states = {line.partition(": ")[2] for line in lines[1:-1]}
        assert states == {"Preparing", "Pushing", "Pushed"}
        again = installed.run("push", f"{registry.host}/team/app:1").stdout.splitlines()
        assert {line.partition(": ")[2] for line in again[1:-1]} == {"Preparing", "Layer already exists"}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_layer_made_here_is_compressed_once_and_the_same_each_time(compression: str, installed: Installation) -> None:
    with FaultRegistry() as registry:
        target = f"{registry.host}/made/{compression}:1"
        lines = push(installed, "made:1", target, f"--compression={compression}")
        assert any(line.endswith(": Compressing") for line in lines)
        manifest = json.loads(registry.manifest(f"made/{compression}", "1"))
        top = manifest["layers"][-1]
        assert top["mediaType"] == f"application/vnd.oci.image.layer.v1.tar+{compression}"
        assert len(registry.blob(f"made/{compression}", top["digest"]) or b"") == top["size"]
        again = installed.run("push", f"--compression={compression}", target).stdout.splitlines()
        assert again[-1] == lines[-1]
        assert not any(line.endswith(("Compressing", "Pushed")) for line in again)
        elsewhere = push(installed, "made:1", f"{registry.host}/other/{compression}:1", f"--compression={compression}")
        assert any(line.endswith(f"Mounted from made/{compression}") for line in elsewhere)


def test_what_is_pushed_is_pulled_and_run_here_and_elsewhere(
    installed: Installation, registry: Registry, rootless: Installation
) -> None:
    target = f"{registry.host}/made/everywhere:1"
    push(installed, "made:1", target)
    rootless.run("pull", "-q", target)
    assert inspect(rootless, target)["Id"] == inspect(installed, "made:1")["Id"]
    assert rootless.run("run", "--rm", "--net=none", target, "wc", "-c", "/noise").stdout == "4194304 /noise\n"
    if shutil.which("skopeo"):
        command = ["skopeo", "inspect", "--tls-verify=false", f"docker://{target}"]
        document = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        assert f"{target[:-2]}@{document['Digest']}" in inspect(installed, "made:1")["RepoDigests"]


def test_a_registry_with_tls_and_a_password_takes_it_after_a_login(
    secure_registry: Registry, rootless: Installation, image: Image
) -> None:
    configuration = rootless.home / ".config/rootless/config.toml"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(f'[registry."{secure_registry.host}"]\nca_file = "{secure_registry.ca}"\n')
    target = f"{secure_registry.host}/team/app:1"
    rootless.run("pull", "-q", image("whiteouts"))
    rootless.run("tag", image("whiteouts"), target)
    done = rootless.run("push", target, check=False)
    assert done.returncode == 1
    assert f"rootless: push access denied for {target[:-2]}" in done.stderr
    assert f"hint: try `rootless login {secure_registry.host}`" in done.stderr
    words = ("login", "-u", secure_registry.username, "--password-stdin", secure_registry.host)
    rootless.run(*words, input=secure_registry.password)
    assert "1: digest: sha256:" in rootless.run("push", target).stdout
    rootless.run("logout", secure_registry.host)
    assert rootless.run("push", target, check=False).returncode == 1


def test_all_tags_go_with_all_tags(installed: Installation) -> None:
    with FaultRegistry() as registry:
        for tag in ("1", "2"):
            installed.run("tag", "pulled:1", f"{registry.host}/many/tags:{tag}")
        lines = installed.run("push", "--all-tags", f"{registry.host}/many/tags").stdout.splitlines()
        assert [line.split()[0] for line in lines if ": digest: " in line] == ["1:", "2:"]
        assert registry.manifest("many/tags", "2") == registry.manifest("many/tags", "1") != b""
        quiet = installed.run("push", "-q", "-a", f"{registry.host}/many/tags").stdout.splitlines()
        assert quiet == [f"{registry.host}/many/tags:1", f"{registry.host}/many/tags:2"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no-such",), "An image does not exist locally with the tag: no-such"),
        (("-a", "no-such"), "An image does not exist locally with the tag: no-such"),
        (("-a", "pulled:1"), "tag can't be used with --all-tags/-a"),
        (("pulled@sha256:" + "0" * 64,), "cannot push a digest reference"),
        (("host",), "the image 'host' is built in"),
        (("--platform", "linux/s390x", "pulled:1"), "does not provide the specified platform (linux/s390x)"),
        (("--compression", "lzma", "pulled:1"), "unknown compression 'lzma'"),
    ],
)
def test_what_cannot_be_pushed_is_said(words: tuple[str, ...], said: str, installed: Installation) -> None:
    done = installed.run("push", *words, check=False)
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("HEAD *", Fault(cut=-1)),
        ("POST *", Fault(cut=-1, reset=True)),
        ("POST *", Fault(status=503)),
        ("PUT */uploads/*", Fault(take=100)),
        ("PUT */uploads/*", Fault(status=500)),
        ("PUT */manifests/*", Fault(cut=-1)),
        ("PUT */manifests/*", Fault(status=429, headers={"Retry-After": "0"})),
    ],
)
def test_a_fault_at_any_step_is_got_over(path: str, fault: Fault, installed: Installation) -> None:
    with FaultRegistry() as registry:
        registry.script(path, [fault])
        assert ": digest: sha256:" in push(installed, "pulled:1", f"{registry.host}/team/app:1")[-1]


def test_a_push_that_is_refused_leaves_nothing(installed: Installation) -> None:
    with FaultRegistry() as registry, installed.no_leaks():
        registry.script("PUT */uploads/*", [Fault(status=403, body=errors("DENIED", "quota exceeded"))], forever=True)
        installed.run("tag", "made:1", f"{registry.host}/team/app:1")
        done = installed.run("push", f"{registry.host}/team/app:1", check=False)
        assert done.returncode == 1
        assert "quota exceeded" in done.stderr
        installed.run("rmi", f"{registry.host}/team/app:1")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_push_that_is_ended_leaves_nothing(how: signal.Signals, installed: Installation) -> None:
    with FaultRegistry() as registry:
        target = f"{registry.host}/team/app:1"
        installed.run("tag", "made:1", target)
        with installed.no_leaks(killed=True):
            registry.script("PUT */uploads/*", [Fault(delay=60)], forever=True)
            with installed.start("push", target) as running:
                assert wait_until(lambda: registry.seen("*/uploads/*", "PUT"))
                running.send_signal(how)
                running.communicate(timeout=10)
        assert not registry.manifest("team/app", "1")
        registry.forget()
        assert ": digest: sha256:" in installed.run("push", target).stdout


def test_an_image_that_is_removed_while_it_is_pushed_arrives(rootless: Installation, image: Image) -> None:
    rootless.run("pull", "-q", image("whiteouts"))
    with FaultRegistry() as registry:
        target = f"{registry.host}/team/app:1"
        rootless.run("tag", image("whiteouts"), target)
        registry.script("HEAD *", [Fault(delay=1)])
        with rootless.start("push", target) as running:
            assert wait_until(lambda: registry.seen(method="HEAD") or registry.seen(method="POST"))
            rootless.run("rmi", "-f", image("whiteouts"), target)
            running.communicate(timeout=20)
            assert running.returncode == 0
        assert registry.manifest("team/app", "1")
    assert rootless.run("images", "-q").stdout == ""
