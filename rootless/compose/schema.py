"""The tables of the Compose specification: each section's keys, and the shape of each key's value.

The order of a table is the order in which `config` prints its keys. Keys that this machine cannot honour are in the
tables as well, so that a file is understood as a whole; `support.py` tells what comes of them.
"""

import re
import shlex
from typing import Any

from rootless.compose.mounts import mount
from rootless.compose.nodes import RESET, Node, join, wrong
from rootless.compose.ports import expose, port
from rootless.compose.shapes import (
    Context,
    Shape,
    anything,
    apply,
    dict_of,
    duration,
    file_path,
    first_of,
    flag,
    integer,
    labels,
    list_of,
    mode,
    number,
    one_of,
    optional,
    pairs,
    scalar,
    size,
    strings,
    table,
    text,
)

NAME = re.compile(r"[a-zA-Z0-9._-]+")
CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")
_PULL_POLICY = re.compile(r"always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+")
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|git@|github\.com/")


def _name_problem(key: str) -> str:
    return "" if NAME.fullmatch(key) else "a name has letters, digits and ._- only"


def _words(context: Context, node: Node, path: str) -> Node:
    """A command: a list, or a string that is split as a shell does."""
    if not node.is_text:
        return list_of(scalar)(context, node, path)
    try:
        return node._replace(value=[node._replace(value=word, tag="") for word in shlex.split(node.value)])
    except ValueError as error:
        raise wrong(node, path, f"cannot be split into words: {str(error).lower()}") from error


_command: Shape = optional(_words)


def _health_test(context: Context, node: Node, path: str) -> Node:
    if node.is_text:
        return node._replace(value=[node._replace(value=word, tag="") for word in ("CMD-SHELL", node.value)])
    found = list_of(text)(context, node, path)
    if found.value and found.value[0].value not in ("NONE", "CMD", "CMD-SHELL"):
        raise wrong(node, path, f"must begin with NONE, CMD or CMD-SHELL, and begins with {found.value[0].value!r}")
    return found


def _depends_on(context: Context, node: Node, path: str) -> Node:
    if isinstance(node.value, list):
        names = [text(context, item, f"{path}[{place}]") for place, item in enumerate(node.value) if item.tag != RESET]
        explicit = {"condition": CONDITIONS[0], "required": True}
        entries = {key: node._replace(value=value, tag="") for key, value in explicit.items()}
        node = node._replace(value={item.value: item._replace(value=entries) for item in names})
    return dict_of(_dependency, _name_problem)(context, node, path)


_dependency: Shape = table(
    {"condition": one_of(*CONDITIONS), "restart": flag, "required": flag},
    defaults={"condition": CONDITIONS[0], "required": True},
)


def _named(shape: Shape) -> Shape:
    """A list of names, or a mapping from names to *shape* or null: a mapping."""

    def whole(context: Context, node: Node, path: str) -> Node:
        if isinstance(node.value, list):
            names = [text(context, item, f"{path}[{place}]") for place, item in enumerate(node.value)]
            node = node._replace(value={item.value: item._replace(value=None) for item in names})
        return dict_of(optional(shape), _name_problem)(context, node, path)

    return whole


def _extra_hosts(context: Context, node: Node, path: str) -> Node:
    """A list of "name=address"."""
    found: list[Node] = []
    if isinstance(node.value, dict):
        for name, child in node.value.items():
            found += [
                item._replace(value=f"{name}={item.value}", tag="")
                for item in strings(context, child, join(path, name)).value
            ]
        return node._replace(value=found)
    for place, item in enumerate(list_of(text)(context, node, path).value):
        name, equals, address = item.value.partition("=")
        if not equals:
            name, equals, address = item.value.partition(":")
        if not (name and equals and address):
            raise wrong(item, f"{path}[{place}]", f"{item.value!r} is no NAME=ADDRESS")
        found.append(item._replace(value=f"{name}={address.removeprefix('[').removesuffix(']')}"))
    return node._replace(value=found)


def _file_reference(directory: str) -> Shape:
    """A secret or config of a service; *directory* is where it is without a target, "" for none to be filled in."""
    long = table({"source": text, "target": text, "uid": scalar, "gid": scalar, "mode": mode}, required=("source",))

    def shape(context: Context, node: Node, path: str) -> Node:
        if node.is_text:
            node = node._replace(value={"source": node})
        found = long(context, node, path)
        if directory and "target" not in found.value:
            target = node._replace(value=f"{directory}/{found.value['source'].value}", tag="")
            found = long(context, found._replace(value={**found.value, "target": target}), path)
        return found

    return shape


