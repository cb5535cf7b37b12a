"""Dockerfiles and what the parser makes of them, side by side in golden/: NAME.Dockerfile, NAME.result or NAME.error.

A result has a line for each instruction, with the fields that are not empty, and the warnings of the checks; an error
is the message, and the hint below it. `ROOTLESS_TESTS_WRITE=1` writes them anew, to be read before they are committed.
"""

import os
from pathlib import Path

import pytest

from rootless.dockerfile import lint
from rootless.dockerfile.instructions import Arg, Dockerfile, DockerfileError, From, Instruction, Lines
from rootless.dockerfile.parse import parse_dockerfile
from rootless.dockerfile.warning import Context

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.Dockerfile"))
CONTEXT = Context(environments={"known": ["PATH", "FROM_THE_IMAGE"]})
OPTIONS = lint.CheckOptions(experimental=frozenset(["all"]))


def shown(record: Instruction | From | Arg) -> str:
    lines: Lines = record.lines
    place = f"{lines.first}-{lines.last}" if lines.last > lines.first else f"{lines.first}"
    fields = zip(record._fields, record, strict=True)
    said = [
        f"{name}={value!r}" for name, value in fields if name not in ("lines", "source") and value not in ("", (), None)
    ]
    return f"{place} {type(record).__name__} {' '.join(said)}\n    {record.source!r}"


def result(dockerfile: Dockerfile) -> str:
    directives = dockerfile.directives
    out = [f"directives {directives.syntax!r} {directives.escape!r} {directives.check!r}"]
    out += map(shown, dockerfile.global_args)
    for stage in dockerfile.stages:
        out += [shown(stage.base), *map(shown, stage.instructions)]
    options = lint.options_of(dockerfile)._replace(experimental=OPTIONS.experimental)
    out += [f"warning {line}: {rule}: {message}" for rule, line, message in lint.check(dockerfile, CONTEXT, options)]
    return "\n".join(out) + "\n"


def outcome(name: str) -> tuple[str, str]:
    try:
        return "result", result(parse_dockerfile((GOLDEN / f"{name}.Dockerfile").read_bytes()))
    except DockerfileError as error:
        return "error", f"{error}\n{error.hint}\n"


@pytest.mark.parametrize("name", CASES)
def test_the_dockerfile_means_what_stands_beside_it(name: str) -> None:
    kind, text = outcome(name)
    if os.environ.get("ROOTLESS_TESTS_WRITE"):
        (GOLDEN / f"{name}.{kind}").write_text(text)
    assert text == (GOLDEN / f"{name}.{kind}").read_text()


def test_there_is_one_outcome_for_each_dockerfile_and_none_without_one() -> None:
    outcomes = [path.stem for path in GOLDEN.iterdir() if path.suffix != ".Dockerfile"]
    assert sorted(outcomes) == CASES
    assert len(CASES) >= 80
