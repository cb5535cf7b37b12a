"""Events: what happened to which object, in the shape of Docker's API (api/types/events of moby).

    {"status":"start","id":"4f…","from":"busybox","Type":"container","Action":"start",
     "Actor":{"ID":"4f…","Attributes":{"image":"busybox","name":"web"}},"scope":"local","time":…,"timeNano":…}

`status`, `id` and `from` are for clients from before there were types: containers and images have them. A line is at
most PIPE_BUF bytes, so that writers who append at once do not mix: of attributes that are too many or too long the
longest are left out, which are labels.
"""

import json

TYPE_CHECKING = False  # typing's own, without the import, which each monitor would carry
if TYPE_CHECKING:
    from typing import Any

LINE_MAX = 4096  # PIPE_BUF of <linux/limits.h>
_LONGEST = 600  # of an action ("exec_create: COMMAND") or an id, where the line is too long; each may stand in it twice
_NS = 1_000_000_000


class Event:
    """One thing that happened. Not to be changed."""

    __slots__ = ("action", "attributes", "id", "time", "type")

    def __init__(self, type: str, action: str, id: str, attributes: dict[str, str], time: int) -> None:
        self.type = type  # container, image, volume, network, builder
        self.action = action  # "start", "exec_create: sh", "health_status: healthy"
        self.id = id  # of the object; the name of an image that was pulled, of a volume
        self.attributes = attributes
        self.time = time  # ns since 1970

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and self.document() == other.document()

    def __hash__(self) -> int:
        return hash((self.type, self.action, self.id, self.time))

    def __repr__(self) -> str:
        return f"Event({self.document()})"

    def document(self) -> "dict[str, Any]":
        """Docker's JSON, with its order of keys."""
        old: dict[str, Any] = {}
        if self.type in ("container", "image"):
            old = {"status": self.action, "id": self.id}
        if self.type == "container":
            old["from"] = self.attributes.get("image", "")
        return {
            **old,
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": self.attributes},
            "scope": "local",
            "time": self.time // _NS,
            "timeNano": self.time,
        }


def to_line(event: Event) -> bytes:
    """The event as a line of JSON, LINE_MAX bytes at most with a newline before and after it.

    The one before keeps a line that a kill has torn from taking the next one with it.
    """
    line = _encoded(event)
    if len(line) > LINE_MAX:
        kept = dict(event.attributes)
        event = Event(event.type, _cut(event.action), _cut(event.id), kept, event.time)
        while kept and len(line := _encoded(event)) > LINE_MAX:
            del kept[max(kept, key=lambda name: len(name) + len(kept[name]))]
    return line


def _encoded(event: Event) -> bytes:
    return b"\n%b\n" % json.dumps(event.document(), separators=(",", ":")).encode()


def _cut(text: str) -> str:
    """The beginning of *text* that takes no more than _LONGEST bytes in JSON."""
    while (size := len(json.dumps(text))) > _LONGEST:
        text = text[: len(text) * _LONGEST // size]
    return text


def from_line(line: bytes) -> Event | None:
    """What to_line() wrote; None for a line that is empty or torn."""
    try:
        fields = json.loads(line)
        actor = fields["Actor"]
        return Event(fields["Type"], fields["Action"], actor["ID"], {**actor["Attributes"]}, int(fields["timeNano"]))
    except (ValueError, TypeError, KeyError):
        return None
