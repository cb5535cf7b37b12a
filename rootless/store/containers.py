"""Containers: what each was made from, and how it is.

    containers/ID/container.json   what it was made with; changes only by rename and update
                  state.json       how it is; written by its monitor while that lives, else by whoever holds its lock
                  config.json …    the bundle, upper and work directories, log
    names/NAME -> ID               a symbolic link, so that a name is taken by one system call

A state that says `running` is believed only while the monitor holds its lock: see `Containers.state`.
"""

import os
import re
import time
from contextlib import AbstractContextManager, suppress
from typing import Any

from rootless.errors import Conflict, CorruptData, InvalidInput, NotFound
from rootless.linux import cgroups, files, processes
from rootless.store import events
from rootless.store.layout import Layout, load_record, remove_path, save_record

Record = dict[str, Any]

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")  # moby: daemon/names
_ID_START = re.compile(r"[0-9a-f]+")
_MAX_NAME = 255
LIVE = ("running", "paused", "restarting")
EXIT_UNKNOWN = 255


def check_name(name: str) -> str:
    """*name*, if a container may be called so (X25). Raises InvalidInput."""
    name = name.removeprefix("/")
    if not NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise InvalidInput(
            f"Invalid container name ({name!r}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at least two of them"
        )
    return name


def _end_cgroup(state: Record) -> None:
    """Kill and remove what its monitor has left of a container's control group, if it had one."""
    if path := state.get("cgroup"):
        with suppress(OSError):  # it is being removed by another; or by its systemd, as soon as it is empty
            cgroups.end(path)


