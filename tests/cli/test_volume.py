"""The commands about volumes, as somebody types them."""

import json

import pytest

from tests.support.account import Installation
from tests.support.store import Store


@pytest.fixture
def store(rootless: Installation) -> Store:
    return Store(rootless.data / "rootless", rootless.runtime / "rootless")


def make(rootless: Installation, *names: str) -> None:
    for name in names:
        assert rootless.run("volume", "create", name).stdout == f"{name}\n"


def test_volumes_are_in_dockers_columns(rootless: Installation) -> None:
    assert rootless.run("volume", "ls").stdout == "DRIVER    VOLUME NAME\n"
    make(rootless, "v10", "v2", "a")
    assert rootless.run("volume", "ls").stdout.splitlines() == [
        "DRIVER    VOLUME NAME",
        "local     a",
        "local     v2",
        "local     v10",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-q"], ["back", "front"]),
        (["-q", "-f", "name=fro"], ["front"]),
        (["-q", "-f", "name=^nt$"], []),
        (["-q", "-f", "label=tier"], ["back", "front"]),
        (["-q", "-f", "label=tier=back"], ["back"]),
        (["-q", "-f", "driver=local"], ["back", "front"]),
        (["-q", "-f", "driver=nfs"], []),
        (["-q", "-f", "dangling=true"], ["front"]),
        (["-q", "-f", "dangling=false"], ["back"]),
        (["--format", "{{.Name}} {{.Labels}} {{.Scope}}"], ["back tier=back,x= local", "front tier=front local"]),
        (["--format", "table {{.Name}}\\t{{.Size}}", "-f", "name=back"], ["VOLUME NAME   SIZE", "back          N/A"]),
    ],
)
def test_volumes_can_be_chosen_and_formatted(
    words: list[str], expected: list[str], rootless: Installation, store: Store
) -> None:
    rootless.run("volume", "create", "--label", "tier=back", "--label", "x", "back")
    rootless.run("volume", "create", "--label", "tier=front", "--name", "front")
    store.add_container(None, "user", volumes=["back"])
    assert rootless.run("volume", "ls", *words).stdout.splitlines() == expected


def test_volumes_as_json_have_dockers_keys(rootless: Installation) -> None:
    rootless.run("volume", "create", "--label", "b=2", "--label", "a=1", "data")
    row = json.loads(rootless.run("volume", "ls", "--format", "json").stdout)
    assert row.pop("Mountpoint").endswith("/volumes/data/data")
    assert row == {
        "Availability": "N/A",
        "Driver": "local",
        "Group": "N/A",
        "Labels": "a=1,b=2",
        "Links": "N/A",
        "Name": "data",
        "Scope": "local",
        "Size": "N/A",
        "Status": "N/A",
    }


def test_inspect_prints_a_list_also_of_none(rootless: Installation) -> None:
    make(rootless, "data")
    document = json.loads(rootless.run("volume", "inspect", "data").stdout)[0]
    assert list(document) == ["CreatedAt", "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope"]
    assert rootless.run("volume", "inspect", "-f", "{{.Mountpoint}}", "data").stdout == f"{document['Mountpoint']}\n"
    done = rootless.run("volume", "inspect", "nosuch", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "[]\n", "rootless: get nosuch: no such volume\n")


def test_rm_goes_on_after_a_failure(rootless: Installation, store: Store) -> None:
    make(rootless, "used", "free")
    user = store.add_container(None, "user", volumes=["used"])
    done = rootless.run("volume", "rm", "nosuch", "used", "free", check=False)
    assert (done.returncode, done.stdout) == (1, "free\n")
    assert done.stderr.splitlines() == [
        "rootless: get nosuch: no such volume",
        f"rootless: remove used: volume is in use - [{user}]",
    ]
    assert rootless.run("volume", "rm", "--force", "nosuch").stdout == "nosuch\n"
    assert rootless.run("volume", "ls", "-q").stdout == "used\n"


def test_prune_asks_first_and_tells_what_went(rootless: Installation, store: Store) -> None:
    anonymous = rootless.run("volume", "create").stdout.strip()
    make(rootless, "named", "used")
    store.add_container(None, "user", volumes=["used"])
    done = rootless.run("volume", "prune", input="\n")
    assert done.stdout == (
        "WARNING! This will remove anonymous local volumes not used by at least one container.\n"
        "Are you sure you want to continue? [y/N] "
    )
    done = rootless.run("volume", "prune", "--force")
    assert done.stdout == f"Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 0B\n"
    (store.root / "volumes/named/data/file").write_bytes(bytes(2000))
    done = rootless.run("volume", "prune", "--all", input="y\n")
    assert done.stdout.splitlines()[0] == (
        "WARNING! This will remove all local volumes not used by at least one container."
    )
    assert done.stdout.endswith("Deleted Volumes:\nnamed\n\nTotal reclaimed space: 2kB\n")
    assert rootless.run("volume", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    assert rootless.run("volume", "ls", "-q").stdout == "used\n"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["create", "--driver", "nfs", "x"], 1, 'plugin "nfs" not found'),
        (["create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m"], 1, "needs root to mount"),
        (["create", "--type", "mount", "x"], 1, "cluster volumes are not supported"),
        (["create", "../x"], 1, "invalid characters for a local volume name"),
        (["create", "--name", "x", "y"], 1, "conflicting options"),
        (["create", "--label", "=x"], 125, "empty name"),
        (["ls", "-f", "nope=1"], 1, "invalid filter 'nope'"),
        (["ls", "-f", "dangling=2"], 1, "invalid filter 'dangling=2'"),
        (["prune", "--all", "--filter", "all=1"], 1, "cannot specify both --all and --filter all=1"),
        (["prune", "--filter", "until=1h"], 1, "invalid filter 'until'"),
        (["rm"], 1, "requires at least 1 argument"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    words: list[str], status: int, message: str, rootless: Installation
) -> None:
    done = rootless.run("volume", *words, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert rootless.run("volume", "ls", "-q").stdout == ""


@pytest.mark.kernel
def test_a_container_sees_the_directory_that_a_volume_binds(rootless: Installation) -> None:
    device = rootless.home / "device"
    device.mkdir()
    (device / "file").write_text("mine")
    options = ["--opt", "type=none", "--opt", "o=bind", "--opt", f"device={device}"]
    rootless.run("volume", "create", *options, "data")
    done = rootless.run("run", "--rm", "-v", "data:/data", "host", "sh", "-c", "cat /data/file; echo new > /data/new")
    assert done.stdout == "mine"
    assert (device / "new").read_text() == "new\n"
    assert rootless.run("volume", "rm", "data").stdout == "data\n"
    assert sorted(path.name for path in device.iterdir()) == ["file", "new"]


@pytest.mark.kernel
def test_a_volume_with_files_of_other_users_is_removed_entirely(rootless: Installation, store: Store) -> None:
    make(rootless, "data")
    script = "mkdir -p /d/a/b && chown -R 7:7 /d/a && chmod 0 /d/a"
    rootless.run("run", "--rm", "-v", "data:/d", "host", "sh", "-c", script)
    assert rootless.run("volume", "rm", "data").stdout == "data\n"
    assert list((store.root / "trash").iterdir()) == []
    assert list((store.root / "volumes").iterdir()) == []
