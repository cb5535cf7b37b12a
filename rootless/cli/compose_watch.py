"""compose watch: services that follow the files that they are made from."""

from collections.abc import Sequence
from functools import partial

from rootless.cli.command import Options, at_least, command, flag
from rootless.cli.compose import build_progress
from rootless.cli.compose_options import limit_of, load_project
from rootless.cli.compose_shown import Progress
from rootless.cli.opening import engine_of
from rootless.compose.records import Project
from rootless.engine.compose_up import UpOptions, choose, up
from rootless.engine.compose_watch import Watcher, WatchOptions
from rootless.engine.context import Engine

_LONG = 3600.0  # seconds


class WatchCommandOptions(Options):
    """The options of watch."""

    no_up: bool = flag("--no-up", help="Do not build & start services before watching")
    prune: bool = flag("--prune", default=True, help="Prune dangling images on rebuild")
    quiet: bool = flag("--quiet", help="hide build output")


@command(
    "watch",
    "[SERVICE...]",
    WatchCommandOptions,
    at_least(0),
    examples="""
        Build, start, and have services follow their files:
            $ {path}
        With the output of services:
            $ rootless compose up --watch
    """,
)
def watch(options: WatchCommandOptions) -> None:
    """Watch build context for service and rebuild/refresh containers when files are updated"""
    engine = engine_of(options)
    project = load_project(options, options.arguments)
    tell = Progress(options)
    progress = partial(build_progress, quiet=options.quiet)
    asked = UpOptions(tuple(options.arguments), build=True, build_progress=progress, limit=limit_of(options))
    chosen = choose(project, asked)
    with watcher(engine, project, chosen, tell, prune=options.prune, quiet=options.quiet) as found:
        if not options.no_up:
            up(engine, project, asked, tell)
        tell.finish()
        found.begin()
        while True:
            found.step(_LONG)


def watcher(
    engine: Engine, project: Project, names: Sequence[str], tell: Progress, *, prune: bool, quiet: bool
) -> Watcher:
    """What watches the files of services. To be closed. Raises InvalidInput, HostUnsupported."""

    def show(what: str, status: str) -> None:
        tell.finish()  # the same happens again and again
        tell(what, status)

    return Watcher(engine, project, names, WatchOptions(prune, partial(build_progress, quiet=quiet)), show)
