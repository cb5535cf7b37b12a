"""Where the result of a build goes besides the store: a directory, an archive of its files or of the image, a registry.

The files are the tree that a container of the result would see. A directory is written by descriptor, made or merged
into: a link that is there already, or that comes with the result, is never followed (B16).
"""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from rootless.engine.build_caches import COMPRESSIONS
from rootless.engine.build_options import Output
from rootless.engine.build_tree import Directory
from rootless.engine.build_write import Attributes, Mode, write_tree
from rootless.engine.context import Engine
from rootless.engine.images import target_reference
from rootless.errors import InvalidInput
from rootless.spec.reference import parse_reference
from rootless.store.images import Image
from rootless.store.layout import remove_path
from rootless.store.marks import WhiteoutStyle
from rootless.store.pack import pack

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
TREES = ("local", "tar")


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


def needs_image(outputs: Sequence[Output]) -> bool:
    """Whether an image is made."""
    return not outputs or any(output.type not in TREES for output in outputs)


def stays(outputs: Sequence[Output]) -> bool:
    """Whether the image stays here, though it may have no name."""
    return not outputs or any(output.type in ("image", "docker") and not is_archive(output) for output in outputs)


def write_image(engine: Engine, output: Output, image: Image, names: Sequence[str], progress: Any) -> None:
    """An archive of the image, or the push of all its names."""
    if is_archive(output):
        _write_archive(engine, output, names or [image.id])
    elif is_pushed(output):
        # Only who pushes needs what speaks HTTP.
        from rootless.engine.push import push

        compression = output.attributes.get("compression", "gzip")
        for name in names:
            with progress() if progress else nullcontext() as shown:
                push(engine, parse_reference(name), compression=compression, progress=shown)


def _write_archive(engine: Engine, output: Output, names: Sequence[str]) -> None:
    # Only who wants an archive needs what makes one.
    from rootless.engine.save import save

    form = "oci-archive" if output.type == "oci" else "docker-archive"
    if output.destination == "-":
        save(engine, names, sys.stdout.buffer.write, form=form)
        sys.stdout.buffer.flush()
        return
    try:
        with open(output.destination, "wb") as file:
            save(engine, names, file.write, form=form)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InvalidInput(f"cannot write {output.destination}: {error.strerror}") from error


def write(output: Output, tree: Directory, style: WhiteoutStyle, aside: Callable[[], str]) -> None:
    """Write the files of *tree*. Raises InvalidInput for a destination that cannot be written to."""
    try:
        if output.type == "local":
            os.makedirs(output.destination, exist_ok=True)
            # Who may enter the directory shall not become the user by a program of the image's.
            write_tree(output.destination, tree, Attributes((0, 0), Mode("ug-s")))
        else:
            _write_tar(output, tree, style, aside())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InvalidInput(f"cannot write {output.destination}: {error.strerror}") from error


def _write_tar(output: Output, tree: Directory, style: WhiteoutStyle, place: str) -> None:
    """The tree is merged into a directory first, for an archive has hard links and is sorted over all layers."""
    merged = os.path.join(place, "merged")
    os.mkdir(merged, 0o755)
    write_tree(merged, tree, Attributes(None, None, True))
    fd = os.open(merged, _ENTER)
    try:
        if output.destination == "-":
            pack(fd, sys.stdout.buffer.write, style=style)
            sys.stdout.buffer.flush()
            return
        with open(output.destination, "wb") as file:
            pack(fd, file.write, style=style)
    finally:
        os.close(fd)
        remove_path(merged)
