"""build: from a Dockerfile and a context to an image. One build, followed through:

| step | where |
|---|---|
| the context is opened (fetched, where it is elsewhere), the Dockerfile read and parsed | build_context.py, dockerfile/ |
| which stages the target needs, and what they begin with and copy from | build_plan.py |
| images that are needed are found or pulled, and held | here |
| the process that starts containers is begun; from now on there are threads, one for each stage | build_spawner.py |
| a stage goes through its instructions: variables, the config, the history | build_stage.py |
| RUN, COPY, ADD and WORKDIR become steps: found by their key, or done | build_operations.py, build_steps.py |
| RUN: a container on the layers so far, whose upper directory becomes the layer | build_container.py, build_mounts.py |
| COPY: the digests of what it copies are its key; then it is written above the layers, without a mount | build_digest.py, build_copy.py, build_write.py, build_tree.py |
| the image, and where else the result goes | build_image.py, build_output.py |

A stage waits for another only where it needs it. The first failure ends the others; Ctrl-C ends all, and kill -9 as
well: containers see that their build has gone (monitor.py, ends_with_owner), and what lies in the trash under the
build's pid is swept by the next command. Steps that are done stay in the cache.
"""

# ruff: noqa: E501  # the table

import os
import resource
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock
from typing import NamedTuple

from rootless.dockerfile.instructions import Dockerfile, Instruction, Run
from rootless.dockerfile.parse import parse_dockerfile, parse_trigger
from rootless.dockerfile.warning import Warning
from rootless.engine import (
    attachment,
    build_carry,
    build_context,
    build_output,
    network_options,
)
from rootless.engine.build_additions import Additions
from rootless.engine.build_caches import Caches, steps_of_result
from rootless.engine.build_check import Checked, check, warnings_of
from rootless.engine.build_container import Running
from rootless.engine.build_copy import Job
from rootless.engine.build_digest import key_of
from rootless.engine.build_image import finish
from rootless.engine.build_mounts import Mounts
from rootless.engine.build_operations import Operations
from rootless.engine.build_options import BuildOptions
from rootless.engine.build_plan import (
    SCRATCH,
    ContextOf,
    ImageOf,
    Plan,
    PlannedStage,
    Reference,
    StageOf,
    make_plan,
    platform_variables,
    references_of,
)
from rootless.engine.build_progress import INTERNAL, Cancelled, Doing, Progress, StepFailed, Teller
from rootless.engine.build_source import Source, context_source
from rootless.engine.build_squash import merge
from rootless.engine.build_stage import StageBuild
from rootless.engine.build_state import SCRATCH as SCRATCH_DOCUMENT
from rootless.engine.build_state import Made, Stage
from rootless.engine.build_steps import Place, Steps, sweep_locks
from rootless.engine.context import Engine
from rootless.engine.create import find_image
from rootless.engine.image_remove import remove_unused_image
from rootless.engine.images import image_lock
from rootless.engine.layer_new import adopt
from rootless.engine.options import ContainerOptions, NetworkOption
from rootless.errors import HostUnsupported, InvalidInput, RootlessError
from rootless.spec.image import ImageConfig
from rootless.spec.platform import host_platform, parse_platform
from rootless.spec.reference import parse_reference
from rootless.store.images import Image

_POLL_SECONDS = 0.1
_CONTEXT_LINES = 2  # of the Dockerfile, shown around a step that failed


class Built(NamedTuple):
    """What came of a build."""

    image: Image | None  # None where the result went elsewhere
    names: tuple[str, ...]
    warnings: tuple[Warning, ...] = ()  # about the Dockerfile


class _Found(NamedTuple):
    """An image that a build needs."""

    image: Image
    config: ImageConfig


def build(engine: Engine, options: BuildOptions, progress: Progress) -> Built:
    """Build the image. Raises StepFailed, DockerfileError, NotFound …; from the main thread, before there are others."""
    engine.enter_namespace()
    with suppress(OSError):  # rm and prune tell what stands in the way
        engine.layout.empty_trash()
        sweep_locks(engine.layout)
    build_output.check(options.outputs, options.tags)
    with _Build(engine, options, progress) as work:
        return work.export(work.run())


def check_dockerfile(engine: Engine, options: BuildOptions) -> Checked:
    """--check: what is dubious in the Dockerfile. Nothing is built."""
    asides: list[str] = []

    def aside() -> str:
        asides.append(engine.layout.aside())
        os.mkdir(asides[-1], 0o700)
        return asides[-1]

    try:
        return check(engine, options, aside)
    finally:
        for path in asides:
            engine.layout.discard(path)


