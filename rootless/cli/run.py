"""run and create: the table of their options, and what they ask of the engine."""

import json
import os
import sys
from typing import TYPE_CHECKING

from rootless.cli import streams
from rootless.cli.command import at_least, command, flag, number, parse_int, text, texts, value, values
from rootless.cli.limit_options import ContainerLimitOptions, limits_of
from rootless.cli.mount_values import Mount, parse_device, parse_mount, parse_tmpfs, parse_volume
from rootless.cli.network_values import merge_networks, parse_ipv4, parse_ipv6, parse_link, parse_mac, parse_network
from rootless.cli.opening import engine_of
from rootless.cli.time_values import parse_duration
from rootless.cli.values import (
    RestartPolicy,
    load_environment_file,
    load_label_file,
    merge_pairs,
    one_of,
    parse_add_host,
    parse_attach,
    parse_environment,
    parse_ip,
    parse_key_value,
    parse_label,
    parse_memory,
    parse_restart,
)
from rootless.engine.context import Engine
from rootless.engine.create import create as create_container
from rootless.engine.options import ContainerOptions, DeviceOption, HealthOption, MountOption, NetworkOption
from rootless.engine.run import run as run_container
from rootless.engine.security_options import parse_security_options
from rootless.engine.userns import parse_userns
from rootless.errors import HostUnsupported, InvalidInput
from rootless.network.egress import merge_egress, parse_egress
from rootless.network.ports import Port, parse_expose, parse_publish
from rootless.spec.signals import parse_signal

if TYPE_CHECKING:
    from rootless.cli.progress import Progress

_ULIMITS = (
    *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"),
    *("rttime", "sigpending", "stack"),
)


