"""save and load: what goes out comes back the same, here and with podman and skopeo; what lies is refused."""

import gzip
import io
import json
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import Installation, installation, wait_until
from tests.support.evil_tar import DIRECTORY, HARD_LINK, SYMLINK, archive, entry
from tests.support.fault_registry import digest_of
from tests.support.hostile import busybox, packed
from tests.support.layout import NATIVE, file
from tests.support.podman import Podman
from tests.support.registry import Registry

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

Image = Callable[[str], str]
LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture(scope="module")
def source(image: Image) -> Iterator[Installation]:
    """An installation that has pulled an image with layers of every compression."""
    with installation() as installed:
        for name in ("whiteouts", "docker-busybox"):
            installed.run("pull", "-q", image(name))
        yield installed


@pytest.fixture
def podman(tmp_path: Path, registry: Registry) -> Iterator[Podman]:
    if not Podman.is_here():
        pytest.skip("podman is not installed")
    (tmp_path / "podman").mkdir()
    peer = Podman(tmp_path / "podman", registry.host)
    yield peer
    peer.close()


def saved(installed: Installation, *names: str) -> bytes:
    return installed.run_bytes("save", *names).stdout


def load(installed: Installation, data: bytes, *options: str) -> str:
    return installed.run_bytes("load", *options, input=data).stdout.decode()


def inspect(installed: Installation, name: str) -> dict[str, Any]:
    [document] = json.loads(installed.run("image", "inspect", name).stdout)
    return dict(document)


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: content.read() for info in tar if (content := tar.extractfile(info))}


# -- there and back


@pytest.mark.parametrize("name", ["whiteouts", "docker-busybox"])
def test_pull_save_load_push_keeps_the_digests(
    name: str, image: Image, source: Installation, rootless: Installation, registry: Registry
) -> None:
    whole = image(name)
    assert load(rootless, saved(source, whole)) == f"Loaded image: {whole}\n"
    assert inspect(rootless, whole)["Id"] == inspect(source, whole)["Id"]
    [before] = inspect(source, whole)["RepoDigests"]
    target = f"{registry.host}/again/{name}:1"
    rootless.run("tag", whole, target)
    assert f"1: digest: {before.partition('@')[2]} size: " in rootless.run("push", target).stdout
    assert inspect(rootless, target)["RepoDigests"] == [f"{registry.host}/again/{name}@{before.partition('@')[2]}"]
    assert rootless.run("run", "--rm", "--net=none", whole, "echo", "hello").stdout == "hello\n"


def test_the_same_image_makes_the_same_archive(image: Image, source: Installation, rootless: Installation) -> None:
    first = saved(source, image("whiteouts"))
    load(rootless, first)
    assert saved(rootless, image("whiteouts")) == first == saved(source, image("whiteouts"))


def test_an_archive_has_the_form_of_dockers(image: Image, source: Installation) -> None:
    name = image("whiteouts")
    files = members(saved(source, name))
    [entry] = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"] == {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": "latest",
    }
    [ours] = json.loads(files["manifest.json"])
    assert ours["RepoTags"] == [name]
    assert all(digest_of(files[path]).endswith(path.rpartition("/")[2]) for path in [ours["Config"], *ours["Layers"]])
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads(files["repositories"]) == {name.rpartition(":")[0]: {"latest": ours["Layers"][-1][13:]}}


def test_images_that_share_layers_need_no_more_open_files_than_one(image: Image, rootless: Installation) -> None:
    rootless.run("pull", "-q", image("whiteouts"))
    names = [f"shared:{number}" for number in range(12)]
    for name in names:
        dockerfile = f"FROM {image('whiteouts')}\nLABEL name={name}\n"
        rootless.run("build", "-q", "-t", name, "-", input=dockerfile)
    command = ["prlimit", "--nofile=32", *rootless.command("save", *names)]
    done = subprocess.run(command, env=rootless.env, capture_output=True, check=False)
    assert not done.stderr
    assert len(json.loads(members(done.stdout)["manifest.json"])) == len(names)


