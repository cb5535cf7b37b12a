"""A step: found in the cache, or done and remembered.

The key of a step is the digest of its *parts*: what it is, the layers below, what it is told, and the content of all
that it reads. Nothing else may have a say in its result. A step that is found has its layers held until the build ends,
and counts only if they are all there. While one is done its key is locked, so that of two builds that need it one does
it and the other finds it then.

The parts of the last time are remembered by the step's place in its Dockerfile, and so it can be told which of them is
why it had to be done again.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock
from typing import NamedTuple

from rootless.engine.build_container import Running
from rootless.engine.build_digest import key_of
from rootless.engine.build_progress import Cancelled, Doing
from rootless.engine.build_state import Made, Stage
from rootless.engine.context import Engine
from rootless.engine.layer_new import NewLayer, adopt
from rootless.runtime.jsonlog import now
from rootless.spec.digest import ChainID
from rootless.spec.image import OCI_LAYER
from rootless.store.build_cache import BuildCache, Step
from rootless.store.layers import layer_lock
from rootless.store.layout import Layout

_VERSION = "1"  # of how steps are done: another one finds nothing that this one has made
_POLL_SECONDS = 0.05
_LOCK = "build-step."

# The step of a key above these layers, from elsewhere, with its layer held in the store; None where it is not there.
Import = Callable[[str, Sequence[ChainID], ExitStack], Step | None]


class Place(NamedTuple):
    """Where a step stands: what it is called for --why, and whether its cache may be used."""

    key: str
    may_find: bool


class Steps:
    """The steps of one build."""

    def __init__(self, engine: Engine, running: Running, *, epoch: int | None) -> None:
        self.engine = engine
        self.cache = BuildCache(engine.layout)
        self.running = running
        self.epoch = epoch
        self.held = ExitStack()
        self.used: dict[str, Step] = {}
        self.imports: list[Import] = []
        self._holding: set[ChainID] = set()
        self._lock = Lock()

    def close(self) -> None:
        """Let go of the layers."""
        self.held.close()

    def check(self) -> None:
        """Raise Cancelled where the build is to end."""
        if self.running.cancelled:
            raise Cancelled("the build was cancelled")

    def do(
        self,
        stage: Stage,
        place: Place,
        parts: Mapping[str, str],
        doing: Doing,
        created_by: str,
        make: Callable[[], "str | None"],
        is_sure: Callable[[], bool] = lambda: True,
    ) -> None:
        """Have the step of these *parts* done: found, or by *make*, which returns a staged directory, None for no
        change. The stage has its layer then. It is remembered if *is_sure*, afterwards, that the parts were right."""
        self.check()
        parts = {"version": _VERSION, "below": stage.fixed, "epoch": str(self.epoch or ""), **parts}
        key = key_of(*parts.items())
        step = self._find(key) if place.may_find else None
        if step is None:
            doing.note(self._why(place, parts))
            with self._locked(key):
                step = self._find(key) or self._import(key, stage) if place.may_find else None
                was_found = step is not None
                if step is None:
                    step = self._make(key, stage, created_by, make, is_sure)
        else:
            doing.note("cached: nothing that it depends on has changed")
            was_found = True
        self.cache.save_value(place.key, json.dumps(parts))
        if was_found:
            self.used[key] = step
        stage.add_layer(_made(step), created_by)
        doing.done(cached=was_found)

    def _find(self, key: str) -> Step | None:
        step = self.cache.find(key)
        if step is None:
            return None
        for chain_id in step.layers:
            if not self._hold(chain_id):
                self.cache.forget(key)
                return None
        return step

    def _hold(self, chain_id: ChainID) -> bool:
        """Whether the layer is here, held until the build ends."""
        with self._lock:
            if chain_id in self._holding:
                return True
            held = ExitStack()
            held.enter_context(self.engine.layout.lock(layer_lock(chain_id), shared=True))
            if not self.engine.layers.has(chain_id):
                held.close()
                return False
            self.held.push(held)
            self._holding.add(chain_id)
            return True

    def _import(self, key: str, stage: Stage) -> Step | None:
        """The step from elsewhere, remembered here from now on."""
        for find in self.imports:
            step = find(key, stage.layers, self.held)
            if step:
                self.cache.save(step)
                return step
        return None

    def _make(
        self,
        key: str,
        stage: Stage,
        created_by: str,
        make: Callable[[], str | None],
        is_sure: Callable[[], bool],
    ) -> Step:
        staged = make()
        created = timestamp(self.epoch)
        if staged is None:
            step = Step(key, created_by, created, None, None, 0, 0, tuple(stage.layers))
        else:
            if self.epoch is not None:
                clamp_times(os.path.join(staged, "diff"), self.epoch)
            layer = adopt(self.engine, stage.top, staged, held=self.held)
            layers = (*stage.layers, layer.chain_id)
            step = Step(key, created_by, created, layer.chain_id, layer.diff_id, layer.length, layer.size, layers)
        if is_sure():
            self.cache.save(step)
            self.used[key] = step
        return step

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Alone at work on a step. Waits, as long as the build is not cancelled."""
        name = f"{_LOCK}{key}"
        while True:
            self.check()
            held = ExitStack()
            try:
                held.enter_context(self.engine.layout.lock(name, blocking=False))
            except BlockingIOError:
                time.sleep(_POLL_SECONDS)
                continue
            break
        with held:
            try:
                yield
            finally:
                self.engine.layout.forget_lock(name)

    def _why(self, place: Place, parts: Mapping[str, str]) -> str:
        """Why a step is done, in words."""
        if not place.may_find:
            return "not cached: the cache is not to be used"
        before: dict[str, str] = {}
        with suppress(ValueError):
            before = json.loads(self.cache.value(place.key) or "{}")
        if not before:
            return "not cached: it has not been done before"
        changed = [name for name in {**parts, **before} if parts.get(name) != before.get(name)]
        if not changed:
            return "not cached: its result is not there any more"
        if "below" in changed and len(changed) > 1:
            changed.remove("below")
        return f"not cached: {', '.join(_shown(name) for name in changed)}"


