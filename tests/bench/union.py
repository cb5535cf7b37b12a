"""The bars of the union file system: `python -m fuse` against fuse-overlayfs, same layers, same run.

Everything is done by root of a user namespace of its own, in its mount namespace, with all layers on tmpfs. Each
measurement has a fresh mount over an upper directory of its own, ours and theirs in turns. ROOTLESS_BENCH_UNION names
another program to be measured in the place of ours. The large file has 512 MiB, or 256 where little memory is free.
"""

import contextlib
import json
import math
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench import union_work
from tests.bench.measure import Result

_WORK = Path(union_work.__file__)
_ROOT = _WORK.parent.parent.parent
_FILES, _SIZE = 12_000, 2048
_MANY = 100_000
_MIB = 1 << 20
_APPENDED, _RANDOM = 64 * _MIB, 256 * _MIB
_ROUNDS = 3
_BAR, _MEAN_BAR = 1.1, 0.6
_STARTS = 7


class UnionBench:
    """Measures in a process that is root of a namespace, and tells what comes of it as it comes."""

    NAMES = ("union",)

    @staticmethod
    def missing() -> list[str]:
        """The programs that it needs and this machine does not have."""
        return [name for name in ("fuse-overlayfs", "unshare", "tar") if shutil.which(name) is None]

    def union(self) -> Iterator[Result]:
        """All the measurements; the geometric mean of the ratios at the end."""
        namespace = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount"]
        command = [*namespace, sys.executable, "-m", "tests.bench.union"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as running:
            assert running.stdout is not None
            for line in running.stdout:
                yield Result(*json.loads(line))
        if running.returncode:
            raise SystemExit(f"the measurement of unions ended with status {running.returncode}")


class Server:
    """A union file system that is mounted."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float, mountpoint: Path) -> None:
        self.process = process
        self.seconds = seconds  # from its start until it could be used
        self.mountpoint = mountpoint

    def resident(self) -> float:
        """MiB of the process and of those that it has started."""
        total, pids = 0, [self.process.pid]
        for pid in pids:
            status = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += next(int(row.split()[1]) for row in status if row.startswith("VmRSS"))
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
        return total / 1024


class Layers:
    """The directories in which it happens."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.lower, self.upper, self.work, self.mountpoint = (base / n for n in ("lower", "upper", "work", "mnt"))
        self.archive = base / "tree.tar"
        self.mountpoint.mkdir()
        self.lower.mkdir()
        union_work.make_tree(str(self.lower / "tree"), _FILES, _SIZE)
        subprocess.run(["tar", "-cf", self.archive, "-C", self.lower, "tree"], check=True)
        make_file(self.lower / "appended", _APPENDED)

    def refresh(self) -> None:
        """An empty upper directory."""
        for directory in (self.upper, self.work):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()

    @contextlib.contextmanager
    def mounted(self, program: Sequence[str], lower: Path | None = None) -> Iterator[Server]:
        """A mount of *program* over the upper directory as it is."""
        options = f"lowerdir={lower or self.lower},upperdir={self.upper},workdir={self.work}"
        before = os.stat(self.mountpoint).st_dev
        began = time.perf_counter()
        process = subprocess.Popen([*program, "-f", "-o", options, str(self.mountpoint)], stderr=subprocess.DEVNULL)
        try:
            while os.stat(self.mountpoint).st_dev == before:
                if process.poll() is not None:
                    raise SystemExit(f"{shlex.join(program)}: cannot mount: status {process.returncode}")
                time.sleep(0.001)
            os.listdir(self.mountpoint)
            yield Server(process, time.perf_counter() - began, self.mountpoint)
            subprocess.run(["umount", self.mountpoint], check=True)
            process.wait(20)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
                subprocess.run(["umount", "-l", self.mountpoint], stderr=subprocess.DEVNULL)


def make_file(path: Path, size: int) -> None:
    """*size* bytes that are really there."""
    block = os.urandom(_MIB)
    with path.open("wb") as file:
        for _ in range(size // _MIB):
            file.write(block)


def work(*words: str) -> list[float]:
    """The seconds that union_work.py tells of."""
    command = [sys.executable, "-I", "-S", str(_WORK), *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [float(line) for line in done.stdout.split()]


def program(*words: str) -> list[float]:
    """The seconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return [time.perf_counter() - began]


class Measurement(NamedTuple):
    """One or more figures of one mount."""

    names: tuple[str, ...]
    action: Callable[[str], list[float]]  # gets the mount point
    prepare: Callable[[], None] = lambda: None  # before it is mounted


def measurements(layers: Layers, large: int) -> list[Measurement]:
    """What is measured, in order."""
    upper, size = layers.upper, f"{large // _MIB} MiB"
    untar = ("tar", "-xf", str(layers.archive), "-C")

    def new() -> None:
        (upper / "new").mkdir()

    def untarred() -> None:
        subprocess.run([*untar, upper], check=True)
        (upper / "tree").rename(upper / "own")

    return [
        Measurement(("stat all, cold", "stat all, warm"), lambda m: work("stat_all*2", f"{m}/tree")),
        Measurement(("read all, cold", "read all, warm"), lambda m: work("read_all*2", f"{m}/tree")),
        Measurement(("untar",), lambda m: program(*untar, f"{m}/new"), new),
        Measurement(("chmod -R of a lower tree",), lambda m: program("chmod", "-R", "g+w", f"{m}/tree")),
        Measurement(("rm -rf of a lower tree",), lambda m: program("rm", "-rf", f"{m}/tree")),
        Measurement(("rm -rf of an upper tree",), lambda m: program("rm", "-rf", f"{m}/own"), untarred),
        Measurement(("append to a lower file of 64 MiB",), lambda m: work("append", f"{m}/appended")),
        Measurement((f"write {size}",), lambda m: work("write", f"{m}/large", str(large))),
        Measurement((f"read {size}",), lambda m: work("read", f"{m}/large"), lambda: make_file(upper / "large", large)),
        Measurement(("create, rename, unlink 3,000 files",), lambda m: work("cycle", f"{m}/new"), new),
        *(
            Measurement(
                (f"random {way}s of 4 KiB in 256 MiB",),
                lambda m, way=way: work(f"random_{way}", f"{m}/random"),  # type: ignore[misc]
                lambda: make_file(upper / "random", _RANDOM),
            )
            for way in ("read", "write")
        ),
    ]


def measure(layers: Layers, ours: Sequence[str], theirs: Sequence[str], one: Measurement) -> Iterator[Result]:
    """Some rounds of both in turns; the medians."""
    figures: tuple[list[list[float]], list[list[float]]] = ([], [])
    for _ in range(_ROUNDS):
        for side, of_side in ((ours, figures[0]), (theirs, figures[1])):
            layers.refresh()
            one.prepare()
            with layers.mounted(side) as server:
                of_side.append(one.action(str(server.mountpoint)))
    layers.refresh()
    medians = [[statistics.median(column) for column in zip(*rows, strict=True)] for rows in figures]
    for name, our, their in zip(one.names, *medians, strict=True):
        yield Result(name, our, their, _BAR)


def sizes(layers: Layers, ours: Sequence[str]) -> Iterator[Result]:
    """How long it takes to start, and what it takes of memory: beside the limits, in the place of the peer."""
    layers.refresh()
    starts, rests = [], []
    for _ in range(_STARTS):
        with layers.mounted(ours) as server:
            starts.append(server.seconds)
            rests.append(server.resident())
    yield Result("seconds from start to use", statistics.median(starts), 0.4, 1.0)
    yield Result("MiB resident at rest", max(rests), 40.0, 1.0)
    many = layers.base / "many"
    union_work.make_tree(str(many / "tree"), _MANY, 0)
    layers.refresh()
    with layers.mounted(ours, many) as server:
        work("stat_all", f"{server.mountpoint}/tree")
        yield Result("MiB resident after stat of 100,000", server.resident(), 150.0, 1.0)
    shutil.rmtree(many)


def all_results(base: Path, names: Sequence[str]) -> Iterator[Result]:
    """Everything, or the measurements that begin with one of *names*."""
    replaced = os.environ.get("ROOTLESS_BENCH_UNION")
    ours = shlex.split(replaced) if replaced else [sys.executable, "-m", "fuse"]
    large = (512 if available_memory() > 6 << 30 else 256) * _MIB
    layers = Layers(base)
    ratios = []
    for one in measurements(layers, large):
        if names and not any(name.startswith(tuple(names)) for name in one.names):
            continue
        for result in measure(layers, ours, ["fuse-overlayfs"], one):
            ratios.append(result.ratio)
            yield result
    if ratios:
        yield Result("geometric mean of the ratios", math.exp(statistics.mean(map(math.log, ratios))), 1.0, _MEAN_BAR)
    if not names or "sizes" in names:
        yield from sizes(layers, ours)


def available_memory() -> int:
    """Bytes that could be used without pushing anything out, as the kernel reckons."""
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(rows["MemAvailable"].split()[0]) * 1024


def main(names: Sequence[str]) -> None:
    """Be the process in the namespace: a line of JSON for each result."""
    base = Path(tempfile.mkdtemp(prefix="union", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        for result in all_results(base, names):
            print(json.dumps(result), flush=True)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main(sys.argv[1:])
