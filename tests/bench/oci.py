"""The bar of rootless-oci: `run` of a busybox bundle against crun and runc.

All three as root of one user namespace, as below podman: crun and runc would make one for each container otherwise, and
crun wants control groups of version 2 alone.

    python -m tests.bench.oci
"""

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.measure import HEADING, Result, timed
from tests.oci import rig
from tests.oci.commands import make_script
from tests.oci.corpus import Case

_ROUNDS = 25
_BARS = {"crun": 12.0, "runc": 1.0}


def main(directory: Path) -> int:
    """To be run in the namespace: prints the results; the exit status."""
    rig.make_bundle(directory / "bundle")
    config = rig.configuration(Case("true"), directory / "bundle")
    config["process"]["args"] = ["/bin/true"]
    (directory / "bundle/config.json").write_text(json.dumps(config))
    commands = {**rig.RUNTIMES, "rootless": [str(make_script(directory / "rootless-oci"))]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(_ROUNDS + 1):
        for name, command in commands.items():
            words = [*command, "--root", str(directory / name), "run", "--bundle", str(directory / "bundle"), "bench"]
            seconds = timed(lambda words=words: subprocess.run(words, check=True, stdin=subprocess.DEVNULL))  # type: ignore[misc]
            if number:  # the first one warms up
                times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    results = [Result(f"oci run, against {p}", medians["rootless"], medians[p], bar) for p, bar in _BARS.items()]
    print(HEADING, *results, sep="\n")
    return 0 if all(result.passed for result in results) else 1


def enter() -> int:
    """The same, from outside."""
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        inner = shlex.join([sys.executable, "-m", "tests.bench.oci", directory])
        script = f"mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup 2>/dev/null; {inner}"
        return subprocess.call(["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "sh", "-c", script])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) if len(sys.argv) > 1 else enter())
