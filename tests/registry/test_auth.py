import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import CorruptData, RegistryFailure, Unauthorized
from rootless.registry.auth import Challenge, check_realm, parse_challenges
from rootless.registry.client import Client
from rootless.registry.config import Endpoint, HostConfig
from rootless.registry.credentials import Credentials
from rootless.spec.image import Descriptor
from rootless.spec.reference import Reference, parse_reference
from tests.support.fault_registry import OK, Added, Fault, FaultRegistry, MemorySink, challenge

PASSWORD = "s3cret-pa:ss"


def reference_to(registry: FaultRegistry, image: Added) -> Reference:
    return parse_reference(f"{registry.host}/{image.repository}:{image.tag}")


def fetch_layer(client: Client, registry: FaultRegistry, image: Added, number: int = 0) -> bytes:
    sink = MemorySink()
    size = len(image.layers[number])
    descriptor = Descriptor("x", image.layer_digests[number], size)  # type: ignore[arg-type]
    client.fetch_blob(reference_to(registry, image), descriptor, sink)
    return bytes(sink.data)


# -- challenges


@pytest.mark.parametrize(
    "headers, challenges",
    [
        (
            [
                'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'
            ],
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (['Basic realm="Registry"'], [("basic", {"realm": "Registry"})]),
        (["BASIC"], [("basic", {})]),
        (["Negotiate", "Basic Realm = tests"], [("negotiate", {}), ("basic", {"realm": "tests"})]),
        (
            ['Basic realm="x", Bearer realm="y" , service=z'],
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "z"})],
        ),
        (["Negotiate dG9rZW4=, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (['Bearer realm="a\\"b\\\\c"'], [("bearer", {"realm": 'a"b\\c'})]),
        (['Bearer realm="a, Basic realm=b"'], [("bearer", {"realm": "a, Basic realm=b"})]),
        (['Bearer realm="first",realm="second"'], [("bearer", {"realm": "first"})]),
        (['Bearer realm="not closed'], [("bearer", {})]),
        (["", ",", "=", '"'], []),
    ],
)
def test_challenges_are_taken_apart(headers: list[str], challenges: list[Challenge]) -> None:
    assert parse_challenges(headers) == challenges


WORD = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,8}", fullmatch=True)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20)


