"""The state directory of the OCI runtime: a directory for each container, with its record, its configuration, its gate.

ROOT/ID/state.json    what state() tells, and the pid with its start time; written when the container is created
        config.json   the configuration it was made of: exec and hooks go by it, whatever the bundle has meanwhile
        gate          a socket, as long as the container waits for start
        paused        is there while it is paused by signals
"""

import json
import os
import re
from typing import Any, NamedTuple

from rootless.errors import Conflict, InvalidInput, NotFound
from rootless.linux import files, processes
from rootless.linux.directories import runtime_directory
from rootless.spec import runtime
from rootless.store.layout import remove_path

_ID = re.compile(r"[A-Za-z0-9_+.-]{1,255}")  # as runc and crun have it


class Record(NamedTuple):
    """One container."""

    directory: str
    id: str
    bundle: str
    pid: int
    started: int
    created: str
    rootfs: str
    annotations: dict[str, str]
    listener: dict[str, str] | None
    cgroup: str  # the path of its cgroup; empty where it has none

    @property
    def status(self) -> str:
        """created, running, paused or stopped."""
        if processes.start_time(self.pid) != self.started:
            return "stopped"
        if os.path.exists(os.path.join(self.directory, "gate")):
            return "created"
        paused = self._is_frozen() if self.cgroup else os.path.exists(self.path("paused"))
        return "paused" if paused else "running"

    def _is_frozen(self) -> bool:
        from rootless.runtime.cgroup import Cgroup

        return Cgroup(self.cgroup).is_frozen()

    def path(self, name: str) -> str:
        """Of a file of its directory."""
        return os.path.join(self.directory, name)

    def state(self, status: str = "") -> dict[str, Any]:
        """The document of runtime.md, "State", with what runc and crun add."""
        status = status or self.status
        return {
            "ociVersion": runtime.VERSION,
            "id": self.id,
            "status": status,
            "pid": 0 if status == "stopped" else self.pid,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "owner": "",
            "annotations": self.annotations,
        }

    def config(self) -> runtime.Config:
        """The configuration that it was made of."""
        with open(self.path("config.json"), "rb") as file:
            return dict(json.loads(file.read()))

    def save(self) -> None:
        """Write it down; from then on the container is there for other commands."""
        files.replace_file(self.path("state.json"), json.dumps(self._asdict()).encode(), durable=False)


class States:
    """The containers of one root directory."""

    def __init__(self, root: str = "") -> None:
        self.root = os.path.abspath(root) if root else os.path.join(runtime_directory(), "oci")
        os.makedirs(self.root, 0o700, exist_ok=True)

    def directory(self, container_id: str) -> str:
        """Where a container of this name is. Raises InvalidInput for what cannot be one."""
        if not _ID.fullmatch(container_id) or container_id in (".", ".."):
            raise InvalidInput(f"invalid container id {container_id!r}: letters, digits and _+.- make one")
        return os.path.join(self.root, container_id)

    def make(self, container_id: str) -> str:
        """Make the directory, and take the name with it. Raises Conflict."""
        directory = self.directory(container_id)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            raise Conflict(f"container with id {container_id} already exists") from None
        return directory

    def load(self, container_id: str) -> Record:
        """Raises NotFound."""
        directory = self.directory(container_id)
        try:
            with open(os.path.join(directory, "state.json"), "rb") as file:
                return Record(**{**json.loads(file.read()), "directory": directory})
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"container {container_id} does not exist") from None

    def remove(self, container_id: str) -> None:
        """Forget it."""
        remove_path(self.directory(container_id))

    def all(self) -> list[Record]:
        """Those that are created, by name."""
        found = []
        for name in sorted(os.listdir(self.root)):
            try:
                found.append(self.load(name))
            except (NotFound, InvalidInput):
                continue  # it is being created, or deleted; or nothing of ours
        return found
