"""info, version: what this machine allows, which rung of each ladder is in use, and what an administrator could do.

Nothing is guessed from version numbers: the user's namespace is entered and an overlay is mounted, in a child process
that ends with it. The documents have Docker's keys (Engine API: SystemInfo, SystemVersion), for the scripts that read
them with --format, and beside those a section `Rootless` with what only rootless knows.
"""

import hashlib
import os
import platform
import pwd
from typing import Any, NamedTuple

from rootless import __version__
from rootless.engine import info_network, storage, storage_probe
from rootless.engine.configuration import configuration_path, load_configuration
from rootless.engine.context import Engine
from rootless.engine.listing import list_containers
from rootless.engine.storage import Found, Obstacle
from rootless.errors import HostUnsupported
from rootless.linux import files
from rootless.linux.directories import outer_uid
from rootless.linux.mount_table import Mounted, mount_table
from rootless.runtime import cgroup_ladder, user_namespace
from rootless.runtime.cgroup_place import SYSTEMD
from rootless.runtime.jsonlog import now
from rootless.spec.platform import host_platform

# Which of Docker's API versions the documents follow. There is no daemon: it says nothing about a socket.
API_VERSION = "1.49"
MIN_API_VERSION = "1.44"

NO_NAMESPACE = "none"  # the lowest rung, below user_namespace.RANGE and SINGLE
NETWORKS = ("bridge", "host", "null")  # the drivers
_CGROUP2_SUPER_MAGIC = 0x63677270  # <linux/magic.h>
_LIMITS = ("cpu", "memory", "pids")  # the controllers that --cpus, --memory and --pids-limit need
_DRIVERS = {"subtree": "cgroupfs", "systemd": "systemd", "none": "none"}  # by the rung of cgroup_ladder.py
_BOOT_WITH_VERSION_2 = "have root boot with systemd.unified_cgroup_hierarchy=1: version 1 cannot be delegated safely"
_DELEGATE = (
    "have root put `[Service]` and `Delegate=cpu cpuset io memory pids` into"
    " /etc/systemd/system/user@.service.d/delegate.conf, run systemctl daemon-reload, and log in again"
)
_LINGER = "to keep them, run loginctl enable-linger"


class Probe(NamedTuple):
    """What was found by trying. The reasons and the remedies are empty where there is nothing to better."""

    rung: str  # "range", "single", "none"
    ids: int  # how many uids are mapped
    reason: str
    remedy: str
    overlay_reason: str  # why no overlay can be mounted in the store
    overlay_remedy: str
    fuse_reason: str = ""  # why our own driver cannot be used
    fuse_remedy: str = ""
    devices_refused: bool = False  # layers cannot be marked as overlayfs marks them
    network: dict[str, Any] | None = None  # see info_network.ask; None where nothing could be tried


class Cgroups(NamedTuple):
    """What there is of control groups, as far as reading tells."""

    version: str  # "1", "2"
    delegated: tuple[str, ...]  # the controllers in the part of the tree that is ours
    rung: str = "none"  # how a container gets a cgroup: see cgroup_ladder.py
    lingers: bool = True  # whether what the user's systemd has started stays when the user logs out


