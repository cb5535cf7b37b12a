"""A store with images and containers that no registry and no `run` ever made: records and files, written directly."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rootless.engine.context import Engine
from rootless.engine.create import build_record, initial_state
from rootless.engine.names import random_id
from rootless.engine.options import ContainerOptions
from rootless.linux import files
from rootless.spec.digest import DiffID, chain_ids, digest_of
from rootless.spec.image import OCI_MANIFEST, RuntimeConfig
from rootless.spec.reference import parse_reference
from rootless.store.containers import Record
from rootless.store.images import Image
from rootless.store.layout import Layout
from tests.support.layout import NATIVE

LAYER_SIZE = 1_000  # bytes of the one file that each layer has
CREATED = "2023-11-14T22:13:20Z"


class OutsideEngine(Engine):
    """An engine for tests: a process that entered the user's namespace could not leave it for the next test."""

    def enter_namespace(self) -> str:
        """Stay: the files here are all the user's own."""
        return "single"


class Store:
    """A store, with its engine."""

    def __init__(self, root: Path, run: Path) -> None:
        self.root, self.run = root, run
        self.engine = OutsideEngine(Layout(str(root), str(run)), str(run))

    def add_layers(self, names: Sequence[str]) -> list[str]:
        """Have a layer of each name, one above the other; their chain_ids, bottom first."""
        diff_ids = [DiffID(digest_of(name.encode())) for name in names]
        chain = chain_ids(diff_ids)
        parents = [None, *chain]
        for name, diff_id, chain_id, parent in zip(names, diff_ids, chain, parents, strict=False):
            self.engine.blobs.write(f"layer {name}".encode())
            if not self.engine.layers.has(chain_id):
                staged = self.engine.layers.stage()
                Path(staged, "diff", name).write_bytes(bytes(LAYER_SIZE))
                record = {"diff_id": diff_id, "parent": parent, "size": LAYER_SIZE}
                self.engine.layers.commit(staged, chain_id, record)
        return list(chain)

    def add_image(
        self,
        *tags: str,
        layers: Sequence[str] = ("base",),
        config: Mapping[str, object] | None = None,
        created: str = CREATED,
        digests: Sequence[str] = (),
        **document: object,
    ) -> Image:
        """An image with whole names ("docker.io/library/one:1"); *document* goes into its config's top level."""
        image_config = {
            "created": created,
            "architecture": NATIVE,
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(name.encode()) for name in layers]},
            "history": [{"created": created, "created_by": f"ADD {name}"} for name in layers],
            **document,
        }
        blobs = tuple(digest_of(f"layer {name}".encode()) for name in layers)
        chain = self.add_layers(layers)
        image_id = self.engine.blobs.write(json.dumps(image_config).encode())
        manifest = json.dumps({"config": image_id, "layers": blobs}).encode()
        image = Image(
            id=image_id,
            manifest={
                "media_type": OCI_MANIFEST,
                "digest": self.engine.blobs.write(manifest),
                "size": len(manifest),
            },
            blobs=blobs,
            layers=tuple(chain),  # type: ignore[arg-type]  # made by chain_ids()
            size=LAYER_SIZE * len(layers),
            created=created,
            repo_digests=tuple(digests),
            added_at=1_700_000_000.0,
        )
        self.engine.images.save(image)
        for tag in tags:
            self.tag(tag, image)
        return image

    def tag(self, name: str, image: Image) -> None:
        """Let *name* mean *image*."""
        self.engine.images.tag(parse_reference(name), image.id)

    def add_container(self, image: Image | None, name: str, *, volumes: Sequence[str] = ()) -> str:
        """A container that has never run; its id."""
        container_id = random_id()
        options = ContainerOptions(image.id if image else "host", command=("true",))
        record = build_record(options, RuntimeConfig(), container_id, name, image)
        record["mounts"] = [volume_mount(volume) for volume in volumes]
        self.engine.containers.take_name(name, container_id)
        self.engine.containers.commit(self.engine.containers.stage(), record, initial_state(), durable=False)
        return container_id

    @contextmanager
    def running(self, container_id: str) -> Iterator[None]:
        """The container is recorded as running, and somebody holds the lock that its monitor would."""
        containers = self.engine.containers
        state: dict[str, Any] = {**initial_state(), "status": "running"}
        containers.save_state(container_id, state, durable=False)
        Path(containers.run_directory(container_id)).mkdir(parents=True, exist_ok=True)
        with files.lock_file(f"{containers.run_directory(container_id)}/monitor"):
            yield
        containers.save_state(container_id, initial_state(), durable=False)

    def layers_on_disk(self) -> set[str]:
        """The names of the layers whose directories are there."""
        return {path.name for path in (self.root / "layers").glob("*/diff/*")}

    def blobs_on_disk(self) -> set[str]:
        """The hexadecimal digests of the blobs that are there."""
        return {path.name for path in (self.root / "blobs/sha256").iterdir()}


def volume_mount(name: str) -> Record:
    return {
        "type": "volume",
        "name": name,
        "source": "/nowhere",
        "destination": f"/{name}",
        "read_only": False,
        "options": [],
        "copy": False,
        "anonymous": False,
    }


def digest(letter: str) -> str:
    """A digest that is easy to tell from others: "sha256:aaaa…"."""
    return f"sha256:{letter * 64}"
