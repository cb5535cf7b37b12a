"""Layers, unpacked: one directory per chain_id, made aside and renamed when it is complete."""

import os
from contextlib import suppress
from typing import Any, NamedTuple

from rootless.linux.files import make_directory
from rootless.spec.digest import ChainID, DiffID
from rootless.store.layout import Layout, load_record, remove_path, save_record


class Layer(NamedTuple):
    """A layer that is complete."""

    chain_id: ChainID
    diff_id: DiffID
    parent: ChainID | None
    size: int  # bytes of the files' content
    diff: str  # the directory, a lower of overlayfs


def layer_lock(chain_id: ChainID) -> str:
    """The name of the lock that is held shared while a layer is used without a record that names it."""
    return f"layer.{chain_id.partition(':')[2]}"


class Layers:
    """The layers of a store."""

    __slots__ = ("_layout",)

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def directory(self, chain_id: ChainID) -> str:
        """Where the layer is, or would be."""
        return self._layout.path("layers", chain_id.partition(":")[2])

    def diff(self, chain_id: ChainID) -> str:
        """The directory with the layer's files."""
        return os.path.join(self.directory(chain_id), "diff")

    def has(self, chain_id: ChainID) -> bool:
        """Whether the layer is here, complete."""
        return os.path.exists(self.directory(chain_id))

    def load(self, chain_id: ChainID) -> Layer:
        """Raises FileNotFoundError."""
        record = load_record(os.path.join(self.directory(chain_id), "layer.json"))
        return Layer(chain_id, record["diff_id"], record["parent"], record["size"], self.diff(chain_id))

    def stage(self) -> str:
        """A new directory with an empty `diff`, for a layer to be unpacked into. It lies in the trash until it is
        committed, so that a kill leaves nothing that anybody believes in."""
        path = self._layout.aside()
        os.mkdir(path, 0o700)
        make_directory(os.path.join(path, "diff"), 0o755)
        return path

    def commit(self, staged: str, chain_id: ChainID, record: dict[str, Any]) -> None:
        """Give the unpacked layer its name. Hold the lock of the layer. The caller has synced its content."""
        save_record(os.path.join(staged, "layer.json"), record)
        os.rename(staged, self.directory(chain_id))

    def abandon(self, staged: str) -> None:
        """Remove what stage() made, if it was not committed; what cannot be removed stays in the trash."""
        with suppress(OSError):
            remove_path(staged)

    def remove(self, chain_id: ChainID) -> None:
        """Remove the layer. Hold its lock."""
        self._layout.discard(self.directory(chain_id))

    def list(self) -> list[ChainID]:
        """All that are complete."""
        return [ChainID(f"sha256:{name}") for name in os.listdir(self._layout.path("layers"))]
