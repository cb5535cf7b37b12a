"""pyfuse3 without trio: one request after the other, each run to its end.

pyfuse3 speaks to its async library through one global of its module, the door by which `pyfuse3.asyncio` exchanges it,
too. What stands there here does nothing: waiting until the descriptor is readable returns at once, so that the read(2)
behind it is what waits, and a handler that never waits is run to its end by one `send`. A request costs the system
calls that receive and answer it, and those of its handler; with trio, three more.

trio itself is never loaded: pyfuse3's `import trio` finds the stand-in.
"""

import sys
import types
from typing import NoReturn

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    Job = tuple[Callable[..., Coroutine[object, object, object]], tuple[object, ...]]


class _ClosedResourceError(Exception):
    """What trio raises in who waits for a descriptor that is closed."""


class _Done:
    """To await it takes no time."""

    __slots__ = ()

    def __await__(self) -> "Generator[object, object, None]":
        return _NOTHING  # type: ignore[return-value]


class _Nothing:
    __slots__ = ()

    def __iter__(self) -> "_Nothing":
        return self

    def __next__(self) -> NoReturn:
        raise StopIteration


_NOTHING, _DONE = _Nothing(), _Done()


class _Lock:
    """Always free: there is one task."""

    def __aenter__(self) -> _Done:
        return _DONE

    def __aexit__(self, *_: object) -> _Done:
        return _DONE


class _Nursery:
    """Runs what is started in it at its end."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    async def __aenter__(self) -> object:
        return self

    def start_soon(
        self, function: "Callable[..., Coroutine[object, object, object]]", *args: object, name: str
    ) -> None:
        """Run it once the nursery is left; *name* is for messages."""
        self._jobs.append((function, args))

    async def __aexit__(self, *_: object) -> None:
        while self._jobs:
            function, args = self._jobs.pop()
            await function(*args)


class _Task:
    name = "fuse"


class _Readable:
    """When the descriptor can be read from: when the source says so."""

    def __init__(self) -> None:
        self.serve: Callable[[], bool] = lambda: True
        self.stop: Callable[[], None] = lambda: None

    def __call__(self, fd: int) -> _Done:
        if not self.serve():
            raise _ClosedResourceError
        return _DONE


_readable = _Readable()


def _stand_in() -> types.ModuleType:
    trio = types.ModuleType("trio")
    lowlevel = types.SimpleNamespace(
        wait_readable=_readable, current_trio_token=_Task, current_task=_Task, notify_closing=lambda fd: None
    )
    trio.__dict__.update(
        lowlevel=lowlevel, Lock=_Lock, open_nursery=_Nursery, ClosedResourceError=_ClosedResourceError, from_thread=None
    )
    return trio


def load() -> types.ModuleType:
    """pyfuse3, with the stand-in in trio's place. Raises ImportError."""
    before = sys.modules.get("trio")
    sys.modules["trio"] = _stand_in()
    try:
        import pyfuse3  # only here, where it finds the stand-in
    finally:
        if before is None:
            del sys.modules["trio"]
        else:
            sys.modules["trio"] = before
    return pyfuse3


def run() -> None:
    """Serve until the file system is unmounted."""
    main: Coroutine[object, object, None] = sys.modules["pyfuse3"].main(1, 1)
    try:
        main.send(None)
    except StopIteration:
        return
    raise RuntimeError("a handler waited for something")


def set_source(serve: "Callable[[], bool]", stop: "Callable[[], None]") -> None:
    """*serve* waits for a request for pyfuse3, or returns False at the end; *stop* makes it do that."""
    _readable.serve, _readable.stop = serve, stop


def stop() -> None:
    """Let the loop end while it waits. To be called from a signal handler, repeatedly until it has ended."""
    _readable.stop()
