"""How much the files below a directory hold."""

import os
import stat


def tree_size(path: str) -> int:
    """The bytes of all files below the directory *path*, each counted once however many names it has.

    A container may be changing it meanwhile: directories are entered by descriptor, links not followed, and what
    vanishes or may not be read is left out.
    """
    total = 0
    seen: set[tuple[int, int]] = set()
    try:
        root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return 0
    try:
        for _, directories, names, fd in os.fwalk(".", dir_fd=root_fd):
            for name in (*names, *directories):  # symlinks to directories are among these
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(status.st_mode) or (status.st_dev, status.st_ino) in seen:
                    continue
                if status.st_nlink > 1:
                    seen.add((status.st_dev, status.st_ino))
                total += status.st_size
    finally:
        os.close(root_fd)
    return total
