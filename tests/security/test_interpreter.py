"""Our own processes as a target: their program, their memory, their imports, what they load once they are inside."""

import errno
import hashlib
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from rootless.runtime import channel
from tests.support import probe
from tests.support.account import ROOT, Installation, installation, wait_until
from tests.support.canary import SECRET, Canary
from tests.support.fault_registry import FaultRegistry
from tests.support.hostile import LONG, busybox, packed, running, serve, tools
from tests.support.layout import directory, file

pytestmark = pytest.mark.kernel

needs_probe = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probe is written for x86_64 only")

LOADER = "lib64/ld-linux-x86-64.so.2"  # which the interpreter's ELF file names
ACCESS, W_OK, OPENAT, O_PATH, EXECVE = "21", "2", "257", "0x200000", "59"


class Installed(NamedTuple):
    """An installation, and the interpreter that it runs in."""

    rootless: Installation
    interpreter: Path
    image: str  # busybox and the exploit of CVE-2019-5736
    is_users: bool


@pytest.fixture(scope="module", params=["system's", "user's"])
def installed(
    request: pytest.FixtureRequest, hostile: FaultRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """Both ways: an interpreter that the user cannot write to, and a copy that belongs to the user."""
    image = serve(hostile, busybox(), tools(), exploit())
    with installation() as rootless:
        interpreter = Path(os.path.realpath(sys.executable))
        if request.param == "user's":
            interpreter = own_interpreter(tmp_path_factory.mktemp("venv"), rootless)
        elif os.access(interpreter, os.W_OK):
            pytest.skip("the interpreter of the tests is the user's own")
        rootless.run("pull", "-q", image)
        yield Installed(rootless, interpreter, image, request.param == "user's")


def exploit() -> bytes:
    """A program whose interpreter is whoever executes it, and a loader of ours for that."""
    try:
        loader = probe.program()
    except NotImplementedError:
        return packed([])
    script = file("exploit", b"#!/proc/self/exe\n", 0o755)
    return packed([script, directory("lib64"), file(LOADER, loader, 0o755)])


def own_interpreter(directory: Path, rootless: Installation) -> Path:
    """A virtual environment with a copy of the interpreter, and *rootless* run by it."""
    venv.create(directory, symlinks=False, with_pip=False)
    interpreter = Path(os.path.realpath(directory / "bin/python"))
    assert interpreter.stat().st_uid == os.geteuid()
    [packages] = directory.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(
        "\n".join([str(ROOT), *(path for path in sys.path if "site-packages" in path)])
    )
    program = directory / "bin/rootless"
    program.write_text(f"#!{interpreter}\nfrom rootless.cli.main import main\nmain()\n")
    program.chmod(0o755)
    rootless.program = program
    return interpreter


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The program (X01, CVE-2019-5736)

# While anything runs from the file, it is "busy" for who could write to it otherwise; access(2) tells of that at once.
OVERWRITE = """
readlink /proc/self/fd/3
n=0; while [ $n -lt 50 ]; do n=$((n+1)); { echo X >> /proc/self/fd/3; } 2> /tmp/error && echo WRITTEN; done
{ mount -o remount,rw,bind /proc/self/fd/3 && echo REMOUNTED; } 2> /dev/null
{ mount -o remount,rw /proc/self/fd/3 && echo REMOUNTED; } 2> /dev/null
{ echo X >> /proc/self/fd/3; } 2> /dev/null && echo WRITTEN
cat /tmp/error
"""


def attack() -> list[str]:
    """The exploit: hold the file that we run from, let another program take its place, and write."""
    hold = [(ACCESS, "=/proc/self/exe", W_OK), (OPENAT, "-100", "=/proc/self/exe", O_PATH)]
    return ["/exploit", *probe.calls(*hold, (EXECVE, "=/bin/sh", "*", "0")), ",", "sh", "-c"]


@needs_probe
@pytest.mark.parametrize("options", [[], ["--privileged"]], ids=["", "privileged"])
@pytest.mark.parametrize("verb", ["run", "exec", "init"])
def test_the_interpreter_cannot_be_overwritten(installed: Installed, verb: str, options: list[str]) -> None:  # X01
    before = digest(installed.interpreter)
    if verb == "exec":
        with running(installed.rootless, installed.image, *options) as container:
            said = installed.rootless.run("exec", container, *attack(), OVERWRITE, check=False).stdout
    else:
        options = [*options, *(["--init"] if verb == "init" else [])]
        said = installed.rootless.run(
            "run", "--rm", *options, installed.image, *attack(), OVERWRITE, check=False
        ).stdout
    assert "python" in said, "the exploit did not get hold of the interpreter: it proves nothing"
    [access, _] = probe.answers("".join(line for line in said.splitlines(keepends=True) if line.startswith(" ")))
    assert access.result == (-errno.EROFS if installed.is_users else -errno.EACCES)
    assert "WRITTEN" not in said
    assert "REMOUNTED" not in said
    assert digest(installed.interpreter) == before


WRITE_ALL = """
echo ready > /ready
while :; do for p in /proc/[0-9]*; do { echo X >> $p/exe; } 2> /dev/null && echo "$p" >> /written; done; done
"""


def test_a_container_that_lies_in_wait_overwrites_nothing(installed: Installed) -> None:  # X01
    before = digest(installed.interpreter)
    with running(installed.rootless, installed.image, command=["sh", "-c", WRITE_ALL]) as container:
        for _ in range(500 if LONG else 15):
            installed.rootless.run("exec", container, "true")
        if os.uname().machine == "x86_64":
            installed.rootless.run("exec", container, "/exploit", "39")
        said = installed.rootless.run("exec", container, "sh", "-c", "cat /ready /written 2>/dev/null; true").stdout
        assert said == "ready\n"
    assert digest(installed.interpreter) == before


# The process that joins (X02, CVE-2016-9962)

WATCH = """
while :; do for p in /proc/[0-9]*; do
  case $p in /proc/1|/proc/$$) continue;; esac
  echo "== $p"; cat $p/environ; echo; cat $p/maps $p/cmdline; ls -l $p/fd $p/cwd/ $p/exe
  cat $p/root/etc/hostname $p/root$1/file $p/cwd/file; head -c 64 $p/mem; { echo X >> $p/exe; } && echo WRITTEN
done; done > /seen 2> /dev/null
"""


def slowed(command: list[str], call: str, log: Path, milliseconds: int = 150) -> list[str]:
    """*command* under strace(1), each *call* of it and its children delayed."""
    inject = f"inject={call}:delay_enter={milliseconds}000"
    return ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", "-e", inject, "--", *command]


@pytest.mark.parametrize("call", ["capset", "close_range", "execve"])
def test_nothing_of_ours_can_be_seen_while_we_enter(installed: Installed, tmp_path: Path, call: str) -> None:  # X02
    """The container watches; the process that enters it stops at *call*, on its way, for as long as a look takes."""
    canary = Canary(tmp_path / "victim")
    environment = {**installed.rootless.env, "SECRET": SECRET.decode()}
    with running(installed.rootless, installed.image, command=["sh", "-c", WATCH, "sh", str(canary.top)]) as container:
        command = installed.rootless.command("exec", "-e", "MARK=in-plain-view", container, "sleep", "0.3")
        subprocess.run(
            slowed(command, call, tmp_path / "trace"), env=environment, cwd=canary.top, check=True, timeout=30
        )
        seen = installed.rootless.run_bytes("exec", container, "cat", "/seen").stdout
    assert b"in-plain-view" in seen, "the watcher sees nothing: it proves nothing"
    assert SECRET not in seen
    assert b"WRITTEN" not in seen
    assert installed.is_users or b"python" not in seen  # the words of its command line
    assert canary.changes() == []


@pytest.mark.parametrize("call", ["mount", "pivot_root", "capset"])
def test_nor_while_a_neighbour_starts_in_our_pid_namespace(  # X02
    installed: Installed, tmp_path: Path, call: str
) -> None:
    """The machine's files are still there for a container's first process, and a neighbour may see the process."""
    canary = Canary(tmp_path / "victim")
    environment = {**installed.rootless.env, "SECRET": SECRET.decode()}
    with running(installed.rootless, installed.image, command=["sh", "-c", WATCH, "sh", str(canary.top)]) as container:
        command = installed.rootless.command(
            "run", "--rm", f"--pid=container:{container}", "-e", "MARK=in-plain-view", installed.image, "sleep", "0.3"
        )
        milliseconds = 8 if call == "mount" else 150
        subprocess.run(
            slowed(command, call, tmp_path / "trace", milliseconds),
            env=environment, cwd=canary.top, check=True, timeout=30,
        )  # fmt: skip
        seen = installed.rootless.run_bytes("exec", container, "cat", "/seen").stdout
    assert b"in-plain-view" in seen, "the watcher sees nothing: it proves nothing"
    assert SECRET not in seen
    assert b"WRITTEN" not in seen
    assert canary.changes() == []


def test_who_may_trace_us_gets_no_company_where_he_could(installed: Installed) -> None:  # X02
    """CAP_SYS_PTRACE counts in the user's namespace, to which processes belong that run a Python of the user's."""
    for powers in (["--cap-add", "SYS_PTRACE"], ["--privileged"]):
        with running(installed.rootless, installed.image, *powers) as container:
            words = ("run", "--rm", f"--pid=container:{container}", installed.image, "true")
            done = installed.rootless.run(*words, check=False)
            assert done.returncode == (125 if installed.is_users else 0)
            assert ("CAP_SYS_PTRACE" in done.stderr) == installed.is_users


# What is loaded once we are inside (X10, P02, CVE-2019-14271)

CALLS = "openat,openat2,open,execve,execveat,setns,pivot_root,chroot,clone,clone3,fork,vfork,connect,mmap"
# What a process of ours may open in a container: its root, who its users are, its terminal, its descriptors.
MAY_OPEN = {"/", ".", "/etc/passwd", "/etc/group", "/dev/pts/ptmx", "/proc/self/fd"}
LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)")


