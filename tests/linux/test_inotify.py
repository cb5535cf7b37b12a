import os
from pathlib import Path

import pytest

from rootless.linux.inotify import Change, Changed, Watch

PATIENCE = 20.0


def told(watch: Watch, *expected: Changed) -> list[Changed]:
    """All that is told until each of *expected* has been."""
    found: list[Changed] = []
    while not set(expected) <= set(found):
        changes = watch.read(PATIENCE)
        assert changes, f"{set(expected) - set(found)} is not told of, but {found}"
        found += changes
    return found


def there(path: Path) -> Changed:
    return Changed(str(path), Change.THERE)


def gone(path: Path) -> Changed:
    return Changed(str(path), Change.GONE)


def test_files_that_are_written_moved_and_removed_are_told_of_by_path(tmp_path: Path) -> None:
    with Watch([str(tmp_path)]) as watch:
        assert watch.read(0) == []
        file = tmp_path / "a"
        file.write_text("x")
        told(watch, there(file))
        file.rename(tmp_path / "b")
        told(watch, gone(file), there(tmp_path / "b"))
        (tmp_path / "b").chmod(0o600)
        told(watch, there(tmp_path / "b"))
        (tmp_path / "b").unlink()
        told(watch, gone(tmp_path / "b"))


def test_directories_that_appear_are_watched_with_what_is_in_them_already(tmp_path: Path) -> None:
    deep = tmp_path / "root" / "a" / "b" / "c"
    (tmp_path / "root").mkdir()
    with Watch([str(tmp_path / "root")]) as watch:
        deep.mkdir(parents=True)
        (deep / "early").touch()
        told(watch, there(deep / "early"))
        (deep / "late").touch()
        told(watch, there(deep / "late"))


def test_a_directory_that_is_moved_is_told_of_under_its_other_name(tmp_path: Path) -> None:
    old, other = tmp_path / "root" / "old", tmp_path / "root" / "other"
    (old / "in").mkdir(parents=True)
    (old / "in" / "file").touch()
    with Watch([str(tmp_path / "root")]) as watch:
        old.rename(other)
        told(watch, gone(old), there(other), there(other / "in" / "file"))
        (other / "in" / "file").write_text("x")
        assert all(str(old) not in change.path for change in told(watch, there(other / "in" / "file")))
        other.rename(tmp_path / "away")
        told(watch, gone(other))
        (tmp_path / "away" / "in" / "file").write_text("y")
        (tmp_path / "root" / "end").touch()
        assert {change.path for change in told(watch, there(tmp_path / "root" / "end"))} == {
            str(tmp_path / "root" / "end")
        }


def test_a_file_may_be_replaced_or_not_be_there_yet_and_its_neighbours_are_not_told_of(tmp_path: Path) -> None:
    file, other = tmp_path / "log", tmp_path / "other"
    with Watch([str(file)]) as watch:
        other.touch()
        file.touch()
        told(watch, there(file))
        other.rename(file)
        assert told(watch, there(file)) == [there(file)]


def test_a_directory_that_is_made_anew_is_watched_again(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with Watch([str(root)]) as watch:
        root.rmdir()
        told(watch, gone(root))
        root.mkdir()
        told(watch, there(root))
        (root / "file").touch()
        told(watch, there(root / "file"))


def test_links_are_not_followed_and_what_is_skipped_is_not_watched(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (root / "skipped").mkdir(parents=True)
    (root / "link").symlink_to(outside)
    with Watch([str(root)], lambda path: path.endswith("/skipped")) as watch:
        (outside / "file").touch()
        (root / "skipped" / "file").touch()
        (root / "end").touch()
        assert {change.path for change in told(watch, there(root / "end"))} == {str(root / "end")}


def test_names_that_are_not_text_come_through(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\n")
    with Watch([str(tmp_path)]) as watch:
        (tmp_path / name).touch()
        told(watch, there(tmp_path / name))


def test_changes_that_are_lost_are_told_of_and_directories_found_again(tmp_path: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 100_000:
        pytest.skip("the kernel's queue is too long here")
    files = [tmp_path / "a", tmp_path / "b"]
    with Watch([str(tmp_path)]) as watch:
        for number in range(most):  # the same event twice in a row would be one
            os.close(os.open(files[number % 2], os.O_CREAT | os.O_WRONLY))
        (tmp_path / "unseen").mkdir()
        told(watch, Changed("", Change.LOST))
        (tmp_path / "unseen" / "file").touch()
        told(watch, there(tmp_path / "unseen" / "file"))


def test_what_cannot_be_watched_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError, match="inotify_add_watch"):
        Watch([str(tmp_path / "none" / "file")])
    assert len(os.listdir("/proc/self/fd")) == len(before)