def _device(context: Context, node: Node, path: str) -> Node:
    if node.is_text:
        parts = node.value.split(":")
        if not parts[0] or len(parts) > 3:
            raise wrong(node, path, f"invalid device {node.value!r}: SOURCE[:TARGET[:PERMISSIONS]]")
        source, target, permissions = (*parts, *("", "")[len(parts) - 1 :])[:3]
        entries = {"source": source, "target": target or source, "permissions": permissions or "rwm"}
        node = node._replace(value={key: node._replace(value=value, tag="") for key, value in entries.items()})
    found = _long_device(context, node, path)
    if "target" not in found.value:
        return _long_device(context, found._replace(value={**found.value, "target": found.value["source"]}), path)
    return found


_long_device: Shape = table(
    {"source": text, "target": text, "permissions": text}, required=("source",), defaults={"permissions": "rwm"}
)


def _env_files(context: Context, node: Node, path: str) -> Node:
    items = node.value if isinstance(node.value, list) else [node._replace(tag="")]
    return node._replace(
        value=[apply(_env_file, context, item, f"{path}[{place}]") for place, item in enumerate(items)]
    )


def _env_file(context: Context, node: Node, path: str) -> Node:
    if node.is_text:
        node = node._replace(value={"path": node})
    return _long_env_file(context, node, path)


_long_env_file: Shape = table(
    {"path": file_path, "required": flag, "format": text}, required=("path",), defaults={"required": True}
)


def _ulimit(context: Context, node: Node, path: str) -> Node:
    if isinstance(node.value, dict):
        return table({"soft": integer, "hard": integer}, required=("soft", "hard"))(context, node, path)
    return integer(context, node, path)


_count = first_of("a number or all", int=integer, str=lambda c, n, p: n if n.value == "all" else integer(c, n, p))
_device_request = table(
    {
        "capabilities": list_of(text),
        "driver": text,
        "count": _count,
        "device_ids": list_of(text),
        "options": pairs,
    }
)


def _gpus(context: Context, node: Node, path: str) -> Node:
    if node.is_text:
        if node.value != "all":
            raise wrong(node, path, f"must be all, or a list, and is {node.value!r}")
        node = node._replace(value=[node._replace(value={"count": node._replace(value=-1, tag="")}, tag="")])
    return list_of(_device_request)(context, node, path)


def _context_path(context: Context, node: Node, path: str) -> Node:
    """A build context: a directory, a URL, or the name of something else."""
    found = text(context, node, path)
    is_elsewhere = _REMOTE.match(found.value) or found.value.partition(":")[0] in (
        "service",
        "docker-image",
        "oci-layout",
    )
    return found if is_elsewhere else found._replace(value=context.resolve(found.value))


def _contexts(context: Context, node: Node, path: str) -> Node:
    found = pairs(context, node, path)
    value = {name: _context_path(context, child, join(path, name)) for name, child in found.value.items()}
    return found._replace(value=value)


_ssh = first_of("a mapping or a list", dict=pairs, list=pairs, str=lambda c, n, p: pairs(c, n._replace(value=[n]), p))

BUILD_SHAPES: dict[str, Shape] = {
    "context": _context_path,
    "dockerfile": text,
    "dockerfile_inline": text,
    "entitlements": list_of(text),
    "args": pairs,
    "provenance": scalar,
    "sbom": scalar,
    "ssh": _ssh,
    "labels": labels,
    "cache_from": list_of(text),
    "cache_to": list_of(text),
    "no_cache": flag,
    "no_cache_filter": strings,
    "additional_contexts": _contexts,
    "pull": flag,
    "extra_hosts": _extra_hosts,
    "isolation": text,
    "network": text,
    "target": text,
    "secrets": list_of(_file_reference("")),
    "shm_size": size,
    "tags": list_of(text),
    "ulimits": dict_of(_ulimit),
    "platforms": list_of(text),
    "privileged": flag,
}
_long_build: Shape = table(BUILD_SHAPES)


