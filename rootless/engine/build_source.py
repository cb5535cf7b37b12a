"""What a build copies from: a context, another stage, an image; and which of its files an instruction means.

A source is a tree (build_tree.py) with digests of what is in it. Files of a context belong to root, whoever has them
here, and what .dockerignore excludes is not there at all: neither COPY nor RUN --mount sees it.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, Protocol

from rootless.dockerfile.ignore import class_expression, parse_class
from rootless.engine.build_digest import Digests, key_of
from rootless.engine.build_tree import Directory, Entry, Found, find, parts_of
from rootless.errors import InvalidInput, NotFound
from rootless.store.build_cache import BuildCache
from rootless.store.marks import WhiteoutStyle


class Excluding(Protocol):
    """Patterns as dockerfile.ignore has them."""

    def excludes(self, path: str, is_directory: bool) -> bool:
        """Whether what is at *path*, from the root of the tree, is left out."""

    def may_include_below(self, path: str) -> bool:
        """Whether something in the directory, which is left out itself, may not be."""


class Filtered(Directory):
    """A directory without what patterns exclude. *path* is its own, from where the patterns count."""

    __slots__ = ("_path", "_patterns")

    def __init__(self, fds: Sequence[int], style: WhiteoutStyle | None, patterns: Excluding, path: str = "") -> None:
        super().__init__(fds, style)
        self._patterns = patterns
        self._path = path

    def look_up(self, name: str) -> Entry | None:
        entry = super().look_up(name)
        return entry if entry and self._shows(entry) else None

    def enter(self, name: str) -> Directory:
        below = super().enter(name)
        return Filtered(below.fds, below.style, self._patterns, f"{self._path}{name}/")

    def entries(self) -> list[Entry]:
        return [entry for entry in super().entries() if self._shows(entry)]

    def _shows(self, entry: Entry) -> bool:
        path = self._path + entry.name
        if not self._patterns.excludes(path, entry.is_directory):
            return True
        if not entry.is_directory or not self._patterns.may_include_below(path):
            return False
        with self.enter(entry.name) as below:
            return bool(below.entries())


class Picked(NamedTuple):
    """One file or directory that an instruction copies."""

    path: str  # in the source, as it is named there
    name: str  # the last part, which it keeps where it is copied into a directory
    is_directory: bool
    digest: str


class Source:
    """A tree to copy from."""

    def __init__(
        self,
        name: str,
        root: Directory,
        cache: BuildCache,
        *,
        is_context: bool,
        fixed: str = "",
        patterns: Excluding | None = None,
        place: str = "",
    ) -> None:
        """*fixed* stands for all that is in a tree that never changes; *place* is the directory of one that may."""
        self.name = name
        self.root = root
        self.is_context = is_context
        self.place = place
        self.patterns = patterns
        self._cache = cache
        self._fixed = fixed
        self._digests = Digests(cache, fixed or place, owners=not is_context)
        if patterns:
            self.root = Filtered(root.fds, root.style, patterns)

    def __enter__(self) -> "Source":  # noqa: PYI034  # typing.Self is Python 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Keep the digests that were found."""
        if not self._fixed:
            self._digests.close()
        self.root.close()

    def digest(self, path: str) -> str:
        """The digest of what is at *path*, links followed. Raises NotFound."""
        if not self._fixed:
            return self._find_digest(path)
        key = key_of("digest", self._fixed, path)
        known = self._cache.value(key)
        if not known:
            known = self._find_digest(path)
            self._cache.save_value(key, known)
        return known

    def _find_digest(self, path: str) -> str:
        with self.found(path) as found:
            return self._of(found)

    def _of(self, found: Found) -> str:
        if found.entry and not found.entry.is_directory:
            return self._digests.of_entry(found.here, found.entry)
        mode = found.entry.status.st_mode if found.entry else 0
        return key_of(mode, self._digests.of_directory(found.here))

    @contextmanager
    def found(self, path: str) -> Iterator[Found]:
        """What is at *path*, links followed inside the tree. Raises NotFound."""
        try:
            with find(self.root, path) as found:
                if not found.is_there:
                    raise self._not_found(path)
                yield found
        except NotADirectoryError:
            raise self._not_found(path) from None

    def _not_found(self, path: str) -> NotFound:
        shown = "/" + "/".join(parts_of(path))
        hint = ""
        if self.patterns and self.is_context:
            hint = "it may be excluded by .dockerignore"
        return NotFound(f'"{shown}": not found in {self.name}', hint=hint)

    def is_directory(self, path: str) -> bool:
        """Whether a directory is at *path*. Raises NotFound."""
        with self.found(path) as found:
            return found.is_directory

    def pick(self, pattern: str) -> list[Picked]:
        """What *pattern*, a path with the wildcards of Go's path.Match, means here. Raises NotFound for nothing."""
        paths = [pattern] if not has_wildcards(pattern) else self._expand(pattern)
        if not paths:
            raise NotFound(f'"{pattern}": no match in {self.name}')
        return [self.picked(path) for path in paths]

    def picked(self, path: str) -> Picked:
        """What is at *path*, which is a name and no pattern. Raises NotFound."""
        parts = parts_of(path)
        return Picked(path, parts[-1] if parts else "", self.is_directory(path), self.digest(path))

    def _expand(self, pattern: str) -> list[str]:
        found: list[str] = []
        self._expand_below("", [unescaped_or_pattern(part) for part in parts_of(pattern)], found)
        return sorted(found)

    def _expand_below(self, path: str, parts: list[str | re.Pattern[str]], found: list[str]) -> None:
        for number, part in enumerate(parts):
            if isinstance(part, re.Pattern):
                for name in self._matching(path, part):
                    self._expand_below(f"{path}/{name}", parts[number + 1 :], found)
                return
            path = f"{path}/{part}"
        try:
            with find(self.root, path) as there:
                if there.is_there:
                    found.append(path)
        except NotADirectoryError:
            return

    def _matching(self, path: str, pattern: re.Pattern[str]) -> list[str]:
        try:
            with find(self.root, path) as found:
                if not found.is_directory:
                    return []
                return [entry.name for entry in found.here.entries() if pattern.fullmatch(entry.name)]
        except NotADirectoryError:
            return []


