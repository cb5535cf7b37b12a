"""A RUN step's container: made, isolated and attached as those of `run` are, on the layers so far; not in the store.

Its upper directory lies in the store's trash under the build's pid, and so do overlayfs's work directory and the mount
point: whatever ends the build, the next command sweeps them. All else is in the spawner's tmpfs (build_spawner.py).
Afterwards the upper directory is a layer, but for the stubs: what was made for the sake of a mount (B06). They are
looked for in the upper directory alone, by descriptor, no link followed, and go if there is still nothing in them.
"""

import json
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from typing import Any, NamedTuple

from rootless.engine import attachment, bundle, control_group, network_options, storage
from rootless.engine.attach import Attachment
from rootless.engine.build_spawner import Spawner
from rootless.engine.build_tree import Directory, find, open_layers
from rootless.engine.build_write import dress
from rootless.engine.context import Engine
from rootless.engine.create import build_record, initial_state
from rootless.engine.names import random_id
from rootless.engine.options import ContainerOptions
from rootless.errors import RootlessError
from rootless.linux import files, processes
from rootless.runtime import channel
from rootless.runtime.channel import Socket
from rootless.spec.digest import ChainID
from rootless.spec.image import RuntimeConfig
from rootless.spec.runtime import Config
from rootless.store.containers import Record
from rootless.store.layout import remove_path
from rootless.store.marks import is_opaque

HOSTNAME = "buildkitsandbox"  # what scripts see that look whether they run in a build
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Output = Callable[[str, bytes], None]  # "stdout" or "stderr", and what came


class Request(NamedTuple):
    """What is to be run, and on what."""

    layers: tuple[ChainID, ...]  # bottom first
    options: ContainerOptions  # command, environment, user, network …
    mounts: Sequence[Config] = ()  # of config.json, after those that every container has
    files: Sequence[dict[str, Any]] = ()  # see Spawner.make
    binds: Sequence[dict[str, Any]] = ()


class Running:
    """The containers of one build that run, so that Ctrl-C ends them all."""

    def __init__(self) -> None:
        self.cancelled = False
        self._channels: set[Socket] = set()

    def add(self, connection: Socket) -> None:
        self._channels.add(connection)

    def remove(self, connection: Socket) -> None:
        self._channels.discard(connection)

    def cancel(self) -> None:
        """End them: each monitor sees that nobody waits for it."""
        self.cancelled = True
        for connection in list(self._channels):
            with suppress(OSError):
                connection.shutdown(2)  # SHUT_RDWR


class Place:
    """Where a step's container keeps its changes: `upper`, `work` and `rootfs` in the trash."""

    def __init__(self, engine: Engine, layers: Sequence[ChainID]) -> None:
        self.path = engine.layout.aside()
        os.mkdir(self.path, 0o700)
        for name in ("upper", "work", "rootfs"):
            files.make_directory(os.path.join(self.path, name), 0o755)
        self.upper = os.path.join(self.path, "upper")
        if layers:
            self._dress(engine.layers.diff(layers[-1]))

    def _dress(self, lower: str) -> None:
        fds = [os.open(path, _ENTER) for path in (self.upper, lower)]
        dress(*fds)
        for fd in fds:
            os.close(fd)

    def close(self) -> None:
        """Remove it; what cannot be removed stays in the trash."""
        with suppress(OSError):
            remove_path(self.path)


def directory_in_container(spawner: Spawner, step: str, name: str) -> str:
    """Where a file of Request.files, or a bind, is for a mount's source."""
    return os.path.join(spawner.directory(step), name)


def new_step() -> str:
    """A name for a step's directory in the spawner's tmpfs."""
    return random_id()


