"""From a container's record to config.json."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.engine import bundle
from rootless.engine.create import create
from rootless.engine.options import ContainerOptions, DeviceOption, MountOption, NetworkOption
from rootless.errors import Conflict, HostUnsupported, InvalidInput
from rootless.linux import capabilities
from rootless.spec import runtime
from rootless.spec.runtime import DEFAULT_CAPABILITIES, MASKED_PATHS, READONLY_PATHS, Config
from tests.support.store import Store

ALL = list(capabilities.NAMES)
USUAL = list(DEFAULT_CAPABILITIES)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ROOTLESS_CONFIG", str(tmp_path / "none.toml"))
    for name in ("root", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    return Store(tmp_path / "root", tmp_path / "run")


Bundled = Callable[..., Config]


@pytest.fixture
def bundled(store: Store) -> Bundled:
    """`bundled(read_only=True)` is the config.json of a container with these options."""

    def build(layers: tuple[str, ...] = ("base",), window: tuple[int, int] = (0, 0), **options: Any) -> Config:
        image = store.add_image(layers=layers)
        record = create(store.engine, ContainerOptions(image.id, **options))
        return bundle.build(store.engine, record, "range", window)

    return build


def mount_at(config: Config, destination: str) -> Config:
    [found] = [m for m in config["mounts"] if m["destination"] == destination]
    return dict(found)


def namespaces(config: Config) -> dict[str, str]:
    return {n["type"]: n.get("path", "") for n in config["linux"]["namespaces"]}


# --- capabilities


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], USUAL),
        (["SYS_TIME"], [], [*USUAL, "CAP_SYS_TIME"]),
        (["cap_sys_time", "CAP_SYS_TIME", "CHOWN"], [], [*USUAL, "CAP_SYS_TIME"]),
        ([], ["chown", "CAP_KILL"], [c for c in USUAL if c not in ("CAP_CHOWN", "CAP_KILL")]),
        ([], ["ALL"], []),
        (["CHOWN"], ["all"], ["CAP_CHOWN"]),
        (["ALL"], [], ALL),
        (["all"], ["SYS_ADMIN"], [c for c in ALL if c != "CAP_SYS_ADMIN"]),
        (["ALL"], ["ALL"], []),
    ],
)
def test_capabilities_that_are_added_and_dropped(add: list[str], drop: list[str], expected: list[str]) -> None:
    sets = bundle.capability_sets(add, drop, privileged=False)
    assert sets == {"bounding": expected, "effective": expected, "permitted": expected}


def test_privileged_has_all_capabilities_and_none_are_inherited() -> None:
    assert bundle.capability_sets([], ["ALL"], privileged=True) == dict.fromkeys(
        ("bounding", "effective", "permitted"), ALL
    )


@pytest.mark.parametrize("name", ["NONSENSE", "", "CAP_", "SYS ADMIN", "CAP_CAP_CHOWN"])
def test_a_capability_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"invalid capability: {name}"):
        bundle.capability_sets([name], [], privileged=False)
    with pytest.raises(InvalidInput, match=f"invalid capability: {name}"):
        bundle.capability_sets([], [name], privileged=False)


# --- the process


def test_the_process_is_what_was_asked_for(bundled: Bundled) -> None:
    process = bundled(
        command=("a", "b"),
        user="u:g",
        working_directory="/w",
        environment=("A=1",),
        ulimits=(("nofile", 10, 20),),
        oom_score=7,
        no_new_privileges=True,
        hostname="h",
    )["process"]
    assert (process["args"], process["user"], process["cwd"]) == (["a", "b"], {"username": "u:g"}, "/w")
    assert process["env"] == ["PATH=/bin", "A=1", "HOSTNAME=h"]
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]
    assert (process["oomScoreAdj"], process["noNewPrivileges"]) == (7, True)


def test_a_hostname_in_the_environment_is_the_callers(bundled: Bundled) -> None:
    assert bundled(environment=("HOSTNAME=mine",))["process"]["env"] == ["PATH=/bin", "HOSTNAME=mine"]


def test_a_terminal_begins_with_the_size_of_the_callers(bundled: Bundled) -> None:
    assert bundled(terminal=True, window=(24, 80))["process"]["consoleSize"] == {"height": 24, "width": 80}
    assert "consoleSize" not in bundled(terminal=True)["process"]


# --- the root and the standard mounts


def test_the_top_layer_comes_first(bundled: Bundled, store: Store) -> None:
    config = bundled(layers=("base", "middle", "top"))
    lowers = mount_at(config, "/")["options"][0].removeprefix("lowerdir=").split(":")
    assert [[path.name for path in Path(lower).iterdir()] for lower in lowers] == [["top"], ["middle"], ["base"]]


def test_an_image_without_layers_has_an_empty_root(bundled: Bundled) -> None:
    [lower] = mount_at(bundled(layers=()), "/")["options"][0].removeprefix("lowerdir=").split(":")
    assert list(Path(lower).iterdir()) == []


@given(st.lists(st.text(st.sampled_from("a:,\\ ="), min_size=1), min_size=1))
def test_directories_come_out_of_overlayfs_options_as_they_went_in(paths: list[str]) -> None:
    options = f"lowerdir={':'.join(map(runtime.escape_overlay, paths))},userxattr"
    lower, flag = runtime.split_overlay(options, ",")
    parts = runtime.split_overlay(lower.removeprefix("lowerdir="), ":")
    assert (list(map(runtime.unescape_overlay, parts)), flag) == (paths, "userxattr")


def test_standard_mounts_come_before_the_users(bundled: Bundled) -> None:
    config = bundled(mounts=(MountOption("tmpfs", "", "/dev/x"), MountOption("tmpfs", "", "/proc/y")))
    order = [m["destination"] for m in config["mounts"]]
    assert order.index("/") == 0
    assert order.index("/dev") < order.index("/dev/shm") < order.index("/dev/x")
    assert order.index("/proc") < order.index("/proc/y")


def test_shm_has_the_size_that_was_asked_for(bundled: Bundled) -> None:
    assert "size=12345" in mount_at(bundled(shm_size=12345), "/dev/shm")["options"]


def test_what_tells_of_the_host_is_masked_unless_privileged(bundled: Bundled) -> None:
    assert bundled()["linux"]["maskedPaths"] == list(MASKED_PATHS)
    assert bundled()["linux"]["readonlyPaths"] == list(READONLY_PATHS)
    for option, value in (("privileged", True), ("unmasked_paths", ("ALL",))):
        linux = bundled(**{option: value})["linux"]
        assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], [])


def test_masks_are_added_and_taken_off_one_by_one(bundled: Bundled) -> None:
    linux = bundled(masked_paths=("/etc/secret",), unmasked_paths=("/sys/*", "/proc/sys", "/proc/kcore"))["linux"]
    kept = [path for path in MASKED_PATHS if not path.startswith("/sys/") and path != "/proc/kcore"]
    assert linux["maskedPaths"] == [*kept, "/etc/secret"]
    assert linux["readonlyPaths"] == [path for path in READONLY_PATHS if path != "/proc/sys"]


def test_name_files_are_the_containers_own_unless_the_user_mounts_others(bundled: Bundled, tmp_path: Path) -> None:
    (tmp_path / "hosts").touch()
    config = bundled(mounts=(MountOption("bind", str(tmp_path / "hosts"), "/etc/hosts"),))
    assert mount_at(config, "/etc/hosts")["source"] == str(tmp_path / "hosts")
    assert mount_at(config, "/etc/resolv.conf")["source"].endswith("/resolv.conf")


# --- the user's mounts


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (MountOption("bind", "", "/x"), ["rbind", "rprivate", "nosuid", "nodev"]),
        (MountOption("bind", "", "/x", read_only=True), ["rbind", "rprivate", "nosuid", "nodev", "rro"]),
        (MountOption("bind", "", "/x", options=("rshared",)), ["rbind", "rprivate", "nosuid", "nodev", "rshared"]),
        (
            MountOption("bind", "", "/x", read_only=True, options=("bind",)),
            ["rbind", "rprivate", "nosuid", "nodev", "bind", "ro"],
        ),
        (MountOption("volume", "v-1", "/x"), ["rbind", "rprivate", "nosuid", "nodev", "copyup"]),
        (MountOption("volume", "v-1", "/x", no_copy=True), ["rbind", "rprivate", "nosuid", "nodev"]),
        (MountOption("tmpfs", "", "/x"), ["noexec", "nosuid", "nodev"]),
        (
            MountOption("tmpfs", "", "/x", options=("exec", "size=1m"), read_only=True),
            ["noexec", "nosuid", "nodev", "exec", "size=1m", "ro"],
        ),
    ],
)
def test_options_of_mounts(option: MountOption, expected: list[str], bundled: Bundled, tmp_path: Path) -> None:
    if option.type == "bind":
        option = option._replace(source=str(tmp_path))
    assert mount_at(bundled(mounts=(option,)), "/x")["options"] == expected


def test_a_device_is_a_bind_of_the_hosts(bundled: Bundled) -> None:
    config = bundled(devices=(DeviceOption("/dev/null", "/dev/mine", "r"),))
    found = mount_at(config, "/dev/mine")
    assert (found["source"], found["options"]) == ("/dev/null", ["rbind", "rprivate", "ro"])


def test_what_is_no_device_is_refused(bundled: Bundled) -> None:
    with pytest.raises(HostUnsupported, match="'/dev/nonexistent': No such file"):
        bundled(devices=(DeviceOption("/dev/nonexistent", "/dev/x"),))
    with pytest.raises(InvalidInput, match="/etc/passwd is not a device node"):
        bundled(devices=(DeviceOption("/etc/passwd", "/dev/x"),))


# --- namespaces


def test_every_namespace_is_the_containers_own(bundled: Bundled) -> None:
    expected = dict.fromkeys(("mount", "cgroup", "pid", "ipc", "uts", "network"), "")
    assert namespaces(bundled()) == expected


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "network"])
def test_a_namespace_of_the_host_is_left_out(kind: str, bundled: Bundled) -> None:
    config = bundled(**({"networks": (NetworkOption("host"),)} if kind == "network" else {kind: "host"}))
    assert kind not in namespaces(config)
    assert ("hostname" in config) == (kind != "uts")


def test_a_namespace_of_another_container_is_joined_while_that_runs(bundled: Bundled, store: Store) -> None:
    other = store.add_container(None, "other")
    with pytest.raises(Conflict, match="cannot join the namespaces of container other: it is not running"):
        bundled(pid="container:other")
    with store.running(other):
        assert namespaces(bundled(networks=(NetworkOption("container:other"),)))["network"] == "/proc/0/ns/net"


@pytest.mark.parametrize("option", ["pid", "ipc", "uts"])
def test_a_namespace_that_does_not_exist_is_refused(option: str, bundled: Bundled) -> None:
    with pytest.raises(InvalidInput, match=f"invalid {option} mode: nonsense"):
        bundled(**{option: "nonsense"})


# --- networks


def test_a_network_of_its_own_lets_everybody_in_it_ping_and_use_low_ports(bundled: Bundled) -> None:
    sysctl = bundled(sysctls=(("net.ipv4.ip_forward", "1"),))["linux"]["sysctl"]
    assert sysctl.pop("net.ipv4.ping_group_range").startswith("0 ")
    assert sysctl == {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ip_forward": "1"}
    asked = (("net.ipv4.ip_unprivileged_port_start", "1024"),)
    assert bundled(sysctls=asked)["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "1024"
    assert bundled(networks=(NetworkOption("host"),))["linux"]["sysctl"] == {}
    assert bundled(mounts=(MountOption("tmpfs", "", "/proc/sys"),))["linux"]["sysctl"] == {}


def test_with_another_containers_network_come_its_names(bundled: Bundled, store: Store) -> None:
    other = store.add_container(None, "other")
    with store.running(other):
        config = bundled(networks=(NetworkOption("container:other"),))
    directory = store.engine.containers.directory(other)
    assert [mount_at(config, f"/etc/{name}")["source"] for name in ("hosts", "hostname", "resolv.conf")] == [
        f"{directory}/{name}" for name in ("hosts", "hostname", "resolv.conf")
    ]
    assert config["hostname"] == other[:12]


def test_what_tells_how_hot_processors_are_is_masked_where_it_is(
    bundled: Bundled, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "/sys/devices/system/cpu/cpu{}/thermal_throttle"
    is_directory = os.path.isdir
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.path.isdir", lambda p: p == place.format(1) if "thermal" in str(p) else is_directory(p))
    masked = bundled()["linux"]["maskedPaths"]
    assert set(masked) - set(MASKED_PATHS) == {place.format(1)}
    assert bundled(privileged=True)["linux"]["maskedPaths"] == []


def test_the_filter_is_by_what_the_container_may(bundled: Bundled) -> None:
    def names(**options: Any) -> set[str]:
        section = bundled(**options)["linux"]["seccomp"]
        return {n for entry in section["syscalls"] if not entry.get("args") for n in entry["names"]}

    usual = names()
    assert {"read", "chroot", "ptrace"} <= usual
    assert not usual & {"mount", "bpf", "reboot"}
    assert {"mount", "setns"} <= names(cap_add=("SYS_ADMIN",))
    assert "chroot" not in names(cap_drop=("ALL",))
    assert "mount" in names(privileged=True, seccomp="builtin")
    for options in ({"privileged": True}, {"seccomp": "unconfined"}):
        assert "seccomp" not in bundled(**options)["linux"]
