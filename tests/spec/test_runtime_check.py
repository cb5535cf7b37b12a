"""Configurations of the runtime-spec: what is wrong is found, and told with its place."""

import copy
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.cli.oci_documents import example
from rootless.errors import HostUnsupported, InvalidInput, RootlessError
from rootless.spec.runtime_check import check, check_process
from rootless.spec.runtime_resources import asked

LIMIT = {"type": "RLIMIT_CORE", "soft": 1, "hard": 2}
USER = {"containerID": 0, "hostID": 1000, "size": 1}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The example with *value* at *path*, dots between the members."""
    config = copy.deepcopy(example())
    *above, last = path.split(".")
    place: Any = config
    for name in above:
        place = place.setdefault(name, {})
    place[last] = value
    return config


WRONG: list[tuple[str, Any, str]] = [
    ("ociVersion", None, "ociVersion: is missing"),
    ("ociVersion", "one", "ociVersion: 'one' is no version (SemVer 2.0.0)"),
    ("ociVersion", "2.0.0", "ociVersion: version 2.0.0 of the specification is not known; 1.x is"),
    ("root", None, "root: is missing"),
    ("root", {}, "root.path: is missing"),
    ("root.readonly", "yes", "root.readonly: a boolean is needed, not a string"),
    ("process", None, "process: is missing"),
    ("process.args", [], "process.args: at least one argument is needed"),
    ("process.args", ["sh", 1], "process.args[1]: a string is needed, not a number"),
    ("process.args", ["a\0b"], "process.args[0]: has a NUL character in it"),
    ("process.cwd", "tmp", "process.cwd: 'tmp' is no absolute path"),
    ("process.user.uid", -1, "process.user.uid: -1 is not between 0 and 4294967295"),
    ("process.user.additionalGids", [True], "process.user.additionalGids[0]: a whole number is needed, not a boolean"),
    ("process.rlimits", [{**LIMIT, "type": "RLIMIT_FOO"}],
     "process.rlimits[0].type: unknown resource limit 'RLIMIT_FOO'"),
    ("process.rlimits", [LIMIT, LIMIT], "process.rlimits[1].type: RLIMIT_CORE is there twice"),
    ("process.rlimits", [{**LIMIT, "soft": 3}], "process.rlimits[0].soft: 3 is more than the hard limit 2"),
    ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 1}], "process.rlimits[0].hard: is missing"),
    ("process.capabilities.bounding", ["KILL"],
     "process.capabilities.bounding[0]: 'KILL' is no capability: their names begin with CAP_"),
    ("process.oomScoreAdj", 1001, "process.oomScoreAdj: 1001 is not between -1000 and 1000"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "priority": 1},
     "process.scheduler.priority: SCHED_OTHER has none; SCHED_FIFO and SCHED_RR have"),
    ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8},
     "process.ioPriority.priority: 8 is not between 0 and 7"),
    ("process.execCPUAffinity", {"final": "a"},
     "process.execCPUAffinity.final: 'a' is no list of processors, as 0-3,7"),
    ("hostname", "h" * 65, "hostname: longer than 64 bytes, which is what the kernel keeps"),
    ("annotations", {"": "x"}, "annotations: a key is empty"),
    ("annotations", {"a": 1}, "annotations.a: a string is needed, not a number"),
    ("mounts", [{"source": "x"}], "mounts[0].destination: is missing"),
    ("mounts", [{"destination": "/"}], "mounts[0].destination: the root is mounted already"),
    ("mounts", [{"destination": "/a", "options": ["bind"]}], "mounts[0].source: a bind mount needs one"),
    ("hooks.prestart", [{"path": "x"}], "hooks.prestart[0].path: 'x' is no absolute path"),
    ("hooks.poststop", [{"path": "/x", "timeout": 0}],
     f"hooks.poststop[0].timeout: 0 is not between 1 and {2**63 - 1}"),
    ("linux.namespaces", [{"type": "mnt"}], "linux.namespaces[0].type: unknown value 'mnt'"),
    ("linux.namespaces", [{"type": "mount"}, {"type": "mount"}], "linux.namespaces[1].type: mount is there twice"),
    ("linux.namespaces", [{"type": "pid"}], "linux.namespaces: a mount namespace is needed"),
    ("linux.namespaces", [{"type": "mount"}], "hostname: needs a uts namespace in linux.namespaces"),
    ("linux.uidMappings", [USER], "linux.uidMappings: needs a user namespace in linux.namespaces"),
    ("linux.timeOffsets", {"monotonic": {"secs": 1}}, "linux.timeOffsets: need a new time namespace"),
    ("linux.sysctl", {"kernel.panic": "1"}, "linux.sysctl: kernel.panic belongs to no namespace"),
    ("linux.sysctl", {"net/../kernel": "1"}, "linux.sysctl: 'net/../kernel' is no kernel parameter"),
    ("linux.devices", [{"path": "/dev/x", "type": "q"}], "linux.devices[0].type: unknown value 'q'"),
    ("linux.rootfsPropagation", "both", "linux.rootfsPropagation: unknown value 'both'"),
    ("linux.personality", {"domain": "BSD"}, "linux.personality.domain: unknown value 'BSD'"),
    ("linux.seccomp", {"defaultAction": "no"}, "linux.seccomp.defaultAction: unknown action"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "compiled": {}}, "linux.seccomp.compiled: only"),
    ("linux.resources", {"memory": {"limit": "1g"}}, "linux.resources.memory.limit: a whole number is needed"),
    ("linux.resources", {"rdma": "x"}, "linux.resources.rdma: an object is needed, not a string"),
    ("linux.resources", {"hugepageLimits": [{"pageSize": "2/MB", "limit": 1}]},
     "linux.resources.hugepageLimits[0].pageSize: '2/MB' is no size of pages"),
    ("linux.maskedPaths", ["proc"], "linux.maskedPaths[0]: 'proc' is no absolute path"),
]  # fmt: skip
REFUSED: list[tuple[str, Any, str]] = [
    ("linux.intelRdt", {"closID": "x"}, "linux.intelRdt: resctrl takes root"),
    ("mounts", [{"destination": "/a", "type": "tmpfs", "options": ["idmap"]}], "mounts[0]: id maps of a mount"),
    ("vm", {"kernel": {}}, "vm: this is a runtime of Linux containers"),
    ("solaris", {"milestone": "x"}, "solaris: this is a runtime"),
    ("linux.resources", {"memory": {"swappiness": 1}},
     "linux.resources.memory.swappiness: control groups of version 2"),
    ("linux.resources", {"network": {"classID": 1}}, "linux.resources.network.classID: control groups of version 2"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[f"{p}={v!r}"[:60] for p, v, _ in WRONG])
def test_what_is_wrong_is_told_with_its_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as told:
        check(changed(path, value))
    assert str(told.value).startswith(message)


@pytest.mark.parametrize(("path", "value", "message"), REFUSED, ids=[f"{p}={v!r}"[:60] for p, v, _ in REFUSED])
def test_what_a_user_cannot_have_is_refused_by_name(path: str, value: Any, message: str) -> None:
    with pytest.raises(HostUnsupported) as told:
        check(changed(path, value))
    assert str(told.value).startswith(message)


def test_the_example_and_what_nobody_knows_pass() -> None:
    assert check({**example(), "future": {"x": 1}})["future"] == {"x": 1}
    assert check(changed("linux.somethingElse", 1))
    assert check({**example(), "hooks": None, "annotations": None})


def test_what_asks_for_nothing_is_no_limit() -> None:
    assert asked({"devices": [{"allow": False}], "memory": {"limit": 0, "swap": -1}, "cpu": {"period": 100000}}) == {}
    assert asked({"pids": {"limit": 5}, "cpu": {"quota": 1, "period": 10}}) == {
        "pids": {"limit": 5}, "cpu": {"quota": 1, "period": 10}}  # fmt: skip


PATHS = sorted({path for path, _, _ in WRONG + REFUSED})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "path", "policy", "uid", "names", "x", "limit", "destination"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(path=st.sampled_from(PATHS), value=JSON)
def test_any_value_anywhere_is_accepted_or_refused_in_words(path: str, value: Any) -> None:
    for attempt, document in ((check, changed(path, value)), (check, value), (check_process, value)):
        with suppress(RootlessError):
            attempt(document)
