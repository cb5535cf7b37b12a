"""Pushing to a registry that does as it is told: what is sent, what is sent again, and to whom."""

import ssl
from collections.abc import Callable, Iterator

import pytest

from rootless.errors import CorruptData, RegistryFailure, Unauthorized
from rootless.registry.config import HostConfig, RegistryConfig
from rootless.registry.credentials import Credentials
from rootless.registry.push import Outcome, Pusher
from rootless.registry.uploads import Read
from rootless.spec.digest import digest_of
from rootless.spec.image import OCI_MANIFEST, Descriptor
from rootless.spec.reference import parse_reference
from tests.registry.conftest import HASTE
from tests.support.fault_registry import Fault, FaultRegistry, errors, redirect

DATA = bytes(range(256)) * 20_000  # 5 MB
UPLOADS = "/v2/team/app/blobs/uploads/*"
PASSWORD = "s3cret-pa:ss"

Make = Callable[..., Pusher]


@pytest.fixture
def pusher_with() -> Iterator[Make]:
    """`pusher_with(hosts=…, credentials=…)`."""
    pushers = []

    def make(hosts: dict[str, HostConfig] | None = None, credentials: Credentials | None = None) -> Pusher:
        pushers.append(Pusher(RegistryConfig(hosts or {}), credentials or Credentials(), HASTE))
        return pushers[-1]

    yield make
    for pusher in pushers:
        pusher.__exit__()


@pytest.fixture
def pusher(pusher_with: Make) -> Pusher:
    return pusher_with()


def reading(data: bytes) -> Read:
    return lambda offset, count: data[offset : offset + count]


def blob_of(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(data), len(data))


def push(pusher: Pusher, registry: FaultRegistry, data: bytes = DATA, **more: object) -> Outcome:
    repository = parse_reference(f"{registry.host}/team/app")
    return pusher.push_blob(repository, blob_of(data), reading(data), **more)  # type: ignore[arg-type]


def has(registry: FaultRegistry, data: bytes = DATA) -> bool:
    return registry.blob("team/app", digest_of(data)) == data


def sent(registry: FaultRegistry) -> int:
    """Bytes of blobs that came in, in all."""
    return sum(len(request.body) for request in registry.seen(UPLOADS))


def methods(registry: FaultRegistry) -> list[str]:
    return [request.method for request in registry.seen()]


# -- what is sent


@pytest.mark.parametrize("data", [DATA, b"x", b""], ids=["large", "one byte", "empty"])
def test_a_blob_goes_in_one_piece(data: bytes, pusher: Pusher, faults: FaultRegistry) -> None:
    assert push(pusher, faults, data) == ("Pushed", len(data))
    assert has(faults, data)
    assert methods(faults) == ["HEAD", "POST", "PUT"]
    [put] = faults.seen(UPLOADS, "PUT")
    assert put.headers["content-length"] == str(len(data))
    assert put.headers["content-type"] == "application/octet-stream"
    assert "transfer-encoding" not in put.headers
    assert put.query["state"] == ["0"]


def test_a_blob_that_is_there_is_not_sent(pusher: Pusher, faults: FaultRegistry) -> None:
    faults.add_blob("team/app", DATA)
    assert push(pusher, faults) == ("Layer already exists", 0)
    assert methods(faults) == ["HEAD"]


def test_a_blob_is_taken_over_from_another_repository(pusher: Pusher, faults: FaultRegistry) -> None:
    faults.add_blob("library/debian", DATA)
    assert push(pusher, faults, sources=["library/debian"]) == ("Mounted from library/debian", 0)
    assert has(faults)
    assert methods(faults) == ["HEAD", "POST"]


def test_the_upload_that_a_registry_opens_instead_of_a_mount_is_used(pusher: Pusher, faults: FaultRegistry) -> None:
    assert push(pusher, faults, sources=["not/there", "nor/there"]) == ("Pushed", len(DATA))
    assert methods(faults) == ["HEAD", "POST", "PUT"]
    assert has(faults)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500])
def test_where_a_mount_is_refused_the_blob_is_sent(status: int, pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"POST {UPLOADS}", [Fault(status=status, body=errors("DENIED", "no mounts here"))])
    assert push(pusher, faults, sources=["library/debian"]) == ("Pushed", len(DATA))
    assert has(faults)


