"""The parts of pyroute2 that we use, without the rest: its message classes.

`import pyroute2.netlink.rtnl.rtmsg` first runs `pyroute2/__init__.py`, which loads every module there is, with asyncio,
ssl, sqlite3 and unittest behind them: 120 ms and 21 MB, for which a user would pay at the first container and for as
long as one runs. So the package stands here as a bare name with its directory, below which its modules are found, and
the sockets of pyroute2, which netlink.py does without, as empty classes for the nftables socket to be derived from.
What is left is a fifth of both.
"""

import sys
from importlib.machinery import PathFinder
from types import ModuleType

_PACKAGE = "pyroute2"
_SOCKETS = "pyroute2.netlink.nlsocket"


def prepare() -> None:
    """To be called before anything of pyroute2 is imported. Raises ImportError where it is not installed."""
    if _PACKAGE in sys.modules:
        return
    spec = PathFinder.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("pyroute2 is not installed", name=_PACKAGE)
    package = ModuleType(_PACKAGE)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sockets = ModuleType(_SOCKETS)
    for name in ("NetlinkSocket", "AsyncNetlinkSocket"):
        setattr(sockets, name, type(name, (), {}))
    sys.modules[_PACKAGE], sys.modules[_SOCKETS] = package, sockets
