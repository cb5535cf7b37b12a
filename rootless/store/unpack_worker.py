"""A process that unpacks layers, one after the other, so that several cores work on an image.

Standard input: a JSON request a line, {"blob": path, "target": directory, "whiteouts": style}. Standard output: JSON
lines, {"done": bytes read of the blob} while it works, then {"diff_id", "size", "entries", "implicit", "marked",
"recorded", "squashed", "dropped_xattrs"} or {"error", "message"}. Paths in `implicit` and `marked` are base64, as names
in a layer need not be text. It ends with its input. It runs as root of the user's namespace, which its parent has
entered.
"""

import base64
import json
import os
import signal
import sys
from typing import Any

from rootless.errors import RootlessError
from rootless.linux import processes
from rootless.store.layer_stream import LayerStream
from rootless.store.recorded import write_recorded
from rootless.store.unpack import Ids, WhiteoutStyle, unpack_layer

_REPORT_BYTES = 4 << 20


class _Reported:
    """A file that tells how much of it was read."""

    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "rb", buffering=0)
        self._done = 0
        self._told = 0

    def readinto(self, buffer: memoryview, /) -> int | None:
        count = self._file.readinto(buffer)
        self._count(count or 0)
        return count

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size) or b""
        self._count(len(data))
        return data

    def _count(self, count: int) -> None:
        self._done += count
        if self._done - self._told >= _REPORT_BYTES:
            self._told = self._done
            _answer({"done": self._done})

    def close(self) -> None:
        self._file.close()


def main() -> None:
    """The worker's entry."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends its workers
    processes.prctl(processes.PR_SET_PDEATHSIG, 9)  # who goes on where a killed pull was may remove what it has left
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            _answer(_unpack(request["blob"], request["target"], WhiteoutStyle(request["whiteouts"])))
        except RootlessError as error:
            _answer({"error": type(error).__name__, "message": str(error)})
        except OSError as error:
            message = f"cannot unpack a layer: {error.strerror}: {error.filename}"
            _answer({"error": "RootlessError", "message": message, "errno": error.errno})


def _unpack(blob: str, target: str, style: WhiteoutStyle) -> dict[str, Any]:
    source = _Reported(os.open(blob, os.O_RDONLY | os.O_CLOEXEC))
    target_fd = os.open(os.path.join(target, "diff"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with LayerStream(source) as stream:
            unpacked = unpack_layer(stream, target_fd, whiteouts=style, ids=Ids.present())
            for _ in stream:
                pass  # the diff_id is of all bytes, those after the archive's end too
    finally:
        os.close(target_fd)
        source.close()
    if unpacked.recorded:
        write_recorded(target, unpacked.recorded)
    return {
        "diff_id": stream.diff_id,
        "size": unpacked.size,
        "entries": unpacked.entries,
        "implicit": [_encoded(path) for path in unpacked.implicit],
        "marked": [_encoded(path) for path in unpacked.marked],
        "recorded": len(unpacked.recorded),
        "squashed": unpacked.squashed,
        "dropped_xattrs": unpacked.dropped_xattrs,
    }


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _answer(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
