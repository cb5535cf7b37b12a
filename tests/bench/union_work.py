"""What is done in a mounted union while it is measured: `python union_work.py NAME PATH` prints the seconds it took.

A small process per measurement; its own start is not in the figure. Nothing is imported that is not used.
"""

import os
import random
import sys
import time

FILES_IN_DIRECTORY = 100
BLOCK = 4096
CHUNK = 1 << 20
RANDOM_BLOCKS = 10_000
CYCLES = 3000


def make_tree(path: str, files: int, size: int) -> None:
    """*files* small files, a hundred in each directory, of *size* bytes on average."""
    content = os.urandom(2 * size)
    for number in range(files):
        directory = f"{path}/d{number // FILES_IN_DIRECTORY}"
        if number % FILES_IN_DIRECTORY == 0:
            os.makedirs(directory)
        with open(f"{directory}/file{number}", "wb") as file:
            file.write(content[: number * 7919 % (2 * size + 1)])


def stat_all(path: str) -> None:
    """Every name and its status, as `ls -lR`."""
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            stat_all(entry.path)
        os.lstat(entry.path)


def read_all(path: str) -> None:
    """Every file from its beginning to its end."""
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            read_all(entry.path)
        else:
            fd = os.open(entry.path, os.O_RDONLY)
            while os.read(fd, CHUNK):
                pass
            os.close(fd)


def append(path: str) -> None:
    """A line at the end of a file."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"one line more\n")
    os.close(fd)


def write(path: str, size: str) -> None:
    """A file of *size* bytes, a mebibyte at a time."""
    block = bytes(CHUNK)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for _ in range(int(size) // CHUNK):
        os.write(fd, block)
    os.close(fd)


def read(path: str) -> None:
    """A file, a mebibyte at a time."""
    buffer = bytearray(CHUNK)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def cycle(path: str) -> None:
    """Create, rename, unlink: each of them for all files."""
    for number in range(CYCLES):
        os.close(os.open(f"{path}/a{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    for number in range(CYCLES):
        os.rename(f"{path}/a{number}", f"{path}/b{number}")
    for number in range(CYCLES):
        os.unlink(f"{path}/b{number}")


def random_read(path: str) -> None:
    """Blocks of 4 KiB from everywhere in a file."""
    fd = os.open(path, os.O_RDONLY)
    for offset in _offsets(fd):
        os.pread(fd, BLOCK, offset)
    os.close(fd)


def random_write(path: str) -> None:
    """Blocks of 4 KiB to everywhere in a file."""
    block = b"x" * BLOCK
    fd = os.open(path, os.O_WRONLY)
    for offset in _offsets(fd):
        os.pwrite(fd, block, offset)
    os.close(fd)


def _offsets(fd: int) -> list[int]:
    """The same ones each time."""
    blocks = os.fstat(fd).st_size // BLOCK
    places = random.Random(1)
    return [places.randrange(blocks) * BLOCK for _ in range(RANDOM_BLOCKS)]


def main(name: str, *arguments: str) -> None:
    """Do it and print how long it took; `name*2` does it twice, and prints two figures."""
    name, _, times = name.partition("*")
    action = globals()[name]
    for _ in range(int(times or 1)):
        began = time.perf_counter()
        action(*arguments)
        print(time.perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
