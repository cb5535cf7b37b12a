"""Layers out of blobs: what pull and load do once they know which layers an image has.

    for each layer that is not here:  fetch its blob ─▶ unpack aside ─▶ check             (layers side by side)
    then, bottom first:               settle ─▶ rename into place
    then:                             record the image, and let its names mean it

Fetching is done by threads of this process, unpacking by processes (unpacking.py), so neither waits for the other. A
layer is locked while it is made, so that another pull waits for it instead of making it too, and a present one while
the image has no record yet, so that nobody removes it in between.
"""

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import ExitStack, closing
from threading import Lock
from typing import Any, NamedTuple, Protocol

from rootless.engine.cancelling_pool import CancellingPool
from rootless.engine.context import Engine
from rootless.engine.images import image_lock
from rootless.engine.unpacking import DISK_FULL, Workers
from rootless.errors import CorruptData
from rootless.linux.files import sync_filesystem
from rootless.spec.digest import ChainID, DiffID, Digest, chain_ids, digest_of
from rootless.spec.image import Descriptor, ImageConfig, Manifest, layers_with_diff_ids
from rootless.spec.reference import Reference
from rootless.store.images import Image
from rootless.store.layers import layer_lock
from rootless.store.recorded import move_recorded
from rootless.store.unpack import WhiteoutStyle, settle_implicit

PARALLEL_FETCHES = 4


class Progress(Protocol):
    """Who shows how a pull goes on. Called from any thread."""

    def status(self, identifier: str, text: str) -> None:
        """*identifier*, a layer, is in state *text*."""

    def advance(self, identifier: str, done: int, total: int, text: str) -> None:
        """And *done* of *total* bytes."""

    def line(self, text: str) -> None:
        """Something that is said once."""


class Silent:
    """Shows nothing."""

    def status(self, identifier: str, text: str) -> None:
        """Nothing."""

    def advance(self, identifier: str, done: int, total: int, text: str) -> None:
        """Nothing."""

    def line(self, text: str) -> None:
        """Nothing."""


class Layer(NamedTuple):
    """A layer of an image, and the blob that it comes as."""

    descriptor: Descriptor
    diff_id: DiffID
    chain_id: ChainID
    parent: ChainID | None

    @property
    def shown(self) -> str:
        """The id under which progress speaks of it."""
        return self.descriptor.digest.partition(":")[2][:12]


def layers_of(manifest: Manifest, config: ImageConfig) -> list[Layer]:
    """The layers, bottom first. Raises CorruptData where manifest and config disagree."""
    chain = chain_ids(config.diff_ids)
    rows = zip(layers_with_diff_ids(manifest, config), chain, [None, *chain], strict=False)
    return [Layer(descriptor, diff_id, chain_id, parent) for (descriptor, diff_id), chain_id, parent in rows]


def _pool(cancel: Callable[[], None], workers: Workers) -> CancellingPool:
    """Threads that fetch and wait for workers."""

    def cancel_both() -> None:
        cancel()
        workers.abort()

    return CancellingPool(PARALLEL_FETCHES, cancel_both)


def make_layers(
    engine: Engine,
    layers: list[Layer],
    missing: list[Layer],
    fetch: Callable[[Layer], None],
    cancel: Callable[[], None],
    shown: Progress,
) -> None:
    """Make every layer that is missing, or leave nothing. Their locks and those of all blobs are held.

    *fetch* has the store hold the blob of a layer, from any thread; *cancel* has it fail in all of them.
    """
    unfinished, style = _Unfinished(missing), engine.whiteout_style
    try:
        with closing(Workers(len(missing), style)) as workers, _pool(cancel, workers) as pool:
            jobs = [pool.submit(_make, engine, layer, fetch, workers, unfinished, shown) for layer in missing]
            done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            for job in done:
                job.result()
            made = {layer.chain_id: job.result() for layer, job in zip(missing, jobs, strict=True)}
        _put_in_place(engine, layers, made)
    except BaseException as error:
        for path in unfinished.staged:
            engine.layers.abandon(path)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            # What was downloaded stays for the next try, but not on a disk where the user has to make room first.
            for digest in unfinished.downloads:
                engine.blobs.forget(digest)
        raise
    for layer in missing:
        shown.status(layer.shown, "Pull complete")


def lock_layers(engine: Engine, layers: list[Layer], shown: Progress, locks: ExitStack) -> list[Layer]:
    """Lock all layers, bottom first, so that two pulls never wait for each other; those that are missing."""
    missing: list[Layer] = []
    seen: set[ChainID] = set()
    for layer in layers:
        if layer.chain_id in seen:
            continue
        seen.add(layer.chain_id)
        if not missing and _hold_present(engine, layer, locks):
            shown.status(layer.shown, "Already exists")
            continue
        try:
            locks.enter_context(engine.layout.lock(layer_lock(layer.chain_id), blocking=False))
        except BlockingIOError:
            shown.status(layer.shown, "Waiting")
            locks.enter_context(engine.layout.lock(layer_lock(layer.chain_id)))
        if engine.layers.has(layer.chain_id):
            shown.status(layer.shown, "Already exists")
            continue
        shown.status(layer.shown, "Pulling fs layer")
        missing.append(layer)
    return missing


