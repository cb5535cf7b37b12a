"""Published ports on this machine's loopback, and what is said where they cannot be."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from slirp import ports
from slirp.errors import Conflict, InvalidInput, SlirpError
from slirp.ports import Binding, Port, Ports


@pytest.fixture
def opened() -> Iterator[Ports]:
    held = Ports()
    yield held
    for binding in list(held):
        held.close(binding)


def tcp(host_ip: str = "127.0.0.1", host_port: int = 0, protocol: str = "tcp") -> Port:
    return Port(protocol, host_ip, host_port, 80)


def free_port() -> int:
    """One that is free in both families, most likely."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::", 0))
        return int(sock.getsockname()[1])


def connects(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        return sock.connect_ex((address, port)) == 0


def test_it_listens_at_the_exact_address_and_nowhere_else(opened: Ports) -> None:
    [binding] = opened.open(tcp("127.0.0.2"))
    number = binding.port.host_port
    assert binding.sock.getsockname() == ("127.0.0.2", number)
    assert [connects(address, number) for address in ("127.0.0.2", "127.0.0.1", "::1")] == [True, False, False]


def test_no_address_is_both_families_with_one_number(opened: Ports) -> None:
    for protocol in ("tcp", "udp"):
        four, six = opened.open(tcp("", 0, protocol))
        assert (four.port.host_ip, six.port.host_ip) == ("0.0.0.0", "::")
        assert four.port.host_port == six.port.host_port > 0
        assert six.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_a_machine_without_ipv6_has_ipv4(opened: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ports._listening

    def without_ipv6(port: Port) -> socket.socket:
        if ":" in port.host_ip:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(port)

    monkeypatch.setattr(ports, "_listening", without_ipv6)
    assert [binding.port.host_ip for binding in opened.open(tcp(""))] == ["0.0.0.0"]
    with pytest.raises(SlirpError, match=r"Bind for \[::1\]:0 failed"):
        opened.open(tcp("::1"))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("second", ["", "0.0.0.0", "127.0.0.1"])
def test_a_port_of_ours_is_already_allocated(opened: Ports, protocol: str, second: str) -> None:
    number = opened.open(tcp("", 0, protocol))[0].port.host_port
    before = list(opened)
    with pytest.raises(Conflict) as told:
        opened.open(tcp(second, number, protocol))
    assert str(told.value) == f"Bind for {second or '0.0.0.0'}:{number} failed: port is already allocated"
    assert list(opened) == before


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_of_somebody_else_is_in_use(opened: Ports, protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            other.listen()
        number = other.getsockname()[1]
        for asked in ("127.0.0.1", "0.0.0.0", ""):
            with pytest.raises(Conflict, match=f":{number} failed: address already in use"):
                opened.open(tcp(asked, number, protocol))
    assert list(opened) == []


def test_taken_in_ipv6_alone_nothing_of_ipv4_is_left(opened: Ports) -> None:
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::", 0))
        other.listen()
        number = other.getsockname()[1]
        with pytest.raises(Conflict, match=rf"Bind for \[::\]:{number} failed"):
            opened.open(tcp("", number))
        assert not connects("127.0.0.1", number)


def test_two_protocols_and_two_addresses_share_a_number(opened: Ports) -> None:
    number = free_port()
    for host_ip, protocol in (("127.0.0.1", "tcp"), ("127.0.0.1", "udp"), ("127.0.0.2", "tcp"), ("::1", "tcp")):
        opened.open(tcp(host_ip, number, protocol))
    assert len(list(opened)) == 4


def test_a_port_is_free_again_at_once_though_its_connections_linger(opened: Ports) -> None:
    [binding] = opened.open(tcp())
    number = binding.port.host_port
    with ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(("127.0.0.1", number)))
        binding.sock.setblocking(True)
        accepted, _ = binding.sock.accept()
        accepted.close()  # the listener's side closes first, so TIME_WAIT is its own
        assert client.recv(1) == b""
    opened.close(binding)
    assert opened.open(tcp("127.0.0.1", number))[0].port.host_port == number


def test_closed_is_closed_for_a_process_that_has_the_socket_too(opened: Ports) -> None:
    [binding] = opened.open(tcp())
    with socket.socket(fileno=os.dup(binding.sock.fileno())):
        opened.close(binding)
        assert not connects("127.0.0.1", binding.port.host_port)
        assert opened.open(tcp("127.0.0.1", binding.port.host_port))


def test_an_address_that_the_machine_has_not_is_told(opened: Ports) -> None:
    with pytest.raises(InvalidInput, match=r"Bind for 192\.0\.2\.1:0 failed: cannot assign requested address"):
        opened.open(tcp("192.0.2.1"))


def test_a_root_s_port_comes_with_the_line_for_root(opened: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(port: Port) -> socket.socket:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(ports, "_listening", denied)
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        first = int(file.read())
    with pytest.raises(SlirpError, match=r"Bind for 0\.0\.0\.0:1 failed: permission denied") as told:
        opened.open(tcp("", 1))
    assert told.value.kind == "HostUnsupported"
    if first > 1:
        assert f"below {first}" in told.value.hint
        assert "sysctl net.ipv4.ip_unprivileged_port_start=1`" in told.value.hint


@pytest.mark.parametrize(
    "told",
    [
        {"protocol": "sctp", "container_port": 80},
        {"container_port": 0},
        {"container_port": 65536},
        {"container_port": True},
        {"container_port": "80"},
        {},
        {"container_port": 80, "host_port": -1},
        {"container_port": 80, "host_ip": "localhost"},
        {"container_port": 80, "host_ip": "::ffff:127.0.0.1"},
        {"container_port": 80, "host_ip": 5.5},
    ],
)
def test_a_port_that_cannot_be_is_refused(told: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        ports.parse(told)


def test_a_port_is_read_with_its_defaults() -> None:
    assert ports.parse({"container_port": 80}) == Port("tcp", "", 0, 80)
    assert ports.parse({"container_port": 53, "protocol": "udp", "host_ip": "[::1]", "host_port": 53}) == Port(
        *("udp", "::1", 53, 53)
    )


def test_what_a_request_means_by_a_port() -> None:
    actual = Port("tcp", "127.0.0.1", 8080, 80)
    meant = [Port("tcp", "", 0, 80), Port("tcp", "127.0.0.1", 0, 80), Port("tcp", "", 8080, 80), actual]
    others = [Port("udp", "", 0, 80), Port("tcp", "", 0, 81), Port("tcp", "::", 0, 80), Port("tcp", "", 8081, 80)]
    assert [port.means(actual) for port in meant + others] == [True] * 4 + [False] * 4


def handles(bindings: list[Binding]) -> list[int]:
    return [binding.handle for binding in bindings]


def test_every_binding_has_a_handle_of_its_own(opened: Ports) -> None:
    first, second = opened.open(tcp()), opened.open(tcp())
    opened.close(first[0])
    third = opened.open(tcp())
    assert len({*handles(first), *handles(second), *handles(third)}) == 3
