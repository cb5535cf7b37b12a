"""From a reference and a platform to the one manifest to pull, through whatever indexes lie between.

Only the first step may use a tag. Every further one is by digest, in the same repository, so a tag that moves meanwhile
changes nothing.
"""

from typing import NamedTuple

from rootless.errors import CorruptData
from rootless.registry.client import Client, Fetched
from rootless.spec.digest import Digest
from rootless.spec.image import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    parse_manifest,
    select_manifest,
)
from rootless.spec.platform import Platform
from rootless.spec.reference import Reference

_MAX_DEPTH = 4  # documents: indexes, and the manifest at the end


class Resolved(NamedTuple):
    """What a reference stands for on one platform."""

    documents: tuple[Fetched, ...]  # as they came: indexes, if any, outermost first, and the manifest
    manifest: Manifest

    @property
    def digest(self) -> Digest:
        """What the reference names: what Docker shows as RepoDigest."""
        return self.documents[0].digest

    @property
    def manifest_digest(self) -> Digest:
        return self.documents[-1].digest


def resolve_image(client: Client, reference: Reference, platform: Platform) -> Resolved:
    """The image for *platform* that *reference* names. Raises what Client.resolve() does; NotFound for a platform."""
    documents = [client.resolve(reference)]
    while True:
        parsed = parse_manifest(documents[-1].data, documents[-1].media_type)
        if isinstance(parsed, Manifest):
            return Resolved(tuple(documents), parsed)
        if len(documents) == _MAX_DEPTH:
            raise CorruptData(f"{reference.familiar_name}: indexes lead to indexes, {_MAX_DEPTH} deep")
        entry = select_manifest(parsed, platform)
        documents.append(_fetch_entry(client, reference, entry))


def _fetch_entry(client: Client, reference: Reference, entry: Descriptor) -> Fetched:
    """The document that *entry* of an index points at, of the size and the type that it says."""
    fetched = client.resolve(reference._replace(digest=entry.digest), (entry.media_type,))
    if len(fetched.data) != entry.size:
        raise CorruptData(f"manifest {entry.digest}: {entry.size} bytes expected, {len(fetched.data)} came")
    announced = fetched.media_type.partition(";")[0].strip().lower()
    if announced in MANIFEST_TYPES + INDEX_TYPES and announced != entry.media_type:
        raise CorruptData(f"manifest {entry.digest} is ambiguous: {entry.media_type} expected, {announced} sent")
    return fetched._replace(media_type=entry.media_type)
