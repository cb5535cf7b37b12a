"""Lists look as Docker's do, in each form that can be asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.cli.table import aligned, documents_text, ellipsis, list_text, short_id
from rootless.cli.template import TemplateError

HEADERS = {"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"}
COLUMNS = ("Name", "Description", "DockerEndpoint", "Error")
ROWS = [
    {
        "Name": "default",
        "Description": "Current DOCKER_HOST based configuration",
        "DockerEndpoint": "unix:///var/run/docker.sock",
        "Error": "",
        "Current": True,
    },
    {"Name": "xx", "Description": "d", "DockerEndpoint": "tcp://1.2.3.4:5", "Error": "", "Current": False},
]

# What `docker context ls` of Docker 28.2 printed for these rows.
TABLE = """\
NAME      DESCRIPTION                               DOCKER ENDPOINT               ERROR
default   Current DOCKER_HOST based configuration   unix:///var/run/docker.sock   
xx        d                                         tcp://1.2.3.4:5               
"""  # noqa: W291  # Docker's lines end so
JSON = """\
{"Current":true,"Description":"Current DOCKER_HOST based configuration","DockerEndpoint":"unix:///var/run/docker.sock",\
"Error":"","Name":"default"}
{"Current":false,"Description":"d","DockerEndpoint":"tcp://1.2.3.4:5","Error":"","Name":"xx"}
"""


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("", TABLE),
        ("table", TABLE),
        ("json", JSON),
        ("{{json .}}", JSON),
        (
            r"table {{.Name}}\t{{.Description}}",
            "NAME      DESCRIPTION\ndefault   Current DOCKER_HOST based configuration\nxx        d\n",
        ),
        ("table   {{.Name}}", "NAME\ndefault\nxx\n"),
        (r"table {{.Name}}\n{{.Name}}", "NAME\nNAME\ndefault\ndefault\nxx\nxx\n"),
        (r"table {{upper .Name}}\t{{lower .Error}}|", "NAME      ERROR|\nDEFAULT   |\nXX        |\n"),
        (r'table {{.Name | printf "%s-%s" "x"}}\t|', "x-NAME      |\nx-default   |\nx-xx        |\n"),
        ("table {{truncate .Name 2}}", "NAME\nde\nxx\n"),
        ("table {{range .Name}}{{end}}{{.Name}}", None),
        ("table {{.Current}}", "CURRENT\ntrue\nfalse\n"),
        (r"{{.Name}}\t|{{.Name}}\n", "default\t|default\n\nxx\t|xx\n\n"),
        ("{{if .Current}}*{{end}}{{.Name}}", "*default\nxx\n"),
        ("x", "x\nx\n"),
        ("JSON", "JSON\nJSON\n"),
    ],
)
def test_each_form_of_a_list(form: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(TemplateError):
            list_text(ROWS, headers=HEADERS, columns=COLUMNS, form=form)
    else:
        assert list_text(ROWS, headers=HEADERS, columns=COLUMNS, form=form) == expected


def test_an_empty_list_has_its_headings() -> None:
    assert list_text([], headers=HEADERS, columns=COLUMNS) == "NAME      DESCRIPTION   DOCKER ENDPOINT   ERROR\n"
    assert list_text([], headers=HEADERS, columns=COLUMNS, form=r"table {{.Name}}\t{{.Error}}") == "NAME      ERROR\n"
    assert list_text([], headers=HEADERS, columns=COLUMNS, form="{{.Name}}") == ""


def test_headings_give_way_where_names_cannot_stand_for_values() -> None:
    rows = [{"Mounts": ["/a", "/b"]}]
    assert list_text(rows, headers={}, columns=("Mounts",), form="table {{range .Mounts}}{{.}} {{end}}") == "\n/a /b \n"


@pytest.mark.parametrize("form", ["{{.Foo}}", "table {{.Foo}}"])
def test_a_field_that_is_not_there_is_an_error(form: str) -> None:
    with pytest.raises(TemplateError, match="can't evaluate field Foo; there are Current, Description"):
        list_text(ROWS, headers=HEADERS, columns=COLUMNS, form=form)


def test_a_column_ends_with_the_lines_that_have_it() -> None:
    lines = ["a\tb\tc", "longer than ten\tb\tc", "no columns", "a\tb", "a\tlonger than ten\tc", "a\t"]
    assert aligned(lines).splitlines() == [
        "a                 b         c",
        "longer than ten   b         c",
        "no columns",
        "a         b",
        "a         longer than ten   c",
        "a         ",
    ]


@given(st.lists(st.lists(st.text(alphabet="ab é", max_size=14), min_size=3, max_size=3), min_size=1, max_size=5))
def test_cells_begin_below_one_another(rows: list[list[str]]) -> None:
    lines = aligned("\t".join(row) for row in rows).removesuffix("\n").split("\n")
    first = max(10, *(len(row[0]) + 3 for row in rows))
    second = first + max(10, *(len(row[1]) + 3 for row in rows))
    for line, row in zip(lines, rows, strict=True):
        assert line[:first].rstrip() == row[0].rstrip()
        assert line[first:second].rstrip() == row[1].rstrip()
        assert line[second:] == row[2]


INDENTED = """\
[
    {
        "Id": "a<b",
        "Size": 1,
        "List": []
    },
    {
        "Id": "é"
    }
]
"""


def test_each_form_of_a_document() -> None:
    documents = [{"Id": "a<b", "Size": 1, "List": []}, {"Id": "é"}]
    assert documents_text(documents) == INDENTED
    assert documents_text(documents, "json") == '[{"Id":"a<b","Size":1,"List":[]},{"Id":"é"}]\n'
    assert documents_text(documents, "{{.Id}}") == "a<b\né\n"
    assert documents_text([]) == "[]\n"


def test_ids_are_shown_short() -> None:
    assert short_id("sha256:0123456789abcdef") == "0123456789ab"
    assert short_id("0123456789abcdef") == "0123456789ab"
    assert short_id("0123") == "0123"


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("ééé", 2, "é…"), ("", 3, ""), ("ab", 1, "…")],
)
def test_what_is_left_out_is_marked(text: str, width: int, expected: str) -> None:
    assert ellipsis(text, width) == expected


def test_a_template_asks_for_one_label_of_each_row() -> None:
    rows = [{"Names": "web"}, {"Names": "db"}]
    labels: list[dict[str, str]] = [{"com.example.tier-name": "front"}, {}]
    form = 'table {{.Names}}\t{{.Label "com.example.tier-name"}}'
    text = list_text(rows, headers={"Names": "NAMES"}, columns=["Names"], form=form, labels=labels)
    assert text.splitlines() == ["NAMES     tier name", "web       front", "db        "]
    assert (
        list_text(rows, headers={}, columns=["Names"], form="json", labels=labels)
        == '{"Names":"web"}\n{"Names":"db"}\n'
    )
