"""What the monitor of a --rm container turns into when nobody else has removed it: remove it, and go."""

import sys

from rootless.engine.context import Engine
from rootless.engine.remove import remove_ended
from rootless.store.layout import Layout


def main() -> None:
    """sys.argv[1:] are the container's id, the store's root and its run directory."""
    container_id, root, run = sys.argv[1:]
    remove_ended(Engine(Layout(root, run)), container_id)
