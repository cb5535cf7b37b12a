"""Containers for tests: an installation that has an image, with the few lines that most tests would repeat."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.account import Installation, wait_until
from tests.support.terminal import Terminal, open_terminal

Done = subprocess.CompletedProcess[str]


class Box:
    """One installation and the name of an image in it: busybox, unless a test takes another."""

    def __init__(self, installed: Installation, image: str) -> None:
        self.installed, self.image = installed, image

    def __call__(self, *args: str, check: bool = True, input: str = "", timeout: float = 60) -> Done:
        """`box("ps", "-a")` runs `rootless ps -a`."""
        return self.installed.run(*args, check=check, input=input, timeout=timeout)

    def run(self, *words: str, options: tuple[str, ...] = (), check: bool = True, input: str = "") -> Done:
        """`run --rm OPTIONS IMAGE WORDS`."""
        return self("run", "--rm", *options, self.image, *words, check=check, input=input)

    def sh(self, script: str, *options: str) -> str:
        """What a shell prints that runs *script* in a container of its own."""
        return self.run("sh", "-c", script, options=options).stdout

    def detached(self, script: str, *options: str, image: str = "") -> str:
        """Start a container in the background whose program is a shell with *script*; its id."""
        return self("run", "-d", *options, image or self.image, "sh", "-c", script).stdout.strip()

    def start(self, *args: str) -> "subprocess.Popen[bytes]":
        """Start `rootless ARGS` with pipes for all three of its streams."""
        return self.installed.start(*args)

    @contextmanager
    def terminal(self, *args: str, rows: int = 24, columns: int = 80) -> Iterator[Terminal]:
        """`rootless ARGS` on a terminal of its own, of which it is the leader."""
        command = self.installed.command(*args)
        with open_terminal(command, self.installed.env, self.installed.home, rows, columns) as terminal:
            yield terminal

    def inspect(self, name: str) -> dict[str, Any]:
        """The document of a container."""
        [document] = json.loads(self("inspect", "--type", "container", name).stdout)
        return dict(document)

    def state(self, name: str) -> dict[str, Any]:
        """The part of it that changes."""
        state: dict[str, Any] = self.inspect(name)["State"]
        return state

    def logs(self, name: str, *options: str) -> str:
        """What the container wrote to stdout."""
        return self("logs", *options, name).stdout

    def says(self, name: str, line: str, seconds: float = 10) -> bool:
        """Wait until the log has *line*."""
        return wait_until(lambda: line in self.logs(name).splitlines(), seconds)

    def ids(self) -> list[str]:
        """All containers."""
        return os.listdir(self.store / "containers") if (self.store / "containers").exists() else []

    @property
    def store(self) -> Path:
        """The root of the store."""
        return self.installed.data / "rootless"

    @property
    def session(self) -> Path:
        """Where sockets and locks are."""
        return self.installed.runtime / "rootless"

    def monitor(self, container_id: str) -> int:
        """The pid of the container's monitor: the parent of its init."""
        return parent(self.recorded(container_id)["pid"])

    def recorded(self, container_id: str) -> dict[str, Any]:
        """state.json as it is, without the look that would put it right."""
        state: dict[str, Any] = json.loads(self.state_file(container_id).read_text())
        return state

    def state_file(self, container_id: str) -> Path:
        """Where it is."""
        return self.store / "containers" / container_id / "state.json"

    def clear(self, keep: list[str]) -> None:
        """Remove all containers but those with the ids *keep*, and all volumes that nobody uses then."""
        if ids := set(self.ids()).difference(keep):
            self("rm", "-f", "-v", *ids)
        if (self.store / "volumes").exists() and os.listdir(self.store / "volumes"):
            self("volume", "prune", "-a", "-f")


def parent(pid: int) -> int:
    """The pid of *pid*'s parent."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def cpu_seconds(pid: int) -> float:
    """The time that *pid* has had a processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def catches(pid: int, signum: int) -> bool:
    """Whether *pid* has a handler for the signal (proc(5), SigCgt)."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    return bool(int(line.split()[1], 16) >> signum - 1 & 1)


def has_open(pid: int, what: str) -> bool:
    """Whether *pid* has something open that is called so: "socket:", a file's name."""
    try:
        return any(what in os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False  # it has ended, or just closed one


def is_alive(pid: int) -> bool:
    """Whether *pid* runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def made(box: Box, script: str, *options: str) -> str:
    """A container that has run *script* and has ended; its id."""
    container = box.detached(script, *options)
    assert box("wait", container).stdout == "0\n"
    return container


def config(box: Box, image: str) -> dict[str, Any]:
    [document] = json.loads(box("image", "inspect", image).stdout)
    return dict(document)


def layer_of(box: Box, image: str) -> Path:
    """The directory of the image's topmost layer."""
    return Path(config(box, image)["GraphDriver"]["Data"]["UpperDir"])
