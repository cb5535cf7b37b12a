"""Much, many, slowly, and after a while: whole transfers, crowds of connections, readers that do not read, silence."""

import hashlib
import json
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import peer
from tests.support.account import wait_until
from tests.support.clients import HOST, Site, own_address, run
from tests.support.network_servers import serving
from tests.support.webserver import WebServer

pytestmark = pytest.mark.kernel

CROWD = 1000
MIBS = 64  # that a reader who does not read is offered
MOST_UNDER_WAY = 40  # MiB of them that may be somewhere between: the buffers of four sockets and what slirp keeps


@pytest.fixture(params=["loopback", "own address"])
def here(request: pytest.FixtureRequest) -> str:
    """This machine, as clients of published ports may call it: they do not take the same way."""
    return "127.0.0.1" if request.param == "loopback" else own_address(socket.AF_INET)


# --- much


@pytest.fixture(scope="session")
def digest(shared: Path) -> str:
    """The SHA-256 of `big`."""
    with (shared / "big").open("rb") as file:
        seen = hashlib.sha256()
        while data := file.read(1 << 20):
            seen.update(data)
    return seen.hexdigest()


def test_a_large_transfer_arrives_whole_from_the_host_and_at_it(site: Site, web: WebServer, digest: str) -> None:
    down = f"curl -sS {web.url('big', HOST)} | sha256sum"
    assert site.says("sh", "-c", down, timeout=300).split()[0] == digest
    up = ("curl", "-sS", "-T", "/shared/big", web.url("hash", HOST))
    assert site.says(*up, timeout=300) == digest


def test_a_large_transfer_arrives_whole_both_ways_at_once(site: Site, web: WebServer, digest: str) -> None:
    script = f"curl -sS -T /shared/big {web.url('hash', HOST)} & curl -sS {web.url('big', HOST)} | sha256sum; wait"
    said = site.says("sh", "-c", script, timeout=300).split()
    assert [word for word in said if word != "-"] == [digest, digest]


def test_a_large_transfer_arrives_whole_through_published_ports(
    site: Site, shared: Path, digest: str, here: str
) -> None:
    down = f"curl -sS http://{here}:{site.published['8000/tcp']}/big | sha256sum"
    assert run("sh", "-c", down, timeout=300).split()[0] == digest
    up = f"nc -N {here} {site.published['7001/tcp']} < {shared}/big"
    assert run("sh", "-c", up, timeout=300) == digest


def test_a_large_transfer_arrives_whole_in_another_container(site: Site, digest: str) -> None:
    assert site.says("sh", "-c", "curl -sS http://server:8000/big | sha256sum", timeout=300).split()[0] == digest
    assert site.says("sh", "-c", "nc -N server 7001 < /shared/big", timeout=300) == digest


# --- many


def test_a_thousand_connections_are_open_at_once(site: Site, services: int) -> None:
    assert site.peer("crowd", HOST, services, CROWD) == str(CROWD)


def test_a_thousand_connections_to_a_published_port_are_open_at_once(site: Site, here: str) -> None:
    words = ("python3", peer.__file__, "crowd", here, str(site.published["7000/tcp"]), str(CROWD))
    assert run(*words) == str(CROWD)


def test_a_thousand_short_connections_one_after_the_other(site: Site, services: int) -> None:
    script = (
        f"import socket\nfor _ in range({CROWD}):\n    with socket.create_connection(('{HOST}', {services})) as s:\n"
    )
    script += "        s.sendall(b'x'); assert s.recv(9) == b'x'\nprint('done')"
    assert site.says("python3", "-c", script) == "done"


# --- slowly


def test_who_does_not_read_holds_up_nobody_but_who_writes_to_it(site: Site, web: WebServer) -> None:
    written: list[int] = []

    def serve(connection: socket.socket, peer_name: Any) -> None:
        for block in peer.blocks(MIBS):
            connection.sendall(block)
            written.append(len(block))

    listener = socket.create_server(("127.0.0.1", 0))
    with serving(listener, serve), site.start_peer("read", HOST, listener.getsockname()[1]) as reader:
        assert said(reader) == "connected"
        assert wait_until(lambda: stands_still(written))
        assert len(written) < MOST_UNDER_WAY
        assert site.says("curl", "-sS", web.url("chunked/1", HOST)) == "line 0"
        assert tell(reader) == digest_of(MIBS)
    assert len(written) == MIBS


def test_a_server_that_does_not_read_holds_up_nobody_but_who_writes_to_it(site: Site, web: WebServer) -> None:
    heard: list[str] = []
    go_read, go = socket.socketpair()

    def serve(connection: socket.socket, peer_name: Any) -> None:
        go_read.recv(1)
        seen = hashlib.sha256()
        while data := connection.recv(1 << 18):
            seen.update(data)
        heard.append(seen.hexdigest())
        connection.sendall(b"heard it\n")

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with go_read, go, serving(listener, serve), site.start_peer("write", HOST, port, MIBS) as writer:
        assert last_before_a_pause(writer) < MOST_UNDER_WAY
        assert site.says("curl", "-sS", web.url("chunked/1", HOST)) == "line 0"
        go.send(b".")
        rest, _ = writer.communicate(timeout=60)
    assert rest.split()[-2:] == [b"heard", b"it"]
    assert heard == [digest_of(MIBS)]


