"""A server that is killed at any system call that changes something leaves what was before, or what was to be.

strace kills it at its Nth such call (SECURITY.md has the harness). Then the union is mounted again, by us and by the
kernel, and has to show a state that a file system without layers goes through with the same operations: the one before
the operation that was under way, or the one after it. Half a copy, a file that is lost or one that is back would be
neither. At each N for a release, at some otherwise.
"""

import os
import random
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile import LONG
from tests.support.union_model import Entry, Operation, Tree, replay_steps, replay_until_failure, show
from tests.support.union_rig import Rig, rig

pytestmark = [pytest.mark.kernel, pytest.mark.fuse]

CALLS = (
    "rename,renameat,renameat2,mkdir,mkdirat,mknod,mknodat,unlink,unlinkat,rmdir,symlink,symlinkat,link,linkat,"
    "setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr,write,pwrite64,writev,pwritev,truncate,"
    "ftruncate,fallocate,chmod,fchmod,fchmodat,chown,fchown,fchownat,lchown,utimensat,openat,copy_file_range,sendfile"
)
SAMPLES = 6
EXCHANGE = 2

LAYERS: list[list[Entry]] = [
    [("file", "d/upper", 0o600, 0, "from the upper of the lowers", 1), ("whiteout", "d/hidden")],
    [
        ("file", "a", 0o4755, 1000, "a\n", 40_000),
        ("file", "b", 0o640, 1, "b", 1),
        ("xattr", "b", "user.b", "b"),
        ("sparse", "holes", 3_000_000, 1_500_000),
        ("symlink", "l", "a"),
        ("fifo", "p", 0o644),
        ("file", "d/hidden", 0o600, 0, "hidden", 1),
        ("file", "d/1", 0o600, 0, "1", 1),
        ("file", "d/2", 0o644, 0, "2", 1),
        ("file", "d/s/3", 0o644, 0, "3", 1),
        ("file", "e/1", 0o644, 0, "e1", 1),
        ("file", "g/x/y", 0o644, 0, "y", 1),
    ],
]

SEQUENCES: dict[str, list[Operation]] = {
    "files are brought up": [
        ("chmod", "a", 0o600),
        ("open", 0, "b", os.O_RDWR | os.O_APPEND, 0),
        ("write", 0, "x", 3),
        ("fsync", 0),
        ("close", 0),
        ("truncate", "holes", 2_000_000),
        ("lchown", "l", 1, 1),
        ("utime", "p", 3),
        ("setxattr", "d/1", "user.a", "value", 0),
        ("truncate", "d/2", 0),
        ("chmod", "d/s/3", 0o640),
    ],
    "files are removed": [
        ("unlink", "a"),
        ("unlink", "d/1"),
        ("unlink", "d/s/3"),
        ("rmdir", "d/s"),
        ("mkdir", "d/s", 0o700),
        ("mkdir", "d/s/t", 0o700),
        ("symlink", "x", "a"),
        ("unlink", "d/upper"),
        ("unlink", "d/2"),
        ("rmdir", "d/s/t"),
        ("rmdir", "d/s"),
        ("rmdir", "d"),
        ("mkdir", "d", 0o755),
        ("mknod", "d/1", stat.S_IFREG | 0o644, 0),
    ],
    "files are renamed": [
        ("rename", "a", "b", 0),
        ("rename", "b", "d/1", 0),
        ("rename", "d/1", "e/2", 1),
        ("rename", "e/1", "e/2", EXCHANGE),
        ("link", "e/1", "d/hidden"),
        ("rename", "l", "d/2", 0),
        ("rename", "d/2", "l", 0),
        ("rename", "d/hidden", "holes", 0),
        ("unlink", "e/1"),
    ],
    "directories are renamed": [
        ("rename", "d", "f", 0),
        ("rename", "e", "d", 0),
        ("rename", "f", "g", EXCHANGE),
        ("mkdir", "e", 0o700),
        ("rename", "f/x", "e", 0),
        ("rename", "e", "d/x", 0),
        ("unlink", "d/x/y"),
        ("rmdir", "d/x"),
        ("rename", "g/s", "f/x", 0),
    ],
}


@pytest.fixture(scope="module")
def bench() -> Iterator[Rig]:
    """One namespace for all."""
    with rig() as made:
        yield made


def states(bench: Rig, operations: Sequence[Operation]) -> list[Tree]:
    bench.build(LAYERS)
    with bench.mounted("plain", "plain") as root:
        return [comparable(tree) for tree in bench.call(replay_steps, root, operations)]


def comparable(tree: Tree) -> Tree:
    """Without the times of directories, which say nothing of what is lost, and without times that pass."""
    return {
        path: {name: fact for name, fact in facts.items() if not passes(name, facts)} for path, facts in tree.items()
    }


def passes(name: str, facts: dict[str, Any]) -> bool:
    return name == "mtime" and (facts["type"] == "d" or facts["mtime"] == "present")


def calls(bench: Rig, operations: Sequence[Operation]) -> range:
    """The numbers of the calls that the server makes for *operations*: what it does before, it does at each start."""
    bench.build(LAYERS)
    log = Path(f"{bench.place}/trace")
    with bench.traced("ours", "-o", str(log), "-e", f"trace={CALLS}", "-e", "signal=none") as root:
        before = count(log)
        assert bench.call(replay_until_failure, root, operations) == len(operations)
        after = count(log)
    [server] = [pid for pid in after if after[pid] != before.get(pid, 0)]
    return range(before.get(server, 0) + 1, after[server] + 1)


def count(log: Path) -> dict[str, int]:
    """Process → calls so far."""
    found: dict[str, int] = {}
    for line in log.read_text(errors="replace").splitlines():
        pid, _, rest = line.partition(" ")
        found[pid] = found.get(pid, 0) + ("resumed>" not in rest)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SEQUENCES)
def test_a_killed_server_leaves_what_was_or_what_was_to_be(bench: Rig, name: str) -> None:
    operations = SEQUENCES[name]
    expected = states(bench, operations)
    numbers = calls(bench, operations)
    assert len(numbers) >= len(operations)
    for number in numbers if LONG else sorted(random.Random().sample(numbers, SAMPLES)):
        bench.build(LAYERS)
        inject = f"inject={CALLS}:signal=KILL:when={number}"
        with bench.traced("ours", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", inject) as root:
            done = bench.call(replay_until_failure, root, operations)
        allowed = expected[done : done + 2]
        for kind, above in (("kernel", "ours"), ("ours", "")):  # the kernel first: it only looks
            with bench.mounted("read" if above else "ours", kind, above=above) as root:
                seen = comparable(bench.call(show, root))
            assert seen in allowed, (
                f"call {number}, operation {done}: {operations[done : done + 1]}, {kind}: {apart(seen, allowed)}"
            )
        assert list(bench.call(os.listdir, f"{bench.place}/ours/work")) in ([], ["work"])


def apart(seen: Tree, allowed: Sequence[Tree]) -> list[dict[str, Any]]:
    """What differs from each of the states that would do."""
    return [
        {path: (seen.get(path), tree.get(path)) for path in {**seen, **tree} if seen.get(path) != tree.get(path)}
        for tree in allowed
    ]
