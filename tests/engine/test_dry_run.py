"""run --dry-run: the configuration that `run` would give the runtime; and what inspect says of a container's walls."""

import json
import re
from typing import Any

import pytest

from tests.support.containers import Box

pytestmark = pytest.mark.kernel

OPTIONS = [
    [],
    ["-u", "1000:7", "-w", "/tmp", "-e", "A=b", "--read-only", "--init", "-t"],
    ["--privileged", "--network", "host"],
    ["--cap-drop", "ALL", "--cap-add", "SYS_PTRACE", "--security-opt", "no-new-privileges"],
    ["-v", "data:/data", "-v", "/data2", "-v", "/etc:/host:ro", "--tmpfs", "/tmp:size=1m", "--device", "/dev/zero"],
    ["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined", "--ulimit", "nofile=64"],
]  # fmt: skip


def normal(config: dict[str, Any]) -> Any:
    """Without what is each time another: ids, and the filter's program."""
    config["linux"].get("seccomp", {}).pop("compiled", None)
    return json.loads(re.sub(r"[0-9a-f]{64}|[0-9a-f]{12}\b", "ID", json.dumps(config)))


@pytest.mark.parametrize("options", OPTIONS)
def test_it_prints_what_the_runtime_would_get(box: Box, options: list[str]) -> None:
    files = sorted(str(path) for path in box.store.rglob("*"))
    shown = json.loads(box("run", "--dry-run", *options, box.image, "sleep", "600").stdout)
    assert sorted(str(path) for path in box.store.rglob("*")) == files
    box("run", "-d", "--name", "one", *options, box.image, "sleep", "600")
    real = json.loads((box.store / "containers" / box.inspect("one")["Id"] / "config.json").read_text())
    assert normal(shown) == normal(real)


def test_of_the_machine_s_own_root_too(box: Box) -> None:
    shown = json.loads(box("run", "--dry-run", "host", "true").stdout)
    assert shown["process"]["args"] == ["true"]
    assert box.ids() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch/image:1", "true"], "No such image: nosuch/image:1"),
        (["--cap-add", "NONSENSE", "host"], "invalid capability: NONSENSE"),
        (["-v", "/no/where:relative", "host"], "mount path must be absolute"),
        (["--network", "nosuch", "host"], "network nosuch not found"),
    ],
)
def test_what_would_fail_fails(box: Box, words: list[str], said: str) -> None:
    done = box("run", "--dry-run", *words, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert said in done.stderr


def test_inspect_says_what_holds(box: Box) -> None:
    box("create", "--name", "plain", box.image)
    plain = box.inspect("plain")
    assert plain["HostConfig"]["SecurityOpt"] is None
    assert {"/proc/kcore", "/proc/interrupts", "/sys/firmware"} <= set(plain["HostConfig"]["MaskedPaths"])
    assert "/proc/sys" in plain["HostConfig"]["ReadonlyPaths"]
    assert plain["Security"] == {
        "Capabilities": plain["Security"]["Capabilities"],
        "NoNewPrivileges": False,
        "Seccomp": "builtin",
        "AppArmorProfile": "",
        "SELinuxLabel": "",
        "MaskedPaths": True,
        "ReadonlyPaths": True,
        "UserNamespace": "the user's",
        "Uids": [],
        "Gids": [],
        "SharedNamespaces": {},
        "WritableRoot": True,
        "WritableHostPaths": [],
        "Devices": [],
        "Privileged": False,
    }
    assert len(plain["Security"]["Capabilities"]) == 14
    box("create", "--name", "open", "--privileged", "--pid", "host", "--read-only", box.image)
    opened = box.inspect("open")
    assert opened["HostConfig"]["MaskedPaths"] == opened["HostConfig"]["ReadonlyPaths"] == []
    assert opened["Security"]["Seccomp"] == "unconfined"
    assert opened["Security"]["SharedNamespaces"] == {"pid": "host"}
    box("create", "--name", "said", "--privileged", "--security-opt", "seccomp=builtin", box.image)
    assert box.inspect("said")["Security"]["Seccomp"] == "builtin"
    assert box.inspect("said")["HostConfig"]["SecurityOpt"] == ["seccomp=builtin"]


def test_no_new_privileges_may_be_the_configurations(box: Box) -> None:
    path = box.installed.home / ".config/rootless/config.toml"
    before = path.read_text()
    path.write_text(before.replace("[run]\n", "[run]\nno_new_privileges = true\n"))
    try:
        assert "NoNewPrivs:\t1" in box.sh("cat /proc/self/status")
        assert "NoNewPrivs:\t0" in box.sh("cat /proc/self/status", "--security-opt", "no-new-privileges=false")
    finally:
        path.write_text(before)
    assert "NoNewPrivs:\t0" in box.sh("cat /proc/self/status")
