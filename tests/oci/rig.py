"""Runs the corpus by rootless-oci, crun and runc, as root of a user namespace, and brings back what was seen inside.

The three get the same bundles there. crun refuses a machine with both versions of control groups, so the mount
namespace shows version 2 alone; none of the three makes a control group.
"""

import copy
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rootless.cli.oci_documents import example
from tests.oci.corpus import ALL, CASES, Case

RUNTIMES = {
    "rootless": [sys.executable, "-c", "from rootless.cli.oci import main; main()"],
    "crun": ["crun", "--cgroup-manager=disabled"],
    "runc": ["runc"],
}
_APPLETS = "sh cat ls sed grep readlink env sort ionice nice umask hostname uname mount rm wc tr true false sleep id"
_KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_SHOW = r"""
section() { echo "## $1"; }
section ids; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|Cpus_allowed_list)' /proc/self/status
section limits; cat /proc/self/limits
section mounts; cat /proc/self/mountinfo
section fds; for fd in /proc/$$/fd/*; do echo ${fd##*/}; done
section dev; ls -ln /dev
section process; umask; echo $PWD; cat /proc/self/oom_score_adj; ionice -p $$
sed -n 's/^\(policy\|prio\) *: *//p' /proc/self/sched
section environment; env | grep -v -E '^(SHLVL|PWD|OLDPWD|_)=' | sort
section namespaces; for kind in KINDS; do readlink /proc/self/ns/$kind; done
section extra
"""


def make_bundle(directory: Path) -> None:
    """What all configurations share."""
    root = directory / "rootfs"
    for name in ("bin", "proc", "sys", "dev", "data/sub", "tree/sub"):
        (root / name).mkdir(parents=True)
    busybox = Path("/bin/busybox").read_bytes()
    (root / "bin/busybox").write_bytes(busybox)
    (root / "bin/busybox").chmod(0o755)
    for name in _APPLETS.split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "data/file").write_text("of the image")
    (root / "tree/sub/file").write_text("deep")
    (root / "file").write_text("no program")
    (root / "link").symlink_to("tree")
    (root / "out").symlink_to("../../..")
    source = directory / "source"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_text("of the host: text")
    (source / "symlink").symlink_to("file")


def configuration(case: Case, bundle: Path) -> dict[str, Any]:
    """The config.json of *case*."""
    config = example()
    config["ociVersion"] = "1.0.2"
    config["mounts"] = [copy.deepcopy(m) for m in config["mounts"] if m["type"] != "cgroup"]
    config["linux"]["namespaces"] = [{"type": kind} for kind in ALL]
    config["process"]["env"] = ["PATH=/bin", "HOME=/"]
    script = _SHOW.replace("KINDS", " ".join(_KINDS)) + case.extra
    config["process"]["args"] = ["/bin/sh", "-c", script]
    for path, value in case.changes:
        _change(config, path, value)
    text = json.dumps(config)
    return dict(json.loads(text.replace("@/", f"{bundle}/")))


def _change(config: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    place: Any = config
    for name in above:
        place = place.setdefault(name, {})
    if last.endswith("+"):
        place[last[:-1]].append(value)
    elif last.endswith("-"):
        place[last[:-1]] = [m for m in place[last[:-1]] if not m["destination"].startswith(value)]
    elif value is None:
        place.pop(last, None)
    else:
        place[last] = value


def run_all(directory: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """By runtime and case: {"status", "sections", "stderr", "log"}."""
    inner = f"mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup 2>/dev/null; exec {shlex.join(_self(directory))}"
    command = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "sh", "-c", inner]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def _self(directory: Path) -> list[str]:
    return [sys.executable, "-m", "tests.oci.rig", str(directory)]


def _run(runtime: str, number: int, directory: Path) -> dict[str, Any]:
    case, bundle = CASES[number], directory / runtime / str(number)
    bundle.mkdir(parents=True)
    make_bundle(bundle)
    (bundle / "config.json").write_text(json.dumps(configuration(case, bundle)))
    state = directory / runtime / "state"
    command = [*RUNTIMES[runtime], "--root", str(state), "run", "--bundle", str(bundle), f"case{number}"]
    env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(directory / "run"), "HOME": str(directory)}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
                          cwd=Path(__file__).parent.parent.parent)  # fmt: skip
    log = bundle / "log"
    return {
        "status": done.returncode,
        "sections": sections(done.stdout.decode(errors="replace"), str(bundle)),
        "stderr": done.stderr.decode(errors="replace"),
        "log": log.read_text() if log.exists() else "",
        "left": sorted(os.listdir(state)) if state.exists() and runtime == "rootless" else [],
    }


def sections(output: str, bundle: str) -> dict[str, list[str]]:
    """The parts of what was printed, without what differs from one run to the next."""
    found: dict[str, list[str]] = {}
    name = "extra"
    for line in output.replace(bundle, "@").splitlines():
        if line.startswith("## "):
            name = line[3:]
        else:
            found.setdefault(name, []).append(line)
    for name, normal in _NORMAL.items():
        if name in found:
            found[name] = normal(found[name])
    return found


# How these are hidden, or shown, is the runtime's own choice: options, size, read-only or not.
_BY_PATH = (
    "/proc/",
    "/sys/",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/fuse",
)


def _mounts(lines: list[str]) -> list[str]:
    """Where, of what, options, propagation, type; and of the file system what the configuration said."""
    rows = []
    for line in lines:
        left, right = (half.split() for half in line.split(" - "))
        root, point, options = left[3:6]
        propagation = sorted({field.partition(":")[0] for field in left[6:]})
        if point.startswith(_BY_PATH):
            rows.append(f"{point} {right[0]}")
            continue
        own = [o for o in right[2].split(",") if re.match(r"(size|mode|ptmxmode)=", o)] if right[0] == "tmpfs" else []
        rows.append(
            f"{point} {root[root.find('@') :] if '@' in root else root} {options} {propagation} {right[0]} {own}"
        )
    return sorted(rows)


def _dev(lines: list[str]) -> list[str]:
    """Modes, owners, numbers and targets, without sizes, times, and crun's link to /proc/kcore."""
    short = [re.sub(r"^(\S+) +\d+ (\d+ +\d+) +(\d+, *\d+)?.*:\d\d (.*)$", r"\1 \2 \3 \4", line) for line in lines[1:]]
    return sorted(line for line in short if "/proc/kcore" not in line)


def _namespaces(lines: list[str]) -> list[str]:
    own = {f"{kind}:[{os.stat(f'/proc/self/ns/{kind}').st_ino}]" for kind in _KINDS}
    return [f"{line.partition(':')[0]}: {'ours' if line in own else 'its own'}" for line in lines]


_NORMAL = {"mounts": _mounts, "dev": _dev, "namespaces": _namespaces}


def _main(directory: Path) -> None:
    (directory / "run").mkdir(mode=0o700)
    jobs = [(runtime, number) for number in range(len(CASES)) for runtime in RUNTIMES]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda job: _run(job[0], job[1], directory), jobs))
    found: dict[str, dict[str, Any]] = {runtime: {} for runtime in RUNTIMES}
    for (runtime, number), result in zip(jobs, results, strict=True):
        found[runtime][CASES[number].name] = result
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
