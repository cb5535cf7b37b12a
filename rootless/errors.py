"""Failures that are shown to a person as one line, with a hint what to do about it.

`linux/` raises OSError; a room turns that into one of these where it knows what the user can do. Only `cli` and `api`
catch them. Anything else that is raised is a bug, and keeps its traceback.
"""


class RootlessError(Exception):
    """A failure to show as one line. *hint* tells the user what to do about it.

    exit_status is None where the command decides: Docker answers 125 from run and create, 1 from most others.
    """

    exit_status: int | None = None

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidInput(RootlessError):
    """Something that a person or a client typed cannot be right: an option, a name, a document."""


class NotFound(RootlessError):
    """There is no such object here, or in the registry."""


class Conflict(RootlessError):
    """The object exists already, is in use, or is in a state that does not allow this."""


class HostUnsupported(RootlessError):
    """This machine, or this account on it, forbids what is needed."""


class CorruptData(RootlessError):
    """Bytes are not what their digest, size or format says: from a registry, an archive, or our own store."""


class RegistryFailure(RootlessError):
    """A registry could not be reached, refused, or answered nonsense."""


class Unauthorized(RegistryFailure):
    """The registry wants (other) credentials."""


class CommandNotFound(RootlessError):
    """The program to run is not in the container."""

    exit_status = 127


class CommandNotExecutable(RootlessError):
    """The program to run is there, and cannot be executed."""

    exit_status = 126
