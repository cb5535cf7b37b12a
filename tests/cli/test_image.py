"""The commands about images, as somebody types them. What is expected is what Docker 28 printed for the same images."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.support.account import Installation
from tests.support.layout import NATIVE
from tests.support.store import Store, digest

HUB = "docker.io/library"
A, B = digest("a"), digest("b")
NOW = datetime.now(timezone.utc)
TREE = Path(__file__).parents[2]


def before(**span: int) -> str:
    """So long before now, as an image's config has it."""
    return (NOW - timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def store(rootless: Installation) -> Store:
    return Store(rootless.data / "rootless", rootless.runtime / "rootless")


def status_of(rootless: Installation, *words: str) -> tuple[int, str, str]:
    """The exit status, what was printed, and what was complained of."""
    done = rootless.run(*words, check=False)
    return done.returncode, done.stdout, done.stderr


# --- images


def test_images_are_in_dockers_columns(rootless: Installation, store: Store) -> None:
    one = store.add_image(
        f"{HUB}/alpine:3.20",
        f"{HUB}/alpine:latest",
        "localhost:5000/team/app:1",
        created=before(days=21, hours=1),
        digests=[f"{HUB}/alpine@{A}", f"{HUB}/other@{B}"],
    )
    two = store.add_image(layers=[], created="0001-01-01T00:00:00Z")
    a, b = one.id[7:19], two.id[7:19]
    assert rootless.run("images").stdout.splitlines() == [
        "REPOSITORY                TAG       IMAGE ID       CREATED       SIZE",
        f"alpine                    3.20      {a}   3 weeks ago   1kB",
        f"alpine                    latest    {a}   3 weeks ago   1kB",
        f"localhost:5000/team/app   1         {a}   3 weeks ago   1kB",
        f"other                     <none>    {a}   3 weeks ago   1kB",
        f"<none>                    <none>    {b}   N/A           0B",
    ]
    width = len(A)
    assert rootless.run("image", "ls", "--digests").stdout.splitlines() == [
        f"REPOSITORY                TAG       {'DIGEST':{width}}   IMAGE ID       CREATED       SIZE",
        f"alpine                    3.20      {A}   {a}   3 weeks ago   1kB",
        f"alpine                    latest    {A}   {a}   3 weeks ago   1kB",
        f"localhost:5000/team/app   1         {'<none>':{width}}   {a}   3 weeks ago   1kB",
        f"other                     <none>    {B}   {a}   3 weeks ago   1kB",
        f"<none>                    <none>    {'<none>':{width}}   {b}   N/A           0B",
    ]


def test_no_images_are_a_line_of_headings(rootless: Installation) -> None:
    assert rootless.run("images").stdout == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"
    assert rootless.run("images", "-q").stdout == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-q"], ["FRONT", "BACK", "BACK"]),
        (["-aq", "--no-trunc"], ["FRONT_ID", "BACK_ID", "BACK_ID"]),
        (["-q", "back"], ["BACK"]),
        (["-q", "back:2"], []),
        (["-q", "--filter", "label=tier=front"], ["FRONT"]),
        (["-q", "--filter", "label=tier"], ["FRONT", "BACK", "BACK"]),
        (["-q", "-f", "label=tier", "-f", "label=tier=back"], ["BACK", "BACK"]),
        (["-q", "-f", "reference=*:1", "-f", "reference=r.example/*"], ["FRONT", "BACK", "BACK"]),
        (["-q", "-f", "since=back:1"], ["FRONT"]),
        (["-q", "-f", "before=front:1"], ["BACK", "BACK"]),
        (["-q", "-f", "until=24h"], ["BACK", "BACK"]),
        (["-q", "-f", "dangling=true"], []),
        (["-q", "-f", "dangling=0"], ["FRONT", "BACK", "BACK"]),
        (["--format", "{{.Repository}}:{{.Tag}}"], ["front:1", "back:1", "r.example/back:1"]),
        (["--format", "{{.Digest}} {{.Tag}}", "front"], [f"{A} 1"]),
        (["-q", "--format", "{{.Size}}", "front"], ["1kB"]),
        (["--format", "table {{.Tag}}", "front"], ["TAG", "1"]),
        (["--format", "table {{.Tag}}", "--digests", "front"], ["TAG       DIGEST", f"1         {A}"]),
        (["--format", r"{{.Tag}}\t{{.CreatedSince}}", "back"], ["1\t2 days ago"]),
    ],
)
def test_images_can_be_chosen_and_formatted(
    words: list[str], expected: list[str], rootless: Installation, store: Store
) -> None:
    back = store.add_image(
        f"{HUB}/back:1", "r.example/back:1", created=before(days=2), config={"Labels": {"tier": "back"}}
    )
    front = store.add_image(
        f"{HUB}/front:1", created=before(hours=2), config={"Labels": {"tier": "front"}}, digests=[f"{HUB}/front@{A}"]
    )
    ids = {"FRONT": front.id[7:19], "BACK": back.id[7:19], "FRONT_ID": front.id, "BACK_ID": back.id}
    assert rootless.run("images", *words).stdout.splitlines() == [ids.get(line, line) for line in expected]


