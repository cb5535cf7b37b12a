"""pull: an image from a registry into the store.

    resolve ─▶ for each layer that is not here:  download ─▶ check ─▶ unpack aside ─▶ check     (layers side by side)
               then, bottom first:               settle ─▶ rename into place
               then:                             record the image, and let the name mean it

Downloads are threads of this process, unpacking is processes (unpacking.py), so neither waits for the other. A layer
here is locked while it is made, so that another pull waits for it instead of making it too, and a present one while
the image has no record yet, so that nobody removes it in between. What was downloaded stays where a pull is killed, and
the next one goes on from there.
"""

import os
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from threading import Lock
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from rootless.engine.context import Engine
from rootless.engine.registries import open_client
from rootless.engine.unpacking import DISK_FULL, Workers
from rootless.errors import CorruptData
from rootless.linux.files import syncfs
from rootless.registry.client import Client
from rootless.registry.resolve import Resolved, resolve_image
from rootless.spec.digest import ChainID, DiffID, Digest, chain_ids
from rootless.spec.image import Descriptor, ImageConfig, layers_with_diff_ids, parse_image_config
from rootless.spec.platform import host_platform, parse_platform
from rootless.spec.reference import Reference
from rootless.store.images import Image
from rootless.store.partial_blob import PartialBlob
from rootless.store.recorded import move_recorded
from rootless.store.unpack import WhiteoutStyle, settle_implicit

PARALLEL_DOWNLOADS = 4


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


class Pulled(NamedTuple):
    """An image that is here now, and what it took."""

    image: Image
    digest: str  # what the reference names in the registry
    is_new: bool  # the name meant nothing, or another image, before


class _Layer(NamedTuple):
    """A layer of the image to pull."""

    descriptor: Descriptor
    diff_id: DiffID
    chain_id: ChainID
    parent: ChainID | None

    @property
    def lock(self) -> str:
        """The name of its lock."""
        return f"layer.{self.chain_id.partition(':')[2]}"

    @property
    def shown(self) -> str:
        """The id under which progress speaks of it."""
        return self.descriptor.digest.partition(":")[2][:12]


def pull(engine: Engine, reference: Reference, *, platform: str = "", progress: Progress | None = None) -> Pulled:
    """Have the image that *reference* names, for *platform* or this machine's. Raises what the registry room raises."""
    engine.enter_namespace()
    with suppress(OSError):  # rm and prune tell what stands in the way
        engine.layout.empty_trash()  # of pulls that were killed
    reference = reference.with_default_tag()
    shown = progress or Silent()
    wanted = parse_platform(platform) if platform else host_platform()
    with open_client() as client:
        shown.line(_pulling_from(reference))
        resolved = resolve_image(client, reference, wanted)
        config = parse_image_config(client.fetch_config(reference, resolved.manifest.config))
        layers = _layers(resolved, config)
        before = engine.images.by_reference(reference)
        with ExitStack() as locks:
            missing = _lock_layers(engine, layers, shown, locks)
            _lock_blobs(engine, layers, locks)
            if missing:
                _make_layers(engine, client, reference, layers, missing, shown)
            image = _record(engine, reference, resolved, config, layers)
    return Pulled(image, resolved.digest, before is None or before.id != image.id)


def _pulling_from(reference: Reference) -> str:
    what = reference.tag or reference.digest
    repository = reference.path if reference.domain == "docker.io" else reference.name
    return f"{what}: Pulling from {repository}"


def _layers(resolved: Resolved, config: ImageConfig) -> list[_Layer]:
    chain = chain_ids(config.diff_ids)
    rows = zip(layers_with_diff_ids(resolved.manifest, config), chain, [None, *chain], strict=False)
    return [_Layer(descriptor, diff_id, chain_id, parent) for (descriptor, diff_id), chain_id, parent in rows]


def _make_layers(
    engine: Engine,
    client: Client,
    reference: Reference,
    layers: list[_Layer],
    missing: list[_Layer],
    shown: Progress,
) -> None:
    """Make every layer that is missing, or leave nothing. Their locks and those of all blobs are held."""
    unfinished, style = _Unfinished(missing), engine.whiteout_style
    try:
        with closing(Workers(len(missing), style)) as workers, _Pool(client, workers) as pool:
            jobs = [
                pool.submit(_make, engine, client, reference, layer, workers, unfinished, shown) for layer in missing
            ]
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


class _Pool(ThreadPoolExecutor):
    """Threads that download and wait for workers. An exception in the main thread, Ctrl-C too, ends all of it."""

    def __init__(self, client: Client, workers: Workers) -> None:
        super().__init__(PARALLEL_DOWNLOADS)
        self._client = client
        self._workers = workers

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if kind is not None:
            self._client.cancel()
            self._workers.abort()
            self.shutdown(wait=True, cancel_futures=True)
        super().__exit__(kind, error, trace)


