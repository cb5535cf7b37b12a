"""linux.resources of config.json: what its members have to be, and what of it asks for anything."""

from typing import Any

from rootless.errors import HostUnsupported, InvalidInput
from rootless.spec.json_shape import (
    UINT32,
    UINT64,
    boolean,
    each,
    integer,
    one_of,
    shape,
    signed,
    string,
    string_map,
)

_WEIGHT = integer(0, 1000)
_UINT16 = integer(0, 65535)
_THROTTLE = each(shape({"major": signed, "minor": signed, "rate": UINT64}, "major", "minor", "rate"))
_RDMA = shape({"hcaHandles": UINT32, "hcaObjects": UINT32})


def _page_size(value: Any, where: str) -> None:
    string(value, where)
    if not (value[:-2].isascii() and value[:-2].isdigit() and value[-2:] in ("KB", "MB", "GB")):
        raise InvalidInput(f"{where}: {value!r} is no size of pages, as 2MB")


def _rdma(value: Any, where: str) -> None:
    shape({})(value, where)
    for device, limits in value.items():
        _RDMA(limits, f"{where}.{device}")


_RESOURCES = shape(
    {
        "devices": each(
            shape({"allow": boolean, "type": one_of("a", "b", "c", ""), "major": signed, "minor": signed,
                   "access": string}, "allow")),
        "memory": shape({
            **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), signed),
            "swappiness": UINT64,
            **dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), boolean),
        }),
        "cpu": shape({
            **dict.fromkeys(("shares", "period", "burst", "realtimePeriod"), UINT64),
            **dict.fromkeys(("quota", "realtimeRuntime", "idle"), signed),
            **dict.fromkeys(("cpus", "mems"), string),
        }),
        "pids": shape({"limit": signed}),
        "blockIO": shape({
            "weight": _WEIGHT,
            "leafWeight": _WEIGHT,
            "weightDevice": each(shape({"major": signed, "minor": signed, "weight": _WEIGHT, "leafWeight": _WEIGHT},
                                       "major", "minor")),
            **{f"throttle{name}Device": _THROTTLE for name in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")},
        }),
        "hugepageLimits": each(shape({"pageSize": _page_size, "limit": UINT64}, "pageSize", "limit")),
        "network": shape({"classID": UINT32,
                          "priorities": each(shape({"name": string, "priority": UINT32}, "name", "priority"))}),
        "rdma": _rdma,
        "unified": string_map,
    }
)  # fmt: skip
_NOTHING: tuple[object, ...] = (None, 0, -1, "", [], False)  # how programs write that there is no limit
# Control groups of version 1 have these, and version 2 nothing like it (cgroup v2 of the kernel's documentation).
_VERSION_1 = {
    "memory": ("kernel", "kernelTCP", "swappiness", "disableOOMKiller"),
    "cpu": ("realtimeRuntime", "realtimePeriod"),
    "blockIO": ("leafWeight",),
    "network": ("classID", "priorities"),
}


def check(resources: Any, where: str) -> None:
    """Raise InvalidInput for what is no such section, HostUnsupported for what only version 1 of control groups has."""
    _RESOURCES(resources, where)
    for section, names in _VERSION_1.items():
        for name in names:
            if (resources.get(section) or {}).get(name) not in _NOTHING:
                raise HostUnsupported(f"{where}.{section}.{name}: control groups of version 2 have nothing like it")


def asked(resources: dict[str, Any]) -> dict[str, Any]:
    """What of *resources* asks for anything: without rules for devices, of which a user has none but the host's.

    Zero, as memory.limit has it, is how programs write that there is no limit; so is -1.
    """
    found = {}
    for section, content in resources.items():
        if section == "devices" or not content:
            continue
        if isinstance(content, dict) and section != "unified":
            content = {key: value for key, value in content.items() if value not in _NOTHING}
        if content and (section != "cpu" or set(content) != {"period"}):
            found[section] = content
    return found
