"""RUN --mount: from what the Dockerfile says to mounts of the step's container.

| type | what is mounted | what of it is in the step's key |
|---|---|---|
| bind | a path of the context, a stage or an image; what is written there goes away with the step | its content |
| cache | a directory of the store, under a digest of its id | its id and first content |
| tmpfs | an empty tmpfs | its size |
| secret | a file in the spawner's tmpfs, or a variable; never on the disk, never in a layer | its id |
| ssh | a socket in the spawner's tmpfs that leads to the user's agent | its id |

Paths are looked up inside their roots. Those of stages are in layers, which nobody changes; those of a context and of a
cache mount may be changed by others at any moment, so the spawner looks them up and binds what it has found.
"""

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from rootless.engine.build_container import directory_in_container
from rootless.engine.build_digest import key_of
from rootless.engine.build_options import Secret
from rootless.engine.build_source import Source
from rootless.engine.build_spawner import Spawner
from rootless.engine.build_ssh import Agents
from rootless.engine.build_tree import Directory, Entry, parts_of
from rootless.engine.build_write import Attributes, Writer, write_tree
from rootless.engine.context import Engine
from rootless.engine.storage import FUSE
from rootless.errors import InvalidInput, NotFound
from rootless.linux import files
from rootless.spec.runtime import Config, escape_overlay
from rootless.store.build_cache import BuildCache

MAX_SECRET = 500 << 10  # bytes, as in BuildKit
_MOUNT_ROOT = "/run/secrets/"


class Mount(NamedTuple):
    """One --mount, with all variables expanded."""

    type: str
    target: str = ""  # absolute; "" where the type has a usual one
    source: str = ""
    from_: str = ""  # a stage, image or context; "" for the build context
    read_only: bool = True
    id: str = ""
    sharing: str = "shared"
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int = 0
    required: bool = False
    variable: str = ""  # env= of a secret


class Planned:
    """What the mounts of one step come to."""

    def __init__(self) -> None:
        self.mounts: list[Config] = []
        self.files: list[dict[str, Any]] = []
        self.binds: list[dict[str, Any]] = []
        self.environment: list[str] = []
        self.held = ExitStack()  # what lasts until the step has ended

    def add_script(self, target: str, content: bytes, directory: str) -> None:
        """A program that stands in the Dockerfile, at *target*; *directory* is the step's in the spawner's tmpfs."""
        self.files.append({"path": "script", "mode": 0o755, "uid": 0, "gid": 0, "content": content})
        self.mounts.append(_bound(os.path.join(directory, "script"), target, read_only=True))


