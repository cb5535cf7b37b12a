"""The virtual machine's disk: this machine's Debian with systemd, a kernel, and the user who runs the tests.

Made without root, by mmdebstrap and mke2fs, and kept in the user's cache under a hash of everything that goes into it.
"""

import fcntl
import hashlib
import os
import platform
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.debian import bootstrap
from tests.support.images import cache_directory

HERE = Path(__file__).resolve().parent
PACKAGES = (
    "busybox-static",
    "dbus-user-session",
    "fuse3",
    "iproute2",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "procps",
    "python3",
    "strace",
    "systemd-sysv",
    "udev",
    "uidmap",
)
# An initrd that can mount the root and no more: there is less to unpack at each boot.
SMALL_INITRD = """\
--essential-hook=cd "$1" && mkdir -p etc/initramfs-tools/conf.d usr/share/initramfs-tools/modules.d &&
    echo MODULES=list >etc/initramfs-tools/conf.d/small &&
    printf 'virtio_pci\\nvirtio_blk\\next4\\n' >usr/share/initramfs-tools/modules.d/small"""


@dataclass(frozen=True, slots=True)
class Image:
    """What a virtual machine boots from."""

    disk: Path
    kernel: Path
    initrd: Path


def recipe() -> str:
    """All that the image is made of, as text."""
    user = pwd.getpwuid(os.getuid())
    files = [path for path in sorted(HERE.rglob("*")) if path.name == "make-disk" or "guest" in path.parts]
    contents = [f"{path.name}: {path.read_text()}" for path in files if path.is_file()]
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    return "\n".join([release, *PACKAGES, SMALL_INITRD, f"{user.pw_name} {user.pw_uid} {user.pw_gid}", *contents])


def image() -> Image:
    """The image of this recipe; made now if the cache does not have it. Raises NoDebian, CalledProcessError."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / f"vm-{hashlib.sha256(recipe().encode()).hexdigest()[:16]}"
    with (cache / "vm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            remove(*cache.glob("vm-*"))
            aside = cache / "vm-new"
            aside.mkdir()
            build(aside)
            aside.rename(place)
    return Image(place / "disk.img", place / "vmlinuz", place / "initrd")


def build(directory: Path) -> None:
    """Make disk.img, vmlinuz and initrd in *directory*."""
    user = pwd.getpwuid(os.getuid())
    tar = directory / "debian.tar"
    bootstrap(tar, include=PACKAGES, more=[SMALL_INITRD])
    own = [user.pw_name, str(user.pw_uid), str(user.pw_gid)]
    subprocess.run(
        [*namespace(), str(HERE / "make-disk"), str(tar), str(directory), *own],
        check=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    tar.unlink()


def remove(*directories: Path) -> None:
    """Delete images of older recipes, and what a killed build left, which belongs to subordinate ids."""
    for directory in directories:
        subprocess.run([*namespace(), "rm", "-rf", "--", str(directory)], check=True)


def namespace() -> list[str]:
    """Runs a command as root of a user namespace with a range of ids: unshare(1)."""
    return [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--map-auto", "--"]
