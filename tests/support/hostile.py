"""Images that mean harm, the registry that serves them, and containers that are made from them."""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from tests.support import probe
from tests.support.account import Installation
from tests.support.fault_registry import FaultRegistry
from tests.support.images import busybox_entries
from tests.support.layout import NATIVE, PATH, Entry, file

LONG = "ROOTLESS_TEST_LONG" in os.environ  # races and repetitions in full, for a release


def packed(entries: Iterable[Entry]) -> bytes:
    """A layer's tar with *entries* in their order."""
    parts = [info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512) for info, data in entries]
    return b"".join([*parts, bytes(1024)])


@cache
def busybox() -> bytes:
    """The layer of the image busybox."""
    return packed(busybox_entries())


def tools() -> bytes:
    """A layer with the probe, plain and setuid, where this machine has one."""
    try:
        program = probe.program()
    except NotImplementedError:
        return packed([])
    return packed([file("probe", program, 0o755), file("setuid-probe", program, 0o4755)])


def serve(
    registry: FaultRegistry,
    *layers: bytes,
    config: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> str:
    """The full name of an image of these *layers*, bottom first; *config* goes on top of a PATH and the command sh."""
    whole = {"Env": [f"PATH={PATH}"], "Cmd": ["sh"], **(config or {})}
    key = hashlib.sha256(repr((whole, changes)).encode() + b"".join(layers)).hexdigest()[:16]
    registry.add_image(f"hostile/{key}:1", layers, config=whole, changes=changes, architecture=NATIVE)
    return f"{registry.host}/hostile/{key}:1"


class Box(NamedTuple):
    """An installation that has an image with busybox and the tools in it."""

    rootless: Installation
    image: str

    def sh(self, script: str, *options: str, check: bool = True, timeout: float = 30) -> str:
        """What *script* writes, standard error too, in a container of its own."""
        command = ["run", "--rm", *options, self.image, "sh", "-c", f"exec 2>&1; {script}"]
        return self.rootless.run(*command, check=check, timeout=timeout).stdout

    def probe(self, *words: str, options: Iterable[str] = (), program: str = "/probe") -> list[probe.Answer]:
        """What the probe tells in a container of its own."""
        return probe.answers(self.rootless.run("run", "--rm", *options, self.image, program, *words).stdout)


@contextmanager
def running(
    rootless: Installation, image: str, *options: str, command: Iterable[str] = ("sleep", "600")
) -> Iterator[str]:
    """The id of a container that runs in the background for as long as the block."""
    container = rootless.run("run", "-d", *options, image, *command).stdout.strip()
    try:
        yield container
    finally:
        rootless.run("rm", "-f", "-v", container)


def failure(rootless: Installation, *args: str, timeout: float = 20, status: Iterable[int] = (1, 125, 126, 127)) -> str:
    """What a command says that must fail in an orderly way: with a status of ours, one line and no traceback."""
    done = rootless.run(*args, check=False, timeout=timeout)
    assert done.returncode in set(status), f"{args}: {done.returncode} {done.stdout} {done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines, f"{args} says nothing"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", done.stderr), repr(done.stderr)
    return done.stderr


def no_traceback(rootless: Installation, *args: str, timeout: float = 20) -> tuple[int, str]:
    """Status and output of a command that may fail, though not as a bug does, and that must come to an end."""
    done = rootless.run(*args, check=False, timeout=timeout)
    assert "Traceback" not in done.stderr, f"{args}: {done.stderr}"
    return done.returncode, done.stdout + done.stderr
