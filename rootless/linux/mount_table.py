"""What is mounted where, as proc_pid_mountinfo(5) tells it."""

from typing import NamedTuple

from rootless.linux.mounts import unescape


class Mounted(NamedTuple):
    """A line of it."""

    point: str
    fstype: str


def mount_table() -> list[Mounted]:
    """What is mounted in this namespace, in the order of mounting."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = list(file)
    return [Mounted(unescape(line.split(" ", 5)[4]), line.partition(" - ")[2].split(" ", 1)[0]) for line in lines]
