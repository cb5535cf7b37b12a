"""create: from an image and options to a container that is there, and has not run yet."""

import os
from contextlib import ExitStack, nullcontext

from rootless.engine import (
    attachment,
    bundle,
    control_group,
    events,
    host_image,
    network_options,
    seccomp,
    storage,
    userns,
)
from rootless.engine.configuration import load_configuration
from rootless.engine.context import Engine
from rootless.engine.log_options import log_limits
from rootless.engine.mount_plan import make_mount, plan_mounts
from rootless.engine.names import random_id, random_name
from rootless.engine.options import ContainerOptions, HealthOption, MountOption
from rootless.engine.remove import remove_anonymous_volumes
from rootless.errors import Conflict, InvalidInput, NotFound
from rootless.linux import files
from rootless.runtime.jsonlog import now
from rootless.spec.image import Healthcheck, ImageConfig, RuntimeConfig
from rootless.spec.platform import acceptable, parse_platform
from rootless.spec.reference import parse_reference
from rootless.spec.signals import parse_signal
from rootless.store.containers import Record, check_name
from rootless.store.images import Image

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAME_TRIES = 20
_SECOND = 1_000_000_000
_MILLISECOND = 1_000_000


def create(engine: Engine, options: ContainerOptions) -> Record:
    """Create the container; returns its record. Pulls the image where the policy says so.

    Raises NotFound, Conflict, InvalidInput and what pulling raises; nothing is left of a container then.
    """
    check_options(options)
    network_options.warn(options)
    engine.enter_namespace()
    with ExitStack() as held:
        if options.image == host_image.NAME:
            image, config = None, RuntimeConfig()
        else:
            image, config = _hold_image(engine, options, held)
        container_id = random_id()
        held.enter_context(engine.containers.lock(container_id))
        name = _take_name(engine, options.name, container_id)
        try:
            return _create(engine, options, image, config, container_id, name)
        except BaseException:
            engine.containers.free_name(name, container_id)
            engine.layout.forget_lock(f"container.{container_id}")
            raise


def _hold_image(engine: Engine, options: ContainerOptions, held: ExitStack) -> tuple[Image, RuntimeConfig]:
    """The image, locked until *held* is left, so that nobody removes it before the container's record names it."""
    while True:
        image, config = find_image(engine, options)
        lock = ExitStack()
        lock.enter_context(engine.layout.lock(f"image.{image.id.partition(':')[2]}", shared=True))
        if engine.images.find_id(image.id):
            held.push(lock)
            return image, config.config
        lock.close()


def _create(
    engine: Engine,
    options: ContainerOptions,
    image: Image | None,
    config: RuntimeConfig,
    container_id: str,
    name: str,
) -> Record:
    if options.cidfile and os.path.exists(options.cidfile):
        raise Conflict(
            f"container ID file found, make sure the other container isn't running or delete {options.cidfile}"
        )
    record = build_record(options, config, container_id, name, image)
    control_group.check(record)
    network_options.resolve(engine, record)
    held = ExitStack()
    userns.settle(engine, options, record, held)
    planned = plan_mounts(engine, options, config)
    staged = engine.containers.stage()
    try:
        if any(isinstance(mount, MountOption) and mount.type == "volume" for mount in planned):
            # Held until the record names them: nobody removes a volume in between.
            held.enter_context(engine.layout.lock("volumes"))
        for mount in planned:
            record["mounts"].append(make_mount(engine, mount))
        userns.give_volumes(record)
        if image is None and (userns.driver(record) or engine.storage_driver) == storage.OVERLAY:
            record["host_mounts"] = host_image.prepare(staged)
        else:
            for directory in ("upper", "work", "rootfs"):
                files.make_directory(os.path.join(staged, directory), 0o755)
            if image is None:
                record["host_mounts"] = []
                record["host_hidden"] = host_image.hide(os.path.join(staged, "upper"))
        _make_name_files(staged, record)
        if options.cidfile:
            _write_cidfile(options.cidfile, container_id)
        engine.containers.commit(staged, record, initial_state(), durable=not options.auto_remove)
    except BaseException:
        held.close()
        remove_anonymous_volumes(engine, record)
        engine.layout.discard(staged)
        raise
    held.close()
    events.of_container(engine, record, "create")
    return record


def _write_cidfile(path: str, container_id: str) -> None:
    try:
        files.replace_file(path, container_id.encode(), 0o644)
    except OSError as error:
        raise InvalidInput(f"failed to create the container ID file {path}: {error.strerror}") from error


def initial_state() -> Record:
    """The state of a container that has never run."""
    return {
        "status": "created",
        "pid": 0,
        "process_started": 0,
        "boot_id": "",
        "started_at": "",
        "finished_at": "",
        "exit_code": 0,
        "error": "",
        "restart_count": 0,
        "health": None,
        "network": None,
    }


