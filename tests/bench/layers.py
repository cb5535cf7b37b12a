"""What is made of containers, against podman: commit. Stores on /dev/shm, as in all of these."""

import itertools
from collections.abc import Iterator

from tests.bench.measure import Result, compare, quiet
from tests.support.account import Installation
from tests.support.podman import Podman


class LayerBench:
    """Both programs, and the image of 700 MB."""

    NAMES = ("commit",)

    def __init__(self, ours: Installation, podman: Podman, images: dict[str, str]) -> None:
        self.ours = ours
        self.podman = podman
        self.images = images

    def commit(self) -> Iterator[Result]:
        """One changed file in a container of 10,000 files, 700 MB."""
        image, numbers = self.images["big"], itertools.count()
        for run in (self.ours.run, self.podman.run):
            run("pull", "-q", image)
            run("run", "--name", "changed", "--net=none", image, "sh", "-c", "echo changed > /changed")
        try:
            yield compare(
                "commit of one file in 700 MB",
                lambda: quiet([str(self.ours.program), "commit", "changed", f"ours:{next(numbers)}"], self.ours.env),
                lambda: self.podman.run("commit", "-q", "changed", f"theirs:{next(numbers)}"),
                bar=0.3,
                rounds=9,
            )
        finally:
            for run in (self.ours.run, self.podman.run):
                run("rm", "-f", "changed")
                run("image", "prune", "-a", "-f")
