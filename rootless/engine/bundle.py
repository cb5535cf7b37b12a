"""From a container's record to its bundle: the config.json that the runtime gets. Pure, but for asking the machine."""

import os
import stat
from collections.abc import Sequence

from rootless.engine import control_group, host_image, seccomp, storage, userns
from rootless.engine.context import Engine
from rootless.engine.network_options import has_networks
from rootless.errors import Conflict, HostUnsupported, InvalidInput
from rootless.linux import capabilities, namespaces
from rootless.runtime import sealed
from rootless.spec import runtime
from rootless.spec.runtime import Config
from rootless.store.containers import Record

_DEFAULT_VOLUME_OPTIONS = ("nosuid", "nodev")
_ABOVE_SYSCTLS = ("/proc", "/proc/sys", "/proc/sys/net", "/proc/sys/net/ipv4")
_HIGHEST_GROUP = 2147483647  # that ping_group_range takes, icmp(7)


def build(
    engine: Engine,
    record: Record,
    rung: str,
    window_size: tuple[int, int],
    *,
    directory: str = "",
    names_directory: str = "",
) -> Config:
    """The runtime configuration of the container. Raises HostUnsupported and Conflict for what cannot be.

    A container of the store has its upper directory, and its hosts and resolv.conf, in its directory there; a step of a
    build has them in *directory* and *names_directory*.
    """
    directory = directory or engine.containers.directory(record["id"])
    host_network = record["network"] == "host"
    described = process(record, window_size)
    config: Config = {
        "ociVersion": runtime.VERSION,
        "root": {"path": "rootfs", "readonly": record["read_only"]},
        "process": described,
        "mounts": [
            *_root_mounts(engine, record, directory),
            *_system_mounts(record, host_network),
            *_user_mounts(record, names_directory or _names_directory(engine, record)),
        ],
        "linux": {
            "namespaces": _namespaces(engine, record),
            "sysctl": {**_network_sysctls(record), **record["sysctls"]},
            "devices": [],
            "maskedPaths": masked_paths(record),
            "readonlyPaths": readonly_paths(record),
        },
        "annotations": {**record["annotations"], runtime.GROUPS: ",".join(record["groups"])},
    }
    filtered = seccomp.section(engine, record, described["capabilities"]["bounding"])
    if filtered is not None:
        config["linux"]["seccomp"] = filtered
    if own := record.get("userns"):
        config["linux"]["uidMappings"], config["linux"]["gidMappings"] = _mappings(own["uids"]), _mappings(own["gids"])
        config["annotations"] |= _account(record)
    if limited := control_group.resources(record):
        config["linux"]["resources"] = limited
    if record["uts"] != "host":
        config["hostname"] = record["hostname"]
        config["domainname"] = record["domainname"]
    return config


