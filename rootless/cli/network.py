"""Networks: create, list, inspect, remove; who is on them, and what goes through them."""

import time

from rootless.cli import streams
from rootless.cli.command import (
    NO_ARGUMENTS,
    Options,
    at_least,
    at_most,
    command,
    exactly,
    flag,
    number,
    text,
    texts,
    value,
    values,
)
from rootless.cli.documents import show_documents
from rootless.cli.filters import (
    Filters,
    bool_value,
    collect_filters,
    match_id,
    match_labels_filters,
    match_name,
    one_of_filter,
    parse_filter,
    time_window,
)
from rootless.cli.network_values import parse_ipv4, parse_ipv6, parse_link, parse_mac
from rootless.cli.opening import engine_of, for_each
from rootless.cli.pruning import PruneOptions, removed_text
from rootless.cli.table import print_list, short_id
from rootless.cli.time_values import human_duration, local_time
from rootless.cli.values import human_size, merge_pairs, parse_key_value, parse_label
from rootless.engine.logs import nanoseconds
from rootless.engine.network_connect import Names
from rootless.engine.network_connect import connect as connect_container
from rootless.engine.network_connect import disconnect as disconnect_container
from rootless.engine.network_create import DRIVER, NetworkOptions, create_network
from rootless.engine.network_flows import Row, list_flows
from rootless.engine.network_inspect import SCOPE, inspect_network, list_networks, networks_in_use
from rootless.engine.network_remove import prune_networks, remove_network
from rootless.engine.options import NetworkOption
from rootless.errors import HostUnsupported
from rootless.network.egress import merge_egress, parse_egress
from rootless.store.networks import BUILT_IN, Network

_HEADERS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}
_FLOW_COLUMNS = (
    *("Container", "Protocol", "Direction", "Source", "Destination", "Host"),
    *("State", "Sent", "Received", "Age", "Path"),
)
_FLOW_HEADERS = {"ContainerID": "CONTAINER ID", "Protocol": "PROTO"}


class CreateOptions(Options):
    """The options of network create."""

    attachable: bool = flag("--attachable", help="Accepted for scripts: every network can be attached to")
    aux_address: list[tuple[str, str]] = values(
        "--aux-address", parse=parse_key_value, metavar="map", help="Addresses that no container gets (e.g. router=IP)"
    )
    driver: str = text("-d", "--driver", default=DRIVER, help="Driver to manage the Network")
    egress: list[list[str]] = values(
        "--egress", parse=parse_egress, help="What its containers may reach (e.g. db.example.org:5432), or none"
    )
    gateway: list[str] = texts("--gateway", help="IPv4 or IPv6 Gateway for the subnet", metavar="strings")
    internal: bool = flag("--internal", help="Restrict external access to the network")
    ip_range: list[str] = texts("--ip-range", help="Allocate container ip from a sub-range", metavar="strings")
    ipv4: bool = flag("--ipv4", default=True, help="Enable or disable IPv4 address assignment")
    ipv6: bool = flag("--ipv6", help="Enable or disable IPv6 address assignment")
    label: list[tuple[str, str]] = values("--label", parse=parse_label, help="Set metadata on a network")
    opt: list[tuple[str, str]] = values(
        "-o", "--opt", parse=parse_key_value, metavar="map", help="Set driver specific options"
    )
    subnet: list[str] = texts("--subnet", help="Subnet in CIDR format", metavar="strings")
    ipam_driver: str = text("--ipam-driver", default="default", help="IP Address Management Driver", hidden=True)
    swarm: list[str] = texts("--scope", "--config-from", "--ipam-opt", help="Of a swarm's networks", hidden=True)
    swarm_flags: bool = flag("--ingress", "--config-only", help="Of a swarm's networks", hidden=True)


@command(
    "create",
    "NETWORK",
    CreateOptions,
    exactly(1),
    examples="""
        A network whose containers find each other by name:
            $ {path} web
        One with addresses of your choice, and nothing to reach but one service:
            $ {path} --subnet 10.9.0.0/24 --egress api.example.org:443 jobs
    """,
)
def create(options: CreateOptions) -> None:
    """Create a network"""
    if options.swarm or options.swarm_flags or options.ipam_driver != "default":
        raise HostUnsupported("networks of a swarm and plugins for addresses are not supported")
    network = create_network(
        engine_of(options),
        NetworkOptions(
            options.arguments[0],
            options.driver,
            subnets=_split(options.subnet),
            gateways=_split(options.gateway),
            ranges=_split(options.ip_range),
            aux=merge_pairs(options.aux_address),
            internal=options.internal,
            attachable=options.attachable,
            ipv4=options.ipv4,
            ipv6=options.ipv6 or (any(":" in subnet for subnet in options.subnet) and not options.changed("ipv6")),
            options=merge_pairs(options.opt),
            labels=merge_pairs(options.label),
            egress=merge_egress(options.egress),
        ),
    )
    streams.write(f"{network.id}\n")


