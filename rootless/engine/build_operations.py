"""What changes files in a build: RUN, COPY and ADD, WORKDIR; with all variables expanded, and everything looked up.

Each makes the parts of its key first; it is done only where no step with that key is known (build_steps.py).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from queue import SimpleQueue
from threading import Event
from typing import NamedTuple

from rootless.engine.build_base import check_runnable
from rootless.engine.build_container import HOSTNAME, Output, Place, Request, new_step, run, run_terminal
from rootless.engine.build_copy import Archive, Copying, Job, Text
from rootless.engine.build_digest import key_of
from rootless.engine.build_mounts import Mount, Mounts
from rootless.engine.build_options import BuildOptions
from rootless.engine.build_progress import Doing, StepFailed
from rootless.engine.build_source import Picked, Source
from rootless.engine.build_spawner import Spawner
from rootless.engine.build_state import Stage
from rootless.engine.build_steps import Place as StepPlace
from rootless.engine.build_steps import Steps
from rootless.engine.build_tree import Directory, find, open_layers, read_file
from rootless.engine.build_write import Owner, Writer
from rootless.engine.layer_new import is_empty
from rootless.engine.options import ContainerOptions, NetworkOption
from rootless.errors import InvalidInput, RootlessError
from rootless.runtime.users import resolve
from rootless.store.recorded import write_recorded

_PASSWD_LIMIT = 10 << 20
_POLL_SECONDS = 0.1
_TAIL = 64 << 10  # bytes of a failed step's output that are kept

_Write = Callable[[Writer, int, Directory], None]


class Command(NamedTuple):
    """What RUN runs."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]  # ENV and ARG
    hidden: Mapping[str, str]  # what has no part in the key: proxies
    mounts: tuple[Mount, ...] = ()
    network: str = ""
    privileged: bool = False
    script: bytes | None = None  # the file that `arguments` name, where it stands in the Dockerfile


