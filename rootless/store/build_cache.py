"""What builds remember: steps that were done, digests of files that have not changed, directories of cache mounts.

    build/steps/HEX.json    a step by its key: the layer that it made, and those below it
    build/values/HEX        a short text by its key: the digest of a directory of a layer, which never changes
    build/digests/HEX       of a directory that is built from: what its files were, and the digests that they had
    build/mounts/HEX/…      a RUN --mount=type=cache: data, mount.json

A key says everything that a result depends on, so a record is right for ever, and none is ever changed. What a key is
made of is the engine's affair. A step's time of use is the modification time of its file.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from struct import Struct
from typing import Any, NamedTuple

from rootless.errors import CorruptData
from rootless.linux import files
from rootless.spec.digest import ChainID, DiffID
from rootless.store.layout import Layout, load_record, remove_path, save_record

CACHE_MEMBER = "rootless.buildcache.v1"  # of a config in a registry: steps by their keys
_MEMO = Struct("<5Q32s")
_MEMO_FORMAT = b"rootless digests 1\n"
_RACY_NS = 100_000_000  # a file may change once more, and look the same, within the clock tick of its last change

FileState = tuple[int, int, int, int, int]  # device, inode, size, mtime and ctime in ns


class Step(NamedTuple):
    """A step that was done."""

    key: str  # 64 hex digits
    description: str  # the instruction, for people
    created: str  # RFC 3339
    chain_id: ChainID | None  # of its layer; None where it changed nothing
    diff_id: DiffID | None
    length: int  # of the layer's tar
    size: int  # of its files
    layers: tuple[ChainID, ...]  # all of them, bottom first, its own last


class CacheMount(NamedTuple):
    """The directory of a cache mount."""

    key: str
    id: str  # as the Dockerfile has it, or the target
    data: str
    created: float
    used: float


class BuildCache:
    """The build cache of a store."""

    __slots__ = ("_layout",)

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def _path(self, *parts: str) -> str:
        return self._layout.path("build", *parts)

    def _make(self, kind: str) -> None:
        os.makedirs(self._path(kind), 0o700, exist_ok=True)

    # Steps

    def find(self, key: str) -> Step | None:
        """The step of that key, if it was done and is remembered; it counts as used then."""
        path = self._path("steps", f"{key}.json")
        try:
            step = step_of(key, load_record(path))
        except (FileNotFoundError, CorruptData, KeyError, TypeError):
            return None
        with suppress(OSError):
            os.utime(path)
        return step

    def save(self, step: Step) -> None:
        """Remember a step, whose layers are all there."""
        self._make("steps")
        save_record(self._path("steps", f"{step.key}.json"), step_record(step), durable=False)

    def forget(self, key: str) -> None:
        """No longer."""
        with suppress(FileNotFoundError):
            os.unlink(self._path("steps", f"{key}.json"))

    def steps(self) -> Iterator[tuple[Step, float]]:
        """All steps, with the times when they were last used. One that is damaged is forgotten."""
        for name in self._names("steps"):
            key, dot, _ = name.partition(".json")
            path = self._path("steps", name)
            if not dot:
                continue
            try:
                yield step_of(key, load_record(path)), os.stat(path).st_mtime
            except FileNotFoundError:
                continue
            except (CorruptData, KeyError, TypeError):
                self.forget(key)

    def layers(self) -> set[ChainID]:
        """The layers that steps need."""
        return {chain_id for step, _ in self.steps() for chain_id in step.layers}

    def _names(self, kind: str) -> list[str]:
        try:
            return os.listdir(self._path(kind))
        except FileNotFoundError:
            return []

    # Values

    def value(self, key: str) -> str:
        """The text of that key; empty where there is none."""
        try:
            with open(self._path("values", key), encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def save_value(self, key: str, text: str) -> None:
        """Remember *text*."""
        self._make("values")
        files.replace_file(self._path("values", key), text.encode(), durable=False)

    def forget_values(self) -> None:
        """Forget all texts and digests of files: they are found out again."""
        for kind in ("values", "digests"):
            for name in self._names(kind):
                with suppress(FileNotFoundError):
                    os.unlink(self._path(kind, name))

    # Digests of files

    def load_digests(self, key: str) -> dict[FileState, bytes]:
        """The sha256 of each file as it was; empty where nothing is known."""
        try:
            with open(self._path("digests", key), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return {}
        body = data[len(_MEMO_FORMAT) :]
        if not data.startswith(_MEMO_FORMAT) or len(body) % _MEMO.size:
            return {}
        return {row[:5]: row[5] for row in _MEMO.iter_unpack(body)}

    def save_digests(self, key: str, digests: Mapping[FileState, bytes], seen_ns: int) -> None:
        """Remember them; but not those of files that had changed just before *seen_ns*, when they were looked at."""
        self._make("digests")
        newest = seen_ns - _RACY_NS
        rows = [_MEMO.pack(*state, digest) for state, digest in digests.items() if max(state[3:]) < newest]
        files.replace_file(self._path("digests", key), b"".join([_MEMO_FORMAT, *rows]), durable=False)

    # Cache mounts

    def mount_directory(self, key: str) -> str:
        """Where a cache mount is, or would be."""
        return self._path("mounts", key)

    def lock_mount(self, key: str, *, shared: bool, blocking: bool = True) -> AbstractContextManager[int]:
        """Hold a cache mount, so that nobody removes it; alone, unless *shared*. See Layout.lock."""
        return self._layout.lock(f"build-mount.{key}", shared=shared, blocking=blocking)

    def open_mount(
        self, key: str, mount_id: str, fill: Callable[[str], None] | None, mode: int, owner: tuple[int, int]
    ) -> str:
        """The data directory of a cache mount; made, filled by *fill*, where it is not there. Hold its lock."""
        place = self.mount_directory(key)
        record = os.path.join(place, "mount.json")
        if not os.path.exists(place):
            self._make("mounts")
            aside = self._layout.aside()
            os.mkdir(aside, 0o700)
            data = os.path.join(aside, "data")
            files.make_directory(data, mode)
            os.chown(data, *owner)
            if fill:
                fill(data)
            save_record(os.path.join(aside, "mount.json"), {"id": mount_id, "created": time.time()}, durable=False)
            try:
                os.rename(aside, place)
            except OSError:
                if not os.path.exists(place):
                    raise
                remove_path(aside)  # somebody who shares it was faster
        os.utime(record)
        return os.path.join(place, "data")

    def mounts(self) -> Iterator[CacheMount]:
        """All directories of cache mounts."""
        for key in self._names("mounts"):
            place = self.mount_directory(key)
            try:
                record = load_record(os.path.join(place, "mount.json"))
                used = os.stat(os.path.join(place, "mount.json")).st_mtime
                yield CacheMount(key, record["id"], os.path.join(place, "data"), record["created"], used)
            except (FileNotFoundError, CorruptData, KeyError):
                continue

    def remove_mount(self, key: str) -> bool:
        """Remove a cache mount, unless somebody uses it; whether it is gone."""
        try:
            with self.lock_mount(key, shared=False, blocking=False):
                self._layout.discard(self.mount_directory(key))
                return True
        except BlockingIOError:
            return False


def step_of(key: str, record: Mapping[str, Any]) -> Step:
    """A step from its record. Raises KeyError and TypeError for what is none."""
    fields = {**record, "key": key}
    layers: Iterable[ChainID] = fields.pop("layers")
    step = Step(layers=tuple(layers), **fields)
    texts = (step.description, step.created, step.chain_id or "", step.diff_id or "", *step.layers)
    if not all(isinstance(text, str) for text in texts) or not all(
        isinstance(n, int) for n in (step.length, step.size)
    ):
        raise TypeError("a step with other fields")
    return step


def step_records(steps: Iterable[Step]) -> dict[str, Any]:
    """What CACHE_MEMBER says of *steps*."""
    return {step.key: step_record(step) for step in steps}


def step_record(step: Step) -> dict[str, Any]:
    """The record of a step, which is kept under its key."""
    record = step._asdict()
    del record["key"]
    return record
