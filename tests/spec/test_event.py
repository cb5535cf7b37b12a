"""Events as lines: they come back as they were, and none is longer than a write that is not torn apart."""

import json

from hypothesis import given
from hypothesis import strategies as st

from rootless.spec.event import LINE_MAX, Event, from_line, to_line

TEXT = st.text(max_size=40)
LONG = st.text(max_size=3000)


@given(TEXT, TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=5), st.integers(0, 2**62))
def test_a_line_says_what_the_event_was(
    kind: str, action: str, identifier: str, attributes: dict[str, str], time: int
) -> None:
    event = Event(kind, action, identifier, attributes, time)
    line = to_line(event)
    assert line[:1] == line[-1:] == b"\n"
    assert line.count(b"\n") == 2
    if len(json.dumps(event.document(), separators=(",", ":"))) + 2 <= LINE_MAX:
        assert from_line(line[1:-1]) == event


@given(LONG, LONG, st.dictionaries(LONG, LONG, max_size=4))
def test_no_line_is_too_long_and_the_short_attributes_stay(
    action: str, identifier: str, attributes: dict[str, str]
) -> None:
    event = Event("container", action, identifier, {**attributes, "name": "web"}, 1)
    line = to_line(event)
    assert len(line) <= LINE_MAX
    found = from_line(line)
    assert found is not None
    assert found.attributes.get("name") == "web"
    assert action.startswith(found.action)


def test_the_document_has_dockers_keys_in_dockers_order() -> None:
    event = Event("container", "start", "4f", {"image": "busybox", "name": "web"}, 1_700_000_000_123_456_789)
    assert json.dumps(event.document(), separators=(",", ":")) == (
        '{"status":"start","id":"4f","from":"busybox","Type":"container","Action":"start",'
        '"Actor":{"ID":"4f","Attributes":{"image":"busybox","name":"web"}},"scope":"local",'
        '"time":1700000000,"timeNano":1700000000123456789}'
    )
    assert "status" not in Event("volume", "create", "v", {}, 1).document()


def test_what_is_no_event_is_none() -> None:
    for line in (b"", b"{", b"[]", b"1", b'{"Type":"a"}', b"\xff", b'{"Type":"a","Action":"b","Actor":3,"timeNano":1}'):
        assert from_line(line) is None
