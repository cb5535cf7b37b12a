"""The distribution protocol, from the side of who pulls: manifests by tag or digest, blobs by digest.

One Client serves a whole pull, from as many threads as fetch layers. For each thing it asks the mirrors in their order,
then the registry itself; each of them with patience: what may be passing (5xx, 429, a broken connection, silence) is
tried again after a growing pause, and a blob goes on where it broke off.

Nothing that comes is believed. A manifest is hashed and compared with what was asked for; what a registry claims in
Docker-Content-Digest can only make us refuse, never accept. A blob's length is enforced here; its bytes are hashed by
whoever owns the sink. A redirect leads to other servers (that is how registries hand out blobs), and these never see
what we showed to the registry.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar, final

from rootless import __version__
from rootless.errors import CorruptData, NotFound, RegistryFailure
from rootless.registry.answers import MAX_ERROR_SIZE, TemporaryFailure, refusal
from rootless.registry.auth import Authenticator
from rootless.registry.blobs import Sink, Transfer, receive
from rootless.registry.config import Endpoint, RegistryConfig, Timing, endpoints
from rootless.registry.credentials import Credentials
from rootless.registry.exchange import Exchange, Question
from rootless.registry.patience import patiently
from rootless.registry.transport import Response, Transport
from rootless.spec.digest import Digest, digest_of, matches, parse_digest
from rootless.spec.image import INDEX_TYPES, MANIFEST_TYPES, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, Descriptor
from rootless.spec.reference import Reference

_MIRROR_ATTEMPTS = 2
_BOTH = MANIFEST_TYPES + INDEX_TYPES

T = TypeVar("T")


class Fetched(NamedTuple):
    """A manifest or index as it came, and its digest."""

    media_type: str
    digest: Digest
    data: bytes


@final
class Client:
    """Asks registries for images, from any thread. A `with` block around it ends its connections.

    Its methods raise NotFound, Unauthorized and other RegistryFailures, and CorruptData for what is not what it should
    be. Pushing (push.py), searching and checking passwords stand beside it on an Exchange of their own.
    """

    def __init__(self, config: RegistryConfig, credentials: Credentials, timing: Timing | None = None) -> None:
        self._config = config
        self._transport = Transport(config, timing or Timing(), f"rootless/{__version__}")
        self._exchange = Exchange(self._transport, Authenticator(self._transport, credentials))
        self._unreachable: set[str] = set()  # mirrors; they are not tried again

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def cancel(self) -> None:
        """Have everything fail that other threads are fetching, within a fraction of a second."""
        self._transport.watch.cancelled.set()

    def resolve(self, reference: Reference, accept: tuple[str, ...] = _BOTH) -> Fetched:
        """The manifest or index that *reference* names; where it has a digest, that one and no other."""
        question = _about_manifest(reference, accept, "GET")
        return self._anywhere(question, self._fetch_manifest)

    def head(self, reference: Reference, accept: tuple[str, ...] = _BOTH) -> Descriptor | None:
        """What the registry says that resolve() would bring: good for seeing that a tag has not moved, no more.

        None where it does not say.
        """
        return self._anywhere(_about_manifest(reference, accept, "HEAD"), self._head_manifest)

    def fetch_blob(
        self,
        repository: Reference,
        descriptor: Descriptor,
        sink: Sink,
        *,
        progress: Callable[[int], None] = lambda _: None,
        mirrors: bool = True,
    ) -> None:
        """Have *sink* hold the descriptor.size bytes of the blob, going on from sink.offset.

        *progress* gets the number of bytes that the sink holds, which falls when it has to start again. Whoever finds
        that the bytes are not what the digest says can restart the sink and ask once more without *mirrors*.
        """
        transfer = Transfer(sink, descriptor.size, progress)
        question = _about_blob(repository, descriptor)
        self._anywhere(question, partial(self._continue_blob, transfer=transfer), mirrors=mirrors)

    def fetch_config(self, repository: Reference, descriptor: Descriptor) -> bytes:
        """An image config: a blob of at most MAX_CONFIG_SIZE bytes, verified here."""
        if descriptor.size > MAX_CONFIG_SIZE:
            raise CorruptData(f"image config {descriptor.digest} is larger than {MAX_CONFIG_SIZE} bytes")
        question = _about_blob(repository, descriptor)
        return self._anywhere(question, partial(self._fetch_config, descriptor=descriptor))

    # -- where to ask, and how often

    def _anywhere(self, question: Question, action: Callable[[Endpoint, Question], T], *, mirrors: bool = True) -> T:
        """What *action* brings from the first endpoint that has it."""
        *others, origin = endpoints(self._config, question.reference.domain)
        for mirror in others if mirrors else ():
            if mirror.name in self._unreachable:
                continue
            try:
                return patiently(self._transport.watch, partial(action, mirror, question), _MIRROR_ATTEMPTS)
            except TemporaryFailure:
                self._unreachable.add(mirror.name)
            except (RegistryFailure, NotFound, CorruptData):
                pass  # a mirror need not have everything, nor be in order: the registry itself has the last word
        return patiently(self._transport.watch, partial(action, origin, question))

    # -- one attempt at one endpoint

    def _fetch_manifest(self, endpoint: Endpoint, question: Question) -> Fetched:
        with self._ask(endpoint, question) as response:
            data = response.read_all(MAX_MANIFEST_SIZE, "manifest")
        wanted = question.reference.digest
        for digest, verb in ((wanted, "expected"), (_claimed_digest(response, endpoint), "announced")):
            if digest and not matches(data, digest):
                raise CorruptData(f"{endpoint.address}: manifest {digest} {verb}, {digest_of(data)} came")
        return Fetched(response.headers.get("Content-Type", ""), wanted or digest_of(data), data)

    def _head_manifest(self, endpoint: Endpoint, question: Question) -> Descriptor | None:
        with self._ask(endpoint, question) as response:
            digest, size = _claimed_digest(response, endpoint), response.content_length
            response.read(1)  # there is no body; once this is seen, the connection can be used again
        if digest is None or size is None:
            return None
        return Descriptor(response.headers.get("Content-Type", ""), digest, size)

    def _fetch_config(self, endpoint: Endpoint, question: Question, descriptor: Descriptor) -> bytes:
        with self._ask(endpoint, question) as response:
            data = response.read_all(descriptor.size, question.what)
        if len(data) != descriptor.size or not matches(data, descriptor.digest):
            came = f"{digest_of(data)} of {len(data)} bytes came"
            raise CorruptData(f"{endpoint.address}: {question.what} of {descriptor.size} bytes expected, {came}")
        return data

    def _continue_blob(self, endpoint: Endpoint, question: Question, transfer: Transfer) -> None:
        if not transfer.missing:
            return
        question = question._replace(headers=transfer.range_headers())
        with self._ask(endpoint, question, also=(206, 416) if transfer.offset else ()) as response:
            receive(response, transfer, f"{endpoint.address}: {question.what}")

    def _ask(self, endpoint: Endpoint, question: Question, also: tuple[int, ...] = ()) -> Response:
        """An answer with status 200 or *also*; the caller's `with` ends it. Raises what others mean."""
        response = self._exchange.ask(endpoint, question)
        if response.status == 200 or response.status in also:
            return response
        with response:
            body = response.read_all(MAX_ERROR_SIZE, "error")
        raise refusal(response.status, response.headers, body, question.reference, endpoint.address, question.what)


def _about_manifest(reference: Reference, accept: tuple[str, ...], method: str) -> Question:
    named = reference.with_default_tag()
    return Question(named, "manifest", f"manifests/{named.digest or named.tag}", {"Accept": ", ".join(accept)}, method)


def _about_blob(repository: Reference, descriptor: Descriptor) -> Question:
    return Question(repository, f"blob {descriptor.digest}", f"blobs/{descriptor.digest}", {})


def _claimed_digest(response: Response, endpoint: Endpoint) -> Digest | None:
    """What the registry says the digest is, if it says so. Raises CorruptData for what is no digest."""
    claimed = response.headers.get("Docker-Content-Digest")
    return parse_digest(claimed, f"{endpoint.address}: Docker-Content-Digest") if claimed else None
