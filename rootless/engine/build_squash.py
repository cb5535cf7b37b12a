"""--squash: the layers of a build become one. Names that several have are the topmost's; what is gone stays gone.

The merged layer has hard links to the files of the layers, in the same store, so nothing is copied; a layer's files are
never written to. Marks of absence are kept, since what they hide may be in the base; those that only hid what an
earlier of these layers had do no harm.
"""

import os
import stat
from collections.abc import Sequence

from rootless.engine.build_tree import MAX_DEPTH
from rootless.engine.build_write import dress
from rootless.errors import InvalidInput
from rootless.store.marks import OPAQUE, WHITEOUT, WhiteoutStyle, is_opaque, make_opaque

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MARK, _OPAQUE = os.fsdecode(WHITEOUT), os.fsdecode(OPAQUE)


def merge(layers: Sequence[str], target: str, style: WhiteoutStyle) -> None:
    """Merge the directories *layers*, bottom first, into the empty directory *target* of the same file system."""
    fds = [os.open(path, _ENTER) for path in reversed(layers)]
    target_fd = os.open(target, _ENTER)
    try:
        _merge(fds, target_fd, style, 0)
    finally:
        for fd in (*fds, target_fd):
            os.close(fd)


def _merge(fds: list[int], target_fd: int, style: WhiteoutStyle, depth: int) -> None:
    """*fds* are of one directory, top first."""
    if depth > MAX_DEPTH:
        raise InvalidInput("directories are nested too deeply to be squashed")
    done: set[str] = set()
    hidden = False
    for number, fd in enumerate(fds):
        for name in sorted(os.listdir(fd)):
            plain = name[len(_MARK) :] if _is_named_mark(name, style) else name
            if plain in done or name == _OPAQUE:
                continue
            done.add(plain)
            _take(fds[number:], name, target_fd, style, depth)
        if is_opaque(fd):
            hidden = True
            break
    dress(target_fd, fds[0])
    if hidden:
        make_opaque(target_fd, style)
        info = os.fstat(fds[0])
        os.utime(target_fd, ns=(info.st_atime_ns, info.st_mtime_ns))


def _is_named_mark(name: str, style: WhiteoutStyle) -> bool:
    return style is WhiteoutStyle.FUSE and name.startswith(_MARK) and name != _OPAQUE


def _take(fds: list[int], name: str, target_fd: int, style: WhiteoutStyle, depth: int) -> None:
    """What the first of *fds* has as *name*; directories together with those of the others."""
    info = os.stat(name, dir_fd=fds[0], follow_symlinks=False)
    if not stat.S_ISDIR(info.st_mode):
        if stat.S_ISCHR(info.st_mode):
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=target_fd)
        else:
            os.link(name, name, src_dir_fd=fds[0], dst_dir_fd=target_fd, follow_symlinks=False)
        return
    below, ends = _directories(fds, name, style)
    os.mkdir(name, 0o700, dir_fd=target_fd)
    inner = os.open(name, _ENTER, dir_fd=target_fd)
    try:
        _merge(below, inner, style, depth + 1)
        if ends:
            make_opaque(inner, style)
            os.utime(inner, ns=(info.st_atime_ns, info.st_mtime_ns))
    finally:
        for fd in (*below, inner):
            os.close(fd)


def _directories(fds: list[int], name: str, style: WhiteoutStyle) -> tuple[list[int], bool]:
    """The directories *name* that are merged, top first; and whether something that is no directory ends them."""
    found: list[int] = []
    for fd in fds:
        try:
            found.append(os.open(name, _ENTER, dir_fd=fd))
        except FileNotFoundError:
            if style is WhiteoutStyle.FUSE and os.path.lexists(f"/proc/self/fd/{fd}/{_MARK}{name}"):
                return found, True
            continue
        except NotADirectoryError:
            return found, True
        if is_opaque(found[-1]):
            break
    return found, False
