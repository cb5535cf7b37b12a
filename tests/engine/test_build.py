"""build: the cache, stages side by side, contexts of all kinds, outputs, failures, what is left behind."""

import io
import json
import os
import signal
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box, Done
from tests.support.corpus import lines_of_tar
from tests.support.registry import Registry

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

FLAGS = ("--progress=plain",)


class Builder:
    """A box, and a context to build in it."""

    def __init__(self, box: Box, place: Path) -> None:
        self.box, self.place = box, place

    def write(self, dockerfile: str, **files: str) -> None:
        """The Dockerfile, with the box's image for BASE; and files, `__` in their names for a slash."""
        (self.place / "Dockerfile").write_text(dockerfile.replace("BASE", self.box.image))
        for name, content in files.items():
            path = self.place / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def __call__(self, *options: str, check: bool = True, input: str = "") -> Done:
        return self.box("build", *FLAGS, *options, str(self.place), check=check, input=input)

    def id(self, *options: str) -> str:
        return self.box("build", "-q", *options, str(self.place)).stdout.strip()

    def cached(self, *options: str) -> list[bool]:
        """Of each step, in the order of the Dockerfile, whether it was taken from the cache."""
        said = self("--progress=rawjson", *options).stderr
        vertexes: dict[str, bool] = {}
        for line in said.splitlines():
            if line.startswith("{"):
                for vertex in json.loads(line).get("vertexes", ()):
                    if vertex["name"].startswith("[") and not vertex["name"].startswith("[internal]"):
                        vertexes[vertex["name"]] = vertex.get("cached", False)
        return [vertexes[name] for name in sorted(vertexes)]

    def output(self, image: str, *words: str) -> str:
        return self.box("run", "--rm", image, *words).stdout


@pytest.fixture
def builder(box: Box, tmp_path: Path) -> Iterator[Builder]:
    place = tmp_path / "context"
    place.mkdir()
    yield Builder(box, place)
    box("builder", "prune", "-a", "-f")
    box("image", "prune", "-f")


def test_a_build_that_finds_all_its_steps_makes_the_same_image(builder: Builder) -> None:
    builder.write("FROM BASE\nENV A=b\nCOPY f /f\nRUN echo x > /x\nCMD cat /x\n", f="1")
    first = builder.id("-t", "first")
    assert builder.id("-t", "second") == first
    assert builder.cached() == [True, True]
    assert builder.output("second") == "x\n"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("touch", [True, True, True]),
        ("content", [False, False, False]),
        ("mode", [False, False, False]),
        ("label", [True, True, True]),
        ("other file", [True, True, True]),
        ("environment", [True, False, False]),
        ("argument", [True, False, False]),
    ],
)
def test_a_step_is_done_again_if_what_it_depends_on_changes(
    builder: Builder, change: str, expected: list[bool]
) -> None:
    text = "FROM BASE\nLABEL l=1\nCOPY f /f\nARG V=0\nENV E=1\nRUN cat /f > /g\nRUN cat /g\n"
    builder.write(text, f="1", unused="1")
    builder()
    file = builder.place / "f"
    match change:
        case "touch":
            os.utime(file, (1, 1))
        case "content":
            file.write_text("2")
        case "mode":
            file.chmod(0o600)
        case "label":
            builder.write(text.replace("l=1", "l=2"))
        case "other file":
            (builder.place / "unused").write_text("2")
        case "environment":
            builder.write(text.replace("E=1", "E=2"))
        case "argument":
            builder.write(text.replace("V=0", "V=1"))
    assert builder.cached() == expected


def test_what_makes_no_difference_to_the_files_does_not_end_the_cache(builder: Builder) -> None:
    """Two ways to the same layer: what follows is found on either."""
    builder.write("FROM BASE\nCOPY a /f\nRUN echo x > /x\n", a="same", b="same")
    os.utime(builder.place / "a", (1, 1))
    os.utime(builder.place / "b", (1, 1))
    builder()
    builder.write("FROM BASE\nCOPY b /f\nRUN echo x > /x\n")
    assert builder.cached() == [False, True]


