import json
from typing import Any

import pytest

from rootless.errors import CorruptData, NotFound
from rootless.registry.client import Client
from rootless.registry.resolve import Resolved, resolve_image
from rootless.spec.digest import digest_of
from rootless.spec.image import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from rootless.spec.platform import parse_platform
from rootless.spec.reference import parse_reference
from tests.support.fault_registry import Fault, FaultRegistry, descriptor, platform_words


def resolve(client: Client, registry: FaultRegistry, platform: str = "linux/amd64", tag: str = "1") -> Resolved:
    return resolve_image(client, parse_reference(f"{registry.host}/lib/app:{tag}"), parse_platform(platform))


def add_document(registry: FaultRegistry, tag: str, document: Any, media_type: str = OCI_INDEX) -> bytes:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    registry.add_manifest("lib/app", tag, data, media_type)
    return data


def test_a_manifest_is_what_it_is(faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:1", [b"layer"])
    resolved = resolve(client, faults)
    assert resolved.digest == resolved.manifest_digest == image.digest
    assert [document.data for document in resolved.documents] == [image.manifest]
    assert resolved.manifest.layers[0].digest == image.layer_digests[0]


@pytest.mark.parametrize("docker", [False, True])
def test_an_index_leads_to_the_platform_s_manifest(docker: bool, faults: FaultRegistry, client: Client) -> None:
    images = {
        platform: faults.add_image(f"lib/app:{number}", docker=docker, architecture=platform.split("/")[1])
        for number, platform in enumerate(("linux/amd64", "linux/arm64"))
    }
    index = faults.add_index("lib/app:all", images, docker=docker)
    resolved = resolve(client, faults, "linux/arm64/v8", "all")
    assert resolved.digest == digest_of(index)
    assert resolved.manifest_digest == images["linux/arm64"].digest
    assert [document.media_type for document in resolved.documents] == (
        [DOCKER_INDEX, DOCKER_MANIFEST] if docker else [OCI_INDEX, OCI_MANIFEST]
    )
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x") as caught:
        resolve(client, faults, "linux/s390x", "all")
    assert caught.value.hint == "the image is there for linux/amd64, linux/arm64"


# R16
def test_a_tag_that_moves_between_index_and_manifest_changes_nothing(
    faults: FaultRegistry, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = faults.add_image("lib/app:old", [b"old"])
    faults.add_index("lib/app:1", {"linux/amd64": old})
    reference = parse_reference(f"{faults.host}/lib/app:1")
    fetch = client.resolve

    def moving(*args: Any) -> Any:
        fetched = fetch(*args)
        faults.add_index("lib/app:1", {"linux/amd64": faults.add_image("lib/app:new", [b"new"])})
        return fetched

    monkeypatch.setattr(client, "resolve", moving)
    assert resolve_image(client, reference, parse_platform("linux/amd64")).manifest_digest == old.digest
    assert [request.path for request in faults.seen()] == ["/v2/lib/app/manifests/1", old.manifest_path]


# R14
def test_indexes_may_lead_to_indexes_but_not_for_ever(faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:0")
    data, media_type = image.manifest, OCI_MANIFEST
    for depth in range(1, 1001):
        entry = descriptor(data, media_type) | {"platform": platform_words("linux/amd64")}
        data, media_type = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(), OCI_INDEX
        add_document(faults, str(depth), data)
    assert resolve(client, faults, tag="3").manifest_digest == image.digest
    for deep in ("4", "1000"):
        faults.forget()
        with pytest.raises(CorruptData, match="indexes lead to indexes, 4 deep"):
            resolve(client, faults, tag=deep)
        assert len(faults.seen()) == 4


# R14
def test_a_hundred_thousand_entries_are_refused(faults: FaultRegistry, client: Client) -> None:
    entry = {"mediaType": "x", "digest": digest_of(b""), "size": 0}
    add_document(faults, "1", {"schemaVersion": 2, "manifests": [entry] * 30_000})
    with pytest.raises(CorruptData, match="manifests has 30000 entries"):
        resolve(client, faults)


# R03
@pytest.mark.parametrize("sent", [OCI_INDEX, DOCKER_MANIFEST])
def test_an_entry_that_is_sent_as_something_else_is_ambiguous(sent: str, faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:0")
    faults.add_index("lib/app:1", {"linux/amd64": image})
    faults.script(image.manifest_path, [Fault(headers={"Content-Type": sent})])
    with pytest.raises(CorruptData, match="is ambiguous"):
        resolve(client, faults)


# R03
def test_an_entry_that_is_another_kind_of_document_is_refused(faults: FaultRegistry, client: Client) -> None:
    inner = add_document(faults, "inner", {"schemaVersion": 2, "manifests": []})
    entry = descriptor(inner, OCI_MANIFEST) | {"platform": platform_words("linux/amd64")}
    add_document(faults, "1", {"schemaVersion": 2, "manifests": [entry]})
    faults.script("*/manifests/sha256:*", [Fault(headers={"Content-Type": "application/json"})])
    with pytest.raises(CorruptData, match="ambiguous: 'manifests' has no place"):
        resolve(client, faults)


# R01
def test_an_entry_of_another_size_is_corrupt(faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:0")
    entry = descriptor(image.manifest, OCI_MANIFEST) | {"size": 5, "platform": platform_words("linux/amd64")}
    add_document(faults, "1", {"schemaVersion": 2, "manifests": [entry]})
    with pytest.raises(CorruptData, match=f"manifest {image.digest}: 5 bytes expected, {len(image.manifest)} came"):
        resolve(client, faults)


# R03
@pytest.mark.parametrize("media_type", ["text/html", "application/vnd.docker.distribution.manifest.v1+prettyjws", ""])
def test_a_document_of_a_foreign_type_is_refused(media_type: str, faults: FaultRegistry, client: Client) -> None:
    add_document(faults, "1", {"schemaVersion": 2, "config": {}, "layers": []}, media_type or "x")
    faults.script("*", [Fault(headers={"Content-Type": media_type})], forever=True)
    with pytest.raises(CorruptData):
        resolve(client, faults)
