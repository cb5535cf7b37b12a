"""From linux.seccomp to the classic BPF program that seccomp(2) takes.

The kernel runs the program at each call, with the architecture, the number and the six arguments (struct seccomp_data)
to read from; what it returns is what happens. Here it has a section for each kind of program that the machine runs:

    by architecture ─▶ a binary search in the ranges of numbers that end alike ─▶ an action
                                                                             └─▶ comparisons of arguments ─▶ an action

Who calls by an architecture that the configuration does not name is killed. A number above all that the rules name
gives ENOSYS rather than a refusal, so that a C library of tomorrow finds that it has to do without, as with an older
kernel (runc does so too); unless the default lets calls through, or answers with a number of its own.

An argument is 64 bits, of which a call that takes an int looks at the lower half only. Comparing all of it would let
`socket(0x100000026)` pass a rule about AF_ALG, 0x26; so it is compared as the kernel will read it.

Jumps go forward only, and two-way jumps over 255 instructions at most. So the program is written from its end: what is
jumped to is there already, and where it is too far away, a long jump is put in between.
"""

import struct
from typing import NamedTuple

from rootless.errors import HostUnsupported, InvalidInput
from rootless.spec import seccomp_numbers
from rootless.spec.seccomp import ALLOW, ENOSYS, ERRNO, KILL_THREAD, LOG, TRACE, Comparison, Rule, Seccomp

# <linux/bpf_common.h>: load a word at an offset, and-with, jumps, return.
_LOAD, _AND, _RETURN, _JUMP = 0x20, 0x54, 0x06, 0x05
_EQUAL, _GREATER, _AT_LEAST = 0x15, 0x25, 0x35
_NR, _ARCH, _ARGUMENTS = 0, 4, 16  # struct seccomp_data
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_REACH = 250  # of a two-way jump, with room for the long jumps that may come between
_NUMBERS_END = 1 << 32
_PRIVATE = 0xF0000  # arm: numbers from here on are the architecture's own, and say nothing of its age
_LOW = 0xFFFFFFFF

# <linux/audit.h>
_AUDIT = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
_X86_64, _X32 = "SCMP_ARCH_X86_64", "SCMP_ARCH_X32"
NATIVE = {"x86_64": _X86_64, "aarch64": "SCMP_ARCH_AARCH64"}
_OTHERS = {"x86_64": (_X32, "SCMP_ARCH_X86"), "aarch64": ("SCMP_ARCH_ARM",)}
# Calls and arguments that are int or unsigned int to the kernel (SYSCALL_DEFINE), of those that profiles compare. The
# flags of clone(2) are a long of which only the lower half is looked at.
_INTS = """
socket:012 socketpair:012 setsockopt:012 personality:0 ioctl:01 clone:0 prctl:0 fcntl:01 setns:01 keyctl:0 bpf:02
seccomp:01 madvise:2 kill:01 umount2:1 fsopen:1 openat:02 open:1 unlinkat:02 mknodat:03
"""
_INT_ARGUMENTS = {name: (*map(int, indices),) for name, _, indices in (word.partition(":") for word in _INTS.split())}


class Verdict(NamedTuple):
    """What happens to a call: the first of *conditional* that holds, or else *action*."""

    action: int
    conditional: tuple[tuple[tuple[Comparison, ...], int], ...] = ()


def compile_filter(seccomp: Seccomp, machine: str) -> bytes:
    """The program for *machine* (uname -m): an array of struct sock_filter.

    Raises HostUnsupported where the numbers of the machine's calls are not known, InvalidInput for more than fits.
    """
    if machine not in NATIVE:
        raise HostUnsupported(
            f"no system call filter for {machine}: its numbers are not known",
            hint="--security-opt seccomp=unconfined does without, and without its protection",
        )
    native = NATIVE[machine]  # named or not
    named = [native, *(a for a in _OTHERS[machine] if a in seccomp.architectures)]
    program = _Program()
    bad = program.give(KILL_THREAD)
    sections = {a: _section(program, seccomp, a, _X32 in named) for a in reversed(named) if a != _X32}
    entry = bad
    for architecture in reversed(sections):
        entry = program.test(_EQUAL, _AUDIT[architecture], sections[architecture], entry)
    program.load(_ARCH, entry)
    code = program.code
    if len(code) > _MAX_INSTRUCTIONS:
        raise InvalidInput(f"linux.seccomp: too many rules: {len(code)} instructions, of {_MAX_INSTRUCTIONS} at most")
    return b"".join(code[::-1])


