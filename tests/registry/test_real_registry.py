"""Against docker-registry itself, plain and with TLS and a password."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from rootless.errors import NotFound, RegistryFailure, Unauthorized
from rootless.registry.client import Client
from rootless.registry.config import HostConfig, RegistryConfig
from rootless.registry.credentials import Credentials
from rootless.registry.push import Pusher
from rootless.registry.resolve import resolve_image
from rootless.registry.uploads import Read, Upload
from rootless.spec.digest import digest_of
from rootless.spec.image import OCI_MANIFEST, Descriptor, layers_with_diff_ids, parse_image_config
from rootless.spec.platform import host_platform
from rootless.spec.reference import parse_reference
from tests.registry.conftest import HASTE
from tests.support.account import wait_until
from tests.support.fault_registry import MemorySink
from tests.support.layout import Layout, directory, file, push
from tests.support.registry import Registry

pytestmark = pytest.mark.registry


@pytest.fixture
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("layout") / "image")
    layers = [layout.add_layer([directory("data"), file(f"data/{n}", bytes(range(256)) * 4000)], "none") for n in "ab"]
    layout.set_top(layout.add_index([layout.add_image(layers)]))
    return layout


def pull(client: Client, name: str) -> list[MemorySink]:
    """Pull everything into memory, verified; and each layer once more with its first half there already."""
    reference = parse_reference(name)
    resolved = resolve_image(client, reference, host_platform())
    top = resolved.documents[0]
    assert client.head(reference) == Descriptor(top.media_type, top.digest, len(top.data))
    config = parse_image_config(client.fetch_config(reference, resolved.manifest.config))
    sinks = []
    for descriptor, _ in layers_with_diff_ids(resolved.manifest, config):
        sink = MemorySink()
        client.fetch_blob(reference, descriptor, sink)
        assert digest_of(bytes(sink.data)) == descriptor.digest
        rest = MemorySink(bytes(sink.data[: descriptor.size // 2]))
        client.fetch_blob(reference, descriptor, rest)
        assert rest.data == sink.data
        assert rest.restarts == 0
        sinks.append(sink)
    return sinks


def test_an_image_comes_whole_from_a_plain_registry(layout: Layout, registry: Registry, client: Client) -> None:
    name = push(layout, registry, "client/plain")
    assert len(pull(client, name)) == 2
    log = registry.directory / "registry.log"
    assert wait_until(lambda: log.read_text().count("http.response.status=206") >= 2)


def test_an_image_comes_whole_from_a_registry_with_tls_and_a_password(
    layout: Layout,
    secure_registry: Registry,
    client_with: Callable[..., Client],
    docker_config: Callable[..., Credentials],
) -> None:
    name = push(layout, secure_registry, "client/secure")
    trust = {secure_registry.host: HostConfig(ca_file=str(secure_registry.ca))}
    known = docker_config({secure_registry.host: (secure_registry.username, secure_registry.password)})
    assert len(pull(client_with(trust, known), name)) == 2
    reference = parse_reference(name)
    with pytest.raises(Unauthorized, match=r"pull access denied for .*/client/secure"):
        client_with(trust).resolve(reference)
    wrong = docker_config({secure_registry.host: (secure_registry.username, "wrong")})
    with pytest.raises(Unauthorized):
        client_with(trust, wrong).resolve(reference)
    with pytest.raises(RegistryFailure, match="certificate is not valid"):
        client_with(credentials=known).resolve(reference)


def test_what_is_not_there_is_not_found(layout: Layout, registry: Registry, client: Client) -> None:
    name = push(layout, registry, "client/plain")
    reference = parse_reference(name)
    with pytest.raises(NotFound, match=r"^manifest for .*/client/plain:nope not found: manifest unknown$"):
        client.resolve(reference._replace(tag="nope"))
    with pytest.raises(NotFound, match="not found"):
        client.resolve(reference._replace(path="client/nobody"))
    resolved = resolve_image(client, reference, host_platform())
    missing = resolved.manifest.layers[0]._replace(digest=digest_of(b"nowhere"))
    with pytest.raises(NotFound, match=r"blob sha256:[0-9a-f]* of client/plain not found: blob unknown to registry"):
        client.fetch_blob(reference, missing, MemorySink())


def reading(data: bytes) -> Read:
    return lambda start, count: data[start : start + count]


@pytest.mark.parametrize("pieces", [False, True], ids=["at once", "in pieces"])
def test_blobs_and_a_manifest_arrive_in_a_real_registry(
    pieces: bool, registry: Registry, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*arguments: Any) -> Upload:
        upload = Upload(*arguments)
        if pieces:
            upload.shrink()  # as after a 413
        return upload

    monkeypatch.setattr("rootless.registry.push.Upload", begin)
    data = [bytes([number]) * 3_000_000 for number in (1, 2)] if pieces else [b"small", b"3" * 3_000_000]
    name = parse_reference(f"{registry.host}/pushed/{'pieces' if pieces else 'whole'}:1")
    blobs = [Descriptor("application/vnd.oci.image.layer.v1.tar", digest_of(one), len(one)) for one in data]
    with Pusher(RegistryConfig(), Credentials(), HASTE) as pusher:
        for one, blob in zip(data, blobs, strict=True):
            assert pusher.push_blob(name, blob, reading(one)).text == "Pushed"
            assert pusher.has_blob(name, blob)
        other = name._replace(path="pushed/other")
        assert pusher.find_blob(other, blobs[1], [name.path]) == (f"Mounted from {name.path}", 0)
        config, *layers = [{"mediaType": b.media_type, "digest": b.digest, "size": b.size} for b in blobs]
        manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers})
        digest = pusher.push_manifest(name, manifest.encode(), OCI_MANIFEST)
    assert client.resolve(name).digest == digest
