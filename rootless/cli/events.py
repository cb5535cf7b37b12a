"""events: what happens to containers, images, volumes and networks, as it happens or from the journal."""

import re
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from rootless.cli import streams
from rootless.cli.command import NO_ARGUMENTS, Options, command, text, value, values
from rootless.cli.filters import Filters, collect_filters, match_labels, parse_filter
from rootless.cli.opening import engine_of
from rootless.cli.terminal_text import visible
from rootless.cli.time_values import SECOND, parse_time
from rootless.engine.event_stream import Events
from rootless.errors import InvalidInput
from rootless.spec.event import Event

_FILTERS = (
    *("builder", "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope"),
    *("secret", "service", "type", "volume"),
)
_NAMED = ("container", "network", "volume")  # by the beginning of a name or an id
_NEVER = ("builder", "config", "node", "plugin", "secret", "service")  # what there are no events of, or none with names
_FAMILIES = ("health_status", "exec_create", "exec_start")  # actions with a text after a colon


def _moment(text: str) -> int:
    return parse_time(text, time.time_ns())


class EventsOptions(Options):
    """The options of events."""

    filter: list[tuple[str, str]] = values(
        "-f", "--filter", parse=parse_filter, metavar="filter", help="Filter output based on conditions provided"
    )
    format: str = text("--format", help="Format output: 'json', or a Go template")
    since: int | None = value(
        "--since", parse=_moment, default=None, metavar="string", help="Show all events created since timestamp"
    )
    until: int | None = value(
        "--until", parse=_moment, default=None, metavar="string", help="Stream events until this timestamp"
    )


@command(
    "events",
    "",
    EventsOptions,
    NO_ARGUMENTS,
    examples="""
        What has happened in the last ten minutes, and no more:
            $ {path} --since 10m --until 0s
        Containers that end, as they do, for a script:
            $ {path} --filter event=die --format '{{.Actor.Attributes.name}}: {{.Actor.Attributes.exitCode}}'
    """,
)
def events(options: EventsOptions) -> None:
    """Get real time events from the engine

    Those of before are there with --since or --until, as far as they are kept: since login, some thousands.
    """
    filters = collect_filters(options.filter, _FILTERS)
    if options.since is not None and options.until is not None and options.since > options.until:
        raise InvalidInput(
            f"`since` time ({_clock(options.since)}) cannot be after `until` time ({_clock(options.until)})"
        )
    show = _form(options.format)
    try:
        with Events(engine_of(options), since=options.since, until=options.until) as found:
            for event in found:
                if matches(event, filters):
                    streams.write(show(event) + "\n")
                    streams.flush()
    except KeyboardInterrupt:
        return  # how one ends it


def _clock(moment: int) -> str:
    return f"{moment // SECOND}.{moment % SECOND:09d}"


def _form(form: str) -> Callable[[Event], str]:
    """The text of one event as --format wants it. Raises TemplateError."""
    if not form:
        return event_line
    # Only where one is asked for.
    from rootless.cli.template import Record, Template

    template = Template("{{json .}}" if form == "json" else form.replace(r"\t", "\t").replace(r"\n", "\n"))
    if form == "json":
        return lambda event: template.render(event.document())
    return lambda event: template.render(Record(_for_template(event.document())))


def _for_template(document: dict[str, object]) -> dict[str, object]:
    """With Go's names for what JSON calls otherwise."""
    names = {"status": "Status", "id": "ID", "from": "From", "scope": "Scope", "time": "Time", "timeNano": "TimeNano"}
    return {**dict.fromkeys(names.values(), ""), **{names.get(key, key): document[key] for key in document}}


def event_line(event: Event) -> str:
    """Docker's line: the time here, what happened to what, and the attributes by name."""
    when = datetime.fromtimestamp(event.time // SECOND).astimezone()
    zone = re.sub(r"(\d\d)$", r":\1", when.strftime("%z"))
    attributes = ", ".join(f"{name}={event.attributes[name]}" for name in sorted(event.attributes))
    line = f"{event.type} {event.action} {event.id}" + (f" ({attributes})" if attributes else "")
    if sys.stdout.isatty():
        line = visible(line)  # a name with a newline shall not pass for a second event
    return f"{when:%Y-%m-%dT%H:%M:%S}.{event.time % SECOND:09d}{zone if zone != '+00:00' else 'Z'} {line}"


# Filters (moby: daemon/events/filter.go)


def matches(event: Event, filters: Filters) -> bool:
    """Whether the event passes: one of the values of each key, and all labels.

    Names of containers are looked for among events of containers, and so on.
    """
    for key, wanted in filters.items():
        if key == "label":
            passes = match_labels(wanted, event.attributes)
        else:
            passes = any(_TESTS[key](event, text) for text in wanted)
        if not passes:
            return False
    return True


def _is_action(event: Event, text: str) -> bool:
    return event.action == text or (text in _FAMILIES and event.action.partition(":")[0] == text)


def _is_named(kind: str) -> Callable[[Event, str], bool]:
    def test(event: Event, text: str) -> bool:
        names = (event.id, event.attributes.get("name", ""))
        return event.type == kind and any(name.startswith(text) for name in names)

    return test


def _has_image(event: Event, text: str) -> bool:
    """By an image's id or name, with or without a tag: events of images, and of the containers made from them."""
    if event.type not in ("image", "container"):
        return False
    names = (event.id, event.attributes.get("name" if event.type == "image" else "image", ""))
    return any(text in (name, _without_tag(name)) for name in names)


def _without_tag(name: str) -> str:
    path, colon, tag = name.rpartition(":")
    return path if colon and "/" not in tag else name


_TESTS: Mapping[str, Callable[[Event, str], bool]] = {
    "event": _is_action,
    "type": lambda event, text: event.type == text,
    "scope": lambda _, text: text == "local",
    "daemon": lambda _, text: True,
    "image": _has_image,
    **{kind: _is_named(kind) for kind in _NAMED},
    **dict.fromkeys(_NEVER, lambda _, text: False),
}
