"""linux/processes.py: a process that was written down is found again, and no other in its place."""

import os
import subprocess

from rootless.linux.processes import open_of_process, start_time


def test_something_of_a_process_is_opened_only_while_it_is_that_process() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            started = start_time(child.pid)
            fd = open_of_process(child.pid, started, "root", os.O_RDONLY | os.O_DIRECTORY)
            assert fd is not None
            assert os.path.samestat(os.fstat(fd), os.stat("/"))
            assert not os.get_inheritable(fd)
            os.close(fd)
            before = os.listdir("/proc/self/fd")
            assert open_of_process(child.pid, started + 1, "root", os.O_RDONLY) is None
            assert os.listdir("/proc/self/fd") == before
        finally:
            child.kill()
    assert open_of_process(child.pid, started, "root", os.O_RDONLY) is None
