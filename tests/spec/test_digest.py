import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import CorruptData
from rootless.spec.digest import ChainID, DiffID, chain_ids, digest_of, matches, new_hash, parse_digest

SHA256 = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "0123456789abcdef" * 8


@pytest.mark.parametrize("text", [SHA256, SHA512])
def test_both_registered_algorithms_are_read(text: str) -> None:
    assert parse_digest(text) == text


# R02
@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "invalid checksum digest format"),
        ("sha256", "invalid checksum digest format"),
        ("sha256:", "invalid checksum digest format"),
        (":" + "a" * 64, "invalid checksum digest format"),
        ("a" * 64, "invalid checksum digest format"),
        ("sha256:../../x", "invalid checksum digest length"),
        ("sha256:" + "../" * 21 + "x", "invalid checksum digest format"),
        ("sha256:" + "/" * 64, "invalid checksum digest format"),
        (SHA256.upper(), "unsupported digest algorithm"),
        (SHA256.replace("abcdef", "ABCDEF"), "invalid checksum digest format"),
        (SHA256[:-1], "invalid checksum digest length"),
        (SHA256 + "0", "invalid checksum digest length"),
        (SHA256 + "\n", "invalid checksum digest length"),
        (SHA256[:-1] + "\n", "invalid checksum digest format"),
        (" " + SHA256, "unsupported digest algorithm"),
        (SHA256[:-1] + "\N{FULLWIDTH DIGIT ONE}", "invalid checksum digest format"),
        (SHA256[:20] + "\0" + SHA256[21:], "invalid checksum digest format"),
        ("sha512:" + "a" * 64, "invalid checksum digest length"),
        ("sha384:" + "a" * 96, "unsupported digest algorithm"),
        ("md5:" + "a" * 32, "unsupported digest algorithm"),
        ("sha256+b64:" + "a" * 64, "unsupported digest algorithm"),
        ("sha256:" + SHA256, "invalid checksum digest length"),
    ],
)
def test_anything_else_is_refused_before_it_can_become_a_path(text: str, reason: str) -> None:
    with pytest.raises(CorruptData) as caught:
        parse_digest(text, "layer 3")
    assert str(caught.value).startswith(f"layer 3: {reason}: ")
    assert str(caught.value).isprintable()


@given(st.text(max_size=200))
def test_any_text_is_a_digest_or_corrupt(text: str) -> None:
    try:
        digest = parse_digest(text)
    except CorruptData:
        return
    algorithm, _, encoded = digest.partition(":")
    assert len(bytes.fromhex(encoded)) == hashlib.new(algorithm).digest_size


@given(st.binary())
def test_a_digest_matches_its_bytes_and_no_others(data: bytes) -> None:
    digest = digest_of(data)
    assert parse_digest(digest) == digest
    assert matches(data, digest)
    assert not matches(data + b"x", digest)


def test_a_hash_object_is_of_the_digest_s_own_algorithm() -> None:
    hasher = new_hash(parse_digest(SHA512))
    hasher.update(b"abc")
    assert hasher.hexdigest() == hashlib.sha512(b"abc").hexdigest()
    assert matches(b"abc", parse_digest("sha512:" + hashlib.sha512(b"abc").hexdigest()))


def test_chain_ids_follow_the_specification() -> None:
    a, b, c = (DiffID(digest_of(layer)) for layer in (b"a", b"b", b"c"))
    second = "sha256:" + hashlib.sha256(f"{a} {b}".encode()).hexdigest()
    third = "sha256:" + hashlib.sha256(f"{second} {c}".encode()).hexdigest()
    assert chain_ids([a, b, c]) == (ChainID(a), ChainID(second), ChainID(third))
    assert chain_ids([]) == ()


# R04
def test_the_same_layer_over_others_has_another_chain_id() -> None:
    a, b, c = (DiffID(digest_of(layer)) for layer in (b"a", b"b", b"c"))
    assert chain_ids([a, c])[-1] != chain_ids([b, c])[-1]