def sweep_locks(layout: Layout) -> None:
    """Remove the files of locks that builds which were killed have left."""
    for name in os.listdir(layout.run_path("locks")):
        if name.startswith(_LOCK):
            with suppress(BlockingIOError), layout.lock(name, blocking=False):
                layout.forget_lock(name)


def _shown(part: str) -> str:
    """A part of a key that has changed, in words."""
    kind, _, name = part.partition(":")
    words = {
        "below": "the step before it gave another result",
        "argument": f"build argument {name} has changed",
        "environment": f"variable {name} has changed",
        "source": f"{name} has changed",
        "mount": f"what is mounted at {name} has changed",
        "epoch": "SOURCE_DATE_EPOCH has changed",
        "version": "it was done by another version of rootless",
    }
    return words.get(kind, f"its {kind} has changed")


def _made(step: Step) -> Made | None:
    if step.chain_id is None or step.diff_id is None:
        return None
    return Made(NewLayer(ChainID(step.chain_id), step.diff_id, step.length, step.size, OCI_LAYER), step.created)


def timestamp(epoch: int | None) -> str:
    """Now, or SOURCE_DATE_EPOCH, as RFC 3339 has it."""
    return now() if epoch is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def clamp_times(directory: str, epoch: int) -> None:
    """Let nothing in *directory*, a layer of our own that nobody else can change, be younger than *epoch*, seconds."""
    latest = epoch * 10**9
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _, below, names, fd in os.fwalk(".", topdown=False, dir_fd=root_fd):
            for name in (*names, *below):
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if info.st_mtime_ns > latest:
                    os.utime(name, ns=(latest, latest), dir_fd=fd, follow_symlinks=False)
        root = os.fstat(root_fd)
        if root.st_mtime_ns > latest:
            os.utime(root_fd, ns=(latest, latest))
    finally:
        os.close(root_fd)
