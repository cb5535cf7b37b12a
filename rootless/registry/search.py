"""Which repositories a registry has: Docker Hub's search, and for others the catalog.

Docker Hub and some others answer `GET /v1/search?q=TERM`, with descriptions and stars. The distribution protocol has
no search, but a catalog, `GET /v2/_catalog`, in pages: that is gone through, and filtered here. Many registries refuse
it, as it names what other people have.

The next page is where the Link header says, which is followed within the catalog of the same registry only, to no page
twice, and not for ever.
"""

import re
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from rootless import __version__
from rootless.errors import CorruptData, NotFound, RegistryFailure, Unauthorized
from rootless.registry.answers import MAX_ERROR_SIZE, login_hint, refusal
from rootless.registry.auth import Authenticator
from rootless.registry.config import DOCKER_HUB, Endpoint, RegistryConfig, Timing, endpoints
from rootless.registry.credentials import Credentials
from rootless.registry.exchange import Exchange, Question, resolve_location
from rootless.registry.patience import patiently
from rootless.registry.transport import Response, Transport
from rootless.spec.reference import Reference
from rootless.spec.strict_json import parse_json

HUB_SEARCH = "index.docker.io"
_MAX_ANSWER = 4 << 20  # bytes
_MAX_PAGES = 100
_PAGE = 1000  # repositories
_MAX_RESULTS = 1000  # of one search
_NEXT = re.compile(r'<([^<>]*)>\s*;\s*rel="?next"?')
_NO_SEARCH = (301, 302, 307, 308, 400, 401, 403, 404, 405, 501)


class Repository(NamedTuple):
    """What a search has found. A catalog knows names alone."""

    name: str
    description: str = ""
    stars: int = 0
    is_official: bool = False
    is_automated: bool = False


def search(
    config: RegistryConfig,
    credentials: Credentials,
    domain: str,
    term: str,
    limit: int,
    *,
    timing: Timing | None = None,
    hub: str = HUB_SEARCH,
) -> list[Repository]:
    """At most *limit* repositories of the registry *domain* that *term* means. *hub* is where Docker Hub searches.

    Raises Unauthorized and other RegistryFailures, CorruptData.
    """
    transport = Transport(config, timing or Timing(), f"rootless/{__version__}")
    try:
        seeker = _Seeker(transport, credentials, endpoints(config, domain)[-1])
        if domain == DOCKER_HUB:
            found = seeker.search(Endpoint(domain, hub, config.host(hub)), term, limit)
            if found is None:
                raise RegistryFailure(f"{hub} does not search")
        else:
            found = seeker.search(seeker.endpoint, term, limit)
            if found is None:
                found = seeker.catalog(term, limit)
        return found[:limit]
    finally:
        transport.close()


class _Seeker:
    """One registry, and how to ask it."""

    def __init__(self, transport: Transport, credentials: Credentials, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._watch = transport.watch
        self._exchange = Exchange(transport, Authenticator(transport, credentials))

    def search(self, endpoint: Endpoint, term: str, limit: int) -> list[Repository] | None:
        """What the search of *endpoint* finds; None where it has none."""
        path = f"/v1/search?{urlencode({'q': term, 'n': limit})}"

        def attempt() -> list[Repository] | None:
            with self._exchange.open(endpoint, path, {}) as response:
                if response.status in _NO_SEARCH:
                    return None
                return _parse_results(self._json(response, Question(self._nowhere, "search", path, {})))

        return patiently(self._watch, attempt)

    def catalog(self, term: str, limit: int) -> list[Repository]:
        """The repositories with *term* in their names, as the catalog has them."""
        found: list[Repository] = []
        url, seen = f"/v2/_catalog?n={_PAGE}", set[str]()
        while url and len(found) < limit:
            if url in seen or len(seen) == _MAX_PAGES:
                raise CorruptData(f"{self.endpoint.address}: its catalog does not end")
            seen.add(url)
            names, url = self._page(url)
            found += [Repository(name) for name in names if term.lower() in name.lower()]
        return found

    def _page(self, path: str) -> tuple[list[str], str]:
        """The names of one page, and the path of the next one."""
        question = Question(self._nowhere, "catalog", path, {}, "GET", None, "search", "registry:catalog:*")
        try:
            with patiently(self._watch, lambda: self._exchange.ask(self.endpoint, question)) as response:
                document = self._json(response, question)
                names = document.get("repositories") if isinstance(document, dict) else None
                if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                    raise CorruptData(f"{self.endpoint.address}: its catalog is no list of names")
                return names, self._next(response)
        except (Unauthorized, NotFound) as error:
            kind = type(error)
            message = f"{self.endpoint.address} does not search, and does not let us list its repositories"
            raise kind(message, hint=login_hint(self.endpoint.name) if kind is Unauthorized else "") from None

    def _next(self, response: Response) -> str:
        """The path of the next page; empty after the last one. Raises RegistryFailure for one that leads elsewhere."""
        link = _NEXT.search(response.headers.get("Link", ""))
        if link is None:
            return ""
        here, there = urlsplit(response.url), urlsplit(resolve_location(response.url, link[1]))
        if (there.scheme, there.netloc, there.path) != (here.scheme, here.netloc, "/v2/_catalog"):
            raise RegistryFailure(f"{self.endpoint.address}: the next page of its catalog is said to be elsewhere")
        return f"{there.path}?{there.query}"

    def _json(self, response: Response, question: Question) -> Any:
        if response.status != 200:
            body = response.read_all(MAX_ERROR_SIZE, "error")
            address = self.endpoint.address
            raise refusal(response.status, response.headers, body, self._nowhere, address, question.what, "search")
        data = response.read_all(_MAX_ANSWER, question.what)
        return parse_json(data, limit=_MAX_ANSWER, what=f"the answer of {self.endpoint.address}")

    @property
    def _nowhere(self) -> Reference:
        return Reference(self.endpoint.name, "", None, None)


def _parse_results(document: Any) -> list[Repository]:
    rows = document.get("results") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise CorruptData("the answer to a search is no list")
    return [_parse_row(row) for row in rows[:_MAX_RESULTS]]


def _parse_row(row: Any) -> Repository:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise CorruptData("the answer to a search has a repository without a name")
    description, stars = row.get("description"), row.get("star_count")
    return Repository(
        row["name"],
        description if isinstance(description, str) else "",
        stars if isinstance(stars, int) else 0,
        row.get("is_official") is True,
        row.get("is_automated") is True,
    )