def info(engine: Engine, *, debug: bool = False) -> dict[str, Any]:
    """The document of `info`. Raises InvalidInput where config.toml cannot be read."""
    configuration = load_configuration()
    found, cgroups = probe(engine), find_cgroups()
    if found.rung != NO_NAMESPACE:
        storage.save(engine.layout, Found(bool(found.overlay_reason), found.devices_refused))
    filesystem = filesystem_of(engine.layout.root)
    driver, why = driver_of(engine, found)
    overlay, fuse = Obstacle(found.overlay_reason, found.overlay_remedy), Obstacle(found.fuse_reason, found.fuse_remedy)
    obstacle = fuse if driver == storage.FUSE else overlay
    release = _os_release()
    statuses = [listed.state["status"] for listed in list_containers(engine)]
    running, paused = sum(s in ("running", "restarting") for s in statuses), statuses.count("paused")
    return {
        "ID": _identity(engine),
        "Containers": len(statuses),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(statuses) - running - paused,
        "Images": len(engine.images.list()),
        "Driver": driver,
        "DriverStatus": [
            ["Backing Filesystem", filesystem],
            ["Supports d_type", "true"],
            ["userxattr", "true"],
            ["Chosen", why],
            ["Usable", f"false: {obstacle.reason}" if obstacle.reason else "true"],
        ],
        "Plugins": {
            "Volume": ["local"],
            "Network": list(NETWORKS),
            "Authorization": None,
            "Log": ["json-file", "none"],
        },
        "MemoryLimit": "memory" in cgroups.delegated,
        "SwapLimit": "memory" in cgroups.delegated,
        "CpuCfsPeriod": "cpu" in cgroups.delegated,
        "CpuCfsQuota": "cpu" in cgroups.delegated,
        "CPUShares": "cpu" in cgroups.delegated,
        "CPUSet": "cpuset" in cgroups.delegated,
        "PidsLimit": "pids" in cgroups.delegated,
        "OomKillDisable": False,
        "IPv4Forwarding": True,
        "Debug": debug,
        "SystemTime": now(),
        "LoggingDriver": "json-file",
        "CgroupDriver": _DRIVERS[cgroups.rung],
        "CgroupVersion": cgroups.version,
        "KernelVersion": os.uname().release,
        "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
        "OSVersion": release.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": os.uname().machine,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(configuration.registries),
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "DockerRootDir": engine.layout.root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": os.uname().nodename,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": __version__,
        "Runtimes": {"rootless-oci": {"path": "rootless-oci"}},
        "DefaultRuntime": "rootless-oci",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": ""},
        "LiveRestoreEnabled": False,
        "Isolation": "",
        "InitBinary": "",
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=userns", "name=cgroupns"],
        "Warnings": warnings(found, cgroups, driver),
        "ClientInfo": {"Debug": debug, **_client(), "Plugins": [], "Warnings": None},
        "Rootless": {
            "UserNamespace": {"Rung": found.rung, "Ids": found.ids, "Reason": found.reason, "Remedy": found.remedy},
            "SubordinateIds": _subordinate_ids(),
            "StorageDriver": {
                "Name": driver,
                "Chosen": why,
                "Filesystem": filesystem,
                "Usable": not obstacle.reason,
                "Reason": obstacle.reason,
                "Remedy": obstacle.remedy,
                "Drivers": {
                    storage.OVERLAY: {"Reason": overlay.reason, "Remedy": overlay.remedy},
                    storage.FUSE: {"Reason": fuse.reason, "Remedy": fuse.remedy},
                },
            },
            "CgroupControllers": list(cgroups.delegated),
            "DefaultNetwork": configuration.network,
            "Network": _network(found),
            "RunDirectory": engine.layout.run,
            "Configuration": configuration_path(),
        },
    }


def driver_of(engine: Engine, found: Probe) -> tuple[str, str]:
    """The storage driver, and why it is this one."""
    if engine.asked_driver:
        return engine.asked_driver, "by --storage-driver or config.toml"
    if found.overlay_reason and found.rung != NO_NAMESPACE:
        return storage.FUSE, f"the kernel's overlayfs cannot be used: {found.overlay_reason}"
    return storage.OVERLAY, "the kernel's overlayfs works here"


def warnings(found: Probe, cgroups: Cgroups, driver: str = storage.OVERLAY) -> list[str]:
    """What does not work as well as it could, each with the line for whom it may concern."""
    lines = []
    if found.rung == NO_NAMESPACE:
        lines.append(f"WARNING: No container can run: {found.reason}; {found.remedy}")
    elif found.reason:
        lines.append(f"WARNING: {found.reason}; {found.remedy}")
    if found.overlay_reason and found.rung != NO_NAMESPACE:
        lines.append(f"WARNING: No overlay can be mounted in the store: {found.overlay_reason}; {found.overlay_remedy}")
    if found.fuse_reason and driver == storage.FUSE:
        lines.append(f"WARNING: No union can be mounted with FUSE: {found.fuse_reason}; {found.fuse_remedy}")
    if found.network is not None:
        lines += info_network.warnings(_network(found))
    missing = [name for name in _LIMITS if name not in cgroups.delegated]
    if missing:
        remedy = _DELEGATE if cgroups.version == "2" else _BOOT_WITH_VERSION_2
        lines.append(f"WARNING: No limits on {', '.join(missing)}: the controllers are not delegated; {remedy}")
    if not cgroups.lingers:
        lines.append(f"WARNING: Containers end when you log out: their scopes are your systemd's; {_LINGER}")
    return lines


def _network(found: Probe) -> dict[str, Any]:
    return info_network.document(found.network or {"error": found.reason, "hint": found.remedy})


