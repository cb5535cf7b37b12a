"""A project: which files it has, what it is called, which of its services are active, and its records.

What decides, first things first:

    files       -f, COMPOSE_FILE, compose.yaml and its override in the working directory or above it
    directory   --project-directory, that of the first file
    variables   the environment, --env-file or COMPOSE_ENV_FILES, .env in the project's directory
    name        -p, COMPOSE_PROJECT_NAME, `name:` of the last file that has it, the directory's name
    profiles    --profile and COMPOSE_PROFILES; a service that is asked for by name is active in any case
"""

import os.path
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rootless.compose.dotenv import Setting, merge_env, parse_env
from rootless.compose.interpolate import Variable
from rootless.compose.load import Loaded, Read, Request, absolute, load_document
from rootless.compose.nodes import ComposeError, Node, plain
from rootless.compose.normal import check, check_project_name, normalise, project_name_of
from rootless.compose.records import EnvFile, Project
from rootless.compose.shapes import near
from rootless.compose.typed import all_of, file_of, network_of, service_of, volume_of

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
ALL_PROFILES = "*"
_SECTIONS = ("networks", "volumes", "secrets", "configs")


class ProjectOptions(NamedTuple):
    """What the user says of the project as a whole. Paths may be relative to *working_directory*."""

    working_directory: str
    environment: Mapping[str, str]  # the process's
    files: tuple[str, ...] = ()
    name: str = ""
    directory: str = ""
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    interpolate: bool = True
    resolve_paths: bool = True
    resolve_environment: bool = True
    normalise: bool = True
    check: bool = True


class Application(NamedTuple):
    """A loaded project: canonical *document*, as plain data, and what was found on the way to it."""

    name: str
    directory: str
    files: tuple[str, ...]
    environment: Mapping[str, str]
    environment_files: tuple[str, ...]
    profiles: frozenset[str]
    document: Mapping[str, Any]
    node: Node
    warnings: tuple[str, ...]
    variables: Mapping[str, Variable]


def load_application(read: Read, options: ProjectOptions) -> Application:
    """The project that *options* mean. Raises ComposeError."""
    first_directory = absolute(options.directory, options.working_directory, None) if options.directory else ""
    home = options.environment.get("HOME")
    early, _ = _variables(read, options, first_directory or options.working_directory)
    files = find_files(read, options, early)
    directory = first_directory or _directory_of(files[0], options)
    environment, env_files = _variables(read, options, directory)
    asked = options.name or environment.get("COMPOSE_PROJECT_NAME", "")
    name = check_project_name(asked) if asked else project_name_of(os.path.basename(directory))
    request = Request(
        files,
        directory,
        {**environment, **({"COMPOSE_PROJECT_NAME": name} if name else {})},
        name,
        options.interpolate,
        options.resolve_paths,
    )
    loaded = load_document(read, request)
    own = loaded.document.value.get("name")
    if not asked and own is not None:
        name = check_project_name(str(own.value))
        if "COMPOSE_PROJECT_NAME" in loaded.variables:
            environment = {**environment, "COMPOSE_PROJECT_NAME": name}
            loaded = load_document(read, request._replace(environment=environment, name=name))
    if not name:
        raise ComposeError("project name must not be empty", hint="the directory's name has no letters: use -p NAME")
    node = normalise(loaded.document, name, directory) if options.normalise else _with_name(loaded.document, name)
    profiles = frozenset(options.profiles) | _split(environment.get("COMPOSE_PROFILES", ""), ",")
    return _application(read, options, name, directory, files, environment, env_files, profiles, node, loaded, home)


def _application(
    read: Read,
    options: ProjectOptions,
    name: str,
    directory: str,
    files: tuple[str, ...],
    environment: Mapping[str, str],
    env_files: tuple[str, ...],
    profiles: frozenset[str],
    node: Node,
    loaded: Loaded,
    home: str | None,
) -> Application:
    document = plain(node)
    if options.resolve_environment and options.interpolate:
        for service in (document.get("services") or {}).values():
            _resolve_service(read, service, environment)
    warnings = loaded.warnings
    if "version" in loaded.document.value:
        place = loaded.document.value["version"].place
        warnings += (f"{place.file}: the attribute `version` is obsolete, it will be ignored",)
    return Application(
        name, directory, files, environment, env_files, profiles, document, node, warnings, loaded.variables
    )


def _with_name(document: Node, name: str) -> Node:
    entries = {key: node for key, node in document.value.items() if key not in ("name", "version", "include")}
    return document._replace(value={"name": Node(name, document.place), **entries})


def _split(text: str, separator: str) -> frozenset[str]:
    return frozenset(word for word in (word.strip() for word in text.split(separator)) if word)


