"""Content that goes from a file to the device without passing through this process: splice(2), by way of a pipe.

The answer's header goes into the pipe first, and has to say how long it all is; so the size of the file is asked for
before. If fewer bytes come all the same, the pipe is emptied and the caller answers another way.
"""

import errno
import fcntl
import os

from fuse import wire

_CAPACITY = 1 << 20  # bytes, of which a page is taken by the header


class Pipe:
    """A pipe to the device *device_fd*."""

    def __init__(self, device_fd: int) -> None:
        self._device = device_fd
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._room = fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _CAPACITY) - 2 * 4096
        except OSError:
            self._room = 65536 - 2 * 4096  # the user has too many pipes that are large

    def answer(self, unique: int, fd: int, offset: int, size: int) -> bool:
        """Answer with *size* bytes of the file *fd* from *offset* on; False if that is not possible this way."""
        size = min(size, os.fstat(fd).st_size - offset)
        if not 0 < size <= self._room:
            return False
        os.write(self._in, wire.ANSWER.pack(wire.ANSWER.size + size, 0, unique))
        left = size
        while left:
            try:
                done = os.splice(fd, self._in, left, offset_src=offset + size - left)
            except OSError:
                done = 0
            if not done:
                self._empty()
                return False
            left -= done
        self._send(wire.ANSWER.size + size)
        return True

    def _empty(self) -> None:
        try:
            while os.read(self._out, _CAPACITY):
                pass
        except BlockingIOError:
            pass

    def _send(self, length: int) -> None:
        try:
            done = os.splice(self._out, self._device, length)
        except OSError:
            self._empty()
            raise
        if done != length:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
