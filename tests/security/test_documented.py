"""The table in docs/security.md: whatever test it names is there."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
PAGE = TESTS.parent / "docs/security.md"
# `file.py::test_name`, `…::test_name`, `test_name`; three dots at the end stand for the rest of a name.
NAMED = sorted(set(re.findall(r"`(?:[\w./]*(?:\.py|…)::)?(test_\w+…?)`", PAGE.read_text())))
FILES = sorted(set(re.findall(r"`(?:tests/)?((?:\w+/)*\w+\.py)\b", PAGE.read_text())))


def exists(name: str) -> bool:
    """Whether there is a test of that name, or one that begins so."""
    pattern = re.compile(rf"^def {name.removesuffix('…')}{'' if name.endswith('…') else '[(]'}", re.MULTILINE)
    return any(pattern.search(path.read_text()) for path in TESTS.rglob("test_*.py"))


def test_the_tests_that_are_named_exist() -> None:
    assert len(NAMED) > 50
    assert [name for name in NAMED if not exists(name)] == []


def test_the_files_that_are_named_exist() -> None:
    rooms = [TESTS / room for room in ("", "dockerfile", "engine", "fuse", "security")]
    assert [name for name in FILES if not any((room / name).exists() for room in rooms)] == []
