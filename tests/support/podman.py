"""podman as the peer: an installation of its own in a temporary directory, without control groups, as ours is."""

import shutil
import subprocess
from pathlib import Path

_CONTAINERS = '[containers]\ncgroups = "disabled"\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
_STORAGE = '[storage]\ndriver = "overlay"\n'


class Podman:
    """podman with all its state below *directory*."""

    def __init__(self, directory: Path, registry_host: str) -> None:
        self.directory = directory
        config = directory / ".config" / "containers"
        config.mkdir(parents=True)
        (directory / "run").mkdir(mode=0o700)
        (directory / "tmp").mkdir()
        (config / "containers.conf").write_text(_CONTAINERS)
        (config / "storage.conf").write_text(_STORAGE)
        (config / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry_host}"\ninsecure = true\n')
        self.env = {
            "HOME": str(directory),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "TMPDIR": str(directory / "tmp"),  # its cache mounts would be in /var/tmp, in one directory for all users
            "XDG_RUNTIME_DIR": str(directory / "run"),
        }
        if Path("/sys/fs/cgroup/unified").is_dir():
            # crun refuses a machine with both versions; podman's own mount namespace can show it the second alone.
            self.run("unshare", "mount", "--bind", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")

    @staticmethod
    def is_here() -> bool:
        return shutil.which("podman") is not None

    def run(self, *args: str) -> str:
        """podman ARGS, which must succeed."""
        done = subprocess.run(
            ["podman", *args], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
        if done.returncode != 0:
            raise AssertionError(f"podman {' '.join(args)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def close(self) -> None:
        """End what runs, and remove everything, which takes podman's own user namespace."""
        for command in ("rm -af -t 0", "system reset -f"):
            subprocess.run(["podman", *command.split()], env=self.env, capture_output=True)
