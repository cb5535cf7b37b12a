"""Image manifests, indexes and configs: OCI image-spec 1.1 and Docker schema 2, as records.

These documents decide which bytes run, and all of them come from strangers. So a document that could be read as two
kinds of thing is refused (CVE-2021-41190), every digest goes through one grammar, every list has a limit, and embedded
`data` counts only if it is what the digest says. What is in a config (environment, labels, user …) stays inert text.
"""

from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from typing import Any, NamedTuple

from rootless.errors import CorruptData, NotFound
from rootless.spec import digest as digests
from rootless.spec.digest import DiffID, Digest, parse_digest
from rootless.spec.platform import Platform, acceptable, normalised
from rootless.spec.strict_json import parse_json

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)

# Sizes in bytes and counts beyond which a document is an attack. The sizes are those of containers/image.
MAX_MANIFEST_SIZE = 4 << 20
MAX_CONFIG_SIZE = 4 << 20
MAX_LAYERS = 1_000
MAX_INDEX_ENTRIES = 1_000
MAX_HISTORY = 10_000
MAX_LIST = 10_000  # of environment variables, labels, ports …

_MAX_INT64 = (1 << 63) - 1
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_LAYER_COMPRESSION = {
    OCI_LAYER: "",
    f"{OCI_LAYER}+gzip": "gzip",
    f"{OCI_LAYER}+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    DOCKER_LAYER: "",
    f"{DOCKER_LAYER}.gzip": "gzip",
    f"{DOCKER_LAYER}.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}


class Descriptor(NamedTuple):
    """Points at one blob: what it is, which bytes exactly, and how many of them."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = {}
    urls: tuple[str, ...] = ()


class Manifest(NamedTuple):
    """One image: its config and its layers, bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str
    annotations: Mapping[str, str] = {}
    artifact_type: str = ""
    subject: Descriptor | None = None

    @property
    def is_image(self) -> bool:
        """Whether this is something to run, rather than a chart, a signature or another artifact."""
        return self.config.media_type in CONFIG_TYPES


class Index(NamedTuple):
    """One image for several platforms: a manifest, or a further index, for each."""

    manifests: tuple[Descriptor, ...]
    media_type: str
    annotations: Mapping[str, str] = {}


class History(NamedTuple):
    """How a layer came to be, or, with *empty_layer*, a change to the config alone."""

    created: str | None
    created_by: str
    author: str
    comment: str
    empty_layer: bool


class Healthcheck(NamedTuple):
    """HEALTHCHECK. Durations are nanoseconds; zero, like an empty *test*, stands for the default."""

    test: tuple[str, ...]
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int


class RuntimeConfig(NamedTuple):
    """What the image asks for when a container is made from it; the command line has the last word."""

    user: str = ""
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    env: tuple[str, ...] = ()  # "NAME=value", every one of them
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = {}
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] | None = None
    args_escaped: bool = False
    on_build: tuple[str, ...] = ()


class ImageConfig(NamedTuple):
    """An image config: the document, byte for byte as its digest names it, and its fields."""

    raw: bytes
    document: dict[str, Any]
    platform: Platform
    created: str | None  # RFC 3339, as the image says it
    author: str
    diff_ids: tuple[DiffID, ...]
    history: tuple[History, ...]
    config: RuntimeConfig


def parse_manifest(data: bytes, content_type: str) -> Manifest | Index:
    """The manifest or index in *data*, which was announced as *content_type* (a header or a descriptor's media type).

    Raises CorruptData where the document is invalid, ambiguous, too large, or of a kind that is not supported.
    """
    document = _Fields(parse_json(data, limit=MAX_MANIFEST_SIZE, what="manifest"), "manifest")
    media_type = _media_type(document, content_type)
    if document.integer("schemaVersion") != 2:
        raise CorruptData("manifest: schemaVersion is not 2")
    if media_type in INDEX_TYPES:
        document.refuse("config", "layers", "fsLayers")
        return _index(document, media_type)
    document.refuse("manifests", "fsLayers")
    return _manifest(document, media_type)


def select_manifest(index: Index, platform: Platform) -> Descriptor:
    """The entry of *index* that runs best on *platform*: an image manifest or a further index.

    Raises NotFound, listing what there is.
    """
    entries = [entry for entry in index.manifests if is_image_entry(entry)]
    for candidate in acceptable(platform):
        for entry in entries:
            if entry.platform == candidate:
                return entry
    silent = [entry for entry in entries if entry.platform is None]
    if len(silent) == 1:
        return silent[0]
    there_is = ", ".join(sorted({ascii(str(entry.platform))[1:-1] for entry in entries if entry.platform}))
    raise NotFound(
        f"no matching manifest for {platform} in the manifest list entries",
        hint=f"the image is there for {there_is or 'no platform at all'}",
    )


