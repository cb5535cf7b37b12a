"""Lists and documents in the form that `--format` asks for; Docker's columns where it asks for none.

A row is what a template may ask for: field -> value, all of them shown as text or plain values. A table is laid out by
tab stops, as Go's text/tabwriter does for Docker: a column is as wide as its longest cell and three spaces, ten at
least; the last cell of a line is in no column. On a terminal, what would steer it is escaped in the values themselves,
so that a name with a newline cannot pass for a second row.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from rootless.cli import streams
from rootless.cli.terminal_text import visible

Row = Mapping[str, object]

_PADDING = 3
_NARROWEST = 10
_TABLE = "table"


def print_list(
    rows: Iterable[Row],
    *,
    headers: Mapping[str, str],
    columns: Sequence[str],
    form: str = "",
    labels: Sequence[Mapping[str, str]] = (),
) -> None:
    """Print *rows* as *form* says. Raises TemplateError.

    form is the text of --format: "" or "table" for the *columns* (names of fields), "table TEMPLATE", "json", or a
    template. headers is the heading of each field; a field without one is headed by its own name in capitals. labels,
    one mapping for each row, are what `{{.Label "name"}}` looks in.
    """
    if sys.stdout.isatty():
        rows = [{name: visible(cell) if isinstance(cell, str) else cell for name, cell in row.items()} for row in rows]
        labels = [{name: visible(text) for name, text in mapping.items()} for mapping in labels]
    streams.write(list_text(rows, headers=headers, columns=columns, form=form, labels=labels))


def list_text(
    rows: Iterable[Row],
    *,
    headers: Mapping[str, str],
    columns: Sequence[str],
    form: str = "",
    labels: Sequence[Mapping[str, str]] = (),
) -> str:
    """The text that print_list() prints, for a file or a pipe."""
    form = form.strip(" ")
    if form in ("", _TABLE):
        lines = [[headers.get(name, name.upper()) for name in columns]]
        lines += [[str(row[name]) for name in columns] for row in rows]
        return aligned("\t".join(line) for line in lines)
    return _formatted(list(rows), headers, form, labels)


def _formatted(rows: list[Row], headers: Mapping[str, str], form: str, labels: Sequence[Mapping[str, str]]) -> str:
    # Only here, where a template is asked for: `ps` alone does without parsing one.
    from rootless.cli.template import Record, Template, TemplateError

    records = [Record(sorted(row.items())) for row in rows]
    for record, mapping in zip(records, labels, strict=False):
        record.methods = {"Label": partial(_label, mapping)}
    if form == "json":
        form = "{{json .}}"
    is_table = form.startswith(f"{_TABLE} ")
    source = form.removeprefix(_TABLE).strip(" ") if is_table else form
    template = Template(source.replace(r"\t", "\t").replace(r"\n", "\n"))
    lines = [template.render(record) for record in records]
    if not is_table:
        return "".join(f"{line}\n" for line in lines)
    names = {name for row in rows for name in row}
    try:
        heads = Record({**{name: name.upper() for name in names}, **headers})
        heads.methods = {"Label": _label_heading} if labels else {}
        heading = template.render_header(heads)
    except TemplateError:
        heading = ""  # `{{range .Mounts}}`: names cannot stand for the values of every template
    return aligned([heading, *lines])


def _label(labels: Mapping[str, str], name: str) -> str:
    return labels.get(name, "")


def _label_heading(name: str) -> str:
    """The last part of a label's name, as Docker heads its column."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def aligned(lines: Iterable[str]) -> str:
    """*lines*, in which tabs end the cells of columns, with the columns aligned by spaces."""
    table = [line.split("\t") for block in lines for line in block.split("\n")]
    widths = [[0] * (len(cells) - 1) for cells in table]
    for place, cells in enumerate(table):
        for column in range(len(cells) - 1):
            if place and column < len(widths[place - 1]):
                continue  # the column began further up, and its width is known
            end = place
            while end < len(table) and column < len(widths[end]):
                end += 1
            width = max(len(table[i][column]) for i in range(place, end)) + _PADDING
            for i in range(place, end):
                widths[i][column] = max(width, _NARROWEST)
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(cells, [*row, 0], strict=True)) + "\n"
        for cells, row in zip(table, widths, strict=True)
    )


def print_documents(documents: Sequence[object], form: str = "") -> None:
    """Print what `inspect` found. Raises TemplateError."""
    streams.write(documents_text(documents, form))


def documents_text(documents: Sequence[object], form: str = "") -> str:
    """*documents* as *form* says: indented JSON for "", compact JSON for "json", else a line of a template for each."""
    # Likewise: only `inspect` needs these.
    from rootless.cli.template import Template
    from rootless.cli.template_values import to_json

    if form in ("", "json"):
        return to_json(list(documents), indent=None if form else 4) + "\n"
    template = Template(form)
    return "".join(f"{template.render(document)}\n" for document in documents)


def short_id(identifier: str) -> str:
    """The twelve digits that lists show of an id or a digest."""
    return identifier.rpartition(":")[2][:12]


def ellipsis(text: str, width: int) -> str:
    """*text* in *width* characters at most, the last of them "…" where something is left out."""
    return text if len(text) <= width else text[: width - 1] + "…"
