"""Profiles: which of their entries count in which circumstances, and what is no profile."""

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.errors import HostUnsupported, InvalidInput
from rootless.spec import seccomp_builtin
from rootless.spec.seccomp import parse
from rootless.spec.seccomp_filter import compile_filter
from rootless.spec.seccomp_numbers import ARCHITECTURES, numbers
from rootless.spec.seccomp_profile import Circumstances, load, parse_kernel, resolve

HERE = Circumstances(frozenset({"CAP_CHOWN", "CAP_SYS_CHROOT"}), "x86_64", (6, 1))


def counts(entry: dict[str, Any], circumstances: Circumstances = HERE) -> bool:
    """Whether the entry is there in the end."""
    document = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_ALLOW", **entry}]}
    return bool(resolve(load(json.dumps(document)), circumstances)["syscalls"])


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, True),
        ({"includes": {}, "excludes": None}, True),
        ({"includes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}}, False),  # all of them
        ({"excludes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}}, False),  # any of them
        ({"excludes": {"caps": ["CAP_KILL"]}}, True),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["s390x"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.10"}}, False),
        ({"excludes": {"minKernel": "4.8"}}, False),
        ({"excludes": {"minKernel": "6.2"}}, True),
        ({"includes": {"caps": ["CAP_CHOWN"]}, "excludes": {"arches": ["amd64"]}}, False),
    ],
)
def test_an_entry_counts_where_its_conditions_hold(entry: dict[str, Any], expected: bool) -> None:
    assert counts(entry) is expected


def test_what_is_left_is_a_section_of_the_runtime_specification() -> None:
    text = """{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}],
        "syscalls": [{"name": "read", "action": "SCMP_ACT_ALLOW", "args": null, "comment": "why"},
                     {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EPERM",
                      "args": [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]}]}"""
    assert resolve(load(text), HERE) == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
             "args": [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]},
        ],
    }  # fmt: skip
    elsewhere = resolve(load(text), HERE._replace(machine="aarch64"))
    assert elsewhere["architectures"] == ["SCMP_ARCH_AARCH64"]
    assert "architectures" not in resolve(load(text), HERE._replace(machine="riscv64"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "decoding seccomp profile failed"),
        ("[1]", "an object is needed"),
        ("[" * 100000, "decoding seccomp profile failed"),
        ('{"architectures": ["SCMP_ARCH_X86"], "archMap": [{}]}', "either 'architectures' or 'archMap'"),
        ('{"archMap": ["x"]}', "archMap"),
        ('{"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": [1]}]}', "subArchitectures"),
        ('{"syscalls": {"names": []}}', "syscalls: a list"),
        ('{"syscalls": [7]}', "syscalls[0]"),
        ('{"syscalls": [{"name": "a", "names": ["b"]}]}', "either 'name' or 'names'"),
        ('{"syscalls": [{"names": ["a"], "includes": [1]}]}', "includes and excludes are objects"),
        ('{"syscalls": [{"names": ["a"], "includes": {"caps": "CAP_KILL"}}]}', "caps: a list"),
        ('{"syscalls": [{"names": ["a"], "includes": {"minKernel": "new"}}]}', "'new' is no version"),
    ],
)
def test_what_is_no_profile_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):
        load(text)


KEYS = ("defaultAction", "defaultErrnoRet", "architectures", "archMap", "architecture", "subArchitectures", "syscalls",
        "names", "name", "action", "errnoRet", "args", "index", "value", "valueTwo", "op", "includes", "excludes",
        "caps", "arches", "minKernel", "flags", "listenerPath")  # fmt: skip
WORDS = ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "SCMP_CMP_EQ", "SCMP_ARCH_X86", "read", "4.8", "")
leaves = st.none() | st.booleans() | st.integers(-1, 7) | st.just(2**64) | st.sampled_from(WORDS)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
)


@given(st.dictionaries(st.sampled_from(KEYS), anything, max_size=6))
@settings(max_examples=300, deadline=None)
def test_whatever_stands_in_a_file_is_a_profile_or_an_error(document: dict[str, Any]) -> None:
    with suppress(InvalidInput, HostUnsupported):
        section = resolve(load(json.dumps(document)), HERE)
        compile_filter(parse(section), "x86_64")


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.1.0-18-amd64", (6, 1)),
        ("5.15", (5, 15)),
        ("6.18-rc1", (6, 18)),
        ("4.19+", (4, 19)),
        ("x", None),
        ("6", None),
    ],
)
def test_versions_of_kernels(release: str, version: tuple[int, int] | None) -> None:
    assert parse_kernel(release) == version


def test_every_name_of_the_builtin_profile_is_a_call() -> None:
    known = {name for architecture in ARCHITECTURES for name in numbers(architecture)}
    named = [n for entry in seccomp_builtin.profile().entries for n in entry.call["names"]]
    # Of other machines; and calls that i386 has behind socketcall(2) alone.
    elsewhere = {"recv", "riscv_hwprobe", "send"} | {"sync_file_range2"}
    assert set(named) - known <= elsewhere
    [everywhere, *_] = seccomp_builtin.profile().entries
    assert len(everywhere.call["names"]) == len(set(everywhere.call["names"])) > 300


def test_each_start_gets_a_section_of_its_own() -> None:
    first = resolve(seccomp_builtin.profile(), HERE)
    first["syscalls"].clear()
    assert resolve(seccomp_builtin.profile(), HERE)["syscalls"]
