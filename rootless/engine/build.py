"""build: from a Dockerfile and a context to an image. One build, followed through:

| step | where |
|---|---|
| the context is opened (fetched, where it is elsewhere), the Dockerfile read and parsed | build_context.py, dockerfile/ |
| which stages the target needs, and what they begin with and copy from | build_plan.py |
| images that are needed are found or pulled, and held | build_base.py |
| the process that starts containers is begun; from now on there are threads, one for each stage | build_spawner.py |
| for each platform a graph of stages, which wait for each other | build_graph.py |
| a stage goes through its instructions: variables, the config, the history | build_stage.py |
| RUN, COPY, ADD and WORKDIR become steps: found by their key, or done | build_operations.py, build_steps.py |
| RUN: a container on the layers so far, whose upper directory becomes the layer | build_container.py, build_mounts.py |
| COPY: the digests of what it copies are its key; then it is written above the layers, without a mount | build_digest.py, build_copy.py, build_write.py, build_tree.py |
| the image or index, and where else the result goes | build_export.py, build_image.py, build_output.py |

A stage waits for another only where it needs it. The first failure ends the others; Ctrl-C ends all, and kill -9 as
well: containers see that their build has gone (monitor.py, ends_with_owner), and what lies in the trash under the
build's pid is swept by the next command. Steps that are done stay in the cache.
"""

# ruff: noqa: E501  # the table

import os
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress

from rootless.dockerfile.instructions import Dockerfile, Instruction
from rootless.dockerfile.parse import parse_dockerfile
from rootless.engine import (
    attachment,
    build_attest,
    build_carry,
    build_context,
    build_fetch,
    build_output,
    network_options,
)
from rootless.engine.build_additions import Additions
from rootless.engine.build_base import Bases, check_runnable
from rootless.engine.build_caches import Caches
from rootless.engine.build_check import Checked, check, warnings_of
from rootless.engine.build_container import Running
from rootless.engine.build_export import Built, Exporter, Result
from rootless.engine.build_graph import Graph
from rootless.engine.build_mounts import Mounts
from rootless.engine.build_operations import Operations
from rootless.engine.build_options import BuildOptions
from rootless.engine.build_plan import SCRATCH, ContextOf, ImageOf, Reference, make_plan, platform_variables
from rootless.engine.build_progress import INTERNAL, Cancelled, Doing, Progress, StepFailed, Teller
from rootless.engine.build_source import Source, context_source
from rootless.engine.build_ssh import Agents
from rootless.engine.build_stage import StageBuild
from rootless.engine.build_steps import Steps, sweep_locks
from rootless.engine.context import Engine
from rootless.engine.options import ContainerOptions, NetworkOption
from rootless.errors import RootlessError
from rootless.spec.platform import Platform, host_platform, parse_platform

_POLL_SECONDS = 0.1
_CONTEXT_LINES = 2  # of the Dockerfile, shown around a step that failed


