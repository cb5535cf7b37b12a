"""Receiving requests from /dev/fuse, one after the other."""

import errno
import os
import select

_SIZE = (1 << 20) + 4096  # what the longest request has, and a header
_TRIES = 25  # to receive a request, before this process sleeps; 1 µs each


class Stopped(Exception):
    """Whoever waited for a request is to end."""


class Device:
    """The device *fd*. What comes is in `buffer`, until the next request does."""

    __slots__ = ("_buffers", "_idle", "_poll", "_tries", "buffer", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.buffer = bytearray(_SIZE)
        self._buffers = [self.buffer]
        self._idle = False
        self._tries = _TRIES if len(os.sched_getaffinity(0)) > 1 else 0
        os.set_blocking(fd, False)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._poll = poll.poll

    def stop(self) -> None:
        """Raise Stopped in `receive`, if it waits. To be called from a signal handler, repeatedly."""
        if self._idle:
            raise Stopped

    def receive(self) -> int:
        """The length of the next request; negative when the file system is unmounted.

        Whoever gets an answer often has the next request at once. To look for it a few times more takes less than to
        be put to sleep and woken up.
        """
        tries = self._tries
        while True:
            try:
                return os.readv(self.fd, self._buffers)
            except BlockingIOError:
                tries -= 1
                if tries < 0:
                    self._idle = True
                    self._poll()
                    self._idle = False
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return -1
                if error.errno not in (errno.EINTR, errno.ENOENT):
                    raise
