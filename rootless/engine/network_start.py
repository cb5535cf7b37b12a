"""Starting slirp, and starting it early: what a run waits for longest should begin before the run's own modules load.

Whether a run needs slirp is known when its line has been read. Nearly all do, so for one that has no option about
networks it is begun at once, where it is not there: by a process that is forked for that, and that ends when slirp is
ready, without a word of what went wrong. If nobody comes for it, slirp leaves by itself some seconds later.
"""

import os
from collections.abc import Sequence

from rootless.runtime import sealed

_OPTION = "--net"  # and --network, --network-alias
_WITHOUT = ("none", "host")


def command() -> list[str]:
    """The argument list that runs `python -m slirp`, as the user's configuration wants it."""
    from rootless.engine.configuration import load_configuration

    return [*sealed.command("slirp.__main__", third_party=True), "--path", load_configuration().network_tcp]


def seal() -> None:
    """It never enters a container's file system, but a container that shares the machine's processes sees it."""
    if sealed.is_users():
        sealed.seal()


def begin(session: str) -> None:
    """Start slirp in *session*, the run directory, beside what the caller goes on to do, who is root of the namespace.

    What goes wrong is told to who needs it: see `networks.begin`.
    """
    if os.fork() == 0:
        try:
            _ensure(session)
        finally:
            os._exit(0)


def begin_early(words: Sequence[str], session: str) -> bool:
    """The same for a run with these *words*, if it is likely to need slirp and there is no trace of one."""
    if any(word.startswith(_OPTION) for word in words) or os.path.lexists(os.path.join(session, "slirp")):
        return False
    if os.fork() == 0:
        try:
            _ensure_by_default(session)
        finally:
            os._exit(0)
    return True


def _ensure_by_default(session: str) -> None:
    from rootless.engine.configuration import load_configuration

    if load_configuration().network not in _WITHOUT:
        _ensure(session)


def _ensure(session: str) -> None:
    from rootless.network import slirp

    slirp.ensure(session, command(), seal)
