"""cp: between containers and this machine."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rootless.cli import streams
from rootless.cli.archive import write_whole
from rootless.cli.command import Options, command, exactly, flag
from rootless.cli.opening import engine_of
from rootless.cli.terminal_text import visible
from rootless.cli.values import human_size
from rootless.engine.cp import CopyOptions, Progress
from rootless.engine.cp import copy as copy_files
from rootless.engine.cp_paths import STREAM, Place, parse_place
from rootless.errors import InvalidInput

_INTERVAL = 0.1  # seconds between two drawings
_SHOWN_LEFT_OUT = 3


class CopyCommandOptions(Options):
    """The options of cp."""

    archive: bool = flag("-a", "--archive", help="Archive mode (copy all uid/gid information)")
    follow_link: bool = flag("-L", "--follow-link", help="Always follow symbol link in SRC_PATH")
    quiet: bool = flag("-q", "--quiet", help="Suppress progress output during copy")


@command(
    "cp",
    "CONTAINER:SRC_PATH DEST_PATH|-  |  SRC_PATH|- CONTAINER:DEST_PATH",
    CopyCommandOptions,
    exactly(2),
    examples="""
        A file out of a container, running or not:
            $ {path} web:/etc/nginx/nginx.conf .
        What is in a directory, into one of a container, or of a volume that is mounted there:
            $ {path} site/. web:/usr/share/nginx/html
        As an archive, and out of one:
            $ {path} web:/var/log - | tar -t
            $ tar -c site | {path} - web:/srv
    """,
)
def cp(options: CopyCommandOptions) -> None:
    """Copy files/folders between a container and the local filesystem"""
    source, target = (Place("", text) if text == STREAM else parse_place(text) for text in options.arguments)
    to_stream = target == Place("", STREAM)
    if to_stream and streams.is_tty(sys.stdout):
        raise InvalidInput("cowardly refusing to write an archive to a terminal", hint="redirect it, or pipe it to tar")
    streams.flush(sys.stdout)
    header = f"Copying {'from' if source.container else 'to'} container - "
    with _shown(header, options.quiet or to_stream) as progress:
        done = copy_files(
            engine_of(options),
            source,
            target,
            CopyOptions(options.archive, options.follow_link),
            lambda data: write_whole(1, data),
            progress,
        )
    for path in done.left_out[:_SHOWN_LEFT_OUT]:
        streams.write_error(f"rootless: warning: {os.fsdecode(path)}: devices are not copied\n")
    if done.squashed:
        streams.write_error(
            f"rootless: warning: {done.squashed} files have owners that are not mapped; they are root's\n"
        )
    if not (options.quiet or to_stream):
        streams.write_error(f"Successfully copied {human_size(done.size)} to {done.target}\n")


@contextmanager
def _shown(header: str, quiet: bool) -> Iterator[Progress]:
    """What is told of bytes, and shows their sum on a terminal, in one line that is gone in the end."""
    if quiet or not streams.is_tty(sys.stderr):
        yield lambda count: None
        return
    total, drawn = 0, 0.0

    def advance(count: int) -> None:
        nonlocal total, drawn
        total += count
        if (now := time.monotonic()) - drawn >= _INTERVAL:
            drawn = now
            streams.write_raw(sys.stderr, f"\r{visible(header + human_size(total))}\x1b[K")
            streams.flush(sys.stderr)

    try:
        yield advance
    finally:
        if drawn:
            streams.write_raw(sys.stderr, "\r\x1b[K")
