"""Who is called what, for whom."""

from typing import Any

import pytest

from slirp.model import HOST_LOOPBACK, Container, Model, packed
from slirp.names import Found, look_up
from slirp.wire.dns import AAAA, PTR, A

NOBODY = Found(False)


def network(model: Model, name: str, subnet: str, **told: Any) -> None:
    model.add_network(
        {"id": name * 4, "name": name, "subnet4": f"{subnet}.0/24", "gateway4": f"{subnet}.1", "names": True} | told
    )


def container(model: Model, name: str, endpoints: list[dict[str, Any]], **told: Any) -> Container:
    return model.set_container({"id": identity(name), "name": name, "endpoints": endpoints} | told)


def identity(name: str) -> str:
    return name.encode().hex().ljust(64, "0")[:64]


def on(name: str, address: str, **told: Any) -> dict[str, Any]:
    return {"network": name * 4, "ipv4": address} | told


@pytest.fixture
def model() -> Model:
    """Networks `back` and `front` with names, `bridge` without."""
    model = Model()
    network(model, "back", "10.1.0")
    network(model, "front", "10.2.0")
    network(model, "bridge", "172.17.0", names=False)
    return model


def addresses(model: Model, asker: Container, name: str) -> list[str]:
    found = look_up(model, asker, name, A)
    return [".".join(map(str, address)) for address in found.addresses] if found else []


def test_a_peer_is_known_by_name_alias_id_and_host_name(model: Model) -> None:
    web = container(model, "web", [on("back", "10.1.0.2")])
    container(model, "db", [on("back", "10.1.0.3", aliases=["postgres"])], hostname="pg.example.org")
    for name in (
        "db",
        "postgres",
        identity("db"),
        identity("db")[:12],
        "pg.example.org",
        "db.back",
        "POSTGRES.Back",
        "db.",
    ):
        assert addresses(model, web, name) == ["10.1.0.3"], name
    assert addresses(model, web, "web") == ["10.1.0.2"]


def test_what_nobody_is_called_is_for_others_to_say(model: Model) -> None:
    web = container(model, "web", [on("back", "10.1.0.2")])
    for name in ("db", "example.org", "web.front", "back", "", identity("web")[:11]):
        assert look_up(model, web, name, A) is None


def test_only_peers_on_a_common_network_are_known(model: Model) -> None:
    web = container(model, "web", [on("front", "10.2.0.2")])
    container(model, "db", [on("back", "10.1.0.3")])
    assert look_up(model, web, "db", A) is None
    assert look_up(model, web, "db.back", A) is None
    assert look_up(model, web, "3.0.1.10.in-addr.arpa", PTR) is None


def test_several_with_one_alias_are_all_told(model: Model) -> None:
    web = container(model, "web", [on("back", "10.1.0.2")])
    container(model, "db1", [on("back", "10.1.0.3", aliases=["db"])])
    container(model, "db2", [on("back", "10.1.0.4", aliases=["db"])])
    assert addresses(model, web, "db") == ["10.1.0.3", "10.1.0.4"]


def test_the_network_of_the_way_out_has_the_first_say(model: Model) -> None:
    web = container(model, "web", [on("back", "10.1.0.2"), on("front", "10.2.0.2", default=True)])
    container(model, "db1", [on("back", "10.1.0.3", aliases=["db"])])
    container(model, "db2", [on("front", "10.2.0.3", aliases=["db"])])
    assert addresses(model, web, "db") == ["10.2.0.3"]
    assert addresses(model, web, "db.back") == ["10.1.0.3"]


def test_a_name_with_dots_may_end_in_a_network(model: Model) -> None:
    web = container(model, "web", [on("back", "10.1.0.2")])
    container(model, "my.db", [on("back", "10.1.0.3")])
    assert addresses(model, web, "my.db") == addresses(model, web, "my.db.back") == ["10.1.0.3"]


def test_both_kinds_of_address_are_found(model: Model) -> None:
    web = container(model, "web", [on("back", "10.1.0.2")])
    container(model, "db", [on("back", "10.1.0.3", ipv6="fd00::3")])
    assert look_up(model, web, "db", AAAA) == Found(True, (packed("10.1.0.3"), packed("fd00::3")))


