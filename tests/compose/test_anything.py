"""Whatever stands in a Compose file, it is a project or an error for the user."""

import json
import random
import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.compose.document import parse_documents
from rootless.compose.nodes import ComposeError, plain
from rootless.compose.project import ProjectOptions, active_document, load_application, project_of
from rootless.compose.render import to_json, to_yaml
from rootless.errors import InvalidInput

GOLDEN = Path(__file__).parent / "golden"


def corpus() -> list[Any]:
    """The golden documents, as they are written and in their canonical form."""
    texts = [path.read_text() for path in sorted(GOLDEN.glob("*.result"))]
    for path in sorted(GOLDEN.glob("*.case")):
        text = re.split(r"^--- .*\n", path.read_text(), flags=re.MULTILINE)[1]
        if text.isprintable() or "yaml_" not in path.name:
            texts.append(text)
    documents = []
    for text in texts:
        try:
            documents += [plain(node) for node in parse_documents(text.replace("$$", ""), "f")]
        except ComposeError:
            continue  # these are wrong on purpose
    return [document for document in documents if isinstance(document, dict)]


DOCUMENTS = corpus()
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, "", "x", "a:b", "a=b", "1-2", "10s", "1g", "service:x", [], {}, [None], [[]], [{}],
    ["a", "a"], {"x": None}, {"a": {"b": []}}, ["a=b", "c"], 10**30, float("inf"), "é\n", ":", "=", "/", "-", "0", "~",
]  # fmt: skip


def mutated(value: Any, chance: random.Random, left: list[int]) -> Any:
    """A copy in which some values are others."""
    if left[0] and chance.random() < 0.08:
        left[0] -= 1
        return chance.choice(VALUES)
    if isinstance(value, dict):
        keys = list(value)
        entries = {key: mutated(value[key], chance, left) for key in keys}
        if keys and chance.random() < 0.03:
            entries[chance.choice(["x", "name", "source", "target", "external", ""])] = chance.choice(VALUES)
        return entries
    if isinstance(value, list):
        return [mutated(item, chance, left) for item in value]
    return value


def load(document: Any, *, no_interpolate: bool = False) -> None:
    files = {"/p/compose.yaml": json.dumps(document)}  # which is YAML
    options = ProjectOptions("/p", {}, interpolate=not no_interpolate)
    application = load_application(files.get, options)
    to_yaml(active_document(application))
    to_json(active_document(application))
    if not no_interpolate:
        project_of(application)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(DOCUMENTS), st.integers(0, 1 << 30), st.booleans())
def test_a_file_with_anything_in_it_is_a_project_or_an_error(document: Any, seed: int, raw: bool) -> None:
    chance = random.Random(seed)
    changed = mutated(document, chance, [chance.randrange(1, 4)])
    try:
        load(changed, no_interpolate=raw)
    except InvalidInput:
        pass  # what the user is told
