"""A process that swaps two paths as fast as it can: renameat2(2) with RENAME_EXCHANGE, in a loop.

    with racing(tree / "sub", tree / "link") as racer:
        while racer.goes_on():
            try_to_be_led_astray()

A race is run for ROOTLESS_RACE_SECONDS (by default a part of a second; 30 for a release, with 100,000 swaps).
"""

import mmap
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootless.linux.files import RENAME_EXCHANGE, renameat2

SECONDS = float(os.environ.get("ROOTLESS_RACE_SECONDS", "0.7"))
MIN_SWAPS = int(3000 * SECONDS)
_AT_FDCWD = -100


class Racer:
    """What the process has done so far."""

    def __init__(self, counter: mmap.mmap) -> None:
        self._counter = counter
        self._end = time.monotonic() + SECONDS

    @property
    def swaps(self) -> int:
        return int.from_bytes(self._counter[:8], "little")

    def goes_on(self) -> bool:
        """Whether the race should go on: the time is not over, or there were too few swaps to mean anything."""
        return time.monotonic() < self._end or self.swaps < MIN_SWAPS


@contextmanager
def racing(one: Path, other: Path) -> Iterator[Racer]:
    """Swap *one* and *other* meanwhile; a name that is gone for a moment is waited for."""
    with mmap.mmap(-1, 8) as counter:
        pid = os.fork()
        if pid == 0:
            try:
                swap_for_ever(os.fsencode(one), os.fsencode(other), counter)
            finally:
                os._exit(1)
        try:
            yield Racer(counter)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def swap_for_ever(one: bytes, other: bytes, counter: mmap.mmap) -> None:
    swaps = 0
    while os.getppid() != 1:
        try:
            renameat2(_AT_FDCWD, one, _AT_FDCWD, other, RENAME_EXCHANGE)
        except OSError:
            continue
        swaps += 1
        counter[:8] = swaps.to_bytes(8, "little")
