"""Bundles for three runtimes: what each changes in one configuration, and where the peers do something else, and why.

A change is a path in config.json and a value; `+` at the end of a path appends. `@` in a text is the bundle's path.
"""

from typing import Any, NamedTuple

Change = tuple[str, Any]


class Case(NamedTuple):
    """A bundle. *said*: it is refused by us,
    with this message; *extra*: shell commands whose output is compared too."""

    name: str
    changes: tuple[Change, ...] = ()
    said: str = ""
    extra: str = ""


def case(name: str, *changes: Change, extra: str = "") -> Case:
    return Case(name, changes, extra=extra)


def refused(said: str, *changes: Change) -> Case:
    return Case(f"refused: {said}", changes, said)


def mount(kind: str, *options: str, source: str = "", at: str = "/data") -> Change:
    return "mounts+", {"destination": at, "type": kind, "source": source or kind, "options": list(options)}


def bind(*options: str, source: str = "@/source", at: str = "/data") -> Change:
    return mount("bind", *options, source=source, at=at)


def capabilities(bounding: list[str], *, ambient: bool = False) -> Change:
    sets = ["bounding", "effective", "permitted", *(["inheritable", "ambient"] if ambient else [])]
    return "process.capabilities", dict.fromkeys(sets, bounding)


def namespaces(*kinds: str) -> Change:
    return "linux.namespaces", [{"type": kind} for kind in kinds]


def limit(kind: str, soft: int, hard: int) -> dict[str, Any]:
    return {"type": kind, "soft": soft, "hard": hard}


def rule(name: str, number: int) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": number}


ALL = ("pid", "network", "ipc", "uts", "mount")
LIST = "/bin/ls -lnR /data | /bin/sed 's/ [A-Z][a-z][a-z] .*:.. / /'"
WRITE = "echo x 2>/dev/null > /data/new && echo written || echo denied; /bin/rm -f /data/new"
HALF = "/bin/mount 2>&1 | /bin/grep -c data; true"
ID = [{"containerID": 0, "hostID": 0, "size": 1000}]
SHIFTED = [{"containerID": 0, "hostID": 1000, "size": 1000}]

