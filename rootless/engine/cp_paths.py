"""Where `cp` puts what: Docker's rules, as pure functions of what is there. (Docker's manual, `docker cp`.)"""

import posixpath
from typing import NamedTuple

from rootless.errors import InvalidInput, NotFound

STREAM = "-"


class Place(NamedTuple):
    """One side of a copy: a path of the container, or of this machine where *container* is empty."""

    container: str
    path: str


class Placement(NamedTuple):
    """The directory to write into, and the name there; "" where the content of the source goes right into it."""

    directory: str
    name: str


def parse_place(text: str) -> Place:
    """CONTAINER:PATH, or a path here: one that is absolute, has no colon, or begins with a dot."""
    container, colon, path = text.partition(":")
    if text.startswith("/") or not colon or container.startswith("."):
        return Place("", text)
    return Place(container, path)


def check_places(source: Place, target: Place) -> None:
    """Raise InvalidInput unless exactly one side is a container."""
    if source.container and target.container:
        raise InvalidInput(
            "copying between containers is not supported",
            hint="pipe it: rootless cp A:/path - | rootless cp - B:/directory",
        )
    if not source.container and not target.container:
        raise InvalidInput("must specify at least one container source", hint="write CONTAINER:PATH")
    for what, place in (("source", source), ("destination", target)):
        if not place.path:
            raise InvalidInput(f"{what} can not be empty")


def means_content(path: str) -> bool:
    """Whether a source stands for what is in the directory rather than for the directory: `dir/.`, `.`, `/`."""
    return path in (".", "") or path.endswith("/.") or not base_of(path)


def asserts_directory(path: str) -> bool:
    """Whether a path says that it is a directory."""
    return path == "." or path.endswith(("/", "/."))


def base_of(path: str) -> str:
    """The last name in *path*; "" for a root. `a/b/..` is called `a`."""
    return posixpath.basename(posixpath.normpath("/" + path))


def absolute(path: str, directory: str) -> str:
    """*path* from *directory*; what its end says of it is kept, as `x/.` is another source than `x`."""
    end = "/." if path == "." or path.endswith("/.") else "/" if path.endswith("/") else ""
    return posixpath.normpath(posixpath.join(directory, path)) + end


def place(source: str, source_is_directory: bool, target: str, target_is_directory: bool | None) -> Placement:
    """Where the source goes, given what is at *target*: a directory, something else (False), or nothing (None).

    Raises InvalidInput, NotFound with Docker's words where that cannot be.
    """
    content = source_is_directory and means_content(source)
    if target_is_directory:
        return Placement(target, "" if content else base_of(source))
    if target_is_directory is False and source_is_directory:
        raise InvalidInput("cannot copy directory", hint=f"{target} is a file")
    if target_is_directory is False and asserts_directory(target):
        raise InvalidInput("not a directory", hint=f"{target} is a file")
    if target_is_directory is None and not source_is_directory and asserts_directory(target):
        raise NotFound("no such directory", hint=f"{target} has to exist")
    whole = target.rstrip("/") if not target.endswith("/.") else target[:-2].rstrip("/")
    directory, _, name = whole.rpartition("/")
    return Placement(directory or ("/" if target.startswith("/") else "."), name)
