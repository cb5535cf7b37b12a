"""Archives of images from strangers: what is read of them, and what is refused. T19"""

import io
from pathlib import Path

import pytest

from rootless.errors import CorruptData
from rootless.spec.digest import Digest, digest_of
from rootless.store.image_archive import ImageArchive, blob_name
from tests.support.evil_tar import CHARACTER, DIRECTORY, FIFO, HARD_LINK, SYMLINK, archive, entry

DATA = b"what is in the file"
BLOB = blob_name(digest_of(DATA)).encode()


def read(tmp_path: Path, *entries: bytes) -> ImageArchive:
    taken = ImageArchive(str(tmp_path))
    taken.read_all(io.BytesIO(archive(*entries)))
    return taken


def refused(tmp_path: Path, words: str, *entries: bytes) -> None:
    """The archive is refused; nothing outside the directory is touched, as its files have numbers for names."""
    with pytest.raises(CorruptData, match=words):
        read(tmp_path, *entries)
    assert all(path.name.isdecimal() for path in tmp_path.iterdir())


def test_files_are_found_by_name_however_that_is_written(tmp_path: Path) -> None:
    taken = read(tmp_path, entry(b"./", DIRECTORY), entry(b"./a/./b", content=DATA), entry(BLOB, content=DATA))
    assert taken.read("a/b", 100) == DATA
    staged = taken.file(BLOB.decode())
    assert (staged.size, staged.digest) == (len(DATA), digest_of(DATA))
    assert Path(staged.path).read_bytes() == DATA


@pytest.mark.parametrize("name", [b"../x", b"/x", b"a/../../x", b"a/..", b"..", b"\xff"])
def test_names_that_lead_out_are_refused(name: bytes, tmp_path: Path) -> None:
    refused(tmp_path, "leads out|not UTF-8", entry(name, content=DATA))


@pytest.mark.parametrize("second", [b"a", b"./a", b"a/", b".//a"])
def test_two_members_of_one_name_are_refused(second: bytes, tmp_path: Path) -> None:
    if second == b"a/":
        refused(tmp_path, "slash", entry(b"a", content=DATA), entry(second, content=DATA))
    else:
        refused(tmp_path, "two members", entry(b"a", content=DATA), entry(second, content=b"other"))


@pytest.mark.parametrize("kind", [HARD_LINK, CHARACTER, FIFO])
def test_what_is_no_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    refused(tmp_path, "no plain file", entry(b"a", kind, link=b"b"))


@pytest.mark.parametrize("kind", [SYMLINK, HARD_LINK])
def test_a_blob_that_is_a_link_is_refused(kind: bytes, tmp_path: Path) -> None:
    refused(tmp_path, "no plain file", entry(BLOB, kind, link=b"/etc/passwd"))


def test_a_blob_that_is_not_what_its_name_says_is_never_handed_out(tmp_path: Path) -> None:
    taken = read(tmp_path, entry(BLOB, content=b"another"))
    with pytest.raises(CorruptData, match=f"is {digest_of(b'another')}"):
        taken.file(BLOB.decode())
    with pytest.raises(CorruptData):
        taken.read(BLOB.decode(), 100)


def test_one_link_between_layers_is_followed_and_no_further(tmp_path: Path) -> None:
    taken = read(
        tmp_path,
        entry(b"a/layer.tar", content=DATA),
        entry(b"b/layer.tar", SYMLINK, link=b"../a/layer.tar"),
        entry(b"c/layer.tar", SYMLINK, link=b"../b/layer.tar"),
        entry(b"d/layer.tar", SYMLINK, link=b"../../a/layer.tar"),
        entry(b"e/layer.tar", SYMLINK, link=b"/a/layer.tar"),
        entry(b"f/layer.tar", SYMLINK, link=b"layer.tar"),
    )
    assert taken.read("b/layer.tar", 100) == DATA
    for name in "cdef":
        assert not taken.has(f"{name}/layer.tar")
        with pytest.raises(CorruptData, match="there is no"):
            taken.file(f"{name}/layer.tar")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", "missing", "blobs/sha256/../../a"])
def test_a_name_that_no_member_has_finds_nothing(name: str, tmp_path: Path) -> None:
    taken = read(tmp_path, entry(b"a", content=DATA))
    with pytest.raises(CorruptData, match="there is no"):
        taken.file(name)


def test_a_document_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    taken = read(tmp_path, entry(b"manifest.json", content=DATA))
    with pytest.raises(CorruptData, match="larger than 10 bytes"):
        taken.read("manifest.json", 10)


def test_an_archive_that_is_cut_is_refused(tmp_path: Path) -> None:
    whole = archive(entry(b"a", content=DATA * 100))
    with pytest.raises(CorruptData, match="cut short"):
        ImageArchive(str(tmp_path)).read_all(io.BytesIO(whole[:900]))


def test_the_name_of_a_blob_is_its_digest() -> None:
    assert blob_name(Digest("sha256:" + "a" * 64)) == "blobs/sha256/" + "a" * 64
