"""The log of a container in Docker's json-file format: a JSON object a line, files that rotate by size.

    {"log":"a line\\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}

A line longer than 16 KiB is cut into entries of which only the last ends in a newline. Bytes that are no UTF-8 become
U+FFFD, as JSON has no other way. A full disk costs log lines, which are counted and named when there is room again,
never the container (SECURITY D03).
"""

import os
import time
from _json import encode_basestring as _quote

MAX_LINE = 16 << 10
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class JsonLog:
    """Writes to *path*; with *max_size* in bytes (0: no limit), *path*.1 … are older, *max_files* files in all."""

    __slots__ = ("_fd", "_lost", "_max_files", "_max_size", "_partial", "_path", "_size")

    def __init__(self, path: str, max_size: int = 0, max_files: int = 1) -> None:
        self._path = path
        self._max_size = max_size
        self._max_files = max(1, max_files)
        self._partial = {"stdout": b"", "stderr": b""}
        self._lost = 0
        self._fd = os.open(path, _FLAGS, 0o600)
        self._size = os.fstat(self._fd).st_size
        if self._size and _last_byte(path) != b"\n":
            self._write_out(b"\n", 0)  # a kill has torn the last entry: the next shall not be lost with it

    def write(self, stream: str, data: bytes) -> None:
        """Log what came out of *stream* ("stdout" or "stderr"), as far as lines are complete."""
        complete, newline, rest = data.rpartition(b"\n")
        if newline:
            self._append(stream, self._partial[stream] + complete, ended=True)
            self._partial[stream] = rest
        else:
            self._partial[stream] += rest
        if len(rest := self._partial[stream]) >= MAX_LINE:
            cut = _whole_characters(rest)
            self._partial[stream] = rest[cut:]
            self._append(stream, rest[:cut], ended=False)

    def flush(self) -> None:
        """Log what has no newline, at the end of the output."""
        for stream, rest in self._partial.items():
            if rest:
                self._partial[stream] = b""
                self._append(stream, rest, ended=False)

    def close(self) -> None:
        """Flush, and let go of the file."""
        self.flush()
        os.close(self._fd)

    def _append(self, stream: str, block: bytes, *, ended: bool) -> None:
        """Log *block*, lines of which the last has a newline too if *ended*."""
        tail = f',"stream":"{stream}","time":"{timestamp(time.time_ns())}"}}\n'
        lines = block.decode("utf-8", "replace").split("\n")
        last = None if ended else lines.pop()
        if len(block) > MAX_LINE and max(map(len, lines), default=0) > MAX_LINE:
            entries = [entry for line in lines for entry in _long_line(line, tail)]
        else:
            # Quoted text ends in a quotation mark; in its place go the newline and the rest of the entry.
            end = f'\\n"{tail}'
            entries = [f'{{"log":{_quote(line)[:-1]}{end}' for line in lines]
        if last:
            entries += [f'{{"log":{_quote(piece)}{tail}' for piece in _pieces(last)]
        if not self._max_size:
            self._write_out("".join(entries).encode(), len(entries))
        else:
            self._write_and_rotate([entry.encode() for entry in entries])

    def _write_and_rotate(self, entries: list[bytes]) -> None:
        batch: list[bytes] = []
        size = self._size
        for entry in entries:
            if size and size + len(entry) > self._max_size:
                if batch:
                    self._write_out(b"".join(batch), len(batch))
                self._rotate()
                batch, size = [], self._size
            batch.append(entry)
            size += len(entry)
        self._write_out(b"".join(batch), len(batch))

    def _write_out(self, data: bytes, entries: int) -> None:
        if self._lost:
            note = f"[rootless: {self._lost} log entries were lost: the disk was full]\n"
            mark = f'{{"log":{_quote(note)},"stream":"stderr","time":"{timestamp(time.time_ns())}"}}\n'
            data = mark.encode() + data
        before = self._size
        view = memoryview(data)
        try:
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
            self._lost = 0
        except OSError:
            # Half an entry would be a torn line for ever.
            os.ftruncate(self._fd, before)
            self._size = before
            self._lost += entries

    def _rotate(self) -> None:
        """Begin a new file, which is there before the others move; without one the old file goes on beyond its size."""
        try:
            aside = f"{self._path}.new"
            fd = os.open(aside, _FLAGS | os.O_TRUNC, 0o600)
        except OSError:
            return  # a full disk, most likely
        try:
            for n in range(self._max_files - 1, 0, -1):
                try:
                    os.rename(f"{self._path}.{n - 1}" if n > 1 else self._path, f"{self._path}.{n}")
                except FileNotFoundError:
                    continue
            os.rename(aside, self._path)
        except OSError:
            os.close(fd)
            return  # the same
        os.close(self._fd)
        self._fd, self._size = fd, 0


def _last_byte(path: str) -> bytes:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read()


def _whole_characters(data: bytes) -> int:
    """How many bytes of *data* there are before a character at its end that is not complete: up to three fewer."""
    for back in range(1, 4):
        byte = data[-back]
        if byte & 0xC0 != 0x80:  # no continuation: here the last character begins
            length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if length > back else len(data)
    return len(data)


def _pieces(line: str) -> list[str]:
    return [line[start : start + MAX_LINE] for start in range(0, len(line), MAX_LINE)]


def _long_line(line: str, tail: str) -> list[str]:
    """The entries of a line with a newline, cut where it is too long."""
    return [f'{{"log":{_quote(piece)}{tail}' for piece in _pieces(f"{line}\n")]


def timestamp(ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds, the trailing zeros off: Go's time.RFC3339Nano."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def now() -> str:
    """The time as records and logs have it."""
    return timestamp(time.time_ns())
