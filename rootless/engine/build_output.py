"""Where the result of a build goes besides the store: a directory, an archive of its files or of the image, a registry.

The files are the tree that a container of the result would see. A directory is written by descriptor, made or merged
into: a link that is there already, or that comes with the result, is never followed (B16).
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

from rootless.engine.build_caches import COMPRESSIONS
from rootless.engine.build_options import BuildOptions, Output
from rootless.engine.build_tree import Directory
from rootless.engine.build_write import Attributes, Mode, write_tree
from rootless.engine.context import Engine
from rootless.engine.image_new import Attach
from rootless.engine.images import target_reference
from rootless.errors import InvalidInput
from rootless.linux.files import replace_file, replacing
from rootless.spec.reference import parse_reference
from rootless.store.images import Image
from rootless.store.layout import remove_path
from rootless.store.marks import WhiteoutStyle
from rootless.store.pack import pack

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
TREES = ("local", "tar")


class Files(NamedTuple):
    """The files of one platform, and what lies beside them at the root."""

    tree: Directory
    more: Mapping[str, bytes] = {}

    def write(self, directory: str, look: Attributes) -> None:
        """Write them all to a directory that is there."""
        write_tree(directory, self.tree, look)
        for name, content in self.more.items():
            replace_file(os.path.join(directory, name), content, 0o644, durable=False)


def check(outputs: Sequence[Output], tags: Sequence[str]) -> None:
    """Raise InvalidInput for what cannot be, before anything is built."""
    for name in names_of(outputs, tags):
        target_reference(name)
    if sum(output.destination == "-" for output in outputs) > 1:
        raise InvalidInput("only one output can be written to stdout")
    if any(is_pushed(output) for output in outputs) and not names_of(outputs, tags):
        raise InvalidInput("tag is needed when pushing to registry", hint="name the image: -t REGISTRY/NAME:TAG")
    for output in outputs:
        _check_compression(output)


def _check_compression(output: Output) -> None:
    """Layers are compressed where they are pushed, and nowhere else."""
    asked = output.attributes.get("compression")
    if asked is None:
        return
    if asked not in COMPRESSIONS:
        raise InvalidInput(f"unknown compression {asked!r}", hint=f"there are: {', '.join(COMPRESSIONS)}")
    if not is_pushed(output):
        raise InvalidInput(f"compression={asked} is for an output that is pushed", hint="push=true, or type=registry")


def names_of(outputs: Sequence[Output], tags: Sequence[str]) -> list[str]:
    """What the image is to be called: -t, and name= of outputs."""
    given = [name for o in outputs for name in o.attributes.get("name", "").split(",") if name]
    return list(dict.fromkeys([*tags, *given]))


def is_archive(output: Output) -> bool:
    """Whether it is an archive of the image."""
    return output.type == "oci" or (output.type == "docker" and bool(output.destination))


def is_pushed(output: Output) -> bool:
    """Whether the image goes to its registry."""
    return output.type == "registry" or output.attributes.get("push") == "true"


def carries_attestations(output: Output) -> bool:
    """Whether what is said of the result goes there."""
    return output.type in TREES or is_archive(output) or is_pushed(output)


def needs_image(outputs: Sequence[Output]) -> bool:
    """Whether an image is made."""
    return not outputs or any(output.type not in TREES for output in outputs)


def stays(outputs: Sequence[Output]) -> bool:
    """Whether the image stays here, though it may have no name."""
    return not outputs or any(output.type in ("image", "docker") and not is_archive(output) for output in outputs)


def push_images(
    engine: Engine,
    output: Output,
    images: Sequence[Image],
    names: Sequence[str],
    options: BuildOptions,
    attach: Attach | None,
) -> str:
    """Push the image, or an index of several or with what is attached, under each name; the digest it has there."""
    # Only who pushes needs what speaks HTTP.
    from rootless.engine.push import push_images as push
    from rootless.engine.push import push_index

    compression, digest = output.attributes.get("compression", "gzip"), ""
    for reference in map(parse_reference, names):
        with options.pull_progress() if options.pull_progress else nullcontext() as shown:
            if len(images) == 1 and attach is None:
                pushed = push(engine, [(reference, images[0])], compression=compression, progress=shown)[0]
            else:
                pushed = push_index(
                    engine,
                    reference,
                    images,
                    compression=compression,
                    annotations=options.index_annotations,
                    attach=attach,
                    progress=shown,
                )
            digest = pushed.digest
    return digest


def write_archive(
    engine: Engine, output: Output, images: Sequence[Image], names: Sequence[str], attach: Attach | None
) -> None:
    """An archive of the image, or of an index of several. Raises InvalidInput for a place that cannot be written to."""
    # Only who wants an archive needs what makes one.
    from rootless.engine.save import save_built

    form = "oci-archive" if output.type == "oci" else "docker-archive"
    with _written(output.destination) as write:
        save_built(engine, images, [parse_reference(name) for name in names], write, form=form, attach=attach)


@contextmanager
def _written(destination: str) -> Iterator[Callable[[bytes | memoryview], object]]:
    """What writes to a file, which is there whole or not at all; or to standard output, "-". Raises InvalidInput."""
    if destination == "-":
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    try:
        # A pipe, a link that the user wants to be followed, or a directory, which is an error.
        is_special = os.path.lexists(destination) and (os.path.islink(destination) or not os.path.isfile(destination))
        with open(destination, "wb") if is_special else replacing(destination, 0o666 & ~_umask()) as file:
            yield file.write
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InvalidInput(f"cannot write {destination}: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write(output: Output, trees: Mapping[str, Files], style: WhiteoutStyle, aside: Callable[[], str]) -> None:
    """Write the files of *trees*, each below its name, which may be empty.

    Raises InvalidInput for a destination that cannot be written to.
    """
    if output.type == "tar":
        _write_tar(output, trees, style, aside())
        return
    try:
        for name, found in trees.items():
            directory = os.path.join(output.destination, name)
            os.makedirs(directory, exist_ok=True)
            # Who may enter the directory shall not become the user by a program of the image's.
            found.write(directory, Attributes((0, 0), Mode("ug-s")))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InvalidInput(f"cannot write {output.destination}: {error.strerror}") from error


def _write_tar(output: Output, trees: Mapping[str, Files], style: WhiteoutStyle, place: str) -> None:
    """The trees are merged into a directory first, for an archive has hard links and is sorted over all layers."""
    merged = os.path.join(place, "merged")
    os.mkdir(merged, 0o755)
    try:
        for name, found in trees.items():
            if name:
                os.mkdir(os.path.join(merged, name), 0o755)
            found.write(os.path.join(merged, name), Attributes(None, None, True))
        fd = os.open(merged, _ENTER)
        try:
            with _written(output.destination) as write_out:
                pack(fd, write_out, style=style)
        finally:
            os.close(fd)
    finally:
        remove_path(merged)
