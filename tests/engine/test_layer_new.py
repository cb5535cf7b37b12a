"""Layers and images that are made here: what they are called, that they last, and what their bytes are."""

import gzip
import io
import json
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rootless.engine.image_inspect import history, inspect_image
from rootless.engine.image_new import layer_descriptors, make_image, manifest_of
from rootless.engine.image_remove import remove_image, sweep
from rootless.engine.layer_blob import compressed, has_blob, write_tar
from rootless.engine.layer_new import NewLayer, adopt, is_empty
from rootless.errors import Conflict, CorruptData, InvalidInput, NotFound
from rootless.spec.digest import ChainID, chain_ids, digest_of
from rootless.spec.image import OCI_LAYER
from rootless.store.images import Image
from rootless.store.layer_stream import decompressed
from tests.support.store import Store

DOCUMENT: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2024-05-06T07:08:09Z",
    "config": {"Cmd": ["sh"]},
    "history": [{"created_by": "test"}],
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for name in ("root", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    return Store(tmp_path / "root", tmp_path / "run")


def staged(store: Store, content: bytes = b"text", name: str = "file") -> str:
    path = store.engine.layers.stage()
    file = Path(path, "diff", name)
    file.write_bytes(content)
    os.utime(file, (5, 5))
    return path


def layer(store: Store, content: bytes = b"text", parent: ChainID | None = None) -> NewLayer:
    return adopt(store.engine, parent, staged(store, content))


def image(store: Store, content: bytes = b"text", **document: object) -> Image:
    return make_image(store.engine, None, {**DOCUMENT, **document}, [layer(store, content)])


def trash(store: Store) -> list[str]:
    return os.listdir(store.root / "trash")


def test_a_layer_is_called_by_its_archive_and_what_it_stands_on(store: Store) -> None:
    one = layer(store)
    two = layer(store, b"other", one.chain_id)
    assert [one.chain_id, two.chain_id] == list(chain_ids([one.diff_id, two.diff_id]))
    record = json.loads((store.root / "layers" / two.chain_id[7:] / "layer.json").read_text())
    assert (record["parent"], record["size"], record["length"]) == (one.chain_id, 5, two.length)
    assert Path(store.engine.layers.diff(two.chain_id), "file").read_bytes() == b"other"


def test_a_layer_that_is_there_already_is_kept_and_the_second_one_goes(store: Store) -> None:
    one = layer(store)
    before = os.stat(store.engine.layers.diff(one.chain_id)).st_ino
    assert layer(store) == one
    assert os.stat(store.engine.layers.diff(one.chain_id)).st_ino == before
    assert trash(store) == []


def test_a_layer_is_not_swept_while_it_is_held(store: Store) -> None:
    with ExitStack() as held:
        made = adopt(store.engine, None, staged(store), held=held)
        sweep(store.engine)
        assert store.engine.layers.has(made.chain_id)
    sweep(store.engine)
    assert not store.engine.layers.has(made.chain_id)


def test_the_same_content_makes_the_same_image(store: Store) -> None:
    one, again, other = image(store), image(store), image(store, author="somebody")
    assert one.id == again.id != other.id
    assert one.added_at == again.added_at


def test_an_image_on_a_base_has_its_layers_and_stands_by_itself(store: Store) -> None:
    base = image(store)
    above = layer(store, b"above", base.layers[-1])
    made = make_image(store.engine, base, DOCUMENT, [above])
    assert (made.layers, made.blobs) == ((*base.layers, above.chain_id), (*base.blobs, above.diff_id))
    assert made.size == base.size + 5
    assert manifest_of(store.engine, made).config.digest == made.id
    assert [d.digest for d in layer_descriptors(store.engine, made)] == list(made.blobs)
    remove_image(store.engine, base.id, force=False)
    assert all(store.engine.layers.has(chain_id) for chain_id in made.layers)
    remove_image(store.engine, made.id, force=False)
    assert os.listdir(store.root / "layers") == os.listdir(store.root / "blobs/sha256") == trash(store) == []


def test_an_image_that_is_its_base_again_is_no_deadlock(store: Store) -> None:
    base = image(store)
    assert make_image(store.engine, base, DOCUMENT, []).id == base.id


def test_an_image_of_layers_or_of_a_base_that_have_gone_is_not_made(store: Store) -> None:
    lost = layer(store, b"lost")
    store.engine.layers.remove(lost.chain_id)
    with pytest.raises(Conflict, match="was removed"):
        make_image(store.engine, None, DOCUMENT, [lost])
    base = image(store)
    store.engine.images.remove(base.id)
    with pytest.raises(NotFound):
        make_image(store.engine, base, DOCUMENT, [])


def test_a_config_that_is_no_config_makes_no_image(store: Store) -> None:
    for config in ({"Env": "x"}, {"Cmd": ["\udcff"]}):
        with pytest.raises((InvalidInput, CorruptData)):
            image(store, config=config)
    assert os.listdir(store.root / "images") == []


def test_commands_on_images_do_without_blobs_of_layers(store: Store) -> None:
    made = image(store)
    assert not has_blob(store.engine, made, 0)
    assert inspect_image(store.engine, made.id)["Size"] == 4
    assert [row.size for row in history(store.engine, made.id)] == [4]


def test_unknown_members_of_a_config_are_kept(store: Store) -> None:
    document = store.engine.images.config(image(store, moby={"x": 1})).document
    assert document["moby"] == {"x": 1}


# --- their bytes


def test_the_archive_of_a_layer_is_what_its_digest_names(store: Store) -> None:
    made, parts = layer(store), []
    write_tar(store.engine, made.chain_id, lambda data: parts.append(bytes(data)))
    data = b"".join(parts)
    assert (str(digest_of(data)), len(data)) == (str(made.diff_id), made.length)
    assert subprocess.run(["tar", "-tv"], input=data, check=True, capture_output=True).stdout.endswith(b" file\n")


def test_a_layer_that_was_changed_on_disk_is_found_out(store: Store) -> None:
    made = layer(store)
    Path(store.engine.layers.diff(made.chain_id), "file").write_bytes(b"else")
    with pytest.raises(CorruptData, match="its record says"):
        write_tar(store.engine, made.chain_id, lambda data: None)


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "sink", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("compression", ["gzip", "zstd", ""])
def test_a_layer_goes_out_compressed_and_says_how(store: Store, tmp_path: Path, sink: int, compression: str) -> None:
    made = image(store, random.Random(3).randbytes(3 << 20) + bytes(2 << 20))
    descriptor = compressed(store.engine, made, 0, compression, sink)
    data = (tmp_path / "sink").read_bytes()
    assert (descriptor.digest, descriptor.size) == (digest_of(data), len(data))
    assert descriptor.media_type == (f"{OCI_LAYER}+{compression}" if compression else OCI_LAYER)
    assert digest_of(b"".join(decompressed(io.BytesIO(data)))) == made.blobs[0]
    if compression == "gzip":
        assert digest_of(gzip.decompress(data)) == made.blobs[0]


def test_a_blob_that_is_kept_goes_out_as_it_came(store: Store, tmp_path: Path, sink: int) -> None:
    made = image(store)
    store.engine.blobs.write(b"as pulled")
    kept = made._replace(blobs=(digest_of(b"as pulled"),))
    compressed(store.engine, kept, 0, "zstd", sink)
    assert (tmp_path / "sink").read_bytes() == b"as pulled"


def test_an_upper_directory_is_empty_or_not(tmp_path: Path) -> None:
    assert is_empty(str(tmp_path))
    (tmp_path / "file").write_bytes(b"")
    assert not is_empty(str(tmp_path))
