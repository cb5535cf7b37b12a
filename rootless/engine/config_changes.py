"""Instructions of a Dockerfile that only change the config of an image: `commit -c`, `import -c`."""

import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from rootless.errors import InvalidInput
from rootless.spec.signals import parse_signal

Config = dict[str, Any]

_VARIABLE = re.compile(r"\\(.)|\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})", re.DOTALL)
_FIRST_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+""")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
_MAX_PORTS = 65536


def apply_changes(config: Config, changes: Iterable[str]) -> None:
    """Let *config*, the `config` member of an image config, be what the instructions say. Raises InvalidInput."""
    for line in "\n".join(changes).replace("\\\n", "").split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            _apply(config, line.strip())


def _apply(config: Config, line: str) -> None:
    name, _, rest = line.partition(" ")
    if "\t" in name:
        name, _, rest = line.partition("\t")
    rest = rest.strip()
    change = _CHANGES.get(name.upper())
    if change is None:
        raise InvalidInput(f"{name} is not a valid change command", hint=f"there are: {', '.join(sorted(_CHANGES))}")
    if not rest:
        raise InvalidInput(f"{name.upper()} requires at least one argument")
    change(config, rest)


def _cmd(config: Config, rest: str) -> None:
    config["Cmd"] = _command(config, rest)


def _entrypoint(config: Config, rest: str) -> None:
    config["Entrypoint"] = _command(config, rest)


def _env(config: Config, rest: str) -> None:
    entries = {entry.partition("=")[0]: entry for entry in config.get("Env") or ()}
    for name, value in _pairs("ENV", rest, config):
        entries[name] = f"{name}={value}"
    config["Env"] = list(entries.values())


def _label(config: Config, rest: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs("LABEL", rest, config))}


def _expose(config: Config, rest: str) -> None:
    exposed = dict(config.get("ExposedPorts") or {})
    for word in _words(_expanded(rest, config)):
        exposed.update((port, {}) for port in _ports(word))
    config["ExposedPorts"] = exposed


def _ports(word: str) -> list[str]:
    match = _PORT.fullmatch(word)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not match or not 0 < first <= last < _MAX_PORTS:
        raise InvalidInput(f"invalid containerPort: {word}")
    return [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def _healthcheck(config: Config, rest: str) -> None:
    check: Config = {}
    while flag := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
        check.update(_health_flag(flag[1], flag[2]))
        rest = rest[flag.end() :]
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE" and not command:
        check = {"Test": ["NONE"]}
    elif kind.upper() == "CMD" and command.strip():
        words = _json_words(command.strip())
        check["Test"] = ["CMD-SHELL", command.strip()] if words is None else ["CMD", *words]
    else:
        raise InvalidInput(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    config["Healthcheck"] = check


def _health_flag(name: str, value: str) -> Config:
    members = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}
    members["start-interval"] = "StartInterval"
    if name == "retries":
        if not value.isdigit():
            raise InvalidInput(f"HEALTHCHECK --retries={value}: not a number")
        return {"Retries": int(value)}
    if name not in members:
        raise InvalidInput(f"unknown flag: --{name}")
    return {members[name]: _duration(value)}


def _duration(text: str) -> int:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInput(f'invalid duration: "{text}"')
    return int(sum(float(number) * _NANOSECONDS[unit] for number, unit in parts))


def _onbuild(config: Config, rest: str) -> None:
    trigger = rest.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidInput("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise InvalidInput(f"{trigger} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or ()), rest]


def _stopsignal(config: Config, rest: str) -> None:
    (word,) = _exactly("STOPSIGNAL", _words(_expanded(rest, config)))
    parse_signal(word)
    config["StopSignal"] = word


def _user(config: Config, rest: str) -> None:
    (config["User"],) = _exactly("USER", _words(_expanded(rest, config)))


def _volume(config: Config, rest: str) -> None:
    words = _json_words(rest)
    if words is None:
        words = _words(_expanded(rest, config))
    if not all(words):
        raise InvalidInput("VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{word: {} for word in words}}


def _workdir(config: Config, rest: str) -> None:
    path = _unquoted(_expanded(rest, config))
    if not path.startswith("/"):
        path = f"{(config.get('WorkingDir') or '').rstrip('/')}/{path}"
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    config["WorkingDir"] = "/" + "/".join(parts)


_CHANGES: dict[str, Callable[[Config, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _command(config: Config, rest: str) -> list[str]:
    """A JSON list is a program and its arguments, all else a line for the shell."""
    words = _json_words(rest)
    return [*(config.get("Shell") or ["/bin/sh", "-c"]), rest] if words is None else words


def _json_words(text: str) -> list[str] | None:
    """The strings of a JSON list; None where it is none."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _pairs(name: str, rest: str, config: Config) -> list[tuple[str, str]]:
    """`a=b "c d"=e`, or the old form `a the rest`."""
    first = _FIRST_WORD.match(rest)
    if first and "=" not in first[0]:
        key, value = first[0], rest[first.end() :]
        if not value.strip():
            raise InvalidInput(f"{name} must have two arguments")
        return [(key, _unquoted(_expanded(value.strip(), config)))]
    pairs = []
    for word in _words(_expanded(rest, config)):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidInput(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        pairs.append((key, value))
    return pairs


def _expanded(text: str, config: Config) -> str:
    """*text* with the config's variables in place of their names, but between single quotes."""
    known = {entry.partition("=")[0]: entry.partition("=")[2] for entry in config.get("Env") or ()}

    def value(match: "re.Match[str]") -> str:
        escaped, plain, braced, operator, word = match.groups()
        if escaped is not None:
            return match[0]
        found = known.get(plain or braced, "")
        if operator == "-":
            return found or str(word)
        if operator == "+":
            return str(word) if found else ""
        return str(found)

    parts = re.split(r"('[^']*')", text)
    return "".join(part if number % 2 else _VARIABLE.sub(value, part) for number, part in enumerate(parts))


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidInput(f"unexpected end of statement while looking for matching quote: {text}") from error


def _unquoted(text: str) -> str:
    return " ".join(_words(text)) if re.search(r"[\"'\\]", text) else text


def _exactly(name: str, words: list[str]) -> list[str]:
    if len(words) != 1:
        raise InvalidInput(f"{name} requires exactly one argument")
    return words
