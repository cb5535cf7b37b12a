"""What the templates of `inspect`, `info` and `version` may call the fields."""

from typing import Any

from rootless.cli.template_values import Record

# Docker fills its templates with Go's structs and its JSON with their tags, and both spellings are in use.
_GO_NAMES = {"ID": "Id", "APIVersion": "ApiVersion", "HTTPProxy": "HttpProxy", "HTTPSProxy": "HttpsProxy"}


def document_for(document: dict[str, Any], form: str) -> Record:
    """*document* for the template *form*: asking it for a field that it has not is an error, as for Docker.

    Its objects also have Go's names for those fields that the template asks for by these.
    """
    wanted = {go_name: name for go_name, name in _GO_NAMES.items() if f".{go_name}" in form}
    return Record(_renamed(document, wanted) if wanted else document)


def _renamed(document: dict[str, Any], wanted: dict[str, str]) -> dict[str, Any]:
    found = {key: _renamed(value, wanted) if isinstance(value, dict) else value for key, value in document.items()}
    return {**{go_name: found[name] for go_name, name in wanted.items() if name in found}, **found}
