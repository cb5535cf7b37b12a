"""An installation of rootless for one test: its own home and runtime directory, and a meter for what it leaves behind.

Whatever descends from its commands, however often it forks, changes its session or enters namespaces, is found again
by a mark that the kernel hands down and shows to everybody: an odd soft limit for POSIX message queues (getrlimit(2);
the line of /proc/PID/limits), which nothing here uses for anything else.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Leftovers(NamedTuple):
    """What an installation has on the machine at one moment; compare one from before with one from after."""

    processes: list[str]  # "PID command line"
    mounts: list[str]  # lines of our own mountinfo
    files: list[str]  # below the home, without the content of blobs/ and layers/

    def beyond(self, before: "Leftovers") -> "Leftovers":
        """What is here and was not there *before*."""
        return Leftovers(
            *([line for line in now if line not in set(then)] for now, then in zip(self, before, strict=True))
        )

    def __bool__(self) -> bool:
        return any(self)


class Installation:
    """One user's rootless, as if freshly installed. `tree` holds all it writes, and `env` is all it is told."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.mark = str(random.randrange(4096, 819_200))  # bytes; the hard limit is 819200 unless raised
        self.program = Path(sys.executable).parent / "rootless"
        self.home, self.runtime, self.data = tree / "home", tree / "run", tree / "home/.local/share"
        for directory in (self.home, self.runtime, self.data, tree / "tmp"):
            directory.mkdir(parents=True, mode=0o700)
        self.env = {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PATH": PATH,
            "TMPDIR": str(tree / "tmp"),
            "USER": os.environ.get("USER", str(os.geteuid())),
            "XDG_DATA_HOME": str(self.data),
            "XDG_RUNTIME_DIR": str(self.runtime),
        }
        if driver := os.environ.get("ROOTLESS_TEST_DRIVER"):  # for those who do not choose one themselves
            configuration = self.home / ".config/rootless/config.toml"
            configuration.parent.mkdir(parents=True)
            configuration.write_text(f'[storage]\ndriver = "{driver}"\n')
        if "DBUS_SESSION_BUS_ADDRESS" in os.environ:  # the way to the user's systemd, where there is one
            self.env["DBUS_SESSION_BUS_ADDRESS"] = os.environ["DBUS_SESSION_BUS_ADDRESS"]

    def command(self, *args: str) -> list[str]:
        """The command line of `rootless ARGS`, marked; for who starts it himself (a terminal, a pipe), with `env`."""
        return ["prlimit", f"--msgqueue={self.mark}:", "--", str(self.program), *args]

    def run(
        self, *args: str, input: str = "", check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run `rootless ARGS` to its end; with *check*, a failure raises AssertionError that shows its output."""
        done = self.run_bytes(*args, input=os.fsencode(input), check=check, timeout=timeout)
        texts = (os.fsdecode(done.stdout), os.fsdecode(done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, *texts)

    def run_bytes(
        self, *args: str, input: bytes = b"", check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """The same for data that is no text."""
        done = subprocess.run(
            self.command(*args), env=self.env, cwd=self.home, input=input, capture_output=True, timeout=timeout
        )
        if check and done.returncode != 0:
            output = os.fsdecode(done.stdout + done.stderr)
            raise AssertionError(f"rootless {' '.join(args)}: exit status {done.returncode}\n{output}")
        return done

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        """Start `rootless ARGS` with pipes for all three of its streams."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(*args), env=self.env, cwd=self.home, stdin=pipe, stdout=pipe, stderr=pipe)

    def processes(self) -> dict[int, str]:
        """Pid and command line of everything that this installation started and that still runs."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self.has_mark(entry):
                found[int(entry.name)] = command_line(entry)
        return found

    def has_mark(self, process: Path) -> bool:
        try:
            lines = (process / "limits").read_text().splitlines()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended
            return False
        if state == "Z":  # nothing of it is left but its status, which its parent has not asked for yet
            return False
        return any(line.startswith("Max msgqueue size") and line.split()[3] == self.mark for line in lines)

    def leftovers(self) -> Leftovers:
        """All that is there of this installation now."""
        processes = [f"{pid} {line}" for pid, line in sorted(self.processes().items())]
        mountinfo = Path("/proc/self/mountinfo").read_text().splitlines()
        mounts = [line for line in mountinfo if self.tree.name in line]
        return Leftovers(processes, mounts, sorted(self.files()))

    def files(self) -> Iterator[str]:
        for directory, below, names in os.walk(self.tree):
            if os.path.basename(directory) in ("blobs", "layers"):
                below.clear()
            yield from (os.path.relpath(os.path.join(directory, name), self.tree) for name in [*below, *names])

    @contextmanager
    def no_leaks(self, *, killed: bool = False) -> Iterator[None]:
        """Assert that what runs inside leaves no process, mount or file behind that was not there before.

        Where commands are *killed* inside, what they leave is for the next ones to remove: prune is called until it
        has been, for it leaves alone what somebody who is still ending holds.
        """
        before = self.leftovers()
        yield
        wait_until(lambda: self._is_clean(before, killed), seconds=5 if killed else 2)
        if left := self.leftovers().beyond(before):
            raise AssertionError(f"left behind: {left}")

    def _is_clean(self, before: Leftovers, killed: bool) -> bool:
        if killed:
            self.run("container", "prune", "--force")
        return not self.leftovers().beyond(before)

    def remove(self) -> None:
        """End every process of this installation, and delete its tree, files of subordinate ids included."""
        while left := self.processes():
            for pid in left:
                kill(pid)
            time.sleep(0.005)
        if not self.tree.exists():
            return
        try:
            shutil.rmtree(self.tree)
        except PermissionError:
            namespace = ["unshare", "--user", "--map-root-user", "--map-auto"]
            subprocess.run([*namespace, "chmod", "-R", "u+rwX", "--", str(self.tree)], check=True)
            subprocess.run([*namespace, "rm", "-rf", "--", str(self.tree)], check=True)


@contextmanager
def installation() -> Iterator[Installation]:
    """A fresh installation in /tmp, where paths are short: a socket's may have 108 bytes (unix(7))."""
    installed = Installation(Path(tempfile.mkdtemp(prefix="rl-", dir="/tmp")))
    try:
        yield installed
    finally:
        installed.remove()


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it was quicker


def wait_until(condition: Callable[[], object], seconds: float = 10) -> bool:
    """Ask *condition* until it holds, for at most so many *seconds*; return whether it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
