"""Starting a helper of ours so that a container cannot write to the interpreter it runs in.

A helper that enters a container is reachable from it as /proc/PID/exe; an interpreter that the user owns (venv, pyenv)
could be overwritten through that (CVE-2019-5736). Where it is the user's, the helper runs from a read-only mount of the
interpreter, which exists only in a mount namespace of the helper's own: a write through it answers EROFS, and a remount
needs a capability in that namespace. Where it is not the user's, as with a distribution's Python, nobody in the user's
namespace can write to it anyway, and the helper is a plain fork, which saves the start of an interpreter.

Either way the helper has an empty environment, no descriptors but those named, `/` for a working directory, and is not
dumpable, so that nobody below looks into its memory.
"""

import fcntl
import gc
import os
import sys
from importlib import import_module

import rootless
from rootless.errors import HostUnsupported
from rootless.linux import mounts, namespaces, processes

_PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(rootless.__file__)))
INTERPRETER = os.path.realpath(sys.executable)


def command(module: str, *, third_party: bool = False) -> list[str]:
    """The argument list that runs `main()` of *module* isolated; *third_party* keeps our dependencies importable."""
    paths = [p for p in sys.path if p and p != _PACKAGES] if third_party else []
    code = f"import sys; sys.path += {[*paths, _PACKAGES]!r}; from {module} import main; main()"
    return [INTERPRETER, "-I", "-S", "-c", code]


def spawn(module: str, channel_fd: int, *, afresh: bool = False) -> int:
    """Run `main()` of *module* in a process and a session of its own, with *channel_fd* as descriptor 3; the pid.

    *afresh*: in an interpreter of its own in any case. 0, 1 and 2 are /dev/null. The caller must be root of the user's
    namespace, and single-threaded.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _place(channel_fd)
        os.chdir("/")
        users = is_users()
        if users:
            seal()
        if users or afresh:
            os.execve(INTERPRETER, command(module), {})
        os.environ.clear()
        # What the command was told may be secret. It is for `ps` to see as long as the command runs, and no longer.
        processes.set_command_line(f"rootless: {module}")
        gc.freeze()  # what the command has loaded is never garbage: the collector need not write to these pages
        gc.enable()
        import_module(module).main()
        os._exit(0)
    except BaseException as error:
        if not isinstance(error, SystemExit):
            sys.excepthook(*sys.exc_info())
    finally:
        os._exit(125)


def is_users() -> bool:
    """Whether the user, who is root here, could write to the interpreter's file."""
    return os.stat(INTERPRETER).st_uid == os.geteuid() or os.access(INTERPRETER, os.W_OK)


def seal() -> None:
    """Enter a mount namespace of one's own, in which the interpreter's file is mounted read-only over itself."""
    try:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        # Mounts that the machine gains later still arrive here; ours go nowhere.
        mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_SLAVE)
        mounts.mount(INTERPRETER, INTERPRETER, "", mounts.MS_BIND)
        mounts.remount_bind(INTERPRETER, mounts.MS_RDONLY)
    except OSError as error:
        raise HostUnsupported(f"cannot mount the interpreter read-only: {error}") from error


def _place(channel_fd: int) -> None:
    """Leave open nothing but /dev/null as 0, 1 and 2, and the channel as 3."""
    channel_fd = fcntl.fcntl(channel_fd, fcntl.F_DUPFD_CLOEXEC, 4)
    null_fd = fcntl.fcntl(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), fcntl.F_DUPFD_CLOEXEC, 4)
    for target in (0, 1, 2):
        os.dup2(null_fd, target)
    os.dup2(channel_fd, 3)
    processes.close_from(4)
