"""What the stack knows: endpoints by address, kept right as the hub tells anew."""

from slirp.model import Model, packed, unpacked

NETWORK = {"id": "n1", "name": "web", "gateway4": "10.1.0.1", "gateway6": "fd00::1", "names": True}
CONTAINER = {
    "id": "c1",
    "name": "db",
    "endpoints": [{"network": "n1", "ipv4": "10.1.0.2", "ipv6": "fd00::2", "aliases": ["sql"], "default": True}],
}


def test_an_endpoint_is_found_by_each_of_its_addresses() -> None:
    model = Model()
    network = model.add_network(NETWORK)
    container = model.set_container(CONTAINER)
    assert model.endpoint(network, packed("10.1.0.2")) is model.endpoint(network, packed("fd00::2"))
    assert container.endpoints[0].aliases == ("sql",)
    assert unpacked(container.endpoints[0].ipv6 or b"") == "fd00::2"


def test_a_container_told_anew_gives_up_the_addresses_it_had() -> None:
    model = Model()
    network = model.add_network(NETWORK)
    model.set_container(CONTAINER)
    model.set_container({**CONTAINER, "endpoints": [{"network": "n1", "ipv4": "10.1.0.3"}]})
    assert list(network.endpoints) == [packed("10.1.0.3")]


def test_an_address_that_went_to_another_container_stays_with_it() -> None:
    model = Model()
    network = model.add_network(NETWORK)
    model.set_container(CONTAINER)
    other = model.set_container({**CONTAINER, "id": "c2"})
    model.remove_container("c1")
    assert network.endpoints[packed("10.1.0.2")].container is other


def test_a_network_told_anew_keeps_its_endpoints() -> None:
    model = Model()
    model.add_network(NETWORK)
    container = model.set_container(CONTAINER)
    network = model.add_network({**NETWORK, "name": "web2"})
    assert container.endpoints[0].network is network
    assert network.endpoints[packed("10.1.0.2")].container is container


def test_a_network_that_goes_takes_its_endpoints_along() -> None:
    model = Model()
    model.add_network(NETWORK)
    container = model.set_container(CONTAINER)
    model.remove_network("n1")
    assert container.endpoints == []
