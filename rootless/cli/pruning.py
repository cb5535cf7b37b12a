"""What all prune commands share: their options, and what they say."""

from collections.abc import Sequence

from rootless.cli.command import Options, flag, values
from rootless.cli.filters import parse_filter
from rootless.engine.image_remove import Removed


class PruneOptions(Options):
    """The options of every prune."""

    filter: list[tuple[str, str]] = values(
        "--filter", parse=parse_filter, metavar="filter", help='Provide filter values (e.g. "until=24h", "label=x")'
    )
    force: bool = flag("-f", "--force", help="Do not prompt for confirmation")


def removed_text(what: str, names: Sequence[str]) -> str:
    """The lines that say which *names* are gone; nothing where none is."""
    return f"Deleted {what}:\n" + "".join(f"{name}\n" for name in names) + "\n" if names else ""


def removed_images_text(steps: Sequence[Removed]) -> str:
    """The same for images, names and layers."""
    return removed_text("Images", [f"untagged: {s.untagged}" if s.untagged else f"deleted: {s.deleted}" for s in steps])