def _build(context: Context, node: Node, path: str) -> Node:
    if node.is_text:
        node = node._replace(value={"context": node._replace(tag="")})
    return _long_build(context, node, path)


HOOK: Shape = table(
    {"command": _words, "user": text, "privileged": flag, "working_dir": text, "environment": pairs},
    required=("command",),
)

_watch = table(
    {
        "path": file_path,
        "action": one_of("rebuild", "sync", "restart", "sync+restart", "sync+exec"),
        "target": text,
        "exec": HOOK,
        "include": strings,
        "ignore": strings,
        "initial_sync": flag,
    },
    required=("path", "action"),
)

_resource = {"cpus": scalar, "memory": size, "pids": integer}
_update = optional(
    table(
        {
            "parallelism": integer,
            "delay": duration,
            "failure_action": text,
            "monitor": duration,
            "max_failure_ratio": number,
            "order": one_of("start-first", "stop-first"),
        }
    )
)

_deploy = table(
    {
        "mode": text,
        "replicas": integer,
        "labels": labels,
        "update_config": _update,
        "rollback_config": _update,
        "resources": table(
            {
                "limits": table(_resource),
                "reservations": table(
                    {**_resource, "generic_resources": anything, "devices": list_of(_device_request)}
                ),
            }
        ),
        "restart_policy": table({"condition": text, "delay": duration, "max_attempts": integer, "window": duration}),
        "placement": anything,
        "endpoint_mode": text,
    }
)

_healthcheck = table(
    {
        "test": _health_test,
        "timeout": duration,
        "interval": duration,
        "retries": integer,
        "start_period": duration,
        "start_interval": duration,
        "disable": flag,
    }
)

_service_network = table(
    {
        "aliases": list_of(text),
        "interface_name": text,
        "ipv4_address": text,
        "ipv6_address": text,
        "link_local_ips": list_of(text),
        "mac_address": text,
        "driver_opts": dict_of(scalar),
        "priority": integer,
        "gw_priority": integer,
    }
)


def _restart(context: Context, node: Node, path: str) -> Node:
    if node.value is False:
        node = node._replace(value="no")  # `restart: no` in YAML's old words
    name, colon, count = text(context, node, path).value.partition(":")
    known = name in ("no", "always", "on-failure", "unless-stopped", "")
    if not known or (colon and not (name == "on-failure" and count.isascii() and count.isdigit())):
        hint = "there are: no, always, unless-stopped, on-failure[:N]"
        raise wrong(node, path, f"invalid restart policy {node.value!r}", hint=hint)
    return node


def _pull_policy(context: Context, node: Node, path: str) -> Node:
    if _PULL_POLICY.fullmatch(text(context, node, path).value):
        return node
    hint = "there are: always, never, missing, build, daily, weekly, every_DURATION"
    raise wrong(node, path, f"invalid pull policy {node.value!r}", hint=hint)


_tmpfs = strings
_ports = list_of(anything, spread=port)
_files = {"secrets": list_of(_file_reference("/run/secrets")), "configs": list_of(_file_reference(""))}

