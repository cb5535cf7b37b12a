"""What the OCI command line has beyond a configuration, and the steps of a container's birth that only it takes."""

import json
import os
from collections.abc import Callable
from typing import NamedTuple

from rootless.linux import mounts, namespaces
from rootless.runtime import channel, hooks
from rootless.spec.runtime import Config

_PROPAGATION = {
    "private": mounts.MS_PRIVATE,
    "slave": mounts.MS_SLAVE,
    "shared": mounts.MS_SHARED,
    "unbindable": mounts.MS_UNBINDABLE,
}


class Extras(NamedTuple):
    """Beside the configuration."""

    state: Config  # the state document, without a pid: for hooks
    preserved: tuple[int, ...] = ()  # descriptors that become 3, 4 … of the program
    keyring: bool = True  # a session keyring of its own


NONE = Extras({})


def enter_time_namespace(config: Config) -> None:
    """Be in a time namespace of our own, with linux.timeOffsets, if there is to be one: time_namespaces(7).

    To be called while this process is dumpable, since the file of offsets is ours only then, and while /proc is the
    host's. unshare(2) makes the namespace for children only; setns(2) takes the caller there too.
    """
    if not any(n["type"] == "time" and not n.get("path") for n in config["linux"]["namespaces"]):
        return
    namespaces.unshare(namespaces.CLONE_NEWTIME)
    for clock, offset in (config["linux"].get("timeOffsets") or {}).items():
        if offset and clock in ("monotonic", "boottime"):
            with open("/proc/self/timens_offsets", "w", encoding="ascii") as file:
                file.write(f"{clock} {offset.get('secs') or 0} {offset.get('nanosecs') or 0}")
    fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(fd, namespaces.CLONE_NEWTIME)
    os.close(fd)


def run_create_hooks(config: Config, extras: Extras, to_parent: channel.Socket) -> None:
    """Have the parent run prestart and createRuntime, and run createContainer here."""
    wanted = config.get("hooks") or {}
    if wanted.get("prestart") or wanted.get("createRuntime"):
        channel.send(to_parent, channel.HOOKS)
        if channel.receive(to_parent)[0] != channel.GO:
            os._exit(125)
    hooks.run(wanted, "createContainer", _state(extras, "creating"))


def run_start_hooks(config: Config, extras: Extras) -> None:
    """Run startContainer, in the container."""
    hooks.run(config.get("hooks") or {}, "startContainer", _state(extras, "created"))


def _state(extras: Extras, status: str) -> bytes:
    """The state as the container sees it: the pid is that of its own namespace."""
    return json.dumps({**extras.state, "status": status, "pid": os.getpid()}).encode()


def set_root_propagation(config: Config) -> None:
    """linux.rootfsPropagation, of the root that we have entered."""
    wanted = config["linux"].get("rootfsPropagation")
    if wanted:
        recursive = wanted not in _PROPAGATION
        mounts.mount("", "/", "", _PROPAGATION[wanted[recursive:]] | (mounts.MS_REC if recursive else 0))


def parents_hooks(config: Config, state: Callable[[int], bytes]) -> Callable[[int], None]:
    """What the parent does when the child asks for hooks: of the container whose pid it is told."""

    def run(pid: int) -> None:
        for kind in ("prestart", "createRuntime"):
            hooks.run(config.get("hooks") or {}, kind, state(pid))

    return run
