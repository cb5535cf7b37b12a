"""The output of several containers at once, read from their logs: what `up` shows, and `logs`.

One loop reads all logs in turn, without threads, so that the command can go on to start and stop containers meanwhile.
A container that is made later is taken in when it is seen.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from heapq import merge
from operator import itemgetter
from typing import NamedTuple

from rootless.engine.compose_labels import Member, members
from rootless.engine.context import Engine
from rootless.engine.logs import Entry, Reader, logs, nanoseconds
from rootless.errors import NotFound
from rootless.store.containers import LIVE

_POLL_SECONDS = 0.05
_LOOK_EVERY = 4  # rounds, to see which containers there are

Show = Callable[[Member, Entry], None]


class Ended(NamedTuple):
    """A container that has ended."""

    member: Member
    exit_code: int


class Follower:
    """Shows what containers write, from a moment on, and tells which have ended."""

    def __init__(self, engine: Engine, show: Show, since: int) -> None:
        self._engine = engine
        self._show = show
        self._since = since
        self._readers: dict[str, tuple[Member, Reader]] = {}
        self._live: set[str] = set()

    def add(self, member: Member) -> None:
        """Take a container in."""
        if member.id in self._readers or member.listed.record["log"]["driver"] == "none":
            return
        reader = Reader(os.path.join(self._engine.containers.directory(member.id), "container.log"))
        self._readers[member.id] = (member, reader)
        if nanoseconds(member.listed.state["started_at"]) >= self._since:
            self._live.add(member.id)  # though it may have ended by now
        self._show_all(member, reader.begin())

    def _show_all(self, member: Member, entries: Iterator[Entry]) -> None:
        for entry in entries:
            if nanoseconds(entry.time) >= self._since:
                self._show(member, entry)

    def read(self) -> None:
        """Show what was written since the last time."""
        for member, reader in self._readers.values():
            self._show_all(member, reader.more())

    def ended(self) -> list[Ended]:
        """The containers that ran when they were looked at last, and do not any more. Their output has been shown."""
        found = []
        for member, _ in list(self._readers.values()):
            try:
                state = self._engine.containers.state(member.id)
            except NotFound:
                state = {"status": "gone", "exit_code": 0}
            if state["status"] in LIVE:
                self._live.add(member.id)
            elif member.id in self._live:
                self._live.discard(member.id)
                found.append(Ended(member, int(state["exit_code"])))
        if found:
            self.read()
        return found

    def is_idle(self) -> bool:
        """Whether none of the containers runs."""
        return not self._live

    def close(self) -> None:
        """Let go of all logs."""
        for _, reader in self._readers.values():
            reader.close()


def attach(
    engine: Engine,
    project: str,
    follower: Follower,
    wanted: Callable[[Member], bool],
    ended: Callable[[Ended], bool],
    between: Callable[[], None] = lambda: None,
) -> None:
    """Show the output of those containers until none of them runs, or *ended*, told of one that has, says so.

    *between* is called in each round.
    """

    def look() -> None:
        for member in members(engine, project):
            if wanted(member):
                follower.add(member)

    with _interrupt_between_rounds() as check:
        rounds = 0
        while True:
            if rounds % _LOOK_EVERY == 0:
                look()
            follower.read()
            done = False
            for end in follower.ended():
                done = ended(end) or done
            if follower.is_idle():
                look()  # at what has taken the place of those that ended
            check()
            between()
            if done or (follower.is_idle() and rounds > _LOOK_EVERY):
                return
            rounds += 1
            time.sleep(_POLL_SECONDS)


@contextmanager
def _interrupt_between_rounds() -> Iterator[Callable[[], None]]:
    """Have Ctrl-C wait until it is asked for: in the middle of a block of entries, the rest of it would be lost."""
    seen: list[int] = []

    def check() -> None:
        if seen:
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, frame: seen.append(number)) for number in numbers]
    try:
        yield check
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def show_logs(
    engine: Engine,
    project: str,
    found: Sequence[Member],
    show: Show,
    *,
    follow: bool,
    tail: int | None,
    since: int | None,
    until: int | None,
) -> None:
    """The logs of containers, in the order of time; with *follow*, until none of them runs."""
    began = time.time_ns()
    # Each log is in the order of time already, and none of them need be held in memory.
    streams = [
        _stamped(member, logs(engine, member.id, tail=tail, since=since, until=until))
        for member in found
        if member.listed.record["log"]["driver"] != "none"
    ]
    for moment, member, entry in merge(*streams, key=itemgetter(0)):
        if not follow or moment < began:
            show(member, entry)
    if follow:
        services = {member.service for member in found}
        with closing(Follower(engine, show, began)) as follower:
            attach(engine, project, follower, lambda member: member.service in services, lambda end: False)


def _stamped(member: Member, entries: Iterator[Entry]) -> Iterator[tuple[int, Member, Entry]]:
    return ((nanoseconds(entry.time), member, entry) for entry in entries)
