"""Checks of a stage, instruction by instruction: variables, commands, directories, ports, sources."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rootless.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Dockerfile,
    Entrypoint,
    Env,
    Expose,
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
from rootless.dockerfile.variables import BUILDER_ARGS, PREDEFINED_ARGS
from rootless.dockerfile.warning import Context, Near, Warning, aside, missing_in

_SECRETS = frozenset(
    ("apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "psw", "secret", "token")
)
_ALWAYS = frozenset(("PATH", *PREDEFINED_ARGS, *BUILDER_ARGS))


class _Scope(NamedTuple):
    """What a stage hands on to one that begins with it."""

    names: frozenset[str]  # variables of the environment
    is_known: bool  # whether these are all
    has_shell: bool
    has_directory: bool


def check_stages(dockerfile: Dockerfile, context: Context) -> Iterator[Warning]:
    """What is to be said of the instructions after each FROM."""
    scopes: dict[str, _Scope] = {}
    near_name = Near()
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

    def __init__(self, escape: str, context: Context, scope: _Scope, near_name: Near) -> None:
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
        names = {name for word in _words(instruction) for name in missing_in(word, self._defined, self._escape)}
        for name in sorted(names):
            self._seemissing_in(name, line)

    def _seemissing_in(self, name: str, line: int) -> None:
        if not (name[0].isalpha() or name[0] == "_"):
            return
        hint = self._near(name, (known for known in self._defined if known not in _ALWAYS))
        if self._is_known or hint:
            self._warn("UndefinedVar", line, f"${name} is not defined{aside(hint)}")

    def _see_env(self, instruction: Env, line: int) -> None:
        for pair in instruction.pairs:
            self._see_secret("ENV", pair.key, line)
            self._environment.add(pair.key)
            self._defined[pair.key] = "x"

    def _see_arg(self, instruction: Arg, line: int) -> None:
        for name, default in instruction.names:
            for missing in sorted(missing_in(default or "", self._defined, self._escape)):
                self._seemissing_in(missing, line)
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
