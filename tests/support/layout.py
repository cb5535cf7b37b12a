"""OCI image layouts written without any tool, and pushed to a registry by plain HTTP.

Layers are made of tarfile's headers, which is fine for what we write ourselves.
"""

import hashlib
import json
import os
import platform
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import zstandard

from tests.support.registry import Registry

Descriptor = dict[str, Any]
Entry = tuple[tarfile.TarInfo, bytes]

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
OCI_MANIFEST, OCI_INDEX, OCI_CONFIG = OCI + "manifest.v1+json", OCI + "index.v1+json", OCI + "config.v1+json"
DOCKER_MANIFEST = DOCKER + "distribution.manifest.v2+json"
DOCKER_CONFIG = DOCKER + "container.image.v1+json"
DOCKER_LAYER = DOCKER + "image.rootfs.diff.tar.gzip"

NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MTIME = 1_700_000_000


def entry(path: str, kind: bytes, mode: int, data: bytes = b"", link: str = "", uid: int = 0, gid: int = 0) -> Entry:
    """One member of a layer."""
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.linkname, info.size = kind, mode, link, len(data)
    info.uid, info.gid, info.mtime = uid, gid, MTIME
    return info, data


def file(path: str, data: bytes = b"", mode: int = 0o644, uid: int = 0, gid: int = 0) -> Entry:
    return entry(path, tarfile.REGTYPE, mode, data, uid=uid, gid=gid)


