"""build: its options, and what they ask of the engine."""

import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rootless.cli import streams
from rootless.cli.build_progress import MODES, make_progress
from rootless.cli.build_values import (
    Annotation,
    annotations_of,
    merge_attestations,
    merge_build_args,
    parse_annotation,
    parse_build_arg,
    parse_build_context,
    parse_cache,
    parse_carried,
    parse_output,
    parse_secret,
    parse_ssh,
    shorthand_of,
)
from rootless.cli.command import at_most, command, flag, text, texts, value, values
from rootless.cli.limit_options import StepLimitOptions, limits_of
from rootless.cli.opening import engine_of
from rootless.cli.run import parse_ulimit
from rootless.cli.terminal_text import for_stream
from rootless.cli.values import merge_pairs, one_of, parse_add_host, parse_label, parse_memory
from rootless.engine.build import build as build_image
from rootless.engine.build import check_dockerfile, excerpt
from rootless.engine.build_check import Checked
from rootless.engine.build_export import Built
from rootless.engine.build_options import BuildOptions, CacheEntry, Output, Secret, Ssh
from rootless.engine.build_progress import StepFailed
from rootless.engine.build_proxies import with_proxies
from rootless.errors import HostUnsupported, InvalidInput
from rootless.linux import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from rootless.cli.progress import Progress
    from rootless.dockerfile.warning import Warning

_LATER = ("isolation", "security_opt", "call")


class BuildCommandOptions(StepLimitOptions):
    """The options of build: docker/cli's and buildx's."""

    add_host: list[tuple[str, str]] = values(
        "--add-host", parse=parse_add_host, help='Add a custom host-to-IP mapping ("host:ip")'
    )
    allow: list[str] = values(
        "--allow",
        parse=one_of("network.host", "security.insecure"),
        help='Allow a Dockerfile to ask for more ("network.host", "security.insecure")',
    )
    annotation: list[Annotation] = values(
        "--annotation", parse=parse_annotation, help='Add annotation to the image ("[manifest|index:]KEY=VALUE")'
    )
    attest: list[str] = texts("--attest", help='Attestation parameters (format: "type=sbom,generator=image")')
    break_: bool = flag("--break", help="Open a shell where a step has failed, before the build ends")
    build_arg: list[tuple[str, str | None]] = values(
        "--build-arg", parse=parse_build_arg, help="Set build-time variables"
    )
    build_context: list[tuple[str, str]] = values(
        "--build-context", parse=parse_build_context, help="Additional build contexts (e.g., name=path)"
    )
    builder: str = text("--builder", help="Accepted for scripts: there is one builder", hidden=True)
    cache_from: list[CacheEntry] = values(
        "--cache-from",
        parse=parse_cache,
        help='External cache sources ("type=registry,ref=…", "type=local,src=…")',
    )
    cache_to: list[CacheEntry] = values(
        "--cache-to",
        parse=parse_cache,
        help='Cache export destinations ("type=registry,ref=…", "type=inline", …)',
    )
    cache_mount_from: CacheEntry | None = value(
        "--cache-mount-from",
        parse=parse_carried,
        default=None,
        metavar="place",
        help='Fill the caches of RUN --mount=type=cache from a directory, "type=tar,src=FILE" or "type=registry,ref=…"',
    )
    cache_mount_to: CacheEntry | None = value(
        "--cache-mount-to",
        parse=parse_carried,
        default=None,
        metavar="place",
        help='Write the caches of RUN --mount=type=cache to a directory, "type=tar,dest=FILE" or "type=registry,ref=…"',
    )
    call: str = text("--call", help='Set method for evaluating build ("check")', metavar="string")
    cgroup_parent: str = text("--cgroup-parent", help="Set the parent cgroup for the RUN instructions")
    check: bool = flag("--check", help="Look for mistakes in the Dockerfile, and build nothing")
    compress: bool = flag("--compress", help="Accepted for scripts", hidden=True)
    disable_content_trust: bool = flag("--disable-content-trust", help="Accepted for scripts", hidden=True)
    file: str = text("-f", "--file", help='Name of the Dockerfile (default: "PATH/Dockerfile")')
    force_rm: bool = flag("--force-rm", help="Accepted for scripts: a failed step leaves nothing", hidden=True)
    iidfile: str = text("--iidfile", metavar="file", help="Write the image ID to a file")
    isolation: str = text("--isolation", help="Container isolation technology", hidden=True)
    label: list[tuple[str, str]] = values("--label", parse=parse_label, help="Set metadata for an image")
    load: bool = flag("--load", help='Shorthand for "--output=type=docker"')
    metadata_file: str = text("--metadata-file", metavar="file", help="Write build result metadata to a file")
    network: str = text("--network", help='Networking of RUN instructions ("default", "none", "host", a network)')
    no_cache: bool = flag("--no-cache", help="Do not use cache when building the image")
    no_cache_filter: list[str] = texts("--no-cache-filter", help="Do not cache specified stages")
    output: list[Output] = values(
        "-o", "--output", parse=parse_output, help='Output destination (format: "type=local,dest=path")'
    )
    platform: list[str] = texts("--platform", help="Set target platform for build")
    progress: str = value(
        "--progress",
        parse=one_of(*MODES),
        default="auto",
        metavar="string",
        help='Set type of progress output ("auto", "plain", "tty", "quiet", "rawjson")',
    )
    provenance: str = text("--provenance", help='Shorthand for "--attest=type=provenance"', implied="true")
    pull: bool = flag("--pull", help="Always attempt to pull all referenced images")
    push: bool = flag("--push", help='Shorthand for "--output=type=registry"')
    quiet: bool = flag("-q", "--quiet", help="Suppress the build output and print image ID on success")
    rm: bool = flag("--rm", default=True, help="Accepted for scripts: containers of steps never stay", hidden=True)
    sbom: str = text("--sbom", help='Shorthand for "--attest=type=sbom"', implied="true")
    secret: list[Secret] = values(
        "--secret", parse=parse_secret, help='Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")'
    )
    security_opt: list[str] = texts("--security-opt", help="Security options", hidden=True)
    shm_size: int = value(
        "--shm-size", parse=parse_memory, default=64 << 20, metavar="bytes", help="Shared memory size for containers"
    )
    squash: bool = flag("--squash", help="Squash newly built layers into a single new layer")
    ssh: list[Ssh] = values(
        "--ssh",
        parse=parse_ssh,
        help='SSH agent or keys to expose to the build ("default|<id>[=<socket>|<key>[,<key>]]")',
    )
    tag: list[str] = texts("-t", "--tag", help='Image identifier (format: "[registry/]repository[:tag]")')
    target: str = text("--target", help="Set the target build stage to build")
    ulimit: list[tuple[str, int, int]] = values("--ulimit", parse=parse_ulimit, help="Ulimit options")
    why: bool = flag("--why", help="Say of each step why it was, or was not, taken from the cache")


