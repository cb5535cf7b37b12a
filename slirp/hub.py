"""HUB: the process that owns the user's networks. It hears commands (control.py), and does with the kernel what STACK
may not: namespaces and interfaces (networks.py, links.py), sockets of a namespace, published ports (ports.py),
addresses (addresses.py). STACK (stack.py) has the bytes; HUB keeps a descriptor of all that STACK was given, so that a
STACK that died is followed by one that goes on (supervision.py): flows are lost, addresses and ports are not.

It leaves when nothing has been attached for a while, when told to, when the other end of the descriptor that it was
given to watch is closed, or when STACK will not live.
"""

import os
import select
import signal
import socket
import sys

from slirp import control, requests, sandbox
from slirp.containers import Containers
from slirp.errors import Conflict, HostUnsupported, InvalidInput, SlirpError
from slirp.kernel import Kernel
from slirp.log import Log
from slirp.loop import Loop
from slirp.networks import Networks, told_why
from slirp.options import Options
from slirp.ports import Ports
from slirp.resolvers import Resolvers
from slirp.supervision import Stack
from slirp.transparent import KINDS, make_sockets

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any

    from slirp.control import Connection

    Told = dict[str, Any]

VERSION = 1
_MOST_SOCKETS = 64  # in one message to STACK
_LOOK_EVERY, _AT_MOST_EVERY = 5.0, 1.0  # seconds
_FIRST_LINGER = 10.0  # whoever started it has to come first


