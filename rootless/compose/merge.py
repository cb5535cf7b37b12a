"""What a later file says over an earlier one: rules by key, on canonical nodes.

Mappings are merged key by key, single values are replaced, and lists are added to what is there, without what is there
already. Some lists are kept by a key of their items, so that an item replaces the one with its key; and some are values
as a whole. `!reset` takes a key away, `!override` replaces what is there instead of merging.
"""

from collections.abc import Callable

from rootless.compose.nodes import OVERRIDE, RESET, Node, plain

Path = tuple[str, ...]
Key = Callable[[Node], object]


def _target(node: Node) -> object:
    return _get(node, "target")


def _get(node: Node, key: str) -> object:
    child = node.value.get(key) if isinstance(node.value, dict) else None
    return child.value if child else None


def _port(node: Node) -> object:
    return (*(_get(node, key) for key in ("host_ip", "published", "target")), _get(node, "protocol") or "tcp")


def _config_target(node: Node) -> object:
    return _get(node, "target") or f"/{_get(node, 'source')}"


# Below `services.NAME`: lists that are one value.
_WHOLE: frozenset[Path] = frozenset((("command",), ("entrypoint",), ("healthcheck", "test")))
# Lists whose items have a key.
_KEYED: dict[Path, Key] = {
    ("ports",): _port,
    ("volumes",): _target,
    ("devices",): _target,
    ("secrets",): _target,
    ("configs",): _config_target,
    ("env_file",): lambda node: _get(node, "path"),
}
# Mappings in which null is a value: it stands for what the environment says.
_WITH_NULLS: frozenset[Path] = frozenset((("environment",), ("build", "args")))


def merge(base: Node, other: Node, path: Path = ()) -> Node:
    """*base* with what *other* says over it; *path* is where both are, from the top of the document."""
    if other.tag in (RESET, OVERRIDE):
        return clean(other)
    if other.value is None and base.value is not None:
        return base if path[2:3] == () or path[2:-1] not in _WITH_NULLS or path[:1] != ("services",) else other
    if isinstance(base.value, dict) and isinstance(other.value, dict):
        if _replaces(base, other, path):
            return clean(other)
        return _merge_mappings(base, other, path)
    if isinstance(base.value, list) and isinstance(other.value, list):
        return _merge_lists(base, other, path[2:] if path[:1] == ("services",) else ())
    return clean(other)


def _replaces(base: Node, other: Node, path: Path) -> bool:
    """Whether options belong to another driver, so that merging them makes no sense."""
    if path[:1] != ("services",) or path[2:] != ("logging",):
        return False
    drivers = _get(base, "driver"), _get(other, "driver")
    return None not in drivers and drivers[0] != drivers[1]


def _merge_mappings(base: Node, other: Node, path: Path) -> Node:
    entries = dict(base.value)
    for key, child in other.value.items():
        if child.tag == RESET:
            entries.pop(key, None)
        elif key in entries:
            entries[key] = merge(entries[key], child, (*path, key))
        else:
            entries[key] = clean(child)
    return other._replace(value=entries, tag="")


def _merge_lists(base: Node, other: Node, path: Path) -> Node:
    other = clean(other)
    if path in _WHOLE:
        return other
    key = _KEYED.get(path, plain_key)
    items: dict[object, Node] = {}
    for item in (*base.value, *other.value):
        items[key(item)] = item
    return other._replace(value=list(items.values()))


def plain_key(node: Node) -> object:
    """What tells items of other lists apart: all that they are."""
    return repr(plain(node))


def clean(node: Node) -> Node:
    """The node without what is to be taken away, and without tags: what a first file comes to."""
    if isinstance(node.value, dict):
        kept = {key: clean(child) for key, child in node.value.items() if child.tag != RESET}
        return node._replace(value=kept, tag="")
    if isinstance(node.value, list):
        return node._replace(value=[clean(child) for child in node.value if child.tag != RESET], tag="")
    return node._replace(tag="") if node.tag else node