def check_options(options: ContainerOptions) -> None:
    """What can be found out without the image. Raises InvalidInput and others for what cannot be.

    What nobody has said is as the configuration says.
    """
    if options.no_new_privileges is None:
        options.no_new_privileges = load_configuration().no_new_privileges
    _check(options)
    sets = bundle.capability_sets(list(options.cap_add), list(options.cap_drop), privileged=options.privileged)
    seccomp.check(options.seccomp, sets["bounding"])
    network_options.check(options)
    control_group.check_options(options)


def _check(options: ContainerOptions) -> None:
    if options.name:
        check_name(options.name)
    if options.auto_remove and options.restart != "no":
        raise InvalidInput("conflicting options: cannot specify both --restart and --rm")
    if options.restart not in ("no", "always", "unless-stopped", "on-failure"):
        raise InvalidInput(f"invalid restart policy '{options.restart}'")
    if options.log_driver not in ("json-file", "none", "local"):
        raise InvalidInput(
            f"logger: no log driver named {options.log_driver!r} is registered", hint="there are: json-file, none"
        )
    if options.working_directory and not options.working_directory.startswith("/"):
        raise InvalidInput(
            f"the working directory '{options.working_directory}' is invalid, it needs to be an absolute path"
        )
    if options.log_driver != "none":
        log_limits(dict(options.log_options))
    if len(options.hostname) > 64:
        raise InvalidInput(f"invalid hostname: {options.hostname!r} is longer than 64 characters")
    for what, words in (
        ("hostname", [options.hostname]),
        ("domainname", [options.domainname]),
        ("add-host", [word for entry in options.extra_hosts for word in entry]),
        ("dns", options.dns),
        ("dns-search", options.dns_search),
        ("dns-option", options.dns_options),
    ):
        for word in words:
            if not word.isprintable() or " " in word:  # each is a word in a line of a file (X26)
                raise InvalidInput(f"invalid {what}: {word!r}")


def find_image(engine: Engine, options: ContainerOptions) -> tuple[Image, ImageConfig]:
    """The image to run, pulled if need be. Raises NotFound where it may not be pulled."""
    image = None if options.pull == "always" else engine.images.find(options.image)
    if image is None and options.pull == "never":
        raise NotFound(f"No such image: {options.image}", hint=f"pull it: rootless pull {options.image}")
    if image is not None:
        config = engine.images.config(image)
        if not options.platform or _satisfies(config, options.platform):
            return image, config
        if options.pull == "never":
            raise NotFound(f"image {options.image} is here, but not for platform {options.platform}")
    # Only now is it worth to load what speaks HTTP.
    from rootless.engine.pull import pull

    reference = parse_reference(options.image).with_default_tag()
    with options.progress() if options.progress else nullcontext() as shown:
        if shown and image is None and options.pull == "missing":
            shown.line(f"Unable to find image '{reference.familiar}' locally")
        image = pull(engine, reference, platform=options.platform, progress=shown).image
    return image, engine.images.config(image)


def _satisfies(config: ImageConfig, platform: str) -> bool:
    return config.platform in acceptable(parse_platform(platform))


def _take_name(engine: Engine, name: str, container_id: str) -> str:
    if name:
        name = check_name(name)
        engine.containers.take_name(name, container_id)
        return name
    for _ in range(_NAME_TRIES):
        name = random_name()
        try:
            engine.containers.take_name(name, container_id)
        except Conflict:
            continue
        return name
    engine.containers.take_name(container_id[:12], container_id)
    return container_id[:12]


