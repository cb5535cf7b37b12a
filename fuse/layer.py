"""One tree behind one descriptor, and what a directory of it holds.

A layer is never walked by a path. A directory in it is a descriptor; everything else is such a descriptor and one name,
as the kernel asked for it, with symlinks not followed: so nothing that somebody wrote into a layer can lead out of it.
Descriptors of directories are O_PATH: they serve to find things, whatever the directory's mode, and cost nothing below.
"""

import os
from typing import NamedTuple

from fuse import whiteout

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Content(NamedTuple):
    """The names in one directory of one layer."""

    directories: list[bytes]
    others: list[bytes]
    whiteouts: list[bytes]  # of names that are not there; the names they hide
    opaque: bool  # by the file that says so; attributes are the caller's to look at


def open_layer(path: bytes) -> int:
    """A descriptor of the directory *path*, where a layer begins."""
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def open_directory(parent_fd: int, name: bytes) -> int:
    """A descriptor of the directory *name* in that of *parent_fd*."""
    return os.open(name, _DIRECTORY, dir_fd=parent_fd)


def fd_path(fd: int) -> bytes:
    """A path that leads to what *fd* has open and nowhere else, for calls that take no descriptor with O_PATH."""
    return b"/proc/self/fd/%d" % fd


def read_directory(fd: int, *, files: bool = True) -> Content:
    """What is in the directory behind *fd*. Whether *files* called `.wh.…` are marks."""
    directories, others, hidden = [], [], []
    opaque = False
    with os.scandir(fd_path(fd)) as entries:
        for entry in entries:
            name = entry.name
            if entry.is_dir(follow_symlinks=False):
                if not files or not name.startswith(whiteout.PREFIX):
                    directories.append(name)
            elif files and name.startswith(whiteout.PREFIX):
                if name == whiteout.OPAQUE_FILE:
                    opaque = True
                else:
                    hidden.append(name[4:])
            elif _may_be_device(entry) and whiteout.is_whiteout(os.stat(name, dir_fd=fd, follow_symlinks=False)):
                hidden.append(name)
            else:
                others.append(name)
    if not whiteout.has_whiteouts_by_attribute(fd_path(fd)):
        return Content(directories, others, hidden, opaque)
    marks = {name for name in others if whiteout.is_whiteout_by_attribute(fd, name)}
    return Content(directories, [name for name in others if name not in marks], [*hidden, *marks], opaque)


def _may_be_device(entry: "os.DirEntry[bytes]") -> bool:
    """What readdir(3) says of it leaves the possibility. It tells of files and symlinks without a further call."""
    return not entry.is_file(follow_symlinks=False) and not entry.is_symlink()
