"""What rootless-oci prints that is not a container's: an example, its own features, a table of ps."""

import os
import subprocess
from typing import Any

from rootless import __version__
from rootless.errors import RootlessError
from rootless.linux import capabilities
from rootless.spec import runtime, runtime_check, seccomp


def example(*, rootless: bool = False) -> runtime.Config:
    """A configuration that runs sh in ./rootfs; *rootless*: in a user namespace with the caller's id as root."""
    names = list(runtime.DEFAULT_CAPABILITIES)
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup", *(["user"] if rootless else [])]
    config: runtime.Config = {
        "ociVersion": runtime.VERSION,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names),
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "rootless",
        "mounts": [
            runtime.PROC_MOUNT,
            *runtime.DEV_MOUNTS,
            runtime.shm_mount(64 << 20),
            runtime.SYS_MOUNT,
            runtime.CGROUP_MOUNT,
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "maskedPaths": list(runtime.MASKED_PATHS),
            "readonlyPaths": list(runtime.READONLY_PATHS),
        },
    }
    if rootless:
        config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    return config


def features() -> dict[str, Any]:
    """The document of features.md and features-linux.md."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": runtime.VERSION,
        "hooks": list(runtime_check.HOOKS),
        "mountOptions": runtime.mount_option_names(),
        "linux": {
            "namespaces": list(runtime_check.NAMESPACE_TYPES),
            "capabilities": list(capabilities.NAMES[: capabilities.last() + 1]),
            "cgroup": {"v1": False, "v2": True, "systemd": False, "systemdUser": True, "rdma": False},
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(seccomp.OPERATORS),
                "archs": sorted(seccomp.ARCHITECTURES),
                "knownFlags": [*seccomp.FLAGS, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                "supportedFlags": [*seccomp.FLAGS, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
        },
        "annotations": {"org.rootless.version": __version__},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def process_table(pids: list[int], arguments: list[str]) -> str:
    """What ps(1) prints with *arguments* of these processes."""
    try:
        done = subprocess.run(["ps", *arguments], check=False, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise RootlessError("ps is not installed here: -f json does without") from None
    if done.returncode:
        raise RootlessError(f"ps: {done.stderr.strip()}")
    head, *lines = done.stdout.splitlines()
    if "PID" not in head.split():
        raise RootlessError("ps prints no PID with these options")
    column = head.split().index("PID")
    wanted = {str(pid) for pid in pids}
    kept = [line for line in lines if line.split()[column : column + 1] and line.split()[column] in wanted]
    return "".join(f"{line}\n" for line in (head, *kept))