def verdicts(seccomp: Seccomp, architecture: str) -> tuple[dict[int, Verdict], int]:
    """Number → verdict for calls that rules are about; and the first number from which on all others are unknown."""
    numbers = seccomp_numbers.numbers(architecture)
    by_number: dict[int, list[tuple[tuple[Comparison, ...], int]]] = {}
    for rule in seccomp.rules:
        for name in rule.names:
            for number, comparisons in _places(name, rule, numbers, architecture):
                by_number.setdefault(number, []).append((comparisons, rule.action))
    found = {number: _verdict(rules, seccomp.default) for number, rules in by_number.items()}
    bit = seccomp_numbers.X32_BIT if architecture == _X32 else 0
    newest = max((number for number in found if number & ~bit < _PRIVATE), default=_NUMBERS_END - 1)
    return found, newest + 1


def _places(
    name: str, rule: Rule, numbers: dict[str, int], architecture: str
) -> list[tuple[int, tuple[Comparison, ...]]]:
    """Where a rule about *name* belongs: the call's number, and on i386 the calls behind which it also is."""
    places = []
    if name in numbers:
        places.append((numbers[name], tuple(_as_read(c, name, architecture) for c in rule.comparisons)))
    # Their arguments are in memory, where the filter cannot look: so this is for rules without.
    if architecture == "SCMP_ARCH_X86" and not rule.comparisons:
        for call in ("socketcall", "ipc"):
            inner = seccomp_numbers.behind(call)
            if name in inner:
                places.append((numbers[call], (Comparison(0, _INT_EQUAL, inner[name]),)))
    return places


_INT = "INT_"  # in front of an operator: for the lower half alone
_INT_EQUAL = "INT_SCMP_CMP_EQ"


def _as_read(comparison: Comparison, name: str, architecture: str) -> Comparison:
    """*comparison* on the half that the kernel reads, where that is so."""
    if architecture in (_X86_64, "SCMP_ARCH_AARCH64", _X32) and comparison.argument not in _INT_ARGUMENTS.get(name, ()):
        return comparison
    operator = _INT + comparison.operator
    return comparison._replace(
        operator=operator, value=_as_int(comparison.value), value_two=_as_int(comparison.value_two)
    )


def _as_int(value: int) -> int:
    """A negative int may be written with 64 bits: -1 as 2**64-1."""
    return value & _LOW if value >> 31 == 0x1FFFFFFFF else value


def _verdict(rules: list[tuple[tuple[Comparison, ...], int]], default: int) -> Verdict:
    for comparisons, action in rules:
        if not comparisons:
            return Verdict(action)
    return Verdict(default, tuple(rules))


def _unknown(default: int) -> int:
    """What happens to calls that are newer than the configuration."""
    if default in (ALLOW, LOG) or default & 0xFFFF0000 == TRACE:
        return default
    return ERRNO | ENOSYS


def _section(program: "_Program", seccomp: Seccomp, architecture: str, with_x32: bool) -> int:
    """The code for one architecture; on x86_64 also for x32, which the kernel shows as the same."""
    found, end = verdicts(seccomp, architecture)
    if architecture != _X86_64:
        return program.load(_NR, program.search(_ranges(found, end, seccomp.default, 0)))
    if with_x32:
        more, more_end = verdicts(seccomp, _X32)
        beyond = _ranges(more, more_end, seccomp.default, seccomp_numbers.X32_BIT)
    else:
        # -1 is what a tracer makes of a call that is not to be made.
        beyond = [(seccomp_numbers.X32_BIT, Verdict(KILL_THREAD)), (_LOW, Verdict(seccomp.default))]
    own = [r for r in _ranges(found, end, seccomp.default, 0) if r[0] < seccomp_numbers.X32_BIT]
    return program.load(_NR, program.search(own + beyond))


def _ranges(found: dict[int, Verdict], end: int, default: int, first: int) -> list[tuple[int, Verdict]]:
    """(number, verdict), each up to the number of the next: all numbers from *first* on."""
    edges: dict[int, Verdict] = {first: Verdict(default)}
    for number in sorted(found):
        edges[number] = found[number]
        if number + 1 not in found and number + 1 < _NUMBERS_END:
            edges[number + 1] = Verdict(_unknown(default) if number + 1 >= end else default)
    ranges: list[tuple[int, Verdict]] = []
    for number, verdict in sorted(edges.items(), key=lambda edge: edge[0]):
        if not ranges or ranges[-1][1] != verdict:
            ranges.append((number, verdict))
    return ranges


