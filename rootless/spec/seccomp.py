"""linux.seccomp of config.json, as records: which system calls a container's programs may make.

The text is config-linux.md, "Seccomp". What it leaves open is decided as runc and crun do, since profiles were written
for these:

- A rule whose comparisons name the same argument twice holds where any of its comparisons does; otherwise where all do.
- A rule without comparisons counts for all arguments, whatever other rules there are for the call; of several of them
  the first does. Of rules with comparisons the first that fits counts.
- Names that no call has are passed over: they are of other machines, or of other kernels.
"""

from typing import Any, NamedTuple

from rootless.errors import InvalidInput

# <linux/seccomp.h>: what a filter returns. ERRNO and TRACE have a number in the lower half.
ALLOW, LOG, TRACE, NOTIFY, ERRNO, TRAP = 0x7FFF0000, 0x7FFC0000, 0x7FF00000, 0x7FC00000, 0x00050000, 0x00030000
KILL_THREAD, KILL_PROCESS = 0, 0x80000000
EPERM, ENOSYS = 1, 38

ACTIONS = {
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_NOTIFY": NOTIFY,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_TRAP": TRAP,
}
OPERATORS = (
    *("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT"),
    "SCMP_CMP_MASKED_EQ",
)
# Of seccomp(2). TSYNC is about threads, of which there are none when the filter is installed.
FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC": 0, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4}
NEW_LISTENER = 8  # seccomp(2) returns a descriptor, by which somebody else answers for calls
_LISTENER_FLAG, _WAIT_KILLABLE_RECV = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 0x20
ARCHITECTURES = frozenset(
    f"SCMP_ARCH_{name}"
    for name in (
        *("X86", "X86_64", "X32", "ARM", "AARCH64", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32"),
        *("PPC", "PPC64", "PPC64LE", "S390", "S390X", "PARISC", "PARISC64", "RISCV64", "LOONGARCH64", "M68K", "SH"),
        "SHEB",
    )
)
_HIGHEST_ERRNO = 4095  # that the kernel takes
_SECTION = "linux.seccomp"


class Comparison(NamedTuple):
    """A condition on one argument; with SCMP_CMP_MASKED_EQ, `argument & value == value_two`."""

    argument: int  # its position, from 0 on
    operator: str
    value: int
    value_two: int = 0


class Rule(NamedTuple):
    """What is done about calls by these names where all *comparisons* hold."""

    names: tuple[str, ...]
    action: int
    comparisons: tuple[Comparison, ...] = ()


class Seccomp(NamedTuple):
    """The whole of it. *default* is for calls that no rule is about, *flags* are those of seccomp(2)."""

    default: int
    architectures: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    flags: int = FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    listener: "Listener | None" = None


class Listener(NamedTuple):
    """Who answers for calls with SCMP_ACT_NOTIFY: a process that listens at *path*."""

    path: str
    metadata: str


def parse(document: Any, where: str = _SECTION) -> Seccomp:
    """The records of a JSON object. Raises InvalidInput, naming the place in the document."""
    section = _object(document, where)
    default = _action(section, "defaultAction", "defaultErrnoRet", where)
    if default == NOTIFY:
        raise InvalidInput(f"{where}.defaultAction: SCMP_ACT_NOTIFY cannot be the default action")
    architectures = tuple(_strings(section.get("architectures"), f"{where}.architectures"))
    for name in architectures:
        if name not in ARCHITECTURES:
            raise InvalidInput(f"{where}.architectures: unknown architecture {name!r}")
    rules: list[Rule] = []
    for number, entry in enumerate(_list(section.get("syscalls"), f"{where}.syscalls")):
        rules += _rules(entry, f"{where}.syscalls[{number}]")
    listener = _listener(section, rules, where)
    flags = _flags(section.get("flags"), f"{where}.flags", listened=listener is not None)
    return Seccomp(default, architectures, tuple(rules), flags, listener)


def _listener(section: dict[str, Any], rules: list[Rule], where: str) -> Listener | None:
    """Who answers for the calls of rules that say so; None where there are none."""
    notified = {name for rule in rules if rule.action == NOTIFY for name in rule.names}
    if not notified:
        return None
    path, metadata = section.get("listenerPath"), section.get("listenerMetadata") or ""
    if not isinstance(path, str) or not path or not isinstance(metadata, str):
        raise InvalidInput(f"{where}.listenerPath: SCMP_ACT_NOTIFY needs somebody who answers, at a socket's path")
    if "sendmsg" in notified:
        raise InvalidInput(f"{where}.syscalls: SCMP_ACT_NOTIFY of sendmsg: the listener itself could not be handed on")
    return Listener(path, metadata)


def _flags(given: Any, where: str, *, listened: bool) -> int:
    flags = NEW_LISTENER if listened else 0
    if given is None:
        return flags | FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    for name in _strings(given, where):
        if name == _LISTENER_FLAG and listened:
            flags |= _WAIT_KILLABLE_RECV
        elif name in FLAGS:
            flags |= FLAGS[name]
        else:
            what = "without SCMP_ACT_NOTIFY:" if name == _LISTENER_FLAG else "unknown flag"
            raise InvalidInput(f"{where}: {what} {name!r}")
    return flags


def _rules(entry: Any, where: str) -> list[Rule]:
    """The rules of one entry of `syscalls`: several where its comparisons are alternatives."""
    entry = _object(entry, where)
    names = tuple(_strings(entry.get("names"), f"{where}.names"))
    if not names or not all(names):
        raise InvalidInput(f"{where}.names: at least one name is needed")
    action = _action(entry, "action", "errnoRet", where)
    arguments = _list(entry.get("args"), f"{where}.args")
    comparisons = tuple(_comparison(a, f"{where}.args[{n}]") for n, a in enumerate(arguments))
    if len({c.argument for c in comparisons}) < len(comparisons):
        return [Rule(names, action, (c,)) for c in comparisons]
    return [Rule(names, action, comparisons)]


def _comparison(entry: Any, where: str) -> Comparison:
    entry = _object(entry, where)
    operator = entry.get("op")
    if operator not in OPERATORS:
        raise InvalidInput(f"{where}.op: unknown operator {operator!r}")
    index = _unsigned(entry.get("index", 0), f"{where}.index", 5)
    values = [_unsigned(entry.get(key, 0), f"{where}.{key}", 2**64 - 1) for key in ("value", "valueTwo")]
    return Comparison(index, operator, *values)


def _action(entry: dict[str, Any], key: str, errno_key: str, where: str) -> int:
    name, errno = entry.get(key), entry.get(errno_key)
    if not isinstance(name, str) or name not in ACTIONS:
        raise InvalidInput(f"{where}.{key}: unknown action {name!r}" if name else f"{where}.{key} is missing")
    action = ACTIONS[name]
    if action in (ERRNO, TRACE):
        return action | (EPERM if errno is None else _unsigned(errno, f"{where}.{errno_key}", _HIGHEST_ERRNO))
    if errno is not None:
        raise InvalidInput(f"{where}.{errno_key}: {name} returns no error number")
    return action


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: an object is needed")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f"{where}: a list is needed")
    return value


def _strings(value: Any, where: str) -> list[str]:
    found = _list(value, where)
    if not all(isinstance(text, str) for text in found):
        raise InvalidInput(f"{where}: a list of strings is needed")
    return found


def _unsigned(value: Any, where: str, highest: int) -> int:
    if type(value) is not int or not 0 <= value <= highest:
        raise InvalidInput(f"{where}: a number from 0 to {highest} is needed")
    return value
