"""linux/files.py: what is written is whole, whatever write(2) takes at a time, or not there."""

import errno
import os
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rootless.linux.files import replacing, write_all


def test_all_is_written_to_a_pipe_that_takes_less_at_a_time() -> None:
    data = bytes(range(256)) * 4096
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, True)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(_read_all, read_fd)
        write_all(write_fd, memoryview(data))
        os.close(write_fd)
        assert job.result(timeout=60) == data


def _read_all(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        with replacing(str(path), 0o600) as file:
            file.write(content)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(TypeError), replacing(str(path)) as file:
        file.write("no bytes")  # type: ignore[arg-type]
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("file", b"second")]


def test_a_kill_leaves_nothing_of_a_file_that_was_being_written(tmp_path: Path) -> None:
    try:
        os.close(os.open(tmp_path, os.O_WRONLY | os.O_TMPFILE))
    except OSError as error:
        pytest.skip(f"O_TMPFILE: {error.strerror}")
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        with replacing(str(tmp_path / "file")) as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.write(write_fd, b".")
            signal.pause()
    assert os.read(read_fd, 1) == b"."
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not list(tmp_path.iterdir())


def test_where_no_file_can_be_without_a_name_it_has_one_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    with replacing(str(tmp_path / "file")) as file:
        file.write(b"content")
        assert [found.suffix for found in tmp_path.iterdir()] == [".new"]
    monkeypatch.undo()
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("file", b"content")]
