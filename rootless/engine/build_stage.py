"""One stage, instruction by instruction: variables get their values, the config changes, operations change the files.

Variables are ENV's, and below them ARG's, as far as they were declared in the stage or in one that it begins with. What
RUN sees of ARG is in its environment. The history says of each instruction what BuildKit's does.
"""

import errno
import json
import posixpath
from collections.abc import Callable, Mapping
from typing import Protocol

from rootless.dockerfile import expand as expanding
from rootless.dockerfile import mounts, ports
from rootless.dockerfile.ignore import Patterns
from rootless.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from rootless.dockerfile.variables import PREDEFINED_ARGS
from rootless.engine.build_additions import Additions
from rootless.engine.build_copy import Archive, Job, Text
from rootless.engine.build_digest import key_of
from rootless.engine.build_mounts import Mount
from rootless.engine.build_operations import Command as ToRun
from rootless.engine.build_operations import Operations
from rootless.engine.build_options import BuildOptions
from rootless.engine.build_plan import PlannedStage
from rootless.engine.build_progress import Cancelled, Doing, Teller
from rootless.engine.build_source import Picked, Source
from rootless.engine.build_state import Stage
from rootless.engine.build_steps import Place
from rootless.engine.build_write import Mode
from rootless.errors import InvalidInput, RootlessError
from rootless.spec.signals import parse_signal

HIDDEN = frozenset(PREDEFINED_ARGS)
# What a look-up says of a name that is not what it was a moment ago.
_CHANGED = (errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ESTALE)

_FILES = (Run, Copy, Add, Workdir)


class Surroundings(Protocol):
    """What a stage needs of its build."""

    options: BuildOptions
    operations: Operations
    additions: Additions
    teller: Teller

    def source(self, text: str, stage: int) -> Source:
        """What --from= names; waits for a stage. Raises NotFound."""

    def place(self, stage: PlannedStage, number: int) -> Place:
        """Where a step of a stage stands."""

    def located(self, instruction: Instruction, error: RootlessError) -> RootlessError:
        """*error*, with the lines of the instruction that it comes from."""


