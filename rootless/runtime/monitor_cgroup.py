"""The control group of a container, as its monitor has it: made before each start, watched, frozen, killed, removed.

The launcher is moved into it while it waits for its bundle, so that the namespace of control groups which the container
gets begins there. The limits are written when the container stands ready and before its program runs: what our own code
took until then does not count.
"""

import errno
import os
import select
from collections.abc import Callable

from rootless.errors import HostUnsupported, RootlessError
from rootless.linux import cgroups
from rootless.runtime.cgroup_place import Place
from rootless.runtime.cgroup_writes import apply

TYPE_CHECKING = False  # as in monitor.py
if TYPE_CHECKING:
    from typing import Any

    from rootless.runtime.monitor import Monitor

_LOOK_SECONDS = 0.005
_FREEZE_LOOKS = 2000
_REMOVE_SECONDS = 1.0


class MonitorCgroup:
    """See the module. *settings* are control_group.py's; where they have no limits, one is made only if that works.

    `update` puts the rows that hold from then on among the monitor's settings, as limit_rows.
    """

    def __init__(self, settings: "dict[str, Any]", monitor: "Monitor") -> None:
        self._monitor = monitor
        self._settings = settings
        self._place = Place(settings["rung"], settings["name"])
        self._events_fd = -1
        self._oom_kills = 0
        self._waiting: list[Callable[[], None]] = []
        self._looks = 0
        self.path = ""

    def make(self, launcher: int) -> None:
        """Make it, with the process *launcher* in it. Raises HostUnsupported where limits were asked for in vain."""
        self._oom_kills = 0
        self._monitor.state.update(oom_killed=False, cgroup="")
        try:
            self.path = self._place.make(launcher)
        except (OSError, RootlessError) as error:
            if not self._settings["asked"]:
                return
            if isinstance(error, RootlessError):
                raise
            raise HostUnsupported(f"cannot make a control group for the container: {error}") from error
        self._monitor.state["cgroup"] = self.path

    def limit(self) -> None:
        """The container is ready to run: from now on its limits hold. Raises HostUnsupported."""
        if self.path:
            apply(self.path, self._monitor.settings.get("limit_rows") or self._settings["rows"])
            self._watch_memory()

    def _watch_memory(self) -> None:
        try:
            self._events_fd = os.open(os.path.join(self.path, "memory.events"), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # no controller of memory
        self._monitor.watch(self._events_fd, self._memory_changed, select.EPOLLPRI)

    def _memory_changed(self, _event: int = 0) -> None:
        """A counter of memory.events has changed: see whether processes were killed since there was no more memory."""
        try:
            kills = cgroups.keyed(os.pread(self._events_fd, 4096, 0).decode("ascii")).get("oom_kill", 0)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return  # it is gone
        if kills > self._oom_kills:
            self._oom_kills = kills
            self._monitor.record(oom_killed=True)
            self._monitor.journal.tell("oom")

    def freeze(self, frozen: bool, done: Callable[[], None]) -> None:
        """Have all processes stop, or go on; *done* is called when they do."""
        cgroups.write(self.path, "cgroup.freeze", "1" if frozen else "0")
        self._waiting.append(done)
        self._looks = 0
        self._look(frozen)

    def _look(self, frozen: bool) -> None:
        """A process that waits for a disk or a server stops when that has answered: the monitor does not wait so long.

        After 10 seconds what stands still does, and the rest will as soon as it can.
        """
        self._looks += 1
        if self.path and cgroups.is_frozen(self.path) != frozen and self._looks < _FREEZE_LOOKS:
            self._monitor.timers.set("frozen", _LOOK_SECONDS, lambda: self._look(frozen))
            return
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()

    def thaw(self) -> None:
        """Let them go on, at once."""
        if self.path:
            self._monitor.timers.cancel("frozen")
            cgroups.write(self.path, "cgroup.freeze", "0")

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        if self.path:
            cgroups.kill(self.path)

    def ended(self) -> None:
        """The container's first process has ended: so do those that are not in its pid namespace."""
        if self._events_fd >= 0:
            self._memory_changed()
            self._monitor.unwatch(self._events_fd)
            os.close(self._events_fd)
            self._events_fd = -1
        self.kill()

    def remove(self) -> None:
        """Nothing is in it any more, or as good as that."""
        if not self.path:
            return
        self.ended()
        self._monitor.timers.cancel("frozen")
        try:
            cgroups.end(self.path, _REMOVE_SECONDS)
        except OSError as error:
            # Whoever removes the container, or makes a cgroup beside it, tries again.
            self._monitor.warn(f"the control group of the container cannot be removed: {error.strerror}")
            return
        self.path = self._monitor.state["cgroup"] = ""
