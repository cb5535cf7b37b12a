"""Messages between slirp's processes."""

import gc
import os
import socket

import pytest

from slirp import channel


def test_a_message_arrives_whole_with_its_descriptors() -> None:
    ours, theirs = channel.pair()
    r, w = os.pipe()
    channel.send(ours, {"do": "network", "id": "a" * 64}, [w])
    message, fds = channel.receive(theirs)
    assert message == {"do": "network", "id": "a" * 64}
    assert not os.get_inheritable(fds[0])
    os.write(fds[0], b"x")
    assert os.read(r, 1) == b"x"
    for fd in (r, w, *fds):
        os.close(fd)
    ours.close()
    assert channel.receive(theirs) == (None, [])
    theirs.close()


@pytest.mark.parametrize("data", [b"{", b"[]", b'"x"', b"\xff", b"[" * 50_000, b"x" * (channel.MAX_MESSAGE + 1)])
def test_what_is_no_object_is_refused_and_its_descriptors_are_closed(data: bytes) -> None:
    ours, theirs = channel.pair()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(ours, [data], [ours.fileno()])
    with pytest.raises(channel.Malformed):
        channel.receive(theirs)
    assert len(os.listdir("/proc/self/fd")) == before
    ours.close()
    theirs.close()
