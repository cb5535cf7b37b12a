"""From a service to the options of one of its containers: what compose says, in the words of run."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rootless.compose.records import Device, Healthcheck, Mount, Port, Project, Service, ServiceNetwork
from rootless.engine.compose_limits import enforced
from rootless.engine.options import ContainerOptions, DeviceOption, HealthOption, MountOption, NetworkOption
from rootless.engine.security_options import parse_security_options
from rootless.engine.userns import parse_userns
from rootless.errors import HostUnsupported, InvalidInput
from rootless.network.ports import Port as Published
from rootless.spec.signals import parse_signal

_SECOND = 1_000_000_000
_RESTARTS = {"": "no", "none": "no", "any": "always", "on-failure": "on-failure"}


class Names(NamedTuple):
    """How other things of the project are called here: services' containers, networks, volumes."""

    containers: Mapping[str, str]  # service -> the name or id of a container of it
    networks: Mapping[str, str]
    volumes: Mapping[str, str]


def container_options(
    project: Project,
    service: Service,
    names: Names,
    *,
    name: str,
    labels: Mapping[str, str],
    files: Sequence[MountOption] = (),
    aliases: bool = True,
    **changes: Any,
) -> ContainerOptions:
    """The options of a container of *service*. *files* are its secrets and configs; *changes* replace options.

    Raises InvalidInput, HostUnsupported.
    """
    restart, retries = restart_policy(service)
    limits = enforced(service)
    options: dict[str, Any] = {
        "command": service.command or (),
        "name": name,
        "entrypoint": service.entrypoint,
        "environment": tuple(f"{key}={value}" for key, value in service.environment.items() if value is not None),
        "labels": tuple(labels.items()),
        "annotations": tuple((key, value or "") for key, value in service.annotations.items()),
        "user": service.user or None,
        "groups": service.group_add,
        "working_directory": service.working_dir or None,
        "hostname": service.hostname,
        "domainname": service.domainname,
        "terminal": service.tty,
        "interactive": service.stdin_open,
        "detach": True,
        "init": bool(service.init),
        "platform": service.platform,
        "pull": "never",
        "restart": restart,
        "restart_retries": retries,
        "stop_signal": parse_signal(service.stop_signal) if service.stop_signal else None,
        "stop_timeout": grace_seconds(service),
        "networks": network_options(service, names, aliases=aliases),
        "ports": tuple(published(port) for port in service.ports),
        "expose": tuple(port if "/" in port else f"{port}/tcp" for port in expanded(service.expose)),
        "extra_hosts": tuple(_host(entry) for entry in service.extra_hosts),
        "dns": service.dns,
        "dns_search": service.dns_search,
        "dns_options": service.dns_opt,
        "pid": shared(service.pid, names),
        "ipc": shared(service.ipc, names),
        "uts": service.uts,
        "userns": parse_userns(service.userns_mode),
        "mounts": (*(mount_option(mount, names) for mount in service.volumes), *map(_tmpfs, service.tmpfs), *files),
        "volumes_from": tuple(_volumes_from(source, names) for source in service.volumes_from),
        "read_only": service.read_only,
        "devices": tuple(_device(device) for device in service.devices),
        "privileged": service.privileged,
        "cap_add": service.cap_add,
        "cap_drop": service.cap_drop,
        **parse_security_options(service.security_opt, "security_opt"),
        "sysctls": tuple((key, value or "") for key, value in service.sysctls.items()),
        "ulimits": tuple((key, soft, hard) for key, (soft, hard) in service.ulimits.items()),
        "oom_score": service.oom_score_adj,
        "limits": limits.limits,
        "cgroup_parent": limits.parent,
        "cgroupns": service.cgroup,
        "health": _health(service.healthcheck),
    }
    if service.shm_size is not None:
        options["shm_size"] = service.shm_size
    if service.logging is not None:
        options["log_driver"] = service.logging.driver or "json-file"
        options["log_options"] = tuple((key, value or "") for key, value in service.logging.options.items())
    return ContainerOptions(image_name(project, service), **{**options, **changes})


def image_name(project: Project, service: Service) -> str:
    """The image that a service's containers are made from; what is built without a name is called by the service."""
    return service.image or f"{project.name}-{service.name}"


def container_name(project: Project, service: Service, number: int) -> str:
    """What a container of a service is called."""
    return service.container_name or f"{project.name}-{service.name}-{number}"