def test_a_manifest_goes_under_its_tag_or_its_digest(pusher: Pusher, faults: FaultRegistry) -> None:
    config = faults.add_blob("team/app", b"{}")
    data = b'{"schemaVersion": 2, "config": {"digest": "%s"}, "layers": []}' % config["digest"].encode()
    for name in (":1", ""):
        reference = parse_reference(f"{faults.host}/team/app{name}")
        assert pusher.push_manifest(reference, data, OCI_MANIFEST) == digest_of(data)
    paths = [request.path for request in faults.seen(method="PUT")]
    assert paths == ["/v2/team/app/manifests/1", f"/v2/team/app/manifests/{digest_of(data)}"]
    assert [r.headers["content-type"] for r in faults.seen(method="PUT")] == [OCI_MANIFEST] * 2
    assert faults.manifest("team/app", "1") == data


def test_a_manifest_that_the_registry_has_changed_is_an_error(pusher: Pusher, faults: FaultRegistry) -> None:
    path = "/v2/team/app/manifests/1"
    faults.script(path, [Fault(status=201, headers={"Docker-Content-Digest": digest_of(b"other")})])
    with pytest.raises(CorruptData, match="has taken another one"):
        pusher.push_manifest(parse_reference(f"{faults.host}/team/app:1"), b'{"config": null}', OCI_MANIFEST)


def test_a_blob_that_is_damaged_here_never_arrives_whole(pusher: Pusher, faults: FaultRegistry) -> None:
    repository = parse_reference(f"{faults.host}/team/app")
    with pytest.raises(CorruptData, match="in the store is damaged"):
        pusher.push_blob(repository, blob_of(DATA), reading(DATA[:-1] + b"!"))
    assert not has(faults)
    with pytest.raises(CorruptData, match="has only 4000000 bytes"):
        pusher.push_blob(repository, blob_of(DATA), reading(DATA[:4_000_000]))
    assert not has(faults)


# -- in pieces


def test_a_registry_that_finds_a_blob_too_large_gets_it_in_pieces(pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"PUT {UPLOADS}", [Fault(status=413, body=b"<html>too large</html>")])
    progress: list[int] = []
    assert push(pusher, faults, progress=progress.append).text == "Pushed"
    assert has(faults)
    patches = faults.seen(UPLOADS, "PATCH")
    assert [patch.headers["content-range"] for patch in patches] == ["0-2559999"]
    assert [request.query["state"] for request in faults.seen(UPLOADS, "PUT")][-1] == ["2560000"]
    assert progress[-1] == len(DATA)


def test_pieces_are_halved_until_they_are_small_enough(pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"PUT {UPLOADS}", [Fault(status=413)])
    faults.script(f"PATCH {UPLOADS}", [Fault(status=413), Fault(status=413)])
    assert push(pusher, faults).text == "Pushed"
    assert has(faults)
    assert max(len(r.body) for r in faults.seen(UPLOADS, "PATCH")[2:]) == 640_000


def test_a_registry_that_finds_everything_too_large_is_given_up(pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"PUT {UPLOADS}", [Fault(status=413)], forever=True)
    faults.script(f"PATCH {UPLOADS}", [Fault(status=413)], forever=True)
    with pytest.raises(RegistryFailure, match="takes no pieces of"):
        push(pusher, faults)


def test_pieces_are_never_smaller_than_the_registry_wants(pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"POST {UPLOADS}", [Fault(headers={"OCI-Chunk-Min-Length": "3000000"})], forever=True)
    faults.script(f"PUT {UPLOADS}", [Fault(status=413)], forever=True)
    with pytest.raises(RegistryFailure, match="takes no pieces of"):
        push(pusher, faults)


# -- broken connections


def test_an_upload_goes_on_where_the_connection_broke(pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"PUT {UPLOADS}", [Fault(take=2_000_000), Fault(take=2_000_000, reset=True)])
    assert push(pusher, faults).text == "Pushed"
    assert has(faults)
    assert [r.headers["content-range"] for r in faults.seen(UPLOADS, "PUT")[1:]] == [
        "2000000-5119999",
        "4000000-5119999",
    ]
    assert sent(faults) == len(DATA)


def test_progress_costs_no_attempts(pusher: Pusher, faults: FaultRegistry) -> None:
    data = DATA * 2
    faults.script(f"PUT {UPLOADS}", [Fault(take=1 << 20)] * 8)  # twice as many as there are attempts
    assert push(pusher, faults, data).text == "Pushed"
    assert has(faults, data)


def test_without_progress_it_is_given_up(pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"PUT {UPLOADS}", [Fault(take=1000)], forever=True)
    with pytest.raises(RegistryFailure):
        push(pusher, faults)
    assert len(faults.seen(UPLOADS, "PUT")) == HASTE.attempts


