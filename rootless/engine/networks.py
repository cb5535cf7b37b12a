"""What every start of a container needs of networks: finding them by name, and slirp, the process that runs them.

`bridge`, the default network, is made when somebody first asks for it. What only the `network` commands need is in
network_create.py, network_inspect.py, network_remove.py and network_connect.py: it loads more than a start should wait
for.
"""

import os
from typing import Any

from rootless.engine import network_start
from rootless.engine.context import Engine
from rootless.engine.names import random_id
from rootless.errors import NotFound
from rootless.network import slirp
from rootless.network.slirp import Connection
from rootless.runtime.jsonlog import now
from rootless.store.networks import BRIDGE, Network


def find(engine: Engine, text: str) -> Network:
    """The network that *text* means: a name, an id, the beginning of an id. Raises NotFound, Conflict."""
    if text in (BRIDGE, "default"):
        return bridge(engine)
    return engine.networks.find(text)


def bridge(engine: Engine) -> Network:
    """The default network, made if nobody has needed it yet. Raises Conflict where no subnet is left.

    It has IPv6 wherever the machine's kernel does. Programs prefer IPv4 then where there are both, since an address of
    fd00::/8 is no match for one of the world's (RFC 6724, section 2.1), and reach what has IPv6 alone all the same.
    """
    try:
        return engine.networks.load(BRIDGE)
    except NotFound:
        pass
    # Only once: choosing a subnet takes what reads addresses.
    from rootless.engine.network_create import free_subnet, free_subnet6

    with engine.networks.lock():
        try:
            return engine.networks.load(BRIDGE)
        except NotFound:
            network_id = random_id()
            ipv6 = free_subnet6(engine, network_id) if os.path.exists("/proc/net/if_inet6") else None
            return engine.networks.create(Network(BRIDGE, network_id, now(), ipv4=free_subnet(engine), ipv6=ipv6))


def begin(engine: Engine, op: str, *, directory: str = "", **fields: Any) -> tuple[Connection, dict[str, Any]]:
    """A connection to slirp, started if it is not there, and the answer to *op*; see `slirp.begin`.

    *directory*: to one of its own, which serves nobody else.
    """
    engine.enter_namespace()
    return slirp.begin(directory or engine.session, network_start.command(), network_start.seal, op, **fields)


def begin_early(engine: Engine) -> bool:
    """Start slirp, if it is not there, beside what the caller goes on to do: `begin` waits for it then.

    Whether it was not there. What goes wrong is told to who needs it.
    """
    connection = running(engine)
    if connection is not None:
        connection.close()
        return False
    engine.enter_namespace()
    network_start.begin(engine.session)
    return True


def running(engine: Engine) -> Connection | None:
    """A connection to slirp if it is there."""
    return slirp.connect(engine.session)