CASES = [
    case("as it is"),
    # Namespaces
    case("no network namespace", namespaces("pid", "ipc", "uts", "mount"), ("mounts-", "/sys")),
    case("no pid namespace", namespaces("network", "ipc", "uts", "mount")),
    case("no ipc namespace", namespaces("pid", "network", "uts", "mount"), ("mounts-", "/dev/mqueue")),
    case("no uts namespace", namespaces("pid", "network", "ipc", "mount"), ("hostname", None)),
    case("cgroup namespace", namespaces(*ALL, "cgroup")),
    case("a namespace by path", ("linux.namespaces", [*({"type": k} for k in ALL if k != "ipc"),
                                                      {"type": "ipc", "path": "/proc/self/ns/ipc"}])),
    case("user namespace", namespaces(*ALL, "user"), ("linux.uidMappings", ID), ("linux.gidMappings", ID),
         extra="/bin/cat /proc/self/uid_map /proc/self/gid_map | /bin/tr -s ' '"),
    case("user namespace, shifted", namespaces(*ALL, "user"), ("linux.uidMappings", SHIFTED),
         ("linux.gidMappings", SHIFTED), extra="/bin/cat /proc/self/uid_map | /bin/tr -s ' '"),
    case("time namespace", namespaces(*ALL, "time"), ("linux.timeOffsets", {"monotonic": {"secs": 5, "nanosecs": 7}}),
         extra="/bin/cat /proc/self/timens_offsets"),
    case("hostname", ("hostname", "some-name"), extra="/bin/hostname"),
    case("domainname", ("domainname", "some.domain"), extra="/bin/cat /proc/sys/kernel/domainname"),
    # The process
    case("cwd", ("process.cwd", "/data")),
    case("cwd that is not there", ("process.cwd", "/not/there"), ("root.readonly", False)),
    case("environment", ("process.env", ["A=1", "B=two words", "A=3", "PATH=/bin"])),
    case("environment with an odd entry", ("process.env", ["PATH=/bin", "EMPTY="])),
    case("program by PATH", ("process.args", ["sh", "-c", "echo found"])),
    case("program that is not there", ("process.args", ["/not/there"])),
    case("program that is not in PATH", ("process.args", ["nothing"])),
    case("program that is no program", ("process.args", ["/file"])),
    case("program that is a directory", ("process.args", ["/data"])),
    case("exit code", ("process.args", ["/bin/sh", "-c", "exit 42"])),
    case("ends by a signal",
         ("process.args", ["/bin/sh", "-c", "kill -9 $$"]), namespaces("network", "ipc", "uts", "mount")),
    case("user", ("process.user", {"uid": 1000, "gid": 1001})),
    case("user and groups", ("process.user", {"uid": 5, "gid": 6, "additionalGids": [7, 8]})),
    case("root and groups", ("process.user", {"uid": 0, "gid": 0, "additionalGids": [9]})),
    case("umask", ("process.user", {"uid": 0, "gid": 0, "umask": 0o77})),
    case("user who is not mapped", ("process.user", {"uid": 999999, "gid": 0})),
    case("no new privileges: off", ("process.noNewPrivileges", False)),
    case("no capabilities", capabilities([])),
    case("one capability", capabilities(["CAP_NET_ADMIN"])),
    case("capabilities, member is missing", ("process.capabilities", None)),
    case("user with ambient capabilities", capabilities(["CAP_CHOWN", "CAP_NET_RAW"], ambient=True),
         ("process.user", {"uid": 7, "gid": 7})),
    case("user with capabilities", capabilities(["CAP_CHOWN"]), ("process.user", {"uid": 7, "gid": 7})),
    case("unknown capability", capabilities(["CAP_CHOWN", "CAP_FLY"])),
    case("rlimits", ("process.rlimits", [limit("RLIMIT_NOFILE", 100, 200), limit("RLIMIT_CORE", 0, 0),
                                         limit("RLIMIT_STACK", 1 << 20, 1 << 21)])),
    case("rlimit without end", ("process.rlimits", [limit("RLIMIT_CPU", 2**64 - 1, 2**64 - 1)])),
    case("rlimit that cannot be raised", ("process.rlimits", [limit("RLIMIT_NOFILE", 1 << 40, 1 << 40)])),
    case("oom score", ("process.oomScoreAdj", 500)),
    case("scheduler: batch and nice", ("process.scheduler", {"policy": "SCHED_BATCH", "nice": 5})),
    case("scheduler: idle", ("process.scheduler", {"policy": "SCHED_IDLE"})),
    case("io priority", ("process.ioPriority", {"class": "IOPRIO_CLASS_IDLE", "priority": 0})),
    case("io priority, best effort", ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 6})),
    case("personality", ("linux.personality", {"domain": "LINUX32"}), extra="/bin/uname -m"),
    # The root
    case("root that can be written to", ("root.readonly", False), extra="echo x > /w && /bin/rm /w && echo written"),
    case("rootfs private", ("linux.rootfsPropagation", "private")),
    case("rootfs slave", ("linux.rootfsPropagation", "slave")),
    case("rootfs shared", ("linux.rootfsPropagation", "shared")),
    case("rootfs unbindable", ("linux.rootfsPropagation", "unbindable")),
    case("masked", ("linux.maskedPaths", ["/proc/version", "/data", "/not/there"]),
         extra="/bin/wc -c < /proc/version; /bin/ls /data"),
    case("read-only paths", ("linux.readonlyPaths", ["/data", "/proc/sys", "/not/there"]),
         ("root.readonly", False), extra=WRITE),
    case("nothing masked", ("linux.maskedPaths", None), ("linux.readonlyPaths", None)),
    case("masked by a link", ("linux.maskedPaths", ["/link/sub"]), extra="/bin/ls /tree/sub"),
    # Mounts
    case("tmpfs", mount("tmpfs", "nosuid", "nodev", "size=1m", "mode=1770"), extra=WRITE),
    case("tmpfs, read-only", mount("tmpfs", "ro"), extra=WRITE),
    case("tmpfs without options", mount("tmpfs"), extra=WRITE),
    case("tmpfs, noexec and noatime", mount("tmpfs", "noexec", "noatime", "nodiratime")),
    case("tmpfs with what was there", mount("tmpfs", "tmpcopyup", "nodev"), extra=LIST),
    case("tmpfs, shared", mount("tmpfs", "shared")),
    case("tmpfs, private and rro", mount("tmpfs", "private", "rro"), extra=WRITE),
    case("mount at a place that is not there", mount("tmpfs", at="/a/b/c"), ("root.readonly", False)),
    case("mount through a link", mount("tmpfs", at="/link/sub")),
    case("mount through a link that leads out", mount("tmpfs", at="/out/etc"), ("root.readonly", False)),
    case("bind", bind("rbind", "rw"), ("root.readonly", False), extra=LIST + ";" + WRITE),
    case("bind, read-only", bind("bind", "ro"), extra=LIST + ";" + WRITE),
    case("bind, all options", bind("rbind", "nosuid", "nodev", "noexec", "ro")),
    case("bind, nosymfollow", bind("rbind", "nosymfollow"),
         extra="/bin/cat /data/symlink 2>&1 | /bin/grep -c text; true"),
    case("bind of a file", bind("bind", source="@/source/file", at="/file"), extra="/bin/cat /file"),
    case("bind of a file to where nothing is", bind("bind", source="@/source/file", at="/d/f"),
         ("root.readonly", False),
         extra="/bin/cat /d/f"),
    case("bind by a relative path", bind("bind", source="source"), extra=LIST),
    case("bind by type alone", ("mounts+", {"destination": "/data", "type": "bind", "source": "@/source"}), extra=LIST),
    case("bind by option alone",
         ("mounts+", {"destination": "/data", "source": "@/source", "options": ["bind"]}), extra=LIST),
    case("bind, rprivate", bind("rbind", "rprivate")),
    case("bind, rslave", bind("rbind", "rslave")),
    case("bind, rshared", bind("rbind", "rshared")),
    case("bind, unbindable", bind("bind", "unbindable")),
    case("bind, rro", bind("rbind", "rro"), extra=WRITE),
    case("bind, rnoexec and rnosuid", bind("rbind", "rnoexec", "rnosuid")),
    case("bind of what is not there", bind("bind", source="@/nowhere")),
    case("two mounts, the later one counts", mount("tmpfs", "mode=700"), bind("bind"), extra=LIST),
    case("proc again", mount("proc", "ro", "nosuid", at="/data")),
    case("a file system that nobody knows", mount("nonsense")),
    case("an option that nobody knows", mount("tmpfs", "nonsense=1")),
    case("no /dev of its own", ("mounts-", "/dev"), ("root.readonly", False)),
    # Devices, kernel parameters, filters
    case("devices", ("linux.devices", [{"path": "/dev/null2", "type": "c", "major": 1, "minor": 3}])),
    case("a device of the host", ("linux.devices", [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}])),
    case("sysctl of the network", ("linux.sysctl", {"net.ipv4.ip_forward": "1"}),
         extra="/bin/cat /proc/sys/net/ipv4/ip_forward"),
    case("sysctl of ipc", ("linux.sysctl", {"kernel.shmmni": "100"}), extra="/bin/cat /proc/sys/kernel/shmmni"),
    case("seccomp", ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("sethostname", 13)]}),
         extra="/bin/hostname x 2>&1"),
    case("annotations", ("annotations", {"a.b": "c"})),
    case("unknown members", ("somethingElse", {"a": 1}), ("linux.somethingElse", 1)),
    # Hooks
    case("hooks", *((f"hooks.{kind}", [{"path": "/bin/sh", "args": ["sh", "-c", f"echo {kind} >> @/log"]}])
                    for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")),
         ("hooks.startContainer", [{"path": "/bin/sh", "args": ["sh", "-c", "true"]}])),
    case("hook that fails", ("hooks.createRuntime", [{"path": "/bin/false"}])),
    case("hook in the container that fails", ("hooks.startContainer", [{"path": "/bin/false"}])),
    case("hook that is not there", ("hooks.prestart", [{"path": "/not/there"}])),
    case("hook that takes too long",
         ("hooks.createRuntime", [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}])),
    case("hook after the start that fails", ("hooks.poststart", [{"path": "/bin/false"}])),
    case("hook after the end that fails", ("hooks.poststop", [{"path": "/bin/false"}])),
    # What is refused
    refused("ociVersion: is missing", ("ociVersion", None)),
    refused("ociVersion: version 7.0.0", ("ociVersion", "7.0.0")),
    refused("process.args: at least one argument is needed", ("process.args", [])),
    refused("process.cwd: 'data' is no absolute path", ("process.cwd", "data")),
    refused("process.user.uid: -1 is not between", ("process.user.uid", -1)),
    refused("process.terminal: a boolean is needed", ("process.terminal", "yes")),
    refused("process.rlimits[0].type: unknown resource limit 'RLIMIT_FLY'",
            ("process.rlimits", [limit("RLIMIT_FLY", 1, 1)])),
    refused("process.rlimits[1].type: RLIMIT_CORE is there twice",
            ("process.rlimits", [limit("RLIMIT_CORE", 0, 0), limit("RLIMIT_CORE", 0, 0)])),
    refused("process.oomScoreAdj: 5000 is not between", ("process.oomScoreAdj", 5000)),
    refused("root.path: is missing", ("root", {"readonly": True})),
    refused("root.path: not-here is no directory", ("root.path", "not-here")),
    refused("linux.namespaces[0].type: unknown value 'flying'", ("linux.namespaces", [{"type": "flying"}])),
    refused("linux.namespaces[5].type: pid is there twice", namespaces(*ALL, "pid")),
    refused("linux.namespaces: a mount namespace is needed", namespaces("pid", "ipc", "uts", "network")),
    refused("hostname: needs a uts namespace", namespaces("pid", "ipc", "network", "mount")),
    refused("linux.sysctl: kernel.panic belongs to no namespace", ("linux.sysctl", {"kernel.panic": "1"})),
    refused("linux.sysctl: net.ipv4.ip_forward needs a network namespace", namespaces("pid", "ipc", "uts", "mount"),
            ("mounts-", "/sys"), ("linux.sysctl", {"net.ipv4.ip_forward": "1"})),
    refused("linux.seccomp.defaultAction: unknown action", ("linux.seccomp", {"defaultAction": "SCMP_ACT_FLY"})),
    refused("linux.rootfsPropagation: unknown value 'sideways'", ("linux.rootfsPropagation", "sideways")),
    refused("linux.intelRdt: resctrl takes root", ("linux.intelRdt", {"closID": "x"})),
    refused("mounts[6].destination: is missing", ("mounts+", {"type": "tmpfs"})),
    refused("hooks.prestart[0].path: 'x' is no absolute path", ("hooks.prestart", [{"path": "x"}])),
    refused("linux.maskedPaths: a list is needed", ("linux.maskedPaths", "/proc")),
    refused("linux.resources.memory.limit: a whole number is needed",
            ("linux.resources", {"memory": {"limit": "much"}})),
    refused("linux.personality.domain: unknown value 'MULTICS'", ("linux.personality", {"domain": "MULTICS"})),
]  # fmt: skip