@command(
    "build",
    "[PATH | URL | -]",
    BuildCommandOptions,
    at_most(1),
    examples="""
        From the Dockerfile in this directory:
            $ {path} -t app .
        One stage of it, with a variable, and why each step was done again:
            $ {path} --target test --build-arg VERSION=1.2 --why .
        Without an image: what the last stage holds, in a directory
            $ {path} -o out .
        A secret that no layer keeps, for RUN --mount=type=secret,id=token:
            $ {path} --secret id=token,src=token.txt .
    """,
)
def build(options: BuildCommandOptions) -> int | None:
    """Build an image from a Dockerfile"""
    _refuse_what_is_not_there(options)
    asked = build_options(options)
    if asked.check:
        return _show_check(check_dockerfile(engine_of(options), asked))
    quiet = options.quiet
    mode = options.progress if options.changed("progress") else os.environ.get("BUILDKIT_PROGRESS") or "auto"
    if options.break_ and mode == "auto":
        mode = "plain"  # the terminal is the shell's then
    try:
        with make_progress(mode if mode in MODES else "auto", quiet=quiet, why=options.why) as progress:
            built = build_image(engine_of(options), asked, progress)
    except StepFailed as error:
        _show_failure(error)
        raise
    _tell(options, built)
    return None


def _tell(options: BuildCommandOptions, built: Built) -> None:
    """The image's id, where it is asked for."""
    if built.warnings and not options.quiet:
        _warn(built.warnings)
    if built.image is None:
        return
    if options.iidfile:
        _write_file(options.iidfile, built.image.id)
    if options.metadata_file:
        _write_file(options.metadata_file, _metadata(built))
    if options.quiet:
        streams.write(f"{built.image.id}\n")


def _warn(warnings: "Sequence[Warning]") -> None:
    """What is dubious in the Dockerfile, in short."""
    count = f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}"
    lines = [f" - {warning.rule}: {warning.message} (line {warning.line})" for warning in warnings]
    text = "\n".join([f"\n {count} found (--check tells more):", *lines])
    streams.write_error(for_stream(text, sys.stderr, lines=True) + "\n")


def _show_check(checked: Checked) -> int:
    """The warnings with their lines, as --check prints them; the exit status."""
    if not checked.warnings:
        streams.write("Check complete, no warnings found.\n")
        return 0
    count = f"{len(checked.warnings)} warning{'s' if len(checked.warnings) > 1 else ''}"
    parts = [f"Check complete, {count} {'have' if len(checked.warnings) > 1 else 'has'} been found!"]
    for warning in checked.warnings:
        lines = excerpt(checked.lines, checked.name, warning.line, warning.line)
        parts.append(f"WARNING: {warning.rule}\n{warning.message}\n{lines}")
    streams.write("\n\n".join(parts) + "\n")
    return 1