def test_several_images_share_what_they_have_in_common(
    image: Image, source: Installation, rootless: Installation
) -> None:
    names = [image("whiteouts"), image("docker-busybox")]
    source.run("tag", names[0], "other:2")
    data = saved(source, *names, "other:2")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert len(tar.getnames()) == len(set(tar.getnames()))
    assert load(rootless, data).splitlines() == [
        f"Loaded image: {names[0]}",
        "Loaded image: other:2",
        f"Loaded image: {names[1]}",
    ]


def test_a_repository_without_a_tag_means_all_of_its_tags(image: Image, source: Installation) -> None:
    source.run("tag", image("whiteouts"), "many:1")
    source.run("tag", image("docker-busybox"), "many:2")
    documents = json.loads(members(saved(source, "many"))["manifest.json"])
    assert [document["RepoTags"] for document in documents] == [["many:1"], ["many:2"]]


def test_an_image_by_its_id_has_no_name(image: Image, source: Installation, rootless: Installation) -> None:
    identifier = inspect(source, image("whiteouts"))["Id"]
    assert load(rootless, saved(source, identifier)) == f"Loaded image ID: {identifier}\n"


def test_a_layer_made_here_goes_out_and_comes_back_without_a_blob(
    image: Image, source: Installation, rootless: Installation, registry: Registry
) -> None:
    source.run(
        "run", "--name", "maker", "--net=none", image("whiteouts"), "sh", "-c", "echo made >/made; rm /data/kept"
    )
    source.run("commit", "maker", "made:1")
    data = saved(source, "made:1")
    load(rootless, data)
    script = "cat /made; test -e /data/kept || echo gone"
    assert rootless.run("run", "--rm", "--net=none", "made:1", "sh", "-c", script).stdout == "made\ngone\n"
    assert saved(rootless, "made:1") == data
    layer = inspect(rootless, "made:1")["RootFS"]["Layers"][-1]
    assert not (rootless.data / "rootless/blobs/sha256" / layer[7:]).exists()
    target = f"{registry.host}/made/here:1"
    rootless.run("tag", "made:1", target)
    rootless.run("push", target)


def test_an_image_that_was_made_here_pushed_and_pulled_again_is_saved_as_the_registry_has_it(
    image: Image, source: Installation, rootless: Installation, registry: Registry
) -> None:
    target = f"{registry.host}/made/again:1"
    source.run("run", "--name", "again", "--net=none", image("whiteouts"), "sh", "-c", "echo again >/again")
    source.run("commit", "again", target)
    source.run("push", target)
    digest = source.run("pull", target).stdout.splitlines()[-3].removeprefix("Digest: ")
    load(rootless, saved(source, target))
    rootless.run("tag", target, f"{target}2")
    assert f"digest: {digest} " in rootless.run("push", f"{target}2").stdout


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
def test_a_compressed_archive_is_read(
    compress: Callable[[bytes], bytes], image: Image, source: Installation, rootless: Installation
) -> None:
    load(rootless, compress(saved(source, image("docker-busybox"))))
    assert inspect(rootless, image("docker-busybox"))["Id"]


