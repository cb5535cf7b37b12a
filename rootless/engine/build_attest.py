"""Attestations: what is said of an image beside it, laid out as BuildKit does.

    index ─▶ the image's manifest
          └▶ an attestation manifest, of platform unknown/unknown, whose annotations say of which manifest it speaks
               config: an empty one          layers: a statement of in-toto for each thing that is attested, as JSON

A statement has a subject, the digest of the manifest under its names, and a predicate: of provenance, that is SLSA's
(slsa.dev/spec/v0.2/provenance): what the build was made from, and how it was asked for. It is what this program saw,
and signed by nobody.

In a directory or an archive of files, the statements are files at the root, and their subjects are the files.
"""

import hashlib
import json
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from rootless.dockerfile.variables import PREDEFINED_ARGS
from rootless.engine.build_additions import Fetched
from rootless.engine.build_base import Base
from rootless.engine.build_options import BuildOptions
from rootless.engine.build_plan import ImageOf
from rootless.engine.build_tree import Directory
from rootless.engine.image_new import Attached, IndexRow
from rootless.engine.names import random_id
from rootless.errors import InvalidInput
from rootless.spec.digest import digest_of
from rootless.spec.image import OCI_CONFIG, OCI_MANIFEST, Descriptor
from rootless.spec.platform import Platform, host_platform
from rootless.spec.reference import Reference, parse_reference

PROVENANCE = "https://slsa.dev/provenance/v0.2"
IN_TOTO = "application/vnd.in-toto+json"
SCANNER = "docker.io/docker/buildkit-syft-scanner:stable-1"  # for --sbom, as in BuildKit; see build_sbom.py
_STATEMENT = "https://in-toto.io/Statement/v0.1"
_BUILD_TYPE = "urn:rootless:build:dockerfile:v1"
_MODES = ("min", "max")
_KEYS = ("mode", "builder-id", "filename", "reproducible", "inline-only", "version", "disabled")
_PIECE = 1 << 20
_UNKNOWN = {"architecture": "unknown", "os": "unknown"}

Statement = tuple[str, dict[str, Any]]  # predicateType, predicate


class Sources(NamedTuple):
    """What a build was made of."""

    dockerfile: bytes
    name: str  # of the Dockerfile
    commit: str  # of a context that is a repository
    images: Mapping[ImageOf, Base]
    fetched: Sequence[Fetched]
    began: float  # seconds of the epoch


def check(attestations: Mapping[str, Mapping[str, str]]) -> None:
    """Raise InvalidInput for attestations that cannot be."""
    for key in attestations.get("sbom", {}):
        if key not in ("generator", "filename", "disabled"):
            raise InvalidInput(f"sbom: unexpected key {key!r}", hint="keys: generator, filename")
    for key, value in attestations.get("provenance", {}).items():
        if key not in _KEYS:
            raise InvalidInput(f"provenance: unexpected key {key!r}", hint=f"keys: {', '.join(_KEYS)}")
        if key == "mode" and value not in _MODES:
            raise InvalidInput(f"provenance: mode={value}: it should be {' or '.join(_MODES)}")
        if key == "version" and value != "v0.2":
            raise InvalidInput(f"provenance: version={value}: it is written as v0.2 of SLSA's, and no other")


# Provenance


def provenance(options: BuildOptions, sources: Sources) -> Statement:
    """What SLSA's predicate says of a build."""
    asked = options.attestations["provenance"]
    is_full = asked.get("mode") == "max"
    metadata: dict[str, Any] = {
        "buildInvocationID": random_id(),
        "buildStartedOn": _moment(sources.began),
        "buildFinishedOn": _moment(time.time()),
        "completeness": {"parameters": is_full, "environment": True, "materials": not _has_local_context(options)},
        "reproducible": asked.get("reproducible") == "true",
    }
    if is_full:
        content = b64encode(sources.dockerfile).decode()
        metadata[f"{_BUILD_TYPE}#source"] = {"filename": sources.name, "data": content}
    predicate = {
        "builder": {"id": asked.get("builder-id", "")},
        "buildType": _BUILD_TYPE,
        "materials": list(_materials(sources)),
        "invocation": {
            "configSource": _config_source(options, sources),
            "parameters": _parameters(options, is_full),
            "environment": {"platform": str(host_platform())},
        },
        "metadata": metadata,
    }
    return PROVENANCE, predicate


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _has_local_context(options: BuildOptions) -> bool:
    return "://" not in options.context and not options.context.startswith("git@")


def _config_source(options: BuildOptions, sources: Sources) -> dict[str, Any]:
    found: dict[str, Any] = {"entryPoint": sources.name}
    if not _has_local_context(options):
        found["uri"] = options.context
    if sources.commit:
        found["digest"] = {"sha1": sources.commit}
    return found


