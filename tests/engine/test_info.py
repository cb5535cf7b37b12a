"""What info says of the machine: found by trying, and read from files."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from rootless.engine import info as machine
from rootless.engine import info_network
from rootless.engine.info import Cgroups, Probe
from rootless.errors import HostUnsupported, RootlessError
from rootless.linux.mount_table import Mounted, mount_table
from tests.support.account import Installation
from tests.support.store import OutsideEngine, Store

WELL = Probe("range", 65537, "", "", "", "")
DELEGATED = Cgroups("2", ("cpu", "io", "memory", "pids"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for name in ("root", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    return Store(tmp_path / "root", tmp_path / "run")


@pytest.mark.parametrize(
    ("found", "cgroups", "expected"),
    [
        (WELL, DELEGATED, []),
        (
            WELL,
            DELEGATED._replace(rung="systemd", lingers=False),
            ["log out: their scopes are your systemd's; to keep"],
        ),
        (WELL, Cgroups("2", ("memory", "pids")), ["No limits on cpu: the controllers are not delegated; have root"]),
        (WELL, Cgroups("1", ()), ["No limits on cpu, memory, pids: the controllers are not delegated; have root boot"]),
        (
            Probe("single", 1, "Only your own id", "have root run: usermod", "", ""),
            DELEGATED,
            ["Only your own id; have root run: usermod"],
        ),
        (
            Probe("none", 0, "forbidden", "have root run: sysctl", "forbidden", "have root run: sysctl"),
            DELEGATED,
            ["No container can run: forbidden; have root run: sysctl"],
        ),
        (
            Probe("range", 65537, "", "", "Invalid argument, on nfs4", "--root puts the store elsewhere"),
            DELEGATED,
            ["No overlay can be mounted in the store: Invalid argument, on nfs4; --root puts the store elsewhere"],
        ),
    ],
)
def test_a_warning_says_what_is_missing_and_what_to_do(found: Probe, cgroups: Cgroups, expected: list[str]) -> None:
    lines = machine.warnings(found, cgroups)
    for text in expected:
        assert sum(text in line for line in lines) == 1
    assert all(line.startswith("WARNING: ") for line in lines)
    assert sum("No overlay" in line for line in lines) == sum("No overlay" in text for text in expected)


class Forbidden(OutsideEngine):
    """An engine on a machine that allows no user namespace."""

    def enter_namespace(self) -> str:
        raise HostUnsupported("user namespaces are forbidden", hint="have root run: sysctl")


class Dead(OutsideEngine):
    """An engine whose process dies when it tries."""

    def enter_namespace(self) -> str:
        os._exit(7)


def test_a_machine_without_user_namespaces_is_described(store: Store) -> None:
    engine = Forbidden(store.engine.layout, str(store.run))
    document = machine.info(engine)
    namespace = document["Rootless"]["UserNamespace"]
    assert (namespace["Rung"], namespace["Remedy"]) == ("none", "have root run: sysctl")
    assert document["Warnings"][0] == (
        "WARNING: No container can run: user namespaces are forbidden; have root run: sysctl"
    )


def test_an_overlay_that_cannot_be_mounted_is_described_and_leaves_nothing(store: Store) -> None:
    found = machine.probe(store.engine)  # outside of any namespace of ours: mounting is not for us
    assert "Operation not permitted, on " in found.overlay_reason
    assert "--root" in found.overlay_remedy
    assert os.listdir(store.root / "trash") == []


def test_a_probe_that_dies_is_an_error(store: Store) -> None:
    with pytest.raises(RootlessError, match="died"):
        machine.probe(Dead(store.engine.layout, str(store.run)))


def test_containers_are_counted_by_what_they_do(store: Store) -> None:
    store.add_container(store.add_image("docker.io/library/one:1"), "one")
    with store.running(store.add_container(None, "two")):
        document = machine.info(store.engine)
    counts = ("Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped", "Images")
    assert [document[key] for key in counts] == [2, 1, 0, 1, 1]


def test_the_document_has_the_keys_that_scripts_read(store: Store) -> None:
    document = machine.info(store.engine)
    assert document["DockerRootDir"] == str(store.root)
    assert (document["OSType"], document["Architecture"]) == ("linux", os.uname().machine)
    assert (document["Driver"], document["CgroupDriver"]) == (document["Rootless"]["StorageDriver"]["Name"], "none")
    assert document["CgroupVersion"] in ("1", "2")
    assert "name=rootless" in document["SecurityOptions"]
    assert "name=seccomp,profile=builtin" in document["SecurityOptions"]
    assert document["MemTotal"] > 1 << 20
    assert document["NCPU"] >= 1
    assert document["ID"] == machine.info(store.engine)["ID"]


def test_registries_come_from_the_configuration(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[registry."docker.io"]\nmirrors = ["m.example"]\n[registry."r.example:5000"]\ninsecure = true\n')
    monkeypatch.setenv("ROOTLESS_CONFIG", str(path))
    document = machine.info(store.engine)
    registries: dict[str, Any] = document["RegistryConfig"]
    assert registries["Mirrors"] == ["m.example"]
    assert {host: r["Secure"] for host, r in registries["IndexConfigs"].items()} == {
        "docker.io": True,
        "r.example:5000": False,
    }
    assert document["Rootless"]["Configuration"] == str(path)


TABLE = [
    Mounted("/", "ext4"),
    Mounted("/home", "nfs4"),
    Mounted("/home", "lustre"),
    Mounted("/home/me/scratch", "tmpfs"),
    Mounted("/homely", "xfs"),
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/", "ext4"), ("/usr", "ext4"), ("/home/me", "lustre"), ("/homely", "xfs"), ("/home/me/scratch/x", "tmpfs")],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(
    path: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "mount_table", lambda: TABLE)
    monkeypatch.setattr(os.path, "realpath", lambda path: path)
    assert machine.filesystem_of(path) == expected


def test_the_mount_table_is_that_of_the_machine() -> None:
    assert mount_table()[0].fstype
    assert Mounted("/proc", "proc") in mount_table()


def test_version_has_the_keys_that_scripts_read() -> None:
    document = machine.version()
    for side in ("Client", "Server"):
        assert {"Version", "ApiVersion", "Os", "Arch", "GitCommit", "BuildTime"} <= document[side].keys()


# --- networks


KERNEL = {"tcp": "kernel", "reason": "", "ipv6": True, "ping": True, "pid": 7}


@pytest.mark.parametrize(
    ("told", "document", "warning"),
    [
        (KERNEL, {"Tcp": "kernel", "IPv6": True, "Ping": True, "Pid": 0}, ""),
        ({**KERNEL, "running": 7}, {"Tcp": "kernel", "Pid": 7}, ""),
        (
            {**KERNEL, "ping": False},
            {"Ping": False, "PingRemedy": "have root run: sysctl -w 'net.ipv4.ping_group_range=0 2147483647'"},
            "cannot ping what is outside",
        ),
        (
            {**KERNEL, "tcp": "user", "reason": "no tproxy"},
            {"Tcp": "user", "Reason": "no tproxy"},
            "slower way.*tproxy",
        ),
        (
            {"error": "no /dev/net/tun", "hint": "have root run: modprobe tun"},
            {"Tcp": "none", "Reason": "no /dev/net/tun", "Remedy": "have root run: modprobe tun", "PingRemedy": ""},
            "No networks but host and none: no /dev/net/tun; have root run: modprobe tun",
        ),
    ],
)
def test_networks_are_described_as_slirp_tells(told: dict[str, Any], document: dict[str, Any], warning: str) -> None:
    found = info_network.document(told)
    assert {name: found[name] for name in document} == document
    lines = info_network.warnings(found)
    assert len(lines) == bool(warning)
    assert all(re.search(warning, line) for line in lines)


@pytest.mark.kernel
def test_slirp_is_asked_where_it_runs_and_tried_where_it_does_not(rootless: Installation) -> None:
    def network() -> dict[str, Any]:
        document = json.loads(rootless.run("info", "-f", "json").stdout)
        return dict(document["Rootless"]["Network"])

    rootless.run("info")  # makes what stays: the namespace, locks
    with rootless.no_leaks():
        tried = network()
    assert tried["Tcp"] in ("kernel", "user")
    assert tried["Pid"] == 0
    rootless.run("run", "--rm", "--network", "bridge", "host", "true")
    asked = network()
    assert asked["Pid"] > 0
    assert {**asked, "Pid": 0} == tried
    assert f"from slirp, process {asked['Pid']}" in rootless.run("info").stdout
