"""What a check says, and what it may know besides the Dockerfile."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rootless.dockerfile.expand import expansion
from rootless.dockerfile.ignore import Patterns
from rootless.dockerfile.instructions import DockerfileError
from rootless.dockerfile.near import near


class Warning(NamedTuple):
    """What one check has to say of one line."""

    rule: str
    line: int
    message: str


class Context(NamedTuple):
    """What a check may know besides the Dockerfile."""

    environments: Mapping[str, Sequence[str]] = {}  # the names of variables that an image sets, by the image's name
    ignored: Patterns | None = None  # .dockerignore


class Near:
    """near(), as long as there are few to ask for: it is slow, and a hostile Dockerfile may have thousands."""

    def __init__(self) -> None:
        self._left = 50

    def __call__(self, word: str, known: Iterable[str]) -> str:
        self._left -= 1
        return near(word, known) if self._left >= 0 else ""


def aside(hint: str) -> str:
    """A hint at the end of a sentence."""
    return f" ({hint})" if hint else ""


def missing_in(word: str, variables: Mapping[str, str], escape: str) -> frozenset[str]:
    """The variables that *word* wants, and that are not set."""
    if "$" not in word:
        return frozenset()
    try:
        return expansion(word, variables, escape=escape).missing
    except DockerfileError:
        return frozenset()  # the build will say so
