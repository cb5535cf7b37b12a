"""Filling a new, empty volume with what the image has at its place, by descriptor (CVE-2022-23648)."""

import os
import stat
from contextlib import suppress

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_up(source_fd: int, target_fd: int) -> None:
    """Copy the tree of directory *source_fd* (O_PATH is enough) into *target_fd*, if that is empty.

    Modes, owners, times, extended attributes, links within the tree and holes in files are kept; the directory itself
    takes the mode and owner of its model. Raises OSError.
    """
    target = os.open(".", _DIRECTORY, dir_fd=target_fd)
    try:
        if os.listdir(target):
            return
        source = os.open(".", _DIRECTORY, dir_fd=source_fd)
        try:
            _copy_tree(source, target, target, "", {})
        finally:
            os.close(source)
    finally:
        os.close(target)


def _copy_tree(source: int, target: int, top: int, path: str, linked: dict[tuple[int, int], str]) -> None:
    """Copy what is in *source* to *target*, which is *path* below *top*; *linked* are the files with several names."""
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        key = (status.st_dev, status.st_ino)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            below = os.open(name, _DIRECTORY, dir_fd=source)
            try:
                below_target = os.open(name, _DIRECTORY, dir_fd=target)
                try:
                    _copy_tree(below, below_target, top, f"{path}{name}/", linked)
                finally:
                    os.close(below_target)
            finally:
                os.close(below)
        elif key in linked:
            os.link(linked[key], name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
        else:
            _copy_entry(name, status, source, target)
            if status.st_nlink > 1:
                linked[key] = path + name
    _copy_metadata(source, target, os.fstat(source))


def _copy_entry(name: str, status: os.stat_result, source_dir: int, target_dir: int) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source_dir), name, dir_fd=target_dir)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target_dir, follow_symlinks=False)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target_dir, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_dir)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            target = os.open(name, flags, 0o600, dir_fd=target_dir)
            try:
                _copy_data(source, target, status.st_size)
                _copy_metadata(source, target, status)
            finally:
                os.close(target)
        finally:
            os.close(source)
    elif stat.S_ISFIFO(status.st_mode):
        os.mkfifo(name, stat.S_IMODE(status.st_mode), dir_fd=target_dir)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target_dir, follow_symlinks=False)
    # Sockets mean nothing without their process, and devices cannot be made in a user namespace.


def _copy_data(source: int, target: int, size: int) -> None:
    """Copy the stretches that hold data. copy_file_range(2) answers EXDEV between an overlay and what is below it."""
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
            end = os.lseek(source, start, os.SEEK_HOLE)
        except OSError:
            return  # nothing but a hole up to the end
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            copied = os.sendfile(target, source, start, end - start)
            if not copied:
                return
            start += copied
        position = end


def _copy_metadata(source: int, target: int, status: os.stat_result) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not name.startswith("user.overlay."):
            with suppress(OSError):  # a volume on another file system may not keep all of them
                os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
