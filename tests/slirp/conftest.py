"""A made-up machine with slirp on it (tests/support/network.py), for tests that look at it from outside.

Each test has networks of its own; the process is one for all tests of a module and a path of TCP, and at the end it
must not have had an error.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.network import FAR4, FAR6, PATHS, ROUTER4, ROUTER6, Box, Machine, Slirp, eventually, network, on
from tests.support.network_servers import Zone, answering, serving

Fresh = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def zone() -> Zone:
    return Zone({"www.example.org": (FAR4, FAR6), "other.example.org": (ROUTER4, ROUTER6)})


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, zone: Zone) -> Iterator[Machine]:
    """With a resolver at 127.0.0.53, as systemd's."""
    with Machine(tmp_path_factory.mktemp("machine")) as machine:
        machine.resolv_conf("nameserver 127.0.0.53\n")
        udp, tcp = machine.datagrams("127.0.0.53", 53), machine.listener("127.0.0.53", 53)
        with answering(udp, zone.answer), serving(tcp, zone.serve):
            yield machine


@pytest.fixture(scope="module", params=PATHS)
def shared(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Slirp]:
    with machine.slirp(request.param) as slirp:
        assert slirp.request("hello")["tcp"] == request.param
        yield slirp
        assert "error in a handler" not in slirp.log(), slirp.log()[-4000:]


@pytest.fixture
def slirp(shared: Slirp) -> Iterator[Slirp]:
    """The process of this path, without containers, and still there afterwards."""
    yield shared
    for box in shared.boxes:
        box.close()
    shared.boxes.clear()
    assert not shared.ended()
    assert eventually(lambda: shared.request("hello")["containers"] == 0)


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def fresh(numbers: Iterator[int]) -> Fresh:
    """`fresh(names=True)` is a network that no other test has."""

    def make(**fields: Any) -> dict[str, Any]:
        number = next(numbers)
        return network(f"net{number}", f"10.{number}.0.0/16", ipv6=f"fd00:{number:x}::/64", **fields)

    return make


@pytest.fixture
def box(slirp: Slirp, fresh: Fresh) -> Box:
    """A container on a network of its own."""
    return slirp.box("web", [on(fresh(names=True))])
