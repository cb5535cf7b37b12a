"""What goes wrong, as one line for whoever started the program, and what to do about it."""


class UnionError(Exception):
    """The file system cannot be mounted, or has ended as it should not have. *hint* tells the user what to do."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(UnionError):
    """The command line cannot be right."""

    exit_status = 2