def parse_image_config(data: bytes) -> ImageConfig:
    """The image config in *data*. Raises CorruptData where a field is not what the specification says."""
    document = _Fields(parse_json(data, limit=MAX_CONFIG_SIZE, what="image config"), "image config")
    rootfs = document.object("rootfs")
    if rootfs is None or rootfs.text("type") != "layers":
        raise CorruptData("image config: rootfs.type is not 'layers'")
    config = document.object("config")
    return ImageConfig(
        raw=data,
        document=document.members,
        platform=_platform(document, default_os="linux"),
        created=document.text("created") or None,
        author=document.text("author"),
        diff_ids=tuple(
            DiffID(parse_digest(text, "image config: diff_id")) for text in rootfs.texts("diff_ids", MAX_LAYERS) or ()
        ),
        history=tuple(_history(row) for row in document.objects("history", MAX_HISTORY)),
        config=_runtime_config(config) if config else RuntimeConfig(),
    )


def layers_with_diff_ids(manifest: Manifest, config: ImageConfig) -> tuple[tuple[Descriptor, DiffID], ...]:
    """Each layer's blob with what it must be once decompressed. Raises CorruptData where they do not pair up."""
    if len(manifest.layers) != len(config.diff_ids):
        raise CorruptData(f"the manifest has {len(manifest.layers)} layers, the image config {len(config.diff_ids)}")
    return tuple(zip(manifest.layers, config.diff_ids, strict=True))


def layer_compression(media_type: str) -> str:
    """How a layer of *media_type* is compressed: "gzip", "zstd" or "". Raises CorruptData for what is not a layer."""
    compression = _LAYER_COMPRESSION.get(media_type)
    if compression is None:
        raise CorruptData(f"unsupported layer media type {media_type[:128]!r}")
    return compression


class _Fields:
    """A JSON object whose members are read with their types checked. As in Go, null is the same as absent."""

    __slots__ = ("members", "what")

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, dict):
            raise CorruptData(f"{what} is not an object")
        self.members: dict[str, Any] = value
        self.what = what

    def refuse(self, *keys: str) -> None:
        """Raise CorruptData if any of *keys* is there: the document would be two kinds of thing."""
        for key in keys:
            if key in self.members:
                raise CorruptData(f"{self.what} is ambiguous: {key!r} has no place in one of this kind")

    def refuse_lookalikes(self, *keys: str) -> None:
        """Raise CorruptData for a member that differs from one of *keys* in case only: Go takes them for the same."""
        lowered = {key.lower(): key for key in keys}
        for member in self.members:
            if lowered.get(member.lower(), member) != member:
                raise CorruptData(f"{self.what} is ambiguous: {member[:64]!r} for {lowered[member.lower()]!r}")

    def text(self, key: str) -> str:
        value = self.members.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value or ""

    def integer(self, key: str) -> int:
        """A whole number from 0 to the largest int64; 0 if absent."""
        value = self.members.get(key)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_INT64:
            raise self._wrong(key, "a whole number that a size or duration can be")
        return value

    def boolean(self, key: str) -> bool:
        value = self.members.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return bool(value)

    def texts(self, key: str, limit: int = MAX_LIST) -> tuple[str, ...] | None:
        value = self._list(key, limit)
        if value is None:
            return None
        if not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of strings")
        return tuple(value)

    def object(self, key: str) -> "_Fields | None":
        value = self.members.get(key)
        return None if value is None else _Fields(value, f"{self.what}: {key}")

    def objects(self, key: str, limit: int) -> "list[_Fields]":
        return [_Fields(item, f"{self.what}: {key}[{i}]") for i, item in enumerate(self._list(key, limit) or ())]

    def text_map(self, key: str) -> dict[str, str]:
        members = self._map(key)
        if not all(value is None or isinstance(value, str) for value in members.values()):
            raise self._wrong(key, "a map of strings")
        return {name: value or "" for name, value in members.items()}

    def set_of_names(self, key: str) -> tuple[str, ...]:
        """The keys of what Go calls map[string]struct{}: an object of empty objects."""
        members = self._map(key)
        if not all(value is None or isinstance(value, dict) for value in members.values()):
            raise self._wrong(key, "a map of empty objects")
        return tuple(members)

    def _list(self, key: str, limit: int) -> list[Any] | None:
        value = self.members.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        if len(value) > limit:
            raise CorruptData(f"{self.what}: {key} has {len(value)} entries, more than {limit}")
        return value

    def _map(self, key: str) -> dict[str, Any]:
        value = self.members.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        if len(value) > MAX_LIST:
            raise CorruptData(f"{self.what}: {key} has {len(value)} entries, more than {MAX_LIST}")
        return value

    def _wrong(self, key: str, wanted: str) -> CorruptData:
        return CorruptData(f"{self.what}: {key} is not {wanted}")


def _media_type(document: _Fields, content_type: str) -> str:
    """What *document* is, by its own word and by that of who sent it; they must not differ."""
    announced = content_type.partition(";")[0].strip().lower()
    own = document.text("mediaType")
    if announced in ("", "application/json", "application/octet-stream", "text/plain"):
        announced = own  # a plain file server, which knows no better
    if announced.startswith(_SCHEMA_1) or document.integer("schemaVersion") == 1:
        raise CorruptData(
            "the image has a manifest of schema 1, which is not supported",
            hint="push the image again with a current tool",
        )
    if own and own != announced:
        raise CorruptData(f"manifest is ambiguous: it says {own[:128]!r} and was sent as {announced[:128]!r}")
    if announced not in MANIFEST_TYPES and announced not in INDEX_TYPES:
        raise CorruptData(f"unsupported manifest media type {announced[:128]!r}")
    document.refuse_lookalikes("schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers", "subject")
    return announced


