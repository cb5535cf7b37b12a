"""One request, one answer: TLS, proxies, a session for each thread, and failures in words.

requests does much for its callers that must not happen with servers that are not trusted, and is kept from it here: it
follows redirects with whatever it was given, takes passwords from ~/.netrc, keeps cookies, decodes bodies, and trusts
its own list of authorities rather than the system's. All of that but the last is in Session.send(), which is left out:
a Session serves to keep adapters. What a redirect or a second attempt may do, exchange.py and client.py decide.
"""

import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.client import HTTPException, IncompleteRead
from socket import EAI_NONAME, gaierror
from typing import Any, Protocol, final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies
from urllib3.exceptions import HTTPError, LocationValueError

from rootless.errors import CorruptData, InvalidInput, RegistryFailure
from rootless.registry.answers import NotTls, Refused, TemporaryFailure, one_line
from rootless.registry.config import RegistryConfig, Timing, host_of, is_loopback
from rootless.registry.connections import Watch, pool_classes

_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")  # OpenSSL's reasons
_AUTHORITIES = ("/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem")
_WORTH_READING = 1 << 14  # bytes of a body that nobody wants
_HEADERS = {"Accept-Encoding": "identity", "Connection": "keep-alive"}


class Body(Protocol):
    """What goes with a request: pieces, in order, and how many bytes they are together."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __len__(self) -> int: ...


@final
class Response:
    """An answer whose body has not been read yet. Leaving its `with` block gives the connection back, or ends it."""

    def __init__(self, response: requests.Response, address: str) -> None:
        self._response = response
        self._address = address
        self.url = str(response.url)
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def discard(self) -> None:
        """End it without interest in the body. A short one is read, so that the connection can be used again."""
        with self:
            length = self.content_length
            if length is not None and length <= _WORTH_READING:
                with suppress(TemporaryFailure):  # then the connection is not used again, and that is all
                    self.read(_WORTH_READING)

    @property
    def content_length(self) -> int | None:
        """What the server says the body's length is, if it says a number."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None

    def all(self, header: str) -> list[str]:
        """Every value of *header*, which may stand there more than once."""
        values: list[str] = self._response.raw.headers.getlist(header)
        return values

    def read(self, count: int) -> bytes:
        """The next *count* bytes as they came, whatever Content-Encoding says; fewer only at the end of the body.

        Raises TemporaryFailure where the connection breaks or stalls; what was read for this call is lost then.
        """
        try:
            data: bytes = self._response.raw.read(count, decode_content=False)
        except (HTTPError, HTTPException, OSError) as error:
            raise failure_of(error, self._address) from None
        return data

    def read_all(self, limit: int, what: str) -> bytes:
        """The whole body. Raises CorruptData where it has more than *limit* bytes, without reading on."""
        pieces, left = [], limit + 1
        while left and (data := self.read(min(left, 1 << 16))):
            pieces.append(data)
            left -= len(data)
        if not left:
            raise CorruptData(f"{self._address}: {what} is larger than {limit} bytes")
        return b"".join(pieces)


@final
class Transport:
    """Sends requests from any thread."""

    def __init__(self, config: RegistryConfig, timing: Timing, user_agent: str) -> None:
        self.watch = Watch(timing)
        self._config = config
        self._headers = {**_HEADERS, "User-Agent": user_agent}
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._sessions: list[requests.Session] = []
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    def close(self) -> None:
        """End the connections that wait for a further use."""
        with self._lock:
            for session in self._sessions:
                session.close()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None = None,
        body: Body | bytes | None = None,
    ) -> Response:
        """The answer to one request, of any status. Raises TemporaryFailure or RegistryFailure where there is none.

        What iterating *body* raises that is none of ours to explain (CorruptData, for one) is raised as it is.
        """
        address = address_of(url)
        timing = self.watch.timing
        if self.watch.cancelled.is_set():
            raise RegistryFailure("cancelled")
        data: Any = form if body is None else body
        request = requests.Request(method, url, headers={**self._headers, **headers}, data=data)
        try:
            # Session.send() would read all of a redirect's body and follow its Location far enough to fail on it.
            adapter = self._session().get_adapter(url)
            timeout = (timing.connect, timing.headers)
            answer = adapter.send(request.prepare(), stream=True, timeout=timeout, proxies=_proxies(url))
        except (requests.RequestException, HTTPError, HTTPException, OSError, UnicodeError) as error:
            raise failure_of(error, address) from None
        return Response(answer, address)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._mine, "session", None)
        if session is None:
            session = self._mine.session = self._new_session()
            with self._lock:
                self._sessions.append(session)
        return session

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.mount("http://", _Adapter(self.watch, None))
        session.mount("https://", _Adapter(self.watch, self._context("", insecure=False)))
        for name, host in self._config.hosts.items():
            if host.ca_file or host.insecure:
                session.mount(f"https://{name}/", _Adapter(self.watch, self._context(host.ca_file, host.insecure)))
        return session

    def _context(self, ca_file: str, insecure: bool) -> ssl.SSLContext:
        with self._lock:
            if (ca_file, insecure) not in self._contexts:
                self._contexts[ca_file, insecure] = _tls_context(ca_file, insecure)
            return self._contexts[ca_file, insecure]


