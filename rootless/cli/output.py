"""Where an archive goes that a command writes: a file that is there only if it is whole, or standard output."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rootless.cli import streams
from rootless.errors import InvalidInput, RootlessError
from rootless.linux.files import replacing

_MODE = 0o600  # as Docker has it: an image or a container may hold what is not for others


@contextmanager
def output_file(path: str) -> Iterator[int]:
    """An fd to write to: of the file *path*, or of standard output where that is empty.

    Raises InvalidInput for a path that cannot be written, RootlessError for what goes wrong later.
    """
    if not path:
        streams.flush(sys.stdout)
        yield sys.stdout.fileno()
        return
    target = os.path.realpath(path)  # behind a link, /dev/stdout for one, it is the file that changes
    if os.path.isdir(target) or not os.path.isdir(os.path.dirname(target)):
        what = "is a directory" if os.path.isdir(target) else "its directory does not exist"
        raise InvalidInput(f"invalid output path: {path}: {what}")
    try:
        if os.path.exists(target) and not os.path.isfile(target):
            with open(target, "wb", buffering=0) as device:  # a pipe or /dev/null, which is not replaced
                yield device.fileno()
        else:
            with replacing(target, _MODE) as file:
                yield file.fileno()
    except OSError as error:
        raise RootlessError(f"cannot write {path}: {error.strerror}") from error