class Containers:
    """The containers of a store."""

    __slots__ = ("_layout",)

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def directory(self, container_id: str) -> str:
        """Where the container is, or would be."""
        return self._layout.path("containers", container_id)

    def run_directory(self, container_id: str) -> str:
        """Where its sockets and locks are while it runs."""
        return self._layout.run_path("containers", container_id)

    def lock(self, container_id: str, *, blocking: bool = True) -> AbstractContextManager[int]:
        """The lock of everything that makes or changes a container from outside: create, start, remove, rename."""
        return self._layout.lock(f"container.{container_id}", blocking=blocking)

    def take_name(self, name: str, container_id: str) -> None:
        """Let *name* mean the container. Raises Conflict where it means another."""
        path = self._layout.path("names", check_name(name))
        while True:
            try:
                os.symlink(container_id, path)
                return
            except FileExistsError:
                pass
            try:
                holder = os.readlink(path)
            except FileNotFoundError:
                continue
            if holder == container_id:
                return
            if not self._is_lost(holder):
                raise Conflict(
                    f'the container name "/{name}" is already in use by container "{holder}"',
                    hint="remove or rename that container to be able to reuse the name",
                )
            # A kill has left the name of a container that is gone. Renamed away, so that only one of us frees it.
            aside = self._layout.aside()
            with suppress(FileNotFoundError):
                os.rename(path, aside)
                os.unlink(aside)

    def _is_lost(self, container_id: str) -> bool:
        """Whether a container is not there and not being made either: whoever makes one holds its lock."""
        try:
            with self.lock(container_id, blocking=False):
                if os.path.exists(self.directory(container_id)):
                    return False
                self._layout.forget_lock(f"container.{container_id}")
                return True
        except BlockingIOError:
            return False

    def free_name(self, name: str, container_id: str) -> None:
        """The name means nothing any more, if it meant the container."""
        path = self._layout.path("names", name)
        with suppress(FileNotFoundError):
            if os.readlink(path) == container_id:
                os.unlink(path)

    def _free_names(self, container_id: str) -> None:
        for name in os.listdir(self._layout.path("names")):
            self.free_name(name, container_id)

    def stage(self) -> str:
        """A directory for a container that is being made; see Layers.stage."""
        path = self._layout.aside()
        os.mkdir(path, 0o700)
        return path

    def commit(self, staged: str, record: Record, state: Record, *, durable: bool) -> None:
        """Let the container be there, complete."""
        save_record(os.path.join(staged, "state.json"), state, durable=False)
        save_record(os.path.join(staged, "container.json"), record, durable=durable)
        os.rename(staged, self.directory(record["id"]))

    def load(self, container_id: str) -> Record:
        """What it was made with. Raises NotFound."""
        try:
            return load_record(os.path.join(self.directory(container_id), "container.json"))
        except FileNotFoundError:
            raise NotFound(f"No such container: {container_id}") from None

    def save(self, record: Record) -> None:
        """Replace what load returns. Hold the container's lock."""
        save_record(os.path.join(self.directory(record["id"]), "container.json"), record)

    def save_state(self, container_id: str, state: Record, *, durable: bool = True) -> None:
        """Replace the state. Hold the container's lock, and have no monitor alive."""
        save_record(os.path.join(self.directory(container_id), "state.json"), state, durable=durable)

    def state(self, container_id: str) -> Record:
        """How the container is. Where it says that it lives and its monitor is dead, the record is put right.

        What is left of the container is killed then, its exit code is EXIT_UNKNOWN. Raises NotFound.
        """
        state = self._load_state(container_id)
        if state["status"] in LIVE and not self.has_monitor(container_id):
            with self.lock(container_id):
                return self.state_locked(container_id)
        return state

    def state_locked(self, container_id: str) -> Record:
        """The same for who holds the container's lock."""
        state = self._load_state(container_id)
        if state["status"] in LIVE and not self.has_monitor(container_id):
            state = self._load_state(container_id)  # it may have ended well between the two looks
            if state["status"] in LIVE:
                self._bury(container_id, state)
        return state

    def _load_state(self, container_id: str) -> Record:
        try:
            return load_record(os.path.join(self.directory(container_id), "state.json"))
        except FileNotFoundError:
            raise NotFound(f"No such container: {container_id}") from None

    def _bury(self, container_id: str, state: Record) -> None:
        if state.get("boot_id") == processes.boot_id():
            fd = processes.open_process(state["pid"], state["process_started"])
            if fd is not None:
                processes.pidfd_send_signal(fd, 9)
                os.close(fd)
            _end_cgroup(state)
            state["error"] = "the monitor of the container was killed"
        else:
            state["error"] = "the machine was restarted"
        # When it ended nobody knows: it is known from now on.
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        state.update(status="exited", pid=0, exit_code=EXIT_UNKNOWN, finished_at=now)
        self.save_state(container_id, state)
        with suppress(NotFound, CorruptData):
            attributes = {**events.attributes_of(self.load(container_id)), "exitCode": str(EXIT_UNKNOWN)}
            events.append(self._layout, "container", "die", container_id, attributes)

    def has_monitor(self, container_id: str) -> bool:
        """Whether the monitor of the container is alive: whether somebody holds its lock."""
        path = os.path.join(self.run_directory(container_id), "monitor")
        try:
            with files.lock_file(path, shared=True, blocking=False):
                return False
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False

    def list(self) -> list[str]:
        """The ids of all containers."""
        return os.listdir(self._layout.path("containers"))

    def find(self, text: str) -> str:
        """The id that *text* means: a name, an id, or the beginning of one. Raises NotFound, Conflict."""
        name = text.removeprefix("/")
        if NAME.fullmatch(name) or _ID_START.fullmatch(name):
            try:
                holder = os.readlink(self._layout.path("names", name))
                if os.path.exists(self.directory(holder)):
                    return holder
            except OSError:
                pass
            matches = [i for i in self.list() if i.startswith(name)]
            if len(matches) == 1 or name in matches:
                return name if name in matches else matches[0]
            if matches:
                raise Conflict(f"container id {text} is ambiguous: {len(matches)} containers begin with it")
        raise NotFound(f"No such container: {text}")

    def remove(self, container_id: str) -> None:
        """Remove the container, whose monitor is gone. Hold its lock."""
        try:
            self.free_name(self.load(container_id)["name"], container_id)
        except NotFound:
            pass
        except CorruptData:
            self._free_names(container_id)
        with suppress(NotFound, CorruptData):
            _end_cgroup(self._load_state(container_id))
        self._layout.discard(self.directory(container_id))
        with suppress(FileNotFoundError):
            remove_path(self.run_directory(container_id))

    def sweep(self) -> None:
        """Remove what is left of containers that were killed while they were being made or removed.

        Their lock is the first thing that is made and the last that goes, so it shows which they are.
        """
        locks = {
            name.partition(".")[2] for name in os.listdir(self._layout.run_path("locks")) if name[:10] == "container."
        }
        for container_id in locks.difference(self.list()):
            if self._is_lost(container_id):
                self._free_names(container_id)
                with suppress(FileNotFoundError):
                    remove_path(self.run_directory(container_id))
