"""update: other limits, or another restart policy, for containers that are there."""

from rootless.cli.command import at_least, command, value
from rootless.cli.limit_options import LimitOptions, given_limits
from rootless.cli.opening import engine_of, for_each
from rootless.cli.values import RestartPolicy, parse_restart
from rootless.engine.update import update as update_container
from rootless.errors import InvalidInput


class UpdateOptions(LimitOptions):
    """The options of update."""

    restart: RestartPolicy | None = value(
        "--restart",
        parse=parse_restart,
        default=None,
        metavar="policy",
        help="Restart policy to apply when a container exits (no, always, unless-stopped, on-failure[:max-retries])",
    )


@command(
    "update",
    "CONTAINER [CONTAINER...]",
    UpdateOptions,
    at_least(1),
    examples="""
        More memory for a container that runs:
            $ {path} --memory 2g --memory-swap 4g web
        A container that is not started again when it ends:
            $ {path} --restart no web
    """,
)
def update(options: UpdateOptions) -> int:
    """Update configuration of one or more containers"""
    limits = given_limits(options)
    if not limits and options.restart is None:
        raise InvalidInput("you must provide one or more flags when using this command")
    engine = engine_of(options)
    return for_each(
        options.arguments, lambda name: update_container(engine, engine.containers.find(name), limits, options.restart)
    )
