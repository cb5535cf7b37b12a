"""The user namespace of the user: one for all containers, in which the user is root.

Whoever needs it first makes it, and leaves a sleeping process that keeps it; the others join. Making it is a dialogue,
since only a process outside can run newuidmap(1):

    child   unshare, "here I am" ─▶                                ─▶ exec the sleeper
    parent                          newuidmap, newgidmap, "mapped"

If the sleeper dies, the namespace lives on in monitors, containers and slirp, and is found again through them: a second
one beside it could reach neither their networks nor their files. See user_namespaces(7), newuidmap(1), subuid(5).
"""

import _socket  # the C half of `socket`
import errno
import os
import pwd
from collections.abc import Iterator

from rootless.errors import HostUnsupported
from rootless.linux import files, namespaces, processes
from rootless.runtime import sealed

# What can be mapped, from the best down.
RANGE = "range"  # a range of ids, by newuidmap or as root
SINGLE = "single"  # the user's own id only

_SLEEPER = "import _signal\nwhile True: _signal.pause()"


def enter(run_dir: str) -> str:
    """Make this process root of the user's namespace; returns RANGE or SINGLE. It must be single-threaded.

    Raises HostUnsupported where the machine allows no user namespace.
    """
    fd = _find_recorded(run_dir)
    if fd is None:
        with files.lock_file(os.path.join(run_dir, "namespace.lock")):
            fd = _find_recorded(run_dir)
            if fd is None:
                pid = _find_survivor(run_dir) or _create()
                _record(run_dir, pid)
                fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not os.path.sameopenfile(fd, own_fd := os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)):
            namespaces.setns(fd, namespaces.CLONE_NEWUSER)
        os.close(own_fd)
    finally:
        os.close(fd)
    return rung()


def rung() -> str:
    """RANGE or SINGLE: what is mapped in the namespace that this process is in."""
    return RANGE if sum(count for _, count in namespaces.mapped_ids("uid")) > 1 else SINGLE


def _record(run_dir: str, pid: int) -> None:
    files.replace_file(os.path.join(run_dir, "namespace"), f"{pid} {processes.start_time(pid)}\n".encode())


def _find_recorded(run_dir: str) -> int | None:
    """An fd of the namespace that the record speaks of, if the process is still that one."""
    try:
        with open(os.path.join(run_dir, "namespace"), encoding="ascii") as file:
            pid, started = map(int, file.read().split())
    except (FileNotFoundError, ValueError):
        return None
    return _namespace_of(pid, started)


def _namespace_of(pid: int, started: int) -> int | None:
    if not started or processes.start_time(pid) != started:
        return None
    try:
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    # Opened first, compared then: had the pid been recycled before, it would show now.
    if processes.start_time(pid) != started or namespaces.owner_uid(fd) != os.geteuid():
        os.close(fd)
        return None
    return fd


def _find_survivor(run_dir: str) -> int | None:
    """A process that lives in the namespace: the init of a container that runs, or slirp."""
    for pid, started in (*_inits(run_dir), *_slirp(run_dir)):
        fd = _namespace_of(pid, started)
        if fd is not None:
            os.close(fd)
            return pid
    return None


def _inits(run_dir: str) -> Iterator[tuple[int, int]]:
    """(pid, start time) of the inits of containers, as their monitors noted them in their run directories."""
    containers = os.path.join(run_dir, "containers")
    for name in os.listdir(containers) if os.path.isdir(containers) else ():
        try:
            with open(os.path.join(containers, name, "init"), encoding="ascii") as file:
                pid, started = map(int, file.read().split()[:2])
        except (OSError, ValueError):
            continue
        yield pid, started


def _slirp(run_dir: str) -> Iterator[tuple[int, int]]:
    """The same of the process that runs the networks, which listens at `slirp` and outlives the last container."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    directory_fd = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory_fd}/slirp")  # a socket's name may have 107 bytes only
        credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    except OSError:
        return  # it is not there
    finally:
        sock.close()
        os.close(directory_fd)
    pid = int.from_bytes(credentials[:4], "little")
    yield pid, processes.start_time(pid)


def _create() -> int:
    """Make the namespace and its sleeper; returns the sleeper's pid."""
    ready_r, ready_w = os.pipe2(os.O_CLOEXEC)
    mapped_r, mapped_w = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _sleep_in_new_namespace(ready_w, mapped_r)
    os.close(ready_w)
    os.close(mapped_r)
    try:
        failed = os.read(ready_r, 16)
        if failed != b"0":
            raise _refused(int(failed or b"0"))
        _map_ids(pid)
        os.write(mapped_w, b"1")
    except BaseException:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(ready_r)
        os.close(mapped_w)
    return pid