def opened_inside(log: str) -> tuple[list[str], int]:
    """Calls by which processes of ours open or load something of a container they are in; how many were in one."""
    inside: set[str] = set()
    begun: dict[str, str] = {}
    bad: list[str] = []
    entered = 0
    for line in log.splitlines():
        match = LINE.match(line)
        if not match:
            continue
        pid, call, rest = match.groups()
        if line.endswith("<unfinished ...>"):
            begun[pid] = rest
            continue
        text = begun.pop(pid, "") + rest
        ok = re.search(r"= (\d+)", text)
        if call == "pivot_root" or (call == "setns" and "CLONE_NEWNS" in text):
            inside.add(pid)
            entered += 1
        elif pid not in inside:
            continue
        elif call in ("clone", "clone3", "fork", "vfork") and ok:
            inside.add(ok[1])
        elif call in ("execve", "execveat"):
            if ok:
                inside.discard(pid)  # from here on it is the container's program
        elif call == "mmap":
            if "MAP_ANONYMOUS" not in text:
                bad.append(line)
        elif (path := re.search('"([^"]*)"', text)) and path[1] not in MAY_OPEN:
            bad.append(line)
    return bad, entered


EVIL = [
    *("libnss_files.so.2", "libnss_compat.so.2", "libc.so.6", "libgcc_s.so.1", "libpthread.so.0", "libz.so.1"),
    *("python3.11/encodings/__init__.py", "python3.11/os.py", "python3.11/codecs.py", "python3.11/encodings/idna.py"),
    *("python3.12/encodings/__init__.py", "python3.13/encodings/__init__.py", "locale/locale-archive"),
    *("x86_64-linux-gnu/libnss_files.so.2", "x86_64-linux-gnu/libc.so.6", "python3/dist-packages/click.py"),
]


