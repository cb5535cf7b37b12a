"""Digests of what a build copies: names, kinds, modes, owners, contents, links; and no times.

A directory's digest is of its entries', so it stands for the whole tree. A file that has not changed since a build saw
it is not read again: device, inode, size and both times tell, which nobody can set all together (ctime, inode(7)).
"""

import errno
import hashlib
import os
import stat
import time

from rootless.engine.build_tree import MAX_DEPTH, Directory, Entry
from rootless.errors import InvalidInput
from rootless.store.build_cache import BuildCache, FileState

_PIECE = 1 << 20
_MOST_KNOWN = 500_000  # digests of one place, with those of files that may be gone


def key_of(*parts: object) -> str:
    """64 hex digits that stand for *parts*, whose repr tells all of them: texts, numbers, tuples of these."""
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()


class Digests:
    """The digests of one directory that is built from, and of layers. What was found is kept by close()."""

    def __init__(self, cache: BuildCache, name: str, *, owners: bool) -> None:
        """*name* says whose files these are. Without *owners* all belong to root, as in a build context."""
        self._cache = cache
        self._key = key_of("digests of", name)
        self._owners = owners
        self._known: dict[FileState, bytes] = cache.load_digests(self._key)
        self._found: dict[FileState, bytes] = {}
        self._has_read = False
        self._began = time.time_ns()

    def close(self) -> None:
        """Remember what was found, if it had to be read."""
        if self._has_read:
            before = self._known if len(self._known) < _MOST_KNOWN else {}
            self._cache.save_digests(self._key, {**before, **self._found}, self._began)

    def of_entry(self, parent: Directory, entry: Entry) -> str:
        """The digest of a file or of all in a directory, as hex digits; not of its name."""
        return self._entry(parent, entry, 0).hex()

    def of_directory(self, directory: Directory) -> str:
        """That of the root of a tree, which is no entry."""
        return self._directory(directory, 0).hex()

    def _entry(self, parent: Directory, entry: Entry, depth: int) -> bytes:
        status = entry.status
        mode = status.st_mode
        owner = f"{status.st_uid}:{status.st_gid}" if self._owners else ""
        if stat.S_ISREG(mode):
            content = self._file(entry)
        elif stat.S_ISDIR(mode):
            with parent.enter(entry.name) as below:
                content = self._directory(below, depth + 1)
        elif stat.S_ISLNK(mode):
            content = hashlib.sha256(os.fsencode(entry.link_text())).digest()
        else:
            content = b""
        return hashlib.sha256(f"{mode:o} {owner} ".encode() + content).digest()

    def _directory(self, directory: Directory, depth: int) -> bytes:
        if depth > MAX_DEPTH:
            raise InvalidInput("directories are nested too deeply to be copied")
        total = hashlib.sha256()
        for entry in directory.entries():
            total.update(os.fsencode(entry.name) + b"\0" + self._entry(directory, entry, depth))
        return total.digest()

    def _file(self, entry: Entry) -> bytes:
        s = entry.status
        state = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        digest = self._known.get(state) or self._found.get(state)
        if digest is None:
            self._has_read = True
            digest = self._found[state] = _read(entry)
        return digest


def _read(entry: Entry) -> bytes:
    total = hashlib.sha256()
    try:
        fd = entry.open_file()
    except OSError as error:
        raise unreadable(entry.name, error) from error
    try:
        while piece := os.read(fd, _PIECE):
            total.update(piece)
    finally:
        os.close(fd)
    return total.digest()


def unreadable(path: str, error: OSError) -> InvalidInput:
    """What to say of a file that cannot be read."""
    hint = "leave it out in .dockerignore, or make it readable" if error.errno == errno.EACCES else ""
    return InvalidInput(f"cannot read {path}: {error.strerror}", hint=hint)
