"""The first process of a container, from its first instruction to execve(2).

It is forked off its monitor into new namespaces, and what it does until the program runs is done here, in an order that
each step needs: join or make namespaces, mount, say READY and wait for GO, drop privileges, execute. What fails is sent
up the channel and raised in the command. Every module it needs is imported at the start: once the host's tree is gone,
an import would take files of the container (SECURITY: nothing of a container is loaded on our side).
"""

import errno
import fcntl
import os
import signal
import stat

from rootless.errors import CommandNotExecutable, CommandNotFound, InvalidInput, RootlessError
from rootless.linux import mounts, namespaces, processes, terminals
from rootless.linux.inroot import make_directories, open_in_root, read_regular
from rootless.runtime import (
    account,
    channel,
    credentials,
    extras,
    isolation,
    process_attributes,
    root_mount,
    rootfs,
    seccomp,
)
from rootless.runtime.extras import Extras
from rootless.runtime.seccomp import Filter
from rootless.runtime.users import User, resolve
from rootless.spec.runtime import ACCOUNT, GROUPS, Config

_PASSWD_LIMIT = 10 << 20
_EVERY_SIGNAL = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


Stdio = tuple[int, int, int]


def run(
    config: Config,
    bundle: str,
    stdio: Stdio | None,
    to_parent: channel.Socket,
    gate_fd: int | None,
    filtered: Filter | None,
    extra: Extras = extras.NONE,
) -> None:
    """Become the container's process. *stdio* are its descriptors; None where it gets a terminal. Never returns.

    GO comes from the parent; or, where there is a *gate_fd*, a listening socket, from whoever connects there, at any
    later time: the parent may be gone then, and does not take the container with it.
    """
    try:
        _run(config, bundle, stdio, to_parent, gate_fd, filtered, extra)
    except BaseException as error:
        try:
            channel.send_error(to_parent, error)
        except OSError:
            pass  # whoever waits for us is gone
    finally:
        os._exit(125)


def _run(
    config: Config,
    bundle: str,
    stdio: Stdio | None,
    to_parent: channel.Socket,
    gate_fd: int | None,
    filtered: Filter | None,
    extra: Extras,
) -> None:
    process = config["process"]
    single = only_ids()
    isolation.no_more_imports()
    if process.get("init"):
        processes.set_command_line("init")  # it stays, and its command line has paths of the host
    extras.enter_time_namespace(config)
    labels = process_attributes.open_labels(process)
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    die_with_parent = gate_fd is None
    processes.prctl(processes.PR_SET_PDEATHSIG, 9 if die_with_parent else 0)
    os.setsid()
    os.umask(0o022)  # of what is made in the container; the program gets its own
    if extra.keyring:
        namespaces.new_session_keyring()
    _set_up_namespaces(config, to_parent)
    root_fd = root_mount.mount_root(config, bundle, lambda fd: channel.send(to_parent, channel.UNION, b"", (fd,)))
    operations = rootfs.plan(config)
    if is_nested(config):
        operations = rootfs.hold_sources(operations, bundle)
        credentials.become_root()
        processes.prctl(processes.PR_SET_PDEATHSIG, 9 if die_with_parent else 0)
    rootfs.perform(operations, root_fd, bundle)
    rootfs.write_sysctls(config.get("linux", {}).get("sysctl") or {}, root_fd)
    if stdio is None:
        stdio = open_terminal(process, root_fd, to_parent)
        rootfs.bind_console(stdio[0], root_fd)
    rootfs.perform(rootfs.plan_masks(config), root_fd, bundle)
    account.add((config.get("annotations") or {}).get(ACCOUNT), root_fd)
    user = find_user(process, config.get("annotations") or {}, root_fd)
    if single:
        user = squash(user, single, to_parent)
    _make_working_directory(process.get("cwd") or "/", root_fd)
    if config["root"].get("readonly"):
        mounts.mount_setattr(root_fd, mounts.MS_RDONLY)
    credentials.set_oom_score(process)
    credentials.set_limits(process)
    if "hooks" in config:
        extras.run_create_hooks(config, extra, to_parent)
    root_mount.enter(root_fd)
    extras.set_root_propagation(config)

    if gate_fd is not None:
        _check_program(process, user)
    channel.send(to_parent, channel.READY)
    if gate_fd is not None:
        to_parent.close()
        to_parent = channel.accept(channel.adopt(gate_fd))
    if channel.receive(to_parent)[0] != channel.GO:
        os._exit(125)
    try:
        if "hooks" in config:
            extras.run_start_hooks(config, extra)
        process_attributes.apply(process, config["linux"].get("personality"))
        process_attributes.set_labels(labels)
    except (RootlessError, OSError) as error:  # said to who let us go: *to_parent* of the caller may be closed
        channel.send_error(to_parent, error)
        os._exit(125)
    execute(process, user, stdio, to_parent, filtered, extra.preserved, die_with_parent=die_with_parent)