def _manifest(document: _Fields, media_type: str) -> Manifest:
    config = document.object("config")
    if config is None or document.members.get("layers") is None:
        raise CorruptData("manifest: config or layers are missing")
    subject = document.object("subject")
    return Manifest(
        config=_descriptor(config),
        layers=tuple(_descriptor(layer) for layer in document.objects("layers", MAX_LAYERS)),
        media_type=media_type,
        annotations=document.text_map("annotations"),
        artifact_type=document.text("artifactType"),
        subject=_descriptor(subject) if subject else None,
    )


def _index(document: _Fields, media_type: str) -> Index:
    if document.members.get("manifests") is None:
        raise CorruptData("manifest: manifests are missing")
    subject = document.object("subject")
    if subject:
        _descriptor(subject)
    return Index(
        manifests=tuple(_descriptor(entry) for entry in document.objects("manifests", MAX_INDEX_ENTRIES)),
        media_type=media_type,
        annotations=document.text_map("annotations"),
    )


def _descriptor(fields: _Fields) -> Descriptor:
    fields.refuse_lookalikes("mediaType", "digest", "size", "platform", "urls", "data")
    if not fields.text("mediaType") or fields.members.get("size") is None:
        raise CorruptData(f"{fields.what}: mediaType or size is missing")
    platform = fields.object("platform")
    descriptor = Descriptor(
        media_type=fields.text("mediaType"),
        digest=parse_digest(fields.text("digest"), fields.what),
        size=fields.integer("size"),
        platform=_platform(platform) if platform else None,
        annotations=fields.text_map("annotations"),
        urls=fields.texts("urls") or (),
    )
    _check_data(fields, descriptor)
    return descriptor


def _check_data(fields: _Fields, descriptor: Descriptor) -> None:
    """Embedded `data` must be the very blob: some tools use it in place of what the registry serves."""
    text = fields.text("data")
    if fields.members.get("data") is None:
        return
    try:
        data = a2b_base64(text)
    except ValueError:
        raise CorruptData(f"{fields.what}: data is not base64") from None
    if b2a_base64(data, newline=False) != text.encode():  # a2b_base64 passes over what is not base64
        raise CorruptData(f"{fields.what}: data is not base64")
    if len(data) != descriptor.size or not digests.matches(data, descriptor.digest):
        raise CorruptData(f"{fields.what}: the embedded data is not what {descriptor.digest} names")


def _platform(fields: _Fields, default_os: str = "") -> Platform:
    return normalised(
        fields.text("os") or default_os,
        fields.text("architecture"),
        fields.text("variant"),
        fields.texts("os.features") or (),
    )


def is_image_entry(entry: Descriptor) -> bool:
    """Whether *entry* can be an image: attestations of BuildKit pose as images for the platform unknown/unknown."""
    return (
        entry.media_type in MANIFEST_TYPES + INDEX_TYPES
        and entry.annotations.get("vnd.docker.reference.type") != "attestation-manifest"
        and (entry.platform is None or entry.platform.os != "unknown")
    )


def _history(row: _Fields) -> History:
    return History(
        created=row.text("created") or None,
        created_by=row.text("created_by"),
        author=row.text("author"),
        comment=row.text("comment"),
        empty_layer=row.boolean("empty_layer"),
    )


def _runtime_config(fields: _Fields) -> RuntimeConfig:
    healthcheck = fields.object("Healthcheck")
    return RuntimeConfig(
        user=fields.text("User"),
        exposed_ports=fields.set_of_names("ExposedPorts"),
        env=tuple(entry for entry in fields.texts("Env") or () if _is_env_entry(entry)),
        entrypoint=fields.texts("Entrypoint"),
        cmd=fields.texts("Cmd"),
        volumes=fields.set_of_names("Volumes"),
        working_dir=fields.text("WorkingDir"),
        labels=fields.text_map("Labels"),
        stop_signal=fields.text("StopSignal"),
        healthcheck=_healthcheck(healthcheck) if healthcheck else None,
        shell=fields.texts("Shell"),
        args_escaped=fields.boolean("ArgsEscaped"),
        on_build=fields.texts("OnBuild") or (),
    )


def _is_env_entry(entry: str) -> bool:
    """Whether *entry* is NAME=value. On a command line `NAME` and `NA*` mean the caller's own variables; never here."""
    name, equals, _ = entry.partition("=")
    return bool(name and equals) and name.isprintable() and "*" not in name and "\0" not in entry


def _healthcheck(fields: _Fields) -> Healthcheck:
    return Healthcheck(
        test=fields.texts("Test") or (),
        interval=fields.integer("Interval"),
        timeout=fields.integer("Timeout"),
        start_period=fields.integer("StartPeriod"),
        start_interval=fields.integer("StartInterval"),
        retries=fields.integer("Retries"),
    )
