"""rootless-oci for tests: a script that others can be given as a runtime, and a bundle of busybox."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from rootless.cli.oci_documents import example
from tests.oci import rig

ROOT = Path(__file__).resolve().parent.parent.parent


def make_script(path: Path) -> Path:
    """An executable that is rootless-oci."""
    lines = [f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(ROOT)!r})"]
    path.write_text("\n".join([*lines, "from rootless.cli.oci import main", "main()", ""]))
    path.chmod(0o755)
    return path


class Runtime:
    """rootless-oci with a root and an environment of its own, and one bundle."""

    def __init__(self, directory: Path) -> None:
        self.script = make_script(directory / "rootless-oci")
        self.root = directory / "state"
        self.bundle = directory / "bundle"
        self.bundle.mkdir()
        rig.make_bundle(self.bundle)
        run = directory / "run"
        run.mkdir(mode=0o700)
        self.env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR": str(run), "HOME": str(directory)}

    def command(self, *words: str) -> list[str]:
        return [str(self.script), "--root", str(self.root), *words]

    def try_run(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        return subprocess.run(self.command(*words), env=self.env, text=True, timeout=60, cwd=self.bundle, **options)

    def run(self, *words: str, **options: Any) -> str:
        """What a command that must succeed prints."""
        done = self.try_run(*words, **options)
        assert done.returncode == 0, done.stderr
        return str(done.stdout or "")

    def create(self, container_id: str, *arguments: str, **options: Any) -> None:
        """A container that waits for start; its output goes to /dev/null, as it outlives the command."""
        self.configure(*arguments)
        self.run("create", container_id, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)

    def begin(self, container_id: str, *arguments: str) -> None:
        """A container that runs."""
        self.create(container_id, *arguments)
        self.run("start", container_id)

    def configure(self, *arguments: str, **changes: Any) -> None:
        """Write config.json."""
        config = example()
        config["mounts"] = [m for m in config["mounts"] if m["type"] != "cgroup"]
        config["process"].update(args=list(arguments), env=["PATH=/bin"], **changes)
        (self.bundle / "config.json").write_text(json.dumps(config))

    def status(self, container_id: str) -> str:
        return str(json.loads(self.run("state", container_id))["status"])

    def names(self) -> list[str]:
        return self.run("list", "-q").split()

    def close(self) -> None:
        """End all containers, and the sleeper that keeps the user's namespace, which was begun for us."""
        for name in self.names():
            self.run("delete", "--force", name)
        namespace = Path(self.env["XDG_RUNTIME_DIR"], "rootless", "namespace")
        if namespace.exists():
            os.kill(int(namespace.read_text().split()[0]), signal.SIGKILL)
