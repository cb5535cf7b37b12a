"""A helper that is started ahead of time, and does not know its container yet.

It gets ready while the command still reads its options and looks for the image: the two take turns on no processor.
Whoever began one gives it work, by the first message on its channel, or closes it, and then it ends.
"""

from rootless.errors import RootlessError
from rootless.linux.directories import runtime_directory
from rootless.runtime import channel, sealed, user_namespace

MONITOR = "rootless.runtime.monitor_start"
EXEC = "rootless.runtime.exec_helper"
_BY_VERB = {"run": MONITOR, "start": MONITOR, "exec": EXEC}


class Prepared:
    """The helper, from the side of who began it."""

    __slots__ = ("channel", "module", "networks", "pid")

    def __init__(self, module: str, *, afresh: bool = False) -> None:
        self.module = module
        self.networks = False  # whether slirp, which was not there, has been begun as well
        self.channel, theirs = channel.pair()
        self.pid = sealed.spawn(module, theirs.fileno(), afresh=afresh)
        theirs.close()

    def close(self) -> None:
        """Let it go; without work it ends."""
        self.channel.close()


def begin(verb: str) -> Prepared | None:
    """The helper that the command *verb* will need, if it is one that needs one; we are in the user's namespace then.

    None too where that cannot be: the command will meet the same obstacle, and say what it is.
    """
    if verb not in _BY_VERB:
        return None
    try:
        user_namespace.enter(runtime_directory())
        return Prepared(_BY_VERB[verb])
    except (RootlessError, OSError):
        return None


def take(prepared: Prepared | None, module: str, *, afresh: bool = False) -> Prepared:
    """*prepared* if it is a helper of *module*, else a new one.

    One that stays in the container (--init) is *afresh*: it has nothing of the command's memory, and it is a process of
    the user's namespace, whose root may join its namespaces (ptrace(2), the check of mm->user_ns).
    """
    if prepared is not None and prepared.module == module and not afresh:
        return prepared
    if prepared is not None:
        prepared.close()
    return Prepared(module, afresh=afresh)
