"""compose config: a project in its canonical form, or parts of it."""

import os
from collections.abc import Mapping
from typing import Any

from rootless.cli import streams
from rootless.cli.command import Options, at_least, command, flag, text, value
from rootless.cli.compose_options import group_of, project_options, warn
from rootless.cli.table import aligned
from rootless.cli.values import one_of
from rootless.compose.interpolate import Variable, source
from rootless.compose.project import Application, active_document, active_services, check_application, project_of
from rootless.compose.render import service_hash, to_json, to_yaml
from rootless.engine.compose_container import image_name
from rootless.engine.compose_project import open_application
from rootless.errors import HostUnsupported, InvalidInput
from rootless.linux import files


class ConfigOptions(Options):
    """The options of config."""

    environment: bool = flag("--environment", help="Print environment used for interpolation")
    format: str = value(
        "--format",
        parse=one_of("yaml", "json"),
        default="yaml",
        metavar="string",
        help="Format the output (yaml, json)",
    )
    hash: str = text("--hash", help='Print the service config hash, one per line; "*" for all services')
    images: bool = flag("--images", help="Print the image names, one per line")
    lock_image_digests: bool = flag("--lock-image-digests", help="Produces an override file with image digests")
    models: bool = flag("--models", help="Print the model names, one per line")
    networks: bool = flag("--networks", help="Print the network names, one per line")
    no_consistency: bool = flag("--no-consistency", help="Don't check model consistency")
    no_env_resolution: bool = flag("--no-env-resolution", help="Don't resolve service env files")
    no_interpolate: bool = flag("--no-interpolate", help="Don't interpolate environment variables")
    no_normalize: bool = flag("--no-normalize", help="Don't normalize compose model")
    no_path_resolution: bool = flag("--no-path-resolution", help="Don't resolve file paths")
    output: str = text("-o", "--output", help="Save to file (default to stdout)")
    profiles: bool = flag("--profiles", help="Print the profile names, one per line")
    quiet: bool = flag("-q", "--quiet", help="Only validate the configuration, don't print anything")
    resolve_image_digests: bool = flag("--resolve-image-digests", help="Pin image tags to digests")
    services: bool = flag("--services", help="Print the service names, one per line")
    variables: bool = flag("--variables", help="Print model variables and default values")
    volumes: bool = flag("--volumes", help="Print the volume names, one per line")


@command(
    "config",
    "[SERVICE...]",
    ConfigOptions,
    at_least(0),
    examples="""
        What all files and variables add up to:
            $ {path}
        Whether the files are right:
            $ {path} --quiet
        What can be set from outside:
            $ {path} --variables
    """,
)
def config(options: ConfigOptions) -> None:
    """Parse, resolve and render compose file in canonical format"""
    if options.resolve_image_digests or options.lock_image_digests:
        raise HostUnsupported("digests of images are not resolved yet", hint="rootless manifest inspect tells them")
    asked = project_options(options)._replace(
        interpolate=not (options.no_interpolate or options.variables),
        resolve_paths=not options.no_path_resolution,
        resolve_environment=not options.no_env_resolution,
        normalise=not options.no_normalize,
    )
    application = open_application(asked)
    if not options.no_consistency and not options.variables:
        check_application(application, options.arguments)
    warn(application)
    if not options.quiet:
        _write(options, _shown(options, application))


def _shown(options: ConfigOptions, application: Application) -> str:
    names = _names(options, application)
    if names is not None:
        return "".join(f"{name}\n" for name in names)
    if options.environment:
        return "".join(f"{name}={text}\n" for name, text in sorted(application.environment.items()))
    if options.variables:
        return _variables(application)
    document = (
        application.document if group_of(options).all_resources else active_document(application, options.arguments)
    )
    if options.arguments:
        wanted = _wanted(options, document["services"])
        kept = {name: service for name, service in document["services"].items() if name in wanted}
        document = {**document, "services": kept}
    render = to_json if options.format == "json" else to_yaml
    return render(document, raw=options.no_interpolate)


def _wanted(options: ConfigOptions, services: Mapping[str, Any]) -> set[str]:
    """The services asked for, with what they depend on."""
    found: set[str] = set()
    pending = list(options.arguments)
    while pending:
        name = pending.pop()
        if name in services and name not in found:
            found.add(name)
            pending += list(services[name].get("depends_on") or ())
    return found


def _names(options: ConfigOptions, application: Application) -> list[str] | None:
    """What is printed one per line; None where the whole is."""
    document = application.document
    services = document.get("services") or {}
    active = active_services(application, options.arguments)
    if options.services:
        return sorted(active)
    if options.volumes or options.networks:
        section = "volumes" if options.volumes else "networks"
        return sorted(active_document(application, options.arguments).get(section) or ())
    if options.profiles:
        return sorted({profile for service in services.values() for profile in service.get("profiles") or ()})
    if options.models:
        return []
    if options.images:
        project = project_of(application, options.arguments)
        return sorted({image_name(project, project.services[name]) for name in active})
    if options.hash:
        wanted = active if options.hash == "*" else options.hash.split(",")
        for name in wanted:
            if name not in services:
                raise InvalidInput(f"no such service: {name}")
        return [f"{name} {service_hash(services[name])}" for name in sorted(wanted)]
    return None


def _variables(application: Application) -> str:
    rows = ["NAME\tREQUIRED\tDEFAULT VALUE\tALTERNATE VALUE"]
    for name, variable in sorted(application.variables.items()):
        rows.append(
            f"{name}\t{str(variable.operator[-1:] == '?').lower()}\t{_word(variable, '-')}\t{_word(variable, '+')}"
        )
    return aligned(rows)


def _word(variable: Variable, operator: str) -> str:
    return source(variable.word) if variable.operator[-1:] == operator else ""


def _write(options: ConfigOptions, shown: str) -> None:
    if not options.output:
        streams.write(shown)
        return
    try:
        files.replace_file(os.path.abspath(options.output), shown.encode(), 0o644, durable=False)
    except OSError as error:
        raise InvalidInput(f"cannot write {options.output}: {error.strerror}") from error
