"""inspect: a container as the document that `docker inspect` prints (Engine API: ContainerInspectResponse)."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from rootless.engine import bundle, control_group, seccomp, userns
from rootless.engine.attachment import network_state
from rootless.engine.context import Engine
from rootless.engine.network_inspect import endpoint_id
from rootless.errors import NotFound
from rootless.network.ports import port_map
from rootless.spec.signals import signal_name
from rootless.store.containers import LIVE, Record
from rootless.store.networks import BRIDGE, HOST, NONE

# Of an endpoint: what slirp has answered, and what stands there as long as the container does not run.
_ANSWERED = {
    "MacAddress": "mac",
    "Gateway": "gateway4",
    "IPAddress": "ipv4",
    "IPPrefixLen": "prefix4",
    "IPv6Gateway": "gateway6",
    "GlobalIPv6Address": "ipv6",
    "GlobalIPv6PrefixLen": "prefix6",
}
_NO_ADDRESS: dict[str, Any] = {
    "EndpointID": "",
    "MacAddress": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
}
_ZERO_TIME = "0001-01-01T00:00:00Z"  # what Go's JSON has for a time that was never set


def inspect_container(engine: Engine, container_id: str) -> dict[str, Any]:
    """The document of one container. Raises NotFound."""
    record = engine.containers.load(container_id)
    state = engine.containers.state(container_id)
    directory = engine.containers.directory(container_id)
    arguments = [*record["entrypoint"], *record["command"]]
    return {
        "Id": record["id"],
        "Created": record["created"],
        "Path": arguments[0],
        "Args": arguments[1:],
        "State": _state(state),
        "Image": record["image_id"],
        "ResolvConfPath": os.path.join(directory, "resolv.conf"),
        "HostnamePath": os.path.join(directory, "hostname"),
        "HostsPath": os.path.join(directory, "hosts"),
        "LogPath": os.path.join(directory, "container.log") if record["log"]["driver"] != "none" else "",
        "Name": f"/{record['name']}",
        "RestartCount": state["restart_count"],
        "Driver": engine.storage_driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": record.get("selinux_label") or "",
        "AppArmorProfile": record.get("apparmor_profile") or "",
        "ExecIDs": None,
        "HostConfig": _host_config(engine, record),
        "GraphDriver": {"Name": engine.storage_driver, "Data": _graph_data(engine, record, directory)},
        "Mounts": [_mount(mount) for mount in record["mounts"] if mount["type"] != "tmpfs"],
        "Config": _config(record),
        "NetworkSettings": _network_settings(record, state),
        "Security": _security(record),
    }


def _state(state: Record) -> dict[str, Any]:
    status = state["status"]
    document: dict[str, Any] = {
        "Status": status,
        "Running": status in LIVE,
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": state.get("oom_killed", False),
        "Dead": status == "dead",
        "Pid": state["pid"] if status in LIVE else 0,
        "ExitCode": state["exit_code"],
        "Error": state["error"],
        "StartedAt": state["started_at"] or _ZERO_TIME,
        "FinishedAt": state["finished_at"] or _ZERO_TIME,
    }
    if state["health"]:
        document["Health"] = state["health"]
    return document


def _host_config(engine: Engine, record: Record) -> dict[str, Any]:
    restart = record["restart"]
    return {
        "Binds": [_bind_text(m) for m in record["mounts"] if m["type"] in ("bind", "volume") and not m["anonymous"]]
        or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": record["log"]["driver"], "Config": record["log"]["options"]},
        "NetworkMode": record["network"],
        "PortBindings": port_map(record["ports"]),
        "RestartPolicy": {"Name": restart["name"], "MaximumRetryCount": restart["maximum_retry_count"]},
        "AutoRemove": record["auto_remove"],
        "VolumesFrom": None,
        "CapAdd": record["cap_add"] or None,
        "CapDrop": record["cap_drop"] or None,
        "CgroupnsMode": record.get("cgroupns") or "private",
        **control_group.host_config(record),
        "Dns": record["dns"],
        "DnsOptions": record["dns_options"],
        "DnsSearch": record["dns_search"],
        "ExtraHosts": [f"{name}:{address}" for name, address in record["extra_hosts"]] or None,
        "GroupAdd": record["groups"] or None,
        "IpcMode": record["ipc"] or "private",
        "Links": _links(engine, record) or None,
        "OomScoreAdj": record["oom_score"] or 0,
        "PidMode": record["pid"],
        "Privileged": record["privileged"],
        "PublishAllPorts": record["publish_all"],
        "ReadonlyRootfs": record["read_only"],
        "SecurityOpt": _security_options(record) or None,
        "MaskedPaths": bundle.masked_paths(record),
        "ReadonlyPaths": bundle.readonly_paths(record),
        "Tmpfs": {m["destination"]: ",".join(m["options"]) for m in record["mounts"] if m["type"] == "tmpfs"},
        "UTSMode": record["uts"],
        "UsernsMode": userns.mode(record),
        "ShmSize": record["shm_size"],
        "Sysctls": record["sysctls"],
        "Runtime": "rootless-oci",
        "Devices": [
            {"PathOnHost": source, "PathInContainer": destination, "CgroupPermissions": permissions}
            for source, destination, permissions in record["devices"]
        ],
        "Ulimits": [{"Name": name, "Hard": hard, "Soft": soft} for name, soft, hard in record["ulimits"]],
        "Init": record["init"],
        # Ours.
        "Egress": record["egress"],
        "HostLoopback": record["host_loopback"],
    }


def _links(engine: Engine, record: Record) -> list[str]:
    """As Docker has them: "/database:/web/db"."""
    found = []
    for container_id, alias in record["links"]:
        with suppress(NotFound):  # it has been removed
            found.append(f"/{engine.containers.load(container_id)['name']}:/{record['name']}/{alias}")
    return found


def _security_options(record: Record) -> list[str]:
    options = ["no-new-privileges"] if record["no_new_privileges"] else []
    if filtered := record.get("seccomp"):
        options.append(f"seccomp={filtered}")
    unmasked = record.get("unmasked_paths") or (["ALL"] if record.get("unmasked") else [])
    for name, paths in (("mask", record.get("masked_paths")), ("unmask", unmasked)):
        if paths:
            options.append("systempaths=unconfined" if paths == ["ALL"] else f"{name}={':'.join(paths)}")
    for name in ("apparmor_profile", "selinux_label"):
        if label := record.get(name):
            options.append(f"{'apparmor' if name == 'apparmor_profile' else 'label'}={label}")
    return options


def _security(record: Record) -> dict[str, Any]:
    """What holds for the container's processes. Ours."""
    modes = {kind: record[kind] for kind in ("pid", "ipc", "uts", "network")}
    shared = {kind: mode for kind, mode in modes.items() if mode.partition(":")[0] in ("host", "container")}
    return {
        "Capabilities": bundle.granted(record),  # at most: only root has them
        "NoNewPrivileges": record["no_new_privileges"],
        "Seccomp": seccomp.profile_name(record),
        "AppArmorProfile": record.get("apparmor_profile") or "",
        "SELinuxLabel": record.get("selinux_label") or "",
        "MaskedPaths": bool(bundle.masked_paths(record)),
        "ReadonlyPaths": bool(bundle.readonly_paths(record)),
        "UserNamespace": userns.mode(record) or "the user's",
        **userns.maps(record),
        "SharedNamespaces": shared,
        "WritableRoot": not record["read_only"],
        "WritableHostPaths": [m["source"] for m in record["mounts"] if m["type"] == "bind" and not m["read_only"]],
        "Devices": [device[0] for device in record["devices"]],
        "Privileged": record["privileged"],
    }


