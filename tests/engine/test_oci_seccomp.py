"""linux.seccomp of a bundle: the verdicts of rootless-oci, and those of runc and crun on the same bundle."""

import errno
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rootless.cli.oci_documents import example
from rootless.spec import seccomp_numbers
from tests.support import probe
from tests.support.account import Installation

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probe is written for x86_64 only"),
]

NR = seccomp_numbers.numbers("SCMP_ARCH_X86_64")
I386 = seccomp_numbers.numbers("SCMP_ARCH_X86")
OURS = [sys.executable, "-c", "from rootless.cli.oci import main; main()"]
PEERS = {"runc": ["runc"], "crun": ["crun", "--cgroup-manager=disabled"]}
# What peers say that can do no better here: the control groups of this machine, a version before flags.
NOT_THERE = ("cgroups in hybrid mode not supported", "seccomp flags are not yet supported")
# Two that are looked at with many arguments, one by the other entry, one that the kernel does not know.
CALLS: list[Sequence[str | int]] = [
    *((NR["personality"], value) for value in (0xFFFFFFFF, 0x20008, 8, 0)),
    *((NR["lseek"], 99, offset, 0) for offset in (0, 1, 0xFFFFFFFF, 0x100000000, 0x100000001, -1)),
    (f"f{NR['getppid']}",),
    (f"fi{I386['getppid']}",),
    (f"f{NR['sync']}",),
]


def errno_of(name: str, number: int, *arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": list(arguments)}


def argument(index: int, operator: str, value: int, other: int = 0) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": other, "op": f"SCMP_CMP_{operator}"}


ABIS = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
SECTIONS: dict[str, dict[str, Any]] = {
    "nothing is said": {},
    "errno": {"syscalls": [errno_of("getppid", 77), errno_of("lseek", 78)]},
    "errno without a number": {"syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]},
    "32-bit programs too": {"architectures": ABIS, "syscalls": [errno_of("getppid", 77)]},
    "32-bit programs are killed": {"architectures": ["SCMP_ARCH_X86_64"], "syscalls": [errno_of("getppid", 77)]},
    "killed": {"syscalls": [{"names": ["sync"], "action": "SCMP_ACT_KILL_PROCESS"}]},
    "killed thread": {"syscalls": [{"names": ["sync"], "action": "SCMP_ACT_KILL"}]},
    "trapped": {"syscalls": [{"names": ["sync"], "action": "SCMP_ACT_TRAP"}]},
    "logged": {"syscalls": [{"names": ["sync"], "action": "SCMP_ACT_LOG"}], "flags": ["SECCOMP_FILTER_FLAG_LOG"]},
    **{f"lseek {operator}": {"syscalls": [errno_of("lseek", 78, argument(1, operator, 0x100000000))]}
       for operator in ("EQ", "NE", "LT", "LE", "GT", "GE")},
    "masked": {"syscalls": [errno_of("lseek", 78, argument(1, "MASKED_EQ", 0xFFFFFFFF00000001, 0x100000001))]},
    "both arguments": {"syscalls": [errno_of("lseek", 78, argument(0, "EQ", 99), argument(1, "EQ", 1))]},
    "either argument": {"syscalls": [errno_of("lseek", 78, argument(1, "EQ", 1), argument(1, "EQ", 0))]},
    "personality": {"syscalls": [errno_of("personality", 79, argument(0, "EQ", 0xFFFFFFFF))]},
    "unknown names": {"syscalls": [errno_of("frobnicate", 5), errno_of("getppid", 77)]},
}  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without a configuration: the probe is all that is in it."""
    root = tmp_path_factory.mktemp("bundle")
    (root / "rootfs/proc").mkdir(parents=True)
    (root / "rootfs/probe").write_bytes(probe.program())
    (root / "rootfs/probe").chmod(0o755)
    return root


def configuration(section: Mapping[str, Any]) -> dict[str, Any]:
    config = example()
    config["ociVersion"] = "1.0.2"
    config["process"]["args"] = ["/probe", *probe.calls(*CALLS)]
    config["mounts"] = [m for m in config["mounts"] if m["destination"] == "/proc"]
    config["linux"] = {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")],
                       "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", **section}}  # fmt: skip
    return config


def run(
    command: Sequence[str], bundle: Path, config: Mapping[str, Any], env: Mapping[str, str]
) -> "list[probe.Answer]":
    (bundle / "config.json").write_text(json.dumps(config))
    words = [*command, "--root", str(bundle / "state"), "run", "--bundle", str(bundle), "one"]
    done = subprocess.run(words, env=dict(env), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return probe.answers(done.stdout)


def ours(rootless: Installation) -> list[str]:
    """rootless-oci, marked: what it begins, as the keeper of the user's namespace, ends with the installation."""
    return ["prlimit", f"--msgqueue={rootless.mark}:", "--", *OURS]


def as_peer(config: dict[str, Any]) -> dict[str, Any]:
    """The same in a user namespace of its own, which peers do not join."""
    linux = config["linux"]
    ids = {"containerID": 0, "size": 1}
    namespaces = [*linux["namespaces"], {"type": "user"}]
    mapped = {"uidMappings": [{**ids, "hostID": os.getuid()}], "gidMappings": [{**ids, "hostID": os.getgid()}]}
    return {**config, "linux": {**linux, "namespaces": namespaces, **mapped}}


@pytest.mark.parametrize("name", SECTIONS)
def test_verdicts_are_those_of_runc_and_crun(rootless: Installation, tree: Path, name: str) -> None:
    config = configuration(SECTIONS[name])
    answers = run(ours(rootless), tree, config, rootless.env)
    assert len(answers) == len(CALLS)
    for peer, command in PEERS.items():
        if not shutil.which(peer, path=rootless.env["PATH"]):
            continue
        try:
            theirs = run(command, tree, as_peer(config), rootless.env)
        except AssertionError as refused:
            if any(text in str(refused) for text in NOT_THERE):
                continue
            raise
        assert theirs == answers, peer


def test_a_call_by_32_bit_programs_is_told_apart(rootless: Installation, tree: Path) -> None:
    section = {"architectures": ABIS, "syscalls": [errno_of("getppid", 77)]}
    answers = run(ours(rootless), tree, configuration(section), rootless.env)
    assert [a.result for a in answers[-3:-1]] == [-77, -77]
    only = {"syscalls": [errno_of("getppid", 77)]}
    answers = run(ours(rootless), tree, configuration(only), rootless.env)
    assert answers[-3].result == -77
    assert answers[-2].signal == 31


def test_high_halves_of_ints_make_no_difference(rootless: Installation, tree: Path) -> None:
    """Where they do for libseccomp, whose rule lets such a call through (S02)."""
    config = configuration({"syscalls": [errno_of("socket", 79, argument(0, "EQ", 38))]})
    config["process"]["args"] = ["/probe", *probe.calls((NR["socket"], 1 << 32 | 38, 5, 0), (NR["socket"], 38, 5, 0))]
    assert [a.result for a in run(ours(rootless), tree, config, rootless.env)] == [-79, -79]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"defaultAction": "SCMP_ACT_FLY"}, "config.json: linux.seccomp.defaultAction: unknown action 'SCMP_ACT_FLY'"),
        ({"syscalls": [errno_of("read", 99999)]}, "config.json: linux.seccomp.syscalls[0].errnoRet"),
        ({"syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}, "config.json: linux.seccomp.listenerPath"),
        ({"compiled": {"program": "", "flags": 0}}, "config.json: linux.seccomp.compiled"),
    ],
)
def test_a_mistake_is_found_before_anything_is_made(
    rootless: Installation, tree: Path, section: dict[str, Any], said: str
) -> None:
    with pytest.raises(AssertionError, match=r"linux\.seccomp") as failed:
        run(ours(rootless), tree, configuration(section), rootless.env)
    assert said in str(failed.value)
    assert list((tree / "state").iterdir()) == []


