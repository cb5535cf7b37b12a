"""manifest create, annotate, inspect, push, rm: one name for the images of several platforms.

A list is made here and pushed later, as with Docker. Its entries are images in a registry, whose manifests are fetched
when the list is made; and images that are here and in no registry, which are pushed along with it. A list lies in

    manifests/NAME.json     {"reference", "entries": [{"source", "media_type", "digest", "size", "platform",
                            "document": the manifest in base64, "image": the id of one that is here, or ""}]}

Pushing has the list's repository hold every image first: its blobs are taken over from the other repository, or are
fetched and sent where the registry does not do that.
"""

import os
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from rootless.engine.context import Engine
from rootless.engine.image_new import index_document
from rootless.engine.layer_making import Progress
from rootless.engine.push import Pushed, push_image
from rootless.engine.registries import registry_configuration
from rootless.errors import Conflict, CorruptData, InvalidInput, NotFound, Unauthorized
from rootless.registry.client import Client
from rootless.registry.credentials import default_credentials
from rootless.registry.push import Pusher
from rootless.spec.digest import Digest, parse_digest
from rootless.spec.image import (
    MAX_MANIFEST_SIZE,
    Descriptor,
    Index,
    Manifest,
    is_image_entry,
    parse_image_config,
    parse_manifest,
)
from rootless.spec.reference import Reference, parse_reference
from rootless.store.images import Image
from rootless.store.layout import load_record, quote, save_record
from rootless.store.partial_blob import PartialBlob

_PLATFORM_KEYS = ("architecture", "os", "os.version", "os.features", "variant")


class Entry(NamedTuple):
    """An image in a list."""

    source: Reference  # as it was named when the list was made
    blob: Descriptor  # its manifest
    platform: dict[str, Any]  # as in an index
    document: bytes
    image: str  # the id of an image that is here and has to be pushed along; else empty


class ManifestList(NamedTuple):
    """A list that is here."""

    reference: Reference
    entries: tuple[Entry, ...]

    def document(self) -> tuple[bytes, str]:
        """The index that it is, and its media type."""
        return index_document([(entry.blob, entry.platform, {}) for entry in self.entries])


def create(
    engine: Engine, name: str, sources: Sequence[str], *, amend: bool = False, insecure: bool = False
) -> ManifestList:
    """Make a list of *sources*, or add them to it with *amend*. Raises Conflict, NotFound, what a registry raises."""
    reference = _parse(name)
    known = find(engine, reference)
    if known and not amend:
        raise Conflict("refusing to amend an existing manifest list with no --amend flag")
    entries = {entry.blob.digest: entry for entry in (known.entries if known else ())}
    for source in map(_parse, sources):
        for entry in _fetch(engine, source, insecure):
            entries[entry.blob.digest] = entry
    made = ManifestList(reference, tuple(entries.values()))
    _save(engine, made)
    return made


def save_list(engine: Engine, reference: Reference, images: Sequence[Image]) -> None:
    """Let *reference* be the name of a list of *images*, which are here; the one that it named before is forgotten."""
    entries = tuple(_entry_of_image(engine, reference, image) for image in images)
    _save(engine, ManifestList(reference, entries))


def annotate(engine: Engine, name: str, source: str, changes: dict[str, Any]) -> None:
    """Say of an entry for which platform it is; *changes* by the keys of an index's platform. Raises NotFound."""
    found = _existing(engine, _parse(name))
    chosen = _entries_named(found, _parse(source))
    entries = [
        entry._replace(platform=_platform({**entry.platform, **changes})) if entry in chosen else entry
        for entry in found.entries
    ]
    _save(engine, found._replace(entries=tuple(entries)))


def find(engine: Engine, reference: Reference) -> ManifestList | None:
    """The list of that name, if there is one. Raises CorruptData."""
    return _load(_path(engine, reference))


def _load(path: str) -> ManifestList | None:
    try:
        record = load_record(path)
    except FileNotFoundError:
        return None
    try:
        return ManifestList(parse_reference(record["reference"]), tuple(map(_entry_of, record["entries"])))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptData(f"{path} is damaged", hint="remove that file, and make the list anew") from error


