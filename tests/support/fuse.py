"""A union mounted in a user and mount namespace of its own, and things done in it.

    with union([{"etc/a": "above"}, {"etc/a": "below", "bin/": None}]) as u:        # the topmost first
        assert u.run("cat", "etc/a").stdout == "above"       # a command in the mount point, as root of the namespace
        assert u.call(os.listdir, u.at("bin")) == []         # a function, called in a process that stays
        u.unmount(); u.mount("volatile")                     # again, over the same layers, with other options

`kind` is who serves it: "ours" (`python -m fuse`), "kernel" (overlayfs with userxattr) or "fuse-overlayfs". All that is
written is below `u.base`, on tmpfs: `lower0` and so on, `upper`, `work`, `merged` (the mount point), `log` (what the
server says). With `ids="range"` the namespace has all of the user's subordinate ids, with `ids="one"` only root.

`call` takes functions that the other process finds by module and name (no lambda, no method) and arguments and results
that are literals, and raises the OSError that the function raises. Both sides were one process once: what a module had
in its globals is there, and what the function puts there stays, open descriptors too.

At the end the server has left by itself and nothing is left behind, or there is an AssertionError.
"""

import ast
import contextlib
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from rootless.linux.mounts import mount as mount2
from rootless.linux.mounts import mount_points, umount2
from rootless.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, unshare
from tests.support.userns import map_ids

T = TypeVar("T")
Kind = Literal["ours", "kernel", "fuse-overlayfs"]
Tree = dict[str, str | bytes | None]  # "dir/": None, "dir/file": content, "link@": target

ROOT = Path(__file__).resolve().parents[2]
MNT_DETACH = 2
PATIENCE = 60.0  # seconds that a call may take


class Union:
    """Layers, and a process in the namespace; made by `union`."""

    def __init__(self, base: Path, lowers: int, kind: Kind, channel: socket.socket) -> None:
        self.base, self.kind = base, kind
        self.lower = [base / f"lower{number}" for number in range(lowers)]
        self.upper, self.work, self.merged = base / "upper", base / "work", base / "merged"
        self.server: int | None = None  # the process that serves, leader of its own group; None for the kernel
        self._channel = channel
        self._answers = channel.makefile("rb")

    def at(self, path: str = "") -> str:
        """Where *path* of the union is."""
        return str(self.merged / path)

    def call(self, function: Callable[..., T], *args: object) -> T:
        """What *function* returns there. Raises its OSError; anything else it raises is an AssertionError."""
        request = (function.__module__, function.__qualname__, args)
        self._channel.sendall(ascii(request).encode() + b"\n")
        answer = self._answers.readline()
        assert answer, "the process in the namespace has ended"
        kind, value = ast.literal_eval(answer.decode())
        if kind == "failed":
            raise OSError(*value)
        assert kind == "returned", value
        return value  # type: ignore[no-any-return]

    def run(self, *command: str, uid: int = 0, text: str = "") -> subprocess.CompletedProcess[str]:
        """*command*, with *text* as its input, in the mount point, as *uid* (and gid) of the namespace."""
        status, output, errors = self.call(_run, self.at(), command, uid, text)
        return subprocess.CompletedProcess(command, status, output, errors)

    def python(self, code: str, uid: int = 0) -> str:
        """What *code* prints, run by a Python of its own in the mount point; an AssertionError if it fails."""
        done = self.run(sys.executable, "-c", code, uid=uid)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def options(self, more: str = "", *, writable: bool = True) -> str:
        """What `-o` says for these layers."""
        parts = ["lowerdir=" + ":".join(map(str, self.lower))]
        if writable:
            parts += [f"upperdir={self.upper}", f"workdir={self.work}"]
        return ",".join([*parts, *filter(None, [more])])

    def mount(self, more: str = "", *, writable: bool = True, env: dict[str, str] | None = None) -> None:
        """Mount it, with *more* options, and *env* added to the server's environment."""
        options = self.options(more, writable=writable)
        self.server = self.call(_mount, self.kind, options, str(self.base), env or {})

    def unmount(self) -> None:
        """Unmount it (it must not be in use), and wait until the server has left."""
        self.call(_unmount, str(self.base))
        self.server = None

    def kill(self) -> None:
        """End the server as a crash does, and take its mount away."""
        self.call(_kill, str(self.base))
        self.server = None

    def wait(self) -> int:
        """The exit status of the server, which has been told to leave, once it has."""
        status = self.call(_wait, str(self.base))
        self.server = None
        return status

    def let_go(self) -> None:
        """Close the other end of the server's --exit-fd."""
        self.call(_let_go, str(self.base))

    def mounted(self) -> bool:
        """Whether something is mounted at the mount point."""
        return self.at().rstrip("/") in self.call(mount_points)

    def log(self) -> str:
        """What the server has said on standard error."""
        return (self.base / "log").read_text(errors="backslashreplace")

    def close(self) -> None:
        """Unmount, remove everything, and see that it worked."""
        try:
            self.call(_leave, str(self.base))
        finally:
            self._answers.close()
            self._channel.close()


