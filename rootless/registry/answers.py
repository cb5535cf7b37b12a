"""What registries say when they say no, as the errors that people see.

The words follow Docker's where it has some. Text of the registry itself is kept short and on one line.
"""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from rootless.errors import CorruptData, NotFound, RegistryFailure, RootlessError, Unauthorized
from rootless.registry.config import DOCKER_HUB
from rootless.spec.reference import Reference
from rootless.spec.strict_json import parse_json

MAX_ERROR_SIZE = 1 << 20  # bytes
_MAX_TEXT = 300  # characters of a registry's own words


class TemporaryFailure(RegistryFailure):
    """What may go better at the next attempt.

    *retry_after* is the number of seconds that the registry asks for, *cost* how many attempts this one counts for:
    none where it brought the work forward.
    """

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None, cost: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.cost = cost


class NotTls(TemporaryFailure):
    """There is a server, and it does not speak TLS."""


class Refused(TemporaryFailure):
    """Nothing listens there."""


def one_line(text: str) -> str:
    """*text* shortened, and with what is not printable shown as an escape."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:_MAX_TEXT].strip())
    return shown + "…" if len(text) > _MAX_TEXT else shown


def said(body: bytes) -> tuple[str, str]:
    """The code and the words of the first error in the JSON *body*; empty where it is something else."""
    try:
        document = parse_json(body, limit=MAX_ERROR_SIZE, what="error")
    except CorruptData:
        return "", ""  # a page in HTML, nothing at all …: the status tells enough
    errors: Any = document.get("errors") if isinstance(document, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else document
    if not isinstance(first, dict):
        return "", ""
    code, words = first.get("code"), first.get("message") or first.get("details")
    return (code if isinstance(code, str) else ""), (one_line(words) if isinstance(words, str) else "")


def refusal(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    reference: Reference,
    address: str,
    what: str,
    verb: str = "pull",
) -> RootlessError:
    """The error for an answer of *address* with *status* when asked for *what* ("manifest", "blob sha256:…")."""
    code, words = said(body)
    reason = f": {words}" if words else ""
    if status in (401, 403):
        return denied(reference, address, words, verb)
    if status == 404 and code == "NAME_UNKNOWN":
        return NotFound(f"repository {reference.familiar_name} not found{reason}")
    if status == 404 and what == "manifest":
        return NotFound(f"manifest for {reference.familiar} not found{reason}")
    subject = f"{address}: {what} of {reference.path}"
    if status == 404:
        return NotFound(f"{subject} not found{reason}")
    if status in (408, 425, 429) or status >= 500:
        return TemporaryFailure(
            f"{subject}: status {status}{reason}",
            hint=login_hint(reference.domain) if status == 429 else "",
            retry_after=parse_retry_after(headers.get("Retry-After", "")),
        )
    return RegistryFailure(f"{subject}: unexpected status {status}{reason}")


def denied(reference: Reference, address: str, words: str = "", verb: str = "pull") -> Unauthorized:
    """The error for a repository that we may not read, or that is not there: registries do not tell which."""
    message = (
        f"{verb} access denied for {reference.familiar_name}, repository does not exist or may require 'rootless login'"
    )
    origin = "" if address.endswith(reference.domain) else f" (asked {address})"
    return Unauthorized(message + origin + (f": {words}" if words else ""), hint=login_hint(reference.domain))


def parse_retry_after(text: str) -> float | None:
    """The seconds to wait that a Retry-After header asks for, as a number or as a date; None where it is garbage."""
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def login_hint(domain: str) -> str:
    """What to do where a registry does not know us."""
    return "try `rootless login`" if domain == DOCKER_HUB else f"try `rootless login {domain}`"
