"""What has to happen to a service's containers so that they are as the file says: decided here, done in compose_up.py.

A container is left alone as long as its configuration's hash and its image are what they would be now. Of too many,
those go first that are out of date, then those with the highest numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rootless.compose.records import Service

DIVERGED, FORCE, NEVER = "diverged", "force", "never"


class Existing(NamedTuple):
    """A container of a service, as far as it matters here."""

    id: str
    name: str
    number: int
    config_hash: str
    image_id: str
    is_live: bool
    replaces: str = ""  # the id of the container that it was to take the place of


class Plan(NamedTuple):
    """Which containers stay, are made anew, are made, and are removed."""

    keep: tuple[Existing, ...] = ()
    recreate: tuple[Existing, ...] = ()
    create: tuple[int, ...] = ()
    remove: tuple[Existing, ...] = ()


def plan_service(
    existing: Sequence[Existing], wanted: int, config_hash: str, image_id: str, recreate: str = DIVERGED
) -> Plan:
    """The plan for a service that is to have *wanted* containers of this configuration and image."""
    leftovers = [found for found in existing if found.replaces and any(e.id == found.replaces for e in existing)]
    valid = [found for found in existing if found not in leftovers]

    def diverges(found: Existing) -> bool:
        if recreate == FORCE:
            return True
        return recreate != NEVER and (found.config_hash != config_hash or found.image_id != image_id)

    ordered = sorted(valid, key=lambda found: (diverges(found), found.number))
    stay, surplus = ordered[:wanted], ordered[wanted:]
    first = max((found.number for found in existing), default=0) + 1
    return Plan(
        tuple(found for found in stay if not diverges(found)),
        tuple(found for found in stay if diverges(found)),
        tuple(range(first, first + wanted - len(stay))),
        (*leftovers, *surplus),
    )


def with_dependencies(services: Mapping[str, Service], asked: Iterable[str]) -> tuple[str, ...]:
    """The services *asked* for, and all that they depend on; all services, where none is asked for."""
    found: dict[str, None] = {}
    pending = list(asked) or list(services)
    while pending:
        name = pending.pop(0)
        if name in services and name not in found:
            found[name] = None
            pending += services[name].depends_on
    return tuple(name for name in services if name in found)


def dependents(depends_on: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Service -> the services that depend on it: dependencies, the other way round."""
    found: dict[str, list[str]] = {name: [] for name in depends_on}
    for name, others in depends_on.items():
        for other in others:
            if other in found:
                found[other].append(name)
    return found


def in_order(names: Sequence[str], needed: Mapping[str, Iterable[str]]) -> list[str]:
    """The names, each behind those that it needs. What needs each other in a circle stays in the order of *names*."""
    found: dict[str, None] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        for other in needed.get(name, ()):
            if other in needed and other not in found and other not in trail:
                visit(other, (*trail, other))
        found[name] = None

    for name in names:
        if name not in found:
            visit(name, (name,))
    return list(found)


def needed_first(service: Service) -> tuple[str, ...]:
    """The services whose containers must exist before this one's can be made."""
    modes = [mode.partition(":")[2] for mode in (service.network_mode, service.ipc, service.pid) if _is_service(mode)]
    sources = [source.partition(":")[0] for source in service.volumes_from if not source.startswith("container:")]
    return tuple(dict.fromkeys((*modes, *sources, *(link.partition(":")[0] for link in service.links))))


def _is_service(mode: str) -> bool:
    return mode.startswith("service:")
