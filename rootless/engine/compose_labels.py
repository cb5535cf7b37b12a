"""What marks containers, networks and volumes as a project's: labels, the same as docker compose's; and finding them.

Nothing else is recorded of a project. Other programs read these labels as well.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rootless import __version__
from rootless.compose.records import Project, Service
from rootless.engine.context import Engine
from rootless.engine.listing import Listed, list_containers
from rootless.store.networks import Network
from rootless.store.volumes import Volume

PREFIX = "com.docker.compose."
PROJECT = f"{PREFIX}project"
SERVICE = f"{PREFIX}service"
NUMBER = f"{PREFIX}container-number"
HASH = f"{PREFIX}config-hash"
ONEOFF = f"{PREFIX}oneoff"
DEPENDS_ON = f"{PREFIX}depends_on"
IMAGE = f"{PREFIX}image"
VERSION = f"{PREFIX}version"
CONFIG_FILES = f"{PREFIX}project.config_files"
WORKING_DIR = f"{PREFIX}project.working_dir"
ENVIRONMENT_FILE = f"{PREFIX}project.environment_file"
NETWORK = f"{PREFIX}network"
VOLUME = f"{PREFIX}volume"
REPLACE = f"{PREFIX}replace"
SLUG = f"{PREFIX}slug"


class Member(NamedTuple):
    """A container of a project."""

    listed: Listed

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.listed.record["id"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.listed.record["name"])

    @property
    def labels(self) -> Mapping[str, str]:
        """All its labels."""
        labels: Mapping[str, str] = self.listed.record["labels"]
        return labels

    @property
    def service(self) -> str:
        """The service that it is of."""
        return self.labels.get(SERVICE, "")

    @property
    def number(self) -> int:
        """Its number among the containers of the service."""
        text = self.labels.get(NUMBER, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1

    @property
    def is_oneoff(self) -> bool:
        """Whether `compose run` has made it."""
        return self.labels.get(ONEOFF, "").lower() == "true"

    @property
    def status(self) -> str:
        """created, running, paused, restarting, exited or dead."""
        return str(self.listed.state["status"])

    @property
    def is_live(self) -> bool:
        """Whether it runs, is paused, or is about to run again."""
        return self.listed.is_live

    @property
    def health(self) -> str:
        """starting, healthy, unhealthy, or "" where nobody checks."""
        return str((self.listed.state.get("health") or {}).get("Status", ""))

    @property
    def exit_code(self) -> int:
        """How it ended last."""
        return int(self.listed.state["exit_code"])

    @property
    def depends_on(self) -> dict[str, tuple[str, bool]]:
        """Service -> condition, and whether this one is to start again with it."""
        found = {}
        for entry in self.labels.get(DEPENDS_ON, "").split(","):
            name, _, rest = entry.partition(":")
            condition, _, restart = rest.partition(":")
            if name:
                found[name] = (condition or "service_started", restart == "true")
        return found


def members(engine: Engine, project: str) -> list[Member]:
    """The containers of a project, by service and number."""
    found = [Member(listed) for listed in list_containers(engine) if listed.record["labels"].get(PROJECT) == project]
    return sorted(found, key=lambda member: (member.service, member.number, member.name))


def of_service(found: Iterable[Member], service: str, *, oneoff: bool = False) -> list[Member]:
    """Those of one service, by number."""
    return [member for member in found if member.service == service and member.is_oneoff == oneoff]


def networks_of(engine: Engine, project: str) -> list[Network]:
    """The networks that were made for a project."""
    return [network for network in engine.networks.list() if network.labels.get(PROJECT) == project]


def volumes_of(engine: Engine, project: str) -> list[Volume]:
    """The volumes that were made for a project."""
    return [volume for volume in engine.volumes.list() if volume.labels.get(PROJECT) == project]


def container_labels(
    project: Project, service: Service, number: int, config_hash: str, image_id: str
) -> dict[str, str]:
    """The labels of a container of a service."""
    depends_on = ",".join(
        f"{name}:{dependency.condition}:{str(dependency.restart).lower()}"
        for name, dependency in service.depends_on.items()
    )
    labels = {
        **service.labels,
        PROJECT: project.name,
        SERVICE: service.name,
        VERSION: __version__,
        ONEOFF: "False",
        NUMBER: str(number),
        HASH: config_hash,
        DEPENDS_ON: depends_on,
        IMAGE: image_id,
        CONFIG_FILES: ",".join(project.files),
        WORKING_DIR: project.directory,
    }
    if project.environment_files:
        labels[ENVIRONMENT_FILE] = ",".join(project.environment_files)
    return labels
