"""What a monitor is to do later."""

import time
from collections.abc import Callable


class Timers:
    """What is to be done later, in seconds of the monotonic clock."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}

    def set(self, name: str, delay: float, action: Callable[[], None]) -> None:
        """Do *action* after *delay*; a timer of that name is replaced."""
        self._due[name] = (time.monotonic() + delay, action)

    def cancel(self, name: str) -> None:
        """Forget a timer, if it is set."""
        self._due.pop(name, None)

    def wait(self) -> float:
        """Seconds until the next is due; -1 for none."""
        if not self._due:
            return -1
        return max(0.0, min(when for when, _ in self._due.values()) - time.monotonic())

    def run(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        for name, (when, action) in list(self._due.items()):
            if when <= now and self._due.get(name, (None,))[0] == when:
                del self._due[name]
                action()