def test_no_cache_does_all_again_and_a_filter_one_stage(builder: Builder) -> None:
    builder.write("FROM BASE AS one\nRUN echo 1 > /1\nFROM BASE AS two\nRUN echo 2 > /2\nCOPY --from=one /1 /1\n")
    builder()
    assert builder.cached() == [True, True, True]
    assert builder.cached("--no-cache-filter=one") == [False, True, True]
    assert builder.cached("--no-cache") == [False, False, False]


def test_why_says_what_has_changed(builder: Builder) -> None:
    builder.write("FROM BASE\nARG V=1\nCOPY dir /d\nRUN echo $V\n", dir__f="1")
    assert "not cached: it has not been done before" in builder("--why").stderr
    assert "cached: nothing that it depends on has changed" in builder("--why").stderr
    (builder.place / "dir/f").write_text("2")
    assert "dir of the build context has changed" in builder("--why").stderr
    assert "variable V has changed" in builder("--why", "--build-arg", "V=2").stderr


def test_independent_stages_run_side_by_side(builder: Builder) -> None:
    """Each waits for a file that only the other makes, through a cache that both have."""
    wait = "for i in $(seq 100); do test -e /c/{1} && exit 0; sleep 0.1; done; exit 1"
    stages = [
        f"FROM BASE AS s{own}\nRUN --mount=type=cache,target=/c,id=meet touch /c/{own}; "
        + wait.replace("{1}", other)
        + f"\nRUN echo {own} > /{own}\n"
        for own, other in (("a", "b"), ("b", "a"))
    ]
    builder.write("".join(stages) + "FROM BASE\nCOPY --from=sa /a /\nCOPY --from=sb /b /\n")
    builder("-t", "both")
    assert builder.output("both", "cat", "/a", "/b") == "a\nb\n"


def test_two_builds_at_once_do_a_step_once(builder: Builder) -> None:
    builder.write(
        "FROM BASE\nRUN --mount=type=cache,target=/c,id=once echo x >> /c/log; sleep 1; wc -l < /c/log > /n\n"
    )
    processes = [builder.box.start("build", "-q", str(builder.place)) for _ in range(2)]
    ids = {process.communicate()[0] for process in processes}
    assert len(ids) == 1
    assert [process.returncode for process in processes] == [0, 0]
    builder("-t", "once")
    assert builder.output("once", "cat", "/n") == "1\n"


def test_a_failed_step_shows_its_output_and_its_lines(builder: Builder) -> None:
    builder.write("FROM BASE\nRUN true\nRUN echo before; \\\n    exit 7\nRUN true\n")
    done = builder(check=False)
    assert done.returncode == 1
    assert "\n > before\n" in done.stderr
    assert "   3 | >>> RUN echo before; \\\n   4 | >>>     exit 7\n   5 |     RUN true\n" in done.stderr
    assert done.stderr.rstrip().endswith("did not complete successfully: exit code: 7")
    builder.write("FROM BASE\nRUN true\nRUN echo fixed\n")
    assert builder.cached() == [True, False]


def test_a_failure_ends_the_other_stages(builder: Builder) -> None:
    builder.write("FROM BASE AS slow\nRUN sleep 600\nFROM BASE AS bad\nRUN exit 3\nFROM slow\nCOPY --from=bad / /\n")
    done = builder(check=False)
    assert done.returncode == 1
    assert "exit code: 3" in done.stderr