def test_files_are_written_and_read(image: Image, source: Installation, rootless: Installation, tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    assert source.run("save", "-o", str(path), image("whiteouts")).stdout == ""
    assert path.read_bytes() == saved(source, image("whiteouts"))
    assert [file.name for file in tmp_path.iterdir()] == ["images.tar"]
    rootless.run("load", "-q", "-i", str(path))
    for wrong in (str(tmp_path), str(tmp_path / "no/such")):
        assert "invalid output path" in source.run("save", "-o", wrong, image("whiteouts"), check=False).stderr
        assert "open" in source.run("load", "-i", wrong, check=False).stderr


def test_who_reads_no_further_is_no_failure_and_a_link_leads_to_the_file(
    image: Image, source: Installation, tmp_path: Path
) -> None:
    with source.start("save", image("whiteouts")) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.read(10)
        running.stdout.close()
        assert running.stderr.read() == b""
    link = tmp_path / "link.tar"
    link.symlink_to("target.tar")
    source.run("save", "-o", str(link), image("whiteouts"))
    assert link.is_symlink()
    assert (tmp_path / "target.tar").read_bytes() == saved(source, image("whiteouts"))


def test_a_tag_that_meant_another_image_moves_and_that_is_said(
    image: Image, source: Installation, rootless: Installation
) -> None:
    source.run("tag", image("whiteouts"), "moving:1")
    first = saved(source, "moving:1")
    source.run("tag", image("docker-busybox"), "moving:1")
    load(rootless, first)
    old = inspect(rootless, "moving:1")["Id"]
    said = load(rootless, saved(source, "moving:1"))
    assert said.startswith(f"The image moving:1 already exists, renaming the old one with ID {old} to empty string\n")


def test_what_is_not_there_is_said(source: Installation) -> None:
    done = source.run("save", "no-such:1", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "No such image: no-such:1" in done.stderr


def test_nothing_is_saved_to_a_terminal(image: Image, source: Installation) -> None:
    command = ["script", "-qec", f"{source.program} save {image('whiteouts')}", "/dev/null"]
    if not shutil.which("script"):
        pytest.skip("script is not installed")
    done = subprocess.run(command, env=source.env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert "cowardly refusing to save to a terminal" in done.stdout


def test_a_disk_that_is_full_is_an_error(image: Image, source: Installation) -> None:
    done = source.run_bytes("save", "-o", "/dev/full", image("whiteouts"), check=False)
    assert done.returncode == 1
    assert b"No space left" in done.stderr


def test_a_load_that_is_killed_leaves_nothing_that_stays(
    image: Image, source: Installation, rootless: Installation
) -> None:
    data = saved(source, image("whiteouts"))
    load(rootless, saved(source, image("docker-busybox")))
    trash = rootless.data / "rootless/trash"
    with rootless.no_leaks(killed=True), rootless.start("load") as running:
        assert running.stdin is not None
        running.stdin.write(data[: len(data) // 2])
        running.stdin.flush()
        assert wait_until(lambda: list(trash.glob("*/0")))
        running.kill()
    load(rootless, data)
    assert not list(trash.iterdir())


# -- with others


@pytest.mark.parametrize("name", ["whiteouts", "docker-busybox"])
def test_podman_loads_what_we_save_with_its_digest(
    name: str, image: Image, source: Installation, podman: Podman, tmp_path: Path
) -> None:
    path = tmp_path / "images.tar"
    source.run("save", "-o", str(path), image(name))
    assert f"Loaded image: {image(name)}" in podman.run("load", "-i", str(path))
    [document] = json.loads(podman.run("image", "inspect", image(name)))
    assert f"sha256:{document['Id']}" == inspect(source, image(name))["Id"]
    assert document["Digest"] == inspect(source, image(name))["RepoDigests"][0].partition("@")[2]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_we_load_what_podman_saves(
    form: str, image: Image, rootless: Installation, podman: Podman, tmp_path: Path
) -> None:
    name = image("docker-busybox")
    podman.run("pull", "-q", name)
    podman.run("tag", name, "localhost/two:2")
    names = [name, "localhost/two:2"] if form == "docker-archive" else [name]
    podman.run("save", "--format", form, *(["-m"] if len(names) > 1 else []), "-o", str(tmp_path / "x.tar"), *names)
    assert rootless.run("load", "-i", str(tmp_path / "x.tar")).stdout == "".join(f"Loaded image: {n}\n" for n in names)
    assert rootless.run("run", "--rm", "--net=none", name, "echo", "hello").stdout == "hello\n"


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
def test_skopeo_reads_what_we_save_and_we_what_it_writes(
    transport: str, image: Image, source: Installation, rootless: Installation, tmp_path: Path
) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
    # Docker's archives have no zstd, and skopeo makes other documents of Docker's where it writes OCI's.
    name = image("whiteouts" if transport == "oci-archive" else "docker-busybox")
    source.run("save", "-o", str(ours), name)
    target = f"{transport}:{theirs}:{name}"
    home = {"HOME": str(tmp_path), "PATH": source.env["PATH"], "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["skopeo", "--insecure-policy", "copy", "-q", f"{transport}:{ours}", target]
    subprocess.run(command, check=True, env=home)
    assert rootless.run("load", "-i", str(theirs)).stdout == f"Loaded image: {name}\n"
    if transport == "oci-archive":
        assert inspect(rootless, name)["Id"] == inspect(source, name)["Id"]


# -- archives from strangers: T19


class Forged:
    """The parts of an archive, to be changed before they are put together."""

    def __init__(self, layers: Sequence[bytes] = ()) -> None:
        self.layers = [busybox(), *layers]
        self.config: dict[str, Any] = {
            "architecture": NATIVE,
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in self.layers]},
        }
        self.extra: list[bytes] = []

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.extra.append(entry(f"blobs/sha256/{digest_of(data)[7:]}".encode(), content=data))
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def layout(self, **changes: Any) -> dict[str, Any]:
        """index.json, after the blobs have been made; *changes* to the manifest."""
        config = self.blob(json.dumps(self.config).encode(), "application/vnd.oci.image.config.v1+json")
        layers = [self.blob(layer, LAYER) for layer in self.layers]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, **changes}
        top = self.blob(json.dumps(manifest).encode(), MANIFEST)
        top["annotations"] = {"io.containerd.image.name": "docker.io/library/forged:1"}
        return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]}

    def docker(self) -> list[dict[str, Any]]:
        """manifest.json of an archive without a layout."""
        self.extra.append(entry(b"config.json", content=json.dumps(self.config).encode()))
        names = [f"{n}/layer.tar" for n in range(len(self.layers))]
        self.extra += [entry(name.encode(), content=layer) for name, layer in zip(names, self.layers, strict=True)]
        return [{"Config": "config.json", "RepoTags": ["forged:1"], "Layers": names}]

    def archive(self, **documents: Any) -> bytes:
        """Of what was made, and documents by the beginning of their name."""
        named = [entry(f"{name}.json".encode(), content=json.dumps(d).encode()) for name, d in documents.items()]
        return archive(*self.extra, *named)


@pytest.fixture(scope="module")
def victim() -> Iterator[Installation]:
    """One installation for all of them: each leaves it as it was."""
    with installation() as installed:
        installed.run("images")
        yield installed


def refused(installed: Installation, data: bytes) -> str:
    """What load says of an archive that it does not take, and of which nothing is kept."""
    done = installed.run_bytes("load", input=data, check=False)
    store = installed.data / "rootless"
    kept = [path.name for name in ("layers", "images", "tags", "trash") for path in (store / name).iterdir()]
    assert (done.returncode, done.stdout, kept) == (1, b"", [])
    assert b"Traceback" not in done.stderr
    return done.stderr.decode()


def test_what_is_forged_rightly_is_taken(rootless: Installation) -> None:
    forged = Forged([packed([file("second", b"2")])])
    assert load(rootless, forged.archive(index=forged.layout())) == "Loaded image: forged:1\n"
    rootless.run("rmi", "forged:1")
    forged = Forged([packed([file("second", b"2")])])
    assert load(rootless, forged.archive(manifest=forged.docker())) == "Loaded image: forged:1\n"
    assert rootless.run("run", "--rm", "--net=none", "forged:1", "cat", "/second").stdout == "2"


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "0/../../x", ""])
def test_a_manifest_that_points_outside_finds_nothing(path: str, victim: Installation) -> None:
    for key in ("Config", "Layers"):
        forged = Forged()
        document = forged.docker()
        document[0][key] = path if key == "Config" else [path]
        assert "image archive: there is no" in refused(victim, forged.archive(manifest=document))


