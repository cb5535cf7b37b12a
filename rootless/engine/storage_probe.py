"""Trying the storage drivers out: does the kernel's overlayfs carry a root in this store, is there what FUSE takes."""

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from rootless.engine.storage import Found, Obstacle
from rootless.errors import RootlessError
from rootless.linux import mounts, namespaces
from rootless.store.layout import Layout, remove_path
from rootless.store.marks import WhiteoutStyle, make_opaque, write_whiteout

_OVERLAY_REMEDY = (
    "overlayfs for users needs Linux 5.11, its module loaded (have root run: modprobe overlay), and a local"
    " file system with extended attributes: --root puts the store on another one"
)


def in_child(answer: Callable[[], Any], what: str) -> Any:
    """What *answer* returns, in JSON; called in a child that may change its namespaces.

    Raises RootlessError, with *what* the child was to try, if it dies.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_fd, json.dumps(answer()).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    os.close(write_fd)
    with open(read_fd, "rb") as told:
        data = told.read()
    os.waitpid(pid, 0)
    if not data:
        raise RootlessError(f"the process that tried {what} died")
    return json.loads(data)


def try_overlay(layout: Layout) -> Obstacle:
    """Mount an overlay in the store's trash and rename a file of its lower layer; we are root of a user namespace.

    Takes the process into a mount namespace of its own.
    """
    top = layout.aside()
    for name in ("lower", "upper", "work", "merged"):
        os.makedirs(os.path.join(top, name), 0o700)
    with open(os.path.join(top, "lower", "file"), "wb") as file:
        file.write(b"below")
    try:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_PRIVATE)
        os.chdir(top)  # the paths in the options need no escapes then
        mounts.mount("overlay", "merged", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work,userxattr")
        try:
            os.rename("merged/file", "merged/renamed")  # a copy, and a whiteout
        finally:
            mounts.umount2("merged", mounts.MNT_DETACH)
    except OSError as error:
        return Obstacle(error.strerror or "refused", _OVERLAY_REMEDY)
    finally:
        os.chdir("/")
        remove_path(top)
    return Obstacle()


def try_marks(layout: Layout) -> bool:
    """Whether a directory in the store's trash takes overlayfs's marks; we are root of a user namespace."""
    top = layout.aside()
    os.mkdir(top, 0o700)
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_whiteout(fd, b"whiteout", WhiteoutStyle.OVERLAY)
        make_opaque(fd, WhiteoutStyle.OVERLAY)
    except OSError:
        return False
    finally:
        os.close(fd)
        remove_path(top)
    return True


def find(layout: Layout) -> Found:
    """Both of it."""
    marked = try_marks(layout)
    return Found(bool(try_overlay(layout).reason), not marked)


def try_fuse() -> Obstacle:
    """What `python -m fuse` needs, as far as it can be seen from here."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        missing = "/dev/fuse cannot be opened" if os.path.exists("/dev/fuse") else "there is no /dev/fuse"
        return Obstacle(missing, "have root run: modprobe fuse && chmod 0666 /dev/fuse")
    if importlib.util.find_spec("pyfuse3") is None:
        remedy = "pip install 'rootless[fuse]' (it takes a C compiler, pkg-config and the headers of libfuse 3)"
        return Obstacle("the Python package pyfuse3 is not installed", remedy)
    return Obstacle()