def version() -> dict[str, Any]:
    """The document of `version`. The server is the engine in this very process."""
    details = {
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
        "Arch": host_platform().architecture,
        "KernelVersion": os.uname().release,
        "PythonVersion": platform.python_version(),
        "GitCommit": "",
        "GoVersion": "",
        "BuildTime": "",
    }
    engine = {"Name": "Engine", "Version": __version__, "Details": {**details, "Experimental": "false"}}
    return {
        "Client": {"Platform": {"Name": "rootless"}, **_client()},
        "Server": {"Platform": {"Name": "rootless"}, "Components": [engine], "Version": __version__, **details},
    }


def _client() -> dict[str, Any]:
    return {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "PythonVersion": platform.python_version(),
        "Os": "linux",
        "Arch": host_platform().architecture,
        "BuildTime": "",
        "Context": "default",
    }


# --- what can only be known by trying


def probe(engine: Engine) -> Probe:
    """Enter the user's namespace and mount an overlay in the store, in a child. Raises RootlessError if it dies."""
    return Probe(**storage_probe.in_child(lambda: _try_all(engine)._asdict(), "the user namespace"))


def _try_all(engine: Engine) -> Probe:
    try:
        rung = engine.enter_namespace()
    except HostUnsupported as error:
        return Probe(NO_NAMESPACE, 0, str(error), error.hint, str(error), error.hint)
    with open("/proc/self/uid_map", encoding="ascii") as file:
        ids = sum(int(line.split()[2]) for line in file)
    reason = remedy = ""
    if rung == user_namespace.SINGLE:
        reason = "Only your own id can be mapped: in containers all files belong to one user"
        remedy = user_namespace.why_single()
    network = info_network.ask(engine)  # before the overlay, which takes us into a mount namespace
    marked = storage_probe.try_marks(engine.layout)
    overlay = storage_probe.try_overlay(engine.layout)
    if overlay.reason:
        overlay = overlay._replace(reason=f"{overlay.reason}, on {filesystem_of(engine.layout.root)}")
    return Probe(rung, ids, reason, remedy, *overlay, *storage_probe.try_fuse(), not marked, network)


# --- what can be read


def find_cgroups() -> Cgroups:
    """Which version the machine has, and what is delegated to us in the tree of version 2."""
    try:
        fd = os.open("/sys/fs/cgroup", os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return Cgroups("1", ())
    try:
        version = "2" if files.filesystem_magic(fd) == _CGROUP2_SUPER_MAGIC else "1"
    finally:
        os.close(fd)
    rung = cgroup_ladder.find()
    return Cgroups(version, tuple(rung.controllers), rung.kind, rung.kind != SYSTEMD or _lingers())


def _lingers() -> bool:
    """loginctl(1), enable-linger."""
    try:
        user = pwd.getpwuid(outer_uid()).pw_name
    except KeyError:
        return True  # nobody that logind could know
    return os.path.exists(f"/var/lib/systemd/linger/{user}")


def filesystem_of(path: str) -> str:
    """The type of the file system that *path* is on: "ext4", "nfs4", "tmpfs"."""
    path = os.path.realpath(path)
    best = Mounted("", "unknown")
    for mounted in mount_table():
        # Of two at the same place the later one is seen.
        if len(mounted.point) >= len(best.point) and _is_below(path, mounted.point):
            best = mounted
    return best.fstype


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _subordinate_ids() -> dict[str, list[list[int]]]:
    """The ranges [first, count] that /etc/subuid and /etc/subgid give to the user."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return {
        kind: [list(r) for r in user_namespace.subordinate_ids(path, user, uid)]
        for kind, path in (("Uids", "/etc/subuid"), ("Gids", "/etc/subgid"))
    }


def _registries(configured: Any) -> dict[str, Any]:
    """config.toml's registries in the shape of Docker's RegistryConfig. Loopback may always be plain HTTP."""
    hosts = {"docker.io": {}, **configured}
    return {
        "IndexConfigs": {
            host: {
                "Mirrors": settings.get("mirrors", []),
                "Name": host,
                "Official": host == "docker.io",
                "Secure": not settings.get("insecure", False),
            }
            for host, settings in hosts.items()
        },
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
        "Mirrors": hosts["docker.io"].get("mirrors", []),
    }


def _os_release() -> dict[str, str]:
    """os-release(5); nothing where the machine has none."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _identity(engine: Engine) -> str:
    """A name for this store on this machine, the same at each call. machine-id(5) asks not to be shown as it is."""
    try:
        with open("/etc/machine-id", "rb") as file:
            machine = file.read().strip()
    except OSError:
        machine = os.fsencode(os.uname().nodename)
    digits = hashlib.sha256(b"rootless\0" + machine + b"\0" + os.fsencode(engine.layout.root)).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))
