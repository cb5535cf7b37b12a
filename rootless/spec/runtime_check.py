"""Whether a JSON document is a configuration that can be run: config.md and config-linux.md of the runtime-spec.

A table says what each member has to be; what is wrong is told with the path in the document, as
`process.rlimits[0].type: unknown resource limit 'RLIMIT_FOO'`. Members that the specification does not know are passed
over, as it asks for ("Extensibility"). What it knows and an ordinary user cannot have, or no runtime of Linux
containers has, is refused by name: nothing that was asked for is passed over in silence.
"""

import re
from typing import Any

from rootless.errors import HostUnsupported, InvalidInput
from rootless.spec import runtime_resources
from rootless.spec.json_shape import (
    INT64,
    UINT32,
    UINT64,
    Check,
    absolute,
    boolean,
    each,
    integer,
    number,
    one_of,
    shape,
    string,
    string_map,
    strings,
)
from rootless.spec.runtime import Config

NAMESPACE_TYPES = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
RLIMITS = (
    *("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK"),
    *("RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO"),
    *("RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK"),
)
SCHEDULERS = ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_IDLE", "SCHED_DEADLINE")
SCHEDULER_FLAGS = (
    *("SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_POLICY"),
    *("SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"),
)
IO_CLASSES = ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")
PERSONALITIES = ("LINUX", "LINUX32")
PROPAGATIONS = ("shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_CPUS = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*")


def _version(value: Any, where: str) -> None:
    string(value, where)
    found = _VERSION.fullmatch(value)
    if not found:
        raise InvalidInput(f"{where}: {value!r} is no version (SemVer 2.0.0)")
    if found.group(1) != "1":
        raise InvalidInput(f"{where}: version {value} of the specification is not known; 1.x is")


def _arguments(value: Any, where: str) -> None:
    strings(value, where)
    if not value:
        raise InvalidInput(f"{where}: at least one argument is needed")


def _rlimits(value: Any, where: str) -> None:
    each(shape({"type": string, "soft": number, "hard": number}, "type", "soft", "hard"))(value, where)
    seen: set[str] = set()
    for index, limit in enumerate(value):
        if limit["type"] not in RLIMITS:
            raise InvalidInput(f"{where}[{index}].type: unknown resource limit {limit['type']!r}")
        if limit["type"] in seen:
            raise InvalidInput(f"{where}[{index}].type: {limit['type']} is there twice")
        if _unlimited(limit["soft"]) > _unlimited(limit["hard"]):
            raise InvalidInput(f"{where}[{index}].soft: {limit['soft']} is more than the hard limit {limit['hard']}")
        seen.add(limit["type"])


def _unlimited(value: int) -> int:
    """The value as the kernel compares it: what is negative has been cast, and means no limit."""
    return value if value >= 0 else value + 2**64


def _capability(value: Any, where: str) -> None:
    string(value, where)
    if not value.startswith("CAP_") or not value.isascii():
        raise InvalidInput(f"{where}: {value!r} is no capability: their names begin with CAP_")


def _cpus(value: Any, where: str) -> None:
    string(value, where)
    if value and not _CPUS.fullmatch(value):
        raise InvalidInput(f"{where}: {value!r} is no list of processors, as 0-3,7")


def _namespaces(value: Any, where: str) -> None:
    each(shape({"type": one_of(*NAMESPACE_TYPES), "path": absolute}, "type"))(value, where)
    seen: set[str] = set()
    for index, namespace in enumerate(value):
        if namespace["type"] in seen:
            raise InvalidInput(f"{where}[{index}].type: {namespace['type']} is there twice")
        seen.add(namespace["type"])


def _timeout(value: Any, where: str) -> None:
    integer(1, INT64)(value, where)


def _sysctls(value: Any, where: str) -> None:
    string_map(value, where)
    for name in value:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./:@-]*", name) or ".." in name:
            raise InvalidInput(f"{where}: {name!r} is no kernel parameter")


def _annotations(value: Any, where: str) -> None:
    string_map(value, where)
    if "" in value:
        raise InvalidInput(f"{where}: a key is empty")


def _seccomp(value: Any, where: str) -> None:
    # Few bundles of callers have one that is short to read, and many have none.
    from rootless.spec.seccomp import parse

    parse(value, where)
    if "compiled" in value:
        raise InvalidInput(f"{where}.compiled: only rootless itself writes that")


def _host_name(value: Any, where: str) -> None:
    string(value, where)
    if len(value.encode("utf-8", "surrogateescape")) > 64:
        raise InvalidInput(f"{where}: longer than 64 bytes, which is what the kernel keeps")


