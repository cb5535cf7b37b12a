"""What people type for build, and what it shows."""

import io
import json

import pytest

from rootless.cli.build import BuildCommandOptions, build_options
from rootless.cli.build_progress import Live, Plain, RawJson, Shown, make_progress
from rootless.cli.build_values import (
    merge_build_args,
    parse_build_arg,
    parse_build_context,
    parse_cache,
    parse_output,
    parse_secret,
    parse_ssh,
)
from rootless.engine.build_options import BuildOptions, CacheEntry, Output, Secret, Ssh
from rootless.engine.build_progress import Vertex
from rootless.errors import InvalidInput


class Written(io.TextIOWrapper):
    """A stream in memory, as streams.py writes to it."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding="utf-8", write_through=True)

    def text(self) -> str:
        self.flush()
        return self.bytes.getvalue().decode()


def parsed(*words: str) -> BuildOptions:
    options = BuildCommandOptions()
    options.read(words, interspersed=True, path="rootless build")
    return build_options(options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id=a,src=/x", Secret("a", "/x")),
        ("id=a,source=x,type=file", Secret("a", "x")),
        ("id=a,env=B", Secret("a", "", "B")),
        ("type=env,id=a", Secret("a", "", "a")),
        ("type=env,id=a,src=B", Secret("a", "", "B")),
        ("id=file", Secret("file", "file")),
    ],
)
def test_secrets_are_files_or_variables(text: str, expected: Secret) -> None:
    assert parse_secret(text) == expected


def test_a_secret_alone_is_a_variable_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "x")
    assert parse_secret("id=TOKEN") == Secret("TOKEN", "", "TOKEN")


@pytest.mark.parametrize("text", ["src=x", "id", "id=a,mode=0400", "type=x,id=a"])
def test_secrets_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_secret(text)


def test_agents_are_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent")
    assert parse_ssh("default") == Ssh("default", "/agent")
    assert parse_ssh("other=/socket") == Ssh("other", "/socket")
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(InvalidInput):
        parse_ssh("default")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out", Output("local", "out")),
        ("-", Output("tar", "-")),
        ("type=local,dest=a", Output("local", "a", {})),
        ("type=tar", Output("tar", "-", {})),
        ("type=oci,dest=x.tar", Output("oci", "x.tar", {})),
        ("type=image,name=a,push=true", Output("image", "", {"name": "a", "push": "true"})),
        ("type=docker", Output("docker", "", {})),
    ],
)
def test_outputs(text: str, expected: Output) -> None:
    assert parse_output(text) == expected


@pytest.mark.parametrize("text", ["type=local", "type=cloud", "dest=x", "type=tar,dest"])
def test_outputs_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_output(text)


def test_caches() -> None:
    assert parse_cache("type=local,src=x") == CacheEntry("local", {"src": "x"})
    assert parse_cache("example.org/cache") == CacheEntry("registry", {"ref": "example.org/cache"})
    with pytest.raises(InvalidInput):
        parse_cache("type=s3,bucket=x")


def test_arguments_without_a_value_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "value")
    monkeypatch.delenv("NOT_HERE", raising=False)
    pairs = [parse_build_arg(text) for text in ("A=1", "HERE", "NOT_HERE", "E=", "A=2")]
    assert merge_build_args(pairs) == {"A": "2", "HERE": "value", "E": ""}
    for text in ("=x", ""):
        with pytest.raises(InvalidInput):
            parse_build_arg(text)


def test_named_contexts() -> None:
    assert parse_build_context("a=docker-image://b=c") == ("a", "docker-image://b=c")
    for text in ("a", "=b", "a="):
        with pytest.raises(InvalidInput):
            parse_build_context(text)


def test_the_time_of_a_reproducible_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert parsed().epoch == 5
    assert parsed("--build-arg", "SOURCE_DATE_EPOCH=7").epoch == 7
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(InvalidInput):
        parsed()


def test_the_default_network_is_the_configurations() -> None:
    assert parsed().network == ""
    assert parsed("--network", "default").network == ""
    assert parsed("--network=none").network == "none"
    assert parsed("--no-cache-filter", "a,b", "--no-cache-filter=c").no_cache_filter == ("a", "b", "c")
    assert parsed("--push").outputs == (Output("registry"),)


def test_plain_progress_names_the_step_whenever_another_was_spoken_of() -> None:
    stream = Written()
    plain = Plain(stream, why=False)
    one, two = Vertex(1, "first\nline"), Vertex(2, "second")
    plain.begin(one)
    plain.output(one, "stdout", b"half")
    plain.begin(two)
    plain.output(one, "stdout", b" a line\nrest")
    plain.note(one, "not asked for")
    plain.done(one, cached=False)
    plain.done(two, cached=True)
    lines = stream.text().splitlines()
    assert lines[:3] == ["#1 first line", "", "#2 second"]
    assert lines[4] == "#1 first line"
    assert [line.split(" ", 2)[2] for line in lines[5:7]] == ["half a line", "rest"]
    assert lines[7].startswith("#1 DONE 0.")
    assert lines[-1] == "#2 CACHED"


def test_what_a_program_writes_does_not_steer_the_terminal() -> None:
    stream = Written()
    plain = Plain(stream, why=False)
    vertex = Vertex(1, "\x1b]0;evil\x07")
    plain.begin(vertex)
    plain.output(vertex, "stdout", b"\x1b[2Jgone \xff\n")
    plain.failed(vertex, "\x1b[31mred")
    assert "\x1b" not in stream.text().replace("\x1b[31m", "").replace("\x1b]0", "") or stream.isatty()


def test_raw_progress_is_a_json_object_a_line() -> None:
    stream = Written()
    raw = RawJson(stream)
    vertex = Vertex(1, "step")
    raw.begin(vertex)
    raw.output(vertex, "stderr", b"x\xff")
    raw.done(vertex, cached=True)
    documents = [json.loads(line) for line in stream.text().splitlines()]
    assert documents[1]["logs"][0]["data"] == "eP8="
    assert documents[1]["logs"][0]["stream"] == 2
    assert documents[-1]["vertexes"][0]["cached"] is True
    assert documents[-1]["vertexes"][0]["started"] <= documents[-1]["vertexes"][0]["completed"]


def test_the_live_view_shows_the_last_lines_of_what_goes_on() -> None:
    stream = Written()
    live = Live(stream, why=True)
    vertex = Vertex(1, "[1/1] RUN make")
    live.begin(vertex)
    live.output(vertex, "stdout", b"".join(b"line %d\n" % n for n in range(30)))
    live.note(vertex, "not cached: its command has changed")
    live._draw()  # what its thread does every tenth of a second
    shown = stream.text()
    assert "line 29" in shown
    assert "line 3\x1b" not in shown
    assert "its command has changed" in shown
    live.done(vertex, cached=False)
    live.close()
    assert "FINISHED" in stream.text()
    assert stream.text().rpartition("\x1b[")[0].rstrip().endswith("\x1b[K") or "RUN make" in stream.text()


def test_the_live_view_has_no_thread_while_the_build_still_forks() -> None:
    live = Live(Written(), why=False)
    for number in (1, 2, 3):
        live.begin(Vertex(number, "[internal] load metadata for base"))
        assert live._thread.ident is None
    live.begin(Vertex(4, "[2/2] RUN x"))
    assert live._thread.ident is not None
    live.close()
    assert not live._thread.is_alive()


def test_quiet_shows_nothing() -> None:
    assert type(make_progress("plain", quiet=True, why=False)) is Shown
    assert type(make_progress("quiet", quiet=False, why=False)) is Shown
    assert type(make_progress("rawjson", quiet=False, why=False)) is RawJson
