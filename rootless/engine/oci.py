"""The OCI runtime's operations (runtime-spec, runtime.md): create, start, state, kill, delete, by id and bundle.

The same runtime that `rootless run` uses, without a monitor: whoever calls has the process as a child, or is its
subreaper. Between create and start the process waits at a *gate*, a socket in the container's state directory. What of
a configuration cannot be had is refused before anything is made (spec/runtime_check.py).
"""

import json
import os
import select
import time
from contextlib import suppress
from typing import Any, NamedTuple

from rootless.engine import oci_config
from rootless.engine.oci_state import Record, States
from rootless.errors import Conflict, HostUnsupported, InvalidInput, NotFound
from rootless.linux import files, processes
from rootless.linux.directories import runtime_directory
from rootless.runtime import channel, container, extras, hooks
from rootless.runtime.launcher import Launcher
from rootless.spec import runtime
from rootless.spec.runtime import Config

_END_SECONDS = 10


class Request(NamedTuple):
    """What create and run are asked for, beside the id."""

    bundle: str = "."
    config_file: str = "config.json"
    console_socket: str = ""
    pid_file: str = ""
    preserved: tuple[int, ...] = ()
    environment: tuple[str, ...] = ()  # of the program, beside its own
    keyring: bool = True
    foreground: bool = False  # a terminal without a socket is the caller's to serve