# What the peers do otherwise in single cases: ("status" or the parts that differ, why). Each must still be so.
_OLD = "crun 1.8 and runc 1.1 know runtime-spec 1.0.2, which has no such member"
_STRICT = "config.md says that it has to be an error"
_CRUN_SHARED = "crun makes what it has mounted private when it enters the root"
_MASK = "a directory is masked by a tmpfs whose options are the runtime's choice"
DIFFERENCES: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {
    ("user namespace, shifted", "crun"): (("dev",), "mqueue is of who made the namespace: of the user, by us"),
    ("user namespace, shifted", "runc"): (("dev",), "as above"),
    ("time namespace", "crun"): (("status",), "crun 1.8 knows it in another place, runtime-spec 1.1"),
    ("time namespace", "runc"): (("status",), _OLD),
    ("domainname", "runc"): (("extra",), _OLD),
    ("scheduler: batch and nice", "crun"): (("process",), _OLD),
    ("scheduler: batch and nice", "runc"): (("process",), _OLD),
    ("scheduler: idle", "crun"): (("process",), _OLD),
    ("scheduler: idle", "runc"): (("process",), _OLD),
    ("io priority", "crun"): (("process",), _OLD),
    ("io priority", "runc"): (("process",), _OLD),
    ("io priority, best effort", "crun"): (("process",), _OLD),
    ("io priority, best effort", "runc"): (("process",), _OLD),
    ("personality", "runc"): (("extra",), _OLD),
    ("rootfs shared", "runc"): (("mounts",), "runc 1.1 takes it for the parent of the root"),
    ("rootfs unbindable", "runc"): (("status",), "runc makes the root unbindable before it binds it"),
    ("masked", "crun"): (("mounts",), _MASK),
    ("masked", "runc"): (("mounts",), _MASK),
    ("masked by a link", "crun"): (("mounts",), _MASK),
    ("masked by a link", "runc"): (("mounts",), _MASK),
    ("tmpfs, shared", "crun"): (("mounts",), _CRUN_SHARED),
    ("bind, rshared", "crun"): (("mounts",), _CRUN_SHARED),
    ("bind, unbindable", "crun"): (("mounts",), _CRUN_SHARED),
    ("tmpfs, private and rro", "runc"): (("extra", "mounts"), "runc has rro for binds only"),
    ("bind, nosymfollow", "crun"): (("extra", "mounts"), "crun 1.8 passes it over"),
    ("bind by type alone", "crun"): (("status",), "we, and Docker, take the type for the option"),
    ("bind by type alone", "runc"): (("status",), "as above"),
    ("hook that fails", "crun"): (("status",), "crun exits with 255 there"),
    ("hook that is not there", "crun"): (("status",), "as above"),
    ("hook after the start that fails", "runc"): (("status",), "runtime.md 1.2 has it warned of"),
    **{(f"refused: {said}", peer): (("status",), why) for said, peer, why in (
        ("ociVersion: is missing", "runc", _STRICT),
        ("ociVersion: version 7.0.0", "runc", _STRICT),
        ("process.cwd: 'data' is no absolute path", "crun", _STRICT),
        ("process.terminal: a boolean is needed", "crun", _STRICT),
        ("process.rlimits[1].type: RLIMIT_CORE is there twice", "crun", _STRICT),
        ("process.rlimits[1].type: RLIMIT_CORE is there twice", "runc", _STRICT),
        ("linux.namespaces[5].type: pid is there twice", "crun", _STRICT),
        ("linux.namespaces: a mount namespace is needed", "crun", "crun then mounts in the caller's"),
        ("linux.rootfsPropagation: unknown value 'sideways'", "crun", _STRICT),
        ("linux.intelRdt: resctrl takes root", "crun", "it is passed over"),
        ("linux.intelRdt: resctrl takes root", "runc", "it is passed over without root"),
        ("linux.maskedPaths: a list is needed", "crun", _STRICT),
        ("linux.resources.memory.limit: a whole number is needed", "crun", _STRICT),
        ("linux.personality.domain: unknown value 'MULTICS'", "runc", _OLD),
    )},
}  # fmt: skip