def images_in_lists(engine: Engine) -> set[str]:
    """The ids of the images that lists name and that are here alone. Raises CorruptData."""
    directory = engine.layout.path("manifests")
    names = os.listdir(directory) if os.path.isdir(directory) else []
    found = (_load(os.path.join(directory, name)) for name in names if name.endswith(".json"))
    return {entry.image for made in found if made for entry in made.entries if entry.image}


def inspect(engine: Engine, name: str, source: str = "", *, insecure: bool = False) -> list[Entry] | bytes:
    """The list *name* as an index; the entries that *source* is in it; or what a registry has of that name."""
    reference = _parse(name)
    if source:
        return list(_entries_named(_existing(engine, reference), _parse(source)))
    known = find(engine, reference)
    if known:
        return known.document()[0]
    with _client(reference, insecure) as client:
        return client.resolve(reference).data


def entries_of(engine: Engine, name: str, *, insecure: bool = False) -> list[Entry]:
    """Every image of the list *name*, here or in a registry."""
    reference = _parse(name)
    known = find(engine, reference)
    return list(known.entries if known else _fetch(engine, reference, insecure))


def remove(engine: Engine, name: str) -> None:
    """Forget a list. Raises NotFound."""
    reference = _parse(name)
    try:
        os.unlink(_path(engine, reference))
    except FileNotFoundError:
        raise NotFound(f"No such manifest: {reference.familiar}") from None


def push(
    engine: Engine, name: str, *, purge: bool = False, insecure: bool = False, progress: Progress | None = None
) -> tuple[Pushed, list[Pushed]]:
    """Push a list and what it needs: the list, and its images. Raises NotFound, what a registry raises."""
    found = _existing(engine, _parse(name))
    target = found.reference._replace(tag=None)
    entries: list[tuple[Descriptor, Mapping[str, Any], Mapping[str, str]]] = []
    images: list[Pushed] = []
    configuration = registry_configuration(found.reference.domain if insecure else "")
    with Pusher(configuration, default_credentials()) as pusher, Client(configuration, default_credentials()) as client:
        for entry in found.entries:
            pushed = _push_entry(engine, client, pusher, target, entry, progress)
            images.append(pushed)
            blob = Descriptor(pushed.media_type, pushed.digest, pushed.size)
            entries.append((blob, entry.platform, {}))
        data, media_type = index_document(entries)
        digest = pusher.push_manifest(found.reference, data, media_type)
    if purge:
        remove(engine, name)
    return Pushed(found.reference, digest, len(data), media_type), images


# -- what is in a registry


def _fetch(engine: Engine, source: Reference, insecure: bool) -> Iterator[Entry]:
    """The images that *source* names in its registry, or, where it has none, the one that it names here."""
    try:
        with _client(source, insecure) as client:
            yield from _fetch_entries(client, source)
    except (NotFound, Unauthorized):
        image = engine.images.by_reference(source)
        if image is None:
            raise
        yield _entry_of_image(engine, source, image)


def _entry_of_image(engine: Engine, source: Reference, image: Image) -> Entry:
    document = engine.blobs.read(Digest(image.manifest["digest"]), MAX_MANIFEST_SIZE)
    blob = Descriptor(image.manifest["media_type"], Digest(image.manifest["digest"]), len(document))
    return Entry(source, blob, _platform(engine.images.config(image).document), document, image.id)


def _fetch_entries(client: Client, source: Reference) -> list[Entry]:
    fetched = client.resolve(source)
    parsed = parse_manifest(fetched.data, fetched.media_type)
    if isinstance(parsed, Index):
        inner = (source._replace(tag=None, digest=entry.digest) for entry in parsed.manifests if is_image_entry(entry))
        return [entry for one in inner for entry in _fetch_one(client, one)]
    return _fetch_one(client, source._replace(digest=fetched.digest), source)


def _fetch_one(client: Client, source: Reference, named: Reference | None = None) -> list[Entry]:
    fetched = client.resolve(source)
    manifest = parse_manifest(fetched.data, fetched.media_type)
    if not isinstance(manifest, Manifest):
        raise InvalidInput(f"{source.familiar} is an index in an index")
    config = parse_image_config(client.fetch_config(source, manifest.config))
    blob = Descriptor(manifest.media_type, fetched.digest, len(fetched.data))
    return [Entry(named or source, blob, _platform(config.document), fetched.data, "")]


