"""What is left in the trash goes when who left it is gone; what another machine is making stays."""

import os
from pathlib import Path

from rootless.store.layout import Layout

NOBODY = 2**22 + 1  # above the largest pid that Linux gives, proc_sys_kernel(5)


def make(layout: Layout, name: str) -> Path:
    path = Path(layout.path("trash", name))
    (path / "diff").mkdir(parents=True)
    return path


def test_what_nobody_is_at_any_more_is_removed(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "root"), str(tmp_path / "run"))
    node = os.uname().nodename
    left = [make(layout, f"{NOBODY}.ab.{node}"), make(layout, f"{NOBODY}.ab")]
    kept = [make(layout, f"{os.getpid()}.cd.{node}"), make(layout, f"{NOBODY}.cd.another.example.org")]
    layout.empty_trash()
    assert [path.exists() for path in left] == [False, False]
    assert [path.exists() for path in kept] == [True, True]


def test_a_new_thing_is_not_taken_for_left(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "root"), str(tmp_path / "run"))
    os.mkdir(layout.aside())
    layout.empty_trash()
    assert len(os.listdir(layout.path("trash"))) == 1


def test_a_record_that_a_killed_process_was_writing_is_removed_too(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "root"), str(tmp_path / "run"))
    left = Path(layout.path("trash", f"{NOBODY}.ab.{os.uname().nodename}.{NOBODY}.new"))
    left.write_text("{")
    layout.empty_trash()
    assert not left.exists()
