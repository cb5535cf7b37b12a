"""The bars of images on their way out: push and save, against podman with the same image."""

import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measure import Result, quiet, timed
from tests.support.account import Installation
from tests.support.podman import Podman
from tests.support.registry import plain_registry

_ROUNDS = 5


class ImagesBench:
    """Both programs have the big image: three layers, 211 MB compressed, 700 MB, 10,000 files."""

    NAMES = ("push", "save")

    def __init__(self, ours: Installation, podman: Podman, images: dict[str, str], scratch: Path) -> None:
        self._ours = ours
        self._podman = podman
        self._name = images["big"]
        self._scratch = scratch

    def push(self) -> Iterator[Result]:
        """Into a registry of its own each time: neither program can have it take blobs over from another repository.

        Ours sends the blobs that it keeps. podman keeps none, and compresses: its own time is what people wait for.
        """
        self._pull()
        yield self._result("push, 3 layers, 211 MB", [(self._push_ours(), self._push_theirs()) for _ in range(_ROUNDS)])

    def _push_ours(self) -> float:
        with self._registry() as target:
            self._ours.run("tag", self._name, target)
            seconds = timed(lambda: self._rootless("push", "-q", target))
            self._ours.run("rmi", target)
            return seconds

    def _push_theirs(self) -> float:
        with self._registry() as target:
            return timed(lambda: self._podman.run("push", "-q", "--tls-verify=false", self._name, target))

    @contextmanager
    def _registry(self) -> Iterator[str]:
        """The name of an image in a registry that has nothing."""
        directory = self._scratch / "empty-registry"
        with plain_registry(directory) as registry:
            yield f"{registry.host}/pushed:1"
        shutil.rmtree(directory)

    def save(self) -> Iterator[Result]:
        """Into a file on the same file system as the stores."""
        self._pull()
        path = str(self._scratch / "saved.tar")

        def once() -> tuple[float, float]:
            pair = (
                timed(lambda: self._rootless("save", "-o", path, self._name)),
                timed(lambda: self._podman.run("save", "-q", "-o", f"{path}.podman", self._name)),
            )
            for left in (path, f"{path}.podman"):
                Path(left).unlink()
            return pair

        yield self._result("save, 3 layers, 700 MB", [once() for _ in range(_ROUNDS)])

    def _pull(self) -> None:
        self._ours.run("pull", "-q", self._name)
        self._podman.run("pull", "-q", self._name)

    def _rootless(self, *args: str) -> None:
        quiet([str(self._ours.program), *args], self._ours.env)

    @staticmethod
    def _result(name: str, pairs: list[tuple[float, float]]) -> Result:
        return Result(name, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), bar=0.7)