def test_errors_name_the_line(builder: Builder) -> None:
    for line, expected in (
        ("COPY missing /x", '"/missing": not found'),
        ("COPY --from=5 /x /x", "invalid stage index 5"),
        ("RUNN x", "Dockerfile:2"),
        ("COPY --chown=nobody-has-this f /x", "unable to find user nobody-has-this"),
        ("USER nobody-has-this\nRUN true", "unable to find user nobody-has-this"),
        ("RUN --network=host true", "network.host is not allowed"),
        ('RUN ["/no/such/program"]', "no such file or directory"),
    ):
        builder.write(f"FROM BASE\n{line}\n", f="1")
        done = builder("--network=none", check=False)
        assert done.returncode == 1, (line, done.stderr)
        assert expected in done.stderr, (line, done.stderr)
        assert "Traceback" not in done.stderr


def test_ctrl_c_ends_the_build_and_leaves_nothing(builder: Builder) -> None:
    builder.write("FROM BASE\nRUN echo going; sleep 600\n")
    with builder.box.installed.no_leaks():
        process = builder.box.start("build", *FLAGS, str(builder.place))
        assert process.stderr
        for line in process.stderr:
            if line.rstrip().endswith(b" going") and b"echo" not in line:
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 130, said
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


def test_a_steps_containers_are_not_listed(builder: Builder) -> None:
    builder.write("FROM BASE\nRUN --mount=type=cache,target=/c,id=seen touch /c/x; sleep 3\n")
    process = builder.box.start("build", "-q", str(builder.place))
    assert wait_until(lambda: any("sleep" in line for line in builder.box.installed.processes().values()))
    assert builder.box("ps", "-a", "-q").stdout.split() == builder.box.ids()
    assert process.wait() == 0
    process.communicate()


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


def test_contexts_come_on_standard_input(builder: Builder) -> None:
    text = f"FROM {builder.box.image}\nCOPY f /f\n"
    builder.box.installed.run_bytes("build", "-q", "-t", "tar", "-", input=archive(Dockerfile=text, f="in the archive"))
    assert builder.output("tar", "cat", "/f") == "in the archive"
    other = archive(other=text, f="2")
    builder.box.installed.run_bytes("build", "-q", "-t", "tar", "-f", "other", "-", input=other)
    assert builder.output("tar", "cat", "/f") == "2"
    builder.box("build", "-q", "-t", "text", "-", input=f"FROM {builder.box.image}\nRUN echo alone > /f\n")
    assert builder.output("text", "cat", "/f") == "alone\n"
    builder.write("", f="from the directory")
    builder.box("build", "-q", "-t", "both", "-f", "-", str(builder.place), input=text)
    assert builder.output("both", "cat", "/f") == "from the directory"


