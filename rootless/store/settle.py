"""The directories of a layer that its archive does not have, once the layers below are there.

A member `usr/share/x` says nothing of `usr` and `usr/share`; they stand for what the layers below have there. An
overlay shows the looks of the topmost, which would be ours, made up. And a directory hides a link below it: with
`var/run/x` in a layer over one where `var/run` leads to `/run`, the link would be gone.

A whiteout where there is nothing to hide has to go, too: in a directory that only one layer has, overlayfs does not
look for whiteouts, and lists names that nobody can open.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rootless.linux.inroot import MAX_SYMLINKS, open_in_root
from rootless.linux.removal import remove_tree
from rootless.store.marks import (
    WHITEOUT,
    WhiteoutStyle,
    exists,
    is_opaque,
    is_whiteout,
    lstat,
    make_opaque,
    may_set_xattr,
    write_whiteout,
)

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Moved(NamedTuple):
    """A directory whose content is elsewhere now: paths from the layer's root. What is recorded of it moves, too."""

    old: bytes
    new: bytes


def settle_implicit(
    layer_fd: int,
    implicit: Sequence[bytes],
    lower_fds: Sequence[int],
    *,
    whiteouts: WhiteoutStyle,
    marked: Sequence[bytes] = (),
) -> list[Moved]:
    """Make the implicit directories of a layer what they stand for in the layers below, top first, settled already.

    Mode, owner, times and attributes are taken from there. Where those layers have a link to a directory, as for a
    member `var/run/x` above a link `var/run -> /run`, what is in the directory moves to where the link leads, and the
    link is seen again; where both have something of one name, what is there already stays.

    A root that is opaque, which no mount would heed, becomes whiteouts of all that is below it. Of the directories
    that are *marked*, those that the layers below do not have lose their whiteouts. Raises OSError.
    """
    settling = _Settling(layer_fd, lower_fds, whiteouts)
    settling.hide_below_root()
    settling.settle(implicit)
    settling.take_marks_off(marked)
    return settling.moved