def _push_entry(
    engine: Engine, client: Client, pusher: Pusher, target: Reference, entry: Entry, progress: Progress | None
) -> Pushed:
    """Have the repository of *target* hold the image."""
    if entry.image:
        image = engine.images.load(Digest(entry.image))
        return push_image(engine, pusher, target, image, progress=progress)
    named = target._replace(digest=entry.blob.digest)
    if entry.source.domain != target.domain:
        raise InvalidInput(
            "cannot use source images from a different registry than the target image: "
            f"{entry.source.domain} != {target.domain}",
            hint="pull the image and push it to that registry first",
        )
    if entry.source.path != target.path:
        manifest = parse_manifest(entry.document, entry.blob.media_type)
        if not isinstance(manifest, Manifest):
            raise CorruptData(f"{entry.source.familiar} is no image's manifest")
        for blob in (manifest.config, *manifest.layers):
            _copy_blob(engine, client, pusher, entry.source, target, blob)
        pusher.push_manifest(target, entry.document, entry.blob.media_type)
    return Pushed(named, entry.blob.digest, entry.blob.size, entry.blob.media_type)


def _copy_blob(
    engine: Engine, client: Client, pusher: Pusher, source: Reference, target: Reference, blob: Descriptor
) -> None:
    if pusher.find_blob(target, blob, [source.path]):
        return
    with ExitStack() as held:
        partial, whole = engine.layout.aside(), engine.layout.aside()
        sink = PartialBlob(partial, whole, blob)
        held.callback(sink.close)
        held.callback(_remove, partial, whole)
        client.fetch_blob(source, blob, sink)
        sink.commit()
        fd = os.open(whole, os.O_RDONLY | os.O_CLOEXEC)
        held.callback(os.close, fd)
        pusher.push_blob(target, blob, lambda offset, count: os.pread(fd, count, offset))


def _remove(*paths: str) -> None:
    for path in paths:
        if os.path.exists(path):
            os.unlink(path)


def _client(reference: Reference, insecure: bool) -> Client:
    return Client(registry_configuration(reference.domain if insecure else ""), default_credentials())


# -- records


def _parse(name: str) -> Reference:
    return parse_reference(name).with_default_tag()


def _existing(engine: Engine, reference: Reference) -> ManifestList:
    found = find(engine, reference)
    if found is None:
        raise NotFound(f"No such manifest: {reference.familiar}", hint="make it with `rootless manifest create`")
    return found


def _entries_named(found: ManifestList, source: Reference) -> tuple[Entry, ...]:
    """The entries that came of *source*, or the one that its digest names."""
    chosen = tuple(
        entry
        for entry in found.entries
        if entry.source == source or (source.digest and entry.blob.digest == source.digest)
    )
    if not chosen:
        raise NotFound(f"manifest for image {source.familiar} does not exist in {found.reference.familiar}")
    return chosen


def _platform(document: dict[str, Any]) -> dict[str, Any]:
    """What an index says of a platform, out of an image's config or of another index."""
    return {key: document[key] for key in _PLATFORM_KEYS if document.get(key)}


def _path(engine: Engine, reference: Reference) -> str:
    return engine.layout.path("manifests", f"{quote(str(reference))}.json")


def _save(engine: Engine, made: ManifestList) -> None:
    entries = [
        {
            "source": str(entry.source),
            "media_type": entry.blob.media_type,
            "digest": entry.blob.digest,
            "size": entry.blob.size,
            "platform": entry.platform,
            "document": b64encode(entry.document).decode(),
            "image": entry.image,
        }
        for entry in made.entries
    ]
    os.makedirs(engine.layout.path("manifests"), mode=0o700, exist_ok=True)
    save_record(_path(engine, made.reference), {"reference": str(made.reference), "entries": entries})


def _entry_of(record: dict[str, Any]) -> Entry:
    blob = Descriptor(record["media_type"], parse_digest(record["digest"]), record["size"])
    source = parse_reference(record["source"])
    return Entry(source, blob, record["platform"], b64decode(record["document"]), record["image"])