@pytest.fixture(scope="module")
def bait(hostile: FaultRegistry, installed: Installed) -> str:
    """An image with all that a careless process would load from it."""
    program = b"#!/bin/sh\necho ran > /executed\n"
    entries = [directory("usr/lib"), *(file(f"usr/lib/{name}", b"evil") for name in EVIL)]
    entries += [file(f"usr/bin/{name}", program, 0o755) for name in ("xz", "pigz", "unpigz", "tar", "nsenter", "ps")]
    entries += [
        file("etc/nsswitch.conf", b"passwd: evil\ngroup: evil\nhosts: evil\n"),
        file("etc/ld.so.preload", b"/evil"),
    ]
    return serve(hostile, busybox(), packed(entries))


def traced(installed: Installed, log: Path, *args: str) -> str:
    command = ["strace", "-f", "-qq", "-s", "4096", "-o", str(log), "-e", f"trace={CALLS}", "--seccomp-bpf", "--"]
    done = subprocess.run(
        [*command, *installed.rootless.command(*args)], env=installed.rootless.env, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return log.read_text(errors="replace")


def test_run_exec_and_health_checks_load_nothing_of_a_container(  # X10, P02
    installed: Installed, bait: str, tmp_path: Path
) -> None:
    check = ["--health-interval", "50ms", "--health-cmd", "true", "-u", "user", "-e", "LC_ALL=tr_TR.UTF-8"]
    installed.rootless.run("pull", "-q", bait)
    log = traced(installed, tmp_path / "run", "run", "--rm", "--init", *check, bait, "sleep", "0.4")
    bad, entered = opened_inside(log)
    assert entered > 2, log  # the container itself, and checks
    assert bad == []
    with running(installed.rootless, bait) as container:
        for name, args in {
            "exec": ["exec", "-u", "user:wheel", container, "true"],
            "terminal": ["exec", "-t", "-w", "/new/place", container, "no-such-program"],
            "detached": ["exec", "-d", container, "true"],
        }.items():
            log = (
                traced(installed, tmp_path / name, *args) if name != "terminal" else failing(installed, tmp_path, args)
            )
            bad, entered = opened_inside(log)
            assert entered == 1, log
            assert bad == []
        for args in (["top", container], ["inspect", container], ["diff", container], ["logs", container]):
            bad, entered = opened_inside(traced(installed, tmp_path / "other", *args))
            assert (bad, entered) == ([], 0)
        installed.rootless.run("exec", container, "test", "!", "-e", "/executed")


def failing(installed: Installed, tmp_path: Path, args: list[str]) -> str:
    with pytest.raises(AssertionError):
        traced(installed, tmp_path / "failing", *args)
    return (tmp_path / "failing").read_text(errors="replace")


# Imports (P01, P03)

OURS = ("click", "requests", "urllib3", "isal", "zstandard", "rootless", "tomli", "sitecustomize", "usercustomize")


@pytest.fixture
def evil_modules(tmp_path: Path) -> Iterator[Path]:
    """A directory with a module of every name that we import, which leaves a mark when it is imported."""
    where, mark = tmp_path / "evil", tmp_path / "imported"
    where.mkdir()
    # Those of the interpreter's own start could not leave a mark.
    for name in {*sys.stdlib_module_names, *OURS} - {"encodings", "codecs", "io", "abc", "os", "site", "stat"}:
        (where / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r} + ' ')\n")
    yield where
    assert not mark.exists(), mark.read_text()


