"""From the network options of run and create to the container's record: Docker's checks, and its words for them.

A record has the mode ("network": a network's name, "host", "none", "container:ID") and, where the container is on
networks of ours, what it is to be on each of them ("networks"). Addresses come when it starts: see attachment.py.
Source of the checks: moby's runconfig and daemon/create.go, docker/cli's cli/command/container/opts.go.
"""

import os
from collections.abc import Iterable

from rootless.engine import networks
from rootless.engine.configuration import load_configuration
from rootless.engine.context import Engine
from rootless.engine.options import ContainerOptions, NetworkOption
from rootless.errors import InvalidInput
from rootless.store.containers import Record
from rootless.store.networks import BRIDGE, Network

_CONTAINER = "container:"


def network_mode(options: ContainerOptions) -> str:
    """The mode that the options, or else the configuration, ask for."""
    asked = options.networks[0].name if options.networks else ""
    mode = asked or load_configuration().network
    return BRIDGE if mode == "default" else mode


def is_user_defined(mode: str) -> bool:
    """Whether *mode* is the name of a network that somebody has made."""
    return mode not in (BRIDGE, "host", "none") and not mode.startswith(_CONTAINER)


def has_networks(mode: str) -> bool:
    """Whether a container of this mode is attached to networks of ours."""
    return mode == BRIDGE or is_user_defined(mode)


def check(options: ContainerOptions) -> None:
    """Raises InvalidInput for options that contradict each other; what can be found out without looking anywhere."""
    mode = network_mode(options)
    others = [is_user_defined(option.name) for option in options.networks[1:]]
    if others and not (is_user_defined(mode) and all(others)):
        raise InvalidInput(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            hint="create a network of your own: rootless network create NAME",
        )
    if mode == _CONTAINER:
        raise InvalidInput("invalid container format container:<name|id>")
    if mode.startswith(_CONTAINER):
        _check_shared(options)
    first = options.networks[0] if options.networks else NetworkOption("")
    if mode == "host" and first.links:
        raise InvalidInput("conflicting options: host type networking can't be used with links")
    if mode == "host" and first.mac:
        raise InvalidInput("conflicting options: mac-address and the network mode")
    if not is_user_defined(mode):
        _check_plain(first)


def _check_shared(options: ContainerOptions) -> None:
    """With another container's network come its names, addresses and ports."""
    first = options.networks[0] if options.networks else NetworkOption("")
    for given, what in (
        (options.hostname, "hostname and the network mode"),
        (first.links, "container type network can't be used with links"),
        (options.dns or options.dns_search or options.dns_options, "dns and the network mode"),
        (options.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (first.mac, "mac-address and the network mode"),
        (options.ports or options.publish_all, "port publishing and the container type network mode"),
        (options.expose, "port exposing and the container type network mode"),
        (options.egress is not None, "egress and the network mode"),
        (options.host_loopback, "host-loopback and the network mode"),
    ):
        if given:
            raise InvalidInput(f"conflicting options: {what}")


def _check_plain(option: NetworkOption) -> None:
    if option.ipv4 or option.ipv6:
        raise InvalidInput("user specified IP address is supported on user defined networks only")
    if option.aliases:
        raise InvalidInput("network-scoped alias is supported only for containers in user defined networks")


def warn(options: ContainerOptions) -> None:
    """Say what will not hold."""
    mode = network_mode(options)
    if mode == "host" and (options.ports or options.publish_all):
        os.write(2, b"WARNING: Published ports are discarded when using host network mode\n")
    if not has_networks(mode) and options.egress is not None and mode != "none":
        raise InvalidInput(f"--egress cannot hold with --network {mode}: it is slirp that watches over it")


def foresee(engine: Engine, options: ContainerOptions, *, begun: bool = False) -> bool:
    """Have slirp started meanwhile, if a container with these options needs it; whether it was not there.

    With *begun* that has happened already. Raises what check does, NotFound.
    """
    check(options)
    mode = network_mode(options)
    if not has_networks(mode):
        return False
    for name in (mode, *(option.name for option in options.networks[1:])):
        networks.find(engine, name)
    return begun or networks.begin_early(engine)


def fields(options: ContainerOptions, exposed: Iterable[str]) -> Record:
    """The part of the record that is about networks; what resolve() looks up is missing. *exposed* are the image's."""
    mode = network_mode(options)
    asked = options.networks or (NetworkOption(mode),)
    published = [port.container for port in options.ports]
    return {
        "network": mode,
        "networks": [_endpoint(option, mode) for option in asked] if has_networks(mode) else [],
        "ports": [port.asked() for port in options.ports],
        "publish_all": options.publish_all,
        "exposed_ports": list(dict.fromkeys([*_standard(exposed), *options.expose, *published])),
        "links": [list(link) for link in asked[0].links],
        "egress": options.egress,
        "host_loopback": options.host_loopback,
    }


def _standard(exposed: Iterable[str]) -> Iterable[str]:
    """An image may expose "80"."""
    return (text if "/" in text else f"{text}/tcp" for text in exposed)


def _endpoint(option: NetworkOption, mode: str) -> Record:
    return {
        "name": option.name or mode,
        "id": "",
        "ipv4": option.ipv4,
        "ipv6": option.ipv6,
        "mac": option.mac,
        "aliases": list(option.aliases),
        "gw_priority": option.gateway_priority,
    }


def resolve(engine: Engine, record: Record) -> None:
    """Give *record* the ids of networks and containers that it names. Raises NotFound, Conflict, InvalidInput."""
    for endpoint in record["networks"]:
        network = networks.find(engine, endpoint["name"])
        if not has_networks(network.name):
            raise InvalidInput(f"network {endpoint['name']} cannot be joined by its id: --network {network.name}")
        _check_addresses(endpoint, network)
        endpoint.update(name=network.name, id=network.id)
    if record["networks"]:
        record["network"] = record["networks"][0]["name"]
    for link in record["links"]:
        link[0] = engine.containers.find(link[0])
    if record["network"].startswith(_CONTAINER):
        other = engine.containers.find(record["network"].removeprefix(_CONTAINER))
        record["network"] = f"{_CONTAINER}{other}"
        shared = engine.containers.load(other)
        record.update(hostname=shared["hostname"], domainname=shared["domainname"])


def _check_addresses(endpoint: Record, network: Network) -> None:
    for address, subnet in ((endpoint["ipv4"], network.ipv4), (endpoint["ipv6"], network.ipv6)):
        if address and subnet is None:
            raise InvalidInput(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
