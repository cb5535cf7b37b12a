"""Other users of the machine: what they can read of ours, and what they have put where we go.

A process of a subordinate id is another user to the kernel (user_namespaces(7)), so no second account is needed.
"""

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless.linux.directories import runtime_directory
from rootless.linux.mounts import mount
from tests.support.account import Installation, installation
from tests.support.canary import Canary, walk
from tests.support.fault_registry import FaultRegistry
from tests.support.hostile import Box, busybox, failure, running, serve, tools
from tests.support.userns import in_namespace

pytestmark = pytest.mark.kernel

OTHER = 1  # an id in the namespace that is not the user's


def as_another(function: Callable[[], object]) -> str:
    """The name of what *function* raises for another user of the machine; empty where it succeeds."""

    def attempt() -> str:
        os.setgroups([])
        os.setresgid(OTHER, OTHER, OTHER)
        os.setresuid(OTHER, OTHER, OTHER)
        try:
            function()
        except OSError as error:
            return type(error).__name__
        return ""

    return in_namespace(attempt)


# What they can read (F01, T08)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=["umask 000", "umask 022", "umask 077"])
def used(request: pytest.FixtureRequest, hostile: FaultRegistry) -> Iterator[tuple[Box, str]]:
    """An installation that was used with an odd umask, in directories that everybody may enter; and a container."""
    before = os.umask(request.param)
    try:
        with installation() as rootless:
            for directory in (rootless.tree, rootless.home, rootless.home / ".local", rootless.data):
                directory.chmod(0o755)
            rootless.runtime.chmod(0o711)
            image = serve(hostile, busybox(), tools(), config={"Volumes": {"/anonymous": {}}})
            rootless.run("pull", "-q", image)
            with running(rootless, image, "-v", "named:/named", "-w", "/new/place") as container:
                rootless.run("exec", container, "true")
                yield Box(rootless, image), container
    finally:
        os.umask(before)


def images_own(path: str) -> bool:
    """Whether a file is what an image, a container or a volume has: its mode says what its program wants."""
    parts = path.split("/")
    return any(word in parts for word in ("diff", "upper", "work", "rootfs", "data"))


def test_another_user_reads_and_reaches_nothing(used: tuple[Box, str]) -> None:  # F01, T08
    box, container = used
    rootless = box.rootless
    store, run = rootless.data / "rootless", rootless.runtime / "rootless"
    assert as_another(lambda: os.listdir(rootless.data)) == ""  # so far one gets, or it proves nothing
    for directory in (store, run):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert as_another(lambda directory=directory: os.listdir(directory)) == "PermissionError"  # type: ignore[misc]
    [layer, *_] = (store / "layers").iterdir()
    for file in (store / "containers" / container / "container.log", layer / "diff", run / "namespace"):
        assert file.exists()
        assert as_another(lambda file=file: os.stat(file)) == "PermissionError"  # type: ignore[misc]

    attach = run / "containers" / container / "attach"
    assert attach.is_socket()
    assert as_another(lambda: os.stat(attach)) == "PermissionError"
    pid = int(rootless.run("inspect", "-f", "{{.State.Pid}}", container).stdout)
    for name in ("environ", "mem", "root/etc/passwd", "cwd/.", "fd/0"):
        path = f"/proc/{pid}/{name}"
        assert as_another(lambda path=path: os.open(path, os.O_RDONLY)) == "PermissionError"  # type: ignore[misc]


def test_files_of_ours_are_for_their_owner_whatever_the_umask(used: tuple[Box, str]) -> None:  # F01
    box, _ = used
    readable_inside = ("hosts", "hostname", "resolv.conf")  # below directories that only the user can enter
    wrong = []
    for top in (box.rootless.data / "rootless", box.rootless.runtime / "rootless"):
        for path in walk(top):
            info = os.lstat(path)
            if stat.S_ISLNK(info.st_mode) or images_own(path):
                continue
            allowed = 0o644 if os.path.basename(path) in readable_inside else 0o700
            if stat.S_IMODE(info.st_mode) & ~allowed or info.st_uid != os.getuid():
                wrong.append(f"{path} {info.st_mode:o} {info.st_uid}")
    assert wrong == []


def test_containers_work_whatever_the_umask(used: tuple[Box, str]) -> None:  # F01
    """What an image says is what its users get: a umask of 077 closes neither the root nor the name files."""
    box, container = used
    script = "ls / /named /anonymous /new/place && cat /etc/hosts /etc/resolv.conf /etc/passwd && touch /tmp/x && umask"
    for command in (
        ["run", "--rm", "-u", "user", "-w", "/new/place", "-v", "named:/named", box.image],
        ["exec", "-u", "user", container],
    ):
        done = box.rootless.run(*command, "sh", "-c", script, check=False)
        assert done.returncode == 0, done.stderr
        assert "127.0.0.1" in done.stdout
        assert done.stdout.endswith("0022\n")
    said = box.rootless.run("exec", container, "stat", "-c", "%a", "/", "/named", "/anonymous", "/new/place").stdout
    assert said.split() == ["755"] * 4


