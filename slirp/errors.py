"""What a request can fail with: the kinds that commands know, told over the control socket by their class's name."""


class SlirpError(Exception):
    """A failure to show as one line; *hint* tells the user what to do about it."""

    kind = "RootlessError"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Conflict(SlirpError):
    """It exists already, is in use, or is in a state that does not allow this."""

    kind = "Conflict"


class NotFound(SlirpError):
    """There is no such container, network or address."""

    kind = "NotFound"


class InvalidInput(SlirpError):
    """What was asked cannot be right."""

    kind = "InvalidInput"


class HostUnsupported(SlirpError):
    """This machine, or this account on it, forbids what is needed."""

    kind = "HostUnsupported"