class Mounts:
    """Plans the mounts of a build's steps."""

    def __init__(
        self,
        engine: Engine,
        cache: BuildCache,
        spawner: Callable[[], Spawner],
        secrets: Sequence[Secret],
        agents: Agents,
    ) -> None:
        self._engine = engine
        self._cache = cache
        self._spawner = spawner
        self._secrets = {secret.id: secret for secret in secrets}
        self._agents = agents
        self.caches: dict[str, str] = {}  # the cache mounts of all steps, found or done: key and id

    def parts(self, mounts: Sequence[Mount], sources: Mapping[str, Source]) -> dict[str, str]:
        """What of the mounts decides on the result of the step."""
        parts: dict[str, str] = {}
        for mount in mounts:
            content = self._content(mount, sources)
            if mount.type == "cache":
                self.caches[cache_key(mount, content)] = mount.id or mount.target
            parts[f"mount:{target_of(mount)}"] = key_of(mount._replace(required=False), content)
        return parts

    def _content(self, mount: Mount, sources: Mapping[str, Source]) -> str:
        if mount.type == "bind" or (mount.type == "cache" and mount.from_):
            return sources[mount.from_].digest(mount.source or "/")
        return ""

    def plan(self, step: str, mounts: Sequence[Mount], sources: Mapping[str, Source], place: str) -> Planned:
        """The mounts of the step that is called *step* in the spawner's tmpfs; *place* is its directory on disk."""
        planned = Planned()
        kinds = {
            "bind": self._bind,
            "cache": self._cache_mount,
            "tmpfs": self._tmpfs,
            "secret": self._secret,
            "ssh": self._agent,
        }
        try:
            for number, mount in enumerate(mounts):
                kinds[mount.type](planned, mount, number, step, sources, place)
        except BaseException:
            planned.held.close()
            raise
        return planned

    # bind

    def _bind(
        self, planned: Planned, mount: Mount, number: int, step: str, sources: Mapping[str, Source], place: str
    ) -> None:
        source = sources[mount.from_]
        read_only = mount.read_only
        if source.place:
            self._bind_context(planned, mount, number, step, source, place, read_only)
            return
        if self._engine.storage_driver == FUSE:  # there may be no overlay to merge layers with
            copied, name = self._copied(source, mount.source or "/", place, number)
            planned.mounts.append(_bound(os.path.join(copied, name), mount.target, read_only=read_only))
            return
        with source.found(mount.source or "/") as found:
            if not found.is_directory and found.entry:
                path = os.readlink(f"/proc/self/fd/{found.entry.layer_fd}")  # a directory of a layer: it stays there
                planned.mounts.append(_bound(f"{path}/{found.entry.name}", mount.target, read_only=True))
                return
            layers = [os.readlink(f"/proc/self/fd/{fd}") for fd in found.here.fds]
        if len(layers) == 1 and read_only and not style_has_marks(layers[0]):
            planned.mounts.append(_bound(layers[0], mount.target, read_only=True))
            return
        planned.mounts.append(_overlay(layers, mount.target, place, number, read_only=read_only))

    def _bind_context(
        self,
        planned: Planned,
        mount: Mount,
        number: int,
        step: str,
        source: Source,
        place: str,
        read_only: bool,
    ) -> None:
        root, path = source.place, mount.source
        is_directory = source.is_directory(path or "/")
        # What .dockerignore leaves out is not there, and nothing is written to the user's own files.
        is_copied = bool(source.patterns)
        if not read_only and (not is_directory or self._engine.storage_driver == FUSE):
            is_copied = True
        if is_copied:
            root, path = self._copied(source, mount.source or "/", place, number)
        name = f"mount{number}"
        planned.binds.append({"root": root, "path": path, "name": name})
        bound = directory_in_container(self._spawner(), step, name)
        if read_only or is_copied:
            planned.mounts.append(_bound(bound, mount.target, read_only=read_only))
        else:
            planned.mounts.append(_overlay([bound], mount.target, place, number, read_only=False))

    def _copied(self, source: Source, path: str, place: str, number: int) -> tuple[str, str]:
        copy = os.path.join(place, f"copy{number}")
        files.make_directory(copy, 0o755)
        look = Attributes((0, 0)) if source.is_context else Attributes(None, None, True)
        with source.found(path) as found:
            if found.is_directory:
                write_tree(copy, found.here, look)
                return copy, ""
            name = parts_of(path)[-1]
            if found.entry:
                _copy_file(copy, name, found.here, found.entry, look)
            return copy, name

    # cache

    def _cache_mount(
        self, planned: Planned, mount: Mount, number: int, step: str, sources: Mapping[str, Source], place: str
    ) -> None:
        content = self._content(mount, sources)
        key = self._hold_cache(planned, mount, cache_key(mount, content))
        fill = (lambda directory: self._fill(sources[mount.from_], mount, directory)) if mount.from_ else None
        mode = 0o755 if mount.mode is None else mount.mode
        data = self._cache.open_mount(key, mount.id or mount.target, fill, mode, (mount.uid, mount.gid))
        source = data
        if not mount.from_ and parts_of(mount.source):
            name = f"mount{number}"
            planned.binds.append({"root": data, "path": mount.source, "name": name, "make": "1"})
            source = directory_in_container(self._spawner(), step, name)
        planned.mounts.append(_bound(source, mount.target, read_only=mount.read_only))

    def _fill(self, source: Source, mount: Mount, directory: str) -> None:
        with source.found(mount.source or "/") as found:
            if not found.is_directory:
                raise InvalidInput(f"cache mount {mount.target}: {mount.source} is not a directory")
            write_tree(directory, found.here, Attributes((0, 0) if source.is_context else None))

    def _hold_cache(self, planned: Planned, mount: Mount, key: str) -> str:
        """Lock the cache for the step, as its sharing mode says: a private one that is in use is another one then."""
        if mount.sharing == "shared":
            planned.held.enter_context(self._cache.lock_mount(key, shared=True))
            return key
        if mount.sharing == "locked":
            planned.held.enter_context(self._cache.lock_mount(key, shared=False))
            return key
        candidate, number = key, 0
        while True:
            try:
                planned.held.enter_context(self._cache.lock_mount(candidate, shared=False, blocking=False))
                return candidate
            except BlockingIOError:
                number += 1
                candidate = key_of("private", key, number)

    # tmpfs, secret, ssh

    def _tmpfs(
        self, planned: Planned, mount: Mount, number: int, step: str, sources: Mapping[str, Source], place: str
    ) -> None:
        size = [f"size={mount.size}"] if mount.size else []
        options = ["nosuid", "nodev", *size, *(["ro"] if mount.read_only else [])]
        planned.mounts.append(
            {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": [*options, "mode=1777"]}
        )

    def _secret(
        self, planned: Planned, mount: Mount, number: int, step: str, sources: Mapping[str, Source], place: str
    ) -> None:
        name = secret_id(mount)
        secret = self._secrets.get(name)
        if secret is None:
            if mount.required:
                raise NotFound(f"secret {name}: not found", hint=f"give it: --secret id={name},src=FILE")
            return
        content = read_secret(secret)
        if mount.variable:
            text = content.decode("utf-8", "surrogateescape")
            if "\0" in text:
                raise InvalidInput(f"secret {name} cannot be a variable: it has a NUL byte")
            planned.environment.append(f"{mount.variable}={text}")
            if not mount.target:
                return
        path = f"secrets/{number}"
        mode = 0o400 if mount.mode is None else mount.mode
        planned.files.append({"path": path, "mode": mode, "uid": mount.uid, "gid": mount.gid, "content": content})
        target = mount.target or _MOUNT_ROOT + os.path.basename(name)
        planned.mounts.append(_bound(directory_in_container(self._spawner(), step, path), target, read_only=True))

    def _agent(
        self, planned: Planned, mount: Mount, number: int, step: str, sources: Mapping[str, Source], place: str
    ) -> None:
        name = mount.id or "default"
        socket = self._agents.socket(name)
        if not socket:
            if mount.required:
                raise NotFound(f"ssh agent {name}: not found", hint=f"give it: --ssh {name}")
            return
        bind = f"mount{number}"
        above, socket_name = os.path.split(socket)
        planned.binds.append({"root": above, "path": socket_name, "name": bind})
        target = mount.target or f"/run/buildkit/ssh_agent.{number}"
        planned.mounts.append(_bound(directory_in_container(self._spawner(), step, bind), target, read_only=False))
        if not any(entry.startswith("SSH_AUTH_SOCK=") for entry in planned.environment):
            planned.environment.append(f"SSH_AUTH_SOCK={target}")


def _copy_file(directory: str, name: str, source: Directory, entry: Entry, look: Attributes) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        writer = Writer(fd, Directory([], None))
        with writer.root() as here:
            writer.copy(source, entry, here, name, look)
    finally:
        os.close(fd)


def cache_key(mount: Mount, content: str) -> str:
    """Under what the directory of a cache mount is kept: nothing of an id becomes a path (B05)."""
    return key_of("cache mount", mount.id or mount.target, content)


def secret_id(mount: Mount) -> str:
    """Which secret is meant."""
    name = mount.id or os.path.basename(mount.target) or mount.variable
    if not name:
        raise InvalidInput("a secret mount needs an id, a target or env")
    return name


def target_of(mount: Mount) -> str:
    """Where it is seen, to tell mounts apart."""
    if mount.type == "secret":
        return mount.target or mount.variable or _MOUNT_ROOT + secret_id(mount)
    return mount.target or f"ssh {mount.id or 'default'}"


def read_secret(secret: Secret) -> bytes:
    """What it is. Raises NotFound, InvalidInput."""
    if secret.variable:
        value = os.environ.get(secret.variable)
        if value is None:
            raise NotFound(f"secret {secret.id}: the environment has no {secret.variable}")
        content = os.fsencode(value)
    else:
        try:
            with open(secret.path, "rb") as file:
                content = file.read(MAX_SECRET + 1)
        except OSError as error:
            raise NotFound(f"secret {secret.id}: {secret.path}: {error.strerror}") from error
    if len(content) > MAX_SECRET:
        raise InvalidInput(f"secret {secret.id} is too large: the limit is {MAX_SECRET // 1024} KiB")
    return content


def style_has_marks(directory: str) -> bool:
    """Whether a layer's directory may show marks of absence that only an overlay hides."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _, below, names, here in os.fwalk(".", dir_fd=fd):
            for name in names:
                info = os.stat(name, dir_fd=here, follow_symlinks=False)
                if (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0) or name.startswith(".wh."):
                    return True
            del below
    finally:
        os.close(fd)
    return False


def _bound(source: str, target: str, *, read_only: bool) -> Config:
    options = ["rbind", "rprivate", "nosuid", "nodev", *(["rro"] if read_only else [])]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _overlay(lowers: Sequence[str], target: str, place: str, number: int, *, read_only: bool) -> Config:
    """The directories *lowers*, top first, as one; what is written goes to a directory of the step's."""
    own = os.path.join(place, f"overlay{number}")
    os.mkdir(own, 0o700)
    for name in ("empty", "upper", "work"):
        files.make_directory(os.path.join(own, name), 0o755)
    directories = [*lowers, os.path.join(own, "empty")]
    options = [f"lowerdir={':'.join(map(escape_overlay, directories))}", "userxattr", "nosuid", "nodev"]
    if not read_only:
        writable = escape_overlay(own)
        options += [f"upperdir={writable}/upper", f"workdir={writable}/work"]
        status = os.stat(lowers[0]) if os.path.exists(lowers[0]) else None
        if status:
            os.chown(os.path.join(own, "upper"), status.st_uid, status.st_gid)
            os.chmod(os.path.join(own, "upper"), stat.S_IMODE(status.st_mode))
    return {"destination": target, "type": "overlay", "source": "overlay", "options": options}
