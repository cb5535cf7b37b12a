"""Shapes: what a value of a Compose file may be, and its canonical form.

A shape is a function from a node to a node. It raises ComposeError where the value cannot be, and otherwise returns
what the long syntax would say: `"8080:80"` becomes a mapping with target and published, `30s` in a duration stays,
`90s` becomes `1m30s`, a list of NAME=value becomes a mapping. A shape applied to its own result changes nothing, so
that what several files add up to can be put through it once more. `schema.py` puts shapes together to tables.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rootless.compose.nodes import RESET, ComposeError, Node, join, wrong
from rootless.compose.scalars import (
    format_scalar,
    parse_duration,
    parse_flag,
    parse_integer,
    parse_mode,
    parse_number,
    parse_size,
)
from rootless.errors import InvalidInput
from rootless.spec.durations import format_duration


class Context:
    """What shapes need to know: how paths are made absolute, and whether variables are still in the text.

    *resolve* gets a path as written. *raw*: a string with a dollar sign is left as it is, where it does not fit.
    *fill*: defaults are put where nothing is, once all files are merged.
    """

    __slots__ = ("fill", "raw", "resolve")

    def __init__(self, resolve: Callable[[str], str], *, raw: bool = False, fill: bool = False) -> None:
        self.resolve = resolve
        self.raw = raw
        self.fill = fill


Shape = Callable[[Context, Node, str], Node]


def apply(shape: Shape, context: Context, node: Node, path: str) -> Node:
    """The canonical form of *node*. What is to be taken away has none; null stays null where something could stand."""
    if node.tag == RESET:
        return node
    if context.raw and node.is_text and "$" in node.value:
        try:
            return shape(context, node, path)
        except ComposeError:
            return node
    return shape(context, node, path)


def text(context: Context, node: Node, path: str) -> Node:
    """A string."""
    if node.is_text:
        return node
    raise wrong(node, path, f"must be a string, and is {node.kind}", hint="put it in quotes")


def scalar(context: Context, node: Node, path: str) -> Node:
    """A string, a number, or a truth value: a string."""
    if isinstance(node.value, (str, int, float)):
        return node._replace(value=format_scalar(node.value))
    raise wrong(node, path, f"must be a string, and is {node.kind}")


def anything(context: Context, node: Node, path: str) -> Node:
    """Whatever it is."""
    return node


def _parsed(parse: Callable[[str], Any], numbers: tuple[type, ...], what: str) -> Shape:
    """A shape of *numbers*, or of strings that *parse* turns into one."""

    def shape(context: Context, node: Node, path: str) -> Node:
        if type(node.value) in numbers:
            return node
        if not node.is_text:
            raise wrong(node, path, f"must be {what}, and is {node.kind}")
        try:
            return node._replace(value=parse(node.value))
        except InvalidInput as error:
            raise wrong(node, path, str(error), hint=error.hint) from error

    return shape


flag = _parsed(parse_flag, (bool,), "true or false")
integer = _parsed(parse_integer, (int,), "a whole number")
number = _parsed(parse_number, (int, float), "a number")


def duration(context: Context, node: Node, path: str) -> Node:
    """A duration, as Go writes it."""
    try:
        return node._replace(value=format_duration(parse_duration(text(context, node, path).value)))
    except ComposeError:
        raise
    except InvalidInput as error:
        raise wrong(node, path, str(error), hint=error.hint) from error


def size(context: Context, node: Node, path: str) -> Node:
    """Bytes, as a string of digits."""
    try:
        return node._replace(value=str(parse_size(scalar(context, node, path).value)))
    except ComposeError:
        raise
    except InvalidInput as error:
        raise wrong(node, path, str(error), hint=error.hint) from error


def mode(context: Context, node: Node, path: str) -> Node:
    """Permissions, as a string of octal digits with a 0 in front."""
    if type(node.value) is int and node.value >= 0:
        return node._replace(value=f"0{node.value:o}")
    try:
        return node._replace(value=f"0{parse_mode(text(context, node, path).value):o}")
    except ComposeError:
        raise
    except InvalidInput as error:
        raise wrong(node, path, str(error), hint=error.hint) from error


def file_path(context: Context, node: Node, path: str) -> Node:
    """A path of the machine, absolute."""
    return node._replace(value=context.resolve(text(context, node, path).value))


def one_of(*words: str) -> Shape:
    """One of *words*."""

    def shape(context: Context, node: Node, path: str) -> Node:
        if node.is_text and node.value in words:
            return node
        shown = repr(node.value) if node.is_text else node.kind
        raise wrong(node, path, f"must be one of {', '.join(words)}, and is {shown}", hint=near(str(node.value), words))

    return shape


def optional(shape: Shape) -> Shape:
    """*shape*, or null."""

    def either(context: Context, node: Node, path: str) -> Node:
        return node if node.value is None else shape(context, node, path)

    return either


def first_of(what: str, **shapes: Shape) -> Shape:
    """The shape for the type of the value: str, list, dict, int, float, bool. *what* names them in the error."""

    def shape(context: Context, node: Node, path: str) -> Node:
        chosen = shapes.get(type(node.value).__name__)
        if chosen is None:
            raise wrong(node, path, f"must be {what}, and is {node.kind}")
        return chosen(context, node, path)

    return shape


def list_of(shape: Shape, *, spread: Callable[[Context, Node, str], list[Node]] | None = None) -> Shape:
    """A list; with *spread*, an item may become several."""

    def whole(context: Context, node: Node, path: str) -> Node:
        if not isinstance(node.value, list):
            raise wrong(node, path, f"must be a list, and is {node.kind}")
        items: list[Node] = []
        for place, item in enumerate(node.value):
            here = f"{path}[{place}]"
            if spread is not None and item.tag != RESET and not (context.raw and item.is_text and "$" in item.value):
                items += spread(context, item, here)
            else:
                items.append(apply(shape, context, item, here))
        return node._replace(value=items)

    return whole


def strings(context: Context, node: Node, path: str) -> Node:
    """A string, or a list of strings: a list."""
    if isinstance(node.value, list):
        return list_of(text)(context, node, path)
    return node._replace(value=[text(context, node, path)])


def dict_of(shape: Shape, check_key: Callable[[str], str] | None = None) -> Shape:
    """A mapping with any keys, or those in which *check_key* finds no problem; sorted."""

    def whole(context: Context, node: Node, path: str) -> Node:
        entries = _entries(node, path)
        for key, child in entries.items():
            problem = check_key(key) if check_key else ""
            if problem:
                raise wrong(child, join(path, key), problem)
        value = {key: apply(shape, context, entries[key], join(path, key)) for key in sorted(entries)}
        return node._replace(value=value)

    return whole


def pairs(context: Context, node: Node, path: str) -> Node:
    """A mapping, or a list of NAME=value: a mapping to strings, or null where there is no value."""
    entries: dict[str, Node] = {}
    if isinstance(node.value, list):
        for place, item in enumerate(node.value):
            if item.tag == RESET:
                continue
            name, equals, rest = text(context, item, f"{path}[{place}]").value.partition("=")
            if not name:
                raise wrong(item, f"{path}[{place}]", "has no name before the equals sign")
            entries[name] = item._replace(value=rest if equals else None)
    else:
        for name, child in _entries(node, path).items():
            keep = child.value is None or child.tag == RESET
            entries[name] = child if keep else scalar(context, child, join(path, name))
    return node._replace(value={name: entries[name] for name in sorted(entries)})


def labels(context: Context, node: Node, path: str) -> Node:
    """The same, where nothing is the empty string."""
    found = pairs(context, node, path)
    value = {
        name: child if child.value is not None or child.tag == RESET else child._replace(value="")
        for name, child in found.value.items()
    }
    return found._replace(value=value)


def table(shapes: Mapping[str, Shape], *, required: Iterable[str] = (), defaults: Mapping[str, Any] = {}) -> Shape:
    """A mapping with these keys and `x-` ones, in this order; *defaults* are put where nothing is."""

    def whole(context: Context, node: Node, path: str) -> Node:
        entries = _entries(node, path)
        for key, child in entries.items():
            if key not in shapes and not key.startswith("x-"):
                raise wrong(child, join(path, key), "unknown key", hint=near(key, shapes))
        for key in required:
            if key not in entries or entries[key].value is None:
                raise wrong(node, path, f"the key {key!r} is missing")
        value: dict[str, Node] = {}
        for key, shape in shapes.items():
            if key in entries and not (context.fill and entries[key].value is None):
                value[key] = apply(optional(shape), context, entries[key], join(path, key))
            if context.fill and key in defaults and (key not in entries or entries[key].value is None):
                value[key] = node._replace(value=defaults[key], tag="")
        value.update((key, child) for key, child in sorted(entries.items()) if key.startswith("x-"))
        return node._replace(value=value)

    return whole


def _entries(node: Node, path: str) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        raise wrong(node, path, f"must be a mapping, and is {node.kind}")
    return node.value


def near(word: str, known: Iterable[str]) -> str:
    """A hint that names the word of *known* which is like *word*; "" where none is."""
    # 4 ms, and only wrong files need it
    import difflib

    found = difflib.get_close_matches(word[:64].lower(), list(known), 1, 0.6)
    return f"did you mean {found[0]}?" if found else ""