_MAPPINGS = each(shape({"containerID": UINT32, "hostID": UINT32, "size": integer(1, 2**32 - 1)},
                       "containerID", "hostID", "size"))  # fmt: skip
_OFFSET = shape({"secs": integer(-(2**63), INT64), "nanosecs": integer(0, 999_999_999)})
_CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
_USER = shape({"uid": UINT32, "gid": UINT32, "umask": integer(0, 0o777), "additionalGids": each(UINT32),
               "username": string})  # fmt: skip
_PROCESS: dict[str, Check] = {
    "terminal": boolean,
    "consoleSize": shape({"height": UINT32, "width": UINT32}, "height", "width"),
    "user": _USER,
    "args": _arguments,
    "env": strings,
    "cwd": absolute,
    "capabilities": shape(dict.fromkeys(_CAPABILITY_SETS, each(_capability))),
    "rlimits": _rlimits,
    "noNewPrivileges": boolean,
    "oomScoreAdj": integer(-1000, 1000),
    "apparmorProfile": string,
    "selinuxLabel": string,
    "scheduler": shape(
        {
            "policy": one_of(*SCHEDULERS),
            "nice": integer(-20, 19),
            "priority": integer(0, 99),
            "flags": each(one_of(*SCHEDULER_FLAGS)),
            **dict.fromkeys(("runtime", "deadline", "period"), UINT64),
        },
        "policy",
    ),
    "ioPriority": shape({"class": one_of(*IO_CLASSES), "priority": integer(0, 7)}, "class"),
    "execCPUAffinity": shape({"initial": _cpus, "final": _cpus}),
}
check_process_members = shape(_PROCESS, "args", "cwd")
_MOUNT = shape(
    {
        "destination": string,
        "source": string,
        "type": string,
        "options": strings,
        "uidMappings": _MAPPINGS,
        "gidMappings": _MAPPINGS,
    },
    "destination",
)
_DEVICE = shape(
    {
        "type": one_of("c", "b", "u", "p"),
        "path": absolute,
        "major": integer(-1, 2**31 - 1),
        "minor": integer(-1, 2**31 - 1),
        "fileMode": integer(0, 0o7777),
        "uid": UINT32,
        "gid": UINT32,
    },
    "type",
    "path",
)
_LINUX: dict[str, Check] = {
    "namespaces": _namespaces,
    "uidMappings": _MAPPINGS,
    "gidMappings": _MAPPINGS,
    "timeOffsets": shape({"monotonic": _OFFSET, "boottime": _OFFSET}),
    "devices": each(_DEVICE),
    "cgroupsPath": string,
    "resources": runtime_resources.check,
    "sysctl": _sysctls,
    "seccomp": _seccomp,
    "rootfsPropagation": one_of(*PROPAGATIONS, ""),
    "maskedPaths": each(absolute),
    "readonlyPaths": each(absolute),
    "mountLabel": string,
    "personality": shape({"domain": one_of(*PERSONALITIES), "flags": strings}, "domain"),
}
_HOOK = shape({"path": absolute, "args": strings, "env": strings, "timeout": _timeout}, "path")
_CONFIG = shape(
    {
        "ociVersion": _version,
        "root": shape({"path": string, "readonly": boolean}, "path"),
        "process": check_process_members,
        "mounts": each(_MOUNT),
        "hostname": _host_name,
        "domainname": _host_name,
        "hooks": shape(dict.fromkeys(HOOKS, each(_HOOK))),
        "annotations": _annotations,
        "linux": shape(_LINUX),
    },
    "ociVersion",
    "root",
    "process",
)


def check(config: Any) -> Config:
    """*config*, if it can be run. Raises InvalidInput and HostUnsupported, which name the place in the document."""
    _CONFIG(config, "")
    _refuse_other_platforms(config)
    linux = config.get("linux") or {}
    _check_mounts(config.get("mounts") or [])
    _check_scheduler((config["process"].get("scheduler")) or {})
    _check_namespaces(config, linux)
    _refuse(linux)
    return dict(config)


def check_process(process: Any) -> Config:
    """The same of `process` alone, as exec --process has it."""
    check_process_members(process, "process")
    _check_scheduler(process.get("scheduler") or {})
    return dict(process)


def _refuse_other_platforms(config: Config) -> None:
    for name in ("solaris", "windows", "vm", "zos", "freebsd"):
        if config.get(name):
            raise HostUnsupported(f"{name}: this is a runtime of Linux containers")