def build(engine: Engine, options: BuildOptions, progress: Progress) -> Built:
    """Build the image. Raises StepFailed, DockerfileError, NotFound …; from the main thread, before there are others."""
    engine.enter_namespace()
    with suppress(OSError):  # rm and prune tell what stands in the way
        engine.layout.empty_trash()
        sweep_locks(engine.layout)
    build_output.check(options.outputs, options.tags)
    build_attest.check(options.attestations)
    build_carry.check(options.cache_mount_to, "--cache-mount-to")
    build_carry.check(options.cache_mount_from, "--cache-mount-from")
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
    """One build on its way: what its graphs share (build_graph.Common), and the threads."""

    def __init__(self, engine: Engine, options: BuildOptions, progress: Progress) -> None:
        self.engine = engine
        self.options = options
        self.teller = Teller(progress)
        self.caches = Caches(engine, options.cache_from, options.cache_to, self.teller, self._aside)
        self.steps = Steps(engine, Running(), epoch=options.epoch)
        self.agents = Agents(options.ssh, self._aside)
        self.mounts = Mounts(engine, self.steps.cache, lambda: self.operations.spawner, options.secrets, self.agents)
        self.operations = Operations(self.steps, options, self.mounts)
        self.additions = Additions(engine, self.steps.cache, self._aside, self.agents)
        self.bases = Bases(engine, options)
        self.contexts: dict[str, Source] = {}
        self.graphs: list[Graph] = []
        self._asides: list[str] = []
        self._began = time.time()
        self.scanner = ImageOf(options.attestations.get("sbom", {}).get("generator", "") or build_attest.SCANNER)

    def __enter__(self) -> "_Build":  # noqa: PYI034  # typing.Self is Python 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.operations.close()
        self.caches.close()
        for graph in self.graphs:
            graph.close()
        for source in self.contexts.values():
            source.close()
        self.additions.close()
        self.agents.close()
        for path in self._asides:
            self.engine.layout.discard(path)
        self.bases.close()
        self.steps.close()

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

    def export(self, results: Sequence[Result]) -> Built:
        """Let the results be where they are wanted."""
        if self.options.cache_mount_to:
            with self.told("writing cache mounts"):
                target = self.options.cache_mount_to
                build_carry.write(self.engine, self.steps.cache, self.mounts.caches, target, self._aside)
        return Exporter(self, results, self._aside).export()._replace(warnings=self._warnings)

    def sources(self) -> build_attest.Sources:
        """What the build was made of."""
        prepared, fetched = self._prepared, self.additions.fetched
        images = self.bases.all()
        return build_attest.Sources(prepared.dockerfile, prepared.name, prepared.commit, images, fetched, self._began)

    # What comes before the threads

    def run(self) -> list[Result]:
        """Build the target, for each platform."""
        with self.told(f"{INTERNAL} load build definition from {self.options.dockerfile or 'Dockerfile'}"):
            prepared = build_context.prepare(self.options, self.steps.cache, self._aside, self.agents)
            self.contexts[""] = prepared.source
            self._prepared = prepared
            self.dockerfile: Dockerfile = parse_dockerfile(prepared.dockerfile, prepared.name)
            self._warnings = warnings_of(self.dockerfile, prepared, self.options)
            self._plan()
        if self.options.cache_mount_from:
            with self.told(f"{INTERNAL} reading cache mounts"):
                build_carry.read(self.steps.cache, self.options.cache_mount_from, self._aside)
        self._find_images()
        self.steps.imports = list(self.caches.open([graph.platform for graph in self.graphs]))
        self._begin()
        self._run_stages()
        return [Result(graph.platform, graph.result()) for graph in self.graphs]

    def _plan(self) -> None:
        options, asked = self.options, [parse_platform(text) for text in self.options.platforms]
        for platform in dict.fromkeys(asked or [host_platform()]):
            variables = platform_variables(host_platform(), platform, options.target)
            named = str(platform) if asked else ""
            plan = make_plan(
                self.dockerfile, options.target, options.build_args, variables, options.contexts, platform=named
            )
            self.graphs.append(Graph(self, plan, platform, is_one_of_many=len(asked) > 1))

    def _find_images(self) -> None:
        for name in dict.fromkeys(r.name for _, r in self._references() if isinstance(r, ContextOf) and r.name):
            self._open_context(name, self.options.contexts[name])
        for platform, wanted in self._references():
            if isinstance(wanted, ImageOf) and wanted.name != SCRATCH and wanted not in self.bases:
                what = f"[{platform} internal]" if len(self.graphs) > 1 else INTERNAL
                with self.told(f"{what} load metadata for {wanted.name}"):
                    self.bases.find(wanted)
        if "sbom" in self.options.attestations:
            with self.told(f"{INTERNAL} load metadata for {self.scanner.name}"):
                self.bases.find(self.scanner)

    def _references(self) -> Iterator[tuple[Platform, Reference]]:
        """What all stages begin with and copy from; for this machine's platform first, which names here are for."""
        for graph in sorted(self.graphs, key=lambda graph: graph.platform != host_platform()):
            for reference in graph.plan.references():
                yield graph.platform, reference

    def _open_context(self, name: str, place: str) -> None:
        """A named context that is a directory, a repository or an archive's URL."""
        shown = f"context {name}"
        if build_fetch.is_git(place):
            directory, _ = build_context.fetched_repository(place, self._aside, self.agents)
            self.contexts[name] = context_source(directory, self.steps.cache, lambda root: None, name=shown)
            return
        patterns = lambda root: build_context.ignore_patterns(root, "")  # noqa: E731
        self.contexts[name] = context_source(place, self.steps.cache, patterns, name=shown)

    def _begin(self) -> None:
        """What forks, as long as there are no threads; then this process alone may have many open files."""
        running = [(graph, stage) for graph in self.graphs for stage in graph.stages_that_run()]
        if not self.options.cache_from:  # which may have what cannot be run here
            for graph, stage in running:
                check_runnable(graph.platform_of(stage))
        if running or "sbom" in self.options.attestations:
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

    # Stages

    def _run_stages(self) -> None:
        with ThreadPoolExecutor(sum(len(graph.plan.needed) for graph in self.graphs), "stage") as pool:
            try:
                stages = [stage for graph in self.graphs for stage in graph.begin(pool)]
                done = self._wait_for(stages)
                if any(future.exception() for future in done):
                    self._raise_first(stages)
            except BaseException:
                self.steps.running.cancel()
                self.caches.cancel()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _wait_for(self, stages: "Sequence[Future[StageBuild]]") -> "set[Future[StageBuild]]":
        """Until all are done, or one has failed; those that are done."""
        if not self.options.debug_shell:
            return wait(stages, return_when=FIRST_EXCEPTION).done
        while True:
            done, others = wait(stages, timeout=_POLL_SECONDS, return_when=FIRST_EXCEPTION)
            self.operations.open_shells()
            if not others or any(future.exception() for future in done):
                return done

    def _raise_first(self, futures: Sequence["Future[StageBuild]"]) -> None:
        """Raise the failure that ended the build, and not what came of it elsewhere."""
        failures = [error for future in futures if future.done() and (error := future.exception())]
        raise next((error for error in failures if not isinstance(error, Cancelled)), failures[0])

    def located(self, instruction: Instruction, error: RootlessError) -> RootlessError:
        """*error*, with the lines of the Dockerfile that it comes from."""
        if isinstance(error, Cancelled):
            return error
        if isinstance(error, StepFailed) and error.where:
            return error
        failed = StepFailed(str(error), report=getattr(error, "report", ""), hint=error.hint)
        lines = self._prepared.dockerfile.decode("utf-8", "replace").splitlines()
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