def _bind_text(mount: Record) -> str:
    options = [*mount["options"], *(["ro"] if mount["read_only"] else [])]
    source = mount["name"] or mount["source"]
    return ":".join([source, mount["destination"], *([",".join(options)] if options else [])])


def _graph_data(engine: Engine, record: Record, directory: str) -> dict[str, str]:
    if not record["image_id"]:
        return {}
    return {
        "LowerDir": ":".join(engine.layers.diff(chain_id) for chain_id in reversed(record["layers"])),
        "UpperDir": os.path.join(directory, "upper"),
        "WorkDir": os.path.join(directory, "work"),
        "MergedDir": os.path.join(directory, "rootfs"),
    }


def _mount(mount: Record) -> dict[str, Any]:
    document = {
        "Type": mount["type"],
        "Source": mount["source"],
        "Destination": mount["destination"],
        "Mode": ",".join(mount["options"]),
        "RW": not mount["read_only"],
        "Propagation": next(
            (o for o in mount["options"] if o.lstrip("r") in ("shared", "slave", "private")), "rprivate"
        ),
    }
    if mount["type"] == "volume":
        return {"Type": "volume", "Name": mount["name"], **document, "Driver": "local", "Propagation": ""}
    return document


def _config(record: Record) -> dict[str, Any]:
    attached = [] if not record["attach"] else record["attach"]
    health = record["health"]
    document: dict[str, Any] = {
        "Hostname": record["hostname"],
        "Domainname": record["domainname"],
        "User": userns.user(record),
        "AttachStdin": record["stdin_once"] if not attached else "stdin" in attached,
        "AttachStdout": not attached or "stdout" in attached,
        "AttachStderr": not attached or "stderr" in attached,
        "ExposedPorts": {port: {} for port in record["exposed_ports"]},
        "Tty": record["terminal"],
        "OpenStdin": record["open_stdin"],
        "StdinOnce": record["stdin_once"],
        "Env": record["environment"],
        "Cmd": record["command"] or None,
        "Image": record["image"],
        "Volumes": {volume: {} for volume in record["image_volumes"]} or None,
        "WorkingDir": record["working_directory"],
        "Entrypoint": record["entrypoint"] or None,
        "OnBuild": None,
        "Labels": record["labels"],
        "StopSignal": signal_name(record["stop_signal"]),
        "StopTimeout": record["stop_timeout"],
    }
    if health:
        names = {"test": "Test", "interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod",
                 "start_interval": "StartInterval", "retries": "Retries"}  # fmt: skip
        document["Healthcheck"] = {names[key]: value for key, value in health.items()}
    return document


