"""save: images into an archive."""

import sys

from rootless.cli import streams
from rootless.cli.command import Options, at_least, command, text
from rootless.cli.opening import engine_of
from rootless.cli.output import output_file
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
    with output_file(options.output) as fd:
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
