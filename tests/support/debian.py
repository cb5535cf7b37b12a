"""Debian root file systems made by mmdebstrap, as an ordinary user, from the mirrors that this machine itself uses."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

FIELDS = "$(REPO_URI) $(CODENAME) $(COMPONENT)|$(ORIGIN)"


class NoDebian(Exception):
    """Debian cannot be made here; the message says why."""


def sources() -> list[str]:
    """This machine's repositories of its own distribution, as lines of a sources.list. Raises NoDebian."""
    own = platform.freedesktop_os_release()["ID"]  # "debian"; apt's origin is spelled "Debian"
    command = ["apt-get", "indextargets", "--format", FIELDS, "Created-By: Packages"]
    try:
        known = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise NoDebian(f"apt does not tell its repositories: {error}") from error
    lines = [f"deb {where}" for where, _, origin in (line.partition("|") for line in known) if origin.lower() == own]
    if not lines:
        raise NoDebian(f"apt has no repository of {own}, or `apt-get update` never ran")
    return lines


def options() -> list[str]:
    """What this machine tells apt about proxies, certificates and dates, for the apt that mmdebstrap runs."""
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    dump = subprocess.run(["apt-config", "dump", "Acquire"], check=True, capture_output=True, text=True).stdout
    return [f"--aptopt={line}" for line in dump.splitlines() if line.startswith(wanted) and not line.endswith(' "";')]


def bootstrap(target: Path, *, include: Sequence[str] = (), more: Sequence[str] = ()) -> None:
    """Write a minimal Debian with the packages *include* to *target*, a tar file. Raises NoDebian."""
    command = ["mmdebstrap", "--mode=unshare", "--variant=minbase", "--quiet", *options(), *more]
    if include:
        command.append(f"--include={','.join(include)}")
    command += [platform.freedesktop_os_release()["VERSION_CODENAME"], str(target), *sources()]
    passed_on = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        done = subprocess.run(
            command, env={"PATH": path, "TMPDIR": "/tmp", **passed_on}, capture_output=True, text=True, timeout=900
        )
    except FileNotFoundError as error:
        raise NoDebian("mmdebstrap is not installed") from error
    if done.returncode != 0:
        raise NoDebian(f"mmdebstrap failed: {done.stderr[-2000:]}")