def _network_settings(record: Record, state: Record) -> dict[str, Any]:
    """NetworkSettings: what is so as long as the container runs."""
    is_live = state["status"] in LIVE
    attached = network_state(state)
    shared = record["network"].startswith("container:")
    networks = {} if shared else {endpoint["Name"]: endpoint["Settings"] for endpoint in _networks(record, attached)}
    document = {
        "SandboxID": record["id"] if is_live and not shared else "",
        "SandboxKey": f"/proc/{state['pid']}/ns/net" if is_live and state["pid"] else "",
        "Ports": port_map(attached["ports"], record["exposed_ports"]) if is_live and networks else {},
        "Networks": networks,
    }
    # Of the default network only, as in Docker.
    return document | {key: (networks.get(BRIDGE) or _NO_ADDRESS)[key] for key in _NO_ADDRESS}


def _networks(record: Record, attached: Record) -> Iterator[dict[str, Any]]:
    """Name and EndpointSettings of each network that the container is on."""
    for network in (HOST, NONE):
        if record["network"] == network.name:
            settings = _endpoint({"ipv4": "", "ipv6": "", "aliases": [], "gw_priority": 0}, network.id, {})
            yield {"Name": network.name, "Settings": settings}
    for index, asked in enumerate(record["networks"]):
        answered: Record = next((e for e in attached["endpoints"] if e["network"] == asked["id"]), {})
        settings = _endpoint(asked, asked["id"], answered)
        if answered:
            settings["EndpointID"] = endpoint_id(asked["id"], record["id"])
        if asked["name"] != BRIDGE:
            own = [record["name"], *asked["aliases"], record["id"][:12], record["hostname"]]
            settings["DNSNames"] = list(dict.fromkeys(own))
            if index == 0 and record["links"]:
                settings["Links"] = [f"{container_id[:12]}:{alias}" for container_id, alias in record["links"]]
        yield {"Name": asked["name"], "Settings": settings}


def _endpoint(asked: Record, network_id: str, answered: Record) -> dict[str, Any]:
    fixed = {"IPv4Address": asked["ipv4"], "IPv6Address": asked["ipv6"]}
    return {
        "IPAMConfig": {key: address for key, address in fixed.items() if address} or None,
        "Links": None,
        "Aliases": asked["aliases"] or None,
        "DriverOpts": None,
        "GwPriority": asked["gw_priority"],
        "NetworkID": network_id,
        **_NO_ADDRESS,
        **{key: answered[ours] for key, ours in _ANSWERED.items() if ours in answered},
        "DNSNames": None,
    }
