"""What can be known to be wrong with the directories before anything is mounted, each with what to do about it.

The kernel's overlayfs refuses most of the same, with one word in its log for all of them.
"""

import fcntl
import os
import stat

from fuse.errors import UnionError
from fuse.options import MountOptions

# What a work directory may hold: overlayfs makes work and index in it, and empties them at the next mount.
PROBE = b".wh..probe"  # a name that nothing else can have
_OF_OVERLAYFS = {b"work", b"index"}


def check_mountpoint(mountpoint: bytes) -> None:
    """Raise UnionError if nothing can be mounted there."""
    _directory(mountpoint, "mount point", "make the directory that the union is to appear in")


def check(options: MountOptions) -> None:
    """Raise UnionError if the directories cannot be mounted as *options* say."""
    for path in options.lower:
        _directory(path, "lowerdir", r"names are separated by colons; a colon in a name is written \:")
    if options.upper is not None and options.work is not None:
        _writable(options.upper, "upperdir")
        _writable(options.work, "workdir")
        _check_upper(options.upper, options.work, options.lower)
        _check_work(options.work)


def _directory(path: bytes, role: str, hint: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise UnionError(f"{role} {shown(path)}: {error.strerror}", hint=hint) from error
    if not stat.S_ISDIR(mode):
        raise UnionError(f"{role} {shown(path)}: not a directory", hint=hint)


def _writable(path: bytes, role: str) -> None:
    _directory(path, role, "make the directory, empty, before mounting")
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise UnionError(
            f"{role} {shown(path)} is on a read-only file system",
            hint="leave out upperdir and workdir for a read-only union",
        )
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UnionError(
            f"{role} {shown(path)} cannot be written to",
            hint="it has to belong to the user who mounts, in the user namespace that it is mounted in",
        )


def _check_upper(upper: bytes, work: bytes, lower: tuple[bytes, ...]) -> None:
    if os.stat(upper).st_dev != os.stat(work).st_dev:
        raise UnionError(
            f"upperdir {shown(upper)} and workdir {shown(work)} are on different file systems",
            hint="put workdir beside upperdir: files that are complete are renamed from one to the other",
        )
    if inside(upper, work) or inside(work, upper):
        raise UnionError(
            f"upperdir {shown(upper)} and workdir {shown(work)} are not apart",
            hint="neither may be in the other: put them side by side",
        )
    for path in lower:
        if os.path.realpath(path) == b"/":
            continue  # everything is in it: whoever shows the whole machine hides the upper directory there
        for role, written in (("upperdir", upper), ("workdir", work)):
            if inside(written, path) or inside(path, written):
                raise UnionError(
                    f"{role} {shown(written)} and lowerdir {shown(path)} are not apart",
                    hint="what is written would appear in a layer that may not change: use a directory elsewhere",
                )


def _check_work(work: bytes) -> None:
    foreign = sorted(set(os.listdir(work)) - _OF_OVERLAYFS)
    if foreign:
        raise UnionError(
            f"workdir {shown(work)} is not empty: it has {shown(foreign[0])}",
            hint="files in it would be deleted: use an empty directory",
        )
    if os.path.lexists(os.path.join(work, b"work", b"incompat", b"volatile")):
        raise UnionError(
            f"workdir {shown(work)} was last mounted volatile",
            hint="changes may be lost: start with an empty upperdir and workdir, or, sure that the machine has not "
            "crashed since, remove work/incompat in workdir",
        )


def hold(work: bytes) -> int:
    """A descriptor of *work* that no other mount can have until it is closed. Raises UnionError if one has it."""
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise UnionError(
            f"workdir {shown(work)} is in use by another mount",
            hint="unmount that one, or use an upperdir and a workdir of its own for this one",
        ) from error
    except OSError:
        pass  # a file system without locks: nobody can tell
    return fd


def find_layer_around(options: MountOptions, mountpoint: bytes) -> bytes | None:
    """The layer that contains *mountpoint*, if one does: whoever serves it would wait for himself there."""
    layers = filter(None, (*options.lower, options.upper, options.work))
    return next((layer for layer in layers if inside(mountpoint, layer)), None)


def inside(path: bytes, directory: bytes) -> bool:
    """Whether *path* is *directory* or below it, symbolic links resolved."""
    real, top = os.path.realpath(path), os.path.realpath(directory)
    return real == top or real.startswith(top.rstrip(b"/") + b"/")


def probe(mountpoint: bytes) -> None:
    """Have the kernel learn, at the mount that is there now, that files need not be opened: see fuse/express.py."""
    try:
        os.close(os.open(mountpoint + b"/" + PROBE, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        pass  # it will learn so from the first file that is opened


def shown(path: bytes) -> str:
    """*path* in a message of one line."""
    return path.decode("utf-8", "backslashreplace").replace("\n", "\\n")
