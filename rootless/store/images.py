"""Images by id (the digest of the config, as in Docker), and the names that lead to them."""

import builtins
import os
from typing import Any, NamedTuple

from rootless.errors import Conflict, CorruptData, NotFound
from rootless.spec.digest import ChainID, Digest
from rootless.spec.image import MAX_CONFIG_SIZE, ImageConfig, parse_image_config
from rootless.spec.reference import Reference, parse_reference
from rootless.store.blobs import Blobs
from rootless.store.layout import Layout, load_record, quote, save_record


class Image(NamedTuple):
    """An image that is complete: its config, its manifest as the registry has it, and its unpacked layers."""

    id: Digest
    manifest: dict[str, Any]  # media_type, digest, size
    blobs: tuple[Digest, ...]  # of the layers, as downloaded, bottom first
    layers: tuple[ChainID, ...]  # bottom first
    size: int  # bytes of all layers' files
    created: str
    repo_digests: tuple[str, ...]  # "docker.io/library/alpine@sha256:…"
    added_at: float  # seconds of the epoch


class Images:
    """The images of a store."""

    __slots__ = ("_blobs", "_layout")

    def __init__(self, layout: Layout, blobs: Blobs) -> None:
        self._layout = layout
        self._blobs = blobs

    def _path(self, image_id: str) -> str:
        return self._layout.path("images", f"{image_id.partition(':')[2]}.json")

    def _tag_path(self, reference: Reference) -> str:
        return self._layout.path("tags", f"{quote(str(reference))}.json")

    def save(self, image: Image) -> None:
        """Record an image, whose blobs and layers are all there."""
        save_record(self._path(image.id), image._asdict())

    def load(self, image_id: Digest) -> Image:
        """Raises NotFound, and CorruptData for a damaged record."""
        path = self._path(image_id)
        try:
            record = load_record(path)
        except FileNotFoundError:
            raise NotFound(f"No such image: {image_id}") from None
        except (OSError, CorruptData) as error:
            raise _damaged(path, image_id) from error
        try:
            for name in ("blobs", "layers", "repo_digests"):
                record[name] = tuple(record[name])
            return Image(**record)
        except (KeyError, TypeError) as error:
            raise _damaged(path, image_id) from error

    def find_id(self, image_id: Digest) -> Image | None:
        """The image of exactly that id, if it is here."""
        try:
            return self.load(image_id)
        except NotFound:
            return None

    def list(self) -> list[Image]:
        """All images, the newest first; those whose records are damaged are in `damaged`."""
        found = []
        for image_id in self._ids():
            try:
                found.append(self.load(image_id))
            except (NotFound, CorruptData):
                continue
        return sorted(found, key=lambda image: image.created, reverse=True)

    def damaged(self) -> "builtins.list[Digest]":
        """The ids of images whose records cannot be read."""
        found = []
        for image_id in self._ids():
            try:
                self.load(image_id)
            except CorruptData:
                found.append(image_id)
            except NotFound:
                continue  # removed meanwhile
        return found

    def _ids(self) -> "builtins.list[Digest]":
        names = os.listdir(self._layout.path("images"))
        return [Digest(f"sha256:{name[:-5]}") for name in names if name.endswith(".json")]

    def config(self, image: Image) -> ImageConfig:
        """The image's config. Raises CorruptData where the store was damaged."""
        return parse_image_config(self._blobs.read(image.id, MAX_CONFIG_SIZE))

    def tag(self, reference: Reference, image_id: Digest) -> None:
        """Let *reference* (with a tag) mean the image from now on."""
        save_record(self._tag_path(reference), {"reference": str(reference), "id": image_id})

    def untag(self, reference: Reference) -> bool:
        """Forget a name. Whether it was there."""
        try:
            os.unlink(self._tag_path(reference))
        except FileNotFoundError:
            return False
        return True

    def tags(self) -> dict[str, Digest]:
        """All names ("docker.io/library/alpine:latest") and the ids that they mean."""
        found = {}
        directory = self._layout.path("tags")
        for name in os.listdir(directory):
            if name.endswith(".json"):
                try:
                    record = load_record(os.path.join(directory, name))
                except FileNotFoundError:
                    continue
                found[record["reference"]] = record["id"]
        return found

    def by_reference(self, reference: Reference) -> Image | None:
        """The image that a name with a tag or digest means here."""
        if reference.digest:
            wanted = f"{reference.name}@{reference.digest}"
            for image in self.list():
                if wanted in image.repo_digests:
                    return image
            return None
        try:
            record = load_record(self._tag_path(reference))
            return self.load(record["id"])
        except (FileNotFoundError, NotFound):
            return None

    def find(self, text: str) -> Image | None:
        """What people call an image: a name, an id, or the beginning of an id. Raises InvalidInput, Conflict."""
        wanted = text.removeprefix("sha256:")
        is_hex = bool(wanted) and all(c in "0123456789abcdef" for c in wanted) and len(wanted) <= 64
        if not (is_hex and (len(wanted) == 64 or wanted != text)):
            image = self.by_reference(parse_reference(text).with_default_tag())
            if image or not is_hex:
                return image
        matches = [
            n[:-5] for n in os.listdir(self._layout.path("images")) if n.startswith(wanted) and n.endswith(".json")
        ]
        if len(matches) > 1:
            raise Conflict(f"image id {text} is ambiguous: {len(matches)} images begin with it")
        return self.load(Digest(f"sha256:{matches[0]}")) if matches else None

    def remove(self, image_id: Digest) -> None:
        """Remove the record; blobs and layers are the caller's to think of."""
        try:
            os.unlink(self._path(image_id))
        except FileNotFoundError:
            pass


def _damaged(path: str, image_id: str) -> CorruptData:
    return CorruptData(
        f"{path} is damaged", hint=f"remove it, and pull the image again: rootless rmi -f {image_id[7:19]}"
    )
