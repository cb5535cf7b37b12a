"""load: images from an archive."""

import sys
from contextlib import ExitStack
from io import FileIO

from rootless.cli import streams
from rootless.cli.command import NO_ARGUMENTS, Options, command, flag, text
from rootless.cli.opening import engine_of
from rootless.cli.progress import Progress
from rootless.engine.load import Loaded
from rootless.engine.load import load as load_images
from rootless.errors import InvalidInput


class LoadOptions(Options):
    """The options of load."""

    input: str = text("-i", "--input", help="Read from tar archive file, instead of STDIN")
    platform: str = text("--platform", help="Load only the given platform, where the archive has several")
    quiet: bool = flag("-q", "--quiet", help="Suppress the load output")


@command(
    "load",
    "",
    LoadOptions,
    NO_ARGUMENTS,
    examples="""
        What save has written, compressed or not (gzip, zstd, xz, bzip2):
            $ {path} -i images.tar.zst
        From another machine:
            $ ssh other rootless save app:1 | {path}
    """,
)
def load(options: LoadOptions) -> None:
    """Load an image from a tar archive or STDIN"""
    if not options.input and streams.is_tty(sys.stdin):
        raise InvalidInput("requested load from stdin, but stdin is empty", hint="say -i FILE, or pipe an archive in")
    with ExitStack() as stack:
        # Without a buffer: what has come is taken at once, and not only when there is more.
        try:
            where = options.input or sys.stdin.fileno()
            source = stack.enter_context(open(where, "rb", buffering=0, closefd=bool(options.input)))
        except OSError as error:
            raise InvalidInput(f"open {options.input}: {error.strerror}") from error
        loaded = _load(options, source)
    streams.write("".join(_told(one) for one in loaded))


def _load(options: LoadOptions, source: FileIO) -> list[Loaded]:
    # On a terminal alone: what a script reads is the names.
    shown = streams.is_tty(sys.stdout) and not options.quiet
    with Progress(quiet=not shown) as progress:
        return list(load_images(engine_of(options), source, platform=options.platform, progress=progress))


def _told(loaded: Loaded) -> str:
    lines = [
        f"The image {tag.familiar} already exists, renaming the old one with ID {old} to empty string\n"
        for tag, old in loaded.replaced
    ]
    lines += [f"Loaded image: {tag.familiar}\n" for tag in loaded.tags]
    return "".join(lines) if loaded.tags else f"Loaded image ID: {loaded.image.id}\n"
