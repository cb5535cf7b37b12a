"""A question to one endpoint and its answer: the right scheme, tokens, redirects.

Plain HTTP is a matter of configuration, not of what works: only loopback and registries marked insecure may fall back
to it, only when nothing there speaks TLS, and never again once something has.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, final
from urllib.parse import urljoin, urlsplit

from rootless.errors import RegistryFailure, Unauthorized
from rootless.registry.answers import MAX_ERROR_SIZE, NotTls, Refused, TemporaryFailure, denied, one_line, said
from rootless.registry.auth import Authenticator, is_internal
from rootless.registry.config import Endpoint, host_of, is_loopback
from rootless.registry.transport import Body, Response, Transport, address_of
from rootless.spec.reference import Reference

_MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
_REDIRECTS_WITH_BODY = (307, 308)
_READING = ("GET", "HEAD")
_SIGNED_URL_EXPIRED = (400, 401, 403, 404, 410)  # what the storage behind a registry answers to an old redirect
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Question(NamedTuple):
    """What to ask for, wherever it is asked."""

    reference: Reference
    what: str  # for messages: "manifest", "blob sha256:…"
    path: str  # after the repository's name: "manifests/3.20"; after the host's, where it begins with a slash
    headers: Mapping[str, str]
    method: str = "GET"
    body: Callable[[], Body | bytes] | None = None  # makes what goes with it, anew for each attempt
    verb: str = "pull"  # what is denied where it is refused
    scope: str = ""  # what a token has to be good for, where that is more than pulling


@final
class Exchange:
    """Asks endpoints, from any thread."""

    def __init__(self, transport: Transport, auth: Authenticator) -> None:
        self._transport = transport
        self._auth = auth
        self._schemes: dict[str, str] = {}  # by address, once it has answered

    def ask(self, endpoint: Endpoint, question: Question) -> Response:
        """The answer, of any status but a redirect or a 401 that credentials can mend; the caller's `with` ends it.

        Raises Unauthorized, RegistryFailure, and TemporaryFailure where another attempt may go better.
        """
        return self._ask(endpoint, question, "")

    def open(self, endpoint: Endpoint, path: str, headers: Mapping[str, str]) -> Response:
        """The answer to GET *path*, "/v2/", whatever it is: without tokens, and without following redirects."""
        nowhere = Reference(endpoint.name, "", None, None)
        return self._open(endpoint, Question(nowhere, path, path, headers), headers)

    def is_plain(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint, which has answered, does so in plain HTTP."""
        return self._schemes.get(endpoint.address) == "http"

    def ask_at(self, endpoint: Endpoint, url: str, question: Question) -> Response:
        """Likewise at *url*, where an answer of the endpoint has sent us; question.path does not matter then.

        What we show to the endpoint is shown there only if it is the endpoint's own origin.
        """
        return self._ask(endpoint, question, url)

    def _ask(self, endpoint: Endpoint, question: Question, url: str) -> Response:
        authorization = self._authorization(endpoint, question)
        response = self._follow(endpoint, question, authorization, url)
        if response.status != 401 or not self._is_own(endpoint, response):
            return _checked_redirect(endpoint, question, response)
        again = self._answer_challenge(endpoint, question, response, authorization)
        response = self._follow(endpoint, question, again, url)
        return _checked_redirect(endpoint, question, response)

    def _authorization(self, endpoint: Endpoint, question: Question) -> str | None:
        repository = endpoint.prefix + question.reference.path
        plain = self.is_plain(endpoint)
        try:
            return self._auth.authorization(endpoint, repository, plain=plain, scope=question.scope)
        except Unauthorized as error:
            raise denied(question.reference, endpoint.address, str(error), question.verb) from None

    def _answer_challenge(
        self, endpoint: Endpoint, question: Question, response: Response, sent: str | None
    ) -> str | None:
        """What to send instead of *sent*, to which a 401 came. Raises Unauthorized where nothing is left to try."""
        repository = endpoint.prefix + question.reference.path
        with response:
            _, words = said(response.read_all(MAX_ERROR_SIZE, "error"))
            challenges = response.all("WWW-Authenticate")
        if self._auth.learn(endpoint, repository, challenges, sent, question.scope):
            authorization = self._authorization(endpoint, question)
            if authorization != sent:
                return authorization
        raise denied(question.reference, endpoint.address, words, question.verb)

    def _follow(self, endpoint: Endpoint, question: Question, authorization: str | None, url: str) -> Response:
        """The answer after redirects. What was shown to the endpoint's own origin is shown to no other."""
        headers = dict(question.headers)
        if url:
            self._check_place(endpoint, url)
        if authorization and (not url or self._is_at(endpoint, url)):
            headers["Authorization"] = authorization
        response = self._send(question, url, headers) if url else self._open(endpoint, question, headers)
        for _ in range(_MAX_REDIRECTS):
            if response.status not in _REDIRECTS:
                return response
            response.discard()
            if question.method not in _READING and response.status not in _REDIRECTS_WITH_BODY:
                raise RegistryFailure(f"{endpoint.address}: redirects the {question.what}, but not its content")
            url = next_url(response)
            if question.method not in _READING:
                self._check_place(endpoint, url)
            if _origin(url) != _origin(response.url):
                headers.pop("Authorization", None)
            response = self._send(question, url, headers)
        if response.status not in _REDIRECTS:
            return response
        response.discard()
        raise RegistryFailure(f"{endpoint.address}: more than {_MAX_REDIRECTS} redirects for the {question.what}")

    def _check_place(self, endpoint: Endpoint, url: str) -> None:
        """Raise RegistryFailure where something of ours is to be sent into this network by a registry's word alone."""
        host, own = (urlsplit(url).hostname or "").rstrip(".").lower(), host_of(endpoint.address).lower()
        if is_internal(host) and host != own and not (is_loopback(host) and is_loopback(own)):
            raise RegistryFailure(f"{endpoint.address} sends us to {host} with an upload: refused, it is internal")

    def _send(self, question: Question, url: str, headers: Mapping[str, str]) -> Response:
        return self._transport.send(question.method, url, headers, body=question.body() if question.body else None)

    def _open(self, endpoint: Endpoint, question: Question, headers: Mapping[str, str]) -> Response:
        """The first answer, over TLS; in plain HTTP where that is allowed and there is no TLS."""
        repository = f"/v2/{endpoint.prefix}{question.reference.path}/"
        rest = endpoint.address + ("" if question.path.startswith("/") else repository) + question.path
        known = self._schemes.get(endpoint.address)
        for scheme in (known,) if known else ("https", "http"):
            try:
                response = self._send(question, f"{scheme}://{rest}", headers)
            except (NotTls, Refused) as failure:
                if known or scheme == "http":
                    raise
                if not endpoint.may_be_plain:
                    raise _wants_tls(endpoint, failure) from None
            else:
                break
        self._schemes.setdefault(endpoint.address, scheme)
        return response

    def _is_own(self, endpoint: Endpoint, response: Response) -> bool:
        """Whether *response* comes from the endpoint itself rather than from where it redirected to."""
        return self._is_at(endpoint, response.url)

    def _is_at(self, endpoint: Endpoint, url: str) -> bool:
        return _origin(url) == _origin(f"{self._schemes[endpoint.address]}://{endpoint.address}/")


