"""build against podman build: five layers, 12,000 files; with nothing and with everything in the cache."""

import random
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Result, compare, quiet
from tests.support.account import Installation
from tests.support.podman import Podman

_DIRECTORIES, _FILES = 120, 100  # in each
_STEPS = (
    "RUN echo one > /one",
    "COPY . /src",
    "RUN find /src -type f | wc -l > /count",
    "RUN echo two > /two",
    "RUN echo three > /three",
)


class BuildBench:
    """Both programs, and a context."""

    NAMES = ("build",)

    def __init__(self, ours: Installation, podman: Podman, images: dict[str, str], base: Path) -> None:
        self.ours = ours
        self.podman = podman
        self.image = images["busybox"]
        self.context = base / "context"

    def build(self) -> Iterator[Result]:
        """The same tree with and without the cache. The files are the context of both."""
        self._make_context()
        words = ("build", "-q", "--network=none", "-t", "built")
        try:
            for name, options, bar, rounds in (
                ("build, 5 layers, 12,000 files", ("--no-cache",), 0.5, 3),
                ("build, all cached", (), 0.15, 5),
            ):
                yield compare(
                    name,
                    lambda options=options: self._rootless(*words, *options),  # type: ignore[misc]
                    lambda options=options: self.podman.run(*words, "--layers", *options, str(self.context)),  # type: ignore[misc]
                    bar=bar,
                    rounds=rounds,
                )
        finally:
            self.podman.run("image", "prune", "-f")
            self.ours.run("builder", "prune", "-a", "-f")
            self.ours.run("image", "prune", "-f")

    def _rootless(self, *words: str) -> None:
        quiet([str(self.ours.program), *words, str(self.context)], self.ours.env)

    def _make_context(self) -> None:
        """About 25 MB, the sizes as those of sources."""
        chance = random.Random(1)
        for directory in range(_DIRECTORIES):
            place = self.context / "src" / str(directory)
            place.mkdir(parents=True)
            for number in range(_FILES):
                (place / f"{number}.txt").write_bytes(chance.randbytes(int(chance.lognormvariate(7, 1.2))))
        (self.context / "Dockerfile").write_text("\n".join([f"FROM {self.image}", *_STEPS, ""]))