class Operations:
    """The operations of one build."""

    def __init__(self, steps: Steps, options: BuildOptions, mounts: Mounts) -> None:
        self.steps = steps
        self.engine = steps.engine
        self._options = options
        self._mounts = mounts
        self._spawner: Spawner | None = None
        self.shells: SimpleQueue[tuple[Callable[[], None], Event]] = SimpleQueue()

    def begin(self) -> None:
        """Begin the process that starts containers. There are no threads yet."""
        place = self.engine.layout.aside()
        os.mkdir(place, 0o700)
        self._spawner = Spawner(place)

    @property
    def spawner(self) -> Spawner:
        """The process that starts containers."""
        if self._spawner is None:
            raise RootlessError("the build has no process that starts containers")
        return self._spawner

    def close(self) -> None:
        if self._spawner:
            self._spawner.close()
            self.engine.layout.discard(self._spawner.place)

    def tree(self, stage: Stage) -> Directory:
        """The files of a stage as they are now."""
        return open_layers([self.engine.layers.diff(chain_id) for chain_id in stage.layers], self.engine.whiteout_style)

    def source(self, name: str, stage: Stage) -> Source:
        """The files of a stage, to copy from; *name* is what messages call them."""
        return Source(name, self.tree(stage), self.steps.cache, is_context=False, fixed=stage.fixed)

    # RUN

    def run(
        self,
        stage: Stage,
        place: StepPlace,
        command: Command,
        sources: Mapping[str, Source],
        doing: Doing,
        created_by: str,
    ) -> None:
        """Run a command, and take what it changed as a layer. Raises StepFailed where it does not succeed."""
        parts = {
            "command": key_of("run", *command.arguments, command.script),
            **{f"environment:{name}": key_of(value) for name, value in sorted(command.environment.items())},
            "working directory": stage.working_directory,
            "user": stage.user,
            "network": key_of(command.network, command.privileged),
            "platform": str(stage.platform),
            "limits": key_of(self._options.shm_size, *self._options.ulimits, "hosts", *self._options.extra_hosts),
            **self._mounts.parts(command.mounts, sources),
        }

        def make() -> str | None:
            check_runnable(stage.platform)
            return self._run(stage, command, sources, doing)

        self.steps.do(stage, place, parts, doing, created_by, make)

    def _run(self, stage: Stage, command: Command, sources: Mapping[str, Source], doing: Doing) -> str | None:
        tail = Tail(doing.output)
        with closing(Place(self.engine, stage.layers)) as place:
            step = new_step()
            planned = self._mounts.plan(step, command.mounts, sources, place.path)
            if command.script is not None:
                planned.add_script(command.arguments[0], command.script, self.spawner.directory(step))
            with planned.held:
                request = self._request(stage, command, planned.environment)
                request = request._replace(mounts=planned.mounts, files=planned.files, binds=planned.binds)
                try:
                    code = run(self.engine, self.spawner, step, request, place, tail, self.steps.running)
                finally:
                    self.steps.check()
            if code:
                if self._options.debug_shell:
                    self._shell(request, place)
                raise self._failure(command, code, tail)
            if is_empty(place.upper):
                return None
            return self._staged(place)

    def _request(self, stage: Stage, command: Command, more: Sequence[str]) -> Request:
        variables = {**command.hidden, **command.environment}
        options = ContainerOptions(
            "build",
            entrypoint=(),
            command=command.arguments,
            environment=(*(f"{name}={value}" for name, value in variables.items()), *more),
            user=stage.user or None,
            working_directory=stage.working_directory,
            hostname=self._options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME", HOSTNAME),
            networks=(NetworkOption(command.network),) if command.network else (),
            extra_hosts=tuple(self._options.extra_hosts),
            shm_size=self._options.shm_size,
            ulimits=tuple(self._options.ulimits),
            limits=self._options.limits,
            cgroup_parent=self._options.cgroup_parent,
            privileged=command.privileged,
        )
        return Request(tuple(stage.layers), options)

    def _staged(self, place: Place) -> str:
        """The upper directory as a layer that is being made."""
        staged = self.engine.layers.stage()
        os.rmdir(os.path.join(staged, "diff"))
        os.rename(place.upper, os.path.join(staged, "diff"))
        return staged

    def _failure(self, command: Command, code: int, tail: "Tail") -> StepFailed:
        shown = " ".join(command.arguments)
        return StepFailed(f'process "{shown}" did not complete successfully: exit code: {code}', report=tail.text())

    def _shell(self, request: Request, place: Place) -> None:
        """--break: have the main thread open a shell in what the failed step has left; wait until it was left."""
        ended = Event()
        self.shells.put((lambda: self._open_shell(request, place), ended))
        while not ended.wait(_POLL_SECONDS) and not self.steps.running.cancelled:
            pass

    def _open_shell(self, request: Request, place: Place) -> None:
        options = request.options
        options.command = ("/bin/sh",)
        options.terminal = options.interactive = True
        os.write(2, b"\nThe step failed. This is a shell where it ran; leave it to end the build.\n")
        plain = request._replace(mounts=(), files=(), binds=())
        run_terminal(self.engine, self.spawner, new_step(), plain, place)

    def open_shells(self) -> None:
        """Open what steps wait for. From the main thread, which has the terminal."""
        while not self.shells.empty():
            action, ended = self.shells.get()
            try:
                action()
            finally:
                ended.set()

    # COPY and ADD

    def copy(
        self,
        stage: Stage,
        place: StepPlace,
        job: Job,
        told: Mapping[str, str],
        doing: Doing,
        created_by: str,
    ) -> None:
        """Copy what *job* says. *told*: parts of the key that it does not show."""
        parts = {
            "instruction": key_of("copy", job.destination, job.owner, job.mode and job.mode.text, job.parents),
            **told,
            **_sources(job),
        }

        def make() -> str | None:
            return self._write(stage, lambda writer, fd, lowers: self._copying(writer, fd, lowers, job, doing))

        def is_sure() -> bool:
            return all(_is_unchanged(*item) for item in job.items if not isinstance(item, Text | Archive))

        self.steps.do(stage, place, parts, doing, created_by, make, is_sure)

    def _copying(self, writer: Writer, fd: int, lowers: Directory, job: Job, doing: Doing) -> None:
        Copying(writer, fd, lowers, job, self.engine.whiteout_style).run()
        for path in writer.skipped:
            doing.output("stderr", f"{path}: sockets and devices are not copied\n".encode())

    def _write(self, stage: Stage, write: _Write) -> str | None:
        """A staged directory with what *write* puts there; None where that is nothing."""
        staged = self.engine.layers.stage()
        try:
            fd = os.open(os.path.join(staged, "diff"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with self.tree(stage) as lowers:
                    writer = Writer(fd, lowers)
                    write(writer, fd, lowers)
            finally:
                os.close(fd)
            if writer.recorded:
                write_recorded(staged, writer.recorded)
            if is_empty(os.path.join(staged, "diff")):
                self.engine.layers.abandon(staged)
                return None
        except BaseException:
            self.engine.layers.abandon(staged)
            raise
        return staged

    def owner(self, stage: Stage, text: str) -> Owner | None:
        """The ids that --chown names, by the stage's own files; a number alone is the group's, too."""
        if not text:
            return None
        with self.tree(stage) as tree:
            passwd = read_file(tree, "/etc/passwd", _PASSWD_LIMIT) or b""
            group = read_file(tree, "/etc/group", _PASSWD_LIMIT) or b""
        user, colon, wanted = text.partition(":")
        if user.isascii() and user.isdigit() and not (colon and wanted):
            text = f"{user}:{user}"
        try:
            found = resolve(text, passwd, group)
        except InvalidInput as error:
            raise InvalidInput(f"--chown={text}: {error}") from error
        return found.uid, found.gid

    # WORKDIR

    def working_directory(self, stage: Stage, place: StepPlace, doing: Doing, created_by: str) -> None:
        """Have the working directory in the stage, and of its user."""
        path = stage.working_directory
        parts = {"instruction": key_of("workdir", path), "user": stage.user}

        def make() -> str | None:
            owner = self.owner(stage, stage.user) or (0, 0)
            return self._write(stage, lambda writer, fd, lowers: _make_directory(writer, lowers, path, owner))

        self.steps.do(stage, place, parts, doing, created_by, make)


def _make_directory(writer: Writer, lowers: Directory, path: str, owner: Owner) -> None:
    """Links are followed in the tree (B10)."""
    try:
        with find(lowers, path) as found:
            if found.entry and not found.is_directory and not found.missing:
                raise InvalidInput(f"cannot make working directory {path}: not a directory")
            if found.missing:
                writer.open(found.names, found.missing, owner).close()
    except NotADirectoryError:
        raise InvalidInput(f"cannot make working directory {path}: not a directory") from None


def _sources(job: Job) -> dict[str, str]:
    """Each thing that is copied, with its digest; in order, as a later one may replace an earlier one."""
    parts: dict[str, str] = {}
    for number, item in enumerate(job.items):
        match item:
            case Text():
                parts[f"source:{item.name} ({number})"] = key_of(item.name, item.content, item.mode)
            case Archive():
                parts[f"source:{item.name} ({number})"] = key_of("archive", item.digest)
            case (Source() as source, Picked() as picked):
                parts[f"source:{picked.path} of {source.name}"] = key_of(picked.name, picked.digest, number)
    return parts


def _is_unchanged(source: Source, picked: Picked) -> bool:
    """Whether what was copied is still what it was when its digest was taken: else the step has another key."""
    try:
        return not source.place or source.digest(picked.path) == picked.digest
    except (OSError, RootlessError):
        return False


class Tail:
    """Hands output on, and keeps the last of it."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._kept = bytearray()

    def __call__(self, stream: str, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > 2 * _TAIL:
            del self._kept[:-_TAIL]
        self._output(stream, data)

    def text(self, lines: int = 20) -> str:
        """The last *lines*."""
        return "\n".join(bytes(self._kept).decode("utf-8", "replace").splitlines()[-lines:])
