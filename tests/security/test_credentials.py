"""Who a container's processes are: users out of hostile files, groups, five sets of capabilities, setuid programs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless.linux import capabilities
from tests.support import evil_tar, probe
from tests.support.account import wait_until
from tests.support.evil_tar import DIRECTORY, FIFO, SYMLINK, archive, entry
from tests.support.fault_registry import FaultRegistry
from tests.support.hostile import Box, busybox, no_traceback, running, serve, tools

pytestmark = pytest.mark.kernel

SECONDS = 5  # in which everything here has to be over
GNU_SPARSE = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"1073741824"}

# Files that are not what they should be: what the image has as /etc/passwd or /etc/group.
NO_FILE = {
    "link in a circle": lambda name: entry(name, SYMLINK, link=name.rpartition(b"/")[2]),
    "link to the machine's": lambda name: entry(name, SYMLINK, link=b"/proc/1/root/" + name),
    "link to a descriptor": lambda name: entry(name, SYMLINK, link=b"/proc/self/fd/0"),
    "link to a terminal": lambda name: entry(name, SYMLINK, link=b"/dev/tty"),
    "link to endless zeros": lambda name: entry(name, SYMLINK, link=b"/dev/zero"),
    "FIFO": lambda name: entry(name, FIFO),
    "directory": lambda name: entry(name, DIRECTORY),
    "a gigabyte": lambda name: entry(name, content=b"0\n".ljust(512, b"\0"), pax=GNU_SPARSE),
}
# Lines that mean nothing, or far too much. None of them makes `user` root.
BAD_LINES = [
    b"user",
    b"user:x:0",
    b"user:x::0:::",
    b"user:x:-1:0:::",
    b"user:x:4294967296:0:::",
    b"user:x:18446744073709551616:0:::",
    b"user:x:0x0:0:::",
    b"user:x: 0:0:::",
    "user:x:\N{ARABIC-INDIC DIGIT ZERO}:0:::".encode(),
    b"user:x:0:-1:::",
    b"#user:x:0:0:::",
    b"\0user:x:0:0:::",
    b"+user::0:0:::",
]


@pytest.fixture
def image(hostile: FaultRegistry) -> Callable[..., str]:
    """Makes an image of busybox and one layer."""
    return lambda *members, **config: serve(hostile, busybox(), tools(), archive(*members), config=config)


# Users (X11)


@pytest.mark.parametrize("kind", NO_FILE)
def test_what_is_no_file_is_not_read(box: Box, image: Callable[..., str], kind: str) -> None:  # X11
    """No user can be looked up, nobody waits for it, and a number needs no file."""
    name = image(NO_FILE[kind](b"etc/passwd"), NO_FILE[kind](b"etc/group"))
    run = ["run", "--rm", "--quiet"]
    status, said = no_traceback(box.rootless, *run, "-u", "user", name, "id", timeout=SECONDS)
    assert status == 125
    assert "passwd" in said
    status, said = no_traceback(box.rootless, *run, name, "cat", "/proc/self/status", timeout=SECONDS)
    assert status in (0, 125)


def test_what_becomes_no_file_later_is_not_read_either(box: Box) -> None:  # X11
    """The same by a container that runs, and changes its files before an exec."""
    for make in ("mkfifo passwd", "ln -s /dev/zero passwd", "truncate -s 1G passwd", "mkdir passwd"):
        command = ["sh", "-c", f"cd /etc; rm passwd; {make}; touch /made; exec sleep 600"]
        with running(box.rootless, box.image, command=command) as container:
            assert wait_until(lambda c=container: "A /made" in box.rootless.run("diff", c).stdout)  # type: ignore[misc]
            status, said = no_traceback(box.rootless, "exec", "-u", "user", container, "id", timeout=SECONDS)
            assert status in (1, 126)
            assert "passwd" in said
            no_traceback(box.rootless, "exec", container, "id", timeout=SECONDS)


def test_a_line_that_is_no_user_makes_nobody_root(box: Box, image: Callable[..., str]) -> None:  # X11
    name = image(entry(b"etc/passwd", content=b"\n".join(BAD_LINES)))
    status, said = no_traceback(box.rootless, "run", "--rm", "--quiet", "-u", "user", name, "id", "-u", timeout=SECONDS)
    assert status == 125
    assert "no matching entries" in said


def test_a_number_is_a_number_whoever_is_called_so(box: Box, image: Callable[..., str]) -> None:  # X11, CVE-2016-3697
    name = image(entry(b"etc/passwd", content=b"1000:x:0:0:::\n"), entry(b"etc/group", content=b"1000:x:0:\n"))
    said = box.rootless.run("run", "--rm", "--quiet", "-u", "1000:1000", name, "/probe", "102", ",", "104").stdout
    assert [int(line, 16) for line in said.split()] == [1000, 1000]


@pytest.mark.parametrize(
    "user",
    ["-1", "4294967295", "4294967296", "18446744073709551616", "0:-1", "0:4294967296", "2147483648", "1:2:3"],
)
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_number_that_is_too_large_is_nobody(box: Box, user: str, verb: str) -> None:  # X11
    if verb == "run":
        status, said = no_traceback(box.rootless, "run", "--rm", f"--user={user}", box.image, "id", timeout=SECONDS)
    else:
        with running(box.rootless, box.image) as container:
            status, said = no_traceback(box.rootless, "exec", f"--user={user}", container, "id", timeout=SECONDS)
    assert status in (1, 125, 126), said
    assert "uid=0" not in said


def test_the_images_user_is_checked_alike(box: Box, image: Callable[..., str]) -> None:  # X11
    for user in ("-1", "4294967296", "no-such-user", "../../etc", "a\nb"):
        status, said = no_traceback(box.rootless, "run", "--rm", "--quiet", image(User=user), "id", timeout=SECONDS)
        assert status == 125, said


# Groups (X12)


def groups(box: Box, *options: str) -> list[int]:
    """The Groups line of a process."""
    [line] = box.sh("grep ^Groups: /proc/self/status", *options).splitlines()
    return [int(word) for word in line.split()[1:]]


def test_groups_are_the_images_and_none_is_the_hosts(box: Box) -> None:  # X12
    assert groups(box) == [0, 10]
    assert groups(box, "-u", "user") == [10, 1000]
    assert groups(box, "-u", "1000:2000") == [2000]
    assert groups(box, "-u", "4000") == [0]
    assert groups(box, "-u", "user", "--group-add", "5", "--group-add", "nogroup") == [5, 10, 1000, 65534]


def test_a_group_that_may_less_than_others_holds(box: Box) -> None:  # X12, CVE-2022-36109
    """Mode 604 keeps a file from its group: whose primary group it is must not lose it on the way."""
    script = "echo readable > /tmp/f; chgrp 1000 /tmp/f; chmod 604 /tmp/f; su -s /bin/sh user -c 'cat /tmp/f'"
    assert "Permission denied" in box.sh(script, check=False)
    with running(box.rootless, box.image) as container:
        box.rootless.run("exec", container, "sh", "-c", "echo x > /tmp/f; chgrp 1000 /tmp/f; chmod 604 /tmp/f")
        for user in ("user", "1000:1000", "user:user"):
            done = box.rootless.run("exec", "-u", user, container, "cat", "/tmp/f", check=False)
            assert "Permission denied" in done.stderr, user


# Capabilities (X13)

DOCKERS = (
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
    *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)


def mask(*names: str) -> int:
    return capabilities.mask([f"CAP_{name}" for name in names])


def sets(status: str) -> dict[str, int]:
    """Inh, Prm, Eff, Bnd and Amb of a /proc/PID/status."""
    lines = [line.split() for line in status.splitlines() if line.startswith("Cap")]
    return {name[3:6]: int(value, 16) for name, value in lines}


def as_root(granted: int) -> dict[str, int]:
    return {"Inh": 0, "Prm": granted, "Eff": granted, "Bnd": granted, "Amb": 0}


def as_other(granted: int) -> dict[str, int]:
    return {"Inh": 0, "Prm": 0, "Eff": 0, "Bnd": granted, "Amb": 0}


ALL = (1 << capabilities.last() + 1) - 1
GRANTS = [
    ([], mask(*DOCKERS)),
    (["--cap-drop", "ALL"], 0),
    (["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], mask("NET_ADMIN")),
    (["--cap-add", "SYS_PTRACE", "--cap-drop", "CHOWN"], mask(*DOCKERS, "SYS_PTRACE") & ~mask("CHOWN")),
    (["--cap-add", "ALL", "--cap-drop", "SYS_ADMIN"], ALL & ~mask("SYS_ADMIN")),
    (["--privileged"], ALL),
]


@pytest.mark.parametrize("options, granted", GRANTS, ids=[" ".join(options) for options, _ in GRANTS])
def test_capabilities_are_those_granted(box: Box, options: list[str], granted: int) -> None:  # X13
    """In run, in exec and in a health check, as root and as another; inheritable and ambient sets stay empty."""
    read = ["cat", "/proc/self/status"]
    check = [
        "--health-interval",
        "20ms",
        "--health-cmd",
        "cat /proc/self/status > /tmp/health.new && mv /tmp/health.new /tmp/health",
    ]
    for user, expected in (("root", as_root(granted)), ("user", as_other(granted))):
        script = "cat /proc/self/status > /tmp/own; exec sleep 600"
        with running(box.rootless, box.image, *options, "-u", user, *check, command=["sh", "-c", script]) as container:

            def inside(*command: str, container: str = container) -> str:
                return box.rootless.run("exec", container, *command, check=False).stdout

            assert sets(inside(*read)) == expected
            assert wait_until(lambda: inside("cat", "/tmp/health"))
            assert sets(inside("cat", "/tmp/health")) == expected
            assert sets(inside("cat", "/tmp/own")) == expected
    with running(box.rootless, box.image, *options) as container:
        said = box.rootless.run("exec", "-u", "user", container, *read).stdout
        assert sets(said) == as_other(granted)


def test_exec_privileged_has_all_and_leaves_the_container_as_it_is(box: Box) -> None:  # X13
    with running(box.rootless, box.image) as container:
        said = box.rootless.run("exec", "--privileged", container, "cat", "/proc/self/status").stdout
        assert sets(said) == as_root(ALL)
        assert sets(box.rootless.run("exec", container, "cat", "/proc/1/status").stdout) == as_root(mask(*DOCKERS))


def test_how_many_capabilities_there_are_is_not_for_a_volume_to_say(box: Box, tmp_path: Path) -> None:  # X13
    """With a lie in place of cap_last_cap, the bounding set would stay full, and setuid programs could use it."""
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/cap_last_cap").write_text("0\n")
    read_bounding = probe.calls(*[(157, 23, number) for number in range(capabilities.last() + 1)])
    answers = box.probe(*read_bounding, options=["--cap-drop", "ALL", "-v", f"{tmp_path}:/proc"])
    assert {answer.result for answer in answers} == {0}


# Setuid programs (X14, X22)


@pytest.fixture
def volume(box: Box) -> Iterator[str]:
    box.rootless.run("volume", "create", "programs")
    yield "programs"
    box.rootless.run("volume", "rm", "programs")


GETEUID = ("107",)


def test_setuid_gains_containers_root_unless_it_is_forbidden(box: Box) -> None:  # X14
    [free] = box.probe(*GETEUID, options=["-u", "1000"], program="/setuid-probe")
    assert free.result == 0
    for option in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"):
        options = ["-u", "1000", "--security-opt", option]
        [bound] = box.probe(*GETEUID, options=options, program="/setuid-probe")
        assert bound.result == 1000
        assert "NoNewPrivs:\t1" in box.sh("grep NoNewPrivs /proc/self/status", *options)


@pytest.mark.fuse
@pytest.mark.parametrize("mode", ["keep-id", "nomap", "auto"])
def test_setuid_in_a_namespace_of_its_own_gains_that_ones_root(box: Box, mode: str) -> None:  # X14
    """Root there is a subordinate id: the map says so, and the user's own id is not the one that is gained."""
    options = ["--userns", mode, "-u", "900"]
    [answer] = box.probe(*GETEUID, options=options, program="/setuid-probe")
    assert answer.result == 0
    first = box.sh("head -1 /proc/self/uid_map", *options).split()
    assert first[0] == "0"
    assert int(first[1]) > 0  # in the user's namespace, where the user is 0


