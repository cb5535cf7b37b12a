"""Layers that try to leave their directory, through `pull`: what is refused leaves nothing, the rest stays inside."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.account import Installation
from tests.support.canary import Canary
from tests.support.evil_tar import (
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    SYMLINK,
    archive,
    base256,
    entry,
    header,
    pax_header,
)
from tests.support.fault_registry import FaultRegistry
from tests.support.hostile import Box, busybox, failure, packed, serve
from tests.support.layout import directory, file, symlink

pytestmark = pytest.mark.kernel

Served = Callable[..., str]


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    canary = Canary(tmp_path / "victim")
    yield canary
    assert canary.changes() == []


@pytest.fixture
def served(hostile: FaultRegistry) -> Served:
    """The name of an image of busybox and these layers."""
    return lambda *layers: serve(hostile, busybox(), *layers)


def remains(rootless: Installation) -> dict[str, list[str]]:
    """What the store has of layers, images and half-made things."""
    store = rootless.data / "rootless"
    return {
        name: sorted(path.name for path in (store / name).iterdir()) for name in ("layers", "images", "tags", "trash")
    }


def refused(box: Box, name: str) -> str:
    """What `pull` says of an image that it must not take, and of which it must not keep any layer that is bad."""
    before = remains(box.rootless)
    said = failure(box.rootless, "pull", name, status=[1])
    assert remains(box.rootless) == before
    return said


# Refused, as a whole (T01, T11, T13, T14)


def up(canary: Canary) -> bytes:
    return b"../" * 12 + bytes(canary.top)[1:]


REFUSED: dict[str, Callable[[Canary], bytes]] = {
    "..": lambda c: entry(b".."),
    "../x": lambda c: entry(b"../x", content=b"x"),
    "/../x": lambda c: entry(b"/../x", content=b"x"),
    "a/../../x": lambda c: entry(b"a", DIRECTORY) + entry(b"a/../../x", content=b"x"),
    "to the canary": lambda c: entry(up(c) + b"/file", content=b"pwned"),
    "as a pax path": lambda c: entry(b"harmless", content=b"pwned", pax={b"path": up(c) + b"/file"}),
    "directory": lambda c: entry(up(c) + b"/sub", DIRECTORY, mode=0o777),
    "link": lambda c: entry(up(c) + b"/new", SYMLINK, link=b"/etc"),
    "hard link": lambda c: entry(b"mine", HARD_LINK, link=up(c) + b"/file"),
    "hard link through a link": lambda c: entry(b"l", SYMLINK, link=bytes(c.top))
    + entry(b"mine", HARD_LINK, link=b"l/file"),
    "whiteout of ..": lambda c: entry(b".wh..."),
    "whiteout of .": lambda c: entry(b".wh.."),
    "whiteout of nothing": lambda c: entry(b".wh."),
    "whiteout upwards": lambda c: entry(b"x/../.wh.etc"),
    "whiteout of the canary": lambda c: entry(up(c) + b"/.wh.file"),
    "root as a link": lambda c: entry(b".", SYMLINK, link=bytes(c.top)) + entry(b"file", content=b"pwned"),
    "root as a file": lambda c: entry(b"./", content=b"pwned"),
    "8 EiB": lambda c: header(b"huge", size=base256(2**63 - 1, 12)),
    "less than nothing": lambda c: header(b"negative", size=base256(-1, 12)),
    "an endless record": lambda c: header(b"pax", b"x", size=1 << 30),
    "a million global headers": lambda c: pax_header({b"comment": b"x" * 400}, b"g") * 5000,
    "cut": lambda c: entry(b"whole", content=b"x" * 5000)[:2000],
    "owner 2^63": lambda c: entry(b"owned", pax={b"uid": b"9223372036854775808"}),
    "sparse beyond any disk": lambda c: entry(
        b"big", content=b"0\n".ljust(512, b"\0"), pax={
            b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9000000000000000000"
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_layer_that_leads_out_or_makes_no_sense_is_refused_whole(
    box: Box, served: Served, canary: Canary, what: str
) -> None:  # T01, T04, T11, T13, T14
    good = entry(b"before", content=b"good")
    end = b"" if what in ("cut", "8 EiB", "an endless record") else entry(b"after", content=b"good") + bytes(1024)
    said = refused(box, served(archive(good, REFUSED[what](canary), end=end)))
    assert "Errno" not in said


# Taken, and inside (T02 to T04, T06, T13, T14)


def test_what_goes_through_links_arrives_inside(box: Box, served: Served, canary: Canary) -> None:  # T02, T03, T13
    """One layer with all of it; where it went is looked at in a container."""
    top = bytes(canary.top)
    layer = archive(
        # a link to an absolute path, and a file through it
        entry(b"through", SYMLINK, link=top),
        entry(b"through/file", content=b"1"),
        # the same upwards, in two hops
        entry(b"inner", DIRECTORY),
        entry(b"inner/up", SYMLINK, link=b".."),
        entry(b"inner/up/escape", SYMLINK, link=b"../" * 12 + top[1:]),
        entry(b"escape/passwd", content=b"2"),
        # legal, and common
        entry(b"var", DIRECTORY),
        entry(b"var/run", SYMLINK, link=b"/run"),
        entry(b"var/run/legal", content=b"3"),
        # a link takes the place of a directory that is known already
        entry(b"known", DIRECTORY),
        entry(b"known/one", content=b"4"),
        entry(b"known", SYMLINK, link=top),
        entry(b"known/file", content=b"5"),
        # a directory takes the place of a link; what was written through it stays where it is
        entry(b"flip", SYMLINK, link=top),
        entry(b"flip", DIRECTORY),
        entry(b"flip/file", content=b"6"),
        # a hard link to a link is a link; mode, owner and time of what a link leads to are nobody's
        entry(b"link", SYMLINK, link=top + b"/setuid", mode=0o777, uid=1, mtime=1),
        entry(b"again", HARD_LINK, link=b"link"),
        entry(b"again", content=b"7"),
        # absolute names, dots, an empty name, a duplicate
        entry(b"/absolute", content=b"8"),
        entry(b"././dotted", content=b"9"),
        entry(b"twice", content=b"no"),
        entry(b"twice", FIFO),
        entry(b"twice", CHARACTER, major=1, minor=1),
        entry(b"twice", content=b"10"),
        entry(b"./", DIRECTORY, mode=0),
    )
    name = served(layer)
    box.rootless.run("pull", "-q", name)
    files = [f"{canary.top}/file", f"{canary.top}/passwd", "/run/legal", "/flip/file", "/again", "/absolute", "/dotted"]
    script = (
        "cd /; for f; do echo $(cat $f); done; ls -ld /link /twice | cut -c1-10; cat twice; ls -A /victim /known/one"
    )
    said = box.rootless.run("run", "--rm", name, "sh", "-c", script, "sh", *files, check=False).stdout.split()
    assert said == ["5", "2", "3", "6", "7", "8", "9", "lrwxrwxrwx", "-rw-r--r--", "10"]


@pytest.mark.parametrize("target", ["VICTIM", "../../../../../../../../../../../..VICTIM", "/data/new"])
def test_a_link_that_a_lower_layer_planted_leads_nowhere_outside(  # T02, CVE-2025-47290
    box: Box, served: Served, canary: Canary, target: str
) -> None:
    link = target.replace("VICTIM", str(canary.top))
    lower = packed([symlink("planted", link), directory("data"), directory("data/new")])
    upper = packed([file("planted/passwd", b"pwned"), file("planted/sub/deeper", b"pwned")])
    name = served(lower, upper)
    box.rootless.run("pull", "-q", name)
    script = "cat /planted/passwd /planted/sub/deeper && readlink -f /planted/passwd"
    said = box.rootless.run("run", "--rm", name, "sh", "-c", script).stdout
    assert said.startswith("pwnedpwned/")


def test_whiteouts_hide_what_is_below_and_delete_nothing_else(box: Box, served: Served, canary: Canary) -> None:  # T14
    top = bytes(canary.top)
    lower = packed([directory("a"), file("a/gone", b"x"), file("a/kept", b"x"), symlink("led", str(canary.top))])
    upper = archive(
        entry(b"a/.wh.gone"),
        entry(b"led/.wh.file"),  # through a link of the lower layer
        entry(b"own", SYMLINK, link=top),
        entry(b"own/.wh.passwd"),  # through one of its own
        entry(b"own/.wh..wh..opq"),
        entry(b".wh.home", content=b"content means nothing"),
        entry(b"a/.wh.nothing"),
    )
    name = served(lower, upper)
    box.rootless.run("pull", "-q", name)
    said = box.rootless.run(
        "run", "--rm", name, "sh", "-c", "ls a; ls -d /home; ls -A $0", str(canary.top), check=False
    )
    assert said.stdout.split() == ["kept"]


def test_markers_of_ours_in_an_archive_mark_nothing(box: Box, served: Served, canary: Canary) -> None:  # T09, F03
    """A character device 0:0 and overlayfs's attributes would hide the lower layers' files."""
    lower = packed([directory("a"), file("a/kept", b"x"), file("b", b"x")])
    attributes = {
        b"SCHILY.xattr.user.overlay.opaque": b"y",
        b"SCHILY.xattr.trusted.overlay.opaque": b"y",
        b"SCHILY.xattr.user.overlay.redirect": b"/etc",
        b"SCHILY.xattr.user.rootless.owner": b"0:0",
    }
    upper = archive(
        entry(b"a", DIRECTORY, pax=attributes),
        entry(b"b", CHARACTER, major=0, minor=0),
        entry(b"c", content=b"x", pax={b"SCHILY.xattr.user.overlay.whiteout": b"y"}),
    )
    name = served(lower, upper)
    box.rootless.run("pull", "-q", name)
    assert box.rootless.run("run", "--rm", name, "cat", "/a/kept", "/b", "/c").stdout == "xxx"


# Removal (T21)


def test_hostile_trees_can_be_removed(box: Box, served: Served, canary: Canary) -> None:  # T21
    deep = b"/".join([b"d"] * 1000)
    closed = [entry(b"closed", DIRECTORY, mode=0), entry(b"closed/in", DIRECTORY, mode=0)]
    strange = [entry(name, content=b"x") for name in (b"-rf", b"a\nb", b"\xff", b"*", b"~")]
    layer = archive(
        entry(deep, DIRECTORY),
        *closed,
        *strange,
        entry(b"other", DIRECTORY, mode=0o000, uid=1000, gid=1000),
        entry(b"other/file", mode=0, uid=1001),
        entry(b"out", SYMLINK, link=bytes(canary.top)),
    )
    before = remains(box.rootless)
    name = served(layer)
    box.rootless.run("pull", "-q", name)
    script = """
    mkdir -p /tmp/x/y; cd /tmp/x; n=0; while [ $n -lt 300 ]; do mkdir d; cd d; n=$((n+1)); done
    ln -s $0 /tmp/x/link; touch /tmp/x/y/file; chown -R 7:7 /tmp/x; chmod -R 0 /tmp/x; mkfifo /tmp/fifo; chmod 1000 /tmp
    """
    container = box.rootless.run(
        "run", "-d", name, "sh", "-c", f"{script}; exec sleep 600", str(canary.top)
    ).stdout.strip()
    box.rootless.run("exec", container, "true")
    box.rootless.run("rm", "-f", container)
    box.rootless.run("rmi", name)
    assert remains(box.rootless) == before