def _parameters(options: BuildOptions, is_full: bool) -> dict[str, Any]:
    """How the build was asked for. Values of build arguments, which may be anything, are told with mode=max alone."""
    arguments: dict[str, str] = {}
    if options.target:
        arguments["target"] = options.target
    if is_full:
        given = {name: value for name, value in options.build_args.items() if name not in PREDEFINED_ARGS}
        arguments |= {f"build-arg:{name}": value for name, value in given.items()}
        arguments |= {f"label:{name}": value for name, value in options.labels.items()}
        arguments |= {f"context:{name}": place for name, place in options.contexts.items()}
    found: dict[str, Any] = {"frontend": "dockerfile.v0", "args": arguments}
    if _has_local_context(options):
        found["locals"] = [{"name": "context"}, {"name": "dockerfile"}]
    if is_full:
        found["secrets"] = [{"id": secret.id, "optional": True} for secret in options.secrets]
        found["ssh"] = [{"id": agent.id, "optional": True} for agent in options.ssh]
    return found


def _materials(sources: Sources) -> Iterator[dict[str, Any]]:
    for wanted, base in sources.images.items():
        if wanted.is_layout:
            manifest = base.image.manifest["digest"]
            yield {"uri": f"oci-layout://{wanted.name}", "digest": dict([manifest.split(":", 1)])}
            continue
        named = [parse_reference(text) for text in base.image.repo_digests]
        digest = next((str(reference.digest) for reference in named), "")
        row: dict[str, Any] = {"uri": _purl(parse_reference(wanted.name).with_default_tag(), base.config.platform)}
        yield {**row, "digest": dict([digest.split(":", 1)])} if digest else row
    for fetched in sources.fetched:
        yield {"uri": fetched.uri, "digest": {fetched.algorithm: fetched.digest}}


def _purl(reference: Reference, platform: Platform) -> str:
    """A package URL: pkg:docker/NAME@TAG?platform=…"""
    version = f"@{quote(reference.tag)}" if reference.tag else ""
    qualifiers = f"digest={quote(str(reference.digest))}&" if reference.digest else ""
    name = quote(reference.familiar_name, safe="/:")
    return f"pkg:docker/{name}{version}?{qualifiers}platform={quote(str(platform), safe='')}"


# Beside images


def attach(rows: Sequence[IndexRow], statements: Sequence[Sequence[Statement]], names: Sequence[Reference]) -> Attached:
    """What an index of the images *rows* has besides: what is said of each, as *statements* have it."""
    found = Attached([], [], [])
    for (image, platform, _), said in zip(rows, statements, strict=True):
        shown = Platform(platform["os"], platform["architecture"], platform.get("variant", ""))
        subjects = [_purl(name, shown) for name in names] or ["_"]
        _attach(image, [statement(one, dict.fromkeys(subjects, image.digest)) for one in said], said, found)
    return found


def _attach(image: Descriptor, documents: Sequence[bytes], said: Sequence[Statement], found: Attached) -> None:
    layers = []
    for document, (predicate_type, _) in zip(documents, said, strict=True):
        blob = Descriptor(IN_TOTO, digest_of(document), len(document))
        found.blobs.append((blob, document))
        layers.append({**_described(blob), "annotations": {"in-toto.io/predicate-type": predicate_type}})
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    config = _json({**_UNKNOWN, "config": {}, "rootfs": rootfs})
    config_blob = Descriptor(OCI_CONFIG, digest_of(config), len(config))
    found.blobs.append((config_blob, config))
    described = _described(config_blob)
    data = _json({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": layers})
    manifest = Descriptor(OCI_MANIFEST, digest_of(data), len(data))
    found.manifests.append((manifest, data))
    noted = {"vnd.docker.reference.digest": image.digest, "vnd.docker.reference.type": "attestation-manifest"}
    found.rows.append((manifest, _UNKNOWN, noted))


def _described(blob: Descriptor) -> dict[str, Any]:
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}


def statement(said: Statement, subjects: Mapping[str, str]) -> bytes:
    """A statement about *subjects*: names, and "sha256:…"."""
    rows = [{"name": name, "digest": dict([digest.split(":", 1)])} for name, digest in subjects.items()]
    predicate_type, predicate = said
    return _json({"_type": _STATEMENT, "predicateType": predicate_type, "subject": rows, "predicate": predicate})


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


# Beside files


def files_of(statements: Sequence[Statement], options: BuildOptions, tree: Directory) -> dict[str, bytes]:
    """The files that say of *tree* what *statements* say, by their names."""
    if not statements:
        return {}
    subjects = dict(_digests(tree, ""))
    found: dict[str, bytes] = {}
    for said in statements:
        kind = "provenance" if said[0] == PROVENANCE else "sbom"
        name = options.attestations[kind].get("filename", f"{kind}.json" if kind == "provenance" else "sbom.spdx.json")
        if "/" in name or name in ("", ".", ".."):
            raise InvalidInput(f"{kind}: filename={name} is no file's name")
        found[name] = statement(said, subjects)
    return found


def _digests(directory: Directory, path: str) -> Iterator[tuple[str, str]]:
    for entry in directory.entries():
        if entry.is_directory:
            with directory.enter(entry.name) as below:
                yield from _digests(below, f"{path}{entry.name}/")
        elif entry.is_regular:
            total = hashlib.sha256()
            with open(entry.open_file(), "rb") as file:
                while piece := file.read(_PIECE):
                    total.update(piece)
            yield f"{path}{entry.name}", f"sha256:{total.hexdigest()}"
