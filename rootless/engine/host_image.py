"""The built-in image `host`: the machine's own root file system underneath, copy-on-write on top. Needs no registry.

The kernel refuses `/` itself as a lower layer in a user namespace, since mounts below it are locked there
(mount_namespaces(7)). Directories without mounts below them it takes; so the root is put together from those: each
becomes an overlay of its own, a directory with mounts below is entered and its entries are treated alike, and what is
kernel or machine state (/proc, /sys, /dev, /run, /tmp) is not taken over at all.

Our own driver takes `/` as it is, with what is mounted below. There the same directories of machine state are hidden by
opaque ones in the upper directory: whoever removes such a one inside gets a whiteout, never what is below it.
"""

import os
import stat

from rootless.linux.files import make_directory
from rootless.linux.mount_table import mount_table
from rootless.linux.mounts import mount_points
from rootless.spec.runtime import Config, escape_overlay
from rootless.store.containers import Record
from rootless.store.marks import WhiteoutStyle, make_opaque

NAME = "host"
_EMPTY = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/run", "/var/tmp", "/lost+found", "/boot/efi")
_STICKY = ("/tmp", "/var/tmp")
_MAX_DEPTH = 4
# Types of file systems that show the kernel, not files: /proc/filesystems, those of "nodev" that are no storage.
_OF_THE_KERNEL = {
    *("autofs", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "cpuset", "debugfs", "devpts"),
    *("devtmpfs", "efivarfs", "fusectl", "mqueue", "nfsd", "nsfs", "proc", "pstore", "resctrl", "rpc_pipefs"),
    *("securityfs", "selinuxfs", "smackfs", "sysfs", "tracefs"),
}


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


def hide(upper: str) -> list[str]:
    """Have an upper directory over `/` hide what belongs to the kernel and to the machine's services: which paths."""
    hidden = _hidden()
    for path in hidden:
        above = ""
        for name in path.split("/")[1:]:
            above = f"{above}/{name}"
            if not os.path.isdir(upper + above):
                make_directory(upper + above, stat.S_IMODE(os.stat(above).st_mode))
        os.chmod(upper + path, 0o1777 if path in _STICKY else 0o755)
        fd = os.open(upper + path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            make_opaque(fd, WhiteoutStyle.OVERLAY)
        except OSError:  # no such attributes here
            make_opaque(fd, WhiteoutStyle.FUSE)
        finally:
            os.close(fd)
    return hidden


def _hidden() -> list[str]:
    """Directories of the machine, no links in the way, that are machine state wherever they are."""
    kernels = [m.point for m in mount_table() if m.fstype in _OF_THE_KERNEL]
    wanted = [p for p in dict.fromkeys((*_EMPTY, *kernels)) if os.path.isdir(p) and os.path.realpath(p) == p]
    return [p for p in wanted if not any(p.startswith(f"{above}/") for above in wanted)]


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
