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

from rootless.errors import CommandNotExecutable, CommandNotFound, InvalidInput, RootlessError
from rootless.linux import mounts, namespaces, processes, terminals
from rootless.linux.inroot import make_directories, open_in_root, read_regular
from rootless.runtime import channel, credentials, isolation, rootfs, seccomp
from rootless.runtime.seccomp import Filter
from rootless.runtime.users import User, resolve
from rootless.spec.runtime import GROUPS, Config

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
) -> None:
    """Become the container's process. *stdio* are its descriptors; None where it gets a terminal. Never returns.

    GO comes from the parent; or, where there is a *gate_fd*, a listening socket, from whoever connects there, at any
    later time: the parent may be gone then, and does not take the container with it.
    """
    try:
        _run(config, bundle, stdio, to_parent, gate_fd, filtered)
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
) -> None:
    process = config["process"]
    single = is_single()
    isolation.no_more_imports()
    if process.get("init"):
        processes.set_command_line("init")  # it stays, and its command line has paths of the host
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    die_with_parent = gate_fd is None
    processes.prctl(processes.PR_SET_PDEATHSIG, 9 if die_with_parent else 0)
    os.setsid()
    os.umask(0o022)  # of what is made in the container; the program gets its own
    namespaces.new_session_keyring()
    _set_up_namespaces(config, to_parent)
    root_fd = rootfs.mount_root(config, bundle, lambda fd: channel.send(to_parent, channel.UNION, b"", (fd,)))
    rootfs.perform(rootfs.plan(config), root_fd, bundle)
    rootfs.write_sysctls(config.get("linux", {}).get("sysctl") or {}, root_fd)
    if stdio is None:
        stdio = open_terminal(process, root_fd, to_parent)
        rootfs.bind_console(stdio[0], root_fd)
    rootfs.perform(rootfs.plan_masks(config), root_fd, bundle)
    user = find_user(process, config.get("annotations") or {}, root_fd)
    if single:
        user = squash(user, to_parent)
    _make_working_directory(process.get("cwd") or "/", root_fd)
    if config["root"].get("readonly"):
        mounts.mount_setattr(root_fd, mounts.MS_RDONLY)
    credentials.set_oom_score(process)
    credentials.set_limits(process)
    rootfs.enter(root_fd)

    channel.send(to_parent, channel.READY)
    if gate_fd is not None:
        to_parent.close()
        to_parent = channel.accept(channel.adopt(gate_fd))
    kind, _, _ = channel.receive(to_parent)
    if kind != channel.GO:
        os._exit(125)
    execute(process, user, stdio, to_parent, filtered, die_with_parent=die_with_parent)


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
        if not namespace.get("path"):
            flags |= namespaces.NAMESPACES[namespace["type"]][0]
    return flags


def joined_namespaces(config: Config) -> list[tuple[str, int]]:
    """(path, flag) of the namespaces that exist already and are to be joined, in the order of the configuration."""
    return [
        (namespace["path"], namespaces.NAMESPACES[namespace["type"]][0])
        for namespace in config["linux"]["namespaces"]
        if namespace.get("path")
    ]


def find_user(process: Config, annotations: Config, root_fd: int) -> User:
    """The user of *process*: numbers as the specification has them, or a name for the container's own files."""
    user = process.get("user") or {}
    text = user.get("username")
    passwd = read_file(root_fd, "/etc/passwd")
    if text is None:
        known = resolve(str(user.get("uid", 0)), passwd, b"")
        return User(user.get("uid", 0), user.get("gid", 0), user.get("additionalGids") or [], known.home, known.name)
    extra = [g for g in (annotations.get(GROUPS) or "").split(",") if g]
    return resolve(text, passwd, read_file(root_fd, "/etc/group"), extra)


def is_single() -> bool:
    """Whether only one user id exists here. Asked while the host's /proc is at hand."""
    return sum(count for _, count in namespaces.mapped_ids("uid")) == 1


def squash(user: User, to_parent: channel.Socket) -> User:
    """What *user* can be where there is one id only: root, with a word about it if it should be another."""
    if user.uid or user.gid:
        text = f"user {user.uid}:{user.gid} does not exist here, where only your own id is mapped: it runs as root"
        channel.send(to_parent, channel.WARNING, text)
    return User(0, 0, [0], user.home, user.name)


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
    *,
    die_with_parent: bool,
) -> None:
    """Take on *user* and *stdio*, and execute the program. Never returns; RootlessError while nothing is closed yet."""
    arguments, environment = process["args"], build_environment(process.get("env") or (), user)
    if not arguments:
        raise InvalidInput("no command specified")
    for fd in set(stdio):
        try:
            os.fchown(fd, user.uid, -1)  # so that a user other than root can open /dev/stdout
        except OSError:
            pass  # /dev/null, or an id that is not mapped: found out below
    if process.get("terminal"):
        terminals.make_controlling(stdio[0])
    for number, fd in enumerate(_out_of_the_way(stdio)):
        os.dup2(fd, number, inheritable=True)
    os.umask((process.get("user") or {}).get("umask", 0o022))
    credentials.become(user, process, filtered=filtered is not None)
    # Changing ids has cleared the signal, prctl(2).
    processes.prctl(processes.PR_SET_PDEATHSIG, 9 if die_with_parent else 0)
    _change_directory(process.get("cwd") or "/")
    # Nothing but 0, 1 and 2 survives execve(2): the channel is close-on-exec, and its end tells the parent of success.
    if to_parent.fileno() != 3:
        os.dup2(to_parent.fileno(), 3, inheritable=False)
    processes.close_from(4)
    if process.get("init"):
        _stay_as_init(3, process, filtered)
    _default_signals()
    try:
        candidates = _candidates(arguments[0], environment)
        if filtered is not None:
            _hand_on(seccomp.install(filtered))
        _exec(arguments, candidates, environment)
    except RootlessError as error:
        channel.send_error(channel.adopt(3), error)
        os._exit(error.exit_status or 125)


def _hand_on(listener_fd: int) -> None:
    """Send the parent the filter's listener, if there is one. It is close-on-exec."""
    if listener_fd:
        to_parent = channel.adopt(3)
        channel.send(to_parent, channel.LISTENER, b"", (listener_fd,))
        to_parent.detach()


def _out_of_the_way(stdio: Stdio) -> list[int]:
    """Duplicates above 2, so that setting one of 0, 1, 2 does not close another."""
    return [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 4) for fd in stdio]


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
