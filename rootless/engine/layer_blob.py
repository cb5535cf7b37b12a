"""The bytes of an image's layers, for who sends them somewhere: push and save.

A layer that was pulled has its blob, which goes out as it came. A layer made here has none: its archive is made from
its directory, checked against its diff_id, and compressed on the way (store/compress.py).
"""

import hashlib
import os
from collections.abc import Callable

from rootless.engine.context import Engine
from rootless.engine.image_new import layer_descriptors
from rootless.engine.layer_new import pack_layer
from rootless.errors import CorruptData
from rootless.linux.files import write_all
from rootless.spec.digest import ChainID, Digest
from rootless.spec.image import OCI_LAYER, Descriptor
from rootless.store.compress import compressor
from rootless.store.images import Image
from rootless.store.layer_stream import LayerStream
from rootless.store.layout import load_record
from rootless.store.tar_write import Write

_CHUNK = 1 << 20  # bytes


def has_blob(engine: Engine, image: Image, index: int) -> bool:
    """Whether layer *index* of the image, from the bottom, is kept as the blob that its manifest names."""
    return engine.blobs.has(image.blobs[index])


def write_tar(engine: Engine, layer: ChainID, write: Write) -> None:
    """Give the archive of a layer to *write*, uncompressed.

    Raises CorruptData where what is in the store is not what its diff_id names (at the end: the bytes have been
    written then), and what *write* raises.
    """
    engine.enter_namespace()
    directory = engine.layers.directory(layer)
    try:
        record = load_record(os.path.join(directory, "layer.json"))
    except FileNotFoundError:
        raise CorruptData(
            f"layer {layer} is missing from the store", hint="remove the image, and make it again"
        ) from None
    blob = record.get("blob")
    found = (
        _unpacked(engine, Digest(blob), write)
        if blob and engine.blobs.has(Digest(blob))
        else pack_layer(engine, directory, write).diff_id
    )
    if found != record["diff_id"]:
        raise CorruptData(
            f"layer {layer} holds {found}, and its record says {record['diff_id']}",
            hint="remove the image, and make or pull it again",
        )


def compressed(engine: Engine, image: Image, index: int, compression: str, to_fd: int) -> Descriptor:
    """Write layer *index* of the image, from the bottom, to *to_fd*; what stands for it in a manifest.

    A blob that is kept goes as it is, whatever *compression* says: "gzip", "zstd", or "" for none. Raises CorruptData,
    and OSError for what cannot be written.
    """
    if has_blob(engine, image, index):
        _copy(engine.blobs.path(image.blobs[index]), to_fd)
        return layer_descriptors(engine, image)[index]
    return compressed_layer(engine, image.layers[index], compression, to_fd)


def compressed_layer(engine: Engine, layer: ChainID, compression: str, to_fd: int) -> Descriptor:
    """The same for a layer that is packed here, of an image or of none."""
    digest = hashlib.sha256()
    written = 0

    def write(data: bytes | memoryview) -> None:
        nonlocal written
        digest.update(data)
        written += len(data)
        write_all(to_fd, data)

    with compressor(compression, write) as sink:
        write_tar(engine, layer, sink)
    media_type = f"{OCI_LAYER}+{compression}" if compression else OCI_LAYER
    return Descriptor(media_type, Digest(f"sha256:{digest.hexdigest()}"), written)


def _unpacked(engine: Engine, blob: Digest, write: Callable[[bytes], object]) -> str:
    """The archive in a blob that was pulled."""
    fd = os.open(engine.blobs.path(blob), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with LayerStream(fd) as stream:
            for chunk in stream:
                write(chunk)
        return stream.diff_id
    finally:
        os.close(fd)


def _copy(path: str, to_fd: int) -> None:
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            write_all(to_fd, chunk)
