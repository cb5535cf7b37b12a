"""Records of what could not be made: written, read back, and moved with what they speak of."""

from pathlib import Path

from rootless.store.recorded import move_recorded, read_recorded, write_recorded
from rootless.store.settle import Moved
from rootless.store.unpack import Recorded

ENTRIES = [
    Recorded(b"var/run/\xff\n", 0, 7, 0o100644, None, ((b"security.capability", b"\0\1"),)),
    Recorded(b"var/runner", 1000, 1000, 0o20600, (1, 3), ()),
]


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    write_recorded(str(tmp_path), ENTRIES)
    assert read_recorded(str(tmp_path)) == ENTRIES


def test_a_layer_without_records_has_none(tmp_path: Path) -> None:
    assert read_recorded(str(tmp_path)) == []
    move_recorded(str(tmp_path), [Moved(b"a", b"b")])
    assert list(tmp_path.iterdir()) == []


def test_records_follow_a_directory_that_was_moved_and_no_other(tmp_path: Path) -> None:
    write_recorded(str(tmp_path), ENTRIES)
    move_recorded(str(tmp_path), [Moved(b"var/run", b"run")])
    assert [entry.path for entry in read_recorded(str(tmp_path))] == [b"run/\xff\n", b"var/runner"]
