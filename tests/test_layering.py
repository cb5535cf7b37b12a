"""The rule of the rooms, and what no room may do: read off the syntax trees of everything that is shipped.

    cli api  >  engine  >  dockerfile compose registry store network runtime  >  spec linux  >  errors

A room imports rooms below it: none above, and no sibling. docs/contributing.md tells why.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("rootless", "fuse", "slirp")
SOURCES = sorted(path.relative_to(ROOT) for name in PROGRAMS for path in (ROOT / name).rglob("*.py"))

HEIGHT = {
    **dict.fromkeys(("cli", "api"), 4),
    "engine": 3,
    **dict.fromkeys(("dockerfile", "compose", "registry", "store", "network", "runtime"), 2),
    **dict.fromkeys(("spec", "linux"), 1),
    "errors": 0,
}
BARE = {"rootless": "rootless/__init__.py", "rootless.__main__": "rootless/__main__.py"}

# Libraries that are not part of Python, and ctypes: who may import each. Prefixes of paths.
LIBRARIES = {
    "click": ("rootless/cli/",),
    "ctypes": ("rootless/linux/", "fuse/syscalls.py", "slirp/syscalls.py"),
    "isal": ("rootless/store/",),
    "pyfuse3": ("fuse/scheduler.py",),
    "pyroute2": ("slirp/",),
    "requests": ("rootless/registry/",),
    "tarfile": (),
    "tomli": ("rootless/",),
    "tomllib": ("rootless/",),
    "urllib3": ("rootless/registry/",),
    "yaml": ("rootless/compose/",),
    "zstandard": ("rootless/store/",),
}
OURS = frozenset(PROGRAMS)

BANNED_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "os.popen": "goes through a shell",
    "os.system": "goes through a shell",
    "shutil.unpack_archive": "is led out of the directory by names and links in the archive",
    "socket.recv_fds": "returns descriptors that children inherit: recvmsg with MSG_CMSG_CLOEXEC",
    "tempfile.mktemp": "names a file that somebody else may create first",
    "yaml.load": "builds any object that the text asks for: yaml.safe_load",
}
BANNED_MODULES = {"dill", "marshal", "pickle", "shelve"}  # reading them can run code


@dataclass(frozen=True, slots=True)
class Import:
    """One module that a file imports, by its full name; *lazy* where it stands in a function without a word why."""

    line: int
    module: str
    lazy: bool


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_bytes(), str(path))


def imports(path: Path) -> Iterator[Import]:
    """Every import in *path*; of `from a import b`, `a.b` where that is a module of ours, and `a` otherwise."""
    tree = parse(path)
    lines = (ROOT / path).read_text().splitlines()
    lazy = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
        if isinstance(inner, ast.Import | ast.ImportFrom) and not has_comment(lines, inner.lineno)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, node in lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(path, node)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield Import(node.lineno, name if is_module(name) else base, node in lazy)


def has_comment(lines: list[str], number: int) -> bool:
    """Whether line *number* has a comment, or the one above it is one."""
    return "#" in lines[number - 1] or lines[number - 2].lstrip().startswith("#")


def absolute(path: Path, node: ast.ImportFrom) -> str:
    """The full name of what stands after `from`."""
    above = path.parent.parts[: len(path.parent.parts) - node.level + 1] if node.level else ()
    return ".".join((*above, *filter(None, [node.module])))


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def room(module: str) -> str:
    """`store` of `rootless.store.blobs`, and "" of the package itself, which holds the version and nothing else."""
    return "" if module in BARE else module.split(".")[1]


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def broken_rule(path: Path, found: Import) -> str:
    """What is wrong with *found* in *path*; empty where nothing is."""
    program, top = path.parts[0], found.module.split(".")[0]
    if top in OURS:
        if top != program:
            return f"{program} and {top} are programs of their own, and meet as processes only"
        return broken_room_rule(path, found) if program == "rootless" else ""
    if found.lazy:
        return "imports stand at the top; a later one that is not of our own says why, in a comment"
    if found.module in BANNED_MODULES or top in BANNED_MODULES:
        return "reading it can run code"
    if top in LIBRARIES:
        allowed = LIBRARIES[top]
        return "" if str(path).startswith(allowed) else f"{top} belongs to {', '.join(allowed) or 'no room'}"
    return "" if top in sys.stdlib_module_names else f"{top} is not one of our dependencies"


def broken_room_rule(path: Path, found: Import) -> str:
    module = module_name(path)
    if module in BARE:
        return "" if module == "rootless.__main__" else "the package itself imports nothing"
    own, other = room(module), room(found.module)
    if other in ("", own) or HEIGHT[other] < HEIGHT[own]:
        return ""
    return f"{own} may not import {other}: only rooms below it"


def dotted(node: ast.expr) -> str:
    """`os.link` of that expression; empty for what is not a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def keyword(call: ast.Call, name: str) -> object:
    """The constant that *call* passes as *name*; None where it does not."""
    for argument in call.keywords:
        if argument.arg == name and isinstance(argument.value, ast.Constant):
            return argument.value.value
    return None


