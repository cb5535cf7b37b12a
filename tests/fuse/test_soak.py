"""A union in use for long: what its server takes of memory and descriptors does not grow.

Several programs work side by side in one mount, again and again: git clones, commits and packs; tar unpacks a tree over
one of the lower layer; make compiles with two jobs; pip installs a package. Each removes what it has made, so that the
kernel forgets those files. ROOTLESS_TEST_LONG has it go on for ten minutes, ROOTLESS_SOAK_SECONDS for as long as that
says; otherwise it is a few rounds, to see that it works.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.support.fuse import Union, union
from tests.support.hostile import LONG

pytestmark = [pytest.mark.kernel, pytest.mark.fuse]

SECONDS = int(os.environ.get("ROOTLESS_SOAK_SECONDS", "600" if LONG else "6"))
WARM = 0.3  # of the time, until all caches are as full as they get
GROWTH = 2048  # KiB that the server may take more afterwards
FILES = 400

GIT = """
    git clone -q --no-hardlinks "$1/repository" clone
    cd clone; git config user.email a@b; git config user.name a
    for n in 1 2 3; do git mv -k dir$n moved$n; echo $n >>file1; git add -A; git commit -q -m $n; done
    git gc -q --aggressive --prune=now; git fsck --no-progress; git checkout -q HEAD~2; cd ..
    rm -rf clone
"""
TAR = """
    tar -cf - -C "$1/tree" . | tar -xf - -C tree; find tree -type f | wc -l >/dev/null
    chmod -R g+w tree; tar -cf copy.tar tree; mkdir other; tar -xf copy.tar -C other; mv other/tree other/renamed
    rm -rf copy.tar other tree/dir1 tree/dir2; cp -a "$1/tree/dir1" "$1/tree/dir2" tree
"""
MAKE = """
    cp -a "$1/sources" build; make -s -C build -j2; build/program; make -s -C build clean; make -s -C build -j2
    rm -rf build
