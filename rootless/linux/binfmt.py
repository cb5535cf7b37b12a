"""binfmt_misc: whether the kernel has an interpreter for the programs of another machine.

A file in /proc/sys/fs/binfmt_misc describes each one by the beginning of the files that it takes. In a container only
an interpreter that was opened when it was registered (flag F) is found, since the container has none of its own.
See the kernel's Documentation/admin-guide/binfmt-misc.rst, and elf(5).
"""

import os

DIRECTORY = "/proc/sys/fs/binfmt_misc"
_CONTROLS = ("register", "status")

# By Go's word: ELFCLASS, ELFDATA and e_machine, as <linux/elf-em.h> has them.
_MACHINES = {
    "386": (1, 1, 3),
    "amd64": (2, 1, 62),
    "arm": (1, 1, 40),
    "arm64": (2, 1, 183),
    "loong64": (2, 1, 258),
    "mips": (1, 2, 8),
    "mipsle": (1, 1, 8),
    "mips64": (2, 2, 8),
    "mips64le": (2, 1, 8),
    "ppc64": (2, 2, 21),
    "ppc64le": (2, 1, 21),
    "riscv64": (2, 1, 243),
    "s390x": (2, 2, 22),
}


def has_interpreter(architecture: str, directory: str = DIRECTORY) -> bool:
    """Whether programs for *architecture*, Go's word, run in containers by one of the interpreters in *directory*."""
    begin = elf_begin(architecture)
    if begin is None:
        return False
    try:
        names = os.listdir(directory)
    except OSError:
        return False  # not mounted, or not to be seen here
    return any(takes(_read(os.path.join(directory, name)), begin) for name in names if name not in _CONTROLS)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""  # it was unregistered meanwhile


def elf_begin(architecture: str) -> bytes | None:
    """The first 20 bytes of a program for *architecture*; None where that is not known."""
    machine = _MACHINES.get(architecture)
    if machine is None:
        return None
    elf_class, data, number = machine
    order = "little" if data == 1 else "big"
    identity = b"\x7fELF" + bytes((elf_class, data, 1)) + bytes(9)
    return identity + (2).to_bytes(2, order) + number.to_bytes(2, order)  # type: ignore[arg-type]


def takes(entry: str, begin: bytes) -> bool:
    """Whether *entry*, the text of a file in binfmt_misc, is of an interpreter, held open, of files that *begin* so."""
    lines = entry.splitlines()
    fields = dict(line.partition(" ")[::2] for line in lines)
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags:")), "")
    if "enabled" not in lines or "F" not in flags or "magic" not in fields:
        return False
    try:
        offset = int(fields.get("offset", "0"))
        magic = bytes.fromhex(fields["magic"])
        mask = bytes.fromhex(fields["mask"]) if "mask" in fields else b"\xff" * len(magic)
    except ValueError:
        return False
    part = begin[offset : offset + len(magic)]
    return len(part) == len(magic) and all((a ^ b) & m == 0 for a, b, m in zip(part, magic, mask, strict=False))
