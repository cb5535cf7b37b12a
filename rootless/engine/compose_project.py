"""The project that a command means: its files read from disk, or, where there are none, what its labels tell."""

import os
import sys
from collections.abc import Sequence

from rootless.compose.nodes import ComposeError
from rootless.compose.normal import check_project_name
from rootless.compose.project import Application, ProjectOptions, load_application, project_of
from rootless.compose.records import Project
from rootless.engine.context import Engine
from rootless.errors import InvalidInput

_MOST_BYTES = 8 << 20


def read_file(path: str) -> str | None:
    """The text of a Compose file or an env file; None if there is no such file; "-" is standard input.

    Raises InvalidInput for what cannot be read, and for files beyond all reason.
    """
    try:
        if path == "-":
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise InvalidInput(f"{path}: more than {_MOST_BYTES >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: this is no UTF-8: byte {error.start}") from error


class _Reader:
    """Reads each file once: standard input can be read no more often."""

    def __init__(self) -> None:
        self._texts: dict[str, str | None] = {}

    def __call__(self, path: str) -> str | None:
        if path not in self._texts:
            self._texts[path] = read_file(path)
        return self._texts[path]


def open_application(options: ProjectOptions) -> Application:
    """The project of files. Raises ComposeError."""
    return load_application(_Reader(), options)


def open_project(options: ProjectOptions, asked: Sequence[str] = ()) -> tuple[Project, tuple[str, ...]]:
    """The project of files, as records, and warnings. Services *asked* for are active in any case."""
    application = open_application(options)
    return project_of(application, asked), application.warnings


def find_project(engine: Engine, options: ProjectOptions) -> tuple[str, Project | None]:
    """The name of a project and, where there are files of it, its records: enough for what only looks and stops.

    All its profiles are active, so that nothing of it is forgotten.
    """
    name = options.name or options.environment.get("COMPOSE_PROJECT_NAME", "")
    try:
        project, _ = open_project(options._replace(profiles=("*",)))
        return project.name, project
    except ComposeError as error:
        is_there = not options.files and str(error).startswith("no configuration file")
        if name and is_there:
            return check_project_name(name), None
        raise


def working_directory() -> str:
    """Where the command was called: as the shell has it, where that is the same directory."""
    shown = os.environ.get("PWD", "")
    try:
        if shown.startswith("/") and os.path.samefile(shown, "."):
            return os.path.normpath(shown)
    except OSError:
        pass  # PWD is left over from somewhere else
    return os.getcwd()
