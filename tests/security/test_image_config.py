"""Everything in an image's config is text that somebody else wrote: it decides nothing but what runs inside."""

import json
import subprocess
from typing import Any

import pytest

from tests.support.account import wait_until
from tests.support.canary import SECRET
from tests.support.fault_registry import FaultRegistry
from tests.support.hostile import Box, busybox, no_traceback, running, serve, tools

pytestmark = pytest.mark.kernel

RUN = ("run", "--rm", "--quiet")


# Environment (B11, CVE-2026-57231, CVE-2021-3602)

MALFORMED = [
    "SECRET",
    "SECRE*",
    "*",
    "",
    "=",
    "=x",
    "PATH",
    "HOME",
    "A\0B=c",
    "B=c\0SECRET",
    "C=two\nlines",
    "D==",
    "E F=g",
]


def test_the_callers_environment_never_gets_in(box: Box, hostile: FaultRegistry) -> None:  # B11
    healthy = {"Test": ["CMD-SHELL", "env > /health.new; mv /health.new /health"], "Interval": 20_000_000}
    image = serve(hostile, busybox(), config={"Env": MALFORMED, "Healthcheck": healthy})
    environment = {
        **box.rootless.env,
        "SECRET": SECRET.decode(),
        "SECRETS": SECRET.decode(),
        "PATH": "/usr/bin:/canary",
    }

    def run(*args: str) -> str:
        done = subprocess.run(box.rootless.command(*args), env=environment, capture_output=True, text=True, timeout=20)
        assert "Traceback" not in done.stderr
        return done.stdout

    seen = [run(*RUN, image, "env")]
    container = run("run", "-d", image, "sleep", "600").strip()
    try:
        seen.append(run("exec", container, "env"))
        assert wait_until(lambda: run("exec", container, "cat", "/health"))
        seen.append(run("exec", container, "cat", "/health"))
        seen.append(run("inspect", container))
    finally:
        run("rm", "-f", container)
    for output in seen:
        assert SECRET.decode() not in output
        assert "canary" not in output
    for output in seen[:3]:
        names = {line.partition("=")[0] for line in output.splitlines()}
        assert names <= {"C", "lines", "D", "E F", "PATH", "HOME", "HOSTNAME", "PWD", "SHLVL", "OLDPWD", "TERM"}


# What looks like an order to us (B12)

KEYS = {
    "org.rootless.groups": "0,42",
    "org.rootless.privileged": "true",
    "run.oci.handler": "krun",
    "run.oci.keep_original_groups": "1",
    "run.oci.hooks.stdout": "/tmp/x",
    "io.podman.annotations.privileged": "TRUE",
    "io.podman.annotations.seccomp": "unconfined",
    "io.containers.capabilities": "SYS_ADMIN",
    "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel": "true",
    "com.docker.compose.project": "x",
    "privileged": "true",
}
UNKNOWN = {
    "Privileged": True,
    "HostConfig": {"Privileged": True, "Binds": ["/:/host"], "NetworkMode": "host", "CapAdd": ["ALL"]},
    "Mounts": [{"Type": "bind", "Source": "/", "Destination": "/host"}],
    "Binds": ["/:/host"],
    "CapAdd": ["ALL"],
    "SecurityOpt": ["systempaths=unconfined"],
    "NetworkMode": "host",
    "PidMode": "host",
    "mounts": [{"type": "bind", "source": "/", "destination": "/host"}],
    "privileged": True,
    "cap_add": ["ALL"],
    "unmasked_paths": ["ALL"],
    "devices": [["/dev/null", "/dev/x", "rwm"]],
    "auto_remove": False,
    "AttachStdin": True,
    "Tty": True,
    "OpenStdin": True,
    "Hostname": "evil",
    "Domainname": "evil",
    "MacAddress": "00:00:00:00:00:01",
    "NetworkDisabled": False,
}
TOP_LEVEL = {
    "host_config": UNKNOWN["HostConfig"],
    "privileged": True,
    "annotations": KEYS,
    "HostConfig": {"Privileged": 1},
}


