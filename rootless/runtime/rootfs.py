"""The root file system of a container: what is mounted where, planned first and done then.

It runs in the container's mount namespace, which still shows the host's tree. The image is hostile, so a destination is
looked up inside the new root only (linux/inroot.py), the place is held by a descriptor, and the mount is attached to
that descriptor: between looking and mounting nobody can lead us elsewhere (CVE-2021-30465). Sources are the user's own
paths, except devices, which are checked to be the devices that they are called.
"""

import errno
import os
import stat
from contextlib import suppress
from typing import NamedTuple

from rootless.errors import HostUnsupported, InvalidInput, RootlessError
from rootless.linux import files, mounts, namespaces
from rootless.linux.inroot import MAX_SYMLINKS, make_directories, open_in_root, open_parent
from rootless.runtime.copyup import copy_up
from rootless.runtime.root_mount import mount_overlay
from rootless.spec.runtime import Config, MountOptions, parse_mount_options


class Mount(NamedTuple):
    """Mount a file system, or bind a host path, at *destination* in the root."""

    destination: str
    fstype: str
    source: str
    options: MountOptions
    source_fd: int = -1  # of a bind whose source is open already: see hold_sources()


class Device(NamedTuple):
    """Bind the host's device node *path* at the same path in the root."""

    path: str
    number: tuple[int, int] | None


class Link(NamedTuple):
    """A symbolic link in the root, unless something is there."""

    path: str
    target: str


class Mask(NamedTuple):
    """Hide a file behind /dev/null, or a directory behind an empty one."""

    path: str


class ReadOnly(NamedTuple):
    """Make a path, and what is mounted below it, read-only."""

    path: str


class Fifo(NamedTuple):
    """A named pipe, unless something is there."""

    path: str
    mode: int


Operation = Mount | Device | Link | Mask | ReadOnly | Fifo

# proc_pid_fd(5) under the names that programs expect; config-linux.md, "Default Devices" and "/dev symbolic links".
_LINKS = (
    Link("/dev/fd", "/proc/self/fd"),
    Link("/dev/stdin", "/proc/self/fd/0"),
    Link("/dev/stdout", "/proc/self/fd/1"),
    Link("/dev/stderr", "/proc/self/fd/2"),
    Link("/dev/ptmx", "pts/ptmx"),
)
_KNOWN_DEVICES = {
    "/dev/null": (1, 3),
    "/dev/zero": (1, 5),
    "/dev/full": (1, 7),
    "/dev/random": (1, 8),
    "/dev/urandom": (1, 9),
    "/dev/tty": (5, 0),
}
# An image may not lead these elsewhere by a link (CVE-2019-19921, CVE-2026-41579).
_ORDINARY = ("/proc", "/sys", "/dev")


def plan(config: Config) -> list[Operation]:
    """What to do to the root after it is mounted, in order. Masks come after sysctls are written: see plan_masks."""
    operations: list[Operation] = []
    for m in config.get("mounts", ()):
        if m["destination"] == "/":
            continue
        operations.append(_mount_operation(m))
        # Not into a directory of the user's that is mounted at /dev.
        if m["destination"] == "/dev" and m.get("type") == "tmpfs":
            operations += _default_devices()
    if not any(m["destination"] == "/dev" for m in config.get("mounts", ())):
        operations += _default_devices()
    for device in config.get("linux", {}).get("devices") or ():
        operations.append(_device_operation(device))
    return operations


def plan_mounts(config: Config) -> list[Operation]:
    """The mounts alone, for who only looks at the files: nothing is made in the root but what they are mounted on."""
    return [_mount_operation(m) for m in config.get("mounts", ()) if m["destination"] != "/"]


def _default_devices() -> list[Operation]:
    return [*(Device(path, number) for path, number in _KNOWN_DEVICES.items()), *_LINKS]


def plan_masks(config: Config) -> list[Operation]:
    """What is hidden from, or read-only for, the container's processes."""
    linux = config.get("linux", {})
    masks: list[Operation] = [ReadOnly(path) for path in linux.get("readonlyPaths") or ()]
    return masks + [Mask(path) for path in linux.get("maskedPaths") or ()]


def _device_operation(device: Config) -> Operation:
    """A device is the host's, as nobody makes one in a user namespace; a fifo is made."""
    if device.get("type") == "p":
        return Fifo(device["path"], device.get("fileMode") or 0o666)
    major, minor = device.get("major"), device.get("minor")
    return Device(device["path"], None if major is None or minor is None else (major, minor))


def _mount_operation(m: Config) -> Mount:
    options = parse_mount_options(m.get("options") or [])
    fstype = m.get("type") or ("bind" if options.flags & mounts.MS_BIND else "none")
    return Mount(m["destination"], fstype, m.get("source") or fstype, options)


def hold_sources(operations: list[Operation], bundle: str) -> list[Operation]:
    """The same, with the sources of binds open: for who will be another user when it performs them."""
    return [_held(o, bundle) if isinstance(o, Mount) and _is_bind(o) else o for o in operations]