def _lock_layers(engine: Engine, layers: list[_Layer], shown: Progress, locks: ExitStack) -> list[_Layer]:
    """Lock all layers, bottom first, so that two pulls never wait for each other; those that are missing."""
    missing: list[_Layer] = []
    seen: set[ChainID] = set()
    for layer in layers:
        if layer.chain_id in seen:
            continue
        seen.add(layer.chain_id)
        if not missing and _hold_present(engine, layer, locks):
            shown.status(layer.shown, "Already exists")
            continue
        try:
            locks.enter_context(engine.layout.lock(layer.lock, blocking=False))
        except BlockingIOError:
            shown.status(layer.shown, "Waiting")
            locks.enter_context(engine.layout.lock(layer.lock))
        if engine.layers.has(layer.chain_id):
            shown.status(layer.shown, "Already exists")
            continue
        shown.status(layer.shown, "Pulling fs layer")
        missing.append(layer)
    return missing


def _lock_blobs(engine: Engine, layers: list[_Layer], locks: ExitStack) -> None:
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


def _hold_present(engine: Engine, layer: _Layer, locks: ExitStack) -> bool:
    """Whether the layer is here, held so that nobody removes it."""
    held = ExitStack()
    held.enter_context(engine.layout.lock(layer.lock, shared=True))
    if engine.layers.has(layer.chain_id):
        locks.push(held)
        return True
    held.close()
    return False


class _Unfinished:
    """What a pull has made so far; the threads add to it."""

    __slots__ = ("downloads", "locks", "staged")

    def __init__(self, missing: list[_Layer]) -> None:
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
    client: Client,
    reference: Reference,
    layer: _Layer,
    workers: Workers,
    unfinished: _Unfinished,
    shown: Progress,
) -> _Made:
    """Download and unpack one layer. Raises CorruptData where it is not what the image says."""
    size = layer.descriptor.size
    with unfinished.locks[layer.descriptor.digest]:
        if not engine.blobs.has(layer.descriptor.digest):
            unfinished.downloads.append(layer.descriptor.digest)
            _download(engine, client, reference, layer, shown)
    shown.status(layer.shown, "Download complete")
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


def _download(engine: Engine, client: Client, reference: Reference, layer: _Layer, shown: Progress) -> None:
    descriptor = layer.descriptor
    for mirrors in (True, False):
        with closing(_open_partial(engine, descriptor)) as sink:
            client.fetch_blob(
                reference,
                descriptor,
                sink,
                progress=lambda done: shown.advance(layer.shown, done, descriptor.size, "Downloading"),
                mirrors=mirrors,
            )
            shown.status(layer.shown, "Verifying Checksum")
            try:
                sink.commit()
                return
            except CorruptData:
                # A resumed beginning or a mirror may be to blame: once more, from the registry and from the start.
                if not mirrors:
                    raise


def _open_partial(engine: Engine, descriptor: Descriptor) -> PartialBlob:
    return PartialBlob(engine.blobs.partial_path(descriptor.digest), engine.blobs.path(descriptor.digest), descriptor)


def _put_in_place(engine: Engine, layers: list[_Layer], made: dict[ChainID, _Made]) -> None:
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
    _sync(engine)  # once: it writes out all that was unpacked
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


def _sync(engine: Engine) -> None:
    fd = os.open(engine.layout.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def _record(
    engine: Engine, reference: Reference, resolved: Resolved, config: ImageConfig, layers: list[_Layer]
) -> Image:
    manifest = resolved.documents[-1]
    image_id = resolved.manifest.config.digest
    digests = {f"{reference.name}@{resolved.digest}"}
    with engine.layout.lock(f"image.{image_id.partition(':')[2]}"):
        engine.blobs.write(manifest.data)
        engine.blobs.write(config.raw)
        known = engine.images.find_id(image_id)
        image = Image(
            id=image_id,
            manifest={"media_type": manifest.media_type, "digest": manifest.digest, "size": len(manifest.data)},
            blobs=tuple(layer.descriptor.digest for layer in layers),
            layers=tuple(layer.chain_id for layer in layers),
            size=sum(engine.layers.load(layer.chain_id).size for layer in layers),
            created=config.created or "",
            repo_digests=tuple(sorted(digests | set(known.repo_digests if known else ()))),
            added_at=known.added_at if known else time.time(),
        )
        engine.images.save(image)
        if reference.tag and not reference.digest:
            engine.images.tag(reference, image_id)
    return image
