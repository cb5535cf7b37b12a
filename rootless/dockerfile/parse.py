"""A Dockerfile's text becomes stages of typed instructions.

text.py puts lines together, words.py takes them apart, records.py makes a record of each instruction, and here they
become stages. All that can be wrong without knowing a variable's value is an error: "Dockerfile:LINE: …", with what was
probably meant. The text is hostile: no input raises anything but DockerfileError.
"""

from rootless.dockerfile.instructions import (
    Arg,
    Dockerfile,
    DockerfileError,
    Finding,
    From,
    Heredoc,
    Instruction,
    Stage,
)
from rootless.dockerfile.records import NO_TRIGGERS, make_record
from rootless.dockerfile.text import Logical, parse_directives, read_instructions
from rootless.dockerfile.words import heredocs_in, parse_json_words, split_head, take_flags

_WITH_HEREDOCS = ("RUN", "COPY", "ADD")


def parse_dockerfile(data: bytes, name: str = "Dockerfile") -> Dockerfile:
    """The stages of a Dockerfile; *name* is what messages call it. Raises DockerfileError."""
    text = data.decode("utf-8", "surrogateescape")
    directives = parse_directives(text, name)
    logical, findings = read_instructions(text, directives.escape, _opened, name)
    if not logical:
        raise DockerfileError(f"{name}: there are no instructions in it", hint="the first one is FROM")
    records = [_located(item, directives.escape, findings, name) for item in logical]
    first = next((number for number, record in enumerate(records) if isinstance(record, From)), len(records))
    global_args = _global_args(records[:first], name)
    if first == len(records):
        raise DockerfileError(f"{name}: there is no FROM in it", hint="FROM scratch begins with nothing")
    return Dockerfile(name, directives, global_args, _stages(records[first:]), (*findings, *_casing(logical)))


def _global_args(records: list[Instruction | From], name: str) -> tuple[Arg, ...]:
    for record in records:
        if not isinstance(record, Arg):
            raise DockerfileError(
                f"{name}:{record.lines.first}: {split_head(record.source)[0].upper()} before the first FROM",
                hint="only ARG may stand there",
            )
    return tuple(record for record in records if isinstance(record, Arg))


def _stages(records: list[Instruction | From]) -> tuple[Stage, ...]:
    """The stages of *records*, whose first is a FROM."""
    found: list[tuple[From, list[Instruction]]] = []
    for record in records:
        if isinstance(record, From):
            found.append((record, []))
        else:
            found[-1][1].append(record)
    return tuple(Stage(base.name, base, tuple(body), base.lines) for base, body in found)


def parse_trigger(text: str, name: str = "ONBUILD") -> Instruction:
    """The instruction that an image has for its children. Raises DockerfileError."""
    logical, findings = read_instructions(text, "\\", _opened, name)
    if len(logical) != 1:
        raise DockerfileError(f"{name}: {text.strip()[:80]!r} is not one instruction")
    keyword = split_head(logical[0].text)[0].upper()
    record = _located(logical[0], "\\", findings, name)
    if isinstance(record, From) or keyword in NO_TRIGGERS:
        raise DockerfileError(f"{name}: {keyword} is not allowed in ONBUILD")
    return record


def _located(item: Logical, escape: str, findings: list[Finding], name: str) -> Instruction | From:
    try:
        return make_record(item, escape, findings)
    except DockerfileError as error:
        raise DockerfileError(f"{name}:{item.lines.first}: {error}", hint=error.hint) from None


def _opened(line: str) -> list[Heredoc]:
    """The heredocs of an instruction: of RUN, COPY and ADD, also after ONBUILD, if they are not JSON."""
    keyword, rest = split_head(line)
    if keyword.upper() == "ONBUILD" and rest:
        keyword, rest = split_head(rest)
    if keyword.upper() not in _WITH_HEREDOCS:
        return []
    words = take_flags(rest)[1] if rest.startswith("--") else rest
    try:
        is_json = parse_json_words(words) is not None
    except DockerfileError:
        is_json = True
    return [] if is_json else heredocs_in(line)


def _casing(logical: list[Logical]) -> list[Finding]:
    """The keywords that are not written in the case that most are."""
    words = [(split_head(item.text)[0], item.lines.first) for item in logical]
    lower = sum(word.islower() for word, _ in words)
    upper = sum(word.isupper() for word, _ in words)
    most = str.islower if lower > upper else str.isupper
    case = "lowercase" if lower > upper else "uppercase"
    return [Finding("ConsistentInstructionCasing", line, f"{word} {case}") for word, line in words if not most(word)]
