"""The parser beyond its golden files: any bytes, what is kept of the text, speed, mounts, ports, checks."""

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rootless.dockerfile import lint
from rootless.dockerfile.expand import expand
from rootless.dockerfile.ignore import Patterns
from rootless.dockerfile.instructions import Add, Copy, Dockerfile, DockerfileError, Env, Run
from rootless.dockerfile.mounts import Mount, check_mount, parse_mount
from rootless.dockerfile.parse import parse_dockerfile, parse_trigger
from rootless.dockerfile.ports import parse_ports
from rootless.dockerfile.warning import Context

GOLDEN = Path(__file__).parent / "golden"
WORDS = (
    *("FROM", "RUN", "COPY", "ADD", "ENV", "ARG", "LABEL", "EXPOSE", "VOLUME", "USER", "WORKDIR", "CMD", "SHELL"),
    *("ENTRYPOINT", "HEALTHCHECK", "ONBUILD", "STOPSIGNAL", "MAINTAINER", "AS", "NONE", "scratch", "a", "a=b", "$x"),
    *("--from=a", "--mount=type=cache,target=/a", "--platform=$p", "--link", "--", "--interval=1s", "<<a", "<<-'a'"),
    *(
        '["a", "b"]',
        "[",
        '"',
        "'",
        "\\\n",
        "\\",
        "`",
        "#",
        "# escape=`\n",
        "# check=skip=all\n",
        "\n",
        "\r\n",
        "\ta\n",
        "\0",
    ),
)


def only(text: str) -> object:
    return parse_dockerfile(f"FROM scratch\n{text}\n".encode()).stages[0].instructions[0]


def run(text: str) -> Run:
    record = only(text)
    assert isinstance(record, Run)
    return record


def parsed_and_checked(data: bytes) -> Dockerfile | DockerfileError:
    try:
        dockerfile = parse_dockerfile(data, "some/Dockerfile")
        lint.check(dockerfile, Context(ignored=Patterns.parse("*")))
    except DockerfileError as error:
        return error
    return dockerfile


fragments = st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join).map(str.encode)


@given(st.one_of(st.binary(max_size=300), fragments, fragments.map(lambda data: b"FROM a\n" + data)))
@example(b"FROM a\nRUN " + b"[" * 100_000)
@example(b"FROM a\nCMD [" + b"1" * 10_000 + b"]")
@example(b"FROM a\nRUN [NaN]")
@example(b"FROM a\nCOPY <<" + b"a" * 1000 + b" /x")
@example(b"FROM a\nONBUILD " * 3000)
@example(b"\\\n" * 3000)
def test_any_bytes_are_a_dockerfile_or_an_error_that_names_it(data: bytes) -> None:
    dockerfile = parsed_and_checked(data)
    if isinstance(dockerfile, DockerfileError):
        assert str(dockerfile).startswith("some/Dockerfile:")
        assert "\n" not in str(dockerfile)
        return
    for stage in dockerfile.stages:
        places = [stage.location, *(instruction.lines for instruction in stage.instructions)]
        assert all(before.last < after.first for before, after in pairwise(places))
        assert all(place.first <= place.last <= data.count(b"\n") + 1 for place in places)


@given(st.lists(st.sampled_from(sorted(GOLDEN.glob("*.Dockerfile"))), min_size=1, max_size=3), st.data())
def test_a_dockerfile_with_something_cut_out_is_one_or_an_error(paths: list[Path], data: st.DataObject) -> None:
    text = b"\n".join(path.read_bytes() for path in paths)
    first = data.draw(st.integers(0, len(text)))
    last = data.draw(st.integers(first, min(len(text), first + 20)))
    try:
        parse_dockerfile(text[:first] + text[last:])
    except DockerfileError:
        pass  # which is all that may be raised


def test_what_an_error_quotes_cannot_steer_a_terminal() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_dockerfile("FROM a\n\x1b[2JRUN\u202e\n".encode())
    assert "\\x1b[2JRUN\\u202e" in str(caught.value)


def test_the_text_for_the_shell_has_the_heredocs_that_are_the_shell_s() -> None:
    assert run("RUN <<A\nx\nA").shell_text == "x\n"
    assert run("RUN <<-A\n\tx\n\tA").shell_text == "x\n"
    assert run("RUN cat <<A <<-B\nx\nA\n\ty\n\tB").shell_text == "cat <<A <<-B\nx\nA\n\ty\nB"
    assert run("RUN a b").shell_text == "a b"


def test_a_heredoc_is_a_script_if_it_is_all_and_names_its_interpreter() -> None:
    script = run("RUN --network=none <<A\n#!/bin/x\ny\nA").script
    assert script is not None
    assert script.content == "#!/bin/x\ny\n"
    assert run("RUN <<A\nx\nA").script is None
    assert run("RUN cat <<A\n#!/bin/x\nA").script is None


