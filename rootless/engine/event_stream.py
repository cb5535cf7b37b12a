"""Events, read: those that are kept, and those to come.

    with Events(engine, since=None, until=None) as events:       from now on, until the caller has enough
        for event in events:                                     spec/event.py: type, action, id, attributes, time
            ...

It listens from the moment it is made, so whoever makes it and starts something then misses nothing of that. `since`
and `until` are ns since 1970; with an `until` that has passed it ends with what is kept. A loop of one's own has
`fileno()` and `take()` in place of the iteration. Waiting is inotify(7)'s on the run directory; a user who has no
instances of that left looks five times a second.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import final

from rootless.engine.context import Engine
from rootless.linux import journal
from rootless.linux.inotify import Watch
from rootless.spec.event import Event, from_line
from rootless.store.events import journal_path

_LOOK_SECONDS = 0.2
_NS = 1e9


@final
class Events:
    """See the module. To be closed, or used in a `with`."""

    def __init__(self, engine: Engine, *, since: int | None = None, until: int | None = None) -> None:
        self._since, self._until = since or 0, until
        path = journal_path(engine.layout)
        self._watch = _watch(path)
        self._reader = journal.Reader(path, from_start=since is not None or until is not None)

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more."""
        self._reader.close()
        if self._watch:
            self._watch.close()

    def fileno(self) -> int | None:
        """A descriptor that becomes readable when there may be events to take(); None where there is none to be had."""
        return self._watch.fileno() if self._watch else None

    def take(self) -> list[Event]:
        """The events since the last time, without waiting."""
        if self._watch:
            self._watch.read(0)
        return [event for line in self._reader.lines() if (event := from_line(line)) and self._is_between(event)]

    def _is_between(self, event: Event) -> bool:
        return self._since <= event.time and (self._until is None or event.time <= self._until)

    def __iter__(self) -> Iterator[Event]:
        """The events, in order, waiting for those to come."""
        while True:
            left = None if self._until is None else (self._until - time.time_ns()) / _NS
            yield from self.take()  # once more after the end: what came before it
            if left is not None and left <= 0:
                return
            self._wait(left)

    def _wait(self, seconds: float | None) -> None:
        if self._watch:
            self._watch.read(seconds)
        else:
            time.sleep(_LOOK_SECONDS if seconds is None else min(_LOOK_SECONDS, seconds))


def _watch(path: str) -> Watch | None:
    with suppress(OSError):  # EMFILE, ENOSPC: others of the user's programs have taken all there is
        return Watch([path])
    return None