def directory(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    return entry(path, tarfile.DIRTYPE, mode, uid=uid, gid=gid)


def symlink(path: str, target: str) -> Entry:
    return entry(path, tarfile.SYMTYPE, 0o777, link=target)


def hardlink(path: str, target: str, mode: int = 0o644) -> Entry:
    """*mode* is the file's: podman sets it again for each of its names."""
    return entry(path, tarfile.LNKTYPE, mode, link=target)


def whiteout(path: str) -> Entry:
    """Removes *path* of the layers below."""
    return file(os.path.join(os.path.dirname(path), ".wh." + os.path.basename(path)))


def opaque(path: str) -> Entry:
    """Hides everything that the layers below have in the directory *path*."""
    return file(os.path.join(path, ".wh..wh..opq"))


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Uncompressed:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


COMPRESSORS: dict[str, tuple[str, Callable[[], Compressor]]] = {
    "gzip": (OCI + "layer.v1.tar+gzip", lambda: zlib.compressobj(wbits=31)),
    "zstd": (OCI + "layer.v1.tar+zstd", lambda: zstandard.ZstdCompressor().compressobj()),
    "none": (OCI + "layer.v1.tar", Uncompressed),
}


class Layer(NamedTuple):
    """A layer in a layout: where its compressed bytes are, and the digest of the others."""

    descriptor: Descriptor
    diff_id: str


class LayerWriter:
    """A layer's tar goes in; a blob comes out. Hashes before and after compression."""

    def __init__(self, blobs: Path, compression: str, media_type: str = "") -> None:
        usual_type, compressor = COMPRESSORS[compression]
        self.media_type = media_type or usual_type
        self.compressor = compressor()
        self.blobs, self.aside = blobs, blobs / f"new-{os.getpid()}-{id(self)}"
        self.out = self.aside.open("wb")
        self.plain, self.packed = hashlib.sha256(), hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.plain.update(data)
        self.emit(self.compressor.compress(data))

    def emit(self, data: bytes) -> None:
        self.packed.update(data)
        self.out.write(data)

    def finish(self) -> Layer:
        self.emit(self.compressor.flush())
        size = self.out.tell()
        self.out.close()
        digest = self.packed.hexdigest()
        self.aside.rename(self.blobs / digest)
        descriptor = {"mediaType": self.media_type, "digest": f"sha256:{digest}", "size": size}
        return Layer(descriptor, f"sha256:{self.plain.hexdigest()}")


class Layout:
    """An OCI image layout on disk (image-spec, image-layout.md) that holds one image or index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = path / "blobs/sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    @property
    def top(self) -> Descriptor:
        """The descriptor of the image or index."""
        found: Descriptor = json.loads((self.path / "index.json").read_bytes())["manifests"][0]
        return found

    def set_top(self, descriptor: Descriptor) -> None:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]}
        (self.path / "index.json").write_text(json.dumps(index))

    def blob(self, descriptor: Descriptor) -> Path:
        return self.blobs / str(descriptor["digest"]).removeprefix("sha256:")

    def load(self, descriptor: Descriptor) -> dict[str, Any]:
        """The JSON document that *descriptor* points at."""
        document: dict[str, Any] = json.loads(self.blob(descriptor).read_bytes())
        return document

    def add_blob(self, data: bytes, media_type: str) -> Descriptor:
        digest = hashlib.sha256(data).hexdigest()
        (self.blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def add_json(self, document: Mapping[str, object], media_type: str) -> Descriptor:
        return self.add_blob(json.dumps(document).encode(), media_type)

    def add_layer(self, entries: Iterable[Entry], compression: str = "gzip", media_type: str = "") -> Layer:
        """Pack *entries*, in their order, with "gzip", "zstd" or "none"."""
        writer = LayerWriter(self.blobs, compression, media_type)
        for info, data in entries:
            writer.write(info.tobuf(tarfile.PAX_FORMAT))
            writer.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        writer.write(bytes(2 * tarfile.BLOCKSIZE))
        return writer.finish()

    def add_image(
        self,
        layers: Sequence[Layer],
        config: Mapping[str, object] | None = None,
        *,
        architecture: str = NATIVE,
        docker: bool = False,
    ) -> Descriptor:
        """A manifest of *layers*; *config* goes on top of a PATH and the command `sh`; *docker*: schema 2."""
        image = {
            "created": "2023-11-14T22:13:20Z",
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": [f"PATH={PATH}"], "Cmd": ["sh"], **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": "2023-11-14T22:13:20Z", "created_by": f"layer {i}"} for i in range(len(layers))],
        }
        media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": self.add_json(image, DOCKER_CONFIG if docker else OCI_CONFIG),
            "layers": [layer.descriptor for layer in layers],
        }
        platform_of = {"architecture": architecture, "os": "linux"}
        return self.add_json(manifest, media_type) | {"platform": platform_of}

    def add_index(self, manifests: Sequence[Descriptor]) -> Descriptor:
        return self.add_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}, OCI_INDEX)


def push(layout: Layout, registry: Registry, repository: str, tag: str = "latest") -> str:
    """Upload the image or index of *layout*; return the name by which it can be pulled."""
    push_manifest(layout, layout.top, registry, repository, tag)
    return f"{registry.host}/{repository}:{tag}"


def push_manifest(layout: Layout, descriptor: Descriptor, registry: Registry, repository: str, reference: str) -> None:
    """What the manifest or index points at first, as a registry demands; then itself under *reference*."""
    document = layout.load(descriptor)
    for manifest in document.get("manifests", ()):
        push_manifest(layout, manifest, registry, repository, manifest["digest"])
    for blob in (document["config"], *document["layers"]) if "config" in document else ():
        push_blob(layout, blob, registry, repository)
    url = f"{registry.url}/v2/{repository}/manifests/{reference}"
    headers = {"Content-Type": descriptor["mediaType"]}
    registry.open(urllib.request.Request(url, layout.blob(descriptor).read_bytes(), headers, method="PUT"))


def push_blob(layout: Layout, descriptor: Descriptor, registry: Registry, repository: str) -> None:
    """Upload one blob in a single request, with its digest known beforehand, unless the repository has it."""
    url = f"{registry.url}/v2/{repository}/blobs"
    try:
        registry.open(urllib.request.Request(f"{url}/{descriptor['digest']}", method="HEAD"))
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
    else:
        return
    place = registry.open(urllib.request.Request(f"{url}/uploads/", b"", method="POST"))["Location"]
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor["size"])}
    with layout.blob(descriptor).open("rb") as stream:
        target = f"{place}&digest={descriptor['digest']}"
        registry.open(urllib.request.Request(target, stream, headers, method="PUT"))
