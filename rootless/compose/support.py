"""What is asked of a service that this machine does not give: refused, or told once and left out.

Refused is what a service may rely on without noticing that it is not there: isolation, credentials, devices. Left out,
with a warning, is what only bounds or tunes: a service without it does the same.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rootless.compose.records import Service

_ROOT_ONLY = "only root can attach a filter of devices to a control group; give the nodes: devices"
_VERSION_1 = "version 2 of control groups does not have it"
_WITHOUT: Mapping[str, str] = {
    **dict.fromkeys(("cpu_rt_period", "cpu_rt_runtime", "mem_swappiness", "oom_kill_disable"), _VERSION_1),
    **dict.fromkeys(("cpu_count", "cpu_percent"), "it is for Windows"),
    "device_cgroup_rules": _ROOT_ONLY,
}
_REFUSED: Mapping[str, str] = {
    "credential_spec": "credential specifications are for Windows",
    "models": "models are not there",
    "provider": "services of other providers are not there",
    "use_api_socket": "there is no daemon whose socket could be mounted",
    "storage_opt": "options of the storage driver are not there",
    "gpus": "give the device nodes: devices: [/dev/nvidia0]",
}


def refusals(service: Service) -> Iterator[tuple[str, str]]:
    """(key, why) of what a service asks for and cannot have."""
    for key, why in _REFUSED.items():
        if getattr(service, key):
            yield key, why
    if service.deploy.reservations.devices:
        yield "deploy.resources.reservations.devices", _REFUSED["gpus"]
    if service.isolation not in ("", "default"):
        yield "isolation", "it is for Windows"
    if service.cgroup not in ("", "private", "host"):
        yield "cgroup", "private and host are there"
    if service.pre_start:
        yield "pre_start", "hooks are there after the start and before the stop"
    for name, network in service.networks.items():
        for key in ("interface_name", "link_local_ips", "driver_opts"):
            if getattr(network, key):
                yield f"networks.{name}.{key}", "it is not there"
    for mount in service.volumes:
        if mount.type in ("cluster", "npipe"):
            yield f"volumes of type {mount.type}", "they do not exist here"
    for port in service.ports:
        if port.protocol == "sctp":
            yield "ports", "sctp cannot be published"


def notices(service: Service) -> Iterator[tuple[str, str]]:
    """(key, why) of what a service asks for and does without."""
    for key, why in _WITHOUT.items():
        value: Any = getattr(service, key)
        if value not in (None, "", (), False):
            yield key, why
    if service.deploy.mode == "global":
        yield "deploy.mode", "there is one machine"