def test_what_has_been_onbuild_is_read_again_by_the_image_s_children() -> None:
    record = parse_trigger("COPY --from=x <<a /b\nhi\na")
    assert isinstance(record, Copy)
    assert (record.stage, record.heredocs[0].content, record.destination) == ("x", "hi\n", "/b")


@pytest.mark.parametrize("text", ["", "RUN a\nRUN b", "FROM x", "ONBUILD RUN x", "MAINTAINER x", "COPY", "# a"])
def test_an_image_s_trigger_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(DockerfileError, match=r"^image x:(1:)? "):
        parse_trigger(text, "image x")


@pytest.mark.parametrize(
    ("syntax", "is_foreign"),
    [
        ("", False),
        ("docker/dockerfile", False),
        ("docker/dockerfile:1.7-labs", False),
        ("docker.io/docker/dockerfile:1@sha256:abc", False),
        ("docker/dockerfile-upstream:master arg", False),
        ("example.com/docker/dockerfile:1", True),
        ("docker/dockerfiles", True),
    ],
)
def test_a_syntax_that_is_not_dockerfile_s_is_told_apart(syntax: str, is_foreign: bool) -> None:
    text = f"# syntax={syntax}\nFROM scratch\n" if syntax else "FROM scratch\n"
    assert parse_dockerfile(text.encode()).directives.is_foreign is is_foreign


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/a", Mount(target="/a")),
        ("from=x", Mount(target=".", source_stage="x")),
        ("type=cache,id=i", Mount("cache", ".", read_only=False, id="i")),
        ("type=bind,from=x,src=/s,dst=/a,rw", Mount("bind", "/a", "/s", "x", read_only=False)),
        ("type=bind,target=/a,rw,ro", Mount(target="/a")),
        ("type=bind,target=/a,readwrite=0", Mount(target="/a")),
        ("type=cache,destination=/a", Mount("cache", "/a", read_only=False)),
        (
            "TYPE=cache,target=/a,id=i,sharing=LOCKED,mode=0755,uid=1,gid=2,from=f,source=s,readonly=true",
            Mount("cache", "/a", "s", "f", True, "i", "locked", 0o755, 1, 2),
        ),
        ("type=tmpfs,target=/a,size=64m", Mount("tmpfs", "/a", read_only=False, size=64 << 20)),
        ("type=tmpfs,target=/a,size=1.5GiB", Mount("tmpfs", "/a", read_only=False, size=3 << 29)),
        ("type=tmpfs,target=/a,size=10kb", Mount("tmpfs", "/a", read_only=False, size=10240)),
        ("type=secret,id=i", Mount("secret", id="i")),
        ("type=secret,target=/a,required", Mount("secret", "/a", required=True)),
        ("type=secret,id=i,env=E", Mount("secret", id="i", variable="E")),
        ("type=secret,id=i,env", Mount("secret", id="i", variable="i")),
        ("required=true,type=ssh", Mount("ssh", required=True)),
        ('type=cache,"target=/a,b""c"', Mount("cache", '/a,b"c', read_only=False)),
    ],
)
def test_a_mount_has_its_options(text: str, mount: Mount) -> None:
    assert parse_mount(text) == mount
    assert check_mount(text).source_stage == mount.source_stage


def test_what_a_variable_holds_never_becomes_an_option_of_a_mount() -> None:
    variables = {"evil": "/x,type=ssh,from=host,rw", "kind": "cache"}
    mount = parse_mount("type=$kind,target=$evil", lambda word: expand(word, variables))
    assert mount == Mount("cache", "/x,type=ssh,from=host,rw", read_only=False)


def test_an_option_whose_value_is_a_variable_is_checked_when_that_is_known() -> None:
    check_mount("type=cache,target=/a,sharing=$s")
    with pytest.raises(DockerfileError, match="sharing=x: there is no such sharing"):
        parse_mount("type=cache,target=/a,sharing=$s", lambda word: word.replace("$s", "x"))
    with pytest.raises(DockerfileError, match="size is no option of a bind mount"):
        parse_mount("type=$t,target=/a,size=1", lambda word: word.replace("$t", "bind"))


@pytest.mark.parametrize(
    "option", ["bind-propagation=rshared", "propagation=shared", "z", "Z", "relabel=shared", "U", "nosuid", ""]
)
def test_options_that_other_builders_know_are_refused(option: str) -> None:
    with pytest.raises(DockerfileError, match="unknown option"):
        check_mount(f"type=bind,target=/a,{option}")


