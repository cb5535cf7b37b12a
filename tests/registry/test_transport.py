import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless.errors import CorruptData, InvalidInput, RegistryFailure
from rootless.registry.answers import NotTls, Refused, TemporaryFailure
from rootless.registry.client import Client
from rootless.registry.config import HostConfig, RegistryConfig, Timing
from rootless.registry.credentials import Credentials
from rootless.registry.transport import Transport
from rootless.spec.reference import parse_reference
from tests.registry.conftest import HASTE
from tests.support.fault_registry import OK, Fault, FaultRegistry

Certificates = Callable[[str], tuple[ssl.SSLContext, str]]


@pytest.fixture
def transport() -> Transport:
    return Transport(RegistryConfig(), HASTE, "rootless/0")


# -- what requests must not do


# R09
def test_passwords_of_netrc_are_not_taken(faults: FaultRegistry, transport: Transport, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    with transport.send("GET", f"{faults.url}/v2/", {}) as response:
        assert response.status == 200
    assert "authorization" not in faults.seen()[0].headers


def test_cookies_are_not_kept(faults: FaultRegistry, transport: Transport) -> None:
    faults.script("/v2/", [Fault(headers={"Set-Cookie": "a=b; Path=/"})])
    for _ in range(2):
        transport.send("GET", f"{faults.url}/v2/", {}).discard()
    assert "cookie" not in faults.seen()[1].headers


# R06
def test_redirects_are_not_followed(faults: FaultRegistry, transport: Transport) -> None:
    faults.script("/v2/", [Fault(status=301, headers={"Location": "/elsewhere"})])
    with transport.send("GET", f"{faults.url}/v2/", {}) as response:
        assert response.status == 301
    assert len(faults.seen()) == 1


# G03
def test_bodies_are_not_decoded(faults: FaultRegistry, transport: Transport) -> None:
    faults.script("/v2/", [Fault(body=b"not gzip at all", headers={"Content-Encoding": "gzip"})])
    with transport.send("GET", f"{faults.url}/v2/", {}) as response:
        assert response.read_all(100, "body") == b"not gzip at all"
    assert faults.seen()[0].headers["accept-encoding"] == "identity"
    assert faults.seen()[0].headers["user-agent"] == "rootless/0"


def test_connections_are_used_again(faults: FaultRegistry, transport: Transport) -> None:
    for _ in range(3):
        with transport.send("GET", f"{faults.url}/v2/", {}) as response:
            response.read_all(100, "body")
        transport.send("GET", f"{faults.url}/v2/nothing", {}).discard()
    assert {request.connection for request in faults.seen()} == {1}


# -- R05


# R05
@pytest.mark.parametrize(
    "fault", [Fault(body=b"x" * 11), Fault(body=b"x" * 11, chunked=True), Fault(body=b"x", endless=True)]
)
def test_a_body_over_the_limit_is_not_read_on(faults: FaultRegistry, transport: Transport, fault: Fault) -> None:
    faults.script("/v2/", [fault])
    with (
        transport.send("GET", f"{faults.url}/v2/", {}) as response,
        pytest.raises(CorruptData, match="larger than 10 bytes"),
    ):
        response.read_all(10, "thing")


# -- silence: G05


# G05
def test_headers_that_never_end_are_given_up(faults: FaultRegistry, transport: Transport) -> None:
    faults.script("/v2/", [Fault(drip_headers=0.02)])
    start = time.monotonic()
    with pytest.raises(TemporaryFailure, match="timed out"):
        transport.send("GET", f"{faults.url}/v2/", {})
    assert 0.5 < time.monotonic() - start < 2


# G05
def test_an_answer_that_does_not_begin_is_given_up(faults: FaultRegistry, transport: Transport) -> None:
    faults.script("/v2/", [Fault(delay=30)])
    with pytest.raises(TemporaryFailure, match="timed out"):
        transport.send("GET", f"{faults.url}/v2/", {})


# G05
def test_a_body_that_drips_is_given_up_and_one_that_flows_slowly_is_not(
    faults: FaultRegistry, transport: Transport
) -> None:
    faults.script("/v2/", [Fault(body=b"x" * 1000, drip=0.05), Fault(body=b"x" * 300, drip=0.004)])
    start = time.monotonic()
    with transport.send("GET", f"{faults.url}/v2/", {}) as response, pytest.raises(TemporaryFailure, match="timed out"):
        response.read_all(1000, "body")
    assert time.monotonic() - start < 2
    with transport.send("GET", f"{faults.url}/v2/", {}) as response:
        assert len(response.read_all(1000, "body")) == 300  # takes longer than the stall timeout as a whole
    assert time.monotonic() - start > 1.2


# G05
def test_a_server_that_says_nothing_to_tls_is_given_up(transport: Transport) -> None:
    with FaultRegistry() as silent:
        silent.spoil_connections("hang")
        start = time.monotonic()
        with pytest.raises(TemporaryFailure, match="timed out"):
            transport.send("GET", f"https://{silent.host}/v2/", {})
        assert time.monotonic() - start < 4


# G05
def test_a_cancel_ends_what_another_thread_waits_for(faults: FaultRegistry, transport: Transport) -> None:
    patient = Transport(RegistryConfig(), Timing(), "rootless/0")
    faults.script("/v2/", [Fault(body=b"x" * 1000, stall=10)])
    with patient.send("GET", f"{faults.url}/v2/", {}) as response:
        patient.watch.cancelled.set()
        start = time.monotonic()
        with pytest.raises(RegistryFailure):
            response.read_all(1000, "body")
    assert time.monotonic() - start < 1
    with pytest.raises(RegistryFailure, match=r"^cancelled$"):
        patient.send("GET", f"{faults.url}/v2/", {})


# -- TLS: R12


def resolve(registry: FaultRegistry, hosts: dict[str, HostConfig] | None = None, host: str = "") -> bytes:
    with Client(RegistryConfig(hosts or {}), Credentials(), HASTE) as client:
        return client.resolve(parse_reference(f"{host or registry.host}/lib/app:1")).data


# R12
def test_a_certificate_of_the_user_s_own_authority_is_good(certificates: Certificates) -> None:
    context, ca_file = certificates("good")
    with FaultRegistry(tls=context) as registry:
        image = registry.add_image("lib/app:1")
        assert resolve(registry, {registry.host: HostConfig(ca_file=ca_file)}) == image.manifest


# R12
@pytest.mark.parametrize(
    "kind, reason",
    [
        ("good", "unable to get local issuer certificate"),  # nobody has said to trust that authority
        ("self-signed", "self-signed certificate"),
        ("wrong host", "IP address mismatch"),
        ("expired", "certificate has expired"),
        ("another authority", "unable to get local issuer certificate"),
    ],
)
def test_a_bad_certificate_is_refused_without_falling_back_to_http(
    kind: str, reason: str, certificates: Certificates
) -> None:
    context, ca_file = certificates(kind)
    with FaultRegistry(tls=context) as registry:
        with pytest.raises(RegistryFailure, match=f"its certificate is not valid: .*{reason}") as caught:
            resolve(registry, {} if kind == "good" else {registry.host: HostConfig(ca_file=ca_file)})
        assert not isinstance(caught.value, TemporaryFailure)
        assert "ca_file" in caught.value.hint
        assert registry.seen() == []


# R12
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["self-signed", "wrong host", "expired"])
def test_an_insecure_registry_may_have_any_certificate(kind: str, certificates: Certificates) -> None:
    with FaultRegistry(tls=certificates(kind)[0]) as registry:
        image = registry.add_image("lib/app:1")
        assert resolve(registry, {registry.host: HostConfig(insecure=True)}) == image.manifest


