"""Searching where there is a search, and going through the catalog where there is none."""

import json
from collections.abc import Callable

import pytest

from rootless.engine.search import SearchFilter, split_term
from rootless.errors import CorruptData, NotFound, RegistryFailure, RootlessError, Unauthorized
from rootless.registry.config import RegistryConfig
from rootless.registry.credentials import Credentials
from rootless.registry.search import Repository, search
from tests.registry.conftest import HASTE
from tests.support.fault_registry import Fault, FaultRegistry, challenge

ROW = {"name": "debian", "description": "Debian\nis …", "star_count": 5000, "is_official": True, "is_automated": False}
PASSWORD = "s3cret"


def find(
    registry: FaultRegistry, term: str = "deb", limit: int = 25, credentials: Credentials | None = None
) -> list[str]:
    found = search(RegistryConfig(), credentials or Credentials(), registry.host, "deb", limit, timing=HASTE)
    return [one.name for one in found]


def page(*names: str, link: str = "") -> Fault:
    body = json.dumps({"repositories": names}).encode()
    return Fault(status=200, headers={"Link": link} if link else {}, body=body)


def test_docker_hub_is_searched_by_its_own_way(faults: FaultRegistry) -> None:
    answer = {"num_results": 1, "query": "deb ian", "results": [ROW]}
    faults.script("/v1/search", [Fault(status=200, body=json.dumps(answer).encode())])
    found = search(RegistryConfig(), Credentials(), "docker.io", "deb ian", 25, timing=HASTE, hub=faults.host)
    assert found == [Repository("debian", "Debian\nis …", 5000, True, False)]
    assert faults.seen()[0].query == {"q": ["deb ian"], "n": ["25"]}


def test_a_registry_that_searches_is_let(faults: FaultRegistry) -> None:
    faults.script("/v1/search", [Fault(status=200, body=json.dumps({"results": [ROW, ROW]}).encode())])
    assert find(faults, limit=1) == ["debian"]


def test_the_catalog_is_gone_through_page_by_page(faults: FaultRegistry) -> None:
    faults.script(
        "/v2/_catalog",
        [
            page("a/Debian", "b", link='</v2/_catalog?last=b&n=2>; rel="next"'),
            page("c/deb", "d", link=f"<{faults.url}/v2/_catalog?last=d&n=2>; rel=next"),
            page("e/debs"),
        ],
    )
    assert find(faults) == ["a/Debian", "c/deb", "e/debs"]
    assert [r.query.get("last") for r in faults.seen("/v2/_catalog")] == [None, ["b"], ["d"]]


def test_no_more_pages_are_asked_for_than_are_needed(faults: FaultRegistry) -> None:
    faults.script("/v2/_catalog", [page("deb1", "deb2", link='</v2/_catalog?last=x>; rel="next"')], forever=True)
    assert find(faults, limit=2) == ["deb1", "deb2"]
    assert len(faults.seen("/v2/_catalog")) == 1


# R13
def test_a_catalog_without_end_is_left(faults: FaultRegistry) -> None:
    faults.script("/v2/_catalog", [page("x", link='</v2/_catalog?last=x>; rel="next"')], forever=True)
    with pytest.raises(CorruptData, match="does not end"):
        find(faults)
    assert len(faults.seen("/v2/_catalog")) == 2


# R13
def test_a_next_page_elsewhere_is_not_asked_for(faults: FaultRegistry) -> None:
    with FaultRegistry() as other:
        for link in (f"{other.url}/v2/_catalog?last=x", "/v2/else", "//x@y/v2/_catalog"):
            faults.script("/v2/_catalog", [page("x", link=f'<{link}>; rel="next"')])
            with pytest.raises(RegistryFailure, match=r"elsewhere|no URL"):
                find(faults)
        assert not other.seen()


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Unauthorized), (403, Unauthorized), (404, NotFound), (405, RegistryFailure)]
)
def test_a_catalog_that_is_refused_is_told(status: int, kind: type[RootlessError], faults: FaultRegistry) -> None:
    faults.script("/v2/_catalog", [Fault(status=status)], forever=True)
    with pytest.raises(kind, match=r"does not let us list|unexpected status"):
        find(faults)


def test_the_catalog_is_asked_for_with_the_scope_that_it_takes(
    docker_config: Callable[..., Credentials],
) -> None:
    with FaultRegistry(auth="bearer", users={"alice": PASSWORD}) as registry:
        wants = f'Bearer realm="{registry.url}/token",service="tests",scope="registry:catalog:*"'
        registry.script("/v1/search", [Fault(status=401)])
        registry.script("/v2/_catalog", [challenge(wants), page("debian")])
        credentials = docker_config({registry.host: ("alice", PASSWORD)})
        assert find(registry, credentials=credentials) == ["debian"]
        assert registry.seen("/token")[0].query["scope"] == ["registry:catalog:*"]


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"results": [{}]}', b'{"results": 1}', b"<html>", b'{"results": [{"name": 1}]}']
)
def test_nonsense_is_an_error(body: bytes, faults: FaultRegistry) -> None:
    faults.script("/v1/search", [Fault(status=200, body=body)])
    with pytest.raises(CorruptData):
        find(faults)


def test_filters_select() -> None:
    one = Repository("a", "", 7, True, False)
    assert SearchFilter().takes(one)
    assert SearchFilter(7, True, False).takes(one)
    assert not SearchFilter(8).takes(one)
    assert not SearchFilter(is_official=False).takes(one)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("debian", ("docker.io", "debian")),
        ("alice/app", ("docker.io", "alice/app")),
        ("docker.io/debian", ("docker.io", "debian")),
        ("localhost/x", ("localhost", "x")),
        ("r.example:5000/", ("r.example:5000", "")),
        ("r.example/team/x", ("r.example", "team/x")),
    ],
)
def test_the_registry_is_told_from_the_word(text: str, parts: tuple[str, str]) -> None:
    assert split_term(text) == parts
