"""Programs that people use, in a container: what they talk to is on the host's loopback, or in another container."""

import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import clients
from tests.support.account import wait_until
from tests.support.clients import HOST, Site, run
from tests.support.debian import NoDebian, sources
from tests.support.network_servers import abort, answering, serving
from tests.support.registry import make_certificates
from tests.support.webserver import WebServer

pytestmark = pytest.mark.kernel

GIT = ("git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
NUMBERS = "".join(f"{number}\n" for number in range(1, 100_001))


@pytest.fixture(scope="session")
def certificates(shared: Path) -> Path:
    """A CA of our own and a certificate for localhost by it."""
    directory = shared / "certificates"
    directory.mkdir()
    make_certificates(directory)
    return directory


@pytest.fixture(scope="session")
def repository(shared: Path) -> Path:
    """A git repository with 200 files and one of some megabytes, that takes pushes."""
    work = shared / "work"
    work.mkdir()
    for number in range(200):
        (work / f"file{number}").write_text(f"{number}\n" * number)
    (work / "large").write_bytes((shared / "big").read_bytes()[: 5 << 20])
    for words in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "all")):
        run(*GIT, "-C", str(work), *words)
    run("git", "clone", "-q", "--bare", str(work), str(shared / "project.git"))
    run("git", "-C", str(shared / "project.git"), "config", "http.receivepack", "true")
    return shared / "project.git"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PostgreSQL cluster, not running."""
    directory = tmp_path_factory.mktemp("postgres") / "data"
    clients.make_cluster(directory)
    return directory


# --- curl


def test_curl_uses_one_connection_for_several_requests(site: Site, web: WebServer) -> None:
    (web.directory / "small").write_text("hello\n")
    paths = ("small", "chunked/1000", "small", "missing")
    said = site.says("curl", "-sS", "-w", "%{http_code} %{http_version}\n", *(web.url(path, HOST) for path in paths))
    lines = "".join(f"line {number}\n" for number in range(1000))
    assert f"{said}\n" == f"hello\n200 1.1\n{lines}200 1.1\nhello\n200 1.1\nno such file\n404 1.1\n"
    assert web.connections == 1


def test_curl_sends_bodies_of_both_kinds(site: Site, web: WebServer) -> None:
    url = web.url("hash", HOST)
    said = site.says("sh", "-c", f"sha256sum /etc/services; curl -sS -T /etc/services {url}; cat /etc/services |"
                     f"curl -sS -H 'Expect: 100-continue' -T - {url}")  # fmt: skip
    expected, *sent = (line.split()[0] for line in said.splitlines())
    assert sent == [expected, expected]


def test_curl_believes_a_certificate_of_a_ca_that_it_knows_and_no_other(
    site: Site, shared: Path, certificates: Path
) -> None:
    (shared / "small").write_text("hello\n")
    with clients.web(shared, certificates) as web:
        ways = ("curl", "-sS", "--connect-to", f"localhost:{web.port}:{HOST}:{web.port}", web.url("small", "localhost"))
        assert site.says(*ways, "--cacert", "/shared/certificates/ca.crt") == "hello"
        assert site.client(*ways, check=False).returncode == 60
        big = site.says("sh", "-c", f"curl -sS -k {web.url('big', HOST)} | head -c 20000000 | sha256sum")
    assert big == run("sh", "-c", f"head -c 20000000 {shared}/big | sha256sum")


def test_curl_tells_a_refused_connection_at_once(site: Site) -> None:
    assert site.client("curl", "-sS", f"http://{HOST}:1/", check=False, timeout=5).returncode == 7


@pytest.mark.parametrize("end, status", [(abort, 56), (socket.socket.close, 18)], ids=["reset", "end"])
def test_curl_tells_how_a_transfer_was_broken_off(
    site: Site, end: Callable[[socket.socket], None], status: int
) -> None:
    go = threading.Event()

    def serve(connection: socket.socket, peer: Any) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
        go.wait(20)
        end(connection)

    listener = socket.create_server(("127.0.0.1", 0))
    with serving(listener, serve):
        words = ("curl", "-sSN", f"http://{HOST}:{listener.getsockname()[1]}")
        with site.installed.start("exec", "client", *words) as curl:
            assert curl.stdout
            assert len(curl.stdout.read(1000)) == 1000  # it is under way
            go.set()
            curl.communicate(timeout=10)
    assert curl.returncode == status


def test_a_server_learns_that_curl_was_killed(site: Site) -> None:
    ends: list[str] = []

    def serve(connection: socket.socket, peer: Any) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                connection.sendall(bytes(1 << 16))
        except ConnectionError as error:
            ends.append(type(error).__name__)

    listener = socket.create_server(("127.0.0.1", 0))
    with serving(listener, serve):
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        done = site.client("sh", "-c", f"timeout -s KILL 0.3 curl -sS -o /dev/null {url}", check=False)
        assert done.returncode == 137
        assert wait_until(lambda: bool(ends), 5)


def test_curl_gets_through_to_the_machine_s_own_address(site: Site) -> None:
    address = clients.own_address(socket.AF_INET)
    with clients.host_services(address) as port:
        [seen, _] = json.loads(site.says("curl", "-sS", "--http0.9", f"telnet://{address}:{port + 2}"))
    assert seen == address


# --- git


def test_git_clones_and_pushes_by_http(site: Site, web: WebServer, repository: Path) -> None:
    where = f"/tmp/clone-{web.port}"
    site.client(*GIT, "clone", "-q", web.url("git/project.git", HOST), where)
    head = run("git", "-C", str(repository), "rev-parse", "main")
    assert site.says("git", "-C", where, "rev-parse", "HEAD") == head
    assert site.says("git", "-C", where, "fsck", "--full") == ""
    script = f"cd {where} && head -c 3000000 /dev/urandom > more && git add more && "
    script += (
        f"{' '.join(GIT)} commit -q -m more && git push -q origin HEAD:refs/heads/{site.path} && git rev-parse HEAD"
    )
    pushed = site.says("sh", "-c", script)
    assert run("git", "-C", str(repository), "rev-parse", site.path) == pushed
    run("git", "-C", str(repository), "fsck", "--full")


# --- dig and ping


def test_dig_finds_containers_by_udp_and_tcp(site: Site) -> None:
    address, *address6 = site.addresses("server")
    for options in ("+notcp", "+tcp"):
        assert site.says("dig", "+short", options, "server").split() == [address]
        assert site.says("dig", "+short", options, "server", "AAAA").split() == address6
        assert site.says("dig", "+short", options, "-x", address) == "server.net."
    assert site.says("dig", "+short", HOST) == "169.254.1.2"


def test_dig_finds_what_the_machine_finds(site: Site) -> None:
    """The mirror's name: it is the one name of the world that tests ask for anyway."""
    words = ("dig", "+short", "+time=2", "+tries=1", mirror())
    known = {option: subprocess.run([*words, option], capture_output=True, text=True) for option in ("+notcp", "+tcp")}
    if known["+notcp"].returncode:
        pytest.skip(f"the machine itself does not find it: {known['+notcp'].stdout.strip()}")
    for option, done in known.items():
        if done.returncode == 0:  # some resolvers do not speak TCP
            assert set(site.says(*words, option).split()) & set(done.stdout.split())


