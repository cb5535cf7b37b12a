"""The OCI runtime's operations (runtime-spec, runtime.md): create, start, state, kill, delete, by id and bundle.

The same runtime that `rootless run` uses, without a monitor: whoever calls has the process as a child, or is its
subreaper. Between create and start the process waits at a *gate*, a socket in the container's state directory. What of
a configuration is not supported yet is refused before anything is made; nothing of it is passed over.
"""

import json
import os
from typing import Any

from rootless.engine import seccomp
from rootless.errors import Conflict, HostUnsupported, InvalidInput, NotFound, RootlessError
from rootless.linux import files, namespaces, processes
from rootless.linux.directories import runtime_directory
from rootless.runtime import channel, container, user_namespace
from rootless.runtime.launcher import Launcher
from rootless.spec import runtime
from rootless.spec.runtime import Config
from rootless.spec.seccomp import parse as parse_seccomp
from rootless.store.containers import check_name
from rootless.store.layout import remove_path

_LIMITS = ("memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "unified")


class Oci:
    """The containers of one state directory (--root)."""

    def __init__(self, root: str = "") -> None:
        self.root = root or os.path.join(runtime_directory(), "oci")
        os.makedirs(self.root, 0o700, exist_ok=True)

    def _directory(self, container_id: str) -> str:
        return os.path.join(self.root, check_name(container_id))

    def create(self, container_id: str, bundle: str, *, console_socket: str = "", pid_file: str = "") -> int:
        """Make the container of *bundle*; its pid. The program waits for start()."""
        bundle = os.path.abspath(bundle)
        config = load_config(bundle)
        terminal = bool(config["process"].get("terminal"))
        if terminal != bool(console_socket):
            raise InvalidInput(
                "process.terminal needs --console-socket" if terminal else "--console-socket needs process.terminal"
            )
        directory = self._directory(container_id)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            raise Conflict(f"container with id {container_id} already exists") from None
        try:
            created = self._launch(directory, bundle, config, terminal)
            _finish(created, console_socket, pid_file)
            record = {
                "id": container_id,
                "bundle": bundle,
                "pid": created.pid,
                "process_started": created.started,
                "annotations": config.get("annotations") or {},
                "listener": _listener(config),
            }
            files.replace_file(os.path.join(directory, "state.json"), json.dumps(record).encode(), durable=False)
        except BaseException:
            remove_path(directory)
            raise
        return created.pid

    def _launch(self, directory: str, bundle: str, config: Config, terminal: bool) -> container.Created:
        _enter_namespace()
        section = config["linux"].get("seccomp")
        filtered = None if section is None else seccomp.filter_of(runtime_directory(), section)
        directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        gate = channel.listen(f"/proc/self/fd/{directory_fd}/gate")
        os.close(directory_fd)
        try:
            return container.create(Launcher(filtered), bundle, None if terminal else (0, 1, 2), _warn, gate.fileno())
        finally:
            gate.close()

    def start(self, container_id: str) -> None:
        """Let the program of a created container run. Raises what execve(2) says."""
        if self.state(container_id)["status"] != "created":
            raise Conflict(f"cannot start a container that is not created: {container_id}")
        listener = self._record(container_id).get("listener")
        agent = _connect(listener["path"]) if listener else None
        directory_fd = os.open(self._directory(container_id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        gate = channel.connect(f"/proc/self/fd/{directory_fd}/gate")
        os.unlink("gate", dir_fd=directory_fd)
        os.close(directory_fd)
        channel.send(gate, channel.GO)
        while True:
            kind, text, fds = channel.receive(gate)
            if kind == channel.ERROR:
                channel.raise_error(text)
            if not kind:
                return
            if kind == channel.LISTENER and listener and agent:
                channel.send_state(agent, self._process_state(container_id, listener["metadata"]), fds[0])
                agent.close()
                os.close(fds[0])

    def _process_state(self, container_id: str, metadata: str) -> bytes:
        """The document that goes with a listener (config-linux.md, "The Container Process State")."""
        state = self.state(container_id)
        described = {"ociVersion": runtime.VERSION, "fds": ["seccompFd"], "pid": state["pid"], "state": state}
        return json.dumps({**described, "metadata": metadata} if metadata else described).encode()

    def run(self, container_id: str, bundle: str, *, console_socket: str = "", pid_file: str = "") -> int:
        """create and start, and wait; the exit code. The container is deleted in the end."""
        pid = self.create(container_id, bundle, console_socket=console_socket, pid_file=pid_file)
        try:
            self.start(container_id)
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        finally:
            self.delete(container_id, force=True)

    def state(self, container_id: str) -> dict[str, Any]:
        """The state document of runtime.md."""
        directory, record = self._directory(container_id), self._record(container_id)
        alive = processes.start_time(record["pid"]) == record["process_started"]
        waiting = os.path.exists(os.path.join(directory, "gate"))
        status = "stopped" if not alive else "created" if waiting else "running"
        return {
            "ociVersion": runtime.VERSION,
            "id": container_id,
            "status": status,
            "pid": record["pid"] if alive else 0,
            "bundle": record["bundle"],
            "annotations": record["annotations"],
        }

    def _record(self, container_id: str) -> dict[str, Any]:
        try:
            with open(os.path.join(self._directory(container_id), "state.json"), "rb") as file:
                return dict(json.loads(file.read()))
        except FileNotFoundError:
            raise NotFound(f"container {container_id} does not exist") from None

    def kill(self, container_id: str, signum: int) -> None:
        """Send a signal to the container's process."""
        state = self.state(container_id)
        if state["status"] == "stopped":
            raise Conflict(f"container {container_id} is not running")
        self._signal(container_id, signum)

    def _signal(self, container_id: str, signum: int) -> None:
        _enter_namespace()
        record = self._record(container_id)
        fd = processes.open_process(record["pid"], record["process_started"])
        if fd is not None:
            processes.pidfd_send_signal(fd, signum)
            os.close(fd)

    def delete(self, container_id: str, *, force: bool) -> None:
        """Forget a container that has ended; *force* kills it first, and does not mind if there is none."""
        try:
            status = self.state(container_id)["status"]
        except NotFound:
            if force:
                return
            raise
        if status != "stopped":
            if not force:
                raise Conflict(f"cannot delete container {container_id} that is not stopped: {status}")
            self._signal(container_id, 9)
        remove_path(self._directory(container_id))

    def list(self) -> list[dict[str, Any]]:
        """The states of all containers."""
        return [self.state(name) for name in sorted(os.listdir(self.root))]


def _listener(config: Config) -> dict[str, str] | None:
    """Who is to have the filter's listener, for the state."""
    section = config["linux"].get("seccomp")
    listener = None if section is None else parse_seccomp(section).listener
    return listener and listener._asdict()


def _connect(path: str) -> channel.Socket:
    """A connection to who answers for calls of the program."""
    try:
        return channel.connect_stream(path)
    except OSError as error:
        raise HostUnsupported(f"linux.seccomp.listenerPath: {path}: {error.strerror}") from error


def _warn(text: str) -> None:
    os.write(2, f"rootless-oci: {text}\n".encode())


def _enter_namespace() -> None:
    """Be root of a user namespace: the one we are in, as below podman, or the user's."""
    if os.geteuid() != 0:
        user_namespace.enter(runtime_directory())


def _finish(created: container.Created, console_socket: str, pid_file: str) -> None:
    created.channel.close()
    if created.terminal_fd is not None:
        channel.send_terminal(console_socket, created.terminal_fd)
        os.close(created.terminal_fd)
    if pid_file:
        files.replace_file(os.path.abspath(pid_file), str(created.pid).encode(), 0o644, durable=False)


def load_config(bundle: str) -> Config:
    """The bundle's config.json, as far as it is supported. Raises InvalidInput and HostUnsupported naming the path."""
    path = os.path.join(bundle, "config.json")
    try:
        with open(path, "rb") as file:
            config = json.loads(file.read())
    except FileNotFoundError:
        raise NotFound(f"JSON specification file {path} not found") from None
    except ValueError as error:
        raise InvalidInput(f"{path}: {error}") from error
    for section, kind in (("root", dict), ("process", dict), ("linux", dict)):
        if not isinstance(config.get(section), kind):
            raise InvalidInput(f"{path}: {section} is missing")
    if not isinstance(config["root"].get("path"), str):
        raise InvalidInput(f"{path}: root.path is missing")
    config["linux"].setdefault("namespaces", [])
    _refuse(config)
    return dict(config)


def _refuse(config: Config) -> None:
    linux = config["linux"]
    unsupported = {
        "hooks": any((config.get("hooks") or {}).values()),
        "linux.intelRdt": linux.get("intelRdt"),
        "linux.uidMappings": linux.get("uidMappings") or linux.get("gidMappings"),
        "process.apparmorProfile": config["process"].get("apparmorProfile"),
        "process.selinuxLabel": config["process"].get("selinuxLabel"),
        **{f"linux.resources.{name}": (linux.get("resources") or {}).get(name) for name in _LIMITS},
    }
    for path, value in unsupported.items():
        if value:
            raise HostUnsupported(f"config.json: {path} is not supported yet")
    if (section := linux.get("seccomp")) is not None:
        parse_seccomp(section, "config.json: linux.seccomp")
        if "compiled" in section:
            raise InvalidInput("config.json: linux.seccomp.compiled: only rootless itself writes that")
    for namespace in linux["namespaces"]:
        if namespace.get("type") not in namespaces.NAMESPACES:
            raise InvalidInput(f"config.json: linux.namespaces: unknown type {namespace.get('type')!r}")
    if not any(namespace["type"] == "mount" for namespace in linux["namespaces"]):
        raise RootlessError("config.json: linux.namespaces: a mount namespace is needed")
