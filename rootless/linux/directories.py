"""Where a user's things belong: XDG base directories, and a private place for sockets where the session gives none."""

import os
import stat

from rootless.linux.files import private_directory

# As the process started. Once it is root of the user's namespace, its number is another, and names other directories.
_UID = os.getuid()


def outer_uid() -> int:
    """The user's number outside the user's namespace."""
    return _UID


def home() -> str:
    """The user's home directory."""
    return os.environ.get("HOME") or os.path.expanduser("~")


def data_home() -> str:
    """Where data that lasts is kept."""
    return os.environ.get("XDG_DATA_HOME") or os.path.join(home(), ".local", "share")


def runtime_directory() -> str:
    """Our directory for sockets and locks, mode 0700: below XDG_RUNTIME_DIR, where that would be, or below /tmp.

    Raises PermissionError where it is not, or cannot be made, ours alone (F02).
    """
    path = os.path.join(_session_directory(), "rootless")
    private_directory(path)
    return path


def _is_ours_alone(path: str) -> bool:
    """Whether *path* is a directory of the user's that nobody else can change (F02).

    It need not be: after su(1), XDG_RUNTIME_DIR still names the other user's.
    """
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _session_directory() -> str:
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(given) and _is_ours_alone(given):
        return given
    usual = f"/run/user/{_UID}"
    if _is_ours_alone(usual):
        return usual
    path = f"/tmp/rootless-{_UID}"
    private_directory(path)
    return path