def parse_ulimit(text: str) -> tuple[str, int, int]:
    """(name, soft, hard) of "nofile=1024:2048"; one number is both, -1 is unlimited. Raises InvalidInput."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise InvalidInput(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise InvalidInput(f"invalid ulimit type: {name}")
    soft_text, _, hard_text = limits.partition(":")
    try:
        soft = int(soft_text)
        hard = int(hard_text) if hard_text else soft
    except ValueError:
        raise InvalidInput(f"invalid ulimit argument: {text}") from None
    if hard != -1 and (soft > hard or soft == -1):
        raise InvalidInput(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return name, soft, hard


class CreateOptions(ContainerLimitOptions):
    """What run and create have in common; the groups are those of Docker's reference."""

    # the process
    attach: list[str] = values("-a", "--attach", parse=parse_attach, help="Attach to STDIN, STDOUT or STDERR")
    cidfile: str = text("--cidfile", help="Write the container ID to the file", metavar="file")
    entrypoint: str = text("--entrypoint", help="Overwrite the default ENTRYPOINT of the image")
    environment: list[str] = values("-e", "--env", parse=parse_environment, help="Set environment variables")
    env_file: list[str] = texts("--env-file", help="Read in a file of environment variables", metavar="file")
    init: bool = flag("--init", help="Run an init inside the container that forwards signals and reaps processes")
    interactive: bool = flag("-i", "--interactive", help="Keep STDIN open even if not attached")
    name: str = text("--name", help="Assign a name to the container")
    restart: RestartPolicy = value(
        "--restart",
        parse=parse_restart,
        default=RestartPolicy("no", 0),
        metavar="policy",
        help="Restart policy to apply when a container exits (no, always, unless-stopped, on-failure[:max-retries])",
    )
    rm: bool = flag("--rm", help="Automatically remove the container and its anonymous volumes when it exits")
    stop_signal: int | None = value(
        "--stop-signal", parse=parse_signal, default=None, metavar="signal", help="Signal to stop the container"
    )
    stop_timeout: int = number("--stop-timeout", default=10, help="Timeout (in seconds) to stop a container")
    terminal: bool = flag("-t", "--tty", help="Allocate a pseudo-TTY")
    user: str = text("-u", "--user", help="Username or UID (format: <name|uid>[:<group|gid>])")
    group_add: list[str] = texts("--group-add", help="Add additional groups to join")
    workdir: str = text("-w", "--workdir", help="Working directory inside the container")
    runtime: str = text("--runtime", help="Accepted for scripts: the runtime is rootless's own", hidden=True)

    # the image
    pull: str = value(
        "--pull",
        parse=one_of("always", "missing", "never"),
        default="missing",
        metavar="policy",
        help='Pull image before creating ("always", "missing", "never")',
    )
    platform: str = text("--platform", help="Set platform if the image is for several (os/arch[/variant])")
    quiet: bool = flag("-q", "--quiet", help="Suppress the pull output")
    disable_content_trust: bool = flag("--disable-content-trust", help="Accepted for scripts", hidden=True)

    # what others know of it
    annotation: list[tuple[str, str]] = values("--annotation", parse=parse_key_value, help="Add an annotation")
    label: list[tuple[str, str]] = values("-l", "--label", parse=parse_label, help="Set meta data on a container")
    label_file: list[str] = texts("--label-file", help="Read in a line delimited file of labels", metavar="file")

    # files
    volume: list[Mount] = values("-v", "--volume", parse=parse_volume, help="Bind mount a volume")
    mount: list[Mount] = values("--mount", parse=parse_mount, help="Attach a filesystem mount to the container")
    tmpfs: list[Mount] = values("--tmpfs", parse=parse_tmpfs, help="Mount a tmpfs directory")
    volumes_from: list[str] = texts("--volumes-from", help="Mount volumes from the specified container(s)")
    read_only: bool = flag("--read-only", help="Mount the container's root filesystem as read only")
    shm_size: int = value("--shm-size", parse=parse_memory, default=64 << 20, metavar="bytes", help="Size of /dev/shm")
    storage_opt: list[tuple[str, str]] = values("--storage-opt", parse=parse_key_value, help="Storage driver options")

    # the network
    network: list[NetworkOption] = values(
        "--network",
        parse=parse_network,
        metavar="network",
        help='Connect a container to a network; or "none", "host", "container:NAME"',
        aliases=("--net",),
    )
    network_alias: list[str] = texts("--network-alias", help="Add network-scoped alias", aliases=("--net-alias",))
    publish: list[list[Port]] = values(
        "-p", "--publish", parse=parse_publish, metavar="list", help="Publish a container's port(s) to the host"
    )
    publish_all: bool = flag("-P", "--publish-all", help="Publish all exposed ports to random ports")
    expose: list[list[str]] = values(
        "--expose", parse=parse_expose, metavar="list", help="Expose a port or a range of ports"
    )
    egress: list[list[str]] = values(
        "--egress",
        parse=parse_egress,
        metavar="rule",
        help='Reach nothing but this: HOST[:PORT], CIDR[:PORT], "*.DOMAIN[:PORT]", "none"',
    )
    host_loopback: bool = flag("--host-loopback", help="Reach the host's loopback, as host.docker.internal")
    hostname: str = text("-h", "--hostname", help="Container host name")
    domainname: str = text("--domainname", help="Container NIS domain name")
    add_host: list[tuple[str, str]] = values(
        "--add-host", parse=parse_add_host, help="Add a host-to-IP mapping (host:ip)"
    )
    dns: list[str] = values("--dns", parse=parse_ip, help="Set custom DNS servers")
    dns_search: list[str] = texts("--dns-search", help="Set custom DNS search domains")
    dns_option: list[str] = texts("--dns-option", help="Set DNS options", aliases=("--dns-opt",))
    ip: str = value("--ip", parse=parse_ipv4, default="", metavar="ip", help="IPv4 address (e.g., 172.30.100.104)")
    ip6: str = value("--ip6", parse=parse_ipv6, default="", metavar="ip", help="IPv6 address (e.g., 2001:db8::33)")
    mac_address: str = value(
        "--mac-address", parse=parse_mac, default="", metavar="string", help="Container MAC address"
    )
    link: list[tuple[str, str]] = values(
        "--link", parse=parse_link, metavar="list", help="Add link to another container"
    )

    # limits; the rest of them in limit_options.py
    ulimit: list[tuple[str, int, int]] = values("--ulimit", parse=parse_ulimit, help="Ulimit options")

    # isolation
    privileged: bool = flag("--privileged", help="Give all capabilities and devices that the user has to give")
    cap_add: list[str] = texts("--cap-add", help="Add Linux capabilities")
    cap_drop: list[str] = texts("--cap-drop", help="Drop Linux capabilities")
    security_opt: list[str] = texts("--security-opt", help="Security Options")
    device: list[tuple[str, str, str]] = values(
        "--device", parse=parse_device, help="Add a host device to the container"
    )
    gpus: str = text("--gpus", help='GPU devices to add to the container ("all" to pass all GPUs)')
    pid: str = text("--pid", help="PID namespace to use")
    ipc: str = text("--ipc", help="IPC mode to use")
    uts: str = text("--uts", help="UTS namespace to use")
    userns: str = text("--userns", help='Ids of the container: "host", "keep-id[:uid=,gid=]", "nomap", "auto[:size=]"')
    sysctl: list[tuple[str, str]] = values("--sysctl", parse=parse_key_value, help="Sysctl options")

    # logs and health
    log_driver: str = text("--log-driver", help='Logging driver for the container ("json-file", "none")')
    log_opt: list[tuple[str, str]] = values("--log-opt", parse=parse_key_value, help="Log driver options")
    health_cmd: str = text("--health-cmd", help="Command to run to check health")
    health_interval: int | None = value(
        "--health-interval",
        parse=parse_duration,
        default=None,
        metavar="duration",
        help="Time between running the check",
    )
    health_timeout: int | None = value(
        "--health-timeout",
        parse=parse_duration,
        default=None,
        metavar="duration",
        help="Maximum time to allow one check",
    )
    health_start_period: int | None = value(
        "--health-start-period",
        parse=parse_duration,
        default=None,
        metavar="duration",
        help="Start period for the container to initialize before failures count",
    )
    health_start_interval: int | None = value(
        "--health-start-interval",
        parse=parse_duration,
        default=None,
        metavar="duration",
        help="Time between running the check during the start period",
    )
    health_retries: int | None = value(
        "--health-retries",
        parse=parse_int,
        default=None,
        metavar="int",
        help="Consecutive failures needed to report unhealthy",
    )
    no_healthcheck: bool = flag("--no-healthcheck", help="Disable any container-specified HEALTHCHECK")


