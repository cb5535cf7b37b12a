"""Programs that call an OCI runtime: podman with conmon for real, and Slurm by the commands of its oci.conf."""

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oci.commands import ROOT, Runtime, make_script
from tests.support.podman import Podman

pytestmark = pytest.mark.kernel


class PodmanOfOurs(Podman):
    """podman whose runtime is rootless-oci, by the lines that docs/oci.md has for containers.conf."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "localhost:1")
        script = make_script(directory / "rootless-oci")
        engine = next(block for block in fenced("oci.md") if "[engine.runtimes]" in block)
        engine = engine.replace("/usr/local/bin/rootless-oci", str(script))
        conf = directory / ".config/containers/containers.conf"
        conf.write_text(conf.read_text().replace("[engine]\n", engine.partition("[engine.runtimes]")[0])
                        + "[engine.runtimes]" + engine.partition("[engine.runtimes]")[2])  # fmt: skip

    def status(self, *args: str) -> tuple[int, str]:
        done = subprocess.run(["podman", *args], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=120)  # fmt: skip
        return done.returncode, done.stdout


def fenced(page: str) -> list[str]:
    """The blocks of a page of docs/."""
    text = (ROOT / "docs" / page).read_text()
    return re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    made = Runtime(tmp_path_factory.mktemp("oci"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def podman(runtime: Runtime) -> Iterator[PodmanOfOurs]:
    if not Podman.is_here():
        pytest.skip("podman is not installed")
    made = PodmanOfOurs(Path(tempfile.mkdtemp(prefix="podman")))
    archive = runtime.bundle / "rootfs.tar"
    subprocess.run(["tar", "-C", str(runtime.bundle / "rootfs"), "-cf", str(archive), "."], check=True)
    made.run("import", str(archive), "busybox")
    yield made
    made.close()
    shutil.rmtree(made.directory)


def test_podman_runs_containers_to_their_end(podman: PodmanOfOurs) -> None:
    run = ("run", "--rm", "--network", "none")
    assert podman.status(*run, "busybox", "sh", "-c", "echo hi; exit 3") == (3, "hi\n")
    assert podman.status(*run, "busybox", "/nothing")[0] == 127
    assert podman.status(*run, "busybox", "/file")[0] == 126
    assert podman.status(*run, "-u", "5:6", "--read-only", "busybox", "sh", "-c", "id; echo > /x") == (
        1, "uid=5(5) gid=6(6) groups=6(6)\n")  # fmt: skip
    assert "terminal" in podman.run(*run, "-t", "busybox", "sh", "-c", "test -t 1 && echo terminal")


def test_podman_has_a_container_in_the_background(podman: PodmanOfOurs) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo begun; while :; do sleep 0.1; done"
    podman.run("run", "-d", "--name", "back", "--network", "none", "busybox", "sh", "-c", script)
    deadline = time.monotonic() + 60
    while "begun" not in podman.run("logs", "back"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert podman.status("exec", "back", "sh", "-c", "echo in; exit 4") == (4, "in\n")
    assert podman.status("exec", "back", "/nothing")[0] == 127
    assert "terminal" in podman.run("exec", "-t", "back", "sh", "-c", "test -t 0 && echo terminal")
    podman.run("stop", "-t", "30", "back")
    assert podman.run("wait", "back") == "5\n"
    assert podman.run("logs", "back") == "begun\nbye\n"
    podman.run("rm", "back")
    podman.run("create", "--name", "killed", "--network", "none", "busybox", "sleep", "600")
    podman.run("start", "killed")
    podman.run("kill", "killed")
    assert podman.run("wait", "killed") == "137\n"
    podman.run("rm", "killed")


def slurm(runtime: Runtime, key: str, bundle: Path) -> list[str]:
    """The command of *key* in the oci.conf of docs/oci.md, as slurmstepd fills it in (oci.conf(5))."""
    block = next(b for b in fenced("oci.md") if "RunTimeQuery" in b)
    pattern = dict(re.findall(r'^(\w+)="(.*)"$', block, re.MULTILINE))[key]
    values = {"%b": str(bundle), "%U": "0", "%n": "node", "%u": "user", "%j": "7", "%s": "0", "%t": "1"}
    for mark, value in values.items():
        pattern = pattern.replace(mark, value)
    words = pattern.split()
    assert words[0] == "rootless-oci"
    return [str(runtime.script), *(w.replace("/run/user/0/", f"{runtime.root}/") for w in words[1:])]


def test_slurm_runs_a_step_by_its_oci_conf(runtime: Runtime) -> None:
    runtime.configure("/bin/sh", "-c", "echo step; exec sleep 600")
    output = runtime.bundle / "output"
    with output.open("wb") as stdout:
        subprocess.run(slurm(runtime, "RunTimeCreate", runtime.bundle), env=runtime.env, stdin=subprocess.DEVNULL,
                       stdout=stdout, stderr=stdout, check=True, timeout=60)  # fmt: skip

    def call(key: str) -> str:
        return subprocess.run(slurm(runtime, key, runtime.bundle), env=runtime.env, capture_output=True, text=True,
                              check=True, timeout=60).stdout  # fmt: skip

    def status() -> str:
        return str(json.loads(call("RunTimeQuery"))["status"])

    assert status() == "created"
    call("RunTimeStart")
    assert status() == "running"
    call("RunTimeKill")
    call("RunTimeDelete")
    assert output.read_text() == "step\n"
    assert runtime.names() == []