def _sleep_in_new_namespace(ready_w: int, mapped_r: int) -> None:
    """The child's half of the dialogue. Never returns."""
    try:
        try:
            namespaces.unshare(namespaces.CLONE_NEWUSER)
        except OSError as error:
            os.write(ready_w, str(error.errno).encode())
            return
        os.write(ready_w, b"0")
        if os.read(mapped_r, 1) != b"1":
            return
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        processes.close_from(3)
        os.chdir("/")
        os.execve(sealed.INTERPRETER, [sealed.INTERPRETER, "-I", "-S", "-c", _SLEEPER], {})
    finally:
        os._exit(1)


def _map_ids(pid: int) -> None:
    """Write the id maps of *pid* by the best means there is."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        # Root of the machine, or of somebody's container: all ids that we have ourselves, as they are.
        namespaces.write_id_maps(pid, _own_map("uid"), _own_map("gid"))
        return
    user = _user_name(uid)
    uids, gids = subordinate_ids("/etc/subuid", user, uid), subordinate_ids("/etc/subgid", user, uid)
    helpers = _find_program("newuidmap"), _find_program("newgidmap")
    if uids and gids and all(helpers):
        for helper, own, ranges in zip(helpers, (uid, gid), (uids, gids), strict=True):
            _run_helper([helper, str(pid), "0", str(own), "1", *_consecutive(ranges)])
        return
    # gid_map may be written without privilege only after setgroups(2) was given up.
    namespaces.write_id_maps(pid, f"0 {uid} 1", f"0 {gid} 1", deny_setgroups=True)


def why_single() -> str:
    """What an administrator would have to do for a range of ids, where there is only one."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        inside, outside, _ = map(int, file.readline().split())
    user = _user_name(outside if os.getuid() == inside else os.getuid())
    if not _find_program("newuidmap") or not _find_program("newgidmap"):
        return "have root install newuidmap and newgidmap (package uidmap or shadow-utils)"
    return f"have root run: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"


def subordinate_ids(path: str, user: str, uid: int) -> list[tuple[int, int]]:
    """The (start, count) ranges that *path* (subuid(5)) gives to *user*, by name or by number."""
    ranges = []
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in (user, str(uid)) and fields[1].isdigit() and fields[2].isdigit():
            ranges.append((int(fields[1]), int(fields[2])))
    return [r for r in ranges if r[1] > 0]


def _consecutive(ranges: list[tuple[int, int]]) -> list[str]:
    """newuidmap's arguments that map *ranges* one after the other from id 1 on."""
    arguments, inside = [], 1
    for start, count in ranges:
        arguments += [str(inside), str(start), str(count)]
        inside += count
    return arguments


def _own_map(kind: str) -> str:
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in rows)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _find_program(name: str) -> str:
    """Where *name* is: PATH, then the directories where these helpers live when PATH is short. "" if nowhere."""
    for directory in (*os.get_exec_path(), "/usr/bin", "/usr/local/bin", "/bin"):
        path = os.path.join(directory, name)
        if os.path.isabs(path) and os.access(path, os.X_OK):
            return path
    return ""


def _run_helper(arguments: list[str]) -> None:
    """Run newuidmap or newgidmap; what it says on stderr becomes the error."""
    r, w = os.pipe2(os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, w, 1), (os.POSIX_SPAWN_DUP2, w, 2)]
    pid = os.posix_spawn(arguments[0], arguments, {}, file_actions=actions)
    os.close(w)
    with open(r, "rb") as output:
        said = output.read(4096).decode(errors="replace").strip()
    _, status = os.waitpid(pid, 0)
    if status:
        raise HostUnsupported(
            f"{os.path.basename(arguments[0])} failed: {said or os.waitstatus_to_exitcode(status)}",
            hint="check that the entries of your user in /etc/subuid and /etc/subgid overlap with no other user's, and"
            " that newuidmap and newgidmap are setuid root or have their file capabilities",
        )


def _refused(code: int) -> HostUnsupported:
    """Why unshare(CLONE_NEWUSER) failed with errno *code*, and what root would type."""
    for path, value, remedy in (
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (or an AppArmor profile for this Python)",
        ),
    ):
        try:
            with open(path, encoding="ascii") as file:
                if file.read().strip() == value:
                    return HostUnsupported(f"user namespaces are forbidden by {path}", hint=f"have root run: {remedy}")
        except FileNotFoundError:
            continue
    if code == errno.ENOSPC:
        return HostUnsupported(
            "the limit on user namespaces is reached", hint="have root raise user.max_user_namespaces"
        )
    return HostUnsupported(
        f"this machine allows no user namespace: {os.strerror(code) if code else 'the child died'}",
        hint="the kernel needs CONFIG_USER_NS, and a container or sandbox around us must not filter unshare(2)",
    )
