"""What ADD adds to COPY: archives that are unpacked, files by HTTP, git repositories."""

import os
import re
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

from rootless.engine import build_archive, build_fetch
from rootless.engine.build_copy import Archive, Text
from rootless.engine.build_source import Picked, Source, context_source
from rootless.engine.build_ssh import Agents
from rootless.engine.build_tree import Directory, Entry
from rootless.engine.context import Engine
from rootless.errors import CorruptData, InvalidInput, RootlessError
from rootless.store.build_cache import BuildCache

_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Item = tuple[Source, Picked] | Text | Archive


class Fetched(NamedTuple):
    """What came from elsewhere."""

    uri: str
    algorithm: str  # sha1 of a commit, sha256 of a file
    digest: str  # hexadecimal


class Additions:
    """The sources of ADD, for all steps of a build. What is fetched lies in the trash until close()."""

    def __init__(self, engine: Engine, cache: BuildCache, aside: Callable[[], str], agents: Agents) -> None:
        """*aside* makes a new directory that goes with the build; of *agents*, `default` is asked."""
        self._engine = engine
        self._cache = cache
        self._aside = aside
        self._agents = agents
        self._sources: list[Source] = []
        self.fetched: list[Fetched] = []

    def close(self) -> None:
        while self._sources:
            self._sources.pop().close()

    def items(self, word: str, context: Source, checksum: str, *, unpack: bool | None, keep_git: bool) -> list[Item]:
        """What *word* is: a repository, a URL, or files of the context. *unpack*: None for the usual."""
        if build_fetch.is_git(word):
            return self._repository(word, checksum, keep_git=keep_git)
        if build_fetch.is_url(word):
            return [self._download(word, checksum, unpack=bool(unpack))]
        if checksum:
            raise InvalidInput("checksum can't be specified for local sources")
        return [self._local(context, picked, unpack=unpack is not False) for picked in context.pick(word)]

    def _repository(self, word: str, checksum: str, *, keep_git: bool) -> list[Item]:
        repository = build_fetch.parse_git(word)
        place = self._aside()
        commit = self._clone(repository, os.path.join(place, "repository"), keep_git=keep_git)
        if checksum and not commit.startswith(checksum.removeprefix("sha1:").removeprefix("sha256:")):
            raise CorruptData(f"{word}: expected commit {checksum}, and it is {commit}")
        self.fetched.append(Fetched(word, "sha1", commit))
        directory = build_fetch.subdirectory_of(os.path.join(place, "repository"), repository.subdirectory)
        source = context_source(directory, self._cache, lambda root: None, name=word)
        self._sources.append(source)
        return [(source, picked) for picked in source.pick("/")]

    def _clone(self, repository: build_fetch.Repository, target: str, *, keep_git: bool) -> str:
        agent = self._agents.socket("default")
        try:
            return build_fetch.clone(repository, target, build_fetch.ssh_of_agent(agent), keep_git=keep_git)
        except RootlessError as error:
            if agent or not build_fetch.is_ssh(repository):
                raise
            hint = "a Dockerfile does not get at your keys; let it ask your agent: --ssh default"
            raise RootlessError(str(error), hint=hint) from error

    def _download(self, url: str, checksum: str, *, unpack: bool) -> Item:
        if checksum and not _CHECKSUM.fullmatch(checksum):
            raise InvalidInput(f"unsupported checksum {checksum!r}: it should be sha256:HEX")
        got = build_fetch.download(url, self._aside())
        if checksum and checksum != f"sha256:{got.digest}":
            raise CorruptData(f"digest mismatch sha256:{got.digest}: {checksum} for {url}")
        self.fetched.append(Fetched(url, "sha256", got.digest))
        if unpack:
            with open(got.path, "rb", buffering=0) as file:
                if build_archive.is_archive(file):
                    return Archive(url, got.digest, lambda: self._unpack(lambda: os.open(got.path, os.O_RDONLY)))
        if not got.name:
            raise InvalidInput(f"cannot determine filename for source {url}")
        place = os.path.join(self._aside(), "file")
        os.mkdir(place)
        os.rename(got.path, os.path.join(place, got.name))
        os.chmod(os.path.join(place, got.name), 0o600)
        if got.when is not None:
            os.utime(os.path.join(place, got.name), ns=(got.when, got.when))
        source = context_source(place, self._cache, lambda root: None, name=url)
        self._sources.append(source)
        return source, source.picked(got.name)

    def _local(self, context: Source, picked: Picked, *, unpack: bool) -> Item:
        if unpack and not picked.is_directory:
            with context.found(picked.path) as found:
                if found.entry and self._is_archive(found.entry):
                    return Archive(picked.path, picked.digest, lambda: self._unpack_local(context, picked))
        return context, picked

    def _is_archive(self, entry: Entry) -> bool:
        try:
            with open(entry.open_file(), "rb", buffering=0) as file:
                return build_archive.is_archive(file)
        except OSError:
            return False  # copying it will say why it cannot be read

    def _unpack_local(self, context: Source, picked: Picked) -> Directory:
        with context.found(picked.path) as found:
            if found.entry is None:
                raise InvalidInput(f"{picked.path} is no file any more")
            return self._unpack(found.entry.open_file)

    def _unpack(self, open_archive: Callable[[], int]) -> Directory:
        target = os.path.join(self._aside(), "archive")
        with closing(os.fdopen(open_archive(), "rb", buffering=0)) as file:
            build_archive.unpack(file, target)
        return Directory([os.open(target, _ENTER)], None)