class _Adapter(HTTPAdapter):
    """requests' adapter with our TLS context and our connections."""

    def __init__(self, watch: Watch, context: ssl.SSLContext | None) -> None:
        self._pools = pool_classes(watch)
        verified = context is None or context.verify_mode == ssl.CERT_REQUIRED
        self._tls: dict[str, Any] = {"ssl_context": context} if context else {}
        self._tls["cert_reqs"] = "CERT_REQUIRED" if verified else "CERT_NONE"
        super().__init__()

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **options, **self._tls)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options, **self._tls)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def cert_verify(self, *_: Any) -> None:
        """Nothing: the context knows whom to trust."""

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> tuple[Any, Any]:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {}


def address_of(url: str) -> str:
    """`host` or `host:port` of *url*, for messages."""
    return url.partition("//")[2].partition("/")[0]


def failure_of(error: Exception, address: str) -> RegistryFailure:
    """What went wrong with *address*, for people; from the innermost reason that the libraries wrapped."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RegistryFailure(
                f"{address}: its certificate is not valid: {cause.verify_message}",
                hint=f'for an authority of your own, set ca_file under [registry."{address}"] in config.toml',
            )
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            reason = cause.reason or "connection closed"
            kind = NotTls if reason in _NOT_TLS else TemporaryFailure
            return kind(f"{address}: TLS failed: {reason.replace('_', ' ').lower()}")
        if isinstance(cause, ConnectionRefusedError):
            return Refused(f"{address}: connection refused", cost=2)
        if isinstance(cause, gaierror):
            if cause.errno == EAI_NONAME:
                return TemporaryFailure(f"{address}: no such host", cost=2)
            return TemporaryFailure(f"{address}: {str(cause.strerror).lower()}")
        if isinstance(cause, TimeoutError):
            return TemporaryFailure(f"{address}: timed out")
        if isinstance(cause, (LocationValueError, requests.exceptions.InvalidURL)):
            return RegistryFailure(f"{address}: not a valid host or port")
        if isinstance(cause, IncompleteRead):
            return TemporaryFailure(f"{address}: the connection ended before the body did")
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno:
            return TemporaryFailure(f"{address}: {os.strerror(cause.errno).lower()}")
    return TemporaryFailure(f"{address}: {one_line(str(causes[-1])) or 'connection failed'}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error* and what it was made from, outermost first. __context__ may be the caller's own trouble: left out."""
    queue, seen = [error], set()
    while queue:
        current = queue.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = (*current.args, getattr(current, "reason", None), current.__cause__)
        queue.extend(item for item in inner if isinstance(item, BaseException))


def _proxies(url: str) -> dict[str, str]:
    """The proxy that the environment names for *url*. As with Docker there is none for loopback."""
    if is_loopback(host_of(address_of(url))):
        return {}
    return get_environ_proxies(url, no_proxy=None)


def _tls_context(ca_file: str, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # The user has said so; there is nothing to warn of at each request.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return context
    if not _has_system_authorities():
        context.load_verify_locations(next((p for p in _AUTHORITIES if os.path.exists(p)), DEFAULT_CA_BUNDLE_PATH))
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError, for a file without certificates, is one
            raise InvalidInput(f"cannot read certificates from {ca_file}: {error.strerror or error}") from None
    return context


def _has_system_authorities() -> bool:
    """Whether OpenSSL, as Python was built with it, knows where this system keeps its authorities."""
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile or (paths.capath and os.listdir(paths.capath)))
