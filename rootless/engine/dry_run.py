"""run --dry-run: the configuration that a container would get. Nothing is made but what is taken away again."""

from contextlib import ExitStack

from rootless.engine import bundle, host_image, network_options, seccomp, storage, userns
from rootless.engine.context import Engine
from rootless.engine.create import build_record, check_options, find_image
from rootless.engine.mount_plan import imagine_mount, plan_mounts
from rootless.engine.names import random_id
from rootless.engine.options import ContainerOptions
from rootless.spec.image import RuntimeConfig
from rootless.spec.runtime import Config
from rootless.store.containers import Record
from rootless.store.images import Image


def imagine(engine: Engine, options: ContainerOptions) -> Config:
    """The config.json of a bundle. Raises what create and start raise, NotFound also for an image that is not here."""
    check_options(options)
    rung = engine.enter_namespace()
    image, config = _image(engine, options)
    container_id = random_id()
    record = build_record(options, config, container_id, options.name or container_id[:12], image)
    network_options.resolve(engine, record)
    with ExitStack() as held:
        userns.settle(engine, options, record, held)
    record["mounts"] = [imagine_mount(engine, mount) for mount in plan_mounts(engine, options, config)]
    with ExitStack() as held:
        if image is None and not userns.driver(record):
            record["host_mounts"] = _host_mounts(engine, held)
        elif image is None:
            record["host_mounts"] = []
        made = bundle.build(engine, record, rung, (0, 0))
    if "seccomp" in made["linux"]:
        made["linux"]["seccomp"] = seccomp.without_program(made["linux"]["seccomp"])
    return made


def _image(engine: Engine, options: ContainerOptions) -> tuple[Image | None, RuntimeConfig]:
    if options.image == host_image.NAME:
        return None, RuntimeConfig()
    options.pull = "never"
    image, config = find_image(engine, options)
    return image, config.config


def _host_mounts(engine: Engine, held: ExitStack) -> list[Record]:
    """The overlays of the image `host`, for which its directories have to be made."""
    if engine.storage_driver != storage.OVERLAY:
        return []
    staged = engine.containers.stage()
    held.callback(engine.layout.discard, staged)
    return host_image.prepare(staged)
