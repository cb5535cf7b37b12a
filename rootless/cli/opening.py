"""From the options before the verb to the engine that all commands work on; many names, and a failure among them."""

import os
from collections.abc import Callable

from rootless.cli import streams
from rootless.cli.command import Options
from rootless.engine.context import Engine, open_engine
from rootless.errors import RootlessError


def engine_of(options: Options) -> Engine:
    """The store that the command line means."""
    use_config(options)
    return open_engine(options.settings.root, options.settings.storage_driver)


def use_config(options: Options) -> None:
    """Have credentials looked for where --config says, by us and by their helpers."""
    if options.settings.config:
        os.environ["DOCKER_CONFIG"] = options.settings.config


def for_each(names: list[str], action: Callable[[str], object]) -> int:
    """Do *action* to each and print its name; one failure does not keep the others from it. The exit status."""
    status = 0
    for name in names:
        try:
            action(name)
        except RootlessError as error:
            tell(error)
            status = 1
        else:
            streams.write(f"{name}\n")
            streams.flush()
    return status


def tell(error: RootlessError) -> None:
    """Show an error that does not end the command."""
    streams.write_error(f"rootless: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
