"""save: images into an archive."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rootless.cli import streams
from rootless.cli.command import Options, at_least, command, text
from rootless.cli.opening import engine_of
from rootless.engine.save import save as save_images
from rootless.errors import InvalidInput
from rootless.linux.files import write_all


class SaveOptions(Options):
    """The options of save."""

    format: str = text("--format", default="docker-archive", help='"docker-archive" (an OCI layout too), "oci-archive"')
    output: str = text("-o", "--output", help="Write to a file, instead of STDOUT")
    platform: str = text("--platform", help="Save only if the image is for this platform")


@command(
    "save",
    "IMAGE [IMAGE...]",
    SaveOptions,
    at_least(1),
    examples="""
        To another machine:
            $ {path} app:1 | zstd | ssh other rootless load
        Two images in one file:
            $ {path} -o images.tar app:1 debian:12
    """,
)
def save(options: SaveOptions) -> None:
    """Save one or more images to a tar archive (streamed to STDOUT by default)"""
    if not options.output and streams.is_tty(sys.stdout):
        raise InvalidInput("cowardly refusing to save to a terminal", hint="use the -o flag or redirect")
    engine = engine_of(options)
    with _output(options.output) as fd:
        save_images(
            engine,
            options.arguments,
            lambda data: _write(fd, data),
            platform=options.platform,
            form=options.format,
        )


def _write(fd: int, data: "bytes | memoryview") -> None:
    try:
        write_all(fd, data)
    except BrokenPipeError:
        raise streams.OutputClosed from None


@contextmanager
def _output(path: str) -> Iterator[int]:
    """Where the archive goes: a file gets its name when it is complete. Raises InvalidInput for where it cannot."""
    if not path:
        streams.flush()
        yield sys.stdout.fileno()
        return
    path = os.path.realpath(path)  # behind a symbolic link, /dev/stdout for one, it is the file that changes
    try:
        # By chance, for a pid comes again, and soon in containers.
        aside = "" if _is_special(path) else f"{path}.{os.urandom(4).hex()}.new"
        fd = os.open(aside or path, os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if aside else 0), 0o600)
    except OSError as error:
        raise InvalidInput(f"invalid output path: {path}: {error.strerror}") from error
    try:
        try:
            yield fd
        finally:
            os.close(fd)
        if aside:
            os.rename(aside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(aside)
        raise


def _is_special(path: str) -> bool:
    """Whether *path* is there, and no file that could be replaced: a pipe, /dev/null, a directory."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode)