class Oci:
    """The containers of one state directory (--root)."""

    def __init__(self, root: str = "") -> None:
        self.states = States(root)

    def create(self, container_id: str, request: Request) -> container.Created:
        """Make the container of the bundle. The program waits for start()."""
        bundle = os.path.abspath(request.bundle)
        config = oci_config.load(bundle, request.config_file)
        _check_terminal(config, request)
        config["process"]["env"] = [*(config["process"].get("env") or ()), *request.environment]
        directory = self.states.make(container_id)
        try:
            config = oci_config.translate_ids(config)
            oci_config.enter_namespace()
            return self._create(container_id, directory, bundle, config, request)
        except BaseException:
            self.states.remove(container_id)
            raise

    def _create(
        self, container_id: str, directory: str, bundle: str, config: Config, request: Request
    ) -> container.Created:
        files.replace_file(os.path.join(directory, "config.json"), json.dumps(config).encode(), durable=False)
        record = _new_record(container_id, directory, bundle, config)
        cgroup = ""
        try:
            created, cgroup = self._launch(record, config, request)
            record = record._replace(pid=created.pid, started=created.started, cgroup=cgroup)
            _finish(created, request)
            record.save()
            return created
        except BaseException:
            _run_hooks(config, "poststop", record, "stopped")
            raise

    def _launch(self, record: Record, config: Config, request: Request) -> tuple[container.Created, str]:
        extra = extras.Extras(record.state("creating"), request.preserved, request.keyring)
        directory_fd = os.open(record.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        gate = channel.listen(f"/proc/self/fd/{directory_fd}/gate")
        os.close(directory_fd)
        cgroup = ""
        try:
            launcher = Launcher(_filter(config), config, extra)
            cgroup = _make_cgroup(config, record.id, launcher.pid)
            run_hooks = extras.parents_hooks(config, lambda pid: _document(record, "creating", pid))
            stdio = None if config["process"].get("terminal") else (0, 1, 2)
            created = container.create(
                launcher, record.bundle, stdio, warn, gate.fileno(), run_hooks=run_hooks if "hooks" in config else None
            )
            _limit(cgroup, config)
            return created, cgroup
        except BaseException:
            _end_cgroup(cgroup)
            raise
        finally:
            gate.close()

    def start(self, container_id: str) -> None:
        """Let the program of a created container run. Raises what execve(2) says."""
        record = self.states.load(container_id)
        if record.status != "created":
            raise Conflict(f"cannot start a container that is not created: {container_id} is {record.status}")
        agent = _connect(record.listener["path"]) if record.listener else None
        directory_fd = os.open(record.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        gate = channel.connect(f"/proc/self/fd/{directory_fd}/gate")
        os.unlink("gate", dir_fd=directory_fd)
        os.close(directory_fd)
        channel.send(gate, channel.GO)
        while (message := channel.receive(gate))[0]:
            kind, text, fds = message
            if kind == channel.ERROR:
                channel.raise_error(text)
            if kind == channel.LISTENER and record.listener and agent:
                channel.send_state(agent, _process_state(record, record.listener["metadata"]), fds[0])
                agent.close()
                os.close(fds[0])
        _run_hooks(record.config(), "poststart", record, "running")

    def run(self, container_id: str, request: Request, *, detach: bool, keep: bool = False) -> int:
        """create and start; unless *detach*, wait too: the exit code. The container is deleted then, unless *keep*."""
        from rootless.engine import oci_foreground  # only where somebody waits

        created = self.create(container_id, request)
        try:
            self.start(container_id)
            if detach:
                return 0
            code = oci_foreground.wait(created.pid, created.terminal_fd if request.foreground else None)
        except BaseException:
            self.delete(container_id, force=True)
            raise
        if not keep:
            self.delete(container_id, force=True)
        return code

    def kill(self, container_id: str, signum: int, *, all_processes: bool = False) -> None:
        """Send a signal to the container's first process, or to all its processes."""
        record = self.states.load(container_id)
        if record.status == "stopped" and not all_processes:
            raise Conflict(f"container {container_id} is not running")
        oci_config.enter_namespace()
        if all_processes:
            for pid in self.processes(container_id):
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)
            return
        fd = processes.open_process(record.pid, record.started)
        if fd is not None:
            processes.pidfd_send_signal(fd, signum)
            os.close(fd)

    def processes(self, container_id: str) -> list[int]:
        """The pids of the container's processes, as seen from here."""
        from rootless.runtime import freezer  # only here

        record = self.states.load(container_id)
        if record.cgroup:
            return sorted(_cgroup(record).pids())
        if record.status == "stopped":
            return []
        oci_config.enter_namespace()
        return sorted(freezer.members(record.pid))

    def pause(self, container_id: str) -> None:
        """Stop every process of the container."""
        self._freeze(container_id, "running", frozen=True)

    def resume(self, container_id: str) -> None:
        """Let them go on."""
        self._freeze(container_id, "paused", frozen=False)

    def _freeze(self, container_id: str, wanted: str, *, frozen: bool) -> None:
        from rootless.runtime import freezer  # only here

        record = self.states.load(container_id)
        if record.status != wanted:
            raise Conflict(f"container {container_id} is not {wanted}: {record.status}")
        if record.cgroup:
            (_cgroup(record).freeze if frozen else _cgroup(record).thaw)()
            return
        oci_config.enter_namespace()
        if frozen:
            os.close(os.open(record.path("paused"), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            freezer.freeze(record.pid)
        else:
            freezer.thaw(record.pid)
            os.unlink(record.path("paused"))

    def delete(self, container_id: str, *, force: bool) -> None:
        """Forget a container that has ended, or never began; *force* kills it first, and does not mind none."""
        try:
            record = self.states.load(container_id)
        except NotFound:
            if force:
                return
            raise
        status = record.status
        if status not in ("stopped", "created") and not force:
            raise Conflict(f"cannot delete container {container_id} that is not stopped: {status}")
        if status != "stopped":
            _end(record)
        _end_cgroup(record.cgroup)
        config = record.config()
        self.states.remove(container_id)
        _run_hooks(config, "poststop", record, "stopped")


def _new_record(container_id: str, directory: str, bundle: str, config: Config) -> Record:
    now = time.time_ns()
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09}Z"
    return Record(
        directory=directory,
        id=container_id,
        bundle=bundle,
        pid=0,
        started=0,
        created=created,
        rootfs=os.path.normpath(os.path.join(bundle, config["root"]["path"])),
        annotations=config.get("annotations") or {},
        listener=_listener(config),
        cgroup="",
    )


def _end(record: Record) -> None:
    """SIGKILL, and wait until it is gone; a parent that does not ask for its status leaves a zombie, which is gone."""
    oci_config.enter_namespace()
    fd = processes.open_process(record.pid, record.started)
    if fd is None:
        return
    processes.pidfd_send_signal(fd, 9)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(_END_SECONDS * 1000)
    os.close(fd)


def _check_terminal(config: Config, request: Request) -> None:
    terminal = bool(config["process"].get("terminal"))
    if terminal and not request.console_socket and not request.foreground:
        raise InvalidInput("process.terminal needs --console-socket")
    if request.console_socket and not terminal:
        raise InvalidInput("--console-socket needs process.terminal")


def _filter(config: Config) -> Any:
    section = config["linux"].get("seccomp")
    if section is None:
        return None
    # Where there is one: it hashes, and may compile.
    from rootless.engine import seccomp

    return seccomp.filter_of(runtime_directory(), section)


def _make_cgroup(config: Config, container_id: str, launcher: int) -> str:
    if not oci_config.limits(config) and not config["linux"].get("cgroupsPath"):
        return ""
    from rootless.engine import oci_limits

    return oci_limits.make(config, container_id, launcher)


def _limit(cgroup: str, config: Config) -> None:
    if cgroup:
        from rootless.engine import oci_limits

        oci_limits.apply(cgroup, config)


def _end_cgroup(cgroup: str) -> None:
    if cgroup:
        from rootless.engine import oci_limits

        oci_limits.end(cgroup)


def _cgroup(record: Record) -> Any:
    from rootless.runtime.cgroup import Cgroup

    return Cgroup(record.cgroup)


def _run_hooks(config: Config, kind: str, record: Record, status: str) -> None:
    """Hooks that may fail: who began the container is warned."""
    if (config.get("hooks") or {}).get(kind):
        hooks.run(config["hooks"], kind, _document(record, status, 0 if status == "stopped" else record.pid), warn)


def _document(record: Record, status: str, pid: int) -> bytes:
    return json.dumps({**record.state(status), "pid": pid}).encode()


def _process_state(record: Record, metadata: str) -> bytes:
    """The document that goes with a listener (config-linux.md, "The Container Process State")."""
    state = record.state()
    described = {"ociVersion": runtime.VERSION, "fds": ["seccompFd"], "pid": state["pid"], "state": state}
    return json.dumps({**described, "metadata": metadata} if metadata else described).encode()


def _listener(config: Config) -> dict[str, str] | None:
    """Who is to have the filter's listener, for the state."""
    section = config["linux"].get("seccomp")
    if section is None:
        return None
    from rootless.spec.seccomp import parse

    listener = parse(section).listener
    return listener and listener._asdict()


def _connect(path: str) -> channel.Socket:
    """A connection to who answers for calls of the program."""
    try:
        return channel.connect_stream(path)
    except OSError as error:
        raise HostUnsupported(f"linux.seccomp.listenerPath: {path}: {error.strerror}") from error


def warn(text: str) -> None:
    """A line on stderr."""
    os.write(2, f"rootless-oci: {text}\n".encode())


def _finish(created: container.Created, request: Request) -> None:
    created.channel.close()
    if created.terminal_fd is not None and request.console_socket:
        channel.send_terminal(request.console_socket, created.terminal_fd)
        os.close(created.terminal_fd)
    write_pid(request.pid_file, created.pid)


def write_pid(path: str, pid: int) -> None:
    """--pid-file."""
    if path:
        files.replace_file(os.path.abspath(path), str(pid).encode(), 0o644, durable=False)
