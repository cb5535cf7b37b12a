"""push: an image into a registry."""

import os

from rootless.cli import streams
from rootless.cli.command import Options, command, exactly, flag, text
from rootless.cli.opening import engine_of
from rootless.cli.progress import Progress
from rootless.engine import host_image
from rootless.engine.push import Pushed, tags_of
from rootless.engine.push import push as push_image
from rootless.errors import Conflict, InvalidInput
from rootless.spec.reference import parse_reference


class PushOptions(Options):
    """The options of push."""

    all_tags: bool = flag("-a", "--all-tags", help="Push all tags of an image to the repository")
    compression: str = text(
        "--compression", default="gzip", help='How layers made here are compressed ("gzip", "zstd")'
    )
    trust: bool = flag("--disable-content-trust", default=True, help="Accepted for scripts", hidden=True)
    platform: str = text("--platform", help="Push only if the image is for this platform")
    quiet: bool = flag("-q", "--quiet", help="Suppress verbose output")


@command(
    "push",
    "NAME[:TAG]",
    PushOptions,
    exactly(1),
    examples="""
        To a registry of one's own, under the name of the registry:
            $ rootless tag app registry.example.org:5000/team/app
            $ {path} registry.example.org:5000/team/app
        To Docker Hub, after `rootless login`:
            $ {path} alice/app:1.2
    """,
)
def push(options: PushOptions) -> None:
    """Upload an image to a registry"""
    name = options.arguments[0]
    if name == host_image.NAME:
        raise Conflict("the image 'host' is built in: it has no layers to push")
    reference = parse_reference(name)
    if options.all_tags and (reference.tag or reference.digest):
        raise InvalidInput("tag can't be used with --all-tags/-a")
    engine = engine_of(options)
    wanted = tags_of(engine, reference) if options.all_tags else [reference.with_default_tag()]
    if not (reference.tag or reference.digest or options.quiet or options.all_tags):
        streams.write("Using default tag: latest\n")
    platform = options.platform or os.environ.get("DOCKER_DEFAULT_PLATFORM", "")
    for one in wanted:
        with Progress(quiet=options.quiet) as progress:
            pushed = push_image(engine, one, platform=platform, compression=options.compression, progress=progress)
        _tell(pushed, options.quiet)


def _tell(pushed: Pushed, quiet: bool) -> None:
    if quiet:
        streams.write(f"{pushed.reference}\n")
    else:
        streams.write(f"{pushed.reference.tag}: digest: {pushed.digest} size: {pushed.size}\n")
    streams.flush()
