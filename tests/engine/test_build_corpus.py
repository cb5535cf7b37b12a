"""Dockerfiles that cover every instruction and flag: what each comes to, and that podman comes to the same."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import corpus
from tests.support.containers import Box
from tests.support.podman import Podman

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

CASES = corpus.load()
PEER_CASES = [case for case in CASES if case.has_peer]
# What a person may ask for in a config; podman's own labels are not among it.
MEMBERS = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "StopSignal", "User", "Volumes", "WorkingDir")
# Where podman 4.3 does otherwise, and BuildKit as we do.
PEER_DIFFERS = {
    "scratch": ("WorkingDir", "Env"),
    "copy_from_image": ("WorkingDir", "Env"),
}


@pytest.fixture(scope="module")
def built(shared_box: Box, tmp_path_factory: pytest.TempPathFactory) -> Callable[[corpus.Case], str]:
    """Builds a case, once; what it comes to."""
    scratch = tmp_path_factory.mktemp("corpus")
    known: dict[str, str] = {}
    shared_box("tag", shared_box.image, "busybox")

    def build(case: corpus.Case) -> str:
        if case.name not in known:
            rootless = [str(shared_box.installed.program)]
            known[case.name] = corpus.build(rootless, case, scratch, "busybox", shared_box.installed.env)
        return known[case.name]

    return build


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_a_dockerfile_comes_to_what_it_says(case: corpus.Case, built: Callable[[corpus.Case], str]) -> None:
    assert built(case) == case.expected


@pytest.fixture(scope="module")
def podman(podman: Podman, image: Callable[[str], str]) -> Podman:
    podman.run("pull", "-q", image("busybox"))
    podman.run("tag", image("busybox"), "localhost/busybox")
    return podman


@pytest.mark.slow
def test_podman_comes_to_the_same(
    podman: Podman, built: Callable[[corpus.Case], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All at once, for each call of podman takes its time: files with their looks, and the config."""
    scratch = tmp_path_factory.mktemp("peer")
    for case in PEER_CASES:
        context = scratch / case.name
        context.mkdir()
        case.write(context, "localhost/busybox")
        options = [word.replace("src=", f"src={context}/") for word in case.options]
        podman.run(
            "build",
            "-q",
            "--layers=false",
            "--network=none",
            "--pull=never",
            *options,
            "-t",
            f"corpus:{case.name}",
            str(context),
        )
    trees = _trees(podman, scratch)
    below = trees.pop("base")
    configs = _configs(podman)
    different = {
        case.name: lines
        for case in PEER_CASES
        if (lines := _differences(case, built(case), trees[case.name], below, configs[case.name]))
    }
    assert different == {}, json.dumps(different, indent=1)


def _trees(podman: Podman, scratch: Path) -> dict[str, dict[str, str]]:
    names = {"base": "localhost/busybox", **{case.name: f"corpus:{case.name}" for case in PEER_CASES}}
    script = "".join(
        f'tar -C "$(podman image mount {image})" -cf {scratch}/{name}.tar .\n' for name, image in names.items()
    )
    podman.run("unshare", "sh", "-ec", script)
    return {name: corpus.lines_of_tar((scratch / f"{name}.tar").read_bytes()) for name in names}


def _configs(podman: Podman) -> dict[str, dict[str, object]]:
    documents = json.loads(podman.run("image", "inspect", *(f"corpus:{case.name}" for case in PEER_CASES)))
    return {case.name: document["Config"] for case, document in zip(PEER_CASES, documents, strict=True)}


def _differences(
    case: corpus.Case, ours: str, tree: dict[str, str], below: dict[str, str], config: dict[str, object]
) -> list[str]:
    left_out = PEER_DIFFERS.get(case.name, ())
    wanted = {name: value for name, value in config.items() if name in MEMBERS and name not in left_out}
    labels = wanted.get("Labels")
    if isinstance(labels, dict):
        wanted["Labels"] = {name: value for name, value in labels.items() if name != "io.buildah.version"}
    theirs = corpus.described(tree, {} if corpus.is_from_scratch(case) else below, wanted)
    kept = {
        line
        for line in ours.splitlines()
        if line.startswith("/") or (line.split()[0] in MEMBERS and line.split()[0] not in left_out)
    }
    return sorted(kept ^ {line.replace("localhost/busybox", "busybox") for line in theirs.splitlines()})
