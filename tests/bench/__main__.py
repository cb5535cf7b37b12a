"""The bars: rootless against podman, same image, same machine, same run.

    python -m tests.bench [NAME...]      run, exec, ps, pull, many; of images (images.py, layers.py,
                                         build.py) push, save, commit, build; of projects (compose.py) compose;
                                         of the networks (network.py) outward, inward, ports, pair, short, udp, start,
                                         memory; union, the union file system against fuse-overlayfs (union.py); all
                                         of them without a name

Stores lie on /dev/shm, so that the disk is not what is measured. Ends with status 1 where a bar is missed.
"""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.build import BuildBench
from tests.bench.compose import ComposeBench
from tests.bench.images import ImagesBench
from tests.bench.layers import LayerBench
from tests.bench.measure import HEADING, Result, compare, quiet, timed
from tests.bench.network import NetworkBench
from tests.bench.union import UnionBench
from tests.support.account import Installation
from tests.support.images import layout_of
from tests.support.layout import push
from tests.support.podman import Podman
from tests.support.registry import plain_registry

_MANY = 100

Actions = dict[str, Callable[[], Iterator[Result]]]


class Bench:
    """Both programs, a registry, and the images in it."""

    NAMES = ("run", "exec", "ps", "pull", "many")

    def __init__(self, ours: Installation, podman: Podman, images: dict[str, str]) -> None:
        self.ours = ours
        self.podman = podman
        self.images = images

    def run(self) -> Iterator[Result]:
        """A container that does nothing."""
        words = ("run", "--rm", "--net=none", self.images["busybox"], "true")
        yield compare(
            "run --rm --net=none busybox true",
            lambda: self._rootless(*words),
            lambda: self.podman.run(*words),
            bar=0.5,
            rounds=25,
        )

    def exec(self) -> Iterator[Result]:
        """A command in a container that runs."""
        words = ("exec", "bench", "true")
        with self._running():
            yield compare(
                "exec true", lambda: self._rootless(*words), lambda: self.podman.run(*words), bar=0.5, rounds=25
            )

    def ps(self) -> Iterator[Result]:
        """The list, of one container."""
        with self._running():
            yield compare("ps", lambda: self._rootless("ps"), lambda: self.podman.run("ps"), bar=1.0, rounds=25)

    def _rootless(self, *args: str) -> None:
        """The command alone, without the mark by which its processes are found."""
        quiet([str(self.ours.program), *args], self.ours.env)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        words = ("run", "-d", "--name", "bench", "--net=none", self.images["busybox"], "sleep", "1000")
        self.ours.run(*words)
        self.podman.run(*words)
        try:
            yield
        finally:
            self.ours.run("rm", "-f", "bench")
            self.podman.run("rm", "-f", "-t", "0", "bench")

    def pull(self) -> Iterator[Result]:
        """Three layers, about 200 MB compressed, 700 MB, 10,000 files."""
        name = self.images["big"]

        def ours() -> None:
            self._rootless("pull", "-q", name)

        def theirs() -> None:
            self.podman.run("pull", "-q", name)

        times: list[tuple[float, float]] = []
        for _ in range(5):
            times.append((timed(ours), timed(theirs)))
            self.ours.run("rmi", "-f", name)
            self.podman.run("rmi", "-f", name)
        middle = sorted(a for a, _ in times)[2], sorted(b for _, b in times)[2]
        yield Result("pull, 3 layers, 211 MB", *middle, bar=0.5)

    def many(self) -> Iterator[Result]:
        """A hundred containers in the background, one after the other, then removed; what our helpers take."""
        names = [f"many{n}" for n in range(_MANY)]
        image = self.images["busybox"]
        memory = 0.0

        def ours() -> None:
            nonlocal memory
            for name in names:
                self.ours.run("run", "-d", "--name", name, "--net=none", image, "sleep", "1000")
            memory = self._helpers_memory()
            self.ours.run("rm", "-f", *names, timeout=300)

        def theirs() -> None:
            for name in names:
                self.podman.run("run", "-d", "--name", name, "--net=none", image, "sleep", "1000")
            self.podman.run("rm", "-f", "-t", "0", *names)

        yield compare(f"{_MANY} containers, then rm -f", ours, theirs, bar=0.6, rounds=3, warm=0)
        yield Result("helpers' resident MiB per container", memory / _MANY / 2**20, 12.0, 1.0)

    def _helpers_memory(self) -> float:
        """Bytes resident in all processes of ours that are not the containers' programs."""
        total = 0
        for pid, line in self.ours.processes().items():
            if not line.startswith("sleep"):
                status = Path(f"/proc/{pid}/status").read_text()
                total += next(int(row.split()[1]) * 1024 for row in status.splitlines() if row.startswith("VmRSS"))
        return total


def main(names: list[str]) -> int:
    """Run the benchmarks of *names*; the exit status."""
    missed = False
    with contextlib.ExitStack() as stack:
        union = [name for name in names or UnionBench.NAMES if name in UnionBench.NAMES]
        others = [name for name in names if name not in UnionBench.NAMES]
        actions = of_unions() if union else {}
        if others or not names:
            actions = {**of_containers(stack), **actions}
        print(HEADING, flush=True)
        for name in names or actions:
            for result in actions[name]():
                print(result, flush=True)
                missed |= not result.passed
    return 1 if missed else 0


def of_unions() -> Actions:
    """The measurements that need no containers."""
    if missing := UnionBench.missing():
        sys.exit(f"not installed, and needed to measure unions: {', '.join(missing)}")
    bench = UnionBench()
    return {name: getattr(bench, name) for name in bench.NAMES}


def of_containers(stack: contextlib.ExitStack) -> Actions:
    """Those of containers and networks, with all they need until *stack* is left."""
    if not Podman.is_here():
        sys.exit("podman is not installed, and it is what rootless is measured against")
    if missing := NetworkBench.missing():
        sys.exit(f"not installed, and needed to measure networks: {', '.join(missing)}")
    base = Path(tempfile.mkdtemp(prefix="bench", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    (base / "podman").mkdir()
    (base / "ours").mkdir()
    stack.callback(shutil.rmtree, base, ignore_errors=True)
    registry = stack.enter_context(plain_registry(base / "registry"))
    images = {name: push(layout_of(name, base), registry, name) for name in ("busybox", "big", "tools")}
    podman = Podman(base / "podman", registry.host)
    stack.callback(podman.close)
    ours = Installation(base / "ours")
    stack.callback(ours.remove)
    for installed in (ours.run, podman.run):
        for name in ("busybox", "tools"):
            installed("pull", "-q", images[name])
    benches: tuple[Bench | BuildBench | ComposeBench | ImagesBench | LayerBench | NetworkBench, ...] = (
        Bench(ours, podman, images),
        ImagesBench(ours, podman, images, base),
        LayerBench(ours, podman, images),
        BuildBench(ours, podman, images, base),
        ComposeBench(ours, podman, images, base),
        NetworkBench(ours, podman, images),
    )
    return {name: getattr(bench, name) for bench in benches for name in bench.NAMES}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
