"""The log in json-file format: entries that other tools can read, none lost, none torn, bounded files."""

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.runtime import jsonlog
from rootless.runtime.jsonlog import MAX_LINE, JsonLog, timestamp


def entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def logged(path: Path, *chunks: bytes, stream: str = "stdout") -> list[str]:
    """The texts of the entries after *chunks* were written one by one."""
    log = JsonLog(str(path))
    for chunk in chunks:
        log.write(stream, chunk)
    log.close()
    return [entry["log"] for entry in entries(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "container.log"


def test_an_entry_is_what_docker_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlog.time, "time_ns", lambda: 1_767_323_045_678_901_234)  # type: ignore[attr-defined]
    logged(path, b'say "hi"\tto <you> & me\n', stream="stderr")
    expected = rb'{"log":"say \"hi\"\tto <you> & me\n","stream":"stderr","time":"2026-01-02T03:04:05.678901234Z"}'
    assert path.read_bytes() == expected + b"\n"


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (1_000_000_001, "1970-01-01T00:00:01.000000001Z"),
        (2**31 * 10**9, "2038-01-19T03:14:08Z"),
        (2**32 * 10**9, "2106-02-07T06:28:16Z"),
    ],
)
def test_times_are_those_of_go(ns: int, text: str) -> None:
    assert timestamp(ns) == text


def test_a_line_is_an_entry_however_it_arrives(path: Path) -> None:
    assert logged(path, b"on", b"e\ntwo\nth", b"", b"ree\n", b"\n") == ["one\n", "two\n", "three\n", "\n"]


def test_a_last_line_without_newline_is_an_entry(path: Path) -> None:
    assert logged(path, b"one\ntwo") == ["one\n", "two"]


def test_streams_do_not_mix(path: Path) -> None:
    log = JsonLog(str(path))
    log.write("stdout", b"out ")
    log.write("stderr", b"err\n")
    log.write("stdout", b"put\n")
    log.close()
    assert [(entry["stream"], entry["log"]) for entry in entries(path)] == [
        ("stderr", "err\n"),
        ("stdout", "out put\n"),
    ]


@pytest.mark.parametrize("size", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE + 7])
@pytest.mark.parametrize("chunk", [1 << 15, 1000])
@pytest.mark.parametrize("end", [b"", b"\n", b"\nnext\n"])
def test_a_long_line_is_cut_and_nothing_of_it_lost_or_doubled(path: Path, size: int, chunk: int, end: bytes) -> None:
    data = bytes(ord("a") + n % 26 for n in range(size)) + end
    texts = logged(path, *(data[n : n + chunk] for n in range(0, len(data), chunk)))
    assert "".join(texts).encode() == data
    assert all(len(text) <= MAX_LINE + 1 for text in texts)
    assert sum(text.endswith("\n") for text in texts) == end.count(b"\n")


def test_a_character_is_not_torn_where_a_line_is_cut(path: Path) -> None:
    line = "aé€😀" * 6000
    data = line.encode()
    assert "".join(logged(path, *(data[n : n + 4095] for n in range(0, len(data), 4095)))) == line


def test_bytes_that_are_no_text_become_replacement_characters(path: Path) -> None:
    assert logged(path, b"a\xff\xfeb\0c\n") == ["a\ufffd\ufffdb\0c\n"]


@pytest.mark.parametrize("data", [b"\xff" * 50_000, b"\x80" * 50_000, b"\xe2\x82" * 25_000])
def test_much_that_is_no_text_is_no_endless_line(path: Path, data: bytes) -> None:
    texts = logged(path, *(data[n : n + 1000] for n in range(0, len(data), 1000)))
    assert len(texts) >= 2
    assert set("".join(texts)) == {"\ufffd"}


@given(chunks=st.lists(st.binary(max_size=300) | st.text(max_size=100).map(str.encode)))
def test_the_entries_are_the_output(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    texts = logged(tmp_path_factory.mktemp("log") / "container.log", *chunks)
    # Bytes that are no text are replaced line by line; what is text comes out as it was.
    assert "".join(texts) == b"".join(chunks).decode("utf-8", "replace")


def files_of(path: Path) -> list[Path]:
    """All files of the log, oldest first."""
    older = sorted(path.parent.glob("container.log.*"), key=lambda p: -int(p.suffix[1:]))
    return [*older, path]


def test_files_rotate_by_size_and_the_oldest_goes(path: Path) -> None:
    log = JsonLog(str(path), max_size=1000, max_files=3)
    for number in range(100):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    assert [file.name for file in files_of(path)] == ["container.log.2", "container.log.1", "container.log"]
    assert all(file.stat().st_size <= 1000 for file in files_of(path))
    kept = [entry["log"] for file in files_of(path) for entry in entries(file)]
    assert kept == [f"line {number}\n" for number in range(100 - len(kept), 100)]
    assert len(kept) > 20


def test_with_one_file_it_begins_anew(path: Path) -> None:
    log = JsonLog(str(path), max_size=300, max_files=1)
    log.write("stdout", b"".join(b"line %d\n" % number for number in range(50)))
    log.close()
    assert os.listdir(path.parent) == ["container.log"]
    assert path.stat().st_size <= 300
    assert entries(path)[-1]["log"] == "line 49\n"


def test_an_entry_larger_than_a_file_is_written_whole(path: Path) -> None:
    log = JsonLog(str(path), max_size=100, max_files=2)
    log.write("stdout", b"x" * 500 + b"\n" + b"y\n")
    log.close()
    assert [entry["log"] for file in files_of(path) for entry in entries(file)] == ["x" * 500 + "\n", "y\n"]


def test_a_log_goes_on_where_it_was(path: Path) -> None:
    logged(path, b"first\n")
    assert logged(path, b"second\n") == ["first\n", "second\n"]


def test_a_torn_entry_does_not_take_the_next_along(path: Path) -> None:
    path.write_bytes(b'{"log":"whole\\n","stream":"stdout","time":"x"}\n{"log":"to')
    log = JsonLog(str(path))
    log.write("stdout", b"next\n")
    log.close()
    *_, torn, last = path.read_bytes().splitlines()
    assert torn == b'{"log":"to'
    assert json.loads(last)["log"] == "next\n"


def with_full_disk(write: Callable[[], None], limit: int) -> None:
    """Call *write* in a child that can make no file larger than *limit* bytes."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            write()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_full_disk_costs_whole_entries_and_says_so(path: Path) -> None:
    def write() -> None:
        log = JsonLog(str(path))
        for number in range(100):
            log.write("stdout", b"line %d\n" % number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        log.write("stdout", b"room again\n")
        log.close()

    with_full_disk(write, limit=1000)
    texts = [entry["log"] for entry in entries(path)]
    kept = len(texts) - 2
    assert texts[:kept] == [f"line {number}\n" for number in range(kept)]
    assert texts[kept:] == [f"[rootless: {100 - kept} log entries were lost: the disk was full]\n", "room again\n"]


def test_where_files_cannot_rotate_the_log_goes_on(path: Path) -> None:
    log = JsonLog(str(path), max_size=200, max_files=3)
    log.write("stdout", b"before\n")
    path.parent.chmod(0o500)
    try:
        for number in range(9):
            log.write("stdout", b"line %d\n" % number)
    finally:
        path.parent.chmod(0o700)
    log.write("stdout", b"after\n")
    log.close()
    texts = [entry["log"] for file in files_of(path) for entry in entries(file)]
    assert texts == ["before\n", *(f"line {number}\n" for number in range(9)), "after\n"]