def _split(texts: list[str]) -> list[str]:
    """The option given more than once, or once with commas."""
    return [word for text in texts for word in text.split(",")]


class LsOptions(Options):
    """The options of network ls."""

    filter: list[tuple[str, str]] = values(
        "-f", "--filter", parse=parse_filter, metavar="filter", help='Provide filter values (e.g. "driver=bridge")'
    )
    format: str = text("--format", help="Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
    no_trunc: bool = flag("--no-trunc", help="Do not truncate the output")
    quiet: bool = flag("-q", "--quiet", help="Only display network IDs")


@command("ls", "", LsOptions, NO_ARGUMENTS)
def ls(options: LsOptions) -> None:
    """List networks"""
    filters = collect_filters(options.filter, ("dangling", "driver", "id", "label", "name", "scope", "type"))
    one_of_filter(filters, "type", ("builtin", "custom"))
    dangling = bool_value(filters, "dangling")
    engine = engine_of(options)
    networks = [network for network in list_networks(engine) if _matches(network, filters)]
    if dangling is not None:
        used = networks_in_use(engine)
        networks = [n for n in networks if (n.name not in BUILT_IN and n.id not in used) == dangling]
    if options.quiet and options.format in ("", "table"):
        streams.write("".join(f"{_id(network, options.no_trunc)}\n" for network in networks))
        return
    print_list(
        [_row(network, options.no_trunc) for network in networks],
        headers=_HEADERS,
        columns=("ID", "Name", "Driver", "Scope"),
        form=options.format,
        labels=[network.labels for network in networks],
    )


def _matches(network: Network, filters: Filters) -> bool:
    kind = "builtin" if network.name in BUILT_IN else "custom"
    return (
        match_name(filters.get("name", ()), network.name)
        and match_id(filters.get("id", ()), network.id)
        and match_labels_filters(filters, network.labels)
        and network.driver in filters.get("driver", [network.driver])
        and SCOPE in filters.get("scope", [SCOPE])
        and kind in filters.get("type", [kind])
    )


def _id(network: Network, full: bool) -> str:
    return network.id if full else short_id(network.id)


def _row(network: Network, full: bool) -> dict[str, object]:
    return {
        "ID": _id(network, full),
        "Name": network.name,
        "Driver": network.driver,
        "Scope": SCOPE,
        "IPv4": str(network.ipv4 is not None).lower(),
        "IPv6": str(network.ipv6 is not None).lower(),
        "Internal": str(network.internal).lower(),
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(network.labels.items())),
        "CreatedAt": local_time(nanoseconds(network.created)) if network.created else "0001-01-01 00:00:00 +0000 UTC",
    }


class InspectOptions(Options):
    """The options of network inspect."""

    format: str = text("-f", "--format", help="Format output using a custom template: 'json', or a Go template")
    verbose: bool = flag("-v", "--verbose", help="Accepted for scripts: there is no more to say")


@command("inspect", "NETWORK [NETWORK...]", InspectOptions, at_least(1))
def inspect(options: InspectOptions) -> int:
    """Display detailed information on one or more networks"""
    engine = engine_of(options)
    return show_documents(options.arguments, options.format, lambda name: inspect_network(engine, name))


class RmOptions(Options):
    """The options of network rm."""

    force: bool = flag("-f", "--force", help="Do not error if the network does not exist")


@command("rm", "NETWORK [NETWORK...]", RmOptions, at_least(1))
def rm(options: RmOptions) -> int:
    """Remove one or more networks

    You cannot remove a network that a running container is on.
    """
    engine = engine_of(options)
    return for_each(options.arguments, lambda name: remove_network(engine, name, force=options.force))


@command("prune", "", PruneOptions, NO_ARGUMENTS)
def prune(options: PruneOptions) -> None:
    """Remove all unused networks"""
    filters = collect_filters(options.filter, ("label", "label!", "until"))
    _, until = time_window(filters, time.time_ns())
    warning = "WARNING! This will remove all custom networks not used by at least one container."
    if not options.force and not streams.confirm(warning):
        return
    names = prune_networks(engine_of(options), until=until, labels=lambda labels: match_labels_filters(filters, labels))
    streams.write(removed_text("Networks", names))


