"""logs: reading a container's json-file log, also while it grows and rotates."""

import json
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from rootless.engine.context import Engine
from rootless.errors import RootlessError
from rootless.store.containers import LIVE

_BLOCK = 1 << 16
_POLL_SECONDS = 0.05


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
    reader = _Reader(path)
    try:
        entries = reader.tail(tail) if tail is not None else reader.all()
        for entry in entries:
            moment = nanoseconds(entry.time)
            if until is not None and moment > until:
                return
            if since is None or moment >= since:
                yield entry
        while follow and (until is None or time.time_ns() < until):
            # Asked before reading: what is written before the end is seen in the last round.
            alive = engine.containers.state(container_id)["status"] in LIVE
            came = False
            for entry in reader.more():
                came = True
                if until is not None and nanoseconds(entry.time) > until:
                    return
                yield entry
            if not alive:
                return
            if not came:
                time.sleep(_POLL_SECONDS)
    finally:
        reader.close()


class _Reader:
    """Reads the files of one log, oldest first, and stays at the end of the newest."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None
        self._rest = b""

    def _open_newest(self) -> int | None:
        """The fd of the newest file, opened if it is not; None where there is none yet."""
        if self._fd is None:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
        return self._fd

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _rotated(self) -> list[str]:
        """The older files, oldest first."""
        paths = []
        n = 1
        while os.path.exists(f"{self._path}.{n}"):
            paths.append(f"{self._path}.{n}")
            n += 1
        return paths[::-1]

    def all(self) -> Iterator[Entry]:
        """Every entry there is."""
        for path in self._rotated():
            try:
                with open(path, "rb") as file:
                    for line in file:
                        if entry := parse(line):
                            yield entry
            except FileNotFoundError:
                continue
        yield from self.more()

    def tail(self, count: int) -> list[Entry]:
        """The last *count* entries, read from the end."""
        found: list[Entry] = []
        fd = self._open_newest()
        if fd is not None:
            end = os.fstat(fd).st_size
            found = _last_entries(fd, end, count)
            os.lseek(fd, end, os.SEEK_SET)
        for path in reversed(self._rotated()):
            if len(found) >= count:
                break
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = _last_entries(fd, os.fstat(fd).st_size, count - len(found)) + found
            finally:
                os.close(fd)
        return found

    def more(self) -> Iterator[Entry]:
        """What was written since; goes on with the next file where the log was rotated."""
        while (fd := self._open_newest()) is not None:
            while data := os.read(fd, _BLOCK):
                lines = (self._rest + data).split(b"\n")
                self._rest = lines.pop()
                for line in lines:
                    if entry := parse(line):
                        yield entry
            try:
                newest = os.stat(self._path)
            except FileNotFoundError:
                return
            mine = os.fstat(fd)
            if (newest.st_dev, newest.st_ino) == (mine.st_dev, mine.st_ino):
                return
            if os.lseek(fd, 0, os.SEEK_CUR) < mine.st_size:
                continue  # written between our last read and the rotation
            self.close()
            self._rest = b""


def _last_entries(fd: int, end: int, count: int) -> list[Entry]:
    """The last *count* entries of the first *end* bytes."""
    if count <= 0:
        return []
    block = b""
    position = end
    while position > 0 and block.count(b"\n") <= count:
        size = min(_BLOCK, position)
        position -= size
        block = os.pread(fd, size, position) + block
    lines = block.split(b"\n")
    if position > 0:
        del lines[0]
    return [entry for line in lines if (entry := parse(line))][-count:]


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
