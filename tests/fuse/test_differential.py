"""The union and the kernel's overlayfs are given the same layers and the same operations, and must do the same.

Hypothesis makes both: up to three lower layers with whiteouts, opaque directories, links and odd modes, and a sequence
of operations (tests/support/union_model.py) on a few names, so that they meet. Compared are the result or errno of
each, the tree that is seen while files are still open and when they are closed, and what is left in the upper
directory: as it is, and as each of the two reads what the other has written. The same sequences go over a copy on an
ordinary file system, too, which knows what to expect where the kernel's overlayfs refuses.

UNION_EXAMPLES=2000 makes it long; UNION_KIND=fuse-overlayfs tries somebody else's (it fails: that shows what is found).
"""

import os
import stat
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.union_model import (
    Entry,
    Operation,
    Result,
    Tree,
    change_while_listing,
    replay,
    show,
    show_raw,
    statfs,
)
from tests.support.union_rig import Layers, Rig, rig

pytestmark = pytest.mark.kernel

KIND = os.environ.get("UNION_KIND", "ours")
EXAMPLES = int(os.environ.get("UNION_EXAMPLES", "25"))
LENGTH = int(os.environ.get("UNION_LENGTH", "40"))
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
ANY = 0xFFFFFFFF

bounded = settings(
    max_examples=EXAMPLES,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


@pytest.fixture(scope="module")
def bench() -> Iterator[Rig]:
    """One namespace for all examples."""
    with rig() as made:
        yield made


# What there is

names = st.sampled_from("aabbc")
paths = st.one_of(names, st.builds("{}/{}".format, names, names), st.builds("{}/{}/{}".format, names, names, names))
targets = st.sampled_from(["a", "b", "c", "a/b", "b/a", "nowhere", "c/c"])
modes = st.sampled_from([0o644, 0o755, 0o600, 0o000, 0o777, 0o4755, 0o2755, 0o444, 0o1777])
uids = st.sampled_from([0, 1, 1000])
texts = st.sampled_from(["x", "lower\n"])
xattr_names = st.sampled_from(["user.a", "user.b"])
any_xattr_names = st.sampled_from(
    ["user.a", "user.b", "user.overlay.opaque", "user.overlay.x", "trusted.overlay.opaque", "security.x"]
)
values = st.sampled_from(["", "y", "value"])
acl_names = st.sampled_from(["system.posix_acl_access", "system.posix_acl_default"])
acls = st.sampled_from(  # <linux/posix_acl_xattr.h>: the version, then tag, permissions and id of each entry
    [
        struct.pack("<I" + "HHI" * len(some), 2, *(number for entry in some for number in entry)).decode("latin-1")
        for some in (
            [(1, 6, ANY), (4, 4, ANY), (0x20, 4, ANY)],
            [(1, 7, ANY), (2, 6, 1000), (4, 0, ANY), (0x10, 6, ANY), (0x20, 0, ANY)],
            [(1, 7, ANY), (2, 0, 1), (4, 7, ANY), (8, 7, 1000), (0x10, 5, ANY), (0x20, 5, ANY)],
        )
    ]
)
times = st.sampled_from([0, 1, 3, 5000])

entries: st.SearchStrategy[Entry] = st.one_of(
    st.tuples(st.just("dir"), paths, modes, uids, st.booleans()),
    st.tuples(st.just("file"), paths, modes, uids, texts, times),
    st.tuples(st.just("file"), paths, modes, uids, texts, times),
    st.tuples(st.just("sparse"), paths, st.just(300_000), st.sampled_from([0, 150_000])),
    st.tuples(st.just("symlink"), paths, targets),
    st.tuples(st.just("fifo"), paths, modes),
    st.tuples(st.just("socket"), paths, modes),
    st.tuples(st.just("whiteout"), paths),
    st.tuples(st.just("xattr"), paths, xattr_names, values),
)
SKELETON: list[Entry] = [
    ("dir", "a", 0o755, 0, False),
    ("dir", "a/b", 0o755, 0, False),
    ("file", "a/a", 0o644, 0, "a in a"),
    ("file", "a/b/c", 0o644, 1000, "deep"),
    ("file", "b", 0o755, 0, "b"),
]
bottoms = st.lists(entries, max_size=12).flatmap(
    lambda some: st.sampled_from([some, [*SKELETON, *some], [*some, *SKELETON]])
)
layers = st.one_of(
    st.tuples(bottoms),
    st.tuples(st.lists(entries, max_size=8), bottoms),
    st.tuples(st.lists(entries, max_size=8), st.lists(entries, max_size=8), bottoms),
)

# What is done

slots = st.integers(0, 3)
sizes = st.sampled_from([0, 1, 5, 4096, 5000, 70_000])
access = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR])
flags = st.lists(
    st.sampled_from([os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_CREAT]),
    max_size=3,
).map(lambda some: sum(set(some)))
opens = st.builds(
    lambda slot, path, how, more, mode: ("open", slot, path, how | more, mode), slots, paths, access, flags, modes
)
data = st.sampled_from("pqrs")
kinds = st.sampled_from([stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])

