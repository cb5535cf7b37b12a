"""Calls that nobody may make in this program, whatever for: each has led somebody out of a directory."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = sorted(path for room in ("rootless", "fuse", "slirp") for path in (ROOT / room).rglob("*.py"))

BANNED = {
    "extractall": "T05: archives are unpacked by store/unpack.py",
    "unpack_archive": "T05: archives are unpacked by store/unpack.py",
    "recv_fds": "P04: what it returns is inherited by every child",
    "rmtree": "T21: trees are removed by linux/removal.py",
    "realpath": "rule 1: who asks first and opens later can be led elsewhere in between",
    "mktemp": "F02: a name that can be guessed",
    "eval": "P05",
    "system": "P05: a shell",
    "popen": "P05: a shell",
}
# Paths that the user has given, or our own, or the machine's.
ALLOWED = {
    ("fuse/checks.py", "realpath"),
    ("fuse/supervisor.py", "realpath"),
    ("rootless/cli/output.py", "realpath"),
    ("rootless/engine/host_image.py", "realpath"),
    ("rootless/engine/info.py", "realpath"),
    ("rootless/registry/credentials.py", "realpath"),
    ("rootless/runtime/sealed.py", "realpath"),
}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a module, by the last part of its name."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute):
                yield function.attr, node
            elif isinstance(function, ast.Name):
                yield function.id, node


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("name", BANNED)
def test_nobody_calls(name: str) -> None:  # T05, T21, P04, P05
    found = [
        f"{path}:{node.lineno}"
        for path in SOURCES
        for called, node in calls(path)
        if called == name and (str(path.relative_to(ROOT)), name) not in ALLOWED
    ]
    assert found == [], BANNED[name]


def test_hard_links_are_made_of_links_themselves() -> None:  # P04
    """os.link() with a directory's descriptor follows a link at its end, unless it is told not to."""
    careless = [
        f"{path}:{node.lineno}"
        for path in SOURCES
        for _, node in calls(path)
        if ast.unparse(node.func) in ("os.link", "link")
        and not any(k.arg == "follow_symlinks" and getattr(k.value, "value", True) is False for k in node.keywords)
    ]
    assert careless == []


@pytest.mark.parametrize("module", ["tarfile", "pickle", "marshal", "shelve", "zipfile", "xml"])
def test_nobody_imports(module: str) -> None:  # T05, P05
    assert [str(path) for path in SOURCES if module in imports(path)] == []
