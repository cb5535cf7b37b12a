"""search: what a registry has, by a word."""

from typing import NamedTuple

from rootless.engine.registries import registry_configuration
from rootless.errors import InvalidInput
from rootless.registry.config import DOCKER_HUB
from rootless.registry.credentials import default_credentials
from rootless.registry.search import Repository
from rootless.registry.search import search as ask

MOST = 100


class SearchFilter(NamedTuple):
    """What `search --filter` selects by."""

    stars: int = 0  # at least so many
    is_official: bool | None = None
    is_automated: bool | None = None

    def takes(self, found: Repository) -> bool:
        """Whether all of it holds for *found*."""
        return (
            found.stars >= self.stars
            and self.is_official in (None, found.is_official)
            and self.is_automated in (None, found.is_automated)
        )


def search(text: str, limit: int, wanted: SearchFilter | None = None) -> list[Repository]:
    """At most *limit* repositories that *text* means: TERM for Docker Hub, or REGISTRY/TERM; REGISTRY/ for all.

    Those of other registries have the registry's name before their own. Raises InvalidInput, RegistryFailure.
    """
    if not 1 <= limit <= MOST:
        raise InvalidInput(f"limit {limit} is outside the range of [1, {MOST}]")
    if "://" in text:
        raise InvalidInput(f"invalid repository name: repository name ({text}) should not have a scheme")
    domain, term = split_term(text)
    found = ask(registry_configuration(), default_credentials(), domain, term, limit)
    if wanted:
        found = [one for one in found if wanted.takes(one)]
    if domain == DOCKER_HUB:
        return found
    return [one if one.name.startswith(f"{domain}/") else one._replace(name=f"{domain}/{one.name}") for one in found]


def split_term(text: str) -> tuple[str, str]:
    """The registry and the word in *text*, told apart as in an image's name."""
    first, slash, rest = text.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return (DOCKER_HUB if first in (DOCKER_HUB, "index.docker.io") else first), rest
    return DOCKER_HUB, text
