"""What a build is made from: its contexts, the Dockerfile, and .dockerignore.

    PATH               a directory, read where it is and by descriptor
    -                  standard input: a tar archive that is the context, or a Dockerfile with no context
    http(s)://…        a tar archive or a Dockerfile that is fetched; or, where it names a repository, cloned by git
    docker-image://…   an image, for --build-context; oci-layout://… likewise, in a directory (build_layout.py)

A link in a context never leads out of it, that of the Dockerfile and .dockerignore themselves included (B01). A
Dockerfile that is named with -f may be anywhere, since the user has named it.
"""

import os
import sys
from collections.abc import Callable
from typing import NamedTuple, cast

from rootless.dockerfile.ignore import Patterns
from rootless.engine import build_archive, build_fetch
from rootless.engine.build_options import BuildOptions
from rootless.engine.build_source import Excluding, Source, context_source
from rootless.engine.build_ssh import Agents
from rootless.engine.build_tree import Directory, find, read_file
from rootless.errors import InvalidInput, NotFound
from rootless.store.build_cache import BuildCache
from rootless.store.layer_stream import Between, Readable

MAX_DOCKERFILE = 16 << 20  # bytes
_HEAD = 512
STDIN = "-"


class Prepared(NamedTuple):
    """The build context, and the Dockerfile."""

    source: Source
    dockerfile: bytes
    name: str  # of the Dockerfile, in messages
    commit: str = ""  # of a repository


def prepare(options: BuildOptions, cache: BuildCache, aside: Callable[[], str], agents: Agents) -> Prepared:
    """Open the context. Raises NotFound, InvalidInput. What is fetched lies in directories that *aside* makes."""
    if options.context == STDIN:
        return _from_stdin(options, cache, aside)
    if build_fetch.is_git(options.context):
        directory, commit = fetched_repository(options.context, aside, agents)
        return _from_directory(directory, options, cache, is_local=False)._replace(commit=commit)
    if build_fetch.is_url(options.context):
        return _from_file(build_fetch.download(options.context, aside()).path, options, cache, aside)
    return _from_directory(options.context, options, cache, is_local=True)


def fetched_repository(text: str, aside: Callable[[], str], agents: Agents) -> tuple[str, str]:
    """Where the directory of a repository that *text* names was fetched to; and the commit.

    The user has named the repository, and it is fetched as the user; what its submodules are, it says itself: they get
    at no keys but those of --ssh.
    """
    repository = build_fetch.parse_git(text)
    target = os.path.join(aside(), "repository")
    of_submodules = build_fetch.ssh_of_agent(agents.socket("default"))
    commit = build_fetch.clone(repository, target, build_fetch.ssh_of_user(), of_submodules)
    return build_fetch.subdirectory_of(target, repository.subdirectory), commit


def _from_stdin(options: BuildOptions, cache: BuildCache, aside: Callable[[], str]) -> Prepared:
    if options.dockerfile == STDIN:
        raise InvalidInput("invalid argument: can't use stdin for both build context and dockerfile")
    return _from_stream(cast(Readable, sys.stdin.buffer), "stdin", options, cache, aside)


def _from_file(path: str, options: BuildOptions, cache: BuildCache, aside: Callable[[], str]) -> Prepared:
    with open(path, "rb") as file:
        return _from_stream(file, options.context, options, cache, aside)


def _from_stream(
    stream: Readable, name: str, options: BuildOptions, cache: BuildCache, aside: Callable[[], str]
) -> Prepared:
    """A context that is an archive, or a Dockerfile with an empty one."""
    head = b""
    while len(head) < _HEAD and (piece := stream.read(_HEAD - len(head))):
        head += piece
    replayed = Between(head, stream)
    target = os.path.join(aside(), "context")
    if build_archive.looks_compressed(head) or build_archive.is_tar(head):
        build_archive.unpack(replayed, target)
        return _from_directory(target, options, cache, is_local=False)
    os.mkdir(target, 0o755)
    content = bytearray()
    while piece := replayed.read(1 << 20):
        content += piece
        if len(content) > MAX_DOCKERFILE:
            raise InvalidInput(f"{name}: neither a tar archive nor a Dockerfile")
    source = context_source(target, cache, lambda root: None)
    return Prepared(source, bytes(content), "Dockerfile")


def _from_directory(place: str, options: BuildOptions, cache: BuildCache, *, is_local: bool) -> Prepared:
    found: list[tuple[bytes, str]] = []

    def patterns(root: Directory) -> Excluding | None:
        found.append(_dockerfile(root, place, options, is_local=is_local))
        return ignore_patterns(root, found[0][1])

    source = context_source(place, cache, patterns)
    content, path = found[0]
    return Prepared(source, content, os.path.basename(path) or "Dockerfile")


def _dockerfile(root: Directory, place: str, options: BuildOptions, *, is_local: bool) -> tuple[bytes, str]:
    """The Dockerfile, and its path in the context; "" where it is not there."""
    given = options.dockerfile
    if given == STDIN:
        return sys.stdin.buffer.read(MAX_DOCKERFILE), ""
    if given and build_fetch.is_url(given):
        raise InvalidInput(f"-f {given}: a Dockerfile is not fetched from a URL")
    if given and is_local:
        relative = os.path.relpath(os.path.abspath(given), os.path.abspath(place))
        if relative.startswith("../"):
            return _read_own(given), ""
        given = relative
    for name in (given,) if given else ("Dockerfile", "dockerfile"):
        content = _read(root, name)
        if content is not None:
            return content, name
    raise NotFound(
        f"failed to read dockerfile: open {given or 'Dockerfile'}: no such file or directory",
        hint="name it with -f, or name the directory that it is in",
    )


def _read(root: Directory, path: str) -> bytes | None:
    """A file of the context. Raises InvalidInput for a link that leads out of it."""
    content = read_file(root, path, MAX_DOCKERFILE)
    if content is None:
        try:
            with find(root, path, follow=False) as found:
                if found.entry and found.entry.is_link:
                    raise InvalidInput(f"{path} is a link that leads to no file in the build context")
                if found.is_directory:
                    raise InvalidInput(f"{path} is a directory")
        except NotADirectoryError:
            return None
    return content


def _read_own(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_DOCKERFILE)
    except FileNotFoundError:
        raise NotFound(f"failed to read dockerfile: open {path}: no such file or directory") from None
    except OSError as error:
        raise InvalidInput(f"failed to read dockerfile: open {path}: {error.strerror}") from error


def ignore_patterns(root: Directory, dockerfile: str) -> Patterns | None:
    """NAME.dockerignore beside the Dockerfile, or .dockerignore; None where there is neither, or nothing in it."""
    for path in (f"{dockerfile}.dockerignore" if dockerfile else "", ".dockerignore"):
        content = _read(root, path) if path else None
        if content is not None:
            return Patterns.parse(content.decode("utf-8", "surrogateescape"), path) or None
    return None
