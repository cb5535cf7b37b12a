"""The journal of events: what has happened to the containers, images, volumes and networks of a store.

    RUN/events      lines of JSON, each an event in Docker's shape (spec/event.py), the newest last
    RUN/events.1    those before

There is no process that would collect them: each command and each monitor appends its own (linux/journal.py). They are
in the run directory, which is always on a local file system, where appending is safe, and which vanishes at logout as
Docker's events do when its daemon ends. Two files of a mebibyte hold some thousands of events.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rootless.linux import journal
from rootless.spec.event import Event, to_line
from rootless.store.layout import Layout

_NAME = "events"


def journal_path(layout: Layout) -> str:
    """Where the events of a store are told: for its monitors too."""
    return layout.run_path(_NAME)


def attributes_of(record: Mapping[str, Any]) -> dict[str, str]:
    """What every event of a container says of it: its labels, its image and its name."""
    return {**record["labels"], "image": record["image"], "name": record["name"]}


def append(layout: Layout, kind: str, action: str, identifier: str, attributes: Mapping[str, str]) -> None:
    """Tell that this has happened just now."""
    event = Event(kind, action, identifier, dict(attributes), time.time_ns())
    # What was done is done, whether or not there is room to tell of it, or a run directory still (logout).
    with suppress(OSError):
        journal.append(journal_path(layout), to_line(event))
