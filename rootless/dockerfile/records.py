"""A record for each keyword: what its words are, and what can be wrong with them before any variable is known."""

from collections.abc import Callable

from rootless.dockerfile.durations import parse_interval
from rootless.dockerfile.instructions import (
    Add,
    Arg,
    ArgName,
    Cmd,
    Command,
    Copy,
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
    Maintainer,
    Onbuild,
    Pair,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from rootless.dockerfile.mounts import check_mount
from rootless.dockerfile.near import near
from rootless.dockerfile.request import FLAGS, Request, check_flags
from rootless.dockerfile.text import Logical
from rootless.dockerfile.words import (
    Flag,
    parse_heredoc_word,
    parse_json_words,
    split_blanks,
    split_head,
    split_quoted,
    take_flags,
)

NO_TRIGGERS = ("FROM", "MAINTAINER", "ONBUILD")
_STAGE_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def make_record(item: Logical, escape: str, findings: list[Finding]) -> Instruction | From:
    """The record of *item*; what the checks should know goes to *findings*. Raises DockerfileError, without a place."""
    written, rest = split_head(item.text)
    keyword = written.upper()
    maker = MAKERS.get(keyword)
    if maker is None:
        raise DockerfileError(f"unknown instruction: {written[:80]}", hint=near(keyword, MAKERS))
    source = item.text
    if item.heredocs:
        source = "\n".join([source, *(document.raw + document.name for document in item.heredocs)])
    _check_text(source)
    flags: list[Flag] = []
    if rest.startswith("--"):
        flags, rest = take_flags(rest)
        check_flags(keyword, flags)
    request = Request(keyword, flags, rest, item.heredocs, item.lines, source, escape, findings)
    if item.comment and keyword in ("FROM", "ARG"):
        request.find("InvalidDefinitionDescription", item.comment)
    return maker(request)


def _check_text(text: str) -> None:
    is_utf8 = text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
    if not is_utf8 or "\0" in text:
        raise DockerfileError("there is a NUL, or what is not UTF-8, in this instruction")


# Words


def _some(request: Request, words: list[str]) -> list[str]:
    if not words:
        raise DockerfileError(f"{request.keyword} needs at least one argument")
    return words


def _one(request: Request) -> str:
    """All of the text, as one word."""
    if not request.rest:
        can_be_empty = request.keyword in ("CMD", "ENTRYPOINT")
        hint = f"{request.keyword} [] removes what the base image has" if can_be_empty else ""
        raise DockerfileError(f"{request.keyword} needs an argument", hint=hint)
    return request.rest


def _list(request: Request) -> list[str]:
    """The strings of a JSON array, or words at blanks."""
    words = parse_json_words(request.rest)
    return split_blanks(request.rest) if words is None else words


def _command(text: str) -> Command:
    words = parse_json_words(text)
    return Command((text,), True) if words is None else Command(tuple(words), False)


def _pairs(request: Request) -> tuple[Pair, ...]:
    """`name=value …`, or `name value` as it was once written, the value then being all that follows."""
    words, _ = split_quoted(request.rest, request.escape)
    if "=" in _some(request, words)[0]:
        return tuple(_pair(request, word) for word in words)
    name, value = split_head(request.rest)
    if not value:
        raise DockerfileError(f"{request.keyword} {name}: there is no value", hint=f"{request.keyword} {name}=VALUE")
    request.find("LegacyKeyValueFormat", request.keyword)
    return (Pair(name, value),)


def _pair(request: Request, word: str) -> Pair:
    name, equals, value = word.partition("=")
    if not equals:
        raise DockerfileError(
            f"{request.keyword}: there is no = in {word[:80]}", hint="put a value that has blanks in quotes"
        )
    if not name:
        raise DockerfileError(f"{request.keyword}: {word[:80]} has no name")
    return Pair(name, value)


# Instructions


def _from(request: Request) -> From:
    words = split_blanks(request.rest)
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise DockerfileError("FROM has one argument or three", hint="FROM [--platform=PLATFORM] IMAGE [AS NAME]")
    name = _stage_name(request, words[1], words[2]) if len(words) == 3 else ""
    return From(words[0], name, request.value("platform"), request.lines, request.source)


def _stage_name(request: Request, word_as: str, written: str) -> str:
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


def _run(request: Request) -> Run:
    if "device" in [flag.name for flag in request.flags]:
        raise DockerfileError("RUN --device is not supported: builds have no devices of the host")
    network, security = request.value("network", "default"), request.value("security", "sandbox")
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
        tuple(check_mount(text) for text in request.values("mount")),
        network,
        security,
        request.lines,
        request.source,
    )