def _checked_redirect(endpoint: Endpoint, question: Question, response: Response) -> Response:
    """*response*, unless it is another server's refusal: then the registry can be asked for a new redirect."""
    if response.status in _SIGNED_URL_EXPIRED and address_of(response.url) != endpoint.address:
        response.discard()
        raise TemporaryFailure(
            f"{endpoint.address}: {question.what} of {question.reference.path}: "
            f"redirected to {address_of(response.url)}, which answers with status {response.status}"
        )
    return response


def next_url(response: Response) -> str:
    """Where the Location of *response* leads. Raises RegistryFailure for where nobody should go."""
    return resolve_location(response.url, response.headers.get("Location", ""))


def resolve_location(base: str, location: str) -> str:
    """Where *location*, said by the server of *base*, leads. Raises RegistryFailure likewise."""
    here = address_of(base)
    if not location or not location.isascii() or not location.isprintable() or " " in location or "\\" in location:
        raise RegistryFailure(f"{here}: redirects to {one_line(location)!r}, which is no URL")
    try:
        url = urljoin(base, location)
        parts = urlsplit(url)
        valid = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and "@" not in parts.netloc
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise RegistryFailure(f"{here}: redirects to {one_line(location)!r}, which is no URL to go to")
    if base.startswith("https:") and parts.scheme == "http":
        raise RegistryFailure(f"{here}: redirects from https to http, at {parts.netloc}: refused")
    return url


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS[parts.scheme]


def _wants_tls(endpoint: Endpoint, failure: TemporaryFailure) -> RegistryFailure:
    if isinstance(failure, Refused):
        return failure
    return RegistryFailure(
        f"{endpoint.address}: server gave HTTP response to HTTPS client",
        hint=f'if that is as it should be, set insecure = true under [registry."{endpoint.name}"] in config.toml',
    )
