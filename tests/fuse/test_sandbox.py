"""What the server cannot do any more, tried on a process of its own, as root of a user namespace."""

import ctypes
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fuse import landlock, sandbox
from tests.support.userns import in_namespace

pytestmark = pytest.mark.kernel
PR_GET_DUMPABLE = 3


def confined(attempt: Callable[[], object], writable: "tuple[bytes, ...] | None" = None) -> str:
    """What becomes of *attempt* in the sandbox: its result, the OSError, or the signal that killed the process."""

    def child() -> str:
        told_fd, tell_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                assert sandbox.confine(trusted=False, writable=writable) == ""
                os.write(tell_fd, str(attempt()).encode())
            except OSError as error:
                os.write(tell_fd, os.strerror(error.errno or 0).encode())
            finally:
                os._exit(0)
        os.close(tell_fd)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return signal.Signals(-status).name if status else os.read(told_fd, 4096).decode()

    return in_namespace(child)


libc = ctypes.CDLL(None, use_errno=True)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: os.execv("/bin/true", ["true"]),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        os.fork,
        lambda: libc.unshare(0x10000000),
        lambda: libc.mount(b"x", b"/mnt", b"tmpfs", 0, None),
        lambda: libc.umount2(b"/proc", 0),
        lambda: libc.ptrace(16, os.getppid(), 0, 0),
        lambda: os.chroot("/"),
        lambda: libc.setns(0, 0),
    ],
)
def test_what_only_an_attack_does_is_its_end(attempt: Callable[[], object]) -> None:
    assert confined(attempt) == "SIGSYS"


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: socket.socket(socket.AF_INET),
        lambda: socket.socket(socket.AF_UNIX),
        socket.socketpair,
        lambda: os.setuid(1),
        lambda: socket.sethostname("name"),
    ],
)
def test_what_a_library_may_try_is_refused(attempt: Callable[[], object]) -> None:
    assert confined(attempt) == "Operation not permitted"


def test_files_can_be_made_and_given_away(tmp_path: Path) -> None:
    def work() -> str:
        path = tmp_path / "file"
        path.write_text("text")
        path.chmod(0)
        os.chown(path, 5, 7)
        os.chmod(path, 0o4000)
        os.mknod(tmp_path / "fifo", 0o010600)
        os.mknod(tmp_path / "whiteout", 0o020000, 0)
        os.setxattr(path, "security.capability", bytes.fromhex("0100000201000000000000000000000000000000"))
        return f"{path.read_text()} {path.stat().st_mode:o} {path.stat().st_uid} {path.stat().st_gid}"

    tmp_path.chmod(0o755)
    try:
        assert confined(work) == "text 104000 5 7"
    finally:
        in_namespace(lambda: os.unlink(tmp_path / "file"))


@pytest.mark.skipif(landlock.version() < 2, reason="the kernel has no Landlock of version 2")
def test_nothing_is_changed_but_what_is_below_the_upper_layer(tmp_path: Path) -> None:
    upper, work, other = (tmp_path / name for name in ("upper", "work", "other"))
    for directory in (upper, work, other):
        directory.mkdir()
    (other / "file").write_text("read me")
    other_fd = os.open(other, os.O_PATH | os.O_DIRECTORY)
    attempts: list[Callable[[], object]] = [
        lambda: (other / "file").write_text("x"),
        lambda: os.open("file", os.O_WRONLY, dir_fd=other_fd),
        lambda: os.unlink("file", dir_fd=other_fd),
        lambda: os.mkdir("new", dir_fd=other_fd),
        lambda: os.mknod(other / "whiteout", 0o020000, 0),
        lambda: os.symlink("/", other / "link"),
        lambda: os.link(other / "file", upper / "linked"),
        lambda: os.rename(upper / "moved", other / "moved"),
    ]

    def work_then_attack() -> str:
        (work / "moved").write_text("moved")
        os.rename(work / "moved", upper / "moved")
        assert (other / "file").read_text() == "read me"
        refused = []
        for attempt in attempts:
            try:
                attempt()
                refused.append("done")
            except OSError as error:
                refused.append("refused" if error.errno in (errno.EACCES, errno.EXDEV) else str(error))
        return " ".join(refused)

    try:
        assert confined(work_then_attack, (bytes(upper), bytes(work))) == " ".join(["refused"] * len(attempts))
    finally:
        os.close(other_fd)


def test_threads_can_be_started() -> None:
    def work() -> list[int]:
        found: list[int] = []
        thread = threading.Thread(target=found.append, args=(7,))
        thread.start()
        thread.join()
        return found

    assert confined(work) == "[7]"


def test_its_memory_is_for_nobody() -> None:
    assert confined(lambda: libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)) == "0"


def test_an_ordinary_user_is_confined_as_well() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            sandbox.confine(trusted=True)
            os.execv("/bin/true", ["true"])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSYS


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_there_is_a_filter_for_every_machine_that_is_known(machine: str) -> None:
    code = sandbox.program(machine)
    assert len(code) % 8 == 0
    assert code[-8:] == bytes.fromhex("060000000000ff7f")  # return ALLOW
