"""What the builtin profile refuses, call by call, beside the file that says so: a change of either is to be meant.

`python -m tests.spec.test_seccomp_golden > tests/spec/seccomp_golden.txt` writes the file.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from rootless.spec import runtime, seccomp, seccomp_filter, seccomp_numbers
from rootless.spec.seccomp_builtin import profile
from rootless.spec.seccomp_profile import Circumstances, resolve
from tests.support import bpf

GOLDEN = Path(__file__).with_name("seccomp_golden.txt")
AUDIT = {"X86_64": 0xC000003E, "X32": 0xC000003E, "X86": 0x40000003, "AARCH64": 0xC00000B7, "ARM": 0x40000028}
MACHINES = {"x86_64": ("X86_64", "X32", "X86"), "aarch64": ("AARCH64", "ARM")}
VERDICTS = {seccomp.ERRNO | seccomp.EPERM: "EPERM", seccomp.ERRNO | seccomp.ENOSYS: "ENOSYS"}
DEFAULT = runtime.DEFAULT_CAPABILITIES
GRANTED = {
    "as usual": DEFAULT,
    "--cap-drop ALL": (),
    **{f"--cap-add {name}": (*DEFAULT, f"CAP_{name}") for name in ("SYS_ADMIN", "SYS_PTRACE", "SYS_TIME", "BPF")},
}


def lines() -> Iterator[str]:
    """For each machine, set of capabilities and kind of program: the calls that fail whatever their arguments are."""
    for machine, architectures in MACHINES.items():
        for title, granted in GRANTED.items():
            section = resolve(profile(), Circumstances(frozenset(granted), machine, (6, 1)))
            program = seccomp_filter.compile_filter(seccomp.parse(section), machine)
            for architecture in architectures:
                yield f"{machine} {architecture} {title}"
                for verdict, name in VERDICTS.items():
                    refused = [
                        call
                        for call, number in seccomp_numbers.numbers(f"SCMP_ARCH_{architecture}").items()
                        # An argument that the rules with comparisons allow.
                        if bpf.run(program, AUDIT[architecture], number, (1 if call == "socket" else 0,)) == verdict
                    ]
                    yield from textwrap.wrap(f"{name}: {' '.join(sorted(refused))}", 118, initial_indent="    ",
                                             subsequent_indent="        ")  # fmt: skip


def test_what_is_refused_is_what_the_file_says() -> None:
    assert list(lines()) == GOLDEN.read_text().splitlines()


if __name__ == "__main__":
    print(*lines(), sep="\n")
