"""linux/files.py: what is written is whole, whatever write(2) takes at a time."""

import os
from concurrent.futures import ThreadPoolExecutor

from rootless.linux.files import write_all


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
