"""export and import: the files of a container as an archive, and an archive as an image."""

import os
import sys

from rootless.cli import streams
from rootless.cli.command import Arity, Options, command, exactly, text, texts
from rootless.cli.opening import engine_of
from rootless.cli.output import output_file
from rootless.engine.attach import write_all
from rootless.engine.export import export as export_container
from rootless.engine.image_import import ImportOptions, import_image, import_url
from rootless.errors import InvalidInput, RootlessError


class ExportOptions(Options):
    """The options of export."""

    output: str = text("-o", "--output", help="Write to a file, instead of STDOUT")


@command(
    "export",
    "CONTAINER",
    ExportOptions,
    exactly(1),
    examples="""
        What is in a container, without its volumes, and one file of it:
            $ {path} web | tar -x etc/nginx/nginx.conf
        As a single layer, without the history of its image:
            $ {path} web | rootless import - web:flat
    """,
)
def export(options: ExportOptions) -> None:
    """Export a container's filesystem as a tar archive"""
    engine = engine_of(options)
    container_id = engine.containers.find(options.arguments[0])
    if not options.output and streams.is_tty(sys.stdout):
        raise InvalidInput("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    with output_file(options.output) as fd:
        export_container(engine, container_id, lambda data: write_whole(fd, data))


def write_whole(fd: int, data: "bytes | memoryview") -> None:
    """Write an archive's bytes; a reader that goes away is an error, as what it has is cut. Raises RootlessError."""
    try:
        if not write_all(fd, bytes(data)):
            raise RootlessError("nobody reads the archive any more")
    except OSError as error:
        raise RootlessError(f"cannot write the archive: {error.strerror}") from error


class ImportCommandOptions(Options):
    """The options of import."""

    change: list[str] = texts("-c", "--change", help="Apply Dockerfile instruction to the created image")
    message: str = text("-m", "--message", help="Set commit message for imported image")
    platform: str = text("--platform", help="Set platform if the archive is for another one than this machine's")


@command(
    "import",
    "file|URL|- [REPOSITORY[:TAG]]",
    ImportCommandOptions,
    Arity(1, 2),
    examples="""
        A root file system that debootstrap has made:
            $ tar -C debian -c . | {path} -c 'CMD ["bash"]' - debian:own
        From a web server:
            $ {path} https://example.org/rootfs.tar.xz own:latest
    """,
)
def import_command(options: ImportCommandOptions) -> None:
    """Import the contents from a tarball to create a filesystem image"""
    source, name = (*options.arguments, "")[:2]
    chosen = ImportOptions(tuple(options.change), options.message, options.platform)
    engine = engine_of(options)
    if source == "-":
        image = import_image(engine, 0, name, chosen, origin="-")
    elif source.startswith(("http://", "https://")):
        image = import_url(engine, source, name, chosen)
    else:
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidInput(f"open {source}: {error.strerror}") from error
        image = import_image(engine, fd, name, chosen, origin=source)
    streams.write(f"{image.id}\n")