def _check_mounts(mounts: list[Config]) -> None:
    for index, mount in enumerate(mounts):
        where = f"mounts[{index}]"
        if not mount["destination"]:
            raise InvalidInput(f"{where}.destination: must not be empty")
        if mount["destination"].strip("/") == "":
            raise InvalidInput(f"{where}.destination: the root is mounted already")
        options = mount.get("options") or []
        if bool(mount.get("uidMappings")) != bool(mount.get("gidMappings")):
            raise InvalidInput(f"{where}: uidMappings and gidMappings come together")
        if mount.get("uidMappings") or "idmap" in options or "ridmap" in options:
            raise HostUnsupported(
                f"{where}: id maps of a mount take privileges over its file system, which no user has"
            )
        if "copyup" in options:
            raise InvalidInput(f"{where}.options: copyup is rootless's own; tmpcopyup is for all")
        bound = mount.get("type") == "bind" or "bind" in options or "rbind" in options
        if bound and not mount.get("source"):
            raise InvalidInput(f"{where}.source: a bind mount needs one")


def _check_scheduler(scheduler: Config) -> None:
    policy = scheduler.get("policy")
    if scheduler.get("priority") and policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise InvalidInput(f"process.scheduler.priority: {policy} has none; SCHED_FIFO and SCHED_RR have")
    if any(scheduler.get(key) for key in ("runtime", "deadline", "period")) and policy != "SCHED_DEADLINE":
        raise InvalidInput("process.scheduler: runtime, deadline and period are of SCHED_DEADLINE")
    if scheduler.get("nice") and policy not in ("SCHED_OTHER", "SCHED_BATCH"):
        raise InvalidInput(f"process.scheduler.nice: {policy} has none; SCHED_OTHER and SCHED_BATCH have")


def _check_namespaces(config: Config, linux: Config) -> None:
    """What needs a namespace, and is not there or is somebody else's."""
    paths = {n["type"]: n.get("path") for n in linux.get("namespaces") or ()}
    where = "linux.namespaces"
    if "mount" not in paths:
        raise InvalidInput(f"{where}: a mount namespace is needed")
    for member, kind in (("hostname", "uts"), ("domainname", "uts")):
        if config.get(member) and kind not in paths:
            raise InvalidInput(f"{member}: needs a uts namespace in {where}")
    mapped = bool(linux.get("uidMappings") or linux.get("gidMappings"))
    if mapped and "user" not in paths:
        raise InvalidInput(f"linux.uidMappings: needs a user namespace in {where}")
    if mapped and not (linux.get("uidMappings") and linux.get("gidMappings")):
        raise InvalidInput("linux: uidMappings and gidMappings come together")
    if mapped and paths["user"]:
        raise InvalidInput("linux.uidMappings: a user namespace that is joined has its maps already")
    if "user" in paths and not paths["user"] and not mapped:
        raise InvalidInput("linux.uidMappings: a user namespace needs them")
    if linux.get("timeOffsets") and (paths.get("time", "joined")):
        raise InvalidInput(f"linux.timeOffsets: need a new time namespace in {where}")
    _check_sysctls(linux.get("sysctl") or {}, paths)


def _check_sysctls(sysctls: dict[str, str], paths: dict[str, str | None]) -> None:
    """A parameter of the host is not a container's to set; which belong to a namespace: namespaces(7)."""
    for name in sysctls:
        kind = sysctl_namespace(name)
        if kind is None:
            raise InvalidInput(f"linux.sysctl: {name} belongs to no namespace: it would be the host's")
        if kind not in paths:
            raise InvalidInput(f"linux.sysctl: {name} needs a {kind} namespace in linux.namespaces")


_IPC_SYSCTLS = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
                "kernel.shmmni", "kernel.shm_rmid_forced")  # fmt: skip


def sysctl_namespace(name: str) -> str | None:
    """The type of namespace that the kernel parameter *name* belongs to; None for those of the whole machine."""
    dotted = name.replace("/", ".")
    if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
        return "ipc"
    if dotted.startswith("net."):
        return "network"
    if dotted in ("kernel.hostname", "kernel.domainname"):
        return "uts"
    return "user" if dotted.startswith("user.") else None


def _refuse(linux: Config) -> None:
    """What a user cannot have."""
    for name, why in (
        ("intelRdt", "resctrl takes root"),
        ("mountLabel", "labels of file systems take SELinux, which is not supported"),
        ("netDevices", "to move a device of the host takes root"),
    ):
        if linux.get(name):
            raise HostUnsupported(f"linux.{name}: {why}")
    if (linux.get("personality") or {}).get("flags"):
        raise HostUnsupported("linux.personality.flags: the specification defines none yet")