def test_a_peer_that_leaves_or_is_renamed_is_so_at_once(model: Model) -> None:
    web = container(model, "web", [on("back", "10.1.0.2")])
    container(model, "db", [on("back", "10.1.0.3")])
    assert addresses(model, web, "db") == ["10.1.0.3"]
    model.set_container({"id": identity("db"), "name": "sql", "endpoints": [on("back", "10.1.0.3")]})
    assert look_up(model, web, "db", A) is None
    assert addresses(model, web, "sql") == ["10.1.0.3"]
    model.remove_container(identity("db"))
    assert look_up(model, web, "sql", A) is None


def test_the_default_network_has_no_names_but_links(model: Model) -> None:
    container(model, "db", [on("bridge", "172.17.0.3", aliases=["pg"])], hostname="sql")
    stranger = container(model, "stranger", [on("bridge", "172.17.0.4")])
    web = container(model, "web", [on("bridge", "172.17.0.2")], links=[[identity("db"), "database"]])
    for name in ("database", "db", "sql", identity("db")[:12]):
        assert addresses(model, web, name) == ["172.17.0.3"], name
        assert look_up(model, stranger, name, A) is None
    assert look_up(model, web, "web", A) is None


def test_a_link_comes_before_a_name_and_only_where_both_are(model: Model) -> None:
    container(model, "db", [on("back", "10.1.0.3"), on("front", "10.2.0.3")])
    container(model, "other", [on("back", "10.1.0.4", aliases=["sql"])])
    web = container(model, "web", [on("back", "10.1.0.2")], links=[[identity("db"), "sql"]])
    assert addresses(model, web, "sql") == ["10.1.0.3"]
    model.set_container({"id": identity("db"), "name": "db", "endpoints": [on("front", "10.2.0.3")]})
    assert addresses(model, web, "sql") == ["10.1.0.4"]


def test_a_link_to_a_container_that_is_gone_is_nobody(model: Model) -> None:
    web = container(model, "web", [on("bridge", "172.17.0.2")], links=[[identity("db"), "db"]])
    assert look_up(model, web, "db", A) is None


def test_an_address_leads_back_to_the_name_on_its_network(model: Model) -> None:
    web = container(model, "web", [on("back", "10.1.0.2")])
    container(model, "db", [on("back", "10.1.0.3", ipv6="fd00::3")])
    found = look_up(model, web, "3.0.1.10.in-addr.arpa", PTR)
    assert found is not None
    assert found.names[0] == "db.back"
    found = look_up(model, web, "3." + "0." * 27 + "0.0.d.f.ip6.arpa", PTR)
    assert found is not None
    assert found.names[0] == "db.back"


def test_addresses_of_own_networks_are_asked_of_nobody_else(model: Model) -> None:
    web = container(model, "web", [on("back", "10.1.0.2"), on("bridge", "172.17.0.2")])
    container(model, "db", [on("bridge", "172.17.0.3")])
    assert look_up(model, web, "9.0.1.10.in-addr.arpa", PTR) == NOBODY
    assert look_up(model, web, "3.0.17.172.in-addr.arpa", PTR) == NOBODY
    assert look_up(model, web, "8.8.8.8.in-addr.arpa", PTR) is None


def test_the_host_has_names_for_those_who_may_reach_it(model: Model) -> None:
    web = container(model, "web", [on("back", "10.1.0.2")])
    admin = container(model, "admin", [on("back", "10.1.0.3")], host_loopback=True)
    for name in ("host.docker.internal", "host.containers.internal", "HOST.docker.internal"):
        assert look_up(model, web, name, A) == NOBODY
        assert look_up(model, admin, name, A) == Found(True, (HOST_LOOPBACK,))
    assert look_up(model, web, "2.1.254.169.in-addr.arpa", PTR) == NOBODY
    assert look_up(model, admin, "2.1.254.169.in-addr.arpa", PTR) is not None
