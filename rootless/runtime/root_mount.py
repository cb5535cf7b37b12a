"""The root itself: what the configuration has for "/" mounted at its place in the bundle, and entered at the end."""

import os
from collections.abc import Callable

from rootless.errors import HostUnsupported
from rootless.linux import mounts, namespaces
from rootless.spec.runtime import Config, parse_mount_options, split_overlay, unescape_overlay


def mount_root(config: Config, bundle: str, serve: Callable[[int], None]) -> int:
    """Mount what the configuration has for "/" at the bundle's root directory; returns an fd of the root.

    Mounts that are made from now on stay in this namespace; those of the host arrive if a mount asks for it. Where the
    root is of type fuse, *serve* hands its descriptor to whoever has it served; it stays open here no longer than that.
    """
    root = os.path.join(bundle, config["root"]["path"])
    wants_slave = any(
        option in ("slave", "rslave", "shared", "rshared")
        for m in config.get("mounts", ())
        for option in m.get("options") or ()
    )
    mounts.mount("", "/", "", mounts.MS_REC | (mounts.MS_SLAVE if wants_slave else mounts.MS_PRIVATE))
    own = next((m for m in config.get("mounts", ()) if m["destination"] == "/"), None)
    if own is None:
        mounts.mount(root, root, "", mounts.MS_BIND | mounts.MS_REC)
    elif own["type"] == "fuse":
        fuse_fd = _mount_fuse(root, parse_mount_options(own.get("options") or []).flags)
        try:
            serve(fuse_fd)
        finally:
            os.close(fuse_fd)
        return _open_served(root)
    else:
        options = parse_mount_options(own.get("options") or [])
        mount_overlay(root, options.data, options.flags)
    return os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _mount_fuse(target: str, flags: int) -> int:
    """Mount a file system of which everything is asked through the descriptor that is returned. fuse(4).

    The kernel checks permissions by the ids and modes that it is told; allow_other lets in who is not root, and still
    nobody who is not in our user namespace.
    """
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise HostUnsupported(
            f"/dev/fuse: {error.strerror}", hint="have root run: modprobe fuse && chmod 0666 /dev/fuse"
        ) from error
    try:
        uid, gid = (min(first for first, _ in namespaces.mapped_ids(kind)) for kind in ("uid", "gid"))
        words = f"fd={fd},rootmode=40000,user_id={uid},group_id={gid},default_permissions,allow_other"
        mounts.mount("rootless", target, "fuse", flags, words)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError):
            raise HostUnsupported(f"cannot mount a FUSE file system: {error.strerror}") from error
        raise
    return fd


def _open_served(root: str) -> int:
    """A descriptor of a root that somebody else serves: the first look at it, which waits for him."""
    try:
        return os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostUnsupported(f"the process that serves the container's root died: {error.strerror}") from error


def mount_overlay(target: str, data: str, flags: int = 0) -> None:
    """Mount an overlay with overlayfs's options *data* at *target*.

    Options are at most a page long, and 128 layers need more: then the directories are opened, and named by the
    numbers of their descriptors, seen from /proc/self/fd. So are those with characters that kernels unescape in their
    several ways.
    """
    try:
        if len(data) < 4000 and "\\" not in data:
            mounts.mount("overlay", target, "overlay", flags, data)
            return
        pairs = [option.partition("=") for option in split_overlay(data, ",")]
        fds: list[int] = []
        short = []
        for key, _, value in pairs:
            if key in ("lowerdir", "upperdir", "workdir"):
                paths = [unescape_overlay(part) for part in split_overlay(value, ":")]
                opened = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in paths]
                fds += opened
                value = ":".join(map(str, opened))
            short.append(f"{key}={value}" if value else key)
        before = os.open(".", os.O_PATH | os.O_CLOEXEC)
        os.chdir("/proc/self/fd")
        try:
            mounts.mount("overlay", target, "overlay", flags, ",".join(short))
        finally:
            os.fchdir(before)
            for fd in (before, *fds):
                os.close(fd)
    except OSError as error:
        raise HostUnsupported(
            f"cannot mount an overlay at {target}: {error.strerror}",
            hint="overlayfs in a user namespace needs Linux 5.11, and a file system below the store that supports"
            " extended attributes (not NFS, Lustre or another overlay): `rootless info` shows what was found;"
            " --root puts the store elsewhere",
        ) from error


def enter(root_fd: int) -> None:
    """Make *root_fd* the root of this process, and let go of the host's tree."""
    old_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root_fd)
    mounts.pivot_root(".", ".")
    # The old root is now mounted over the new one; taking it off leaves no way back. "." would still be the new one.
    os.fchdir(old_fd)
    os.close(old_fd)
    mounts.mount("", ".", "", mounts.MS_REC | mounts.MS_SLAVE)
    mounts.umount2(".", mounts.MNT_DETACH)
    os.chdir("/")
