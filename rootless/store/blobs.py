"""Blobs by digest, as they were downloaded. A name in blobs/sha256 promises that the bytes were checked."""

import hashlib
import os

from rootless.errors import CorruptData
from rootless.linux import files
from rootless.spec.digest import Digest, digest_of, parse_digest
from rootless.spec.image import Descriptor
from rootless.store.layout import Layout

_REHASH_CHUNK = 1 << 20


class PartialBlob:
    """A download in progress, or one that was interrupted: the sink of the registry's client.

    The bytes up to *offset* are on disk and in the hash; a killed download goes on from there.
    """

    __slots__ = ("_descriptor", "_fd", "_hash", "_path", "_target", "offset")

    def __init__(self, path: str, target: str, descriptor: Descriptor) -> None:
        self._path = path
        self._target = target
        self._descriptor = descriptor
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self.offset = 0
        while chunk := os.read(self._fd, _REHASH_CHUNK):
            self._hash.update(chunk)
            self.offset += len(chunk)
        if self.offset > descriptor.size:
            self.restart()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append. Raises CorruptData as soon as there is more than the descriptor promised."""
        if self.offset + len(data) > self._descriptor.size:
            raise CorruptData(
                f"blob {self._descriptor.digest} is larger than the {self._descriptor.size} bytes announced"
            )
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.offset += len(data)

    def restart(self) -> None:
        """Forget what is there."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.offset = 0

    def commit(self) -> None:
        """Check size and digest, and give the blob its name. Raises CorruptData, after discarding what is wrong."""
        actual = f"sha256:{self._hash.hexdigest()}"
        if self.offset != self._descriptor.size or actual != self._descriptor.digest:
            self.restart()
            os.unlink(self._path)
            raise CorruptData(
                f"blob {self._descriptor.digest} ({self._descriptor.size} bytes) came as {actual} ({self.offset} bytes)"
            )
        os.fsync(self._fd)
        os.rename(self._path, self._target)
        files.fsync_directory(os.path.dirname(self._target))

    def close(self) -> None:
        """Let go; what was written stays for the next try."""
        os.close(self._fd)


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
        """A small blob. Raises FileNotFoundError; CorruptData where it is no longer what its name says."""
        with open(self.path(digest), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit or digest_of(data) != digest:
            raise CorruptData(f"blob {digest} in the store is damaged", hint="remove the image and pull it again")
        return data

    def write(self, data: bytes) -> Digest:
        """Store a small blob; returns its digest."""
        digest = digest_of(data)
        if not self.has(digest):
            files.replace_file(self.path(digest), data)
        return digest

    def open_partial(self, descriptor: Descriptor) -> PartialBlob:
        """The place where *descriptor*'s blob is downloaded to. Hold the lock of the blob."""
        target = self.path(descriptor.digest)
        return PartialBlob(self._layout.path("blobs", "partial", os.path.basename(target)), target, descriptor)

    def remove(self, digest: Digest) -> None:
        """Remove the blob, if it is there."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            pass

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
