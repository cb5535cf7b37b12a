"""Where the result of a build goes besides the store: a directory, an archive of its files.

Both are the tree that a container of the result would see. It is written by descriptor, below a directory that is made
or merged into: a link that is there already, or that comes with the result, is never followed (B16).
"""

import errno
import os
import sys
from collections.abc import Callable

from rootless.engine.build_options import Output
from rootless.engine.build_tree import Directory
from rootless.engine.build_write import Attributes, Writer
from rootless.errors import HostUnsupported, InvalidInput
from rootless.store.layout import remove_path
from rootless.store.marks import WhiteoutStyle
from rootless.store.pack import pack

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
TO_STORE = ("image", "docker")


def check(outputs: tuple[Output, ...]) -> None:
    """Raise HostUnsupported for what is not there, before anything is built."""
    for output in outputs:
        if output.type in ("oci", "registry") or (output.type == "docker" and output.destination):
            raise HostUnsupported(
                f"--output type={output.type} is not there", hint="build the image, then: rootless save, rootless push"
            )
    if sum(output.destination == "-" for output in outputs) > 1:
        raise InvalidInput("only one output can be written to stdout")


def goes_to_store(outputs: tuple[Output, ...]) -> bool:
    """Whether the result is an image here."""
    return not outputs or any(output.type in TO_STORE for output in outputs)


def write(output: Output, tree: Directory, style: WhiteoutStyle, aside: Callable[[], str]) -> None:
    """Write the files of *tree*. Raises InvalidInput for a destination that cannot be written to."""
    try:
        if output.type == "local":
            os.makedirs(output.destination, exist_ok=True)
            _write_tree(output.destination, tree, Attributes((0, 0)))
        else:
            _write_tar(output, tree, style, aside())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InvalidInput(f"cannot write {output.destination}: {error.strerror}") from error


def _write_tree(directory: str, tree: Directory, look: Attributes) -> None:
    fd = os.open(directory, _ENTER)
    try:
        writer = Writer(fd, Directory([], None), WhiteoutStyle.OVERLAY)
        with writer.root() as here:
            writer.copy_entries(tree, here, look)
    finally:
        os.close(fd)


def _write_tar(output: Output, tree: Directory, style: WhiteoutStyle, place: str) -> None:
    """The tree is merged into a directory first, for an archive has hard links and is sorted over all layers."""
    merged = os.path.join(place, "merged")
    os.mkdir(merged, 0o755)
    _write_tree(merged, tree, Attributes(None, None, True))
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