def test_images_as_json_have_dockers_keys(rootless: Installation, store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1", created="2023-11-14T22:13:20Z")
    row = json.loads(rootless.run("images", "--format", "json").stdout)
    assert row.pop("CreatedSince").endswith(" years ago")
    assert list(row) == sorted(row)
    assert row == {
        "Containers": "N/A",
        "CreatedAt": "2023-11-14 22:13:20 +0000 UTC",
        "Digest": "<none>",
        "ID": image.id[7:19],
        "Repository": "one",
        "SharedSize": "N/A",
        "Size": "1kB",
        "Tag": "1",
        "UniqueSize": "N/A",
        "VirtualSize": "1kB",
    }


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["images", "-f", "nope=1"], 1, "invalid filter 'nope'"),
        (["images", "-f", "dangling"], 125, 'invalid argument "dangling" for "-f, --filter" flag'),
        (["images", "-f", "dangling=maybe"], 1, "invalid filter 'dangling=maybe'"),
        (["images", "-f", "reference=["], 1, "syntax error in pattern"),
        (["images", "-f", "before=nosuch"], 1, "No such image: nosuch:latest"),
        (["images", "--format", "{{.Nope}}"], 1, "can't evaluate field Nope"),
        (["images", "--format", "{{"], 1, "template parsing error"),
        (["images", "--tree"], 1, "--tree is not there"),
        (["images", "a", "b"], 1, "requires at most 1 argument"),
        (["rmi"], 1, "requires at least 1 argument"),
        (["rmi", "--platform", "linux/amd64", "one"], 1, "--platform is not there"),
        (["rmi", "host"], 1, "the image 'host' is built in"),
        (["tag", "host", "x"], 1, "the image 'host' is built in"),
        (["tag", "one", "host"], 1, "belongs to the built-in image"),
        (["history", "host"], 1, "the image 'host' is built in"),
        (["history", "nosuch"], 1, "No such image: nosuch:latest"),
        (["history", "--platform", "linux/s390x", "one:1"], 1, "does not provide the specified platform"),
        (["image", "prune", "-a", "--filter", "dangling=true"], 1, "conflicting options"),
        (["image", "prune", "-f", "--filter", "until=never"], 1, "failed to parse value as time or duration"),
        (["pull", "host"], 1, "the image 'host' is built in"),
        (["pull", "-a", "one:1"], 1, "tag can't be used with --all-tags/-a"),
        (["pull", "-a", "one"], 1, "--all-tags is not there"),
        (["pull", "ONE"], 1, "must be lowercase"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    words: list[str], status: int, message: str, rootless: Installation, store: Store
) -> None:
    store.add_image(f"{HUB}/one:1", f"{HUB}/one:latest")
    done = status_of(rootless, *words)
    assert (done[0], done[1]) == (status, "")
    assert message in done[2]
    assert "Traceback" not in done[2]


HOSTILE = "\x1b]52;c;evil\x07\nSECOND   ROW\u202e"


def test_hostile_text_reaches_a_file_as_it_is_and_a_terminal_escaped(rootless: Installation, store: Store) -> None:
    store.add_image(
        f"{HUB}/one:1",
        config={"Labels": {HOSTILE: HOSTILE}},
        author=HOSTILE,
        history=[{"created_by": HOSTILE, "comment": HOSTILE}],
    )
    for words in (["history", "--no-trunc", "one:1"], ["image", "inspect", "one:1"]):
        shown = on_terminal(rootless, *words)
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "\nSECOND" not in shown
        assert "\\x1b" in shown or "\\u001b" in shown
    assert json.loads(rootless.run("image", "inspect", "one:1").stdout)[0]["Config"]["Labels"] == {HOSTILE: HOSTILE}
    template = "{{index .Config.Labels " + json.dumps(HOSTILE) + "}}"
    assert rootless.run("image", "inspect", "-f", template, "one:1").stdout == f"{HOSTILE}\n"


