"""Bytes that connections may hold: per direction of a connection, per container, in all.

A direction may have a ninth of what its container has left, its own part counted in (so that what it holds does not
take away from what it was promised), and a container as much as is left in all. These are dynamic thresholds, as
switches share their buffers: few get all that they can use, many slow ones even each other out, and those that hold on
for ever leave something for others. Each can always hold a FLOOR, and the two directions of a connection share nothing:
a server that does not read before it has written, as any echo does, would else wait for us while we wait for it.
"""

TO_THE_HOST, TO_THE_CONTAINER = 3 << 20, 1 << 20  # of one connection
PER_CONTAINER = 28 << 20
IN_ALL = 36 << 20  # with the floors of 16384 connections: 60 MiB
FLOOR = 768
_SHARE = 9


class Budget:
    """*used* of *limit* bytes, counted in *parent* as well."""

    __slots__ = ("limit", "parent", "used")

    def __init__(self, limit: int, parent: "Budget | None" = None) -> None:
        self.limit = limit
        self.parent = parent
        self.used = 0

    def take(self, size: int) -> None:
        """Count *size* bytes more, or with a negative one, fewer. Ask `Holding.room` first."""
        self.used += size
        if self.parent is not None:
            self.parent.used += size

    def free(self) -> int:
        """How many bytes it has left."""
        if self.parent is None:
            return self.limit - self.used
        return min(self.limit, self.parent.limit - self.parent.used) - self.used


class Holding:
    """What one direction of a connection holds of a budget; its *limit* is its own."""

    __slots__ = ("budget", "limit", "size")

    def __init__(self, budget: Budget, limit: int) -> None:
        self.budget = budget
        self.limit = limit
        self.size = 0

    def take(self, size: int) -> None:
        """Hold *size* bytes more (negative: fewer)."""
        self.size += size
        self.budget.take(size)

    def room(self) -> int:
        """How many bytes more it may hold."""
        share = (self.budget.free() + self.size) // _SHARE
        return max(0, min(self.limit, max(share, FLOOR)) - self.size)
