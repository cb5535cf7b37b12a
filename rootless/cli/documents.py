"""inspect, of whatever kind: the documents of several names, as JSON or through a template."""

from collections.abc import Callable
from typing import Any

from rootless.cli import streams
from rootless.cli.formats import document_for
from rootless.cli.opening import tell
from rootless.cli.table import print_documents
from rootless.errors import NotFound


def show_documents(names: list[str], form: str, find: Callable[[str], dict[str, Any]]) -> int:
    """Print the document of each name, as *form* says; what is missing is told. The exit status."""
    documents, errors = [], []
    for name in names:
        try:
            documents.append(document_for(find(name), form))
        except NotFound as error:
            errors.append(error)
    print_documents(documents, form)
    streams.flush()
    for missing in errors:
        tell(missing)
    return 1 if errors else 0
