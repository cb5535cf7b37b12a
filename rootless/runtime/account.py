"""A line in the container's passwd and group files for the user who is somebody in it by number only: --userns keep-id.

Programs ask for the name and the home of their user, and some do not start without. The files are the container's own,
as if useradd(8) had been run in it once; those that the user has mounted there are left alone.
"""

import os
import stat

from rootless.linux.inroot import open_in_root, read_regular

_LIMIT = 10 << 20
_SHELL = "/bin/sh"


def add(account: str | None, root_fd: int) -> None:
    """Add *account*, "name:uid:gid:home", where its numbers are missing. What cannot be read or written is left."""
    if not account:
        return
    name, uid, gid, home = account.split(":", 3)
    passwd_line = f"{name}:*:{uid}:{gid}:{name}:{home}:{_SHELL}\n"
    for path, number, line in (("/etc/passwd", uid, passwd_line), ("/etc/group", gid, f"{name}:*:{gid}:\n")):
        try:
            known = read_regular(root_fd, path, _LIMIT)
            if known is not None and not _has(known, number):
                _append(root_fd, path, (b"" if known.endswith(b"\n") or not known else b"\n") + line.encode())
        except OSError:
            continue  # the image's files are not what they should be, or read-only: the number remains


def _has(content: bytes, number: str) -> bool:
    """Whether a line of passwd(5) or group(5) is about the *number*."""
    wanted = number.encode()
    return any(len(row) > 2 and row[2] == wanted for row in (line.split(b":") for line in content.split(b"\n")))


def _append(root_fd: int, path: str, line: bytes) -> None:
    fd = open_in_root(root_fd, path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        # A file of the user's that is bound there is on another file system.
        if stat.S_ISREG(status.st_mode) and status.st_dev == os.fstat(root_fd).st_dev:
            os.write(fd, line)
    finally:
        os.close(fd)
