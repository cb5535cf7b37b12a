"""Which events pass a filter, and how a line of them looks."""

import pytest

from rootless.cli.events import event_line, matches
from rootless.cli.filters import Filters
from rootless.spec.event import Event

START = Event(
    "container", "start", "4f" * 32, {"image": "web:1", "name": "front", "tier": "a"}, 1_700_000_000_000_000_001
)
HEALTH = Event(START.type, "health_status: healthy", START.id, START.attributes, START.time)
PULL = Event("image", "pull", "reg.example:5000/web:1", {"name": "reg.example:5000/web"}, 1)
VOLUME = Event("volume", "create", "front-data", {"driver": "local"}, 1)
CONNECT = Event("network", "connect", "ab" * 32, {"container": "4f" * 32, "name": "back", "type": "bridge"}, 1)


@pytest.mark.parametrize(
    ("filters", "passing"),
    [
        ({}, [START, HEALTH, PULL, VOLUME, CONNECT]),
        ({"type": ["container"]}, [START, HEALTH]),
        ({"type": ["image", "volume"]}, [PULL, VOLUME]),
        ({"event": ["start"]}, [START]),
        ({"event": ["health_status"]}, [HEALTH]),
        ({"event": ["health_status: healthy", "pull"]}, [HEALTH, PULL]),
        ({"event": ["health_status: unhealthy"]}, []),
        ({"container": ["front"]}, [START, HEALTH]),
        ({"container": ["4f4f"]}, [START, HEALTH]),
        ({"container": ["other", "fro"]}, [START, HEALTH]),
        ({"container": ["front"], "event": ["start", "die"]}, [START]),
        ({"container": ["front"], "volume": ["front-data"]}, []),
        ({"volume": ["front"]}, [VOLUME]),
        ({"network": ["back"]}, [CONNECT]),
        ({"network": ["abab"]}, [CONNECT]),
        ({"image": ["web"]}, [START, HEALTH]),
        ({"image": ["web:1"]}, [START, HEALTH]),
        ({"image": ["reg.example:5000/web"]}, [PULL]),
        ({"image": ["reg.example"]}, []),
        ({"label": ["tier"]}, [START, HEALTH]),
        ({"label": ["tier=a"]}, [START, HEALTH]),
        ({"label": ["tier=a", "tier=b"]}, []),
        ({"scope": ["local"], "type": ["volume"]}, [VOLUME]),
        ({"scope": ["swarm"]}, []),
        ({"service": ["web"]}, []),
    ],
)
def test_an_event_passes_one_value_of_each_key_and_all_labels(filters: Filters, passing: list[Event]) -> None:
    assert [event for event in (START, HEALTH, PULL, VOLUME, CONNECT) if matches(event, filters)] == passing


def test_a_line_is_dockers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    assert event_line(START).partition(" ")[2] == f"container start {'4f' * 32} (image=web:1, name=front, tier=a)"
    assert event_line(START).partition(" ")[0].partition(".")[2].startswith("000000001")
    assert event_line(Event("volume", "create", "front-data", {}, 1)).endswith(" volume create front-data")
