"""logs: what a container said, all of it once and in order, while it grows and rotates and after its end."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.engine.logs import Entry, Reader, nanoseconds, parse
from rootless.runtime.jsonlog import JsonLog, timestamp
from tests.support.containers import Box, cpu_seconds


def texts(entries: Iterator[Entry] | list[Entry]) -> list[str]:
    return [entry.text for entry in entries]


def numbers(count: int, first: int = 0) -> list[str]:
    return [f"{n}\n" for n in range(first, first + count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "container.log"


# --- reading files, without a container


@pytest.mark.parametrize(
    "text", ["1970-01-01T00:00:00Z", "2026-01-02T03:04:05.000000001Z", "2038-01-19T03:14:08Z", "2106-02-07T06:28:16.5Z"]
)
def test_times_are_read_as_they_are_written(text: str) -> None:
    assert timestamp(nanoseconds(text)) == text


@pytest.mark.parametrize("text", ["", "x", "2026-01-02", "2026-01-02T03:04Z", "0000-00-00T00:00:xxZ", "é"])
def test_what_is_no_time_is_the_epoch(text: str) -> None:
    assert nanoseconds(text) == 0


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"1", b"null", b'{"log":"x"}', b'{"log":"x","stream":"stdout"}', b"\xff", b"\0"]
)
def test_a_damaged_entry_is_passed_over(line: bytes) -> None:
    assert parse(line) is None


def test_damaged_entries_in_between_keep_nothing_from_being_read(path: Path) -> None:
    whole = json.dumps({"log": "whole\n", "stream": "stdout", "time": "2026-01-02T03:04:05Z"}).encode()
    path.write_bytes(b"\n".join([whole, b'{"log":"to', whole, b"\0\0\0", b"\xff{}", whole, b'{"log":"la']))
    assert texts(Reader(str(path)).begin()) == ["whole\n"] * 3
    assert texts(Reader(str(path)).begin_with_last(2)) == ["whole\n"] * 2


@pytest.mark.parametrize("count", [0, 1, 5, 63, 64, 65, 1000, 100_000])
def test_the_last_entries_are_the_last_over_all_files(count: int, path: Path) -> None:
    log = JsonLog(str(path), max_size=4000, max_files=9)
    for text in numbers(600):
        log.write("stdout", text.encode())
    log.close()
    kept = texts(Reader(str(path)).begin())
    assert 300 < len(kept) < 600
    assert texts(Reader(str(path)).begin_with_last(count)) == (kept[-count:] if count else [])


def test_after_the_last_entries_comes_what_is_written_next(path: Path) -> None:
    log = JsonLog(str(path), max_size=1000, max_files=3)
    log.write("stdout", b"".join(text.encode() for text in numbers(30)))
    reader = Reader(str(path))
    assert texts(reader.begin_with_last(2)) == numbers(2, 28)
    log.write("stdout", b"30\n31\n")
    assert texts(reader.more()) == numbers(2, 30)


def test_an_entry_that_is_half_written_is_read_when_it_is_whole(path: Path) -> None:
    line = json.dumps({"log": "x\n", "stream": "stdout", "time": "2026-01-02T03:04:05Z"}).encode() + b"\n"
    path.write_bytes(line + line[:20])
    for tail in (None, 5):
        reader = Reader(str(path))
        assert texts(reader.begin() if tail is None else reader.begin_with_last(tail)) == ["x\n"]
        assert texts(reader.more()) == []
        with path.open("ab") as file:
            file.write(line[20:])
        assert texts(reader.more()) == ["x\n"]
        with path.open("r+b") as file:
            file.truncate(len(line) + 20)


def test_a_log_that_begins_later_is_read_from_its_beginning(path: Path) -> None:
    reader = Reader(str(path))
    assert texts(reader.begin()) == []
    assert texts(reader.more()) == []
    JsonLog(str(path)).write("stdout", b"0\n")
    assert texts(reader.more()) == numbers(1)


def test_files_that_came_and_went_between_two_looks_are_read_in_order(path: Path) -> None:
    log = JsonLog(str(path), max_size=200, max_files=50)
    log.write("stdout", b"0\n1\n")
    reader = Reader(str(path))
    assert texts(reader.begin()) == numbers(2)
    for text in numbers(60, 2):
        log.write("stdout", text.encode())
    assert len(os.listdir(path.parent)) > 20
    assert texts(reader.more()) == numbers(60, 2)


def test_a_reader_that_is_far_behind_goes_on_with_the_oldest_there_is(path: Path) -> None:
    log = JsonLog(str(path), max_size=200, max_files=3)
    log.write("stdout", b"0\n1\n")
    reader = Reader(str(path))
    assert texts(reader.begin()) == numbers(2)
    for text in numbers(60, 2):
        log.write("stdout", text.encode())
    found = texts(reader.more())
    assert found == numbers(len(found), 62 - len(found))
    assert len(found) > 4


def test_a_name_that_is_missing_for_a_moment_is_no_end(path: Path) -> None:
    log = JsonLog(str(path), max_size=200, max_files=50)
    for text in numbers(20):
        log.write("stdout", text.encode())
    between = path.with_name("container.log.2")
    between.rename(path.with_name("aside"))
    assert len(texts(Reader(str(path)).begin())) == 18
    path.rename(path.with_name("container.log.2"))
    assert texts(Reader(str(path)).begin())[:4] == numbers(4)


@pytest.mark.parametrize("tail", [None, 3])
def test_followers_of_a_log_that_rotates_fast_miss_nothing(tail: int | None, path: Path) -> None:
    count = 20_000
    log = JsonLog(str(path), max_size=20_000, max_files=1000)
    log.write("stdout", b"begin\n" * 5)
    ended = threading.Event()
    results: list[list[str]] = []

    def follow() -> None:
        reader = Reader(str(path))
        found = texts(reader.begin() if tail is None else reader.begin_with_last(tail))
        while True:
            last = ended.is_set()
            found += texts(reader.more())
            if last:
                break
        reader.close()
        results.append(found)

    followers = [threading.Thread(target=follow) for _ in range(4)]
    for follower in followers:
        follower.start()
    for start in range(0, count, 50):
        log.write("stdout", "".join(numbers(50, start)).encode())
    log.close()
    ended.set()
    for follower in followers:
        follower.join()
    begins = 5 if tail is None else tail
    for found in results:
        first = next(n for n, text in enumerate(found) if text != "begin\n")
        assert first <= begins
        assert found[first:] == numbers(count - int(found[first]), int(found[first]))


# --- logs of containers


kernel = pytest.mark.kernel
registry = pytest.mark.registry


@kernel
@registry
def test_streams_go_where_they_came_from_and_stamps_are_times(box: Box) -> None:
    box("run", "--name", "said", box.image, "sh", "-c", "echo out; echo err >&2; printf end")
    done = box("logs", "said")
    assert (done.stdout, done.stderr) == ("out\nend", "err\n")
    stamped = box("logs", "-t", "said")
    assert re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (out\n|end)){2}", stamped.stdout)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z err\n", stamped.stderr)


@kernel
@registry
@pytest.mark.parametrize(
    ("tail", "expected"),
    [("0", []), ("1", ["5"]), ("3", ["3", "4", "5"]), ("99", list("12345")), ("all", list("12345"))],
)
def test_tail_is_the_last_lines(tail: str, expected: list[str], box: Box) -> None:
    box("run", "--name", "said", box.image, "seq", "1", "5")
    assert box.logs("said", "--tail", tail).split() == expected


@kernel
@registry
def test_since_and_until_are_moments_or_spans(box: Box) -> None:
    box("run", "--name", "said", box.image, "sh", "-c", "for n in 1 2 3 4; do echo $n; sleep 0.05; done")
    stamps = [line.split()[0] for line in box.logs("said", "-t").splitlines()]
    assert box.logs("said", "--since", stamps[1]).split() == ["2", "3", "4"]
    assert box.logs("said", "--until", stamps[2]).split() == ["1", "2", "3"]
    assert box.logs("said", "--since", stamps[1], "--until", stamps[2]).split() == ["2", "3"]
    assert box.logs("said", "--since", "1h").split() == list("1234")
    assert box.logs("said", "--until", "1h").split() == []
    assert box.logs("said", "-f", "--until", stamps[0]).split() == ["1"]


@kernel
@registry
def test_following_shows_what_comes_and_ends_with_the_container(box: Box) -> None:
    box.detached("for n in 1 2 3; do echo $n; sleep 0.2; done; echo end >&2; exit 3", "--name", "talks")
    done = box("logs", "-f", "talks", timeout=20)
    assert (done.stdout, done.stderr) == ("1\n2\n3\n", "end\n")
    assert box("logs", "-f", "talks", timeout=20).stdout == "1\n2\n3\n"


@kernel
@registry
def test_following_a_container_that_removes_itself_ends_well(box: Box) -> None:
    box.detached("for n in 1 2 3; do echo $n; sleep 0.3; done", "--rm", "--name", "talks")
    done = box("logs", "-f", "talks", timeout=20)
    assert (done.stdout, done.stderr) == ("1\n2\n3\n", "")


@kernel
@registry
def test_following_over_a_restart_goes_on(box: Box) -> None:
    box.detached("echo run; sleep 0.1; exit 1", "--restart", "on-failure:2", "--name", "again")
    assert box("logs", "-f", "again", timeout=20).stdout == "run\n" * 3


@kernel
@registry
def test_a_follower_that_is_no_longer_read_ends(box: Box) -> None:
    box.detached("while :; do echo x; sleep 0.02; done", "--name", "talks")
    with box.start("logs", "-f", "talks") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"x\n"
        running.stdout.close()
        assert running.wait(10) == 141
        assert running.stderr is not None
        assert running.stderr.read() == b""


@kernel
@registry
def test_following_silence_costs_little(box: Box) -> None:
    box.detached("echo on; sleep 60", "--name", "silent")
    with box.start("logs", "-f", "silent") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"on\n"
        before = cpu_seconds(running.pid)
        time.sleep(1)
        assert cpu_seconds(running.pid) - before < 0.1
        running.kill()


@kernel
@registry
def test_no_line_is_lost_doubled_or_reordered_while_the_log_rotates(box: Box) -> None:
    """52,000 lines, five followers, and a log that rotates about 25 times."""
    options = ("--log-opt", "max-size=200k", "--log-opt", "max-file=100", "--name", "busy")
    box.detached("sleep 0.3; seq 1 26000; sleep 0.3; seq 26001 52000", *options)
    followers = [box.start("logs", "-f", "busy") for _ in range(5)]
    results = [follower.communicate(timeout=60) for follower in followers]
    expected = "".join(f"{n}\n" for n in range(1, 52_001)).encode()
    assert [(out == expected, err) for out, err in results] == [(True, b"")] * 5
    assert box.logs("busy").encode() == expected
    assert box.logs("busy", "--tail", "30000").split() == [str(n) for n in range(22_001, 52_001)]
    directory = box.state_file(box.inspect("busy")["Id"]).parent
    sizes = [file.stat().st_size for file in directory.glob("container.log*")]
    assert len(sizes) > 15
    assert max(sizes) <= 200 << 10


@kernel
@registry
def test_files_stay_bounded_whatever_comes(box: Box) -> None:
    options = ("--log-opt", "max-size=50k", "--log-opt", "max-file=3", "--name", "busy")
    box("run", *options, box.image, "seq", "1", "100000")
    directory = box.state_file(box.inspect("busy")["Id"]).parent
    files = sorted(directory.glob("container.log*"))
    assert [file.name for file in files] == ["container.log", "container.log.1", "container.log.2"]
    assert all(file.stat().st_size <= 50 << 10 for file in files)
    assert box.logs("busy").split()[-1] == "100000"


@kernel
@registry
@pytest.mark.parametrize(
    "options", [("max-size=nonsense",), ("max-size=10x",), ("max-file=0",), ("max-file=x",), ("nonsense=1",)]
)
def test_log_options_that_cannot_be_are_refused(options: tuple[str, ...], box: Box) -> None:
    done = box.run("true", options=tuple(f"--log-opt={option}" for option in options), check=False)
    assert done.returncode == 125
    assert "Traceback" not in done.stderr
    assert box.ids() == []


@kernel
@registry
def test_without_a_log_there_is_nothing_to_read(box: Box) -> None:
    box("run", "--name", "quiet", "--log-driver", "none", box.image, "echo", "x")
    done = box("logs", "quiet", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "configured logging driver does not support reading" in done.stderr
    assert box.inspect("quiet")["LogPath"] == ""


@kernel
@registry
def test_long_lines_and_bytes_that_are_no_text(box: Box) -> None:
    box(
        "run",
        "--name",
        "long",
        box.image,
        "sh",
        "-c",
        "head -c 1000000 /dev/zero | tr '\\0' x; echo; printf '\\377\\n'",
    )
    assert box.logs("long") == "x" * 1_000_000 + "\n" + "\ufffd\n"


@kernel
@registry
def test_the_log_of_one_that_is_not_there_or_said_nothing(box: Box) -> None:
    assert box("logs", "nobody", check=False).stderr == "rootless: No such container: nobody\n"
    box("create", "--name", "created", box.image, "true")
    assert box.logs("created") == ""
    assert box("logs", "-f", "created", timeout=10).stdout == ""


@kernel
@registry
def test_a_full_disk_costs_lines_and_not_the_container(box: Box) -> None:
    """The store is on a tmpfs of its own, which the container's own volume fills."""
    script = """
        mount -t tmpfs -o size=30m,mode=700 tmpfs "$HOME/small"
        cd "$HOME/small"
        rootless() { "$PROGRAM" --root "$HOME/small/store" "$@"; }
        export XDG_RUNTIME_DIR="$HOME/small/run"; mkdir -m 700 run
        rootless run -d --name full --network none host sh -c '
            echo before; until [ -e /tmp/go ]; do sleep 0.05; done
            seq 1 10000; until [ -e /tmp/room ]; do sleep 0.05; done; echo after; exit 5' >/dev/null
        sleep 0.3; head -c 100m /dev/zero >filler 2>/dev/null
        rootless exec full touch /tmp/go; sleep 0.7
        rm filler; rootless exec full touch /tmp/room
        rootless wait full; rootless logs full | sort -u | head -3; rootless logs full 2>&1 | grep -c lost
    """
    (box.installed.home / "small").mkdir()
    environment = box.installed.env | {"PROGRAM": str(box.installed.program)}
    command = [
        "prlimit",
        f"--msgqueue={box.installed.mark}:",
        "--",
        "unshare",
        "-Umr",
        "--map-auto",
        "--kill-child",
        "-f",
    ]
    done = subprocess.run([*command, "sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    (box.installed.home / "small").rmdir()
    assert done.stdout.split()[0] == "5", done
    assert "after" in done.stdout
    assert done.stdout.split()[-1] == "1"
