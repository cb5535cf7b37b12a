"""What the monitor of a --rm container turns into when nobody else has removed it: remove it, and go."""

import sys

from rootless.engine.context import Engine
from rootless.engine.remove import remove_ended
from rootless.runtime import sealed
from rootless.store.layout import Layout


def arguments(engine: Engine, container_id: str) -> list[str]:
    """The command line that removes the container."""
    command = sealed.command(__name__, third_party=True)
    return [*command, container_id, engine.layout.root, engine.layout.run, engine.session]


def main() -> None:
    """sys.argv[1:] are the container's id, the store's root, its run directory and that of the session."""
    container_id, root, run, session = sys.argv[1:]
    remove_ended(Engine(Layout(root, run), session), container_id)