def test_progress_that_is_lost_again_and_again_costs_attempts(pusher: Pusher, faults: FaultRegistry) -> None:
    gone = Fault(status=404, body=errors("BLOB_UPLOAD_UNKNOWN", "gone"))
    faults.script(f"PUT {UPLOADS}", [Fault(take=2 << 20)], forever=True)
    faults.script(f"GET {UPLOADS}", [Fault(), gone] * 50)
    with pytest.raises(RegistryFailure):
        push(pusher, faults)
    assert len(faults.seen(UPLOADS, "PUT")) < 4 * HASTE.attempts


@pytest.mark.parametrize(
    "answer",
    [
        Fault(status=404, body=errors("BLOB_UPLOAD_UNKNOWN", "gone")),
        Fault(status=416),
        Fault(cut=-1),
        Fault(headers={"Range": None}),
        Fault(headers={"Range": "nonsense"}),
        Fault(headers={"Range": "0-999999999"}),
        Fault(headers={"Range": "5-10"}),
    ],
)
def test_where_nobody_knows_how_far_it_came_it_begins_anew(
    answer: Fault, pusher: Pusher, faults: FaultRegistry
) -> None:
    faults.script(f"PUT {UPLOADS}", [Fault(take=2_000_000)])
    faults.script(f"GET {UPLOADS}", [answer])
    assert push(pusher, faults).text == "Pushed"
    assert has(faults)
    assert methods(faults) == ["HEAD", "POST", "PUT", "GET", "POST", "PUT"]


@pytest.mark.parametrize("where", ["POST", "PUT", "HEAD"])
@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=503, headers={"Retry-After": "0"}), Fault(status=429), Fault(cut=-1, reset=True)],
)
def test_what_passes_is_tried_again(where: str, fault: Fault, pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"{where} /v2/team/app/blobs/*", [fault, fault])
    assert push(pusher, faults).text == "Pushed"
    assert has(faults)


def test_an_upload_that_has_expired_begins_anew(pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"PUT {UPLOADS}", [Fault(status=404, body=errors("BLOB_UPLOAD_UNKNOWN", "expired"))])
    assert push(pusher, faults).text == "Pushed"
    assert has(faults)


def test_what_the_registry_says_in_the_end_is_told(pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"PUT {UPLOADS}", [Fault(status=400, body=errors("X", "this is \x1b[31mwrong"))], forever=True)
    with pytest.raises(RegistryFailure, match=r"this is \\x1b\[31mwrong"):
        push(pusher, faults)


def test_a_registry_that_takes_nothing_more_is_not_waited_for(pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"PUT {UPLOADS}", [Fault(delay=30)], forever=True)
    with pytest.raises(RegistryFailure, match="timed out"):
        push(pusher, faults)


# -- who is asked, and with what: R06, R09, R13


# R13
@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_an_upload_on_another_host_goes_there_without_credentials(
    kind: str, pusher_with: Make, docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth=kind, users={"alice": PASSWORD}) as registry, FaultRegistry() as storage:
        place = Fault(status=202, headers={"Location": f"{storage.url}/take/it?signature=x"})
        registry.script(f"POST {UPLOADS}", [place])
        storage.script("/take/it", [Fault(status=201)])
        pusher = pusher_with(credentials=docker_config({registry.host: ("alice", PASSWORD)}))
        assert push(pusher, registry).text == "Pushed"
        [request] = storage.seen()
        assert "authorization" not in request.headers
        assert request.body == DATA
        assert request.query == {"signature": ["x"], "digest": [digest_of(DATA)]}
        assert all("authorization" in r.headers for r in registry.seen(UPLOADS))


# R06
@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_of_an_upload_is_followed_without_credentials(
    status: int, pusher_with: Make, docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth="basic", users={"alice": PASSWORD}) as registry, FaultRegistry() as storage:
        registry.script(f"PUT {UPLOADS}", [redirect(f"{storage.url}/take/it", status)])
        storage.script("/take/it", [Fault(status=201)])
        pusher = pusher_with(credentials=docker_config({registry.host: ("alice", PASSWORD)}))
        assert push(pusher, registry).text == "Pushed"
        [request] = storage.seen()
        assert "authorization" not in request.headers
        assert request.body == DATA
        assert "authorization" in registry.seen(UPLOADS, "PUT")[0].headers


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_drop_the_content_is_refused(status: int, pusher: Pusher, faults: FaultRegistry) -> None:
    with FaultRegistry() as storage:
        faults.script(f"PUT {UPLOADS}", [redirect(f"{storage.url}/take/it", status)], forever=True)
        with pytest.raises(RegistryFailure, match="but not its content"):
            push(pusher, faults)
        assert not storage.seen()