def test_without_no_new_privileges_it_is_installed_too(rootless: Installation, tree: Path) -> None:
    config = configuration({"syscalls": [errno_of("getppid", errno.EDQUOT)]})
    config["process"]["noNewPrivileges"] = False
    config["process"]["capabilities"] = {}
    assert run(ours(rootless), tree, config, rootless.env)[-3].result == -errno.EDQUOT


# Listeners

NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101  # <linux/seccomp.h>: SECCOMP_IOCTL_NOTIF_…


def answer(listener_fd: int, error: int) -> int:
    """Wait for a call, and have it fail with *error*; the number of the call."""
    asked = bytearray(80)  # struct seccomp_notif
    fcntl.ioctl(listener_fd, NOTIF_RECV, asked)
    identity, _, _, number = struct.unpack_from("=QIIi", asked)
    fcntl.ioctl(listener_fd, NOTIF_SEND, struct.pack("=QqiI", identity, 0, -error, 0))  # struct seccomp_notif_resp
    return int(number)


def test_somebody_else_answers_for_calls(rootless: Installation, tree: Path) -> None:
    path = str(rootless.tree / "agent.sock")
    rule = {"names": ["getppid", "sync"], "action": "SCMP_ACT_NOTIFY"}
    section = {"syscalls": [rule], "listenerPath": path, "listenerMetadata": "for the agent"}
    (tree / "config.json").write_text(json.dumps(configuration(section)))
    words = [*ours(rootless), "--root", str(tree / "state"), "run", "--bundle", str(tree), "one"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.bind(path)
        agent.listen()
        agent.settimeout(20)
        done = subprocess.Popen(words, env=rootless.env, stdout=subprocess.PIPE, text=True)
        connection, _ = agent.accept()
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 4)
    state = json.loads(data)
    assert (state["fds"], state["metadata"], state["state"]["id"]) == (["seccompFd"], "for the agent", "one")
    assert state["pid"] == state["state"]["pid"] > 0
    [listener_fd] = fds
    seen = [answer(listener_fd, 77), answer(listener_fd, 78)]
    os.close(listener_fd)
    output, _ = done.communicate(timeout=20)
    assert seen == [NR["getppid"], NR["sync"]]
    results = [a.result for a in probe.answers(output)]
    assert (results[-3], results[-1]) == (-77, -78)


def test_without_anybody_who_answers_nothing_runs(rootless: Installation, tree: Path) -> None:
    rule = {"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}
    config = configuration({"syscalls": [rule], "listenerPath": "/no/such.sock"})
    with pytest.raises(AssertionError, match=r"linux\.seccomp\.listenerPath: /no/such\.sock: No such file"):
        run(ours(rootless), tree, config, rootless.env)
    assert list((tree / "state").iterdir()) == []
