"""cp: files and directories between containers and this machine, or out of and into archives.

    source ─▶ TreeWriter, in a thread ─▶ pipe ─▶ TarReader ─▶ extract           `-` takes the place of either half

Both sides speak through an archive, as Docker's do: so one reader, which is bounded and believes nothing, stands before
whatever is written. The container's side is its root's descriptor (container_root.py), which no path leads out of, and
what is mounted in there. What a container swaps in meanwhile is found in its own root, and is copied or is an error.

Ownership: what comes out is the user's; what goes in is root's there, or who the archive `-` says. With *archive* (-a),
what goes in has the numbers that it has here.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import FileIO
from threading import Thread
from typing import NamedTuple

from rootless.engine import events
from rootless.engine.container_root import Root, opened_root
from rootless.engine.context import Engine
from rootless.engine.cp_paths import STREAM, Place, absolute, check_places, means_content, place
from rootless.errors import InvalidInput, NotFound, RootlessError
from rootless.linux.files import write_all
from rootless.linux.inroot import MAX_SYMLINKS, open_in_root
from rootless.store.expand import uncompressed
from rootless.store.extract import Extracted, Owner, extract
from rootless.store.layer_stream import LayerStream
from rootless.store.pack import TreeWriter
from rootless.store.tar import Member
from rootless.store.tar_write import TarWriter, Write

Progress = Callable[[int], object]

_PATH = os.O_PATH | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PIECE = 1 << 18
_PIPE_SIZE = 1 << 20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of fcntl(2)
_OVERFLOW = 65534  # who owns what is not mapped here
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class CopyOptions(NamedTuple):
    """Options with Docker's names."""

    archive: bool = False
    follow_link: bool = False


class Copied(NamedTuple):
    """What was done: bytes of the archive in between, where to, and what was left out."""

    size: int
    target: str
    left_out: tuple[bytes, ...] = ()
    squashed: int = 0


def copy(
    engine: Engine, source: Place, target: Place, options: CopyOptions, write: Write, progress: Progress
) -> Copied:
    """Copy what the command line says; an archive that is asked for by `-` goes to *write*.

    Raises NotFound, InvalidInput with Docker's words, RootlessError for what the system refuses.
    """
    check_places(source, target)
    container_id = engine.containers.find(source.container or target.container)
    if source.container and target.path != STREAM:
        _check_output(target.path)
    try:
        with opened_root(engine, container_id) as root:
            record = engine.containers.load(container_id)
            if source.container:
                done = _copy_out(root, source, target.path, options, write, progress)
            else:
                done = _copy_in(root, source.path, target, options, record["read_only"], progress)
    except OSError as error:
        name = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        raise RootlessError(f"{name}{error.strerror}") from error
    events.of_container(engine, record, "archive-path" if source.container else "extract-to-dir")
    return done


# --- out of a container


def _copy_out(root: Root, source: Place, target: str, options: CopyOptions, write: Write, progress: Progress) -> Copied:
    with _source_in_root(root.fd, source, options.follow_link) as source_fd:
        is_directory = stat.S_ISDIR(os.fstat(source_fd).st_mode)
        if target == STREAM:
            content = is_directory and means_content(source.path)
            name = "" if content else place(source.path, is_directory, "/", True).name
            return Copied(_write(source_fd, name, write, prefix=b"./", progress=progress), target)
        where = place(source.path, is_directory, *_local_target(target))
        with _local_directory(where.directory) as top_fd, _Pipe(source_fd, where.name, progress) as pipe:
            done = extract(pipe.chunks(), top_fd, owner=None)
        return Copied(pipe.size, os.path.abspath(target), tuple(done.left_out))


