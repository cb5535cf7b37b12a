"""A Dockerfile's text becomes stages of typed instructions.

text.py puts lines together, words.py takes them apart, and here each keyword has a function that makes its record. All
that can be wrong without knowing a variable's value is an error now: "Dockerfile:LINE: …", with what was probably
meant. The text is hostile: no input raises anything but DockerfileError.
"""

from collections.abc import Callable
from typing import NamedTuple

from rootless.dockerfile.durations import parse_interval
from rootless.dockerfile.instructions import (
    Add,
    Arg,
    ArgName,
    Cmd,
    Command,
    Copy,
    Dockerfile,
    DockerfileError,
    Entrypoint,
    Env,
    Expose,
    Finding,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Lines,
    Maintainer,
    Onbuild,
    Pair,
    Run,
    Shell,
    Stage,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from rootless.dockerfile.mounts import check_mount
from rootless.dockerfile.near import near
from rootless.dockerfile.text import Logical, parse_directives, read_instructions
from rootless.dockerfile.words import (
    Flag,
    heredocs_in,
    parse_heredoc_word,
    parse_json_words,
    split_blanks,
    split_head,
    split_quoted,
    take_flags,
)

_WITH_HEREDOCS = ("RUN", "COPY", "ADD")
_NO_TRIGGERS = ("FROM", "MAINTAINER", "ONBUILD")
_STAGE_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


class _Request(NamedTuple):
    """One instruction on its way to a record."""

    keyword: str  # in capitals
    flags: list[Flag]
    rest: str
    heredocs: tuple[Heredoc, ...]
    lines: Lines
    source: str
    escape: str
    findings: list[Finding]

    def find(self, rule: str, detail: str) -> None:
        self.findings.append(Finding(rule, self.lines.first, detail))


def parse_dockerfile(data: bytes, name: str = "Dockerfile") -> Dockerfile:
    """The stages of a Dockerfile; *name* is what messages call it. Raises DockerfileError."""
    text = data.decode("utf-8", "surrogateescape")
    directives = parse_directives(text, name)
    logical, findings = read_instructions(text, directives.escape, _opened, name)
    if not logical:
        raise DockerfileError(f"{name}: there are no instructions in it", hint="the first one is FROM")
    global_args: list[Arg] = []
    stages: list[Stage] = []
    base: From | None = None
    body: list[Instruction] = []
    for item in logical:
        record = _located(item, directives.escape, findings, name)
        if isinstance(record, From):
            if base:
                stages.append(_stage(base, body))
            base, body = record, []
        elif base:
            body.append(record)
        elif isinstance(record, Arg):
            global_args.append(record)
        else:
            raise DockerfileError(
                f"{name}:{item.lines.first}: {split_head(item.text)[0].upper()} before the first FROM",
                hint="only ARG may stand there",
            )
    if base is None:
        raise DockerfileError(f"{name}: there is no FROM in it", hint="FROM scratch begins with nothing")
    stages.append(_stage(base, body))
    return Dockerfile(name, directives, tuple(global_args), tuple(stages), (*findings, *_casing(logical)))


def parse_trigger(text: str, name: str = "ONBUILD") -> Instruction:
    """The instruction that an image has for its children. Raises DockerfileError."""
    logical, findings = read_instructions(text, "\\", _opened, name)
    if len(logical) != 1:
        raise DockerfileError(f"{name}: {text.strip()[:80]!r} is not one instruction")
    keyword = split_head(logical[0].text)[0].upper()
    record = _located(logical[0], "\\", findings, name)
    if isinstance(record, From) or keyword in _NO_TRIGGERS:
        raise DockerfileError(f"{name}: {keyword} is not allowed in ONBUILD")
    return record


def _stage(base: From, body: list[Instruction]) -> Stage:
    return Stage(base.name, base, tuple(body), base.lines)


def _located(item: Logical, escape: str, findings: list[Finding], name: str) -> Instruction | From:
    try:
        return _parse(item, escape, findings)
    except DockerfileError as error:
        raise DockerfileError(f"{name}:{item.lines.first}: {error}", hint=error.hint) from None


def _parse(item: Logical, escape: str, findings: list[Finding]) -> Instruction | From:
    written, rest = split_head(item.text)
    keyword = written.upper()
    parser = _PARSERS.get(keyword)
    if parser is None:
        raise DockerfileError(f"unknown instruction: {written[:80]}", hint=near(keyword, _PARSERS))
    source = item.text
    if item.heredocs:
        source = "\n".join([source, *(document.raw + document.name for document in item.heredocs)])
    _check_text(source)
    flags: list[Flag] = []
    if rest.startswith("--"):
        flags, rest = take_flags(rest)
        _check_flags(keyword, flags)
    request = _Request(keyword, flags, rest, item.heredocs, item.lines, source, escape, findings)
    if item.comment and keyword in ("FROM", "ARG"):
        request.find("InvalidDefinitionDescription", item.comment)
    return parser(request)


def _check_text(text: str) -> None:
    if text.isascii():
        wrong = "\0" in text
    else:
        wrong = "\0" in text or any("\ud800" <= char <= "\udfff" for char in text)
    if wrong:
        raise DockerfileError("there is a NUL, or what is not UTF-8, in this instruction")


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


# Flags

_REPEATED = ("mount", "exclude", "device")
_BOOLEANS = ("link", "parents", "keep-git-dir", "unpack")
_FLAGS: dict[str, tuple[str, ...]] = {
    "FROM": ("platform",),
    "RUN": ("mount", "network", "security", "device"),
    "COPY": ("from", "chown", "chmod", "link", "parents", "exclude"),
    "ADD": ("chown", "chmod", "link", "checksum", "keep-git-dir", "unpack", "exclude"),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
}


def _check_flags(keyword: str, flags: list[Flag]) -> None:
    known = _FLAGS.get(keyword, ())
    seen: set[str] = set()
    for name, value in flags:
        if name not in known:
            raise DockerfileError(f"{keyword} has no flag --{name[:80]}", hint=_flag_hint(name, known))
        if name in seen and name not in _REPEATED:
            raise DockerfileError(f"--{name} may be given only once")
        if name in _BOOLEANS:
            if value is not None and value.lower() not in ("true", "false"):
                raise DockerfileError(f"--{name}={value[:80]}: true or false is expected")
        elif value is None:
            raise DockerfileError(f"--{name} needs a value: --{name}=VALUE")
        seen.add(name)


def _flag_hint(name: str, known: tuple[str, ...]) -> str:
    others = [keyword for keyword, names in _FLAGS.items() if name in names]
    return f"{' and '.join(others)} has it" if others else near(name, known).replace("mean ", "mean --")


def _value(request: _Request, name: str, default: str = "") -> str:
    return next((flag.value or "" for flag in request.flags if flag.name == name), default)


def _values(request: _Request, name: str) -> tuple[str, ...]:
    return tuple(flag.value or "" for flag in request.flags if flag.name == name)


def _switch(request: _Request, name: str) -> bool | None:
    """Whether `--name` is on; None where it is not there."""
    return next(((flag.value or "true").lower() == "true" for flag in request.flags if flag.name == name), None)


# Words


def _some(request: _Request, words: list[str]) -> list[str]:
    if not words:
        raise DockerfileError(f"{request.keyword} needs at least one argument")
    return words


def _one(request: _Request) -> str:
    """All of the text, as one word."""
    if not request.rest:
        hint = (
            f"{request.keyword} [] removes what the base image has" if request.keyword in ("CMD", "ENTRYPOINT") else ""
        )
        raise DockerfileError(f"{request.keyword} needs an argument", hint=hint)
    return request.rest


def _list(request: _Request) -> list[str]:
    """The strings of a JSON array, or words at blanks."""
    words = parse_json_words(request.rest)
    return split_blanks(request.rest) if words is None else words


def _command(text: str) -> Command:
    words = parse_json_words(text)
    return Command((text,), True) if words is None else Command(tuple(words), False)


def _pairs(request: _Request) -> tuple[Pair, ...]:
    """`name=value …`, or `name value` as it was once written, the value then being all that follows."""
    words, _ = split_quoted(request.rest, request.escape)
    if "=" not in _some(request, words)[0]:
        name, value = split_head(request.rest)
        if not value:
            raise DockerfileError(
                f"{request.keyword} {name}: there is no value", hint=f"{request.keyword} {name}=VALUE"
            )
        request.find("LegacyKeyValueFormat", request.keyword)
        return (Pair(name, value),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(
                f"{request.keyword}: there is no = in {word[:80]}", hint="put a value that has blanks in quotes"
            )
        if not name:
            raise DockerfileError(f"{request.keyword}: {word[:80]} has no name")
        pairs.append(Pair(name, value))
    return tuple(pairs)


# Instructions


def _from(request: _Request) -> From:
    words = split_blanks(request.rest)
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise DockerfileError("FROM has one argument or three", hint="FROM [--platform=PLATFORM] IMAGE [AS NAME]")
    name = _stage_name(request, words[1], words[2]) if len(words) == 3 else ""
    return From(words[0], name, _value(request, "platform"), request.lines, request.source)


def _stage_name(request: _Request, word_as: str, written: str) -> str:
    name = written.lower()
    if not ("a" <= name[0] <= "z" and _STAGE_LETTERS.issuperset(name)):
        raise DockerfileError(
            f"{written[:80]} cannot be the name of a stage",
            hint="names begin with a letter, and have letters, digits, '-', '_' and '.'",
        )
    if name != written:
        request.find("StageNameCasing", written)
    keyword = request.source[:4]
    if (keyword.islower() and not word_as.islower()) or (keyword.isupper() and not word_as.isupper()):
        request.find("FromAsCasing", f"{keyword} {word_as}")
    return name


def _run(request: _Request) -> Run:
    if "device" in [flag.name for flag in request.flags]:
        raise DockerfileError("RUN --device is not supported: builds have no devices of the host")
    network, security = _value(request, "network", "default"), _value(request, "security", "sandbox")
    for name, value, known in (
        ("network", network, ("default", "none", "host")),
        ("security", security, ("sandbox", "insecure")),
    ):
        if value not in known:
            raise DockerfileError(f"--{name}={value[:80]}: one of {', '.join(known)}", hint=near(value, known))
    command = _command(_one(request))
    if not command.words:
        raise DockerfileError("RUN needs at least one argument")
    return Run(
        command,
        request.heredocs,
        len(request.heredocs) == 1 and command.is_shell and parse_heredoc_word(request.rest) is not None,
        tuple(check_mount(text) for text in _values(request, "mount")),
        network,
        security,
        request.lines,
        request.source,
    )


def _sources(request: _Request) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    """Sources, those that are heredocs, and the destination."""
    words = _list(request)
    if len(words) < 2:
        raise DockerfileError(
            f"{request.keyword} needs a source and a destination", hint=f"{request.keyword} SOURCE… DESTINATION"
        )
    if not request.heredocs:
        return tuple(words[:-1]), (), words[-1]
    if parse_heredoc_word(words[-1]):
        raise DockerfileError(f"{request.keyword}: a heredoc cannot be the destination")
    named = {document.name: document for document in request.heredocs}
    opened = [(word, parse_heredoc_word(word)) for word in words[:-1]]
    paths = tuple(word for word, heredoc in opened if heredoc is None)
    return paths, tuple(named[heredoc.name] for _, heredoc in opened if heredoc and heredoc.name in named), words[-1]


def _copy(request: _Request) -> Copy:
    sources, heredocs, destination = _sources(request)
    stage = _value(request, "from")
    if "$" in stage:
        raise DockerfileError(
            f"--from={stage[:80]}: variables are not expanded here",
            hint="give the image a name, FROM IMAGE AS name, and write --from=name",
        )
    return Copy(
        sources,
        heredocs,
        destination,
        stage,
        _value(request, "chown"),
        _value(request, "chmod"),
        bool(_switch(request, "link")),
        bool(_switch(request, "parents")),
        _values(request, "exclude"),
        request.lines,
        request.source,
    )


def _add(request: _Request) -> Add:
    sources, heredocs, destination = _sources(request)
    return Add(
        sources,
        heredocs,
        destination,
        _value(request, "chown"),
        _value(request, "chmod"),
        bool(_switch(request, "link")),
        _value(request, "checksum"),
        bool(_switch(request, "keep-git-dir")),
        _switch(request, "unpack"),
        _values(request, "exclude"),
        request.lines,
        request.source,
    )


def _cmd(request: _Request) -> Cmd:
    return Cmd(_command(_one(request)), request.lines, request.source)


def _entrypoint(request: _Request) -> Entrypoint:
    return Entrypoint(_command(_one(request)), request.lines, request.source)


def _env(request: _Request) -> Env:
    return Env(_pairs(request), request.lines, request.source)


def _label(request: _Request) -> Label:
    return Label(_pairs(request), request.lines, request.source)


def _arg(request: _Request) -> Arg:
    words, _ = split_quoted(request.rest, request.escape)
    names = []
    for word in _some(request, words):
        name, equals, default = word.partition("=")
        if not name:
            raise DockerfileError(f"ARG: {word[:80]} has no name")
        names.append(ArgName(name, default if equals else None))
    return Arg(tuple(names), request.lines, request.source)


def _expose(request: _Request) -> Expose:
    return Expose(tuple(_some(request, split_blanks(request.rest))), request.lines, request.source)


def _volume(request: _Request) -> Volume:
    paths = tuple(word.strip() for word in _some(request, _list(request)))
    if not all(paths):
        raise DockerfileError("VOLUME: a path is empty")
    return Volume(paths, request.lines, request.source)


def _user(request: _Request) -> User:
    return User(_one(request), request.lines, request.source)


def _workdir(request: _Request) -> Workdir:
    return Workdir(_one(request), request.lines, request.source)


def _stop_signal(request: _Request) -> StopSignal:
    return StopSignal(_one(request), request.lines, request.source)


def _maintainer(request: _Request) -> Maintainer:
    return Maintainer(_one(request), request.lines, request.source)


def _healthcheck(request: _Request) -> Healthcheck:
    kind, rest = split_head(_one(request))
    kind = kind.upper()
    if kind == "NONE":
        if rest:
            raise DockerfileError("HEALTHCHECK NONE has no arguments")
        return Healthcheck(None, 0, 0, 0, 0, 0, request.lines, request.source)
    if kind != "CMD":
        raise DockerfileError(f"HEALTHCHECK {kind[:80]}: NONE or CMD is expected", hint="HEALTHCHECK CMD command")
    command = _command(rest)
    if not rest or not command.words:
        raise DockerfileError("HEALTHCHECK CMD: there is no command")
    times = [parse_interval(name, _value(request, name)) for name in _FLAGS["HEALTHCHECK"][:-1]]
    interval, timeout, start_period, start_interval = times
    retries = _retries(_value(request, "retries", "0"))
    return Healthcheck(command, interval, timeout, start_period, start_interval, retries, request.lines, request.source)


def _retries(text: str) -> int:
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 11 and int(digits) < 1 << 31):
        raise DockerfileError(f"--retries={text[:80]}: not a number")
    return int(digits)


def _shell(request: _Request) -> Shell:
    words = parse_json_words(_one(request))
    if words is None:
        raise DockerfileError("SHELL has the JSON form only", hint='SHELL ["/bin/bash", "-c"]')
    return Shell(tuple(_some(request, words)), request.lines, request.source)


def _onbuild(request: _Request) -> Onbuild:
    trigger = split_head(_one(request))[0].upper()
    if trigger in _NO_TRIGGERS:
        raise DockerfileError(f"{trigger} is not allowed in ONBUILD")
    if trigger not in _PARSERS:
        raise DockerfileError(f"unknown instruction: {trigger[:80]}", hint=near(trigger, _PARSERS))
    expression = split_head(request.source)[1]
    # Read as its children will: what is wrong should be the author's error, not theirs.
    item = Logical(split_head(request.source.partition("\n")[0])[1], request.lines, request.heredocs, "")
    _parse(item, request.escape, [])
    return Onbuild(expression, request.lines, request.source)


_PARSERS: dict[str, Callable[[_Request], Instruction | From]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _casing(logical: list[Logical]) -> list[Finding]:
    """The keywords that are not written in the case that most are."""
    words = [(split_head(item.text)[0], item.lines.first) for item in logical]
    lower = sum(word.islower() for word, _ in words)
    upper = sum(word.isupper() for word, _ in words)
    most = str.islower if lower > upper else str.isupper
    case = "lowercase" if lower > upper else "uppercase"
    return [Finding("ConsistentInstructionCasing", line, f"{word} {case}") for word, line in words if not most(word)]
