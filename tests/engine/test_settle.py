"""What the kernel has of a union's files is handed down before the upper directory is read: settle.py."""

import mmap
import os
from collections.abc import Iterator

import pytest

from rootless.engine import settle
from tests.support.union_rig import Rig, rig

pytestmark = [pytest.mark.kernel, pytest.mark.fuse]

PAGES = 3000
FILES = 200
_open: list[int] = []


@pytest.fixture
def bench() -> Iterator[Rig]:
    with rig() as made:
        yield made


def write_here_and_there(root: str) -> None:
    """Every other page of a file, and a map of each of many, all of which stay open."""
    fd = os.open(f"{root}/large", os.O_RDWR | os.O_CREAT)
    _open.append(fd)
    for page in range(PAGES):
        os.pwrite(fd, b"page %d" % page, page * 2 * mmap.PAGESIZE)
    for number in range(FILES):
        fd = os.open(f"{root}/f{number}", os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 10)
        with mmap.mmap(fd, 10) as shared:
            shared[:5] = b"%05d" % number
        _open.append(fd)


def hand_over(root: str) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    settle.hand_over(fd)
    os.close(fd)


def missing(upper: str) -> list[str]:
    """What of it is not in the upper directory."""
    found = []
    with open(f"{upper}/large", "rb") as file:
        for page in range(PAGES):
            file.seek(page * 2 * mmap.PAGESIZE)
            if not file.read(20).startswith(b"page %d" % page):
                found.append(f"page {page}")
    for number in range(FILES):
        with open(f"{upper}/f{number}", "rb") as file:
            if file.read(5) != b"%05d" % number:
                found.append(f"f{number}")
    return found


def let_go() -> None:
    while _open:
        os.close(_open.pop())


def test_nothing_is_missing_of_what_programs_hold_open(bench: Rig) -> None:
    bench.build([[]])
    with bench.mounted("held", "ours") as root:
        bench.call(write_here_and_there, root)
        try:
            bench.call(hand_over, root)
            assert bench.call(missing, bench.upper("held")) == []
        finally:
            bench.call(let_go)
