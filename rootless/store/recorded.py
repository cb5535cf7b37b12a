"""What the files of a layer should be and could not be made here: owners that are not mapped, devices, attributes.

A file `recorded.jsonl` beside the layer's `diff`, a JSON object a line; paths and attributes are base64, as they need
not be text. Push, save and commit put this back into the layer.
"""

import base64
import json
import os
from collections.abc import Iterable, Sequence

from rootless.store.settle import Moved
from rootless.store.unpack import Recorded

NAME = "recorded.jsonl"


def write_recorded(directory: str, recorded: Iterable[Recorded]) -> None:
    """Write the records of the layer in *directory*."""
    with open(os.path.join(directory, NAME), "w", encoding="ascii") as file:
        for entry in recorded:
            file.write(json.dumps(_to_json(entry), separators=(",", ":")) + "\n")


def read_recorded(directory: str) -> list[Recorded]:
    """The records of the layer in *directory*; none where there is no such file."""
    try:
        with open(os.path.join(directory, NAME), encoding="ascii") as file:
            return [_from_json(json.loads(line)) for line in file]
    except FileNotFoundError:
        return []


def move_recorded(directory: str, moved: Sequence[Moved]) -> None:
    """Let the records speak of where things are after settling."""
    if not moved:
        return
    recorded = read_recorded(directory)
    if recorded:
        write_recorded(directory, [entry._replace(path=_moved(entry.path, moved)) for entry in recorded])


def _moved(path: bytes, moved: Sequence[Moved]) -> bytes:
    for old, new in moved:
        if path == old or path.startswith(old + b"/"):
            path = (new + path[len(old) :]).lstrip(b"/")
    return path


def _to_json(entry: Recorded) -> dict[str, object]:
    return {
        "path": _encoded(entry.path),
        "uid": entry.uid,
        "gid": entry.gid,
        "mode": entry.mode,
        "device": entry.device,
        "xattrs": [[_encoded(name), _encoded(value)] for name, value in entry.xattrs],
    }


def _from_json(fields: dict[str, object]) -> Recorded:
    decode = base64.b64decode
    path, uid, gid, mode, device, xattrs = (fields[name] for name in Recorded._fields)
    return Recorded(
        decode(str(path)),
        int(str(uid)),
        int(str(gid)),
        int(str(mode)),
        (device[0], device[1]) if isinstance(device, list) else None,
        tuple((decode(name), decode(value)) for name, value in xattrs) if isinstance(xattrs, list) else (),
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
