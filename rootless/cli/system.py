"""What is said of rootless itself and of the machine: info, version."""

from typing import Any

from rootless.cli import streams
from rootless.cli.command import NO_ARGUMENTS, Options, command, flag, text
from rootless.cli.formats import document_for
from rootless.cli.opening import engine_of
from rootless.cli.table import aligned
from rootless.cli.template import Template
from rootless.cli.values import bytes_size
from rootless.engine import info as machine


class FormatOptions(Options):
    """The options of info and version."""

    format: str = text("-f", "--format", help="Format output using a custom template: 'json', or a Go template")


class InfoOptions(FormatOptions):
    """What only info has."""

    security: bool = flag("--security", help="Show what protects the machine and the account, and what is missing")


@command(
    "info",
    "",
    InfoOptions,
    NO_ARGUMENTS,
    examples="""
        What an administrator could do for the isolation of containers:
            $ {path} --security
        How users are mapped into containers, for a script:
            $ {path} --format '{{.Rootless.UserNamespace.Rung}}'
    """,
)
def info(options: InfoOptions) -> None:
    """Display what this machine allows and what is used of it

    Warnings say what does not work as well as it could, and what an administrator would have to do.
    """
    if options.security:
        _write_security(options)
        return
    document = machine.info(engine_of(options), debug=options.settings.debug)
    if options.format:
        streams.write(_formatted(document, options.format))
        return
    streams.write("".join(f"{line}\n" for line in _info_lines(document)) + "\n")
    streams.flush()
    streams.write_error("".join(f"{line}\n" for line in document["Warnings"]))


def _write_security(options: InfoOptions) -> None:
    from rootless.engine import info_security  # who asks for it only

    found = info_security.findings(engine_of(options))
    if options.format:
        streams.write(_formatted(info_security.document(found), options.format))
        return
    for finding in found:
        streams.write(f"{'ok     ' if finding.holds else 'MISSING'} {finding.name}: {finding.value}\n")
        if finding.remedy:
            streams.write(f"          {finding.remedy}\n")


@command("version", "", FormatOptions, NO_ARGUMENTS)
def version(options: FormatOptions) -> None:
    """Show the version of rootless"""
    document = machine.version()
    streams.write(_formatted(document, options.format) if options.format else _version_text(document))


def _formatted(document: dict[str, Any], form: str) -> str:
    template = Template("{{json .}}" if form == "json" else form)
    return template.render(document_for(document, form)) + "\n"


def _version_text(document: dict[str, Any]) -> str:
    client, server = document["Client"], document["Server"]
    details = server["Components"][0]["Details"]
    oldest = details["MinAPIVersion"]
    return (
        aligned(
            [
                "Client:",
                f" Version:\t{client['Version']}",
                f" API version:\t{client['ApiVersion']}",
                f" Python version:\t{client['PythonVersion']}",
                f" OS/Arch:\t{client['Os']}/{client['Arch']}",
                f" Context:\t{client['Context']}",
            ]
        )
        + "\nServer: none, the engine is part of the command\n Engine:\n"
        + aligned(
            [
                f"  Version:\t{server['Version']}",
                f"  API version:\t{details['ApiVersion']} (minimum version {oldest})",
                f"  Kernel version:\t{details['KernelVersion']}",
            ]
        )
    )


