"""Networks: made, found, in use, removed; connecting a container that does not run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rootless.engine import network_options
from rootless.engine.create import build_record, initial_state
from rootless.engine.names import random_id
from rootless.engine.network_connect import Names, connect, disconnect
from rootless.engine.network_create import NetworkOptions, create_network
from rootless.engine.network_flows import list_flows
from rootless.engine.network_inspect import endpoint_id, inspect_network, list_networks, networks_in_use
from rootless.engine.network_remove import prune_networks, remove_network
from rootless.engine.networks import bridge, find
from rootless.engine.options import ContainerOptions, NetworkOption
from rootless.engine.ports import add_ports, bindings, published, remove_ports
from rootless.errors import Conflict, HostUnsupported, InvalidInput, NotFound, RootlessError
from rootless.network.ports import Port, parse_publish
from rootless.spec.image import RuntimeConfig
from rootless.store.networks import LARGEST_MTU, Network, Subnet
from tests.support.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name in ("root", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.setattr("rootless.engine.network_create._read", lambda path: "")  # the routes of no machine
    return Store(tmp_path / "root", tmp_path / "run")


def make(store: Store, name: str, **given: Any) -> Network:
    return create_network(store.engine, NetworkOptions(name, **given))


def names(store: Store) -> list[str]:
    return [network.name for network in list_networks(store.engine)]


def add(store: Store, name: str, *networks: NetworkOption, ports: Sequence[Port] = (), **given: Any) -> str:
    """A container on networks, that has never run; its id."""
    container_id = random_id()
    options = ContainerOptions("host", command=("true",), networks=networks, ports=tuple(ports), **given)
    record = build_record(options, RuntimeConfig(), container_id, name, None)
    network_options.resolve(store.engine, record)
    containers = store.engine.containers
    containers.take_name(name, container_id)
    containers.commit(containers.stage(), record, initial_state(), durable=False)
    return container_id


def networks_of(store: Store, container_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = store.engine.containers.load(container_id)["networks"]
    return found


def ports_of(store: Store, container_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = store.engine.containers.load(container_id)["ports"]
    return found


# Making and finding them


def test_the_default_network_is_there_when_somebody_asks_for_it(store: Store) -> None:
    assert [network.name for network in store.engine.networks.list()] == ["host", "none"]
    first = bridge(store.engine)
    assert (first.name, first.ipv4 and first.ipv4.subnet, first.mtu) == ("bridge", "172.17.0.0/16", LARGEST_MTU)
    assert find(store.engine, "default") == find(store.engine, first.id[:6]) == first
    assert names(store) == ["bridge", "host", "none"]


def test_each_network_has_a_subnet_of_its_own(store: Store) -> None:
    subnets = [network.ipv4 and network.ipv4.subnet for network in (make(store, "one"), make(store, "two"))]
    assert subnets == ["172.18.0.0/16", "172.19.0.0/16"]
    assert names(store) == ["bridge", "host", "none", "one", "two"]


def test_a_subnet_that_the_machine_has_a_route_to_is_passed_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    table = "Iface\tDestination\nvpn0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"  # 172.17.0.0/16
    monkeypatch.setattr("rootless.engine.network_create._read", lambda path: table if path.endswith("/route") else "")
    found = bridge(store.engine)
    assert found.ipv4 == Subnet("172.18.0.0/16", "172.18.0.1")


def test_a_network_is_what_was_asked_for(store: Store) -> None:
    network = make(
        store,
        "web",
        subnets=["10.1.0.0/16", "fd00:1::/64"],
        gateways=["10.1.0.9"],
        ranges=["10.1.5.0/24"],
        aux={"router": "10.1.0.1"},
        ipv6=True,
        internal=True,
        attachable=True,
        options={
            "com.docker.network.driver.mtu": "1400",
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.name": "br-web",
        },
        labels={"tier": "front"},
        egress=["example.org:443"],
    )
    assert store.engine.networks.load("web") == network
    assert (network.mtu, network.icc) == (1400, False)
    document = inspect_network(store.engine, "web")
    assert document.pop("Created") == network.created
    assert document == {
        "Name": "web",
        "Id": network.id,
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": True,
        "EnableIPv6": True,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [
                {
                    "Subnet": "10.1.0.0/16",
                    "IPRange": "10.1.5.0/24",
                    "Gateway": "10.1.0.9",
                    "AuxiliaryAddresses": {"router": "10.1.0.1"},
                },
                {"Subnet": "fd00:1::/64", "Gateway": "fd00:1::1"},
            ],
        },
        "Internal": True,
        "Attachable": True,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {
            "com.docker.network.driver.mtu": "1400",
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.name": "br-web",
        },
        "Labels": {"tier": "front"},
        "Egress": ["example.org:443"],
    }


def test_ipv6_gets_a_subnet_made_from_the_id(store: Store) -> None:
    network = make(store, "six", ipv4=False, ipv6=True)
    assert network.ipv4 is None
    assert network.ipv6 is not None
    assert network.ipv6.subnet.startswith(f"fd{network.id[:2]}:")


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"driver": "macvlan"}, HostUnsupported, 'plugin "macvlan" not found'),
        ({"name": "bridge"}, Conflict, "operation is not permitted on predefined bridge network"),
        ({"name": "host"}, Conflict, "operation is not permitted on predefined host network"),
        ({"name": "default"}, Conflict, "operation is not permitted on predefined default network"),
        ({"name": "a/b"}, InvalidInput, "invalid network name 'a/b'"),
        ({"ipv4": False}, InvalidInput, "IPv4 or IPv6 must be enabled"),
        ({"subnets": ["172.17.0.0/24"]}, Conflict, "Pool overlaps with other one on this address space"),
        ({"subnets": ["10.1.0.1/24"]}, InvalidInput, "it should be 10.1.0.0/24"),
        (
            {"options": {"com.docker.network.driver.mtu": "9"}},
            InvalidInput,
            "invalid MTU '9': 1280 to 65520 are possible",
        ),
        ({"options": {"com.docker.network.driver.mtu": "x"}}, InvalidInput, "invalid MTU 'x'"),
        ({"options": {"com.docker.network.bridge.enable_icc": "maybe"}}, InvalidInput, "neither true nor false"),
        (
            {"options": {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}},
            HostUnsupported,
            "host_binding_ipv4=127.0.0.1 is not there",
        ),
        ({"options": {"parent": "eth0"}}, InvalidInput, "invalid option: 'parent'"),
    ],
)
def test_what_cannot_be_is_refused(
    given: Mapping[str, Any], kind: type[RootlessError], message: str, store: Store
) -> None:
    with pytest.raises(kind, match=message):
        create_network(store.engine, NetworkOptions(**{"name": "web", **given}))
    assert [network.name for network in store.engine.networks.list()] in (
        ["host", "none"],
        ["bridge", "host", "none"],
    )


def test_a_name_is_given_once(store: Store) -> None:
    make(store, "web")
    with pytest.raises(Conflict, match=r"^network with name web already exists$"):
        make(store, "web")


# In use, removed


def test_a_network_of_a_running_container_stays(store: Store) -> None:
    network = make(store, "web")
    container = add(store, "one", NetworkOption("web"))
    answered = {"network": network.id, "ipv4": "172.18.0.2", "prefix4": 16, "ipv6": "", "prefix6": 0, "mac": "02:42"}
    with store.running(container):
        state = {**store.engine.containers.state(container), "network": {"endpoints": [answered], "ports": []}}
        store.engine.containers.save_state(container, state, durable=False)
        assert inspect_network(store.engine, "web")["Containers"] == {
            container: {
                "Name": "one",
                "EndpointID": endpoint_id(network.id, container),
                "MacAddress": "02:42",
                "IPv4Address": "172.18.0.2/16",
                "IPv6Address": "",
            }
        }
        for force in (False, True):
            with pytest.raises(Conflict) as refused:
                remove_network(store.engine, "web", force=force)
        assert str(refused.value) == (
            f'error while removing network: network web has active endpoints (name:"one" id:"{container[:12]}")'
        )
    assert inspect_network(store.engine, "web")["Containers"] == {}
    remove_network(store.engine, network.id[:12], force=False)
    assert names(store) == ["bridge", "host", "none"]


def test_what_is_not_there_or_built_in_is_not_removed(store: Store) -> None:
    with pytest.raises(NotFound, match=r"^network nosuch not found$"):
        remove_network(store.engine, "nosuch", force=False)
    remove_network(store.engine, "nosuch", force=True)
    for name in ("bridge", "host", "none"):
        with pytest.raises(Conflict, match=rf"^{name} is a pre-defined network and cannot be removed$"):
            remove_network(store.engine, name, force=True)


def test_prune_takes_what_no_container_is_to_be_on(store: Store) -> None:
    kept = make(store, "used")
    make(store, "free", labels={"tier": "front"})
    make(store, "labelled", labels={"keep": ""})
    add(store, "one", NetworkOption("used"))
    assert networks_in_use(store.engine) == {kept.id}
    assert prune_networks(store.engine, until=0, labels=lambda _: True) == []
    assert prune_networks(store.engine, until=None, labels=lambda labels: "keep" not in labels) == ["free"]
    assert names(store) == ["bridge", "host", "labelled", "none", "used"]


# Containers that do not run


def test_a_container_is_connected_and_disconnected(store: Store) -> None:
    web = make(store, "web", subnets=["10.1.0.0/24"])
    container, db = add(store, "one", NetworkOption("bridge")), add(store, "db", NetworkOption("web"))
    option = NetworkOption("", ("alias",), "10.1.0.9", "", "02:42:00:00:00:01", (("db", "database"),), 5)
    connect(store.engine, Names("web", "one"), option)
    assert networks_of(store, container)[1] == {
        "name": "web",
        "id": web.id,
        "ipv4": "10.1.0.9",
        "ipv6": "",
        "mac": "02:42:00:00:00:01",
        "aliases": ["alias"],
        "gw_priority": 5,
    }
    assert store.engine.containers.load(container)["links"] == [[db, "database"]]
    with pytest.raises(Conflict, match=r"^endpoint with name one already exists in network web$"):
        connect(store.engine, Names(web.id, container[:8]), NetworkOption(""))
    disconnect(store.engine, Names("bridge", "one"), force=False)
    record = store.engine.containers.load(container)
    assert ([e["name"] for e in record["networks"]], record["network"]) == (["web"], "web")
    with pytest.raises(Conflict, match=rf"^container {container} is not connected to network bridge$"):
        disconnect(store.engine, Names("bridge", "one"), force=False)


def test_a_container_is_taken_off_a_network_that_is_gone_by_force_only(store: Store) -> None:
    make(store, "web")
    container = add(store, "one", NetworkOption("web"))
    remove_network(store.engine, "web", force=False)
    with pytest.raises(NotFound, match=r"^network web not found$"):
        disconnect(store.engine, Names("web", "one"), force=False)
    disconnect(store.engine, Names("web", "one"), force=True)
    assert networks_of(store, container) == []


@pytest.mark.parametrize(
    ("mode", "network", "option", "message"),
    [
        ("bridge", "host", {}, "container cannot be disconnected from host network or connected to host network"),
        ("host", "web", {}, "container cannot be disconnected from host network or connected to host network"),
        ("none", "web", {}, "one of the networks in private"),
        ("bridge", "none", {}, "one of the networks in private"),
        ("container:db", "web", {}, "container sharing network namespace with another container"),
        ("web", "bridge", {"ipv4": "172.17.0.9"}, "user specified IP address is supported on user defined networks"),
        ("web", "bridge", {"aliases": ("a",)}, "network-scoped alias is supported only for containers in user defined"),
        ("bridge", "web", {"ipv4": "10.2.0.9"}, "no configured subnet or ip-range contain the IP address 10.2.0.9"),
        ("bridge", "web", {"ipv6": "fd00::9"}, "supported only when connecting to networks with user configured"),
    ],
)
def test_what_cannot_be_connected_is_told_in_dockers_words(
    mode: str, network: str, option: dict[str, Any], message: str, store: Store
) -> None:
    make(store, "web", subnets=["10.1.0.0/24"])
    add(store, "db", NetworkOption("bridge"))
    container = add(store, "one", NetworkOption(mode))
    before = store.engine.containers.load(container)
    with pytest.raises((Conflict, InvalidInput), match=message):
        connect(store.engine, Names(network, "one"), NetworkOption("", **option))
    assert store.engine.containers.load(container) == before


def test_the_host_network_is_not_left(store: Store) -> None:
    add(store, "one", NetworkOption("host"))
    with pytest.raises(Conflict, match="cannot be disconnected from host network"):
        disconnect(store.engine, Names("host", "one"), force=True)


def test_nothing_flows_where_nothing_runs(store: Store) -> None:
    assert list_flows(store.engine) == ([], [])
    add(store, "one", NetworkOption("bridge"))
    with pytest.raises(Conflict, match="container one is not running"):
        list_flows(store.engine, "one")
    assert not (store.run / "slirp").exists()


# Ports of a container that does not run


def test_ports_are_added_to_the_record_and_taken_out_again(store: Store) -> None:
    container = add(store, "one", NetworkOption("bridge"), ports=parse_publish("8080:80"))
    assert add_ports(store.engine, "one", parse_publish("127.0.0.1:8443:443")) == {}
    assert ports_of(store, container) == [
        {"container_port": 80, "protocol": "tcp", "host_ip": "", "host_port": 8080},
        {"container_port": 443, "protocol": "tcp", "host_ip": "127.0.0.1", "host_port": 8443},
    ]
    assert store.engine.containers.load(container)["exposed_ports"] == ["80/tcp", "443/tcp"]
    with pytest.raises(Conflict, match=r"^8080:80/tcp of one is published already$"):
        add_ports(store.engine, "one", parse_publish("8080:80"))
    remove_ports(store.engine, "one", parse_publish("8080:80"))
    remove_ports(store.engine, "one", parse_publish("443"))
    assert ports_of(store, container) == []
    with pytest.raises(NotFound, match=r"^127.0.0.1:8443:443/tcp of one is not published$"):
        remove_ports(store.engine, "one", parse_publish("127.0.0.1:8443:443"))


def test_a_port_that_publish_all_stands_for_is_gone_for_good(store: Store) -> None:
    container = add(store, "one", NetworkOption("bridge"), publish_all=True, expose=("80/tcp", "443/tcp"))
    remove_ports(store.engine, "one", parse_publish("80"))
    record = store.engine.containers.load(container)
    assert record["publish_all"] is False
    assert record["ports"] == [{"container_port": 443, "protocol": "tcp", "host_ip": "", "host_port": 0}]


def test_what_does_not_run_publishes_nothing(store: Store) -> None:
    add(store, "one", NetworkOption("bridge"), ports=parse_publish("8080:80"))
    assert published(store.engine, "one") == {}
    with pytest.raises(NotFound, match=r"^Error: No public port '80' published for one$"):
        bindings(store.engine, "one", "80/tcp")


@pytest.mark.parametrize("mode", ["host", "none"])
def test_ports_need_a_network_of_ours(mode: str, store: Store) -> None:
    add(store, "one", NetworkOption(mode))
    with pytest.raises(InvalidInput, match=f"ports of container one cannot be published: its network is {mode}"):
        add_ports(store.engine, "one", parse_publish("80"))
