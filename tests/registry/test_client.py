import json
import resource
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from rootless.errors import CorruptData, NotFound, RegistryFailure, RootlessError, Unauthorized
from rootless.registry.answers import TemporaryFailure
from rootless.registry.client import Client
from rootless.registry.config import HostConfig
from rootless.spec.digest import digest_of
from rootless.spec.image import MAX_CONFIG_SIZE, OCI_CONFIG, OCI_MANIFEST, Descriptor
from rootless.spec.reference import Reference, parse_reference
from tests.registry.conftest import HASTE
from tests.support.fault_registry import Added, Fault, FaultRegistry, errors

DENIED = "pull access denied for {name}, repository does not exist or may require 'rootless login'"
MANIFESTS = "/v2/*/manifests/*"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultRegistry]:
    """Stands for every host of the network, on whatever port."""
    with FaultRegistry() as registry:
        place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", registry.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [place])
        yield registry


def reference_to(registry: FaultRegistry, image: Added, *, digest: str | None = None) -> Reference:
    reference = parse_reference(f"{registry.host}/{image.repository}:{image.tag}")
    return reference._replace(digest=digest) if digest else reference  # type: ignore[arg-type]


# -- manifests


@pytest.mark.parametrize("docker", [False, True])
def test_a_manifest_comes_by_tag_and_by_digest(docker: bool, faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:1", docker=docker)
    by_tag = client.resolve(reference_to(faults, image))
    assert by_tag == (image.media_type, image.digest, image.manifest)
    assert client.resolve(parse_reference(f"{faults.host}/lib/app@{image.digest}")) == by_tag
    assert image.media_type in faults.seen()[0].headers["accept"]


def test_no_tag_means_latest(faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("app")
    assert client.resolve(parse_reference(f"{faults.host}/app")).digest == image.digest


# R16
def test_the_digest_decides_over_the_tag(faults: FaultRegistry, client: Client) -> None:
    old = faults.add_image("lib/app:1", [b"old"])
    faults.add_image("lib/app:1", [b"new"])
    other = faults.add_image("other/app:1", [b"other"])
    assert client.resolve(reference_to(faults, old, digest=old.digest)).data == old.manifest
    with pytest.raises(NotFound):  # in this repository, not anywhere in the registry
        client.resolve(reference_to(faults, old, digest=other.digest))
    assert [request.path for request in faults.seen()] == [
        old.manifest_path,
        f"/v2/lib/app/manifests/{other.digest}",
    ]


# R01
def test_wrong_bytes_for_a_digest_are_corrupt_and_both_digests_are_named(faults: FaultRegistry, client: Client) -> None:
    image, other = faults.add_image("lib/app:1", [b"1"]), faults.add_image("lib/app:2", [b"2"])
    faults.script(image.manifest_path, [Fault(body=other.manifest)], forever=True)
    with pytest.raises(CorruptData) as caught:
        client.resolve(reference_to(faults, image, digest=image.digest))
    assert str(caught.value) == f"{faults.host}: manifest {image.digest} expected, {other.digest} came"


# R01
def test_bytes_that_are_not_what_the_registry_itself_announces_are_corrupt(
    faults: FaultRegistry, client: Client
) -> None:
    image = faults.add_image("lib/app:1")
    faults.script(image.tag_path, [Fault(corrupt=3)])
    with pytest.raises(CorruptData, match=f"manifest {image.digest} announced, sha256:[0-9a-f]* came"):
        client.resolve(reference_to(faults, image))


# R01
def test_what_the_registry_announces_never_counts_for_the_bytes(faults: FaultRegistry, client: Client) -> None:
    image, other = faults.add_image("lib/app:1", [b"1"]), faults.add_image("lib/app:2", [b"2"])
    lie: dict[str, str | None] = {"Docker-Content-Digest": image.digest}
    faults.script(image.manifest_path, [Fault(body=other.manifest, headers=lie)])
    with pytest.raises(CorruptData):
        client.resolve(reference_to(faults, image, digest=image.digest))
    faults.script(image.tag_path, [Fault(headers={"Docker-Content-Digest": None})])
    assert client.resolve(reference_to(faults, image)).digest == digest_of(image.manifest)


# R02
@pytest.mark.parametrize("bad", ["sha256:../../x", "SHA256:" + "a" * 64, "md5:" + "a" * 32, "x"])
def test_an_announced_digest_that_is_none_is_corrupt(bad: str, faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:1")
    faults.script("*", [Fault(headers={"Docker-Content-Digest": bad})], forever=True)
    for ask in (client.resolve, client.head):
        with pytest.raises(CorruptData, match="Docker-Content-Digest: "):
            ask(reference_to(faults, image))


def test_head_tells_what_resolve_would_bring(faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:1")
    reference = reference_to(faults, image)
    assert client.head(reference) == Descriptor(OCI_MANIFEST, digest_of(image.manifest), len(image.manifest))
    assert faults.seen()[0].method == "HEAD"
    faults.script("*", [Fault(headers={"Docker-Content-Digest": None}), Fault(headers={"Content-Length": None})])
    assert client.head(reference) is None
    assert client.head(reference) is None
    with pytest.raises(NotFound):
        client.head(reference._replace(tag="2"))


# -- sizes: R05


# R05
@pytest.mark.parametrize(
    "fault",
    [
        Fault(body=b"{}" + b" " * (4 << 20)),
        Fault(body=b"{}" + b" " * (4 << 20), chunked=True),
        Fault(body=b" " * (1 << 16), endless=True),
        Fault(body=b" " * (1 << 16), endless=True, status=404),
        Fault(body=b" " * (1 << 16), endless=True, status=500),
        Fault(body=b" " * (1 << 16), endless=True, status=401),
        Fault(body=b" " * (1 << 16), endless=True, status=302, headers={"Location": "ftp://x"}),
    ],
)
def test_no_answer_is_read_without_end(fault: Fault, faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:1")
    faults.script(MANIFESTS, [fault], forever=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((CorruptData, RegistryFailure)):
        client.resolve(reference_to(faults, image))
    assert all(request.sent < 16 << 20 for request in faults.seen())  # the limit, and what the sockets hold
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


# R01, R05
def test_a_config_is_verified_and_has_a_limit(faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:1")
    reference = reference_to(faults, image)
    config = Descriptor(OCI_CONFIG, digest_of(image.config), len(image.config))
    assert client.fetch_config(reference, config) == image.config
    for fault in (Fault(corrupt=0), Fault(body=image.config[:-1])):
        faults.script(image.config_path, [fault])
        with pytest.raises(CorruptData, match=f"{config.digest} of {config.size} bytes expected, sha256:[0-9a-f]* of"):
            client.fetch_config(reference, config)
    for fault in (Fault(body=image.config + b" "), Fault(body=b" ", endless=True)):
        faults.script(image.config_path, [fault])
        with pytest.raises(CorruptData, match=f"larger than {config.size} bytes"):
            client.fetch_config(reference, config)
    faults.forget()
    with pytest.raises(CorruptData, match="larger than 4194304 bytes"):
        client.fetch_config(reference, config._replace(size=MAX_CONFIG_SIZE + 1))
    assert faults.seen() == []


# -- what people read


@pytest.mark.parametrize(
    "status, body, error, message",
    [
        (
            401,
            errors("UNAUTHORIZED", "authentication required"),
            Unauthorized,
            DENIED + ": authentication required",
        ),
        (
            403,
            errors("DENIED", "requested access to the resource is denied"),
            Unauthorized,
            DENIED + ": requested access to the resource is denied",
        ),
        (
            404,
            errors("MANIFEST_UNKNOWN", "manifest unknown"),
            NotFound,
            "manifest for {name}:1 not found: manifest unknown",
        ),
        (
            404,
            errors("NAME_UNKNOWN", "repository name not known to registry"),
            NotFound,
            "repository {name} not found: repository name not known to registry",
        ),
        (404, b"<html>", NotFound, "manifest for {name}:1 not found"),
        (400, b"", RegistryFailure, "{host}: manifest of lib/app: unexpected status 400"),
        (200, b"", None, ""),
        (204, b"", RegistryFailure, "{host}: manifest of lib/app: unexpected status 204"),
        (304, b"", RegistryFailure, "{host}: manifest of lib/app: unexpected status 304"),
        (
            429,
            errors("TOOMANYREQUESTS", "You have reached your limit."),
            TemporaryFailure,
            "{host}: manifest of lib/app: status 429: You have reached your limit.",
        ),
        (503, b"{}", TemporaryFailure, "{host}: manifest of lib/app: status 503"),
        (503, b'{"errors": [7]}', TemporaryFailure, "{host}: manifest of lib/app: status 503"),
        (503, b'{"errors": []}', TemporaryFailure, "{host}: manifest of lib/app: status 503"),
        (503, b'{"errors": [{"message": 7, "code": []}]}', TemporaryFailure, "{host}: manifest of lib/app: status 503"),
    ],
)
def test_failures_are_told_in_docker_s_words(
    status: int, body: bytes, error: type[RootlessError] | None, message: str, faults: FaultRegistry, client: Client
) -> None:
    image = faults.add_image("lib/app:1")
    faults.script(MANIFESTS, [Fault(status=status, body=body, headers={"Docker-Content-Digest": None})], forever=True)
    if error is None:
        assert client.resolve(reference_to(faults, image)).data == body
        return
    with pytest.raises(error) as caught:
        client.resolve(reference_to(faults, image))
    assert str(caught.value) == message.format(name=f"{faults.host}/lib/app", host=faults.host)
    if status in (401, 403, 429):
        assert caught.value.hint == f"try `rootless login {faults.host}`"


# R15
def test_a_registry_s_words_cannot_steer_the_terminal(faults: FaultRegistry, client: Client) -> None:
    image = faults.add_image("lib/app:1")
    evil = "\x1b]52;c;ZXZpbA==\x07\r\n\x9b31mred\u202e" + "x" * 5000
    for status in (400, 401, 403, 404, 429, 500):
        faults.script(MANIFESTS, [Fault(status=status, body=errors(evil, evil))], forever=True)
        with pytest.raises(RootlessError) as caught:
            client.resolve(reference_to(faults, image))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000


def test_the_name_of_docker_hub_is_not_repeated(client_with: Callable[..., Client], hub: FaultRegistry) -> None:
    client = client_with({"registry-1.docker.io": HostConfig(insecure=True), "docker.io": HostConfig(insecure=True)})
    hub.script("*", [Fault(status=401, body=b"")])
    with pytest.raises(Unauthorized) as caught:
        client.resolve(parse_reference("nobody/app"))
    assert str(caught.value) == (
        "pull access denied for nobody/app, repository does not exist or may require 'rootless login'"
    )
    assert caught.value.hint == "try `rootless login`"
    assert hub.seen()[0].path == "/v2/nobody/app/manifests/latest"
    assert hub.seen()[0].headers["host"] == "registry-1.docker.io"


# -- mirrors


def test_mirrors_are_asked_in_their_order_and_the_registry_last(client_with: Callable[..., Client]) -> None:
    with FaultRegistry() as first, FaultRegistry() as second, FaultRegistry() as registry:
        client = client_with({registry.host: HostConfig(mirrors=(first.host, f"{second.host}/cache/of"))})
        image = registry.add_image("lib/app:1")
        reference = reference_to(registry, image)
        assert client.resolve(reference).data == image.manifest
        assert [len(server.seen()) for server in (first, second, registry)] == [1, 1, 1]
        assert second.seen()[0].path == "/v2/cache/of/lib/app/manifests/1"
        second.add_image("cache/of/lib/app:1")
        assert client.resolve(reference).data == image.manifest
        assert [len(server.seen()) for server in (first, second, registry)] == [2, 2, 1]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=404),
        Fault(status=401),
        Fault(status=403),
        Fault(status=500),
        Fault(status=418),
        Fault(cut=-1),
        Fault(status=302, headers={"Location": "ftp://x"}),
        Fault(status=200, body=b"x" * (5 << 20)),
        Fault(delay=10),
    ],
)
def test_whatever_is_wrong_with_a_mirror_the_registry_is_asked(
    fault: Fault, client_with: Callable[..., Client]
) -> None:
    with FaultRegistry() as mirror, FaultRegistry() as registry:
        client = client_with({registry.host: HostConfig(mirrors=(mirror.host,))})
        image = registry.add_image("lib/app:1")
        mirror.add_image("lib/app:1")
        mirror.script("*", [fault], forever=True)
        assert client.resolve(reference_to(registry, image)).data == image.manifest


def test_a_mirror_that_is_not_there_is_asked_once(client_with: Callable[..., Client]) -> None:
    with FaultRegistry() as gone:
        host = gone.host
    with FaultRegistry() as registry:
        client = client_with({registry.host: HostConfig(mirrors=(host,))})
        image = registry.add_image("lib/app:1")
        for _ in range(2):
            assert client.resolve(reference_to(registry, image)).data == image.manifest


# R01
def test_a_mirror_s_wrong_bytes_for_a_digest_are_passed_over(client_with: Callable[..., Client]) -> None:
    with FaultRegistry() as mirror, FaultRegistry() as registry:
        client = client_with({registry.host: HostConfig(mirrors=(mirror.host,))})
        image = registry.add_image("lib/app:1")
        evil = json.dumps({"evil": True}).encode()
        mirror.script("*", [Fault(status=200, body=evil)], forever=True)
        reference = reference_to(registry, image, digest=image.digest)
        assert client.resolve(reference).data == image.manifest
        config = Descriptor(OCI_CONFIG, digest_of(image.config), len(image.config))
        assert client.fetch_config(reference, config) == image.config


def test_attempts_are_counted_and_paced(faults: FaultRegistry, client_with: Callable[..., Client]) -> None:
    image = faults.add_image("lib/app:1")
    faults.script(MANIFESTS, [Fault(status=500)], forever=True)
    client = client_with(timing=replace(HASTE, attempts=4, backoff=0.08))
    with pytest.raises(TemporaryFailure):
        client.resolve(reference_to(faults, image))
    times = [request.time for request in faults.seen()]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(pauses) == 3
    for pause, backoff in zip(pauses, (0.08, 0.16, 0.32), strict=True):
        assert 0.75 * backoff <= pause < 1.25 * backoff + 0.1
