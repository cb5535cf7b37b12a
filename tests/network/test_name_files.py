"""/etc/hosts and /etc/resolv.conf of a container, and which of the machine's addresses it may call the host."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.network import name_files
from rootless.network.name_files import (
    Resolver,
    first_local,
    gateway_resolv_conf,
    hosts,
    parse_resolv_conf,
    resolv_conf,
)

LOCAL = hosts("x", "", (), "none").splitlines()[:-1]


def own(text: str) -> list[str]:
    """What a hosts file has besides the lines that all have."""
    lines = text.splitlines()
    assert lines[: len(LOCAL)] == LOCAL
    return lines[len(LOCAL) :]


def test_a_container_is_in_its_hosts_file_by_every_address() -> None:
    assert own(hosts("web", "", (), "bridge", ("172.17.0.2", "fd00::2"))) == ["172.17.0.2\tweb", "fd00::2\tweb"]
    assert own(hosts("web", "example", (), "net", ("172.18.0.2",))) == ["172.18.0.2\tweb.example web"]
    assert own(hosts("web", "", (), "none")) == ["127.0.1.1\tweb"]


def test_added_hosts_come_first_and_host_gateway_is_the_machine() -> None:
    extra = (("db", "192.0.2.1"), ("host", "host-gateway"))
    assert own(hosts("web", "", extra, "bridge", ("172.17.0.2",), gateway="192.0.2.9")) == [
        "192.0.2.1\tdb",
        "192.0.2.9\thost",
        "172.17.0.2\tweb",
    ]


def test_the_hosts_loopback_has_names_unless_they_mean_something_else() -> None:
    extra = (("host.docker.internal", "192.0.2.1"),)
    assert own(hosts("web", "", extra, "bridge", ("172.17.0.2",), host_loopback=True)) == [
        "192.0.2.1\thost.docker.internal",
        "169.254.1.2\thost.containers.internal",
        "172.17.0.2\tweb",
    ]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["nameserver 192.0.2.53", "search corp.example lab.example", "options edns0", "options timeout:1", "# x"]
    monkeypatch.setattr(name_files, "_host_resolver_lines", lambda: lines)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("asked", "names", "direct", "lines"),
    [
        (
            Resolver(),
            False,
            True,
            ["nameserver 172.17.0.1", "search corp.example lab.example", "options edns0 timeout:1"],
        ),
        (
            Resolver(),
            True,
            False,
            ["nameserver 172.17.0.1", "search corp.example lab.example", "options edns0 timeout:1 ndots:0"],
        ),
        (
            Resolver(("192.0.2.1", "192.0.2.2"), ("a.example",), ("ndots:2",)),
            False,
            True,
            ["nameserver 192.0.2.1", "nameserver 192.0.2.2", "search a.example", "options ndots:2"],
        ),
        (
            Resolver(("192.0.2.1",), ("a.example",), ("ndots:2",)),
            True,
            False,
            ["nameserver 172.17.0.1", "search a.example", "options ndots:2"],
        ),
        (Resolver((), (".",), ("rotate",)), False, True, ["nameserver 172.17.0.1", "options rotate"]),
    ],
    ids=["default", "user-defined", "dns on the default", "dns on a user-defined", "no search"],
)
def test_who_is_asked_for_names(asked: Resolver, names: bool, direct: bool, lines: list[str]) -> None:
    assert gateway_resolv_conf(asked, ["172.17.0.1"], names=names, direct=direct).splitlines() == lines


@pytest.mark.usefixtures("host")
def test_without_networks_of_ours_the_hosts_file_holds_or_nothing() -> None:
    assert resolv_conf(Resolver(), "none") == ""
    assert resolv_conf(Resolver(), "host").splitlines()[:2] == [
        "nameserver 192.0.2.53",
        "search corp.example lab.example",
    ]
    assert resolv_conf(Resolver((), ("a.example",)), "host").splitlines()[-1] == "search a.example"
    assert "corp" not in resolv_conf(Resolver((), ("a.example",)), "host")
    assert resolv_conf(Resolver(("192.0.2.1",)), "host") == "nameserver 192.0.2.1\n"


@given(st.lists(st.text(max_size=40), max_size=10))
def test_any_resolv_conf_can_be_read(lines: list[str]) -> None:
    found = parse_resolv_conf(lines)
    assert all(word and not word.isspace() for part in found for word in part)


TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
     +-- 169.254.0.0/16 2 0 2
           |-- 169.254.7.7
              /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
           |-- 192.0.2.0
              /24 link UNICAST
           |-- 192.0.2.2
              /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
"""


def test_the_first_address_of_the_machine_that_others_can_reach() -> None:
    assert first_local(TRIE.splitlines(keepends=True)) == "192.0.2.2"
    assert first_local(TRIE.replace("192.0.2.2", "127.0.0.2").splitlines()) == ""
    assert first_local([]) == ""


@pytest.mark.skipif(not Path("/proc/net/fib_trie").exists(), reason="this machine hides its addresses")
def test_the_address_is_one_of_this_machine() -> None:
    found = name_files.host_address()
    assert found == "" or found in Path("/proc/net/fib_trie").read_text()
