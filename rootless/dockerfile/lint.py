"""Checks of a Dockerfile that is no error: BuildKit's, by BuildKit's names.

Each check is a function that yields warnings. What is written how (casing, empty continuation lines) the parser has
noted; the rest is read off the records. `# check=skip=RULE,RULE;error=true;experimental=RULE` at the top chooses.

Variables may come from a base image. Where its environment is not known, an unknown name is only reported if it is like
one that the Dockerfile defines.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rootless.dockerfile.expand import expansion
from rootless.dockerfile.instructions import Arg, Dockerfile, DockerfileError, Finding, Stage
from rootless.dockerfile.lint_stages import check_stages
from rootless.dockerfile.variables import PLATFORM_ARGS
from rootless.dockerfile.warning import Context, Near, Warning, aside, missing_in
from rootless.errors import InvalidInput
from rootless.spec.reference import parse_reference

__all__ = ("EXPERIMENTAL", "RULES", "CheckOptions", "Context", "Warning", "check", "options_of", "parse_check_options")

RULES = (
    "ConsistentInstructionCasing",
    "CopyIgnoredFile",
    "DuplicateStageName",
    "ExposeInvalidFormat",
    "ExposeProtoCasing",
    "FromAsCasing",
    "FromPlatformFlagConstDisallowed",
    "InvalidBaseImagePlatform",
    "InvalidDefaultArgInFrom",
    "InvalidDefinitionDescription",
    "JSONArgsRecommended",
    "LegacyKeyValueFormat",
    "MaintainerDeprecated",
    "MultipleInstructionsDisallowed",
    "NoEmptyContinuation",
    "RedundantTargetPlatform",
    "ReservedStageName",
    "SecretsUsedInArgOrEnv",
    "StageNameCasing",
    "UndefinedArgInFrom",
    "UndefinedVar",
    "WorkdirRelativePath",
)
EXPERIMENTAL = frozenset(("CopyIgnoredFile", "InvalidDefinitionDescription"))

_RESERVED = ("context", "scratch")


class CheckOptions(NamedTuple):
    """Which checks count, and whether a warning ends the build."""

    skip: frozenset[str] = frozenset()  # "all" is every one
    experimental: frozenset[str] = frozenset()  # those that are off otherwise; "all" is every one
    error: bool = False

    def counts(self, rule: str) -> bool:
        """Whether a check is on."""
        if rule in EXPERIMENTAL and not self.experimental & {rule, "all"}:
            return False
        return not self.skip & {rule, "all"}


_NOTHING = Context()


def parse_check_options(text: str) -> CheckOptions:
    """What `# check=` or --build-arg BUILDKIT_DOCKERFILE_CHECK says. Raises DockerfileError."""
    found: dict[str, frozenset[str]] = {}
    is_error = False
    for part in filter(None, text.strip().split(";")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key in ("skip", "experimental") and equals:
            found[key] = frozenset(name.strip() for name in value.split(","))
        elif key == "error" and value.lower() in ("1", "t", "true", "0", "f", "false"):
            is_error = value.lower() in ("1", "t", "true")
        else:
            raise DockerfileError(
                f"check={text[:80]}: {part.strip()[:80]} cannot be read", hint="check=skip=RULE,RULE;error=true"
            )
    return CheckOptions(found.get("skip", frozenset()), found.get("experimental", frozenset()), is_error)


def options_of(dockerfile: Dockerfile) -> CheckOptions:
    """What the Dockerfile itself says at its top. Raises DockerfileError."""
    try:
        return parse_check_options(dockerfile.directives.check)
    except DockerfileError as error:
        raise DockerfileError(f"{dockerfile.name}: {error}", hint=error.hint) from None


def check(
    dockerfile: Dockerfile, context: Context = _NOTHING, options: CheckOptions | None = None
) -> tuple[Warning, ...]:
    """The warnings, by line; *options* are the Dockerfile's own, unless given. Raises DockerfileError."""
    if options is None:
        options = options_of(dockerfile)
    found: list[Warning] = [*_of_the_text(dockerfile), *_of_from(dockerfile), *check_stages(dockerfile, context)]
    return tuple(sorted({w for w in found if options.counts(w.rule)}, key=lambda w: (w.line, w.rule, w.message)))


# What the parser noted


def _of_the_text(dockerfile: Dockerfile) -> Iterator[Warning]:
    defined = _defined_at(dockerfile)
    for finding in dockerfile.findings:
        message = _noted(finding, defined)
        if message:
            yield Warning(finding.rule, finding.line, message)


