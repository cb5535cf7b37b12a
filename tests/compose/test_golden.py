"""Projects and what they come to, side by side in golden/: NAME.case with the files, NAME.result or NAME.error.

A case has a line `--- FILE` before each file, which is in /project unless the name begins with a slash; the lines of
`--- options` are `files`, `profiles`, `services` (asked for by name), `name`, `env`, with words behind, and
`no-interpolate`. A result is the warnings and what `config` prints; an error is the message, and the hint below it.
`ROOTLESS_TESTS_WRITE=1` writes them anew, to be read before they are committed.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from rootless.compose.nodes import ComposeError
from rootless.compose.project import (
    ProjectOptions,
    active_document,
    check_application,
    load_application,
    project_of,
)
from rootless.compose.render import to_yaml

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.case"))


def files_of(case: str) -> dict[str, str]:
    files: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in case.splitlines(keepends=True):
        if line.startswith("--- "):
            lines = files.setdefault(os.path.join("/project", line[4:].strip()), [])
        else:
            lines.append(line)
    return {name: "".join(lines) for name, lines in files.items()}


def options_of(text: str) -> ProjectOptions:
    given = {words[0]: tuple(words[1:]) for words in map(str.split, text.splitlines()) if words}
    environment = {"HOME": "/home/me", **dict(word.split("=", 1) for word in given.get("env", ()))}
    return ProjectOptions(
        "/project",
        environment,
        files=given.get("files", ()),
        profiles=given.get("profiles", ()),
        env_files=given.get("env-files", ()),
        name=" ".join(given.get("name", ())),
        interpolate="no-interpolate" not in given,
    )


def outcome(case: str) -> tuple[str, str]:
    """The suffix of the file, and what it is to say."""
    files = files_of(case)
    options: Mapping[str, str] = {"options": files.pop("/project/options", "")}
    asked = tuple(
        word for line in options["options"].splitlines() if line.startswith("services ") for word in line.split()[1:]
    )
    try:
        application = load_application(files.get, options_of(options["options"]))
        check_application(application, asked)
        if "no-interpolate" not in options["options"]:
            project_of(application, asked)
        warnings = "".join(f"# {warning}\n" for warning in application.warnings)
        return "result", warnings + to_yaml(
            active_document(application, asked), raw="no-interpolate" in options["options"]
        )
    except ComposeError as error:
        return "error", f"{error}\n" + (f"hint: {error.hint}\n" if error.hint else "")


@pytest.mark.parametrize("name", CASES)
def test_a_project_comes_to_what_is_written_down(name: str) -> None:
    suffix, text = outcome((GOLDEN / f"{name}.case").read_text())
    expected = GOLDEN / f"{name}.{suffix}"
    if os.environ.get("ROOTLESS_TESTS_WRITE"):
        for other in ("result", "error"):
            (GOLDEN / f"{name}.{other}").unlink(missing_ok=True)
        expected.write_text(text)
    assert expected.exists(), text
    assert text == expected.read_text()


@pytest.mark.parametrize("name", [name for name in CASES if (GOLDEN / f"{name}.result").exists()])
def test_what_config_prints_comes_to_itself(name: str) -> None:
    case = (GOLDEN / f"{name}.case").read_text()
    if "no-interpolate" in case:
        pytest.skip("variables are left in it")
    printed = (GOLDEN / f"{name}.result").read_text()
    text = "\n".join(line for line in printed.splitlines() if not line.startswith("# ")) + "\n"
    profiles = "--- options\nprofiles *\n"
    suffix, again = outcome(f"--- compose.yaml\n{text}{profiles}")
    assert (suffix, again) == ("result", text)


def test_there_are_a_hundred_cases() -> None:
    assert len(CASES) >= 100