class RunOptions(CreateOptions):
    """What only run has."""

    detach: bool = flag("-d", "--detach", help="Run container in background and print container ID")
    detach_keys: str = text("--detach-keys", help="Override the key sequence for detaching a container")
    dry_run: bool = flag("--dry-run", help="Print the OCI configuration of the container, and run nothing")
    sig_proxy: bool = flag("--sig-proxy", default=True, help="Proxy received signals to the process")


@command(
    "run",
    "IMAGE [COMMAND] [ARG...]",
    RunOptions,
    at_least(1),
    interspersed=False,
    failure=125,
    examples="""
        Look around in a fresh Debian, and leave nothing behind:
            $ {path} --rm -it debian
        This machine's own programs, copy-on-write, without any download:
            $ {path} --rm -it host bash
        A service in the background, with the current directory inside:
            $ {path} -d --name web -v "$PWD:/srv" -p 8000:8000 python:3 python -m http.server -d /srv
        Only what it needs of the network:
            $ {path} --rm --egress pypi.org:443 --egress files.pythonhosted.org:443 python:3 pip install six
    """,
)
def run(options: RunOptions) -> int:
    """Create and run a new container from an image"""
    asked = container_options(options, detach=options.detach)
    engine = engine_of(options)
    if options.dry_run:
        return _print_bundle(engine, asked)
    record, status = run_container(
        engine,
        asked,
        detach_keys=options.detach_keys,
        proxy_signals=options.sig_proxy,
        prepared=options.settings.prepared,
    )
    if options.detach:
        streams.write(f"{record['id']}\n")
    return status


def _print_bundle(engine: Engine, asked: ContainerOptions) -> int:
    from rootless.engine.dry_run import imagine  # only who looks needs it

    streams.write(json.dumps(imagine(engine, asked), indent=4) + "\n")
    return 0


@command(
    "create",
    "IMAGE [COMMAND] [ARG...]",
    CreateOptions,
    at_least(1),
    interspersed=False,
    examples="""
        Make a container now, start it later:
            $ {path} --name job debian make -C /src
            $ rootless start --attach job
    """,
)
def create(options: CreateOptions) -> None:
    """Create a new container"""
    record = create_container(engine_of(options), container_options(options, detach=False))
    streams.write(f"{record['id']}\n")


