"""logs: reading a container's json-file log, also while it grows and rotates."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import NamedTuple

from rootless.engine.context import Engine
from rootless.errors import NotFound, RootlessError
from rootless.store.containers import LIVE

_BLOCK = 1 << 16
_POLL_SECONDS = 0.05
_TRIES = 1000  # to find a file among names that change meanwhile


class Entry(NamedTuple):
    """One entry of the log: a line, or the part of one."""

    stream: str  # stdout or stderr
    time: str  # RFC 3339 with nanoseconds, UTC
    text: str


def logs(
    engine: Engine,
    container_id: str,
    *,
    tail: int | None = None,
    since: int | None = None,
    until: int | None = None,
    follow: bool = False,
) -> Iterator[Entry]:
    """The entries of the log, the last *tail* of them; times are ns of the epoch. With *follow*, until it ends.

    Damaged entries, as a killed machine may leave, are passed over. Raises NotFound; RootlessError where the driver
    keeps no log.
    """
    record = engine.containers.load(container_id)
    if record["log"]["driver"] == "none":
        raise RootlessError("configured logging driver does not support reading", hint="it is `none`: nothing is kept")
    path = os.path.join(engine.containers.directory(container_id), "container.log")
    with closing(Reader(path)) as reader:
        for entry in _entries(engine, container_id, reader, tail, until, follow):
            moment = nanoseconds(entry.time)
            if until is not None and moment > until:
                return
            if since is None or moment >= since:
                yield entry


def _entries(
    engine: Engine, container_id: str, reader: "Reader", tail: int | None, until: int | None, follow: bool
) -> Iterator[Entry]:
    yield from reader.begin() if tail is None else reader.begin_with_last(tail)
    while follow:
        # Asked before reading: what is written before the end is seen in the last round.
        goes_on = _is_live(engine, container_id) and (until is None or time.time_ns() < until)
        yield from reader.more()
        if not goes_on:
            return
        time.sleep(_POLL_SECONDS)


def _is_live(engine: Engine, container_id: str) -> bool:
    try:
        return engine.containers.state(container_id)["status"] in LIVE
    except NotFound:
        return False  # it was --rm; the log is still open


class Reader:
    """Reads the files of one log in the order in which they were written, also while they grow and rotate.

    A file keeps its inode when it is renamed, from `container.log` to `container.log.1` and on. So one that is open
    can be found again among the names, and with it the one that was begun after it. While files are being renamed, a
    name in the middle may be missing for a moment.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None
        self._rest = b""
        self._waiting: list[int] = []

    def close(self) -> None:
        """Let go of all files."""
        self._go_on_with(None)
        while self._waiting:
            os.close(self._waiting.pop())

    def begin(self) -> Iterator[Entry]:
        """Every entry there is."""
        self._waiting = self._open_all()
        while self._waiting:
            self._go_on_with(self._waiting.pop(0))
            yield from self._read()

    def begin_with_last(self, count: int) -> list[Entry]:
        """The last *count* entries, read from the end."""
        found: list[Entry] = []
        self._waiting = self._open_all()
        if self._waiting:
            newest = self._waiting.pop()
            self._go_on_with(newest)
            end = _end_of_last_line(newest)
            os.lseek(newest, end, os.SEEK_SET)
            found = _last_entries(newest, end, count)
        while self._waiting:
            fd = self._waiting.pop()
            if len(found) < count:
                found = _last_entries(fd, os.fstat(fd).st_size, count - len(found)) + found
            os.close(fd)
        return found

    def more(self) -> Iterator[Entry]:
        """What was written since; goes on with the next files where the log was rotated."""
        if self._fd is None:
            try:
                self._go_on_with(self._open(0))
            except FileNotFoundError:
                return
        yield from self._read()
        while (successor := self._open_successor()) is not None:
            yield from self._read()  # what was written between our last look and the rotation
            self._go_on_with(successor)
            yield from self._read()

    def _go_on_with(self, fd: int | None) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._rest = fd, b""

    def _read(self) -> Iterator[Entry]:
        """The entries from where we are to the end of the file, but for one that is not complete."""
        while self._fd is not None and (data := os.read(self._fd, _BLOCK)):
            *lines, self._rest = (self._rest + data).split(b"\n")
            yield from filter(None, map(parse, lines))

    def _name(self, number: int) -> str:
        return f"{self._path}.{number}" if number else self._path

    def _open(self, number: int) -> int:
        return os.open(self._name(number), os.O_RDONLY | os.O_CLOEXEC)

    def _numbers(self) -> Iterator[int]:
        """The numbers of the files that there are, 0 for the newest, up to one after which two are missing."""
        number = missing = 0
        while missing < 2:
            if os.path.exists(self._name(number)):
                missing = 0
                yield number
            else:
                missing += 1
            number += 1

    def _open_all(self) -> list[int]:
        """All files, oldest first: the newest is opened first, and must still be the newest after the last."""
        while True:
            fds: list[int] = []
            for number in self._numbers():
                with suppress(FileNotFoundError):
                    fds.append(self._open(number))
            if not fds or self._is(next(self._numbers(), 0), fds[0]):
                return fds[::-1]
            for fd in fds:
                os.close(fd)

    def _open_successor(self) -> int | None:
        """The file that was begun after ours; None where that is the newest."""
        if self._fd is None:
            return None
        for _ in range(_TRIES):
            numbers = list(self._numbers())
            ours = next((number for number in numbers if self._is(number, self._fd)), None)
            if ours == 0 or not numbers:
                return None
            if ours is None and os.fstat(self._fd).st_nlink:
                continue  # it was renamed while we looked
            # Where ours has been removed already, all the others were begun after it.
            wanted = numbers[-1] if ours is None else ours - 1
            try:
                fd = self._open(wanted)
            except FileNotFoundError:
                return None  # just being renamed: it is there when we are asked again
            if self._is(wanted, fd) and (ours is None or self._is(ours, self._fd)):
                return fd
            os.close(fd)
        return None

    def _is(self, number: int, fd: int) -> bool:
        """Whether the file of that number is the one that is open as *fd*."""
        try:
            return os.path.samestat(os.stat(self._name(number)), os.fstat(fd))
        except FileNotFoundError:
            return False


