"""What changed files mean for services: `develop.watch` as pure functions of paths.

Each entry of `develop.watch` is a rule. A changed path concerns the rules whose path it is, or is below of, unless it
is ignored: by the .dockerignore of the service's build, by the rule, or since editors and git make such files for
themselves. Where a service is to be built anew, nothing else need be done for it.
"""

import os.path
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from rootless.compose.records import Hook, Project, Service, Watch
from rootless.dockerfile.ignore import Patterns
from rootless.dockerfile.instructions import DockerfileError
from rootless.errors import InvalidInput

REBUILD, RESTART = "rebuild", "restart"
_SYNCS = ("sync", "sync+restart", "sync+exec")
# What git keeps, and what editors leave for a moment: JetBrains, Emacs, Vim, Kate.
_PASSING = (
    "**/.git", "**/*___jb_old___", "**/*___jb_tmp___", "**/.idea", "**/.#*", "**/#*#", "**/4913", "**/*~",
    "**/.*.sw[nopx]", "**/.*.kate-swp",
)  # fmt: skip
_is_passing = Patterns.of(_PASSING).excludes

Ignored = Callable[[str], bool]  # of an absolute path


class Rule(NamedTuple):
    """An entry of `develop.watch`, and what is left out: by its own patterns, and by the service's .dockerignore."""

    service: str
    watch: Watch
    include: Patterns
    ignore: Patterns
    ignored: Ignored

    @property
    def syncs(self) -> bool:
        """Whether files are sent."""
        return self.watch.action in _SYNCS

    def concerns(self, path: str) -> bool:
        """Whether a change at *path* is one for this rule."""
        below = _below(path, self.watch.path)
        return below == "" or (below is not None and self.wants(path, is_directory=False))

    def wants(self, path: str, *, is_directory: bool) -> bool:
        """Whether *path*, which is below the rule's, is not ignored; a directory may have something that is not."""
        below = _below(path, self.watch.path) or ""
        if _is_passing(below) or self.ignored(path) or self.ignore.excludes(below):
            return False
        return is_directory or not self.include or self.include.excludes(below)

    def target_of(self, path: str) -> str:
        """Where *path* is in the container."""
        below = _below(path, self.watch.path)
        return os.path.join(self.watch.target, below) if below else self.watch.target


class Deed(NamedTuple):
    """What is to be done for a service: built anew, or sent files by some rules, then restarted or told by commands."""

    service: str
    rebuild: bool = False
    syncs: tuple[tuple[Rule, tuple[str, ...]], ...] = ()  # and the paths that changed, none in another one
    restart: bool = False
    hooks: tuple[Hook, ...] = ()


def rules_of(project: Project, names: Iterable[str], ignored: Mapping[str, Ignored]) -> list[Rule]:
    """The rules of these services; *ignored* is what each one's .dockerignore leaves out. Raises InvalidInput."""
    rules = []
    for name in names:
        service = project.services[name]
        for place, watch in enumerate(service.watch):
            _check(service, watch, f"services.{name}.develop.watch[{place}]")
            try:
                patterns = Patterns.of(watch.include), Patterns.of(watch.ignore)
            except DockerfileError as error:
                raise InvalidInput(f"services.{name}.develop.watch[{place}]: {error}") from error
            rules.append(Rule(name, watch, *patterns, ignored.get(name, lambda path: False)))
    if not rules:
        raise InvalidInput(
            "none of the selected services is configured for watch", hint="give one a section develop.watch"
        )
    return rules


def _check(service: Service, watch: Watch, where: str) -> None:
    if watch.action in _SYNCS and not watch.target.startswith("/"):
        raise InvalidInput(f"{where}.target: {watch.action} needs an absolute path in the container")
    if watch.action == REBUILD and service.build is None:
        raise InvalidInput(f"{where}: the service {service.name} has no build section, and cannot be built anew")
    if watch.action == "sync+exec" and watch.exec is None:
        raise InvalidInput(f"{where}: sync+exec needs a section exec")


def _below(path: str, top: str) -> str | None:
    """*path* relative to *top*, "" for itself; None where it is elsewhere."""
    if path == top:
        return ""
    start = os.path.join(top, "")
    return path[len(start) :] if path.startswith(start) else None


def is_left_alone(rules: Iterable[Rule], directory: str) -> bool:
    """Whether no rule wants to know what happens in *directory*."""
    return not any(_reaches(rule, directory) for rule in rules)


def _reaches(rule: Rule, directory: str) -> bool:
    if _below(rule.watch.path, directory) is not None:
        return True
    return _below(directory, rule.watch.path) is not None and rule.wants(directory, is_directory=True)


def decide(rules: Iterable[Rule], paths: Iterable[str]) -> list[Deed]:
    """What is to be done since *paths* have changed."""
    changed = tuple(dict.fromkeys(paths))
    hit: dict[str, list[tuple[Rule, tuple[str, ...]]]] = {}
    for rule in rules:
        concerned = outermost(path for path in changed if rule.concerns(path))
        if concerned:
            hit.setdefault(rule.service, []).append((rule, concerned))
    return [_deed(service, found) for service, found in hit.items()]


def outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths that are in none of the others."""
    found: list[str] = []
    for path in sorted(paths, key=lambda path: path.split("/")):
        if not found or _below(path, found[-1]) is None:
            found.append(path)
    return tuple(found)


def _deed(service: str, found: Sequence[tuple[Rule, tuple[str, ...]]]) -> Deed:
    rules = [rule for rule, _ in found]
    if any(rule.watch.action == REBUILD for rule in rules):
        return Deed(service, rebuild=True)
    hooks = tuple(rule.watch.exec for rule in rules if rule.watch.exec and rule.watch.action == "sync+exec")
    restart = any(rule.watch.action in (RESTART, "sync+restart") for rule in rules)
    return Deed(service, False, tuple((rule, paths) for rule, paths in found if rule.syncs), restart, hooks)
