"""What a running container has written, and its kernel has not yet handed to the server of its root.

With the driver `fuse` the kernel keeps what is written to an open file, and hands it to the server later: a program
that reads the upper directory beside would miss it. (What closes a file hands it over at once.) syncfs(2) has the
kernel make requests of all of it, but does not wait for their answers (fuse_sync_fs in fs/fuse/inode.c waits for
virtiofs alone). They are queued: the device hands them to the server in their order, `_AT_ONCE` of those that nobody
waits for. A request that somebody waits for stands behind these, so each statfs(2) that returns has seen as many of
them answered.
"""

import os

from rootless.engine.context import Engine
from rootless.errors import Conflict
from rootless.linux.files import filesystem_magic, syncfs
from rootless.linux.processes import open_of_process
from rootless.runtime import nested
from rootless.store.containers import LIVE

_FUSE_MAGIC = 0x65735546  # FUSE_SUPER_MAGIC, <linux/magic.h>
_AT_ONCE = 64  # fuse/express.py has the kernel do so
# The kernel keeps no more of a FUSE file system than a hundredth of what it keeps of all, mm/page-writeback.c; cut into
# pages that are not neighbours, that is some ten thousand requests.
_ROUNDS = 16_384 // _AT_ONCE


def settle(engine: Engine, container_id: str) -> None:
    """Have all that the container has written until now in its upper directory; at once where that is so anyway.

    For those who read the upper directory beside a container that runs. Raises Conflict if its root answers no more.
    """
    state = engine.containers.state(container_id)
    if state["status"] not in LIVE or not state["pid"]:
        return
    engine.enter_namespace()
    try:  # the root as its first process has it, not yet looked into
        fd = open_of_process(state["pid"], state["process_started"], "root", os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise Conflict(f"the root of container {container_id[:12]} cannot be read: {error.strerror}") from error
    if fd is None:
        return  # it has just ended
    try:
        if filesystem_magic(fd) != _FUSE_MAGIC:
            return
        if engine.containers.load(container_id).get("userns"):
            nested.within(state["pid"], lambda: _open_and_hand_over(fd))
        else:
            _open_and_hand_over(fd)
    except OSError as error:
        raise Conflict(f"the root of container {container_id[:12]} does not answer: {error.strerror}") from error
    finally:
        os.close(fd)


def _open_and_hand_over(path_fd: int) -> None:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=path_fd)
    try:
        hand_over(fd)
    finally:
        os.close(fd)


def hand_over(fd: int) -> None:
    """Have all that was written to the FUSE mount of *fd* with its server, written. Raises OSError."""
    syncfs(fd)
    for _ in range(_ROUNDS):
        os.fstatvfs(fd)