@given(st.text(alphabet='type=bindcachsrg,"/$', max_size=40))
def test_any_mount_is_one_or_an_error(text: str) -> None:
    try:
        check_mount(text)
    except DockerfileError:
        return
    try:
        parse_mount(text)
    except DockerfileError:
        assert "$" in text


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        (["80"], ("80/tcp",)),
        (["53/udp", "53/TCP", "53"], ("53/udp", "53/tcp")),
        (["8000-8002/sctp"], ("8000/sctp", "8001/sctp", "8002/sctp")),
        (["127.0.0.1:8080:80", "81:82", "[::1]:83:84/udp"], ("80/tcp", "82/tcp", "84/udp")),
        ([], ()),
    ],
)
def test_exposed_ports_are_numbers_and_protocols(words: list[str], ports: tuple[str, ...]) -> None:
    assert parse_ports(words) == ports


@pytest.mark.parametrize("word", ["", "a", "80/", "80/icmp", "65536", "90-80", "1-", "-1", "٣", "99999999999999999999"])
def test_what_is_no_port_is_named(word: str) -> None:
    with pytest.raises(DockerfileError, match="EXPOSE"):
        parse_ports([word])


def test_names_and_values_keep_their_quotes_for_expansion() -> None:
    record = only('ENV A="b c" \'D\'=\\"e')
    assert isinstance(record, Env)
    assert [tuple(expand(word, {}) for word in pair) for pair in record.pairs] == [("A", "b c"), ("D", '"e')]


def test_add_unpacks_as_usual_unless_it_is_told() -> None:
    told = [only(f"ADD {flag} a b") for flag in ("", "--unpack", "--unpack=true", "--unpack=False")]
    assert [record.unpack for record in told if isinstance(record, Add)] == [None, True, True, False]


def test_a_file_that_dockerignore_leaves_out_is_pointed_at() -> None:
    text = b"FROM scratch AS a\nCOPY x/y .\nCOPY ./z /\nCOPY *.x /\nCOPY --from=a x /\nADD https://x/y /\nADD k /\n"
    context = Context(ignored=Patterns.parse("*\n!z\n!k/in"))
    options = lint.CheckOptions(experimental=frozenset(["CopyIgnoredFile"]))
    found = [warning.line for warning in lint.check(parse_dockerfile(text), context, options)]
    assert found == [2]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", lint.CheckOptions()),
        ("skip=A, B", lint.CheckOptions(frozenset(["A", "B"]))),
        ("error=true;skip=all", lint.CheckOptions(frozenset(["all"]), error=True)),
        ("experimental=all;error=0;", lint.CheckOptions(experimental=frozenset(["all"]))),
    ],
)
def test_check_options_are_read(text: str, options: lint.CheckOptions) -> None:
    assert lint.parse_check_options(text) == options


@pytest.mark.parametrize("text", ["skip", "error=maybe", "x=y", "skip=A;error"])
def test_check_options_that_are_none_are_named(text: str) -> None:
    with pytest.raises(DockerfileError, match="check="):
        lint.parse_check_options(text)


def two_hundred_lines() -> bytes:
    step = (
        'RUN apt-get update && \\\n    apt-get install -y package{0}\nENV A{0}=value B="c d"\n'
        "COPY --chown=1:1 a{0} b /dst/\nLABEL a.b.c={0}\n# comment\nRUN --mount=type=cache,target=/c{0} x\nUSER $A{0}\n"
    )
    return b"FROM alpine AS base\n" + "".join(step.format(number) for number in range(25)).encode()


@pytest.mark.bench
def test_two_hundred_lines_take_less_than_three_milliseconds() -> None:
    data = two_hundred_lines()
    taken = []
    for _ in range(20):
        begin = time.perf_counter()
        parse_dockerfile(data)
        taken.append(time.perf_counter() - begin)
    assert min(taken) < 0.003


def test_time_grows_with_the_length_and_not_with_its_square() -> None:
    begin = time.process_time()
    parse_dockerfile(b"FROM a\n" + b"RUN <<a\nx\na\n" * 20_000)
    parse_dockerfile(b"FROM a\nRUN " + b"a \\\n" * 50_000 + b"b\n")
    parse_dockerfile(b"FROM a\nENV " + b"a=b " * 50_000)
    parse_dockerfile(b"FROM a\nRUN " + b'"a b" <<c ' * 10_000 + b"\n" + b"x\nc\n" * 10_000)
    names = " ".join(f"${{NAME_{number}}}" for number in range(5_000))
    many = "".join(f"ENV NAMES_{number}=1\n" for number in range(5_000))
    lint.check(parse_dockerfile(f"FROM scratch\n{many}VOLUME {names}\n".encode()))
    assert time.process_time() - begin < 10


def test_the_parser_loads_next_to_nothing() -> None:
    script = "import sys, rootless.dockerfile.parse; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"difflib", "dataclasses", "csv", "shlex", "requests"} & set(loaded)
    ours = {name for name in loaded if name.startswith("rootless.")}
    assert {name.split(".")[1] for name in ours} == {"dockerfile", "errors"}
