"""From options and an image's config to the record of a container: who has the last word on what."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless.engine.create import build_record, create, environment, health_record, stop_signal
from rootless.engine.options import ContainerOptions, HealthOption, MountOption, NetworkOption
from rootless.errors import Conflict, InvalidInput, NotFound
from rootless.spec.image import Healthcheck, RuntimeConfig
from rootless.store.containers import Record
from tests.support.store import Store

ID = "0123456789ab" + "c" * 52
SECOND = 1_000_000_000
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTLESS_CONFIG", str(tmp_path / "none.toml"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for name in ("root", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    return Store(tmp_path / "root", tmp_path / "run")


Create = Callable[..., Record]


@pytest.fixture
def created(store: Store) -> Create:
    """`created({"User": "x"}, name="y")` creates a container of an image with that config."""

    def create_container(config: dict[str, Any] | None = None, **options: Any) -> Record:
        image = store.add_image(config=config)
        return create(store.engine, ContainerOptions(image.id, **options))

    return create_container


def record(config: RuntimeConfig | None = None, **options: Any) -> Record:
    return build_record(ContainerOptions("i", **options), config or RuntimeConfig(cmd=("sh",)), ID, "name", None)


# --- the program


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        ({"cmd": ("a", "b")}, {}, ["a", "b"]),
        ({"entrypoint": ("e",), "cmd": ("a",)}, {}, ["e", "a"]),
        ({"entrypoint": ("e",), "cmd": ("a",)}, {"command": ("x",)}, ["e", "x"]),
        ({"entrypoint": ("e",), "cmd": ("a",)}, {"entrypoint": ("f",)}, ["f"]),
        ({"entrypoint": ("e",), "cmd": ("a",)}, {"entrypoint": ("f",), "command": ("x",)}, ["f", "x"]),
        ({"entrypoint": ("e",), "cmd": ("a",)}, {"entrypoint": (), "command": ("x",)}, ["x"]),
        ({}, {}, ["/bin/sh"]),  # of the image `host`
    ],
)
def test_the_program(image: dict[str, Any], options: dict[str, Any], expected: list[str]) -> None:
    made = record(RuntimeConfig(**image), **options)
    assert [*made["entrypoint"], *made["command"]] == expected


def test_a_container_of_nothing_to_run_is_refused(created: Create) -> None:
    with pytest.raises(InvalidInput, match="no command specified"):
        created({"Cmd": None})
    with pytest.raises(InvalidInput, match="no command specified"):
        created({"Cmd": ["sh"]}, entrypoint=())


# --- its environment


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        ((), (), [PATH]),
        (("PATH=/bin", "A=1"), (), ["PATH=/bin", "A=1"]),
        (("A=1",), ("A=2",), [PATH, "A=2"]),
        (("A=1", "B=2"), ("A",), [PATH, "B=2"]),
        ((), ("A=1", "A=2", "A="), [PATH, "A="]),
        ((), ("A=b=c", "E=ü\ufeff"), [PATH, "A=b=c", "E=ü\ufeff"]),
        ((), ("PATH",), []),
    ],
)
def test_the_environment(image: tuple[str, ...], options: tuple[str, ...], expected: list[str]) -> None:
    assert environment(ContainerOptions("i", environment=options), RuntimeConfig(env=image)) == expected


def test_a_terminal_has_a_type() -> None:
    assert environment(ContainerOptions("i", terminal=True), RuntimeConfig()) == [PATH, "TERM=xterm"]
    chosen = ContainerOptions("i", terminal=True, environment=("TERM=dumb",))
    assert environment(chosen, RuntimeConfig(env=("TERM=vt100",))) == [PATH, "TERM=dumb"]


# --- other fields of which both sides have a say


@pytest.mark.parametrize(
    ("field", "image", "option", "expected"),
    [
        ("user", {"user": "u:g"}, {}, "u:g"),
        ("user", {"user": "u:g"}, {"user": "5"}, "5"),
        ("user", {"user": "u:g"}, {"user": ""}, ""),
        ("working_directory", {}, {}, "/"),
        ("working_directory", {"working_dir": "/w"}, {}, "/w"),
        ("working_directory", {"working_dir": "/w"}, {"working_directory": "/v"}, "/v"),
        ("labels", {"labels": {"a": "1", "b": "2"}}, {"labels": (("a", "3"),)}, {"a": "3", "b": "2"}),
        ("hostname", {}, {}, ID[:12]),
        ("hostname", {}, {"hostname": "h"}, "h"),
        ("stop_signal", {"stop_signal": "SIGINT"}, {}, 2),
        ("stop_signal", {"stop_signal": "SIGINT"}, {"stop_signal": 1}, 1),
        ("stop_timeout", {}, {}, 10),
        ("stop_timeout", {}, {"stop_timeout": 0}, 0),
        ("stop_timeout", {}, {"stop_timeout": -1}, -1),
        ("network", {}, {}, "bridge"),
        ("network", {}, {"networks": (NetworkOption("host"),)}, "host"),
        ("log", {}, {"log_driver": "local"}, {"driver": "json-file", "options": {}}),
    ],
)
def test_the_option_has_the_last_word(
    field: str, image: dict[str, Any], option: dict[str, Any], expected: object
) -> None:
    assert record(RuntimeConfig(cmd=("sh",), **image), **option)[field] == expected


def test_the_configuration_says_which_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text('[run]\nnetwork = "host"\n')
    monkeypatch.setenv("ROOTLESS_CONFIG", str(tmp_path / "config.toml"))
    assert record()["network"] == "host"
    assert record(networks=(NetworkOption("none"),))["network"] == "none"


def test_a_stop_signal_that_is_none_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="invalid signal: SIGNONE"):
        stop_signal(ContainerOptions("i"), RuntimeConfig(stop_signal="SIGNONE"))


IMAGE_CHECK = Healthcheck(("CMD", "check"), 7 * SECOND, 0, 2 * SECOND, 0, 5)


@pytest.mark.parametrize(
    ("option", "image", "expected"),
    [
        (HealthOption(), None, None),
        (HealthOption(), Healthcheck(("NONE",), 0, 0, 0, 0, 0), None),
        (HealthOption(disabled=True), IMAGE_CHECK, None),
        (HealthOption(), IMAGE_CHECK, (["CMD", "check"], 7, 30, 2, 5, 5)),
        (HealthOption("other"), IMAGE_CHECK, (["CMD-SHELL", "other"], 7, 30, 2, 5, 5)),
        (HealthOption("mine"), None, (["CMD-SHELL", "mine"], 30, 30, 0, 5, 3)),
        (
            HealthOption(None, SECOND, 2 * SECOND, 3 * SECOND, 4 * SECOND, 9),
            IMAGE_CHECK,
            (["CMD", "check"], 1, 2, 3, 4, 9),
        ),
        (HealthOption(None, interval=SECOND), None, None),
    ],
)
def test_the_health_check(option: HealthOption, image: Healthcheck | None, expected: tuple[object, ...] | None) -> None:
    found = health_record(option, image)
    names = ("interval", "timeout", "start_period", "start_interval")
    values = found and (found["test"], *(found[name] // SECOND for name in names), found["retries"])
    assert values == expected


# --- what cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "-x"}, "Invalid container name"),
        ({"name": "x"}, "Invalid container name"),
        ({"name": "../../x"}, "Invalid container name"),
        ({"name": "a\nb"}, "Invalid container name"),
        ({"name": "a\n"}, "Invalid container name"),
        ({"name": "é" * 3}, "Invalid container name"),
        ({"name": "a" * 300}, "Invalid container name"),
        ({"auto_remove": True, "restart": "always"}, "cannot specify both --restart and --rm"),
        ({"restart": "sometimes"}, "invalid restart policy 'sometimes'"),
        ({"log_driver": "syslog"}, "no log driver named 'syslog'"),
        ({"hostname": "a b"}, "invalid hostname"),
        ({"hostname": "a" * 65}, "invalid hostname"),
        ({"mounts": (MountOption("bind", "/nonexistent/x", "/a"),)}, "bind source path does not exist"),
        ({"mounts": (MountOption("tmpfs", "", "/a"), MountOption("tmpfs", "", "/a/"))}, "Duplicate mount point: /a"),
        ({"mounts": (MountOption("tmpfs", "", "a"),)}, "mount path must be absolute"),
        ({"mounts": (MountOption("tmpfs", "", "/a/.."),)}, "destination can't be '/'"),
        ({"mounts": (MountOption("volume", "../x", "/a"),)}, "invalid characters for a local volume name"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    options: dict[str, Any], message: str, store: Store, created: Create
) -> None:
    with pytest.raises(InvalidInput, match=message):
        created(**options)
    assert store.engine.containers.list() == []
    assert os.listdir(store.root / "names") == []


def test_a_network_that_nobody_has_made_is_not_found_and_leaves_nothing(store: Store, created: Create) -> None:
    with pytest.raises(NotFound, match="network web not found"):
        created(networks=(NetworkOption("web"),))
    assert store.engine.containers.list() == []
    assert os.listdir(store.root / "names") == []


# --- names


def test_a_name_in_use_is_refused_and_says_by_whom(created: Create, store: Store) -> None:
    first = created(name="web")
    with pytest.raises(Conflict, match=f'"/web" is already in use by container "{first["id"]}"'):
        created(name="web")
    assert store.engine.containers.list() == [first["id"]]
    assert store.engine.containers.find("web") == first["id"]


def test_a_name_left_by_a_kill_is_free(created: Create, store: Store) -> None:
    os.symlink("f" * 64, store.root / "names/web")
    assert created(name="web")["name"] == "web"


def test_a_name_is_taken_while_its_container_is_being_made(created: Create, store: Store) -> None:
    with store.engine.containers.lock("f" * 64):
        os.symlink("f" * 64, store.root / "names/web")
        with pytest.raises(Conflict, match='"/web" is already in use'):
            created(name="web")


def test_names_that_are_made_up_differ(created: Create) -> None:
    names = [created()["name"] for _ in range(30)]
    assert len(set(names)) == 30
    assert all(name.islower() and name.count("_") == 1 for name in names)


# --- mounts


def mounts_of(made: Record) -> list[tuple[str, str]]:
    return [(mount["type"], mount["destination"]) for mount in made["mounts"]]


def test_mounts_are_done_from_the_root_down(created: Create) -> None:
    options = [MountOption("tmpfs", "", path) for path in ("/z/a", "/b/c/d", "/z", "/b")]
    assert [path for _, path in mounts_of(created(mounts=tuple(options)))] == ["/b", "/z", "/z/a", "/b/c/d"]


def test_volumes_of_the_image_are_anonymous_unless_something_is_mounted_there(created: Create, tmp_path: Path) -> None:
    options = (MountOption("bind", str(tmp_path), "/bound"), MountOption("volume", "named", "/named/"))
    made = created({"Volumes": {"/own": {}, "/bound": {}, "/named": {}}}, mounts=options)
    assert mounts_of(made) == [("bind", "/bound"), ("volume", "/named"), ("volume", "/own")]
    assert [(m["anonymous"], m["copy"]) for m in made["mounts"]] == [(False, False), (False, True), (True, True)]


def test_volumes_that_something_is_mounted_over_are_not_made(created: Create, store: Store, tmp_path: Path) -> None:
    created({"Volumes": {"/bound": {}}}, mounts=(MountOption("bind", str(tmp_path), "/bound"),))
    assert store.engine.volumes.list() == []


@pytest.mark.parametrize(
    "options",
    [
        {"mounts": (MountOption("volume", "", "/a"), MountOption("bind", "/nonexistent/x", "/b"))},
        {"mounts": (MountOption("volume", "", "/a"), MountOption("volume", "a/b", "/b"))},
        {"cidfile": "/nonexistent/cid", "mounts": (MountOption("volume", "", "/a"),)},
        {"mounts": (MountOption("bind", "/proc/none", "/b", create_source=True),)},
    ],
)
def test_nothing_is_left_of_a_container_that_could_not_be_made(
    options: dict[str, Any], created: Create, store: Store
) -> None:
    with pytest.raises(InvalidInput):
        created({"Volumes": {"/own": {}}}, **options)
    assert store.engine.volumes.list() == []
    assert [os.listdir(store.root / name) for name in ("trash", "names", "containers")] == [[], [], []]
    assert [name for name in os.listdir(store.run / "locks") if name.startswith("container.")] == []


def test_what_a_kill_left_is_swept_away(created: Create, store: Store) -> None:
    left = created(name="left")
    kept = created(name="kept")
    os.mkdir(store.engine.containers.run_directory(left["id"]))
    os.rename(store.engine.containers.directory(left["id"]), store.root / "trash/1.left")
    with store.engine.containers.lock("f" * 64):  # one that is being made
        os.symlink("f" * 64, store.root / "names/being-made")
        store.engine.containers.sweep()
        assert sorted(os.listdir(store.root / "names")) == ["being-made", "kept"]
    store.engine.containers.sweep()
    assert os.listdir(store.root / "names") == ["kept"]
    assert os.listdir(store.run / "containers") == []
    assert [n for n in os.listdir(store.run / "locks") if n.startswith("container.")] == [f"container.{kept['id']}"]


def test_volumes_from_another_container_are_its_volumes_and_binds(created: Create, tmp_path: Path) -> None:
    mounts = (
        MountOption("bind", str(tmp_path), "/bound"),
        MountOption("volume", "named", "/named"),
        MountOption("tmpfs", "", "/memory"),
    )
    other = created({"Volumes": {"/own": {}}}, mounts=mounts, name="other")
    made = created(volumes_from=("other:ro",))
    assert mounts_of(made) == [("bind", "/bound"), ("volume", "/named"), ("volume", "/own")]
    assert [m["source"] for m in made["mounts"]] == [m["source"] for m in other["mounts"] if m["type"] != "tmpfs"]
    assert all(m["read_only"] and not m["anonymous"] for m in made["mounts"])


def test_volumes_from_nobody_or_in_no_known_way_are_refused(created: Create) -> None:
    created(name="other")
    with pytest.raises(InvalidInput, match="invalid mode for volumes-from: rx"):
        created(volumes_from=("other:rx",))
    with pytest.raises(Exception, match="No such container: nobody"):
        created(volumes_from=("nobody",))


def test_a_source_that_is_missing_is_made_where_that_is_wanted(created: Create, tmp_path: Path) -> None:
    created(mounts=(MountOption("bind", str(tmp_path / "new/one"), "/a", create_source=True),))
    assert (tmp_path / "new/one").is_dir()


def test_cidfile_gets_the_id_and_is_never_overwritten(created: Create, tmp_path: Path) -> None:
    cidfile = tmp_path / "cid"
    made = created(cidfile=str(cidfile))
    assert cidfile.read_text() == made["id"]
    with pytest.raises(Conflict, match="container ID file found"):
        created(cidfile=str(cidfile))
    assert cidfile.read_text() == made["id"]
