"""The images that a build begins with or copies from: found here or pulled, for the platform that is asked for.

A name here means one image, mostly this machine's. One for another platform is known by the digest that the registry
has for both; it is pulled by that, so that the name goes on to mean what it did, and both are of one version.
"""

from contextlib import ExitStack, nullcontext
from typing import NamedTuple

from rootless.engine.build_options import BuildOptions
from rootless.engine.build_plan import ImageOf
from rootless.engine.context import Engine
from rootless.engine.create import find_image
from rootless.engine.images import image_lock
from rootless.engine.options import ContainerOptions
from rootless.errors import HostUnsupported, InvalidInput
from rootless.linux.binfmt import has_interpreter
from rootless.spec.image import ImageConfig
from rootless.spec.platform import Platform, acceptable, host_platform, parse_platform
from rootless.spec.reference import parse_reference
from rootless.store.images import Image


class Base(NamedTuple):
    """An image that a build needs."""

    image: Image
    config: ImageConfig


class Bases:
    """The images of one build, held until close(): nobody removes them."""

    def __init__(self, engine: Engine, options: BuildOptions) -> None:
        self._engine = engine
        self._options = options
        self._found: dict[ImageOf, Base] = {}
        self._asked: set[str] = set()  # names that a registry was asked for
        self._held = ExitStack()

    def close(self) -> None:
        """Let go of them."""
        self._held.close()

    def __getitem__(self, wanted: ImageOf) -> Base:
        return self._found[wanted]

    def all(self) -> dict[ImageOf, Base]:
        """All that there are."""
        return dict(self._found)

    def __contains__(self, wanted: object) -> bool:
        return wanted in self._found

    def find(self, wanted: ImageOf) -> None:
        """Have an image. Raises NotFound, and what the registry room raises."""
        while wanted not in self._found:
            image, config = self._find(wanted)
            lock = ExitStack()
            lock.enter_context(self._engine.layout.lock(image_lock(image.id), shared=True))
            if self._engine.images.find_id(image.id):
                self._held.push(lock)
                self._found[wanted] = Base(image, config)
            else:
                lock.close()

    def _find(self, wanted: ImageOf) -> tuple[Image, ImageConfig]:
        if wanted.is_layout:
            return self._from_layout(wanted)
        first = wanted.name not in self._asked
        self._asked.add(wanted.name)
        pull = "always" if self._options.pull and first else "missing"
        known = self._engine.images.find(wanted.name) if wanted.platform and pull == "missing" else None
        name = wanted.name
        if known and not _runs(self._engine.images.config(known), wanted.platform):
            name, sibling = self._sibling(wanted, known)
            if sibling:
                return sibling, self._engine.images.config(sibling)
        options = ContainerOptions(name, pull=pull, platform=wanted.platform, progress=self._options.pull_progress)
        return find_image(self._engine, options)

    def _from_layout(self, wanted: ImageOf) -> tuple[Image, ImageConfig]:
        # Few builds begin with a layout.
        from rootless.engine.build_layout import image_of_layout

        platform = parse_platform(wanted.platform) if wanted.platform else host_platform()
        progress = self._options.pull_progress
        with progress() if progress else nullcontext() as shown:
            return image_of_layout(self._engine, wanted.name, platform, shown)

    def _sibling(self, wanted: ImageOf, known: Image) -> tuple[str, Image | None]:
        """What to call the image that is to *known* what *wanted* asks for; and it itself, if it is here."""
        try:
            name = parse_reference(wanted.name).name
        except InvalidInput:
            return wanted.name, None
        digests = [digest for digest in known.repo_digests if digest.startswith(f"{name}@")]
        for image in self._engine.images.list():
            if set(digests).intersection(image.repo_digests) and _runs(
                self._engine.images.config(image), wanted.platform
            ):
                return wanted.name, image
        return (digests[-1] if digests else wanted.name), None


def _runs(config: ImageConfig, platform: str) -> bool:
    return config.platform in acceptable(parse_platform(platform))


def check_runnable(platform: Platform) -> None:
    """Raise HostUnsupported where programs for *platform* cannot be run here."""
    host = host_platform()
    if platform.os == host.os and (platform in acceptable(host) or platform.architecture == host.architecture):
        return
    if platform.os == host.os and has_interpreter(platform.architecture):
        return
    raise HostUnsupported(
        f"RUN: this machine has no interpreter for programs of {platform}",
        hint="an administrator can install one: the package qemu-user-static with binfmt-support, or"
        " qemu-user-binfmt; here, FROM --platform=$BUILDPLATFORM lets a stage run on this machine",
    )