class StageBuild:
    """One stage on its way."""

    def __init__(
        self,
        build: Surroundings,
        planned: PlannedStage,
        state: Stage,
        global_variables: Mapping[str, str],
        declared: Mapping[str, str | None],
        escape: str,
        prefix: str = "",
    ) -> None:
        """*declared* are the ARGs of the stage that this one begins with; *prefix* is shown before its name."""
        self._build = build
        self._planned = planned
        self.state = state
        self._global = global_variables
        self.arguments = dict(declared)
        self._escape = escape
        self._prefix = prefix
        self._has_cmd = False
        self._number = 0
        self._total = 1 + sum(isinstance(i, _FILES) for i in planned.stage.instructions)
        self._file_step = 1

    def run(self, instructions: tuple[Instruction, ...]) -> None:
        """Do *instructions*. Raises StepFailed, InvalidInput, with the line where it was."""
        for instruction in instructions:
            self._number += 1
            try:
                self._do(instruction)
            except RootlessError as error:
                raise self._build.located(instruction, error) from error

    def _do(self, instruction: Instruction) -> None:
        handlers: dict[type, Callable[..., None]] = {
            Run: self._run,
            Copy: self._copy,
            Add: self._add,
            Cmd: self._cmd,
            Entrypoint: self._entrypoint,
            Env: self._env,
            Arg: self._arg,
            Label: self._label,
            Expose: self._expose,
            Volume: self._volume,
            User: self._user,
            Workdir: self._workdir,
            StopSignal: self._stop_signal,
            Healthcheck: self._healthcheck,
            Shell: self._shell,
            Onbuild: self._onbuild,
            Maintainer: self._maintainer,
        }
        handlers[type(instruction)](instruction)

    # Words

    @property
    def _variables(self) -> dict[str, str]:
        declared = {name: value for name, value in self.arguments.items() if value is not None}
        return {**declared, **self.state.environment}

    def _expand(self, word: str) -> str:
        return expanding.expand(word, self._variables, escape=self._escape)

    def _begin(self, instruction: Instruction, shown: str) -> tuple[Doing, Place]:
        self._file_step += 1
        name = f"{self._planned.stage.name} " if self._planned.stage.name else ""
        number = f"{self._file_step:>{len(str(self._total))}}/{max(self._total, self._file_step)}"
        doing = self._build.teller.begin(f"[{self._prefix}{name}{number}] {shown}")
        return doing, self._build.place(self._planned, self._number)

    def _ending(self, doing: Doing, action: Callable[[], None]) -> None:
        """Do *action*, and tell if it fails."""
        try:
            action()
        except Cancelled:
            doing.failed("CANCELED")
            raise
        except RootlessError as error:
            doing.failed(str(error))
            raise
        except OSError as error:
            doing.failed(str(error))
            if error.errno not in _CHANGED:
                raise
            raise InvalidInput(
                f"{error.filename}: {error.strerror}", hint="it seems to have been changed while it was being copied"
            ) from error

    # What changes files

    def _run(self, instruction: Run) -> None:
        asked = [self._mount(flag.text) for flag in instruction.mounts]
        sources = {  # which may have to be waited for; a step begins when all that it needs is there
            mount.from_: self._build.source(mount.from_, self._planned.number)
            for mount in asked
            if mount.type == "bind" or mount.from_
        }
        doing, place = self._begin(instruction, _first_line(instruction.source))
        self._ending(doing, lambda: self._run_step(instruction, asked, sources, place, doing))

    def _run_step(
        self, instruction: Run, asked: list[Mount], sources: dict[str, Source], place: Place, doing: Doing
    ) -> None:
        network = self._network(instruction.network)
        privileged = self._privileged(instruction.security)
        environment = self.state.environment
        declared = {n: v for n, v in self.arguments.items() if v is not None and n not in environment}
        command = ToRun(
            self._command_line(instruction),
            {**declared, **environment},
            {n: v for n, v in self._build.options.build_args.items() if n in HIDDEN and n not in declared},
            tuple(asked),
            network,
            privileged,
            instruction.script.content.encode() if instruction.script else None,
        )
        self._build.operations.run(self.state, place, command, sources, doing, _run_history(command, declared))

    def _command_line(self, instruction: Run) -> tuple[str, ...]:
        if instruction.script:
            return (f"/dev/pipes/{instruction.script.name}",)
        if instruction.command.is_shell:
            return (*self.state.shell, instruction.shell_text)
        return instruction.command.words

    def _mount(self, text: str) -> Mount:
        asked = mounts.parse_mount(text, self._expand)
        is_secret = asked.type == "secret"
        has_place = asked.target or asked.type in ("bind", "cache", "tmpfs")
        target = posixpath.normpath(posixpath.join(self.state.working_directory, asked.target)) if has_place else ""
        return Mount(
            asked.type,
            target,
            "" if is_secret else asked.source,
            asked.source_stage,
            asked.read_only,
            asked.id or (asked.source if is_secret else ""),
            asked.sharing,
            asked.mode,
            asked.uid or 0,
            asked.gid or 0,
            asked.size,
            asked.required,
            asked.variable,
        )

    def _network(self, asked: str) -> str:
        options = self._build.options
        if asked == "none":
            return "none"
        if asked == "host":
            if "network.host" not in options.allow and options.network != "host":
                raise InvalidInput("network.host is not allowed", hint="allow it: --allow network.host")
            return "host"
        return options.network

    def _privileged(self, security: str) -> bool:
        if security != "insecure":
            return False
        if "security.insecure" not in self._build.options.allow:
            raise InvalidInput("security.insecure is not allowed", hint="allow it: --allow security.insecure")
        return True

    def _copy(self, instruction: Copy) -> None:
        sources = [self._expand(word) for word in instruction.sources]
        destination = self._expand(instruction.destination)
        flags = f"--from={instruction.stage} " if instruction.stage else ""
        names = [*sources, *(document.name for document in instruction.heredocs)]
        text = f"COPY {_flags(instruction)}{flags}{' '.join(names)} {destination}"
        source = self._build.source(self._expand(instruction.stage), self._planned.number)
        doing, place = self._begin(instruction, text)

        def act() -> None:
            items: list[tuple[Source, Picked] | Text | Archive] = [
                (source, picked) for word in sources for picked in source.pick(word)
            ]
            self._copy_items(instruction, items, destination, place, doing, text, parents=instruction.parents)

        self._ending(doing, act)

    def _add(self, instruction: Add) -> None:
        sources = [self._expand(word) for word in instruction.sources]
        destination = self._expand(instruction.destination)
        names = [*sources, *(document.name for document in instruction.heredocs)]
        text = f"ADD {_flags(instruction)}{' '.join(names)} {destination}"
        doing, place = self._begin(instruction, text)

        def act() -> None:
            context = self._build.source("", self._planned.number)
            checksum = self._expand(instruction.checksum)
            items = [
                item
                for word in sources
                for item in self._build.additions.items(
                    word, context, checksum, unpack=instruction.unpack, keep_git=instruction.keep_git_dir
                )
            ]
            self._copy_items(instruction, items, destination, place, doing, text, parents=False)

        self._ending(doing, act)

    def _copy_items(
        self,
        instruction: Copy | Add,
        items: list[tuple[Source, Picked] | Text | Archive],
        destination: str,
        place: Place,
        doing: Doing,
        text: str,
        *,
        parents: bool,
    ) -> None:
        for document in instruction.heredocs:
            content = self._expand_text(document.content) if document.expand else document.content
            items.append(Text(document.name, content.encode("utf-8", "surrogateescape"), 0o644))
        if len(items) > 1 and not destination.endswith(("/", "/.")) and destination not in (".", ""):
            raise InvalidInput(
                f"when using {text.split()[0]} with more than one source file, the destination must be a directory"
                " and end with a /"
            )
        exclude = tuple(self._expand(word) for word in instruction.exclude)
        mode = Mode(self._expand(instruction.mode)) if instruction.mode else None
        owner = self._build.operations.owner(self.state, self._expand(instruction.owner))
        job = Job(
            items,
            destination_of(self.state.working_directory, destination),
            owner,
            mode,
            parents,
            Patterns.of(exclude) if exclude else None,
        )
        told = {"flags": key_of(*exclude)} if exclude else {}
        self._build.operations.copy(self.state, place, job, told, doing, text)

    def _expand_text(self, text: str) -> str:
        return expanding.expand_heredoc(text, self._variables, escape=self._escape)

    def _workdir(self, instruction: Workdir) -> None:
        path = self._expand(instruction.path)
        if not path:
            raise InvalidInput("WORKDIR: the path is empty")
        self.state.set("WorkingDir", posixpath.normpath(posixpath.join(self.state.working_directory, path)))
        text = f"WORKDIR {self.state.working_directory}"
        doing, place = self._begin(instruction, text)
        self._ending(doing, lambda: self._build.operations.working_directory(self.state, place, doing, text))

    # What changes the config

    def _words(self, command: Command) -> list[str]:
        return [*self.state.shell, *command.words] if command.is_shell and command.words else list(command.words)

    def _cmd(self, instruction: Cmd) -> None:
        words = self._words(instruction.command)
        self.state.set("Cmd", words)
        self._has_cmd = True
        self.state.note(f"CMD {_quoted(words)}")

    def _entrypoint(self, instruction: Entrypoint) -> None:
        words = self._words(instruction.command)
        self.state.set("Entrypoint", words or None)
        if not self._has_cmd:
            self.state.set("Cmd", None)
        self.state.note(f"ENTRYPOINT {_quoted(words)}")

    def _env(self, instruction: Env) -> None:
        pairs = [(self._expand(pair.key), self._expand(pair.value)) for pair in instruction.pairs]
        for name, value in pairs:
            self.state.set_environment(name, value)
        self.state.note("ENV " + " ".join(f"{name}={value}" for name, value in pairs))

    def _arg(self, instruction: Arg) -> None:
        shown = []
        for declared in instruction.names:
            given = self._build.options.build_args.get(declared.name)
            if given is not None:
                value: str | None = given
            elif declared.default is not None:
                value = self._expand(declared.default)
            else:
                value = self._global.get(declared.name, self.arguments.get(declared.name))
            self.arguments[declared.name] = value
            shown.append(declared.name if value is None else f"{declared.name}={value}")
        self.state.note("ARG " + " ".join(shown))

    def _label(self, instruction: Label) -> None:
        labels = {self._expand(pair.key): self._expand(pair.value) for pair in instruction.pairs}
        self.state.add_labels(labels)
        self.state.note("LABEL " + " ".join(f"{name}={value}" for name, value in labels.items()))

    def _expose(self, instruction: Expose) -> None:
        words = [w for p in instruction.ports for w in expanding.expand_words(p, self._variables, escape=self._escape)]
        names = ports.parse_ports(words)
        self.state.add_names("ExposedPorts", list(names))
        self.state.note(f"EXPOSE [{' '.join(names)}]")

    def _volume(self, instruction: Volume) -> None:
        paths = [self._expand(word) for word in instruction.paths]
        if not all(paths):
            raise InvalidInput("VOLUME specified can not be an empty string")
        self.state.add_names("Volumes", paths)
        self.state.note(f"VOLUME [{' '.join(paths)}]")

    def _user(self, instruction: User) -> None:
        user = self._expand(instruction.user)
        self.state.set("User", user or None)
        self.state.note(f"USER {user}")

    def _stop_signal(self, instruction: StopSignal) -> None:
        text = self._expand(instruction.signal)
        parse_signal(text)
        self.state.set("StopSignal", text)
        self.state.note(f"STOPSIGNAL {text}")

    def _healthcheck(self, instruction: Healthcheck) -> None:
        check: dict[str, object] = {}
        if instruction.command is None:
            check["Test"] = ["NONE"]
        else:
            kind = "CMD-SHELL" if instruction.command.is_shell else "CMD"
            check["Test"] = [kind, *instruction.command.words]
        for name, value in (
            ("Interval", instruction.interval),
            ("Timeout", instruction.timeout),
            ("StartPeriod", instruction.start_period),
            ("StartInterval", instruction.start_interval),
            ("Retries", instruction.retries),
        ):
            if value:
                check[name] = value
        self.state.set("Healthcheck", check)
        self.state.note(_one_line(instruction.source))

    def _shell(self, instruction: Shell) -> None:
        self.state.set("Shell", list(instruction.words))
        self.state.note(f"SHELL {_quoted(list(instruction.words))}")

    def _onbuild(self, instruction: Onbuild) -> None:
        self.state.set("OnBuild", [*(self.state.config.get("OnBuild") or ()), instruction.expression])
        self.state.note(f"ONBUILD {instruction.expression}")

    def _maintainer(self, instruction: Maintainer) -> None:
        self.state.document["author"] = instruction.author
        self.state.note(f"MAINTAINER {instruction.author}")