def _set_up_namespaces(config: Config, to_parent: channel.Socket) -> None:
    """Give the new namespaces what the configuration says of them."""
    if hostname := config.get("hostname"):
        namespaces.sethostname(hostname)
    if domainname := config.get("domainname"):
        namespaces.setdomainname(domainname)
    kinds = {n["type"] for n in config["linux"]["namespaces"] if not n.get("path")}
    if "network" in kinds:
        namespaces.bring_up_loopback()
        # Sent, since the parent may not open it: a process that is not dumpable hides its namespaces, proc(5).
        netns_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        channel.send(to_parent, channel.NETWORK, b"", (netns_fd,))
        os.close(netns_fd)


def clone_flags(config: Config) -> int:
    """The namespaces to make with the process: those of the configuration that have no path."""
    flags = 0
    for namespace in config["linux"]["namespaces"]:
        if not namespace.get("path") and namespace["type"] != "time":  # which clone(2) does not make
            flags |= namespaces.NAMESPACES[namespace["type"]][0]
    return flags


def joined_namespaces(config: Config) -> list[tuple[str, int]]:
    """(path, flag) of the namespaces that exist already and are to be joined; the one that gives the right to first."""
    found = [n for n in config["linux"]["namespaces"] if n.get("path")]
    found.sort(key=lambda n: bool(n["type"] != "user"))
    return [(n["path"], namespaces.NAMESPACES[n["type"]][0]) for n in found]


def find_user(process: Config, annotations: Config, root_fd: int) -> User:
    """The user of *process*: numbers as the specification has them, or a name for the container's own files."""
    user = process.get("user") or {}
    text = user.get("username")
    passwd = read_file(root_fd, "/etc/passwd")
    if text is None:
        known = resolve(str(user.get("uid", 0)), passwd, b"")
        home = known.home if known.name else "/"
        return User(user.get("uid", 0), user.get("gid", 0), user.get("additionalGids") or [], home, known.name)
    extra = [g for g in (annotations.get(GROUPS) or "").split(",") if g]
    return resolve(text, passwd, read_file(root_fd, "/etc/group"), extra)


def is_nested(config: Config) -> bool:
    """Whether the container has a user namespace other than ours, whose root is another than the user."""
    return any(n["type"] == "user" for n in config["linux"]["namespaces"])


def only_ids() -> tuple[int, int] | None:
    """The user and group that exist here, if only one user does. Asked while the host's /proc is at hand."""
    uids = namespaces.mapped_ids("uid")
    return (uids[0][0], namespaces.mapped_ids("gid")[0][0]) if sum(count for _, count in uids) == 1 else None


def squash(user: User, only: tuple[int, int], to_parent: channel.Socket) -> User:
    """What *user* can be where there are the ids *only*: these, with a word about it if it should be another."""
    uid, gid = only
    if (user.uid, user.gid) != only:
        name = "root" if uid == 0 else f"{uid}:{gid}"
        text = f"user {user.uid}:{user.gid} does not exist here, where only your own id is mapped: it runs as {name}"
        channel.send(to_parent, channel.WARNING, text)
    return User(uid, gid, [gid], user.home, user.name)