def stands_still(written: list[int], seconds: float = 0.3) -> bool:
    """Whether there is something and it does not become more."""
    before = len(written)
    time.sleep(seconds)
    return 0 < before == len(written)


def last_before_a_pause(writer: "subprocess.Popen[bytes]", seconds: float = 0.5) -> int:
    """The last number that it prints before it says nothing for a while."""
    assert writer.stdout
    last = said(writer)
    while select.select([writer.stdout], [], [], seconds)[0]:
        last = said(writer)
    return int(last)


def said(running: "subprocess.Popen[bytes]") -> str:
    assert running.stdout
    return running.stdout.readline().decode().strip()


def tell(running: "subprocess.Popen[bytes]") -> str:
    """What it says after a line from us, until it ends."""
    output, _ = running.communicate(b"\n", timeout=60)
    return output.decode().strip()


def digest_of(mibs: int) -> str:
    seen = hashlib.sha256()
    for block in peer.blocks(mibs):
        seen.update(block)
    return seen.hexdigest()


def test_slow_transfers_arrive_whole(site: Site, web: WebServer, shared: Path) -> None:
    (shared / "slow").write_bytes((shared / "big").read_bytes()[: 3 << 20])
    digest = run("sha256sum", str(shared / "slow")).split()[0]
    script = f"curl -sS --limit-rate 2M {web.url('slow', HOST)} | sha256sum & "
    script += f"curl -sS --limit-rate 2M -T /shared/slow {web.url('hash', HOST)} & wait"
    assert [word for word in site.says("sh", "-c", script).split() if word != "-"] == [digest, digest]


def test_single_bytes_arrive_one_after_the_other(site: Site, services: int) -> None:
    script = f"import socket, time\ns = socket.create_connection(('{HOST}', {services}))\n"
    script += "for n in range(250):\n    s.sendall(bytes([n])); assert s.recv(9) == bytes([n])\n"
    script += "for n in range(250):\n    s.sendall(bytes([n])); time.sleep(0.002)\n"
    script += "s.shutdown(socket.SHUT_WR)\nassert s.makefile('rb').read() == bytes(range(250))\nprint('done')"
    assert site.says("python3", "-c", script) == "done"


# --- after a while


def test_connections_and_flows_that_were_silent_are_still_there(site: Site, services: int) -> None:
    silence = 3
    with (
        site.start_peer("idle", HOST, services, silence) as out,
        site.start_peer("idle", "server", 7000, silence) as near,
    ):
        ports = site.published["7000/tcp"], site.published["7000/udp"]
        assert echoed_after(silence, *ports)
        for running in (out, near):
            assert running.communicate(timeout=60)[0].split() == [b"before", b"before", b"after", b"after"]


def echoed_after(seconds: float, tcp: int, udp: int) -> bool:
    with (
        socket.create_connection(("127.0.0.1", tcp), 10) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.settimeout(10)
        datagrams.connect(("127.0.0.1", udp))
        for text in (b"before", b"after"):
            for sock in (stream, datagrams):
                sock.sendall(text)
                assert sock.recv(100) == text
            if text == b"before":
                time.sleep(seconds)
    return True


# --- datagrams


def test_datagrams_of_all_sizes_are_answered(site: Site, services: int) -> None:
    sizes = (0, 1, 1472, 1473, 9000, 60_000, 65_000)
    for host, port in ((HOST, services), ("server", 7000)):
        assert site.peer("udp", host, port, *sizes).split() == [str(size) for size in sizes]
    out = run("python3", peer.__file__, "udp", "127.0.0.1", str(site.published["7000/udp"]), *map(str, sizes))
    assert out.split() == [str(size) for size in sizes]


# --- who calls


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_published_port_is_called_by_the_client_s_real_address(site: Site, family: socket.AddressFamily) -> None:
    address = own_address(family)
    if family == socket.AF_INET6 and len(site.addresses("server")) < 2:
        pytest.skip("containers have no IPv6 here")
    with socket.create_connection((address, site.published["7002/tcp"]), 10) as stream:
        own, told = stream.getsockname(), json.loads(stream.makefile().read())
    assert told == [own[0], own[1]] == [address, own[1]]
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((address, site.published["7002/udp"]))
        for _ in range(3):  # a flow's first datagrams take another way than those after them
            sock.send(b"?")
            assert json.loads(sock.recv(200)) == [address, sock.getsockname()[1]]


def test_a_client_on_loopback_appears_as_the_gateway(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.published["7002/tcp"]), 10) as stream:
        assert json.loads(stream.makefile().read())[0] == site.gateways()[0]