def lock_blobs(engine: Engine, layers: list[Layer], locks: ExitStack) -> None:
    """Lock the blobs of all layers, in the order of their digests, so that two pulls never wait for each other.

    Those that are here are shared with others, those that are to be downloaded are not. They are held until the image's
    record names them, for a blob that no record names may be removed.
    """
    for digest in sorted({layer.descriptor.digest for layer in layers}):
        name = f"blob.{digest.partition(':')[2]}"
        held = ExitStack()
        held.enter_context(engine.layout.lock(name, shared=True))
        if not engine.blobs.has(digest):
            held.close()
            held.enter_context(engine.layout.lock(name))
        locks.push(held)


def _hold_present(engine: Engine, layer: Layer, locks: ExitStack) -> bool:
    """Whether the layer is here, held so that nobody removes it."""
    held = ExitStack()
    held.enter_context(engine.layout.lock(layer_lock(layer.chain_id), shared=True))
    if engine.layers.has(layer.chain_id):
        locks.push(held)
        return True
    held.close()
    return False


class _Unfinished:
    """What a pull has made so far; the threads add to it."""

    __slots__ = ("downloads", "locks", "staged")

    def __init__(self, missing: list[Layer]) -> None:
        # An image may have one blob several times, and one thread fetches it for all.
        self.locks = {layer.descriptor.digest: Lock() for layer in missing}
        self.downloads: list[Digest] = []
        self.staged: list[str] = []


class _Made(NamedTuple):
    """A layer that is unpacked aside."""

    staged: str
    answer: dict[str, Any]


def _make(
    engine: Engine,
    layer: Layer,
    fetch: Callable[[Layer], None],
    workers: Workers,
    unfinished: _Unfinished,
    shown: Progress,
) -> _Made:
    """Fetch and unpack one layer. Raises CorruptData where it is not what the image says."""
    size = layer.descriptor.size
    with unfinished.locks[layer.descriptor.digest]:
        if not engine.blobs.has(layer.descriptor.digest):
            unfinished.downloads.append(layer.descriptor.digest)
            fetch(layer)
    staged = engine.layers.stage()
    unfinished.staged.append(staged)
    path = engine.blobs.path(layer.descriptor.digest)
    answer = workers.unpack(path, staged, lambda done: shown.advance(layer.shown, done, size, "Extracting"))
    if answer["diff_id"] != layer.diff_id:
        raise CorruptData(
            f"layer {layer.descriptor.digest} holds {answer['diff_id']}, and the image config says {layer.diff_id}"
        )
    if answer["dropped_xattrs"]:
        shown.line(f"{layer.shown}: {answer['dropped_xattrs']} extended attributes that no image may set were left out")
    shown.status(layer.shown, "Extracted")
    return _Made(staged, answer)


def _put_in_place(engine: Engine, layers: list[Layer], made: dict[ChainID, _Made]) -> None:
    """Bottom first: let implicit directories look like those below; then give the layers their names."""
    lower: list[int] = []  # bottom first
    try:
        for layer in layers:
            directory = engine.layers.diff(layer.chain_id)
            if layer.chain_id in made:
                staged, answer = made[layer.chain_id]
                directory = os.path.join(staged, "diff")
                _settle(staged, answer, lower, engine.whiteout_style)
            lower.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    finally:
        for fd in lower:
            os.close(fd)
    sync_filesystem(engine.layout.root)  # once: it writes out all that was unpacked
    for layer in layers:
        if layer.chain_id in made:
            staged, answer = made[layer.chain_id]
            record = {
                "diff_id": layer.diff_id,
                "parent": layer.parent,
                "size": answer["size"],
                "entries": answer["entries"],
                "squashed": answer["squashed"],
                "dropped_xattrs": answer["dropped_xattrs"],
                "blob": layer.descriptor.digest,
            }
            engine.layers.commit(staged, layer.chain_id, record)


def _settle(staged: str, answer: dict[str, Any], lower: list[int], style: WhiteoutStyle) -> None:
    fd = os.open(os.path.join(staged, "diff"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        moved = settle_implicit(fd, answer["implicit"], lower[::-1], whiteouts=style, marked=answer["marked"])
    finally:
        os.close(fd)
    move_recorded(staged, moved)


def record_image(
    engine: Engine,
    manifest: tuple[bytes, str],
    config: ImageConfig,
    layers: list[Layer],
    *,
    digests: Iterable[str] = (),
    tags: Iterable[Reference] = (),
) -> Image:
    """Record an image whose layers are here and locked, add *digests* to what it is called, and let *tags* mean it.

    *manifest* is the document as it came, and its media type.
    """
    data, media_type = manifest
    image_id = digest_of(config.raw)
    with engine.layout.lock(image_lock(image_id)):
        engine.blobs.write(data)
        engine.blobs.write(config.raw)
        known = engine.images.find_id(image_id)
        image = Image(
            id=image_id,
            manifest={"media_type": media_type, "digest": digest_of(data), "size": len(data)},
            blobs=tuple(layer.descriptor.digest for layer in layers),
            layers=tuple(layer.chain_id for layer in layers),
            size=sum(engine.layers.load(layer.chain_id).size for layer in layers),
            created=config.created or "",
            repo_digests=tuple(sorted({*digests, *(known.repo_digests if known else ())})),
            added_at=known.added_at if known else time.time(),
        )
        engine.images.save(image)
        for reference in tags:
            engine.images.tag(reference, image_id)
    return image