@given(st.lists(st.tuples(WORD, st.dictionaries(WORD.map(str.lower), TEXT, max_size=4)), max_size=4), st.booleans())
def test_whatever_is_quoted_by_the_rules_is_read_back(
    challenges: list[tuple[str, dict[str, str]]], spaces: bool
) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    comma = " , " if spaces else ","
    header = comma.join(
        f"{scheme} " + comma.join(f"{name}={quoted(text)}" for name, text in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges([header]) == [(scheme.lower(), parameters) for scheme, parameters in challenges]


@given(st.text() | st.text(alphabet='abBearer realm="\\,=\t ~+/'))
def test_any_header_can_be_read(header: str) -> None:
    for parsed in parse_challenges([header]):
        assert parsed.scheme == parsed.scheme.lower()


def test_a_long_header_takes_no_long_time() -> None:
    start = time.monotonic()
    for header in ("a " * 30_000, "a=" * 30_000, 'a="' + '\\"' * 30_000, ", " * 30_000, 'B x="' + "y" * 60_000):
        parse_challenges([header])
    assert time.monotonic() - start < 2


# -- realms: R07

HUB = Endpoint("docker.io", "registry-1.docker.io", HostConfig())
PRIVATE = Endpoint("10.1.2.3:5000", "10.1.2.3:5000", HostConfig())
LOOPBACK = Endpoint("localhost:5000", "localhost:5000", HostConfig())


# R07
@pytest.mark.parametrize(
    "realm, endpoint, plain",
    [
        ("https://auth.docker.io/token", HUB, False),
        ("https://auth.docker.io:8443/token?x=y", HUB, False),
        ("HTTPS://AUTH.DOCKER.IO/token", HUB, False),
        ("https://8.8.8.8/token", HUB, False),
        ("https://[2606:4700::1111]/token", HUB, False),
        ("https://10.1.2.3/token", PRIVATE, False),
        ("https://10.1.2.3:5001/token", PRIVATE, False),
        ("http://10.1.2.3:5001/token", PRIVATE, True),
        ("https://auth.example", PRIVATE, False),
        ("http://127.0.0.1:5001/token", LOOPBACK, True),
        ("http://localhost:5000/token", LOOPBACK, True),
        ("https://[::1]:5001/token", LOOPBACK, False),
    ],
)
def test_a_realm_that_may_be_asked(realm: str, endpoint: Endpoint, plain: bool) -> None:
    assert check_realm(realm, endpoint, plain=plain) == realm


# R07
@pytest.mark.parametrize(
    "realm",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/token",
        "http://auth.docker.io/token",
        "https://127.0.0.1/token",
        "https://127.1/token",
        "https://2130706433/token",
        "https://0x7f000001/token",
        "https://0177.0.0.1/token",
        "https://0/token",
        "https://localhost/token",
        "https://localhost./token",
        "https://x.localhost/token",
        "https://10.0.0.1/token",
        "https://192.168.1.1/token",
        "https://172.16.0.1/token",
        "https://100.64.0.1/token",
        "https://[::1]/token",
        "https://[::]/token",
        "https://[fe80::1]/token",
        "https://[fd00::1]/token",
        "https://[::ffff:169.254.169.254]/token",
        "https://[::ffff:a9fe:a9fe]/token",
        "https://[64:ff9b::a9fe:a9fe]/token",
        "https://[2002:7f00:1::]/token",
        "https://registry-1.docker.io@evil.example/token",
        "https://user:pw@auth.docker.io/token",
        "https://auth.docker.io\\@evil.example/token",
        "https://auth.docker.io#@evil.example/token",
        "https://auth.docker.io/to ken",
        "https://auth.docker.io/token\r\nX: y",
        "https://auth.docker.io:port/token",
        "file:///etc/passwd",
        "ftp://auth.docker.io/token",
        "//auth.docker.io/token",
        "/token",
        "https://",
        "https:///token",
        "",
    ],
)
def test_a_realm_that_leads_elsewhere_is_refused(realm: str) -> None:
    with pytest.raises(RegistryFailure, match=r"registry-1\.docker\.io sends us to .* for a token: refused") as caught:
        check_realm(realm, HUB, plain=False)
    assert str(caught.value).isprintable()


# R07
def test_a_neighbour_of_a_private_registry_is_as_internal_as_any() -> None:
    for realm in ("https://10.1.2.4/token", "https://127.0.0.1/token", "http://10.1.2.3/token"):
        with pytest.raises(RegistryFailure, match="refused"):
            check_realm(realm, PRIVATE, plain=False)


# R07
def test_a_refused_realm_gets_no_request_and_the_password_stays_here(
    faults: FaultRegistry, client_with: Callable[..., Client], docker_config: Callable[..., Credentials]
) -> None:
    image = faults.add_image("lib/app:1")
    with FaultRegistry(address="127.0.0.2") as elsewhere:
        client = client_with(credentials=docker_config({faults.host: ("alice", PASSWORD)}))
        for realm in (f"http://user@127.0.0.1:{elsewhere.port}/token", f"http://10.255.255.1:{elsewhere.port}/token"):
            faults.script("/v2/*", [challenge(f'Bearer realm="{realm}"')])
            with pytest.raises(RegistryFailure, match="for a token: refused"):
                client.resolve(reference_to(faults, image))
        assert elsewhere.seen() == []
    assert [r.headers.get("authorization") for r in faults.seen()] == [None, None]


# -- the token flow


def test_a_token_for_everybody_is_fetched_once_and_used_for_all(client: Client) -> None:
    with FaultRegistry(auth="bearer") as registry:
        image = registry.add_image("lib/app:1", [b"one", b"two"])
        client.resolve(reference_to(registry, image))
        assert [fetch_layer(client, registry, image, n) for n in (0, 1)] == [b"one", b"two"]
        [token] = registry.seen("/token")
        assert token.query == {"scope": ["repository:lib/app:pull"], "service": ["tests"]}
        assert "authorization" not in token.headers
        assert [r.headers.get("authorization") for r in registry.seen("/v2/*")] == [None, *["Bearer token-0"] * 3]


def test_another_repository_needs_another_token(client: Client) -> None:
    with FaultRegistry(auth="bearer") as registry:
        for name in ("lib/a:1", "lib/b:1"):
            client.resolve(reference_to(registry, registry.add_image(name)))
        assert [r.query["scope"][0] for r in registry.seen("/token")] == [
            "repository:lib/a:pull",
            "repository:lib/b:pull",
        ]
        assert [r.headers.get("authorization") for r in registry.seen("*/b/*")] == ["Bearer token-1"]


def test_the_password_buys_a_token(
    client_with: Callable[..., Client], docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth="bearer", users={"alice": PASSWORD}) as registry:
        image = registry.add_image("lib/app:1")
        client = client_with(credentials=docker_config({registry.host: ("alice", PASSWORD)}))
        assert client.resolve(reference_to(registry, image)).data == image.manifest
        [token] = registry.seen("/token")
        assert token.query["account"] == ["alice"]
        assert token.headers["authorization"].startswith("Basic ")
        assert all("Basic" not in r.headers.get("authorization", "") for r in registry.seen("/v2/*"))


def test_an_identity_token_is_shown_in_a_form(
    client_with: Callable[..., Client], docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth="bearer", users={"alice": "idt-1"}) as registry:
        image = registry.add_image("lib/app:1")
        client = client_with(credentials=docker_config({registry.host: {"identitytoken": "idt-1"}}))
        assert client.resolve(reference_to(registry, image)).data == image.manifest
        [token] = registry.seen("/token")
        assert (token.method, token.query) == ("POST", {})
        assert b"grant_type=refresh_token" in token.body
        assert b"refresh_token=idt-1" in token.body


def test_basic_asks_for_the_password_itself(
    client_with: Callable[..., Client], docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth="basic", users={"alice": PASSWORD}) as registry:
        image = registry.add_image("lib/app:1", [b"one"])
        client = client_with(credentials=docker_config({registry.host: ("alice", PASSWORD)}))
        client.resolve(reference_to(registry, image))
        assert fetch_layer(client, registry, image) == b"one"
        assert ["authorization" in r.headers for r in registry.seen()] == [False, True, True]


@pytest.mark.parametrize("kind", ["basic", "bearer"])
@pytest.mark.parametrize("password", [None, "wrong"])
def test_without_the_right_password_access_is_denied_in_docker_s_words(
    kind: str, password: str | None, client_with: Callable[..., Client], docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth=kind, users={"alice": PASSWORD}) as registry:
        image = registry.add_image("lib/app:1")
        known = {registry.host: ("alice", password)} if password else {}
        client = client_with(credentials=docker_config(known))
        with pytest.raises(Unauthorized) as caught:
            client.resolve(reference_to(registry, image))
        name = f"{registry.host}/lib/app"
        assert str(caught.value).startswith(
            f"pull access denied for {name}, repository does not exist or may require 'rootless login'"
        )
        assert caught.value.hint == f"try `rootless login {registry.host}`"
        assert len(registry.seen()) <= 3


# G06
def test_a_token_that_expires_meanwhile_is_replaced(client: Client) -> None:
    with FaultRegistry(auth="bearer") as registry:
        image = registry.add_image("lib/app:1", [b"one", b"two"])
        client.resolve(reference_to(registry, image))
        registry.tokens.clear()  # the registry has forgotten it long before its time
        assert fetch_layer(client, registry, image) == b"one"
        assert fetch_layer(client, registry, image, 1) == b"two"
        assert len(registry.seen("/token")) == 2


def test_a_token_is_not_used_beyond_its_life(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultRegistry(auth="bearer", token_life=100) as registry:
        image = registry.add_image("lib/app:1", [b"one"])
        client.resolve(reference_to(registry, image))
        now = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: now() + 96)
        fetch_layer(client, registry, image)
        assert len(registry.seen("/token")) == 2
        assert [r.headers.get("authorization") for r in registry.seen("/v2/*blobs*")] == ["Bearer token-1"]


# G01
def test_a_token_server_with_a_bad_moment_is_asked_again(client: Client) -> None:
    with FaultRegistry(auth="bearer") as registry:
        image = registry.add_image("lib/app:1")
        registry.script("/token", [Fault(status=503), Fault(cut=-1, reset=True), Fault(status=429), OK])
        assert client.resolve(reference_to(registry, image)).data == image.manifest


# R05
@pytest.mark.parametrize(
    "fault, error, reason",
    [
        (Fault(body=b"{" * (1 << 21)), CorruptData, "larger than 1048576 bytes"),
        (Fault(body=b'{"token": "x"}', endless=True), CorruptData, "larger than 1048576 bytes"),
        (Fault(body=b"x" * 1024, endless=True, status=500), CorruptData, "larger than 1048576 bytes"),
        (Fault(body=b"[]"), CorruptData, "not an object"),
        (Fault(body=b"{}"), CorruptData, "not a text that fits into a header"),
        (Fault(body=json.dumps({"token": "a\r\nX-Evil: 1"}).encode()), CorruptData, "not a text that fits"),
        (Fault(body=json.dumps({"token": "a b"}).encode()), CorruptData, "not a text that fits"),
        (Fault(body=json.dumps({"token": "x" * 70_000}).encode()), CorruptData, "not a text that fits"),
        (Fault(body=json.dumps({"token": ["x"]}).encode()), CorruptData, "not a text that fits"),
        (Fault(body=b"<html>"), CorruptData, "not valid JSON"),
        (Fault(status=404), RegistryFailure, "gives no token: unexpected status 404"),
        (Fault(status=302, headers={"Location": "/elsewhere"}), RegistryFailure, "unexpected status 302"),
    ],
)
def test_a_token_server_that_answers_nonsense_is_an_error(
    fault: Fault, error: type[Exception], reason: str, client: Client
) -> None:
    with FaultRegistry(auth="bearer") as registry:
        image = registry.add_image("lib/app:1")
        registry.script("/token", [fault], forever=True)
        with pytest.raises(error, match=reason):
            client.resolve(reference_to(registry, image))
        assert registry.seen("/elsewhere") == []


@pytest.mark.parametrize(
    "more",
    [{}, {"expires_in": "soon"}, {"expires_in": None}, {"expires_in": -5}, {"expires_in": True}, {"issued_at": 7}],
)
def test_what_a_token_says_of_its_life_need_not_make_sense(client: Client, more: dict[str, Any]) -> None:
    with FaultRegistry(auth="bearer") as registry:
        image = registry.add_image("lib/app:1", [b"one"])
        registry.tokens["mine"] = ("", time.monotonic() + 100)
        registry.script("/token", [Fault(body=json.dumps({"access_token": "mine", **more}).encode())], forever=True)
        client.resolve(reference_to(registry, image))
        fetch_layer(client, registry, image)
        assert len(registry.seen("/token")) == 1


# R11
def test_no_failure_shows_a_secret(
    client_with: Callable[..., Client], docker_config: Callable[..., Credentials]
) -> None:
    with FaultRegistry(auth="bearer", users={"alice": "right"}) as registry:
        image = registry.add_image("lib/app:1")
        for fault in (OK, Fault(status=500), Fault(cut=-1), Fault(body=b"x"), Fault(status=401, body=b"{}")):
            registry.forget()
            registry.script("/token", [fault], forever=True)
            client = client_with(credentials=docker_config({registry.host: ("alice", PASSWORD)}))
            with pytest.raises((RegistryFailure, CorruptData)) as caught:
                client.resolve(reference_to(registry, image))
            shown = str(caught.getrepr(showlocals=False, chain=True))
            assert PASSWORD not in shown
            assert "Basic " not in shown
