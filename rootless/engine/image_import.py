"""import: an image of one layer out of an archive, which comes from a file, a pipe or a URL.

The archive is as hostile as a layer that was pulled, and is read by the same reader (store/tar.py, store/unpack.py);
compressed it may be as layers are, or by bzip2 or xz. Marks of absence in it mean nothing, as nothing lies below.
"""

import os
from contextlib import ExitStack
from io import FileIO
from typing import Any, NamedTuple

from rootless.engine import build_fetch, events
from rootless.engine.config_changes import apply_changes
from rootless.engine.context import Engine
from rootless.engine.image_new import make_image
from rootless.engine.images import target_reference
from rootless.engine.layer_new import adopt
from rootless.errors import CorruptData
from rootless.runtime.jsonlog import now
from rootless.spec.platform import host_platform, parse_platform
from rootless.store.expand import uncompressed
from rootless.store.images import Image
from rootless.store.layer_stream import LayerStream
from rootless.store.recorded import move_recorded, write_recorded
from rootless.store.unpack import Ids, settle_implicit, unpack_layer


class ImportOptions(NamedTuple):
    """Options with Docker's names and defaults."""

    changes: tuple[str, ...] = ()
    message: str = ""
    platform: str = ""


def import_url(engine: Engine, url: str, name: str, options: ImportOptions) -> Image:
    """The image of the archive at *url*. Raises RootlessError where that fails, and what import_image does."""
    staged = engine.layers.stage()
    try:
        fd = os.open(build_fetch.download(url, staged).path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return import_image(engine, fd, name, options, origin=url)
        finally:
            os.close(fd)
    finally:
        engine.layers.abandon(staged)


def import_image(engine: Engine, source_fd: int, name: str, options: ImportOptions, *, origin: str) -> Image:
    """The image of the archive in *source_fd*, called *name* unless that is empty.

    Raises InvalidInput for changes, a name or a platform that cannot be, CorruptData for the archive, OSError.
    """
    reference = target_reference(name) if name else None
    platform = parse_platform(options.platform) if options.platform else host_platform()
    config: dict[str, Any] = {}
    apply_changes(config, options.changes)
    engine.enter_namespace()
    created = now()
    document = {
        "created": created,
        "architecture": platform.architecture,
        "os": platform.os,
        **({"variant": platform.variant} if platform.variant else {}),
        "config": config,
        "history": [{"created": created, "comment": options.message or f"Imported from {origin}"}],
    }
    with ExitStack() as held:
        layer = adopt(engine, None, _unpacked(engine, source_fd), held=held)
        image = make_image(engine, None, document, [layer])
    if reference:
        engine.images.tag(reference, image.id)
    events.of_image(engine, image, "import")
    return image


def _unpacked(engine: Engine, source_fd: int) -> str:
    """The archive's files in a directory of engine.layers.stage()."""
    staged = engine.layers.stage()
    try:
        diff_fd = os.open(os.path.join(staged, "diff"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _unpack(engine, source_fd, staged, diff_fd)
        finally:
            os.close(diff_fd)
    except BaseException:
        engine.layers.abandon(staged)
        raise
    return staged


def _unpack(engine: Engine, source_fd: int, staged: str, diff_fd: int) -> None:
    style = engine.whiteout_style
    with FileIO(os.dup(source_fd)) as file, LayerStream(file, read=uncompressed) as stream:
        done = unpack_layer(stream, diff_fd, whiteouts=style, ids=Ids.present())
    if not done.entries:
        raise CorruptData("the archive is empty")
    if done.recorded:
        write_recorded(staged, done.recorded)
    moved = settle_implicit(diff_fd, done.implicit, [], whiteouts=style, marked=done.marked)
    move_recorded(staged, moved)
