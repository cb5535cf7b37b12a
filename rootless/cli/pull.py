"""pull: the one command about images that speaks with a registry, in a module of its own for what that imports."""

import os

from rootless.cli import streams
from rootless.cli.command import Options, command, exactly, flag, text
from rootless.cli.opening import engine_of
from rootless.cli.progress import Progress
from rootless.engine import host_image
from rootless.engine.pull import pull as pull_image
from rootless.errors import Conflict, HostUnsupported, InvalidInput
from rootless.spec.reference import parse_reference


class PullOptions(Options):
    """The options of pull."""

    all_tags: bool = flag("-a", "--all-tags", help="Download all tagged images in the repository")
    trust: bool = flag("--disable-content-trust", default=True, help="Accepted for scripts", hidden=True)
    platform: str = text("--platform", help="Set platform if the image is for more than one")
    quiet: bool = flag("-q", "--quiet", help="Suppress verbose output")


@command(
    "pull",
    "NAME[:TAG|@DIGEST]",
    PullOptions,
    exactly(1),
    examples="""
        From Docker Hub, and from a registry of one's own:
            $ {path} debian:12
            $ {path} registry.example.org:5000/team/app
    """,
)
def pull(options: PullOptions) -> None:
    """Download an image from a registry"""
    name = options.arguments[0]
    if name == host_image.NAME:
        raise Conflict("the image 'host' is built in: there is nothing to pull", hint="for Docker Hub's: host:latest")
    reference = parse_reference(name)
    if options.all_tags:
        if reference.tag or reference.digest:
            raise InvalidInput("tag can't be used with --all-tags/-a")
        raise HostUnsupported("--all-tags is not there: registries are asked for one tag at a time")
    if not (reference.tag or reference.digest or options.quiet):
        streams.write("Using default tag: latest\n")
    reference = reference.with_default_tag()
    platform = options.platform or os.environ.get("DOCKER_DEFAULT_PLATFORM", "")
    with Progress(quiet=options.quiet) as progress:
        pulled = pull_image(engine_of(options), reference, platform=platform, progress=progress)
    if not options.quiet:
        what = "Downloaded newer image" if pulled.is_new else "Image is up to date"
        streams.write(f"Digest: {pulled.digest}\nStatus: {what} for {reference.familiar}\n")
    streams.write(f"{reference}\n")
