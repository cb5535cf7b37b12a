"""Requests that are for pyfuse3: passed on to libfuse through a socket, and the answers back to the kernel.

INIT is one of them. Its answer is amended: so that the kernel takes setuid bits from files without asking for
attributes at each write, and leaves the umask to the system, which knows about default ACLs.
"""

import errno
import os

from fuse import wire
from fuse.device import Device

_BACKGROUND, _CONGESTED = 64, 48  # requests that nobody waits for, at once


class Passing:
    """Between *device* and *channel_fd*, at the other end of which is libfuse."""

    def __init__(self, device: Device, channel_fd: int) -> None:
        self._device, self._channel = device, channel_fd
        self._opcode = 0  # of the request that is there
        self._offered = 0  # flags that the kernel knows

    def on(self, opcode: int, length: int) -> None:
        """Pass on the request that is in the device's buffer."""
        self._opcode = opcode
        if opcode == wire.INIT:
            self._offered = wire.INIT_IN.unpack_from(self._device.buffer, wire.HEADER.size)[3]
        request = memoryview(self._device.buffer)[:length]
        while request:
            request = request[os.write(self._channel, request) :]

    def back(self) -> None:
        """Pass back its answer, if there is one to come."""
        if not self._opcode:
            return
        answer = os.read(self._channel, 16)
        length = wire.ANSWER.unpack(answer)[0]
        while len(answer) < length:
            answer += os.read(self._channel, length - len(answer))
        if self._opcode == wire.INIT:
            answer = amended(answer, self._offered)
        self._opcode = 0
        try:
            os.write(self._device.fd, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


def amended(answer: bytes, offered: int) -> bytes:
    """libfuse's *answer* to INIT, with what it does not know or do otherwise. *offered*: what the kernel can do."""
    fields = list(wire.INIT_OUT.unpack_from(answer))
    if fields[1]:
        return answer
    wanted = wire.DONT_MASK | wire.HANDLE_KILLPRIV_V2 | wire.EXPLICIT_INVAL_DATA | wire.CACHE_SYMLINKS
    unwanted = wire.ATOMIC_O_TRUNC | wire.AUTO_INVAL_DATA | wire.HANDLE_KILLPRIV | wire.READDIRPLUS_AUTO
    fields[6] = (fields[6] | (wanted & offered)) & ~unwanted
    fields[7], fields[8] = _BACKGROUND, _CONGESTED
    return wire.INIT_OUT.pack(*fields) + answer[wire.INIT_OUT.size :]
