"""From files to one document: variables, includes, extends, and what the files say over each other.

    each file   parse ─▶ variables ─▶ canonical form, paths absolute ─▶ includes below it ─▶ extends
    all files   merge, in order ─▶ canonical form again, with defaults

Paths are relative to the project's directory, whichever of the project's files they are in; in a file that is extended,
to that file; in what is included, to the directory of that. Files are read by a function that is handed in.
"""

import os.path
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rootless.compose import interpolate
from rootless.compose.document import parse_documents
from rootless.compose.dotenv import merge_env, parse_env
from rootless.compose.interpolate import InterpolationError, Variable
from rootless.compose.merge import clean, merge
from rootless.compose.nodes import ComposeError, Node, Place, join, plain, wrong
from rootless.compose.schema import DOCUMENT, EXTENDS, INCLUDE
from rootless.compose.shapes import Context, apply

Read = Callable[[str], "str | None"]  # the text of a file; None if there is none

_SECTIONS = ("services", "networks", "volumes", "secrets", "configs", "models")
_MOST_FILES = 1000


class Request(NamedTuple):
    """What to load: files, in order, of which the last one wins, and how."""

    files: tuple[str, ...]
    directory: str
    environment: Mapping[str, str]
    name: str = ""  # what COMPOSE_PROJECT_NAME is for variables
    interpolate: bool = True
    resolve_paths: bool = True


class Loaded(NamedTuple):
    """One document, canonical; warnings for the user; and the variables that the files ask for, by name."""

    document: Node
    warnings: tuple[str, ...]
    variables: Mapping[str, Variable]


def load_document(read: Read, request: Request) -> Loaded:
    """What the files add up to. Raises ComposeError."""
    loader = _Loader(read, request)
    document = loader.load(request.files, request.directory, request.environment, ())
    # Sources that were written `./x` are absolute by now, so that nothing is made absolute twice.
    filled = apply(DOCUMENT, Context(lambda path: path, raw=not request.interpolate, fill=True), document, "")
    return Loaded(filled, tuple(loader.warnings), loader.variables)


def absolute(path: str, directory: str, home: str | None) -> str:
    """*path* from *directory*; `~` is the home."""
    if home and (path == "~" or path.startswith("~/")):
        path = home + path[1:]
    return os.path.normpath(os.path.join(directory, path))


