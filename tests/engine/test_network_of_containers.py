"""What a container's start, life and end ask of slirp, and what becomes of the answers: without a network behind it."""

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box
from tests.support.fake_slirp import FakeSlirp

pytestmark = pytest.mark.kernel


@pytest.fixture
def slirp(box: Box) -> Iterator[FakeSlirp]:
    with FakeSlirp(box.session / "slirp") as fake:
        yield fake
        box.clear(keep=[])


def detached(box: Box, *options: str, script: str = "sleep 60") -> str:
    network = () if "--network" in options else ("--network", "bridge")
    return box.detached(script, *network, *options)


def namespace(box: Box, container_id: str) -> int:
    """The inode of the network namespace of the container's program."""
    return int(box("exec", container_id, "stat", "-Lc", "%i", "/proc/1/ns/net").stdout)


def attached_state(box: Box, container_id: str) -> dict[str, Any]:
    state: dict[str, Any] = box.recorded(container_id)["network"]
    return state


# --- a life


def test_a_container_is_plugged_before_its_program_runs_and_let_go_at_its_end(box: Box, slirp: FakeSlirp) -> None:
    container_id = detached(box)
    assert slirp.plugged(container_id) == [namespace(box, container_id)]
    box("rm", "-f", container_id)
    assert wait_until(lambda: not slirp.ids, 5)


def test_a_container_without_networks_needs_no_slirp(box: Box) -> None:
    for mode in ("none", "host"):
        assert box.sh("echo hello", "--network", mode) == "hello\n"
    assert not (box.session / "slirp").exists()


def test_what_is_asked_of_slirp(box: Box, slirp: FakeSlirp) -> None:
    options = ("-p", "127.0.0.1:8080:80", "-p", "53/udp", "--egress", "a.example:443,none.example", "--host-loopback")
    container_id = detached(box, *options, "--name", "web", "-h", "webhost", "--dns", "192.0.2.1", "--expose", "9")
    [request] = slirp.asked("attach")
    [endpoint] = request.pop("endpoints")
    assert request == {
        "op": "attach",
        "container": {"id": container_id, "name": "web", "hostname": "webhost"},
        "ports": [
            {"container_port": 80, "protocol": "tcp", "host_ip": "127.0.0.1", "host_port": 8080},
            {"container_port": 53, "protocol": "udp", "host_ip": "", "host_port": 0},
        ],
        "links": [],
        "egress": ["a.example:443", "none.example"],
        "host_loopback": True,
        "dns": ["192.0.2.1"],
    }
    assert (endpoint["network"]["name"], endpoint["aliases"], endpoint["previous"]) == ("bridge", [], None)


def test_each_start_of_a_policy_plugs_a_namespace_of_its_own_into_the_same_attachment(
    box: Box, slirp: FakeSlirp
) -> None:
    container_id = detached(box, "--restart", "on-failure:2", script="exit 3")
    assert wait_until(lambda: box.state(container_id)["Status"] == "exited", 10)
    assert len(slirp.asked("plug")) == 3
    assert len(slirp.asked("attach")) == 1
    assert wait_until(lambda: not slirp.ids, 5)


def test_stop_and_start_ask_for_the_same_addresses_and_ports(box: Box, slirp: FakeSlirp) -> None:
    detached(box, "--name", "other")
    container_id = detached(box, "-p", "80", "-P", "--expose", "99", "-p", "81-82:7")
    before = attached_state(box, container_id)
    box("stop", "-t", "0", "other")
    box("restart", "-t", "0", container_id)
    assert attached_state(box, container_id) == before
    assert [port["host_port"] for port in slirp.asked("attach")[-1]["ports"]] == [32768, 81, 32769]