"""
PIP = """
    "$PYTHON" -m pip install -q --no-index --no-deps --no-cache-dir --disable-pip-version-check --target site "$1"/*.whl
    PYTHONPATH=site "$PYTHON" -c 'import soaked.module1'
    rm -rf site
"""
SPECIAL = """
    for n in 1 2 3 4 5 6 7 8; do mkfifo p$n; ln tree/file$n l$n; ln -s l$n s$n; mv tree/file$n f$n; echo x >>l$n; done
    exec 3>kept; rm kept; echo x >&3; exec 3>&-; truncate -s 1G big; rm -f p? l? s? big
    for n in f?; do mv $n tree; done
    cd tree; for n in f?; do mv $n file${n#f}; done
"""
WORK = {"git": GIT, "tar": TAR, "make": MAKE, "pip": PIP, "special": SPECIAL}
LOOP = 'set -eu; mkdir -p "$0"; cd "$0"; while [ ! -e ../stop ]; do\n(%s)\necho >>"$1/$0.rounds"; done'


@pytest.mark.timeout(SECONDS + 300)
def test_the_server_takes_no_more_after_long_use() -> None:
    tree: dict[str, str | bytes | None] = {
        f"{top}/tree/{place}file{n}": f"{place}{n}\n" * 50
        for top in ("tar", "special")
        for place in ("", *(f"dir{d}/" for d in range(4)))
        for n in range(FILES // 5)
    }
    with union([tree], mounted=False) as u:
        place = str(u.base / "material")
        kinds = u.call(make_material, place)
        u.mount()
        seen: list[tuple[int, int]] = []
        try:
            u.call(start_work, u.at(), place, kinds)
            look(u, place, kinds, seen)
            assert u.call(end_work, u.at()) == dict.fromkeys(kinds, 0), u.log()
        finally:
            u.call(kill_work)
        seen.append(u.call(taken, u.server or 0))
        report(rounds(place, kinds), seen)
        assert u.log() == ""
    cold = [memory for memory, _ in seen[int(len(seen) * WARM) :]]
    files = [descriptors for _, descriptors in seen[int(len(seen) * WARM) :]]
    if SECONDS >= 120:
        third = len(cold) // 3
        assert max(cold[-third:]) <= max(cold[:third]) + GROWTH, cold
        assert max(files[-third:]) <= max(files[:third]) * 1.2 + 20, files


def look(u: Union, place: str, kinds: list[str], seen: list[tuple[int, int]]) -> None:
    """Note what the server takes, again and again, until the time is over and each has done a round."""
    end = time.monotonic() + SECONDS
    while (left := end - time.monotonic()) > 0 or not all(rounds(place, kinds).values()):
        time.sleep(min(max(left, 0.2), SECONDS / 60))
        seen.append(u.call(taken, u.server or 0))
        assert u.call(failures) == {}


def rounds(place: str, kinds: list[str]) -> dict[str, int]:
    """How many rounds each worker has done."""
    paths = {kind: Path(place, f"{kind}.rounds") for kind in kinds}
    return {kind: path.stat().st_size if path.exists() else 0 for kind, path in paths.items()}


def report(done: dict[str, int], seen: list[tuple[int, int]]) -> None:
    """Where ROOTLESS_SOAK_REPORT says: rounds, and memory in KiB and descriptors at each look."""
    if path := os.environ.get("ROOTLESS_SOAK_REPORT"):
        with open(path, "w", encoding="ascii") as file:
            json.dump({"seconds": SECONDS, "rounds": done, "seen": seen}, file)


# In the namespace

_workers: dict[str, "subprocess.Popen[bytes]"] = {}


def make_material(place: str) -> list[str]:
    """What the workers begin with; those that there are programs for."""
    os.makedirs(f"{place}/sources")
    for name in ("tree", "repository"):
        for number in range(FILES // 4):
            path = f"{place}/{name}/dir{number % 4}/sub{number % 8}/file{number}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as file:
                file.write(f"line of {number}\n" * 100)
    kinds = ["tar", "special"]
    if shutil.which("git"):
        kinds.append("git")
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "all")):
            subprocess.run(["git", *words], cwd=f"{place}/repository", check=True)
    if shutil.which("make") and shutil.which("cc"):
        kinds.append("make")
        _write_sources(f"{place}/sources")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        kinds.append("pip")
        _write_wheel(place)
    return kinds


def _write_sources(place: str) -> None:
    count = 12
    for number in range(count):
        with open(f"{place}/f{number}.c", "w", encoding="ascii") as file:
            file.write(f"int f{number}(void) {{ return {number}; }}\n")
    with open(f"{place}/main.c", "w", encoding="ascii") as file:
        file.write("".join(f"int f{n}(void);\n" for n in range(count)))
        file.write("int main(void) { return f0(); }\n")
    with open(f"{place}/Makefile", "w", encoding="ascii") as file:
        objects = " ".join(f"f{n}.o" for n in range(count))
        file.write(f"program: main.o {objects}\n\tcc -o $@ $^\nclean:\n\trm -f *.o program\n")


def _write_wheel(place: str) -> None:
    information = "soaked-1.dist-info"
    with zipfile.ZipFile(f"{place}/soaked-1-py3-none-any.whl", "w") as file:
        names = [f"soaked/module{number}.py" for number in range(100)]
        for name in names:
            file.writestr(name, f"'''{name}'''\n" * 20)
        file.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: soaked\nVersion: 1\n")
        file.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{information}/RECORD", "".join(f"{name},,\n" for name in names))


def start_work(merged: str, place: str, kinds: list[str]) -> None:
    """A shell for each of *kinds* that begins again and again, in a directory of its own."""
    env = {**os.environ, "PYTHON": sys.executable, "HOME": place, "TMPDIR": place, "PYTHONDONTWRITEBYTECODE": ""}
    for kind in kinds:
        with open(f"{place}/{kind}.log", "wb") as log:
            _workers[kind] = subprocess.Popen(
                ["sh", "-c", LOOP % WORK[kind], kind, place],
                cwd=merged,
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    _logs.append(place)


_logs: list[str] = []


def failures() -> dict[str, str]:
    """Of workers that have ended: the last that each said."""
    ended = [kind for kind, worker in _workers.items() if worker.poll() is not None]
    return {kind: _tail(f"{_logs[-1]}/{kind}.log") for kind in ended}


def _tail(path: str) -> str:
    with open(path, encoding="utf-8", errors="backslashreplace") as file:
        return file.read()[-2000:]


def end_work(merged: str) -> dict[str, int]:
    """Have each end its round and leave; their exit statuses."""
    os.close(os.open(f"{merged}/stop", os.O_CREAT | os.O_WRONLY))
    statuses = {kind: worker.wait(120) for kind, worker in _workers.items()}
    _workers.clear()
    return statuses


def kill_work() -> None:
    """End those that have not."""
    for worker in _workers.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    _workers.clear()


def taken(group: int) -> tuple[int, int]:
    """Memory that the server's processes have for themselves, in KiB, and how many descriptors."""
    memory = descriptors = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(name)) == group:
                with open(f"/proc/{name}/status", encoding="ascii") as file:
                    memory += next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
                descriptors += len(os.listdir(f"/proc/{name}/fd"))
        except (ProcessLookupError, FileNotFoundError, StopIteration):
            continue
    return memory, descriptors