@contextlib.contextmanager
def union(
    lowers: Sequence[Tree] = ({},),
    *,
    kind: Kind = "ours",
    ids: Literal["range", "one"] = "range",
    options: str = "",
    mounted: bool = True,
    writable: bool = True,
    env: dict[str, str] | None = None,
    base: str = "/dev/shm",
) -> Iterator[Union]:
    """A union over *lowers*, mounted unless *mounted* is false; the rest as for `Union.mount`."""
    place = Path(tempfile.mkdtemp(prefix="union-", dir=base))
    place.chmod(0o711)  # other ids of the namespace come through
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, place, ignore_errors=True)
        ours, pid = _start(ids == "one")
        made = Union(place, len(lowers), kind, ours)
        undo.callback(_end, made, pid)
        made.call(_make, str(place), list(lowers))
        if mounted:
            made.mount(options, writable=writable, env=env)
        yield made
        made.close()


def escape(name: bytes) -> bytes:
    """*name* as an option takes it, so that its commas, colons and backslashes are ordinary characters."""
    return name.replace(b"\\", b"\\\\").replace(b",", b"\\,").replace(b":", b"\\:")


_channels: set[socket.socket] = set()  # of the unions of this process: those that are forked must not hold them open


def _start(one_id: bool) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for channel in (ours, *_channels):
                channel.close()
            os.setsid()  # what ends the test process, by signals to its group, ends this one when it has cleaned up
            unshare(CLONE_NEWUSER | CLONE_NEWNS)
            theirs.send(b".")
            if theirs.recv(1):
                _serve(theirs)
                status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    theirs.close()
    ours.settimeout(PATIENCE)
    ours.recv(1)
    map_ids(pid, one_id)
    ours.send(b".")
    _channels.add(ours)
    return ours, pid


def _end(made: Union, pid: int) -> None:
    """Whatever happened: no process is left."""
    _channels.discard(made._channel)
    made._answers.close()
    made._channel.close()
    deadline = time.monotonic() + 10
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:  # it waits for a server that does not answer
            for victim in filter(None, [made.server]):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(victim, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            deadline += 1e9
        time.sleep(0.002)


# What follows runs in the namespace.

_bases: list[str] = []
_servers: dict[str, tuple[subprocess.Popen[bytes], int]] = {}  # base -> the server, and the other end of its --exit-fd


def _serve(channel: socket.socket) -> None:
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.chdir("/")
    os.umask(0o022)
    with channel.makefile("rb") as requests:
        for line in requests:
            channel.sendall(ascii(_answer(line)).encode() + b"\n")
    for base in list(_bases):  # the test process was killed, or else they are gone
        _leave(base)
        os.rmdir(base)


def _answer(request: bytes) -> tuple[str, Any]:
    module, name, args = ast.literal_eval(request.decode())
    function: Any = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    try:
        return "returned", function(*args)
    except OSError as error:
        return "failed", (error.errno, error.strerror or str(error))
    except BaseException:
        return "raised", traceback.format_exc()


def _run(directory: str, command: tuple[str, ...], uid: int, text: str) -> tuple[int, str, str]:
    os.chdir(directory)  # as root: the way there need not be open to everybody
    try:
        who: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, errors="backslashreplace", timeout=PATIENCE, **who
        )
    finally:
        os.chdir("/")
    return done.returncode, done.stdout, done.stderr


