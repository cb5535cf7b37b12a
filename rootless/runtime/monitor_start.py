"""How a monitor begins: fork the launcher, while there is next to nothing in memory, then become the monitor."""

from rootless.linux import processes
from rootless.runtime.launcher import Launcher


def main() -> None:
    """The helper's entry: descriptor 3 is the owner's channel; its first message is the path of the settings."""
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    launcher = Launcher()
    # Only now: the launcher, which does something else, starts without it.
    from rootless.runtime import monitor

    monitor.main(launcher)
