"""The built-in image `host`: the machine's own root file system underneath, copy-on-write on top. Needs no registry.

The kernel refuses `/` itself as a lower layer in a user namespace, since mounts below it are locked there
(mount_namespaces(7)). Directories without mounts below them it takes; so the root is put together from those: each
becomes an overlay of its own, a directory with mounts below is entered and its entries are treated alike, and what is
kernel or machine state (/proc, /sys, /dev, /run, /tmp) is not taken over at all.
"""

import os
import stat

from rootless.linux.files import make_directory
from rootless.linux.mounts import mount_points
from rootless.spec.runtime import Config, escape_overlay
from rootless.store.containers import Record

NAME = "host"
_EMPTY = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/run", "/var/tmp", "/lost+found", "/boot/efi")
_STICKY = ("/tmp", "/var/tmp")
_MAX_DEPTH = 4


def prepare(staged: str) -> list[Record]:
    """Make the root directory of a container in *staged*, and the upper directories; the overlays to mount on it."""
    root = os.path.join(staged, "rootfs")
    make_directory(root, 0o755)
    os.mkdir(os.path.join(staged, "host"), 0o700)
    overlays: list[Record] = []
    points = [p for p in mount_points() if p != "/"]
    _assemble("/", root, staged, points, overlays, depth=0)
    return overlays


def _assemble(directory: str, root: str, staged: str, points: list[str], overlays: list[Record], depth: int) -> None:
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        target = root + path
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(path), target)
        elif stat.S_ISDIR(status.st_mode):
            make_directory(target, 0o1777 if path in _STICKY else 0o755)
            if path in _EMPTY or not os.access(path, os.R_OK | os.X_OK):
                continue  # what cannot be read here could not be read inside either
            if any(point.startswith(path + "/") for point in points):
                if depth < _MAX_DEPTH:
                    _assemble(path, root, staged, points, overlays, depth + 1)
            else:
                overlays.append(_overlay(path, staged, len(overlays), stat.S_IMODE(status.st_mode)))
        elif stat.S_ISREG(status.st_mode) and status.st_size < 1 << 20 and os.access(path, os.R_OK):
            with open(path, "rb") as source, open(target, "wb") as copy:  # /.dockerenv and the like
                copy.write(source.read())
                os.fchmod(copy.fileno(), stat.S_IMODE(status.st_mode) & 0o777)


def _overlay(path: str, staged: str, number: int, mode: int) -> Record:
    """*mode* is that of the directory: an overlay shows its upper one's."""
    own = os.path.join(staged, "host", str(number))
    os.mkdir(own, 0o700)
    make_directory(os.path.join(own, "upper"), mode)
    os.mkdir(os.path.join(own, "work"), 0o700)
    return {"path": path, "number": number}


def mounts(overlays: list[Record], directory: str) -> list[Config]:
    """The mounts of the bundle for a container in *directory*: the root is a plain directory, the overlays follow."""
    found: list[Config] = []
    for overlay in overlays:
        own = os.path.join(directory, "host", str(overlay["number"]))
        own = escape_overlay(own)
        lower = escape_overlay(overlay["path"])
        options = [f"lowerdir={lower}", f"upperdir={own}/upper", f"workdir={own}/work", "userxattr"]
        found.append({"destination": overlay["path"], "type": "overlay", "source": "overlay", "options": options})
    return found