SERVICE_SHAPES: dict[str, Shape] = {
    "profiles": list_of(text),
    "annotations": pairs,
    "attach": flag,
    "build": _build,
    "develop": table({"watch": list_of(_watch)}),
    "blkio_config": anything,
    "cap_add": list_of(text),
    "cap_drop": list_of(text),
    "cgroup_parent": text,
    "cgroup": one_of("host", "private"),
    "cpu_count": integer,
    "cpu_percent": number,
    "cpu_period": first_of("a number or a duration", int=integer, str=anything),
    "cpu_quota": integer,
    "cpu_rt_period": scalar,
    "cpu_rt_runtime": scalar,
    "cpus": number,
    "cpuset": text,
    "cpu_shares": integer,
    "command": _command,
    "configs": _files["configs"],
    "container_name": text,
    "credential_spec": anything,
    "depends_on": _depends_on,
    "deploy": _deploy,
    "device_cgroup_rules": list_of(text),
    "devices": list_of(_device),
    "dns": strings,
    "dns_opt": list_of(text),
    "dns_search": strings,
    "domainname": text,
    "entrypoint": _command,
    "provider": table({"type": text, "options": dict_of(anything)}, required=("type",)),
    "environment": pairs,
    "env_file": _env_files,
    "expose": list_of(expose),
    "extends": anything,
    "external_links": list_of(text),
    "extra_hosts": _extra_hosts,
    "group_add": list_of(scalar),
    "gpus": _gpus,
    "hostname": text,
    "healthcheck": _healthcheck,
    "image": text,
    "init": flag,
    "ipc": text,
    "isolation": text,
    "labels": labels,
    "label_file": lambda c, n, p: list_of(file_path)(c, strings(c, n, p), p),
    "links": list_of(text),
    "logging": table({"driver": text, "options": dict_of(optional(scalar))}),
    "mem_limit": size,
    "mem_reservation": size,
    "memswap_limit": size,
    "mem_swappiness": scalar,
    "mac_address": text,
    "models": anything,
    "network_mode": text,
    "networks": _named(_service_network),
    "oom_kill_disable": flag,
    "oom_score_adj": integer,
    "pid": text,
    "pids_limit": integer,
    "platform": text,
    "ports": _ports,
    "privileged": flag,
    "pull_policy": _pull_policy,
    "pull_refresh_after": duration,
    "read_only": flag,
    "restart": _restart,
    "runtime": text,
    "scale": integer,
    "secrets": _files["secrets"],
    "security_opt": list_of(text),
    "shm_size": size,
    "stdin_open": flag,
    "stop_grace_period": duration,
    "stop_signal": text,
    "storage_opt": dict_of(scalar),
    "sysctls": pairs,
    "tmpfs": _tmpfs,
    "tty": flag,
    "ulimits": dict_of(_ulimit),
    "use_api_socket": flag,
    "user": text,
    "userns_mode": text,
    "uts": text,
    "volumes": list_of(mount),
    "volumes_from": list_of(text),
    "working_dir": text,
    "pre_start": list_of(HOOK),
    "post_start": list_of(HOOK),
    "pre_stop": list_of(HOOK),
}

SERVICE: Shape = table(SERVICE_SHAPES)


def _external(shapes: dict[str, Any]) -> Shape:
    """A table of something that may be external; `external: {name: x}`, the old form, is a name."""
    long = table(shapes)

    def shape(context: Context, node: Node, path: str) -> Node:
        if node.value is None:
            node = node._replace(value={})
        external = node.value.get("external") if isinstance(node.value, dict) else None
        if external is not None and isinstance(external.value, dict):
            name = external.value.get("name")
            entries = {**node.value, "external": external._replace(value=True)}
            node = node._replace(value={**entries, "name": name} if name else entries)
        return long(context, node, path)

    return shape


_ipam_pool = table({"subnet": text, "gateway": text, "ip_range": text, "aux_addresses": dict_of(text)})

NETWORK: Shape = _external(
    {
        "name": text,
        "driver": text,
        "driver_opts": dict_of(scalar),
        "ipam": table({"driver": text, "config": list_of(_ipam_pool), "options": dict_of(scalar)}),
        "external": flag,
        "internal": flag,
        "attachable": flag,
        "labels": labels,
        "enable_ipv4": flag,
        "enable_ipv6": flag,
    }
)

VOLUME: Shape = _external(
    {"name": text, "driver": text, "driver_opts": dict_of(scalar), "external": flag, "labels": labels}
)

_FILE: dict[str, Shape] = {
    "name": text,
    "file": file_path,
    "environment": text,
    "content": text,
    "external": flag,
    "labels": labels,
    "driver": text,
    "driver_opts": dict_of(scalar),
    "template_driver": text,
}

SECRET: Shape = _external({key: shape for key, shape in _FILE.items() if key != "content"})
CONFIG: Shape = _external({key: shape for key, shape in _FILE.items() if key not in ("driver", "driver_opts")})

INCLUDE: Shape = table({"path": strings, "project_directory": text, "env_file": strings})
EXTENDS: Shape = table({"service": text, "file": text}, required=("service",))

DOCUMENT: Shape = table(
    {
        "version": scalar,
        "name": text,
        "include": list_of(anything),
        "services": dict_of(SERVICE, _name_problem),
        "networks": dict_of(NETWORK, _name_problem),
        "volumes": dict_of(VOLUME, _name_problem),
        "secrets": dict_of(SECRET, _name_problem),
        "configs": dict_of(CONFIG, _name_problem),
        "models": anything,
    }
)
