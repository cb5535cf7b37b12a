"""Templates give what Docker's give, reach nothing but their document, and end."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.cli.template import Record, Template, TemplateError

# What Docker 28.2 answered to each template, put into `{{with}}` of a document, by `docker context inspect --format` on
# a context with that metadata. Numbers are floats there, as Go reads JSON. An error is "ERR", and what follows Docker's
# "template parsing error: ", without the column.
GOLDEN = json.loads(Path(__file__).with_name("template_golden.json").read_text())
DOCUMENT = json.loads(json.dumps(GOLDEN["document"]), parse_int=float)


def render(template: str, document: object) -> str:
    return Template(template).render(document)


def answer(template: str) -> str:
    try:
        return render("{{with .Doc}}" + template + "{{end}}", {"Name": "xx", "Doc": DOCUMENT})
    except TemplateError as error:
        message = str(error).removeprefix("template parsing error: ")
        return "ERR " + (message.partition(" ")[2].partition(" ")[2] if "executing" in message else message)


@pytest.mark.parametrize(("template", "expected"), GOLDEN["cases"])
def test_the_answer_is_dockers(template: str, expected: str) -> None:
    assert answer(template) == expected


CONTAINER = {
    "Id": "4f5a",
    "State": {"Pid": 12345678, "Running": True, "Health": None},
    "Config": {"Labels": {"app": "web", "tier": "front"}, "Cmd": None, "Env": ["A=1", "B=2"]},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": None}},
    "Mounts": [{"Source": "/a", "Destination": "/b", "RW": True}, {"Source": "/c", "Destination": "/d", "RW": False}],
    "Size": -1.5,
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.State.Pid}}", "12345678"),
        ("{{.State.Pid | printf `%d`}}", "12345678"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{.Config.Labels}}", "map[app:web tier:front]"),
        ('{{index .Config.Labels "app"}}', "web"),
        ('{{index .Config.Labels "com.docker.compose.project"}}|', "|"),
        ('{{index .Config.Cmd "x"}}|', "|"),
        ("{{.Config.Labels.nope}}", "<no value>"),
        ("{{json .Config}}", '{"Labels":{"app":"web","tier":"front"},"Cmd":null,"Env":["A=1","B=2"]}'),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
        ('{{join .Config.Env ","}} {{join .Config.Cmd ","}}', "A=1,B=2 "),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        (
            "{{range $p, $c := .NetworkSettings.Ports}}{{$p}}->{{if $c}}{{(index $c 0).HostPort}}{{end}} {{end}}",
            "443/tcp-> 80/tcp->8080 ",
        ),
        ("{{range .Mounts}}{{.Source}}:{{.Destination}}{{if not .RW}}:ro{{end}} {{end}}", "/a:/b /c:/d:ro "),
        ("{{len .Mounts}} {{eq (len .Mounts) 2}} {{gt .State.Pid 1}}", "2 true true"),
        ('{{.Size}} {{printf "%.2f" .Size}}', "-1.5 -1.50"),
        ("{{range 2}}{{.}}{{end}}", "01"),
        ("{{slice .Id 0 2}}", "4f"),
        ('{{if eq .Id "4f5a" "x"}}yes{{end}}', "yes"),
        ("{{range $i, $m := .Mounts}}{{if $i}},{{end}}{{$m.Source}}{{end}}", "/a,/c"),
        ("", ""),
        ("no action, }} }", "no action, }} }"),
        ("{{`\n`}}{{\n.Id\n}}", "\n4f5a"),
    ],
)
def test_what_people_ask_of_inspect(template: str, expected: str) -> None:
    assert render(template, CONTAINER) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{", "template: :1: unclosed action"),
        ("a\n{{.Id", "template: :2: unclosed action"),
        ("{{.Id}", 'template: :1: unexpected "}" in command'),
        ("{{}}", "template: :1: missing value for command"),
        ("{{/* }}", 'template: :1: unexpected "/" in command'),
        ("{{.Config.Cmd.x}}", 'template: :1:2: executing "" at <.Config.Cmd.x>: nil pointer evaluating interface {}.x'),
        ("x\n  {{.Id.x}}", 'template: :2:4: executing "" at <.Id.x>: can\'t evaluate field x in type string'),
        ("{{range .Id}}{{end}}", 'template: :1:8: executing "" at <.Id>: range can\'t iterate over 4f5a'),
        ('{{define "a"}}{{.x.y}}{{end}}{{template "a" .Id}}', None),
    ],
)
def test_an_error_is_a_line_that_says_where(template: str, message: str | None) -> None:
    with pytest.raises(TemplateError) as caught:
        render(template, CONTAINER)
    text = str(caught.value)
    assert message is None or text == f"template parsing error: {message}"
    assert "\n" not in text


def test_a_template_can_define_and_call_others() -> None:
    source = '{{define "port"}}[{{.}}{{with $x := 1}}{{$x}}{{end}}]{{end}}{{template "port" .Id}}{{template "port"}}'
    assert render(source, CONTAINER) == "[4f5a1][<no value>1]"


def test_a_template_can_be_rendered_for_many_documents() -> None:
    template = Template("{{$x := .a}}{{$x}}")
    assert [template.render({"a": i}) for i in range(3)] == ["0", "1", "2"]


def test_a_record_has_the_fields_that_it_has() -> None:
    row = Record(ID="4f5a", Names="web")
    assert render("{{.ID}} {{.Names}} {{.}}", row) == "4f5a web map[ID:4f5a Names:web]"
    with pytest.raises(TemplateError, match="can't evaluate field Name; there are ID, Names"):
        render("{{.Name}}", row)


class Secretive:
    secret = "found"


@pytest.mark.parametrize(
    "template",
    [
        "{{.__class__}}",
        "{{.x.__class__}}",
        "{{.x.__init__.__globals__}}",
        '{{index . "__class__"}}',
        '{{index .x "__class__"}}',
        "{{.o.secret}}",
        "{{.o}}",
        '{{printf "%v" .o}}',
        "{{json .o}}",
        "{{len .o}}",
        "{0.__class__}{x}",
        "{{with .x}}{{.format}}{{end}}",
        "{{call .x}}",
        "{{.x.upper}}",
        "{{.items}}",
    ],
)
def test_nothing_behind_the_values_is_reached(template: str) -> None:
    text = ""
    with suppress(TemplateError, TypeError):
        text = render(template, {"x": "a", "o": Secretive()})
    assert "class" not in text.replace(template, "")
    assert "found" not in text
    assert "object" not in text


@pytest.mark.parametrize(
    "template",
    [
        "{{range 1000000000}}{{end}}",
        "{{range 1000000000}}x{{end}}",
        "{{range 10000}}{{range 10000}}{{range 10000}}{{end}}{{end}}{{end}}",
        '{{$x := "aaaaaaaa"}}{{range 100}}{{$x = print $x $x}}{{end}}',
        '{{$x := "aaaaaaaa"}}{{range 100}}{{$x = printf "%s%s" $x $x}}{{end}}',
        '{{define "a"}}{{template "a"}}{{end}}{{template "a"}}',
        '{{define "a"}}{{template "b"}}{{template "b"}}{{end}}{{define "b"}}{{template "a"}}{{end}}{{template "a"}}',
        '{{pad "x" 999999999 999999999}}',
        '{{pad "x" -1 0}}',
        '{{printf "%999999999d" 1}}',
        '{{printf "%99999999999999999999d" 1}}',
        '{{range 1000}}{{printf "%1000000d" 1}}{{end}}',
        "{{" + "(" * 100_000 + "1" + ")" * 100_000 + "}}",
        "{{if 1}}" * 100_000,
        "{{if 0}}{{else if 0}}" + "{{else if 0}}" * 100_000 + "{{end}}",
    ],
)
def test_work_is_bounded(template: str) -> None:
    with pytest.raises(TemplateError):
        render(template, {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
PIECES = st.sampled_from(
    [
        *("{{", "}}", "{{-", "-}}", "if", "else", "end", "range", "with", "define", "template", "block", "break"),
        *("continue", ".", ".a", ".b", "$", "$x", ":=", "=", "|", "(", ")", ",", '"s"', "`r`", "'c'", "1", "-2", "1.5"),
        *("true", "nil", "index", "len", "printf", "eq", "and", "not", "json", "join", "slice", "\n", "x", "/*", "*/"),
    ]
)


@given(st.lists(PIECES, max_size=14).map(" ".join), JSON)
def test_any_source_renders_or_is_an_error_of_one_kind(source: str, document: object) -> None:
    with suppress(TemplateError):
        render(source, document)


@given(st.text(max_size=20), JSON)
def test_text_without_braces_is_left_alone(text: str, document: object) -> None:
    source = text.replace("{{", "")
    assert render(source, document) == source


@given(JSON)
def test_json_reads_back_as_the_document(document: object) -> None:
    rendered = render("{{json .}}", document)
    assert json.loads(rendered) == json.loads(json.dumps(document))


@given(st.text(max_size=10), st.integers(0, 12))
def test_a_cut_text_is_the_bytes_before_and_after(text: str, place: int) -> None:
    size = len(text.encode())
    if place <= size:
        halves = render(f"{{{{slice .t 0 {place}}}}}", {"t": text}), render(f"{{{{slice .t {place}}}}}", {"t": text})
        assert b"".join(half.encode("utf-8", "surrogateescape") for half in halves) == text.encode()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_float_is_the_same_number(value: float) -> None:
    assert float(render("{{.}}", value)) == value


@given(st.text(max_size=8))
def test_a_quoted_text_is_read_back_by_a_template(text: str) -> None:
    quoted = render('{{printf "%q" .}}', text)
    assert render("{{" + quoted + "}}", None) == text
