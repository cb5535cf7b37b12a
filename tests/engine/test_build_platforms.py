"""build --platform: an index of images for several platforms, its caches, and what cannot be run here."""

import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import Box
from tests.support.layout import NATIVE
from tests.support.registry import Registry

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

FOREIGN = "riscv64" if NATIVE != "riscv64" else "arm64"
BOTH = f"linux/{NATIVE},linux/{FOREIGN}"
DOCKERFILE = """
FROM --platform=$BUILDPLATFORM BASE AS make
ARG TARGETARCH
RUN echo for $TARGETARCH > /made
FROM BASE
ARG TARGETPLATFORM BUILDPLATFORM
ENV FOR=$TARGETPLATFORM ON=$BUILDPLATFORM
COPY --from=make /made /made
COPY f /f
"""


class Builder:
    """A box, the name of an index to build from, and a context."""

    def __init__(self, box: Box, base: str, place: Path) -> None:
        self.box, self.base, self.place = box, base, place
        (place / "f").write_text("f")

    def __call__(self, dockerfile: str, *options: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        (self.place / "Dockerfile").write_text(dockerfile.replace("BASE", self.base))
        return self.box("build", "--progress=plain", *options, str(self.place), check=check)


@pytest.fixture
def builder(box: Box, image: Callable[[str], str], tmp_path: Path) -> Iterator[Builder]:
    place = tmp_path / "context"
    place.mkdir()
    yield Builder(box, image("multiarch"), place)
    box("builder", "prune", "-a", "-f")
    box("image", "prune", "-f")


def remote(name: str, *words: str) -> Any:
    """What skopeo finds in a registry."""
    command = ["skopeo", "inspect", "--tls-verify=false", *words, f"docker://{name}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def test_an_image_for_each_platform_and_an_index_of_them(builder: Builder, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/built/platforms:1"
    said = builder(DOCKERFILE, "--platform", BOTH, "-t", name, "--push", "--metadata-file", f"{tmp_path}/meta").stderr
    assert f"[linux/{NATIVE} make 2/2] RUN echo" in said
    assert f"[linux/{NATIVE}->{FOREIGN} make 2/2] RUN echo" in said
    assert f"[linux/{FOREIGN} 2/3] COPY --from=make /made /made" in said
    index = remote(name, "--raw")
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == [NATIVE, FOREIGN]
    digest = json.loads((tmp_path / "meta").read_text())["containerimage.digest"]
    assert remote(f"{name.rpartition(':')[0]}@{digest}", "--raw") == index
    for architecture in (NATIVE, FOREIGN):
        config = remote(name, "--config", f"--override-arch={architecture}")
        assert config["architecture"] == architecture
        assert f"FOR=linux/{architecture}" in config["config"]["Env"]
        assert f"ON=linux/{NATIVE}" in config["config"]["Env"]
    assert builder.box("run", "--rm", name, "cat", "/made").stdout == f"for {NATIVE}\n"
    again = builder(DOCKERFILE, "--platform", BOTH, "-t", name).stderr
    assert again.count("CACHED") == 6
    listed = json.loads(builder.box("manifest", "inspect", name).stdout)
    assert [entry["platform"]["architecture"] for entry in listed["manifests"]] == [NATIVE, FOREIGN]
    builder.box("manifest", "push", name)
    assert remote(name, "--raw") == index
    builder.box("manifest", "rm", name)
    assert builder.box("run", "--rm", builder.base, "echo", "still").stdout == "still\n"  # the name means what it did


def test_archives_and_files_of_several_platforms(builder: Builder, tmp_path: Path) -> None:
    out, tar, archive = tmp_path / "out", tmp_path / "files.tar", tmp_path / "oci.tar"
    outputs = ("-o", str(out), "-o", f"type=tar,dest={tar}", "-o", f"type=oci,dest={archive},name=x.y/z:1")
    builder(DOCKERFILE, "--platform", BOTH, *outputs)
    assert sorted(path.name for path in out.iterdir()) == sorted(f"linux_{a}" for a in (NATIVE, FOREIGN))
    assert (out / f"linux_{FOREIGN}/made").read_text() == f"for {FOREIGN}\n"
    assert (out / f"linux_{FOREIGN}/architecture").read_text() == FOREIGN
    with tarfile.open(tar) as files:
        assert {f"linux_{NATIVE}/made", f"linux_{FOREIGN}/made"} <= {member.name for member in files}
    shown = subprocess.run(
        ["skopeo", "inspect", f"--override-arch={FOREIGN}", "--config", f"oci-archive:{archive}"],
        check=True,
        capture_output=True,
    )
    assert json.loads(shown.stdout)["architecture"] == FOREIGN
    with tarfile.open(archive) as files:
        [entry] = json.loads(files.extractfile("index.json").read())["manifests"]  # type: ignore[union-attr]
    assert entry["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert entry["annotations"]["io.containerd.image.name"] == "x.y/z:1"


def test_what_cannot_be_run_here_is_known_before_anything_is_done(builder: Builder) -> None:
    text = "FROM BASE\nCOPY f /f\nRUN echo x\n"
    failed = builder(text, "--platform", f"linux/{FOREIGN}", check=False)
    assert failed.returncode != 0
    assert f"this machine has no interpreter for programs of linux/{FOREIGN}" in failed.stderr
    assert "qemu-user-static" in failed.stderr
    assert "COPY f /f" not in failed.stderr
    only_copied = builder("FROM BASE\nCOPY f /f\nENV A=b\n", "--platform", f"linux/{FOREIGN}", "-t", "foreign")
    assert "RUN" not in only_copied.stderr
    [document] = json.loads(builder.box("image", "inspect", "foreign").stdout)
    assert document["Architecture"] == FOREIGN


def test_annotations_of_manifests_and_of_the_index(builder: Builder, registry: Registry) -> None:
    name = f"{registry.host}/built/annotated:1"
    given = ("--annotation", "a=1", "--annotation", "index:b=2", "--annotation", "manifest,index:c=3")
    builder("FROM BASE\nCOPY f /f\n", "--platform", BOTH, "-t", name, "--push", *given)
    index = remote(name, "--raw")
    assert index["annotations"] == {"b": "2", "c": "3"}
    manifest = remote(f"{name.rpartition(':')[0]}@{index['manifests'][0]['digest']}", "--raw")
    assert manifest["annotations"] == {"a": "1", "c": "3"}
