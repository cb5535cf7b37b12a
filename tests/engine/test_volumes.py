"""Volumes: made, found, in use, removed."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from rootless.engine.volumes import (
    create_volume,
    inspect_volume,
    list_volumes,
    prune_volumes,
    remove_volume,
    volumes_in_use,
)
from rootless.errors import Conflict, HostUnsupported, InvalidInput, NotFound, RootlessError
from rootless.store.tree_size import tree_size
from tests.support.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for name in ("root", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    return Store(tmp_path / "root", tmp_path / "run")


def create(
    store: Store, name: str, labels: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None
) -> Path:
    """A new volume's directory."""
    return Path(create_volume(store.engine, name, labels=labels or {}, options=options or {}).mountpoint)


def everything(labels: Mapping[str, str]) -> bool:
    return True


def names(store: Store) -> list[str]:
    return [volume.name for volume in list_volumes(store.engine)]


def test_a_volume_of_that_name_is_made_once(store: Store) -> None:
    (create(store, "data", {"a": "b"}) / "file").write_text("kept")
    assert (create(store, "data", {"other": "x"}) / "file").read_text() == "kept"
    assert inspect_volume(store.engine, "data")["Labels"] == {"a": "b"}


def test_a_volume_without_a_name_is_anonymous(store: Store) -> None:
    volume = create_volume(store.engine, "", labels={}, options={})
    assert len(volume.name) == 64
    assert inspect_volume(store.engine, volume.name)["Labels"] == {"com.docker.volume.anonymous": ""}


def test_a_document_has_dockers_keys(store: Store) -> None:
    mountpoint = create(store, "data")
    document = inspect_volume(store.engine, "data")
    created = document.pop("CreatedAt")
    assert len(created) == len("2024-01-01T00:00:00Z")
    assert document == {
        "Driver": "local",
        "Labels": None,
        "Mountpoint": str(mountpoint),
        "Name": "data",
        "Options": None,
        "Scope": "local",
    }


@pytest.mark.parametrize(
    "name",
    ["a/b", "../x", "-rf", "x\n", "x" * 256],
)
def test_a_name_that_is_none_is_refused(name: str, store: Store) -> None:
    with pytest.raises(InvalidInput, match="invalid characters for a local volume name"):
        create(store, name)
    with pytest.raises(NotFound, match="no such volume"):
        remove_volume(store.engine, name, force=False)
    assert names(store) == []


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"nope": "x"}, InvalidInput, 'invalid option: "nope"'),
        ({"type": "tmpfs"}, InvalidInput, 'missing required option: "device"'),
        ({"device": "/x"}, InvalidInput, 'missing required option: "type"'),
        ({"o": "bind"}, InvalidInput, 'missing required option: "device"'),
        ({"o": "bind", "device": "/x"}, InvalidInput, 'missing required option: "type"'),
        ({"size": "10m"}, HostUnsupported, "no quota support"),
        ({"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}, HostUnsupported, "needs root to mount"),
        ({"type": "nfs", "device": ":/x", "o": "addr=1.2.3.4"}, HostUnsupported, "needs root to mount"),
        ({"type": "none", "device": "x", "o": "bind"}, InvalidInput, "must be an absolute path"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options: dict[str, str], kind: type[RootlessError], message: str, store: Store
) -> None:
    with pytest.raises(kind, match=message):
        create(store, "data", options=options)
    assert names(store) == []


def test_another_driver_is_refused(store: Store) -> None:
    with pytest.raises(HostUnsupported, match='plugin "nfs" not found'):
        create_volume(store.engine, "data", driver="nfs", labels={}, options={})


def test_a_bind_is_a_link_that_leads_to_the_directory_and_goes_without_it(store: Store, tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.mkdir()
    (device / "file").write_text("mine")
    options = {"type": "none", "o": "bind", "device": str(device)}
    assert (create(store, "data", options=options) / "file").read_text() == "mine"
    assert inspect_volume(store.engine, "data")["Options"] == options
    assert prune_volumes(store.engine, every=True, labels=everything).names == []
    remove_volume(store.engine, "data", force=False)
    assert (device / "file").read_text() == "mine"
    assert names(store) == []


@pytest.mark.parametrize("left", ["directory", "nothing"])
def test_a_bind_whose_making_was_killed_is_mended_by_the_next(left: str, store: Store, tmp_path: Path) -> None:
    options = {"type": "none", "o": "bind", "device": str(tmp_path)}
    mountpoint = create(store, "data", options=options)
    mountpoint.unlink()
    if left == "directory":
        mountpoint.mkdir()
    assert create(store, "data", options=options).resolve() == tmp_path


def test_names_with_numbers_are_in_the_order_of_the_numbers(store: Store) -> None:
    for name in ("v10", "b", "v2", "10", "9a"):
        create(store, name)
    assert names(store) == ["9a", "10", "b", "v2", "v10"]


def test_a_volume_in_use_stays(store: Store) -> None:
    create(store, "data")
    first, second = (store.add_container(None, name, volumes=["data"]) for name in ("one", "two"))
    assert volumes_in_use(store.engine) == {"data"}
    for force in (False, True):
        with pytest.raises(Conflict) as refused:
            remove_volume(store.engine, "data", force=force)
        assert set(str(refused.value).partition(" - ")[2].strip("[]").split(", ")) == {first, second}
        assert str(refused.value).startswith("remove data: volume is in use - [")
    assert prune_volumes(store.engine, every=True, labels=everything).names == []
    assert names(store) == ["data"]


def test_a_volume_that_is_not_there_is_an_error_unless_forced(store: Store) -> None:
    with pytest.raises(NotFound) as missing:
        remove_volume(store.engine, "data", force=False)
    assert str(missing.value) == "get data: no such volume"
    remove_volume(store.engine, "data", force=True)


def test_prune_takes_anonymous_ones_and_all_only_if_asked(store: Store) -> None:
    anonymous = create_volume(store.engine, "", labels={}, options={}).name
    create(store, "named")
    create(store, "labelled", {"keep": ""})
    assert prune_volumes(store.engine, every=False, labels=everything).names == [anonymous]
    pruned = prune_volumes(store.engine, every=True, labels=lambda labels: "keep" not in labels)
    assert (pruned.names, names(store)) == (["named"], ["labelled"])


def test_prune_counts_the_bytes_of_each_file_once(store: Store) -> None:
    mountpoint = create(store, "data")
    (mountpoint / "below").mkdir()
    (mountpoint / "below/file").write_bytes(bytes(1000))
    os.link(mountpoint / "below/file", mountpoint / "again")
    (mountpoint / "link").symlink_to("/etc")
    assert tree_size(str(mountpoint)) == 1000 + len("/etc")
    assert prune_volumes(store.engine, every=True, labels=everything).freed == 1000 + len("/etc")
    assert os.listdir(store.root / "trash") == []
