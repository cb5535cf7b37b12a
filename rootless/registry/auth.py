"""Tokens: what a registry wants to see before it answers, and how to get it.

A registry that wants to know who asks answers 401 with challenges (RFC 7235). To `Basic` we show name and password. To
`Bearer` we show a token, which we fetch from the *realm* that the challenge names, for a *scope* such as
`repository:library/alpine:pull`; most registries hand out tokens to everybody, and those of the owner to who shows the
password there. Protocol: distribution's docs "token", "oauth", "scope".

The realm is a stranger's wish where to send passwords, and which address to call from inside this network. So it must
be https, unless the registry itself is spoken to in the clear, must not hide its host behind a user name, and must not
be a literal internal address, unless the registry is on that host. Redirects of a realm are not followed.
"""

import ipaddress
import re
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, final
from urllib.parse import quote, urlencode

from rootless.errors import CorruptData, RegistryFailure, Unauthorized
from rootless.registry.answers import TemporaryFailure, one_line, parse_retry_after, said
from rootless.registry.config import Endpoint, host_of, is_loopback
from rootless.registry.credentials import Credential, Credentials
from rootless.registry.transport import Transport, address_of
from rootless.spec.strict_json import parse_json

CLIENT_ID = "rootless"
_MAX_ANSWER = 1 << 20  # bytes
_MAX_TOKEN = 1 << 16  # characters; it has to fit into a header
_MIN_LIFE = 60.0  # seconds: what a token lives if nothing is said, and at least, as with Docker
_SPARE = 5.0  # seconds before its end at which a token is not used any more

# RFC 7230 token; RFC 7235 token68.
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?=\s|,|$)\s*")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?=,|$)', re.DOTALL)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*\s*(?=,|$)")
_REALM = re.compile(r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(/[!-~]*)?", re.IGNORECASE)


class Challenge(NamedTuple):
    """One way to show who one is: "bearer" or "basic", lower-case, with its parameters."""

    scheme: str
    parameters: Mapping[str, str]


_Key = tuple[str, str, str]  # endpoint, repository, and the scope that is wanted there


class _Token(NamedTuple):
    value: str
    end: float  # time.monotonic()
    refresh: str = ""  # an identity token, which buys others


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """The challenges in the values of WWW-Authenticate headers. What cannot be understood ends its header."""
    return [challenge for header in headers for challenge in _challenges_in(header)]


def merge_scopes(wanted: str, challenged: str) -> str:
    """*wanted*, and what *challenged* says of other things: scopes, "TYPE:NAME:ACTIONS", with spaces between."""
    ours = wanted.split()
    known = {scope.rpartition(":")[0] for scope in ours}
    return " ".join([*ours, *(scope for scope in challenged.split() if scope.rpartition(":")[0] not in known)])


def check_realm(realm: str, endpoint: Endpoint, *, plain: bool) -> str:
    """*realm*, if a token may be asked for there; *plain* where the registry speaks HTTP. Raises RegistryFailure."""
    parts = _REALM.fullmatch(realm)
    if not parts or "#" in realm or "\\" in realm:
        raise _bad_realm(endpoint, realm, "it is not a plain URL")
    if parts[1].lower() == "http" and not plain:
        raise _bad_realm(endpoint, realm, "it is not https")
    host, own = parts[2].strip("[]").rstrip(".").lower(), host_of(endpoint.address).lower()
    if is_internal(host) and host != own and not (is_loopback(host) and is_loopback(own)):
        raise _bad_realm(endpoint, realm, "it is an internal address")
    return realm


@final
class Authenticator:
    """Knows what each endpoint wants, and keeps tokens while they are good. For use from any thread."""

    def __init__(self, transport: Transport, credentials: Credentials) -> None:
        self._transport = transport
        self._credentials = credentials
        self._lock = threading.Lock()
        self._fetching: dict[_Key, threading.Lock] = {}
        self._challenges: dict[str, Challenge] = {}  # by endpoint
        self._scopes: dict[_Key, str] = {}  # what a challenge asked for
        self._tokens: dict[_Key, _Token] = {}

    def authorization(self, endpoint: Endpoint, repository: str, *, plain: bool, scope: str = "") -> str | None:
        """The Authorization header to send, or None as long as the endpoint has not asked for any.

        *scope* is what a token is asked for, besides what the challenge says; else it is for pulling.
        Raises Unauthorized where there is no credential or it is refused, RegistryFailure where no token is to be had.
        """
        challenge = self._challenges.get(endpoint.name)
        if challenge is None:
            return None
        try:
            if challenge.scheme == "basic":
                return self._basic(endpoint, repository)
            return f"Bearer {self._token(endpoint, (endpoint.name, repository, scope), challenge, plain).value}"
        except RegistryFailure:
            with self._lock:  # the next request begins anew: the registry may have changed its mind
                self._challenges.pop(endpoint.name, None)
            raise

    def log_in(
        self, endpoint: Endpoint, challenge: Challenge, credential: Credential, *, plain: bool
    ) -> tuple[str, str]:
        """A token that says no more than who we are, and an identity token if the server gives one.

        Raises Unauthorized where *credential* is refused.
        """
        realm = check_realm(challenge.parameters.get("realm", ""), endpoint, plain=plain)
        query = {"account": credential.username, "client_id": CLIENT_ID, "offline_token": "true"}
        if service := challenge.parameters.get("service"):
            query["service"] = service
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query, quote_via=quote)}"
        token = self._ask("GET", url, {"Authorization": credential.basic()}, None)
        return token.value, token.refresh

    def learn(
        self, endpoint: Endpoint, repository: str, headers: Iterable[str], sent: str | None, scope: str = ""
    ) -> bool:
        """Take in the challenges of a 401 to a request with the Authorization *sent*; tell whether to try again."""
        usable = {challenge.scheme: challenge for challenge in reversed(parse_challenges(headers))}
        challenge = usable.get("bearer") or usable.get("basic")
        if challenge is None:
            return False
        with self._lock:
            key = (endpoint.name, repository, scope)
            self._challenges[endpoint.name] = challenge
            self._scopes[key] = challenge.parameters.get("scope", "")
            if key in self._tokens and sent == f"Bearer {self._tokens[key].value}":
                del self._tokens[key]
        return True

    def _basic(self, endpoint: Endpoint, repository: str) -> str:
        credential = self._credentials.find(endpoint.name, repository)
        if credential is None or not credential.username:
            raise Unauthorized(f"{endpoint.address} wants a user name and a password")
        return credential.basic()

    def _token(self, endpoint: Endpoint, key: _Key, challenge: Challenge, plain: bool) -> _Token:
        with self._lock:
            one_at_a_time = self._fetching.setdefault(key, threading.Lock())
        with one_at_a_time:
            token = self._tokens.get(key)
            if token is None or time.monotonic() > token.end - _SPARE:
                token = self._fetch(endpoint, key, challenge, plain)
                with self._lock:
                    self._tokens[key] = token
            return token

    def _fetch(self, endpoint: Endpoint, key: _Key, challenge: Challenge, plain: bool) -> _Token:
        realm = check_realm(challenge.parameters.get("realm", ""), endpoint, plain=plain)
        _, repository, scope = key
        wanted = {"scope": merge_scopes(scope, self._scopes.get(key, "")) or f"repository:{repository}:pull"}
        if service := challenge.parameters.get("service"):
            wanted["service"] = service
        credential = self._credentials.find(endpoint.name, repository)
        if credential and credential.identity_token:
            form = {**wanted, "client_id": CLIENT_ID, "grant_type": "refresh_token"}
            return self._ask("POST", realm, {}, {**form, "refresh_token": credential.identity_token})
        query = _with_account(wanted, credential)
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query, quote_via=quote)}"
        return self._ask("GET", url, {"Authorization": credential.basic()} if credential else {}, None)

    def _ask(self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None) -> _Token:
        address = address_of(url)
        with self._transport.send(method, url, headers, form) as response:
            body = response.read_all(_MAX_ANSWER, "the answer to a request for a token")
            if response.status == 200:
                return _parse_token(body, address)
            reason = f": {said(body)[1]}" if said(body)[1] else ""
            if response.status in (400, 401, 403):
                raise Unauthorized(f"{address} gives no token{reason}", hint="check the user name and the password")
            if response.status in (408, 429) or response.status >= 500:
                retry_after = parse_retry_after(response.headers.get("Retry-After", ""))
                message = f"{address} gives no token: status {response.status}{reason}"
                raise TemporaryFailure(message, retry_after=retry_after)
            raise RegistryFailure(f"{address} gives no token: unexpected status {response.status}{reason}")


