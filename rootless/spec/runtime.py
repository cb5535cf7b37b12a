"""The runtime configuration, config.json of a bundle: what Docker puts into it by default, and mount options.

A configuration is handled as the JSON object that the runtime-spec describes (config.md, config-linux.md), since it is
written for other programs to read. Two things are ours and marked as such: a mount whose destination is "/" (the root
file system itself; the spec wants it mounted beforehand), and process.user.username, which is resolved by the
container's own passwd and group files, with extra groups by name in the annotation GROUPS.
"""

from typing import Any, NamedTuple

Config = dict[str, Any]

VERSION = "1.2.0"

# Extra groups by name or number, comma-separated: resolved where the user is.
GROUPS = "org.rootless.groups"
# The user for whom passwd and group files get a line if they have none: "name:uid:gid:home".
ACCOUNT = "org.rootless.account"

# moby: oci/caps/defaults.go
DEFAULT_CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL"),
    "CAP_AUDIT_WRITE",
)

# The union of Docker's and Podman's lists (moby: oci/defaults.go; container-libs: common/pkg/config).
MASKED_PATHS = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux", "/sys/dev/block"),
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEFAULT_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")

# config-linux.md, "Default Filesystems", with the options that Docker gives them.
DEV_MOUNTS: tuple[Config, ...] = (
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/dev/mqueue",
        "type": "mqueue",
        "source": "mqueue",
        "options": ["nosuid", "noexec", "nodev"],
    },
)
PROC_MOUNT: Config = {
    "destination": "/proc",
    "type": "proc",
    "source": "proc",
    "options": ["nosuid", "noexec", "nodev"],
}
SYS_MOUNT: Config = {
    "destination": "/sys",
    "type": "sysfs",
    "source": "sysfs",
    "options": ["nosuid", "noexec", "nodev", "ro"],
}
CGROUP_MOUNT: Config = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
}