def on_terminal(rootless: Installation, *words: str) -> str:
    """What the command prints where its output is a terminal."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen(rootless.command(*words), env=rootless.env, stdout=theirs, stderr=subprocess.STDOUT)
    os.close(theirs)
    data = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # EIO: the other end is closed
            more = b""
        if not more:
            break
        data += more
    os.close(ours)
    assert done.wait() == 0
    return data.decode()


# --- rmi


def test_rmi_prints_what_it_does(rootless: Installation, store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1", digests=[f"{HUB}/one@{A}"], layers=["a", "b"])
    store.add_image(f"{HUB}/two:1", f"{HUB}/two:2", layers=["a"])
    assert rootless.run("rmi", "one:1", "two:2").stdout.splitlines() == [
        "Untagged: one:1",
        f"Untagged: one@{A}",
        f"Deleted: {image.id}",
        f"Deleted: {image.layers[1]}",
        "Untagged: two:2",
    ]
    assert rootless.run("images", "--format", "{{.Repository}}:{{.Tag}}").stdout == "two:1\n"


def test_rmi_goes_on_after_a_failure(rootless: Installation, store: Store) -> None:
    store.add_image(f"{HUB}/one:1", f"{HUB}/one:2")
    status, out, err = status_of(rootless, "rmi", "nosuch", "one:1")
    assert (status, out) == (1, "Untagged: one:1\n")
    assert err == "rootless: No such image: nosuch:latest\n"


def test_forced_rmi_minds_images_in_use_and_not_those_that_are_gone(rootless: Installation, store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1")
    with store.running(store.add_container(image, "user")):
        status, out, err = status_of(rootless, "rmi", "-f", "nosuch", image.id)
        assert (status, out) == (1, "")
        assert err.splitlines()[0] == "rootless: No such image: nosuch:latest"
        assert "(cannot be forced) - image is being used by running container" in err
    assert status_of(rootless, "rmi", "--force", "nosuch")[0] == 0
    assert status_of(rootless, "rmi", "--force", "--no-prune", image.id)[0] == 0


def test_tag_gives_a_name(rootless: Installation, store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1")
    assert rootless.run("tag", "one:1", "localhost:5000/x").stdout == ""
    rootless.run("image", "tag", image.id[7:15], "x:2")
    lines = rootless.run("images", "--format", "{{.Repository}} {{.Tag}} {{.ID}}").stdout.splitlines()
    short = image.id[7:19]
    assert lines == [f"one 1 {short}", f"x 2 {short}", f"localhost:5000/x latest {short}"]


# --- inspect, history


def test_inspect_prints_a_list_also_of_none(rootless: Installation, store: Store) -> None:
    one, two = store.add_image(f"{HUB}/one:1"), store.add_image(f"{HUB}/two:1", layers=["x"])
    documents = json.loads(rootless.run("image", "inspect", "one:1", two.id[7:19], "host").stdout)
    assert [document["Id"] for document in documents] == [one.id, two.id, "host"]
    assert status_of(rootless, "image", "inspect", "nosuch") == (1, "[]\n", "rootless: No such image: nosuch:latest\n")
    status, out, err = status_of(rootless, "image", "inspect", "nosuch", "one:1")
    assert (status, err) == (1, "rootless: No such image: nosuch:latest\n")
    assert json.loads(out)[0]["Id"] == one.id


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("{{.Id}}", "ID"),
        ("{{.ID}}", "ID"),
        ("{{.Config.Labels.a}} {{.Config.Labels.q}}", "b <no value>"),
        ('{{index .Config.Labels "a"}}', "b"),
        ("{{json .Config.Entrypoint}} {{json .Config.Cmd}}", 'null ["sh"]'),
        ("{{range .Config.Env}}{{println .}}{{end}}", "PATH=/bin\n"),
        ("{{len .RootFS.Layers}} {{.Size}} {{.Os}}/{{.Architecture}}", "1 1000 linux/ARCH"),
        ('{{join .RepoTags ","}}', "one:1"),
        ("{{.Config.User}}|{{.Config.StopSignal}}|{{.Config.ExposedPorts}}", "||map[]"),
    ],
)
def test_inspect_fills_a_template(form: str, expected: str, rootless: Installation, store: Store) -> None:
    image = store.add_image(f"{HUB}/one:1", config={"Labels": {"a": "b"}})
    found = rootless.run("image", "inspect", "--format", form, "one:1").stdout
    assert found == expected.replace("ID", image.id).replace("ARCH", NATIVE) + "\n"


def test_a_field_that_no_image_has_is_an_error(rootless: Installation, store: Store) -> None:
    store.add_image(f"{HUB}/one:1")
    assert status_of(rootless, "image", "inspect", "-f", "{{.Nope}}", "one:1")[0] != 0


def test_history_is_in_dockers_columns(rootless: Installation, store: Store) -> None:
    rows = [
        {"created": "1970-01-01T00:00:00Z", "created_by": "ADD file\tx"},
        {
            "created": before(days=21, hours=1),
            "created_by": '/bin/sh -c #(nop)  CMD ["sh"] and a very long line that is cut',
            "empty_layer": True,
            "comment": "buildkit",
        },
    ]
    image = store.add_image(f"{HUB}/one:1", history=rows)
    short = image.id[7:19]
    assert rootless.run("history", "one:1").stdout.splitlines() == [
        "IMAGE          CREATED       CREATED BY                                      SIZE      COMMENT",
        f'{short}   3 weeks ago   /bin/sh -c #(nop)  CMD ["sh"] and a very lon…   0B        buildkit',
        "<missing>      N/A           ADD file x                                      1kB       ",
    ]
    exact = rootless.run("image", "history", "--human=false", "--no-trunc", "one:1").stdout.splitlines()
    assert exact[0].split() == ["IMAGE", "CREATED", "AT", "CREATED", "BY", "SIZE", "COMMENT"]
    assert exact[1].split()[:2] == [image.id, before(days=21, hours=1)]
    assert exact[2].split() == ["<missing>", "1970-01-01T00:00:00Z", "ADD", "file", "x", "1000"]
    assert rootless.run("history", "-q", "one:1").stdout == f"{short}\n<missing>\n"
    row = json.loads(rootless.run("history", "--format", "json", "one:1").stdout.splitlines()[1])
    assert row == {
        "Comment": "",
        "CreatedAt": "1970-01-01T00:00:00Z",
        "CreatedBy": "ADD file x",
        "CreatedSince": "N/A",
        "ID": "<missing>",
        "Size": "1kB",
    }


# --- prune


def test_prune_asks_first(rootless: Installation, store: Store) -> None:
    store.add_image()
    for words, what in (([], "all dangling images"), (["-a"], "all images without at least one container")):
        done = rootless.run("image", "prune", *words, input="n\n")
        assert done.stdout.startswith(f"WARNING! This will remove {what}")
        assert done.stdout.endswith("Are you sure you want to continue? [y/N] ")
    assert len(rootless.run("images", "-q").stdout.splitlines()) == 1


def test_prune_tells_what_went_and_how_much_that_was(rootless: Installation, store: Store) -> None:
    kept = store.add_image(f"{HUB}/one:1", layers=["kept"])
    gone = store.add_image(layers=["gone"], digests=[f"{HUB}/two@{A}"], created="2020-01-01T00:00:00Z")
    words = ["image", "prune", "--filter", "until=2021-01-01", "--filter", "label!=keep"]
    lines = rootless.run(*words, input="y\n").stdout.splitlines()
    assert lines[1:-1] == [
        "Are you sure you want to continue? [y/N] Deleted Images:",
        f"untagged: two@{A}",
        f"deleted: {gone.id}",
        f"deleted: {gone.layers[0]}",
        "",
    ]
    assert lines[-1].startswith("Total reclaimed space: 1.")
    assert rootless.run("image", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    assert f"deleted: {kept.id}" in rootless.run("image", "prune", "--all", "--force").stdout
    assert rootless.run("images", "-q").stdout == ""


# --- pull


@pytest.mark.kernel
@pytest.mark.registry
def test_pull_ends_with_dockers_lines(rootless: Installation, image: Callable[[str], str]) -> None:
    name = image("whiteouts")
    repository, _, tag = name.rpartition(":")
    first = rootless.run("pull", repository).stdout.splitlines()
    assert first[:2] == ["Using default tag: latest", f"{tag}: Pulling from {repository}"]
    digest_line, *closing = first[-3:]
    assert digest_line.startswith("Digest: sha256:")
    assert closing == [f"Status: Downloaded newer image for {name}", name]
    again = rootless.run("pull", name).stdout.splitlines()
    assert again[-3:] == [digest_line, f"Status: Image is up to date for {name}", name]
    assert rootless.run("pull", "--quiet", name).stdout == f"{name}\n"
    by_digest = f"{repository}@{digest_line.partition(' ')[2]}"
    assert rootless.run("pull", by_digest).stdout.splitlines()[-1] == by_digest
    assert rootless.run("run", "--rm", by_digest, "cat", "/data/kept").stdout == "first"


@pytest.mark.kernel
@pytest.mark.registry
def test_what_was_pulled_is_removed_entirely(rootless: Installation, image: Callable[[str], str]) -> None:
    name = image("whiteouts")
    rootless.run("pull", "-q", name)
    steps = [line.partition(" ")[0] for line in rootless.run("rmi", name).stdout.splitlines()]
    assert steps == ["Untagged:", "Untagged:", *["Deleted:"] * 5]
    store = rootless.data / "rootless"
    assert [list((store / place).iterdir()) for place in ("layers", "blobs/sha256", "images", "tags", "trash")] == [
        []
    ] * 5


def test_images_loads_nothing_that_only_a_registry_needs() -> None:
    code = """
import sys
from rootless.cli import image
sys.exit(",".join(sorted({"requests", "urllib3", "ssl", "concurrent.futures", "subprocess"} & sys.modules.keys())))
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], cwd=TREE, capture_output=True, text=True)
    assert done.stderr.strip() == ""