def _metadata(built: Built) -> str:
    import json  # for who asks

    image = built.image
    document = {
        "containerimage.config.digest": image.id if image else "",
        "containerimage.digest": built.digest or (image.manifest["digest"] if image else ""),
        "image.name": ",".join(built.names),
    }
    return json.dumps(document, indent=2)


def _write_file(path: str, content: str) -> None:
    try:
        files.replace_file(os.path.abspath(path), content.encode(), 0o644, durable=False)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error


def _show_failure(error: StepFailed) -> None:
    """The last lines of the step's output, and the Dockerfile's lines."""
    parts = []
    if error.report:
        indented = "\n".join(f" > {line}" for line in error.report.splitlines())
        parts.append(f"------\n{indented}\n------")
    if error.where:
        parts.append(error.where)
    for part in parts:
        streams.write_error(for_stream(part, sys.stderr, lines=True) + "\n")


def build_options(options: BuildCommandOptions) -> BuildOptions:
    """What the command line asks for."""
    build_args = merge_build_args(options.build_arg)
    if "SOURCE_DATE_EPOCH" in os.environ:
        build_args.setdefault("SOURCE_DATE_EPOCH", os.environ["SOURCE_DATE_EPOCH"])
    return BuildOptions(
        context=options.arguments[0] if options.arguments else ".",
        dockerfile=options.file,
        tags=tuple(options.tag),
        build_args=with_proxies(build_args),
        contexts=dict(options.build_context),
        target=options.target,
        platforms=_platforms(options.platform),
        pull=options.pull,
        no_cache=options.no_cache,
        no_cache_filter=tuple(stage for text in options.no_cache_filter for stage in text.split(",")),
        labels=merge_pairs(options.label),
        annotations=annotations_of(options.annotation, "manifest"),
        index_annotations=annotations_of(options.annotation, "index"),
        network="" if options.network == "default" else options.network,
        extra_hosts=tuple((host, address) for host, address in options.add_host),
        shm_size=options.shm_size,
        ulimits=tuple(options.ulimit),
        limits=limits_of(options),
        cgroup_parent=options.cgroup_parent,
        secrets=tuple(options.secret),
        ssh=tuple(options.ssh),
        outputs=_outputs(options),
        attestations=_attestations(options),
        squash=options.squash,
        cache_from=tuple(options.cache_from),
        cache_to=tuple(options.cache_to),
        cache_mount_from=options.cache_mount_from,
        cache_mount_to=options.cache_mount_to,
        allow=tuple(options.allow),
        check=options.check or options.call == "check",
        debug_shell=options.break_,
        epoch=_epoch(build_args.get("SOURCE_DATE_EPOCH", "")),
        pull_progress=lambda: _pull_progress(options.quiet),
    )


def _outputs(options: BuildCommandOptions) -> tuple[Output, ...]:
    """--output; --push has the images among them pushed, or is an output of its own."""
    outputs = tuple(options.output)
    if not options.push:
        return outputs
    if not any(output.type in ("image", "registry") for output in outputs):
        return (*outputs, Output("registry"))
    pushed = {"push": "true"}
    return tuple(o._replace(attributes={**o.attributes, **pushed}) if o.type == "image" else o for o in outputs)


def _attestations(options: BuildCommandOptions) -> dict[str, dict[str, str]]:
    """--attest, and its shorthands."""
    found = merge_attestations(options.attest)
    for kind in ("provenance", "sbom"):
        if options.changed(kind):
            found |= merge_attestations([f"type={kind},{shorthand_of(getattr(options, kind))}"])
    return {kind: keys for kind, keys in found.items() if keys.get("disabled") != "true"}


def _platforms(given: "Sequence[str]") -> tuple[str, ...]:
    """--platform, several times or with commas."""
    texts = given or [os.environ.get("DOCKER_DEFAULT_PLATFORM", "")]
    return tuple(word.strip() for text in texts for word in text.split(",") if word.strip())


def _epoch(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidInput(f"invalid SOURCE_DATE_EPOCH: {text!r}: it should be seconds since 1970")
    return int(text)


def _pull_progress(quiet: bool) -> "AbstractContextManager[Progress | None]":
    if quiet:
        return nullcontext()
    from rootless.cli.progress import Progress  # most builds find their images

    return Progress(sys.stderr, quiet=quiet)


def _refuse_what_is_not_there(options: BuildCommandOptions) -> None:
    """Nothing that is asked for is dropped silently."""
    for name in _LATER:
        if options.changed(name) and not (name == "call" and options.call in ("build", "check")):
            raise HostUnsupported(f"--{name.replace('_', '-')} is not there yet", hint="leave it out")
