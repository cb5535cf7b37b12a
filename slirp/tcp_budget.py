"""Bytes that connections may hold: per connection, per container, in all.

A connection may have as much again as is free, never more than half of that (a dynamic threshold, as switches share
their buffers): few connections get all they can use, and however many hold on to theirs, something stays free for one
that comes later. The same rule holds one level up, for the container among all.
"""

PER_CONNECTION = 4 << 20
PER_CONTAINER = 24 << 20
IN_ALL = 64 << 20


class Budget:
    """*used* of *limit* bytes, counted in *parent* as well."""

    __slots__ = ("limit", "parent", "used")

    def __init__(self, limit: int, parent: "Budget | None" = None) -> None:
        self.limit = limit
        self.parent = parent
        self.used = 0

    def take(self, size: int) -> None:
        """Count *size* bytes more, or with a negative one, fewer. Ask `allowance` first."""
        self.used += size
        if self.parent is not None:
            self.parent.take(size)

    def allowance(self) -> int:
        """How many bytes a child that holds none may take."""
        free = max(0, self.limit - self.used) >> 1
        return free if self.parent is None else min(free, self.parent.allowance())


class Holding:
    """What one connection holds of a budget; its *limit* is its own."""

    __slots__ = ("budget", "limit", "size")

    def __init__(self, budget: Budget, limit: int = PER_CONNECTION) -> None:
        self.budget = budget
        self.limit = limit
        self.size = 0

    def take(self, size: int) -> None:
        """Hold *size* bytes more (negative: fewer)."""
        self.size += size
        self.budget.take(size)

    def room(self) -> int:
        """How many bytes more it may hold."""
        return max(0, min(self.limit, self.budget.allowance()) - self.size)

    def release(self) -> None:
        """Hold nothing any more."""
        self.take(-self.size)