def test_a_port_that_was_chosen_and_is_taken_by_now_is_chosen_anew(box: Box, slirp: FakeSlirp) -> None:
    container_id = detached(box, "-p", "80")
    box("stop", "-t", "0", container_id)
    count = len(slirp.asked("attach"))
    slirp.refuse_ports = {32768}
    box("start", container_id)
    assert [request["ports"][0]["host_port"] for request in slirp.asked("attach")[count:]] == [32768, 32768, 0]
    assert box.inspect(container_id)["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"] == "32769"


def test_a_port_that_is_taken_keeps_the_container_from_running(box: Box, slirp: FakeSlirp) -> None:
    slirp.refuse_ports = {8080}
    done = box.run("echo", "ran", options=("--network", "bridge", "-p", "8080:80"), check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "rootless: port 8080 is taken\nhint: take another\n"
    assert box.ids() == []
    done = box("run", "--name", "left", "--network", "bridge", "-p", "8080:80", box.image, "true", check=False)
    assert done.returncode == 125
    assert (box.state("left")["Status"], box.state("left")["Error"]) == ("created", "port 8080 is taken")


def test_an_interface_that_cannot_be_had_keeps_the_container_from_running(box: Box, slirp: FakeSlirp) -> None:
    slirp.refuse = {"plug": {"ok": False, "kind": "HostUnsupported", "error": "no veth", "hint": "load it"}}
    with box.installed.no_leaks():
        done = box.run("echo", "ran", options=("--network", "bridge"), check=False)
    assert (done.returncode, done.stdout, done.stderr) == (125, "", "rootless: no veth\nhint: load it\n")
    assert box.ids() == []
    assert wait_until(lambda: not slirp.ids, 5)


def test_a_program_that_does_not_exist_leaves_nothing_attached(box: Box, slirp: FakeSlirp) -> None:
    assert box.run("nosuch", options=("--network", "bridge"), check=False).returncode == 127
    assert wait_until(lambda: not slirp.ids, 5)


def test_rename_reaches_slirp(box: Box, slirp: FakeSlirp) -> None:
    container_id = detached(box, "--name", "old")
    box("rename", "old", "new")
    assert slirp.asked("update") == [{"op": "update", "container": container_id, "name": "new"}]


# --- deaths


def test_a_monitor_that_is_killed_gives_everything_back(box: Box, slirp: FakeSlirp) -> None:
    container_id = detached(box, "-p", "80")
    os.kill(box.monitor(container_id), signal.SIGKILL)
    assert wait_until(lambda: not slirp.ids, 5)


def test_when_slirp_dies_all_that_runs_is_attached_again_as_it_was(box: Box, slirp: FakeSlirp) -> None:
    ids = {detached(box, "-p", "80") for _ in range(3)}
    idle = detached(box)
    box("stop", "-t", "0", idle)
    before = {i: (attached_state(box, i), slirp.plugged(i)) for i in ids}
    slirp.crash()
    with FakeSlirp(slirp.path) as second:
        assert wait_until(lambda: all(second.plugged(i) for i in ids), 20)
        assert second.ids == ids
        assert {i: (attached_state(box, i), second.plugged(i)) for i in ids} == before
        box("rm", "-f", *ids)
        assert wait_until(lambda: not second.ids, 5)


def test_a_port_that_is_lost_with_slirp_does_not_cost_the_network(box: Box, slirp: FakeSlirp) -> None:
    container_id = detached(box, "-p", "8080:80")
    slirp.crash()
    with FakeSlirp(slirp.path) as second:
        second.refuse_ports = {8080}
        assert wait_until(lambda: bool(second.plugged(container_id)), 20)
        assert wait_until(lambda: attached_state(box, container_id)["ports"] == [], 5)
        box("rm", "-f", container_id)


def test_restarts_go_on_when_slirp_has_come_back(box: Box, slirp: FakeSlirp) -> None:
    container_id = detached(box, "--restart", "always", script="sleep 0.05; exit 1")
    assert wait_until(lambda: box.recorded(container_id)["restart_count"] >= 2, 10)
    slirp.crash()
    with FakeSlirp(slirp.path) as second:
        assert wait_until(lambda: bool(second.plugged(container_id)), 20)
        count = box.recorded(container_id)["restart_count"]
        assert wait_until(lambda: box.recorded(container_id)["restart_count"] > count, 20)
        assert wait_until(lambda: len(second.plugged(container_id)) > 1, 20)
        box("rm", "-f", container_id)


def test_a_slirp_that_dies_again_and_again_is_repaired_ever_more_seldom(box: Box, slirp: FakeSlirp) -> None:
    slirp.is_flaky = True
    detached(box)
    began = time.monotonic()
    assert wait_until(lambda: len(slirp.asked("plug")) == 4, 20)
    assert time.monotonic() - began > 3  # at once, after a second, after two more
    slirp.is_flaky = False
    assert wait_until(lambda: bool(slirp.ids), 20)


# --- name files


def test_the_files_of_names_have_the_address_and_the_gateway(box: Box, slirp: FakeSlirp) -> None:
    options = ("-h", "web", "--domainname", "example", "--add-host", "db:192.0.2.7", "--dns-search", "a.example")
    hosts, resolver = box.sh("cat /etc/hosts; echo; cat /etc/resolv.conf", "--network", "bridge", *options).split(
        "\n\n"
    )
    address, gateway = slirp.asked("attach")[0], "nameserver 172."
    assert hosts.splitlines()[-2] == "192.0.2.7\tdb"
    assert hosts.splitlines()[-1].endswith("\tweb.example web")
    assert hosts.splitlines()[-1].startswith(address["endpoints"][0]["network"]["ipv4"]["subnet"].rpartition(".")[0])
    assert resolver.startswith(gateway)
    assert "search a.example" in resolver.splitlines()


def test_with_servers_of_its_own_a_container_on_the_default_network_asks_them_itself(
    box: Box, slirp: FakeSlirp
) -> None:
    assert box.sh("grep nameserver /etc/resolv.conf", "--network", "bridge", "--dns", "192.0.2.1") == (
        "nameserver 192.0.2.1\n"
    )


def test_host_gateway_and_host_loopback(box: Box, slirp: FakeSlirp) -> None:
    command = "grep -v local /etc/hosts | grep -v ip6"
    given = box.sh(command, "--network", "bridge", "--host-loopback", "--add-host", "host:host-gateway", "-h", "web")
    assert given.splitlines()[:3] == [
        "169.254.1.2\thost",
        "169.254.1.2\thost.docker.internal",
        "169.254.1.2\thost.containers.internal",
    ]
    given = box.sh(command, "--network", "bridge", "--add-host", "host:host-gateway", "-h", "web")
    assert not given.startswith(("127.", "169.254."))


def test_a_container_that_shares_a_network_shares_its_names(box: Box, slirp: FakeSlirp) -> None:
    detached(box, "--name", "web", "-h", "webhost")
    [namespace_] = slirp.plugged(slirp.ids.copy().pop())
    shared = box.sh(
        "tail -n1 /etc/hosts; hostname; stat -Lc %i /proc/self/ns/net", "--network", "container:web"
    ).split()
    assert shared[1:] == ["webhost", "webhost", str(namespace_)]


# --- looking


def test_inspect_and_ps_tell_addresses_and_ports(box: Box, slirp: FakeSlirp) -> None:
    container_id = detached(box, "-p", "8080:80", "--expose", "99", "--name", "web")
    document = box.inspect("web")
    settings = document["NetworkSettings"]
    endpoint = settings["Networks"]["bridge"]
    state = attached_state(box, container_id)
    assert settings["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "99/tcp": None,
    }
    assert settings["IPAddress"] == endpoint["IPAddress"] == state["endpoints"][0]["ipv4"]
    assert endpoint["MacAddress"] == state["endpoints"][0]["mac"]
    assert (document["HostConfig"]["NetworkMode"], document["HostConfig"]["PortBindings"]) == (
        "bridge",
        {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
    )
    assert document["Config"]["ExposedPorts"] == {"99/tcp": {}, "80/tcp": {}}
    address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    port = '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}'
    assert box("inspect", "-f", f"{address} {port}", "web").stdout == f"{endpoint['IPAddress']} 8080\n"
    assert box("ps", "--format", "{{.Ports}} {{.Networks}}").stdout == (
        "99/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp bridge\n"
    )
    for wanted in ("publish=8080", "publish=8000-8100/tcp", "expose=80", "expose=99", "network=bridge"):
        assert box("ps", "-q", "--no-trunc", "--filter", wanted).stdout == f"{container_id}\n", wanted
    for unwanted in ("publish=80", "publish=8080/udp", "expose=8080", "network=web"):
        assert box("ps", "-q", "--filter", unwanted).stdout == "", unwanted
    box("stop", "-t", "0", "web")
    settings = box.inspect("web")["NetworkSettings"]
    assert (settings["Ports"], settings["IPAddress"], settings["Networks"]["bridge"]["IPAddress"]) == ({}, "", "")
    assert json.loads(box("ps", "-a", "--format", "json").stdout)["Ports"] == ""


# --- what cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ip", "10.0.0.5"), "user specified IP address is supported on user defined networks only"),
        (("--network", "none", "--network-alias", "a"), "network-scoped alias is supported only for containers in"),
        (("--network", "a", "--network", "host"), "conflicting options: cannot attach both user-defined and non-"),
        (("--network", "a", "--network", "a"), 'network "a" is specified multiple times'),
        (("--network", "nosuch"), "network nosuch not found"),
        (("--network", "container:x", "-p", "80"), "conflicting options: port publishing and the container type"),
        (("--network", "container:x", "--dns", "192.0.2.1"), "conflicting options: dns and the network mode"),
        (("--network", "container:x", "-h", "a"), "conflicting options: hostname and the network mode"),
        (("--network", "container:x", "--add-host", "a:192.0.2.1"), "conflicting options: custom host-to-IP mapping"),
        (("--network", "container:x", "--expose", "1"), "conflicting options: port exposing and the container type"),
        (("--network", "host", "--link", "a"), "conflicting options: host type networking can't be used with links"),
        (("--network", "host", "--egress", "none"), "--egress cannot hold with --network host"),
        (("--network", "name=a,ip=10.0.0.2", "--ip", "10.0.0.3"), "cannot specify both --ip and per-network IPv4"),
        (("--network", "bridge", "--link", "nobody"), "No such container: nobody"),
    ],
)
def test_what_contradicts_itself_is_said(options: tuple[str, ...], message: str, box: Box) -> None:
    network = () if "--network" in options else ("--network", "bridge")
    done = box.run("true", options=(*network, *options), check=False)
    assert (done.returncode, message in done.stderr) == (125, True), done.stderr
    assert box.ids() == []


def test_ports_of_the_hosts_network_are_discarded_with_a_warning(box: Box) -> None:
    done = box.run("true", options=("--network", "host", "-p", "80:80"))
    assert done.stderr == "WARNING: Published ports are discarded when using host network mode\n"


def test_a_link_on_the_default_network_is_to_a_container_that_runs(box: Box, slirp: FakeSlirp) -> None:
    other = detached(box, "--name", "db")
    detached(box, "--name", "web", "--link", "db:database")
    assert slirp.asked("attach")[-1]["links"] == [[other, "database"]]
    assert box.inspect("web")["HostConfig"]["Links"] == ["/db:/web/database"]
    box("rm", "-f", "web")
    box("stop", "-t", "0", "db")
    done = box.run("true", options=("--network", "bridge", "--name", "web", "--link", "db:database"), check=False)
    assert done.stderr.startswith("rootless: Cannot link to a non running container: /db AS /web/database")
