"""A registry is asked whether it knows somebody before a password is kept."""

import pytest

from rootless.errors import NotFound, RegistryFailure, RootlessError, Unauthorized
from rootless.registry.config import RegistryConfig
from rootless.registry.credentials import Credential
from rootless.registry.login import log_in
from tests.registry.conftest import HASTE
from tests.support.fault_registry import Fault, FaultRegistry, challenge

ALICE = Credential("alice", "s3cret-pa:ss")


def try_it(registry: FaultRegistry, credential: Credential = ALICE) -> Credential:
    return log_in(RegistryConfig(), registry.host, credential, HASTE)


@pytest.mark.parametrize("kind", ["", "basic", "bearer"])
def test_a_registry_that_knows_us_says_so(kind: str) -> None:
    with FaultRegistry(auth=kind, users={"alice": ALICE.password}) as registry:
        assert try_it(registry) == ALICE


@pytest.mark.parametrize("kind", ["basic", "bearer"])
@pytest.mark.parametrize("wrong", [Credential("alice", "wrong"), Credential("bob", ALICE.password)])
def test_a_wrong_password_is_refused(kind: str, wrong: Credential) -> None:
    with FaultRegistry(auth=kind, users={"alice": ALICE.password}) as registry:
        with pytest.raises(Unauthorized) as caught:
            try_it(registry, wrong)
        assert wrong.password not in str(caught.value)


def test_an_identity_token_takes_the_place_of_the_password() -> None:
    with FaultRegistry(auth="bearer", users={"alice": ALICE.password}) as registry:
        registry.identity = "buys-others"
        assert try_it(registry) == Credential("alice", "", "buys-others")
        [request] = registry.seen("/token")
        assert request.query["service"] == ["tests"]
        assert "scope" not in request.query


# R07
@pytest.mark.parametrize("realm", ["http://169.254.169.254/token", "https://10.0.0.1/token", "ftp://x/y", ""])
def test_a_password_is_not_shown_to_who_the_registry_should_not_name(realm: str) -> None:
    with FaultRegistry(auth="bearer", users={"alice": ALICE.password}) as registry:
        registry.script("/v2/", [challenge(f'Bearer realm="{realm}",service="x"')])
        with pytest.raises(RegistryFailure, match="refused"):
            try_it(registry)


def test_a_password_does_not_go_along_with_a_redirect() -> None:
    with FaultRegistry(auth="basic", users={"alice": ALICE.password}) as registry, FaultRegistry() as other:
        redirected = Fault(status=307, headers={"Location": f"{other.url}/v2/"})
        registry.script("/v2/", [challenge('Basic realm="x"'), redirected])
        with pytest.raises(RegistryFailure, match="status 307"):
            try_it(registry)
        assert not other.seen()


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Fault(status=404), NotFound, "is no registry"),
        (Fault(status=403), Unauthorized, "unauthorized"),
        (Fault(status=418), RegistryFailure, "status 418"),
        (Fault(status=401), RegistryFailure, "does not say how"),
        (Fault(status=503), RegistryFailure, "status 503"),
    ],
)
def test_what_is_no_registry_is_told(
    answer: Fault, error: type[RootlessError], words: str, faults: FaultRegistry
) -> None:
    faults.script("/v2/", [answer], forever=True)
    with pytest.raises(error, match=words):
        try_it(faults)


def test_what_passes_is_tried_again(faults: FaultRegistry) -> None:
    faults.script("/v2/", [Fault(status=503), Fault(cut=-1)])
    assert try_it(faults) == ALICE
