"""A journal that many processes write at once: nothing is lost, nothing is mixed, and it does not grow."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from rootless.linux import journal
from tests.support.account import ROOT, wait_until

WRITER = """
import sys
from rootless.linux import journal
path, name, count, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for number in range(count):
    journal.append(path, b'\\n["%s",%d,"%s"]\\n' % (name.encode(), number, b"x" * (number % 700)), size)
"""


def writer(path: Path, name: str, count: int, size: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", WRITER, path, name, str(count), str(size)], cwd=ROOT)


def rows(lines: list[bytes]) -> list[tuple[str, int]]:
    return [(row[0], row[1]) for row in map(json.loads, lines)]


def test_writers_at_once_lose_nothing_and_a_reader_sees_all_of_each_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    reader = journal.Reader(str(path), from_start=False)
    writers = [writer(path, f"w{number}", 500, 300_000) for number in range(4)]  # about 800 kB: it is rotated twice
    found = []
    while any(process.poll() is None for process in writers):
        found += rows(reader.lines())
    found += rows(reader.lines())
    reader.close()
    assert [process.returncode for process in writers] == [0] * 4
    for number in range(4):
        assert [count for name, count in found if name == f"w{number}"] == list(range(500))


def test_a_writer_that_is_killed_leaves_the_others_lines_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    doomed, other = writer(path, "doomed", 1_000_000, 200_000), writer(path, "other", 300, 200_000)
    assert wait_until(lambda: path.exists() and path.stat().st_size > 10_000)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    assert other.wait() == 0
    reader = journal.Reader(str(path), from_start=True)
    lines = reader.lines()
    reader.close()
    whole = [line for line in lines if line.startswith(b"[") and line.endswith(b"]")]
    assert len(lines) - len(whole) <= 1  # the one that it was writing
    assert rows(whole)


def test_a_torn_line_does_not_take_the_next_with_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b'\n["a",1]\n\n["torn')
    journal.append(str(path), b'\n["b",2]\n')
    reader = journal.Reader(str(path), from_start=True)
    assert reader.lines() == [b'["a",1]', b'["torn', b'["b",2]']
    reader.close()


def test_it_keeps_two_files_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for number in range(1000):
        journal.append(str(path), b"\n[%d]\n" % number, 2000)
    assert {name for name in os.listdir(tmp_path) if not name.endswith(".lock")} <= {"journal", "journal.1"}
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2 * 2010
    reader = journal.Reader(str(path), from_start=True)
    kept = [json.loads(line)[0] for line in reader.lines()]
    reader.close()
    assert kept == list(range(kept[0], 1000))


def test_a_reader_begins_before_there_is_a_file_and_goes_on_when_both_are_new(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    reader = journal.Reader(str(path), from_start=False)
    assert reader.lines() == []
    journal.append(str(path), b"\n[1]\n", 1)  # and it is rotated at once
    assert reader.lines() == [b"[1]"]
    journal.append(str(path), b"\n[2]\n")
    assert reader.lines() == [b"[2]"]
    reader.close()


def test_a_reader_from_now_on_is_not_told_of_before(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal.append(str(path), b"\n[1]\n", 1)
    journal.append(str(path), b"\n[2]\n")
    reader = journal.Reader(str(path), from_start=False)
    journal.append(str(path), b"\n[3]\n")
    assert reader.lines() == [b"[3]"]
    reader.close()
