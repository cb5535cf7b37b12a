"""Whether a registry knows somebody: asked before a password is kept.

`GET /v2/` is what every registry answers, and what wants a password if anything does. To `Basic` the password is shown;
from the server that `Bearer` names a token is fetched without any scope, and shown. That server may also give an
identity token, which is kept in place of the password then.
"""

from rootless import __version__
from rootless.errors import NotFound, RegistryFailure, Unauthorized
from rootless.registry.answers import MAX_ERROR_SIZE, TemporaryFailure, parse_retry_after, said
from rootless.registry.auth import Authenticator, parse_challenges
from rootless.registry.config import Endpoint, RegistryConfig, Timing, endpoints
from rootless.registry.credentials import Credential, Credentials
from rootless.registry.exchange import Exchange
from rootless.registry.patience import patiently
from rootless.registry.transport import Response, Transport

_HINT = "check the user name and the password"


def log_in(config: RegistryConfig, registry: str, credential: Credential, timing: Timing | None = None) -> Credential:
    """What to keep for *registry*, `host` or `host:port`, once it has accepted *credential*.

    Raises Unauthorized where it has not, NotFound for what is no registry, and other RegistryFailures.
    """
    transport = Transport(config, timing or Timing(), f"rootless/{__version__}")
    try:
        return patiently(transport.watch, lambda: _attempt(config, transport, registry, credential))
    finally:
        transport.close()


def _attempt(config: RegistryConfig, transport: Transport, registry: str, credential: Credential) -> Credential:
    endpoint = endpoints(config, registry)[-1]
    auth = Authenticator(transport, Credentials())
    exchange = Exchange(transport, auth)
    with exchange.open(endpoint, "/v2/", {}) as response:
        response.discard()
        if response.status != 401:
            _check(endpoint, response)
            return credential  # it asks nobody who they are
        challenges = {one.scheme: one for one in reversed(parse_challenges(response.all("WWW-Authenticate")))}
    kept = credential
    if challenge := challenges.get("bearer"):
        token, identity = auth.log_in(endpoint, challenge, credential, plain=exchange.is_plain(endpoint))
        header = f"Bearer {token}"
        kept = Credential(credential.username, "", identity) if identity else credential
    elif "basic" in challenges:
        header = credential.basic()
    else:
        raise RegistryFailure(f"{endpoint.address} does not say how to log in")
    with exchange.open(endpoint, "/v2/", {"Authorization": header}) as response:
        _check(endpoint, response)
    return kept


def _check(endpoint: Endpoint, response: Response) -> None:
    """Raise what an answer other than 200 means."""
    if response.status == 200:
        return
    _, words = said(response.read_all(MAX_ERROR_SIZE, "error"))
    reason = f": {words}" if words else ""
    if response.status in (401, 403):
        raise Unauthorized(
            f"{endpoint.address}: unauthorized{reason or ': incorrect username or password'}", hint=_HINT
        )
    if response.status == 404:
        raise NotFound(f"{endpoint.address} is no registry: it has no /v2/{reason}")
    message = f"{endpoint.address}: status {response.status}{reason}"
    if response.status in (408, 425, 429) or response.status >= 500:
        raise TemporaryFailure(message, retry_after=parse_retry_after(response.headers.get("Retry-After", "")))
    raise RegistryFailure(message)