@pytest.mark.parametrize(
    "location", ["", "ftp://x/y", "http://user@127.0.0.1/", "http://[::1", "http://a\\b/", "/a b", "http://x:99999/"]
)
def test_a_place_that_is_no_url_is_refused(location: str, pusher: Pusher, faults: FaultRegistry) -> None:
    faults.script(f"POST {UPLOADS}", [Fault(headers={"Location": location})], forever=True)
    with pytest.raises(RegistryFailure, match="no URL"):
        push(pusher, faults)


# R13
@pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "[fd00::1]", "192.168.1.1:8080", "0x0a000001"])
@pytest.mark.parametrize("how", ["place", "redirect"])
def test_nothing_is_uploaded_into_this_network_by_a_registrys_word(
    host: str, how: str, pusher: Pusher, faults: FaultRegistry
) -> None:
    url = f"http://{host}/admin?x=y"
    if how == "place":
        faults.script(f"POST {UPLOADS}", [Fault(status=202, headers={"Location": url})], forever=True)
    else:
        faults.script(f"PUT {UPLOADS}", [redirect(url)], forever=True)
    with pytest.raises(RegistryFailure, match="with an upload: refused"):
        push(pusher, faults)


def test_over_tls_a_place_in_plain_http_means_tls_on_the_same_host_and_is_refused_on_another(
    certificates: Callable[[str], tuple[ssl.SSLContext, str]], pusher_with: Make
) -> None:
    context, authority = certificates("good")
    with FaultRegistry(tls=context) as registry, FaultRegistry() as storage:
        pusher = pusher_with(hosts={registry.host: HostConfig(ca_file=authority)})
        plain = f"http://{registry.host}/v2/team/app/blobs/uploads/upload-1?state=0"
        registry.script(f"POST {UPLOADS}", [Fault(headers={"Location": plain})])
        assert push(pusher, registry).text == "Pushed"
        registry.script(f"POST {UPLOADS}", [Fault(headers={"Location": f"{storage.url}/take/it"})], forever=True)
        with pytest.raises(RegistryFailure, match="from https to http"):
            push(pusher, registry, b"other")
        assert not storage.seen()


def test_a_token_is_asked_for_that_may_push_and_may_see_where_blobs_are_taken_from(
    pusher_with: Make, docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth="bearer", users={"alice": PASSWORD}) as registry:
        registry.add_blob("library/debian", DATA)
        pusher = pusher_with(credentials=docker_config({registry.host: ("alice", PASSWORD)}))
        assert push(pusher, registry, sources=["library/debian"]).text == "Mounted from library/debian"
        assert push(pusher, registry, b"more").text == "Pushed"
        scopes = [request.query["scope"] for request in registry.seen("/token")]
        own = "repository:team/app:pull,push"
        assert scopes == [[own], [f"{own} repository:library/debian:pull"]]


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_who_may_not_push_is_told_to_log_in(
    kind: str, pusher_with: Make, docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth=kind, users={"alice": PASSWORD}) as registry:
        for credentials in (Credentials(), docker_config({registry.host: ("alice", "wrong")})):
            with pytest.raises(Unauthorized, match=r"push access denied for .*/team/app") as caught:
                push(pusher_with(credentials=credentials), registry)
            assert caught.value.hint == f"try `rootless login {registry.host}`"


def test_a_repository_that_is_forbidden_is_said_once(pusher: Pusher, faults: FaultRegistry) -> None:
    denied = errors("DENIED", "requested access to the resource is denied")
    faults.script(f"POST {UPLOADS}", [Fault(status=403, body=denied)], forever=True)
    with pytest.raises(Unauthorized, match=r"push access denied .*requested access to the resource is denied"):
        push(pusher, faults)
    assert methods(faults) == ["HEAD", "POST"]


# R09
def test_nothing_is_pushed_to_a_mirror(pusher_with: Make) -> None:
    with FaultRegistry() as registry, FaultRegistry() as mirror:
        pusher = pusher_with(hosts={registry.host: HostConfig(mirrors=(mirror.host,))})
        assert push(pusher, registry).text == "Pushed"
        assert not mirror.seen()