class Hub:
    """All of it. `run` returns the exit status."""

    def __init__(self, options: Options, log: Log, server: control.Server, spare: socket.socket) -> None:
        """Raises SlirpError where the machine lacks what is asked for."""
        self._options, self._log, self._server = options, log, server
        self._loop = Loop(log.write)
        self._kernel = Kernel(options.path)
        self._ready_fd = options.ready_fd
        self._status = 0
        self._leaving = False
        self._resolvers = Resolvers()
        self._looked = 0.0  # when, at the resolvers
        self._linger = self._loop.later(max(options.linger, _FIRST_LINGER), self._expired)
        self._stack = Stack(self._loop, log, spare, hear=self._hear, tell_all=self._tell_all, give_up=self._give_up)
        self._networks = Networks(self._loop, self._kernel, options.linger, self._stack.tell)
        self._ports = Ports()
        self._containers = Containers(self._networks, self._ports, self._stack, log.write, self._changed)
        self._operations = {
            "hello": self._hello,
            "attach": self._attach,
            "plug": self._plug,
            "connect": self._connect,
            "disconnect": self._disconnect,
            "ports": self._change_ports,
            "update": self._update,
            "list": self._list,
            "stats": self._stats,
            "flows": self._flows,
            "stop": self._stop,
        }

    def run(self, ours: socket.socket, error_fd: int) -> int:
        """Serve until there is a reason to leave. STACK has been ordered; *ours* and *error_fd* are our ends of it."""
        self._watch_signals()
        if self._options.exit_fd >= 0:
            self._loop.watch(self._options.exit_fd, 0, lambda events: self._leave("the exit descriptor was closed"))
        self._stack.adopt(ours, error_fd)
        self._tell_all()
        self._look_after()
        self._server.holds = True
        self._server.serve(self._loop, self._handle, self._gone)
        self._say_ready()
        self._loop.run()
        return self._status

    # life

    def _watch_signals(self) -> None:
        """SIGTERM and SIGINT wake the loop, by a pipe."""
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        self._loop.watch(read_fd, select.EPOLLIN, lambda events: self._leave("a signal"))

    def _leave(self, why: str) -> None:
        if self._leaving:
            return  # the socket at our path may be another process's already
        self._leaving = True
        self._log.write(f"leaving: {why}")
        self._server.release()
        self._server.close()
        self._loop.stop()

    def _give_up(self, why: str) -> None:
        sys.stderr.write(f"slirp: {why}\n")
        self._status = 1
        self._server.release(HostUnsupported(f"slirp, the process of the networks, does not start: {why}"))
        self._leave(why)

    def _changed(self) -> None:
        """A container more or less."""
        self._linger.cancel()
        if not len(self._containers):
            self._linger = self._loop.later(self._options.linger, self._expired)

    def _expired(self) -> None:
        """Nobody needs it. Whoever is connected, or is about to, may be about to attach something."""
        self._server.accept()
        if self._server.connections:
            self._linger = self._loop.later(1.0, self._expired)
        else:
            self._leave("nothing is attached")

    # commands

    def _handle(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        operation = self._operations.get(str(told.get("op")))
        if operation is None:
            raise InvalidInput(f"unknown request {str(told.get('op'))[:40]!r}")
        try:
            operation(connection, told, fds)
        except OSError as error:
            raise SlirpError(told_why(error)) from error

    def _gone(self, connection: "Connection") -> None:
        attachment, connection.attachment = connection.attachment, None
        if attachment is not None:
            self._containers.detach(attachment)

    def _hello(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        support = self._kernel.support()
        connection.answer(
            version=VERSION,
            pid=os.getpid(),
            tcp="kernel" if support.tproxy else "user",
            reason=support.reason,
            ipv6=_has_ipv6(),
            ping=_may_ping(),
            networks=len(self._networks),
            containers=len(self._containers),
        )

    def _attach(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        if connection.attachment is not None:
            raise Conflict("this connection has a container attached already")
        attachment = connection.attachment = self._containers.attach(told)
        first = {"nameservers": attachment.nameservers(), "endpoints": [e.answered() for e in attachment.endpoints]}
        groups = control.parts([binding.told() for binding in attachment.bindings])
        connection.answer_parts([{**first, "ports": groups[0]}, *({"ports": rows} for rows in groups[1:])])

    def _plug(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        if connection.attachment is None:
            raise Conflict("nothing is attached on this connection")
        if len(fds) != 1:
            raise InvalidInput("plug comes with one descriptor, of the container's network namespace")
        self._containers.plug(connection.attachment, fds[0])
        connection.answer()

    def _connect(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        attachment = self._containers.find(told)
        endpoint = self._containers.connect(attachment, requests.parse_endpoint(told.get("endpoint")))
        connection.answer(endpoint=endpoint.answered())

    def _disconnect(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        self._containers.disconnect(self._containers.find(told), requests.text(told, "network", needed=True))
        connection.answer()

    def _change_ports(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        attachment = self._containers.find(told)
        self._containers.change_ports(attachment, told)
        rows = control.parts([binding.told() for binding in attachment.bindings])
        connection.answer_parts({"ports": row} for row in rows)

    def _update(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        self._containers.update(self._containers.find(told), told)
        connection.answer()

    def _list(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        only = self._containers.find(told) if told.get("container") else None
        connection.answer_parts({"containers": rows} for rows in control.parts(self._containers.listed(only)))

    def _stats(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        only = self._containers.find(told) if told.get("container") else None
        counters = self._containers.statistics(only)
        connection.answer_parts({"containers": dict(rows)} for rows in control.parts(list(counters.items())))

    def _flows(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        container = self._containers.find(told).id if told.get("container") else None

        def answer(part: "Told | None") -> None:
            if connection.closed:
                return
            if part is None:
                connection.fail(SlirpError("the process of the flows does not answer", hint="try again"))
                return
            rows = {name: part[name] for name in ("flows", "denied") if isinstance(part.get(name), list)}
            if part.get("more"):
                connection.part(**rows)
            else:
                connection.answer(**rows)

        self._stack.ask("flows", container, answer)

    def _stop(self, connection: "Connection", told: "Told", fds: list[int]) -> None:
        connection.answer()
        self._leave("it was told to")

    # STACK

    def _tell_all(self) -> None:
        self._stack.tell({"do": "resolvers", "servers": self._resolvers.servers})
        for network in self._networks:
            self._networks.tell(network)
        self._containers.tell_all()

    def _hear(self, told: "Told") -> None:
        """A message of STACK, which may be anybody's by now."""
        kind = told.get("do")
        if kind == "ready":
            self._server.release()
        elif kind == "sockets":
            self._send_sockets(told)
        elif kind == "resolvers":
            self._compare_resolvers()

    def _say_ready(self) -> None:
        if self._ready_fd >= 0:
            try:
                os.write(self._ready_fd, b"ready\n")
            except OSError:
                pass  # whoever started us does not wait any more
            os.close(self._ready_fd)
        self._ready_fd = -1

    def _send_sockets(self, told: "Told") -> None:
        network_id, kind, count = told.get("network"), told.get("kind"), told.get("count")
        network = self._networks.find(network_id) if isinstance(network_id, str) else None
        if network is None or kind not in KINDS or not isinstance(count, int) or not 0 < count <= 1024:
            return  # a network that has just gone, or nonsense
        if self._stack.is_behind():
            return  # it does not take what it has asked for, and would have us keep descriptors for it
        for start in range(0, count, _MOST_SOCKETS):
            fds = make_sockets(network.links.netns_fd, kind, min(_MOST_SOCKETS, count - start))
            try:
                told = {"do": "sockets", "network": network_id, "kind": kind, "fds": [kind] * len(fds)}
                self._stack.tell(told, fds)
            finally:
                for fd in fds:
                    os.close(fd)

    def _look_after(self) -> None:
        """What has to be looked at from time to time, while there is anybody whom it concerns."""
        self._loop.later(_LOOK_EVERY, self._look_after)
        if len(self._containers):
            self._compare_resolvers()
            self._stack.check()

    def _compare_resolvers(self) -> None:
        if self._loop.now() - self._looked < _AT_MOST_EVERY:
            return
        self._looked = self._loop.now()
        if self._resolvers.changed():
            self._stack.tell({"do": "resolvers", "servers": self._resolvers.servers})


def serve(
    options: Options, log: Log, server: control.Server, spare: socket.socket, ordered: tuple[socket.socket, int]
) -> int:
    """The whole life of HUB; the exit status. Raises SlirpError, OSError where it cannot begin."""
    hub = Hub(options, log, server, spare)
    missing = sandbox.confine_hub()
    if missing:
        log.write(missing)
    return hub.run(*ordered)


def _has_ipv6() -> bool:
    try:
        with open("/proc/self/net/if_inet6", encoding="ascii") as file:
            return bool(file.read(1))
    except OSError:
        return False


def _may_ping() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP).close()
    except OSError:
        return False
    return True