def read_file(root_fd: int, path: str) -> bytes:
    """A small text file of the container; empty where there is none. Raises InvalidInput for anything else there."""
    try:
        return read_regular(root_fd, path, _PASSWD_LIMIT) or b""
    except OSError as error:
        raise InvalidInput(f"{path} of the container cannot be used: {error.strerror}") from error


def open_terminal(process: Config, root_fd: int, to_parent: channel.Socket) -> Stdio:
    """A pair in the container's own devpts: the master goes to the parent, the slave is returned as stdio."""
    ptmx_fd = open_in_root(root_fd, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW)
    _, master_fd, slave_fd = terminals.open_pair(ptmx_fd)
    size = process.get("consoleSize") or {}
    if size.get("height") and size.get("width"):
        terminals.set_window_size(master_fd, size["height"], size["width"])
    channel.send(to_parent, channel.TERMINAL, b"", (master_fd,))
    os.close(master_fd)
    return slave_fd, slave_fd, slave_fd


def execute(
    process: Config,
    user: User,
    stdio: Stdio,
    to_parent: channel.Socket,
    filtered: Filter | None,
    preserved: tuple[int, ...] = (),
    *,
    die_with_parent: bool,
) -> None:
    """Take on *user*, *stdio* and *preserved* after it, and execute the program.

    Never returns: what fails is sent up *to_parent*.
    """
    # Nothing behind the preserved survives execve(2) but the channel, up to its success: its end tells the parent.
    channel_fd = 3 + len(preserved)
    answer_fd = fcntl.fcntl(to_parent.detach(), fcntl.F_DUPFD_CLOEXEC, channel_fd)
    try:
        environment = build_environment(process.get("env") or (), user)
        _take_on(process, user, (*stdio, *preserved), filtered)
        # Changing ids has cleared the signal, prctl(2).
        processes.prctl(processes.PR_SET_PDEATHSIG, 9 if die_with_parent else 0)
        _change_directory(process.get("cwd") or "/")
        if answer_fd != channel_fd:
            os.dup2(answer_fd, channel_fd, inheritable=False)
        answer_fd = channel_fd
        processes.close_from(channel_fd + 1)
        if process.get("init"):
            _stay_as_init(channel_fd, process, filtered)
        _default_signals()
        candidates = _candidates(process["args"][0], environment)
        if filtered is not None:
            _hand_on(seccomp.install(filtered), channel_fd)
        _exec(process["args"], candidates, environment)
    except BaseException as error:
        channel.send_error(channel.adopt(answer_fd), error)
        os._exit(getattr(error, "exit_status", None) or 125)


def _take_on(process: Config, user: User, fds: tuple[int, ...], filtered: Filter | None) -> None:
    """Have *fds* as descriptors from 0 on, and become *user*."""
    if not process["args"]:
        raise InvalidInput("no command specified")
    for fd in set(fds[:3]):
        try:
            os.fchown(fd, user.uid, -1)  # so that a user other than root can open /dev/stdout
        except OSError:
            pass  # /dev/null, or an id that is not mapped: found out below
    if process.get("terminal"):
        terminals.make_controlling(fds[0])
    # First above all numbers that are to be set, so that to set one does not close another.
    for number, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(fds) + 1) for fd in fds]):
        os.dup2(fd, number, inheritable=True)
    os.umask((process.get("user") or {}).get("umask", 0o022))
    credentials.become(user, process, filtered=filtered is not None)


def _hand_on(listener_fd: int, channel_fd: int) -> None:
    """Send the parent the filter's listener, if there is one. It is close-on-exec."""
    if listener_fd:
        to_parent = channel.adopt(channel_fd)
        channel.send(to_parent, channel.LISTENER, b"", (listener_fd,))
        to_parent.detach()


def _default_signals() -> None:
    """An ignored signal stays ignored across execve(2): what Python, the monitor or the caller ignores ends here."""
    processes.default_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def build_environment(entries: list[str] | tuple[str, ...], user: User) -> dict[bytes, bytes]:
    """The program's environment: "NAME=value" entries, the last of a name counts; HOME from the passwd file."""
    environment: dict[bytes, bytes] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if equals and name and "\0" not in entry:
            environment[os.fsencode(name)] = os.fsencode(value)
    if not environment.get(b"HOME"):
        environment[b"HOME"] = os.fsencode(user.home)
    return environment