def _info_lines(document: dict[str, Any]) -> list[str]:
    """Docker's lines in Docker's order, and between them those that only rootless has."""
    client, own = document["ClientInfo"], document["Rootless"]
    namespace = own["UserNamespace"]
    return [
        "Client:",
        f" Version:    {client['Version']}",
        f" Context:    {client['Context']}",
        f" Debug Mode: {_bool(client['Debug'])}",
        "",
        "Server:",
        f" Containers: {document['Containers']}",
        f"  Running: {document['ContainersRunning']}",
        f"  Paused: {document['ContainersPaused']}",
        f"  Stopped: {document['ContainersStopped']}",
        f" Images: {document['Images']}",
        f" Server Version: {document['ServerVersion']}",
        f" Storage Driver: {document['Driver']}",
        *(f"  {name}: {value}" for name, value in document["DriverStatus"]),
        f" Logging Driver: {document['LoggingDriver']}",
        f" Cgroup Driver: {document['CgroupDriver']}",
        f" Cgroup Version: {document['CgroupVersion']}",
        f"  Delegated Controllers: {' '.join(own['CgroupControllers']) or 'none'}",
        " Plugins:",
        f"  Volume: {' '.join(document['Plugins']['Volume'])}",
        f"  Network: {' '.join(document['Plugins']['Network'])}",
        f"  Log: {' '.join(document['Plugins']['Log'])}",
        f" Default Network: {own['DefaultNetwork']}",
        *_network_lines(own["Network"]),
        f" Swarm: {document['Swarm']['LocalNodeState']}",
        f" Runtimes: {' '.join(document['Runtimes'])}",
        f" Default Runtime: {document['DefaultRuntime']}",
        " Security Options:",
        *(line for option in document["SecurityOptions"] for line in _security_lines(option)),
        " User Namespace:",
        f"  Mapping: {namespace['Rung']}",
        f"  Ids: {namespace['Ids']}",
        f"  Subordinate Uids: {_ranges(own['SubordinateIds']['Uids'])}",
        f"  Subordinate Gids: {_ranges(own['SubordinateIds']['Gids'])}",
        f" Kernel Version: {document['KernelVersion']}",
        f" Operating System: {document['OperatingSystem']}",
        f" OSType: {document['OSType']}",
        f" Architecture: {document['Architecture']}",
        f" CPUs: {document['NCPU']}",
        f" Total Memory: {bytes_size(document['MemTotal'])}",
        f" Name: {document['Name']}",
        f" ID: {document['ID']}",
        f" Docker Root Dir: {document['DockerRootDir']}",
        f" Run Dir: {own['RunDirectory']}",
        f" Configuration: {own['Configuration']}",
        f" Debug Mode: {_bool(document['Debug'])}",
        f" Experimental: {_bool(document['ExperimentalBuild'])}",
        *_registry_lines(document["RegistryConfig"]),
        f" Live Restore Enabled: {_bool(document['LiveRestoreEnabled'])}",
    ]


def _network_lines(network: dict[str, Any]) -> list[str]:
    if network["Tcp"] == "none":
        return [f" Network: none but host and none ({network['Reason']})"]
    way = "kernel (tproxy)" if network["Tcp"] == "kernel" else f"user-space TCP ({network['Reason']})"
    return [
        f" Network: bridge via {way}",
        f"  IPv6: {_bool(network['IPv6'])}",
        f"  Ping: {'allowed' if network['Ping'] else 'not allowed'}",
        f"  Found Out: {'from slirp, process ' + str(network['Pid']) if network['Pid'] else 'by trying'}",
    ]


def _registry_lines(registries: dict[str, Any]) -> list[str]:
    hosts = registries["IndexConfigs"]
    insecure = [host for host, settings in hosts.items() if not settings["Secure"]]
    lines = [" Insecure Registries:", *(f"  {host}" for host in (*insecure, *registries["InsecureRegistryCIDRs"]))]
    mirrors = [f"  {host}: {' '.join(s['Mirrors'])}" for host, s in hosts.items() if s["Mirrors"]]
    return [*lines, " Registry Mirrors:", *mirrors] if mirrors else lines


def _security_lines(option: str) -> list[str]:
    """Docker's lines for "name=seccomp,profile=builtin": the name, and below it what else there is."""
    fields = [field.partition("=") for field in option.split(",")]
    return [f"  {value}" if key == "name" else f"   {key.capitalize()}: {value}" for key, _, value in fields]


def _ranges(ranges: list[list[int]]) -> str:
    return " ".join(f"{first}-{first + count - 1}" for first, count in ranges) or "none"


def _bool(value: bool) -> str:
    return str(value).lower()
