"""commit: an image of what a container has changed, above the image that it was made from.

The changes are what its upper directory holds; the layers below are not looked at. While the container is paused, that
directory is copied (store/copy_layer.py); then it goes on, and the copy becomes a layer. Left out is what `diff` leaves
out: places that were only made for something to be mounted at, and what volumes hold.

A process of ours waits beside, for whom the kernel closes a pipe when we end in whatever way, and lets a container go
on that we have paused.
"""

import os
import signal
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from rootless.engine import control, events
from rootless.engine.context import Engine
from rootless.engine.image_config import config_of_container
from rootless.engine.image_new import make_image
from rootless.engine.images import target_reference
from rootless.engine.layer_new import NewLayer, adopt, is_empty
from rootless.engine.settle import settle
from rootless.errors import Conflict, RootlessError
from rootless.linux.inroot import open_in_root, open_parent
from rootless.runtime.jsonlog import now
from rootless.spec.digest import Digest
from rootless.store.containers import LIVE, Record
from rootless.store.copy_layer import copy_layer
from rootless.store.images import Image
from rootless.store.marks import has_opaque_attribute, lstat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MADE_FOR_MOUNTS = (b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"dev", b"proc", b"sys")
_MAY_BE_IDLE = (b"etc",)


class CommitOptions(NamedTuple):
    """Options with Docker's names and defaults."""

    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()  # instructions of a Dockerfile
    pause: bool = True


def commit(engine: Engine, container_id: str, name: str, options: CommitOptions) -> Image:
    """The image of the container as it is, called *name* unless that is empty.

    Raises NotFound, InvalidInput for changes and names that cannot be, Conflict for a container of the image `host`.
    """
    reference = target_reference(name) if name else None
    engine.enter_namespace()
    record = engine.containers.load(container_id)
    if not record["image_id"]:
        raise Conflict(
            "a container of the image 'host' has no image that a layer could stand on",
            hint="export its files, and import them: rootless export NAME | rootless import - IMAGE",
        )
    base = engine.images.load(Digest(record["image_id"]))
    config = config_of_container(record, engine.images.config(base))
    if options.changes:
        from rootless.engine.config_changes import apply_changes  # with the parser of Dockerfiles

        apply_changes(config, options.changes)
    with ExitStack() as held:
        layers = _layers(engine, record, base, options.pause, held)
        image = make_image(engine, base, _document(engine, record, base, config, options, bool(layers)), layers)
    if reference:
        engine.images.tag(reference, image.id)
        events.of_image(engine, image, "tag", reference.familiar)
    shown = reference.familiar if reference else ""
    events.of_container(engine, record, "commit", comment=options.message, imageID=image.id, imageRef=shown)
    return image


def _layers(engine: Engine, record: Record, base: Image, pause: bool, held: ExitStack) -> list[NewLayer]:
    """The layer of the changes, held; none where there are none."""
    staged = engine.layers.stage()
    diff = os.path.join(staged, "diff")
    try:
        with _still(engine, record["id"], pause):
            _copy(engine, record, diff)
    except BaseException:
        engine.layers.abandon(staged)
        raise
    if is_empty(diff):
        engine.layers.abandon(staged)
        return []
    return [adopt(engine, base.layers[-1] if base.layers else None, staged, held=held)]


def _copy(engine: Engine, record: Record, diff: str) -> None:
    settle(engine, record["id"])
    upper_fd = os.open(os.path.join(engine.containers.directory(record["id"]), "upper"), _DIRECTORY)
    try:
        diff_fd = os.open(diff, _DIRECTORY)
        try:
            copy_layer(upper_fd, diff_fd, style=engine.whiteout_style, left_out=_left_out(record, upper_fd))
        finally:
            os.close(diff_fd)
    finally:
        os.close(upper_fd)


