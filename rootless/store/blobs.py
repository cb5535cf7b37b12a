"""Blobs by digest, as they were downloaded. A name in blobs/sha256 promises that the bytes were checked."""

import os
from contextlib import suppress

from rootless.errors import CorruptData
from rootless.linux import files
from rootless.spec.digest import Digest, digest_of, parse_digest
from rootless.store.layout import Layout


class Blobs:
    """The blobs of a store."""

    __slots__ = ("_layout",)

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def path(self, digest: Digest) -> str:
        """Where the blob is, or would be."""
        algorithm, _, value = parse_digest(digest).partition(":")
        if algorithm != "sha256":
            raise CorruptData(f"digest {digest}: only sha256 is supported")
        return self._layout.path("blobs", "sha256", value)

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here, complete."""
        return os.path.exists(self.path(digest))

    def read(self, digest: Digest, limit: int) -> bytes:
        """A small blob, as it was checked when it was stored. Raises CorruptData where it is missing or too large."""
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise CorruptData(f"blob {digest} is missing from the store", hint="pull the image again") from None
        if len(data) > limit:
            raise CorruptData(f"blob {digest} in the store is damaged", hint="remove the image and pull it again")
        return data

    def write(self, data: bytes) -> Digest:
        """Store a small blob; returns its digest."""
        digest = digest_of(data)
        if not self.has(digest):
            files.replace_file(self.path(digest), data)
        return digest

    def partial_path(self, digest: Digest) -> str:
        """Where the blob is downloaded to. Hold the lock of the blob."""
        return self._layout.path("blobs", "partial", os.path.basename(self.path(digest)))

    def remove(self, digest: Digest) -> None:
        """Remove the blob, if it is there."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            pass

    def forget(self, digest: Digest) -> None:
        """Remove the blob, and what was downloaded of it. Hold its lock."""
        self.remove(digest)
        with suppress(FileNotFoundError):
            os.unlink(self.partial_path(digest))

    def sweep_partial(self, *, older_than: float) -> None:
        """Remove downloads that nobody went on with since *older_than* (seconds of the epoch)."""
        directory = self._layout.path("blobs", "partial")
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            try:
                if os.stat(path).st_mtime < older_than:
                    os.unlink(path)
            except FileNotFoundError:
                continue
