import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from rootless.errors import NotFound, RegistryFailure, Unauthorized
from rootless.registry.answers import TemporaryFailure
from rootless.registry.client import Client
from rootless.registry.config import HostConfig
from rootless.registry.credentials import Credentials
from rootless.spec.image import Descriptor
from rootless.spec.reference import Reference, parse_reference
from tests.support.fault_registry import OK, Added, Fault, FaultRegistry, MemorySink, challenge, redirect

Certificates = Callable[[str], tuple[ssl.SSLContext, str]]
PASSWORD = "s3cret-pa:ss"


def reference_to(registry: FaultRegistry, image: Added) -> Reference:
    return parse_reference(f"{registry.host}/{image.repository}:{image.tag}")


def fetch_layer(client: Client, registry: FaultRegistry, image: Added) -> bytes:
    sink = MemorySink()
    descriptor = Descriptor("x", image.layer_digests[0], len(image.layers[0]))  # type: ignore[arg-type]
    client.fetch_blob(reference_to(registry, image), descriptor, sink)
    return bytes(sink.data)


# -- redirects: R06


# R06
@pytest.mark.parametrize("kind", ["basic", "bearer"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_port_is_followed_without_credentials(
    kind: str, status: int, client_with: Callable[..., Client], docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth=kind, users={"alice": PASSWORD}) as registry, FaultRegistry() as storage:
        image = registry.add_image("lib/app:1", [b"layer"])
        storage.add_image("lib/app:1", [b"layer"])
        client = client_with(credentials=docker_config({registry.host: ("alice", PASSWORD)}))
        client.resolve(reference_to(registry, image))
        registry.script(image.layer_path(0), [redirect(storage.url + image.layer_path(0) + "?signature=x", status)])
        assert fetch_layer(client, registry, image) == b"layer"
        [request] = storage.seen()
        assert "authorization" not in request.headers
        assert request.query == {"signature": ["x"]}
        assert "authorization" in registry.seen(image.layer_path(0))[0].headers


# R06
def test_another_spelling_of_the_same_machine_is_another_origin(
    client_with: Callable[..., Client], docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth="basic", users={"alice": PASSWORD}) as registry:
        image = registry.add_image("lib/app:1", [b"layer"])
        client = client_with(credentials=docker_config({registry.host: ("alice", PASSWORD)}))
        client.resolve(reference_to(registry, image))
        registry.script(image.layer_path(0), [redirect(f"http://localhost:{registry.port}/v2/there")], forever=True)
        with pytest.raises(TemporaryFailure, match="redirected to localhost"):
            fetch_layer(client, registry, image)
        assert all("authorization" in request.headers for request in registry.seen(image.layer_path(0)))
        assert [request.headers.get("authorization") for request in registry.seen("/v2/there")] == [None] * 4


# R06
def test_a_redirect_within_the_registry_keeps_them_and_one_that_comes_back_does_not(
    client_with: Callable[..., Client], docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth="basic", users={"alice": PASSWORD}) as registry, FaultRegistry() as other:
        image = registry.add_image("lib/app:1", [b"layer"])
        client = client_with(credentials=docker_config({registry.host: ("alice", PASSWORD)}))
        client.resolve(reference_to(registry, image))
        registry.script(image.layer_path(0), [redirect("../../app/blobs/here")])
        registry.script("*/here", [Fault(status=200, body=b"layer")])
        assert fetch_layer(client, registry, image) == b"layer"
        assert "authorization" in registry.seen("*/here")[0].headers
        registry.script(image.layer_path(0), [redirect(f"{other.url}/away")], forever=True)
        other.script("/away", [redirect(f"{registry.url}/v2/back")], forever=True)
        with pytest.raises((RegistryFailure, NotFound)):
            fetch_layer(client, registry, image)
        assert all("authorization" not in request.headers for request in registry.seen("/v2/back"))


# R06
def test_from_https_there_is_no_way_to_http(client_with: Callable[..., Client], certificates: Certificates) -> None:
    context, ca_file = certificates("good")
    with FaultRegistry(tls=context) as registry, FaultRegistry() as storage:
        image = registry.add_image("lib/app:1", [b"layer"])
        client = client_with({registry.host: HostConfig(ca_file=ca_file, insecure=False)})
        registry.script(image.layer_path(0), [redirect(storage.url + image.layer_path(0))])
        with pytest.raises(RegistryFailure, match=r"redirects from https to http, at .*: refused"):
            fetch_layer(client, registry, image)
        assert storage.seen() == []


# R06
def test_there_are_at_most_ten_redirects(faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:1", [b"layer"])
    faults.script("*", [redirect(f"/hop/{n}") for n in range(10)])
    faults.script("/hop/9", [Fault(status=200, body=b"layer")])
    assert fetch_layer(client, faults, image) == b"layer"
    faults.forget()
    faults.script("*", [redirect("/loop")], forever=True)
    with pytest.raises(RegistryFailure, match="more than 10 redirects"):
        fetch_layer(client, faults, image)
    assert len(faults.seen()) == 11


# R06
@pytest.mark.parametrize(
    "location",
    [
        "",
        "file:///etc/passwd",
        "ftp://x/y",
        "http://user:pw@127.0.0.1/",
        "http://x:port/",
        "http://[::1/",
        "http://a b/",
        "javascript:x",
        "http://127.0.0.1\\@evil.example/",
        "/\xff",
        "http://x:99999/",
    ],
)
def test_a_redirect_to_nowhere_sensible_is_refused(location: str, faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:1", [b"layer"])
    faults.script("*", [redirect(location)])
    with pytest.raises(RegistryFailure, match="which is no URL"):
        fetch_layer(client, faults, image)
    assert len(faults.seen()) == 1


# G06
def test_a_signed_url_that_has_expired_is_asked_for_again(faults: FaultRegistry, client: Client) -> None:
    with FaultRegistry() as storage:
        image = faults.add_image("lib/app:1", [b"layer"])
        storage.add_image("lib/app:1", [b"layer"])
        faults.script("*", [redirect(f"{storage.url}{image.layer_path(0)}?n={n}") for n in range(3)])
        storage.script("*", [Fault(status=403, body=b"<Error>expired</Error>"), Fault(status=401), OK])
        assert fetch_layer(client, faults, image) == b"layer"
        assert [request.query["n"] for request in storage.seen()] == [["0"], ["1"], ["2"]]


# -- who sees which password: R09


# R09
def test_each_registry_sees_its_own_password_and_no_other(
    client_with: Callable[..., Client], docker_config: Callable[..., Credentials]
) -> None:
    with ExitStack() as stack:
        users = [{"a": "secret-a"}, {"b": "secret-b"}, {"c": "secret-c"}]
        a, b, c = (stack.enter_context(FaultRegistry(auth="basic", users=user)) for user in users)
        known = docker_config({a.host: ("a", "secret-a"), b.host: ("b", "secret-b")})
        client = client_with({b.host: HostConfig(mirrors=(c.host, a.host))}, known)
        images = [registry.add_image("lib/app:1", [b"layer"]) for registry in (a, b, c)]
        assert fetch_layer(client, a, images[0]) == b"layer"
        assert fetch_layer(client, b, images[1]) == b"layer"  # c will not have us, a has it
        with pytest.raises(Unauthorized):
            fetch_layer(client, c, images[2])
        shown = [{r.headers.get("authorization", "") for r in registry.seen()} for registry in (a, b, c)]
        assert shown == [{"", "Basic YTpzZWNyZXQtYQ=="}, set(), {""}]


# R09
def test_the_same_host_on_another_port_is_another_registry(
    client_with: Callable[..., Client], docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth="basic", users={"a": PASSWORD}) as other:
        image = other.add_image("lib/app:1", [b"layer"])
        known = docker_config({"127.0.0.1": ("a", PASSWORD), f"127.0.0.1:{other.port + 1}": ("a", PASSWORD)})
        with pytest.raises(Unauthorized):
            fetch_layer(client_with(credentials=known), other, image)
        assert all("authorization" not in request.headers for request in other.seen())


# R08
def test_urls_in_a_descriptor_are_not_followed(faults: FaultRegistry, client: Client) -> None:
    with FaultRegistry() as elsewhere:
        image = faults.add_image("lib/app:1", [b"layer"])
        path = image.layer_path(0)
        descriptor = Descriptor(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            image.layer_digests[0],  # type: ignore[arg-type]
            5,
            urls=(f"{elsewhere.url}{path}",),
        )
        sink = MemorySink()
        client.fetch_blob(reference_to(faults, image), descriptor, sink)
        assert sink.data == b"layer"
        faults.script(path, [Fault(status=404)])
        with pytest.raises(NotFound):
            client.fetch_blob(reference_to(faults, image), descriptor, MemorySink())
        assert elsewhere.seen() == []


# -- plain HTTP: R12


# R12
@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.8.7", "::1"])
def test_a_loopback_registry_may_speak_plain_http(address: str, client: Client) -> None:
    with FaultRegistry(address=address) as registry:
        image = registry.add_image("lib/app:1", [b"layer"])
        assert client.resolve(reference_to(registry, image)).data == image.manifest


def test_localhost_is_loopback_by_name(faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:1", [b"layer"])
    assert client.resolve(parse_reference(f"localhost:{faults.port}/lib/app:1")).data == image.manifest


# R12
def test_any_other_registry_may_not_unless_the_user_says_so(
    client: Client, client_with: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultRegistry() as registry:
        image = registry.add_image("lib/app:1", [b"layer"])
        name = f"registry.example:{registry.port}"
        point_at_loopback(monkeypatch, registry.port)
        reference = parse_reference(f"{name}/lib/app:1")
        with pytest.raises(RegistryFailure, match="server gave HTTP response to HTTPS client") as caught:
            client.resolve(reference)
        assert f'[registry."{name}"]' in caught.value.hint
        assert registry.seen() == []
        assert client_with({name: HostConfig(insecure=True)}).resolve(reference).data == image.manifest


# R12
def test_a_registry_that_once_spoke_tls_is_not_spoken_to_without(
    client_with: Callable[..., Client], certificates: Certificates
) -> None:
    context, ca_file = certificates("good")
    with FaultRegistry(tls=context) as registry:
        image = registry.add_image("lib/app:1", [b"layer"])
        client = client_with({registry.host: HostConfig(ca_file=ca_file)})
        client.resolve(reference_to(registry, image))
        registry._tls = None  # from now on it speaks plain HTTP, as a thief on the same port would
        client._transport.close()
        registry.script("*", [Fault(headers={"Connection": "close"})], forever=True)
        with pytest.raises(TemporaryFailure, match="TLS failed: wrong version number"):
            client.resolve(reference_to(registry, image))
        assert len(registry.seen()) == 1


# R12
@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_connection_that_breaks_during_the_handshake_is_no_reason_to_do_without_tls(
    how: str, faults: FaultRegistry, client: Client
) -> None:
    image = faults.add_image("lib/app:1", [b"layer"])
    faults.spoil_connections(*[how] * 4)
    with pytest.raises(TemporaryFailure):
        client.resolve(reference_to(faults, image))
    assert faults.seen() == []


# R12
def test_a_bad_certificate_on_loopback_is_no_reason_to_do_without_tls(
    client: Client, certificates: Certificates
) -> None:
    with FaultRegistry(tls=certificates("self-signed")[0]) as registry:
        registry.add_image("lib/app:1")
        with pytest.raises(RegistryFailure, match="certificate is not valid"):
            client.resolve(parse_reference(f"{registry.host}/lib/app:1"))
        assert registry._connections == 1


def test_nobody_listening_is_refused_soon(client: Client) -> None:
    with FaultRegistry() as gone:
        host = gone.host
    with pytest.raises(RegistryFailure, match=f"^{host}: connection refused$"):
        client.resolve(parse_reference(f"{host}/lib/app:1"))


def test_a_challenge_nobody_understands_is_a_denial(faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:1")
    for value in ("Negotiate", "", "Digest realm=x"):
        faults.script("*", [challenge(value)])
        with pytest.raises(Unauthorized, match=r"pull access denied .*: authentication required"):
            client.resolve(reference_to(faults, image))


def point_at_loopback(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Have every name stand for 127.0.0.1."""
    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [place])
