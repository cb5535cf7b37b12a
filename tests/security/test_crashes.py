"""Pulls that are killed, that meet a full disk, that meet each other: afterwards all is as if nothing had happened."""

import random
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.account import Installation, kill, wait_until
from tests.support.fault_registry import OK, Added, Fault, FaultRegistry
from tests.support.hostile import LONG, busybox, packed
from tests.support.layout import NATIVE, directory, file

pytestmark = pytest.mark.kernel

MEBIBYTE = 1 << 20


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    """One for each test: they script faults, and count requests."""
    with FaultRegistry() as serving:
        yield serving


def add(registry: FaultRegistry, name: str, layers: int = 3, size: int = 30_000) -> tuple[str, Added]:
    """An image of busybox and layers that do not compress, each with a file /layerN."""
    chance = random.Random(name)
    above = [packed([directory("l"), file(f"l/{n}", chance.randbytes(size))]) for n in range(layers)]
    config = {"Cmd": ["sh"], "Env": ["PATH=/bin"]}
    added = registry.add_image(f"crash/{name}:1", [busybox(), *above], config=config, architecture=NATIVE)
    return f"{registry.host}/crash/{name}:1", added


def whole(rootless: Installation, image: str, layers: int = 3) -> None:
    """Assert that what there is makes sense, that the same pull succeeds, and that its result is complete."""
    listed = rootless.run("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}").stdout.split()
    assert listed[1:] in ([], [image.rpartition(":")[0]])
    if listed:  # what is listed is whole; it may lack its tag, which comes last
        said = rootless.run("run", "--rm", "--pull=never", listed[0], "ls", "/l").stdout
        assert said.split() == [*map(str, range(layers))]
    rootless.run("ps", "-a")
    rootless.run("volume", "ls")
    rootless.run("pull", "-q", image)
    assert rootless.run("run", "--rm", image, "ls", "/l").stdout.split() == [*map(str, range(layers))]
    assert list((rootless.data / "rootless/trash").iterdir()) == []
    assert list((rootless.data / "rootless/blobs/partial").iterdir()) == []
    assert workers(rootless) == []


def workers(rootless: Installation) -> list[str]:
    """Processes of pulls."""
    return [line for line in rootless.processes().values() if "unpack" in line or " pull " in line]


def forget(rootless: Installation, image: str) -> None:
    """Remove the image, and with it all that was pulled."""
    rootless.run("rmi", "-f", image, check=False)
    rootless.run("image", "prune", "-af")
    assert list((rootless.data / "rootless/layers").iterdir()) == []


# Killed (K01)

KINDS = ["rename,renameat,renameat2", "fsync,fdatasync,syncfs", "mkdir,mkdirat", "flock"]


def count(rootless: Installation, image: str, kinds: str) -> int:
    """How many of these calls a pull makes."""
    log = rootless.tree / "tmp/trace"
    strace = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={kinds}", "-e", "signal=none", "--"]
    subprocess.run([*strace, *rootless.command("pull", image)], env=rootless.env, check=True, capture_output=True)
    return sum(1 for line in log.read_text(errors="replace").splitlines() if "resumed>" not in line)


@pytest.mark.parametrize("kinds", KINDS, ids=[kinds.partition(",")[0] for kinds in KINDS])
def test_a_pull_that_is_killed_at_a_step_is_repeated(  # K01
    rootless: Installation, registry: FaultRegistry, kinds: str
) -> None:
    """SIGKILL at the Nth call of a kind: at each N for a release, at a few otherwise."""
    image, _ = add(registry, "step")
    rootless.run("run", "--rm", "host", "true")  # makes the namespace: strace takes setuid from newuidmap
    total = count(rootless, image, kinds)
    assert total
    steps = range(1, total + 1) if LONG else sorted(random.Random(kinds).sample(range(1, total + 1), 2))
    for step in steps:
        forget(rootless, image)
        inject = f"inject={kinds}:signal=KILL:when={step}"
        strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={kinds}", "-e", inject, "--"]
        subprocess.run([*strace, *rootless.command("pull", image)], env=rootless.env, capture_output=True, timeout=30)
        wait_until(lambda: not workers(rootless), 2)
        whole(rootless, image)


def test_a_pull_that_is_killed_at_any_moment_is_repeated(
    rootless: Installation, registry: FaultRegistry
) -> None:  # K01
    image, added = add(registry, "moment", size=300_000)
    for number in range(1, 4):
        registry.script(added.layer_path(number), [Fault(delay=0.1 * number)], forever=True)
    chance = random.Random()
    for _ in range(25 if LONG else 3):
        with rootless.start("pull", image) as pulling:
            time.sleep(chance.uniform(0.05, 0.8))
            pulling.kill()
        wait_until(lambda: not workers(rootless), 2)
        registry.forget()
        whole(rootless, image)
        forget(rootless, image)


def test_what_a_killed_pull_has_is_not_fetched_again(
    rootless: Installation, registry: FaultRegistry
) -> None:  # K01, G04
    """Two layers complete, one half: the bytes that go over the wire tell."""
    image, added = add(registry, "bytes", size=4 * MEBIBYTE)
    half = 2 * MEBIBYTE
    registry.script(added.layer_path(3), [Fault(stall=half)])
    partial = rootless.data / "rootless/blobs/partial" / added.layer_digests[3].partition(":")[2]
    blobs = rootless.data / "rootless/blobs/sha256"
    complete = [blobs / digest.partition(":")[2] for digest in added.layer_digests[:3]]
    with rootless.start("pull", image) as pulling:
        assert wait_until(lambda: partial.exists() and partial.stat().st_size >= half - MEBIBYTE)
        assert wait_until(lambda: all(path.exists() for path in complete))
        pulling.kill()
    have = partial.stat().st_size
    assert half - MEBIBYTE <= have <= half
    registry.forget()
    whole(rootless, image)
    assert [request.sent for number in range(3) for request in registry.seen(added.layer_path(number), "GET")] == []
    [request] = registry.seen(added.layer_path(3), "GET")
    assert request.headers["range"] == f"bytes={have}-"
    assert request.sent == len(added.layers[3]) - have


