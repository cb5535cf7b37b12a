"""compose: the options before its verb, and the project that they mean."""

import os
from collections.abc import Sequence

from rootless.cli import streams
from rootless.cli.command import Options, flag, number, text, texts
from rootless.cli.terminal_text import visible
from rootless.compose.project import Application, ProjectOptions, project_of
from rootless.compose.records import Project
from rootless.engine.compose_project import find_project, open_application, working_directory
from rootless.engine.context import Engine
from rootless.errors import HostUnsupported, InvalidInput

_ANSI = ("auto", "never", "always")
_PROGRESS = ("auto", "tty", "plain", "quiet", "json")


class ComposeOptions(Options):
    """The options between `compose` and the verb."""

    all_resources: bool = flag("--all-resources", help="Include all resources, even those not used by services")
    ansi: str = text(
        "--ansi", default="auto", help='Control when to print ANSI control characters ("never"|"always"|"auto")'
    )
    compatibility: bool = flag("--compatibility", help="Accepted for scripts: names have hyphens")
    directory: str = text("--project-directory", help="Specify an alternate working directory", aliases=("--workdir",))
    dry_run: bool = flag("--dry-run", help="Execute command in dry run mode")
    env_file: list[str] = texts("--env-file", help="Specify an alternate environment file", metavar="stringArray")
    file: list[str] = texts("-f", "--file", help="Compose configuration files", metavar="stringArray")
    no_ansi: bool = flag("--no-ansi", help="Accepted for scripts: --ansi never", hidden=True)
    parallel: int = number("--parallel", default=0, help="Control max parallelism, 0 for twice the processors")
    profile: list[str] = texts("--profile", help="Specify a profile to enable", metavar="stringArray")
    progress: str = text("--progress", default="auto", help="Set type of progress output (auto, tty, plain, quiet)")
    project_name: str = text("-p", "--project-name", help="Project name")
    verbose: bool = flag("--verbose", help="Accepted for scripts", hidden=True)


def group_of(options: Options, *, dry_run: bool = False) -> ComposeOptions:
    """The options before the verb of *options*, which can do a *dry_run*. Raises InvalidInput, HostUnsupported."""
    group = options.settings.group
    found = group if isinstance(group, ComposeOptions) else ComposeOptions()
    if found.ansi not in _ANSI:
        raise InvalidInput(f"unsupported --ansi value {found.ansi!r}", hint=f"there are: {', '.join(_ANSI)}")
    if found.progress not in _PROGRESS:
        raise InvalidInput(
            f"unsupported --progress value {found.progress!r}", hint=f"there are: {', '.join(_PROGRESS)}"
        )
    if found.dry_run and not dry_run:
        raise HostUnsupported(
            "--dry-run is there for up, create and down", hint="`config` tells what a project comes to"
        )
    return found


def project_options(options: Options, *, dry_run: bool = False) -> ProjectOptions:
    """What the command line says of the project."""
    group = group_of(options, dry_run=dry_run)
    return ProjectOptions(
        working_directory(),
        dict(os.environ),
        tuple(group.file),
        group.project_name,
        group.directory,
        tuple(group.env_file),
        tuple(group.profile),
    )


def load_project(options: Options, asked: Sequence[str] = (), *, dry_run: bool = False) -> Project:
    """The project of files; its warnings are told."""
    application = open_application(project_options(options, dry_run=dry_run))
    warn(application)
    return project_of(application, asked)


def look_for_project(options: Options, engine: Engine, *, dry_run: bool = False) -> tuple[str, Project | None]:
    """The project's name, and its files if there are any."""
    return find_project(engine, project_options(options, dry_run=dry_run))


def is_dry(options: Options) -> bool:
    """Whether the command is to tell what it would do."""
    return group_of(options, dry_run=True).dry_run


def warn(application: Application) -> None:
    """Tell what is dubious in the files."""
    for warning in application.warnings:
        streams.write_error(f"rootless: warning: {visible(warning)}\n")


def limit_of(options: Options) -> int:
    """How many things may be done at once; 0 for the default."""
    asked = group_of(options, dry_run=True).parallel or os.environ.get("COMPOSE_PARALLEL_LIMIT", "0")
    try:
        count = int(asked)
    except ValueError:
        raise InvalidInput(f"COMPOSE_PARALLEL_LIMIT must be a number, and is {asked!r}") from None
    return max(count, 0)


def removes_orphans() -> bool:
    """Whether orphans are removed without being asked for: COMPOSE_REMOVE_ORPHANS."""
    return os.environ.get("COMPOSE_REMOVE_ORPHANS", "").lower() in ("1", "true", "yes", "y")


def uses_color(options: Options, *, no_color: bool, is_terminal: bool) -> bool:
    """Whether what is printed may be coloured."""
    group = group_of(options, dry_run=True)
    if no_color or group.no_ansi or group.ansi == "never" or os.environ.get("NO_COLOR"):
        return False
    return group.ansi == "always" or is_terminal
