"""build --check: what is dubious in a Dockerfile, and nothing built."""

from collections.abc import Callable
from typing import NamedTuple, cast

from rootless.dockerfile import lint
from rootless.dockerfile.ignore import Patterns
from rootless.dockerfile.instructions import Dockerfile
from rootless.dockerfile.parse import parse_dockerfile
from rootless.dockerfile.warning import Context, Warning
from rootless.engine.build_context import Prepared, prepare
from rootless.engine.build_options import BuildOptions
from rootless.engine.build_plan import make_plan, platform_variables
from rootless.engine.build_progress import StepFailed
from rootless.engine.build_ssh import Agents
from rootless.engine.context import Engine
from rootless.spec.platform import host_platform
from rootless.store.build_cache import BuildCache

OPTIONS = "BUILDKIT_DOCKERFILE_CHECK"  # a build argument that takes the place of `# check=`


class Checked(NamedTuple):
    """What was found."""

    name: str  # of the Dockerfile
    warnings: tuple[Warning, ...]
    lines: tuple[str, ...]  # of the Dockerfile


def check(engine: Engine, options: BuildOptions, aside: Callable[[], str]) -> Checked:
    """Read the Dockerfile of a build, and check it. Raises DockerfileError, NotFound."""
    agents = Agents(options.ssh, aside)
    prepared = prepare(options, BuildCache(engine.layout), aside, agents)
    try:
        dockerfile = parse_dockerfile(prepared.dockerfile, prepared.name)
        platforms = platform_variables(host_platform(), host_platform(), options.target)
        make_plan(dockerfile, options.target, options.build_args, platforms, options.contexts)
        return Checked(prepared.name, warnings_of(dockerfile, prepared, options), _lines(prepared))
    finally:
        prepared.source.close()
        agents.close()


def warnings_of(dockerfile: Dockerfile, prepared: Prepared, options: BuildOptions) -> tuple[Warning, ...]:
    """The warnings; StepFailed is raised where they are to be errors."""
    given = options.build_args.get(OPTIONS)
    chosen = lint.parse_check_options(given) if given is not None else lint.options_of(dockerfile)
    context = Context(ignored=cast("Patterns | None", prepared.source.patterns))
    found = lint.check(dockerfile, context, chosen)
    if found and chosen.error and not options.check:
        rules = ", ".join(dict.fromkeys(warning.rule for warning in found))
        failed = StepFailed(f"lint violation found for rules: {rules}", hint="--check shows them")
        raise failed
    return found


def _lines(prepared: Prepared) -> tuple[str, ...]:
    return tuple(prepared.dockerfile.decode("utf-8", "replace").splitlines())
