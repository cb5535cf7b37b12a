"""Names of images, read exactly as Docker reads them (github.com/distribution/reference, its normalize.go).

What a person types is the familiar form; everything else here works with the whole one:

    alpine                      docker.io/library/alpine
    team/app:1                  docker.io/team/app:1
    localhost/app               localhost/app
    host:5000/app@sha256:…      host:5000/app@sha256:…

The first component is a registry if it has a dot, a colon or an upper-case letter, or is `localhost`. A name without
one means Docker Hub: there is no search list, which is how short names get squatted.

One departure: where the first component looks like a registry and cannot be one (`my_host.example/app`), Docker makes a
reference without any registry, which nothing can pull; here that is an invalid reference.
"""

import re
from typing import NamedTuple

from rootless.errors import CorruptData, InvalidInput
from rootless.spec.digest import Digest, parse_digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_PATH_LENGTH = 255

_PATH_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*"
_DOMAIN_COMPONENT = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_DOMAIN_COMPONENT}(?:\.{_DOMAIN_COMPONENT})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,127}"
_DIGEST_LIKE = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"


class Reference(NamedTuple):
    """The name of an image in a registry. A digest, where there is one, decides; the tag is then a remark."""

    domain: str  # "docker.io", "localhost:5000", "[::1]:5000"
    path: str  # "library/alpine"
    tag: str | None
    digest: Digest | None

    @property
    def name(self) -> str:
        """The repository: "docker.io/library/alpine"."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as Docker prints it: "alpine"."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        official = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in official else official

    @property
    def familiar(self) -> str:
        """The whole reference as Docker prints it: "alpine:3.20"."""
        return self.familiar_name + self._suffix()

    def with_default_tag(self) -> "Reference":
        """With the tag "latest" where there is neither tag nor digest."""
        return self if self.tag or self.digest else self._replace(tag=DEFAULT_TAG)

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag


def parse_reference(text: str) -> Reference:
    """*text*, in the familiar or the whole form. No default tag is added. Raises InvalidInput."""
    if re.fullmatch(r"[a-f0-9]{64}", text):
        raise InvalidInput(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, remainder = _split_domain(text)
    _refuse_upper_case(domain, remainder)
    head, at, digest = remainder.partition("@")
    path, colon, tag = head.partition(":")
    if (
        not re.fullmatch(_DOMAIN, domain)
        or not re.fullmatch(_PATH, path)
        or (colon and not re.fullmatch(_TAG, tag))
        or (at and not re.fullmatch(_DIGEST_LIKE, digest))
    ):
        raise InvalidInput("invalid reference format")
    if len(path) > _MAX_PATH_LENGTH:
        raise InvalidInput(f"repository name must not be more than {_MAX_PATH_LENGTH} characters")
    return Reference(domain, path, tag or None, _parse_digest(digest) if at else None)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, _OFFICIAL + text
    if first == _LEGACY_DOMAIN:
        first = DEFAULT_DOMAIN
    elif not (first == "localhost" or "." in first or ":" in first or first.lower() != first):
        return DEFAULT_DOMAIN, text
    if first == DEFAULT_DOMAIN and "/" not in rest:
        rest = _OFFICIAL + rest
    return first, rest


def _refuse_upper_case(domain: str, remainder: str) -> None:
    name = remainder.partition(":")[0]
    if name.lower() != name:
        raise InvalidInput(f"invalid reference format: repository name ({name}) must be lowercase")


def _parse_digest(text: str) -> Digest:
    try:
        return parse_digest(text, "invalid reference format")
    except CorruptData as error:
        raise InvalidInput(str(error)) from None
