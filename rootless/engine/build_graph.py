"""The stages of a build for one platform: each is a thread, and waits for another only where it needs it.

A build for several platforms has one of these for each. What two of them do alike, such as a stage that runs on the
machine's own platform and does not look at the target's, has the same keys: one does it, and the other finds it.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Protocol

from rootless.dockerfile.instructions import Dockerfile, Instruction, Run
from rootless.dockerfile.parse import parse_trigger
from rootless.engine.build_additions import Additions
from rootless.engine.build_base import Bases
from rootless.engine.build_copy import Job
from rootless.engine.build_digest import key_of
from rootless.engine.build_operations import Operations
from rootless.engine.build_options import BuildOptions
from rootless.engine.build_plan import SCRATCH, ContextOf, ImageOf, Plan, PlannedStage, Reference, StageOf
from rootless.engine.build_progress import Cancelled, Teller
from rootless.engine.build_source import Source
from rootless.engine.build_stage import StageBuild
from rootless.engine.build_state import SCRATCH as SCRATCH_DOCUMENT
from rootless.engine.build_state import Stage
from rootless.engine.build_steps import Place
from rootless.errors import InvalidInput, RootlessError
from rootless.spec.platform import Platform, parse_platform


class Common(Protocol):
    """What the graphs of a build share."""

    options: BuildOptions
    operations: Operations
    additions: Additions
    teller: Teller
    bases: Bases
    contexts: dict[str, Source]  # the named ones, and "" for the build context
    dockerfile: Dockerfile

    def located(self, instruction: Instruction, error: RootlessError) -> RootlessError:
        """*error*, with the lines of the Dockerfile that it comes from."""


class Graph:
    """The stages of one platform."""

    def __init__(self, common: Common, plan: Plan, platform: Platform, *, is_one_of_many: bool) -> None:
        """*is_one_of_many*: what is done is shown with the platform."""
        self.plan = plan
        self.platform = platform
        self.options = common.options
        self.operations = common.operations
        self.additions = common.additions
        self.teller = common.teller
        self.located = common.located
        self._common = common
        self._is_one_of_many = is_one_of_many
        self._stages: dict[int, Future[StageBuild]] = {}
        self._sources: dict[Reference, Source] = {}
        self._lock = Lock()

    def close(self) -> None:
        """Keep the digests that were found."""
        for source in self._sources.values():
            source.close()

    def begin(self, pool: ThreadPoolExecutor) -> "list[Future[StageBuild]]":
        """Have all stages that are needed done in *pool*, which has a thread for each."""
        for number in self.plan.needed:
            self._stages[number] = pool.submit(self._stage, self.plan.stages[number])
        return list(self._stages.values())

    def result(self) -> Stage:
        """The target, once it is there."""
        return self._stages[self.plan.target].result().state

    # What is known before

    def platform_of(self, planned: PlannedStage) -> Platform:
        """The platform of a stage's programs."""
        base = planned.base
        if isinstance(base, StageOf):
            return self.platform_of(self.plan.stages[base.number])
        if isinstance(base, ImageOf) and base in self._common.bases:
            return self._common.bases[base].config.platform
        return parse_platform(planned.platform) if planned.platform else self.platform

    def stages_that_run(self) -> list[PlannedStage]:
        """The stages that are needed and run programs."""
        stages = [self.plan.stages[number] for number in self.plan.needed]
        return [s for s in stages if any(isinstance(i, Run) for i in (*self._triggers(s), *s.stage.instructions))]

    def _triggers(self, planned: PlannedStage) -> tuple[Instruction, ...]:
        """ONBUILD of the image that the stage begins with."""
        base = planned.base
        if not isinstance(base, ImageOf) or base not in self._common.bases:
            return ()
        texts = self._common.bases[base].config.config.on_build
        return tuple(parse_trigger(text, base.name) for text in texts)

    def prefix(self, planned: PlannedStage) -> str:
        """The platform of a stage as it is shown, and the target's where that is another, with a blank; or nothing."""
        if not self._is_one_of_many:
            return ""
        platform, target = self.platform_of(planned), self.platform
        if platform == target:
            return f"{platform} "
        is_same_os = platform.os == target.os
        return f"{platform}->{'/'.join(filter(None, target[1:3])) if is_same_os else target} "

    # Stages

    def _stage(self, planned: PlannedStage) -> StageBuild:
        state, declared = self._beginning(planned)
        escape = self._common.dockerfile.directives.escape
        stage = StageBuild(self, planned, state, self.plan.variables, declared, escape, self.prefix(planned))
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
        if base.name == SCRATCH:
            return Stage(None, SCRATCH_DOCUMENT, self.platform_of(planned)), {}
        found = self._common.bases[base]
        return Stage(found.image, found.config.document, found.config.platform), {}

    def _from_directory(self, planned: PlannedStage, name: str) -> Stage:
        """A stage whose files are those of a named context."""
        stage = Stage(None, SCRATCH_DOCUMENT, self.platform_of(planned))
        source = self._common.contexts[name]
        doing = self.teller.begin(f"[{self.prefix(planned)}{planned.name}] FROM {name}")
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

    # What stages ask for: build_stage.Surroundings

    def source(self, text: str, stage: int) -> Source:
        """What --from= names; waits for a stage. Raises NotFound."""
        reference = self.plan.source(text, stage)
        if isinstance(reference, ContextOf):
            return self._common.contexts[reference.name]
        if isinstance(reference, StageOf):
            state = self._wait(reference.number).state
            name = f"stage {self.plan.stages[reference.number].name}"
        elif reference.name == SCRATCH:
            raise InvalidInput("scratch is empty: there is nothing to copy from it")
        else:
            found = self._common.bases[reference]
            state = Stage(found.image, found.config.document, found.config.platform)
            name = f"image {reference.name}"
        with self._lock:
            if reference not in self._sources:
                self._sources[reference] = self.operations.source(name, state)
            return self._sources[reference]

    def place(self, stage: PlannedStage, number: int) -> Place:
        """Where a step of a stage stands."""
        options = self.options
        unwanted = {name.lower() for name in options.no_cache_filter}
        may_find = not options.no_cache and not unwanted.intersection((stage.stage.name, str(stage.number)))
        platform = str(self.platform) if self._is_one_of_many else ""
        where = (options.context, options.dockerfile, stage.name, number, platform)
        return Place(key_of("place", os.getcwd(), *where), may_find)