def _last_entries(fd: int, position: int, count: int) -> list[Entry]:
    """The last *count* entries in the first bytes of a file, up to *position*."""
    if count <= 0:
        return []
    block, size = b"", _BLOCK
    while position > 0 and block.count(b"\n") <= count:
        start = max(0, position - size)
        block = os.pread(fd, position - start, start) + block
        position = start
        size *= 2
    lines = block.split(b"\n")
    if position > 0:
        del lines[0]
    return [entry for line in lines if (entry := parse(line))][-count:]


def _end_of_last_line(fd: int) -> int:
    """Where the entry begins that is just being written."""
    position = os.fstat(fd).st_size
    while position > 0:
        start = max(0, position - _BLOCK)
        newline = os.pread(fd, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def parse(line: bytes) -> Entry | None:
    """One line of the file; None for one that is damaged or empty."""
    try:
        fields = json.loads(line)
        return Entry(str(fields["stream"]), str(fields["time"]), str(fields["log"]))
    except (ValueError, KeyError, TypeError):
        return None


def nanoseconds(text: str) -> int:
    """ns of the epoch of a time that jsonlog.timestamp wrote; 0 for anything else."""
    try:
        whole, _, fraction = text.rstrip("Z").partition(".")
        date, _, clock = whole.partition("T")
        year, month, day = map(int, date.split("-"))
        hour, minute, second = map(int, clock.split(":"))
    except ValueError:
        return 0
    days = _days_from_civil(year, month, day)
    return (
        ((days * 24 + hour) * 60 + minute) * 60_000_000_000
        + second * 1_000_000_000
        + int(fraction.ljust(9, "0")[:9] or 0)
    )


def _days_from_civil(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468