def _held(operation: Mount, bundle: str) -> Mount:
    try:
        return operation._replace(source_fd=_open_source(operation, bundle))
    except OSError as error:
        raise RootlessError(f"{_describe(operation)}: {error.strerror}") from error


def _is_bind(operation: Mount) -> bool:
    return operation.fstype == "bind" or (
        operation.fstype != "cgroup" and bool(operation.options.flags & mounts.MS_BIND)
    )


def _open_source(operation: Mount, bundle: str) -> int:
    return os.open(os.path.join(bundle, operation.source), os.O_PATH | os.O_CLOEXEC)


def perform(operations: list[Operation], root_fd: int, bundle: str) -> None:
    """Do *operations* to the root. Raises RootlessError naming what could not be done."""
    null_fd = _open_device("/dev/null", _KNOWN_DEVICES["/dev/null"])
    try:
        for operation in operations:
            try:
                match operation:
                    case Mount():
                        _mount(operation, root_fd, bundle)
                    case Device():
                        _bind_device(operation, root_fd)
                    case Link():
                        _link(operation, root_fd)
                    case Fifo():
                        _make_fifo(operation, root_fd)
                    case Mask():
                        _mask(operation.path, root_fd, null_fd)
                    case ReadOnly():
                        _make_read_only(operation.path, root_fd)
            except OSError as error:
                raise RootlessError(f"{_describe(operation)}: {error.strerror}") from error
    finally:
        os.close(null_fd)


def _describe(operation: Operation) -> str:
    match operation:
        case Mount():
            return f"cannot mount {operation.source} at {operation.destination} in the container"
        case _:
            return f"cannot set up {operation.path} in the container"


def _mount(operation: Mount, root_fd: int, bundle: str) -> None:
    if operation.fstype == "cgroup":
        _mount_cgroup(operation, root_fd)
    elif _is_bind(operation):
        _bind(operation, root_fd, bundle)
    else:
        target_fd = _directory(root_fd, operation.destination)
        try:
            if operation.fstype == "none" or operation.options.flags & mounts.MS_REMOUNT:
                _change_mount(operation.options, target_fd)
            else:
                _mount_filesystem(operation, target_fd)
                _finish_filesystem(operation, target_fd, root_fd)
        finally:
            os.close(target_fd)


def _mount_filesystem(operation: Mount, target_fd: int) -> None:
    target, options = mounts.fd_path(target_fd), operation.options
    if operation.fstype == "overlay":
        mount_overlay(target, options.data, options.flags)
        return
    data = options.data
    if operation.fstype == "devpts" and not any(
        first <= 5 < first + count for first, count in namespaces.mapped_ids("gid")
    ):
        data = ",".join(o for o in data.split(",") if not o.startswith("gid="))
    flags = options.flags
    if options.copy_up:
        flags &= ~mounts.MS_RDONLY  # until it is filled
    mounts.mount(operation.source, target, operation.fstype, flags, data)


def _finish_filesystem(operation: Mount, target_fd: int, root_fd: int) -> None:
    """What mount(2) itself does not do: the options of a tree, propagation, a tmpfs with what was at its place."""
    options = operation.options
    if not (options.copy_up or options.all_flags or options.all_cleared or options.propagation):
        return
    mounted_fd = open_in_root(root_fd, operation.destination, os.O_PATH | os.O_DIRECTORY)
    try:
        if options.copy_up and operation.fstype == "tmpfs":
            copy_up(target_fd, mounted_fd)
        read_only = options.flags & mounts.MS_RDONLY
        _change_mount(options._replace(flags=read_only), mounted_fd)
    finally:
        os.close(mounted_fd)


def _change_mount(options: MountOptions, mount_fd: int) -> None:
    """Change the options and the propagation of what is mounted already."""
    mounts.mount_setattr(mount_fd, options.flags, propagation=options.propagation & ~mounts.MS_REC)
    if options.propagation & mounts.MS_REC:
        mounts.mount_setattr(mount_fd, 0, recursive=True, propagation=options.propagation & ~mounts.MS_REC)
    if options.all_flags or options.all_cleared:
        mounts.mount_setattr(mount_fd, options.all_flags, recursive=True, cleared=options.all_cleared)


def _bind(operation: Mount, root_fd: int, bundle: str) -> None:
    options = operation.options
    source_fd = operation.source_fd if operation.source_fd >= 0 else _open_source(operation, bundle)
    try:
        is_directory = stat.S_ISDIR(os.fstat(source_fd).st_mode)
        target_fd = (
            _directory(root_fd, operation.destination) if is_directory else _file(root_fd, operation.destination)
        )
        try:
            if options.copy_up and is_directory:
                copy_up(target_fd, source_fd)
            tree_fd = mounts.open_tree(source_fd, recursive=bool(options.flags & mounts.MS_REC))
            try:
                _change_mount(options, tree_fd)
                mounts.move_mount(tree_fd, target_fd)
            finally:
                os.close(tree_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def _mount_cgroup(operation: Mount, root_fd: int) -> None:
    """cgroup2 of the container's own cgroup namespace; where the host has none to mount, an empty directory."""
    target_fd = _directory(root_fd, operation.destination)
    try:
        target = mounts.fd_path(target_fd)
        try:
            mounts.mount("cgroup", target, "cgroup2", operation.options.flags)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EBUSY, errno.ENODEV, errno.EINVAL):
                raise
            mounts.mount("tmpfs", target, "tmpfs", operation.options.flags, "size=0,mode=755")
    finally:
        os.close(target_fd)