def find_files(read: Read, options: ProjectOptions, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The files of the project, absolute; "-" is the standard input. Raises ComposeError where there are none."""
    given = options.files
    if not given and environment.get("COMPOSE_FILE"):
        separator = environment.get("COMPOSE_PATH_SEPARATOR") or ":"
        given = tuple(file for file in environment["COMPOSE_FILE"].split(separator) if file)
    base = options.working_directory
    if given:
        return tuple(file if file == "-" else absolute(file, base, options.environment.get("HOME")) for file in given)
    directory = absolute(options.directory, base, None) if options.directory else base
    while True:
        for name in NAMES:
            path = os.path.join(directory, name)
            if read(path) is not None:
                return (path, *_override(read, directory))
        if directory == os.path.dirname(directory):
            break
        directory = os.path.dirname(directory)
    raise ComposeError(
        "no configuration file provided: not found", hint=f"there is no {NAMES[0]} here or above; name one with -f"
    )


def _override(read: Read, directory: str) -> tuple[str, ...]:
    for name in OVERRIDES:
        path = os.path.join(directory, name)
        if read(path) is not None:
            return (path,)
    return ()


def _directory_of(file: str, options: ProjectOptions) -> str:
    return options.working_directory if file == "-" else os.path.dirname(file)


def _variables(read: Read, options: ProjectOptions, directory: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The variables for interpolation, and the files that they are from."""
    outside = options.environment
    given = options.env_files or tuple(sorted(_split(outside.get("COMPOSE_ENV_FILES", ""), ",")))
    base = options.working_directory
    files = tuple(absolute(file, base, outside.get("HOME")) for file in given) or (os.path.join(directory, ".env"),)
    settings: list[list[Setting]] = []
    found = []
    known: dict[str, str] = dict(outside)
    for file in files:
        text = read(file)
        if text is None:
            if given:
                raise ComposeError(f"couldn't find env file: {file}")
            continue
        found.append(file)
        settings.append(parse_env(text, file, known.get))
        known = {**merge_env(settings, outside.get), **outside}
    return {**merge_env(settings, outside.get), **outside}, tuple(found)


def _resolve_service(read: Read, service: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Put what `env_file` and `label_file` say into environment and labels; fill in variables without a value."""
    from_files: dict[str, str | None] = {}
    for entry in service.pop("env_file", None) or ():
        from_files.update(_env_file(read, EnvFile(**entry), {**environment, **_there(from_files)}))
    own = service.get("environment") or {}
    values = {
        name: environment.get(name, from_files.get(name)) if value is None else value for name, value in own.items()
    }
    merged = {**from_files, **values}
    if merged:
        service["environment"] = dict(sorted(merged.items()))
    labels: dict[str, str] = {}
    for path in service.pop("label_file", None) or ():
        labels.update(_there(_env_file(read, EnvFile(path), environment)))
    if labels:
        service["labels"] = dict(sorted({**labels, **(service.get("labels") or {})}.items()))
    if service.get("build") and service["build"].get("args"):
        args = service["build"]["args"]
        service["build"]["args"] = {n: environment.get(n) if v is None else v for n, v in args.items()}


def _there(values: Mapping[str, "str | None"]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _env_file(read: Read, file: EnvFile, known: Mapping[str, str]) -> dict[str, "str | None"]:
    text = read(file.path)
    if text is None:
        if file.required:
            raise ComposeError(f"env file {file.path} not found")
        return {}
    settings = parse_env(text, file.path, known.get, file.format)
    return {name: known.get(name) if value is None else value for name, value in settings}


def active_services(application: Application, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of the services that the profiles, or who asks for them by name, activate. Raises ComposeError."""
    services = application.document.get("services") or {}
    for name in asked:
        if name not in services:
            raise ComposeError(f"no such service: {name}", hint=near(name, services))
    profiles = set(application.profiles)
    return tuple(
        name for name, service in services.items() if name in asked or _is_active(service.get("profiles"), profiles)
    )


def _is_active(profiles: "Sequence[str] | None", active: "set[str]") -> bool:
    return not profiles or ALL_PROFILES in active or not active.isdisjoint(profiles)


def active_document(application: Application, asked: Sequence[str] = ()) -> dict[str, Any]:
    """The canonical document with the active services alone, and what they use."""
    active = active_services(application, asked)
    document = dict(application.document)
    services = document.get("services") or {}
    document["services"] = {name: services[name] for name in active}
    for section in _SECTIONS:
        if document.get(section):
            used = _used(document["services"].values(), section)
            document[section] = {key: value for key, value in document[section].items() if key in used}
        if section in document and not document[section]:
            del document[section]
    return document


def _used(services: Iterable[Mapping[str, Any]], section: str) -> set[str]:
    used: set[str] = set()
    for service in services:
        entries = service.get(section) or ()
        if isinstance(entries, Mapping):
            used.update(entries)
            continue
        used.update(entry.get("source") for entry in entries if section != "volumes" or entry["type"] == "volume")
        if section == "secrets":
            used.update(entry["source"] for entry in (service.get("build") or {}).get("secrets") or ())
    return used


def check_application(application: Application, asked: Sequence[str] = ()) -> None:
    """Raise ComposeError for what cannot be of the services that are active."""
    node = application.node
    services = node.value.get("services")
    if services is None or not services.value:
        raise ComposeError("empty compose file", hint="it needs a section services")
    active = set(active_services(application, asked))
    kept = services._replace(value={name: child for name, child in services.value.items() if name in active})
    check(node._replace(value={**node.value, "services": kept}), services.value)


def project_of(application: Application, asked: Sequence[str] = ()) -> Project:
    """The records of a project whose environment is resolved; *asked* are services that are active in any case."""
    check_application(application, asked)
    document = application.document
    services = all_of(service_of, document.get("services"))
    active = active_services(application, asked)
    return Project(
        application.name,
        application.directory,
        application.files,
        application.environment,
        {name: services[name] for name in active},
        {name: service for name, service in services.items() if name not in active},
        all_of(network_of, document.get("networks")),
        all_of(volume_of, document.get("volumes")),
        all_of(file_of, document.get("secrets")),
        all_of(file_of, document.get("configs")),
        application.environment_files,
    )