def container_options(options: CreateOptions, *, detach: bool) -> ContainerOptions:
    """What the command line asks for. Raises InvalidInput, and HostUnsupported for what comes with later features."""
    _refuse_what_is_not_there(options)
    environment = [line for path in options.env_file for line in load_environment_file(path)]
    labels = merge_pairs(*(load_label_file(path) for path in options.label_file), options.label)
    security = parse_security_options(options.security_opt, "--security-opt")
    image, *words = options.arguments
    return ContainerOptions(
        image,
        command=tuple(words),
        name=options.name,
        entrypoint=(() if options.entrypoint == "" else (options.entrypoint,))
        if options.changed("entrypoint")
        else None,
        environment=(*environment, *options.environment),
        labels=tuple(labels.items()),
        annotations=tuple(options.annotation),
        user=options.user if options.changed("user") else None,
        groups=tuple(options.group_add),
        working_directory=options.workdir or None,
        hostname=options.hostname,
        domainname=options.domainname,
        terminal=options.terminal,
        interactive=options.interactive,
        detach=detach,
        attach=tuple(options.attach),
        auto_remove=options.rm,
        init=options.init,
        platform=options.platform or os.environ.get("DOCKER_DEFAULT_PLATFORM", ""),
        pull=options.pull,
        progress=lambda: _progress(options.quiet),
        restart=options.restart.name,
        restart_retries=options.restart.retries,
        stop_signal=options.stop_signal,
        stop_timeout=options.stop_timeout if options.changed("stop_timeout") else None,
        networks=merge_networks(
            options.network,
            aliases=options.network_alias,
            links=options.link,
            ipv4=options.ip,
            ipv6=options.ip6,
            mac=options.mac_address,
        ),
        ports=tuple(port for ports in options.publish for port in ports),
        publish_all=options.publish_all,
        expose=tuple(port for ports in options.expose for port in ports),
        egress=merge_egress(options.egress),
        host_loopback=options.host_loopback,
        extra_hosts=tuple((host, address) for host, address in options.add_host),
        dns=tuple(options.dns),
        dns_search=tuple(options.dns_search),
        dns_options=tuple(options.dns_option),
        pid=options.pid,
        ipc=options.ipc,
        uts=options.uts,
        userns=parse_userns(options.userns),
        mounts=tuple(_mount(mount) for mount in (*options.volume, *options.mount, *options.tmpfs)),
        volumes_from=tuple(options.volumes_from),
        read_only=options.read_only,
        shm_size=options.shm_size,
        devices=tuple(DeviceOption(*device) for device in options.device),
        privileged=options.privileged,
        cap_add=tuple(options.cap_add),
        cap_drop=tuple(options.cap_drop),
        **security,
        sysctls=tuple(options.sysctl),
        ulimits=tuple(options.ulimit),
        limits=limits_of(options),
        cgroup_parent=options.cgroup_parent,
        cgroupns=options.cgroupns,
        oom_score=options.oom_score_adj if options.changed("oom_score_adj") else None,
        log_driver=options.log_driver or "json-file",
        log_options=tuple(options.log_opt),
        health=HealthOption(
            options.health_cmd or None,
            options.health_interval,
            options.health_timeout,
            options.health_start_period,
            options.health_start_interval,
            options.health_retries,
            options.no_healthcheck,
        ),
        cidfile=options.cidfile,
    )


def _progress(quiet: bool) -> "Progress":
    """Who shows a pull, on stderr: the program's output is the only thing on stdout."""
    from rootless.cli.progress import Progress  # most runs find their image

    return Progress(sys.stderr, quiet=quiet)


def _refuse_what_is_not_there(options: CreateOptions) -> None:
    """Nothing that is asked for is dropped silently."""
    if options.gpus:
        raise HostUnsupported("--gpus is not there yet", hint="give the device nodes: --device /dev/nvidia0 …")
    if options.storage_opt:
        raise HostUnsupported("--storage-opt is not there yet: quotas arrive with the fuse driver")


def _mount(mount: Mount) -> MountOption:
    """The engine's record of a mount. Raises HostUnsupported for what comes later."""
    for wanted, what in ((mount.type == "image", "type=image"), (mount.chown, "U"), (mount.subpath, "subpath")):
        if wanted:
            raise HostUnsupported(f"{what} of a mount is not there yet")
    if mount.driver not in ("", "local") or mount.driver_options:
        raise HostUnsupported(f"volume driver {mount.driver or 'options'} is not there: volumes are local directories")
    modes = {"disabled": ("bind",), "writable": (), "readonly": ("rro",)}.get(mount.recursive, ())
    propagation = (mount.propagation,) if mount.propagation else ()
    return MountOption(
        mount.type,
        mount.source,
        mount.target,
        mount.read_only,
        (*propagation, *modes, *mount.options),
        mount.no_copy,
        mount.create_source,
        mount.labels,
    )
