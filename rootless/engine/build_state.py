"""What a stage has come to so far: its layers, the image config, the history.

The config is the JSON object of image-spec config.md, whose base's unknown members are kept. Its history is complete
but for the times: a step that makes a layer has the time when that was made first, so that a build that finds all its
steps done makes the very same image; the others get theirs when the image is made (build_image.py).
"""

import copy
from typing import Any, NamedTuple

from rootless.engine.create import DEFAULT_PATH
from rootless.engine.layer_new import NewLayer
from rootless.spec.digest import ChainID, Digest
from rootless.spec.platform import Platform
from rootless.store.images import Image

Document = dict[str, Any]
COMMENT = "rootless"
SCRATCH: Document = {"config": {"Env": [DEFAULT_PATH], "WorkingDir": "/"}}  # what BuildKit begins with, too


class Made(NamedTuple):
    """A layer that the build made or found made, and when that was."""

    layer: NewLayer
    created: str


class Stage:
    """One stage while it is built. *document* is the config of the image below it, empty for scratch."""

    def __init__(self, image: Image | None, document: Document, platform: Platform) -> None:
        self.image = image
        self.document = copy.deepcopy(document)
        self.platform = platform
        self.layers: list[ChainID] = list(image.layers) if image else []
        self.made: list[Made] = []
        self.history: list[Document] = []  # of this build; without `created` where no layer was made
        self.config: Document = self.document.get("config") or {}

    def branch(self) -> "Stage":
        """A stage that begins where this one has ended."""
        other = Stage(self.image, self.document, self.platform)
        other.config = copy.deepcopy(self.config)
        other.layers = list(self.layers)
        other.made = list(self.made)
        other.history = copy.deepcopy(self.history)
        return other

    @property
    def top(self) -> ChainID | None:
        """The uppermost layer; None where there is none."""
        return self.layers[-1] if self.layers else None

    @property
    def fixed(self) -> str:
        """What stands for all files of the stage."""
        return self.top or "scratch"

    @property
    def base_id(self) -> Digest | str:
        return self.image.id if self.image else "scratch"

    def add_layer(self, made: Made | None, created_by: str) -> None:
        """A step is done; None: it changed no file."""
        if made is None:
            self.note(created_by)
            return
        self.layers.append(made.layer.chain_id)
        self.made.append(made)
        self.history.append({"created": made.created, "created_by": created_by, "comment": COMMENT})

    def squash(self, made: Made) -> None:
        """*made* takes the place of all layers of the build."""
        self.layers = [*self.layers[: len(self.layers) - len(self.made)], made.layer.chain_id]
        self.made = [made]
        last = max(number for number, row in enumerate(self.history) if "created" in row)
        for number, row in enumerate(self.history):
            if "created" in row and number != last:
                row["empty_layer"] = True

    def note(self, created_by: str) -> None:
        """A step changed the config alone."""
        self.history.append({"created_by": created_by, "comment": COMMENT, "empty_layer": True})

    # The config. Go's names are those of the specification.

    @property
    def environment(self) -> dict[str, str]:
        """ENV, in order."""
        return dict(entry.partition("=")[::2] for entry in self.config.get("Env") or () if "=" in entry)

    def set_environment(self, name: str, value: str) -> None:
        entries = list(self.config.get("Env") or ())
        for number, entry in enumerate(entries):
            if entry.partition("=")[0] == name:
                entries[number] = f"{name}={value}"
                break
        else:
            entries.append(f"{name}={value}")
        self.config["Env"] = entries

    @property
    def working_directory(self) -> str:
        return str(self.config.get("WorkingDir") or "/")

    @property
    def user(self) -> str:
        return str(self.config.get("User") or "")

    @property
    def shell(self) -> list[str]:
        return list(self.config.get("Shell") or ("/bin/sh", "-c"))

    def set(self, member: str, value: Any) -> None:
        """Set a member of the config; None takes it away."""
        if value is None:
            self.config.pop(member, None)
        else:
            self.config[member] = value

    def add_names(self, member: str, names: list[str]) -> None:
        """Add to a set of names, as ExposedPorts and Volumes are."""
        self.config[member] = dict(sorted({**(self.config.get(member) or {}), **{name: {} for name in names}}.items()))

    def add_labels(self, labels: dict[str, str]) -> None:
        self.config["Labels"] = {**(self.config.get("Labels") or {}), **labels}
