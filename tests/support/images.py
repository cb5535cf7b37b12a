"""Images for tests. Each has a name and a function that builds it, the same bytes at each build.

What takes long to build is kept in the user's cache.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.debian import bootstrap
from tests.support.layout import (
    DOCKER_LAYER,
    NATIVE,
    Descriptor,
    Entry,
    Layer,
    LayerWriter,
    Layout,
    directory,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)


def busybox_entries() -> list[Entry]:
    """This machine's static busybox with a hard link for each applet, as in Docker's image; uid 1000 is `user`."""
    program = Path("/bin/busybox")
    applets = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    links = [hardlink(f"bin/{name}", "bin/busybox", 0o755) for name in applets if name != "busybox"]
    directories = [directory(name) for name in ("bin", "dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "var")]
    passwd = (
        b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
    )
    group = b"root:x:0:\nwheel:x:10:root,user\nuser:x:1000:\nnogroup:x:65534:\n"
    return [
        *directories,
        directory("root", 0o700),
        directory("tmp", 0o1777),
        directory("home/user", 0o755, 1000, 1000),
        file("etc/passwd", passwd),
        file("etc/group", group),
        file("etc/shadow", b"root:*:::::::\n", 0o640, gid=42),
        file("bin/busybox", program.read_bytes(), 0o755),
        *links,
        symlink("usr/bin/env", "../../bin/env"),
    ]


def busybox_layer(layout: Layout) -> Layer:
    return layout.add_layer(busybox_entries())


def build_busybox(layout: Layout) -> Descriptor:
    return layout.add_image([busybox_layer(layout)])


def build_docker_busybox(layout: Layout) -> Descriptor:
    """The same in Docker's own media types."""
    layer = busybox_layer(layout)
    docker_layer = Layer(layer.descriptor | {"mediaType": DOCKER_LAYER}, layer.diff_id)
    return layout.add_image([docker_layer], docker=True)


# What a container of the image `whiteouts` sees below /data: the content of files, and None for directories.
WHITEOUTS_TREE: dict[str, str | None] = {
    "again": "third",
    "became-directory": None,
    "became-directory/inside": "second",
    "became-file": "second",
    "kept": "first",
    "linked": "first",
    "opaque": None,
    "opaque/new": "second",
}


def build_whiteouts(layout: Layout) -> Descriptor:
    """Three layers, each compressed otherwise, that remove, hide, replace and link what the ones below have."""
    first = [
        directory("data"),
        *(file(f"data/{name}", b"first") for name in ("again", "became-directory", "gone", "kept")),
        directory("data/became-file"),
        file("data/became-file/hidden", b"first"),
        directory("data/opaque"),
        file("data/opaque/old", b"first"),
        directory("data/gone-too"),
        file("data/gone-too/inside", b"first"),
    ]
    second = [
        whiteout("data/again"),
        whiteout("data/gone"),
        whiteout("data/gone-too"),
        directory("data/became-directory"),
        file("data/became-directory/inside", b"second"),
        file("data/became-file", b"second"),
        file("data/opaque/new", b"second"),
        opaque("data/opaque"),
        file("data/kept", b"first"),
        hardlink("data/linked", "data/kept"),
    ]
    third = [file("data/again", b"third")]
    packed = zip((first, second, third), ("gzip", "zstd", "none"), strict=True)
    return layout.add_image([busybox_layer(layout), *(layout.add_layer(entries, how) for entries, how in packed)])


def build_deep(layout: Layout) -> Descriptor:
    """127 layers, the most that Docker takes: /layers/1 to /layers/126, and /layers/last rewritten by each."""
    above = [
        layout.add_layer([directory("layers"), file(f"layers/{n}", b"%d" % n), file("layers/last", b"%d" % n)])
        for n in range(1, 127)
    ]
    return layout.add_image([busybox_layer(layout), *above])


def build_multiarch(layout: Layout) -> Descriptor:
    """An index: busybox for this machine; for the others a file /architecture and nothing that could run."""
    others = [name for name in ("amd64", "arm64", "riscv64") if name != NATIVE]
    foreign = [
        layout.add_image([layout.add_layer([file("architecture", name.encode())])], architecture=name)
        for name in others
    ]
    return layout.add_index([*foreign, build_busybox(layout)])


BIG_FILES, BIG_LAYERS, BIG_BYTES = 10_000, 3, 700 * 10**6


