"""A program that makes system calls, and tells what they answer: static, without libc, made here without a compiler.

    evil image:  file("probe", probe.program(), 0o755)
    in it:       /probe 39 , f257 -100 =/proc/kcore 0 , 231 0

Its command line is calls, separated by commas; a call is a number and up to six arguments. For each it writes a line:
a space and the result, which is -errno for a failure, as 16 hexadecimal digits. An argument is

- a number, decimal or after 0x, with a sign or without: all 64 bits of it get to the kernel
- `=TEXT`, the address of TEXT, which ends in NUL
- `%` or `%N`, the address of byte N of 32 KiB of memory for the kernel to write to, which `1 1 % 8` would show
- `@`, the last result, as `257 -100 =/dev/null 2 , 3 @`
- `*`, the address of the words after the next comma, as execve(2) wants them: `59 =/bin/sh * 0 , sh -c id`

In front of a number, `i` stands for the entry of 32-bit programs (int 0x80), `f` for doing it in a fork: one that a
signal ends, after a second by SIGALRM, shows as `!` and the status of wait(2) instead. A fork that exits without a word
leaves its line out. A word that begins with a slash is passed over if it is the first: so a script's interpreter, too,
can be this program.
"""

import functools
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

BASE = 0x7000_0000  # where it is loaded; elsewhere than other static programs, as it may be the loader of one
_HEADERS = 64 + 56  # bytes of the ELF and the only program header, elf(5)
_MEMORY = 0xA000  # bytes at BASE

# Machine code and what it means, as GNU as has it: WORDS is BASE + 0x1000, STATUS is WORDS + 0x40, OUT is WORDS + 0x48,
# SCRATCH is BASE + 0x2000.
_X86_64 = """
                   ; r12: the next word of the command line; rbp: the number of a call and its arguments; rbx: how many;
                   ; r13: what its prefix asks for; r14: the last result. A path in front is passed over.
                 _start:
4c8d642410           lea r12, [rsp+16]
bd00100070           mov ebp, WORDS
498b3424             mov rsi, [r12]
4885f6               test rsi, rsi
0f84f6000000         jz end
803e2f               cmp byte ptr [rsi], '/'
7504                 jne next
4983c408             add r12, 8
                   ; One call: forget the arguments of the one before.
                 next:
498b3424             mov rsi, [r12]
4885f6               test rsi, rsi
0f84e0000000         jz end
4531ed               xor r13d, r13d
31db                 xor ebx, ebx
89ef                 mov edi, ebp
31c0                 xor eax, eax
b907000000           mov ecx, 7
f348ab               rep stosq
                 prefix:
ac                   lodsb
3c66                 cmp al, 'f'
7506                 jne 1f
4180cd01             or r13b, 1
ebf5                 jmp prefix
3c69             1:  cmp al, 'i'
7506                 jne 2f
4180cd02             or r13b, 2
ebeb                 jmp prefix
48ffce           2:  dec rsi
                   ; Numbers and arguments up to a comma or the end.
                 argument:
4983c408             add r12, 8
e8f7000000           call parse
488944dd00           mov [rbp+rbx*8], rax
ffc3                 inc ebx
498b3424             mov rsi, [r12]
4885f6               test rsi, rsi
7409                 jz do
803e2c               cmp byte ptr [rsi], ','
75e2                 jne argument
4983c408             add r12, 8
                   ; With `f`, fork(2): the parent waits, and tells of a child that did not end well.
                 do:
41f6c501             test r13b, 1
7441                 jz act
b839000000           mov eax, 57
0f05                 syscall
85c0                 test eax, eax
742a                 jz child
89c7                 mov edi, eax
be40100070           mov esi, STATUS
31d2                 xor edx, edx
4531d2               xor r10d, r10d
b83d000000           mov eax, 61
0f05                 syscall
8b4540               mov eax, [rbp+64]
85c0                 test eax, eax
0f8479ffffff         jz next
b221                 mov dl, '!'
e868000000           call print
e96dffffff           jmp next
                   ; alarm(2): a call that blocks ends in a second.
                 child:
bf01000000           mov edi, 1
b825000000           mov eax, 37
0f05                 syscall
                   ; The call itself, by syscall or, with `i`, by int 0x80, whose arguments have 32 bits.
                 act:
488b7d08             mov rdi, [rbp+8]
488b7510             mov rsi, [rbp+16]
488b5518             mov rdx, [rbp+24]
4c8b5520             mov r10, [rbp+32]
4c8b4528             mov r8, [rbp+40]
4c8b4d30             mov r9, [rbp+48]
488b4500             mov rax, [rbp]
41f6c502             test r13b, 2
7504                 jnz old
0f05                 syscall
eb14                 jmp done
                 old:
89fb                 mov ebx, edi
89f1                 mov ecx, esi
4489d6               mov esi, r10d
4489c7               mov edi, r8d
55                   push rbp
4489cd               mov ebp, r9d
cd80                 int 0x80
5d                   pop rbp
4863c0               movsxd rax, eax
                 done:
4989c6               mov r14, rax
b220                 mov dl, ' '
e813000000           call print
41f6c501             test r13b, 1
0f8413ffffff         jz next
                 end:
31ff                 xor edi, edi
b8e7000000           mov eax, 231
0f05                 syscall
                   ; Write dl, rax in hexadecimal, and a newline.
                 print:
bf48100070           mov edi, OUT
8817                 mov [rdi], dl
b910000000           mov ecx, 16
48c1c004         1:  rol rax, 4
88c2                 mov dl, al
80e20f               and dl, 15
80c230               add dl, '0'
80fa39               cmp dl, '9'
7603                 jbe 2f
80c227               add dl, 39
ffc7             2:  inc edi
8817                 mov [rdi], dl
ffc9                 dec ecx
75e4                 jnz 1b
c647010a             mov byte ptr [rdi+1], 10
bf01000000           mov edi, 1
be48100070           mov esi, OUT
ba12000000           mov edx, 18
89f8                 mov eax, edi
0f05                 syscall
c3                   ret
                   ; The value of the argument at rsi.
                 parse:
8a06                 mov al, [rsi]
3c3d                 cmp al, '='
741b                 je text
3c40                 cmp al, '@'
741c                 je last
3c2a                 cmp al, '*'
741c                 je rest
3c25                 cmp al, '%'
7528                 jne number
48ffc6               inc rsi
e820000000           call number
480500200070         add rax, SCRATCH
c3                   ret
                 text:
488d4601             lea rax, [rsi+1]
c3                   ret
                 last:
4c89f0               mov rax, r14
c3                   ret
                   ; The address of the words after the next comma.
                 rest:
4c89e0               mov rax, r12
488b10           1:  mov rdx, [rax]
4883c008             add rax, 8
803a2c               cmp byte ptr [rdx], ','
75f4                 jne 1b
c3                   ret
                   ; Decimal, or hexadecimal after 0x; with a sign.
                 number:
4531c0               xor r8d, r8d
3c2d                 cmp al, '-'
7506                 jne 1f
41ffc0               inc r8d
48ffc6               inc rsi
bf0a000000       1:  mov edi, 10
66813e3078           cmp word ptr [rsi], 0x7830
7509                 jne 2f
4883c602             add rsi, 2
bf10000000           mov edi, 16
31c0             2:  xor eax, eax
                 digit:
0fb616               movzx edx, byte ptr [rsi]
48ffc6               inc rsi
83ea30               sub edx, '0'
7216                 jb stop
83fa09               cmp edx, 9
7608                 jbe 3f
83ea27               sub edx, 39
83fa0f               cmp edx, 15
7709                 ja stop
480fafc7         3:  imul rax, rdi
4801d0               add rax, rdx
ebdf                 jmp digit
                 stop:
4585c0               test r8d, r8d
7403                 jz 4f
48f7d8               neg rax
c3               4:  ret
"""


