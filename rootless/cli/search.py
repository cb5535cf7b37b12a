"""search: repositories of Docker Hub, or of another registry."""

from rootless.cli.command import Options, command, exactly, flag, number, text, values
from rootless.cli.filters import bool_value, collect_filters, one_value, parse_filter
from rootless.cli.opening import use_config
from rootless.cli.table import ellipsis, print_list
from rootless.engine.search import SearchFilter
from rootless.engine.search import search as search_registry
from rootless.errors import InvalidInput
from rootless.registry.search import Repository

_HEADERS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}
_COLUMNS = ("Name", "Description", "StarCount", "IsOfficial")
_WIDTH = 45


class SearchOptions(Options):
    """The options of search."""

    filter: list[tuple[str, str]] = values(
        "-f", "--filter", parse=parse_filter, metavar="filter", help='"stars=N", "is-official=true"'
    )
    format: str = text("--format", help="Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
    limit: int = number("--limit", default=25, help="Max number of search results, 1 to 100")
    no_trunc: bool = flag("--no-trunc", help="Don't truncate output")


@command(
    "search",
    "TERM",
    SearchOptions,
    exactly(1),
    examples="""
        Docker Hub:
            $ {path} --filter is-official=true debian
        All that a registry of one's own has:
            $ {path} registry.example.org:5000/
    """,
)
def search(options: SearchOptions) -> None:
    """Search Docker Hub, or another registry, for images"""
    use_config(options)
    wanted = _filter(options.filter)
    rows = [_row(found, options.no_trunc) for found in search_registry(options.arguments[0], options.limit, wanted)]
    print_list(rows, headers=_HEADERS, columns=_COLUMNS, form=options.format)


def _filter(given: list[tuple[str, str]]) -> SearchFilter:
    filters = collect_filters(given, ("is-automated", "is-official", "stars"))
    stars = one_value(filters, "stars") or "0"
    if not (stars.isascii() and stars.isdecimal() and len(stars) < 10):
        raise InvalidInput(f"invalid filter 'stars={stars}'")
    return SearchFilter(int(stars), bool_value(filters, "is-official"), bool_value(filters, "is-automated"))


def _row(found: Repository, full: bool) -> dict[str, object]:
    description = " ".join(found.description.split())
    return {
        "Name": found.name,
        "Description": description if full else ellipsis(description, _WIDTH),
        "StarCount": found.stars,
        "IsOfficial": "[OK]" if found.is_official else "",
        "IsAutomated": "[OK]" if found.is_automated else "",
    }
