"""Hooks of services: commands that are executed in a container after its start, or before its stop."""

from collections.abc import Sequence

from rootless.compose.records import Hook
from rootless.engine.context import Engine
from rootless.errors import RootlessError


def run_hooks(engine: Engine, container_id: str, hooks: Sequence[Hook]) -> None:
    """Execute the hooks, one after the other. Raises RootlessError for the first that fails."""
    if not hooks:
        return
    # Few services have any.
    from rootless.engine.exec import ExecOptions, exec_

    for hook in hooks:
        options = ExecOptions(
            hook.command,
            environment=tuple(f"{name}={value}" for name, value in hook.environment.items() if value is not None),
            user=hook.user or None,
            working_directory=hook.working_dir or None,
            privileged=hook.privileged,
        )
        code = exec_(engine, container_id, options)
        if code:
            raise RootlessError(f"the hook {' '.join(hook.command)} exited with status code {code}")