def _sources(request: Request) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
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


def _copy(request: Request) -> Copy:
    sources, heredocs, destination = _sources(request)
    stage = request.value("from")
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
        request.value("chown"),
        request.value("chmod"),
        bool(request.switch("link")),
        bool(request.switch("parents")),
        request.values("exclude"),
        request.lines,
        request.source,
    )


def _add(request: Request) -> Add:
    sources, heredocs, destination = _sources(request)
    return Add(
        sources,
        heredocs,
        destination,
        request.value("chown"),
        request.value("chmod"),
        bool(request.switch("link")),
        request.value("checksum"),
        bool(request.switch("keep-git-dir")),
        request.switch("unpack"),
        request.values("exclude"),
        request.lines,
        request.source,
    )


def _cmd(request: Request) -> Cmd:
    return Cmd(_command(_one(request)), request.lines, request.source)


def _entrypoint(request: Request) -> Entrypoint:
    return Entrypoint(_command(_one(request)), request.lines, request.source)


def _env(request: Request) -> Env:
    return Env(_pairs(request), request.lines, request.source)


def _label(request: Request) -> Label:
    return Label(_pairs(request), request.lines, request.source)


def _arg(request: Request) -> Arg:
    words, _ = split_quoted(request.rest, request.escape)
    names = []
    for word in _some(request, words):
        name, equals, default = word.partition("=")
        if not name:
            raise DockerfileError(f"ARG: {word[:80]} has no name")
        names.append(ArgName(name, default if equals else None))
    return Arg(tuple(names), request.lines, request.source)


def _expose(request: Request) -> Expose:
    return Expose(tuple(_some(request, split_blanks(request.rest))), request.lines, request.source)


def _volume(request: Request) -> Volume:
    paths = tuple(word.strip() for word in _some(request, _list(request)))
    if not all(paths):
        raise DockerfileError("VOLUME: a path is empty")
    return Volume(paths, request.lines, request.source)


def _user(request: Request) -> User:
    return User(_one(request), request.lines, request.source)


def _workdir(request: Request) -> Workdir:
    return Workdir(_one(request), request.lines, request.source)


def _stop_signal(request: Request) -> StopSignal:
    return StopSignal(_one(request), request.lines, request.source)


def _maintainer(request: Request) -> Maintainer:
    return Maintainer(_one(request), request.lines, request.source)


def _healthcheck(request: Request) -> Healthcheck:
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
    times = [parse_interval(name, request.value(name)) for name in FLAGS["HEALTHCHECK"][:-1]]
    interval, timeout, start_period, start_interval = times
    retries = _retries(request.value("retries", "0"))
    return Healthcheck(command, interval, timeout, start_period, start_interval, retries, request.lines, request.source)


def _retries(text: str) -> int:
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 11 and int(digits) < 1 << 31):
        raise DockerfileError(f"--retries={text[:80]}: not a number")
    return int(digits)


def _shell(request: Request) -> Shell:
    words = parse_json_words(_one(request))
    if words is None:
        raise DockerfileError("SHELL has the JSON form only", hint='SHELL ["/bin/bash", "-c"]')
    return Shell(tuple(_some(request, words)), request.lines, request.source)


def _onbuild(request: Request) -> Onbuild:
    trigger = split_head(_one(request))[0].upper()
    if trigger in NO_TRIGGERS:
        raise DockerfileError(f"{trigger} is not allowed in ONBUILD")
    if trigger not in MAKERS:
        raise DockerfileError(f"unknown instruction: {trigger[:80]}", hint=near(trigger, MAKERS))
    expression = split_head(request.source)[1]
    # Read as its children will: what is wrong should be the author's error, not theirs.
    item = Logical(split_head(request.source.partition("\n")[0])[1], request.lines, request.heredocs, "")
    make_record(item, request.escape, [])
    return Onbuild(expression, request.lines, request.source)


MAKERS: dict[str, Callable[[Request], Instruction | From]] = {
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
