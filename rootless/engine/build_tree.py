"""A file system as its layers show it together, without a mount: looked up, listed, read.

A build reads what it copies (the context, other stages, images) and looks at where it copies to, and all of that was
written by somebody else. So a path is never joined and opened: each step is one system call on a name in an open
directory, with O_NOFOLLOW; links are read, and followed here, inside the tree (`find`). A tree of one layer without
marks is an ordinary directory, such as a build context.

What hides what is overlayfs's rule: the topmost layer that has a name shows it, a whiteout hides it in the layers
below, and directories are merged down to the first that is opaque, or that meets something else.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rootless.errors import InvalidInput
from rootless.linux.inroot import MAX_SYMLINKS
from rootless.store.marks import WHITEOUT, WhiteoutStyle, exists, is_opaque

MAX_DEPTH = 256  # directories inside each other: each is an open file in every layer that has it

_MARK = os.fsdecode(WHITEOUT)
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Entry(NamedTuple):
    """What a directory shows under a name."""

    name: str
    status: os.stat_result
    layer_fd: int  # of the directory that has it, in the layer that shows it

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    def link_text(self) -> str:
        """Where a link leads."""
        return os.readlink(self.name, dir_fd=self.layer_fd)

    def open_file(self) -> int:
        """A descriptor of a regular file, to read. Raises OSError, ESTALE where it is not what was seen any more."""
        fd = os.open(self.name, _READ, dir_fd=self.layer_fd)
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != (self.status.st_dev, self.status.st_ino):
            os.close(fd)
            raise OSError(errno.ESTALE, "was replaced while it was being read", self.name)
        return fd


class Directory:
    """A directory of a tree: a descriptor of it in each layer that shows something of it, top first.

    *style* is how the layers are marked; None where names are just names.
    """

    __slots__ = ("fds", "style")

    def __init__(self, fds: Sequence[int], style: WhiteoutStyle | None) -> None:
        self.fds = list(fds)
        self.style = style

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())

    def __enter__(self) -> "Directory":  # noqa: PYI034  # typing.Self is Python 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def look_up(self, name: str) -> Entry | None:
        """What is called *name* here; None where nothing is."""
        if self.style is WhiteoutStyle.FUSE and name.startswith(_MARK):
            return None
        for fd in self.fds:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                if self._hides(fd, name):
                    return None
                continue
            return None if self._is_mark(status) else Entry(name, status, fd)
        return None

    def enter(self, name: str) -> "Directory":
        """The directory *name*. Raises NotADirectoryError for anything else there, FileNotFoundError."""
        below: list[int] = []
        try:
            for fd in self.fds:
                try:
                    below.append(os.open(name, _ENTER, dir_fd=fd))
                except FileNotFoundError:
                    if self._hides(fd, name):
                        break
                    continue
                except NotADirectoryError:
                    if not below and self.look_up(name):
                        raise
                    break
                if self.style and is_opaque(below[-1]):
                    break
        except BaseException:
            Directory(below, None).close()
            raise
        if not below:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return Directory(below, self.style)

    def entries(self) -> list[Entry]:
        """All there is, by name."""
        if len(self.fds) == 1:
            found = self._entries_of(self.fds[0])
            if self.style:
                found = [e for e in found if not self._is_mark(e.status) and not self._is_named_mark(e.name)]
            return sorted(found, key=_name)
        seen: dict[str, Entry | None] = {}
        for fd in self.fds:
            here = self._entries_of(fd)
            for entry in here:
                if not self._is_named_mark(entry.name):
                    seen.setdefault(entry.name, None if self._is_mark(entry.status) else entry)
            for entry in here:
                if self._is_named_mark(entry.name):
                    seen.setdefault(entry.name[len(_MARK) :], None)
        return sorted(filter(None, seen.values()), key=_name)

    @staticmethod
    def _entries_of(fd: int) -> list[Entry]:
        with os.scandir(fd) as found:
            return [Entry(e.name, e.stat(follow_symlinks=False), fd) for e in found]

    def _is_mark(self, status: os.stat_result) -> bool:
        return self.style is not None and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0

    def _is_named_mark(self, name: str) -> bool:
        return self.style is WhiteoutStyle.FUSE and name.startswith(_MARK)

    def _hides(self, fd: int, name: str) -> bool:
        return self.style is WhiteoutStyle.FUSE and exists(fd, WHITEOUT + os.fsencode(name))


def _name(entry: Entry) -> str:
    return entry.name


class Found(NamedTuple):
    """Where a path leads in a tree: the directories that are there, then what is missing of it.

    *here* is the last directory of *names*, open as long as the look-up is. *entry* is what the path names: where it
    is no directory, its name is not among *names*. The root itself has no entry.
    """

    names: tuple[str, ...]
    missing: tuple[str, ...]
    here: Directory
    entry: Entry | None

    @property
    def is_there(self) -> bool:
        return not self.missing

    @property
    def is_directory(self) -> bool:
        return not self.missing and (self.entry is None or self.entry.is_directory)

    @property
    def path(self) -> str:
        """Where it is, from the root, with every link followed."""
        last = [self.entry.name] if self.entry and not self.entry.is_directory else []
        return "/".join([*self.names, *last, *self.missing])


@contextmanager
def find(root: Directory, path: str, *, follow: bool = True) -> Iterator[Found]:
    """Look *path* up in the tree below *root*, as a process would whose root that is; links never lead outside.

    Without *follow*, a link that is the path's last part is what is found. Raises InvalidInput for links in circles,
    NotADirectoryError where a file stands in the way.
    """
    walk = _Walk(root)
    try:
        yield walk.go(path, follow)
    finally:
        walk.leave(0)


class _Walk:
    """One look-up."""

    def __init__(self, root: Directory) -> None:
        self._root = root
        self._trail: list[Directory] = []
        self._names: list[str] = []
        self._missing: list[str] = []
        self._entries: list[Entry] = []

    @property
    def _here(self) -> Directory:
        return self._trail[-1] if self._trail else self._root

    def leave(self, depth: int) -> None:
        """Go back up, until *depth* directories below the root are left."""
        while len(self._trail) > depth:
            self._trail.pop().close()
        del self._names[depth:], self._entries[depth:]

    def go(self, path: str, follow: bool) -> Found:
        todo, links = parts_of(path)[::-1], 0
        while todo:
            name = todo.pop()
            if name == "..":
                if self._missing:
                    self._missing.pop()
                else:
                    self.leave(max(len(self._trail) - 1, 0))
                continue
            entry = None if self._missing else self._here.look_up(name)
            if entry is None:
                self._missing.append(name)
            elif entry.is_directory:
                self._enter(entry)
            elif entry.is_link and (todo or follow):
                links += 1
                if links > MAX_SYMLINKS:
                    raise InvalidInput(f"{path}: too many levels of symbolic links")
                text = entry.link_text()
                if text.startswith("/"):
                    self.leave(0)
                todo += parts_of(text)[::-1]
            elif todo:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            else:
                return Found(tuple(self._names), (), self._here, entry)
        entry = self._entries[-1] if self._entries and not self._missing else None
        return Found(tuple(self._names), tuple(self._missing), self._here, entry)

    def _enter(self, entry: Entry) -> None:
        if len(self._trail) >= MAX_DEPTH:
            raise InvalidInput(f"{'/'.join(self._names)}: directories are nested too deeply")
        self._trail.append(self._here.enter(entry.name))
        self._names.append(entry.name)
        self._entries.append(entry)


def parts_of(path: str) -> list[str]:
    """The parts of a path that mean something."""
    return [part for part in path.split("/") if part not in ("", ".")]


def open_layers(directories: Sequence[str], style: WhiteoutStyle) -> Directory:
    """The tree of these layers' directories, bottom first: paths in our own store."""
    fds: list[int] = []
    try:
        for path in reversed(directories):
            fds.append(os.open(path, _ENTER))
    except BaseException:
        Directory(fds, None).close()
        raise
    return Directory(fds, style)


def read_file(root: Directory, path: str, limit: int) -> bytes | None:
    """The content of the regular file *path* in the tree; None where there is none. Raises InvalidInput."""
    try:
        with find(root, path) as found:
            entry = found.entry
            if found.missing or entry is None or entry.is_directory:
                return None
            if not stat.S_ISREG(entry.status.st_mode) or entry.status.st_size > limit:
                raise InvalidInput(f"{path} is no regular file of at most {limit} bytes")
            with open(entry.open_file(), "rb") as file:
                return file.read(limit)
    except NotADirectoryError:
        return None