def test_named_contexts_take_the_place_of_stages_and_images(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/f").write_text("other")
    (tmp_path / "other/.dockerignore").write_text("secret\n")
    (tmp_path / "other/secret").write_text("x")
    builder.write("FROM renamed\nCOPY --from=named . /n\nRUN --mount=type=bind,from=named,target=/m ls /m > /m-list\n")
    contexts = ("--build-context", f"named={tmp_path}/other", "--build-context")
    builder("-t", "named", *contexts, f"renamed=docker-image://{builder.box.image}")
    assert builder.output("named", "ls", "-A", "/n") == ".dockerignore\nf\n"
    assert builder.output("named", "cat", "/m-list") == "f\n"
    builder.write("FROM named AS files\nFROM BASE\nCOPY --from=files / /n\n")
    builder("-t", "named", "--build-context", f"named={tmp_path}/other")
    assert builder.output("named", "ls", "/n") == "f\n"


def test_a_base_that_is_not_here_is_pulled(builder: Builder, image: Callable[[str], str], tmp_path: Path) -> None:
    name = image("docker-busybox")
    builder.write(f"FROM scratch\nCOPY --from={name} /bin/busybox /bin/busybox\n")
    said = builder("-t", "pulled").stderr
    assert "Pulling from" in said
    assert "Pulling from" not in builder("-t", "pulled").stderr
    assert "Pulling from" in builder("--pull").stderr
    builder.box("rmi", name)
    builder.write("FROM 127.0.0.1:1/nothing\n")
    assert builder(check=False).returncode == 1


def test_an_image_is_pushed_when_it_is_built(builder: Builder, registry: Registry) -> None:
    builder.write("FROM BASE\nRUN echo pushed > /f\n")
    name = f"{registry.host}/built:1"
    first = builder.id("-t", name, "--push")
    builder.box("rmi", name)
    builder.box("builder", "prune", "-a", "-f")
    builder.box("image", "prune", "-f")
    assert builder.output(name, "cat", "/f") == "pushed\n"
    [document] = json.loads(builder.box("image", "inspect", name).stdout)
    assert document["Id"] == first
    builder.box("rmi", name)


def test_outputs_are_a_directory_an_archive_or_an_image(builder: Builder, tmp_path: Path) -> None:
    builder.write("FROM scratch\nCOPY f /sub/f\n", f="1")
    builder("-o", str(tmp_path / "out"))
    assert (tmp_path / "out/sub/f").read_text() == "1"
    builder("--output", f"type=tar,dest={tmp_path}/out.tar")
    assert set(lines_of_tar((tmp_path / "out.tar").read_bytes())) == {"sub", "sub/f"}
    before = builder.box("images", "-aq").stdout
    for kind in ("oci", "docker"):
        builder("--output", f"type={kind},dest={tmp_path}/{kind}.tar")
        with tarfile.open(tmp_path / f"{kind}.tar") as tar:
            assert "index.json" in tar.getnames()
    assert builder.box("images", "-aq").stdout == before
    builder("-t", "saved", "--output", f"type=docker,dest={tmp_path}/named.tar")
    builder.box("rmi", "saved")
    assert "saved:latest" in builder.box("load", "-i", f"{tmp_path}/named.tar").stdout


def test_squash_leaves_one_layer_with_the_same_files(builder: Builder, tmp_path: Path) -> None:
    builder.write(
        "FROM BASE\nRUN mkdir /d && echo 1 > /d/a && echo 1 > /d/b\nRUN rm /d/a /etc/shadow && echo 2 > /d/c\n"
        "RUN rm -r /d/b && mkdir /d/b && touch /d/b/x && rm -r /home\nRUN ln /d/c /d/hard\n"
    )
    tars = []
    for name, options in (("layers", ()), ("squashed", ("--squash",))):
        builder("-t", name, *options)
        (tmp_path / "Dockerfile").write_text(f"FROM {name}\n")
        out = tmp_path / f"{name}.tar"
        builder.box("build", "-q", "--output", f"type=tar,dest={out}", str(tmp_path))
        tars.append(lines_of_tar(out.read_bytes()))
    assert tars[0] == tars[1]
    layers = json.loads(builder.box("image", "inspect", "squashed").stdout)[0]["RootFS"]["Layers"]
    assert len(layers) == 2


def test_source_date_epoch_makes_a_build_reproducible(builder: Builder) -> None:
    builder.write("FROM BASE\nWORKDIR /w\nCOPY f /new/f\nRUN date > /dev/null; echo x > x\nCMD x\n", f="1")
    ids = set()
    for _ in range(2):
        ids.add(builder.id("--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1000000000"))
        os.utime(builder.place / "f")
    assert len(ids) == 1
    [document] = json.loads(builder.box("image", "inspect", ids.pop()).stdout)
    assert document["Created"].startswith("2001-09-09T01:46:40")


def test_the_history_tells_of_every_instruction(builder: Builder) -> None:
    builder.write('FROM BASE\nARG V=1\nENV A=b\nWORKDIR /w\nCOPY f /f\nRUN echo $V\nCMD ["x"]\n', f="1")
    builder("-t", "told")
    rows = builder.box("history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "told").stdout.splitlines()
    assert rows[:6] == [
        'CMD ["x"]|rootless',
        "RUN |1 V=1 /bin/sh -c echo $V|rootless",
        "COPY f /f|rootless",
        "WORKDIR /w|rootless",
        "ENV A=b|rootless",
        "ARG V=1|rootless",
    ]


def test_triggers_of_a_base_run_first(builder: Builder) -> None:
    builder.write("FROM BASE\nONBUILD COPY f /triggered\nONBUILD RUN cat /triggered > /read\nONBUILD ENV T=1\n", f="1")
    builder("-t", "with-triggers")
    builder.write("FROM with-triggers\nRUN cat /read > /copy; echo $T >> /copy\n", f="2\n")
    builder("-t", "child")
    assert builder.output("child", "cat", "/copy") == "2\n1\n"
    [document] = json.loads(builder.box("image", "inspect", "child").stdout)
    assert not document["Config"].get("OnBuild")


def test_files_and_metadata_are_written_where_they_are_asked_for(builder: Builder, tmp_path: Path) -> None:
    builder.write("FROM BASE\n")
    builder("-t", "a:1", "-t", "b", "--iidfile", f"{tmp_path}/iid", "--metadata-file", f"{tmp_path}/meta")
    image_id = (tmp_path / "iid").read_text()
    metadata = json.loads((tmp_path / "meta").read_text())
    assert metadata["containerimage.config.digest"] == image_id
    assert metadata["image.name"] == "docker.io/library/a:1,docker.io/library/b:latest"


def test_the_options_of_containers_hold_for_steps(builder: Builder) -> None:
    script = "cat /etc/hosts | grep example; ulimit -n; df -k /dev/shm | tail -1; hostname"
    builder.write(f"FROM BASE\nRUN {script}\n")
    options = ("--add-host", "example.test:192.0.2.7", "--ulimit", "nofile=77", "--shm-size", "4m")
    said = builder(*options).stderr
    assert ["192.0.2.7", "example.test"] in [line.split()[2:] for line in said.splitlines()]
    assert " 77\n" in said
    assert "4096" in said
    assert "buildkitsandbox" in said


def test_caches_are_kept_until_they_are_pruned(builder: Builder) -> None:
    builder.write("FROM BASE\nRUN --mount=type=cache,target=/c,id=pruned echo x >> /c/log; cat /c/log > /log\n")
    builder("-t", "kept")
    builder("--no-cache", "-t", "kept")
    assert builder.output("kept", "cat", "/log") == "x\nx\n"
    listed = builder.box("buildx", "du").stdout
    assert "exec.cachemount" in listed
    assert "RUN /bin/sh -c echo x" in listed
    builder.box("image", "prune", "-f")
    assert builder.cached() == [True]
    builder.box("builder", "prune", "-a", "-f")
    assert len(builder.box("buildx", "du").stdout.splitlines()) == 2
    builder("-t", "kept")
    assert builder.output("kept", "cat", "/log") == "x\n"


def test_the_cache_keeps_layers_whose_image_is_gone(builder: Builder) -> None:
    builder.write("FROM BASE\nRUN echo 1 > /1\nRUN echo 2 > /2\n")
    builder("-t", "gone")
    builder.box("rmi", "gone")
    builder.box("image", "prune", "-f")
    assert builder.cached("-t", "again") == [True, True]
    assert builder.output("again", "cat", "/1", "/2") == "1\n2\n"


def test_cache_mounts_and_steps_are_carried_to_another_store(builder: Builder, tmp_path: Path) -> None:
    builder.write("FROM BASE\nRUN --mount=type=cache,target=/c,id=ci echo x >> /c/log; cat /c/log > /log\nRUN echo y\n")
    builder("--cache-mount-to", f"{tmp_path}/mounts", "--cache-to", f"type=local,dest={tmp_path}/steps")
    builder.box("builder", "prune", "-a", "-f")
    builder.box("image", "prune", "-f")
    assert builder.cached("--cache-from", f"type=local,src={tmp_path}/steps") == [True, True]
    builder.box("builder", "prune", "-a", "-f")
    builder("--cache-mount-from", f"{tmp_path}/mounts", "-t", "carried")
    assert builder.output("carried", "cat", "/log") == "x\nx\n"


@pytest.mark.parametrize("kind", ["tar", "registry"])
def test_cache_mounts_are_carried_by_an_archive_and_by_a_registry(
    builder: Builder, registry: Registry, tmp_path: Path, kind: str
) -> None:
    builder.write("FROM BASE\nRUN --mount=type=cache,target=/c,id=ci echo x >> /c/log; cat /c/log > /log\n")
    place = f"type=tar,dest={tmp_path}/mounts.tar" if kind == "tar" else f"type=registry,ref={registry.host}/mounts:1"
    builder("--cache-mount-from", place, "--cache-mount-to", place)  # the first run finds nothing
    if kind == "tar":
        first = (tmp_path / "mounts.tar").read_bytes()
        builder("--cache-mount-to", place)
        assert (tmp_path / "mounts.tar").read_bytes() == first
    builder.box("builder", "prune", "-a", "-f")
    builder("--cache-mount-from", place, "-t", "carried")
    assert builder.output("carried", "cat", "/log") == "x\nx\n"


def test_a_carried_cache_is_written_over_nothing_that_lies_there(builder: Builder, tmp_path: Path) -> None:
    """A directory that came from anywhere may have links under the names of files that are made for a while."""
    builder.write("FROM BASE\nRUN --mount=type=cache,target=/c,id=ci echo x > /c/log; cp /c/log /log\n")
    mounts, steps, own = tmp_path / "mounts", tmp_path / "steps", tmp_path / "own"
    options = ("--cache-mount-to", str(mounts), "--cache-to", f"type=local,dest={steps}")
    builder(*options)
    made = [*mounts.glob("*.tar"), *(steps / "blobs/sha256").iterdir()]
    assert len(made) == 2
    own.write_text("mine")
    for path in made:
        path.unlink()
        path.with_name(f"{path.name}.new").symlink_to(own)
    builder(*options)
    assert own.read_text() == "mine"
    assert all(path.stat().st_size > 0 for path in made)


def test_a_tree_of_many_layers_is_copied_to_within_few_open_files(builder: Builder) -> None:
    copies = "".join(f"COPY f /a/b/c/{number}\n" for number in range(20))
    builder.write(f"FROM BASE\n{copies}", f="1")
    builder("-t", "many-layers")
    builder.write("FROM many-layers\nCOPY f /a/b/c/last\n")
    installed = builder.box.installed
    command = ["prlimit", "--nofile=64:", "--", *installed.command("build", "-q", str(builder.place))]
    done = subprocess.run(command, env=installed.env, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_directory_of_results_has_no_programs_that_run_as_the_user(builder: Builder, tmp_path: Path) -> None:  # T08
    builder.write("FROM BASE AS made\nCOPY --chmod=6755 f /d/f\nFROM scratch\nCOPY --from=made /d /d\n", f="1")
    builder("-o", str(tmp_path / "out"))
    assert (tmp_path / "out/d/f").stat().st_mode & 0o7777 == 0o755


CARRIED = """
FROM BASE AS tool
RUN echo tool > /tool && echo unlike-others > /made
FROM BASE
COPY --from=tool /tool /
RUN echo top > /top
WORKDIR /
"""


def forget(builder: Builder) -> None:
    """All that was built."""
    builder.box("builder", "prune", "-a", "-f")
    builder.box("image", "prune", "-a", "-f")
    builder.box("pull", "-q", builder.box.image)


def test_steps_are_carried_by_a_registry(builder: Builder, registry: Registry) -> None:
    """mode=max has the stage that the result only copies from; mode=min has not, and a layer is fetched when needed."""
    builder.write(CARRIED)
    for mode in ("min", "max"):
        builder("--cache-to", f"type=registry,ref={registry.host}/cache:{mode},mode={mode},compression=zstd")
    forget(builder)
    assert builder.cached("--cache-from", f"{registry.host}/cache:min", "-t", "min") == [True, True, True, False]
    forget(builder)
    assert builder.cached("--cache-from", f"type=registry,ref={registry.host}/cache:max", "-t", "max") == [True] * 4
    assert builder.output("max", "cat", "/tool", "/top") == "tool\ntop\n"
    builder.box("rmi", "max")


def test_steps_are_carried_by_the_image_itself(builder: Builder, registry: Registry) -> None:
    """Its config tells of them, that of an image built on it does not; and the image stays the same."""
    builder.write("FROM BASE\nRUN echo one > /one\nRUN true\nRUN echo two > /two\nENV A=b\n")
    name = f"{registry.host}/inline:1"
    first = builder.id("--cache-to", "type=inline", "--push", "-t", name)
    builder.box("rmi", name)
    forget(builder)
    assert builder.cached("--cache-from", name, "--cache-to", "type=inline", "-t", name) == [True, True, True]
    assert builder.id("--cache-to", "type=inline", "-t", name) == first
    builder.write(f"FROM {name}\nRUN echo child > /child\n")
    builder("-t", "child", "-o", f"type=oci,dest={builder.place}/child.tar")
    with tarfile.open(builder.place / "child.tar") as archive:
        texts = [file.read() for member in archive if (file := archive.extractfile(member)) and member.size < 1 << 16]
    assert not any(b"rootless.buildcache" in text for text in texts)
    builder.box("rmi", "child", name)


def test_a_cache_that_cannot_be_had_does_not_end_the_build(builder: Builder, registry: Registry) -> None:
    builder.write("FROM BASE\nRUN echo anyhow > /anyhow\n")
    said = builder("--cache-from", f"{registry.host}/nothing:here", "-t", "anyhow").stderr
    assert f"importing cache manifest from {registry.host}/nothing:here" in said
    assert "ERROR: " in said
    assert builder.output("anyhow", "cat", "/anyhow") == "anyhow\n"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--cache-to=type=registry", "needs ref="),
        ("--cache-from=type=inline", "cannot be there"),
        ("--cache-to=type=local,dest=x,mode=most", "it should be min or max"),
        ("--cache-to=type=registry,ref=a/b,level=9", "unexpected key 'level'"),
        ("--output=type=registry,name=a/b,compression=lz4", "unknown compression 'lz4'"),
        ("--output=type=oci,dest=x,compression=zstd", "is for an output that is pushed"),
    ],
)
def test_what_a_cache_or_an_output_must_not_say(builder: Builder, option: str, message: str) -> None:
    builder.write("FROM BASE\n")
    assert message in builder(option, check=False).stderr


def test_what_is_pushed_is_compressed_as_wanted(builder: Builder, registry: Registry) -> None:
    builder.write("FROM BASE\nRUN echo pushed > /pushed\n")
    for number, options in enumerate((["-o", "type=registry,compression=zstd"], ["-o=type=image", "--push"])):
        name = f"{registry.host}/compressed:{number}"
        builder("-t", name, *options)
        said = json.loads(registry_manifest(registry, "compressed", str(number)))
        assert said["layers"][-1]["mediaType"].rpartition("+")[2] == ("zstd", "gzip")[number]


def registry_manifest(registry: Registry, repository: str, tag: str) -> bytes:
    request = urllib.request.Request(
        f"{registry.url}/v2/{repository}/manifests/{tag}",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


def test_steps_are_told_of_the_proxies_in_config_json(builder: Builder) -> None:
    """Unless --build-arg says otherwise; the image and the cache know nothing of them."""
    path = builder.box.installed.home / ".docker/config.json"
    path.parent.mkdir(exist_ok=True)
    default = {"httpProxy": "http://proxy.invalid:1", "noProxy": "localhost"}
    builder.write("FROM BASE\nRUN echo seen $http_proxy $HTTP_PROXY $NO_PROXY.\n")
    try:
        path.write_text(json.dumps({"proxies": {"default": default}}))
        assert "seen http://proxy.invalid:1 http://proxy.invalid:1 localhost." in builder("-t", "proxied").stderr
        assert "seen other http://proxy" not in builder("--no-cache", "--build-arg=http_proxy=other").stderr
        assert "proxy.invalid" not in builder.box("history", "--no-trunc", "proxied").stdout
        path.write_text(json.dumps({"proxies": {"default": {"httpProxy": 1}}}))
        assert "proxies.default is not an object of texts" in builder(check=False).stderr
    finally:
        path.unlink()
    assert builder.cached() == [True]


def test_a_step_that_waits_for_another_stage_begins_then(builder: Builder) -> None:
    """What is shown is the time that the step itself took."""
    builder.write("FROM BASE AS slow\nRUN sleep 1.5\nFROM BASE\nCOPY --from=slow /etc/passwd /there\n")
    lines = builder().stderr.splitlines()
    [number] = [line.split()[0] for line in lines if "COPY --from=slow" in line and line.startswith("#")]
    [done] = [line for line in lines if line.startswith(f"{number} DONE ")]
    assert float(done.split()[2].rstrip("s")) < 1


@pytest.mark.parametrize("options", [("-t", "a:b:c"), ("-t", "fine", "-t", "Upper"), ("-o", "type=image,name=a:b:c")])
def test_a_name_that_cannot_be_is_known_before_anything_is_built(builder: Builder, options: tuple[str, ...]) -> None:
    builder.write("FROM BASE\nRUN exit 7\n")
    done = builder(*options, check=False)
    assert done.returncode == 1
    assert "is not a valid repository/tag" in done.stderr
    assert "RUN" not in done.stderr


def test_an_agents_socket_is_there_for_one_step(builder: Builder, tmp_path: Path) -> None:
    """ssh-agent answers through it; without --ssh there is none."""
    socket = f"{tmp_path}/agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: os.path.exists(socket))
        builder.write(
            "FROM BASE\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK\nRUN ls /run; true\n"
        )
        said = builder("--ssh", f"default={socket}").stderr
        assert "/run/buildkit/ssh_agent.0" in said
        assert "ls: /run: No such file or directory" in said
    finally:
        agent.kill()
        agent.wait()
    builder.write("FROM BASE\nRUN --mount=type=ssh,required=true true\n")
    assert "ssh agent default: not found" in builder(check=False).stderr


def test_keys_are_in_an_agent_of_the_build_that_goes_with_it(builder: Builder, tmp_path: Path) -> None:
    key, locked = tmp_path / "key", tmp_path / "locked"
    for path, passphrase in ((key, ""), (locked, "secret")):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
        subprocess.run(command, check=True, capture_output=True)
    builder.write("FROM BASE\nRUN --mount=type=ssh,id=mine test -S $SSH_AUTH_SOCK && echo asked; ls -R /run; true\n")
    said = builder("--ssh", f"mine={key}").stderr
    assert "asked" in said
    failed = builder("--no-cache", "--ssh", f"mine={locked}", check=False).stderr
    assert "ssh-add it" in failed
    trash = builder.box.store / "trash"
    assert not [path for path in trash.rglob("agent") if path.is_socket()]


def test_a_shell_is_opened_where_a_step_failed(builder: Builder) -> None:
    builder.write("FROM BASE\nRUN echo state > /state; exit 3\n")
    with builder.box.terminal("build", "--progress=plain", "--break", str(builder.place)) as terminal:
        terminal.expect("leave it to end the build")
        terminal.send("cat /state; exit\n")
        terminal.expect("exit code: 3")


def test_the_network_of_steps_can_be_chosen(builder: Builder) -> None:
    builder.write("FROM BASE\nRUN ls /sys/class/net | tr '\\n' ' '\n")
    assert " lo \n" in builder("--network=none", "--no-cache").stderr
    assert "eth0 lo" in builder("--network=default", "--network=bridge", "--no-cache").stderr
