"""A file that is removed while it is open lives on for who has it open, wherever its content lies."""

import os
from typing import Literal

import pytest

from tests.support.fuse import union

pytestmark = [pytest.mark.kernel, pytest.mark.fuse]


def changed_after_its_removal(path: str) -> tuple[bytes, int, int, int]:
    """Content after a write and fsync; then size, mode and links after more changes."""
    fd = os.open(path, os.O_RDWR)
    os.unlink(path)
    os.pwrite(fd, b"NEW", 0)
    os.fsync(fd)
    content = os.pread(fd, 100, 0)
    os.ftruncate(fd, 2)
    os.fchmod(fd, 0o640)
    os.utime(fd, (1, 2))
    status = os.fstat(fd)
    os.close(fd)
    return content, status.st_size, status.st_mode & 0o777, int(status.st_mtime)


@pytest.mark.parametrize("where", ["lower", "upper"])
@pytest.mark.parametrize("kind", ["ours", "kernel"])
def test_a_removed_file_can_be_written_and_changed_by_who_has_it_open(
    kind: Literal["ours", "kernel"], where: str
) -> None:
    with union([{"file": b"original"}], kind=kind) as u:
        if where == "upper":
            u.run("sh", "-c", "printf original > upper")
        name = "file" if where == "lower" else "upper"
        assert u.call(changed_after_its_removal, u.at(name)) == (b"NEWginal", 2, 0o640, 2)
        assert name not in u.call(os.listdir, u.at(""))
