"""Projects of compose in a directory of their own."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.containers import Box, Done

STAYS = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


class Project:
    """A directory with Compose files, and the commands for it."""

    def __init__(self, box: Box, directory: Path) -> None:
        self.box, self.directory = box, directory

    def write(self, text: str, name: str = "compose.yaml") -> None:
        """Put a file there; IMAGE and STAYS in it are the image, and a program that runs until it is stopped."""
        text = text.replace("IMAGE", self.box.image).replace("STAYS", json.dumps(["sh", "-c", STAYS]))
        (self.directory / name).write_text(text)

    def words(self, *args: str) -> tuple[str, ...]:
        return ("compose", "--project-directory", str(self.directory), "-p", "p", *args)

    def __call__(self, *args: str, check: bool = True) -> Done:
        return self.box(*self.words(*args), check=check)

    def start(self, *args: str) -> "subprocess.Popen[bytes]":
        return self.box.start(*self.words(*args))

    def containers(self) -> dict[str, dict[str, Any]]:
        """Name -> row of `ps -a`."""
        lines = self("ps", "-a", "--format", "json").stdout.splitlines()
        return {row["Name"]: row for row in map(json.loads, lines)}

    def labels(self, name: str) -> dict[str, str]:
        labels: dict[str, str] = self.box.inspect(name)["Config"]["Labels"]
        return labels

    def id(self, name: str) -> str:
        return str(self.box.inspect(name)["Id"])
