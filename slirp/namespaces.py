"""Network namespaces: making them, and doing something in one.

A network namespace is a thread's, not the process's (setns(2)), and a process that is root of a user namespace may
enter those that belong to it but not go back to the host's. So whatever has to happen in one is done by a thread that
ends with it. Sockets stay in the namespace where they were made, whoever uses them afterwards; /proc/sys/net shows the
namespace of the thread that looks. A namespace lives as long as something refers to it: a process, a socket, a
descriptor of /proc/PID/ns/net.
"""

import os
import threading
from collections.abc import Callable, Mapping

from slirp.syscalls import CLONE_NEWNET, setns, unshare

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")


def run_in(netns_fd: int, function: "Callable[[], T]") -> "T":
    """What *function* returns in the network namespace of *netns_fd*, or raises there."""

    def enter_and_run() -> "T":
        setns(netns_fd, CLONE_NEWNET)
        return function()

    return _in_a_thread(enter_and_run)


def start_in(netns_fd: int, function: "Callable[[], object]") -> None:
    """Have *function* done in the network namespace of *netns_fd*, without waiting for it.

    What it raises ends on standard error, with its traceback.
    """
    copy = os.dup(netns_fd)

    def enter_and_run() -> None:
        try:
            setns(copy, CLONE_NEWNET)
            function()
        finally:
            os.close(copy)

    threading.Thread(target=enter_and_run, name="namespace").start()


def new_network() -> int:
    """A descriptor of a fresh network namespace, whose loopback device is down as the kernel makes it."""
    return _in_a_thread(_unshare_and_open)


def write_sysctls(values: Mapping[str, str]) -> None:
    """Write files of /proc/sys/net, by their names below it, in the calling thread's namespace.

    What the kernel has no file for is left out: IPv6 or br_netfilter may not be there. Raises the OSError of the
    first that cannot be written, with its path.
    """
    for name, value in values.items():
        path = f"/proc/sys/net/{name}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            os.close(fd)


def _unshare_and_open() -> int:
    unshare(CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _in_a_thread(function: "Callable[[], T]") -> "T":
    """What *function* returns or raises in a thread of its own."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # handed to the caller below
            errors.append(error)

    thread = threading.Thread(target=run, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
