"""Against docker-registry itself, plain and with TLS and a password."""

from collections.abc import Callable

import pytest

from rootless.errors import NotFound, RegistryFailure, Unauthorized
from rootless.registry.client import Client
from rootless.registry.config import HostConfig
from rootless.registry.credentials import Credentials
from rootless.registry.resolve import resolve_image
from rootless.spec.digest import digest_of
from rootless.spec.image import Descriptor, layers_with_diff_ids, parse_image_config
from rootless.spec.platform import host_platform
from rootless.spec.reference import parse_reference
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
