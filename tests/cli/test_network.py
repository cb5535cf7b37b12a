"""The commands about networks and ports, as somebody types them."""

import json
from pathlib import Path

import pytest

from tests.support.account import Installation


def make(rootless: Installation, name: str, *words: str) -> str:
    """A network; its id."""
    return rootless.run("network", "create", *words, name).stdout.strip()


def test_networks_are_in_dockers_columns(rootless: Installation) -> None:
    web = make(rootless, "web")
    assert len(bytes.fromhex(web)) == 32
    lines = rootless.run("network", "ls").stdout.splitlines()
    assert lines[0] == "NETWORK ID     NAME      DRIVER    SCOPE"
    assert [line.split()[1:] for line in lines[1:]] == [
        ["bridge", "bridge", "local"],
        ["host", "host", "local"],
        ["none", "null", "local"],
        ["web", "bridge", "local"],
    ]
    assert lines[-1].split()[0] == web[:12]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-f", "name=we"], ["web"]),
        (["-f", "driver=bridge"], ["back", "bridge", "web"]),
        (["-f", "driver=null"], ["none"]),
        (["-f", "type=custom"], ["back", "web"]),
        (["-f", "type=builtin"], ["bridge", "host", "none"]),
        (["-f", "label=tier=front"], ["web"]),
        (["-f", "scope=swarm"], []),
        (["-f", "dangling=true"], ["back"]),
        (["-f", "dangling=false"], ["bridge", "host", "none", "web"]),
    ],
)
def test_networks_can_be_chosen(words: list[str], expected: list[str], rootless: Installation) -> None:
    make(rootless, "web", "--label", "tier=front")
    make(rootless, "back")
    rootless.run("create", "--network", "web", "host", "true")
    assert rootless.run("network", "ls", *words, "--format", "{{.Name}}").stdout.split() == expected


def test_many_made_at_once_have_names_and_subnets_of_their_own(rootless: Installation) -> None:
    started = [rootless.start("network", "create", f"n{number % 6}") for number in range(12)]
    failures = []
    for process in started:
        _, told = process.communicate(timeout=60)
        if process.returncode:
            failures.append(told.decode())
    assert sorted(failures) == [f"rootless: network with name n{number} already exists\n" for number in range(6)]
    names = rootless.run("network", "ls", "-f", "type=custom", "--format", "{{.Name}}").stdout.split()
    form = "{{range .IPAM.Config}}{{.Subnet}}{{end}}"
    subnets = rootless.run("network", "inspect", "-f", form, "bridge", *names).stdout.split()
    assert (len(names), len(set(subnets))) == (6, 7)


def test_names_with_numbers_are_in_the_order_of_the_numbers(rootless: Installation) -> None:
    for name in ("n10", "n2"):
        make(rootless, name)
    listed = rootless.run("network", "ls", "-f", "name=n[0-9]", "--format", "{{.Name}}").stdout.split()
    assert listed == ["n2", "n10"]


def test_networks_can_be_formatted(rootless: Installation) -> None:
    web = make(rootless, "web", "--label", "tier=front", "--ipv6", "--internal")
    only = ["network", "ls", "-f", "name=web"]
    assert rootless.run(*only, "-q").stdout == f"{web[:12]}\n"
    assert rootless.run(*only, "-q", "--no-trunc").stdout == f"{web}\n"
    form = '{{.ID}} {{.IPv4}} {{.IPv6}} {{.Internal}} {{.Labels}} {{.Label "tier"}}'
    assert rootless.run(*only, "--format", form).stdout == f"{web[:12]} true true true tier=front front\n"
    row = json.loads(rootless.run(*only, "--format", "json").stdout)
    assert row.pop("CreatedAt").startswith("20")
    assert row == {
        "Driver": "bridge",
        "ID": web[:12],
        "IPv4": "true",
        "IPv6": "true",
        "Internal": "true",
        "Labels": "tier=front",
        "Name": "web",
        "Scope": "local",
    }


def test_inspect_shows_what_was_asked_for(rootless: Installation) -> None:
    words = ["--subnet", "10.1.0.0/16,fd00:1::/64", "--gateway", "10.1.0.9", "--egress", "example.org:443,10.0.0.0/8"]
    web = make(rootless, "web", *words, "-o", "com.docker.network.driver.mtu=1400")
    (document,) = json.loads(rootless.run("network", "inspect", "web").stdout)
    assert (document["Name"], document["Id"], document["EnableIPv6"]) == ("web", web, True)
    assert document["IPAM"]["Config"] == [
        {"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.9"},
        {"Subnet": "fd00:1::/64", "Gateway": "fd00:1::1"},
    ]
    assert document["Options"] == {"com.docker.network.driver.mtu": "1400"}
    assert document["Egress"] == ["example.org:443", "10.0.0.0/8"]
    form = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
    assert rootless.run("network", "inspect", "-f", form, web[:12]).stdout == "10.1.0.0/16 fd00:1::/64 \n"
    assert rootless.run("inspect", "--type", "network", "-f", "{{.Name}}", "web").stdout == "web\n"
    done = rootless.run("network", "inspect", "nosuch", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "[]\n", "rootless: network nosuch not found\n")


