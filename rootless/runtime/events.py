"""What a container's monitor tells in the journal of events: all that happens while the container lives."""

import time

from rootless.linux import journal
from rootless.spec.event import Event, to_line

TYPE_CHECKING = False  # as in monitor.py
if TYPE_CHECKING:
    from typing import Any

_SIGKILL = 9


class Journal:
    """Tells what happens to one container. Without settings (of a step of a build) it tells nothing."""

    __slots__ = ("_attributes", "_id", "_is_killed", "_path", "_volumes")

    def __init__(self, container_id: str, settings: "dict[str, Any] | None") -> None:
        self._id = container_id
        self._is_killed = False
        self._path: str = settings["path"] if settings else ""
        self._attributes: dict[str, str] = settings["attributes"] if settings else {}
        self._volumes: list[str] = settings["volumes"] if settings else []

    def rename(self, name: str) -> None:
        """Call the container *name* from now on; "" for what it is called already."""
        if name:
            self._attributes["name"] = name

    def tell(self, action: str, **more: object) -> None:
        """This has happened just now."""
        self._append("container", action, self._id, {**self._attributes, **{key: str(more[key]) for key in more}})

    def started(self) -> None:
        """Its program runs."""
        self._is_killed = False
        self.tell("start")

    def killed(self, signum: int) -> None:
        """Its program was sent a signal; of SIGKILL, which who removes a container sends again and again, once."""
        if not self._is_killed:
            self._is_killed = signum == _SIGKILL
            self.tell("kill", signal=signum)

    def died(self, code: int, seconds: int) -> None:
        """Its program has ended, or was not there; it ran that long."""
        self.tell("die", execDuration=seconds, exitCode=code)

    def disconnected(self, endpoints: "list[dict[str, Any]]") -> None:
        """The container has left its networks."""
        for endpoint in endpoints:
            attributes = {"container": self._id, "name": endpoint["name"], "type": "bridge"}
            self._append("network", "disconnect", endpoint["network"], attributes)

    def unmounted(self) -> None:
        """Nor does it have its volumes any more."""
        for name in self._volumes:
            self._append("volume", "unmount", name, {"container": self._id, "driver": "local"})

    def _append(self, kind: str, action: str, identifier: str, attributes: dict[str, str]) -> None:
        if self._path:
            try:
                journal.append(self._path, to_line(Event(kind, action, identifier, attributes, time.time_ns())))
            except OSError:
                pass  # no room, or the user has logged out and the run directory is gone: nobody can hear it
