"""Checks of a Dockerfile that is no error: BuildKit's, by BuildKit's names.

Each check is a function that yields warnings. What is written how (casing, empty continuation lines) the parser has
noted; the rest is read off the records. `# check=skip=RULE,RULE;error=true;experimental=RULE` at the top chooses.

Variables may come from a base image. Where its environment is not known, an unknown name is only reported if it is like
one that the Dockerfile defines.
"""

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rootless.dockerfile.expand import expansion
from rootless.dockerfile.ignore import Patterns
from rootless.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Dockerfile,
    DockerfileError,
    Entrypoint,
    Env,
    Expose,
    Finding,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Run,
    Shell,
    Stage,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from rootless.dockerfile.near import near
from rootless.dockerfile.variables import BUILDER_ARGS, PLATFORM_ARGS, PREDEFINED_ARGS
from rootless.errors import InvalidInput
from rootless.spec.reference import parse_reference

RULES = (
    "ConsistentInstructionCasing",
    "CopyIgnoredFile",
    "DuplicateStageName",
    "ExposeInvalidFormat",
    "ExposeProtoCasing",
    "FromAsCasing",
    "FromPlatformFlagConstDisallowed",
    "InvalidBaseImagePlatform",
    "InvalidDefaultArgInFrom",
    "InvalidDefinitionDescription",
    "JSONArgsRecommended",
    "LegacyKeyValueFormat",
    "MaintainerDeprecated",
    "MultipleInstructionsDisallowed",
    "NoEmptyContinuation",
    "RedundantTargetPlatform",
    "ReservedStageName",
    "SecretsUsedInArgOrEnv",
    "StageNameCasing",
    "UndefinedArgInFrom",
    "UndefinedVar",
    "WorkdirRelativePath",
)
EXPERIMENTAL = frozenset(("CopyIgnoredFile", "InvalidDefinitionDescription"))

_SECRETS = frozenset(
    ("apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token")
)
_ALWAYS = frozenset(("PATH", *PREDEFINED_ARGS, *BUILDER_ARGS))
_RESERVED = ("context", "scratch")


class Warning(NamedTuple):
    """What one check has to say of one line."""

    rule: str
    line: int
    message: str


class CheckOptions(NamedTuple):
    """Which checks count, and whether a warning ends the build."""

    skip: frozenset[str] = frozenset()  # "all" is every one
    experimental: frozenset[str] = frozenset()  # those that are off otherwise; "all" is every one
    error: bool = False

    def counts(self, rule: str) -> bool:
        """Whether a check is on."""
        if rule in EXPERIMENTAL and not self.experimental & {rule, "all"}:
            return False
        return not self.skip & {rule, "all"}


class Context(NamedTuple):
    """What a check may know besides the Dockerfile."""

    environments: Mapping[str, Sequence[str]] = {}  # the names of variables that an image sets, by the image's name
    ignored: Patterns | None = None  # .dockerignore


_NOTHING = Context()


