"""Archives that a build gets: contexts, what ADD unpacks. Recognised by content, unpacked as layers are (unpack.py)."""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rootless.errors import CorruptData
from rootless.linux.files import make_directory
from rootless.store.layer_stream import Between, Readable, decompressed
from rootless.store.marks import WhiteoutStyle
from rootless.store.unpack import Ids, unpack_layer

if TYPE_CHECKING:
    import bz2
    import lzma

_BLOCK = 512  # of a tar archive
_CHUNK = 1 << 20
_BZIP2, _XZ = b"BZh", b"\xfd7zXZ\x00"
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", _BZIP2, _XZ)
_MAX_MEMORY = 256 << 20  # bytes that an xz stream may ask for
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
    head = source.read(len(_XZ)) or b""
    stream = Between(head, source)
    if head.startswith(_BZIP2):
        import bz2  # few archives are

        yield from _decompressed(stream, bz2.BZ2Decompressor)
    elif head.startswith(_XZ):
        import lzma  # likewise

        yield from _decompressed(stream, lambda: lzma.LZMADecompressor(memlimit=_MAX_MEMORY))
    else:
        total = 0
        for piece in decompressed(stream):
            total += len(piece)
            _check_size(total)
            yield piece


def _check_size(total: int) -> None:
    if total > MAX_SIZE:
        raise CorruptData(f"an archive of more than {MAX_SIZE} bytes")


def _decompressed(
    source: Readable, make: "Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]"
) -> Iterator[bytes]:
    """bzip2 or xz: any number of streams, one after the other, in pieces of bounded size."""
    decompressor, total = make(), 0
    data = source.read(_CHUNK) or b""
    try:
        while data or not decompressor.needs_input:
            piece = decompressor.decompress(data, _CHUNK)
            total += len(piece)
            _check_size(total)
            if piece:
                yield piece
            data = b""
            if decompressor.eof:
                data = decompressor.unused_data.lstrip(b"\0")
                decompressor = make()
                data = data or source.read(_CHUNK) or b""
                if not data:
                    return
            elif decompressor.needs_input:
                data = source.read(_CHUNK) or b""
    except (OSError, ValueError, EOFError) as error:
        raise CorruptData(f"the archive is damaged: {error}") from error
    except Exception as error:
        if type(error).__name__ != "LZMAError":  # whose module is loaded for such archives alone
            raise
        raise CorruptData(f"the archive is damaged: {error}") from error
    raise CorruptData("the archive is damaged: it ends too early")


def unpack(source: Readable, target: str) -> None:
    """Unpack the archive in *source* into the new directory *target*. Raises CorruptData, OSError."""
    make_directory(target, 0o755)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        unpack_layer(chunks(source), fd, whiteouts=WhiteoutStyle.OVERLAY, ids=Ids.present())
    finally:
        os.close(fd)
