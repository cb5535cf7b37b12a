"""The probe itself: what the other tests take from it has to be true."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import probe

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probe is written for x86_64 only")

SIGALRM, SIGSEGV = 14, 11


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "probe"
    path.write_bytes(probe.program())
    path.chmod(0o755)
    return path


def run(program: Path, *words: str) -> list[probe.Answer]:
    done = subprocess.run([program, *words], check=True, capture_output=True, text=True)
    return probe.answers(done.stdout)


def test_results_are_those_of_the_calls(program: Path) -> None:
    getuid, getppid = ("102",), ("110",)
    assert run(program, *probe.calls(getuid, getppid)) == [probe.Answer(os.getuid()), probe.Answer(os.getpid())]


def test_a_failure_is_a_negative_number(program: Path) -> None:
    [answer] = run(program, *probe.calls(("2", "=/nonexistent", 0)))
    assert answer.result == -2


def test_strings_memory_and_the_last_result_can_be_arguments(program: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    words = probe.calls(("2", f"={tmp_path}/file", 0), ("0", "@", "%8", 100), ("1", 1, "%8", "@"))
    done = subprocess.run([program, *words], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(" 0000000000000003\n 0000000000000005\nhello ")


def test_all_bits_of_a_number_get_to_the_kernel(program: Path) -> None:
    """lseek(2) of an fd whose upper half is ignored, and an offset whose upper half is not."""
    words = probe.calls(("2", "=/dev/null", 0), ("8", "0x100000003", "-0x10000000000", 0))
    assert run(program, *words)[1].result == 0  # lseek of /dev/null answers 0 whatever the offset


def test_other_entries_are_reached(program: Path) -> None:
    """getpid by its number among the 32-bit calls. That of x32 is another's, unless the kernel has x32."""
    [plain, old] = run(program, *probe.calls(("39",), ("i20",)))
    assert plain == old or old.status  # a kernel without the 32-bit entry answers by a signal


def test_what_ends_a_process_ends_only_its_fork(program: Path) -> None:
    pause, exit_group = ("f34",), ("f231", 7)
    answers = run(program, *probe.calls(pause, exit_group, ("102",)))
    assert [answers[0].signal, answers[1].status, answers[2].result] == [SIGALRM, 7 << 8, os.getuid()]


def test_another_program_can_be_executed(program: Path) -> None:
    done = subprocess.run([program, "59", "=/bin/echo", "*", "0", ",", "echo", "hi"], capture_output=True, text=True)
    assert done.stdout == "hi\n"


def test_the_path_of_a_script_is_passed_over(program: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!{program}\n")
    script.chmod(0o755)
    assert run(script, "102")[0].result == os.getuid()
