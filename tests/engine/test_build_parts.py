"""The parts of build that need no container: wildcards, modes, destinations, the plan, addresses, the cache."""

import email.message
import os
import re
import stat
import subprocess
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.dockerfile.instructions import DockerfileError
from rootless.dockerfile.parse import parse_dockerfile
from rootless.engine import build_fetch
from rootless.engine.build import excerpt
from rootless.engine.build_archive import is_tar, looks_compressed
from rootless.engine.build_digest import Digests, key_of
from rootless.engine.build_fetch import is_git, parse_git
from rootless.engine.build_plan import ContextOf, ImageOf, StageOf, make_plan
from rootless.engine.build_source import has_wildcards, unescaped_or_pattern
from rootless.engine.build_stage import destination_of
from rootless.engine.build_tree import Directory, find
from rootless.engine.build_write import Mode
from rootless.errors import InvalidInput, NotFound
from rootless.linux.inroot import open_in_root
from rootless.spec.digest import ChainID, DiffID
from rootless.store.build_cache import BuildCache, Step
from rootless.store.layout import Layout
from tests.support.corpus import archive


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", ".txt", True),
        ("*", ".hidden", True),
        ("?", "ä", True),
        ("?", "", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[]-a]", "b", None),
        ("[a", "a", None),
        ("a[[]b", "a[b", True),
        ("\\*", "*", True),
        ("\\*x*", "*xy", True),
        ("[\\]]", "]", True),
        ("[a-]", "a", None),
        ("a.c", "abc", False),
        ("*\n", "x\n", True),
    ],
)
def test_wildcards_are_those_of_go(pattern: str, name: str, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(InvalidInput):
            unescaped_or_pattern(pattern)
        return
    found = unescaped_or_pattern(pattern)
    assert (bool(found.fullmatch(name)) if isinstance(found, re.Pattern) else found == name) is expected


@given(st.text(st.characters(codec="utf-8", exclude_characters="*?[\\/\0"), min_size=1, max_size=20))
def test_a_name_without_wildcards_is_itself(name: str) -> None:
    assert not has_wildcards(name)
    assert unescaped_or_pattern(name) == name


CLAUSES = ["u+x", "go-rwx", "a=r", "+x", "u=rwX,go=rX", "g=u", "u+s", "g+s", "+t", "o=,u-w", "ug=rw", "a+X", "=rx"]


@pytest.mark.parametrize("text", CLAUSES)
@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600, 0o4711, 0o1777, 0o2750])
@pytest.mark.parametrize("directory", [False, True])
def test_symbolic_modes_are_those_of_chmod(text: str, mode: int, directory: bool, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if directory:
        path.mkdir()
    else:
        path.touch()
    path.chmod(mode)
    if directory and mode & 0o6000:
        pytest.skip("GNU's chmod keeps these bits of directories, others do not")
    mode = stat.S_IMODE(path.stat().st_mode)  # a group that is not ours takes setgid off
    subprocess.run(["chmod", "--", text, str(path)], check=True, env={"PATH": os.environ["PATH"]}, umask=0)
    assert oct(Mode(text).apply(mode, directory=directory)) == oct(stat.S_IMODE(path.stat().st_mode))


@pytest.mark.parametrize("text", ["", "8", "10000", "u", "x+u", "u+q", "u+x,", "u~x", "07777777"])
def test_modes_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput):
        Mode(text)


def test_octal_modes_are_for_directories_too() -> None:
    assert [Mode("0751").apply(0, directory=d) for d in (False, True)] == [0o751, 0o751]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/x", "/x"),
        ("/x/", "/x/"),
        ("x", "/w/x"),
        (".", "/w/"),
        ("./", "/w/"),
        ("", "/w/"),
        ("..", "/"),
        ("../../../x", "/x"),
        ("/a/../b/.", "/b/"),
        ("/", "/"),
    ],
)
def test_where_a_copy_goes(text: str, expected: str) -> None:
    assert destination_of("/w", text) == expected


def plan_of(text: str, target: str = "", contexts: tuple[str, ...] = (), **arguments: str) -> object:
    return make_plan(
        parse_dockerfile(text.encode()), target, arguments, {"TARGETARCH": "x"}, dict.fromkeys(contexts, ".")
    )


