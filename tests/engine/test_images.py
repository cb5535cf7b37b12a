"""Which images there are, under which names; and what goes when a name or an image is removed."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.engine import image_remove
from rootless.engine.image_inspect import history, inspect_image
from rootless.engine.image_remove import remove_image
from rootless.engine.images import ImageFilter, _glob, list_images, moment, tag_image
from rootless.engine.prune import prune_images
from rootless.errors import Conflict, CorruptData, InvalidInput, NotFound, RootlessError
from rootless.store.images import Image
from tests.support.store import LAYER_SIZE, Store, digest

HUB = "docker.io/library"
A, B, C = (digest(letter) for letter in "abc")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for name in ("root", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    return Store(tmp_path / "root", tmp_path / "run")


def names(store: Store, wanted: ImageFilter | None = None) -> list[list[str]]:
    """The familiar names of the images that are listed."""
    return [[name.familiar for name in listed.names] for listed in list_images(store.engine, wanted)]


def steps(removal: image_remove.Removal) -> list[str]:
    return [f"Untagged: {s.untagged}" if s.untagged else f"Deleted: {s.deleted}" for s in removal.steps]


# --- listing


def test_the_newest_image_comes_first_whatever_its_zone(store: Store) -> None:
    store.add_image(f"{HUB}/old:1", created="2024-01-01T10:00:00Z", layers=["a"])
    store.add_image(f"{HUB}/new:1", created="2024-01-01T09:30:00-02:00", layers=["b"])
    store.add_image(f"{HUB}/unknown:1", created="", layers=["c"])
    assert names(store) == [["new:1"], ["old:1"], ["unknown:1"]]


def test_tags_come_before_digests(store: Store) -> None:
    store.add_image(f"{HUB}/one:2", f"{HUB}/one:1", "localhost:5000/team/app:1", digests=[f"{HUB}/one@{A}"])
    assert names(store) == [["one:1", "one:2", "localhost:5000/team/app:1", f"one@{A}"]]


@pytest.fixture
def family(store: Store) -> Store:
    """Five images of which the second has no tag, and the third no name at all."""
    store.add_image(f"{HUB}/one:1", f"{HUB}/other:1", created="2024-01-01T00:00:00Z", layers=["1"])
    store.add_image(created="2024-01-02T00:00:00Z", layers=["2"], digests=[f"{HUB}/two@{B}"])
    store.add_image(created="2024-01-03T00:00:00Z", layers=["3"])
    store.add_image("localhost:5000/team/app:3", created="2024-01-04T00:00:00Z", layers=["4"])
    store.add_image(
        f"{HUB}/five:1", created="2024-01-05T00:00:00Z", layers=["5"], config={"Labels": {"tier": "front", "x": ""}}
    )
    return store


def label(name: str, value: str) -> Callable[[Mapping[str, str]], bool]:
    return lambda labels: labels.get(name) == value


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ImageFilter(dangling=True), [[], [f"two@{B}"]]),
        (ImageFilter(dangling=False), [["five:1"], ["localhost:5000/team/app:3"], [f"two@{B}"], ["one:1", "other:1"]]),
        (ImageFilter(before="localhost:5000/team/app:3"), [[], [f"two@{B}"], ["one:1", "other:1"]]),
        (ImageFilter(since="localhost:5000/team/app:3"), [["five:1"]]),
        (ImageFilter(before="five:1", since="one:1", dangling=False), [["localhost:5000/team/app:3"], [f"two@{B}"]]),
        (ImageFilter(until=moment("2024-01-02T00:00:00Z")), [[f"two@{B}"], ["one:1", "other:1"]]),
        (ImageFilter(labels=label("tier", "front")), [["five:1"]]),
        (ImageFilter(labels=label("tier", "back")), []),
        (ImageFilter(references=("one",)), [["one:1"]]),
        (ImageFilter(references=("o*",)), [["one:1", "other:1"]]),
        (ImageFilter(references=("*:1",)), [["five:1"], ["one:1", "other:1"]]),
        (ImageFilter(references=("one", "five:1")), [["five:1"], ["one:1"]]),
        (ImageFilter(references=("localhost:5000/*/app",)), [["localhost:5000/team/app:3"]]),
        (ImageFilter(references=("localhost:5000/*",)), []),
        (ImageFilter(references=("two",)), [[f"two@{B}"]]),
    ],
)
def test_a_filter_selects(wanted: ImageFilter, expected: list[list[str]], family: Store) -> None:
    assert names(family, wanted) == expected


def test_a_filter_by_an_image_that_is_not_there_is_an_error(family: Store) -> None:
    with pytest.raises(NotFound, match="No such image: nosuch:latest"):
        names(family, ImageFilter(before="nosuch"))


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("*", "abc", True),
        ("*", "a/c", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("[]x", None, False),
        (r"[\]]", "]", True),
        (r"[\-a]", "-", True),
        ("[&&.]", "&", True),
        ("[a-]", None, False),
        ("[a", None, False),
        ("a\\", None, False),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("a.c", "abc", False),
        ("]", "]", True),
        (r"[\w]", "w", True),
        (r"[\w]", "x", False),
    ],
)
def test_a_pattern_is_gos_path_match(pattern: str, text: str | None, matches: bool) -> None:
    if text is None:
        with pytest.raises(InvalidInput, match="syntax error in pattern"):
            _glob(pattern)
    else:
        assert bool(_glob(pattern).fullmatch(text)) == matches


@given(st.text("ab-[]^\\*?/.{}()|+$&~ä", max_size=8), st.text("ab-[]^\\/", max_size=5))
def test_any_pattern_matches_or_is_refused(pattern: str, text: str) -> None:
    try:
        _glob(pattern).fullmatch(text)
    except InvalidInput:
        pass


@given(st.text("abc:/@.-_", max_size=20))
def test_a_name_without_wildcards_matches_itself_alone(name: str) -> None:
    pattern = _glob(name)
    assert pattern.fullmatch(name)
    assert not pattern.fullmatch(name + "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T01:00:00.000000001+01:00", 1),
        ("1969-12-31t23:59:59z", -1_000_000_000),
        ("2024-02-30T00:00:00Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("2024-01-01", None),
        ("٢٠٢٤-01-01T00:00:00Z", None),
        ("", None),
        (None, None),
    ],
)
def test_a_moment_is_read_from_what_strangers_wrote(text: str | None, expected: int | None) -> None:
    assert moment(text) == expected


# --- tags


def test_a_tag_may_move(store: Store) -> None:
    first = store.add_image(f"{HUB}/one:1", layers=["a"])
    store.add_image(f"{HUB}/two:1", layers=["b"])
    tag_image(store.engine, "two:1", "one:1")
    tag_image(store.engine, first.id[7:19], "localhost/kept")
    assert sorted(names(store)) == [["localhost/kept:latest"], ["one:1", "two:1"]]


@pytest.mark.parametrize(
    ("source", "target", "kind", "message"),
    [
        ("nosuch", "x", NotFound, "No such image: nosuch:latest"),
        ("one:1", f"x@{A}", InvalidInput, "refusing to create a tag with a digest reference"),
        ("one:1", "UPPER", InvalidInput, '"UPPER" is not a valid repository/tag: invalid reference format'),
        ("one:1", "x:" + "y" * 129, InvalidInput, "invalid reference format"),
        ("one:1", "host", Conflict, "the name 'host' belongs to the built-in image"),
        ("one:1", "host:2", Conflict, "belongs to the built-in image"),
        ("host", "x", Conflict, "the image 'host' is built in"),
    ],
)
def test_a_tag_that_cannot_be_is_refused(
    source: str, target: str, kind: type[RootlessError], message: str, store: Store
) -> None:
    store.add_image(f"{HUB}/one:1")
    with pytest.raises(kind, match=message):
        tag_image(store.engine, source, target)
    assert names(store) == [["one:1"]]


# --- removing: what the comments of moby's image_delete.go promise


def test_the_last_name_takes_the_image_its_layers_and_its_blobs(store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1", layers=["a", "b"], digests=[f"{HUB}/one@{A}"])
    removal = remove_image(store.engine, "one:1", force=False)
    assert steps(removal) == [
        "Untagged: one:1",
        f"Untagged: one@{A}",
        f"Deleted: {image.id}",
        f"Deleted: {image.layers[1]}",
        f"Deleted: {image.layers[0]}",
    ]
    assert (store.layers_on_disk(), store.blobs_on_disk(), names(store)) == (set(), set(), [])
    assert removal.freed > 2 * LAYER_SIZE
    assert os.listdir(store.root / "trash") == []


def test_one_of_several_names_goes_alone(store: Store) -> None:
    store.add_image(f"{HUB}/one:1", f"{HUB}/one:2", digests=[f"{HUB}/one@{A}"])
    assert steps(remove_image(store.engine, "one:1", force=False)) == ["Untagged: one:1"]
    assert names(store) == [["one:2", f"one@{A}"]]
    assert store.layers_on_disk() == {"base"}


def test_the_last_tag_of_a_repository_takes_its_digests_along(store: Store) -> None:
    store.add_image(f"{HUB}/one:1", f"{HUB}/two:1", digests=[f"{HUB}/one@{A}", f"{HUB}/two@{A}"])
    removal = remove_image(store.engine, "one:1", force=False)
    assert steps(removal) == ["Untagged: one:1", f"Untagged: one@{A}"]
    assert names(store) == [["two:1", f"two@{A}"]]


def test_a_digest_can_be_removed_by_itself(store: Store) -> None:
    store.add_image(f"{HUB}/one:1", digests=[f"{HUB}/one@{A}"])
    assert steps(remove_image(store.engine, f"one@{A}", force=False)) == [f"Untagged: one@{A}"]
    assert names(store) == [["one:1"]]


def test_the_last_digest_takes_the_image(store: Store) -> None:
    image = store.add_image(digests=[f"{HUB}/one@{A}"])
    removal = remove_image(store.engine, f"one:9@{A}", force=False)
    assert steps(removal) == [f"Untagged: one@{A}", f"Deleted: {image.id}", f"Deleted: {image.layers[0]}"]


@pytest.mark.parametrize("length", [4, 12, 64, 71])
def test_an_id_takes_the_only_name_along(length: int, store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1", digests=[f"{HUB}/one@{A}"])
    text = image.id if length == 71 else image.id[7 : 7 + length]
    removal = remove_image(store.engine, text, force=False)
    assert steps(removal)[:3] == ["Untagged: one:1", f"Untagged: one@{A}", f"Deleted: {image.id}"]


def test_an_id_with_several_names_must_be_forced(store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1", f"{HUB}/two:1")
    short = image.id[7:19]
    with pytest.raises(Conflict) as refused:
        remove_image(store.engine, short, force=False)
    assert str(refused.value) == (
        f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    )
    assert names(store) == [["one:1", "two:1"]]
    removal = remove_image(store.engine, short, force=True)
    assert steps(removal)[:3] == ["Untagged: one:1", "Untagged: two:1", f"Deleted: {image.id}"]


def test_a_name_that_looks_like_an_id_is_a_name(store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1", layers=["a"])
    other = store.add_image(f"{HUB}/two:1", layers=["b"])
    store.tag(f"{HUB}/{image.id[7:19]}:latest", other)
    assert steps(remove_image(store.engine, image.id[7:19], force=False)) == [f"Untagged: {image.id[7:19]}:latest"]


def test_an_image_of_a_stopped_container_must_be_forced(store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1")
    container = store.add_container(image, "user")
    with pytest.raises(Conflict) as refused:
        remove_image(store.engine, "one:1", force=False)
    assert str(refused.value) == (
        f'conflict: unable to remove repository reference "one:1" (must force) - container {container[:12]} is using'
        f" its referenced image {image.id[7:19]}"
    )
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is being used by stopped container"):
        remove_image(store.engine, image.id, force=False)
    assert names(store) == [["one:1"]]


def test_the_layers_of_a_stopped_container_stay_when_its_image_is_forced_away(store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1", layers=["a", "b"])
    store.add_container(image, "user")
    assert steps(remove_image(store.engine, "one:1", force=True)) == ["Untagged: one:1", f"Deleted: {image.id}"]
    assert (store.layers_on_disk(), store.blobs_on_disk()) == ({"a", "b"}, set())


def test_another_name_of_a_used_image_may_go(store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1", f"{HUB}/two:1")
    store.add_container(image, "user")
    assert steps(remove_image(store.engine, "two:1", force=False)) == ["Untagged: two:1"]


def test_an_image_of_a_running_container_stays_even_if_forced(store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1")
    container = store.add_container(image, "user")
    with store.running(container):
        with pytest.raises(Conflict) as refused:
            remove_image(store.engine, image.id[:20], force=True)
        assert str(refused.value) == (
            f"conflict: unable to delete {image.id[7:19]} (cannot be forced) - image is being used by running container"
            f" {container[:12]}"
        )
        # By its name only the name goes, as with Docker.
        assert steps(remove_image(store.engine, "one:1", force=True)) == ["Untagged: one:1"]
        assert names(store) == [[]]
        assert store.layers_on_disk() == {"base"}


def test_what_images_share_stays_until_the_last_of_them(store: Store) -> None:
    first = store.add_image(f"{HUB}/one:1", layers=["base", "one"])
    second = store.add_image(f"{HUB}/two:1", layers=["base", "two"])
    removal = remove_image(store.engine, "one:1", force=False)
    assert steps(removal) == ["Untagged: one:1", f"Deleted: {first.id}", f"Deleted: {first.layers[1]}"]
    assert store.layers_on_disk() == {"base", "two"}
    assert store.blobs_on_disk() == {d[7:] for d in (second.id, second.manifest["digest"], *second.blobs)}


def test_a_layer_that_a_pull_holds_is_left_to_it(store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1", layers=["a", "b"])
    with store.engine.layout.lock(f"layer.{image.layers[0][7:]}", shared=True):
        removal = remove_image(store.engine, "one:1", force=False)
    assert steps(removal)[-1] == f"Deleted: {image.layers[1]}"
    assert store.layers_on_disk() == {"a"}


def test_a_blob_that_a_pull_holds_is_left_to_it(store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1")
    with store.engine.layout.lock(f"blob.{image.blobs[0][7:]}"):
        remove_image(store.engine, "one:1", force=False)
    assert store.blobs_on_disk() == {image.blobs[0][7:]}


def test_an_image_that_gets_a_container_meanwhile_is_not_removed(store: Store) -> None:
    """`create` holds the image until its record is written; rmi waits for that and then sees the container."""
    image = store.add_image(f"{HUB}/one:1")
    failures: list[BaseException] = []

    def remove() -> None:
        try:
            remove_image(store.engine, "one:1", force=False)
        except Conflict as error:
            failures.append(error)

    with store.engine.layout.lock(f"image.{image.id[7:]}", shared=True):
        remover = threading.Thread(target=remove)
        remover.start()
        time.sleep(0.05)
        store.add_container(image, "user")
    remover.join()
    assert len(failures) == 1
    assert names(store) == [["one:1"]]


def test_no_two_images_are_lost_when_both_go_at_once(store: Store) -> None:
    """Each remover holds the lock of the shared layer for a moment: whoever comes last must still get it."""
    for number in range(8):
        store.add_image(f"{HUB}/i{number}:1", layers=["base", f"own{number}"])
    removers = [
        threading.Thread(target=remove_image, args=(store.engine, f"i{number}:1"), kwargs={"force": False})
        for number in range(8)
    ]
    for remover in removers:
        remover.start()
    for remover in removers:
        remover.join()
    prune_images(store.engine, every=False, until=None, labels=None)
    assert (names(store), store.layers_on_disk()) == ([], set())


def test_many_layers_are_removed_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_remove, "_AT_A_TIME", 3)
    store.add_image(f"{HUB}/one:1", layers=[f"l{n}" for n in range(10)])
    assert len(remove_image(store.engine, "one:1", force=False).steps) == 12
    assert (store.layers_on_disk(), store.blobs_on_disk()) == (set(), set())


def test_a_container_whose_record_is_damaged_stops_the_removal_of_layers(store: Store) -> None:
    """It may use any of them."""
    image = store.add_image(f"{HUB}/one:1")
    container = store.add_container(image, "user")
    Path(store.engine.containers.directory(container), "container.json").write_text("{")
    with pytest.raises(CorruptData):
        remove_image(store.engine, "one:1", force=True)
    assert store.layers_on_disk() == {"base"}


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("nosuch", NotFound, "No such image: nosuch:latest"),
        ("0" * 64, NotFound, f"No such image: {'0' * 64}"),
        (f"nosuch@{A}", NotFound, f"No such image: nosuch@{A}"),
        ("host", Conflict, "the image 'host' is built in"),
        ("a b", InvalidInput, "invalid reference format"),
        ("../../etc", InvalidInput, "invalid reference format"),
    ],
)
def test_what_is_not_there_cannot_be_removed(text: str, kind: type[RootlessError], message: str, store: Store) -> None:
    with pytest.raises(kind, match=message):
        remove_image(store.engine, text, force=True)


# --- prune


@pytest.fixture
def prunable(store: Store) -> Iterator[Store]:
    """One image of each kind: used, tagged, dangling and old, dangling and new with a label, with a digest only."""
    used = store.add_image(f"{HUB}/used:1", f"{HUB}/used:2", layers=["used"])
    used_dangling = store.add_image(layers=["used-dangling"])
    store.add_image(f"{HUB}/tagged:1", layers=["tagged"])
    store.add_image(layers=["old"], created="2020-01-01T00:00:00Z")
    store.add_image(layers=["new"], created="2024-01-01T00:00:00Z", config={"Labels": {"keep": "yes"}})
    store.add_image(layers=["digest"], digests=[f"{HUB}/digest@{C}"])
    store.add_container(used, "one")
    with store.running(store.add_container(used_dangling, "two")):
        yield store


@pytest.mark.parametrize(
    ("every", "until", "labels", "left"),
    [
        (False, None, None, {"used", "used-dangling", "tagged"}),
        (True, None, None, {"used", "used-dangling"}),
        (False, "2021-01-01T00:00:00Z", None, {"used", "used-dangling", "tagged", "new", "digest"}),
        (False, None, label("keep", "yes"), {"used", "used-dangling", "tagged", "old", "digest"}),
        (True, "2000-01-01T00:00:00Z", None, {"used", "used-dangling", "tagged", "old", "new", "digest"}),
    ],
)
def test_prune_takes_what_nobody_needs(
    every: bool,
    until: str | None,
    labels: Callable[[Mapping[str, str]], bool] | None,
    left: set[str],
    prunable: Store,
) -> None:
    before = prunable.layers_on_disk()
    removal = prune_images(prunable.engine, every=every, until=moment(until), labels=labels)
    assert prunable.layers_on_disk() == left
    assert removal.freed >= LAYER_SIZE * len(before - left)
    if every and until is None:
        assert ["used:1", "used:2"] in names(prunable)


def test_prune_finds_what_killed_commands_have_left(store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1", layers=["base"])
    container = store.add_container(image, "user")
    remove_image(store.engine, "one:1", force=True)
    store.add_layers(["base", "orphan"])
    fresh, old = (store.engine.blobs.write(data) for data in (b"fresh", b"old"))
    for age, name in ((3 * 86400, old), (60, fresh)):
        os.utime(store.engine.blobs.path(name), (time.time() - age,) * 2)
    os.utime(store.engine.blobs.path(image.blobs[0]), (0, 0))
    partial = store.root / "blobs/partial" / ("a" * 64)
    partial.write_bytes(b"half")
    os.utime(partial, (0, 0))
    (store.root / "trash/999999999.x").mkdir()
    removal = prune_images(store.engine, every=False, until=None, labels=None)
    assert len(removal.steps) == 1
    assert store.layers_on_disk() == {"base"}
    assert fresh[7:] in store.blobs_on_disk()
    assert old[7:] not in store.blobs_on_disk()
    assert not partial.exists()
    assert os.listdir(store.root / "trash") == []
    assert store.engine.containers.load(container)["layers"] == list(image.layers)


# --- inspect and history


def test_inspect_shows_what_the_config_says(store: Store) -> None:
    config = {
        "User": "me",
        "ExposedPorts": {"80/tcp": {}},
        "Entrypoint": ["/init"],
        "Volumes": {"/data": {}},
        "Labels": {"a": "b"},
        "StopSignal": "SIGINT",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5},
        "Shell": ["/bin/bash", "-c"],
        "WorkingDir": "/w",
    }
    image = store.add_image(
        f"{HUB}/one:1", layers=["a", "b"], digests=[f"{HUB}/one@{A}"], config=config, author="A", variant="v3"
    )
    document = inspect_image(store.engine, "one:1")
    assert document["Id"] == image.id
    assert (document["RepoTags"], document["RepoDigests"]) == (["one:1"], [f"one@{A}"])
    assert (document["Author"], document["Variant"], document["Size"]) == ("A", "v3", 2 * LAYER_SIZE)
    assert {key: document["Config"][key] for key in config} == config
    assert document["Config"]["Cmd"] == ["sh"]
    assert len(document["RootFS"]["Layers"]) == 2
    assert document["GraphDriver"]["Data"] == {
        "UpperDir": store.engine.layers.diff(image.layers[1]),
        "LowerDir": store.engine.layers.diff(image.layers[0]),
    }


def test_inspect_shows_an_image_that_says_nothing(store: Store) -> None:
    image = store.add_image(layers=[], history=[], config={"Cmd": None, "Env": None}, created="", comment=3)
    document = inspect_image(store.engine, image.id)
    assert (document["RepoTags"], document["Comment"], document["GraphDriver"]["Data"]) == ([], "", {})
    assert (document["Config"]["Cmd"], document["Config"]["Entrypoint"], document["Config"]["Labels"]) == (None,) * 3


def test_the_image_host_has_a_document(store: Store) -> None:
    document = inspect_image(store.engine, "host")
    assert document.keys() == inspect_image(store.engine, store.add_image().id).keys()
    assert (document["Id"], document["Config"]["Cmd"]) == ("host", ["/bin/sh"])


def test_another_platform_is_not_there(store: Store) -> None:
    store.add_image(f"{HUB}/one:1")
    assert inspect_image(store.engine, "one:1", "linux")["Os"] == "linux"
    for question in (inspect_image, history):
        with pytest.raises(NotFound, match="does not provide the specified platform"):
            question(store.engine, "one:1", "linux/s390x")


def test_history_has_the_newest_row_first_and_sizes_where_there_are_layers(store: Store) -> None:
    rows = [
        {"created": "2024-01-01T00:00:00Z", "created_by": "ADD rootfs"},
        {"created_by": "ENV A=b", "empty_layer": True, "comment": "buildkit"},
        {"created": "nonsense", "created_by": "RUN make"},
    ]
    image = store.add_image(f"{HUB}/one:1", layers=["a", "b"], history=rows)
    assert [tuple(row) for row in history(store.engine, "one:1")] == [
        (image.id, None, "RUN make", LAYER_SIZE, ""),
        ("<missing>", None, "ENV A=b", 0, "buildkit"),
        ("<missing>", moment("2024-01-01T00:00:00Z"), "ADD rootfs", LAYER_SIZE, ""),
    ]


def test_history_with_more_layers_than_there_are_is_damage(store: Store) -> None:
    store.add_image(f"{HUB}/one:1", layers=["a"], history=[{"created_by": "1"}, {"created_by": "2"}])
    with pytest.raises(CorruptData, match="too many non-empty layers"):
        history(store.engine, "one:1")


def test_an_image_without_history_has_none(store: Store) -> None:
    image: Image = store.add_image(f"{HUB}/one:1", history=[])
    assert history(store.engine, image.id) == []


def test_locks_are_given_back(store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1")
    remove_image(store.engine, "one:1", force=False)
    with ExitStack() as held:
        for name in (f"image.{image.id[7:]}", f"layer.{image.layers[0][7:]}", f"blob.{image.id[7:]}"):
            held.enter_context(store.engine.layout.lock(name, blocking=False))