def test_rm_goes_on_after_a_failure(rootless: Installation) -> None:
    make(rootless, "web")
    done = rootless.run("network", "rm", "nosuch", "bridge", "web", check=False)
    assert (done.returncode, done.stdout) == (1, "web\n")
    assert done.stderr.splitlines() == [
        "rootless: network nosuch not found",
        "rootless: bridge is a pre-defined network and cannot be removed",
    ]
    assert rootless.run("network", "rm", "--force", "nosuch").returncode == 0


def test_prune_asks_first_and_tells_what_went(rootless: Installation) -> None:
    make(rootless, "used")
    make(rootless, "free")
    rootless.run("create", "--network", "used", "host", "true")
    done = rootless.run("network", "prune", input="\n")
    assert done.stdout == (
        "WARNING! This will remove all custom networks not used by at least one container.\n"
        "Are you sure you want to continue? [y/N] "
    )
    assert rootless.run("network", "prune", "-f", "--filter", "until=1h").stdout == ""
    assert rootless.run("network", "prune", "--force").stdout == "Deleted Networks:\nfree\n\n"
    assert rootless.run("network", "prune", "--force").stdout == ""
    assert rootless.run("network", "ls", "-f", "type=custom", "--format", "{{.Name}}").stdout == "used\n"


def test_a_container_that_does_not_run_is_connected_and_disconnected(rootless: Installation) -> None:
    make(rootless, "web", "--subnet", "10.1.0.0/24")
    rootless.run("create", "--name", "one", "--network", "bridge", "host", "true")
    rootless.run("network", "connect", "--alias", "a,b", "--ip", "10.1.0.7", "--gw-priority", "1", "web", "one")
    (record,) = (rootless.data / "rootless/containers").glob("*/container.json")
    endpoint = json.loads(record.read_text())["networks"][-1]
    assert (endpoint["name"], endpoint["aliases"], endpoint["ipv4"]) == ("web", ["a", "b"], "10.1.0.7")
    rootless.run("network", "disconnect", "web", "one")
    assert [e["name"] for e in json.loads(record.read_text())["networks"]] == ["bridge"]


def test_ports_of_a_container_that_does_not_run_are_kept_for_its_start(rootless: Installation) -> None:
    rootless.run("create", "--name", "one", "--network", "bridge", "-p", "8080:80", "host", "true")
    assert rootless.run("port", "one").stdout == ""
    assert rootless.run("port", "add", "one", "8443:443", "-p", "53/udp").stdout == ""
    assert rootless.run("port", "rm", "one", "80").stdout == ""
    (record,) = (rootless.data / "rootless/containers").glob("*/container.json")
    assert [port["container_port"] for port in json.loads(record.read_text())["ports"]] == [53, 443]
    done = rootless.run("container", "port", "one", "443", check=False)
    assert (done.returncode, done.stderr) == (1, "rootless: Error: No public port '443' published for one\n")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["network", "create"], 1, "requires 1 argument"),
        (["network", "create", "-d", "overlay", "x"], 1, 'plugin "overlay" not found'),
        (["network", "create", "--config-only", "x"], 1, "networks of a swarm"),
        (["network", "create", "bridge"], 1, "operation is not permitted on predefined bridge network"),
        (["network", "create", "a b"], 1, "invalid network name 'a b'"),
        (["network", "create", "--subnet", "10.0.0.1/8", "x"], 1, "it should be 10.0.0.0/8"),
        (["network", "create", "--gateway", "10.0.0.1", "x"], 1, "must have a corresponding subnet"),
        (["network", "create", "--egress", "a b", "x"], 125, "invalid egress rule 'a b'"),
        (["network", "create", "--egress", "none", "--egress", "a.org", "x"], 1, "--egress none allows nothing"),
        (["network", "create", "-o", "parent=eth0", "x"], 1, "invalid option: 'parent'"),
        (["network", "ls", "-f", "nope=1"], 1, "invalid filter 'nope'"),
        (["network", "ls", "-f", "type=x"], 1, "invalid filter 'type=x'"),
        (["network", "prune", "--filter", "dangling=1"], 1, "invalid filter 'dangling'"),
        (["network", "connect", "bridge", "nosuch"], 1, "No such container: nosuch"),
        (["network", "connect", "--ip", "x", "bridge", "nosuch"], 125, "invalid IPv4 address: x"),
        (["network", "disconnect", "bridge", "nosuch"], 1, "No such container: nosuch"),
        (["network", "flows", "nosuch"], 1, "No such container: nosuch"),
        (["port"], 1, "requires at least 1 argument"),
        (["port", "nosuch"], 1, "No such container: nosuch"),
        (["port", "nosuch", "80", "81"], 1, "requires at least 1 and at most 2 arguments"),
        (["port", "nosuch", "http"], 1, "Error: invalid port (http)"),
        (["port", "add", "nosuch", "http"], 1, "invalid containerPort: http"),
        (["port", "nosuch", "-p", "80"], 1, "-p goes with add and rm"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    words: list[str], status: int, message: str, rootless: Installation
) -> None:
    done = rootless.run(*words, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_no_command_that_only_looks_starts_the_process_of_the_networks(rootless: Installation) -> None:
    for words in (["network", "ls"], ["network", "inspect", "bridge"], ["network", "flows"]):
        rootless.run(*words)
    assert not Path(rootless.runtime, "rootless/slirp").exists()
