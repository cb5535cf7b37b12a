"""pyfuse3 around a union: the session, what the kernel and it agree on, and the requests that are rare.

Every handler is a plain function that the decorator makes what pyfuse3 wants: OSError becomes FUSEError, the answer to
the one who asked. Anything else is a mistake of ours: its traceback is written once for each place where it comes up,
the answer is EIO, and the file system lives on; an exception that left a handler would end it.
"""

import errno
import socket

from fuse import scheduler
from fuse.device import Device
from fuse.express import Express
from fuse.failures import Failures
from fuse.passing import Passing
from fuse.union import Union

pyfuse3 = scheduler.load()
FUSEError = pyfuse3.FUSEError

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any


_failures = Failures()


def handler(function: "Callable[..., Any]") -> "Callable[..., Coroutine[Any, Any, Any]]":
    """What pyfuse3 can call, of a plain *function*."""

    async def handle(*arguments: "Any") -> "Any":
        try:
            return function(*arguments)
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None
        except FUSEError:
            raise
        except Exception as error:
            _failures.tell(error)
            raise FUSEError(errno.EIO) from None

    handle.__doc__ = function.__doc__
    return handle


class Operations(pyfuse3.Operations):  # type: ignore[name-defined]
    """What is left for pyfuse3 to answer; all else is refused with ENOSYS, and never asked again."""

    supports_dot_lookup = False

    def __init__(self, union: Union) -> None:
        super().__init__()
        self.enable_writeback_cache = union.options.writeback
        self.enable_acl = not union.options.noacl
        self._union = union

    @handler
    def statfs(self, ctx: "Any") -> "Any":
        st, data = self._union.statfs(), pyfuse3.StatvfsData()
        for field in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(data, field, getattr(st, field))
        data.f_namemax = st.f_namemax
        return data


def start(union: Union, fd: int, debug: bool) -> None:
    """Take over the mount whose descriptor is *fd*; see fuse/express.py."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    pyfuse3.init(Operations(union), f"/dev/fd/{theirs.detach()}", {"debug"} if debug else set())
    device = Device(fd)
    express = Express(union, device, Passing(device, ours.detach()))
    scheduler.set_source(express.serve, device.stop)