@pytest.mark.parametrize("kind", [SYMLINK, HARD_LINK])
def test_a_layer_that_is_a_link_outside_is_refused(kind: bytes, victim: Installation) -> None:
    forged = Forged()
    document = forged.docker()
    forged.extra[-1] = entry(b"0/layer.tar", kind, link=b"/etc/passwd")
    assert "image archive" in refused(victim, forged.archive(manifest=document))
    forged = Forged()
    index = forged.layout()
    name = f"blobs/sha256/{digest_of(busybox())[7:]}".encode()
    forged.extra[1] = entry(name, kind, link=b"/etc/passwd")
    assert "no plain file" in refused(victim, forged.archive(index=index))


def test_blobs_that_are_not_what_their_names_say_are_refused(victim: Installation) -> None:
    for place in range(3):  # config, layer, manifest
        forged = Forged()
        index = forged.layout()
        name = forged.extra[place][:100].rstrip(b"\0")
        forged.extra[place] = entry(name, content=b"something else")
        assert f" is {digest_of(b'something else')}" in refused(victim, forged.archive(index=index))


def test_a_layer_that_is_not_what_the_config_says_is_refused(victim: Installation) -> None:
    for kind in ("index", "manifest"):
        forged = Forged()
        forged.config["rootfs"]["diff_ids"] = [digest_of(b"something else")]
        documents = {kind: forged.layout() if kind == "index" else forged.docker()}
        assert "the image config says" in refused(victim, forged.archive(**documents))


