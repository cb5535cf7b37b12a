"""build --platform: an index of images for several platforms, its caches, and what cannot be run here."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import installation as fresh
from tests.support.containers import Box
from tests.support.images import layout_of
from tests.support.layout import NATIVE, Layout
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
    builder.box("image", "prune", "-f")  # spares what the list names
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


def test_images_of_a_layout_are_contexts(builder: Builder, scratch: Path, tmp_path: Path) -> None:
    layout = layout_of("multiarch", scratch)
    context = f"lay=oci-layout://{layout.path}"
    text = "FROM lay\nCOPY --from=lay /architecture /copy\n"
    builder(text, "--build-context", context, "--platform", f"linux/{FOREIGN}", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out/copy").read_text() == FOREIGN
    builder("FROM lay\nRUN echo runs > /x\n", "--build-context", f"{context}@{layout.top['digest']}", "-t", "native")
    assert builder.box("run", "--rm", "native", "cat", "/x").stdout == "runs\n"
    for place, expected in (
        (f"{layout.path}:nothing", "nothing is not there"),
        (f"{tmp_path}/missing", "No such file or directory"),
    ):
        failed = builder(text, "--build-context", f"lay=oci-layout://{place}", check=False)
        assert expected in failed.stderr
    # Only the command line names places of this machine.
    failed = builder(f"FROM oci-layout://{layout.path}\n", check=False)
    assert "invalid reference" in failed.stderr


def test_a_layout_that_is_not_what_it_says_is_refused(builder: Builder, scratch: Path, tmp_path: Path) -> None:
    """A blob that holds something else, one that leads out of the layout: hostile layouts."""
    whole = layout_of("busybox", scratch)
    [layer] = whole.load(whole.top)["layers"]
    for number, spoil in enumerate(("content", "link")):
        copy = Layout(Path(shutil.copytree(whole.path, tmp_path / f"layout{number}")))
        path = copy.blob(layer)
        data = path.read_bytes()
        path.unlink()
        if spoil == "content":
            path.write_bytes(data[:-1] + b"x")
        else:
            (tmp_path / "outside").write_bytes(data)
            path.symlink_to(tmp_path / "outside")
        config = copy.load(copy.load(copy.top)["config"])
        text = f"FROM lay\nLABEL of={config['architecture']}\n"
        with fresh() as other:
            (builder.place / "Dockerfile").write_text(text)
            place = f"lay=oci-layout://{copy.path}"
            failed = other.run("build", "--build-context", place, str(builder.place), check=False)
            assert failed.returncode == 1, failed.stderr
            assert "blob" in failed.stderr or "No such file" in failed.stderr