def build_record(
    options: ContainerOptions, config: RuntimeConfig, container_id: str, name: str, image: Image | None
) -> Record:
    """What the options and the image's config add up to. Nothing of the image is more than inert text here (B12)."""
    entrypoint, command = _command(options, config)
    if image is None and not (entrypoint or command):
        command = ["/bin/sh"]
    if not (entrypoint or command):
        raise InvalidInput("no command specified", hint=f"the image has none: rootless run {options.image} COMMAND")
    health = health_record(options.health, config.healthcheck)
    return {
        "id": container_id,
        "name": name,
        "created": now(),
        "image": options.image,
        "image_id": image.id if image else "",
        "layers": list(image.layers) if image else [],
        "entrypoint": entrypoint,
        "command": command,
        "environment": environment(options, config),
        "labels": {**config.labels, **dict(options.labels)},
        "annotations": dict(options.annotations),
        "user": config.user if options.user is None else options.user,
        "groups": list(options.groups),
        "working_directory": options.working_directory or config.working_dir or "/",
        "hostname": options.hostname or container_id[:12],
        "domainname": options.domainname,
        "terminal": options.terminal,
        "open_stdin": options.interactive,
        "stdin_once": options.interactive and not options.detach,
        "attach": list(options.attach),
        "auto_remove": options.auto_remove,
        "init": options.init,
        **network_options.fields(options, config.exposed_ports),
        "extra_hosts": [list(entry) for entry in options.extra_hosts],
        "dns": list(options.dns),
        "dns_search": list(options.dns_search),
        "dns_options": list(options.dns_options),
        "pid": options.pid,
        "ipc": options.ipc,
        "uts": options.uts,
        "restart": {"name": options.restart, "maximum_retry_count": options.restart_retries},
        "stop_signal": stop_signal(options, config),
        "stop_timeout": 10 if options.stop_timeout is None else options.stop_timeout,
        "read_only": options.read_only,
        "shm_size": options.shm_size,
        "devices": [list(device) for device in options.devices],
        "privileged": options.privileged,
        "cap_add": list(options.cap_add),
        "cap_drop": list(options.cap_drop),
        "no_new_privileges": bool(options.no_new_privileges),
        "masked_paths": list(options.masked_paths),
        "unmasked_paths": list(options.unmasked_paths),
        "proc_options": list(options.proc_options),
        "apparmor_profile": options.apparmor_profile,
        "selinux_label": options.selinux_label,
        "seccomp": options.seccomp,
        "sysctls": dict(options.sysctls),
        "ulimits": [list(limit) for limit in options.ulimits],
        "limits": {} if options.limits is None else options.limits.to_record(),
        "cgroup_parent": options.cgroup_parent,
        "cgroupns": options.cgroupns,
        "oom_score": options.oom_score,
        "log": {"driver": "json-file" if options.log_driver == "local" else options.log_driver,
                "options": dict(options.log_options)},
        "health": health,
        "image_volumes": list(config.volumes),
        "platform": options.platform,
        "mounts": [],
    }  # fmt: skip


def _command(options: ContainerOptions, config: RuntimeConfig) -> tuple[list[str], list[str]]:
    """(entrypoint, command): an --entrypoint also takes the image's CMD away, as in Docker."""
    if options.entrypoint is not None:
        return list(options.entrypoint), list(options.command)
    return list(config.entrypoint or ()), list(options.command or config.cmd or ())


def environment(options: ContainerOptions, config: RuntimeConfig) -> list[str]:
    """PATH, the image's variables, then the options'; a bare NAME takes a variable away."""
    variables: dict[str, str] = {}
    defaults = [DEFAULT_PATH] + (["TERM=xterm"] if options.terminal else [])
    for entry in (*defaults, *config.env, *options.environment):
        key, equals, _ = entry.partition("=")
        if equals:
            variables[key] = entry
        else:
            variables.pop(key, None)
    return list(variables.values())


def stop_signal(options: ContainerOptions, config: RuntimeConfig) -> int:
    """The number of the signal that asks the program to end: SIGTERM, unless somebody says otherwise."""
    if options.stop_signal is not None:
        return options.stop_signal
    if config.stop_signal:
        return parse_signal(config.stop_signal)
    return 15


def health_record(option: HealthOption, image: Healthcheck | None) -> Record | None:
    """The health check that holds, in Docker's terms (Test, Interval … in ns), or None."""
    if option.disabled:
        return None
    test = ["CMD-SHELL", option.command] if option.command else list(image.test if image else ())
    if not test or test[0] == "NONE":
        return None

    def choose(given: int | None, of_image: int, default: int) -> int:
        return given or of_image or default  # 0 is what is not said, for Docker too

    base = image or Healthcheck((), 0, 0, 0, 0, 0)
    record: Record = {
        "test": test,
        "interval": choose(option.interval, base.interval, 30 * _SECOND),
        "timeout": choose(option.timeout, base.timeout, 30 * _SECOND),
        "start_period": choose(option.start_period, base.start_period, 0),
        "start_interval": choose(option.start_interval, base.start_interval, 5 * _SECOND),
        "retries": choose(option.retries, base.retries, 3),
    }
    for name in ("interval", "timeout", "start_interval"):
        # Less would keep a processor busy, and an image may ask for it.
        if record[name] < _MILLISECOND:
            raise InvalidInput(f"{name.replace('_', ' ')} in a health check cannot be less than 1ms")
    if record["start_period"] < 0 or record["retries"] < 0:
        raise InvalidInput("start period and retries of a health check cannot be negative")
    return record


def _make_name_files(staged: str, record: Record) -> None:
    """The container's own hosts, hostname and resolv.conf, which are mounted over the image's: see name_files.py."""
    for name, content in attachment.name_files_of(record).items():
        with open(os.path.join(staged, name), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(content)
        os.chmod(os.path.join(staged, name), 0o644)