OF_EACH = ("id", "created", "image", "image_id", "layers", "labels")


def description(box: Box, image: str) -> dict[str, Any]:
    """The whole record of a container of *image*, but for what every container has of its own."""
    container = box.rootless.run("create", "--name", "same", "--hostname", "same", image, "true").stdout.strip()
    path = box.rootless.data / "rootless/containers" / container / "container.json"
    record: dict[str, Any] = json.loads(path.read_text())
    box.rootless.run("rm", container)
    return {key: value for key, value in record.items() if key not in OF_EACH}


def test_labels_annotations_and_unknown_keys_change_nothing(box: Box, hostile: FaultRegistry) -> None:  # B12
    plain = serve(hostile, busybox(), tools())
    evil = serve(hostile, busybox(), tools(), config={**UNKNOWN, "Labels": KEYS}, changes=TOP_LEVEL)
    for name in (plain, evil):
        box.rootless.run("pull", "-q", name)
    described = description(box, plain)
    assert len(described) > 30
    assert description(box, evil) == described
    look = "cat /proc/self/status | grep -E '^(Cap|NoNew|Groups|Seccomp)'; grep -c . /proc/self/mountinfo; ls -d /host"
    seen = [box.rootless.run(*RUN, name, "sh", "-c", f"{look} 2>&1; true").stdout for name in (plain, evil)]
    assert seen[0] == seen[1]
    assert "CapEff:\t00000000a80425fb" in seen[1]


def test_labels_are_kept_as_they_are(box: Box, hostile: FaultRegistry) -> None:  # B12, Y01
    labels = {"a\nb": "c\x1b[31m\n", "é": "'\"\\$(id)", "x": "y" * 65536, "": "no name"}
    image = serve(hostile, busybox(), config={"Labels": labels})
    with running(box.rootless, image) as container:
        [document] = json.loads(box.rootless.run("inspect", container).stdout)
    assert labels.items() <= document["Config"]["Labels"].items()


# Values that make no sense

NONSENSE: dict[str, Any] = {
    "StopSignal": "SIGEVIL",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1},
    "Entrypoint": ["\0"],
    "Cmd": ["x" * 200_000],
    "User": "0:0:0",
    "WorkingDir": "/" + "x" * 5000,
    "Volumes": {"": {}},
    "ExposedPorts": {"../../x": {}},
}
WRONG_TYPES: dict[str, Any] = {
    "Env": "PATH=/",
    "Cmd": {"0": "sh"},
    "Labels": ["a=b"],
    "Volumes": ["/x"],
    "User": 0,
    "Healthcheck": {"Test": "true", "Interval": 1e400},
    "Entrypoint": [["sh"]],
}


@pytest.mark.parametrize("key", NONSENSE)
def test_nonsense_is_an_error_or_nothing(box: Box, hostile: FaultRegistry, key: str) -> None:
    image = serve(hostile, busybox(), config={key: NONSENSE[key]})
    command = [] if key in ("Entrypoint", "Cmd") else ["true"]
    status, said = no_traceback(box.rootless, *RUN, image, *command)
    assert status in (0, 125, 126, 127), said
    assert "Errno" not in said


@pytest.mark.parametrize("key", WRONG_TYPES)
def test_a_config_of_other_types_is_refused_when_it_is_pulled(box: Box, hostile: FaultRegistry, key: str) -> None:
    image = serve(hostile, busybox(), config={key: WRONG_TYPES[key]})
    status, said = no_traceback(box.rootless, "pull", "-q", image)
    assert status == 1, said


def test_a_health_check_without_a_pause_does_not_occupy_the_machine(box: Box, hostile: FaultRegistry) -> None:
    """An interval of a nanosecond, which only an image can ask for: Docker takes a millisecond or more."""
    image = serve(hostile, busybox(), config={"Healthcheck": {"Test": ["CMD", "true"], "Interval": 1}})
    status, said = no_traceback(box.rootless, "run", "--rm", "--quiet", image, "true")
    assert status == 125
    assert "cannot be less than 1ms" in said
