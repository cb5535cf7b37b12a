"""Volumes: named directories that outlive containers."""

import os
import re
from typing import Any, NamedTuple

from rootless.errors import Conflict, InvalidInput, NotFound
from rootless.linux.files import make_directory
from rootless.store.layout import Layout, load_record, save_record

# moby: volume/names
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


class Volume(NamedTuple):
    """A volume."""

    name: str
    created: str  # RFC 3339
    labels: dict[str, str]
    options: dict[str, str]
    anonymous: bool
    mountpoint: str


class Volumes:
    """The volumes of a store."""

    __slots__ = ("_layout",)

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def _directory(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{name!r} includes invalid characters for a local volume name, only [a-zA-Z0-9][a-zA-Z0-9_.-] are"
                " allowed; to mount a host directory, give an absolute path"
            )
        return self._layout.path("volumes", name)

    def create(
        self, name: str, created: str, *, labels: dict[str, str], options: dict[str, str], anonymous: bool
    ) -> Volume:
        """The volume of that name, made if it is not there. Hold the lock "volumes"."""
        directory = self._directory(name)
        if not os.path.exists(directory):
            staged = self._layout.aside()
            os.mkdir(staged, 0o700)
            make_directory(os.path.join(staged, "data"), 0o755)
            record: dict[str, Any] = {"created": created, "labels": labels, "options": options, "anonymous": anonymous}
            save_record(os.path.join(staged, "volume.json"), record)
            os.rename(staged, directory)
        return self.load(name)

    def load(self, name: str) -> Volume:
        """Raises NotFound."""
        directory = self._directory(name)
        try:
            record = load_record(os.path.join(directory, "volume.json"))
        except FileNotFoundError:
            raise NotFound(f"no such volume: {name}") from None
        return Volume(name, mountpoint=self.place(name), **record)

    def place(self, name: str) -> str:
        """Where the content of a volume of that name is, or would be. Raises InvalidInput for what is no name."""
        return os.path.join(self._directory(name), "data")

    def list(self) -> list[Volume]:
        """All volumes by name."""
        found = []
        for name in sorted(os.listdir(self._layout.path("volumes"))):
            try:
                found.append(self.load(name))
            except NotFound:
                continue
        return found

    def remove(self, name: str) -> None:
        """Remove a volume that nobody uses. Hold the lock "volumes". Raises NotFound."""
        self.load(name)
        try:
            self._layout.discard(self._directory(name))
        except OSError as error:
            raise Conflict(f"volume {name} cannot be removed entirely: {error}") from error