def test_no_new_privileges_holds_in_exec_and_health_checks(box: Box) -> None:  # X14
    check = ["--health-interval", "20ms", "--health-cmd", "/setuid-probe 107 > /tmp/h.new && mv /tmp/h.new /tmp/health"]
    options = ["--security-opt", "no-new-privileges", "-u", "1000", *check]
    with running(box.rootless, box.image, *options) as container:
        assert int(box.rootless.run("exec", container, "/setuid-probe", *GETEUID).stdout, 16) == 1000

        def checked() -> str:
            return box.rootless.run("exec", container, "cat", "/tmp/health", check=False).stdout

        assert wait_until(checked)
        assert int(checked(), 16) == 1000


def test_setuid_of_a_containers_root_is_nobodys_outside(box: Box) -> None:  # X14, T08
    """What is root's inside is the user's outside, in a directory that no other user can enter."""
    for path in (box.rootless.data / "rootless" / "layers").iterdir():
        assert path.stat().st_mode & 0o7777 == 0o700


def test_volumes_have_no_setuid_and_no_devices(box: Box, volume: str, tmp_path: Path) -> None:  # X22
    (tmp_path / "bound").mkdir()
    volumes = ["-v", f"{volume}:/volume", "-v", f"{tmp_path}/bound:/bound", "-v", "/anonymous", "--tmpfs", "/tmpfs"]
    mounts = ["--mount", f"type=volume,source={volume},target=/mounted"]
    said = box.sh("cat /proc/self/mountinfo", *volumes, *mounts)
    flags = {line.split()[4]: line.split()[5].split(",") for line in said.splitlines()}
    for where in ("/volume", "/bound", "/anonymous", "/tmpfs", "/mounted", "/etc/hosts", "/dev/shm", "/dev/mqueue"):
        assert {"nosuid", "nodev"} <= set(flags[where]), where
    box.sh("cp /setuid-probe /volume; chmod 4755 /volume/setuid-probe", "-v", f"{volume}:/volume")
    options = ["-u", "1000", "-v", f"{volume}:/volume"]
    [answer] = box.probe(*GETEUID, options=options, program="/volume/setuid-probe")
    assert answer.result == 1000


def test_an_image_cannot_make_a_device(box: Box, image: Callable[..., str]) -> None:  # X22, T07
    """Neither by its layers nor by its programs: /dev/vda by its number is the kernel's to refuse."""
    devices = [
        entry(b"disk", evil_tar.BLOCK, major=254, minor=0),
        entry(b"memory", evil_tar.CHARACTER, major=1, minor=1),
    ]
    script = "exec 2>&1; ls -l /disk /memory; mknod /tmp/disk b 254 0; mknod /dev/disk b 254 0; cat /tmp/disk /dev/disk"
    said = box.rootless.run("run", "--rm", "--quiet", image(*devices), "sh", "-c", script, check=False).stdout
    assert said.count("No such file or directory") == 4
    assert said.count("Operation not permitted") == 2