class _Settling:
    """One settle_implicit()."""

    def __init__(self, layer_fd: int, lower_fds: Sequence[int], style: WhiteoutStyle) -> None:
        self._layer_fd = layer_fd
        self._lower_fds = lower_fds
        self._style = style
        self.moved: list[Moved] = []

    def hide_below_root(self) -> None:
        if self._style is not WhiteoutStyle.OVERLAY or not is_opaque(self._layer_fd):
            return
        with self._times_kept([]):
            for name in sorted({os.fsencode(name) for fd in self._lower_fds for name in os.listdir(fd)}):
                write_whiteout(self._layer_fd, name, self._style)
                if stat.S_ISDIR(lstat(name, self._layer_fd).st_mode):
                    with self._opened([name]) as fd:
                        make_opaque(fd, self._style)

    def settle(self, implicit: Sequence[bytes]) -> None:
        todo = _innermost_first(implicit)
        while todo:
            path = _split(todo.pop())
            with _union(self._lower_fds, path) as below:
                if isinstance(below, list):
                    if below:
                        self._dress_like(path, below[0])
                    continue
            if below is not None and (target := self._leads_to(path[:-1], below)) is not None:
                todo = self._move(path, target, todo)

    def take_marks_off(self, marked: Sequence[bytes]) -> None:
        """Remove whiteouts from directories that no layer below has."""
        for path in marked:
            for move in self.moved:
                path = move.new + path[len(move.old) :] if (path + b"/").startswith(move.old + b"/") else path
            with _union(self._lower_fds, _split(path)) as below:
                if isinstance(below, list) and below:
                    continue
            with self._times_kept(_split(path)) as fd:
                for name in map(os.fsencode, os.listdir(fd)):
                    if is_whiteout(fd, name):
                        os.unlink(name, dir_fd=fd)

    def _dress_like(self, path: list[bytes], other_fd: int) -> None:
        """Give the directory *path* the looks of *other_fd*, if it is one still."""
        try:
            with self._opened(path) as fd:
                info = os.fstat(other_fd)
                os.fchown(fd, info.st_uid, info.st_gid)
                for name in _xattrs(other_fd):
                    os.setxattr(fd, name, os.getxattr(other_fd, name))
                os.fchmod(fd, stat.S_IMODE(info.st_mode))
                os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))
        except (FileNotFoundError, NotADirectoryError):
            return  # something else was there where it moved

    def _leads_to(self, here: list[bytes], link: bytes) -> list[bytes] | None:
        """Where a link in directory *here* leads with all layers in place. None: to what is no directory."""
        fds = [self._layer_fd, *self._lower_fds]
        todo: list[bytes] = []
        for _ in range(MAX_SYMLINKS):
            here = [] if link.startswith(b"/") else here
            todo += _split(link)[::-1]
            found: list[int] | bytes | None = []
            while todo and isinstance(found, list):
                name = todo.pop()
                if name == b"..":
                    here = here[:-1]
                    continue
                with _union(fds, [*here, name]) as found:
                    if isinstance(found, list):
                        here = [*here, name]
            if not isinstance(found, bytes):
                return None if found is None else here
            link = found
        return None

    def _move(self, path: list[bytes], target: list[bytes], todo: list[bytes]) -> list[bytes]:
        """Move what is in directory *path* to *target*, if that can be, and return what is to do then."""
        if target[: len(path)] == path or self._would_meet_itself(path, target):
            return todo
        try:
            made = self._make(target)
        except (NotADirectoryError, FileExistsError):
            return todo  # this layer has a whiteout on the way, so the link leads to nothing
        with self._times_kept(path[:-1]) as parent_fd, self._times_kept(target):
            self._merge(path, target)
            remove_tree(parent_fd, path[-1])
        old, new = b"/".join(path), b"/".join(target)
        self.moved.append(Moved(old, new))
        inside = old + b"/"
        rest = [b"/".join((*target, other[len(inside) :])) if other.startswith(inside) else other for other in todo]
        return _innermost_first([*rest, *made])

    def _would_meet_itself(self, path: list[bytes], target: list[bytes]) -> bool:
        """Whether *target* is above *path*, and what is in *path* would go to where that is."""
        if path[: len(target)] != target:
            return False
        with self._opened(path) as fd:
            return exists(fd, path[len(target)])

    def _make(self, path: list[bytes]) -> list[bytes]:
        """Make directory *path* in this layer, and return what was missing of it."""
        made = []
        for length in range(1, len(path) + 1):
            part = path[:length]
            try:
                with self._opened(part):
                    continue
            except FileNotFoundError:
                pass
            with self._times_kept(part[:-1]) as parent_fd:
                os.mkdir(part[-1], 0o755, dir_fd=parent_fd)
            with self._opened(part) as fd:
                os.fchmod(fd, 0o755)
            made.append(b"/".join(part))
        return made

    def _merge(self, path: list[bytes], target: list[bytes]) -> None:
        """Rename what is in *path* to *target*; what cannot be, as there is something already, is left."""
        todo: list[list[bytes]] = [[]]
        while todo:
            inner = todo.pop()
            with self._opened(path + inner) as old_fd, self._opened(target + inner) as new_fd:
                for name in map(os.fsencode, os.listdir(old_fd)):
                    if not exists(new_fd, name):
                        os.rename(name, name, src_dir_fd=old_fd, dst_dir_fd=new_fd)
                    elif _is_directory(old_fd, name) and _is_directory(new_fd, name):
                        todo.append([*inner, name])

    @contextmanager
    def _opened(self, path: list[bytes]) -> Iterator[int]:
        """An fd of a directory of this layer."""
        fd = open_in_root(self._layer_fd, b"/".join(path) or b".", _OPEN_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _times_kept(self, path: list[bytes]) -> Iterator[int]:
        """The same; in the end, the directory looks as if nothing had been made or removed in it meanwhile."""
        with self._opened(path) as fd:
            info = os.fstat(fd)
            yield fd
            os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))


@contextmanager
def _union(fds: Sequence[int], path: list[bytes]) -> Iterator[list[int] | bytes | None]:
    """What layers whose roots are *fds*, top first, have together at *path*, whose directories are no links.

    Fds of a directory, one for each layer that shows something of it, and none where nothing is; the text of a link;
    or None for anything else.
    """
    opened: list[int] = []
    here: list[int] | bytes | None = list(fds)
    try:
        for number, name in enumerate(path):
            below = _look_up(here, name) if isinstance(here, list) else []
            _close_all(opened)
            opened = below if isinstance(below, list) else []
            here = below if number == len(path) - 1 or isinstance(below, list) else []
        yield here
    finally:
        _close_all(opened)


def _look_up(fds: list[int], name: bytes) -> list[int] | bytes | None:
    """One step of _union(): *fds* are of one directory."""
    found: list[int] = []
    for fd in fds:
        if not exists(fd, name):
            if exists(fd, WHITEOUT + name):
                break
            continue
        mode = lstat(name, fd).st_mode
        if stat.S_ISDIR(mode):
            found.append(os.open(name, _OPEN_DIRECTORY, dir_fd=fd))
            if is_opaque(found[-1]):
                break
        elif found or is_whiteout(fd, name):
            break
        else:
            return os.readlink(name, dir_fd=fd) if stat.S_ISLNK(mode) else None
    return found


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def _is_directory(dir_fd: int, name: bytes) -> bool:
    return stat.S_ISDIR(lstat(name, dir_fd).st_mode)


def _xattrs(fd: int) -> list[str]:
    """The extended attributes that a directory of a layer got from its archive."""
    try:
        return [name for name in os.listxattr(fd) if may_set_xattr(os.fsencode(name), b"")]
    except OSError:  # a file system without
        return []


def _split(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _innermost_first(paths: Iterable[bytes]) -> list[bytes]:
    return sorted(paths, key=lambda path: len(_split(path)), reverse=True)
