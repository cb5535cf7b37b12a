"""What a pull shows on a terminal, and what it writes to a file."""

import fcntl
import io
import os
import re
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from rootless.cli.progress import Progress
from rootless.cli.streams import OutputClosed


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal:
    """A terminal of some size: what was written to it, and what stands on its screen and above."""

    def __init__(self, columns: int, rows: int) -> None:
        self.main_fd, self.side_fd = os.openpty()
        fcntl.ioctl(self.side_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        attributes = termios.tcgetattr(self.side_fd)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(self.side_fd, termios.TCSANOW, attributes)
        os.set_blocking(self.main_fd, False)
        self.stream = os.fdopen(self.side_fd, "w", encoding="utf-8", closefd=False)
        self.columns, self.rows = columns, rows
        self.lines = [""]
        self.cursor = 0
        self.written = 0

    def close(self) -> None:
        self.stream.close()
        os.close(self.side_fd)
        os.close(self.main_fd)

    def read(self) -> list[str]:
        """The lines, having done what was written since the last time; as a terminal of the size would."""
        data = b""
        while True:
            try:
                data += os.read(self.main_fd, 65536)
            except BlockingIOError:
                break
        self.written += len(data)
        for found in re.finditer(r"\x1b\[(\d*)([A-Z])|(\n)|([^\x1b\n]+)", data.decode()):
            count, letter, newline, text = found.groups()
            if letter == "A":
                assert int(count) < self.rows or int(count) < len(self.lines)
                assert int(count) <= self.rows - 1, "the cursor cannot go above the screen"
                self.cursor -= int(count)
            elif letter == "J":
                del self.lines[self.cursor + 1 :]
            elif letter == "K":
                pass  # the text before it replaced the whole line, here
            elif newline:
                self.cursor += 1
                self.lines += [""] * (self.cursor + 1 - len(self.lines))
            else:
                assert len(text) < self.columns, "the line would wrap"
                self.lines[self.cursor] = text
        return self.lines[: self.cursor]


@pytest.fixture
def terminal() -> Iterator[Callable[[int, int], Terminal]]:
    made: list[Terminal] = []

    def make(columns: int = 100, rows: int = 24) -> Terminal:
        made.append(Terminal(columns, rows))
        return made[-1]

    yield make
    for each in made:
        each.close()


def file() -> TextIO:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


def content(stream: TextIO) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


def test_a_file_gets_a_line_for_each_new_state() -> None:
    stream = file()
    with Progress(stream) as progress:
        progress.line("latest: Pulling from library/busybox")
        progress.status("a1", "Pulling fs layer")
        for done in range(0, 1000, 100):
            progress.advance("a1", done, 1000, "Downloading")
        progress.status("b2", "Already exists")
        progress.status("b2", "Already exists")
        progress.advance("a1", 0, 1000, "Extracting")
        progress.status("a1", "Pull complete")
    assert content(stream).splitlines() == [
        "latest: Pulling from library/busybox",
        "a1: Pulling fs layer",
        "a1: Downloading",
        "b2: Already exists",
        "a1: Extracting",
        "a1: Pull complete",
    ]


def test_quiet_is_quiet() -> None:
    stream = file()
    with Progress(stream, quiet=True) as progress:
        progress.line("x")
        progress.status("a1", "x")
        progress.advance("a1", 1, 2, "y")
    assert content(stream) == ""


def test_a_terminal_shows_the_last_state_of_each_layer_in_its_place(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    clock = Clock()
    with Progress(screen.stream, clock=clock) as progress:
        progress.line("latest: Pulling from library/busybox")
        for identifier in ("a1", "b2"):
            clock.now += 1
            progress.status(identifier, "Waiting")
        clock.now += 1
        progress.advance("a1", 6_150_000, 12_300_000, "Downloading")
        assert screen.read() == [
            "latest: Pulling from library/busybox",
            "a1: Downloading [=========================>                        ]  6.15MB/12.3MB",
            "b2: Waiting",
        ]
        clock.now += 1
        progress.advance("b2", 5, None, "Downloading")
        progress.line("a warning")
        assert screen.read()[1:] == [
            "a warning",
            "a1: Downloading [=========================>                        ]  6.15MB/12.3MB",
            "b2: Downloading      5B",
        ]
        progress.status("a1", "Pull complete")
        progress.status("b2", "Pull complete")
    assert screen.read()[2:] == ["a1: Pull complete", "b2: Pull complete"]


def test_a_terminal_is_drawn_ten_times_a_second_at_most(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    clock = Clock()
    with Progress(screen.stream, clock=clock) as progress:
        progress.advance("a1", 0, 10_000, "Downloading")
        screen.read()
        first = screen.written
        for done in range(0, 10_000, 10):
            clock.now += 0.0001
            progress.advance("a1", done, 10_000, "Downloading")
        screen.read()
        assert screen.written - first < 3 * first


def test_lines_are_cut_and_bars_shortened_to_a_narrow_terminal(terminal: Callable[..., Terminal]) -> None:
    for columns in (1, 2, 10, 20, 40, 50, 60, 79):
        screen = terminal(columns)
        with Progress(screen.stream) as progress:
            progress.advance("a1b2c3d4e5f6", 5_000_000, 9_000_000, "Downloading")
        assert all(len(line) < columns for line in screen.read())


def test_a_bar_is_full_at_the_end_and_never_fuller(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    with Progress(screen.stream) as progress:
        progress.advance("a1", 12, 10, "Downloading")
    assert screen.read() == [f"a1: Downloading [{'=' * 50}]     10B/10B"]


def test_more_layers_than_lines_are_shown_around_the_one_that_changes(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(80, 5)
    clock = Clock()
    names = [f"layer{i}" for i in range(20)]
    with Progress(screen.stream, clock=clock) as progress:
        for name in (*names, "layer3", "layer12"):
            clock.now += 1
            progress.status(name, "Waiting" if name in progress._states else "Pulling")
            assert any(line.startswith(f"{name}: ") for line in screen.read()[-4:])
    final = screen.read()[-20:]
    assert [line.partition(":")[0] for line in final] == names


def test_what_would_steer_the_terminal_is_shown(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    with Progress(screen.stream) as progress:
        progress.line("evil\x1b[2J\r\nline")
        progress.status("a1\n", "x\x1b]52;c;\x07")
    assert screen.read() == [r"evil\x1b[2J\r\nline", r"a1\n: x\x1b]52;c;\x07"]


def test_threads_may_report(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    with Progress(screen.stream) as progress:

        def work(name: str) -> None:
            for done in range(200):
                progress.advance(name, done, 200, "Downloading")
            progress.status(name, "Pull complete")

        threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(screen.read()) == [f"t{i}: Pull complete" for i in range(4)]


def test_a_reader_that_went_away_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with open(write_fd, "w") as stream, pytest.raises(OutputClosed), Progress(stream) as progress:
        progress.status("a1", "Waiting")
