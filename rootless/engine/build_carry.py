"""Cache mounts carried from one machine to another: --cache-mount-to writes them to a directory, -from reads them.

    DIR/HEX.json   {"id", "mode", "uid", "gid"}; HEX is the key of the cache mount, which says what it belongs to
    DIR/HEX.tar    its files

With type=tar, that directory is in an archive; with type=registry, it is in a registry (build_carry_registry.py). The
same files make the same archives. A cache that is here already is not replaced. What a directory holds may come from
anywhere: names are checked, and its archives are unpacked as those of layers are.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Mapping

from rootless.engine.build_archive import chunks, unpack
from rootless.engine.build_options import CacheEntry
from rootless.engine.context import Engine
from rootless.errors import InvalidInput
from rootless.linux import files
from rootless.store.build_cache import BuildCache
from rootless.store.marks import WhiteoutStyle
from rootless.store.pack import pack
from rootless.store.tar import Kind
from rootless.store.tar_write import TarWriter
from rootless.store.unpack import Ids, unpack_layer

_RECORD = re.compile(r"([0-9a-f]{64})\.json")
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIMIT = 1 << 16
_CHUNK = 1 << 20
_PLACE = {"local": "dest", "tar": "dest", "registry": "ref"}  # the key that says where


def check(target: CacheEntry | None, option: str) -> None:
    """Raise InvalidInput for what an option must not say."""
    for name in target.attributes if target else ():
        if target and name != _PLACE[target.type]:
            raise InvalidInput(f"{option} type={target.type}: unexpected key {name!r}", hint=f"{_PLACE[target.type]}=")
    if target and not target.attributes.get(_PLACE[target.type]):
        raise InvalidInput(f"{option} type={target.type} needs {_PLACE[target.type]}=")


def write(
    engine: Engine, cache: BuildCache, mounts: Mapping[str, str], target: CacheEntry, aside: Callable[[], str]
) -> None:
    """Write the cache mounts with these keys, and their ids, to *target*. Raises InvalidInput.

    *aside* makes a directory that goes with the build.
    """
    place = target.attributes[_PLACE[target.type]]
    if target.type == "local":
        _write_directory(engine, cache, mounts, place)
        return
    directory = aside()
    _write_directory(engine, cache, mounts, directory)
    if target.type == "tar":
        _write_tar(directory, place)
    else:
        from rootless.engine.build_carry_registry import push  # only who asks a registry needs what speaks HTTP

        push(directory, place)


def _write_tar(directory: str, path: str) -> None:
    """The files of the directory, by name, without times and owners."""
    try:
        with files.replacing(path) as out:
            archive = TarWriter(out.write)
            for name in sorted(os.listdir(directory)):
                with open(os.path.join(directory, name), "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    archive.header(name.encode(), Kind.FILE, 0o644, (0, 0), 0, size=size)
                    while piece := file.read(_CHUNK):
                        archive.content(piece)
            archive.finish()
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error


def _write_directory(engine: Engine, cache: BuildCache, mounts: Mapping[str, str], directory: str) -> None:
    try:
        os.makedirs(directory, exist_ok=True)
        for key, mount_id in mounts.items():
            with cache.lock_mount(key, shared=True):
                data = os.path.join(cache.mount_directory(key), "data")
                if os.path.isdir(data):
                    _write_one(data, os.path.join(directory, key), mount_id, engine.whiteout_style)
    except OSError as error:
        raise InvalidInput(f"cannot write to {error.filename or directory}: {error.strerror}") from error


def _write_one(data: str, path: str, mount_id: str, style: WhiteoutStyle) -> None:
    fd = os.open(data, _ENTER)
    try:
        with files.replacing(f"{path}.tar") as file:
            pack(fd, file.write, style=style)
        info = os.fstat(fd)
    finally:
        os.close(fd)
    record = {"id": mount_id, "mode": stat.S_IMODE(info.st_mode), "uid": info.st_uid, "gid": info.st_gid}
    files.replace_file(f"{path}.json", json.dumps(record).encode(), 0o644, durable=False)


def read(cache: BuildCache, source: CacheEntry, aside: Callable[[], str]) -> int:
    """Make the cache mounts that *source* has and the store has not; how many. A source that is not there is well: it
    is the first run. Raises InvalidInput, CorruptData."""
    place = source.attributes[_PLACE[source.type]]
    if source.type == "local":
        return _read_directory(cache, place)
    directory = os.path.join(aside(), "mounts")
    if source.type == "registry":
        from rootless.engine.build_carry_registry import fetch  # as above

        os.mkdir(directory, 0o700)
        fetch(directory, place, lambda key: not os.path.exists(cache.mount_directory(key)))
    else:
        try:
            with open(place, "rb", buffering=0) as file:
                unpack(file, directory)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise InvalidInput(f"cannot read {place}: {error.strerror}") from error
    return _read_directory(cache, directory)


def _read_directory(cache: BuildCache, directory: str) -> int:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise InvalidInput(f"cannot read {directory}: {error.strerror}") from error
    made = 0
    for name in names:
        found = _RECORD.fullmatch(name)
        if found and not os.path.exists(cache.mount_directory(found[1])):
            _read_one(cache, os.path.join(directory, found[1]), found[1])
            made += 1
    return made


def _read_one(cache: BuildCache, path: str, key: str) -> None:
    def fill(target: str) -> None:
        fd = os.open(target, _ENTER)
        try:
            with open(f"{path}.tar", "rb", opener=_no_link) as file:
                unpack_layer(chunks(file), fd, whiteouts=WhiteoutStyle.OVERLAY, ids=Ids.present())
        finally:
            os.close(fd)

    try:
        with open(f"{path}.json", "rb", opener=_no_link) as file:
            record = json.loads(file.read(_LIMIT))
        looks = [record["mode"], record["uid"], record["gid"]]
        if not isinstance(record["id"], str) or not all(isinstance(n, int) and 0 <= n < 1 << 31 for n in looks):
            raise ValueError("fields")
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path}.json is no record of a cache mount") from error
    with cache.lock_mount(key, shared=False):
        try:
            cache.open_mount(key, record["id"], fill, looks[0] & 0o7777, (looks[1], looks[2]))
        except OSError as error:
            raise InvalidInput(f"cannot read {path}.tar: {error.strerror}") from error


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
