"""Dockerfiles, contexts and bases that mean harm: nothing outside is read or written, and no secret stays."""

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.security.test_image_config import KEYS, TOP_LEVEL, UNKNOWN
from tests.support.account import wait_until
from tests.support.canary import SECRET, Canary
from tests.support.fault_registry import FaultRegistry
from tests.support.hostile import LONG, Box, busybox, failure, no_traceback, packed, serve, tools
from tests.support.layout import directory, file, symlink
from tests.support.racer import racing

pytestmark = pytest.mark.kernel

FLAGS = ("--progress=plain", "--network=none")
TOKEN = b"build-secret-51c0ffee"
OF_STEP = re.compile(r"#\d+ \d+\.\d+ ")  # a line that a step wrote, in the plain progress


def context(box: Box, place: Path, dockerfile: str) -> str:
    """A context at *place*, with a Dockerfile on top of the box's image."""
    place.mkdir(exist_ok=True)
    (place / "Dockerfile").write_text(dockerfile.replace("BASE", box.image))
    return str(place)


def build(box: Box, place: Path, dockerfile: str, *options: str) -> str:
    """What a build says; it must succeed."""
    done = box.rootless.run("build", *FLAGS, *options, context(box, place, dockerfile))
    return done.stdout + done.stderr


def refused(box: Box, place: Path, dockerfile: str, *options: str) -> str:
    """What a build says that must fail in an orderly way."""
    return failure(box.rootless, "build", *FLAGS, *options, context(box, place, dockerfile))