def mark_works(evil_modules: Path, environment: Mapping[str, str], command: list[str]) -> None:
    """Make sure that a careless program does import them; then forget that it did."""
    subprocess.run(command, env={**os.environ, **environment}, cwd=evil_modules, capture_output=True)
    mark = evil_modules.parent / "imported"
    assert mark.exists()
    mark.unlink()


def test_no_module_comes_from_the_working_directory(  # P01
    installed: Installed, hostile: FaultRegistry, evil_modules: Path
) -> None:
    mark_works(evil_modules, {}, [str(installed.interpreter), "-c", "import json"])
    small = serve(hostile, packed([file("one", str(installed.is_users).encode())]))
    container = ""
    for args in (
        ["pull", small],
        ["run", "-d", installed.image, "sleep", "600"],
        ["exec", "", "true"],
        ["rm", "-f", ""],
    ):
        words = [word or container for word in args]
        done = subprocess.run(
            installed.rootless.command(*words),
            env=installed.rootless.env,
            cwd=evil_modules,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        container = container or (done.stdout.strip() if args[0] == "run" else "")


def test_the_environment_of_an_image_gets_to_its_program_only(  # P03, B11
    installed: Installed, hostile: FaultRegistry, evil_modules: Path
) -> None:
    mark_works(evil_modules, {"PYTHONPATH": str(evil_modules)}, [str(installed.interpreter), "-c", "import json"])
    evil = {name: str(evil_modules) for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "XDG_DATA_HOME")}
    evil |= {name: str(evil_modules / "json.py") for name in ("PYTHONSTARTUP", "LD_PRELOAD", "BASH_ENV", "ENV")}
    evil |= {"PYTHONINSPECT": "1", "ROOTLESS_CONFIG": "/nonexistent", "GCONV_PATH": str(evil_modules), "HOME": "/evil"}
    environment = [f"{name}={value}" for name, value in evil.items()]
    healthy = {"Test": ["CMD-SHELL", "env > /health.new; mv /health.new /health"], "Interval": 20_000_000}
    image = serve(hostile, busybox(), config={"Env": ["PATH=/bin", *environment], "Healthcheck": healthy})
    assert set(environment) <= set(installed.rootless.run("run", "--rm", "-q", image, "env").stdout.splitlines())
    with running(installed.rootless, image) as container:
        said = installed.rootless.run("exec", container, "env").stdout.splitlines()
        assert set(environment) <= set(said)
        read = ["exec", container, "cat", "/health"]
        assert wait_until(lambda: installed.rootless.run(*read, check=False).stdout)
        assert set(environment) <= set(installed.rootless.run(*read).stdout.splitlines())


# Descriptors that are received (P04)


def test_what_is_received_is_not_inherited() -> None:  # P04
    ours, theirs = channel.pair()
    assert not os.get_inheritable(ours.fileno())
    with open(os.devnull, "rb") as null:
        channel.send(ours, b"x", b"", (null.fileno(), null.fileno()))
    _, _, fds = channel.receive(theirs)
    assert len(fds) == 2
    for fd in fds:
        assert not os.get_inheritable(fd)
        os.close(fd)
    ours.close()
    theirs.close()