def grace_seconds(service: Service) -> int | None:
    """How long a container has to end by itself; None for the default. Parts of a second are one."""
    grace = service.stop_grace_period
    return None if grace is None else -(-grace // _SECOND)


def restart_policy(service: Service) -> tuple[str, int]:
    """(policy, tries) of `restart`, or else of `deploy.restart_policy`."""
    if service.restart:
        name, _, count = service.restart.partition(":")
        return name, int(count or 0)
    policy = service.deploy.restart_policy
    if policy is None:
        return "no", 0
    condition = policy.condition or "any"
    if condition not in _RESTARTS:
        raise InvalidInput(f"services.{service.name}.deploy.restart_policy.condition: {condition!r} is not known")
    return _RESTARTS[condition], (policy.max_attempts or 0) if condition == "on-failure" else 0


def network_options(service: Service, names: Names, *, aliases: bool) -> tuple[NetworkOption, ...]:
    """The networks of a service's container, the one with the highest priority first; or its mode."""
    if service.network_mode:
        return (NetworkOption(shared(service.network_mode, names)),)
    links = tuple(_link(link, names) for link in service.links) + tuple(
        (name, alias or name) for name, _, alias in (link.partition(":") for link in service.external_links)
    )
    ordered = sorted(service.networks.items(), key=lambda entry: (-entry[1].priority, entry[0]))
    found = []
    for place, (key, network) in enumerate(ordered):
        mac = network.mac_address or (service.mac_address if place == 0 else "")
        found.append(_network(service, names.networks[key], network, mac, links, aliases))
    return tuple(found)


def _network(
    service: Service,
    name: str,
    network: ServiceNetwork,
    mac: str,
    links: tuple[tuple[str, str], ...],
    aliases: bool,
) -> NetworkOption:
    own = tuple(dict.fromkeys((service.name, *network.aliases))) if aliases else ()
    return NetworkOption(
        name, own, network.ipv4_address, network.ipv6_address, mac, links, gateway_priority=network.gw_priority
    )


def _link(link: str, names: Names) -> tuple[str, str]:
    service, _, alias = link.partition(":")
    return names.containers[service], alias or service


def shared(mode: str, names: Names) -> str:
    """A mode in which `service:NAME` stands for the container of a service."""
    kind, _, service = mode.partition(":")
    return f"container:{names.containers[service]}" if kind == "service" else mode


def _volumes_from(source: str, names: Names) -> str:
    if source.startswith("container:"):
        return source.removeprefix("container:")
    service, colon, mode = source.partition(":")
    return f"{names.containers[service]}{colon}{mode}"


def published(port: Port) -> Published:
    """A port to publish. A range is one of it that is free."""
    first, _, last = port.published.partition("-")
    return Published(port.target, port.protocol, port.host_ip, int(first or 0), int(last or 0))


def expanded(ports: Sequence[str]) -> list[str]:
    """Ports with ranges written out: "4000-4001/udp"."""
    found = []
    for port in ports:
        numbers, slash, protocol = port.partition("/")
        first, _, last = numbers.partition("-")
        found += [f"{number}{slash}{protocol}" for number in range(int(first), int(last or first) + 1)]
    return found


def mount_option(mount: Mount, names: Names) -> MountOption:
    """A mount of `volumes`. Raises HostUnsupported."""
    if mount.subpath or mount.type == "image":
        raise HostUnsupported(f"the mount at {mount.target}: subpaths and images are not there yet")
    if mount.type == "tmpfs":
        sizes = () if mount.size is None else (f"size={mount.size}",)
        modes = () if mount.mode is None else (f"mode={mount.mode:o}",)
        return MountOption("tmpfs", "", mount.target, mount.read_only, (*sizes, *modes))
    recursive = {"disabled": ("bind",), "readonly": ("rro",)}.get(mount.recursive, ())
    propagation = (mount.propagation,) if mount.propagation else ()
    return MountOption(
        mount.type,
        mount.source if mount.type == "bind" else names.volumes.get(mount.source, mount.source),
        mount.target,
        mount.read_only,
        (*propagation, *recursive),
        mount.nocopy,
        mount.type == "bind" and mount.create_host_path,
        tuple(mount.labels.items()),
    )


def _tmpfs(text: str) -> MountOption:
    path, _, options = text.partition(":")
    words = tuple(word for word in options.split(",") if word)
    return MountOption("tmpfs", "", path, "ro" in words, tuple(word for word in words if word not in ("ro", "rw")))


def _host(entry: str) -> tuple[str, str]:
    name, _, address = entry.partition("=")
    return name, address


def _device(device: Device) -> DeviceOption:
    return DeviceOption(device.source, device.target, device.permissions)


def _health(check: Healthcheck | None) -> HealthOption:
    """The check; of the form CMD, whose words a record is given later (health_test), the words as one string."""
    if check is None:
        return HealthOption()
    if check.disable or check.test[:1] == ("NONE",):
        return HealthOption(disabled=True)
    command = " ".join(check.test[1:]) or None
    return HealthOption(command, check.interval, check.timeout, check.start_period, check.start_interval, check.retries)


def health_test(service: Service) -> list[str] | None:
    """The words of a check that is executed without a shell; None where there is none."""
    check = service.healthcheck
    return list(check.test) if check is not None and check.test[:1] == ("CMD",) and not check.disable else None
