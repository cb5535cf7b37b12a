"""The files of a container as it sees them, by a descriptor of its root: for cp and export.

    with opened_root(engine, container_id) as root:
        open_in_root(root.fd, path, ...)

A container that runs has its root, and what is mounted in it, behind /proc/PID/root (proc(5)): nothing of it is mounted
for us, and what is read-only for it is so for us. Of one that does not run, a child of ours mounts what a start would,
in a mount namespace of its own, and hands over the descriptor; when it is told to go, or we are gone, however that
happens, it ends, and with it the namespace and its mounts. The container cannot be started meanwhile: its lock is held.

Paths in it are the container's to plant traps in, so they are only ever looked up from the descriptor. Nothing is
executed in there, and no process of ours has it for a root.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple, NoReturn

from rootless.engine import bundle, storage, userns
from rootless.engine.context import Engine
from rootless.errors import Conflict, RootlessError
from rootless.linux import mounts, namespaces, processes
from rootless.runtime import channel, nested, root_mount, rootfs
from rootless.runtime.union_server import UnionServer
from rootless.spec.runtime import Config
from rootless.store.containers import LIVE, Record

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ROOT = b"r"  # a message with the descriptor
_NAME_FILES = {f"/etc/{name}" for name in ("hosts", "hostname", "resolv.conf")}


class Root(NamedTuple):
    """A container's root: a descriptor to look paths up from, and whether somebody else may be changing it.

    *is_joined*: this process has entered the container's own user namespace for it, and sees the ids of that.
    """

    fd: int
    is_live: bool
    is_joined: bool = False


@contextmanager
def opened_root(engine: Engine, container_id: str, *, mounted: bool = True) -> Iterator[Root]:
    """The root of the container; unless *mounted*, without what is mounted in it, so that one sees what is below.

    Raises NotFound, Conflict where it is just ending, HostUnsupported where its root cannot be mounted.
    """
    engine.enter_namespace()
    with ExitStack() as held:
        state = engine.containers.state(container_id)
        if state["status"] not in LIVE:
            held.enter_context(engine.containers.lock(container_id))
            state = engine.containers.state_locked(container_id)
            if state["status"] in LIVE:  # it was started just now
                held.close()
        record = engine.containers.load(container_id)
        if state["status"] in LIVE:
            fd = _of_running(record, state, mounted)
        else:
            fd = _of_stopped(engine, record, mounted, held)
        held.callback(os.close, fd)
        is_live = state["status"] in LIVE
        yield Root(fd, is_live, is_live and bool(record.get("userns")))


def _of_running(record: Record, state: Record, mounted: bool) -> int:
    with ExitStack() as opened:
        fd = _open_of(state, "root", _PATH, opened)
        namespace_fd = _open_of(state, "ns/mnt", os.O_RDONLY, opened)
        if record.get("userns"):
            _join(record, state["pid"])
        if mounted:
            return os.open(".", _DIRECTORY, dir_fd=fd)
        with _keeper(lambda: _bare(namespace_fd)) as bare_fd:
            return os.dup(bare_fd)


def _open_of(state: Record, name: str, flags: int, opened: ExitStack) -> int:
    fd = processes.open_of_process(state["pid"], state["process_started"], name, flags)
    if fd is None:
        raise Conflict("the container has just ended")
    opened.callback(os.close, fd)
    return fd


def _join(record: Record, pid: int) -> None:
    """Have this process seen by the server of the root, which speaks with the container's user namespace alone."""
    if record["userns"]["mode"] != userns.KEEP_ID:
        raise Conflict(
            f"container {record['name']} runs with ids that you do not have: its files cannot be reached from outside",
            hint="stop it first, or use tar: rootless exec CONTAINER tar -c PATH",
        )
    nested.join(pid)


def _bare(namespace_fd: int) -> int:
    """In the child: the root of a mount namespace without what is mounted in it, as a mount of its own."""
    namespaces.setns(namespace_fd, namespaces.CLONE_NEWNS)
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return mounts.open_tree(root_fd, recursive=False)


def _of_stopped(engine: Engine, record: Record, mounted: bool, held: ExitStack) -> int:
    config = _file_mounts(engine, record, mounted)
    directory = engine.containers.directory(record["id"])
    run_directory = engine.containers.run_directory(record["id"])
    os.makedirs(run_directory, mode=0o700, exist_ok=True)
    settings = storage.union_settings(config, run_directory)
    fd = held.enter_context(_keeper(lambda: _mount(config, directory, settings, read_only=record["read_only"])))
    return os.dup(fd)


def _file_mounts(engine: Engine, record: Record, mounted: bool) -> Config:
    """What a start would mount, without what only processes need: the root; if *mounted*, volumes and name files."""
    alone = {**record, "pid": "", "ipc": "", "uts": "", "network": "none"}
    config = bundle.build(engine, alone, engine.enter_namespace(), (0, 0))
    binds = {m["destination"] for m in record["mounts"] if m["type"] != "tmpfs"} | _NAME_FILES if mounted else set()
    config["mounts"] = [
        m
        for m in config["mounts"]
        if m["type"] in storage.DRIVERS or (m["type"] == "bind" and m["destination"] in binds)
    ]
    return config


def _mount(config: Config, directory: str, settings: dict[str, Any] | None, *, read_only: bool) -> int:
    """In the child: mount what the container has, and return a descriptor of its root."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    server = UnionServer(settings) if settings else None

    def serve(fuse_fd: int) -> None:
        if server:
            server.serve(os.dup(fuse_fd))

    root_fd = root_mount.mount_root(config, directory, serve)
    rootfs.perform(rootfs.plan_mounts(config), root_fd, directory)
    if read_only:
        mounts.mount_setattr(root_fd, mounts.MS_RDONLY)
    return root_fd


@contextmanager
def _keeper(work: Callable[[], int]) -> Iterator[int]:
    """A child that gets a descriptor by *work*, and keeps its namespaces as long as this is not left."""
    ours, theirs = channel.pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _keep(work, theirs)
    theirs.close()
    try:
        kind, text, fds = channel.receive(ours)
        if kind == channel.ERROR:
            channel.raise_error(text)
        if kind != _ROOT or not fds:
            raise RootlessError("the process that mounts the container's files died")
        try:
            yield fds[0]
        finally:
            os.close(fds[0])
    finally:
        ours.close()
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _keep(work: Callable[[], int], theirs: channel.Socket) -> NoReturn:
    """The child: it ends when the other end of its channel is closed."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # of Ctrl-C: the command decides
        os.setsid()
        processes.prctl(processes.PR_SET_DUMPABLE, 0)
        try:
            fd = work()
        except (RootlessError, OSError) as error:
            channel.send_error(theirs, error)
            os._exit(1)
        channel.send(theirs, _ROOT, "", (fd,))
        os.close(fd)
        theirs.recv(1)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)