class _Program:
    """A program that is written from its end. A place in it is counted from there; a jump leads to a place."""

    def __init__(self) -> None:
        self.code: list[bytes] = []
        self._given: dict[int, int] = {}  # action -> the last place that returns it

    def _put(self, operation: int, value: int, if_true: int = 0, if_false: int = 0) -> int:
        self.code.append(struct.pack("=HBBI", operation, if_true, if_false, value))
        return len(self.code) - 1

    def _distance(self, place: int) -> int:
        return len(self.code) - place - 1

    def _near(self, place: int) -> int:
        """A place in reach of a two-way jump that ends up at *place*."""
        return place if self._distance(place) < _REACH else self._put(_JUMP, self._distance(place))

    def give(self, action: int) -> int:
        """Return *action*."""
        place = self._given.get(action)
        if place is None or self._distance(place) >= _REACH - 60:  # leave room for what comes before the jump
            place = self._given[action] = self._put(_RETURN, action)
        return place

    def test(self, operation: int, value: int, if_true: int, if_false: int) -> int:
        """Compare what was loaded last."""
        if if_true == if_false:
            return if_true
        if_true, if_false = self._near(if_true), self._near(if_false)
        return self._put(operation, value, self._distance(if_true), self._distance(if_false))

    def load(self, offset: int, then: int) -> int:
        """Load a word of struct seccomp_data, and go on at *then*."""
        self._follow(then)
        return self._put(_LOAD, offset)

    def mask(self, value: int, then: int) -> int:
        """Keep some bits of what was loaded."""
        self._follow(then)
        return self._put(_AND, value)

    def _follow(self, place: int) -> None:
        """Have the next instruction be followed by *place*."""
        if self._distance(place):
            self._put(_JUMP, self._distance(place))

    def search(self, ranges: list[tuple[int, Verdict]]) -> int:
        """Find the range that the loaded number is in."""
        made: dict[Verdict, int] = {}
        for verdict in {v: None for _, v in ranges if v.conditional}:
            made[verdict] = self._chain(verdict)
        return self._halve(ranges, made)

    def _halve(self, ranges: list[tuple[int, Verdict]], made: dict[Verdict, int]) -> int:
        if len(ranges) == 1:
            verdict = ranges[0][1]
            return made[verdict] if verdict.conditional else self.give(verdict.action)
        middle = len(ranges) // 2
        upper = self._halve(ranges[middle:], made)
        lower = self._halve(ranges[:middle], made)
        return self.test(_AT_LEAST, ranges[middle][0], upper, lower)

    def _chain(self, verdict: Verdict) -> int:
        """Try one condition after the other."""
        place = self.give(verdict.action)
        for comparisons, action in reversed(verdict.conditional):
            otherwise, holds = place, self.give(action)
            for comparison in reversed(comparisons):
                holds = self.compare(comparison, holds, otherwise)
            place = holds
        return place

    def compare(self, comparison: Comparison, holds: int, fails: int) -> int:
        """One comparison: *holds* or *fails*."""
        operator = comparison.operator.removeprefix(_INT)
        if operator in ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"):
            opposite = {"SCMP_CMP_NE": "SCMP_CMP_EQ", "SCMP_CMP_LT": "SCMP_CMP_GE", "SCMP_CMP_LE": "SCMP_CMP_GT"}
            holds, fails = fails, holds
            operator = opposite[operator]
        halves = _halves(comparison, operator)
        if comparison.operator.startswith(_INT):
            return self._compare_int(comparison, operator, halves, holds, fails)
        return self._compare_long(comparison.argument, operator, halves, holds, fails)

    def _compare_int(self, comparison: Comparison, operator: str, halves: "_Halves", holds: int, fails: int) -> int:
        if halves.high:  # no int is that large
            return fails
        return self._half(_ARGUMENTS + 8 * comparison.argument, operator, halves.low_mask, halves.low, holds, fails)

    def _compare_long(self, index: int, operator: str, halves: "_Halves", holds: int, fails: int) -> int:
        low = _ARGUMENTS + 8 * index  # both machines are little-endian
        decided = self._half(low, operator, halves.low_mask, halves.low, holds, fails)
        if operator in ("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"):
            return self._half(low + 4, operator, halves.high_mask, halves.high, decided, fails)
        equal = self.test(_EQUAL, halves.high, decided, fails)
        return self.load(low + 4, self.test(_GREATER, halves.high, holds, equal))

    def _half(self, offset: int, operator: str, mask: int, value: int, holds: int, fails: int) -> int:
        """Compare 32 bits."""
        if not mask:
            return fails if value else holds
        jump = {"SCMP_CMP_GT": _GREATER, "SCMP_CMP_GE": _AT_LEAST}.get(operator, _EQUAL)
        if mask != _LOW:
            return self.load(offset, self.mask(mask, self.test(jump, value, holds, fails)))
        return self.load(offset, self.test(jump, value, self._loaded(offset, holds), self._loaded(offset, fails)))

    def _loaded(self, offset: int, place: int) -> int:
        """*place* for who has loaded *offset*: a load of the same is passed over."""
        return place - 1 if self.code[place] == struct.pack("=HBBI", _LOAD, 0, 0, offset) else place


class _Halves(NamedTuple):
    high: int
    low: int
    high_mask: int = _LOW
    low_mask: int = _LOW


def _halves(comparison: Comparison, operator: str) -> _Halves:
    if operator != "SCMP_CMP_MASKED_EQ":
        return _Halves(comparison.value >> 32, comparison.value & _LOW)
    mask, value = comparison.value, comparison.value_two
    return _Halves(value >> 32, value & _LOW, mask >> 32, mask & _LOW)
