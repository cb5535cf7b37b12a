"""The compiler: its programs, run in an interpreter, against the rules read slowly, and against libseccomp's."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rootless.errors import HostUnsupported, InvalidInput
from rootless.spec import seccomp, seccomp_filter, seccomp_numbers
from rootless.spec.seccomp import Seccomp
from rootless.spec.seccomp_builtin import profile
from rootless.spec.seccomp_profile import Circumstances, resolve
from tests.support import bpf, libseccomp

AUDIT = {"X86_64": 0xC000003E, "X32": 0xC000003E, "X86": 0x40000003, "AARCH64": 0xC00000B7, "ARM": 0x40000028}
ABIS = {"x86_64": ("X86_64", "X32", "X86"), "aarch64": ("AARCH64", "ARM")}
NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x50026, 0
X32_BIT = 0x40000000
NEGATIVE = 0xFFFFFFFFFFFFFFFF
# Arguments that the kernel takes for int, with their values of interest.
INTS = {"socket": (0, 1, 2), "personality": (0,), "clone": (0,), "prctl": (0,), "fcntl": (0, 1)}

needs_libseccomp = pytest.mark.skipif(libseccomp.LIBRARY is None, reason="libseccomp is not installed")

CAPABILITIES = {
    "docker": "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE"
    " SYS_CHROOT KILL AUDIT_WRITE",
    "none": "",
    "admin": "SYS_ADMIN",
    "others": "SYS_PTRACE SYS_TIME SYS_MODULE SYS_NICE SYS_RAWIO SYS_BOOT SYS_PACCT SYSLOG BPF PERFMON SYS_TTY_CONFIG"
    " DAC_READ_SEARCH",
}


def builtin(machine: str, capabilities: str, kernel: tuple[int, int] = (6, 1)) -> dict[str, Any]:
    granted = frozenset(f"CAP_{name}" for name in CAPABILITIES[capabilities].split())
    return resolve(profile(), Circumstances(granted, machine, kernel))


# The rules, read slowly.


def compares(rule: dict[str, Any], arguments: Sequence[int], name: str, abi: str) -> bool:
    value, other = rule.get("value", 0), rule.get("valueTwo", 0)
    argument = arguments[rule.get("index", 0)]
    if abi in ("X86", "ARM") or rule.get("index", 0) in INTS.get(name, ()):
        argument &= 0xFFFFFFFF
        value, other = (v & 0xFFFFFFFF if v >= NEGATIVE - 0x7FFFFFFF else v for v in (value, other))
    operator = rule["op"].removeprefix("SCMP_CMP_")
    if operator == "MASKED_EQ":
        return bool(argument & value == other)
    less, equal = argument < value, argument == value
    return bool({"NE": not equal, "LT": less, "LE": less or equal, "EQ": equal, "GE": not less,
                 "GT": not (less or equal)}[operator])  # fmt: skip


def fits(entry: dict[str, Any], arguments: Sequence[int], name: str, abi: str) -> bool:
    rules = entry.get("args") or []
    met = [compares(r, arguments, name, abi) for r in rules]
    repeated = len({r.get("index", 0) for r in rules}) < len(rules)
    return any(met) if repeated else all(met)


def act(entry: dict[str, Any], key: str, errno: str) -> int:
    action = seccomp.ACTIONS[entry[key]]
    return action | entry.get(errno, 1) if action in (seccomp.ERRNO, seccomp.TRACE) else action


def expected(document: dict[str, Any], abi: str, number: int, arguments: Sequence[int]) -> int:
    """What is to come of a call, by a walk through all that the document says."""
    known = seccomp_numbers.numbers(f"SCMP_ARCH_{abi}")
    default = act(document, "defaultAction", "defaultErrnoRet")
    named = {name for entry in document["syscalls"] for name in entry["names"] if name in known}
    newest = max((known[name] for name in named if known[name] & ~X32_BIT < 0xF0000), default=1 << 32)
    hits = []
    for entry in document["syscalls"]:
        for name in entry["names"]:
            if known.get(name) == number:
                hits.append((not entry.get("args"), fits(entry, arguments, name, abi), entry))
    for unconditional in (True, False):
        for plain, holds, entry in hits:
            if plain is unconditional and holds:
                return act(entry, "action", "errnoRet")
    is_permissive = default >> 16 in (ALLOW >> 16, seccomp.LOG >> 16, seccomp.TRACE >> 16)
    if number > newest and not hits and not is_permissive:
        return ENOSYS
    return default


ARGUMENTS = (
    (), (1,), (16,), (12,), (38,), (40,), (45,), (0x100000026,), (0x100000002,), (0x8,), (0x20000,), (0x20008,),
    (0xFFFFFFFF,), (NEGATIVE,), (0x10000000,), (0x11,), (0x7E020000,), (0x100000000,), (0x40000000, 1, 2, 3, 4, 5),
)  # fmt: skip


def numbers_of_interest(abi: str) -> list[int]:
    bit = X32_BIT if abi == "X32" else 0
    private = range(0xF0000, 0xF0008) if abi == "ARM" else range(0)
    return [n | bit for n in (*range(560), *private, 2**30 - 1, 0x3FFFFFFE)]


@pytest.mark.parametrize("machine", ABIS)
@pytest.mark.parametrize("capabilities", CAPABILITIES)
def test_the_builtin_profile_gives_the_verdicts_that_its_rules_say(machine: str, capabilities: str) -> None:
    document = builtin(machine, capabilities)
    program = seccomp_filter.compile_filter(seccomp.parse(document), machine)
    compared = {"socket", "personality", "clone"}
    for abi in ABIS[machine]:
        names = {n: name for name, n in seccomp_numbers.numbers(f"SCMP_ARCH_{abi}").items()}
        for number in numbers_of_interest(abi):
            for arguments in ARGUMENTS if names.get(number) in compared else ARGUMENTS[:2]:
                padded = (*arguments, *[0] * (6 - len(arguments)))
                verdict = bpf.run(program, AUDIT[abi], number, padded)
                assert verdict == expected(document, abi, number, padded), (abi, number, arguments)


def verdict(machine: str, abi: str, name: str, *arguments: int, capabilities: str = "docker") -> int:
    program = seccomp_filter.compile_filter(seccomp.parse(builtin(machine, capabilities)), machine)
    number = seccomp_numbers.numbers(f"SCMP_ARCH_{abi}")[name]
    return bpf.run(program, AUDIT[abi], number, arguments)


@pytest.mark.parametrize(("machine", "abi"), [(m, abi) for m, abis in ABIS.items() for abi in abis])
def test_what_the_builtin_profile_refuses_and_allows(machine: str, abi: str) -> None:
    def of(name: str, *arguments: int, capabilities: str = "docker") -> int:
        return verdict(machine, abi, name, *arguments, capabilities=capabilities)

    assert of("clone3") == ENOSYS
    for name in ("unshare", "mount", "setns", "keyctl", "bpf", "io_uring_setup", "userfaultfd", "pivot_root", "reboot"):
        assert of(name) == EPERM, name
    assert of("clone", 0x11) == of("clone", 0x3D0F00) == ALLOW
    assert of("clone", 0x10000011) == of("clone", 0x02000000) == EPERM
    assert of("ptrace") == of("chroot") == of("read") == of("execve") == ALLOW
    assert of("chroot", capabilities="none") == EPERM
    assert of("mount", capabilities="admin") == of("clone3", capabilities="admin") == ALLOW
    assert of("clone", 0x10000000, capabilities="admin") == ALLOW
    assert of("bpf", capabilities="others") == of("syslog", capabilities="others") == ALLOW
    assert [of("personality", p) for p in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0x40000)] == [ALLOW] * 5 + [EPERM]
    assert [of("socket", f) for f in (1, 2, 10, 16, 17)] == [ALLOW] * 5
    for family in (12, 38, 40, 46, 0x26):
        assert of("socket", family) == EPERM
        if abi in ("X86_64", "AARCH64", "X32"):
            assert of("socket", 1 << 32 | family) == EPERM  # the kernel reads an int


def test_ptrace_needs_a_kernel_that_filters_what_a_tracer_changes() -> None:
    old = seccomp.parse(builtin("x86_64", "docker", (4, 7)))
    program = seccomp_filter.compile_filter(old, "x86_64")
    assert bpf.run(program, AUDIT["X86_64"], 101) == EPERM


@pytest.mark.parametrize("machine", ABIS)
def test_programs_are_small_and_short(machine: str) -> None:
    program = seccomp_filter.compile_filter(seccomp.parse(builtin(machine, "docker")), machine)
    assert len(bpf.decode(program)) < 600
    [abi, *_] = ABIS[machine]
    steps = [bpf.trace(program, AUDIT[abi], number)[1] for number in range(470)]
    assert max(steps) <= 16
    assert sum(steps) / len(steps) < 13


def test_other_architectures_are_killed() -> None:
    program = seccomp_filter.compile_filter(seccomp.parse(builtin("x86_64", "docker")), "x86_64")
    assert bpf.run(program, AUDIT["AARCH64"], 63) == KILL
    only = seccomp.parse({**builtin("x86_64", "docker"), "architectures": []})
    program = seccomp_filter.compile_filter(only, "x86_64")
    assert bpf.run(program, AUDIT["X86"], 3) == KILL
    assert bpf.run(program, AUDIT["X86_64"], X32_BIT) == KILL
    assert bpf.run(program, AUDIT["X86_64"], 0) == ALLOW


def test_an_unknown_machine_gets_no_filter() -> None:
    with pytest.raises(HostUnsupported, match="riscv64"):
        seccomp_filter.compile_filter(Seccomp(ALLOW), "riscv64")


def test_a_rule_about_a_call_behind_socketcall_allows_it_there() -> None:
    document = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
                "syscalls": [{"names": ["connect", "semop"], "action": "SCMP_ACT_ALLOW"}]}  # fmt: skip
    program = seccomp_filter.compile_filter(seccomp.parse(document), "x86_64")
    assert [bpf.run(program, AUDIT["X86"], 102, (n,)) for n in (3, 1)] == [ALLOW, EPERM]
    assert [bpf.run(program, AUDIT["X86"], 117, (n,)) for n in (1, 2)] == [ALLOW, EPERM]


def test_more_rules_than_fit_are_refused() -> None:
    many = [{"names": ["ppoll"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": n, "op": "SCMP_CMP_EQ"}]}
            for n in range(5000)]  # fmt: skip
    with pytest.raises(InvalidInput, match="instructions"):
        seccomp_filter.compile_filter(seccomp.parse({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": many}), "x86_64")


# Rules by chance. Each call has one action, for which of several counts where they overlap is libseccomp's secret.

CALLS = (
    "read",
    "write",
    "mmap",
    "ppoll",
    "pread64",
    "splice",
    "clone",
    "prctl",
    "fcntl",
    "personality",
    "clone3",
    "getpid",
)
ACTIONS = (
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_LOG",
    "SCMP_ACT_ERRNO",
)
CORNERS = (0, 1, 2, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 0x1FFFFFFFF, 1 << 63, NEGATIVE)
words = st.sampled_from(CORNERS) | st.integers(0, NEGATIVE)
comparison = st.builds(
    lambda index, operator, value, other: {"index": index, "op": operator, "value": value, "valueTwo": other & value},
    st.integers(0, 5),
    st.sampled_from(seccomp.OPERATORS),
    words,
    words,
)


@st.composite
def documents(draw: st.DrawFn, alternatives: int = 3) -> dict[str, Any]:
    entries = []
    for name in draw(st.lists(st.sampled_from(CALLS), unique=True, max_size=6)):
        action = draw(st.sampled_from(ACTIONS))
        for arguments in draw(st.lists(st.lists(comparison, max_size=3), min_size=1, max_size=alternatives)):
            entry: dict[str, Any] = {"names": [name], "action": action, "args": arguments}
            if action == "SCMP_ACT_ERRNO":
                entry["errnoRet"] = draw(st.sampled_from((1, 13, 38, 4094)))
            entries.append(entry)
    architectures = draw(
        st.sampled_from([[], ["SCMP_ARCH_X32"], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]])
    )
    default = draw(st.sampled_from(ACTIONS))
    return {"defaultAction": default, "architectures": architectures, "syscalls": entries}


def probes(document: dict[str, Any]) -> list[tuple[int, ...]]:
    """Arguments just at, below and above what the rules compare with."""
    around = {v for entry in document["syscalls"] for c in entry["args"] for base in (c["value"], c["valueTwo"])
              for v in (base, base - 1, base + 1, base ^ 1 << 32) if 0 <= v <= NEGATIVE}  # fmt: skip
    values = sorted({0, *around})
    return [(v,) * 6 for v in values] + [(*values[:6], *[0] * 6)[:6], (*values[::-1][:6], *[0] * 6)[:6]]


def without_repetition(document: dict[str, Any]) -> bool:
    """Whether no rule has alternatives."""
    return all(len({c["index"] for c in e["args"]}) == len(e["args"]) for e in document["syscalls"])


@given(documents())
@settings(max_examples=50, deadline=None)
def test_any_rules_give_the_verdicts_that_they_say(document: dict[str, Any]) -> None:
    program = seccomp_filter.compile_filter(seccomp.parse(document), "x86_64")
    for abi in ("X86_64", *(a.removeprefix("SCMP_ARCH_") for a in document["architectures"])):
        numbers = seccomp_numbers.numbers(f"SCMP_ARCH_{abi}")
        for name in {*(n for entry in document["syscalls"] for n in entry["names"]), "getuid", "mseal"}:
            for arguments in probes(document):
                if abi == "X86":
                    arguments = tuple(a & 0xFFFFFFFF for a in arguments)
                given_verdict = bpf.run(program, AUDIT[abi], numbers[name], arguments)
                assert given_verdict == expected(document, abi, numbers[name], arguments), (abi, name, arguments)


@needs_libseccomp
@given(documents(alternatives=1).filter(without_repetition))
@example({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "syscalls": []})
@settings(max_examples=50, deadline=None)
def test_libseccomps_program_gives_the_same_verdicts(document: dict[str, Any]) -> None:
    """But for calls that are newer than the rules, and for ints, of which libseccomp compares 64 bits.

    One rule for each call: of `argument < 0` and `argument < 1 << 32` libseccomp 2.5.4 holds that 1 is neither.
    """
    wanted = seccomp.parse(document)
    ours = seccomp_filter.compile_filter(wanted, "x86_64")
    theirs = libseccomp.compile_filter(wanted, "SCMP_ARCH_X86_64")
    for name in (*CALLS, "getuid"):
        number = seccomp_numbers.numbers("SCMP_ARCH_X86_64")[name]
        for arguments in probes(document):
            if name in INTS and any(c["value"] >> 32 or c["valueTwo"] >> 32 or arguments[c["index"]] >> 32
                                    for entry in document["syscalls"] for c in entry["args"]):  # fmt: skip
                continue
            verdict = bpf.run(ours, AUDIT["X86_64"], number, arguments)
            if verdict != ENOSYS:
                assert verdict == bpf.run(theirs, AUDIT["X86_64"], number, arguments), (name, arguments)


@needs_libseccomp
@pytest.mark.parametrize("machine", ABIS)
@pytest.mark.parametrize("capabilities", ["docker", "admin"])
def test_libseccomps_builtin_profile_is_the_same(machine: str, capabilities: str) -> None:
    wanted = seccomp.parse(builtin(machine, capabilities))
    known = [rule._replace(names=tuple(filter(libseccomp.knows, rule.names))) for rule in wanted.rules]
    wanted = wanted._replace(rules=tuple(known))
    ours = seccomp_filter.compile_filter(wanted, machine)
    theirs = libseccomp.compile_filter(wanted, NATIVE[machine])
    for abi in ABIS[machine]:
        for number in numbers_of_interest(abi):
            for arguments in ((), (38,), (0x20008,), (0x10000000,)):
                verdict = bpf.run(ours, AUDIT[abi], number, arguments)
                # libseccomp knows no newest call; and of map_shadow_stack it says that x32 has none, as in Linux 6.6.
                if verdict != ENOSYS and number != X32_BIT | 453:
                    assert verdict == bpf.run(theirs, AUDIT[abi], number, arguments), (abi, number, arguments)


# What a document may say.

BASE: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO"}
ONE: dict[str, Any] = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ([], "linux.seccomp"),
        ({}, "linux.seccomp.defaultAction is missing"),
        ({"defaultAction": "SCMP_ACT_SING"}, "linux.seccomp.defaultAction: unknown action 'SCMP_ACT_SING'"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.defaultAction"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "linux.seccomp.defaultErrnoRet"),
        ({**BASE, "defaultErrnoRet": 4096}, "linux.seccomp.defaultErrnoRet"),
        ({**BASE, "architectures": ["VAX"]}, "linux.seccomp.architectures: unknown architecture 'VAX'"),
        ({**BASE, "flags": ["FAST"]}, "linux.seccomp.flags: unknown flag 'FAST'"),
        ({**BASE, "syscalls": {}}, "linux.seccomp.syscalls: a list"),
        ({**BASE, "syscalls": [{**ONE, "names": []}]}, "linux.seccomp.syscalls[0].names"),
        ({**BASE, "syscalls": [ONE, {"names": ["read"]}]}, "linux.seccomp.syscalls[1].action is missing"),
        ({**BASE, "syscalls": [{**ONE, "errnoRet": 1}]}, "linux.seccomp.syscalls[0].errnoRet"),
        ({**BASE, "syscalls": [{**ONE, "args": [{"op": "<"}]}]}, "linux.seccomp.syscalls[0].args[0].op"),
        ({**BASE, "syscalls": [{**ONE, "args": [{"op": "SCMP_CMP_EQ", "index": 6}]}]}, "args[0].index"),
        ({**BASE, "syscalls": [{**ONE, "args": [{"op": "SCMP_CMP_EQ", "value": -1}]}]}, "args[0].value"),
        ({**BASE, "syscalls": [{**ONE, "args": [{"op": "SCMP_CMP_EQ", "value": True}]}]}, "args[0].value"),
    ],
)
def test_a_mistake_is_refused_with_its_place(document: Any, place: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(place)):
        seccomp.parse(document)


NOTIFY: dict[str, Any] = {"syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]}
KILLABLE = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]


@pytest.mark.parametrize(
    ("more", "place"),
    [
        (NOTIFY, "linux.seccomp.listenerPath"),
        ({**NOTIFY, "listenerPath": 7}, "linux.seccomp.listenerPath"),
        ({"flags": KILLABLE, "listenerPath": "/x"}, "linux.seccomp.flags: without SCMP_ACT_NOTIFY"),
        ({"syscalls": [{"names": ["read", "sendmsg"], "action": "SCMP_ACT_NOTIFY"}], "listenerPath": "/x"}, "sendmsg"),
    ],
)
def test_a_listener_that_cannot_be_is_refused(more: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(place)):
        seccomp.parse({**BASE, **more})


def test_a_listener_is_for_rules_that_ask_for_one() -> None:
    parsed = seccomp.parse({**BASE, **NOTIFY, "listenerPath": "/x", "listenerMetadata": "m", "flags": KILLABLE})
    assert parsed.listener == seccomp.Listener("/x", "m")
    assert parsed.flags == seccomp.NEW_LISTENER | 0x20
    assert seccomp.parse({**BASE, "listenerPath": "/x"}).listener is None


def test_flags_are_those_of_the_system_call() -> None:
    assert seccomp.parse(BASE).flags == 4  # as runc: what is not asked for is left out of speculation's barriers
    assert seccomp.parse({**BASE, "flags": []}).flags == 0
    names = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]
    assert seccomp.parse({**BASE, "flags": names}).flags == 2


def test_names_that_no_call_has_are_passed_over() -> None:
    document = {**BASE, "syscalls": [{**ONE, "names": ["frobnicate", "read"]}]}
    program = seccomp_filter.compile_filter(seccomp.parse(document), "x86_64")
    assert bpf.run(program, AUDIT["X86_64"], 0) == ALLOW