def _directory(root_fd: int, destination: str) -> int:
    """An O_PATH fd of the directory *destination* in root, made if it is missing."""
    if os.path.normpath(destination) in _ORDINARY:
        try:
            fd = open_in_root(root_fd, destination, os.O_PATH | os.O_NOFOLLOW)
        except FileNotFoundError:
            return make_directories(root_fd, destination)
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidInput(f"{destination} of the image must be an ordinary directory")
        return fd
    return make_directories(root_fd, destination)


def _file(root_fd: int, destination: str) -> int:
    """An O_PATH fd of *destination* in root, whatever it is; made as an empty file if it is missing.

    A link that leads to nothing, as /etc/resolv.conf in images of systems with systemd-resolved, counts as the file
    that it names.
    """
    for _ in range(MAX_SYMLINKS):
        try:
            return open_in_root(root_fd, destination, os.O_PATH)
        except FileNotFoundError:
            destination = _make_file(root_fd, destination)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), destination)


def _make_file(root_fd: int, path: str) -> str:
    """Make the file that *path* should be, and return *path*; or, where a link is, the path that the link means."""
    above = os.path.dirname(path)
    parent_fd = make_directories(root_fd, above or ".")
    try:
        name = os.path.basename(path)
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent_fd))
    except FileExistsError:
        try:
            return os.path.join(above, os.readlink(name, dir_fd=parent_fd))
        except OSError:
            return path  # somebody was faster: look again
    finally:
        os.close(parent_fd)
    return path


def _open_device(path: str, number: tuple[int, int] | None) -> int:
    """An O_PATH fd of the host's device node *path*, which must have the device *number* (X05)."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    actual = os.major(status.st_rdev), os.minor(status.st_rdev)
    if not is_device or (number is not None and actual != number):
        os.close(fd)
        raise HostUnsupported(f"{path} of this machine is not the device that it should be")
    return fd


def _bind_device(operation: Device, root_fd: int) -> None:
    source_fd = _open_device(operation.path, operation.number)
    try:
        target_fd = _file(root_fd, operation.path)
        try:
            mounts.bind(source_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def _link(operation: Link, root_fd: int) -> None:
    parent_fd, name = open_parent(root_fd, operation.path)
    try:
        os.symlink(operation.target, name, dir_fd=parent_fd)
    except FileExistsError:
        pass  # the image's own, or devpts' ptmx on an image without a fresh /dev
    finally:
        os.close(parent_fd)


def _make_fifo(operation: Fifo, root_fd: int) -> None:
    parent_fd = make_directories(root_fd, os.path.dirname(operation.path))
    try:
        with suppress(FileExistsError):
            os.mkfifo(os.path.basename(operation.path), operation.mode, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


def _mask(path: str, root_fd: int, null_fd: int) -> None:
    try:
        fd = open_in_root(root_fd, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return  # this kernel has no such file
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            flags = mounts.MS_RDONLY | mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
            mounts.mount("tmpfs", mounts.fd_path(fd), "tmpfs", flags, "nr_blocks=1,nr_inodes=1")
        else:
            mounts.bind(null_fd, fd)
    finally:
        os.close(fd)


def _make_read_only(path: str, root_fd: int) -> None:
    try:
        fd = open_in_root(root_fd, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        mounts.bind(fd, fd, recursive=True, all_flags=mounts.MS_RDONLY)
    finally:
        os.close(fd)


def write_sysctls(sysctls: dict[str, str], root_fd: int) -> None:
    """Set the container's own kernel parameters through its own, verified /proc."""
    for name, value in sysctls.items():
        path = "/proc/sys/" + name.replace(".", "/")
        try:
            fd = open_in_root(root_fd, path, os.O_WRONLY)
            try:
                if files.filesystem_magic(fd) != files.PROC_SUPER_MAGIC:
                    raise RootlessError(f"{path} is not on a proc file system")
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise RootlessError(f"cannot set sysctl {name} to {value}: {error.strerror}") from error


def bind_console(slave_fd: int, root_fd: int) -> None:
    """Show the terminal at /dev/console, as config.md asks for where process.terminal is true."""
    try:
        target_fd = _file(root_fd, "/dev/console")
        try:
            mounts.bind(slave_fd, target_fd)
        finally:
            os.close(target_fd)
    except OSError as error:
        raise RootlessError(f"cannot set up /dev/console in the container: {error.strerror}") from error