_COLUMN = 16


class Answer(NamedTuple):
    """What became of one call."""

    result: int  # -errno for a failure
    status: int = 0  # of wait(2), where a forked call ended its process

    @property
    def signal(self) -> int:
        """The signal that ended the process of a forked call; 0 for none."""
        return self.status & 0x7F


@functools.cache
def program() -> bytes:
    """The ELF file. Raises NotImplementedError on machines that it is not written for."""
    if os.uname().machine != "x86_64":
        raise NotImplementedError(f"the probe is not written for {os.uname().machine}")
    code = b"".join(bytes.fromhex(line[:_COLUMN]) for line in _X86_64.splitlines())
    size = _HEADERS + len(code)
    # ELFCLASS64, little-endian; ET_EXEC for EM_X86_64; one program header right behind.
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    elf = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    # PT_LOAD of everything, readable, writable and executable; what is behind the file is zeros.
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, size, _MEMORY, 0x1000)
    return identity + elf + load + code


def answers(output: str) -> list[Answer]:
    """What the program's *output* says, a line a call."""
    found = []
    for line in output.splitlines():
        value = int(line[1:], 16)
        found.append(Answer(0, value) if line[0] == "!" else Answer(value - (value >> 63 << 64)))
    return found


def calls(*each: Sequence[int | str]) -> list[str]:
    """The words of a command line that makes these calls, each a number and its arguments: `("f39",)`."""
    words: list[str] = []
    for call in each:
        words += [",", *map(str, call)]
    return words[1:]