def test_stages_that_nobody_needs_are_left_out() -> None:
    text = (
        "FROM a AS one\nFROM one AS two\nFROM b\nRUN --mount=from=1,target=/x y\nFROM c AS four\nCOPY --from=two a b\n"
    )
    for target, needed in (("", (0, 1, 3)), ("one", (0,)), ("2", (0, 1, 2)), ("FOUR", (0, 1, 3))):
        assert plan_of(text, target).needed == needed  # type: ignore[attr-defined]


def test_what_a_stage_begins_with() -> None:
    text = "ARG V=1\nFROM a:$V-$TARGETARCH AS a\nFROM --platform=p a AS b\nFROM ctx\nFROM A\n"
    stages = plan_of(text, contexts=("ctx",), V="2").stages  # type: ignore[attr-defined]
    assert [stage.base for stage in stages] == [ImageOf("a:2-x"), StageOf(0), ContextOf("ctx"), StageOf(0)]
    assert stages[1].platform == "p"


def test_plans_that_cannot_be() -> None:
    with pytest.raises(NotFound):
        plan_of("FROM a AS one\n", "two")
    with pytest.raises(DockerfileError):
        plan_of("FROM $NOTHING\n")
    with pytest.raises(NotFound):
        plan_of("FROM a\nCOPY --from=0 x y\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.org/x.git", ("https://example.org/x.git", "", "")),
        ("https://example.org/x.git#v1:sub/dir", ("https://example.org/x.git", "v1", "sub/dir")),
        ("https://example.org/x.git?ref=v1&subdir=s", ("https://example.org/x.git", "v1", "s")),
        ("github.com/a/b#:s", ("https://github.com/a/b", "", "s")),
        ("git@example.org:a/b.git", ("git@example.org:a/b.git", "", "")),
    ],
)
def test_addresses_of_repositories(text: str, expected: tuple[str, str, str]) -> None:
    assert is_git(text)
    assert parse_git(text) == expected


def test_what_is_no_repository() -> None:
    for text in (".", "https://example.org/x.tar.gz", "git", "/x.git", "-", "example.org/x.git"):
        assert not is_git(text)
    for text in ("https://e.org/x.git#-x", "https://e.org/x.git?exec=1", "https://e.org/x.git#a b", "git://a::b"):
        with pytest.raises(InvalidInput):
            parse_git(text)


def test_redirects_do_not_lead_from_the_world_to_this_network(monkeypatch: pytest.MonkeyPatch) -> None:  # B08
    monkeypatch.setattr(build_fetch, "_is_internal", lambda url: "inside" in url)
    follow = build_fetch._Redirects().redirect_request
    headers = email.message.Message()
    outside, inside = (urllib.request.Request(f"http://{name}/x") for name in ("outside", "inside"))
    for request, target in ((outside, "http://other/y"), (inside, "http://inside/y"), (inside, "http://other/y")):
        followed = follow(request, None, 302, "", headers, target)
        assert followed
        assert followed.full_url == target
    for target in ("http://inside/y", "file:///etc/passwd", "ftp://other/y"):
        with pytest.raises(InvalidInput):
            follow(outside, None, 302, "", headers, target)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "[::1]", "192.168.0.1"])
def test_addresses_inside_of_a_network_are_known(address: str) -> None:
    assert build_fetch._is_internal(f"http://{address}:80/x")


def test_archives_are_known_by_their_content() -> None:
    assert is_tar(archive("w"))
    assert not is_tar(b"x" * 600)
    assert not is_tar(b"")
    assert all(looks_compressed(archive(mode)) for mode in ("w:gz", "w:xz", "w:bz2"))


def test_lines_around_a_mistake() -> None:
    lines = [f"line {n}" for n in range(1, 10)]
    shown = excerpt(lines, "Dockerfile", 1, 2).splitlines()
    assert shown[0] == "Dockerfile:1"
    assert shown[2:-1] == ["   1 | >>> line 1", "   2 | >>> line 2", "   3 |     line 3", "   4 |     line 4"]
    assert excerpt(lines, "x", 9, 9).splitlines()[-2] == "   9 | >>> line 9"