def shm_mount(size: int) -> Config:
    """/dev/shm of *size* bytes."""
    options = ["nosuid", "noexec", "nodev", "mode=1777", f"size={size}"]
    return {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": options}


# mount(8) and config.md: option -> (flag to set, flag to clear). Values as in <sys/mount.h>.
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _SYNC, _MANDLOCK, _DIRSYNC = 0x1, 0x2, 0x4, 0x8, 0x10, 0x40, 0x80
_NOSYMFOLLOW, _NOATIME, _NODIRATIME, _BIND, _REC = 0x100, 0x400, 0x800, 0x1000, 0x4000
_RELATIME, _STRICTATIME, _LAZYTIME = 0x200000, 0x1000000, 0x2000000
_REMOUNT, _SILENT, _POSIXACL, _IVERSION = 0x20, 0x8000, 0x10000, 0x800000
_FLAGS = {
    "defaults": (0, 0),
    "ro": (_RDONLY, 0),
    "rw": (0, _RDONLY),
    "nosuid": (_NOSUID, 0),
    "suid": (0, _NOSUID),
    "nodev": (_NODEV, 0),
    "dev": (0, _NODEV),
    "noexec": (_NOEXEC, 0),
    "exec": (0, _NOEXEC),
    "sync": (_SYNC, 0),
    "async": (0, _SYNC),
    "dirsync": (_DIRSYNC, 0),
    "mand": (_MANDLOCK, 0),
    "nomand": (0, _MANDLOCK),
    "atime": (0, _NOATIME),
    "noatime": (_NOATIME, 0),
    "diratime": (0, _NODIRATIME),
    "nodiratime": (_NODIRATIME, 0),
    "relatime": (_RELATIME, 0),
    "norelatime": (0, _RELATIME),
    "strictatime": (_STRICTATIME, 0),
    "nostrictatime": (0, _STRICTATIME),
    "lazytime": (_LAZYTIME, 0),
    "nolazytime": (0, _LAZYTIME),
    "symfollow": (0, _NOSYMFOLLOW),
    "nosymfollow": (_NOSYMFOLLOW, 0),
    "remount": (_REMOUNT, 0),
    "silent": (_SILENT, 0),
    "loud": (0, _SILENT),
    "acl": (_POSIXACL, 0),
    "noacl": (0, _POSIXACL),
    "iversion": (_IVERSION, 0),
    "noiversion": (0, _IVERSION),
    "bind": (_BIND, 0),
    "rbind": (_BIND | _REC, 0),
}
# The same for a mount and all below it (config.md: rro, rnosuid ...).
_RECURSIVE = {
    "rro": _RDONLY,
    "rnosuid": _NOSUID,
    "rnodev": _NODEV,
    "rnoexec": _NOEXEC,
    "rnoatime": _NOATIME,
    "rnosymfollow": _NOSYMFOLLOW,
    "rnodiratime": _NODIRATIME,
    "rrelatime": _RELATIME,
    "rstrictatime": _STRICTATIME,
}
# The same taken off; what the kernel has locked in a user namespace stays, which is an error.
_RECURSIVE_OFF = {
    "rrw": _RDONLY,
    "rsuid": _NOSUID,
    "rdev": _NODEV,
    "rexec": _NOEXEC,
    "rsymfollow": _NOSYMFOLLOW,
    "rdiratime": _NODIRATIME,
    "ratime": _NOATIME,
    "rnorelatime": 0,
    "rnostrictatime": 0,
}
_PROPAGATION = {
    "private": 0x40000,
    "slave": 0x80000,
    "shared": 0x100000,
    "unbindable": 0x20000,
}


def mount_option_names() -> list[str]:
    """The options that are known, beside those of file systems."""
    propagation = [prefix + name for name in _PROPAGATION for prefix in ("", "r")]
    return sorted([*_FLAGS, *_RECURSIVE, *_RECURSIVE_OFF, *propagation, "tmpcopyup"])


def escape_overlay(path: str) -> str:
    """A directory as overlayfs's options name it: a backslash takes their meaning off colon, comma and itself."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def split_overlay(text: str, separator: str) -> list[str]:
    """The parts of overlayfs's options (separated by commas) or directories (by colons), still escaped."""
    parts, start, position = [], 0, 0
    while position < len(text):
        if text[position] == separator:
            parts.append(text[start:position])
            start = position + 1
        position += 2 if text[position] == "\\" else 1
    return [*parts, text[start:]]


def unescape_overlay(text: str) -> str:
    """The path that escape_overlay made *text* of."""
    pieces = text.split("\\\\")
    return "\\".join(piece.replace("\\", "") for piece in pieces)


class MountOptions(NamedTuple):
    """Mount options taken apart."""

    flags: int  # MS_ flags of this mount, MS_BIND and MS_REC among them
    all_flags: int  # MS_ flags of this mount and of those below it
    propagation: int  # MS_PRIVATE ..., with MS_REC for the r forms; 0 where it is not said
    copy_up: bool  # fill an empty volume (ours), or a tmpfs, from what the image has at the destination
    data: str  # what the file system itself is told, comma-separated
    all_cleared: int = 0  # MS_ flags that this mount and those below it lose


def parse_mount_options(options: list[str]) -> MountOptions:
    """Sort the options of config.json's mounts into those of the kernel and those of the file system."""
    flags = all_flags = all_cleared = propagation = 0
    copy_up = False
    data = []
    for option in options:
        if option in _FLAGS:
            on, off = _FLAGS[option]
            flags = flags & ~off | on
        elif option in _RECURSIVE:
            all_flags |= _RECURSIVE[option]
        elif option in _RECURSIVE_OFF:
            all_cleared |= _RECURSIVE_OFF[option]
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        elif option[:1] == "r" and option[1:] in _PROPAGATION:
            propagation = _PROPAGATION[option[1:]] | _REC
        elif option in ("copyup", "tmpcopyup"):
            copy_up = True
        else:
            data.append(option)
    return MountOptions(flags, all_flags, propagation, copy_up, ",".join(data), all_cleared)