class ConnectOptions(Options):
    """The options of network connect."""

    alias: list[str] = texts("--alias", help="Add network-scoped alias for the container", metavar="strings")
    driver_opt: list[str] = texts("--driver-opt", help="driver options for the network", metavar="strings")
    gw_priority: int = number("--gw-priority", help="The network with the highest one provides the default gateway")
    ip: str = value("--ip", parse=parse_ipv4, default="", metavar="ip", help='IPv4 address (e.g., "172.30.100.104")')
    ip6: str = value("--ip6", parse=parse_ipv6, default="", metavar="ip", help='IPv6 address (e.g., "2001:db8::33")')
    link: list[tuple[str, str]] = values("--link", parse=parse_link, help="Add link to another container")
    link_local_ip: list[str] = texts("--link-local-ip", help="Add a link-local address", metavar="ipSlice", hidden=True)
    mac_address: str = value(
        "--mac-address", parse=parse_mac, default="", metavar="string", help="MAC address on this network"
    )


@command("connect", "NETWORK CONTAINER", ConnectOptions, exactly(2))
def connect(options: ConnectOptions) -> None:
    """Connect a container to a network

    A running container has the interface at once; one that does not run, when it starts.
    """
    if options.driver_opt or options.link_local_ip:
        raise HostUnsupported("--driver-opt and --link-local-ip are not there: interfaces are rootless's own")
    option = NetworkOption(
        options.arguments[0],
        tuple(_split(options.alias)),
        options.ip,
        options.ip6,
        options.mac_address,
        tuple(options.link),
        options.gw_priority,
    )
    connect_container(engine_of(options), Names(*options.arguments), option)


class DisconnectOptions(Options):
    """The options of network disconnect."""

    force: bool = flag("-f", "--force", help="Force the container to disconnect from a network, also one that is gone")


@command("disconnect", "NETWORK CONTAINER", DisconnectOptions, exactly(2))
def disconnect(options: DisconnectOptions) -> None:
    """Disconnect a container from a network"""
    disconnect_container(engine_of(options), Names(*options.arguments), force=options.force)


class FlowsOptions(Options):
    """The options of network flows."""

    format: str = text("--format", help="Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
    no_trunc: bool = flag("--no-trunc", help="Do not truncate the output")


@command(
    "flows",
    "[CONTAINER]",
    FlowsOptions,
    at_most(1),
    examples="""
        What the container is connected to:
            $ {path} web
        What --egress has denied:
            $ {path} --format '{{if eq .State "denied"}}{{.Container}} {{.Destination}}{{end}}'
    """,
)
def flows(options: FlowsOptions) -> None:
    """List what containers are connected to outside, and what they were denied

    Containers of one network talk to each other directly: that is not listed.
    """
    found = list_flows(engine_of(options), "".join(options.arguments))
    now = time.time()
    rows = [_flow_row(row, options.no_trunc) for row in found.flows]
    rows += [_denied_row(row, options.no_trunc, now) for row in found.denied]
    print_list(rows, headers=_FLOW_HEADERS, columns=_FLOW_COLUMNS, form=options.format)


def _flow_row(row: Row, full: bool) -> dict[str, object]:
    return {
        **_flow_head(row, full),
        "Direction": row["direction"],
        "Source": row["source"],
        "Destination": row["destination"],
        "Host": row["host"],
        "State": row["state"],
        "Sent": human_size(row["sent"], 3),
        "Received": human_size(row["received"], 3),
        "Age": human_duration(int(row["age"] * 1e9)),
        "Path": row["path"],
        "Count": 1,
    }


def _denied_row(row: Row, full: bool, now: float) -> dict[str, object]:
    return {
        **_flow_head(row, full),
        "Direction": "out",
        "Source": "",
        "Destination": f"{row['destination']} ({row['name']})" if row.get("name") else row["destination"],
        "Host": "",
        "State": "denied",
        "Sent": "",
        "Received": "",
        "Age": human_duration(int(max(0.0, now - row["last"]) * 1e9)),
        "Path": "",
        "Count": row["count"],
    }


def _flow_head(row: Row, full: bool) -> dict[str, object]:
    container_id = row["container"] if full else short_id(row["container"])
    return {
        "Container": row["container_name"] or container_id,
        "ContainerID": container_id,
        "Protocol": row["protocol"],
    }
