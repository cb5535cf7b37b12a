"""Layers that are made here, by commit, build and import: a directory that becomes a layer under its chain_id.

The archive is written nowhere: it is made once, to know its digest, and again from the directory whenever push or save
want it (layer_blob.py). A layer gets its name under the shared lock of that name. Who removes one holds it exclusively,
as does a pull that makes it, and renaming a directory onto one that is not empty fails: so of two that make the same
layer one is first, and the other finds it there.
"""

import errno
import os
from contextlib import ExitStack
from typing import NamedTuple

from rootless.engine.context import Engine
from rootless.linux.files import sync_filesystem
from rootless.spec.digest import ChainID, DiffID, chain_id_above
from rootless.spec.image import OCI_LAYER
from rootless.store.layers import layer_lock
from rootless.store.marks import has_opaque_attribute
from rootless.store.pack import Packed, pack
from rootless.store.recorded import read_recorded
from rootless.store.tar_write import Write

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_EXISTS = (errno.EEXIST, errno.ENOTEMPTY)


class NewLayer(NamedTuple):
    """A layer that is here, and what stands for it in a manifest."""

    chain_id: ChainID
    diff_id: DiffID
    length: int  # bytes of the archive
    size: int  # bytes of the files
    media_type: str = OCI_LAYER


def adopt(engine: Engine, parent: ChainID | None, staged: str, *, held: ExitStack | None = None) -> NewLayer:
    """Make the directory *staged*, from `engine.layers.stage()`, the layer above *parent*; where it is there, drop it.

    Its `diff` is in the store's own form, as an upper directory is; nobody writes to it any more. Until *held* is left
    nobody removes the layer; without, it is the caller's to see that it finds it again (make_image does). Raises what
    pack() raises; *staged* is gone then.
    """
    engine.enter_namespace()
    try:
        packed = pack_layer(engine, staged)
        layer = NewLayer(chain_id_above(parent, packed.diff_id), packed.diff_id, packed.length, packed.size)
        with ExitStack() as locks:
            locks.enter_context(engine.layout.lock(layer_lock(layer.chain_id), shared=True))
            _put_in_place(engine, staged, layer, parent, packed)
            if held is not None:
                held.push(locks.pop_all())
    except BaseException:
        engine.layers.abandon(staged)
        raise
    return layer


def is_empty(upper: str) -> bool:
    """Whether the upper directory holds no change at all. What its root looks like is not asked."""
    fd = os.open(upper, _DIRECTORY)
    try:
        return not has_opaque_attribute(fd) and not os.listdir(fd)
    finally:
        os.close(fd)


def pack_layer(engine: Engine, directory: str, write: Write = lambda data: None) -> Packed:
    """Write the archive of the layer whose `diff` is in *directory*, and tell what it is. Raises what pack() raises."""
    fd = os.open(os.path.join(directory, "diff"), _DIRECTORY)
    try:
        return pack(fd, write, style=engine.whiteout_style, recorded=read_recorded(directory))
    finally:
        os.close(fd)


def _put_in_place(engine: Engine, staged: str, layer: NewLayer, parent: ChainID | None, packed: Packed) -> None:
    """Give it its name, its content being on the disk. Its lock is held, shared."""
    if engine.layers.has(layer.chain_id):
        engine.layers.abandon(staged)
        return
    sync_filesystem(staged)
    record = {
        "diff_id": layer.diff_id,
        "parent": parent,
        "size": layer.size,
        "entries": packed.entries,
        "squashed": 0,
        "dropped_xattrs": 0,
        "length": layer.length,
        "blob": "",
    }
    try:
        engine.layers.commit(staged, layer.chain_id, record)
    except OSError as error:
        if error.errno not in _EXISTS:
            raise
        engine.layers.abandon(staged)
