"""What a build is asked to be: the options of `build`, whoever parsed them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Secret(NamedTuple):
    """One --secret: a file of the user's, or a variable of his environment."""

    id: str
    path: str = ""
    variable: str = ""


class Ssh(NamedTuple):
    """One --ssh: the socket of an agent, or keys for one of the build's own."""

    id: str
    socket: str
    keys: tuple[str, ...] = ()


class Output(NamedTuple):
    """One --output: where the result goes."""

    type: str  # image, docker, oci, tar, local
    destination: str = ""  # "-" is standard output; "" the store
    attributes: Mapping[str, str] = {}


class CacheEntry(NamedTuple):
    """One --cache-from or --cache-to."""

    type: str  # local, registry, inline
    attributes: Mapping[str, str] = {}


class BuildOptions:
    """Options with Docker's names and defaults."""

    context: str = "."  # a directory, "-", a URL
    dockerfile: str = ""  # -f; "-" is standard input; "": Dockerfile in the context
    tags: Sequence[str] = ()
    build_args: Mapping[str, str] = {}
    contexts: Mapping[str, str] = {}  # --build-context NAME=VALUE
    target: str = ""
    platforms: Sequence[str] = ()  # none: this machine's
    pull: bool = False
    no_cache: bool = False
    no_cache_filter: Sequence[str] = ()
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}  # of manifests
    index_annotations: Mapping[str, str] = {}
    network: str = ""  # of RUN; "": the configuration's
    extra_hosts: Sequence[tuple[str, str]] = ()
    shm_size: int = 64 << 20
    ulimits: Sequence[tuple[str, int, int]] = ()
    limits: Any = None  # engine.limits.Limits, of each RUN
    cgroup_parent: str = ""
    secrets: Sequence[Secret] = ()
    ssh: Sequence[Ssh] = ()
    outputs: Sequence[Output] = ()
    attestations: Mapping[str, Mapping[str, str]] = {}  # provenance, sbom: and how
    squash: bool = False
    cache_from: Sequence[CacheEntry] = ()
    cache_to: Sequence[CacheEntry] = ()
    cache_mount_from: CacheEntry | None = None  # local, tar, registry
    cache_mount_to: CacheEntry | None = None
    allow: Sequence[str] = ()  # network.host, security.insecure
    check: bool = False
    debug_shell: bool = False  # --break
    epoch: int | None = None  # SOURCE_DATE_EPOCH, seconds
    pull_progress: Any = None  # makes the context of an engine.pull.Progress

    def __init__(self, **given: Any) -> None:
        """Raises AttributeError for an option that does not exist."""
        for name, value in given.items():
            getattr(BuildOptions, name)
            setattr(self, name, value)
