"""One instruction on its way to a record: its keyword, its flags, the rest of its text."""

from typing import NamedTuple

from rootless.dockerfile.instructions import DockerfileError, Finding, Heredoc, Lines
from rootless.dockerfile.near import near
from rootless.dockerfile.words import Flag

_REPEATED = ("mount", "exclude", "device")
_BOOLEANS = ("link", "parents", "keep-git-dir", "unpack")
FLAGS: dict[str, tuple[str, ...]] = {
    "FROM": ("platform",),
    "RUN": ("mount", "network", "security", "device"),
    "COPY": ("from", "chown", "chmod", "link", "parents", "exclude"),
    "ADD": ("chown", "chmod", "link", "checksum", "keep-git-dir", "unpack", "exclude"),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
}


class Request(NamedTuple):
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
        """Note something for the checks."""
        self.findings.append(Finding(rule, self.lines.first, detail))

    def value(self, name: str, default: str = "") -> str:
        """What `--name=` says."""
        return next((flag.value or "" for flag in self.flags if flag.name == name), default)

    def values(self, name: str) -> tuple[str, ...]:
        """The same of a flag that may be there several times."""
        return tuple(flag.value or "" for flag in self.flags if flag.name == name)

    def switch(self, name: str) -> bool | None:
        """Whether `--name` is on; None where it is not there."""
        return next(((flag.value or "true").lower() == "true" for flag in self.flags if flag.name == name), None)


def check_flags(keyword: str, flags: list[Flag]) -> None:
    """Raise DockerfileError for flags that *keyword* does not have, and for values that none of them has."""
    known = FLAGS.get(keyword, ())
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
    others = [keyword for keyword, names in FLAGS.items() if name in names]
    return f"{' and '.join(others)} has it" if others else near(name, known).replace("mean ", "mean --")
