"""The user's systemd, asked over D-Bus: for a scope, which is a cgroup of ours; and to move a process into one.

A session that ssh or a terminal has opened lives in a cgroup of root's, and so do the processes that it starts: the
kernel lets nobody but root move them (cgroups(7), "Delegation containment"). systemd does it for the user, with
StartTransientUnit and AttachProcessesToUnit (org.freedesktop.systemd1(5)), and gives the scope away with Delegate=yes:
then all below it is ours to arrange. A scope goes with its last process.

The bus is the session's; where there is none (no dbus-user-session), systemd's own socket beside it will do.
"""

import os

from rootless.errors import HostUnsupported
from rootless.runtime.dbus import Connection, Reader, Writer

_NAME, _PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_PRIVATE = "/systemd/private"
_MATCH = f"type='signal',interface='{_MANAGER}',member='JobRemoved'"


def start_scope(socket: str, name: str, pids: list[int], slice_name: str = "") -> None:
    """Make the scope *name* of the processes *pids*; they are in it when this returns. Raises HostUnsupported.

    *socket* as find_socket() (cgroup_ladder.py) has it; *slice_name* as "build.slice", "" for systemd's own choice.
    """
    connection = _connect(socket)
    try:
        connection.subscribe(_MATCH)
        reply = connection.call(_NAME, _PATH, _MANAGER, "StartTransientUnit", *_start_body(name, pids, slice_name))
        job = Reader(reply.body).string()
        while True:
            ended = Reader(connection.signal("JobRemoved").body)
            ended.uint32()
            path, _, result = ended.string(), ended.string(), ended.string()
            if path == job:
                break
        if result != "done":
            raise HostUnsupported(f"systemd could not start {name}: {result}")
    finally:
        connection.close()


def _start_body(name: str, pids: list[int], slice_name: str) -> tuple[str, bytes]:
    """The signature and body of StartTransientUnit."""
    writer = Writer()
    writer.string(name)
    writer.string("fail")
    properties = writer.begin_array(8)
    texts = {"Description": "Container of rootless", "CollectMode": "inactive-or-failed", "Slice": slice_name}
    for key, text in texts.items():
        if text:
            _property(writer, key, "s")
            writer.string(text)
    _property(writer, "Delegate", "b")
    writer.boolean(True)
    _property(writer, "PIDs", "au")
    numbers = writer.begin_array(4)
    for pid in pids:
        writer.uint32(pid)
    writer.end_array(numbers)
    writer.end_array(properties)
    writer.end_array(writer.begin_array(8))  # no auxiliary units
    return "ssa(sv)a(sa(sv))", bytes(writer.data)


def _property(writer: Writer, key: str, signature: str) -> None:
    writer.align(8)
    writer.string(key)
    writer.signature(signature)


def attach(socket: str, unit: str, below: str, pid: int) -> None:
    """Move process *pid* into the cgroup *below* ("/container") of *unit*. Raises HostUnsupported."""
    connection = _connect(socket)
    try:
        writer = Writer()
        writer.string(unit)
        writer.string(below)
        numbers = writer.begin_array(4)
        writer.uint32(pid)
        writer.end_array(numbers)
        connection.call(_NAME, _PATH, _MANAGER, "AttachProcessesToUnit", "ssau", bytes(writer.data))
    finally:
        connection.close()


def _connect(socket: str) -> Connection:
    if not os.path.exists(socket):
        raise HostUnsupported(f"systemd of the user cannot be asked: there is no {socket or 'session bus'}")
    return Connection(socket, peer=socket.endswith(_PRIVATE))
