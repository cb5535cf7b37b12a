"""Digests: the names of blobs, of layers, and of layers together with those below them.

Every digest that comes from outside goes through parse_digest before it becomes part of a path or of a URL. The
grammar is that of image-spec descriptor.md, narrowed to its two registered algorithms with their exact lengths.
"""

from collections.abc import Sequence
from typing import NewType, Protocol

from rootless.errors import CorruptData

Digest = NewType("Digest", str)  # of a blob, as stored: "sha256:4f5a…"
DiffID = NewType("DiffID", str)  # of a layer's tar, uncompressed
ChainID = NewType("ChainID", str)  # of a layer together with every layer below it

_HEX_LENGTH = {"sha256": 64, "sha512": 128}


class Hash(Protocol):
    """What this project uses of hashlib's objects."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def parse_digest(text: str, what: str = "digest") -> Digest:
    """*text* as a Digest. Raises CorruptData, which says that *what* has it."""
    algorithm, colon, encoded = text.partition(":")
    length = _HEX_LENGTH.get(algorithm)
    if not colon or not algorithm or not encoded:
        raise CorruptData(f"{what}: invalid checksum digest format: {_shown(text)}")
    if length is None:
        raise CorruptData(f"{what}: unsupported digest algorithm: {_shown(text)}")
    if len(encoded) != length:
        raise CorruptData(f"{what}: invalid checksum digest length: {_shown(text)}")
    if encoded.strip("0123456789abcdef"):
        raise CorruptData(f"{what}: invalid checksum digest format: {_shown(text)}")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """The sha256 digest of *data*."""
    import hashlib  # loading OpenSSL takes milliseconds, which commands that hash nothing need not wait

    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def new_hash(digest: Digest) -> Hash:
    """A fresh hash object of the algorithm that *digest* names."""
    import hashlib  # late for the same reason

    return hashlib.sha512() if digest.startswith("sha512:") else hashlib.sha256()


def matches(data: bytes, digest: Digest) -> bool:
    """Whether *data* is what *digest* names."""
    hasher = new_hash(digest)
    hasher.update(data)
    return digest.partition(":")[2] == hasher.hexdigest()


def chain_ids(diff_ids: Sequence[DiffID]) -> tuple[ChainID, ...]:
    """The chain_id of each layer, bottom first (image-spec config.md, "Layer ChainID")."""
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        chain.append(chain_id_above(chain[-1] if chain else None, diff_id))
    return tuple(chain)


def chain_id_above(parent: ChainID | None, diff_id: DiffID) -> ChainID:
    """The chain_id of a layer above *parent*."""
    return ChainID(digest_of(f"{parent} {diff_id}".encode())) if parent else ChainID(diff_id)


def _shown(text: str) -> str:
    return repr(text[:160])
