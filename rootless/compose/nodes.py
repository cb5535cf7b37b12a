"""What a Compose file is made of, each part with the place where it stands, so that an error can name it.

A node's value is None, a bool, an int, a float, a str, a list of nodes, or a dict from str to nodes. The place of a
mapping's entry is that of its key. Nodes are shared where YAML has aliases, and never changed: whoever wants another
value makes another node.
"""

from typing import Any, NamedTuple

from rootless.errors import InvalidInput

RESET = "reset"
OVERRIDE = "override"


class Place(NamedTuple):
    """A line of a file; the first line is 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Node(NamedTuple):
    """A value and where it stands; *tag* is "reset" or "override" where it stands behind `!reset` or `!override`."""

    value: Any
    place: Place
    tag: str = ""

    @property
    def kind(self) -> str:
        """What the value is, in the words of error messages."""
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return "a list"
        if self.value is None:
            return "nothing"
        return "true or false" if isinstance(self.value, bool) else "a string" if self.is_text else "a number"

    @property
    def is_text(self) -> bool:
        """Whether the value is a string."""
        return isinstance(self.value, str)


class ComposeError(InvalidInput):
    """A Compose file that cannot be; the message begins with the place and the path of the key."""


def wrong(node: Node, path: str, problem: str, *, hint: str = "") -> ComposeError:
    """The error "compose.yaml:3: services.web.ports: PROBLEM"."""
    return ComposeError(f"{node.place}: {path}: {problem}" if path else f"{node.place}: {problem}", hint=hint)


def plain(node: Node) -> Any:
    """The value without places: None, bool, int, float, str, lists and dicts of these."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def join(path: str, key: str) -> str:
    """The path of *key* in the mapping at *path*."""
    return f"{path}.{key}" if path else key