def _document(
    engine: Engine, record: Record, base: Image, config: dict[str, Any], options: CommitOptions, has_layer: bool
) -> dict[str, Any]:
    """The whole config: the base's, whatever members it has, with what is different."""
    below = engine.images.config(base).document
    row = {
        "created": now(),
        "created_by": " ".join(record["command"]),
        **({"author": options.author} if options.author else {}),
        **({"comment": options.message} if options.message else {}),
        **({} if has_layer else {"empty_layer": True}),
    }
    document = {key: value for key, value in below.items() if key not in ("container", "container_config", "author")}
    return {
        **document,
        "created": row["created"],
        **({"author": options.author} if options.author else {}),
        "config": config,
        "history": [*(below.get("history") or []), row],
    }


# --- a container that holds still


@contextmanager
def _still(engine: Engine, container_id: str, pause: bool) -> Iterator[None]:
    """The container is paused, if it runs and *pause*; one that does not run cannot be started or removed."""
    with ExitStack() as held:
        if engine.containers.state(container_id)["status"] not in LIVE:
            held.enter_context(engine.containers.lock(container_id))
            if engine.containers.state_locked(container_id)["status"] in LIVE:  # it was started just now
                held.close()
        if engine.containers.state(container_id)["status"] == "running" and pause:
            held.enter_context(_paused(engine, container_id))
        yield


@contextmanager
def _paused(engine: Engine, container_id: str) -> Iterator[None]:
    guard = _Guard(engine, container_id)
    try:
        try:
            control.pause(engine, container_id, resume=False)
        except Conflict:  # it has just ended, or somebody else has paused it, who will also let it go on
            guard.release()
            yield
            return
        yield
    finally:
        guard.close()


class _Guard:
    """A child that lets the container go on once this is closed, or we are gone."""

    def __init__(self, engine: Engine, container_id: str) -> None:
        read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._write_fd)
            _wait_and_resume(engine, container_id, read_fd)
        os.close(read_fd)

    def release(self) -> None:
        """It has nothing to do."""
        os.write(self._write_fd, b"-")

    def close(self) -> None:
        """Returns when the container goes on."""
        os.close(self._write_fd)
        os.waitpid(self._pid, 0)


def _wait_and_resume(engine: Engine, container_id: str, read_fd: int) -> None:
    """The child. Never returns."""
    try:
        os.setsid()  # Ctrl-C is for the command
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if os.read(read_fd, 1) == b"":
            with suppress(RootlessError):  # it has ended, or goes on already
                control.pause(engine, container_id, resume=True)
    finally:
        os._exit(0)


# --- what is left out


def _left_out(record: Record, upper_fd: int) -> set[bytes]:
    """Paths in the upper directory that are there for a mount alone."""
    mounted = [os.fsencode(m["destination"]).strip(b"/") for m in record["mounts"]]
    found = {path for path in (*mounted, *_MADE_FOR_MOUNTS) if path and _is_stub(upper_fd, path)}
    idle = [path for path in _MAY_BE_IDLE if _is_idle(upper_fd, path, found)]
    return found.union(idle)


def _is_stub(upper_fd: int, path: bytes) -> bool:
    """Whether there is only what a mount needed to hold on to: an empty file or directory."""
    try:
        parent_fd, name = open_parent(upper_fd, path)
        try:
            info = lstat(name, parent_fd)
            if stat.S_ISREG(info.st_mode):
                return info.st_size == 0
            return stat.S_ISDIR(info.st_mode) and not _entries(parent_fd, name)
        finally:
            os.close(parent_fd)
    except OSError:  # nothing is there
        return False


def _is_idle(upper_fd: int, path: bytes, left_out: set[bytes]) -> bool:
    """Whether the directory only came up for mount points to be made in it."""
    try:
        fd = open_in_root(upper_fd, path, _DIRECTORY)
    except OSError:
        return False
    try:
        entries = [path + b"/" + os.fsencode(name) for name in os.listdir(fd)]
        return bool(entries) and not has_opaque_attribute(fd) and left_out.issuperset(entries)
    finally:
        os.close(fd)


def _entries(parent_fd: int, name: bytes) -> Sequence[str]:
    fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)
