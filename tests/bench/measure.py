"""Measuring two programs against each other: in turns, several rounds, medians; a ratio and its bar."""

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Result(NamedTuple):
    """What came of it. Times are seconds, or whatever both sides were measured in."""

    name: str
    ours: float
    theirs: float
    bar: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def passed(self) -> bool:
        return self.ratio <= self.bar

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "MISSED"
        return f"{self.name:40} {self.ours:9.4f} {self.theirs:9.4f}   {self.ratio:5.2f}  (bar {self.bar:.2f}) {verdict}"


HEADING = f"{'':40} {'rootless':>9} {'peer':>9}   ratio"


def timed(action: Callable[[], object]) -> float:
    """Seconds that *action* takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def compare(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], *, bar: float, rounds: int, warm: int = 1
) -> Result:
    """Run both in turns, so that what the machine does meanwhile falls on both; the medians of *rounds*."""
    for _ in range(warm):
        ours()
        theirs()
    pairs = [(timed(ours), timed(theirs)) for _ in range(rounds)]
    return Result(name, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), bar)


def quiet(command: Sequence[str], env: dict[str, str]) -> str:
    """Run a command that must succeed; its output."""
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