def test_no_mount_of_ours_is_to_be_seen(used: tuple[Box, str]) -> None:  # F01
    box, _ = used
    assert box.rootless.tree.name not in Path("/proc/self/mountinfo").read_text()


# What they have put where we go (F02)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    canary = Canary(tmp_path / "victim")
    yield canary
    assert canary.changes() == []


@pytest.mark.parametrize("which", ["runtime", "data"])
@pytest.mark.parametrize("what", ["link", "dangling link", "file", "another's directory"])
def test_a_place_that_somebody_else_made_is_not_used(  # F02
    rootless: Installation, canary: Canary, which: str, what: str
) -> None:
    place: Path = getattr(rootless, which) / "rootless"
    if what == "link":
        (canary.top.parent / "elsewhere").mkdir()
        place.symlink_to(canary.top.parent / "elsewhere")
    elif what == "dangling link":
        place.symlink_to(canary.top / "new")
    elif what == "file":
        place.write_text("")
    else:
        place.mkdir(mode=0o777)
        in_namespace(lambda: os.chown(place, OTHER, OTHER))
    said = failure(rootless, "ps", status=[1])
    assert "not a directory of yours" in said or "No such file" in said or "must be yours alone" in said
    if what == "link":
        assert list((canary.top.parent / "elsewhere").iterdir()) == []


def test_a_directory_of_ours_that_was_open_to_others_is_closed(rootless: Installation) -> None:  # F02
    place = rootless.runtime / "rootless"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    rootless.run("ps")
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


@pytest.mark.parametrize("why", ["another's", "open to all"])
def test_a_runtime_directory_of_another_is_not_used(rootless: Installation, tmp_path: Path, why: str) -> None:  # F02
    """Who owns it, or can write to it, could put another in place of ours at any moment."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    if why == "another's":
        in_namespace(lambda: os.chown(theirs, OTHER, OTHER))
    rootless.env["XDG_RUNTIME_DIR"] = str(theirs)
    rootless.run("ps", check=False)
    assert list(theirs.iterdir()) == []


def in_private_tmp(prepare: Callable[[], object]) -> str:
    """What runtime_directory() answers, or its error, without a session and with /tmp as *prepare* makes it."""

    def attempt() -> str:
        mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777")
        mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
        os.environ.pop("XDG_RUNTIME_DIR", None)
        prepare()
        try:
            path = runtime_directory()
        except OSError as error:
            return f"{type(error).__name__}: {error.filename}"
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
        return path

    return in_namespace(attempt)


def test_without_a_session_the_place_in_tmp_is_ours_alone() -> None:  # F02
    place = f"/tmp/rootless-{os.getuid()}"  # as the process started, not as root of that namespace

    def foreign() -> None:
        os.mkdir(place, 0o777)
        os.chown(place, OTHER, OTHER)

    refused = f"PermissionError: {place}"
    assert in_private_tmp(lambda: None) == f"{place}/rootless"
    assert in_private_tmp(foreign) == refused
    assert in_private_tmp(lambda: os.symlink("/", place)) == refused
    assert in_private_tmp(lambda: os.symlink("/tmp/nothing", place)) == refused
    assert in_private_tmp(lambda: os.mknod(place)) == refused
    assert in_private_tmp(lambda: os.mkdir(place, 0o777)) == f"{place}/rootless"


def test_nothing_is_written_to_tmp(box: Box) -> None:  # F02
    """There is no temporary file whose name could be guessed: all that we make is in directories of ours."""
    log = box.rootless.tree / "tmp" / "trace"
    trace = [
        "strace",
        "-f",
        "-qq",
        "-o",
        str(log),
        "-e",
        "trace=openat,mkdir,mkdirat,symlink,rename,unlink",
        "--seccomp-bpf",
    ]
    command = box.rootless.command("run", "--rm", box.image, "true")
    subprocess.run([*trace, "--", *command], env=box.rootless.env, check=True, capture_output=True)
    made = [line for line in log.read_text(errors="replace").splitlines() if "O_CREAT" in line or "mkdir" in line]
    assert made
    inside = str(box.rootless.tree)
    outside = [line for line in made if '"/tmp' in line and inside not in line]
    assert outside == []
