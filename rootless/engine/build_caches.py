"""--cache-from and --cache-to of one build: what they may say, whom a step is asked for, and what goes where.

    type=local      a directory                 build_cache_files.py
    type=registry   a reference of a registry   build_cache_registry.py
    type=inline     the config of the image, which goes where that is pushed; found as type=registry is

As in BuildKit, a cache that cannot be had is told of, and the build goes on without; mode=min, the default, exports the
steps of the result alone, mode=max those of all stages.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from rootless.engine import build_cache_files
from rootless.engine.build_options import CacheEntry
from rootless.engine.build_progress import Doing, Teller
from rootless.engine.build_steps import Import
from rootless.engine.context import Engine
from rootless.errors import InvalidInput, NotFound, RegistryFailure, RootlessError
from rootless.spec.digest import ChainID
from rootless.spec.platform import Platform
from rootless.spec.reference import parse_reference
from rootless.store.build_cache import Step

if TYPE_CHECKING:
    from rootless.engine.build_cache_registry import RegistryCache

COMPRESSIONS = ("gzip", "zstd")  # of what goes to a registry
_MODES = ("min", "max")
_FROM = {"local": ("src",), "registry": ("ref",)}
_TO = {
    "local": ("dest", "mode", "ignore-error"),
    "registry": ("ref", "mode", "ignore-error", "compression", "oci-mediatypes", "image-manifest"),
    "inline": (),
}
# What there is but one way of: a manifest of OCI's.
_MOOT = ("oci-mediatypes", "image-manifest")


class Caches:
    """The caches of one build; to be closed."""

    def __init__(
        self,
        engine: Engine,
        sources: Sequence[CacheEntry],
        targets: Sequence[CacheEntry],
        teller: Teller,
        aside: Callable[[], str],
    ) -> None:
        """Raises InvalidInput for what an entry must not say."""
        for entry in sources:
            _check(entry, "--cache-from", _FROM)
        for entry in targets:
            _check(entry, "--cache-to", _TO)
        self._engine = engine
        self._sources, self._targets = sources, targets
        self._teller = teller
        self._aside = aside
        self._opened: list[RegistryCache] = []

    def open(self, platforms: Sequence[Platform]) -> Iterator[Import]:
        """Whom a step can be asked for, in the order of the command line."""
        for entry in self._sources:
            if entry.type == "local":
                yield partial(build_cache_files.find, self._engine, os.path.abspath(entry.attributes["src"]))
            else:
                opened = (self._open(entry.attributes["ref"], platform) for platform in platforms)
                yield from (cache.find for cache in opened if cache)

    def _open(self, name: str, platform: Platform) -> "RegistryCache | None":
        # Only who asks a registry needs what speaks HTTP.
        from rootless.engine.build_cache_registry import RegistryCache

        doing = self._teller.begin(f"importing cache manifest from {parse_reference(name).with_default_tag()}")
        try:
            opened = RegistryCache(self._engine, name, platform, self._aside)
        except (NotFound, RegistryFailure) as error:
            doing.failed(str(error))
            return None
        except RootlessError as error:
            doing.failed(str(error))
            raise
        self._opened.append(opened)
        doing.done()
        return opened

    def cancel(self) -> None:
        """Have what is being fetched fail."""
        for opened in self._opened:
            opened.cancel()

    def close(self) -> None:
        """End the connections."""
        for opened in self._opened:
            opened.close()

    @property
    def is_inline(self) -> bool:
        """Whether the image is to tell of its steps."""
        return any(entry.type == "inline" for entry in self._targets)

    def export(
        self,
        steps: Sequence[Step],
        results: Sequence[Sequence[ChainID]],
        told: Callable[[str], AbstractContextManager[Doing]],
    ) -> None:
        """Write *steps* where they are wanted; *results* are the layers of what was built, for each platform."""
        for entry in self._targets:
            wanted = steps if entry.attributes.get("mode") == "max" else steps_of_result(steps, *results)
            try:
                self._export(entry, wanted, told)
            except RootlessError:
                if entry.attributes.get("ignore-error") != "true":
                    raise

    def _export(
        self, entry: CacheEntry, steps: Sequence[Step], told: Callable[[str], AbstractContextManager[Doing]]
    ) -> None:
        if entry.type == "local":
            with told("exporting cache to client directory"):
                build_cache_files.export(self._engine, steps, os.path.abspath(entry.attributes["dest"]))
        elif entry.type == "registry":
            from rootless.engine.build_cache_registry import export  # as above

            compression = entry.attributes.get("compression", "gzip")
            with told("exporting cache to registry"):
                export(self._engine, steps, entry.attributes["ref"], compression, self._aside())


def steps_of_result(steps: Iterable[Step], *results: Sequence[ChainID]) -> list[Step]:
    """Those of *steps* that one of *results*, its layers, came from."""
    return [s for s in steps if any(s.layers == tuple(result[: len(s.layers)]) for result in results)]


def _check(entry: CacheEntry, option: str, kinds: Mapping[str, tuple[str, ...]]) -> None:
    names = kinds.get(entry.type)
    if names is None:
        raise InvalidInput(f"{option}: a cache of type {entry.type!r} cannot be there", hint=f"types: {_listed(kinds)}")
    for name in entry.attributes:
        if name not in names:
            raise InvalidInput(f"{option} type={entry.type}: unexpected key {name!r}", hint=f"keys: {_listed(names)}")
    if names and not entry.attributes.get(names[0]):
        raise InvalidInput(f"{option} type={entry.type} needs {names[0]}=")
    for name, choices in (("mode", _MODES), ("compression", COMPRESSIONS), *((moot, ("true",)) for moot in _MOOT)):
        if entry.attributes.get(name, choices[0]) not in choices:
            raise InvalidInput(f"{option}: {name}={entry.attributes[name]}: it should be {' or '.join(choices)}")
    if "ref" in entry.attributes and parse_reference(entry.attributes["ref"]).digest and option == "--cache-to":
        raise InvalidInput(f"{option}: a cache is exported under a tag, not a digest")


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