def _stay_as_init(channel_fd: int, process: Config, filtered: Filter | None) -> None:
    """--init: fork, and return in the child only; stay behind as pid 1, which passes signals on and reaps orphans.

    It is this interpreter, sealed and with nothing of the host in its memory's reach; it ends as the child ends. The
    child tells of a failing execve(2) through the channel, which pid 1 closes.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _EVERY_SIGNAL)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if os.isatty(0):
            os.tcsetpgrp(0, os.getpid())  # SIGTTOU is blocked
        return
    os.close(channel_fd)
    for fd in (0, 1, 2):
        os.close(fd)
    credentials.stay(process)
    if filtered is not None:
        seccomp.install(filtered)
    while True:
        number = signal.sigwait(_EVERY_SIGNAL)
        if number != signal.SIGCHLD:
            try:
                os.kill(child, number)
            except ProcessLookupError:
                continue
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(1)
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
            if pid == 0:
                break


def _make_working_directory(path: str, root_fd: int) -> None:
    """Have the directory that the program is to start in, whatever links of the image are on the way to it."""
    try:
        os.close(make_directories(root_fd, path))
    except OSError as error:
        raise CommandNotExecutable(f"cannot make working directory {path!r}: {error.strerror}") from error


def _change_directory(path: str) -> None:
    """chdir(2), and see that we are where a path from the root leads: not outside, by a leaked descriptor (X03)."""
    try:
        os.chdir(path)
        where = os.getcwd()
    except OSError as error:
        raise CommandNotExecutable(f"cannot change to working directory {path!r}: {error.strerror}") from error
    if not where.startswith("/"):
        raise CommandNotExecutable(f"working directory {path!r} is outside the container")


def _candidates(name: str, environment: dict[bytes, bytes]) -> list[bytes]:
    """The paths that *name* may mean: itself, or what is called so in the directories of the container's PATH."""
    if "/" in name:
        return [os.fsencode(name)]
    path = environment.get(b"PATH", b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    directories = [directory for directory in path.split(b":") if directory] if name else []
    return [found for d in directories if _exists(found := d.rstrip(b"/") + b"/" + os.fsencode(name))]


def _check_program(process: Config, user: User) -> None:
    """Raise what execve(2) would, as far as that can be seen: who only creates a container hears of it then."""
    name = process["args"][0]
    candidates = _candidates(name, build_environment(process.get("env") or (), user))
    modes = []
    for candidate in candidates:
        try:
            modes.append(os.stat(candidate).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return  # the program's own user may see more
    if not modes:
        where = "no such file or directory" if "/" in name else "executable file not found in $PATH"
        raise CommandNotFound(f"exec: {name!r}: {where}")
    if not any(stat.S_ISREG(mode) and mode & 0o111 for mode in modes):
        raise CommandNotExecutable(f"exec: {name!r}: permission denied")


def _exec(arguments: list[str], candidates: list[bytes], environment: dict[bytes, bytes]) -> None:
    """execve(2) of the first of *candidates* that can be executed. Raises with Docker's 126 and 127.

    A filter may hold already, under which next to nothing but execve(2) works.
    """
    name, argv = arguments[0], [os.fsencode(a) for a in arguments]
    denied: OSError | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, argv, environment)
        except OSError as error:
            denied = denied or error
    if denied is None or denied.errno in (errno.ENOENT, errno.ENOTDIR):
        where = "no such file or directory" if denied or "/" in name else "executable file not found in $PATH"
        raise CommandNotFound(f"exec: {name!r}: {where}")
    if denied.errno in (errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.EPERM, errno.ETXTBSY):
        raise CommandNotExecutable(f"exec: {name!r}: {(denied.strerror or '').lower()}")
    raise RootlessError(f"exec: {name!r}: {denied.strerror}")


def _exists(path: bytes) -> bool:
    try:
        os.lstat(path)
    except OSError:
        return False
    return True
