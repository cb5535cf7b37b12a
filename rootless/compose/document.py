"""From YAML to nodes. Only the parser's events of PyYAML are used: no text can make an object of Python's.

What differs from PyYAML's own loader is what Compose files need: each node knows its line; a key that stands twice is
an error; plain scalars mean what they mean to Go's yaml.v3, which is close to YAML 1.2 (`yes`, `on` and `22:22` are
strings, `0o17` and `017` are octal). Aliases are references, so that a few lines that stand for millions of nodes
("billion laughs") take no memory; and what they would come to is counted, and refused beyond a limit.
"""

import re
from typing import Any, NamedTuple

import yaml

from rootless.compose.nodes import OVERRIDE, RESET, ComposeError, Node, Place

MOST_NODES = 200_000  # with aliases counted as often as they are used
MOST_DEPTH = 100
MOST_CHARACTERS = 8 << 20

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_CORE_TAGS = ("str", "int", "float", "bool", "null", "map", "seq", "merge")
_NULLS = ("", "~", "null", "Null", "NULL")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*|0[0-7_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOATS = {
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_MERGE = "<<"


class _Composed(NamedTuple):
    """A node, and how many nodes it comes to when aliases are written out."""

    node: Node
    weight: int
    is_merge_key: bool = False


def parse_documents(text: str, file: str) -> list[Node]:
    """The documents of a YAML text, those without content left out. Raises ComposeError.

    *file* is the name that places have.
    """
    if len(text) > MOST_CHARACTERS:
        raise ComposeError(f"{file}: more than {MOST_CHARACTERS >> 20} MiB are no Compose file")
    try:
        return _Composer(text, file).documents()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ComposeError(f"{Place(file, line)}: this is no YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ComposeError(f"{file}: this is no YAML: {str(error).splitlines()[0]}") from error


def resolve_plain(text: str) -> Any:
    """What a scalar without quotes means: None, a bool, an int, a float or a string."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text[0] not in "+-.0123456789" or len(text) > 100:
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _SPECIAL_FLOATS.get(text, text)


def _integer(text: str) -> Any:
    digits = text.replace("_", "")
    bare = digits.lstrip("+-")
    octal = len(bare) > 1 and bare[0] == "0" and bare[1].isdigit()
    try:
        return int(digits, 8 if octal else 0)
    except ValueError:
        return text  # "0_": an octal number without digits


class _Composer:
    """The events of one text, and the nodes that they make."""

    def __init__(self, text: str, file: str) -> None:
        self._events = yaml.parse(text, Loader=_LOADER)
        self._file = file
        self._anchors: dict[str, _Composed] = {}
        self._depth = 0

    def documents(self) -> list[Node]:
        """All documents with content."""
        found = []
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}
                node = self._compose(next(self._events)).node
                if node.value is not None:
                    found.append(node)
        return found

    def _place(self, event: Any) -> Place:
        return Place(self._file, event.start_mark.line + 1)

    def _wrong(self, event: Any, problem: str) -> ComposeError:
        return ComposeError(f"{self._place(event)}: {problem}")

    def _compose(self, event: Any) -> _Composed:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._wrong(event, f"the alias *{event.anchor} has no anchor &{event.anchor} before it")
            return self._anchors[event.anchor]
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise self._wrong(event, f"nested more than {MOST_DEPTH} deep")
        if isinstance(event, yaml.ScalarEvent):
            composed = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            composed = self._sequence(event)
        else:
            composed = self._mapping(event)
        self._depth -= 1
        if composed.weight > MOST_NODES:
            raise self._wrong(event, f"aliases make this more than {MOST_NODES} values")
        if event.anchor:
            self._anchors[event.anchor] = composed
        return composed

    def _tag(self, event: Any) -> str:
        """The tag that is ours to apply. Raises ComposeError for one that nobody knows."""
        tag = event.tag
        if tag in (f"!{RESET}", f"!{OVERRIDE}"):
            return str(tag[1:])
        if tag is None or tag == "!" or tag.removeprefix(_CORE) in _CORE_TAGS:
            return ""
        raise self._wrong(event, f"unknown tag {tag}")

    def _scalar(self, event: Any) -> _Composed:
        tag, text = self._tag(event), event.value
        is_plain = event.implicit[0]
        core = event.tag.removeprefix(_CORE) if event.tag and event.tag.startswith(_CORE) else ""
        value = (
            resolve_plain(text) if (is_plain and core != "str") or core in ("int", "float", "bool", "null") else text
        )
        if tag == RESET:
            value = None
        return _Composed(Node(value, self._place(event), tag), 1, is_plain and text == _MERGE)

    def _sequence(self, event: Any) -> _Composed:
        tag, items, weight = self._tag(event), [], 1
        while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
            composed = self._compose(item)
            weight += composed.weight
            items.append(composed.node)
        return _Composed(Node(items, self._place(event), tag), weight)

    def _mapping(self, event: Any) -> _Composed:
        tag, weight = self._tag(event), 1
        entries: dict[str, Node] = {}
        merged: list[Node] = []
        while not isinstance(key_event := next(self._events), yaml.MappingEndEvent):
            key = self._compose(key_event)
            composed = self._compose(next(self._events))
            weight += composed.weight + 1
            if key.is_merge_key:
                merged += self._merged(key_event, composed.node)
                continue
            name = self._key(key_event, key.node)
            if name in entries:
                first = entries[name].place.line
                raise self._wrong(
                    key_event, f"the key {name!r} is here for the second time; the first is in line {first}"
                )
            entries[name] = composed.node._replace(place=self._place(key_event))
        for mapping in merged:
            for name, node in mapping.value.items():
                entries.setdefault(name, node)
        return _Composed(Node(entries, self._place(event), tag), weight)

    def _key(self, event: Any, node: Node) -> str:
        """The text of a key; numbers and booleans are as they are written."""
        if isinstance(node.value, (list, dict)) or not isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent)):
            raise self._wrong(event, "a key must be a string")
        return node.value if isinstance(node.value, str) else str(getattr(event, "value", node.value))

    def _merged(self, event: Any, node: Node) -> list[Node]:
        """The mappings that `<<` takes in, those first that win."""
        mappings = node.value if isinstance(node.value, list) else [node]
        if not all(isinstance(mapping.value, dict) for mapping in mappings):
            raise self._wrong(event, "<< takes a mapping, or a list of mappings")
        return list(mappings)