# R12
def test_one_registry_s_authority_does_not_vouch_for_another(certificates: Certificates) -> None:
    context, ca_file = certificates("good")
    with FaultRegistry(tls=context) as registry, FaultRegistry(tls=context) as other:
        image = registry.add_image("lib/app:1")
        other.add_image("lib/app:1")
        hosts = {registry.host: HostConfig(ca_file=ca_file)}
        assert resolve(registry, hosts) == image.manifest
        with pytest.raises(RegistryFailure, match="certificate is not valid"):
            resolve(other, hosts)


def test_an_authority_s_file_that_cannot_be_read_is_named(tmp_path: Path, faults: FaultRegistry) -> None:
    (tmp_path / "empty.pem").write_text("nothing\n")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(InvalidInput, match=f"cannot read certificates from {tmp_path / name}"):
            resolve(faults, {faults.host: HostConfig(ca_file=str(tmp_path / name))})


# R12
def test_what_fails_before_tls_is_told_apart(transport: Transport, certificates: Certificates) -> None:
    with FaultRegistry() as plain, pytest.raises(NotTls, match="TLS failed: wrong version number"):
        transport.send("GET", f"https://{plain.host}/v2/", {})
    with pytest.raises(Refused, match="connection refused"):
        transport.send("GET", f"https://{plain.host}/v2/", {})
    with FaultRegistry(tls=certificates("good")[0]) as registry:
        registry.spoil_connections("reset", "close")
        for _ in range(2):
            with pytest.raises(TemporaryFailure) as caught:
                transport.send("GET", f"https://{registry.host}/v2/", {})
            assert not isinstance(caught.value, (NotTls, Refused))


def test_what_the_caller_was_dealing_with_is_not_taken_for_the_reason(transport: Transport) -> None:
    with FaultRegistry() as gone:
        host = gone.host
    try:
        raise ssl.SSLCertVerificationError("another matter")
    except ssl.SSLError:
        with pytest.raises(Refused):
            transport.send("GET", f"http://{host}/v2/", {})


# -- names and proxies


def test_a_name_that_does_not_exist_is_an_error_in_one_line(transport: Transport) -> None:
    for name in ("no-such-host.invalid", "a" * 64 + ".invalid", "a..b", "a:99999999", "[::::]"):
        with pytest.raises(RegistryFailure) as caught:
            transport.send("GET", f"https://{name}/v2/", {})
        assert str(caught.value).startswith(f"{name}: ")
        assert "\n" not in str(caught.value)


# G06
def test_the_proxy_of_the_environment_is_used_but_not_for_loopback(
    faults: FaultRegistry, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultRegistry() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "inside.example")
        proxy.script("*", [OK, Fault(status=403)])
        with transport.send("GET", "http://registry.example/v2/", {}) as response:
            assert response.status == 200
        with pytest.raises(RegistryFailure, match=r"registry\.example: .*403"):
            transport.send("GET", "https://registry.example/v2/", {})
        assert [request.method for request in proxy.seen()] == ["GET", "CONNECT"]
        assert proxy.seen()[0].headers["host"] == "registry.example"
        transport.send("GET", f"{faults.url}/v2/", {}).discard()
        with pytest.raises(RegistryFailure):
            transport.send("GET", "http://inside.example:1/v2/", {})
        assert len(proxy.seen()) == 2