def _make(base: str, lowers: list[Tree]) -> None:
    _bases.append(base)
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{base}/{name}", 0o755)
    for number, tree in enumerate(lowers):
        os.mkdir(f"{base}/lower{number}", 0o755)
        plant(f"{base}/lower{number}", tree)


def plant(directory: str, tree: Tree) -> None:
    """Make what *tree* names in *directory*."""
    for name, content in tree.items():
        path = Path(directory, name.rstrip("@"))
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif name.endswith("@"):
            path.symlink_to(os.fsdecode(content))
        else:
            path.write_bytes(os.fsencode(content))


def _mount(kind: Kind, options: str, base: str, env: dict[str, str]) -> int | None:
    """The process that serves."""
    merged = f"{base}/merged"
    if kind == "kernel":
        mount2("overlay", merged, "overlay", 0, f"userxattr,{options}")
        return None
    with open(f"{base}/log", "ab") as log:
        server, keep_fd = (
            _start_ours(options, merged, log.fileno(), env)
            if kind == "ours"
            else (
                _start_peer(options, merged, log.fileno(), env),
                -1,
            )
        )
    _servers[base] = server, keep_fd
    return server.pid


def _start_ours(
    options: str, merged: str, log_fd: int, env: dict[str, str], before: Sequence[str] = ()
) -> tuple[subprocess.Popen[bytes], int]:
    """The server and the other end of its --exit-fd; *before* is what stands before its command line."""
    ready, ready_fd = os.pipe()
    exit_fd, keep_fd = os.pipe()
    words = ["-m", "fuse", "-f", "--ready-fd", str(ready_fd), "--exit-fd", str(exit_fd), "-o", options, merged]
    server = subprocess.Popen(
        [*before, sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd,
        pass_fds=(ready_fd, exit_fd),
        start_new_session=True,
    )
    os.close(ready_fd)
    os.close(exit_fd)
    with open(ready, "rb") as told:
        if not told.readline():
            os.close(keep_fd)
            raise AssertionError(f"python -m fuse: status {server.wait()}\n{_tail(log_fd)}")
    return server, keep_fd


def _start_peer(options: str, merged: str, log_fd: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    server = subprocess.Popen(
        ["fuse-overlayfs", "-f", "-o", options, merged],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd,
        start_new_session=True,
    )
    while merged not in mount_points():
        if server.poll() is not None:
            raise AssertionError(f"fuse-overlayfs: status {server.returncode}\n{_tail(log_fd)}")
        time.sleep(0.002)
    os.statvfs(merged)
    return server


def _tail(log_fd: int) -> str:
    return Path(f"/proc/self/fd/{log_fd}").read_text(errors="backslashreplace")[-3000:]


def _unmount(base: str) -> None:
    umount2(f"{base}/merged")
    if base in _servers:
        ours = _servers[base][1] >= 0
        status = _wait(base)
        assert status == 0 or not ours, f"the server left with status {status}"


def _wait(base: str) -> int:
    server, _ = _servers[base]
    status = server.wait(20)
    _let_go(base)
    del _servers[base]
    return status


def _let_go(base: str) -> None:
    server, keep_fd = _servers[base]
    if keep_fd >= 0:
        os.close(keep_fd)
    _servers[base] = server, -1


def _kill(base: str) -> None:
    server, _ = _servers[base]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    _let_go(base)
    del _servers[base]
    with contextlib.suppress(OSError):
        umount2(f"{base}/merged", MNT_DETACH)


def _leave(base: str) -> None:
    try:
        if f"{base}/merged" in mount_points():
            _unmount(base)
    finally:
        _clear(base)


def _clear(base: str) -> None:
    if base in _servers:
        _kill(base)
    for place in reversed(mount_points()):
        if place.startswith(f"{base}/"):  # the test's own
            umount2(place, MNT_DETACH)
    for entry in os.scandir(base):  # as root: files of all ids are here
        shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
    _bases.remove(base)
