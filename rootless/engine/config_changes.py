"""Instructions of a Dockerfile that only change the config of an image: `commit -c`, `import -c`."""

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rootless.dockerfile.expand import expand, expand_words
from rootless.dockerfile.instructions import (
    Cmd,
    Command,
    DockerfileError,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Onbuild,
    Pair,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from rootless.dockerfile.parse import parse_dockerfile
from rootless.dockerfile.ports import parse_ports
from rootless.errors import InvalidInput
from rootless.spec.signals import parse_signal

Config = dict[str, Any]

_WHERE = re.compile(r"change(:\d+)?: ")  # what messages begin with: there is no file that one could look into


def apply_changes(config: Config, changes: Iterable[str]) -> None:
    """Let *config*, the `config` member of an image config, be what the instructions say. Raises InvalidInput."""
    text = "\n".join(changes)
    if not text.strip():
        return
    try:
        parsed = parse_dockerfile(f"FROM scratch\n{text}".encode("utf-8", "surrogateescape"), "change")
        for stage in parsed.stages:
            for instruction in stage.instructions:
                _apply(config, instruction)
        if len(parsed.stages) > 1:
            raise InvalidInput("FROM is not a valid change command", hint=_hint())
    except DockerfileError as error:
        raise InvalidInput(_WHERE.sub("", str(error), count=1), hint=error.hint) from error


def _apply(config: Config, instruction: Instruction) -> None:
    change = _CHANGES.get(type(instruction))
    if change is None:
        raise InvalidInput(f"{instruction.source.split()[0].upper()} is not a valid change command", hint=_hint())
    change(config, instruction)


def _hint() -> str:
    return f"there are: {', '.join(kind.__name__.upper() for kind in _CHANGES)}"


def _variables(config: Config) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in config.get("Env") or () if "=" in entry)


def _cmd(config: Config, instruction: Cmd) -> None:
    config["Cmd"] = _command(config, instruction.command)


def _entrypoint(config: Config, instruction: Entrypoint) -> None:
    config["Entrypoint"] = _command(config, instruction.command)


def _command(config: Config, command: Command) -> list[str]:
    return [*((config.get("Shell") or ("/bin/sh", "-c")) if command.is_shell else ()), *command.words]


def _env(config: Config, instruction: Env) -> None:
    config["Env"] = [
        f"{name}={value}" for name, value in {**_variables(config), **_pairs(config, instruction.pairs)}.items()
    ]


def _label(config: Config, instruction: Label) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **_pairs(config, instruction.pairs)}


def _pairs(config: Config, pairs: Sequence[Pair]) -> dict[str, str]:
    variables = _variables(config)
    return {expand(pair.key, variables): expand(pair.value, variables) for pair in pairs}


def _expose(config: Config, instruction: Expose) -> None:
    words = [word for text in instruction.ports for word in expand_words(text, _variables(config))]
    _add_names(config, "ExposedPorts", parse_ports(words))


def _volume(config: Config, instruction: Volume) -> None:
    _add_names(config, "Volumes", [expand(path, _variables(config)) for path in instruction.paths])


def _add_names(config: Config, member: str, names: Iterable[str]) -> None:
    config[member] = {**(config.get(member) or {}), **{name: {} for name in names}}


def _user(config: Config, instruction: User) -> None:
    config["User"] = expand(instruction.user, _variables(config))


def _workdir(config: Config, instruction: Workdir) -> None:
    path = posixpath.join("/", config.get("WorkingDir") or "", expand(instruction.path, _variables(config)))
    config["WorkingDir"] = posixpath.normpath(path).replace("//", "/")


def _stop_signal(config: Config, instruction: StopSignal) -> None:
    signal = expand(instruction.signal, _variables(config))
    parse_signal(signal)
    config["StopSignal"] = signal


def _healthcheck(config: Config, instruction: Healthcheck) -> None:
    command = instruction.command
    if command is None:
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    members = {
        "Interval": instruction.interval,
        "Timeout": instruction.timeout,
        "StartPeriod": instruction.start_period,
        "StartInterval": instruction.start_interval,
        "Retries": instruction.retries,
    }
    test = ["CMD-SHELL" if command.is_shell else "CMD", *command.words]
    config["Healthcheck"] = {"Test": test, **{name: value for name, value in members.items() if value}}


def _onbuild(config: Config, instruction: Onbuild) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), instruction.expression]


_CHANGES: dict[type, Callable[[Config, Any], None]] = {
    Cmd: _cmd,
    Entrypoint: _entrypoint,
    Env: _env,
    Expose: _expose,
    Healthcheck: _healthcheck,
    Label: _label,
    Onbuild: _onbuild,
    StopSignal: _stop_signal,
    User: _user,
    Volume: _volume,
    Workdir: _workdir,
}