def test_two_tables_of_contents_must_agree(victim: Installation) -> None:
    forged, other = Forged(), Forged([packed([file("other", b"x")])])
    index, document = forged.layout(), other.docker()
    forged.extra += other.extra
    assert "speak of different images" in refused(victim, forged.archive(index=index, manifest=document))
    forged = Forged([packed([file("other", b"x")])])
    index = forged.layout()
    document = forged.docker()
    document[0]["Layers"].reverse()
    assert "speak of different layers" in refused(victim, forged.archive(index=index, manifest=document))


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ({}, "neither index.json nor manifest.json"),
        ({"index": {"schemaVersion": 2, "manifests": []}}, "there is no image in the archive"),
        ({"index": {"schemaVersion": 2, "manifests": [], "layers": []}}, "ambiguous"),
        ({"index": []}, "manifest is not an object"),
        ({"manifest": {}}, "not a list of images"),
        ({"manifest": [{}]}, "an image without Config"),
        ({"manifest": [{"Config": "x", "Layers": "y"}]}, "not a list of texts"),
        ({"manifest": [{"Config": "x", "Layers": [{}]}]}, "not a list of texts"),
        ({"manifest": []}, "there is no image in the archive"),
    ],
)
def test_documents_that_say_nothing_right_are_refused(
    documents: dict[str, Any], words: str, victim: Installation
) -> None:
    assert words in refused(victim, Forged().archive(**documents))


@pytest.mark.parametrize("tag", ["../x", "UPPER:1", "a@sha256:" + "0" * 64, "host", "\x1b[31m"])
def test_names_that_are_none_are_refused(tag: str, victim: Installation) -> None:
    forged = Forged()
    document = forged.docker()
    document[0]["RepoTags"] = [tag]
    said = refused(victim, forged.archive(manifest=document))
    assert "image archive: " in said
    assert "\x1b" not in said


def test_names_that_would_be_read_differently_are_refused(victim: Installation) -> None:
    forged = Forged()
    index = forged.layout()
    forged.extra.append(entry(b"./index.json", content=json.dumps(index).encode()))
    assert "two members 'index.json'" in refused(victim, forged.archive(index=index))
    assert "leads out of it" in refused(victim, archive(entry(b"../x", DIRECTORY)))


def test_an_archive_that_is_none_is_refused(victim: Installation) -> None:
    for data in (b"", b"not an archive" * 100, gzip.compress(b"nor this" * 100)):
        refused(victim, data)


def test_an_index_for_several_platforms_gives_the_one_that_is_wanted(rootless: Installation) -> None:
    forged = Forged()
    [native] = forged.layout()["manifests"]
    del native["annotations"]
    foreign = Forged()
    foreign.config["architecture"] = "s390x"
    [other] = foreign.layout()["manifests"]
    del other["annotations"]
    extra = dict.fromkeys(forged.extra + foreign.extra)
    forged.extra = list(extra)
    entries = [
        {**other, "platform": {"os": "linux", "architecture": "s390x"}},
        {**native, "platform": {"os": "linux", "architecture": NATIVE}},
    ]
    nested = forged.blob(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode(), INDEX)
    nested["annotations"] = {"org.opencontainers.image.ref.name": "localhost/multi:1"}
    data = forged.archive(index={"schemaVersion": 2, "manifests": [nested]})
    assert load(rootless, data) == "Loaded image: localhost/multi:1\n"
    assert inspect(rootless, "localhost/multi:1")["Architecture"] == NATIVE
    load(rootless, data, "--platform", "linux/s390x")
    assert inspect(rootless, "localhost/multi:1")["Architecture"] == "s390x"
    done = rootless.run_bytes("load", "--platform", "linux/riscv64", input=data, check=False)
    assert b"no matching manifest for linux/riscv64" in done.stderr