def _noted(finding: Finding, defined: Mapping[int, tuple[str, Sequence[str]]]) -> str:
    first, _, second = finding.detail.partition(" ")
    match finding.rule:
        case "NoEmptyContinuation":
            return "an empty line in the middle of an instruction"
        case "ConsistentInstructionCasing":
            return f"{first} should be {second}, as most instructions here are"
        case "StageNameCasing":
            return f"the name of stage {first} should be lowercase"
        case "FromAsCasing":
            return f"{second} is not in the same case as {first}"
        case "LegacyKeyValueFormat":
            return f"{first} name value is an old form: write {first} name=value"
        case "InvalidDefinitionDescription":
            keyword, names = defined.get(finding.line, ("", ()))
            if names and first not in names:
                return f"the comment above {keyword} should be: # {names[0]} DESCRIPTION"
    return ""


def _defined_at(dockerfile: Dockerfile) -> dict[int, tuple[str, Sequence[str]]]:
    """By their lines, the names that FROM and ARG define."""
    found: dict[int, tuple[str, Sequence[str]]] = {}
    for stage in dockerfile.stages:
        found[stage.location.first] = ("FROM", [stage.name] if stage.name else [])
    inner = (i for stage in dockerfile.stages for i in stage.instructions if isinstance(i, Arg))
    for arg in (*dockerfile.global_args, *inner):
        found[arg.lines.first] = ("ARG", [declared.name for declared in arg.names])
    return found


# FROM


def _of_from(dockerfile: Dockerfile) -> Iterator[Warning]:
    names = [declared.name for arg in dockerfile.global_args for declared in arg.names]
    variables = dict.fromkeys((*PLATFORM_ARGS, *names), "x")
    defaults = _defaults(dockerfile)
    seen: set[str] = set()
    near_name = Near()
    for stage in dockerfile.stages:
        yield from _of_name(stage, seen)
        yield from _of_platform(stage)
        yield from _of_image(stage, variables, near_name, dockerfile.directives.escape)
        base = _value(stage.base.image, defaults, dockerfile.directives.escape)
        if "$" in stage.base.image and base.lower() not in seen and not _is_image(base):
            message = f"with the defaults of ARG, {stage.base.image} is not an image's name"
            yield Warning("InvalidDefaultArgInFrom", stage.location.first, message)
        if stage.name:
            seen.add(stage.name)


def _of_name(stage: Stage, seen: set[str]) -> Iterator[Warning]:
    line = stage.location.first
    if stage.name in _RESERVED:
        yield Warning("ReservedStageName", line, f"a stage should not have the reserved name {stage.name}")
    if stage.name in seen:
        yield Warning("DuplicateStageName", line, f"there is another stage {stage.name} before this one")


def _of_image(stage: Stage, variables: dict[str, str], near_name: Near, escape: str) -> Iterator[Warning]:
    words = (stage.base.image, stage.base.platform)
    for name in sorted({name for word in words for name in missing_in(word, variables, escape)}):
        message = f"no ARG before FROM declares {name}{aside(near_name(name, variables))}"
        yield Warning("UndefinedArgInFrom", stage.location.first, message)


def _of_platform(stage: Stage) -> Iterator[Warning]:
    platform = stage.base.platform
    if platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
        yield Warning(
            "RedundantTargetPlatform", stage.location.first, f"--platform={platform} is what holds without it"
        )
    elif platform and "$" not in platform and not any(part in stage.name for part in platform.lower().split("/")):
        yield Warning(
            "FromPlatformFlagConstDisallowed",
            stage.location.first,
            f"--platform={platform} is fixed: leave it out, or name the stage after it",
        )


def _defaults(dockerfile: Dockerfile) -> dict[str, str]:
    """The variables that FROM may use, as they are without any --build-arg."""
    variables = dict.fromkeys(PLATFORM_ARGS, "linux")
    for arg in dockerfile.global_args:
        for name, default in arg.names:
            if default is not None:
                variables[name] = _value(default, variables, dockerfile.directives.escape)
    return variables


def _value(word: str, variables: Mapping[str, str], escape: str) -> str:
    """The value of *word*; "" where that is an error, which the build will report."""
    try:
        return expansion(word, variables, escape=escape).text
    except DockerfileError:
        return ""


def _is_image(text: str) -> bool:
    try:
        parse_reference(text)
    except InvalidInput:
        return False
    return True
