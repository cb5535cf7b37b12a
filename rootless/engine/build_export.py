"""What comes of a build: its results, one for each platform, become images, archives and files where they are wanted.

A build for several platforms makes an image for each. The name means the one for this machine, if it is among them, and
is that of a manifest list of all of them as well, which `manifest push` knows. What is pushed and what goes into an
archive is an index.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple, Protocol

from rootless.dockerfile.warning import Warning
from rootless.engine import build_attest, build_output
from rootless.engine.build_base import Bases
from rootless.engine.build_caches import Caches, steps_of_result
from rootless.engine.build_image import finish
from rootless.engine.build_operations import Operations
from rootless.engine.build_options import BuildOptions, Output
from rootless.engine.build_plan import ImageOf
from rootless.engine.build_progress import Doing, Teller
from rootless.engine.build_squash import merge
from rootless.engine.build_state import Made, Stage
from rootless.engine.build_steps import Steps
from rootless.engine.context import Engine
from rootless.engine.image_new import Attach
from rootless.engine.image_remove import remove_unused_image
from rootless.engine.layer_new import adopt
from rootless.errors import RootlessError
from rootless.spec.platform import Platform, host_platform
from rootless.spec.reference import parse_reference
from rootless.store.images import Image


class Built(NamedTuple):
    """What came of a build."""

    image: Image | None  # None where the result went elsewhere
    names: tuple[str, ...]
    warnings: tuple[Warning, ...] = ()  # about the Dockerfile
    digest: str = ""  # of what was pushed: a manifest or an index


class Result(NamedTuple):
    """What the target came to for one platform."""

    platform: Platform
    stage: Stage


class Work(Protocol):
    """What exporting needs of the build."""

    engine: Engine
    options: BuildOptions
    caches: Caches
    steps: Steps
    operations: Operations
    bases: Bases
    scanner: ImageOf  # for --sbom
    teller: Teller

    def sources(self) -> build_attest.Sources:
        """What the build was made of."""

    def told(self, name: str) -> AbstractContextManager[Doing]:
        """Show what is done inside under a name."""


class Exporter:
    """The results of one build on their way out."""

    def __init__(self, work: Work, results: Sequence[Result], aside: Callable[[], str]) -> None:
        self._work = work
        self._engine = work.engine
        self._options = work.options
        self._results = results
        self._aside = aside
        self._said: dict[Platform, list[build_attest.Statement]] = {}

    def export(self) -> Built:
        """Let the results be where they are wanted. Raises InvalidInput for a place that cannot be written to."""
        outputs = self._options.outputs
        for output in outputs:
            if output.type in build_output.TREES:
                with self._work.told(f"exporting to {output.type}"):
                    self._write_trees(output)
        steps = list(self._work.steps.used.values())
        self._work.caches.export(steps, [result.stage.layers for result in self._results], self._work.told)
        if not build_output.needs_image(outputs):
            return Built(None, ())
        for result in self._results:
            if self._options.squash and len(result.stage.made) > 1:
                with self._work.told("squashing layers"):
                    self._squash(result.stage)
        return self._export_images()

    def _write_trees(self, output: Output) -> None:
        """The files: of several platforms in a directory for each, as BuildKit has it."""
        with ExitStack() as opened:
            trees = {}
            for result in self._results:
                name = "_".join(filter(None, result.platform[:3])) if len(self._results) > 1 else ""
                tree = opened.enter_context(self._work.operations.tree(result.stage))
                more = build_attest.files_of(self._statements(result), self._options, tree)
                trees[name] = build_output.Files(tree, more)
            build_output.write(output, trees, self._engine.whiteout_style, self._aside)

    def _squash(self, stage: Stage) -> None:
        """Make the layers of the build one, and its steps ones without a layer, but for the last."""
        layers = [made.layer.chain_id for made in stage.made]
        staged = self._engine.layers.stage()
        style = self._engine.whiteout_style
        merge([self._engine.layers.diff(c) for c in layers], os.path.join(staged, "diff"), style)
        base = stage.image.layers if stage.image else ()
        layer = adopt(self._engine, base[-1] if base else None, staged, held=self._work.steps.held)
        stage.squash(Made(layer, stage.made[-1].created))

    def _export_images(self) -> Built:
        outputs = self._options.outputs
        tags = build_output.names_of(outputs, self._options.tags)
        names = tuple(str(parse_reference(tag).with_default_tag()) for tag in tags)
        known = {image.id for image in self._engine.images.list()}
        for result in self._results:
            self._statements(result)  # as long as all images are held
        self._work.bases.close()  # the images' own records, or the locks of layers, hold what is needed of them
        with self._work.told("exporting to image") as doing:
            images = [self._make_image(result, doing) for result in self._results]
            image = self._main(images)
            for name in names:
                self._engine.images.tag(parse_reference(name), image.id)
                doing.output("stdout", f"naming to {name}\n".encode())
            if len(images) > 1:
                self._list(names, images)
            if self._options.attestations and not any(map(build_output.carries_attestations, outputs)):
                doing.output("stderr", b"the image here has no attestations: they go where it is pushed or archived\n")
        digest = self._send(images, names)
        if not names and not build_output.stays(outputs):
            for made in images:
                if made.id not in known:
                    remove_unused_image(self._engine, made.id, with_tags=False)
            return Built(None, (), (), digest)
        return Built(image, names, (), digest)

    def _statements(self, result: Result) -> list[build_attest.Statement]:
        """What is said of the result for one platform; made once."""
        known = self._said.get(result.platform)
        if known is None:
            known = self._said[result.platform] = []
            if "provenance" in self._options.attestations:
                known.append(build_attest.provenance(self._options, self._work.sources()))
            if "sbom" in self._options.attestations:
                known += self._scan(result)
        return known

    def _scan(self, result: Result) -> list[build_attest.Statement]:
        # Only who wants to know what is in an image needs what asks a scanner.
        from rootless.engine.build_sbom import scan

        doing = self._work.teller.begin(f"generating sbom using {self._work.scanner.name}")
        scanner, operations = self._work.bases[self._work.scanner], self._work.operations
        try:
            return scan(operations, scanner, result.stage, doing, may_find=not self._options.no_cache)
        except RootlessError as error:
            doing.failed(str(error))
            raise

    def _attach(self, names: Sequence[str]) -> Attach | None:
        said = [self._statements(result) for result in self._results]
        if not any(said):
            return None
        return lambda rows: build_attest.attach(rows, said, [parse_reference(name) for name in names])

    def _make_image(self, result: Result, doing: Doing) -> Image:
        steps, caches = self._work.steps, self._work.caches
        inline = steps_of_result(steps.used.values(), result.stage.layers) if caches.is_inline else None
        image = finish(self._engine, steps.cache, result.stage, self._options, inline)
        doing.output("stdout", f"writing image {image.id}\n".encode())
        return image

    def _main(self, images: Sequence[Image]) -> Image:
        """The image that the names mean: this machine's, or the first."""
        platforms = [result.platform for result in self._results]
        host = host_platform()
        return images[platforms.index(host) if host in platforms else 0]

    def _list(self, names: Sequence[str], images: Sequence[Image]) -> None:
        # Only who builds for several platforms needs what knows lists.
        from rootless.engine.manifest import save_list

        for name in names:
            save_list(self._engine, parse_reference(name), images)

    def _send(self, images: Sequence[Image], names: Sequence[str]) -> str:
        """To archives and registries; the digest that a registry has."""
        digest, attach = "", self._attach(names)
        for output in self._options.outputs:
            if build_output.is_archive(output):
                with self._work.told(f"exporting to {output.type}"):
                    build_output.write_archive(self._engine, output, images, names, attach)
            elif build_output.is_pushed(output):
                with self._work.told(f"exporting to {output.type}"):
                    digest = build_output.push_images(self._engine, output, images, names, self._options, attach)
        return digest
