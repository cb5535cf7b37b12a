"""The virtual machine is what its tests rest on: systemd, delegated control groups, namespaces. And one container."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.account import Installation

pytestmark = pytest.mark.vm

UID = os.getuid()
MANAGER = Path(f"/sys/fs/cgroup/user.slice/user-{UID}.slice/user@{UID}.service")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_user_is_an_ordinary_one() -> None:
    assert UID != 0


def test_control_groups_are_version_2_only() -> None:
    assert output("stat", "--file-system", "--format=%T", "/sys/fs/cgroup") == "cgroup2fs"


def test_controllers_are_delegated_to_the_user() -> None:
    assert {"cpu", "memory", "pids"} <= set((MANAGER / "cgroup.controllers").read_text().split())
    assert os.access(MANAGER / "cgroup.subtree_control", os.W_OK)


def test_the_session_is_a_login_with_a_runtime_directory() -> None:
    runtime = os.stat(os.environ["XDG_RUNTIME_DIR"])
    assert (runtime.st_uid, stat.S_IMODE(runtime.st_mode)) == (UID, 0o700)
    assert f"/user-{UID}.slice/session-" in Path("/proc/self/cgroup").read_text()


def test_systemd_of_the_user_enforces_a_limit() -> None:
    scope = ["systemd-run", "--user", "--scope", "--quiet", "--property=MemoryMax=64M", "--property=MemorySwapMax=0"]
    hungry = [sys.executable, "-c", "b'x' * (128 << 20)"]
    assert subprocess.run(hungry).returncode == 0
    assert subprocess.run([*scope, *hungry]).returncode == -signal.SIGKILL


def test_a_range_of_ids_can_be_mapped() -> None:
    mapped = output("unshare", "--user", "--map-root-user", "--map-auto", "cat", "/proc/self/uid_map").split()
    assert sum(int(length) for length in mapped[2::3]) > 65_000


def test_overlay_can_be_mounted_in_a_user_namespace() -> None:
    script = """
        mount -t tmpfs none /tmp && cd /tmp && mkdir lower upper work merged && echo below > lower/file
        mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr none merged
        echo above > merged/file && cat lower/file upper/file
    """
    assert output("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script) == "below\nabove"


@pytest.mark.parametrize("device", ["/dev/fuse", "/dev/net/tun"])
def test_a_device_can_be_opened(device: str) -> None:
    os.close(os.open(device, os.O_RDWR))


def test_a_container_runs(rootless: Installation) -> None:
    rootless.run("run", "--rm", "host", "true")
