"""A project as typed records: what the engine makes containers, networks and volumes from.

Names are the keys of the Compose specification, in their canonical form: durations are nanoseconds, sizes bytes, modes
numbers, and paths absolute. None stands for what is not said.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Port(NamedTuple):
    """One of `ports`; published is "", a port or a range."""

    target: int
    published: str = ""
    host_ip: str = ""
    protocol: str = "tcp"
    mode: str = "ingress"
    name: str = ""
    app_protocol: str = ""


class Mount(NamedTuple):
    """One of `volumes`; source is a path, the key of a volume, an image, or "" for an anonymous volume and a tmpfs."""

    type: str
    target: str
    source: str = ""
    read_only: bool = False
    consistency: str = ""
    propagation: str = ""
    create_host_path: bool = True
    recursive: str = ""
    selinux: str = ""
    nocopy: bool = False
    subpath: str = ""
    labels: Mapping[str, str] = {}
    size: int | None = None
    mode: int | None = None


class FileReference(NamedTuple):
    """One of `secrets` or `configs` of a service, or of the secrets of a build."""

    source: str
    target: str = ""
    uid: str = ""
    gid: str = ""
    mode: int | None = None


class Device(NamedTuple):
    """One of `devices`."""

    source: str
    target: str
    permissions: str = "rwm"


class DeviceRequest(NamedTuple):
    """One of `gpus`, or of the devices that are reserved; quantity is the key `count`, -1 for all."""

    capabilities: tuple[str, ...] = ()
    driver: str = ""
    quantity: int | None = None
    device_ids: tuple[str, ...] = ()
    options: Mapping[str, str | None] = {}


class EnvFile(NamedTuple):
    """One of `env_file`."""

    path: str
    required: bool = True
    format: str = ""


class Dependency(NamedTuple):
    """What `depends_on` says of one service."""

    condition: str = "service_started"
    restart: bool = False
    required: bool = True


class Healthcheck(NamedTuple):
    """`healthcheck`; test begins with CMD, CMD-SHELL or NONE, and () is what the image says."""

    test: tuple[str, ...] = ()
    timeout: int | None = None
    interval: int | None = None
    retries: int | None = None
    start_period: int | None = None
    start_interval: int | None = None
    disable: bool = False


class ServiceNetwork(NamedTuple):
    """What a service is on one of its networks."""

    aliases: tuple[str, ...] = ()
    interface_name: str = ""
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: Mapping[str, str] = {}
    priority: int = 0
    gw_priority: int = 0


class Build(NamedTuple):
    """`build`; context is a directory or a URL."""

    context: str
    dockerfile: str = ""
    dockerfile_inline: str = ""
    args: Mapping[str, str | None] = {}
    ssh: Mapping[str, str | None] = {}
    labels: Mapping[str, str] = {}
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    additional_contexts: Mapping[str, str] = {}
    pull: bool = False
    extra_hosts: tuple[str, ...] = ()
    network: str = ""
    target: str = ""
    secrets: tuple[FileReference, ...] = ()
    shm_size: int | None = None
    tags: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    ulimits: Mapping[str, tuple[int, int]] = {}
    entitlements: tuple[str, ...] = ()
    isolation: str = ""
    privileged: bool = False
    provenance: str = ""
    sbom: str = ""


class Hook(NamedTuple):
    """One of `post_start`, `pre_stop`, `pre_start`, or what a watch executes."""

    command: tuple[str, ...]
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    environment: Mapping[str, str | None] = {}


class Watch(NamedTuple):
    """One of `develop.watch`."""

    path: str
    action: str
    target: str = ""
    exec: Hook | None = None
    include: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    initial_sync: bool = False


class Resources(NamedTuple):
    """Limits or reservations of `deploy.resources`; cpus as written."""

    cpus: str = ""
    memory: int | None = None
    pids: int | None = None
    devices: tuple[DeviceRequest, ...] = ()
    generic_resources: Any = None


class RestartPolicy(NamedTuple):
    """`deploy.restart_policy`."""

    condition: str = ""
    delay: int | None = None
    max_attempts: int | None = None
    window: int | None = None


class Deploy(NamedTuple):
    """`deploy`; what only an orchestrator could do is kept as it is."""

    mode: str = ""
    replicas: int | None = None
    labels: Mapping[str, str] = {}
    limits: Resources = Resources()
    reservations: Resources = Resources()
    restart_policy: RestartPolicy | None = None
    endpoint_mode: str = ""
    placement: Any = None
    update_config: Any = None
    rollback_config: Any = None


class Logging(NamedTuple):
    """`logging`."""

    driver: str = ""
    options: Mapping[str, str | None] = {}


class Provider(NamedTuple):
    """`provider`."""

    type: str
    options: Mapping[str, Any] = {}


class Service(NamedTuple):
    """A service. *document* is its canonical form as plain data, from which its hash is made."""

    name: str
    document: Mapping[str, Any]
    profiles: tuple[str, ...] = ()
    annotations: Mapping[str, str | None] = {}
    attach: bool = True
    build: Build | None = None
    watch: tuple[Watch, ...] = ()
    blkio_config: Any = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    cgroup_parent: str = ""
    cgroup: str = ""
    cpu_count: int | None = None
    cpu_percent: float | None = None
    cpu_period: int | str | None = None
    cpu_quota: int | None = None
    cpu_rt_period: str = ""
    cpu_rt_runtime: str = ""
    cpus: float | None = None
    cpuset: str = ""
    cpu_shares: int | None = None
    command: tuple[str, ...] | None = None
    configs: tuple[FileReference, ...] = ()
    container_name: str = ""
    credential_spec: Any = None
    depends_on: Mapping[str, Dependency] = {}
    deploy: Deploy = Deploy()
    device_cgroup_rules: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    dns: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    domainname: str = ""
    entrypoint: tuple[str, ...] | None = None
    provider: Provider | None = None
    environment: Mapping[str, str | None] = {}
    env_file: tuple[EnvFile, ...] = ()
    expose: tuple[str, ...] = ()
    external_links: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # "name=address"
    group_add: tuple[str, ...] = ()
    gpus: tuple[DeviceRequest, ...] = ()
    hostname: str = ""
    healthcheck: Healthcheck | None = None
    image: str = ""
    init: bool | None = None
    ipc: str = ""
    isolation: str = ""
    labels: Mapping[str, str] = {}
    label_file: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    logging: Logging | None = None
    mem_limit: int | None = None
    mem_reservation: int | None = None
    memswap_limit: int | None = None
    mem_swappiness: str = ""
    mac_address: str = ""
    models: Any = None
    network_mode: str = ""
    networks: Mapping[str, ServiceNetwork] = {}
    oom_kill_disable: bool = False
    oom_score_adj: int | None = None
    pid: str = ""
    pids_limit: int | None = None
    platform: str = ""
    ports: tuple[Port, ...] = ()
    privileged: bool = False
    pull_policy: str = ""
    pull_refresh_after: int | None = None
    read_only: bool = False
    restart: str = ""
    runtime: str = ""
    scale: int | None = None
    secrets: tuple[FileReference, ...] = ()
    security_opt: tuple[str, ...] = ()
    shm_size: int | None = None
    stdin_open: bool = False
    stop_grace_period: int | None = None
    stop_signal: str = ""
    storage_opt: Mapping[str, str] = {}
    sysctls: Mapping[str, str | None] = {}
    tmpfs: tuple[str, ...] = ()
    tty: bool = False
    ulimits: Mapping[str, tuple[int, int]] = {}  # soft, hard
    use_api_socket: bool = False
    user: str = ""
    userns_mode: str = ""
    uts: str = ""
    volumes: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    working_dir: str = ""
    pre_start: tuple[Hook, ...] = ()
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()

    @property
    def replicas(self) -> int:
        """How many containers the file asks for."""
        if self.scale is not None:
            return self.scale
        return 1 if self.deploy.replicas is None else self.deploy.replicas


class Pool(NamedTuple):
    """One of `ipam.config` of a network."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: Mapping[str, str] = {}


