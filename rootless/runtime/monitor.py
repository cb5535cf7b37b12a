"""The monitor: one small process per container, parent of the container's init, alive as long as the container is.

It owns the pipes or the terminal, writes the log, serves the clients that attach, passes signals on, applies the
restart policy and the health checks, records how the container ended, and undoes everything. It is started afresh
(sealed.py), so that it carries none of the command's memory, and imports little: what a start or a health check needs
is imported in the fork that does it.

One loop over epoll; nothing in it blocks. Its control channel is the connection of the command that started it; others
connect to the socket `attach` in the container's run directory. Messages are those of channel.py.

If the monitor is killed, its container dies with it (PR_SET_PDEATHSIG), and the next command that looks records it.
"""

import _socket
import errno
import json
import os
import select
import signal
import time
from collections.abc import Callable

from rootless.errors import RootlessError
from rootless.linux import files, terminals
from rootless.runtime import channel, container, freezer
from rootless.runtime.attachment import Attachment, Lost
from rootless.runtime.channel import Socket
from rootless.runtime.clients import Client
from rootless.runtime.events import Journal
from rootless.runtime.health import HealthCheck
from rootless.runtime.jsonlog import JsonLog, now
from rootless.runtime.launcher import Launcher
from rootless.runtime.monitor_cgroup import MonitorCgroup
from rootless.runtime.timers import Timers
from rootless.runtime.union_server import UnionServer

TYPE_CHECKING = False  # typing's own, without the import: it would take most of a mebibyte in every monitor
if TYPE_CHECKING:
    from typing import Any

CHUNK = 32 << 10
_MAX_BACKLOG = 1 << 20  # bytes for one client, before the container has to wait
_DRAIN_SECONDS = 2.0  # how long output may follow the end of the init, and its mounts: they end with its namespaces
_STUCK_SECONDS = 5.0  # after which a container that SIGKILL does not end waits for a server that does not answer
_LONG_RUN = 10.0  # seconds after which a restart policy counts anew (moby: restartmanager)
_FIRST_DELAY, _MAX_DELAY = 0.1, 60.0
_REPAIR_SECONDS = 0.1  # until a restart looks again whether the networks are back


