"""watch: files change, and services follow: files are sent into containers, containers restarted, images built anew.

    inotify ─▶ paths, gathered until nothing more comes for a moment ─▶ deeds (compose_watch_plan) ─▶ tasks

A deed that fails is told of, and the watching goes on: the next change may be the remedy. Whoever watches calls `step`
again and again; so it fits into the loop that shows the output of services.
"""

import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

from rootless.compose.records import Project, Service
from rootless.dockerfile.instructions import DockerfileError
from rootless.engine.build_context import ignore_patterns
from rootless.engine.build_tree import Directory
from rootless.engine.compose_container import image_name
from rootless.engine.compose_down import restart_services
from rootless.engine.compose_hooks import run_hooks
from rootless.engine.compose_images import Shown
from rootless.engine.compose_labels import members, of_service
from rootless.engine.compose_sync import Prepared, Sync, prepared, send
from rootless.engine.compose_tasks import Task, Tell, Work, run_tasks
from rootless.engine.compose_up import UpOptions, up
from rootless.engine.compose_watch_plan import Deed, Ignored, Rule, decide, is_left_alone, rules_of
from rootless.engine.context import Engine
from rootless.engine.image_remove import remove_unused_image
from rootless.errors import HostUnsupported, InvalidInput, RootlessError
from rootless.linux.inotify import Change, Watch

_QUIET_SECONDS = 0.1  # without a change, and what has changed is acted on
_MOST_SECONDS = 2.0  # and if changes do not end
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class WatchOptions(NamedTuple):
    """What watch is asked for."""

    prune: bool = True
    build_progress: Shown = None


class Watcher:
    """Watches the files of services. To be closed. Raises InvalidInput, HostUnsupported."""

    def __init__(
        self, engine: Engine, project: Project, names: Sequence[str], options: WatchOptions, tell: Tell
    ) -> None:
        self._engine, self._project, self._options, self._tell = engine, project, options, tell
        ignored = {name: _ignored(project.services[name]) for name in names if project.services[name].watch}
        self._rules = rules_of(project, names, ignored)
        self._changed: dict[str, bool] = {}  # path -> whether it was gone in between
        self._lost = False
        self._first = self._last = 0.0
        paths = list(dict.fromkeys(rule.watch.path for rule in self._rules))
        try:
            self._watch = Watch(paths, lambda directory: is_left_alone(self._rules, directory))
        except OSError as error:
            raise HostUnsupported(
                f"cannot watch: {error.strerror}",
                hint="each directory takes a watch: have fs.inotify.max_user_watches raised, or ignore more",
            ) from error

    def __enter__(self) -> "Watcher":  # noqa: PYI034  # typing.Self is Python 3.11's
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._watch.close()

    def begin(self) -> None:
        """Send what is to be the same from the beginning (initial_sync)."""
        rules = [rule for rule in self._rules if rule.syncs and rule.watch.initial_sync]
        for service in dict.fromkeys(rule.service for rule in rules):
            own = tuple((rule, (rule.watch.path,)) for rule in rules if rule.service == service)
            self._do(Deed(service, syncs=own), frozenset())
        self._tell("Watch", "enabled")

    def step(self, timeout: float) -> None:
        """Wait *timeout* seconds at most for changes, and act on those after which nothing more has come."""
        for changed in self._watch.read(min(timeout, _QUIET_SECONDS) if self._is_waiting else timeout):
            self._last = time.monotonic()
            self._first = self._first if self._is_waiting else self._last
            if changed.change is Change.LOST:
                self._lost = True
            else:
                gone = changed.change is Change.GONE
                self._changed[changed.path] = gone or self._changed.get(changed.path, False)
        now = time.monotonic()
        if self._is_waiting and (now - self._last >= _QUIET_SECONDS or now - self._first >= _MOST_SECONDS):
            self._act()

    @property
    def _is_waiting(self) -> bool:
        return self._lost or bool(self._changed)

    def _act(self) -> None:
        paths = [rule.watch.path for rule in self._rules] if self._lost else list(self._changed)
        replaced = frozenset(path for path, gone in self._changed.items() if gone)
        self._changed, self._lost = {}, False
        for deed in decide(self._rules, paths):
            self._do(deed, replaced)

    def _do(self, deed: Deed, replaced: frozenset[str]) -> None:
        try:
            if deed.rebuild:
                self._rebuild(deed.service)
                return
            if deed.syncs:
                self._sync(deed, replaced)
            if deed.hooks:
                self._run(deed)
            if deed.restart:
                self._tell(f"Service {deed.service}", "Restarting after changes")
                restart_services(self._engine, self._project.name, self._project, (deed.service,), None, self._tell)
                self._tell(f"Service {deed.service}", "Restarted after changes")
        except (RootlessError, OSError) as error:
            self._tell(f"Service {deed.service}", f"could not follow its files: {error}")

    def _live(self, service: str) -> list[str]:
        found = of_service(members(self._engine, self._project.name), service)
        return [member.id for member in found if member.status == "running"]

    def _sync(self, deed: Deed, replaced: frozenset[str]) -> None:
        syncs = [_sync_of(rule, paths) for rule, paths in deed.syncs]
        count = sum(len(sync.paths) for sync in syncs)
        shown = f"Service {deed.service}"
        self._tell(shown, f"Syncing {count} change{'s' * (count != 1)}")
        with prepared(syncs, replaced) as changes:
            run_tasks([Task(id, self._send_work(id, changes)) for id in self._live(deed.service)], self._tell)
        self._tell(shown, f"Synced {count} change{'s' * (count != 1)}")

    def _send_work(self, container_id: str, changes: Prepared) -> Work:
        # A task of its own: to reach a container's files may take entering its namespaces.
        return lambda tell: send(self._engine, container_id, changes)

    def _run(self, deed: Deed) -> None:
        def work(container_id: str) -> Work:
            return lambda tell: run_hooks(self._engine, container_id, deed.hooks)

        run_tasks([Task(id, work(id)) for id in self._live(deed.service)], self._tell)

    def _rebuild(self, name: str) -> None:
        service = self._project.services[name]
        before = self._engine.images.find(image_name(self._project, service))
        self._tell(f"Service {name}", "Rebuilding after changes")
        options = UpOptions((name,), no_deps=True, build=True, build_progress=self._options.build_progress)
        up(self._engine, self._project, options, self._tell)
        self._tell(f"Service {name}", "Rebuilt after changes")
        after = self._engine.images.find(image_name(self._project, service))
        if self._options.prune and before is not None and (after is None or before.id != after.id):
            remove_unused_image(self._engine, before.id, with_tags=False)


def _sync_of(rule: Rule, paths: Sequence[str]) -> Sync:
    return Sync(
        rule.watch.path,
        [(path, rule.target_of(path)) for path in paths],
        lambda path, is_directory: rule.wants(path, is_directory=is_directory),
    )


def _ignored(service: Service) -> Ignored:
    """What the .dockerignore of a service's build leaves out. Raises InvalidInput."""
    context = service.build.context if service.build else ""
    if not context or not os.path.isdir(context):
        return lambda path: False
    dockerfile = service.build.dockerfile if service.build else ""
    try:
        with Directory([os.open(context, _OPEN_DIRECTORY)], None) as root:
            patterns = ignore_patterns(root, "" if os.path.isabs(dockerfile) else dockerfile)
    except DockerfileError as error:
        raise InvalidInput(str(error)) from error
    start = os.path.join(context, "")
    if patterns is None:
        return lambda path: False
    return lambda path: path.startswith(start) and patterns.excludes(path[len(start) :])
