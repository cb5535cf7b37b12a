"""The table of numbers, against the kernel's headers and libseccomp, as far as the machine has them."""

import re
from pathlib import Path

import pytest

from rootless.spec import seccomp_numbers
from tests.support import libseccomp

_HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")
_NEWEST_OF_TABLE = 469


def test_every_architecture_has_its_calls() -> None:
    x86_64, i386 = seccomp_numbers.numbers("SCMP_ARCH_X86_64"), seccomp_numbers.numbers("SCMP_ARCH_X86")
    assert (x86_64["read"], x86_64["clone3"], x86_64["execve"]) == (0, 435, 59)
    assert (i386["read"], i386["clone3"], i386["socketcall"]) == (3, 435, 102)
    assert seccomp_numbers.numbers("SCMP_ARCH_X32")["execve"] == 0x40000000 | 520
    assert seccomp_numbers.numbers("SCMP_ARCH_AARCH64")["read"] == 63
    assert seccomp_numbers.numbers("SCMP_ARCH_ARM")["set_tls"] == 0xF0005
    for architecture in seccomp_numbers.ARCHITECTURES:
        assert max(n & 0xFFFF for n in seccomp_numbers.numbers(architecture).values()) >= _NEWEST_OF_TABLE


def test_an_architecture_without_numbers_is_an_error() -> None:
    with pytest.raises(KeyError):
        seccomp_numbers.numbers("SCMP_ARCH_S390X")


def test_what_is_behind_socketcall_and_ipc() -> None:
    assert seccomp_numbers.behind("socketcall")["socket"] == 1
    assert seccomp_numbers.behind("socketcall")["sendmmsg"] == 20
    assert seccomp_numbers.behind("ipc")["shmctl"] == 24


@pytest.mark.skipif(not _HEADERS.exists(), reason="the kernel's headers (linux-libc-dev) are not installed")
@pytest.mark.parametrize(
    ("architecture", "header"), [("X86_64", "unistd_64.h"), ("X32", "unistd_x32.h"), ("X86", "unistd_32.h")]
)
def test_the_kernels_headers_have_the_same_numbers(architecture: str, header: str) -> None:
    table = seccomp_numbers.numbers(f"SCMP_ARCH_{architecture}")
    bit = seccomp_numbers.X32_BIT if architecture == "X32" else 0
    text = (_HEADERS / header).read_text()
    found = re.findall(r"#define __NR_(\w+) \(?(?:__X32_SYSCALL_BIT \+ )?(\d+)\)?", text)
    assert len(found) > 300
    theirs = {name: int(number) | bit for name, number in found}
    later = {name for name, number in found if _NEWEST_OF_TABLE < int(number) < 512}
    assert theirs == {name: theirs[name] if name in later else table.get(name) for name in theirs}


@pytest.mark.skipif(libseccomp.LIBRARY is None, reason="libseccomp is not installed")
@pytest.mark.parametrize("architecture", seccomp_numbers.ARCHITECTURES)
def test_libseccomp_has_the_same_numbers(architecture: str) -> None:
    table = seccomp_numbers.numbers(architecture)
    multiplexed = {**seccomp_numbers.behind("socketcall"), **seccomp_numbers.behind("ipc")}
    wrong = []
    for name in {n for a in seccomp_numbers.ARCHITECTURES for n in seccomp_numbers.numbers(a)}:
        theirs = libseccomp.number(architecture, name)
        if theirs == -1 and not libseccomp.knows(name):
            continue  # it is older than the call
        if theirs < 0 and architecture == "SCMP_ARCH_X86" and name in multiplexed:
            continue  # which have made-up numbers there
        if (architecture, name) == ("SCMP_ARCH_X32", "map_shadow_stack"):
            continue  # Linux 6.6 had none for x32
        if (theirs if theirs >= 0 else None) != table.get(name):
            wrong.append((name, table.get(name), theirs))
    assert wrong == []