class _Loader:
    """The files that are read for one project, and what is found on the way."""

    def __init__(self, read: Read, request: Request) -> None:
        self._read = read
        self._request = request
        self._files = 0
        self.warnings: list[str] = []
        self.variables: dict[str, Variable] = {}

    def load(
        self, files: tuple[str, ...], directory: str, environment: Mapping[str, str], included: tuple[str, ...]
    ) -> Node:
        """One project, or one that is included; *included* are the files that led here."""
        merged = Node({}, Place(files[0] if files else "", 1))
        for file in files:
            if file in included:
                raise ComposeError(f"include cycle detected: {' includes '.join((*included, file))}")
            for document in self._documents(file, environment):
                context = self._context(directory, environment)
                layer = apply(DOCUMENT, context, document, "")
                layer = self._include(layer, directory, environment, (*included, file))
                layer = self._extend_all(layer, merged, file, directory, environment)
                merged = merge(merged, layer)
        return merged

    def _context(self, directory: str, environment: Mapping[str, str]) -> Context:
        home = environment.get("HOME")
        if not self._request.resolve_paths:
            return Context(lambda path: path, raw=not self._request.interpolate)
        return Context(lambda path: absolute(path, directory, home), raw=not self._request.interpolate)

    def _documents(self, file: str, environment: Mapping[str, str], near: Node | None = None) -> list[Node]:
        text = self._text(file, near)
        documents = parse_documents(text, file)
        return [self._with_values(document, "", environment) for document in documents]

    def _text(self, file: str, near: Node | None) -> str:
        self._files += 1
        if self._files > _MOST_FILES:
            raise ComposeError(f"more than {_MOST_FILES} files belong together")
        text = self._read(file)
        if text is None:
            problem = f"no such file: {file}"
            raise wrong(near, "", problem) if near else ComposeError(problem)
        return text

    def _with_values(self, node: Node, path: str, environment: Mapping[str, str]) -> Node:
        """The node with the values of variables in its strings."""
        if isinstance(node.value, dict):
            children = {
                key: self._with_values(child, join(path, key), environment) for key, child in node.value.items()
            }
            return node._replace(value=children)
        if isinstance(node.value, list):
            items = [
                self._with_values(child, f"{path}[{place}]", environment) for place, child in enumerate(node.value)
            ]
            return node._replace(value=items)
        if not node.is_text or "$" not in node.value:
            return node
        return self._with_value(node, path, environment)

    def _with_value(self, node: Node, path: str, environment: Mapping[str, str]) -> Node:
        try:
            parts = interpolate.parse(node.value)
            for variable in interpolate.variables(parts):
                known = self.variables.get(variable.name)
                if known is None or not known.operator:
                    self.variables[variable.name] = variable
            if not self._request.interpolate:
                return node
            return node._replace(value=interpolate.value(parts, environment.get, self._tell_unset))
        except InterpolationError as error:
            raise wrong(node, path, str(error), hint=error.hint) from error

    def _tell_unset(self, name: str) -> None:
        warning = f'The "{name}" variable is not set. Defaulting to a blank string.'
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _include(self, layer: Node, directory: str, environment: Mapping[str, str], included: tuple[str, ...]) -> Node:
        """The layer with what it includes below it. Raises ComposeError where both have something, and not the same."""
        section = layer.value.get("include")
        if section is None or section.value is None:
            return layer
        entries = {key: node for key, node in layer.value.items() if key != "include"}
        imported = Node({}, section.place)
        for place, item in enumerate(section.value):
            other = self._included(item, f"include[{place}]", directory, environment, included)
            _check_conflicts(imported, other, item)
            imported = merge(imported, other)
        _check_conflicts(imported, layer, section)
        return merge(imported, layer._replace(value=entries))

    def _included(
        self, item: Node, path: str, directory: str, environment: Mapping[str, str], included: tuple[str, ...]
    ) -> Node:
        if item.is_text:
            item = item._replace(value={"path": item})
        entries = plain(INCLUDE(self._context(directory, environment), item, path))
        if not entries.get("path"):
            raise wrong(item, path, "the key 'path' is missing")
        home = environment.get("HOME")
        files = tuple(absolute(file, directory, home) for file in entries["path"])
        own = entries.get("project_directory")
        own = absolute(own, directory, home) if own else os.path.dirname(files[0])
        for file in files:
            if self._read(file) is None:
                raise wrong(item, path, f"no such file: {file}")
        values = self._include_environment(item, path, entries.get("env_file"), own, directory, environment)
        found = self.load(files, own, values, included)
        # What is a matter of the project as a whole is not taken over.
        return found._replace(value={key: node for key, node in found.value.items() if key in _SECTIONS})

    def _include_environment(
        self,
        item: Node,
        path: str,
        files: "list[str] | None",
        own: str,
        directory: str,
        environment: Mapping[str, str],
    ) -> Mapping[str, str]:
        if files is None:
            text = self._read(os.path.join(own, ".env"))
            texts = [] if text is None else [(os.path.join(own, ".env"), text)]
        else:
            texts = []
            for file in files:
                file = absolute(file, directory, environment.get("HOME"))
                text = self._read(file)
                if text is None:
                    raise wrong(item, path, f"no such env_file: {file}")
                texts.append((file, text))
        settings = [parse_env(text, file, environment.get) for file, text in texts]
        return {**merge_env(settings, environment.get), **environment}

    def _extend_all(self, layer: Node, merged: Node, file: str, directory: str, environment: Mapping[str, str]) -> Node:
        services = layer.value.get("services")
        if services is None or services.value is None:
            return layer
        if not any("extends" in (service.value or {}) for service in services.value.values()):
            return layer
        earlier = merged.value["services"].value if merged.value.get("services") else {}
        scope = _Scope(services.value, earlier, file, directory)
        found = {name: self._extended(name, scope, environment, ()) for name in services.value}
        return layer._replace(value={**layer.value, "services": services._replace(value=found)})

    def _extended(
        self, name: str, scope: "_Scope", environment: Mapping[str, str], seen: tuple[tuple[str, str], ...]
    ) -> Node:
        """A service with what it extends below it."""
        service: Node = scope.services[name] if name in scope.services else scope.earlier[name]
        extends = service.value.get("extends") if isinstance(service.value, dict) else None
        if extends is None or extends.value is None:
            return service
        path = f"services.{name}.extends"
        here = (scope.file, name)
        if here in seen:
            cycle = " -> ".join(f"{service} in {file}" for file, service in (*seen, here))
            raise wrong(extends, path, f"circular reference: {cycle}")
        target = extends._replace(value={"service": extends}) if extends.is_text else extends
        wanted = plain(EXTENDS(self._context(scope.directory, environment), target, path))
        base_scope = scope
        if wanted.get("file"):
            base_scope = self._scope_of(wanted["file"], scope, environment, extends)
        if wanted["service"] not in base_scope.services and wanted["service"] not in base_scope.earlier:
            raise wrong(extends, path, f"there is no service {wanted['service']!r} in {base_scope.file}")
        base = self._extended(wanted["service"], base_scope, environment, (*seen, here))
        own = service._replace(value={key: node for key, node in service.value.items() if key != "extends"})
        merged = merge(clean(base), own, ("services", name))
        return merged._replace(value={key: node for key, node in merged.value.items() if key != "extends"})

    def _scope_of(self, file: str, scope: "_Scope", environment: Mapping[str, str], extends: Node) -> "_Scope":
        file = absolute(file, scope.directory, environment.get("HOME"))
        directory = os.path.dirname(file)
        context = self._context(directory, environment)
        merged = Node({}, Place(file, 1))
        for document in self._documents(file, environment, extends):
            layer = apply(DOCUMENT, context, document, "")
            merged = merge(merged, layer)
        services = merged.value.get("services")
        return _Scope(services.value if services else {}, {}, file, directory)


class _Scope(NamedTuple):
    """Where `extends` looks for a service: in the same file, then in what the files before it added up to."""

    services: Mapping[str, Node]
    earlier: Mapping[str, Node]
    file: str
    directory: str


def _check_conflicts(imported: Node, other: Node, near: Node) -> None:
    for section in _SECTIONS:
        ours, theirs = imported.value.get(section), other.value.get(section)
        for name, node in (ours.value or {}).items() if ours else ():
            twin = (theirs.value or {}).get(name) if theirs else None
            if twin is not None and plain(twin) != plain(node):
                raise wrong(
                    twin,
                    f"{section}.{name}",
                    f"conflicts with what is included, at {node.place}",
                    hint="to change what is included, use a file of its own: -f compose.yaml -f override.yaml",
                )
