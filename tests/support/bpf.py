"""Seccomp filters run here instead of in the kernel: classic BPF as seccomp_check_filter() lets it through."""

import struct
from collections.abc import Sequence
from functools import lru_cache

Instruction = tuple[int, int, int, int]  # code, jt, jf, k: struct sock_filter
_WORD = 0xFFFFFFFF


@lru_cache(maxsize=64)
def decode(program: bytes) -> tuple[Instruction, ...]:
    """The instructions, checked as the kernel does: jumps stay inside, and the last one returns."""
    code = tuple(struct.iter_unpack("=HBBI", program))
    assert 0 < len(code) <= 4096
    for at, (operation, if_true, if_false, value) in enumerate(code):
        if operation == 0x20:
            assert value in range(0, 64, 4), "a load outside of struct seccomp_data"
        elif operation == 0x05:
            assert at + 1 + value < len(code)
        elif operation in (0x15, 0x25, 0x35, 0x45):
            assert at + 1 + max(if_true, if_false) < len(code)
        else:
            assert operation in (0x06, 0x54), hex(operation)
    assert code[-1][0] == 0x06
    return code


def run(program: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """What the filter returns for one call."""
    return trace(program, architecture, number, arguments)[0]


def trace(program: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> tuple[int, int]:
    """That, and how many instructions it took."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.unpack("=16I", struct.pack("=IIQ6Q", number & _WORD, architecture, 0, *padded))
    code = decode(program)
    at, accumulator, steps = 0, 0, 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        steps += 1
        if operation == 0x20:
            accumulator = data[value // 4]
        elif operation == 0x06:
            return value, steps
        elif operation == 0x05:
            at += value
        elif operation == 0x54:
            accumulator &= value
        else:
            holds = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]
            at += if_true if holds else if_false
