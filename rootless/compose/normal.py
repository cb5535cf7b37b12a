"""What a document means that it does not say: names of things, the default network, dependencies that follow.

And what it may not mean: references to what is not there, dependencies in a circle, two answers to one question.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rootless.compose.nodes import ComposeError, Node, wrong
from rootless.compose.shapes import near

_LONGEST_NAME = 128
_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")
_NAMED = ("networks", "volumes", "secrets", "configs")
DEFAULT = "default"


def check_project_name(name: str) -> str:
    """*name*, if a project may be called so. Raises ComposeError."""
    if len(name) > _LONGEST_NAME:
        raise ComposeError(f"invalid project name: it is longer than {_LONGEST_NAME} characters")
    if not _PROJECT_NAME.fullmatch(name):
        raise ComposeError(
            f'invalid project name "{name}": must consist only of lowercase alphanumeric characters, hyphens, and '
            "underscores as well as start with a letter or number"
        )
    return name


def project_name_of(text: str) -> str:
    """A project's name made from a directory's; "" where nothing is left."""
    return _NOT_IN_NAMES.sub("", text.lower()).lstrip("_-")[:_LONGEST_NAME]


def normalise(document: Node, project: str, directory: str) -> Node:
    """The document, which is canonical, with names, networks and dependencies written out.

    *directory* is where images are built that do not say where.
    """
    entries: dict[str, Node] = {"name": Node(project, document.place)}
    entries.update((key, node) for key, node in document.value.items() if key not in ("name", "version", "include"))
    services = entries.get("services")
    if services is not None and services.value:
        found = {name: _service(name, node, directory) for name, node in services.value.items()}
        entries["services"] = services._replace(value=found)
        if any(DEFAULT in _keys(service, "networks") for service in found.values()):
            networks = entries.get("networks", Node({}, services.place))
            if DEFAULT not in (networks.value or {}):
                default = Node({}, networks.place)
                entries["networks"] = networks._replace(value={**(networks.value or {}), DEFAULT: default})
    for section in _NAMED:
        if section in entries and entries[section].value:
            node = entries[section]
            named = {key: _with_name(key, child, project) for key, child in node.value.items()}
            entries[section] = node._replace(value=dict(sorted(named.items())))
    return document._replace(value=entries)


def _with_name(key: str, node: Node, project: str) -> Node:
    entries = dict(node.value or {})
    if "name" not in entries or not entries["name"].value:
        external = "external" in entries and entries["external"].value
        entries = {"name": node._replace(value=key if external else f"{project}_{key}"), **entries}
    return node._replace(value=entries)


def _service(name: str, node: Node, directory: str) -> Node:
    if not isinstance(node.value, dict):
        raise wrong(node, f"services.{name}", f"must be a mapping, and is {node.kind}")
    entries = dict(node.value)
    if not entries.get("networks") and "network_mode" not in entries and "provider" not in entries:
        entries["networks"] = node._replace(value={DEFAULT: node._replace(value=None)})
    if "build" in entries and entries["build"].value is not None:
        entries["build"] = _build(entries["build"], directory)
    implied = dict(_implied(entries))
    if implied:
        known = entries["depends_on"] if entries.get("depends_on") else node._replace(value={})
        extra = {
            target: _dependency(known, restart) for target, restart in implied.items() if target not in known.value
        }
        entries["depends_on"] = known._replace(value=dict(sorted({**known.value, **extra}.items())))
    return node._replace(value=entries)


def _build(node: Node, directory: str) -> Node:
    entries = dict(node.value)
    entries.setdefault("context", node._replace(value=directory))
    if "dockerfile" not in entries and "dockerfile_inline" not in entries:
        entries = {"context": entries.pop("context"), "dockerfile": node._replace(value="Dockerfile"), **entries}
    return node._replace(value=entries)


def _dependency(node: Node, restart: bool) -> Node:
    values: dict[str, Any] = {"condition": "service_started"}
    if restart:
        values["restart"] = True
    values["required"] = True
    return node._replace(value={key: node._replace(value=value) for key, value in values.items()})


def _implied(entries: Mapping[str, Node]) -> Iterable[tuple[str, bool]]:
    """The services that this one needs without depends_on, and whether it starts again with them."""
    for key in ("network_mode", "ipc", "pid", "uts", "cgroup"):
        if key in entries and entries[key].is_text and entries[key].value.startswith("service:"):
            yield entries[key].value.partition(":")[2], True
    for link in _items(entries, "links"):
        yield link.partition(":")[0], True
    for source in _items(entries, "volumes_from"):
        if not source.startswith("container:"):
            yield source.partition(":")[0], False


def _items(entries: Mapping[str, Node], key: str) -> list[str]:
    return [item.value for item in entries[key].value or ()] if key in entries else []


def _keys(service: Node, key: str) -> Mapping[str, Node]:
    node = service.value.get(key)
    return node.value if node is not None and isinstance(node.value, dict) else {}


def check(document: Node, known: Iterable[str]) -> None:
    """Raise ComposeError for what cannot be as a whole. *known*: services that are there, though not in use."""
    services: Mapping[str, Node] = _section(document, "services")
    known = {*known, *services}
    names: dict[str, str] = {}
    for name, service in services.items():
        path = f"services.{name}"
        _check_service(service, path)
        _check_scale(service, path)
        for key in _NAMED:
            _check_references(document, service, path, key)
        _check_dependencies(service, path, services, known)
        own = service.value.get("container_name")
        if own is not None and own.value in names:
            raise wrong(own, f"{path}.container_name", f"{own.value!r} is the name of {names[own.value]} as well")
        if own is not None:
            names[own.value] = name
    for section in ("secrets", "configs"):
        for name, node in _section(document, section).items():
            _check_source(node, f"{section}.{name}")
    check_cycles(services)


def _section(document: Node, name: str) -> Mapping[str, Node]:
    node = document.value.get(name)
    return (node.value or {}) if node is not None else {}


def _check_service(service: Node, path: str) -> None:
    keys = service.value
    if not any(keys.get(key) and keys[key].value for key in ("image", "build", "provider")):
        raise wrong(service, path, "has neither an image nor a build context specified")
    if "network_mode" in keys and keys.get("networks") and keys["networks"].value:
        raise wrong(keys["network_mode"], path, "network_mode and networks exclude each other")


def _check_scale(service: Node, path: str) -> None:
    scale = service.value.get("scale")
    deploy = service.value.get("deploy")
    replicas = deploy.value.get("replicas") if deploy and deploy.value else None
    if scale and replicas and scale.value != replicas.value:
        raise wrong(scale, path, "scale and deploy.replicas say different numbers")
    count = scale or replicas
    if count and count.value < 0:
        raise wrong(count, path, "there cannot be less than 0 containers")
    own = service.value.get("container_name")
    if own and count and count.value > 1:
        raise wrong(own, f"{path}.container_name", f"there can be one container of this name, not {count.value}")


def _check_references(document: Node, service: Node, path: str, section: str) -> None:
    there = _section(document, section)
    singular = section.removesuffix("s")
    for place, item in _references(service, path, section):
        if item not in there:
            hint = near(item, there) or f"declare it in the section {section}"
            raise wrong(place, f"{path}.{section}", f"refers to undefined {singular} {item}", hint=hint)


def _references(service: Node, path: str, section: str) -> Iterable[tuple[Node, str]]:
    node = service.value.get(section)
    if node is None or not node.value:
        return
    if isinstance(node.value, dict):
        yield from ((child._replace(place=child.place), key) for key, child in node.value.items())
        return
    for item in node.value:
        if not isinstance(item.value, dict) or "source" not in item.value:
            continue
        is_named = section != "volumes" or item.value["type"].value == "volume"
        if is_named and item.value["source"].value:
            yield item, item.value["source"].value


def _check_dependencies(service: Node, path: str, services: Mapping[str, Node], known: Iterable[str]) -> None:
    for name, child in _keys(service, "depends_on").items():
        required = child.value.get("required")
        if name in services or (required is not None and not required.value):
            continue
        problem = (
            f"depends on {'a service that no active profile has' if name in known else 'undefined service'} {name}"
        )
        raise wrong(child, f"{path}.depends_on", problem, hint=near(name, services))


def _check_source(node: Node, path: str) -> None:
    given = [
        key for key in ("file", "environment", "content", "external") if key in node.value and node.value[key].value
    ]
    if len(given) > 1:
        raise wrong(node, path, f"{' and '.join(given)} exclude each other")
    if not given and "content" not in node.value:
        raise wrong(node, path, "needs one of file, environment, content or external")


def check_cycles(services: Mapping[str, Node]) -> None:
    """Raise ComposeError where services depend on each other in a circle."""
    done: set[str] = set()
    for start in services:
        trail: list[tuple[str, list[str]]] = [(start, sorted(_keys(services[start], "depends_on")))]
        active = [start]
        while trail:
            name, rest = trail[-1]
            if not rest:
                trail.pop()
                active.pop()
                done.add(name)
                continue
            following = rest.pop(0)
            if following in active:
                cycle = " -> ".join([*active[active.index(following) :], following])
                raise wrong(services[name], f"services.{name}.depends_on", f"dependency cycle detected: {cycle}")
            if following not in done and following in services:
                trail.append((following, sorted(_keys(services[following], "depends_on"))))
                active.append(following)