def destination_of(working_directory: str, text: str) -> str:
    """Where COPY goes: absolute, with a slash at the end if a directory is meant."""
    is_directory = text in ("", ".") or text.endswith(("/", "/.", "/..")) or text == ".."
    path = posixpath.normpath(posixpath.join(working_directory, text)).replace("//", "/")
    return path if path == "/" or not is_directory else f"{path}/"


def _flags(instruction: Copy | Add) -> str:
    flags = []
    if instruction.owner:
        flags.append(f"--chown={instruction.owner} ")
    if instruction.mode:
        flags.append(f"--chmod={instruction.mode} ")
    if instruction.link:
        flags.append("--link ")
    return "".join(flags)


def _run_history(command: ToRun, declared: Mapping[str, str]) -> str:
    """`RUN |2 A=1 B=2 /bin/sh -c make`: with the build arguments that it saw."""
    shown = {name: value for name, value in declared.items() if name not in HIDDEN}
    arguments = "".join(f" {name}={value}" for name, value in shown.items())
    prefix = f"|{len(shown)}{arguments} " if shown else ""
    return f"RUN {prefix}{' '.join(command.arguments)}"


def _quoted(words: list[str]) -> str:
    return "[" + " ".join(json.dumps(word, ensure_ascii=False) for word in words) + "]"


def _first_line(source: str) -> str:
    return source.partition("\n")[0]


def _one_line(source: str) -> str:
    return " ".join(source.split())
