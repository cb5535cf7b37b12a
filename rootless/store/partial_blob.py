"""A download in progress: bytes are hashed as they are written, and get their name once they are right."""

import hashlib
import os

from rootless.errors import CorruptData
from rootless.linux import files
from rootless.spec.image import Descriptor

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
        files.write_all(self._fd, data)
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