def run(
    engine: Engine,
    spawner: Spawner,
    step: str,
    request: Request,
    place: Place,
    output: Output,
    running: Running,
) -> int:
    """Run the step's program to its end; its exit status. Its changes are in *place* then, without stubs.

    Raises what keeps it from running: CommandNotFound, HostUnsupported … From any thread.
    """
    with open_layers([engine.layers.diff(chain_id) for chain_id in request.layers], engine.whiteout_style) as lower:
        config, settings, attached = _prepare(engine, spawner, step, request, place)
        stubs = [_missing(lower, m["destination"]) for m in config["mounts"] if m["destination"] != "/"]
        code = _run(spawner, step, request, config, settings, attached, lambda c: _follow(c, output), running)
        _remove_stubs(place.upper, lower, stubs)
    return code


def run_terminal(engine: Engine, spawner: Spawner, step: str, request: Request, place: Place) -> int:
    """The same for a program that the user talks to; from the main thread."""
    config, settings, attached = _prepare(engine, spawner, step, request, place)
    return _run(spawner, step, request, config, settings, attached, _talk, Running())


def _prepare(
    engine: Engine, spawner: Spawner, step: str, request: Request, place: Place
) -> tuple[Config, Record, attachment.Attached | None]:
    """config.json and settings.json of the step, and its connection to the networks."""
    directory = spawner.directory(step)
    record = _record(engine, request)
    attached = attachment.attach(engine, record, {}) if record["networks"] else None
    try:
        rung = engine.enter_namespace()
        config = bundle.build(engine, record, rung, (0, 0), directory=place.path, names_directory=directory)
        config["root"]["path"] = os.path.join(place.path, "rootfs")
        config["mounts"] += request.mounts
        config["process"]["env"] = record["environment"]  # without HOSTNAME, which a step does not have
        settings = _settings(engine, record, directory, config, attached)
    except BaseException:
        if attached:
            attached.connection.close()
        raise
    return config, settings, attached


def _record(engine: Engine, request: Request) -> Record:
    """As a container's record; nothing of it is kept."""
    step_id = random_id()
    record = build_record(request.options, RuntimeConfig(), step_id, f"build-{step_id[:12]}", None)
    network_options.resolve(engine, record)
    return {**record, "image_id": "build", "layers": list(request.layers)}


def _settings(
    engine: Engine, record: Record, directory: str, config: Config, attached: attachment.Attached | None
) -> Record:
    """What the monitor is told: see start.py."""
    state = {**initial_state(), "boot_id": processes.boot_id(), "network": attached and attached.state}
    return {
        "record": record,  # for the name files; the monitor does not look at it
        "id": record["id"],
        "directory": directory,
        "run_directory": directory,
        "bundle": directory,
        "state": state,
        "durable": False,
        "terminal": record["terminal"],
        "open_stdin": record["open_stdin"],
        "stdin_once": record["stdin_once"],
        "log": None,
        "restart": record["restart"],
        "stop_signal": record["stop_signal"],
        "stop_timeout": record["stop_timeout"],
        "health": None,
        "network": attachment.settings(engine) if attached else None,
        "cgroup": control_group.settings(record),
        "at_end": None,
        "union": storage.union_settings(config, directory),
        "attached": True,
        "ends_with_owner": True,
    }


def _run(
    spawner: Spawner,
    step: str,
    request: Request,
    config: Config,
    settings: Record,
    attached: attachment.Attached | None,
    follow: Callable[[Socket], int],
    running: Running,
) -> int:
    with attached.connection if attached else nullcontext():
        names = attachment.name_files_of(settings.pop("record"), attached and attached.state)
        rows = [
            *(_file(name, text.encode("utf-8", "surrogateescape"), 0o644) for name, text in names.items()),
            _file("config.json", json.dumps(config).encode()),
            _file("settings.json", json.dumps(settings).encode()),
            *request.files,
        ]
        connection = spawner.make(step, rows, list(request.binds))
        try:
            with closing(connection):
                running.add(connection)
                fds = (attached.connection.fileno(),) if attached else ()
                channel.send(connection, channel.LAUNCH, f"{settings['run_directory']}/settings.json", fds)
                return follow(connection)
        finally:
            running.remove(connection)
            spawner.free(step)


