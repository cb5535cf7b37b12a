"""A user namespace of the container's own below that of the user, whose root can write any map for it.

    launcher   fork ─▶ pioneer: another user, unshare                        setns ─▶ clone: the container's init
                                          ◀─ "here I am"     maps, open ─▶
               the pioneer ends

Files of /proc/PID can be written by their owner only while the process is dumpable, proc_pid(5), which no process of
ours may be that sees the machine's files as the user: a container with the machine's pid namespace could trace it. So
the one that makes the namespace is somebody who owns nothing, and the launcher joins it afterwards: it has every
capability in there, and is still the user, who can open what is to be mounted.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence

from rootless.errors import HostUnsupported
from rootless.linux import namespaces, processes
from rootless.runtime import credentials
from rootless.spec.runtime import Config


def enter(linux: Config, stdio: Sequence[int]) -> None:
    """Join a user namespace with the maps of *linux*; pipes of *stdio* become its root's.

    Raises HostUnsupported where there can be none.
    """
    maps = [linux.get(name) or [] for name in ("uidMappings", "gidMappings")]
    for row in maps[0]:
        if row["containerID"] == 0:
            give_pipes(stdio, row["hostID"])
    ready_r, ready_w = os.pipe2(os.O_CLOEXEC)
    done_r, done_w = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(ready_r)
        os.close(done_w)
        _make(ready_w, done_r)
    os.close(ready_w)
    os.close(done_r)
    try:
        failed = os.read(ready_r, 16)
        if failed != b"0":
            raise _refused(int(failed or b"0"))
        namespace_fd = _mapped(pid, maps)
        namespaces.setns(namespace_fd, namespaces.CLONE_NEWUSER)
        os.close(namespace_fd)
    finally:
        os.close(ready_r)
        os.close(done_w)  # it goes
        os.waitpid(pid, 0)


def _make(ready_w: int, done_r: int) -> None:
    """The pioneer. Never returns."""
    try:
        nobody = max(first + count - 1 for first, count in namespaces.mapped_ids("uid"))
        if nobody:
            group = max(first + count - 1 for first, count in namespaces.mapped_ids("gid"))
            os.setresgid(group, group, group)
            os.setresuid(nobody, nobody, nobody)
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        processes.prctl(processes.PR_SET_DUMPABLE, 1)
        os.write(ready_w, b"0")
        os.read(done_r, 1)
    except OSError as error:
        os.write(ready_w, str(error.errno).encode())
    finally:
        os._exit(0)


def _mapped(pid: int, maps: list[list[Config]]) -> int:
    """Write the maps of the namespace of *pid*; a descriptor of it."""
    uid_map, gid_map = (
        "".join(f"{row['containerID']} {row['hostID']} {row['size']}\n" for row in rows) for rows in maps
    )
    try:
        namespaces.write_id_maps(pid, uid_map, gid_map)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostUnsupported(f"the ids of the container cannot be mapped: {error.strerror}") from error


def join(pid: int) -> bool:
    """Enter the user namespace of *pid*, if it is another than ours; whether it was.

    The kernel lets nobody outside of it look into what was mounted on FUSE in there, fuse(4).
    """
    if namespaces.same_namespace("user", pid):
        return False
    namespace_fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(namespace_fd, namespaces.CLONE_NEWUSER)
    finally:
        os.close(namespace_fd)
    return True


def within(pid: int, work: Callable[[], object]) -> None:
    """Do *work* in a child, as root of the user namespace of *pid*. Raises the OSError that it raises."""
    child = os.fork()
    if child == 0:
        status = 255
        try:
            processes.prctl(processes.PR_SET_DUMPABLE, 0)
            join(pid)
            credentials.become_root()
            work()
            status = 0
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(min(status, 255))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        code = status if 0 < status < 255 else errno.EIO
        raise OSError(code, os.strerror(code))


def _refused(code: int) -> HostUnsupported:
    return HostUnsupported(
        f"no user namespace can be made for the container: {os.strerror(code) if code else 'the child died'}",
        hint="have root raise user.max_user_namespaces, or do without --userns",
    )


def root_of(pid: int) -> int:
    """Who, seen from here, is root in the user namespace of *pid*; 0 where nobody is."""
    with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
        rows = [tuple(map(int, line.split())) for line in file]
    return next((outside for inside, outside, _ in rows if inside == 0), 0)


def give_pipes(fds: Sequence[int], uid: int) -> None:
    """Make *uid* the owner of those that are pipes: who opens /dev/stdout has to be."""
    for fd in fds:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            try:
                os.fchown(fd, uid, -1)
            except PermissionError:
                pass  # somebody else's, who gave it to us
