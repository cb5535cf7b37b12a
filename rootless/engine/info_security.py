"""info --security: what protects the machine and the account here, and what would protect them better.

Read from /proc and /sys, where anybody may look, and from what info has tried out. Each finding says whether it is as
it should be, and if not, what the administrator (or the user) would type. What a kernel does not have is not a finding.
"""

import os
from typing import Any, NamedTuple

from rootless.engine.context import Engine
from rootless.engine.info import NO_NAMESPACE, find_cgroups, probe
from rootless.linux import landlock
from rootless.runtime import sealed, user_namespace

_LANDLOCK = 2  # what fuse/landlock.py needs at least


class Finding(NamedTuple):
    """One line of it."""

    name: str
    value: str
    holds: bool
    remedy: str = ""


class Setting(NamedTuple):
    """A setting of the kernel, which is as it should be from *least* to *most*."""

    path: str  # below /proc/sys
    meaning: str
    least: int
    most: int = 2**31


# sysctl/kernel.rst, sysctl/user.rst, sysctl/fs.rst, LSM/Yama.rst of the kernel's documentation
SETTINGS = (
    Setting("kernel/unprivileged_userns_clone", "users may make user namespaces", 1),
    Setting("user/max_user_namespaces", "how many there may be", 1),
    Setting("kernel/apparmor_restrict_unprivileged_userns", "AppArmor denies powers in user namespaces", 0, 0),
    Setting("kernel/yama/ptrace_scope", "processes trace their children only", 1),
    Setting("kernel/unprivileged_bpf_disabled", "users load no BPF programs", 1),
    Setting("kernel/perf_event_paranoid", "users do not measure the kernel", 2),
    Setting("kernel/kptr_restrict", "addresses of the kernel are hidden", 1),
    Setting("kernel/dmesg_restrict", "the kernel's log is root's", 1),
    Setting("dev/tty/legacy_tiocsti", "nobody types into others' terminals", 0, 0),
    Setting("fs/protected_symlinks", "links in /tmp are followed for their owners", 1),
    Setting("fs/protected_hardlinks", "nobody links what he may not write", 1),
    Setting("fs/suid_dumpable", "setuid programs leave no memory on disk", 0, 0),
)


def findings(engine: Engine) -> list[Finding]:
    """What holds on this machine, the user's own things first."""
    found = probe(engine)
    ids = f"{found.rung}, {found.ids} ids" if found.rung != NO_NAMESPACE else f"none: {found.reason}"
    cgroups = find_cgroups()
    return [
        Finding("User namespace", ids, found.rung == user_namespace.RANGE, found.remedy),
        Finding("System call filter", *_seccomp()),
        Finding("Landlock", *_landlock(landlock.version())),
        Finding("Interpreter", *_interpreter()),
        Finding("Store", *_store(engine.layout.root)),
        Finding("Process limit", *_processes("pids" in cgroups.delegated)),
        Finding("AppArmor", *_module("/sys/kernel/security/apparmor", "--security-opt apparmor=PROFILE")),
        Finding("SELinux", *_module("/sys/fs/selinux/enforce", "--security-opt label=type:TYPE")),
        *(finding for setting in SETTINGS if (finding := judge(setting, _read(f"/proc/sys/{setting.path}")))),
    ]


def document(found: list[Finding]) -> dict[str, Any]:
    """The findings for --format."""
    return {"Security": [{"Name": f.name, "Value": f.value, "Holds": f.holds, "Remedy": f.remedy} for f in found]}


def judge(setting: Setting, value: str) -> Finding | None:
    """What *value*, the content of the setting's file, means; None where the kernel does not have it."""
    if not value.lstrip("-").isdigit():
        return None
    name = setting.path.replace("/", ".")
    holds = setting.least <= int(value) <= setting.most
    remedy = "" if holds else f"have root run: sysctl -w {name}={setting.least}"
    return Finding(name, f"{value} ({setting.meaning}{'' if holds else ': not so'})", holds, remedy)


def _seccomp() -> tuple[str, bool, str]:
    if "kill_process" in _read("/proc/sys/kernel/seccomp/actions_avail").split():
        return "profile builtin, for containers; helpers have filters of their own", True, ""
    return "none", False, "the kernel needs CONFIG_SECCOMP_FILTER, Linux 4.14"


def _landlock(version: int) -> tuple[str, bool, str]:
    if version >= _LANDLOCK:
        return f"version {version}: the servers of roots on FUSE change nothing but their upper layer", True, ""
    return "none", False, "Linux 5.19, and `landlock` among the modules of the kernel's option lsm="


def _interpreter() -> tuple[str, bool, str]:
    if sealed.is_users():
        return f"{sealed.INTERPRETER}: yours, helpers reach it read-only", True, ""
    return f"{sealed.INTERPRETER}: not yours to change", True, ""


def _store(root: str) -> tuple[str, bool, str]:
    try:
        mode = os.stat(root).st_mode & 0o777
    except FileNotFoundError:
        return "not there yet", True, ""
    return f"{root}: mode {mode:04o}", mode & 0o077 == 0, "" if mode & 0o077 == 0 else f"chmod 0700 {root}"


def _processes(limited: bool) -> tuple[str, bool, str]:
    if limited:
        return "control groups with pids are delegated", True, ""
    return "none: a fork bomb in a container is one of yours", False, "see `rootless info`, or use --ulimit nproc="


def _module(path: str, option: str) -> tuple[str, bool, str]:
    return (f"on: {option}" if os.path.exists(path) else "not active here", True, "")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(4096).strip()
    except OSError:
        return ""
