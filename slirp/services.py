"""What every part of the stack is given: loop, model, policy, log, and sockets of a network's namespace.

The stack cannot make a socket inside of a network: it has neither the namespace nor the capability for a transparent
one. The hub makes them in stock and sends their descriptors (channel.py: "sockets"); `Stock` asks in time, and asks for
more at once the faster they go. Whoever finds it empty waits for the next delivery.
"""

import os
import resource
from collections import deque
from collections.abc import Callable

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from slirp.loop import Loop
    from slirp.model import Model, Network
    from slirp.outward import Outward

KINDS = ("tcp4", "tcp6", "udp4", "udp6", "plain4", "plain6")
FEWEST, MOST = 8, 256  # sockets of a network and kind in stock
MOST_WAITING = 1024  # of those who found it empty
RESERVED = 4  # one descriptor of so many is kept back
_ASK_AGAIN = 2.0  # seconds after which an order is taken for lost


class Shelf:
    """The sockets of one network and kind, and those who wait for one."""

    __slots__ = ("asked", "asked_at", "fds", "size", "waiting")

    def __init__(self) -> None:
        self.fds: deque[int] = deque()
        self.waiting: deque[Callable[[], None]] = deque()
        self.size = FEWEST
        self.asked = 0
        self.asked_at = 0.0


class Stock:
    """Descriptors in stock; *order* asks the hub for so many of a network's (by id) and kind.

    A process with few descriptors has few in stock: all shelves together must stay within what is RESERVED.
    """

    __slots__ = ("_loop", "_most", "_order", "_shelves", "waiting")

    def __init__(self, loop: "Loop", order: Callable[[str, str, int], None]) -> None:
        self._loop = loop
        self._order = order
        self._most = max(FEWEST, min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 64))
        self._shelves: dict[tuple[str, str], Shelf] = {}
        self.waiting = 0  # those who found a shelf empty

    def take(self, network_id: str, kind: str) -> int | None:
        """One socket, the caller's from now on; None where there is none, and then one is on its way."""
        shelf = self._shelf(network_id, kind)
        fd = shelf.fds.popleft() if shelf.fds else None
        if fd is None:
            shelf.size = min(shelf.size * 2, self._most)
        self._replenish(network_id, kind, shelf)
        return fd

    def when_there(self, network_id: str, kind: str, action: Callable[[], None]) -> bool:
        """Do *action* once there is a socket again; False where too many wait already."""
        shelf = self._shelf(network_id, kind)
        if len(shelf.waiting) >= MOST_WAITING:
            return False
        shelf.waiting.append(action)
        self.waiting += 1
        self._replenish(network_id, kind, shelf)
        return True

    def prepare(self, network_id: str, kind: str) -> None:
        """Have some in stock before they are asked for."""
        self._replenish(network_id, kind, self._shelf(network_id, kind))

    def deliver(self, network_id: str, kind: str, fds: list[int]) -> None:
        """What the hub has sent."""
        shelf = self._shelf(network_id, kind)
        shelf.asked = max(0, shelf.asked - len(fds))
        shelf.fds.extend(fds)
        while shelf.waiting and shelf.fds:
            self.waiting -= 1
            shelf.waiting.popleft()()
        self._replenish(network_id, kind, shelf)

    def forget(self, network_id: str) -> None:
        """Close the sockets of a network that is gone."""
        for key in [key for key in self._shelves if key[0] == network_id]:
            shelf = self._shelves.pop(key)
            for fd in shelf.fds:
                os.close(fd)
            self.waiting -= len(shelf.waiting)
            for action in shelf.waiting:  # they find the network gone
                self._loop.later(0, action)

    def _shelf(self, network_id: str, kind: str) -> Shelf:
        shelf = self._shelves.get((network_id, kind))
        if shelf is None:
            shelf = self._shelves[network_id, kind] = Shelf()
        return shelf

    def _replenish(self, network_id: str, kind: str, shelf: Shelf) -> None:
        now = self._loop.now()
        if shelf.asked and now - shelf.asked_at > _ASK_AGAIN:
            shelf.asked = 0
        wanted = min(shelf.size + len(shelf.waiting), self._most)
        missing = wanted - len(shelf.fds) - shelf.asked
        if missing * 2 > shelf.size:
            shelf.asked += missing
            shelf.asked_at = now
            self._order(network_id, kind, missing)


class Services:
    """One object, handed to every part."""

    __slots__ = ("_last_fd", "log", "loop", "model", "outward", "stock")

    def __init__(
        self, loop: "Loop", model: "Model", outward: "Outward", log: Callable[[str], None], stock: Stock
    ) -> None:
        self.loop = loop
        self.model = model
        self.outward = outward
        self.log = log
        self.stock = stock
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._last_fd = limit - limit // RESERVED

    def crowded(self, fd: int) -> bool:
        """Whether *fd*, which has just been made, is one of the last descriptors.

        These are for the other half of flows that are there, and for what the hub sends: nothing begins with one.
        """
        return fd + self.stock.waiting > self._last_fd

    def short_of_descriptors(self, fd: int) -> bool:
        """Whether the next descriptor would be one of the last; *fd* is any that is open."""
        try:
            probe = os.dup(fd)
        except OSError:
            return True
        os.close(probe)
        return self.crowded(probe)

    def sockets(self, network: "Network", kind: str) -> int | None:
        """A socket of *network*'s namespace, *kind* as in KINDS: a descriptor that the caller owns, or None by now."""
        return self.stock.take(network.id, kind)