def holds(tree: Path, secret: bytes) -> list[str]:
    """The files below *tree* with *secret* in them, those of subordinate ids included."""
    found = subprocess.run(
        ["unshare", "--map-root-user", "--map-auto", "grep", "-rlaF", "--", secret.decode(), str(tree)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.stdout.splitlines()


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
def test_files_that_steer_the_build_are_not_read_outside(box: Box, tmp_path: Path, name: str) -> None:  # B01
    canary = Canary(tmp_path / "victim")
    place = tmp_path / "context"
    context(box, place, "FROM BASE\nCOPY . /x\n")
    (place / name).unlink(missing_ok=True)
    (place / name).symlink_to(canary.top / "passwd")
    said = failure(box.rootless, "build", *FLAGS, str(place))
    assert "leads to no file in the build context" in said
    assert SECRET.decode() not in said
    said = failure(box.rootless, "build", *FLAGS, "-f", str(place / name), str(place))
    assert SECRET.decode() not in said


@pytest.mark.parametrize(
    "source", ["../victim/passwd", "/../victim/passwd", "out/passwd", "absolute", "up", "nested/x", "../victim/*"]
)
def test_what_is_copied_comes_from_the_context(box: Box, tmp_path: Path, source: str) -> None:  # B02
    canary = Canary(tmp_path / "victim")
    place = tmp_path / "context"
    place.mkdir()
    (place / "out").symlink_to(canary.top)
    (place / "absolute").symlink_to(canary.top / "passwd")
    (place / "up").symlink_to("../victim/passwd")
    (place / "nested").symlink_to("out/sub/../..")
    for instruction in ("COPY", "ADD"):
        assert SECRET.decode() not in refused(box, place, f"FROM BASE\n{instruction} {source} /x\n")


def test_links_are_copied_as_links(box: Box, tmp_path: Path) -> None:  # B02
    canary = Canary(tmp_path / "victim")
    place = tmp_path / "context"
    (place / "tree").mkdir(parents=True)
    (place / "tree/out").symlink_to(canary.top)
    (place / "tree/file").symlink_to(canary.top / "passwd")
    said = build(box, place, "FROM BASE\nCOPY tree /tree\nRUN ls -l /tree; cat /tree/file /tree/out/passwd || true\n")
    assert SECRET.decode() not in said
    assert holds(box.rootless.data, SECRET) == []


def test_a_context_that_changes_meanwhile_leads_nowhere(box: Box, tmp_path: Path) -> None:  # B03
    """A directory of the context is swapped for a link that leads outside, while it is copied and while it is bound."""
    canary = Canary(tmp_path / "victim")
    place = tmp_path / "context"
    (place / "sub").mkdir(parents=True)
    for number in range(30):
        (place / "sub" / f"file{number}").write_text("inside")
    (place / "passwd").write_text("inside")
    (place / "link").symlink_to(canary.top)
    text = "FROM BASE\nRUN --mount=type=bind,source=sub,target=/m cat /m/passwd || true\nCOPY sub /x\nCOPY . /y\n"
    context(box, place, text + "RUN find /x /y -type f | xargs cat\n")
    with racing(place / "sub", place / "link") as racer:
        builds = 0
        while builds < 4 or racer.goes_on():
            status, said = no_traceback(box.rootless, "build", "--no-cache", *FLAGS, str(place))
            assert status in (0, 1)
            assert SECRET.decode() not in said
            builds += 1
    assert canary.changes() == []
    assert holds(box.rootless.data, SECRET) == []


def test_stages_are_not_left_through_their_links(box: Box, tmp_path: Path) -> None:  # B04, CVE-2024-1753
    canary = Canary(tmp_path / "victim")
    text = (
        f"FROM BASE AS evil\nRUN ln -s / /root-link && ln -s {canary.top} /out && ln -s {canary.top}/passwd /file\n"
        "RUN mkdir -p /d && ln -s ../../../../../.. /d/up\n"
        "FROM BASE\n"
        "RUN --mount=type=bind,from=evil,source=/root-link,target=/m,rw ls -a /m; echo changed > /m/new; true\n"
        "COPY --from=evil /root-link/etc/passwd /copied\nRUN cat /copied\n"
    )
    said = build(box, tmp_path / "context", text)
    assert "root:x:0:0" in said
    for source in ("/out/passwd", "/file", "/d/up/../../victim/passwd", "/root-link/out/passwd"):
        more = f"{text}COPY --from=evil {source} /x\n"
        assert SECRET.decode() not in refused(box, tmp_path / "context", more)
        more = f"{text}RUN --mount=type=bind,from=evil,source={source},target=/y cat /y\n"
        assert SECRET.decode() not in refused(box, tmp_path / "context", more)
    assert canary.changes() == []


def test_cache_mounts_are_not_left(box: Box, tmp_path: Path) -> None:  # B05, CVE-2024-23651, CVE-2024-9675
    canary = Canary(tmp_path / "victim")
    depth = "../" * 12
    plant = f"ln -s {canary.top} /c/out; ln -s {depth}{str(canary.top)[1:]} /c/up; ln -s / /c/root; true"
    for number, mount in enumerate(("source=out", "source=up", "source=root/out", f"source={depth}{canary.top}")):
        text = (
            f"FROM BASE\nRUN --mount=type=cache,target=/c,id={depth}lost {plant}\n"
            f"RUN --mount=type=cache,target=/m,id={depth}lost,{mount} cat /m/passwd; echo x > /m/new; true # {number}\n"
        )
        status, said = no_traceback(box.rootless, "build", *FLAGS, context(box, tmp_path / "context", text))
        assert SECRET.decode() not in said
        assert status in (0, 1)
    assert canary.changes() == []
    mounts = os.listdir(box.rootless.data / "rootless/build/mounts")
    assert all(len(name) == 64 for name in mounts)
    assert not list(box.rootless.tree.rglob("lost"))


def test_a_cache_that_another_build_changes_is_not_left(box: Box, tmp_path: Path) -> None:  # B05, CVE-2024-23651
    """One build swaps a directory of the cache for a link that leads outside, others mount it."""
    canary = Canary(tmp_path / "victim")
    swap = "mv -T sub t; mv -T link sub; mv -T sub link; mv -T t sub"
    script = f"cd /c; mkdir sub; ln -s {canary.top} link; touch sub/here; while true; do {swap}; done"
    place = context(box, tmp_path / "swaps", f"FROM BASE\nRUN --mount=type=cache,target=/c,id=swap {script}\n")
    swaps = box.rootless.start("build", *FLAGS, place)
    try:
        assert wait_until(lambda: list((box.rootless.data / "rootless/build/mounts").glob("*/data/*")))
        outcomes = set()
        for _ in range(100 if LONG else 12):
            script = "ls /m; cat /m/passwd; touch /m/x; true"
            text = f"FROM BASE\nRUN --mount=type=cache,target=/m,id=swap,source=sub {script}\n"
            place = context(box, tmp_path / "context", text)
            status, said = no_traceback(box.rootless, "build", "--no-cache", *FLAGS, place)
            assert SECRET.decode() not in said
            outcomes.add(status)
    finally:
        swaps.kill()
        swaps.communicate()
    assert 0 in outcomes
    assert canary.changes() == []
    assert wait_until(lambda: not [line for line in box.rootless.processes().values() if "mv" in line.split()])


def test_stubs_of_mounts_are_removed_inside(box: Box, tmp_path: Path) -> None:  # B06, CVE-2024-23652
    canary = Canary(tmp_path / "victim")
    for swap in (f"ln -s {canary.top} /made", "mkdir -p /made/sub && touch /made/sub/file", "echo x > /made"):
        text = (
            "FROM BASE\nRUN --mount=type=tmpfs,target=/made/sub --mount=type=tmpfs,target=/made/empty"
            f" umount /made/sub /made/empty 2>/dev/null; mv /made /moved 2>/dev/null; {swap} 2>/dev/null; true\n"
        )
        build(box, tmp_path / "context", text)
    assert canary.changes() == []


@pytest.mark.parametrize(
    "mount",
    [
        "type=bind,target=/x,bind-propagation=shared",
        "type=bind,target=/x,source=../victim",
        "type=bind,target=/x,source=/victim",
        "type=volume,target=/x",
        "type=cache,target=/x,sharing=open",
        "type=bind,target=/x,options=suid",
        "type=bind,source=/etc,target=/x,from=",
    ],
)
def test_mounts_have_known_options_and_sources_inside(box: Box, tmp_path: Path, mount: str) -> None:  # B07
    canary = Canary(tmp_path / "victim")
    said = refused(box, tmp_path / "context", f"FROM BASE\nRUN --mount={mount} cat /x/passwd\n")
    assert SECRET.decode() not in said
    assert canary.changes() == []


class _Scripted(BaseHTTPRequestHandler):
    """Answers with what the path says."""

    def do_GET(self) -> None:
        host = self.headers["Host"]
        redirects = {"/to-file": "file:///etc/passwd", "/to-ftp": "ftp://127.0.0.1/x"}
        if self.path in redirects:
            self._redirect(redirects[self.path])
        elif self.path.startswith("/loop"):
            self._redirect(f"http://{host}/loop{self.path[5:]}x")
        else:
            self.send_response(200)
            self.send_header("Content-Disposition", 'attachment; filename="../../evil"')
            self.end_headers()
            self.wfile.write(b"content")

    def _redirect(self, where: str) -> None:
        self.send_response(302)
        self.send_header("Location", where)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def scripted() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Scripted)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_is_added_from_the_network_is_fetched_by_http_alone(box: Box, tmp_path: Path) -> None:  # B08
    place = tmp_path / "context"
    with scripted() as url:
        said = build(box, place, f"FROM BASE\nADD {url}/a/name.txt /d/\nRUN ls /d; cat /d/name.txt\n")
        assert "content" in said
        assert not list(box.rootless.tree.rglob("evil"))
        for path in ("/to-file", "/to-ftp", "/loop", "/"):
            refused(box, place, f"FROM BASE\nADD {url}{path} /d/\n")
        digest = "sha256:" + "0" * 64
        assert "digest mismatch" in refused(box, place, f"FROM BASE\nADD --checksum={digest} {url}/x /d/\n")
    for address in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        assert "not found" in refused(box, place, f"FROM BASE\nADD {address} /d/\n")


@pytest.mark.parametrize(
    "address",
    [
        "git://127.0.0.1:1/x.git#--upload-pack=touch ran",
        "https://127.0.0.1:1/x.git#-o",
        "git@-oProxyCommand=x:y.git",
        "https://127.0.0.1:1/x.git?ref=--exec=x",
        "ext::sh -c touch% ran",
        "git://127.0.0.1:1/x.git#a..b",
    ],
)
def test_git_is_told_nothing_but_references(box: Box, tmp_path: Path, address: str) -> None:  # B09, CVE-2019-13139
    failure(box.rootless, "build", *FLAGS, address)
    assert not list(box.rootless.tree.rglob("ran"))


def test_a_repository_is_checked_out_without_its_hooks_and_links(box: Box, tmp_path: Path) -> None:  # B09
    """Served by git daemon: with hooks, a submodule that is a file, a subdirectory that is a link to outside."""
    canary = Canary(tmp_path / "victim")
    source = tmp_path / "repositories/evil.git"
    git = ["git", "-C", str(source), "-c", "user.name=x", "-c", "user.email=x@x", "-c", "protocol.file.allow=always"]
    source.mkdir(parents=True)
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    (source / "Dockerfile").write_text(f"FROM {box.image}\nCOPY . /x\nRUN ls -a /x\n")
    (source / "out").symlink_to(canary.top)
    (source / "sub").mkdir()
    (source / "sub/Dockerfile").write_text(f"FROM {box.image}\nCOPY . /sub\nRUN ls /sub\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "1"], check=True)
    (source / ".git/git-daemon-export-ok").touch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = subprocess.Popen(
        ["git", "daemon", f"--port={port}", "--listen=127.0.0.1", f"--base-path={source.parent}", "--reuseaddr"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        assert wait_until(lambda: _answers(port))
        address = f"git://127.0.0.1:{port}/evil.git"
        said = box.rootless.run("build", *FLAGS, address)
        assert "Dockerfile" in said.stderr
        assert ".git" not in said.stderr.replace("evil.git", "")
        assert "Dockerfile" in box.rootless.run("build", *FLAGS, f"{address}#main:sub").stderr
        assert SECRET.decode() not in failure(box.rootless, "build", *FLAGS, f"{address}#main:out")
        assert "no such directory" in failure(box.rootless, "build", *FLAGS, f"{address}#:out")
    finally:
        os.killpg(daemon.pid, 9)
        daemon.wait()
    assert canary.changes() == []


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_working_directories_and_destinations_stay_in_the_image(  # B10, CVE-2024-21626
    hostile: FaultRegistry, box: Box, tmp_path: Path
) -> None:
    canary = Canary(tmp_path / "victim")
    depth = "../" * 12
    links = [
        directory("a"),
        symlink("a/out", str(canary.top)),
        symlink("a/up", f"{depth}{str(canary.top)[1:]}"),
        symlink("a/fd", "/proc/self/fd/5"),
    ]
    image = serve(hostile, busybox(), packed(links))
    place = tmp_path / "context"
    place.mkdir()
    (place / "file").write_text("x")
    for path in ("/a/out/w", "/a/up/w", "/a/fd/w", f"{depth}{canary.top}"):
        text = f"FROM {image}\nWORKDIR {path}\nRUN pwd; touch here\nCOPY file new\nVOLUME {path}\nADD file {path}/x\n"
        no_traceback(box.rootless, "build", *FLAGS, context(box, place, text))
    assert canary.changes() == []


def test_nothing_of_the_callers_environment_is_in_a_step(box: Box, tmp_path: Path) -> None:  # B11
    place = context(box, tmp_path / "context", "FROM BASE\nARG SECRET_FROM_HERE\nRUN env; cat /proc/1/environ\n")
    environment = {**box.rootless.env, "SECRET_FROM_HERE": TOKEN.decode(), "http_proxy_x": "x"}
    done = subprocess.run(
        box.rootless.command("build", *FLAGS, place), env=environment, capture_output=True, text=True, check=True
    )
    assert TOKEN.decode() not in done.stdout + done.stderr
    assert holds(box.rootless.data, TOKEN) == []


def test_secrets_stay_nowhere(box: Box, tmp_path: Path) -> None:  # B13
    (tmp_path / "token").write_bytes(TOKEN)
    text = (
        "FROM BASE\nRUN --mount=type=secret,id=t wc -c < /run/secrets/t\n"
        'RUN --mount=type=secret,id=t,env=TOKEN test -n "$TOKEN"\n'
        "RUN --mount=type=secret,id=t,target=/etc/token,mode=0444 test -s /etc/token\n"
        "RUN ls /run/secrets /etc/token 2>/dev/null; env | grep -c TOKEN || true\n"
    )
    said = build(box, tmp_path / "context", text, "--secret", f"id=t,src={tmp_path}/token", "-t", "secretive")
    assert TOKEN.decode() not in said
    assert holds(box.rootless.tree, TOKEN) == []
    history = box.rootless.run("history", "--no-trunc", "secretive").stdout
    assert TOKEN.decode() not in history


def test_a_build_that_is_killed_leaves_no_secret_and_no_process(box: Box, tmp_path: Path) -> None:  # B13, K02
    (tmp_path / "token").write_bytes(TOKEN)
    text = "FROM BASE\nRUN --mount=type=secret,id=t,env=T --mount=type=secret,id=t echo going; sleep 600\n"
    place = context(box, tmp_path / "context", text)
    with box.rootless.no_leaks(killed=True):
        process = box.rootless.start("build", *FLAGS, "--secret", f"id=t,src={tmp_path}/token", place)
        assert process.stderr
        for line in process.stderr:
            if line.rstrip().endswith(b" going") and b"echo" not in line:
                break
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
        box.rootless.run("builder", "prune", "-f")
    assert holds(box.rootless.tree, TOKEN) == []


def test_a_build_that_is_killed_at_any_moment_leaves_nothing(box: Box, tmp_path: Path) -> None:  # K02
    """Whatever it was doing: what it has left is swept, and the next build goes on from its finished steps."""
    place = tmp_path / "context"
    place.mkdir()
    for number in range(300):
        (place / f"file{number}").write_text("x" * number)
    text = (
        "FROM BASE AS one\nCOPY . /x\nRUN --mount=type=cache,target=/c touch /c/x && rm /x/file1\n"
        "FROM BASE\nWORKDIR /w\nCOPY --from=one /x /y\nRUN ls /y | wc -l > n\n"
    )
    context(box, place, text)
    box.rootless.run("build", "-q", str(place))
    for number in range(200 if LONG else 10):
        box.rootless.run("builder", "prune", "-a", "-f")
        process = subprocess.Popen(
            box.rootless.command("build", "-q", "--network=none", str(place)),
            env=box.rootless.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.06 + 0.04 * (number % 10))
        process.kill()
        process.wait()
    assert wait_until(lambda: not [line for line in box.rootless.processes().values() if "build" in line])
    build(box, place, text, "-t", "whole")
    assert box.rootless.run("run", "--rm", "--network=none", "whole", "cat", "n").stdout == "300\n"
    assert wait_until(lambda: not os.listdir(box.rootless.data / "rootless/trash"))


def test_bases_that_differ_in_their_config_do_not_share_it(  # B14, CVE-2024-24557
    hostile: FaultRegistry, box: Box, tmp_path: Path
) -> None:
    evil = serve(hostile, busybox(), config={"Healthcheck": {"Test": ["CMD", "evil"]}, "Env": ["PATH=/evil:/bin"]})
    good = serve(hostile, busybox(), config={"Env": ["PATH=/bin"]})
    for name, image in (("evil", evil), ("good", good)):
        build(box, tmp_path / name, f"FROM {image}\nRUN echo same\nRUN echo $PATH > /path\nCMD x\n", "-t", name)
    [document] = json.loads(box.rootless.run("image", "inspect", "good").stdout)
    assert "Healthcheck" not in document["Config"] or not document["Config"]["Healthcheck"]
    assert box.rootless.run("run", "--rm", "--network=none", "good", "/bin/cat", "/path").stdout == "/bin\n"


def test_a_build_cache_from_elsewhere_is_checked(box: Box, tmp_path: Path) -> None:  # B14
    cache = tmp_path / "cache"
    text = "FROM BASE\nRUN echo unlike-others > /made\n"
    build(box, tmp_path / "context", text, "--cache-to", f"type=local,dest={cache}")
    [blob] = (cache / "blobs/sha256").iterdir()
    blob.write_bytes(blob.read_bytes().replace(b"unlike-others", b"unlike-hostil"))
    box.rootless.run("builder", "prune", "-a", "-f")
    box.rootless.run("image", "prune", "-f")
    said = refused(box, tmp_path / "context", text, "--cache-from", f"type=local,src={cache}")
    assert "is not the layer" in said


@pytest.mark.parametrize("lie", ["content", "chain", "size"])
def test_a_build_cache_of_a_registry_is_checked(  # B14
    box: Box, hostile: FaultRegistry, tmp_path: Path, lie: str
) -> None:
    """A layer that is another than its step says; another step's layer; a length that is not its own."""
    text = "FROM BASE\nRUN echo unlike-others > /made\n"
    build(box, tmp_path / "context", text, "--cache-to", f"type=local,dest={tmp_path}/cache")
    [step] = (tmp_path / "cache/steps").iterdir()
    [blob] = (tmp_path / "cache/blobs/sha256").iterdir()
    record, layer = json.loads(step.read_bytes()), blob.read_bytes()
    if lie == "content":
        layer = layer.replace(b"unlike-others", b"unlike-hostil")
    elif lie == "chain":
        record["chain_id"] = record["layers"][-1] = record["layers"][0]
    else:
        record["length"] = 7
    rootfs = {"type": "layers", "diff_ids": [record["diff_id"]]}
    name = serve(hostile, layer, changes={"rootless.buildcache.v1": {step.stem: record}, "rootfs": rootfs})
    box.rootless.run("builder", "prune", "-a", "-f")
    box.rootless.run("image", "prune", "-f")
    options = ("--cache-from", name, "-t", "carried")
    if lie == "content":
        assert "is not the layer" in refused(box, tmp_path / "context", text, *options)
        return
    build(box, tmp_path / "context", text, *options)
    made = box.rootless.run("run", "--rm", "--network=none", "carried", "cat", "/made")
    assert made.stdout == "unlike-others\n"
    box.rootless.run("save", "-o", f"{tmp_path}/carried.tar", "carried")
    box.rootless.run("rmi", "carried")
    box.rootless.run("load", "-i", f"{tmp_path}/carried.tar")


def test_a_layer_of_a_build_cache_that_is_no_digest_is_no_path(  # B14
    box: Box, hostile: FaultRegistry, tmp_path: Path
) -> None:
    """Above nothing the digest of a layer is its name in the store."""
    text = "FROM scratch\nCOPY file /\n"
    (tmp_path / "context").mkdir()
    (tmp_path / "context/file").write_text("content")
    build(box, tmp_path / "context", text, "--cache-to", f"type=local,dest={tmp_path}/cache")
    [step] = (tmp_path / "cache/steps").iterdir()
    record = json.loads(step.read_bytes())
    for name in ("sha256:../../../../../etc", "/etc", "sha256:\ud800"):
        record.update(chain_id=name, diff_id=name, layers=[name])
        rootfs = {"type": "layers", "diff_ids": [name]}
        cache = serve(hostile, busybox(), changes={"rootless.buildcache.v1": {step.stem: record}, "rootfs": rootfs})
        box.rootless.run("builder", "prune", "-a", "-f")
        refused(box, tmp_path / "context", text, "--cache-from", cache)


def test_what_a_base_says_about_us_changes_no_step(hostile: FaultRegistry, box: Box, tmp_path: Path) -> None:  # B12
    """Labels, annotations and members that nobody has defined; its word about a cache is not asked for, nor kept."""
    forged = {"rootless.buildcache.v1": {"0" * 64: {"layers": [], "description": "x"}}}
    evil = serve(hostile, busybox(), tools(), config={**UNKNOWN, "Labels": KEYS}, changes={**TOP_LEVEL, **forged})
    plain = serve(hostile, busybox(), tools())
    script = "RUN grep -e Cap -e Groups -e NoNew -e Seccomp: /proc/self/status; env; grep -c . /proc/self/mountinfo; id"
    seen = []
    for name, base in (("evil-base", evil), ("plain-base", plain)):
        said = build(box, tmp_path / name, f"FROM {base}\n{script}\n", "--no-cache", "-t", name)
        step = said.partition("exporting to image")[0]
        seen.append([line.split(maxsplit=2)[2:] for line in step.splitlines() if OF_STEP.match(line)])
    assert len(seen[0]) > 10
    assert seen[0] == seen[1]
    [document] = json.loads(box.rootless.run("image", "inspect", "evil-base").stdout)
    assert document["Config"]["Labels"] == KEYS
    box.rootless.run("save", "-o", f"{tmp_path}/evil.tar", "evil-base")
    assert b"buildcache" not in (tmp_path / "evil.tar").read_bytes()


def test_a_step_may_do_no_more_than_a_container(box: Box, tmp_path: Path) -> None:  # B15
    script = "grep -e Cap -e NoNewPrivs -e Seccomp: /proc/self/status"
    said = build(box, tmp_path / "context", f"# syntax=evil/frontend:1\nFROM BASE\nRUN {script}\n", "--no-cache")
    step = [line.split()[2:] for line in said.splitlines()]
    container = [line.split() for line in box.sh(script, "--network=none").splitlines()]
    assert len(container) >= 7
    assert [words for words in container if words not in step] == []


def test_insecure_steps_and_the_machines_network_are_refused(box: Box, tmp_path: Path) -> None:  # B15
    for flag, name in (("--security=insecure", "security.insecure"), ("--network=host", "network.host")):
        assert f"{name} is not allowed" in refused(box, tmp_path / "context", f"FROM BASE\nRUN {flag} true\n")


def test_output_stays_in_its_directory(hostile: FaultRegistry, box: Box, tmp_path: Path) -> None:  # B16
    canary = Canary(tmp_path / "victim")
    image = serve(
        hostile,
        packed([symlink("out", str(canary.top)), directory("etc"), file("etc/passwd", b"image"), directory("d")]),
        packed([directory("planted"), file("planted/passwd", b"image")]),
    )
    out = tmp_path / "out"
    out.mkdir()
    (out / "planted").symlink_to(canary.top)
    (out / "etc").mkdir()
    (out / "etc/passwd").symlink_to(canary.top / "passwd")
    place = context(box, tmp_path / "context", f"FROM {image}\n")
    no_traceback(box.rootless, "build", *FLAGS, "-o", str(out), place)
    (out / "planted").unlink()
    box.rootless.run("build", *FLAGS, "-o", str(out), place)
    assert (out / "etc/passwd").read_text() == "image"
    assert os.readlink(out / "out") == str(canary.top)
    assert canary.changes() == []