def parse_check_options(text: str) -> CheckOptions:
    """What `# check=` or --build-arg BUILDKIT_DOCKERFILE_CHECK says. Raises DockerfileError."""
    found: dict[str, frozenset[str]] = {}
    is_error = False
    for part in filter(None, text.strip().split(";")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key in ("skip", "experimental") and equals:
            found[key] = frozenset(name.strip() for name in value.split(","))
        elif key == "error" and value.lower() in ("1", "t", "true", "0", "f", "false"):
            is_error = value.lower() in ("1", "t", "true")
        else:
            raise DockerfileError(
                f"check={text[:80]}: {part.strip()[:80]} cannot be read", hint="check=skip=RULE,RULE;error=true"
            )
    return CheckOptions(found.get("skip", frozenset()), found.get("experimental", frozenset()), is_error)


def options_of(dockerfile: Dockerfile) -> CheckOptions:
    """What the Dockerfile itself says at its top. Raises DockerfileError."""
    try:
        return parse_check_options(dockerfile.directives.check)
    except DockerfileError as error:
        raise DockerfileError(f"{dockerfile.name}: {error}", hint=error.hint) from None


def check(
    dockerfile: Dockerfile, context: Context = _NOTHING, options: CheckOptions | None = None
) -> tuple[Warning, ...]:
    """The warnings, by line; *options* are the Dockerfile's own, unless given. Raises DockerfileError."""
    if options is None:
        options = options_of(dockerfile)
    found: list[Warning] = [*_of_the_text(dockerfile), *_of_from(dockerfile), *_of_stages(dockerfile, context)]
    return tuple(sorted({w for w in found if options.counts(w.rule)}, key=lambda w: (w.line, w.rule, w.message)))


# What the parser noted


def _of_the_text(dockerfile: Dockerfile) -> Iterator[Warning]:
    defined = _defined_at(dockerfile)
    for finding in dockerfile.findings:
        message = _noted(finding, defined)
        if message:
            yield Warning(finding.rule, finding.line, message)


def _noted(finding: Finding, defined: Mapping[int, tuple[str, Sequence[str]]]) -> str:
    first, _, second = finding.detail.partition(" ")
    match finding.rule:
        case "NoEmptyContinuation":
            return "an empty line in the middle of an instruction"
        case "ConsistentInstructionCasing":
            return f"{first} should be {second}, as most instructions here are"
        case "StageNameCasing":
            return f"the name of stage {first} should be lowercase"
        case "FromAsCasing":
            return f"{second} is not in the same case as {first}"
        case "LegacyKeyValueFormat":
            return f"{first} name value is an old form: write {first} name=value"
        case "InvalidDefinitionDescription":
            keyword, names = defined.get(finding.line, ("", ()))
            if names and first not in names:
                return f"the comment above {keyword} should be: # {names[0]} DESCRIPTION"
    return ""


def _defined_at(dockerfile: Dockerfile) -> dict[int, tuple[str, Sequence[str]]]:
    """By their lines, the names that FROM and ARG define."""
    found: dict[int, tuple[str, Sequence[str]]] = {}
    for stage in dockerfile.stages:
        found[stage.location.first] = ("FROM", [stage.name] if stage.name else [])
    inner = (i for stage in dockerfile.stages for i in stage.instructions if isinstance(i, Arg))
    for arg in (*dockerfile.global_args, *inner):
        found[arg.lines.first] = ("ARG", [declared.name for declared in arg.names])
    return found


# FROM


def _of_from(dockerfile: Dockerfile) -> Iterator[Warning]:
    names = {declared.name: declared.default for arg in dockerfile.global_args for declared in arg.names}
    variables = dict.fromkeys((*PLATFORM_ARGS, *names), "x")
    seen: set[str] = set()
    near_name = _Near()
    for stage in dockerfile.stages:
        line = stage.location.first
        if stage.name in _RESERVED:
            yield Warning("ReservedStageName", line, f"a stage should not have the reserved name {stage.name}")
        if stage.name in seen:
            yield Warning("DuplicateStageName", line, f"there is another stage {stage.name} before this one")
        yield from _of_platform(stage)
        for name in sorted({*_missing(stage.base.image, variables), *_missing(stage.base.platform, variables)}):
            hint = near_name(name, variables)
            yield Warning("UndefinedArgInFrom", line, f"no ARG before FROM declares {name}{_aside(hint)}")
        if "$" in stage.base.image and not _is_image(_with_defaults(stage.base.image, dockerfile), seen):
            yield Warning(
                "InvalidDefaultArgInFrom", line, f"with the defaults of ARG, {stage.base.image} is not an image's name"
            )
        if stage.name:
            seen.add(stage.name)


class _Near:
    """near(), as long as there are few to ask for: it is slow, and a hostile Dockerfile may have thousands."""

    def __init__(self) -> None:
        self._left = 50

    def __call__(self, word: str, known: Iterable[str]) -> str:
        self._left -= 1
        return near(word, known) if self._left >= 0 else ""


def _aside(hint: str) -> str:
    return f" ({hint})" if hint else ""


def _of_platform(stage: Stage) -> Iterator[Warning]:
    platform = stage.base.platform
    if platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
        yield Warning(
            "RedundantTargetPlatform", stage.location.first, f"--platform={platform} is what holds without it"
        )
    elif platform and "$" not in platform and not any(part in stage.name for part in platform.lower().split("/")):
        yield Warning(
            "FromPlatformFlagConstDisallowed",
            stage.location.first,
            f"--platform={platform} is fixed: leave it out, or name the stage after it",
        )


def _with_defaults(word: str, dockerfile: Dockerfile) -> str:
    """*word* as it is without any --build-arg; "" where it has no value."""
    escape = dockerfile.directives.escape
    variables = dict.fromkeys(PLATFORM_ARGS, "linux")
    try:
        for arg in dockerfile.global_args:
            for name, default in arg.names:
                if default is not None:
                    variables[name] = expansion(default, variables, escape=escape).text
        return expansion(word, variables, escape=escape).text
    except DockerfileError:
        return ""


def _is_image(text: str, stages: set[str]) -> bool:
    if text.lower() in stages or text == "scratch":
        return True
    try:
        parse_reference(text)
    except InvalidInput:
        return False
    return True


def _missing(word: str, variables: Mapping[str, str], escape: str = "\\") -> frozenset[str]:
    if "$" not in word:
        return frozenset()
    try:
        return expansion(word, variables, escape=escape).missing
    except DockerfileError:
        return frozenset()  # the build will say so


# Stages


class _Scope(NamedTuple):
    """What a stage hands on to one that begins with it."""

    names: frozenset[str]  # variables of the environment
    is_known: bool  # whether these are all
    has_shell: bool
    has_directory: bool


def _of_stages(dockerfile: Dockerfile, context: Context) -> Iterator[Warning]:
    scopes: dict[str, _Scope] = {}
    near_name = _Near()
    for stage in dockerfile.stages:
        walk = _Walk(dockerfile.directives.escape, context, _begin(stage, scopes, context), near_name)
        for instruction in stage.instructions:
            walk.see(instruction)
        yield from walk.found
        yield from _repeated(stage)
        if stage.name:
            scopes[stage.name] = walk.scope()


def _begin(stage: Stage, scopes: Mapping[str, _Scope], context: Context) -> _Scope:
    image = stage.base.image
    inherited = scopes.get(image.lower())
    if inherited:
        return inherited
    names = context.environments.get(image)
    return _Scope(_ALWAYS | frozenset(names or ()), names is not None or image == "scratch", False, False)


def _repeated(stage: Stage) -> Iterator[Warning]:
    last: dict[type, int] = {}
    for instruction in stage.instructions:
        if isinstance(instruction, Cmd | Entrypoint | Healthcheck):
            kind = type(instruction)
            if kind in last:
                keyword = kind.__name__.upper()
                message = f"there is another {keyword} in this stage, and only the last one counts"
                yield Warning("MultipleInstructionsDisallowed", last[kind], message)
            last[kind] = instruction.lines.first


class _Walk:
    """One stage, instruction by instruction."""

    def __init__(self, escape: str, context: Context, scope: _Scope, near_name: "_Near") -> None:
        self.found: list[Warning] = []
        self._escape = escape
        self._context = context
        self._near = near_name
        self._environment = set(scope.names)
        self._defined = dict.fromkeys(scope.names, "x")  # and the arguments
        self._is_known = scope.is_known
        self._has_shell = scope.has_shell
        self._has_directory = scope.has_directory

    def scope(self) -> _Scope:
        return _Scope(frozenset(self._environment), self._is_known, self._has_shell, self._has_directory)

    def see(self, instruction: Instruction) -> None:
        line = instruction.lines.first
        self._see_words(instruction, line)
        match instruction:
            case Env():
                self._see_env(instruction, line)
            case Arg():
                self._see_arg(instruction, line)
            case Cmd() | Entrypoint():
                self._see_command(instruction, line)
            case Shell():
                self._has_shell = True
            case Workdir():
                self._see_workdir(instruction.path, line)
            case Expose():
                self._see_ports(instruction.ports, line)
            case Maintainer():
                self._warn(
                    "MaintainerDeprecated",
                    line,
                    "MAINTAINER is an old form: write LABEL org.opencontainers.image.authors=",
                )
            case Copy() | Add():
                self._see_sources(instruction, line)

    def _warn(self, rule: str, line: int, message: str) -> None:
        self.found.append(Warning(rule, line, message))

    def _see_words(self, instruction: Instruction, line: int) -> None:
        names = {name for word in _words(instruction) for name in _missing(word, self._defined, self._escape)}
        for name in sorted(names):
            self._see_missing(name, line)

    def _see_missing(self, name: str, line: int) -> None:
        if not (name[0].isalpha() or name[0] == "_"):
            return
        hint = self._near(name, (known for known in self._defined if known not in _ALWAYS))
        if self._is_known or hint:
            self._warn("UndefinedVar", line, f"${name} is not defined{_aside(hint)}")

    def _see_env(self, instruction: Env, line: int) -> None:
        for pair in instruction.pairs:
            self._see_secret("ENV", pair.key, line)
            self._environment.add(pair.key)
            self._defined[pair.key] = "x"

    def _see_arg(self, instruction: Arg, line: int) -> None:
        for name, default in instruction.names:
            for missing in sorted(_missing(default or "", self._defined, self._escape)):
                self._see_missing(missing, line)
            self._see_secret("ARG", name, line)
            self._defined[name] = "x"

    def _see_secret(self, keyword: str, name: str, line: int) -> None:
        parts = set(name.lower().split("_"))
        if parts & _SECRETS and "public" not in parts:
            self._warn(
                "SecretsUsedInArgOrEnv", line, f"{keyword} {name} stays in the image: use RUN --mount=type=secret"
            )

    def _see_command(self, instruction: Cmd | Entrypoint, line: int) -> None:
        if instruction.command.is_shell and not self._has_shell:
            keyword = type(instruction).__name__.upper()
            message = f'{keyword} in the shell form gets no signals: write {keyword} ["program", "argument"]'
            self._warn("JSONArgsRecommended", line, message)

    def _see_workdir(self, path: str, line: int) -> None:
        if path.startswith(("/", "$", '"/', "'/")):
            self._has_directory = True
        elif not self._has_directory:
            self._warn("WorkdirRelativePath", line, f"WORKDIR {path} depends on the directory of the base image")

    def _see_ports(self, ports: Sequence[str], line: int) -> None:
        for word in ports:
            numbers, _, protocol = word.partition("/")
            if protocol != protocol.lower() and "$" not in protocol:
                self._warn("ExposeProtoCasing", line, f"the protocol {protocol} should be lowercase")
            if ":" in numbers and "$" not in numbers:
                self._warn(
                    "ExposeInvalidFormat", line, f"EXPOSE {word}: a port only, without an address or a port of the host"
                )

    def _see_sources(self, instruction: Copy | Add, line: int) -> None:
        if self._context.ignored is None or (isinstance(instruction, Copy) and instruction.stage):
            return
        for word in instruction.sources:
            path = posixpath.normpath(word).lstrip("/")
            if "://" in word or path in ("", ".") or set(path) & set("*?[$"):
                continue
            if self._context.ignored.excludes(path, False) and not self._context.ignored.may_include_below(path):
                self._warn("CopyIgnoredFile", line, f".dockerignore leaves {word} out of the context")


def _words(instruction: Instruction) -> Sequence[str]:
    """The words of an instruction that may have variables."""
    match instruction:
        case Copy():
            return (*instruction.sources, instruction.destination, instruction.owner, instruction.mode)
        case Add():
            words = (*instruction.sources, instruction.destination, instruction.owner, instruction.mode)
            return (*words, instruction.checksum)
        case Env() | Label():
            return [word for pair in instruction.pairs for word in pair]
        case Expose():
            return instruction.ports
        case Volume():
            return instruction.paths
        case User():
            return (instruction.user,)
        case Workdir():
            return (instruction.path,)
        case StopSignal():
            return (instruction.signal,)
        case Run():
            return [mount.text for mount in instruction.mounts]
    return ()
