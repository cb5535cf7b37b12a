"""Defences that others stand before: what holds even if those were gone. (SECURITY.md X03, X05, P02)"""

import codecs
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rootless.errors import HostUnsupported
from rootless.runtime import init, rootfs
from tests.support.userns import in_namespace

IMPORT = """
from rootless.runtime.isolation import no_more_imports
no_more_imports()
try:
    import wave
except ImportError:
    print("refused")
"é".encode("latin-1").decode("utf-8", "replace").encode("ascii", "replace")
"""


def test_after_the_point_of_no_return_nothing_can_be_imported() -> None:  # P02, X10
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


@pytest.mark.kernel
def test_a_directory_outside_of_the_root_is_no_working_directory(tmp_path: Path) -> None:  # X03, CVE-2024-21626
    (tmp_path / "root").mkdir()

    def enter() -> str:
        codecs.lookup("ascii")  # for the answer
        outside_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        os.chroot(tmp_path / "root")
        os.fchdir(outside_fd)
        try:
            init._change_directory(".")  # what /proc/self/fd/N would be
        except Exception as error:
            return str(error)
        return "entered"

    assert in_namespace(enter) != "entered"


def test_what_is_not_the_device_that_it_is_called_is_not_bound(tmp_path: Path) -> None:  # X05, CVE-2025-31133
    (tmp_path / "null").touch()
    (tmp_path / "link").symlink_to("/dev/null")
    for path, number in (
        *((str(tmp_path / "null"), None), (str(tmp_path / "link"), (1, 3)), (str(tmp_path), None)),
        *(("/dev/zero", (1, 3)), ("/dev/null", (1, 5))),
    ):
        with pytest.raises(HostUnsupported):
            rootfs._open_device(path, number)
    os.close(rootfs._open_device("/dev/null", (1, 3)))
