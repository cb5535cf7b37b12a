"""Nothing untrusted steers a terminal (SECURITY R15), and nothing is changed on its way to a file."""

import io
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.cli import streams
from rootless.cli.table import print_documents, print_list
from rootless.cli.terminal_text import for_stream, visible

ESCAPES = [
    ("plain, and ünïcödé 日本", "plain, and ünïcödé 日本"),
    ("\x1b[31mred", r"\x1b[31mred"),
    ("\x1b]52;c;ZXZpbA==\x07", r"\x1b]52;c;ZXZpbA==\x07"),
    ("\x9b31m\x9d0;title\x9c", r"\x9b31m\x9d0;title\x9c"),
    ("good\rbad", r"good\rbad"),
    ("a\nb\tc", r"a\nb\tc"),
    ("\x00\x08\x7f\x85", r"\x00\x08\x7f\x85"),
    ("\u202egnp.exe", r"\u202egnp.exe"),
    ("a\u2028b\u2066c\u200f", r"a\u2028b\u2066c\u200f"),
    (b"\xff\xfe".decode("utf-8", "surrogateescape"), r"\xff\xfe"),
]


class FakeTerminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def terminal() -> FakeTerminal:
    return FakeTerminal(io.BytesIO(), encoding="utf-8")


def written(stream: io.TextIOWrapper) -> bytes:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue()


@pytest.mark.parametrize(("text", "expected"), ESCAPES)
def test_what_steers_a_terminal_is_shown(text: str, expected: str) -> None:
    assert visible(text) == expected


@pytest.mark.parametrize(("text", "expected"), ESCAPES)
def test_only_a_terminal_gets_other_text(text: str, expected: str) -> None:
    assert for_stream(text, io.StringIO()) == text
    assert for_stream(text, terminal()) == expected


@given(st.text())
def test_nothing_is_left_that_steers(text: str) -> None:
    left = visible(text)
    assert not any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in left)
    assert not any(
        unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "LRI", "RLI", "FSI") for char in left
    )
    assert "\n" not in left


@given(st.text())
def test_lines_may_be_let_through(text: str) -> None:
    assert visible(text, lines=True).replace("\n", r"\n").replace("\t", r"\t") == visible(text)


ROWS = [{"Name": "a\nroot   fake\x1b[1A", "Labels": "x\ty\x1b]0;t\x07"}]


@pytest.mark.parametrize(
    "form", ["", "table {{.Name}}\t{{.Labels}}", "{{.Name}}", "json", "{{json .}}", "{{printf `%q` .Name}}"]
)
def test_a_row_stays_a_row_on_a_terminal(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    print_list(ROWS, headers={}, columns=("Name", "Labels"), form=form)
    data = written(stream)
    assert b"\x1b" not in data
    assert b"\x07" not in data
    assert data.count(b"\n") == (2 if form == "" or form.startswith("table") else 1)


@pytest.mark.parametrize("form", ["", "json", "{{.Name}}", "{{println .Labels}}"])
def test_a_document_does_not_steer_the_terminal(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    print_documents(ROWS, form)
    assert b"\x1b" not in written(stream)


def test_a_pipe_gets_the_bytes_of_a_name_that_is_no_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    streams.write(b"caf\xe9 \x1b[0m\n".decode("utf-8", "surrogateescape"))
    assert written(stream) == b"caf\xe9 \x1b[0m\n"


def test_what_an_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    streams.write("é日\n")
    assert written(stream) == rb"\xe9\u65e5" + b"\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("y\n", True), ("YES\n", True), (" y \n", True), ("n\n", False), ("\n", False), ("", False)],
)
def test_a_question_is_answered_by_a_line(
    answer: str, expected: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert streams.confirm("WARNING! This will remove all stopped containers.") is expected
    assert capsys.readouterr().out == (
        "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] "
    )


def test_the_size_of_what_is_no_terminal_is_the_usual_one() -> None:
    assert streams.terminal_size(io.StringIO()) == (80, 24)