def build_big(layout: Layout) -> Descriptor:
    """For benchmarks: 10,000 files, 700 MB in three layers of about 70 MB compressed; busybox in the first."""
    with ThreadPoolExecutor() as threads:  # zlib and sha256 leave the GIL
        layers = threads.map(lambda n: layout.add_layer(big_entries(n)), range(BIG_LAYERS))
        return layout.add_image(list(layers))


def big_entries(layer: int) -> Iterator[Entry]:
    """A third of the big image's files: few large and many small, text with some bytes that cannot be compressed."""
    chance = random.Random(layer)
    vocabulary = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(4000)]
    frequencies = [1 / rank**1.2 for rank in range(1, len(vocabulary) + 1)]  # as in natural language: Zipf's law
    text = " ".join(chance.choices(vocabulary, frequencies, k=1_000_000)).encode()
    sizes = [chance.lognormvariate(0, 1.5) for _ in range(BIG_FILES // BIG_LAYERS)]
    unit = BIG_BYTES / BIG_LAYERS / sum(sizes)
    yield from busybox_entries() if layer == 0 else [directory("usr")]
    yield directory("usr/share")
    yield directory(f"usr/share/big{layer}")
    for number, size in enumerate(sizes):
        if number % 100 == 0:
            yield directory(f"usr/share/big{layer}/{number // 100}")
        yield file(f"usr/share/big{layer}/{number // 100}/{number}", filling(chance, text, int(size * unit)))


def filling(chance: random.Random, text: bytes, size: int) -> bytes:
    """So many bytes of pieces of *text*, and between them some noise."""
    pieces, left = [], size
    while left > 0:
        start = chance.randrange(len(text) - 70_000)
        piece = (
            text[start : start + min(left, 70_000)] if chance.random() > 0.05 else chance.randbytes(min(left, 70_000))
        )
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def build_debian(layout: Layout) -> Descriptor:
    """Debian's minbase of this machine's release. Raises NoDebian."""
    tar = layout.path / "debian.tar"
    bootstrap(tar)
    writer = LayerWriter(layout.blobs, "gzip")
    with tar.open("rb") as stream:
        while data := stream.read(1 << 20):
            writer.write(data)
    tar.unlink()
    return layout.add_image([writer.finish()], {"Cmd": ["bash"]})


_TOOLS = ("curl", "dig", "iperf3", "ping")


def build_tools(layout: Layout) -> Descriptor:
    """busybox, and this machine's network tools with the libraries that they load, at the places where they are."""
    paths: dict[str, Path] = {}
    for tool in _TOOLS:
        program = shutil.which(tool)
        if program is None:
            raise FileNotFoundError(f"{tool} is not installed")
        paths[program] = Path(program)
        for line in subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.splitlines():
            words = [word for word in line.split() if word.startswith("/")]
            paths.update((word, Path(word)) for word in words)
    above = {str(parent) for path in paths for parent in Path(path).parents} - {"/", "/bin", "/usr", "/usr/bin"}
    entries = [directory(path.lstrip("/")) for path in sorted(above)]
    entries += [file(name.lstrip("/"), path.read_bytes(), 0o755) for name, path in sorted(paths.items())]
    return layout.add_image([busybox_layer(layout), layout.add_layer(entries)])


BUILDERS: dict[str, Callable[[Layout], Descriptor]] = {
    "big": build_big,
    "busybox": build_busybox,
    "debian": build_debian,
    "deep": build_deep,
    "docker-busybox": build_docker_busybox,
    "multiarch": build_multiarch,
    "tools": build_tools,
    "whiteouts": build_whiteouts,
}
KEPT = {"big": 4, "debian": 1}  # in the user's cache; the number changes when the recipe does


def cache_directory() -> Path:
    """Where what takes long to make outlives the test run."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "rootless-tests")


def layout_of(name: str, scratch: Path) -> Layout:
    """Build the image *name*, in the cache if it is one of KEPT and else in *scratch*, unless it is there already."""
    place = cache_directory() / f"{name}-{KEPT[name]}" if name in KEPT else scratch / name
    if not place.exists():
        aside = place.with_name(f"{place.name}.{os.getpid()}")
        layout = Layout(aside)
        layout.set_top(BUILDERS[name](layout))
        aside.rename(place)
    return Layout(place)