def mirror() -> str:
    """The host name of this machine's mirror of its distribution; skips the test where there is none."""
    try:
        names = re.findall(r"https?://([^/:]+)", "\n".join(sources()))
    except NoDebian as why:
        pytest.skip(str(why))
    if not names:
        pytest.skip("this machine's mirror has no host name")
    return str(names[0])


def test_ping_reaches_peers_and_the_gateway(site: Site) -> None:
    for address in ("server", *site.addresses("server"), *site.gateways()):
        assert "3 received" in site.says("ping", "-c", "3", "-i", "0.01", "-W", "5", address), address


def test_ping_reaches_the_machine_where_users_may_ping(site: Site) -> None:
    address = clients.own_address(socket.AF_INET)
    done = site.client("ping", "-c", "2", "-i", "0.01", "-W", "1", address, check=False, timeout=20)
    if may_ping():
        assert (done.returncode, "2 received" in done.stdout) == (0, True), done.stdout
    else:
        assert (done.returncode, "Packet filtered" in done.stdout) == (1, True), done.stdout


def may_ping() -> bool:
    """Whether net.ipv4.ping_group_range allows it (icmp(7)); a socket says so itself."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except PermissionError:
        return False
    return True


# --- iperf3


@pytest.mark.parametrize("options", [(), ("-R",), ("-P", "8")], ids=str)
def test_iperf3_measures_streams_both_ways(site: Site, options: tuple[str, ...]) -> None:
    with clients.iperf() as port:
        for host, at in ((HOST, port), ("server", 5201)):
            summary = iperf(site, host, at, "-n", "128M", *options)
            # Who sends says when it is over, by another connection: what is in buffers by then is not counted.
            assert summary["sum_received"]["bytes"] > 32 << 20


@pytest.mark.parametrize("options", [(), ("-R",)], ids=str)
def test_iperf3_measures_a_published_port(site: Site, options: tuple[str, ...]) -> None:
    words = ("iperf3", "-J", "--connect-timeout", "5000", "-c", "127.0.0.1", "-p", str(site.published["5201/tcp"]))
    answer = json.loads(run(*words, "-n", "128M", *options))
    assert answer["end"]["sum_received"]["bytes"] > 32 << 20


@pytest.mark.parametrize("options", [(), ("-R",)], ids=str)
def test_iperf3_loses_few_datagrams(site: Site, options: tuple[str, ...]) -> None:
    with clients.iperf() as port:
        summary = iperf(site, HOST, port, "-u", "-l", "1400", "-b", "50M", "-n", "5M", *options)
    assert summary["sum"]["packets"] > 3000
    assert summary["sum"]["lost_percent"] < 5


def iperf(site: Site, host: str, port: int, *options: str) -> dict[str, Any]:
    words = ("iperf3", "-J", "--connect-timeout", "5000", "-c", host, "-p", str(port), *options)
    answer = json.loads(site.client(*words).stdout)
    assert "error" not in answer, answer["error"]
    return dict(answer["end"])


# --- databases


def test_redis_is_used_on_the_host_and_in_another_container(site: Site, tmp_path: Path) -> None:
    with clients.redis(tmp_path) as port:
        for where in (("-h", HOST, "-p", str(port)), ("-h", "server")):
            assert site.says("redis-cli", *where, "ping") == "PONG"
            script = "head -c 10000000 /shared/big > /tmp/value && redis-cli {0} -x set key < /tmp/value > /dev/null &&"
            script += "redis-cli {0} get key | head -c 10000000 | cmp - /tmp/value && redis-cli {0} strlen key"
            assert site.says("sh", "-c", script.format(" ".join(where))) == "10000000"
            said = site.says("redis-benchmark", *where, "-q", "-n", "2000", "-c", "50", "-t", "set,lrange_100", "--csv")
            assert len(re.findall(r'^"(?:SET|LRANGE)', said, re.MULTILINE)) == 2, said


def test_psql_queries_a_server_on_the_host(site: Site, cluster: Path) -> None:
    with clients.postgres(cluster) as port:
        assert copied(site, HOST, port) == NUMBERS


def test_psql_queries_a_server_in_another_container(site: Site, cluster: Path) -> None:
    programs = clients.postgres_programs()
    script = "cp -a /cluster /tmp/pg && chown -R nobody /tmp/pg && chmod 700 /tmp/pg && exec setpriv --reuid nobody"
    script += f" --clear-groups {programs}/postgres -D /tmp/pg -h '*' -k '' -F"
    words = ("--network", "net", "--name", "postgres", "-v", f"{cluster}:/cluster:ro", "host", "sh", "-c", script)
    site.installed.run("run", "-d", *words)
    try:
        ready = "until pg_isready -q -t 1 -h postgres; do sleep 0.05; done"
        site.client("timeout", "20", "sh", "-c", ready)
        assert copied(site, "postgres", 5432) == NUMBERS
    finally:
        site.installed.run("rm", "-f", "postgres")


def copied(site: Site, host: str, port: int) -> str:
    """Some hundred kilobytes into a table and out of it again."""
    words = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", str(port), "-U", "test", "-d", "postgres"]
    for command in ("create temp table t (line text)", r"\copy t from pstdin", r"\copy t to pstdout"):
        words += ["-c", command]
    return site.client(*words, input=NUMBERS).stdout


# --- half-closed connections and datagrams


def test_netcat_gets_the_answer_to_what_it_has_ended(site: Site, services: int) -> None:
    expected = run("sh", "-c", "printf question | sha256sum").split()[0]
    for host, port in ((HOST, services + 1), ("server", 7001)):
        assert site.says("nc", "-N", host, str(port), input="question") == expected
        assert site.says("socat", "-t", "10", "-", f"TCP:{host}:{port}", input="question") == expected
    assert run("nc", "-N", "127.0.0.1", str(site.published["7001/tcp"]), input="question") == expected


def test_socat_speaks_on_after_the_other_side_has_ended(site: Site) -> None:
    heard: list[bytes] = []

    def serve(connection: socket.socket, peer: Any) -> None:
        connection.sendall(b"greeting")
        connection.shutdown(socket.SHUT_WR)
        heard.append(connection.makefile("rb").read())

    with socket.create_server(("127.0.0.1", 0)) as listener, serving(listener, serve):
        port = listener.getsockname()[1]
        site.client("socat", "-t", "10", f"TCP:{HOST}:{port}", "SYSTEM:read line; cat > /dev/null; seq 10000")
        assert wait_until(lambda: bool(heard))
    assert heard == ["".join(f"{number}\n" for number in range(1, 10001)).encode()]


def test_socat_asks_by_udp(site: Site) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    with answering(sock, lambda data, peer: b"answer to " + data):
        said = site.says("socat", "-T", "1", "-t", "1", "-", f"UDP:{HOST}:{port}", input="question")
    assert said == "answer to question"