on_slots: st.SearchStrategy[Operation] = st.one_of(
    st.tuples(st.just("close"), slots),
    st.tuples(st.just("read"), slots, sizes),
    st.tuples(st.just("pread"), slots, sizes, sizes),
    st.tuples(st.just("write"), slots, data, times),
    st.tuples(st.just("pwrite"), slots, data, times, sizes),
    st.tuples(
        st.just("seek"),
        slots,
        sizes,
        st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]),
    ),
    st.tuples(st.just("fsync"), slots),
    st.tuples(st.just("fstat"), slots),
    st.tuples(st.just("is"), slots, paths),
    st.tuples(st.just("ftruncate"), slots, sizes),
    st.tuples(st.just("fchmod"), slots, modes),
    st.tuples(st.just("fchown"), slots, uids, uids),
    st.tuples(st.just("futime"), slots, st.integers(0, 9)),
    st.tuples(st.just("fallocate"), slots, sizes, st.sampled_from([1, 5000])),
    st.tuples(st.just("copy_range"), slots, slots, sizes),
    st.tuples(st.just("mapped_write"), slots, sizes, st.just("map")),
    st.tuples(st.just("mapped_read"), slots, st.booleans()),
    st.tuples(st.just("flistdir"), slots),
)
on_paths: st.SearchStrategy[Operation] = st.one_of(
    st.tuples(st.just("stat"), paths),
    st.tuples(st.just("lstat"), paths),
    st.tuples(st.just("content"), paths),
    st.tuples(st.just("list"), paths),
    st.tuples(st.just("readlink"), paths),
    st.tuples(st.just("access"), paths, st.integers(0, 7)),
    st.tuples(st.just("truncate"), paths, sizes),
    st.tuples(
        st.just("rename"),
        paths,
        paths,
        st.sampled_from([0, 0, 0, NOREPLACE, NOREPLACE, EXCHANGE, EXCHANGE, NOREPLACE | EXCHANGE, WHITEOUT]),
    ),
    st.tuples(st.just("rename"), paths, paths, st.just(0)),
    st.tuples(st.just("link"), paths, paths),
    st.tuples(st.just("unlink"), paths),
    st.tuples(st.just("rmdir"), paths),
    st.tuples(st.just("remove"), paths),
    st.tuples(st.just("mkdir"), paths, modes),
    st.tuples(st.just("symlink"), targets, paths),
    st.tuples(
        st.just("mknod"), paths, st.builds(lambda kind, mode: kind | mode, kinds, modes), st.sampled_from([0, 0x103])
    ),
    st.tuples(st.just("chmod"), paths, modes),
    st.tuples(st.just("lchown"), paths, uids, uids),
    st.tuples(st.just("utime"), paths, st.integers(0, 9)),
    st.tuples(
        st.just("setxattr"), paths, any_xattr_names, values, st.sampled_from([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE])
    ),
    st.tuples(st.just("setxattr"), paths, acl_names, acls, st.just(0)),
    st.tuples(st.just("getxattr"), paths, st.one_of(any_xattr_names, acl_names)),
    st.tuples(st.just("listxattr"), paths),
    st.tuples(st.just("removexattr"), paths, st.one_of(any_xattr_names, acl_names)),
)
operations: st.SearchStrategy[Operation] = st.one_of(
    on_paths,
    on_paths,
    opens,
    on_slots,
    st.tuples(st.just("as"), st.sampled_from([1, 1000]), st.one_of(on_paths, opens)),
)
sequences = st.builds(
    lambda first, then: [*first, *then],
    st.lists(opens, max_size=3),
    st.one_of(
        st.lists(operations, min_size=LENGTH // 2, max_size=LENGTH),
        st.lists(operations, min_size=1, max_size=LENGTH // 2),
    ),
)


# What is compared


def same(one: Any, other: Any, what: str) -> None:
    assert one == other, f"{what}\n{difference(one, other)}"


def difference(one: Any, other: Any) -> str:
    """Where two trees, or two lists, part."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        return "\n".join(
            f"  {key!r}: {difference(one.get(key, 'is not there'), other.get(key, 'is not there'))}" for key in keys
        )
    return f"{one!r} is not {other!r}"


def same_results(operations: list[Operation], one: list[Result], other: list[Result]) -> None:
    for number, (operation, here, there) in enumerate(zip(operations, one, other, strict=True)):
        same(here, there, f"operation {number}: {operation}")


def same_upper(ours: Tree, kernels: Tree) -> None:
    """The kernel also brings up what is opened for writing, and then not written."""
    copies = {path for path, facts in kernels.items() if path not in ours and facts["type"] != "whiteout"}
    same(ours, {path: facts for path, facts in kernels.items() if path not in copies}, "the upper directory")


def unlinked(tree: Tree) -> Tree:
    """Without what is a link to what: the kernel's overlayfs gives a lower file's new link a number of its own."""
    return {path: {name: fact for name, fact in facts.items() if name != "same as"} for path, facts in tree.items()}


def is_rename(operation: Operation) -> bool:
    return operation[0] == "rename" or (operation[0] == "as" and is_rename(operation[2]))


def without_refused_renames(operations: list[Operation], results: list[Result]) -> tuple[list[Operation], list[Result]]:
    """The kernel's overlayfs does not rename a directory of a lower layer: EXDEV tells mv(1) to copy it."""
    pairs = [
        (("skip",), ("ok", None)) if is_rename(operation) and result == ("EXDEV", None) else (operation, result)
        for operation, result in zip(operations, results, strict=True)
    ]
    return [operation for operation, _ in pairs], [result for _, result in pairs]


def without_marks(operations: list[Operation]) -> list[Operation]:
    """Without what only a union refuses: whiteouts, and attributes that would be its own."""
    return [operation for operation in operations if not is_mark(operation)]


def is_mark(operation: Operation) -> bool:
    if operation[0] == "as":
        return is_mark(operation[2])
    if operation[0] == "rename" and operation[3] == WHITEOUT:
        return True
    return (operation[0] == "mknod" and operation[3] == 0 and stat.S_ISCHR(operation[2])) or any(
        isinstance(word, str) and (".overlay." in word or word == "security.x") for word in operation
    )


@bounded
@given(layers=layers, operations=sequences)
def test_the_union_does_what_the_kernels_overlayfs_does(
    bench: Rig, layers: Layers, operations: list[Operation]
) -> None:
    bench.build(layers)
    with bench.mounted("kernel", "kernel") as root:
        expected, expected_open, expected_closed = bench.call(replay, root, operations)
    operations, expected = without_refused_renames(operations, expected)
    with bench.mounted("ours", KIND) as root:
        results, seen_open, seen_closed = bench.call(replay, root, operations)
        same_results(operations, results, expected)
        same(unlinked(seen_open), unlinked(expected_open), "the tree, files being open")
        same(unlinked(seen_closed), unlinked(expected_closed), "the tree")
    with bench.mounted("ours read", "kernel", above="ours") as root:
        same(unlinked(bench.call(show, root)), unlinked(seen_closed), "our upper directory, as the kernel reads it")
    same_upper(bench.call(show_raw, bench.upper("ours")), bench.call(show_raw, bench.upper("kernel")))
    with bench.mounted("kernel read", KIND, above="kernel") as root:
        same(unlinked(bench.call(show, root)), unlinked(expected_closed), "the kernel's upper directory, as we read it")


@bounded
@given(layers=layers, operations=sequences)
def test_the_union_does_what_an_ordinary_file_system_does(
    bench: Rig, layers: Layers, operations: list[Operation]
) -> None:
    operations = without_marks(operations)
    bench.build(layers)
    with bench.mounted("ours", KIND) as root:
        results, seen_open, seen_closed = bench.call(replay, root, operations)
    if KIND != "ours":
        operations, results = without_refused_renames(operations, results)
    with bench.mounted("plain", "plain") as root:
        expected, expected_open, expected_closed = bench.call(replay, root, operations)
    same_results(operations, results, expected)
    same(seen_open, expected_open, "the tree, files being open")
    same(seen_closed, expected_closed, "the tree")
    with bench.mounted("again", KIND, above="ours") as root:
        same(bench.call(show, root), expected_closed, "the upper directory, read again")


linked = st.lists(st.tuples(st.just("link"), paths, st.sampled_from(["a", "b", "../a", "../b", "../a/a"])), max_size=6)


@bounded
@given(links=linked, operations=sequences)
def test_hard_links_of_a_lower_layer_stay_one_file(bench: Rig, links: list[Entry], operations: list[Operation]) -> None:
    """As on an ordinary file system: the kernel's overlayfs breaks them when one is brought up."""
    if KIND != "ours":
        pytest.skip("the others do not")
    operations = without_marks(operations)
    bench.build([[*SKELETON, ("file", "c/a", 0o644, 0, "c", 1), ("link", "c/b", "a"), *links]])
    with bench.mounted("plain", "plain") as root:
        expected, expected_open, expected_closed = bench.call(replay, root, operations)
    with bench.mounted("ours", KIND) as root:
        results, seen_open, seen_closed = bench.call(replay, root, operations)
    same_results(operations, results, expected)
    same(seen_open, expected_open, "the tree, files being open")
    same(seen_closed, expected_closed, "the tree")
    with bench.mounted("again", KIND, above="ours") as root:
        again = bench.call(show, root)
    same(without_links(again), without_links(expected_closed), "the upper directory, read again")


def without_links(tree: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A file that has stayed below, and has lost a name, has again as many links as its layer says once it is mounted
    anew; the kernel's overlayfs always says so."""
    return {path: {what: value for what, value in of.items() if what != "links"} for path, of in tree.items()}


@pytest.mark.parametrize("layers", [1, 2])
def test_a_listing_misses_nothing_and_repeats_nothing_while_files_come_and_go(bench: Rig, layers: int) -> None:
    stay: list[Entry] = [("file", f"stay{number}", 0o644, 0, "", 0) for number in range(2000)]
    go: list[Entry] = [("file", f"{what}{number}", 0o644, 0, "", 0) for what in ("go", "move") for number in range(200)]
    bench.build([[*stay, *go]] if layers == 1 else [[*stay[::2], *go[::2]], [*go[1::2], *stay[1::2], *stay[::3]]])
    with bench.mounted("ours", KIND) as root:
        assert bench.call(change_while_listing, root, 2000, 16) == ([], [])


def test_the_space_that_is_told_is_that_of_the_upper_file_system(bench: Rig) -> None:
    bench.build([SKELETON])
    with bench.mounted("kernel", "kernel") as root:
        expected = bench.call(statfs, root)
    with bench.mounted("ours", KIND) as root:
        assert bench.call(statfs, root) == expected


def test_holes_are_told_and_kept(bench: Rig) -> None:
    """The kernel's overlayfs tells those of the layer; which a copy has is its own choice.

    With the kernel's cache of writes none are told: see tests/fuse/test_corners.py.
    """
    if KIND != "ours":
        pytest.skip("the others' copies have others")
    bench.build([[("sparse", "a", 3_000_000, 1_500_000)]])
    look = [("seek", 0, offset, whence) for offset in (0, 1_600_000) for whence in (os.SEEK_DATA, os.SEEK_HOLE)]
    with bench.mounted("kernel", "kernel") as root:
        expected, _, _ = bench.call(replay, root, [("open", 0, "a", os.O_RDONLY, 0), *look])
    with bench.mounted("ours", KIND, options="writeback=0") as root:
        seen, _, _ = bench.call(replay, root, [("open", 0, "a", os.O_RDONLY, 0), *look])
        again, _, _ = bench.call(replay, root, [("chmod", "a", 0o600), ("open", 0, "a", os.O_RDWR, 0), *look])
    assert seen == expected
    assert again[2:] == expected[1:]
