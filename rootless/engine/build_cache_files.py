"""--cache-to and --cache-from, type=local: steps and their layers in a directory, for another machine to find.

    DIR/steps/KEY.json     a step, as in the store (store/build_cache.py)
    DIR/blobs/sha256/HEX   the archive of its layer, uncompressed; HEX is its diff_id

What a directory holds may come from anywhere. A step of it counts for a key that this build has computed, above the
very layers that the build has; its layer is unpacked as others are, archived anew, and has to be what it is called.
Whether the steps were done honestly nobody can tell: who imports a cache trusts its author, as with BuildKit.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from rootless.engine.context import Engine
from rootless.engine.layer_blob import write_tar
from rootless.engine.layer_new import adopt
from rootless.errors import CorruptData, InvalidInput
from rootless.linux import files
from rootless.spec.digest import ChainID, DiffID, chain_id_above, parse_digest
from rootless.store.build_cache import Step, step_of, step_record
from rootless.store.layer_stream import LayerStream
from rootless.store.layout import load_record, save_record
from rootless.store.recorded import write_recorded
from rootless.store.settle import settle_implicit
from rootless.store.unpack import Ids, unpack_layer

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def export(engine: Engine, steps: Iterable[Step], directory: str) -> None:
    """Write *steps* and their layers to *directory*. Raises InvalidInput."""
    try:
        for kind in ("steps", "blobs/sha256"):
            os.makedirs(os.path.join(directory, kind), exist_ok=True)
        for step in steps:
            if step.chain_id and step.diff_id:
                _write_blob(engine, step.chain_id, os.path.join(directory, "blobs/sha256", step.diff_id[7:]))
            save_record(os.path.join(directory, "steps", f"{step.key}.json"), step_record(step), durable=False)
    except OSError as error:
        raise InvalidInput(f"cannot write to {error.filename or directory}: {error.strerror}") from error


def _write_blob(engine: Engine, chain_id: ChainID, path: str) -> None:
    if os.path.exists(path):
        return
    with files.replacing(path) as file:
        write_tar(engine, chain_id, file.write)


def find(engine: Engine, directory: str, key: str, layers: Sequence[ChainID], held: ExitStack) -> Step | None:
    """The step of that key above *layers*, with its layer in the store; None where *directory* does not have it.

    Raises CorruptData for a layer that is not what the step says.
    """
    try:
        step = step_of(key, load_record(os.path.join(directory, "steps", f"{key}.json")))
    except (OSError, CorruptData, KeyError, TypeError):
        return None
    if not fits(step, layers):
        return None
    if step.diff_id is None:
        return step
    hexadecimal = step.diff_id.partition(":")[2]
    return make_layer(engine, step, os.path.join(directory, "blobs/sha256", hexadecimal), layers, held)


def fits(step: Step, layers: Sequence[ChainID]) -> bool:
    """Whether a step from elsewhere says that it was done above *layers*, and its layer is called as it should be.

    Raises CorruptData where what is called a digest is none: above nothing it would be the name of the layer.
    """
    if step.chain_id is None or step.diff_id is None:
        return not step.chain_id and not step.diff_id and step.layers == tuple(layers)
    diff_id = DiffID(parse_digest(step.diff_id, "layer of the build cache"))
    chain_id = chain_id_above(layers[-1] if layers else None, diff_id)
    return step.chain_id == chain_id and step.layers == (*layers, chain_id)


def make_layer(engine: Engine, step: Step, path: str, layers: Sequence[ChainID], held: ExitStack) -> Step:
    """Have the step's layer in the store, from the archive *path*; the step with what the layer really takes.

    Raises CorruptData for an archive that is not what the step says.
    """
    staged = engine.layers.stage()
    try:
        _unpack(path, staged, engine, layers)
    except OSError as error:
        engine.layers.abandon(staged)
        raise CorruptData(f"cannot read {path} of the build cache: {error.strerror}") from error
    except BaseException:
        engine.layers.abandon(staged)
        raise
    layer = adopt(engine, layers[-1] if layers else None, staged, held=held)
    if layer.chain_id != step.chain_id:
        raise CorruptData(f"{path} of the build cache is not the layer {step.chain_id}")
    return step._replace(length=layer.length, size=layer.size)


def _unpack(path: str, staged: str, engine: Engine, layers: Sequence[ChainID]) -> None:
    with ExitStack() as opened:

        def open_directory(directory: str) -> int:
            fd = os.open(directory, _ENTER)
            opened.callback(os.close, fd)
            return fd

        style = engine.whiteout_style
        target_fd = open_directory(os.path.join(staged, "diff"))
        source_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, source_fd)
        stream = opened.enter_context(LayerStream(source_fd))
        unpacked = unpack_layer(stream, target_fd, whiteouts=style, ids=Ids.present())
        lowers = [open_directory(engine.layers.diff(chain_id)) for chain_id in reversed(layers)]
        settle_implicit(target_fd, unpacked.implicit, lowers, whiteouts=style, marked=unpacked.marked)
    if unpacked.recorded:
        write_recorded(staged, unpacked.recorded)