def has_wildcards(pattern: str) -> bool:
    """Whether a path has `*`, `?` or `[` that mean something."""
    return any(isinstance(unescaped_or_pattern(part), re.Pattern) for part in pattern.split("/"))


@cache
def unescaped_or_pattern(part: str) -> "str | re.Pattern[str]":
    """A part of a path as Go's path.Match takes it: a name, or what names have to match. Raises InvalidInput."""
    pieces, is_pattern, position = [], False, 0
    while position < len(part):
        character = part[position]
        position += 1
        if character == "*":
            pieces.append(".*")
            is_pattern = True
        elif character == "?":
            pieces.append(".")
            is_pattern = True
        elif character == "[":
            try:
                found, position = parse_class(part, position)
            except ValueError as error:
                raise InvalidInput(f"syntax error in pattern: {part!r}: {error}") from None
            pieces.append(class_expression(found))
            is_pattern = True
        else:
            if character == "\\" and position < len(part):
                character = part[position]
                position += 1
            pieces.append(re.escape(character))
    if is_pattern:
        return re.compile("".join(pieces), re.DOTALL)
    return re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL)


def context_source(
    place: str,
    cache: BuildCache,
    patterns: Callable[[Directory], Excluding | None],
    *,
    name: str = "the build context",
) -> Source:
    """The directory *place* of this machine as a build context. Raises NotFound, InvalidInput."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f'unable to prepare context: path "{place}" not found') from None
    except NotADirectoryError:
        raise InvalidInput(f"unable to prepare context: {place} is not a directory") from None
    except OSError as error:
        raise InvalidInput(f"unable to prepare context: {place}: {error.strerror}") from error
    root = Directory([fd], None)
    return Source(name, root, cache, is_context=True, patterns=patterns(root), place=os.path.abspath(place))