def _with_account(wanted: Mapping[str, str], credential: Credential | None) -> dict[str, str]:
    if credential is None:
        return dict(wanted)
    return {**wanted, "account": credential.username, "client_id": CLIENT_ID}


def _parse_token(body: bytes, address: str) -> _Token:
    answer = parse_json(body, limit=_MAX_ANSWER, what=f"the token of {address}")
    if not isinstance(answer, dict):
        raise CorruptData(f"the token of {address} is not an object")
    value = answer.get("token") or answer.get("access_token")
    if not isinstance(value, str) or len(value) > _MAX_TOKEN or not re.fullmatch(r"[!-~]+", value):
        raise CorruptData(f"the token of {address} is not a text that fits into a header")
    life: Any = answer.get("expires_in")
    if not isinstance(life, (int, float)) or isinstance(life, bool):
        life = 0
    refresh = answer.get("refresh_token") or ""
    if not isinstance(refresh, str) or len(refresh) > _MAX_TOKEN:
        raise CorruptData(f"the refresh_token of {address} is not a text of a token's size")
    return _Token(value, time.monotonic() + max(float(life), _MIN_LIFE), refresh)


def _challenges_in(header: str) -> Iterable[Challenge]:
    position = 0
    while scheme := _SCHEME.match(header, position):
        position = scheme.end()
        parameters, position = _parameters(header, position)
        if not parameters and (blob := _TOKEN68.match(header, position)):
            position = blob.end()
        yield Challenge(scheme[1].lower(), parameters)


def _parameters(header: str, position: int) -> tuple[dict[str, str], int]:
    """The parameters from *position* on, by lower-case name, the first of each name, and where they end."""
    parameters: dict[str, str] = {}
    while found := _PARAMETER.match(header, position):
        quoted = found[2]
        value = found[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        parameters.setdefault(found[1].lower(), value)
        position = found.end()
    return parameters, position


def is_internal(host: str) -> bool:
    """Whether *host* is a literal address, in any spelling that connect() takes, which is not of the public network."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f000001, 2130706433
        except OSError:
            return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or _nat64(address)
        return not address.is_global or bool(inner and not inner.is_global)
    return not address.is_global


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address in one of the well-known prefix 64:ff9b::/96 (RFC 6052)."""
    if address in ipaddress.IPv6Network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _bad_realm(endpoint: Endpoint, realm: str, why: str) -> RegistryFailure:
    return RegistryFailure(f"{endpoint.address} sends us to {one_line(realm)!r} for a token: refused, {why}")
