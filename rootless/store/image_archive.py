"""An archive of images that anybody may have written, read once from beginning to end.

A member becomes a file in a directory of ours, under a number: its name is only ever looked up in a dictionary, and
leads nowhere. So a manifest that points to ../../x finds nothing, and neither does a link that leads out. What two
programs would read differently is refused: two members of one name, links of any kind among the blobs, content with
holes. Each file is hashed as it is written, and a blob that is not what its name says is never handed out.

Older archives of Docker have symbolic links from one layer.tar to another; one such step is followed.
"""

import hashlib
import os
import posixpath
from typing import NamedTuple, final

from rootless.errors import CorruptData
from rootless.linux.files import write_all
from rootless.spec.digest import Digest, parse_digest
from rootless.store.expand import uncompressed
from rootless.store.layer_stream import Readable
from rootless.store.tar import Kind, Member, TarLimits, TarReader

MAX_MEMBERS = 100_000
MAX_SIZE = 1 << 40  # bytes of all members together
_BLOBS = "blobs/"


class Staged(NamedTuple):
    """A member that is in a file of ours."""

    path: str
    size: int
    digest: Digest


@final
class ImageArchive:
    """The members of an archive. The files lie in *directory* until its owner removes that; they may be taken away."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._files: dict[str, Staged] = {}
        self._links: dict[str, str] = {}
        self._size = 0

    def read_all(self, source: Readable) -> None:
        """Take in the archive, which may be compressed. Raises CorruptData, and OSError for a full disk."""
        reader = TarReader(uncompressed(source), TarLimits(MAX_SIZE, MAX_MEMBERS))
        for member in reader:
            name = _parse_name(member.name)
            if member.kind is Kind.DIRECTORY:
                continue
            if name in self._files or name in self._links:
                raise CorruptData(f"image archive: two members {name[:200]!r}")
            if member.kind is Kind.FILE and member.sparse is None:
                self._files[name] = self._write(member, reader)
            elif member.kind is Kind.SYMLINK and not name.startswith(_BLOBS):
                self._links[name] = _target(name, member.link)
            else:
                raise CorruptData(f"image archive: {name[:200]!r} is no plain file")

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return name in self._files or self._links.get(name) in self._files

    def file(self, name: str) -> Staged:
        """The file of that name. Raises CorruptData where there is none."""
        found = self._files.get(name) or self._files.get(self._links.get(name, ""))
        if found is None:
            raise CorruptData(f"image archive: there is no {name[:200]!r}")
        if name.startswith(_BLOBS) and _named_digest(name) != found.digest:
            raise CorruptData(f"image archive: {name[:200]!r} is {found.digest}")
        return found

    def read(self, name: str, limit: int) -> bytes:
        """A small file. Raises CorruptData where there is none, or it has more than *limit* bytes."""
        found = self.file(name)
        if found.size > limit:
            raise CorruptData(f"image archive: {name[:200]!r} is larger than {limit} bytes")
        with open(found.path, "rb") as file:
            return file.read()

    def _write(self, member: Member, reader: TarReader) -> Staged:
        self._size += member.size
        if self._size > MAX_SIZE:
            raise CorruptData(f"image archive: more than {MAX_SIZE} bytes")
        path = os.path.join(self._directory, str(len(self._files)))
        digest = hashlib.sha256()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while view := reader.take():
                digest.update(view)
                write_all(fd, view)
        finally:
            os.close(fd)
        return Staged(path, member.size, Digest(f"sha256:{digest.hexdigest()}"))


def blob_name(digest: Digest) -> str:
    """Where an image layout has the blob (image-spec, image-layout.md)."""
    algorithm, _, encoded = digest.partition(":")
    return f"{_BLOBS}{algorithm}/{encoded}"


def _parse_name(name: bytes) -> str:
    """The name in one spelling. Raises CorruptData for one that leads out of the archive, or is no text."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise CorruptData(f"image archive: the name {name[:200]!r} is not UTF-8") from None
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or ".." in parts:
        raise CorruptData(f"image archive: the name {text[:200]!r} leads out of it")
    return "/".join(parts)


def _target(name: str, link: bytes) -> str:
    """The name that a link means; the empty string, which no file has, where that is none in the archive."""
    text = link.decode(errors="replace")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), text))
    return "" if text.startswith("/") or target.startswith("..") else target


def _named_digest(name: str) -> Digest:
    parts = name.split("/")
    if len(parts) != 3:
        raise CorruptData(f"image archive: {name[:200]!r} is no blob's name")
    return parse_digest(f"{parts[1]}:{parts[2]}", "image archive")
