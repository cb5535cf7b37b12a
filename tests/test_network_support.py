"""The made-up machine of tests/support/network.py is as its docstring says."""

import errno
import os
import socket
from pathlib import Path

import pytest

from tests.support.network import (
    FAR4,
    FAR6,
    HOST4,
    PROHIBITED4,
    ROUTER4,
    SILENT4,
    UNREACHABLE4,
    UNREACHABLE6,
    Machine,
)
from tests.support.network_servers import echo, family_of, tell_peer

pytestmark = pytest.mark.kernel


def failure(machine: Machine, address: str, timeout: float = 5) -> int | None:
    with machine.open_socket(family=family_of(address)) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect((address, 9))
        except OSError as error:
            return error.errno
    return 0


def test_the_machine_reaches_the_world_as_far_as_it_is_reachable(tmp_path: Path) -> None:
    with Machine(tmp_path) as machine:
        for address in (ROUTER4, FAR4, FAR6, HOST4, "127.0.0.1", "::1"):
            with machine.server(address, echo) as (_, port), machine.open_socket(family=family_of(address)) as sock:
                sock.connect((address, port))
                sock.sendall(b"there")
                assert sock.recv(5) == b"there"
        assert failure(machine, FAR4) == errno.ECONNREFUSED
        assert failure(machine, UNREACHABLE4) == errno.EHOSTUNREACH
        assert failure(machine, UNREACHABLE6) == errno.ENETUNREACH
        assert failure(machine, PROHIBITED4) == errno.EHOSTUNREACH
        assert failure(machine, SILENT4, 0.5) is None  # a time-out of the test's
        with machine.server(FAR4, tell_peer) as far, machine.open_socket() as sock:
            sock.connect(far)
            assert HOST4.encode() in sock.recv(100)


def test_the_user_s_networks_are_not_the_machine_s(tmp_path: Path) -> None:
    with Machine(tmp_path) as machine:
        netns = machine.netns()
        with machine.open_socket(net=netns) as sock, pytest.raises(OSError, match="unreachable"):
            sock.connect((FAR4, 9))
        assert "ext0" in machine.run("ip", "link").stdout
        assert "ext0" not in machine.run("ip", "link", net=netns).stdout
        machine.resolv_conf("nameserver 127.0.0.53\n")
        assert machine.run("cat", "/etc/resolv.conf").stdout == "nameserver 127.0.0.53\n"
        with machine.open_socket(socket.SOCK_DGRAM, bind=("127.0.0.53", 53)):
            pass
        os.close(netns)
