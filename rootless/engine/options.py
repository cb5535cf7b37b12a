"""What a container is asked to be: the options of run and create, whoever parsed them."""

from typing import TYPE_CHECKING, Any, NamedTuple

from rootless.network.ports import Port

if TYPE_CHECKING:
    from rootless.engine.limits import Limits


class MountOption(NamedTuple):
    """One -v, --mount or --tmpfs."""

    type: str  # bind, volume, tmpfs
    source: str  # a host path, a volume's name ("" for an anonymous one), "" for tmpfs
    destination: str
    read_only: bool = False
    options: tuple[str, ...] = ()  # of mount(8): propagation, exec, suid ...; size=, mode= of a tmpfs
    no_copy: bool = False  # leave a new volume empty
    create_source: bool = False  # -v makes the host's directory, --mount does not
    volume_labels: tuple[tuple[str, str], ...] = ()


class DeviceOption(NamedTuple):
    """One --device."""

    source: str
    destination: str
    permissions: str = "rwm"


class NetworkOption(NamedTuple):
    """One --network: the network or mode ("" for the default one), and what the container is to be on it."""

    name: str
    aliases: tuple[str, ...] = ()
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    links: tuple[tuple[str, str], ...] = ()  # container, alias
    gateway_priority: int = 0


class UserNamespace(NamedTuple):
    """--userns, where it asks for ids of the container's own; None is what is usual."""

    mode: str  # keep-id, nomap, auto
    uid: int | None = None
    gid: int | None = None
    size: int | None = None


class HealthOption(NamedTuple):
    """--health-*; None means what the image says. Durations are nanoseconds."""

    command: str | None = None
    interval: int | None = None
    timeout: int | None = None
    start_period: int | None = None
    start_interval: int | None = None
    retries: int | None = None
    disabled: bool = False


class ContainerOptions:
    """Options with Docker's names and defaults; None stands for what the image says, or for the default."""

    image: str
    command: tuple[str, ...] = ()
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    environment: tuple[str, ...] = ()  # "NAME=value"; "NAME" alone takes a variable of the image away
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    groups: tuple[str, ...] = ()
    working_directory: str | None = None
    hostname: str = ""
    domainname: str = ""
    terminal: bool = False
    interactive: bool = False
    detach: bool = False
    attach: tuple[str, ...] = ()  # stdin, stdout, stderr
    auto_remove: bool = False
    init: bool = False
    platform: str = ""
    pull: str = "missing"
    restart: str = "no"
    restart_retries: int = 0
    stop_signal: int | None = None
    stop_timeout: int | None = None
    networks: tuple[NetworkOption, ...] = ()  # the first is the container's mode; none: the configuration's
    ports: tuple[Port, ...] = ()
    publish_all: bool = False
    expose: tuple[str, ...] = ()  # "80/tcp"
    egress: list[str] | None = None  # what may be reached; None: everything
    host_loopback: bool = False
    extra_hosts: tuple[tuple[str, str], ...] = ()  # name, address
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    userns: UserNamespace | None = None
    mounts: tuple[MountOption, ...] = ()
    volumes_from: tuple[str, ...] = ()
    read_only: bool = False
    shm_size: int = 64 << 20
    devices: tuple[DeviceOption, ...] = ()
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool | None = None
    masked_paths: tuple[str, ...] = ()  # besides the usual ones
    unmasked_paths: tuple[str, ...] = ()  # of the usual ones, "/proc/*" among them; "ALL"
    proc_options: tuple[str, ...] = ()  # of the file system at /proc, proc(5)
    apparmor_profile: str = ""
    selinux_label: str = ""
    seccomp: str = ""  # "builtin", "unconfined", or a profile's text; "" for what is usual
    sysctls: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()  # name without RLIMIT_, soft, hard
    limits: "Limits | None" = None
    cgroup_parent: str = ""  # a path in the tree of control groups, or NAME.slice of the user's systemd
    cgroupns: str = ""  # host; "" and private are one's own
    oom_score: int | None = None
    log_driver: str = "json-file"
    log_options: tuple[tuple[str, str], ...] = ()
    health: HealthOption = HealthOption()
    cidfile: str = ""
    progress: Any = None  # makes the context of an engine.pull.Progress, for an image that has to be pulled first

    def __init__(self, image: str, **given: Any) -> None:
        """Raises AttributeError for an option that does not exist."""
        self.image = image
        for name, value in given.items():
            getattr(ContainerOptions, name)
            setattr(self, name, value)
