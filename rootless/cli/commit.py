"""commit: an image of a container."""

from rootless.cli import streams
from rootless.cli.command import Arity, Options, command, flag, text, texts
from rootless.cli.opening import engine_of
from rootless.engine.commit import CommitOptions
from rootless.engine.commit import commit as commit_container
from rootless.errors import HostUnsupported


class CommitCommandOptions(Options):
    """The options of commit."""

    author: str = text("-a", "--author", help='Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")')
    change: list[str] = texts("-c", "--change", help="Apply Dockerfile instruction to the created image")
    message: str = text("-m", "--message", help="Commit message")
    no_pause: bool = flag("--no-pause", help="Disable pausing container during commit")
    pause: bool = flag("-p", "--pause", default=True, help="Pause container during commit", hidden=True)
    quiet: bool = flag("-q", "--quiet", help="Accepted for scripts: there is nothing to suppress", hidden=True)
    squash: bool = flag("-s", "--squash", help="Squash all layers into one", hidden=True)


@command(
    "commit",
    "CONTAINER [REPOSITORY[:TAG]]",
    CommitCommandOptions,
    Arity(1, 2),
    examples="""
        What was installed by hand, as an image:
            $ {path} -m 'with curl' work team/work:2
        With another program, and a variable:
            $ {path} -c 'CMD ["nginx", "-g", "daemon off;"]' -c 'ENV MODE=test' web web:test
    """,
)
def commit(options: CommitCommandOptions) -> None:
    """Create a new image from a container's changes"""
    if options.squash:
        raise HostUnsupported(
            "--squash is not there: a commit adds one layer",
            hint="one layer of all: rootless export CONTAINER | rootless import - IMAGE",
        )
    engine = engine_of(options)
    container, name = (*options.arguments, "")[:2]
    chosen = CommitOptions(
        options.author, options.message, tuple(options.change), options.pause and not options.no_pause
    )
    image = commit_container(engine, engine.containers.find(container), name, chosen)
    streams.write(f"{image.id}\n")
