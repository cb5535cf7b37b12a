"""The distribution protocol, from the side of who pushes: blobs first, then the manifest that speaks of them.

    HEAD blob ─▶ there already
    POST uploads/?mount=…&from=… ─▶ 201: the registry has taken it over from another of its repositories
    POST uploads/ ─▶ 202 and a place ─▶ PUT place?digest=… with all of it        (or PATCH pieces, then PUT)

What is pushed goes to the registry itself, never to a mirror. The place of an upload may be on another host, as that of
a download may: what we show to the registry is not shown there.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar, final
from urllib.parse import quote

from rootless import __version__
from rootless.errors import CorruptData, RegistryFailure, RootlessError, Unauthorized
from rootless.registry.answers import MAX_ERROR_SIZE, TemporaryFailure, refusal
from rootless.registry.auth import Authenticator
from rootless.registry.config import Endpoint, RegistryConfig, Timing, endpoints
from rootless.registry.credentials import Credentials
from rootless.registry.exchange import Exchange, Question, resolve_location
from rootless.registry.patience import patiently
from rootless.registry.transport import Response, Transport
from rootless.registry.uploads import Range, Read, Upload
from rootless.spec.digest import Digest, digest_of
from rootless.spec.image import Descriptor
from rootless.spec.reference import Reference

T = TypeVar("T")

_PATIENT = Timing(headers=120)  # a registry may have to copy a large blob before it answers
_MAX_MOUNTS = 3  # repositories that a blob is asked for
_DONE = (200, 201, 204)
_OCTETS = {"Content-Type": "application/octet-stream"}


class Outcome(NamedTuple):
    """What became of a blob."""

    text: str  # as Docker tells it: "Pushed", "Layer already exists", "Mounted from library/debian"
    sent: int  # bytes


@final
class Pusher:
    """Gives blobs and manifests to registries, from any thread. A `with` block around it ends its connections.

    Its methods raise Unauthorized and other RegistryFailures, NotFound for a registry that makes no repositories, and
    CorruptData where a blob here is not what its name says.
    """

    def __init__(self, config: RegistryConfig, credentials: Credentials, timing: Timing | None = None) -> None:
        self._config = config
        self._transport = Transport(config, timing or _PATIENT, f"rootless/{__version__}")
        self._exchange = Exchange(self._transport, Authenticator(self._transport, credentials))

    def __enter__(self) -> "Pusher":
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def cancel(self) -> None:
        """Have everything fail that other threads are pushing, within a fraction of a second."""
        self._transport.watch.cancelled.set()

    def has_blob(self, repository: Reference, blob: Descriptor) -> bool:
        """Whether the repository has it."""
        question = _about(repository, f"blob {blob.digest}", f"blobs/{blob.digest}", "HEAD")
        return self._patiently(partial(self._has, repository, question, blob.size))

    def push_blob(
        self,
        repository: Reference,
        blob: Descriptor,
        read: Read,
        *,
        sources: Sequence[str] = (),
        progress: Callable[[int], None] = lambda _: None,
    ) -> Outcome:
        """Have the repository hold *blob*, whose bytes *read* gives.

        *sources* are paths of repositories of the same registry that may have it. *progress* gets the number of bytes
        that were sent, which falls where some have to be sent again.
        """
        upload = Upload(blob, read, progress)
        if outcome := self._find(repository, upload, sources):
            return outcome
        self._patiently(partial(self._attempt, repository, upload))
        return Outcome("Pushed", blob.size)

    def find_blob(self, repository: Reference, blob: Descriptor, sources: Sequence[str] = ()) -> Outcome | None:
        """Have the repository hold *blob* if it needs not be sent; None where it does."""
        upload = Upload(blob, lambda offset, count: b"", lambda done: None)
        outcome = self._find(repository, upload, sources)
        if upload.location:
            self._cancel(repository, upload)
        return outcome

    def push_manifest(self, reference: Reference, data: bytes, media_type: str) -> Digest:
        """Put a manifest or an index under the tag of *reference*, or under its digest alone; the digest."""
        digest = digest_of(data)
        name = digest if reference.tag is None else reference.tag
        question = _about(reference, "the manifest", f"manifests/{name}", "PUT", {"Content-Type": media_type})
        self._patiently(partial(self._put_manifest, question._replace(body=lambda: data), digest))
        return digest

    def _find(self, repository: Reference, upload: Upload, sources: Sequence[str]) -> Outcome | None:
        if self.has_blob(repository, upload.blob):
            return Outcome("Layer already exists", 0)
        for source in sources[:_MAX_MOUNTS]:
            if self._mount(repository, upload, source):
                return Outcome(f"Mounted from {source}", 0)
        return None

    # -- one attempt each

    def _has(self, repository: Reference, question: Question, size: int) -> bool:
        with self._exchange.ask(self._endpoint(repository), question) as response:
            response.read(1)  # there is no body; once this is seen, the connection can be used again
            if response.status == 200:
                return response.content_length in (None, 0, size)
            if response.status == 404:
                return False
            raise self._refusal(response, question)

    def _mount(self, repository: Reference, upload: Upload, source: str) -> bool:
        """Whether the registry takes the blob over from *source*. Where it opens an upload instead, that is used."""
        if upload.location:
            return False
        path = f"blobs/uploads/?mount={quote(upload.blob.digest, safe=':')}&from={quote(source, safe='/')}"
        question = _about(repository, f"blob {upload.blob.digest}", path, "POST")
        question = question._replace(scope=f"{question.scope} repository:{source}:pull")
        try:
            with self._exchange.ask(self._endpoint(repository), question) as response:
                response.discard()
                if response.status == 202:
                    upload.begin(_location(response), response)
                return response.status == 201
        except RootlessError:
            # A registry need not be able to, nor let us see the other repository: the blob is sent then.
            if self._transport.watch.cancelled.is_set():
                raise
            return False

    def _attempt(self, repository: Reference, upload: Upload) -> None:
        """Bring the upload to its end. Raises TemporaryFailure where another attempt may go on."""
        endpoint = self._endpoint(repository)
        try:
            if not upload.is_certain:
                self._resume(endpoint, repository, upload)
            if not upload.location:
                self._begin(endpoint, repository, upload)
            while (part := upload.next()).end < upload.blob.size:
                self._patch(endpoint, repository, upload, part)
            self._finish(endpoint, repository, upload, part)
        except TemporaryFailure as failure:
            upload.weigh(failure)
            raise

    def _begin(self, endpoint: Endpoint, repository: Reference, upload: Upload) -> None:
        question = _about(repository, f"blob {upload.blob.digest}", "blobs/uploads/", "POST")
        with self._exchange.ask(endpoint, question) as response:
            if response.status != 202:
                raise self._refusal(response, question)
            response.discard()
            upload.begin(_location(response), response)

    def _resume(self, endpoint: Endpoint, repository: Reference, upload: Upload) -> None:
        """Ask how far the upload came; where nobody knows, the next one begins at the start."""
        if not upload.location:
            return
        question = _about(repository, f"upload of blob {upload.blob.digest}", "", "GET")
        try:
            with self._exchange.ask_at(endpoint, upload.location, question) as response:
                response.discard()
                if response.status in (200, 202, 204):
                    upload.resume(response, _location(response, upload.location))
                    return
        except Unauthorized:
            raise
        except RegistryFailure:
            if self._transport.watch.cancelled.is_set():
                raise
        upload.abandon()

    def _cancel(self, repository: Reference, upload: Upload) -> None:
        question = _about(repository, f"upload of blob {upload.blob.digest}", "", "DELETE")
        with suppress(RegistryFailure):  # the registry forgets uploads that nobody goes on with
            self._exchange.ask_at(self._endpoint(repository), upload.location, question).discard()

    def _patch(self, endpoint: Endpoint, repository: Reference, upload: Upload, part: Range) -> None:
        question = _about_part(repository, upload, part, "PATCH")
        with self._exchange.ask_at(endpoint, upload.location, question) as response:
            if response.status not in (*_DONE, 202):
                raise self._setback(response, question, upload)
            response.discard()
            upload.accepted(part, response, _location(response, upload.location))

    def _finish(self, endpoint: Endpoint, repository: Reference, upload: Upload, part: Range) -> None:
        question = _about_part(repository, upload, part, "PUT")
        separator = "&" if "?" in upload.location else "?"
        url = f"{upload.location}{separator}digest={quote(upload.blob.digest, safe=':')}"
        with self._exchange.ask_at(endpoint, url, question) as response:
            if response.status not in _DONE:
                raise self._setback(response, question, upload)
            response.discard()

    def _put_manifest(self, question: Question, digest: Digest) -> None:
        endpoint = self._endpoint(question.reference)
        with self._exchange.ask(endpoint, question) as response:
            if response.status not in _DONE:
                raise self._refusal(response, question)
            response.discard()
            claimed = response.headers.get("Docker-Content-Digest")
            if claimed and claimed != digest:
                raise CorruptData(f"{endpoint.address}: manifest {digest} was sent, and it has taken another one")

    # -- what goes wrong

    def _setback(self, response: Response, question: Question, upload: Upload) -> RootlessError:
        """The error for a part that the registry did not take, after which another attempt may go better."""
        if response.status == 413:
            response.discard()
            upload.shrink()
            return TemporaryFailure("a smaller piece is needed", cost=0)
        error = self._refusal(response, question)
        if 400 <= response.status < 500 and not isinstance(error, (Unauthorized, TemporaryFailure)):
            # An upload that has expired, or has other bytes than we think: from the start, as often as patience lasts.
            upload.abandon()
            return TemporaryFailure(str(error), hint=error.hint)
        return error

    def _refusal(self, response: Response, question: Question) -> RootlessError:
        body = response.read_all(MAX_ERROR_SIZE, "error")
        address = self._endpoint(question.reference).address
        arguments = (response.status, response.headers, body, question.reference, address, question.what)
        return refusal(*arguments, verb="push")

    def _endpoint(self, reference: Reference) -> Endpoint:
        return endpoints(self._config, reference.domain)[-1]

    def _patiently(self, action: Callable[[], T]) -> T:
        return patiently(self._transport.watch, action)


def _about(reference: Reference, what: str, path: str, method: str, headers: dict[str, str] | None = None) -> Question:
    scope = f"repository:{reference.path}:pull,push"
    return Question(reference, what, path, headers or {}, method, None, "push", scope)


def _about_part(repository: Reference, upload: Upload, part: Range, method: str) -> Question:
    is_all = part == (0, upload.blob.size)
    headers = _OCTETS if is_all or part.start == part.end else {**_OCTETS, "Content-Range": part.header}
    question = _about(repository, f"blob {upload.blob.digest}", "", method, headers)
    return question._replace(body=partial(upload.body, part))


def _location(response: Response, otherwise: str = "") -> str:
    """Where *response* says that the upload goes on. Raises RegistryFailure for where nobody should go.

    A registry behind a proxy that ends TLS may not know of it, and say http: the same host is meant in https.
    """
    location = response.headers.get("Location", "") or otherwise
    own = response.url.partition("//")[2].partition("/")[0]
    if response.url.startswith("https://") and location.startswith(f"http://{own}/"):
        location = f"https{location[4:]}"
    return resolve_location(response.url, location)
