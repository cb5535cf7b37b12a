"""-p and --expose, against Docker's rules and words; how `ps` and `port` print what is published."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import InvalidInput
from rootless.network.ports import (
    Port,
    all_exposed,
    from_record,
    lines,
    parse_expose,
    parse_private,
    parse_publish,
    places,
    port_map,
    shown,
)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port(80)]),
        ("80/tcp", [Port(80)]),
        ("80/TCP", [Port(80)]),
        ("80/", [Port(80)]),
        ("53/udp", [Port(53, "udp")]),
        (":80", [Port(80)]),
        ("::80", [Port(80)]),
        ("8080:80", [Port(80, "tcp", "", 8080)]),
        ("0:80", [Port(80)]),
        ("127.0.0.1:8080:80", [Port(80, "tcp", "127.0.0.1", 8080)]),
        ("127.0.0.1::80", [Port(80, "tcp", "127.0.0.1")]),
        ("127.0.0.1::80/udp", [Port(80, "udp", "127.0.0.1")]),
        ("[::1]:8080:80", [Port(80, "tcp", "::1", 8080)]),
        ("[::1]::80", [Port(80, "tcp", "::1")]),
        ("::1:8080:80", [Port(80, "tcp", "::1", 8080)]),
        ("2001:db8::1:8080:80/udp", [Port(80, "udp", "2001:db8::1", 8080)]),
        ("[0:0:0:0:0:0:0:1]:1:2", [Port(2, "tcp", "::1", 1)]),
        ("[::ffff:127.0.0.1]:1:2", [Port(2, "tcp", "127.0.0.1", 1)]),
        ("7000-7002", [Port(7000), Port(7001), Port(7002)]),
        ("8000-8001:9000-9001", [Port(9000, "tcp", "", 8000), Port(9001, "tcp", "", 8001)]),
        ("10.0.0.1::53-54/udp", [Port(53, "udp", "10.0.0.1"), Port(54, "udp", "10.0.0.1")]),
        ("8000-8010:80", [Port(80, "tcp", "", 8000, 8010)]),
        ("8000-8000:80", [Port(80, "tcp", "", 8000)]),
        ("published=8080,target=80,protocol=udp", [Port(80, "udp", "", 8080)]),
        ("target=80", [Port(80)]),
    ],
)
def test_every_form_of_publishing_is_read(text: str, ports: list[Port]) -> None:
    assert parse_publish(text) == ports


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no port specified: <empty>"),
        ("8080:", "no port specified: 8080:<empty>"),
        ("8080:/tcp", "no port specified: 8080:/tcp<empty>"),
        ("http", "invalid containerPort: http"),
        ("0", "invalid containerPort: 0"),
        ("65536", "invalid containerPort: 65536"),
        ("-1", "invalid containerPort: -1"),
        ("80-", "invalid containerPort: 80-"),
        ("90-80", "invalid containerPort: 90-80"),
        ("\N{FULLWIDTH DIGIT EIGHT}", "invalid containerPort: \N{FULLWIDTH DIGIT EIGHT}"),
        ("x:80", "invalid hostPort: x"),
        ("65536:80", "invalid hostPort: 65536"),
        ("8000-8002:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000-8002"),
        ("8000:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000"),
        ("80/icmp", "invalid proto: icmp"),
        ("80/tcp/udp", "invalid proto: tcp/udp"),
        ("80/sctp", "sctp cannot be published without root: tcp and udp can"),
        ("localhost:80:80", "invalid IP address: localhost"),
        ("127.0.0.256:80:80", "invalid IP address: 127.0.0.256"),
        ("127.0.0.01:80:80", "invalid IP address: 127.0.0.01"),
        ("[127.0.0.1]:80:80", "invalid IP address: [127.0.0.1]"),
        ("[::1:80:80", "invalid IP address: [::1"),
        ("[fe80::1%eth0]:80:80", "invalid IP address: fe80::1%eth0"),
        ("1-65535", "too many ports: 1-65535 has 65535, and 1024 can be published at once"),
        ("target=80,8080", "invalid publish opts format (should be name=value but got '8080')"),
    ],
)
def test_what_cannot_be_published_is_told_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_publish(text)
    assert str(refused.value) == message


@given(st.text(st.sampled_from("0123456789:-/.[]=,tcpud\0\x80"), max_size=30))
def test_any_text_is_ports_that_can_be_or_an_error(text: str) -> None:
    try:
        ports = parse_publish(text)
    except InvalidInput:
        return
    assert 0 < len(ports) <= 1024
    for port in ports:
        assert 0 < port.container_port <= 65535
        assert 0 <= port.host_port <= 65535
        assert port.host_port_last == 0 or port.host_port < port.host_port_last <= 65535
        assert from_record(port.asked()) == port


@pytest.mark.parametrize(
    ("text", "names"),
    [("80", ["80/tcp"]), ("53/udp", ["53/udp"]), ("80-82/tcp", ["80/tcp", "81/tcp", "82/tcp"])],
)
def test_exposed_ports_are_read(text: str, names: list[str]) -> None:
    assert parse_expose(text) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("80:80", "invalid port format for --expose: 80:80"),
        ("x", "invalid range format for --expose: x"),
        ("", "invalid range format for --expose: "),
        ("0", "invalid range format for --expose: 0"),
        ("1-65535", "invalid range format for --expose: 1-65535"),
        ("80/icmp", "invalid proto: icmp"),
    ],
)
def test_what_cannot_be_exposed_is_told(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_expose(text)
    assert str(refused.value) == message


def test_publishing_all_adds_what_is_exposed_and_not_published_yet() -> None:
    published = [Port(80, "tcp", "127.0.0.1", 8080)]
    assert all_exposed(["80/tcp", "80/udp", "443", "90-91/tcp", "443/tcp"], published) == [
        Port(80, "udp"),
        Port(443),
        Port(90),
        Port(91),
    ]


def published(*texts: str) -> list[dict[str, Any]]:
    """What slirp answers for "IP HOST CONTAINER/PROTOCOL"."""
    answers = []
    for text in texts:
        host_ip, host, container = text.split()
        number, protocol = container.split("/")
        answers.append(
            {"protocol": protocol, "host_ip": host_ip, "host_port": int(host), "container_port": int(number)}
        )
    return answers


@pytest.mark.parametrize(
    ("ports", "exposed", "cell"),
    [
        ([], [], ""),
        ([], ["80/tcp"], "80/tcp"),
        ([], ["443/tcp", "80/tcp", "81/tcp", "53/udp"], "80-81/tcp, 53/udp, 443/tcp"),
        (["0.0.0.0 8080 80/tcp", ":: 8080 80/tcp"], [], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        (["0.0.0.0 80 80/tcp", ":: 80 80/tcp"], ["80/tcp"], "0.0.0.0:80->80/tcp, [::]:80->80/tcp"),
        (
            [f"{ip} {n} {n}/tcp" for ip in ("0.0.0.0", "::") for n in range(8000, 8011)],
            [],
            "0.0.0.0:8000-8010->8000-8010/tcp, [::]:8000-8010->8000-8010/tcp",
        ),
        (
            ["127.0.0.1 8001 80/tcp", "127.0.0.1 8000 80/tcp", "127.0.0.1 53 53/udp", "127.0.0.1 53 53/tcp"],
            ["9/tcp"],
            "9/tcp, 127.0.0.1:53->53/tcp, 127.0.0.1:53->53/udp, 127.0.0.1:8000->80/tcp, 127.0.0.1:8001->80/tcp",
        ),
        (["10.0.0.1 1 1/tcp", "10.0.0.1 3 3/tcp"], [], "10.0.0.1:1->1/tcp, 10.0.0.1:3->3/tcp"),
    ],
)
def test_ps_prints_ports_as_docker_does(ports: list[str], exposed: list[str], cell: str) -> None:
    assert shown(published(*ports), exposed) == cell


def test_documents_name_each_port_with_where_it_is() -> None:
    answered = published("0.0.0.0 32768 80/tcp", ":: 32768 80/tcp", "127.0.0.1 53 53/udp")
    assert port_map(answered, ["443/tcp", "80/tcp"]) == {
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}, {"HostIp": "::", "HostPort": "32768"}],
        "443/tcp": None,
    }
    assert list(port_map(answered, ["443/tcp"])) == ["53/udp", "80/tcp", "443/tcp"]


def test_documents_show_what_was_asked() -> None:
    asked = [port.asked() for text in ("80", "127.0.0.1:1:81", "8000-8010:82") for port in parse_publish(text)]
    assert port_map(asked) == {
        "80/tcp": [{"HostIp": "", "HostPort": ""}],
        "81/tcp": [{"HostIp": "127.0.0.1", "HostPort": "1"}],
        "82/tcp": [{"HostIp": "", "HostPort": "8000-8010"}],
    }


def test_port_lists_by_the_numbers() -> None:
    document = port_map(published("0.0.0.0 32770 443/tcp", ":: 9 80/tcp", "0.0.0.0 9 80/tcp"), ["22/tcp"])
    assert places(document["80/tcp"]) == ["0.0.0.0:9", "[::]:9"]
    assert places(document["22/tcp"]) == []
    assert lines(document) == ["80/tcp -> 0.0.0.0:9", "80/tcp -> [::]:9", "443/tcp -> 0.0.0.0:32770"]


@pytest.mark.parametrize(("text", "name"), [("80", "80/tcp"), ("53/udp", "53/udp"), ("080", "80/tcp")])
def test_a_private_port_is_tcp_unless_it_says_otherwise(text: str, name: str) -> None:
    assert parse_private(text) == name


@pytest.mark.parametrize("text", ["", "http", "65536", "-1"])
def test_a_private_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"Error: invalid port \("):
        parse_private(text)