def broken_call(call: ast.Call) -> str:
    """Why *call* is not allowed; empty where it is."""
    name = dotted(call.func)
    if name in BANNED_CALLS:
        return f"{name} {BANNED_CALLS[name]}"
    if keyword(call, "shell") is True:
        return "shell=True reads data as commands"
    if name == "os.link" and keyword(call, "follow_symlinks") is not False:
        return "os.link with dir_fd follows symbolic links unless follow_symlinks=False is said"
    return ""


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_modules_import_only_what_their_room_may(path: Path) -> None:
    assert [f"{path}:{i.line}: {i.module}: {why}" for i in imports(path) if (why := broken_rule(path, i))] == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_call_that_runs_or_follows_foreign_data(path: Path) -> None:
    calls = [node for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]
    assert [f"{path}:{call.lineno}: {why}" for call in calls if (why := broken_call(call))] == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_assert_guards_what_is_shipped(path: Path) -> None:
    lines = [node.lineno for node in ast.walk(parse(path)) if isinstance(node, ast.Assert)]
    assert lines == [], f"{path}: `python -O` drops these checks"


def test_every_room_is_known() -> None:
    modules = [module_name(path) for path in SOURCES if path.parts[0] == "rootless"]
    assert {room(module) for module in modules if module not in BARE} - set(HEIGHT) == set()


@pytest.mark.parametrize(
    ("path", "line", "why"),
    [
        ("rootless/store/x.py", "import rootless.engine.run", "store may not import engine"),
        ("rootless/store/x.py", "from rootless.registry import client", "store may not import registry"),
        ("rootless/linux/x.py", "from ..spec import digest", "linux may not import spec"),
        ("rootless/spec/x.py", "import requests.adapters", "requests belongs to rootless/registry/"),
        ("rootless/store/x.py", "def f() -> None:\n    import tempfile", "imports stand at the top"),
        ("rootless/store/x.py", "from tarfile import open", "tarfile belongs to no room"),
        ("rootless/store/x.py", "from pickle import loads", "can run code"),
        ("rootless/store/x.py", "import numpy", "not one of our dependencies"),
        ("fuse/x.py", "from rootless import errors", "programs of their own"),
        ("fuse/x.py", "import pyfuse3", "pyfuse3 belongs to fuse/scheduler.py"),
    ],
)
def test_a_forbidden_import_is_seen(
    path: str, line: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(line)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert [why in broken_rule(Path(path), found) for found in imports(Path(path))] == [True]


@pytest.mark.parametrize(
    "call",
    ["os.link(a, b)", "os.link(a, b, follow_symlinks=True)", "run(c, shell=True)", "eval(t)", "yaml.load(t)"],
)
def test_a_forbidden_call_is_seen(call: str) -> None:
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    assert broken_call(node)


def test_a_late_import_that_says_why_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fuse").mkdir()
    (tmp_path / "fuse/x.py").write_text("def f() -> None:\n    import json  # only here, and rarely\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert [broken_rule(Path("fuse/x.py"), found) for found in imports(Path("fuse/x.py"))] == [""]


def test_a_link_that_does_not_follow_is_allowed() -> None:
    node = ast.parse("os.link(a, b, follow_symlinks=False)", mode="eval").body
    assert isinstance(node, ast.Call)
    assert broken_call(node) == ""
