"""manifest: one name for the images of several platforms."""

import json
from typing import Any

from rootless.cli import streams
from rootless.cli.command import Arity, Options, at_least, command, exactly, flag, text, texts
from rootless.cli.opening import engine_of, for_each
from rootless.cli.progress import Progress
from rootless.engine import manifest
from rootless.engine.manifest import Entry


class _RegistryOptions(Options):
    """What every command here has that asks a registry."""

    insecure: bool = flag("--insecure", help="Allow communication with an insecure registry")


class CreateOptions(_RegistryOptions):
    """The options of manifest create."""

    amend: bool = flag("-a", "--amend", help="Amend an existing manifest list")


@command(
    "create",
    "MANIFEST_LIST MANIFEST [MANIFEST...]",
    CreateOptions,
    at_least(2),
    examples="""
        Two images that were pushed, or are here, under one name:
            $ {path} example.org/app:1 example.org/app:1-amd64 example.org/app:1-arm64
            $ rootless manifest push example.org/app:1
    """,
)
def create(options: CreateOptions) -> None:
    """Create a local manifest list for annotating and pushing to a registry"""
    name, *sources = options.arguments
    made = manifest.create(engine_of(options), name, sources, amend=options.amend, insecure=options.insecure)
    streams.write(f"Created manifest list {made.reference}\n")


class AnnotateOptions(Options):
    """The options of manifest annotate."""

    arch: str = text("--arch", help="Set architecture")
    os: str = text("--os", help="Set operating system")
    os_features: list[str] = texts("--os-features", help="Set operating system feature")
    os_version: str = text("--os-version", help="Set operating system version")
    variant: str = text("--variant", help="Set architecture variant")


@command("annotate", "MANIFEST_LIST MANIFEST", AnnotateOptions, exactly(2))
def annotate(options: AnnotateOptions) -> None:
    """Add additional information to a local image manifest"""
    given: dict[str, Any] = {
        "architecture": options.arch,
        "os": options.os,
        "os.features": [word for words in options.os_features for word in words.split(",")],
        "os.version": options.os_version,
        "variant": options.variant,
    }
    name, source = options.arguments
    manifest.annotate(engine_of(options), name, source, {key: value for key, value in given.items() if value})


class InspectOptions(_RegistryOptions):
    """The options of manifest inspect."""

    verbose: bool = flag("-v", "--verbose", help="Output additional info including layers and platform")


@command("inspect", "[MANIFEST_LIST] MANIFEST", InspectOptions, Arity(1, 2))
def inspect(options: InspectOptions) -> None:
    """Display an image manifest, or manifest list"""
    engine = engine_of(options)
    if options.verbose and len(options.arguments) == 1:
        entries = manifest.entries_of(engine, options.arguments[0], insecure=options.insecure)
        _show([_verbose(entry) for entry in entries] if len(entries) > 1 else _verbose(entries[0]))
        return
    found = manifest.inspect(engine, *options.arguments, insecure=options.insecure)
    if isinstance(found, bytes):
        _show(json.loads(found))
        return
    for entry in found:
        _show(_verbose(entry) if options.verbose else json.loads(entry.document))


def _verbose(entry: Entry) -> dict[str, Any]:
    descriptor = {
        "mediaType": entry.blob.media_type,
        "digest": entry.blob.digest,
        "size": entry.blob.size,
        "platform": entry.platform,
    }
    kind = "OCIManifest" if ".oci." in entry.blob.media_type else "SchemaV2Manifest"
    return {"Ref": str(entry.source), "Descriptor": descriptor, kind: json.loads(entry.document)}


def _show(document: object) -> None:
    streams.write(json.dumps(document, indent=3, ensure_ascii=False) + "\n")


class PushOptions(_RegistryOptions):
    """The options of manifest push."""

    purge: bool = flag("-p", "--purge", help="Remove the local manifest list after push")


@command("push", "MANIFEST_LIST", PushOptions, exactly(1))
def push(options: PushOptions) -> None:
    """Push a manifest list to a repository"""
    with Progress() as progress:
        pushed, images = manifest.push(
            engine_of(options),
            options.arguments[0],
            purge=options.purge,
            insecure=options.insecure,
            progress=progress,
        )
    for image in images:
        streams.write(f"Pushed ref {image.reference.name}@{image.digest} with digest: {image.digest}\n")
    streams.write(f"{pushed.digest}\n")


@command("rm", "MANIFEST_LIST [MANIFEST_LIST...]", Options, at_least(1))
def rm(options: Options) -> int:
    """Delete one or more manifest lists from local storage"""
    engine = engine_of(options)
    return for_each(options.arguments, lambda name: manifest.remove(engine, name))
