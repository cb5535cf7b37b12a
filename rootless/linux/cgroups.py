"""Control groups of version 2, cgroups(7): a tree of directories whose files are the controls.

A cgroup is named by its path on this machine. What is below a container's cgroup may be the container's own making: it
is walked by descriptors.
"""

import errno
import os
import time

from rootless.linux import files

CGROUP2_SUPER_MAGIC = 0x63677270  # <linux/magic.h>
_MOUNTED = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")  # alone, or beside version 1 as systemd does it
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SIGKILL = 9
_MAX_KILLS = 100


def tree() -> str:
    """Where the tree of version 2 is mounted; "" where it is not."""
    for path in _MOUNTED:
        try:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if files.filesystem_magic(fd) == CGROUP2_SUPER_MAGIC:
                return path
        finally:
            os.close(fd)
    return ""


def cgroup_of(pid: int | str = "self") -> str:
    """The cgroup of a process below the tree, "/user.slice/…"; "" where it has none. Raises OSError if it is gone."""
    with open(f"/proc/{pid}/cgroup", "rb") as file:
        for line in file:
            if line.startswith(b"0::"):
                return os.fsdecode(line[3:].rstrip(b"\n")).removesuffix(" (deleted)")
    return ""


def read(cgroup: str, name: str) -> str:
    """The content of a control file. Raises OSError."""
    with open(os.path.join(cgroup, name), "rb") as file:
        return file.read().decode("utf-8", "replace")


def find(cgroup: str, name: str) -> str:
    """The same; "" where there is no such file: its controller is not enabled, or the kernel is older."""
    try:
        return read(cgroup, name)
    except (FileNotFoundError, OSError) as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return ""
        raise


def write(cgroup: str, name: str, value: str) -> None:
    """Write a control file, by one write(2), as they want it. Raises OSError."""
    fd = os.open(os.path.join(cgroup, name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def controllers(cgroup: str) -> list[str]:
    """The controllers that *cgroup* can hand down; none where it is not there."""
    return find(cgroup, "cgroup.controllers").split()


def keyed(text: str) -> dict[str, int]:
    """The numbers of a flat-keyed file, such as memory.events: "oom_kill 1"."""
    pairs = (line.partition(" ") for line in text.splitlines())
    return {key: int(value) for key, _, value in pairs if value.isdigit()}


def join(cgroup: str, pid: int = 0) -> None:
    """Move a process, this one for 0, into *cgroup*. PermissionError where what both are below is not ours."""
    write(cgroup, "cgroup.procs", str(pid))


def members(cgroup: str) -> list[int]:
    """The processes in *cgroup* itself; 0 for those that no number here means."""
    return [int(pid) for pid in read(cgroup, "cgroup.procs").split()]


def is_populated(cgroup: str) -> bool:
    """Whether a process lives in *cgroup* or below it."""
    return bool(keyed(read(cgroup, "cgroup.events")).get("populated"))


def is_frozen(cgroup: str) -> bool:
    """Whether every process in *cgroup* stands still."""
    return bool(keyed(read(cgroup, "cgroup.events")).get("frozen"))


def kill(cgroup: str) -> None:
    """SIGKILL to every process in *cgroup* and below, those that are just being forked too. Absent is well."""
    try:
        write(cgroup, "cgroup.kill", "1")
    except FileNotFoundError:
        _kill_one_by_one(cgroup)  # before Linux 5.14, or it is gone


def _kill_one_by_one(cgroup: str) -> None:
    for _ in range(_MAX_KILLS):
        pids = [pid for directory in _all_below(cgroup) for pid in _members_or_none(directory) if pid > 0]
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, _SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.001)


def _members_or_none(cgroup: str) -> list[int]:
    try:
        return members(cgroup)
    except OSError:
        return []  # removed meanwhile, or one for threads only: the list of its parent has them


def _all_below(cgroup: str) -> list[str]:
    return [path for path, _, _ in os.walk(cgroup)]


def remove(cgroup: str) -> None:
    """Remove *cgroup* and those below it; absent is well. OSError EBUSY while a process lives, or dies, in one."""
    try:
        above_fd = os.open(os.path.dirname(cgroup), _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        _remove_at(above_fd, os.path.basename(cgroup))
    finally:
        os.close(above_fd)


def _remove_at(above_fd: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=above_fd)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=above_fd)
    except FileNotFoundError:
        return
    try:
        for entry in os.scandir(fd):
            if entry.is_dir(follow_symlinks=False):
                _remove_at(fd, entry.name)
    finally:
        os.close(fd)
    try:
        os.rmdir(name, dir_fd=above_fd)
    except FileNotFoundError:
        return


def end(cgroup: str, seconds: float = 2.0) -> None:
    """Kill what lives in *cgroup*, and remove it as soon as all of that is gone; OSError EBUSY if that takes longer."""
    deadline = time.monotonic() + seconds
    while os.path.isdir(cgroup):
        kill(cgroup)
        try:
            remove(cgroup)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.002)
