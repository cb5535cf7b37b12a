"""Starting a helper of ours in a fresh interpreter that a container cannot write to.

A helper that enters a container is reachable from it as /proc/PID/exe; an interpreter that the user owns (venv, pyenv)
could be overwritten through that (CVE-2019-5736). So the helper runs from a read-only mount of the interpreter, which
exists only in a mount namespace of the helper's own: a write through it answers EROFS, and a remount needs a capability
in that namespace. The helper gets an empty environment, no descriptors but those named, and imports nothing from the
current directory (-I) or through .pth files (-S).
"""

import fcntl
import os
import sys

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


def spawn(module: str, arguments: list[str], fds: dict[int, int], *, new_session: bool = False) -> int:
    """Run `main()` of *module* with sys.argv[1:] = *arguments*; returns the pid.

    *fds* says which descriptor of ours (value) the helper gets as which (key); of 0, 1 and 2 those not named are
    /dev/null. The caller must be root of the user's namespace, and single-threaded.
    """
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    wanted = {0: null, 1: null, 2: null} | fds
    pid = os.fork()
    if pid:
        os.close(null)
        return pid
    try:
        if new_session:
            os.setsid()
        _place(wanted)
        seal()
        processes.close_from(max(wanted) + 1)
        os.chdir("/")
        os.execve(INTERPRETER, [*command(module), *arguments], {})
    except BaseException as error:
        os.write(2, f"rootless: cannot start {module}: {error}\n".encode())
    finally:
        os._exit(125)


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


def _place(wanted: dict[int, int]) -> None:
    """dup2 each descriptor to its number, without one overwriting another that is still needed."""
    above = max(*wanted, *wanted.values()) + 1
    moved = {target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above) for target, source in wanted.items()}
    for target, source in moved.items():
        os.dup2(source, target, inheritable=True)
