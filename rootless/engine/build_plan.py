"""Which stages a build needs, and what they need: the graph of its stages, before anything is done. Pure.

A name after FROM, --from= or from= means, in this order: a named context (--build-context), which may itself stand for
an image; an earlier stage, by name or number; an image. What the target does not need, directly or not, is not built.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rootless.dockerfile.expand import expand
from rootless.dockerfile.instructions import Add, Copy, Dockerfile, DockerfileError, Instruction, Run, Stage
from rootless.errors import NotFound
from rootless.spec.platform import Platform

SCRATCH = "scratch"
IMAGE = "docker-image://"  # begins the place of a named context that is an image
LAYOUT = "oci-layout://"  # and of one in a directory


class StageOf(NamedTuple):
    """An earlier stage, by its number."""

    number: int


class ImageOf(NamedTuple):
    """An image, or `scratch`."""

    name: str
    platform: str = ""  # "" is the build's
    is_layout: bool = False  # *name* is a place of an OCI layout, which only the command line can name


class ContextOf(NamedTuple):
    """A named context; the build context is ""."""

    name: str


Reference = StageOf | ImageOf | ContextOf


class PlannedStage(NamedTuple):
    """A stage, and what it begins with."""

    number: int
    stage: Stage
    base: Reference
    platform: str  # of --platform, expanded; "" is the build's

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.stage.name or f"stage-{self.number}"


class Plan(NamedTuple):
    """What is to be built."""

    stages: tuple[PlannedStage, ...]  # all of the Dockerfile's
    target: int
    needed: tuple[int, ...]  # in an order in which they can be built
    variables: Mapping[str, str]  # of the global scope
    contexts: Mapping[str, str]  # named ones, and where they are
    platform: str = ""  # of images that do not say another

    def source(self, text: str, number: int) -> Reference:
        """What *text*, of --from= or from=, means in stage *number*. Raises NotFound."""
        found = source_reference(text, [planned.stage for planned in self.stages[:number]], self.contexts)
        return found._replace(platform=self.platform) if isinstance(found, ImageOf) else found

    def references(self) -> Iterator[Reference]:
        """What the stages that are needed begin with, copy from and mount."""
        for number in self.needed:
            planned = self.stages[number]
            yield planned.base
            for instruction in planned.stage.instructions:
                for text in references_of(instruction):
                    yield self.source(text, number)


def platform_variables(build: Platform, target: Platform, stage: str) -> dict[str, str]:
    """The variables that FROM may use, and stages that declare them; *stage* is the target."""
    found = {"TARGETSTAGE": stage or "default"}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found


def make_plan(
    dockerfile: Dockerfile,
    target: str,
    build_args: Mapping[str, str],
    platforms: Mapping[str, str],
    contexts: Mapping[str, str],
    *,
    platform: str = "",
) -> Plan:
    """What *target*, a stage's name or number, "" for the last, takes, for *platform* ("": where nothing else
    is said, the one that an image here has). Raises NotFound, DockerfileError."""
    variables = global_variables(dockerfile, build_args, platforms)
    stages: list[PlannedStage] = []
    for number, stage in enumerate(dockerfile.stages):
        escape = dockerfile.directives.escape
        image = expand(stage.base.image, variables, escape=escape)
        of_stage = expand(stage.base.platform, variables, escape=escape)
        if not image:
            raise DockerfileError(
                f"{dockerfile.name}:{stage.base.lines.first}: base name ({stage.base.image}) should not be blank",
                hint="give the variable a value: ARG NAME=VALUE before FROM, or --build-arg",
            )
        base = _reference(image, [planned.stage for planned in stages], contexts)
        if isinstance(base, ImageOf):
            base = base._replace(platform=of_stage or platform)
        stages.append(PlannedStage(number, stage, base, of_stage))
    goal = _target(stages, target)
    return Plan(tuple(stages), goal, _needed(stages, goal, contexts), variables, contexts, platform)


def global_variables(
    dockerfile: Dockerfile, build_args: Mapping[str, str], platforms: Mapping[str, str]
) -> dict[str, str]:
    """The variables before the first FROM: ARGs with --build-arg's values or their own; and the platforms'."""
    variables = {**platforms, **{k: v for k, v in build_args.items() if k in platforms}}
    for arg in dockerfile.global_args:
        for declared in arg.names:
            if declared.name in build_args:
                variables[declared.name] = build_args[declared.name]
            elif declared.default is not None:
                variables[declared.name] = expand(declared.default, variables, escape=dockerfile.directives.escape)
    return variables


def _reference(text: str, before: Sequence[Stage], contexts: Mapping[str, str]) -> Reference:
    if text in contexts or text.lower() in contexts:
        name = text if text in contexts else text.lower()
        if contexts[name].startswith(IMAGE):
            return ImageOf(contexts[name].removeprefix(IMAGE))
        if contexts[name].startswith(LAYOUT):
            return ImageOf(contexts[name].removeprefix(LAYOUT), is_layout=True)
        return ContextOf(name)
    names = {stage.name: number for number, stage in enumerate(before) if stage.name}
    if text.lower() in names:
        return StageOf(names[text.lower()])
    return ImageOf(text)


def source_reference(text: str, before: Sequence[Stage], contexts: Mapping[str, str]) -> Reference:
    """The same for --from= and from=, where a number is a stage's. Raises NotFound for one that is not earlier."""
    if not text:
        return ContextOf("")
    found = _reference(text, before, contexts)
    if found == ImageOf(text) and text.isascii() and text.isdigit():
        if int(text) >= len(before):
            raise NotFound(f"invalid stage index {text}: there are {len(before)} stages before this one")
        return StageOf(int(text))
    return found


def _target(stages: Sequence[PlannedStage], target: str) -> int:
    if not target:
        return len(stages) - 1
    for planned in stages:
        if planned.stage.name == target.lower():
            return planned.number
    if target.isascii() and target.isdigit() and int(target) < len(stages):
        return int(target)
    names = [planned.stage.name for planned in stages if planned.stage.name]
    raise NotFound(
        f'target stage "{target}" could not be found', hint=f"there are: {', '.join(names)}" if names else ""
    )


def references_of(instruction: Instruction) -> list[str]:
    """What an instruction names with --from= or from=."""
    match instruction:
        case Run():
            return [mount.source_stage for mount in instruction.mounts if mount.source_stage]
        case Copy():
            return [instruction.stage] if instruction.stage else []
        case Add():
            return []
    return []


def _needed(stages: Sequence[PlannedStage], goal: int, contexts: Mapping[str, str]) -> tuple[int, ...]:
    needed: set[int] = set()
    todo = [goal]
    while todo:
        number = todo.pop()
        if number in needed:
            continue
        needed.add(number)
        planned = stages[number]
        before = [stage.stage for stage in stages[:number]]
        references: list[Reference] = [planned.base]
        for instruction in planned.stage.instructions:
            references += [source_reference(text, before, contexts) for text in references_of(instruction)]
        todo += [reference.number for reference in references if isinstance(reference, StageOf)]
    return tuple(sorted(needed))
