"""Archives that a build gets: contexts, what ADD unpacks. Recognised by content, unpacked as layers are (unpack.py)."""

import os
from collections.abc import Iterator

from rootless.errors import CorruptData
from rootless.linux.files import make_directory
from rootless.store.expand import uncompressed
from rootless.store.layer_stream import Between, Readable
from rootless.store.marks import WhiteoutStyle
from rootless.store.unpack import Ids, unpack_layer

_BLOCK = 512  # of a tar archive
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00")
MAX_SIZE = 64 << 30  # bytes that may come out of one archive


def looks_compressed(head: bytes) -> bool:
    """Whether *head*, the beginning of a file, is that of a compressed one."""
    return head.startswith(_COMPRESSED)


def is_tar(head: bytes) -> bool:
    """Whether *head* begins with a tar header: by its checksum, for old archives have no magic."""
    if len(head) < _BLOCK:
        return False
    field = head[148:156].strip(b"\0 ")
    try:
        expected = int(field, 8)
    except ValueError:
        return False
    block = head[:148] + b" " * 8 + head[156:_BLOCK]
    return expected == sum(block)


def is_archive(file: Readable) -> bool:
    """Whether a file is a tar archive, compressed or not. It has been read from then."""
    head = file.read(_BLOCK) or b""
    if not looks_compressed(head):
        return is_tar(head)
    try:
        return is_tar(next(chunks(Between(head, file)), b""))
    except (CorruptData, OSError, ValueError, EOFError):
        return False


def chunks(source: Readable) -> Iterator[bytes]:
    """What is in *source*, uncompressed. Raises CorruptData."""
    total = 0
    for piece in uncompressed(source):
        total += len(piece)
        if total > MAX_SIZE:
            raise CorruptData(f"an archive of more than {MAX_SIZE} bytes")
        yield piece


def unpack(source: Readable, target: str) -> None:
    """Unpack the archive in *source* into the new directory *target*. Raises CorruptData, OSError."""
    make_directory(target, 0o755)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        unpack_layer(chunks(source), fd, whiteouts=WhiteoutStyle.OVERLAY, ids=Ids.present())
    finally:
        os.close(fd)