def _file(path: str, content: bytes, mode: int = 0o600) -> dict[str, Any]:
    return {"path": path, "mode": mode, "uid": 0, "gid": 0, "content": content}


def _follow(connection: Socket, output: Output) -> int:
    """Hand on what the program writes, until the monitor has gone; its exit status."""
    code: int | None = None
    failure: bytes | None = None
    while True:
        try:
            kind, text, _ = channel.receive(connection)
        except OSError:
            kind, text = b"", b""
        if kind == channel.STDOUT:
            output("stdout", text)
        elif kind in (channel.STDERR, channel.WARNING):
            output("stderr", text if kind == channel.STDERR else b"rootless: warning: " + text + b"\n")
        elif kind == channel.ERROR:
            failure = text
        elif kind == channel.EXITED:
            code = int(text)
        elif not kind:
            break
    if failure is not None:
        channel.raise_error(failure)
    if code is None:
        raise RootlessError("the step was ended from outside: its monitor died")
    return code


def _talk(connection: Socket) -> int:
    end = Attachment(connection, terminal=True, stdin=0, stdout=1, stderr=2).run()
    with suppress(OSError):
        while channel.receive(connection)[0]:
            pass
    return end.exit_code or 0


# Stubs


class _Stub(NamedTuple):
    """A mount's destination: the directories that the layers have of it, and what is missing below them."""

    names: tuple[str, ...]
    missing: tuple[str, ...]


def _missing(lower: Directory, destination: str) -> _Stub:
    try:
        with find(lower, destination) as found:
            return _Stub(found.names, found.missing)
    except (NotADirectoryError, RootlessError):
        return _Stub((), ())  # the container will not start


def _remove_stubs(upper: str, lower: Directory, stubs: Sequence[_Stub]) -> None:
    """Remove what was made for mounts from the upper directory, and directories that only came up for that."""
    for stub in sorted(stubs, key=lambda stub: -len(stub.names + stub.missing)):
        if not stub.missing:
            continue
        trail = [os.open(upper, _ENTER)]
        try:
            path = [*stub.names, *stub.missing]
            for name in path[:-1]:
                trail.append(os.open(name, _ENTER, dir_fd=trail[-1]))
            _remove_backwards(trail, path, len(stub.names), lower)
        except (FileNotFoundError, NotADirectoryError):
            # The step has put something else there: then that is what it wants.
            _remove_backwards(trail, path[: len(trail)], len(stub.names), lower)
        finally:
            for fd in trail:
                os.close(fd)


def _remove_backwards(trail: list[int], path: list[str], existing: int, lower: Directory) -> None:
    """Remove the last of *path*, then what is above it, as long as it is empty; *trail* are the directories above."""
    for depth in range(len(path) - 1, -1, -1):
        if not _remove_stub(trail[depth], path[depth], path[: depth + 1] if depth < existing else None, lower):
            return


def _remove_stub(parent_fd: int, name: str, came_up: list[str] | None, lower: Directory) -> bool:
    """Whether *name* is not there any more. *came_up*: its path, where the layers below have it too."""
    try:
        status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            if came_up and not _looks_like_below(parent_fd, name, status, came_up, lower):
                return False
            os.rmdir(name, dir_fd=parent_fd)
        elif stat.S_ISREG(status.st_mode) and status.st_size == 0 and not came_up:
            os.unlink(name, dir_fd=parent_fd)
        else:
            return False
    except FileNotFoundError:
        return True
    except OSError:
        return False  # there is something in it
    return True


def _looks_like_below(parent_fd: int, name: str, status: os.stat_result, path: list[str], lower: Directory) -> bool:
    fd = os.open(name, _ENTER, dir_fd=parent_fd)
    try:
        if is_opaque(fd):
            return False
    finally:
        os.close(fd)
    with find(lower, "/".join(path), follow=False) as found:
        entry = found.entry
    if entry is None:
        return False
    below = entry.status
    return (status.st_mode, status.st_uid, status.st_gid) == (below.st_mode, below.st_uid, below.st_gid)