@contextmanager
def _source_in_root(root_fd: int, source: Place, follow: bool) -> Iterator[int]:
    """An O_PATH descriptor of what is to be copied."""
    path = "/" + source.path
    try:
        fd = open_in_root(root_fd, path, _PATH | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        raise _not_found(source) from None
    try:
        yield fd
    finally:
        os.close(fd)


def _not_found(wanted: Place) -> NotFound:
    return NotFound(f"Could not find the file {wanted.path} in container {wanted.container}")


def _check_output(path: str) -> None:
    """As Docker does before anything else."""
    directory = os.path.dirname(os.path.normpath(path))
    if directory and not os.path.exists(directory):
        raise InvalidInput(f'invalid output path: directory "{directory}" does not exist')
    if os.path.exists(path) and not (os.path.isdir(path) or os.path.isfile(path)):
        raise InvalidInput(f'invalid output path: "{path}" must be a directory or a regular file')


def _local_target(path: str) -> tuple[str, bool | None]:
    """The path here that is meant, a link followed, and whether that is a directory; None where nothing is."""
    for _ in range(MAX_SYMLINKS):
        if not os.path.islink(path):
            break
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    return path, os.path.isdir(path) if os.path.lexists(path) else None


@contextmanager
def _local_directory(path: str) -> Iterator[int]:
    fd = os.open(path, _OPEN_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


# --- into a container


def _copy_in(
    root: Root, source: str, target: Place, options: CopyOptions, read_only: bool, progress: Progress
) -> Copied:
    path, is_directory = _target_in_root(root.fd, target)
    shown = f"{target.container}:{path}"
    if source == STREAM:
        if not is_directory:
            raise InvalidInput(f'destination "{target.container}:{target.path}" must be a directory')
        with _directory_in_root(root.fd, path, target, read_only) as top_fd:
            return _from_archive(root.fd, path, top_fd, shown, progress)
    with _local_source(source, options.follow_link) as source_fd:
        source_is_directory = stat.S_ISDIR(os.fstat(source_fd).st_mode)
        where = place(absolute(source, os.getcwd()), source_is_directory, path, is_directory)
        owner = _numbers_here(root) if options.archive else _root_owner
        with (
            _directory_in_root(root.fd, where.directory, target, read_only) as top_fd,
            _Pipe(source_fd, where.name, progress) as pipe,
        ):
            done = extract(pipe.chunks(), top_fd, owner=owner)
        return _copied(pipe.size, shown, done)


def _copied(size: int, shown: str, done: Extracted) -> Copied:
    return Copied(size, shown, tuple(done.left_out), done.squashed)


def _from_archive(root_fd: int, path: str, top_fd: int, shown: str, progress: Progress) -> Copied:
    """Take an archive from standard input, compressed or not."""

    def follow(below: bytes) -> int:
        return open_in_root(root_fd, os.fsencode(path) + b"/" + below, _OPEN_DIRECTORY)

    with FileIO(0, closefd=False) as file, LayerStream(file, read=uncompressed) as stream:

        def chunks() -> Iterator[bytes]:
            for chunk in stream:
                progress(len(chunk))
                yield chunk

        done = extract(chunks(), top_fd, owner=lambda member: (member.uid, member.gid), follow=follow)
        for _ in stream:
            pass  # what comes after the archive's end
    return _copied(stream.size, shown, done)


def _target_in_root(root_fd: int, target: Place) -> tuple[str, bool | None]:
    """The path in the container that is meant, the last links followed, and whether that is a directory."""
    path = "/" + target.path
    for _ in range(MAX_SYMLINKS):
        try:
            fd = open_in_root(root_fd, path, _PATH | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            return _normal(path), None
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISLNK(mode):
                return _normal(path), _may_be_written(mode, target)
            path = os.path.join(os.path.dirname(path), os.fsdecode(os.readlink(b"", dir_fd=fd)))
        finally:
            os.close(fd)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _normal(path: str) -> str:
    return "/" + path.lstrip("/")


def _may_be_written(mode: int, target: Place) -> bool:
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InvalidInput(f'destination "{target.container}:{target.path}" must be a directory or a regular file')
    return stat.S_ISDIR(mode)


@contextmanager
def _directory_in_root(root_fd: int, path: str, target: Place, read_only: bool) -> Iterator[int]:
    """An fd of the directory to write into, which is held from here on, whatever becomes of the path."""
    try:
        fd = open_in_root(root_fd, path, _OPEN_DIRECTORY)
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        raise _not_found(Place(target.container, path)) from None
    try:
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            is_root = read_only and os.fstat(fd).st_dev == os.fstat(root_fd).st_dev
            raise InvalidInput(
                "container rootfs is marked read-only" if is_root else "mounted volume is marked read-only"
            )
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _local_source(path: str, follow: bool) -> Iterator[int]:
    try:
        fd = os.open(path, _PATH | (0 if follow or path.endswith("/") else os.O_NOFOLLOW))
    except OSError as error:
        raise NotFound(f"lstat {os.path.abspath(path)}: {(error.strerror or '').lower()}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _root_owner(member: Member) -> tuple[int, int]:
    return 0, 0


def _numbers_here(root: Root) -> Owner:
    """The ids that a file has on the machine, instead of those that it shows in the user's namespace."""
    if root.is_joined:
        return lambda member: (member.uid, member.gid)  # there the user has his own number
    uids, gids = _outside("uid"), _outside("gid")
    return lambda member: (uids(member.uid), gids(member.gid))


def _outside(kind: str) -> Callable[[int], int]:
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        ranges = [tuple(map(int, line.split())) for line in file]

    def outside(number: int) -> int:
        for inside, beyond, count in ranges:
            if number != _OVERFLOW and inside <= number < inside + count:
                return beyond + number - inside
        return number

    return outside


# --- in between


def _write(source_fd: int, name: str, write: Write, *, prefix: bytes, progress: Progress) -> int:
    """Write the archive of the one thing, called *name*; its length."""
    writer = TarWriter(write)
    TreeWriter(writer, progress=progress).write_one(source_fd, os.fsencode(name), prefix)
    writer.finish()
    return writer.length


class _Pipe:
    """The archive of a source, written by a thread; its failure is raised where the chunks are read."""

    def __init__(self, source_fd: int, name: str, progress: Progress) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)
        _widen(self._write_fd)
        self._failure: BaseException | None = None
        self.size = 0
        self._thread = Thread(target=self._work, args=(source_fd, name, progress), name="cp", daemon=True)

    def __enter__(self) -> "_Pipe":  # noqa: PYI034 - Self needs Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._read_fd)  # a thread that still writes gets EPIPE
        self._thread.join()

    def chunks(self) -> Iterator[bytes]:
        """The archive. Raises what writing it raised."""
        while chunk := os.read(self._read_fd, _PIECE):
            yield chunk
        self._thread.join()
        if self._failure:
            raise self._failure

    def _work(self, source_fd: int, name: str, progress: Progress) -> None:
        try:
            write = partial(write_all, self._write_fd)
            self.size = _write(source_fd, name, write, prefix=b"", progress=progress)
        except BaseException as error:
            self._failure = error
        finally:
            os.close(self._write_fd)


def _widen(pipe_fd: int) -> None:
    """Fewer changes between the threads; what is allowed is a matter of limits, pipe(7)."""
    try:
        fcntl.fcntl(pipe_fd, _SET_PIPE_SIZE, _PIPE_SIZE)
    except OSError:
        return
