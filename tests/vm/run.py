"""Run the tests marked `vm` in a virtual machine: `python -m tests.vm.run [PYTEST'S ARGUMENTS]`, or `make test-vm`.

The machine has two disks. The first is Debian (image.py), and what is written to it is forgotten. The second is made
anew for each run and holds this tree with its .venv, which the guest mounts at the same path as here, so that the
programs in .venv find what they point at. Output comes back through a virtio port, with the exit status as the last
line. There is no network.
"""

import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.debian import NoDebian
from tests.vm.image import Image, image

TREE = Path(__file__).resolve().parent.parent.parent
LIMIT = int(os.environ.get("ROOTLESS_VM_TIMEOUT", "900"))  # seconds, from power on to power off
# Emulation works on every machine; /dev/kvm may be there and hang, where this is a virtual machine already.
ACCEL = os.environ.get("ROOTLESS_VM_ACCEL", "tcg,thread=multi")
STATUS = "exit status of the tests: "
LEFT_OUT = shutil.ignore_patterns(".git", ".*_cache", ".hypothesis", "__pycache__", "mypy", "mypyc", "ruff", "pip")

# Root's part. runuser(1) with --login opens a session through PAM, as sshd would: logind makes the runtime directory
# and starts the user's own systemd. A port takes one opener at a time.
START = """\
exec >/dev/virtio-ports/results 2>&1
mkdir -p {tree} && mount --bind /srv/rootless {tree} &&
    runuser --login {user} --shell /bin/sh --command {command}
echo "{status}$?"
"""


def tree_disk(directory: Path, arguments: Sequence[str]) -> Path:
    """A disk with this tree, and in /.vm/start the script that the guest runs as root."""
    staged = directory / "tree"
    shutil.copytree(TREE, staged, symlinks=True, ignore=LEFT_OUT)
    tests = shlex.join([".venv/bin/python", "-m", "pytest", "-m", "vm", "-p", "no:cacheprovider", *arguments])
    words = {
        "tree": str(TREE),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "command": f"cd {shlex.quote(str(TREE))} && {tests}",
    }
    start = START.format(status=STATUS, **{name: shlex.quote(word) for name, word in words.items()})
    (staged / ".vm").mkdir()
    (staged / ".vm/start").write_text(start)
    disk = directory / "tree.img"
    owner = f"root_owner={os.getuid()}:{os.getgid()}"
    make = ["mke2fs", "-q", "-t", "ext4", "-E", f"{owner},lazy_itable_init=1", "-d", str(staged), str(disk), "1G"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    shutil.rmtree(staged)
    return disk


def qemu(machine: Image, tree: Path, console: Path) -> list[str]:
    """The command line of the virtual machine."""
    disks = ["-drive", f"file={machine.disk},if=virtio,format=raw,snapshot=on"]
    disks += ["-drive", f"file={tree},if=virtio,format=raw,snapshot=on"]
    results = ["-chardev", "file,id=results,path=/dev/stdout", "-device", "virtio-serial-pci"]
    results += ["-device", "virtserialport,chardev=results,name=results"]
    return [
        *("timeout", "--kill-after=10", str(LIMIT)),
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
        *("-accel", ACCEL, "-cpu", "host" if ACCEL.startswith("kvm") else "max", "-smp", "2", "-m", "2048"),
        *("-kernel", str(machine.kernel), "-initrd", str(machine.initrd)),
        *(
            "-append",
            "root=/dev/vda rw quiet console=ttyS0 panic=-1 mitigations=off systemd.journald.forward_to_console=1",
        ),
        *("-serial", f"file:{console}", "-device", "virtio-rng-pci"),
        *disks,
        *results,
    ]


def boot(machine: Image, tree: Path, console: Path) -> int:
    """Run the machine until it switches itself off, showing what comes out; return the exit status of the tests."""
    status = ""
    with subprocess.Popen(
        qemu(machine, tree, console), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            if line.startswith(STATUS):
                status = line.removeprefix(STATUS).strip()
            else:
                print(line, end="", flush=True)
    if status.isdigit():
        return int(status)
    print(f"the virtual machine ended without a result (qemu: {process.returncode}); its console:", file=sys.stderr)
    print(console.read_text(errors="replace")[-5000:] if console.exists() else "nothing", file=sys.stderr)
    return 1


def main() -> None:
    if not Path(sys.executable).resolve().is_relative_to("/usr/bin"):
        sys.exit("make test-vm takes a .venv made with Debian's own python3, for the guest to have the same")
    try:
        machine = image()
    except NoDebian as why:
        sys.exit(f"no virtual machine: {why}")
    with tempfile.TemporaryDirectory(prefix="rootless-vm-") as directory:
        tree = tree_disk(Path(directory), sys.argv[1:])
        sys.exit(boot(machine, tree, Path(directory, "console.log")))


if __name__ == "__main__":
    main()
