"""Networks on disk: names, lookup, and what a kill leaves."""

import os
from pathlib import Path

import pytest

from rootless.errors import Conflict, InvalidInput, NotFound
from rootless.store.layout import Layout
from rootless.store.networks import HOST, NONE, Network, Networks, Subnet, check_name

FULL = Network(
    "web",
    "ab" * 32,
    "2023-11-14T22:13:20.000000000Z",
    internal=True,
    attachable=True,
    ipv4=Subnet("10.1.0.0/16", "10.1.0.1", "10.1.5.0/24", {"router": "10.1.0.9"}),
    ipv6=Subnet("fd00:1::/64", "fd00:1::1"),
    options={"com.docker.network.driver.mtu": "1400"},
    labels={"tier": "front"},
    mtu=1400,
    icc=False,
    egress=["*.example.org:443"],
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "root"), str(tmp_path / "run"))


@pytest.fixture
def networks(layout: Layout) -> Networks:
    return Networks(layout)


def named(name: str, start: str = "0") -> Network:
    return Network(name, start.ljust(64, "f"))


def test_a_network_is_read_as_it_was_written(networks: Networks) -> None:
    networks.create(FULL)
    assert networks.load("web") == FULL
    assert networks.list() == [HOST, NONE, FULL]


def test_slirp_is_told_what_it_needs(networks: Networks) -> None:
    assert FULL.asked() == {
        "id": "ab" * 32,
        "name": "web",
        "ipv4": {"subnet": "10.1.0.0/16", "gateway": "10.1.0.1", "range": "10.1.5.0/24", "aux": ["10.1.0.9"]},
        "ipv6": {"subnet": "fd00:1::/64", "gateway": "fd00:1::1", "range": "", "aux": []},
        "internal": True,
        "names": True,
        "icc": False,
        "mtu": 1400,
        "egress": ["*.example.org:443"],
    }
    assert Network("bridge", "0" * 64).asked()["names"] is False


def test_a_name_is_given_once(networks: Networks) -> None:
    networks.create(named("web"))
    for name in ("web", "host", "none"):
        with pytest.raises(Conflict, match=f"network with name {name} already exists"):
            networks.create(named(name, "1"))


@pytest.mark.parametrize("name", ["", "-x", ".x", "a/b", "a b", "../x", "a\n", "ä", "x" * 256])
def test_a_name_that_cannot_be_is_refused(name: str, networks: Networks) -> None:
    with pytest.raises(InvalidInput, match="invalid network name"):
        networks.create(named(name))
    with pytest.raises(NotFound):
        networks.load(name)


@pytest.mark.parametrize("name", ["a", "0", "a.b", "a_b-c", "x" * 255])
def test_a_name_that_can_be_finds_its_network(name: str, networks: Networks) -> None:
    assert check_name(name) == name
    networks.create(named(name))
    assert networks.find(name).name == name


def test_networks_are_found_by_name_by_id_and_by_what_an_id_begins_with(networks: Networks) -> None:
    networks.create(named("one", "ab1"))
    networks.create(named("two", "ab2"))
    networks.create(named("ab1", "cd"))  # a name that is the beginning of another's id: the name counts
    assert networks.find("one").name == "one"
    assert networks.find("ab1").name == "ab1"
    assert networks.find("ab2").name == "two"
    assert networks.find("ab1".ljust(64, "f")).name == "one"
    assert networks.find(HOST.id[:12]) == HOST
    with pytest.raises(Conflict, match=r"network ab is ambiguous \(2 matches found based on ID prefix\)"):
        networks.find("ab")
    for missing in ("nosuch", "ee", "f" * 65, ""):
        with pytest.raises(NotFound, match=rf"^network {missing} not found$"):
            networks.find(missing)


def test_host_and_none_are_there_and_never_on_disk(networks: Networks, layout: Layout) -> None:
    assert (networks.load("host"), networks.find("none")) == (HOST, NONE)
    assert list(Path(layout.path("networks")).iterdir()) == []
    assert (len(HOST.id), len(NONE.id)) == (64, 64)


def test_a_store_from_before_networks_has_none(networks: Networks, layout: Layout) -> None:
    Path(layout.path("networks")).rmdir()
    assert networks.list() == [HOST, NONE]
    networks.create(named("web"))
    assert networks.load("web").name == "web"


def test_a_removed_network_is_gone_and_its_name_free(networks: Networks) -> None:
    networks.remove(networks.create(named("web")))
    networks.remove(named("web"))
    with pytest.raises(NotFound):
        networks.load("web")
    networks.create(named("web", "1"))


def test_a_kill_leaves_nothing_but_trash(networks: Networks, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def die(source: str, target: str) -> None:
        if "networks" in target:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("rootless.store.networks.os.rename", die)
        with pytest.raises(KeyboardInterrupt):
            networks.create(named("web"))
    assert networks.list() == [HOST, NONE]
    assert len(list(Path(layout.path("trash")).iterdir())) == 1