def layout(path: Path) -> Layout:
    path.chmod(0o700)
    (path / "run").mkdir(mode=0o700)
    return Layout(str(path / "store"), str(path / "run"))


def test_a_step_is_remembered_as_it_was(tmp_path: Path) -> None:
    cache = BuildCache(layout(tmp_path))
    chain = ChainID("sha256:" + "1" * 64)
    step = Step("a" * 64, "RUN x", "2026-01-01T00:00:00Z", chain, DiffID(chain), 10, 5, (chain,))
    assert cache.find(step.key) is None
    cache.save(step)
    assert cache.find(step.key) == step
    assert cache.layers() == {chain}
    path = tmp_path / f"store/build/steps/{step.key}.json"
    for damaged in ("", "{}", "[]", '{"layers": [1]}', path.read_text().replace('"length":10', '"length":"x"')):
        path.write_text(damaged)
        assert cache.find(step.key) is None
        path.write_text(damaged)
        assert list(cache.steps()) == []


def digest(cache: BuildCache, place: Path) -> str:
    digests = Digests(cache, str(place), owners=False)
    with Directory([os.open(place, os.O_RDONLY)], None) as root:
        found = digests.of_directory(root)
    digests.close()
    return found


def test_a_digest_is_of_names_modes_contents_and_links_and_not_of_times(tmp_path: Path) -> None:
    cache = BuildCache(layout(tmp_path))
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_text("1")
    (tree / "link").symlink_to("file")
    seen = [digest(cache, tree)]
    os.utime(tree / "file", (1, 1))
    assert digest(cache, tree) == seen[0]
    for change in (
        lambda: (tree / "file").write_text("2"),
        lambda: (tree / "file").chmod(0o600),
        lambda: (tree / "file").rename(tree / "other"),
        (tree / "sub/new").touch,
        (tree / "link").unlink,
        lambda: (tree / "link").symlink_to("other"),
        lambda: (tree / "sub").chmod(0o700),
    ):
        change()
        seen.append(digest(cache, tree))
    assert len(set(seen)) == len(seen)


def test_a_file_that_changes_within_a_tick_is_read_again(tmp_path: Path) -> None:
    """The same size, and written right after it was seen: what was remembered must not count."""
    cache = BuildCache(layout(tmp_path))
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / "file").write_text(f"{number:03}")
        before = digest(cache, tree)
        (tree / "file").write_text(f"{number + 500:03}")
        assert digest(cache, tree) != before


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_keys_of_different_parts_are_different(one: list[str], other: list[str]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


PARTS = st.lists(st.sampled_from(["a", "b", "..", ".", "link", "up", "root", "file", "loop"]), min_size=1, max_size=8)


@settings(max_examples=150)
@given(PARTS)
def test_no_path_leads_out_of_a_tree(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    """As the kernel finds it where this directory is the root: openat2 with RESOLVE_IN_ROOT."""
    top = tmp_path_factory.getbasetemp() / "tree"
    if not top.exists():
        for path in ("a/b", "b/a"):
            (top / path).mkdir(parents=True)
        (top / "a/file").write_text("x")
        (top / "a/link").symlink_to("/b/a")
        (top / "b/up").symlink_to("../../../..")
        (top / "root").symlink_to("/")
        (top / "a/loop").symlink_to("loop")
    path = "/".join(parts)
    root_fd = os.open(top, os.O_RDONLY)
    with Directory([os.dup(root_fd)], None) as root:
        try:
            fd = open_in_root(root_fd, path, os.O_PATH)
        except OSError:
            there = None
        else:
            there = os.fstat(fd).st_ino
            os.close(fd)
        try:
            with find(root, path) as found:
                ours = found.entry.status.st_ino if found.entry else os.fstat(found.here.fds[0]).st_ino
                is_there = found.is_there
        except (NotADirectoryError, InvalidInput):
            is_there = False
        os.close(root_fd)
        # `missing/..` is a directory for a destination that is going to be made, and `file/.` a file.
        if there is not None:
            assert is_there
            assert ours == there
        elif is_there:
            assert ".." in parts or "." in parts