def test_a_beginning_that_was_changed_is_not_believed(
    rootless: Installation, registry: FaultRegistry
) -> None:  # K01, R01
    image, added = add(registry, "changed", size=MEBIBYTE)
    rootless.run("ps")
    directory = rootless.data / "rootless/blobs/partial"
    (directory / added.layer_digests[1].partition(":")[2]).write_bytes(b"x" * 500_000)
    (directory / added.layer_digests[2].partition(":")[2]).write_bytes(added.layers[2] + b"more")
    whole(rootless, image)


def test_ctrl_c_ends_a_pull_at_once(rootless: Installation, registry: FaultRegistry) -> None:  # K06, G05
    image, added = add(registry, "stalled")
    registry.script(added.layer_path(2), [Fault(stall=1000)])
    for signum, status in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        with rootless.start("pull", image) as pulling:
            assert wait_until(lambda: registry.seen(added.layer_path(2)))
            time.sleep(0.1)
            pulling.send_signal(signum)
            begun = time.monotonic()
            assert pulling.wait(5) in (status, 143)
            assert time.monotonic() - begun < 2
        assert wait_until(lambda: not workers(rootless), 2)
        registry.script(added.layer_path(2), [Fault(stall=1000)])
        registry.requests.clear()
    registry.forget()
    whole(rootless, image)


# Side by side (C01)


def test_pulls_side_by_side_fetch_each_blob_once(rootless: Installation, registry: FaultRegistry) -> None:  # C01
    image, added = add(registry, "parallel", size=500_000)
    pulls = [rootless.start("pull", "-q", image) for _ in range(50 if LONG else 20)]
    outputs = [pulling.communicate(timeout=60) for pulling in pulls]
    assert [pulling.returncode for pulling in pulls] == [0] * len(pulls), [err for _, err in outputs]
    for number in range(4):
        fetched = registry.seen(added.layer_path(number), "GET")
        assert sum(request.sent for request in fetched) == len(added.layers[number])
    assert len(list((rootless.data / "rootless/layers").iterdir())) == 4
    whole(rootless, image)


def test_one_of_several_is_killed_and_the_others_go_on(
    rootless: Installation, registry: FaultRegistry
) -> None:  # C01, K09
    image, added = add(registry, "victims", size=500_000)
    registry.script(added.layer_path(1), [Fault(stall=1000), OK])
    first = rootless.start("pull", "-q", image)
    assert wait_until(lambda: registry.seen(added.layer_path(1)))
    others = [rootless.start("pull", "-q", image) for _ in range(4)]
    time.sleep(0.3)
    kill(first.pid)
    first.communicate()
    assert [pulling.communicate(timeout=20) and pulling.returncode for pulling in others] == [0] * 4
    whole(rootless, image)


# A full disk (D01)

# As root of a namespace of its own, with the data directory on a small disk that grows at the end.
ON_SMALL_DISK = """
mount -t tmpfs -o {options},mode=700 small {data} || exit 99
{pull}; echo "status $?"
{images} >&2; echo "images $?"
echo "trash $(ls -A {data}/rootless/trash 2>/dev/null | wc -l)"
echo "blobs $(ls {data}/rootless/blobs/* 2>/dev/null | grep -c -E '^[0-9a-f]{{64}}')"
echo "layers $(ls -A {data}/rootless/layers 2>/dev/null | wc -l)"
mount -o remount,size=64m,nr_inodes=20000 {data}
{pull}; echo "again $?"
{run}; echo "run $?"
"""
SIZES = [f"size={size}k" for size in (range(512, 12_500, 512) if LONG else (512, 2560, 4608, 12_288))]


def on_small_disk(rootless: Installation, image: str, options: str) -> dict[str, int]:
    words = {
        "pull": shlex.join(rootless.command("pull", "-q", image)),
        "images": shlex.join(rootless.command("images")),
        "run": shlex.join(rootless.command("run", "--rm", image, "ls", "/l")),
    }
    script = ON_SMALL_DISK.format(options=options, data=rootless.data, **words)
    namespace = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--pid", "--fork", "--kill-child"]
    done = subprocess.run(
        [*namespace, "--mount-proc", "sh", "-c", script], env=rootless.env, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr, done.stderr
    found = {key: int(value) for key, value in (line.split() for line in done.stdout.splitlines() if " " in line)}
    found["no space"] = done.stderr.count("No space left on device")
    assert "again" in found, done.stdout + done.stderr
    return found


@pytest.mark.parametrize("options", [*SIZES, "size=64m,nr_inodes=30", "size=64m,nr_inodes=150"])
def test_a_full_disk_is_an_error_and_leaves_nothing(  # D01
    rootless: Installation, registry: FaultRegistry, options: str
) -> None:
    image, _ = add(registry, "full", size=MEBIBYTE)
    found = on_small_disk(rootless, image, options)
    if found["status"] == 0:
        assert options in ("size=12288k", *SIZES[-8:])
    else:
        assert found["status"] == 1
        assert found["no space"] >= 1
        assert found["blobs"] == 0
    assert found["images"] in (0, 1)
    assert found["trash"] == 0
    assert (found["again"], found["run"]) == (0, 0)
