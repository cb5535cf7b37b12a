"""network rm, network prune."""

from collections.abc import Callable, Mapping

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.engine.logs import nanoseconds
from rootless.engine.network_inspect import networks_in_use, users
from rootless.engine.networks import find
from rootless.errors import Conflict, NotFound
from rootless.store.networks import BUILT_IN


def remove_network(engine: Engine, name: str, *, force: bool) -> None:
    """Remove a network. Raises NotFound unless *force*; Conflict where containers that run are on it."""
    if name in BUILT_IN:
        raise Conflict(f"{name} is a pre-defined network and cannot be removed")
    try:
        network = find(engine, name)
    except NotFound:
        if force:
            return
        raise
    if network.name in BUILT_IN:
        raise Conflict(f"{network.name} is a pre-defined network and cannot be removed")
    with engine.networks.lock():
        active = [user for user in users(engine, network) if user.is_live]
        if active:
            listed = ", ".join(f'name:"{user.name}" id:"{user.id[:12]}"' for user in active)
            raise Conflict(
                f"error while removing network: network {network.name} has active endpoints ({listed})",
                hint="stop these containers, or take them off: rootless network disconnect",
            )
        engine.networks.remove(network)
    events.of_network(engine, network, "destroy")


def prune_networks(engine: Engine, *, until: int | None, labels: Callable[[Mapping[str, str]], bool]) -> list[str]:
    """Remove the networks that no container is to be on, running or not; their names.

    Only those made before *until* (ns of the epoch), whose labels pass *labels*.
    """
    removed = []
    with engine.networks.lock():
        used = networks_in_use(engine)
        for network in engine.networks.list():
            if network.name in BUILT_IN or network.id in used or not labels(network.labels):
                continue
            if until is None or nanoseconds(network.created) < until:
                engine.networks.remove(network)
                removed.append(network.name)
                events.of_network(engine, network, "destroy")
    events.pruned(engine, events.NETWORK, 0)
    return removed
