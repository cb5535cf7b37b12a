"""COPY and ADD: where each source goes, and what is written there.

The rules are BuildKit's. What is missing of the destination's directory is made, 0755 and the owner's of --chown. A
directory as a source means what is in it: it is merged into the destination. A file goes into the destination if that
is a directory, or is written with a slash at its end, and else becomes it. Links in the destination are followed in the
tree; those in a source are copied, but for a source that is one itself.
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rootless.engine.build_source import Excluding, Filtered, Picked, Source
from rootless.engine.build_tree import Directory, find, parts_of
from rootless.engine.build_write import Attributes, Mode, Owner, Target, Writer
from rootless.errors import InvalidInput
from rootless.store.marks import WhiteoutStyle

ROOT: Owner = (0, 0)


class Text(NamedTuple):
    """A file whose content stands in the Dockerfile."""

    name: str
    content: bytes
    mode: int


class Archive(NamedTuple):
    """An archive to unpack: its tree is merged into the destination, owners and all."""

    name: str
    digest: str
    unpack: Callable[[], Directory]  # into a new directory, which is the caller's to remove


class Job(NamedTuple):
    """One COPY or ADD, with everything looked up that does not depend on where it goes."""

    items: Sequence["tuple[Source, Picked] | Text | Archive"]
    destination: str  # absolute; with a slash at the end it is a directory
    owner: Owner | None = None  # --chown
    mode: Mode | None = None  # --chmod
    parents: bool = False
    exclude: Excluding | None = None


class Copying:
    """One job on its way into a layer."""

    def __init__(self, writer: Writer, layer_fd: int, lowers: Directory, job: Job, style: WhiteoutStyle) -> None:
        self._writer = writer
        self._job = job
        self._tree = Directory([layer_fd, *lowers.fds], style)  # the caller's descriptors; not closed here
        self._owner = job.owner or ROOT

    def run(self) -> None:
        """Write it all. Raises InvalidInput for what cannot be where it should go."""
        for item in self._job.items:
            match item:
                case Text():
                    self._write(item)
                case Archive():
                    with item.unpack() as root:
                        self._merge(root, Attributes(self._job.owner, self._job.mode, True))
                case (source, picked):
                    self._copy(source, picked)

    def _look(self, source: Source) -> Attributes:
        owner = self._job.owner or (ROOT if source.is_context else None)
        return Attributes(owner, self._job.mode, not source.is_context)

    def _copy(self, source: Source, picked: Picked) -> None:
        if self._job.parents:
            self._copy_with_parents(source, picked)
            return
        with source.found(picked.path) as found:
            if found.is_directory:
                with self._without_excluded(source, found.here, found.path) as wanted:
                    self._merge(wanted, self._look(source))
            elif found.entry and not self._is_excluded(picked):
                with self._place(picked.name) as (here, name):
                    self._writer.copy(found.here, found.entry, here, name, self._look(source))

    def _is_excluded(self, picked: Picked) -> bool:
        patterns = self._job.exclude
        return bool(patterns and (patterns.excludes(picked.name, False) or patterns.excludes(_path(picked), False)))

    def _without_excluded(self, source: Source, directory: Directory, path: str) -> Directory:
        """*directory*, at *path* of the source, without what --exclude names, seen from there."""
        fds = [os.dup(fd) for fd in directory.fds]
        own, prefix = source.patterns, f"{path}/" if path else ""
        if self._job.exclude:
            both = _Both(own, prefix, self._job.exclude) if own else self._job.exclude
            return Filtered(fds, directory.style, both)
        return Filtered(fds, directory.style, own, prefix) if own else Directory(fds, directory.style)

    def _merge(self, source: Directory, look: Attributes) -> None:
        with self._directory(self._job.destination) as here:
            self._writer.copy_entries(source, here, look)

    def _write(self, text: Text) -> None:
        with self._place(text.name) as (here, name):
            mode = self._job.mode.apply(text.mode, directory=False) if self._job.mode else text.mode
            self._writer.write_file(here, name, text.content, self._owner, mode)

    def _directory(self, path: str) -> Target:
        """The directory *path*, made if it is missing."""
        try:
            with find(self._tree, path) as found:
                if not found.missing and not found.is_directory:
                    raise InvalidInput(f"cannot copy to non-directory: {path}")
                names, missing = found.names, found.missing
        except NotADirectoryError:
            raise InvalidInput(f"cannot copy to non-directory: {path}") from None
        return self._writer.open(names, missing, self._owner)

    def _place(self, name: str) -> "_Place":
        """Where a file that is called *name* goes."""
        destination = self._job.destination
        above = destination if destination.endswith("/") else os.path.dirname(destination)
        self._directory(above).close()
        with find(self._tree, destination) as found:
            if found.is_directory:
                return _Place(self._writer.open(found.names, (), self._owner), name)
            if found.entry:
                return _Place(self._writer.open(found.names, (), self._owner), found.entry.name)
            return _Place(self._writer.open(found.names, found.missing[:-1], self._owner), found.missing[-1])

    def _copy_with_parents(self, source: Source, picked: Picked) -> None:
        """--parents: the directories above the source are made as well, from `/./` on where that stands in it."""
        before, pivot, after = picked.path.partition("/./")
        base, parts = (before, parts_of(after)) if pivot else ("", parts_of(picked.path))
        look = self._look(source)
        here = self._directory(self._job.destination)
        for number, part in enumerate(parts):
            path = "/".join([base, *parts[:number]])
            with here, source.found(path or "/") as found:
                entry = found.here.look_up(part)
                if entry is None:
                    raise InvalidInput(f"{picked.path}: not found in {source.name}")
                if number < len(parts) - 1 and entry.is_directory:
                    here = self._writer.copy_alone(found.here, entry, here, part, look)
                    continue
                with self._without_excluded(source, found.here, found.path) as wanted:
                    self._writer.copy(wanted, entry, here, part, look)
                return


class _Place:
    """A directory to write into, and the name there."""

    def __init__(self, here: Target, name: str) -> None:
        self._here, self._name = here, name

    def __enter__(self) -> tuple[Target, str]:
        return self._here, self._name

    def __exit__(self, *_: object) -> None:
        self._here.close()


class _Both:
    """What one of two sets of patterns excludes; the first counts paths from further up."""

    def __init__(self, first: Excluding, prefix: str, second: Excluding) -> None:
        self._first, self._prefix, self._second = first, prefix, second

    def excludes(self, path: str, is_directory: bool) -> bool:
        return self._first.excludes(self._prefix + path, is_directory) or self._second.excludes(path, is_directory)

    def may_include_below(self, path: str) -> bool:
        if self._first.excludes(self._prefix + path, True) and not self._first.may_include_below(self._prefix + path):
            return False
        return not self._second.excludes(path, True) or self._second.may_include_below(path)


def _path(picked: Picked) -> str:
    return "/".join(parts_of(picked.path))
