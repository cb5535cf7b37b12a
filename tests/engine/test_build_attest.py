"""build --provenance and --sbom: what is said of an image beside it, in a registry, an archive, a directory."""

import base64
import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_build_platforms import Builder, remote
from tests.engine.test_build_platforms import builder as builder  # the fixture
from tests.support.layout import NATIVE
from tests.support.registry import Registry

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

PROVENANCE = "https://slsa.dev/provenance/v0.2"
TEXT = "FROM BASE\nARG SECRET\nCOPY f /f\n"


def statement_of(read: Callable[[str], Any], index: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The statement that the index has; and the digest of the image's manifest. *read* gives a JSON blob."""
    image, attestation = index["manifests"]
    assert image["platform"]["architecture"] == NATIVE
    assert attestation["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert attestation["annotations"] == {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    manifest = read(attestation["digest"])
    [layer] = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.in-toto+json"
    assert layer["annotations"] == {"in-toto.io/predicate-type": PROVENANCE}
    assert read(manifest["config"]["digest"])["rootfs"]["diff_ids"] == [layer["digest"]]
    return read(layer["digest"]), image["digest"]


def test_provenance_goes_with_what_is_pushed(builder: Builder, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/built/provenance:1"
    options = ("--build-arg", "SECRET=hush", "-t", name, "--push")
    builder(TEXT, *options, "--provenance")
    storage = registry.directory / "storage/docker/registry/v2/blobs/sha256"

    def read(digest: str) -> Any:
        hexadecimal = digest.partition(":")[2]
        return json.loads((storage / hexadecimal[:2] / hexadecimal / "data").read_bytes())

    statement, digest = statement_of(read, remote(name, "--raw"))
    [subject] = statement["subject"]
    assert subject["name"] == f"pkg:docker/{registry.host}/built/provenance@1?platform=linux%2F{NATIVE}"
    assert f"sha256:{subject['digest']['sha256']}" == digest
    [base] = statement["predicate"]["materials"]
    assert base["uri"].startswith(f"pkg:docker/{builder.base.rpartition(':')[0]}@latest?")
    assert len(base["digest"]["sha256"]) == 64
    assert "hush" not in json.dumps(statement)
    builder(TEXT, *options, "--attest", "type=provenance,mode=max")
    full, _ = statement_of(read, remote(name, "--raw"))
    assert full["predicate"]["invocation"]["parameters"]["args"] == {"build-arg:SECRET": "hush"}
    [source] = [v for k, v in full["predicate"]["metadata"].items() if k.endswith("#source")]
    assert base64.b64decode(source["data"]).decode() == TEXT.replace("BASE", builder.base)
    builder.box("rmi", name)
    builder.box("pull", "-q", name)
    assert builder.box("run", "--rm", name, "cat", "/f").stdout == "f"
    builder(TEXT, *options, "--provenance=false")
    assert "manifests" not in remote(name, "--raw")


def test_provenance_in_archives_and_directories(builder: Builder, tmp_path: Path) -> None:
    archive, out = tmp_path / "oci.tar", tmp_path / "out"
    builder("FROM scratch\nCOPY f /f\n", "--provenance", "-o", f"type=oci,dest={archive}", "-o", str(out))
    said = json.loads((out / "provenance.json").read_text())
    assert said["subject"] == [{"name": "f", "digest": {"sha256": hashlib.sha256(b"f").hexdigest()}}]
    with tarfile.open(archive) as files:

        def read(digest: str) -> Any:
            return json.loads(files.extractfile(f"blobs/{digest.replace(':', '/')}").read())  # type: ignore[union-attr]

        [entry] = json.loads(files.extractfile("index.json").read())["manifests"]  # type: ignore[union-attr]
        statement, digest = statement_of(read, read(entry["digest"]))
    assert statement["subject"][0]["digest"]["sha256"] == digest.partition(":")[2]


def test_what_cannot_be_attested_is_said(builder: Builder) -> None:
    said = builder(TEXT, "--provenance", "-t", "here").stderr
    assert "the image here has no attestations" in said
    for option, expected in (
        ("--provenance=mode=most", "mode=most: it should be min or max"),
        ("--attest=type=magic", "its type should be provenance or sbom"),
        ("--provenance=level=9", "unexpected key 'level'"),
    ):
        failed = builder(TEXT, option, check=False)
        assert failed.returncode == 1
        assert expected in failed.stderr


SCANNER = """FROM BASE
RUN <<END
cat > /scan <<'X'
#!/bin/sh
test -e /sys/class/net/eth0 && exit 1
touch "$BUILDKIT_SCAN_SOURCE/x" 2>/dev/null && exit 1
printf '{"predicateType":"https://spdx.dev/Document","predicate":{"has":"%s"}}' "$(cat "$BUILDKIT_SCAN_SOURCE/f")" \\
    > "$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json"
X
chmod 755 /scan
END
ENTRYPOINT ["/scan"]
"""


def test_a_scanner_says_what_is_in_the_result(builder: Builder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    builder(SCANNER, "-t", "scanner")
    options = ("--sbom=generator=scanner", "-o", str(out))
    said = builder("FROM scratch\nCOPY f /f\n", *options).stderr
    assert "generating sbom using scanner" in said
    document = json.loads((out / "sbom.spdx.json").read_text())
    assert document["predicateType"] == "https://spdx.dev/Document"
    assert document["predicate"] == {"has": "f"}
    assert [subject["name"] for subject in document["subject"]] == ["f"]
    builder("FROM BASE\nCMD true\n", "-t", "says-nothing")
    failed = builder("FROM scratch\nCOPY f /f\n", "--sbom=generator=says-nothing", "-o", str(out), check=False)
    assert "the scanner has written 0 statements" in failed.stderr
