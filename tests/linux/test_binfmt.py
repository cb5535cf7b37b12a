"""Interpreters of binfmt_misc: entries as the kernel prints them."""

from pathlib import Path

import pytest

from rootless.linux.binfmt import elf_begin, has_interpreter, takes

ARM64 = """enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: {flags}
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


def test_an_interpreter_that_is_held_open_takes_programs_of_its_machine() -> None:
    entry = ARM64.format(flags="POCF")
    for architecture, expected in (("arm64", True), ("amd64", False), ("riscv64", False), ("s390x", False)):
        begin = elf_begin(architecture)
        assert begin is not None
        assert takes(entry, begin) is expected, architecture


@pytest.mark.parametrize(
    "entry",
    [
        ARM64.format(flags="OC"),
        ARM64.format(flags="F").replace("enabled", "disabled"),
        ARM64.format(flags="F").replace("magic 7f", "magic xx"),
        "enabled\ninterpreter /usr/bin/run\nflags: F\nextension .jar\n",
        "",
    ],
)
def test_others_do_not(entry: str) -> None:
    assert not takes(entry, elf_begin("arm64") or b"")


def test_a_directory_of_entries(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("enabled\n")
    assert not has_interpreter("arm64", str(tmp_path))
    (tmp_path / "qemu-aarch64").write_text(ARM64.format(flags="F"))
    assert has_interpreter("arm64", str(tmp_path))
    assert not has_interpreter("riscv64", str(tmp_path))
    assert not has_interpreter("no such machine", str(tmp_path))
    assert not has_interpreter("arm64", str(tmp_path / "missing"))