class _Build:
    """One build on its way: what build_stage.Surroundings asks for, and the threads."""

    def __init__(self, engine: Engine, options: BuildOptions, progress: Progress) -> None:
        self.engine = engine
        self.options = options
        self.teller = Teller(progress)
        self.caches = Caches(engine, options.cache_from, options.cache_to, self.teller, self._aside)
        self.steps = Steps(engine, Running(), epoch=options.epoch)
        self.mounts = Mounts(engine, self.steps.cache, lambda: self.operations.spawner, options.secrets, options.ssh)
        self.operations = Operations(self.steps, options, self.mounts)
        agent = next((ssh.socket for ssh in options.ssh if ssh.id == "default"), "")
        self.additions = Additions(engine, self.steps.cache, self._aside, agent)
        self._asides: list[str] = []
        self._images: dict[ImageOf, _Found] = {}
        self._image_locks = ExitStack()
        self._contexts: dict[str, Source] = {}
        self._sources: dict[Reference, Source] = {}
        self._stages: dict[int, Future[StageBuild]] = {}
        self._lock = Lock()
        self.platform = parse_platform(options.platform) if options.platform else host_platform()

    def __enter__(self) -> "_Build":  # noqa: PYI034  # typing.Self is Python 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.operations.close()
        self.caches.close()
        for source in {*self._contexts.values(), *self._sources.values()}:
            source.close()
        self.additions.close()
        for path in self._asides:
            self.engine.layout.discard(path)
        self.release_images()
        self.steps.close()

    def release_images(self) -> None:
        """Let go of the images; the result's own record, or the locks of its layers, hold what is needed of them."""
        self._image_locks.close()

    def _aside(self) -> str:
        """A new directory that goes with the build."""
        path = self.engine.layout.aside()
        os.mkdir(path, 0o700)
        self._asides.append(path)
        return path

    @contextmanager
    def told(self, name: str) -> Iterator[Doing]:
        """Show what is done inside under a name."""
        doing = self.teller.begin(name)
        try:
            yield doing
        except RootlessError as error:
            doing.failed(str(error))
            raise
        doing.done()

    # What comes after the threads

    def export(self, stage: Stage) -> Built:
        """Let the result be where it is wanted."""
        outputs = self.options.outputs
        for output in outputs:
            if output.type in build_output.TREES:
                with self.told(f"exporting to {output.type}"), self.operations.tree(stage) as tree:
                    build_output.write(output, tree, self.engine.whiteout_style, self._aside)
        if self.options.cache_mount_to:
            with self.told("writing cache mounts"):
                build_carry.write(self.engine, self.steps.cache, self.mounts.caches, self.options.cache_mount_to)
        self.caches.export(list(self.steps.used.values()), stage.layers, self.told)
        if not build_output.needs_image(outputs):
            return Built(None, (), self._warnings)
        if self.options.squash and len(stage.made) > 1:
            with self.told("squashing layers"):
                self._squash(stage)
        return self._export_image(stage)

    def _export_image(self, stage: Stage) -> Built:
        outputs = self.options.outputs
        tags = build_output.names_of(outputs, self.options.tags)
        names = tuple(str(parse_reference(tag).with_default_tag()) for tag in tags)
        known = {image.id for image in self.engine.images.list()}
        self.release_images()
        with self.told("exporting to image") as doing:
            inline = steps_of_result(self.steps.used.values(), stage.layers) if self.caches.is_inline else None
            image = finish(self.engine, self.steps.cache, stage, self.options, inline)
            doing.output("stdout", f"writing image {image.id}\n".encode())
            for name in names:
                self.engine.images.tag(parse_reference(name), image.id)
                doing.output("stdout", f"naming to {name}\n".encode())
        for output in outputs:
            if build_output.is_archive(output) or build_output.is_pushed(output):
                with self.told(f"exporting to {output.type}"):
                    build_output.write_image(self.engine, output, image, names, self.options.pull_progress)
        if not names and not build_output.stays(outputs) and image.id not in known:
            remove_unused_image(self.engine, image.id, with_tags=False)
            return Built(None, (), self._warnings)
        return Built(image, names, self._warnings)

    def _squash(self, stage: Stage) -> None:
        """Make the layers of the build one, and its steps ones without a layer, but for the last."""
        layers = [made.layer.chain_id for made in stage.made]
        staged = self.engine.layers.stage()
        merge([self.engine.layers.diff(c) for c in layers], os.path.join(staged, "diff"), self.engine.whiteout_style)
        base = stage.image.layers if stage.image else ()
        layer = adopt(self.engine, base[-1] if base else None, staged, held=self.steps.held)
        stage.squash(Made(layer, stage.made[-1].created))

    # What comes before the threads

    def run(self) -> Stage:
        """Build the target."""
        with self.told(f"{INTERNAL} load build definition from {self.options.dockerfile or 'Dockerfile'}"):
            prepared = build_context.prepare(self.options, self.steps.cache, self._aside)
            self._contexts[""] = prepared.source
            self._text = prepared.dockerfile
            self.dockerfile: Dockerfile = parse_dockerfile(prepared.dockerfile, prepared.name)
            platforms = platform_variables(host_platform(), self.platform, self.options.target)
            self._warnings = warnings_of(self.dockerfile, prepared, self.options)
            self.plan: Plan = make_plan(
                self.dockerfile, self.options.target, self.options.build_args, platforms, self.options.contexts
            )
        if self.options.cache_mount_from:
            with self.told(f"{INTERNAL} reading cache mounts"):
                build_carry.read(self.steps.cache, self.options.cache_mount_from)
        self._find_images()
        self.steps.imports = list(self.caches.open(self.platform))
        self._begin()
        return self._run_stages()

    def _find_images(self) -> None:
        for name in self._wanted_contexts():
            self._open_context(name, self.options.contexts[name])
        for wanted in self._wanted_images():
            with self.told(f"{INTERNAL} load metadata for {wanted.name}"):
                self._images[wanted] = self._hold_image(wanted)

    def _references(self) -> Iterator[Reference]:
        for number in self.plan.needed:
            planned = self.plan.stages[number]
            yield planned.base
            for instruction in planned.stage.instructions:
                for text in references_of(instruction):
                    yield self.plan.source(text, number)

    def _wanted_images(self) -> list[ImageOf]:
        return list(dict.fromkeys(r for r in self._references() if isinstance(r, ImageOf) and r.name != SCRATCH))

    def _wanted_contexts(self) -> list[str]:
        return list(dict.fromkeys(r.name for r in self._references() if isinstance(r, ContextOf) and r.name))

    def _open_context(self, name: str, place: str) -> None:
        """A named context that is a directory, a repository or an archive's URL."""
        if place.startswith("oci-layout://"):
            raise HostUnsupported(f"build context {name}: oci-layout is not there", hint="load it first: rootless load")
        directory = build_context.fetched_directory(place, self._aside)
        shown = f"context {name}"
        if directory:
            self._contexts[name] = context_source(directory, self.steps.cache, lambda root: None, name=shown)
            return
        patterns = lambda root: build_context.ignore_patterns(root, "")  # noqa: E731
        self._contexts[name] = context_source(place, self.steps.cache, patterns, name=shown)

    def _hold_image(self, wanted: ImageOf) -> _Found:
        """An image, found or pulled; locked, so that nobody removes it."""
        pull = "always" if self.options.pull else "missing"
        platform = wanted.platform or self.options.platform
        options = ContainerOptions(wanted.name, pull=pull, platform=platform, progress=self.options.pull_progress)
        while True:
            image, config = find_image(self.engine, options)
            lock = ExitStack()
            lock.enter_context(self.engine.layout.lock(image_lock(image.id), shared=True))
            if self.engine.images.find_id(image.id):
                self._image_locks.push(lock)
                return _Found(image, config)
            lock.close()

    def _begin(self) -> None:
        """What forks, as long as there are no threads; then this process alone may have many open files."""
        if any(isinstance(i, Run) for n in self.plan.needed for i in self._instructions(self.plan.stages[n])):
            self._begin_running()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:  # a tree of many layers is many descriptors
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def _begin_running(self) -> None:
        options = ContainerOptions(
            "build", networks=(NetworkOption(self.options.network),) if self.options.network else ()
        )
        if network_options.foresee(self.engine, options):
            attachment.repair(self.engine)
        self.engine.storage_driver  # noqa: B018  # tries it, in a child
        self.operations.begin()

    def _instructions(self, planned: PlannedStage) -> tuple[Instruction, ...]:
        return (*self._triggers(planned), *planned.stage.instructions)

    def _triggers(self, planned: PlannedStage) -> tuple[Instruction, ...]:
        """ONBUILD of the image that the stage begins with."""
        found = self._images.get(planned.base) if isinstance(planned.base, ImageOf) else None
        if found is None:
            return ()
        return tuple(parse_trigger(text, planned.base.name) for text in found.config.config.on_build)  # type: ignore[union-attr]

    # Stages

    def _run_stages(self) -> Stage:
        with ThreadPoolExecutor(len(self.plan.needed), "stage") as pool:
            try:
                for number in self.plan.needed:
                    self._stages[number] = pool.submit(self._stage, self.plan.stages[number])
                done = self._wait_for_stages()
                if any(future.exception() for future in done):
                    self._raise_first(list(self._stages.values()))
            except BaseException:
                self.steps.running.cancel()
                self.caches.cancel()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return self._stages[self.plan.target].result().state

    def _wait_for_stages(self) -> "set[Future[StageBuild]]":
        """Until all are done, or one has failed; those that are done."""
        if not self.options.debug_shell:
            return wait(self._stages.values(), return_when=FIRST_EXCEPTION).done
        while True:
            done, others = wait(self._stages.values(), timeout=_POLL_SECONDS, return_when=FIRST_EXCEPTION)
            self.operations.open_shells()
            if not others or any(future.exception() for future in done):
                return done

    def _raise_first(self, futures: Sequence["Future[StageBuild]"]) -> None:
        """Raise the failure that ended the build, and not what came of it elsewhere."""
        failures = [error for future in futures if future.done() and (error := future.exception())]
        raise next((error for error in failures if not isinstance(error, Cancelled)), failures[0])

    def _stage(self, planned: PlannedStage) -> StageBuild:
        state, declared = self._beginning(planned)
        stage = StageBuild(self, planned, state, self.plan.variables, declared, self.dockerfile.directives.escape)
        if triggers := self._triggers(planned):
            state.set("OnBuild", None)
            stage.run(triggers)
        stage.run(planned.stage.instructions)
        return stage

    def _beginning(self, planned: PlannedStage) -> tuple[Stage, dict[str, str | None]]:
        base = planned.base
        if isinstance(base, ContextOf):
            return self._from_directory(planned, base.name), {}
        if isinstance(base, StageOf):
            below = self._wait(base.number)
            return below.state.branch(), dict(below.arguments)
        platform = parse_platform(planned.platform) if planned.platform else self.platform
        if base.name == SCRATCH:
            return Stage(None, SCRATCH_DOCUMENT, platform), {}
        found = self._images[base]
        return Stage(found.image, found.config.document, found.config.platform), {}

    def _from_directory(self, planned: PlannedStage, name: str) -> Stage:
        """A stage whose files are those of a named context."""
        platform = parse_platform(planned.platform) if planned.platform else self.platform
        stage, source = Stage(None, SCRATCH_DOCUMENT, platform), self._contexts[name]
        doing = self.teller.begin(f"[{planned.name}] FROM {name}")
        try:
            job = Job([(source, picked) for picked in source.pick("/")], "/", None)
            self.operations.copy(stage, self.place(planned, 0), job, {}, doing, f"FROM {name}")
        except RootlessError as error:
            doing.failed(str(error))
            raise
        return stage

    def _wait(self, number: int) -> StageBuild:
        """The stage, once it is there."""
        try:
            return self._stages[number].result()
        except Cancelled:
            raise
        except RootlessError as error:
            raise Cancelled("a stage that this one needs has failed") from error

    def source(self, text: str, stage: int) -> Source:
        """What --from= names; waits for a stage. Raises NotFound."""
        reference = self.plan.source(text, stage)
        if isinstance(reference, ContextOf):
            return self._contexts[reference.name]
        if isinstance(reference, StageOf):
            state = self._wait(reference.number).state
            name = f"stage {self.plan.stages[reference.number].name}"
        elif reference.name == SCRATCH:
            raise InvalidInput("scratch is empty: there is nothing to copy from it")
        else:
            found = self._images[reference]
            state = Stage(found.image, found.config.document, found.config.platform)
            name = f"image {reference.name}"
        with self._lock:
            if reference not in self._sources:
                self._sources[reference] = self._layered(name, state)
            return self._sources[reference]

    def _layered(self, name: str, state: Stage) -> Source:
        return Source(name, self.operations.tree(state), self.steps.cache, is_context=False, fixed=state.fixed)

    def place(self, stage: PlannedStage, number: int) -> Place:
        """Where a step of a stage stands."""
        unwanted = {name.lower() for name in self.options.no_cache_filter}
        may_find = not self.options.no_cache and not unwanted.intersection((stage.stage.name, str(stage.number)))
        where = (self.options.context, self.options.dockerfile, stage.name, number)
        return Place(key_of("place", os.getcwd(), *where), may_find)

    def located(self, instruction: Instruction, error: RootlessError) -> RootlessError:
        """*error*, with the lines of the Dockerfile that it comes from."""
        if isinstance(error, Cancelled):
            return error
        if isinstance(error, StepFailed) and error.where:
            return error
        failed = StepFailed(str(error), report=getattr(error, "report", ""), hint=error.hint)
        lines = self._text.decode("utf-8", "replace").splitlines()
        failed.where = excerpt(lines, self.dockerfile.name, *instruction.lines)
        return failed


def excerpt(lines: Sequence[str], name: str, first: int, last: int) -> str:
    """Lines of a Dockerfile with some around them, numbered and marked."""
    begin, end = max(first - _CONTEXT_LINES, 1), min(last + _CONTEXT_LINES, len(lines))
    shown = [f"{name}:{first}", "--------------------"]
    for number in range(begin, end + 1):
        mark = ">>>" if first <= number <= last else "   "
        shown.append(f"{number:4} | {mark} {lines[number - 1]}")
    return "\n".join([*shown, "--------------------"])