class Network(NamedTuple):
    """A network of the project, by its key in the file."""

    key: str
    name: str
    driver: str = ""
    driver_opts: Mapping[str, str] = {}
    ipam_driver: str = ""
    pools: tuple[Pool, ...] = ()
    external: bool = False
    internal: bool = False
    attachable: bool = False
    labels: Mapping[str, str] = {}
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None


class Volume(NamedTuple):
    """A volume of the project, by its key in the file."""

    key: str
    name: str
    driver: str = ""
    driver_opts: Mapping[str, str] = {}
    external: bool = False
    labels: Mapping[str, str] = {}


class FileObject(NamedTuple):
    """A secret or a config of the project, by its key in the file; one of file, environment and content is there."""

    key: str
    name: str
    file: str = ""
    environment: str = ""
    content: str | None = None
    external: bool = False
    labels: Mapping[str, str] = {}
    driver: str = ""
    template_driver: str = ""


class Project(NamedTuple):
    """A project: what its files add up to, for the profiles that are active."""

    name: str
    directory: str
    files: tuple[str, ...]
    environment: Mapping[str, str]
    services: Mapping[str, Service]
    disabled: Mapping[str, Service]  # those that no active profile has
    networks: Mapping[str, Network]
    volumes: Mapping[str, Volume]
    secrets: Mapping[str, FileObject]
    configs: Mapping[str, FileObject]
    environment_files: tuple[str, ...] = ()
