"""rootless-compose: `rootless compose` under a name of its own, for scripts that call docker-compose."""

import sys
from typing import NoReturn

from rootless.cli.main import main as rootless_main


def main() -> NoReturn:
    """The console script."""
    rootless_main(["compose", *sys.argv[1:]])
