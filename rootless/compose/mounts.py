"""Volumes of a service: `[SOURCE:]TARGET[:MODE]`, and the long form."""

from rootless.compose.nodes import Node, wrong
from rootless.compose.shapes import Context, Shape, apply, flag, labels, mode, one_of, size, table, text

_PROPAGATIONS = ("shared", "slave", "private", "rshared", "rslave", "rprivate")
_CONSISTENCIES = ("consistent", "cached", "delegated", "default")

_LONG: Shape = table(
    {
        "type": one_of("bind", "volume", "tmpfs", "image", "cluster", "npipe"),
        "source": text,
        "target": text,
        "read_only": flag,
        "consistency": text,
        "bind": table(
            {
                "selinux": one_of("z", "Z"),
                "propagation": one_of(*_PROPAGATIONS, ""),
                "create_host_path": flag,
                "recursive": one_of("enabled", "disabled", "writable", "readonly"),
            }
        ),
        "volume": table({"labels": labels, "nocopy": flag, "subpath": text}),
        "tmpfs": table({"size": size, "mode": mode}),
        "image": table({"subpath": text}),
    },
    required=("type",),
)


def mount(context: Context, node: Node, path: str) -> Node:
    """An item of `volumes` in its canonical form. Sources of binds are absolute."""
    if node.is_text:
        node = _short(context, node, path)
    found = _LONG(context, node, path)
    entries = dict(found.value)
    kind = entries["type"].value
    if "target" not in entries and kind != "npipe":
        raise wrong(node, path, "the key 'target' is missing")
    if kind == "bind":
        if not (entries.get("source") and entries["source"].value):
            raise wrong(node, path, "a bind needs a source")
        source = entries["source"]
        entries["source"] = source._replace(value=context.resolve(source.value))
        bind = entries.get("bind", node._replace(value={}, tag=""))
        if isinstance(bind.value, dict) and "create_host_path" in bind.value and bind.value["create_host_path"].value:
            # It is the default, and not said.
            bind = bind._replace(value={key: value for key, value in bind.value.items() if key != "create_host_path"})
        entries["bind"] = bind
    elif kind in ("volume", "tmpfs"):
        entries.setdefault(kind, node._replace(value={}, tag=""))
        if kind == "tmpfs" and "source" in entries:
            raise wrong(entries["source"], f"{path}.source", "a tmpfs has no source")
    return apply(_LONG, context, found._replace(value=entries), path)


def is_path(source: str) -> bool:
    """Whether the source of a short form is a path of the machine, and no volume's name."""
    return source.startswith((".", "/", "~"))


def _short(context: Context, node: Node, path: str) -> Node:
    parts = node.value.split(":")
    if not all(parts):
        raise wrong(node, path, f"invalid volume {node.value!r}: something is missing beside a colon")
    if len(parts) > 3:
        raise wrong(node, path, f"invalid volume {node.value!r}: too many colons", hint="use the long form")
    entries: dict[str, object] = {"type": "volume"}
    options: dict[str, object] = {}
    if len(parts) == 1:
        entries["target"] = parts[0]
    else:
        entries.update(source=parts[0], target=parts[1], type="bind" if is_path(parts[0]) else "volume")
    for word in parts[2].split(",") if len(parts) == 3 else ():
        _mode(node, path, word, entries, options)
    kind = str(entries["type"])
    entries[kind] = {key: node._replace(value=value, tag="") for key, value in options.items()}
    return node._replace(value={key: node._replace(value=value, tag="") for key, value in entries.items()})


def _mode(node: Node, path: str, word: str, entries: dict[str, object], options: dict[str, object]) -> None:
    is_bind = entries["type"] == "bind"
    if word in ("ro", "rw"):
        entries.update({"read_only": True} if word == "ro" else {})
    elif word in _CONSISTENCIES:
        entries["consistency"] = word
    elif word == "nocopy" and not is_bind:
        options["nocopy"] = True
    elif word in ("z", "Z"):
        options.update({"selinux": word} if is_bind else {})
    elif word in _PROPAGATIONS and is_bind:
        options["propagation"] = word
    else:
        raise wrong(node, path, f"invalid volume {node.value!r}: {word!r} is no mode of it")