def _mappings(rows: list[list[int]]) -> list[Config]:
    return [{"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in rows]


def _account(record: Record) -> Config:
    """Who the user is in the container, where he keeps his number; his home is as here if it is mounted."""
    own = record["userns"]
    if own["mode"] != userns.KEEP_ID:
        return {}
    home = userns.home()
    within = any(f"{home}/".startswith(f"{mount['destination']}/") for mount in record["mounts"])
    words = (userns.user_name(), own["uid"], own["gid"], home if within else record["working_directory"])
    return {runtime.ACCOUNT: ":".join(map(str, words))}


def masked_paths(record: Record) -> list[str]:
    """What of /proc and /sys nobody in the container sees."""
    usual = [] if record["privileged"] else [*runtime.MASKED_PATHS, *_throttle_counters()]
    masked = record.get("masked_paths") or []
    return [*_without_unmasked(record, usual), *(path for path in masked if path not in usual)]


def readonly_paths(record: Record) -> list[str]:
    """What of /proc nobody in the container changes."""
    return [] if record["privileged"] else _without_unmasked(record, runtime.READONLY_PATHS)


def _without_unmasked(record: Record, paths: Sequence[str]) -> list[str]:
    """*paths* but for those that --security-opt names, or that begin as a pattern there, or all of them."""
    patterns = record.get("unmasked_paths") or (["ALL"] if record.get("unmasked") else [])
    if "ALL" in patterns:
        return []
    return [path for path in paths if not any(_matches(path, pattern) for pattern in patterns)]


def _matches(path: str, pattern: str) -> bool:
    """Whether *pattern* is the path, or ends in "*" and begins it."""
    return path == pattern or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def _throttle_counters() -> list[str]:
    """Directories that tell how hot each processor has been, and so what others make it do (GHSA-6fw5-f8r9-fgfm)."""
    paths = (f"/sys/devices/system/cpu/cpu{n}/thermal_throttle" for n in range(os.cpu_count() or 0))
    return [path for path in paths if os.path.isdir(path)]


def process(record: Record, window_size: tuple[int, int]) -> Config:
    """The process section of the container's program."""
    rows, columns = window_size
    environment = [*record["environment"], f"HOSTNAME={record['hostname']}"]
    if any(entry.startswith("HOSTNAME=") for entry in record["environment"]):
        environment = record["environment"]
    described: Config = {
        "terminal": record["terminal"],
        "user": {"username": userns.user(record)},
        "args": [*record["entrypoint"], *record["command"]],
        "env": environment,
        "cwd": record["working_directory"],
        "capabilities": capability_sets(record["cap_add"], record["cap_drop"], privileged=record["privileged"]),
        "noNewPrivileges": record["no_new_privileges"],
        "rlimits": [
            {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard} for name, soft, hard in record["ulimits"]
        ],
        "init": record["init"],
    }
    for key, member in (("apparmor_profile", "apparmorProfile"), ("selinux_label", "selinuxLabel")):
        if label := record.get(key):
            described[member] = label
    if record["oom_score"] is not None:
        described["oomScoreAdj"] = record["oom_score"]
    if rows and columns:
        described["consoleSize"] = {"height": rows, "width": columns}
    return described


def capability_sets(add: list[str], drop: list[str], *, privileged: bool) -> Config:
    """Docker's default set with --cap-add and --cap-drop; only root has them, by the bounding set (credentials.py)."""
    known = list(capabilities.NAMES)
    if privileged:
        granted = known
    else:
        granted = list(runtime.DEFAULT_CAPABILITIES)
        adds, drops = _names(add), _names(drop)
        if "ALL" in adds:
            granted = known
        if "ALL" in drops:
            granted = [name for name in adds if name != "ALL"]
        granted = [name for name in granted if name not in drops]
        granted += [name for name in adds if name != "ALL" and name not in granted and name not in drops]
    granted = list(dict.fromkeys(granted))
    return dict.fromkeys(("bounding", "effective", "permitted"), granted)


def granted(record: Record) -> list[str]:
    """The capabilities that a program in the container can have at most."""
    sets = capability_sets(record["cap_add"], record["cap_drop"], privileged=record["privileged"])
    return list(sets["bounding"])


def _names(given: list[str]) -> list[str]:
    names = []
    for text in given:
        name = text.upper()
        if name != "ALL":
            name = name if name.startswith("CAP_") else f"CAP_{name}"
            if name not in capabilities.NAMES:
                raise InvalidInput(f"invalid capability: {text}")
        names.append(name)
    return names


def _root_mounts(engine: Engine, record: Record, directory: str) -> list[Config]:
    driver = userns.driver(record) or engine.storage_driver
    words = userns.fuse_options(record) if driver == storage.FUSE else []
    if not record["image_id"]:
        if record["host_mounts"]:
            return host_image.mounts(record["host_mounts"], directory)
        # The kernel does not take it.
        return [storage.root_mount(storage.FUSE, ["/"], directory, engine.whiteout_style, words)]
    lowers = [engine.layers.diff(chain_id) for chain_id in reversed(record["layers"])]
    empty = os.path.join(directory, "rootfs")  # an image without layers still needs a lower
    return [storage.root_mount(driver, lowers or [empty], directory, engine.whiteout_style, words)]


def _system_mounts(record: Record, host_network: bool) -> list[Config]:
    # proc shows a pid namespace, and may be mounted only by its owner: of the machine's own there is just a bind.
    proc = (
        _bind("/proc", "/proc", ["nosuid", "noexec", "nodev"])
        if record["pid"] == "host"
        else _with(runtime.PROC_MOUNT, record.get("proc_options") or [])
    )
    mounts = [proc, *runtime.DEV_MOUNTS]
    if record["ipc"] == "host":
        mounts = [m for m in mounts if m["destination"] != "/dev/mqueue"]
        mounts += [_bind(path, path, []) for path in ("/dev/shm", "/dev/mqueue") if os.path.isdir(path)]
    elif record["ipc"] != "none":
        mounts.append(runtime.shm_mount(record["shm_size"]))
    writable = ["rw"] if record["privileged"] else []
    if host_network or record["network"].startswith("container:"):
        # sysfs shows a network namespace, and may be mounted only by its owner: a bind of the machine's instead.
        mounts.append(_bind("/sys", "/sys", ["rro", "nosuid", "noexec", "nodev"]))
    else:
        mounts.append(_with(runtime.SYS_MOUNT, writable))
    if record.get("cgroupns") == "host":
        mounts.append(_bind("/sys/fs/cgroup", "/sys/fs/cgroup", ["rro", "nosuid", "noexec", "nodev"]))
    else:
        mounts.append(_with(runtime.CGROUP_MOUNT, writable))
    return mounts


def _with(mount: Config, options: list[str]) -> Config:
    return {**mount, "options": [*mount["options"], *options]}


def _bind(source: str, destination: str, options: list[str]) -> Config:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rprivate", *options]}


def _names_directory(engine: Engine, record: Record) -> str:
    """Where hosts, hostname and resolv.conf are: they come with the network, also with that of another container."""
    mode, _, other = record["network"].partition(":")
    return engine.containers.directory(other if mode == "container" else record["id"])


def _network_sysctls(record: Record) -> dict[str, str]:
    """Docker's settings of a network namespace that is the container's own: low ports and ping for everybody in it."""
    if record["network"] == "host" or record["network"].startswith("container:"):
        return {}
    if any(mount["destination"] in _ABOVE_SYSCTLS for mount in record["mounts"]):
        return {}  # what is there is for the user to say
    groups = userns.groups(record) or namespaces.mapped_ids("gid")
    highest = max(first + count - 1 for first, count in groups)
    return {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": f"{min(groups)[0]} {min(highest, _HIGHEST_GROUP)}",
    }


def _user_mounts(record: Record, directory: str) -> list[Config]:
    mounted = {m["destination"] for m in record["mounts"]}
    mounts = [
        _bind(os.path.join(directory, name), f"/etc/{name}", ["nosuid", "nodev"])
        for name in ("hosts", "hostname", "resolv.conf")
        if f"/etc/{name}" not in mounted
    ]
    for mount in record["mounts"]:
        mounts.append(_volume_mount(mount) if mount["type"] != "tmpfs" else _tmpfs(mount))
    mounts += _device_mounts(record)
    return mounts


def _volume_mount(mount: Record) -> Config:
    options = [*_DEFAULT_VOLUME_OPTIONS, *mount["options"]]
    if mount["read_only"]:
        options.append("ro" if "bind" in options else "rro")
    if mount["copy"]:
        options.append("copyup")
    return _bind(mount["source"], mount["destination"], options)


def _tmpfs(mount: Record) -> Config:
    options = ["noexec", "nosuid", "nodev", *mount["options"]]
    if mount["read_only"]:
        options.append("ro")
    return {"destination": mount["destination"], "type": "tmpfs", "source": "tmpfs", "options": options}


def _device_mounts(record: Record) -> list[Config]:
    devices = [_device(source, destination, permissions) for source, destination, permissions in record["devices"]]
    found = [bind for group in devices for bind in group]
    if record["privileged"]:
        known = {m["destination"] for m in found} | set(runtime.DEFAULT_DEVICES) | {"/dev/console", "/dev/ptmx"}
        found += [_bind(path, path, []) for path in _usable_devices() if path not in known]
    return found


def _device(source: str, destination: str, permissions: str) -> list[Config]:
    """The binds of --device: a node, or all nodes of a directory."""
    try:
        status = os.stat(source)
    except OSError as error:
        raise HostUnsupported(
            f"error gathering device information while adding device {source!r}: {error.strerror}"
        ) from error
    options = [] if "w" in permissions else ["ro"]
    if stat.S_ISDIR(status.st_mode):
        return [
            bind
            for name in sorted(os.listdir(source))
            if _is_device(os.path.join(source, name))
            for bind in _device(os.path.join(source, name), os.path.join(destination, name), permissions)
        ]
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise InvalidInput(f"{source} is not a device node")
    return [_bind(source, destination, options)]


def _is_device(path: str) -> bool:
    mode = os.lstat(path).st_mode
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _usable_devices() -> list[str]:
    """The machine's device nodes that this user may open."""
    paths = [os.path.join("/dev", name) for name in sorted(os.listdir("/dev"))]
    return [p for p in paths if _is_device(p) and os.access(p, os.R_OK) and not p.startswith("/dev/tty")]


def _namespaces(engine: Engine, record: Record) -> list[Config]:
    """Which namespaces are made, which are joined. `host` leaves one out; `container:ID` has a path."""
    wanted: list[Config] = [{"type": "mount"}]
    if record.get("cgroupns") != "host":
        wanted.append({"type": "cgroup"})
    if record.get("userns"):
        wanted.append({"type": "user"})
    modes = {"pid": record["pid"], "ipc": record["ipc"], "uts": record["uts"], "network": record["network"]}
    files = {"pid": "pid", "ipc": "ipc", "uts": "uts", "network": "net"}
    for kind, mode in modes.items():
        if mode == "host":
            continue
        if mode.startswith("container:"):
            if record.get("userns") and kind in ("pid", "ipc"):
                raise Conflict(
                    f"--{kind} container: shares what belongs to another user namespace than --userns gives",
                    hint="leave one of them out",
                )
            if kind == "pid":
                _check_neighbour(engine, mode.partition(":")[2])
            pid = _running_pid(engine, mode.partition(":")[2])
            wanted.append({"type": kind, "path": f"/proc/{pid}/ns/{files[kind]}"})
        elif mode in ("", "none", "private", "shareable") or (kind == "network" and has_networks(mode)):
            wanted.append({"type": kind})
        else:
            raise InvalidInput(f"invalid {kind} mode: {mode}")
    return wanted


def _check_neighbour(engine: Engine, name: str) -> None:
    """Refuse to start a container where another one could trace it while it still has the machine's files.

    The kernel lets nobody trace a process of ours but where the interpreter belongs to the user, is therefore started
    from a sealed mount of it, and so belongs to the user's namespace, in which CAP_SYS_PTRACE counts (X02).
    """
    other = engine.containers.load(engine.containers.find(name))
    if sealed.is_users() and "CAP_SYS_PTRACE" in granted(other):
        raise Conflict(
            f"cannot join the pid namespace of container {name}: it has CAP_SYS_PTRACE, and with a Python of your own"
            " it could look into what starts there",
            hint="use a Python that belongs to root, as the distribution's does, or leave the capability out",
        )


def _running_pid(engine: Engine, name: str) -> int:
    state = engine.containers.state(engine.containers.find(name))
    if state["status"] not in ("running", "paused"):
        raise Conflict(f"cannot join the namespaces of container {name}: it is not running")
    return int(state["pid"])