class Monitor:
    """See the module."""

    def __init__(
        self, settings: "dict[str, Any]", owner: Socket, launcher: Launcher, attachment_fd: int | None = None
    ) -> None:
        self.settings = settings
        self.launcher: Launcher | None = launcher
        self.directory: str = settings["directory"]
        self.run_directory: str = settings["run_directory"]
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.timers = Timers()
        self.clients: list[Client] = []
        self.owner: Client | None = self._add_client(owner)
        self.owner.attached = settings["attached"]  # before there is output: none is missed
        self.owner.gives_input = True
        self.listener = self._listen()
        self.log: JsonLog | None = self._open_log()
        self.created: container.Created | None = None
        self.running = False
        self.paused = False
        self.stopping = False
        self.over = False  # the container has ended for good
        self.finished = False  # and nobody needs us any more
        self.input_fd: int | None = None
        self.input = bytearray()
        self.input_ended = False
        self.outputs: dict[int, str] = {}
        self.choked = False
        self.exit_status: int | None = None
        self.began_at = 0.0
        self.delay = _FIRST_DELAY
        self.state: dict[str, Any] = settings["state"]
        self.health = HealthCheck(settings["health"], self) if settings.get("health") else None
        self.attachment = None if attachment_fd is None else Attachment(settings["network"], attachment_fd, self)
        self.journal = Journal(settings["id"], settings.get("events"))
        self.union = UnionServer(settings["union"]) if settings.get("union") else None
        self.cgroup = MonitorCgroup(settings["cgroup"], self) if settings.get("cgroup") else None

    # The loop

    def main(self) -> None:
        """Start the container and watch over it until it has ended for good."""
        self._watch_children()
        self._start()
        while not self.finished:
            wait = self.timers.wait()
            try:
                events = self.epoll.poll(wait if wait >= 0 else -1)
            except InterruptedError:
                continue
            for fd, event in events:
                if handler := self.handlers.get(fd):
                    handler(event)
            self.timers.run()
        self._remove_traces()

    def watch(self, fd: int, handler: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Call *handler* with *events* of *fd*, from now on these only."""
        if fd in self.handlers:
            self.epoll.modify(fd, events)
        else:
            self.epoll.register(fd, events)
        self.handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """No longer; before *fd* is closed."""
        if self.handlers.pop(fd, None):
            self.epoll.unregister(fd)

    def _watch_children(self) -> None:
        r, w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTSTP):
            signal.signal(ignored, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: None)

        def arrived(_: int) -> None:
            if signal.SIGTERM in os.read(r, 4096):
                # The logout or shutdown of the machine: stop the container as `stop` would.
                self._stop(self.settings["stop_signal"], self.settings["stop_timeout"])
            self._reap()

        self.watch(r, arrived)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            code = 128 - code if code < 0 else code
            if self.created and pid == self.created.pid:
                self._init_ended(code)
                continue
            if self.health:
                self.health.process_ended(pid, code)
            if self.attachment:
                self.attachment.process_ended(pid)
            if self.union and self.union.process_ended(pid):
                self._union_ended(code)

    # Starting and ending

    def _start(self) -> None:
        """Make and start the container; failure at the first start goes to the command, later ones count as an end."""
        stdio, ours = self._make_stdio()
        launcher, self.launcher = self.launcher or Launcher(), None
        try:
            plug = self.attachment.plug if self.attachment else os.close
            serve = self.union.serve if self.union else os.close
            if self.cgroup:
                self.cgroup.make(launcher.pid)
            created = container.create(launcher, self.settings["bundle"], stdio, self.warn, plug=plug, serve=serve)
        except RootlessError as error:
            for fd in ours.values():
                os.close(fd)
            self._failed(error)
            return
        finally:
            for fd in set(stdio or ()):
                os.close(fd)
        if created.terminal_fd is not None:
            ours = {"terminal": created.terminal_fd}
        try:
            container.start(created, self._confirm)
        except RootlessError as error:
            for fd in ours.values():
                os.close(fd)
            self._failed(error)
            return
        self.created = created
        self._connect(ours)
        self.running, self.exit_status, self.began_at = True, None, time.monotonic()
        self._write_init_file(created)
        self.record(
            status="running", pid=created.pid, process_started=created.started, started_at=now(), error="", exit_code=0
        )
        self.journal.started()
        if self.health:
            self.health.begin()
        self.broadcast(channel.BEGAN)

    def _confirm(self) -> None:
        """What has to hold before the program runs."""
        if self.attachment:
            self.attachment.confirm()
        if self.cgroup:
            self.cgroup.limit()

    def _make_stdio(self) -> tuple[tuple[int, int, int] | None, dict[str, int]]:
        """The container's ends of its pipes, and ours; None and nothing where it gets a terminal."""
        if self.settings["terminal"]:
            return None, {}
        out_r, out_w = os.pipe2(os.O_CLOEXEC)
        err_r, err_w = os.pipe2(os.O_CLOEXEC)
        ours = {"stdout": out_r, "stderr": err_r}
        if self.settings["open_stdin"]:
            in_r, ours["stdin"] = os.pipe2(os.O_CLOEXEC)
        else:
            in_r = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        return (in_r, out_w, err_w), ours

    def _connect(self, ours: dict[str, int]) -> None:
        """Watch our ends."""
        for name, fd in ours.items():
            os.set_blocking(fd, False)
            if name in ("stdin", "terminal"):
                self.input_fd = fd
            if name != "stdin":
                self.outputs[fd] = "stderr" if name == "stderr" else "stdout"
        for fd in ours.values():
            self._watch_stream(fd)
        self._feed()
        if self.input_ended:
            self._end_input()

    def _failed(self, error: RootlessError) -> None:
        """The container could not be started. A restart without networks waits until they are back."""
        if self.union:
            self.union.kill()
        if self.cgroup:
            self.cgroup.remove()
        if isinstance(error, Lost) and self.state["status"] == "restarting":
            self.timers.set("restart", _REPAIR_SECONDS, self._restart)
            return
        code = error.exit_status or 128
        self.record(status="exited" if self.state["started_at"] else "created", exit_code=code, error=str(error))
        self.journal.died(code, 0)
        hint = error.hint
        self.broadcast(channel.ERROR, f"{type(error).__name__}\0{error}\0{hint}")
        self._finish()

    def _init_ended(self, code: int) -> None:
        self.exit_status = code
        self.running = False
        self.timers.cancel("kill")
        self.timers.cancel("stuck")
        if self.cgroup:
            self.cgroup.ended()
        self._choke()
        self.timers.set("drain", _DRAIN_SECONDS, self._drained)
        self._drained_if_all_is_in()

    def _drained_if_all_is_in(self) -> None:
        """Whether or not the init has ended, its output is read, and its root's server has written everything."""
        if self.exit_status is not None and not self.outputs and not (self.union and self.union.is_running):
            self._drained()

    def _union_ended(self, code: int) -> None:
        """The server of the root has left: with the mount, as it should, or it died. The init may be dead of that."""
        if code:
            error = f"the container has lost its files: the process that serves them has died, status {code}"
            self.warn(error)
            self.record(error=error)
        self._drained_if_all_is_in()

    def _drained(self) -> None:
        """The init has ended and its output is in: record it, and decide what comes next."""
        self.timers.cancel("drain")
        if self.union:
            self.union.kill()
        for fd in list(self.outputs):
            self._close_output(fd)
        if self.input_fd is not None:
            self._close_input()
        self.input.clear()
        self._feed()
        if self.log:
            self.log.flush()
        if self.health:
            self.health.end()
        code = 0 if self.exit_status is None else self.exit_status
        self.created, self.paused = None, False
        if self.attachment:
            self.attachment.unplug()
        if self.cgroup:
            self.cgroup.remove()
        self._unlink("init")
        lived = int(time.monotonic() - self.began_at)
        if self._should_restart(code):
            if time.monotonic() - self.began_at >= _LONG_RUN:
                self.delay = _FIRST_DELAY
            self.record(status="restarting", pid=0, exit_code=code, finished_at=now())
            self.journal.died(code, lived)
            self.timers.set("restart", self.delay, self._restart)
            self.delay = min(self.delay * 2, _MAX_DELAY)
            return
        self.record(status="exited", pid=0, exit_code=code, finished_at=now())
        self.journal.died(code, lived)
        self._finish()

    def _should_restart(self, code: int) -> bool:
        """Docker's restart policies: not after `stop` or `kill`."""
        policy = self.settings["restart"]
        if self.stopping:
            return False
        if policy["name"] in ("always", "unless-stopped"):
            return True
        retries = policy["maximum_retry_count"]
        return policy["name"] == "on-failure" and code != 0 and (not retries or self.state["restart_count"] < retries)

    def _restart(self) -> None:
        if self.attachment and self.attachment.is_missed:
            self.timers.set("restart", _REPAIR_SECONDS, self._restart)
            return
        self.record(restart_count=self.state["restart_count"] + 1)
        self._start()

    def _finish(self) -> None:
        """Tell everybody, and leave once the owner has gone: it may want to remove the container itself."""
        self.over = True
        if self.attachment:
            self.attachment.close()
            self.journal.disconnected(self.state["network"]["endpoints"])
        self.journal.unmounted()
        self.broadcast(channel.EXITED, str(self.state["exit_code"]))
        for client in self.clients:
            if client.waits_for_done:
                self.send(client, channel.DONE)
        if self.owner and self.settings.get("at_end"):
            for client in list(self.clients):
                if client is not self.owner and not client.backlog:
                    self._drop(client)
            return
        self.finished = True

    def _remove_traces(self) -> None:
        """Nobody can come any more."""
        if self.log:
            self.log.close()
        self.unwatch(self.listener.fileno())
        self.listener.close()
        for name in ("attach", "settings.json"):
            self._unlink(name)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(os.path.join(self.run_directory, name))
        except FileNotFoundError:
            pass  # the user has logged out, and the run directory is gone

    def take_leave(self) -> None:
        """Run what is to be run at the end; and give the clients, however slow they are, the rest of what is theirs."""
        self._drop_all_that_keep_up()
        at_end = self.settings.get("at_end")
        if at_end and os.path.isdir(self.directory) and (not self.clients or os.fork() == 0):
            os.execve(at_end[0], at_end, {})
        while self.clients:
            for fd, event in self.epoll.poll():
                if handler := self.handlers.get(fd):
                    handler(event)
            self._drop_all_that_keep_up()

    def _drop_all_that_keep_up(self) -> None:
        for client in list(self.clients):
            if not client.backlog:
                self._drop(client)

    # Records

    def record(self, **changes: "Any") -> None:
        """Change the container's state, on disk before anybody is told."""
        self.state.update(changes)
        path = os.path.join(self.directory, "state.json")
        try:
            files.replace_file(path, json.dumps(self.state).encode(), durable=self.settings["durable"])
        except OSError as error:
            self.warn(f"cannot record the state of the container: {error}")

    def _write_init_file(self, created: container.Created) -> None:
        """Where the user's namespace can be found again, if its keeper dies (user_namespace.py)."""
        line = f"{created.pid} {created.started}\n".encode()
        files.replace_file(os.path.join(self.run_directory, "init"), line, durable=False)

    def _open_log(self) -> JsonLog | None:
        log = self.settings["log"]
        return JsonLog(log["path"], *log["limits"]) if log else None

    def warn(self, message: str) -> None:
        """A line for whoever is attached."""
        self.broadcast(channel.WARNING, message)

    # The program's streams

    def _watch_stream(self, fd: int) -> None:
        """Watch one of our ends for what is to be done with it now. A terminal is one descriptor both ways."""
        events = 0
        if fd in self.outputs and not self.choked:
            events |= select.EPOLLIN
        if fd == self.input_fd and self.input:
            events |= select.EPOLLOUT
        if fd in self.outputs or events:
            self.watch(fd, lambda event: self._stream_ready(fd, event), events)
        else:
            self.unwatch(fd)  # the other end of stdin may close: that would be told again and again

    def _stream_ready(self, fd: int, event: int) -> None:
        if event & select.EPOLLOUT or fd not in self.outputs:
            self._feed()
        if event & ~select.EPOLLOUT and fd in self.outputs:
            self._output_ready(fd)

    def _output_ready(self, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal whose last process is gone
                raise
            data = b""
        if not data:
            self._close_output(fd)
            self._drained_if_all_is_in()
            return
        stream = self.outputs[fd]
        if self.log:
            self.log.write(stream, data)
        self.broadcast(channel.STDOUT if stream == "stdout" else channel.STDERR, data, attached_only=True)

    def _close_output(self, fd: int) -> None:
        del self.outputs[fd]
        self.unwatch(fd)
        if fd == self.input_fd:
            self.input_fd = None
        os.close(fd)

    # Clients

    def _listen(self) -> Socket:
        directory = os.open(self.run_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            path = f"/proc/self/fd/{directory}/attach"  # a socket's name may have 107 bytes only
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            listener = channel.listen(path)
            listener.setblocking(False)
        finally:
            os.close(directory)
        self.watch(listener.fileno(), self._accept)
        return listener

    def _accept(self, _event: int) -> None:
        try:
            self._add_client(channel.accept(self.listener))
        except BlockingIOError:
            return

    def _add_client(self, sock: Socket) -> Client:
        client = Client(sock)
        self.clients.append(client)
        self._watch_client(client)
        return client

    def _watch_client(self, client: Client) -> None:
        """Take what the client sends unless the program is behind with its input; send what is waiting."""
        events = (0 if client.paused else select.EPOLLIN) | (select.EPOLLOUT if client.backlog else 0)
        self.watch(client.sock.fileno(), lambda event: self._client_ready(client, event), events)

    def _client_ready(self, client: Client, event: int) -> None:
        if event & select.EPOLLOUT:
            self._flush(client)
        if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            try:
                kind, data, fds = channel.receive(client.sock)
            except BlockingIOError:
                return
            except OSError:
                kind, data, fds = b"", b"", []
            if kind == channel.ATTACHED:
                self._attached(client, data, fds)
                return
            for fd in fds:
                os.close(fd)
            if kind:
                self._message(client, kind, data)
            else:
                self._drop(client)

    def _message(self, client: Client, kind: bytes, data: bytes) -> None:
        if kind == channel.STDIN:
            if not self.input_ended:
                self.input += data
                self._feed()
        elif kind == channel.STDIN_END:
            if self.settings["stdin_once"] and not self.settings["terminal"]:
                self._end_input()
        elif kind == channel.HANGUP:
            self._hang_up(client, data)
        elif kind == channel.RESIZE:
            self._resize(data)
        elif kind == channel.SIGNAL:
            self._signal(int(data))
            self.send(client, channel.DONE)
        elif kind == channel.STOP:
            signum, seconds = data.split()
            client.waits_for_done = True
            self._stop(int(signum), float(seconds))
        elif kind == channel.ATTACH:
            client.attached, client.gives_input = True, data == b"0"
            if self.running:
                self.send(client, channel.BEGAN)
        elif kind in (channel.PAUSE, channel.UNPAUSE):
            self._pause(client, kind == channel.PAUSE)
        elif kind == channel.UPDATE:
            changes = json.loads(data)
            self.settings.update(changes)
            self.journal.rename(changes.get("name", ""))
            self.send(client, channel.DONE)

    def broadcast(self, kind: bytes, data: str | bytes = b"", *, attached_only: bool = False) -> None:
        """Send a message to all clients, or to those who are attached."""
        for client in list(self.clients):
            if client.attached or not attached_only:
                self.send(client, kind, data)

    def send(self, client: Client, kind: bytes, data: str | bytes = b"") -> None:
        """Send a message to a client; one that does not read gets it later."""
        message = kind + (data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
        if client.backlog:
            self._put_off(client, message)
            return
        try:
            client.sock.send(message, _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self._put_off(client, message)
        except OSError:
            self._drop(client)

    def _put_off(self, client: Client, message: bytes) -> None:
        """Keep *message* until the client reads; with too much of it, let the container wait too."""
        client.backlog.append(message)
        client.backlog_size += len(message)
        self._watch_client(client)
        self._choke()

    def _flush(self, client: Client) -> None:
        sent = 0
        try:
            for message in client.backlog:
                client.sock.send(message, _socket.MSG_NOSIGNAL)
                sent += 1
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        client.backlog_size -= sum(map(len, client.backlog[:sent]))
        del client.backlog[:sent]
        self._watch_client(client)
        self._choke()

    def _choke(self) -> None:
        """Read from the container only while all clients keep up; once it has ended, its pipes hold only a little."""
        choked = self.running and any(client.backlog_size > _MAX_BACKLOG for client in self.clients)
        if choked != self.choked:
            self.choked = choked
            for fd in self.outputs:
                self._watch_stream(fd)

    def _drop(self, client: Client) -> None:
        if client not in self.clients:
            return
        self.clients.remove(client)
        self.unwatch(client.sock.fileno())
        client.sock.close()
        if client is self.owner:
            self.owner = None
            self.finished |= self.over
            if self.settings.get("ends_with_owner"):  # a step of a build, which nobody could ask about later
                self._stop(signal.SIGKILL, -1)
        if client.attached and client.gives_input and self.settings["stdin_once"] and not self.settings["terminal"]:
            self._end_input()
        self._choke()

    # Input

    def _feed(self) -> None:
        """Give the program what is waiting for it; while more than a chunk waits, take no more from the clients."""
        while self.input and self.input_fd is not None:
            try:
                del self.input[: os.write(self.input_fd, self.input[:CHUNK])]
            except BlockingIOError:
                break
            except OSError:  # EPIPE: it reads no more; EIO: its terminal is gone
                self.input.clear()
                self._close_input()
        if self.input_fd is not None:
            self._watch_stream(self.input_fd)
            if self.input_ended and not self.input:
                self._close_input()
        paused = len(self.input) > 4 * CHUNK
        for client in self.clients:
            if client.paused != paused:
                client.paused = paused
                self._watch_client(client)

    def _end_input(self) -> None:
        self.input_ended = True
        if not self.input:
            self._close_input()

    def _close_input(self) -> None:
        fd = self.input_fd
        if fd is None or fd in self.outputs:
            return
        self.input_fd = None
        self.unwatch(fd)
        os.close(fd)

    # What clients ask for

    def _hang_up(self, client: Client, kind: bytes) -> None:
        """Nobody reads the output of a program that runs in the foreground: it is told so, as at a pipe or terminal."""
        if client is not self.owner or any(other.attached for other in self.clients if other is not client):
            return
        stream = "stdout" if kind == channel.STDOUT else "stderr"
        for fd in [fd for fd, name in self.outputs.items() if name == stream]:
            self._close_output(fd)

    def _resize(self, data: bytes) -> None:
        if self.input_fd in self.outputs:
            rows, columns = map(int, data.split())
            terminals.set_window_size(self.input_fd, rows, columns)

    def _signal(self, signum: int) -> None:
        if self.created and self.running:
            try:
                os.kill(self.created.pid, signum)  # our own child, not yet reaped: the number is still its
            except ProcessLookupError:
                pass
            self.journal.killed(signum)
            if signum == signal.SIGKILL and self.cgroup:
                self.cgroup.kill()
            if signum == signal.SIGKILL and self.union:
                self.timers.set("stuck", _STUCK_SECONDS, self.union.kill)

    def _stop(self, signum: int, seconds: float) -> None:
        self.stopping = True
        self.timers.cancel("restart")
        if not self.running:
            if self.exit_status is not None and not self.outputs and self.state["status"] == "restarting":
                self.record(status="exited")
                self._finish()
            return
        self._signal(signum)
        if self.paused:
            self._thaw()
            self.paused = False
        if seconds >= 0:
            self.timers.set("kill", seconds, lambda: self._signal(signal.SIGKILL))

    def _attached(self, client: Client, data: bytes, fds: list[int]) -> None:
        """The container has other endpoints or ports; and with a descriptor, another connection to slirp."""
        if data:
            with open(data, "rb") as file:
                self.record(network=json.load(file))
        if fds and self.attachment and not self.over:
            self.attachment.adopt(fds.pop(), client)
        else:
            self.send(client, channel.DONE)
        for fd in fds:
            os.close(fd)

    def _pause(self, client: Client, pause: bool) -> None:
        if not (self.running and self.created and pause != self.paused):
            self.send(client, channel.DONE)
        elif self.cgroup and self.cgroup.path:
            self.cgroup.freeze(pause, lambda: self._paused(client, pause))
        else:
            (freezer.freeze if pause else freezer.thaw)(self.created.pid)
            self._paused(client, pause)

    def _paused(self, client: Client, pause: bool) -> None:
        """Its processes stand still, or go on; it may have ended before they did."""
        if self.running:
            self.paused = pause
            self.record(status="paused" if pause else "running")
            self.journal.tell("pause" if pause else "unpause")
        self.send(client, channel.DONE)

    def _thaw(self) -> None:
        if self.cgroup and self.cgroup.path:
            self.cgroup.thaw()
        elif self.created:
            freezer.thaw(self.created.pid)


def main(launcher: Launcher) -> None:
    """Be the monitor of the container that the owner, at descriptor 3, names by the path of its settings."""
    owner = channel.adopt(3)
    _, path, fds = channel.receive(owner)
    if not path:
        return  # the command thought better of it
    with open(path, "rb") as file:
        settings = json.loads(file.read())
    with files.lock_file(os.path.join(settings["run_directory"], "monitor"), blocking=False):
        monitor = Monitor(settings, owner, launcher, fds[0] if fds else None)
        monitor.main()
    # The container is over and may be started anew, by another monitor.
    monitor.take_leave()
