"""Writing into the top layer of a tree: a directory that is made or changed there comes up from the layers below.

The layer holds nothing but what is written here, so its directories are real ones and its names are ours. What the
layers below show at a place says what may be written there, with BuildKit's rules (tonistiigi/fsutil, copy.go): a
directory is merged into a directory, and never replaces anything else; anything else replaces what is no directory;
links at the place are not followed.
"""

import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from rootless.engine.build_digest import unreadable
from rootless.engine.build_tree import MAX_DEPTH, Directory, Entry
from rootless.errors import InvalidInput
from rootless.linux import files
from rootless.store.marks import WHITEOUT, may_set_xattr
from rootless.store.unpack import Ids, Recorded

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20

Owner = tuple[int, int]


class Target:
    """A directory of the tree that is open for writing: in the top layer, and what the layers below have there."""

    __slots__ = ("below", "fd", "fresh", "path")

    def __init__(self, fd: int, below: Directory | None, path: str, *, fresh: bool = False) -> None:
        self.fd = fd
        self.below = below
        self.path = path  # from the root, with a slash at the end; the root's is empty
        self.fresh = fresh  # just made, and filled from one directory: no name is taken before it comes

    def close(self) -> None:
        os.close(self.fd)
        if self.below:
            self.below.close()

    def __enter__(self) -> "Target":  # noqa: PYI034  # typing.Self is Python 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def look_up(self, name: str) -> os.stat_result | None:
        """What the tree shows as *name*, no link followed."""
        if self.fresh:
            return None
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            entry = self.below.look_up(name) if self.below else None
            return entry.status if entry else None


class Attributes(NamedTuple):
    """How what is written shall look, other than its source."""

    owner: Owner | None = None  # None: as the source
    mode: "Mode | None" = None
    xattrs: bool = False  # take over those of the source


class Mode:
    """--chmod: an octal number, or symbolic changes of the source's mode, chmod(1)."""

    _WHO = {"u": 0o700, "g": 0o070, "o": 0o007, "a": 0o777}  # noqa: RUF012  # a table
    _SPECIAL = {"u": stat.S_ISUID, "g": stat.S_ISGID, "o": 0, "a": stat.S_ISUID | stat.S_ISGID}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        """Raises InvalidInput."""
        self.text = text
        self._number: int | None = None
        if text.isascii() and text.isdigit():
            try:
                self._number = int(text, 8)
            except ValueError:
                raise self._invalid() from None
            if self._number > 0o7777:
                raise self._invalid()
        else:
            self.apply(0o644, directory=False)

    def _invalid(self) -> InvalidInput:
        return InvalidInput(
            f"invalid chmod parameter: {self.text!r}",
            hint="it should be octal and between 0 and 07777, or symbolic as in chmod(1): u=rwX,go=rX",
        )

    def apply(self, mode: int, *, directory: bool) -> int:
        """The permissions of a file that has *mode*."""
        if self._number is not None:
            return self._number
        permissions = stat.S_IMODE(mode)
        for clause in self.text.split(","):
            permissions = self._change(permissions, clause, directory)
        return permissions

    def _change(self, permissions: int, clause: str, directory: bool) -> int:
        who = clause[: len(clause) - len(clause.lstrip("ugoa"))]
        rest = clause[len(who) :]
        if not rest:
            raise self._invalid()
        who = who or "a"
        while rest:
            operator, letters = rest[0], rest[1 : 1 + len(rest[1:]) - len(rest[1:].lstrip("rwxXstugo"))]
            if operator not in "+-=":
                raise self._invalid()
            rest = rest[1 + len(letters) :]
            for party in dict.fromkeys("ugo" if "a" in who else who):
                permissions = self._change_one(permissions, party, operator, letters, directory)
        return permissions

    def _change_one(self, permissions: int, party: str, operator: str, letters: str, directory: bool) -> int:
        mask = self._WHO[party]
        bits = 0
        for letter in letters:
            if letter in "ugo":
                shift = {"u": 6, "g": 3, "o": 0}[letter]
                bits |= (permissions >> shift & 7) * 0o111
            elif letter == "X":
                bits |= 0o111 if directory or permissions & 0o111 else 0
            elif letter not in "st":
                bits |= {"r": 0o444, "w": 0o222, "x": 0o111}[letter]
        bits &= mask
        if "s" in letters:
            bits |= self._SPECIAL[party]
        if "t" in letters and party == "o":
            bits |= stat.S_ISVTX
        if operator == "+":
            return permissions | bits
        if operator == "-":
            return permissions & ~bits
        keep = ~(mask | self._SPECIAL[party] | (stat.S_ISVTX if party == "o" else 0))
        return permissions & keep | bits


class Writer:
    """What one step writes into its layer."""

    def __init__(self, layer_fd: int, lowers: Directory) -> None:
        """*layer_fd* is the layer's directory, *lowers* the tree below it; both stay the caller's."""
        self._layer_fd = layer_fd
        self._lowers = lowers
        self._ids = Ids.present()
        self._linked: dict[tuple[int, int], str] = {}
        self.recorded: list[Recorded] = []
        self.skipped: list[str] = []  # sockets and devices, which no layer of ours can have
        if lowers.fds:
            dress(layer_fd, lowers.fds[0])

    def root(self) -> Target:
        """The root of the tree."""
        below = Directory([os.dup(fd) for fd in self._lowers.fds], self._lowers.style) if self._lowers.fds else None
        return Target(os.dup(self._layer_fd), below, "")

    def open(self, names: Sequence[str], missing: Sequence[str], owner: Owner, mode: int = 0o755) -> Target:
        """The directory below the root that *names* lead to, no links among them, and *missing* after them, made."""
        here = self.root()
        for number, name in enumerate([*names, *missing]):
            with here:
                below = self.enter(here, name) if number < len(names) else None
                here_next = below or self._make(here, name, owner, mode)
            here = here_next
        return here

    def enter(self, here: Target, name: str) -> Target:
        """Directory *name*, which the tree shows; it comes up if it is not in the layer yet."""
        if here.path.count("/") > MAX_DEPTH:
            raise InvalidInput(f"/{here.path}{name}: directories are nested too deeply")
        below = None
        if here.below and (entry := here.below.look_up(name)) and entry.is_directory:
            below = here.below.enter(name)
        try:
            try:
                fd = os.open(name, _ENTER, dir_fd=here.fd)
            except FileNotFoundError:
                if below is None:
                    raise
                os.mkdir(name, 0o700, dir_fd=here.fd)
                fd = os.open(name, _ENTER, dir_fd=here.fd)
                dress(fd, below.fds[0])
        except BaseException:
            if below:
                below.close()
            raise
        return Target(fd, below, f"{here.path}{name}/")

    def _make(self, here: Target, name: str, owner: Owner, mode: int) -> Target:
        """A new directory, or the one that another source has just made there."""
        if self._has_directory(here, name):
            return self.enter(here, name)
        self._check_name(name)
        os.mkdir(name, 0o700, dir_fd=here.fd)
        fd = os.open(name, _ENTER, dir_fd=here.fd)
        made = Target(fd, None, f"{here.path}{name}/")
        self._own(fd, made.path, owner, stat.S_IFDIR | mode)
        os.fchmod(fd, mode)
        return made

    @staticmethod
    def _has_directory(here: Target, name: str) -> bool:
        """Whether the tree shows a directory *name*. Raises InvalidInput for anything else there."""
        found = here.look_up(name)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            raise InvalidInput(f"cannot copy to non-directory: /{here.path}{name}")
        return found is not None

    def _check_name(self, name: str) -> None:
        if name.startswith(os.fsdecode(WHITEOUT)):
            raise InvalidInput(f"a layer cannot have a file called {name!r}: it would mean that another is gone")

    # Copying

    def copy(self, source: Directory, entry: Entry, here: Target, name: str, look: Attributes) -> None:
        """Copy what *source* shows as *entry* to *name* in *here*; a directory with all that is in it."""
        if entry.is_directory:
            exists = self._has_directory(here, name)
            with self._directory(here, name, exists) as target, source.enter(entry.name) as below:
                self.copy_entries(below, target, look)
                self._finish_directory(target, entry, below, look)
            return
        self._remove(here, name)
        self._check_name(name)
        mode = entry.status.st_mode
        if stat.S_ISREG(mode):
            self._file(entry, here, name, look)
        elif stat.S_ISLNK(mode):
            os.symlink(entry.link_text(), name, dir_fd=here.fd)
            self._own_entry(here, name, look.owner or owner_of(entry), mode)
            os.utime(
                name, ns=(entry.status.st_atime_ns, entry.status.st_mtime_ns), dir_fd=here.fd, follow_symlinks=False
            )
        elif stat.S_ISFIFO(mode):
            os.mkfifo(name, 0o600, dir_fd=here.fd)
            self._own_entry(here, name, look.owner or owner_of(entry), mode)
            os.chmod(name, stat.S_IMODE(mode), dir_fd=here.fd)
        else:
            self.skipped.append(f"/{here.path}{name}")

    def copy_alone(self, source: Directory, entry: Entry, here: Target, name: str, look: Attributes) -> Target:
        """A directory without what is in it; one that is there already stays as it is."""
        exists = self._has_directory(here, name)
        target = self._directory(here, name, exists)
        if not exists:
            with source.enter(entry.name) as below:
                self._finish_directory(target, entry, below, look)
        return target

    def copy_entries(self, source: Directory, here: Target, look: Attributes) -> None:
        """Copy all that is in a directory."""
        if here.path.count("/") > MAX_DEPTH:
            raise InvalidInput(f"/{here.path}: directories are nested too deeply")
        for entry in source.entries():
            self.copy(source, entry, here, entry.name, look)

    def _directory(self, here: Target, name: str, exists: bool) -> Target:
        if exists:
            return self.enter(here, name)
        self._check_name(name)
        os.mkdir(name, 0o700, dir_fd=here.fd)
        return Target(os.open(name, _ENTER, dir_fd=here.fd), None, f"{here.path}{name}/", fresh=True)

    def _finish_directory(self, target: Target, entry: Entry, source: Directory, look: Attributes) -> None:
        mode = entry.status.st_mode
        permissions = look.mode.apply(mode, directory=True) if look.mode else stat.S_IMODE(mode)
        self._own(target.fd, target.path, look.owner or owner_of(entry), stat.S_IFDIR | permissions)
        if look.xattrs:
            copy_xattrs(target.fd, source.fds[0])
        os.fchmod(target.fd, permissions)
        os.utime(target.fd, ns=(entry.status.st_atime_ns, entry.status.st_mtime_ns))

    def _file(self, entry: Entry, here: Target, name: str, look: Attributes) -> None:
        status = entry.status
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._linked:
            os.link(self._linked[key], name, src_dir_fd=self._layer_fd, dst_dir_fd=here.fd, follow_symlinks=False)
            return
        try:
            source_fd = entry.open_file()
        except OSError as error:
            raise unreadable(entry.name, error) from error
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=here.fd)
            try:
                copy_data(source_fd, fd, status.st_size)
                permissions = stat.S_IMODE(status.st_mode)
                if look.mode:
                    permissions = look.mode.apply(permissions, directory=False)
                self._own(fd, here.path + name, look.owner or owner_of(entry), stat.S_IFREG | permissions)
                if look.xattrs:
                    copy_xattrs(fd, source_fd)
                os.fchmod(fd, permissions)
                os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(fd)
        finally:
            os.close(source_fd)
        if status.st_nlink > 1:
            self._linked[key] = here.path + name

    def write_file(self, here: Target, name: str, content: bytes, owner: Owner, mode: int) -> None:
        """A file with *content*, last changed now."""
        self._remove(here, name)
        self._check_name(name)
        fd = os.open(name, _CREATE, 0o600, dir_fd=here.fd)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            self._own(fd, here.path + name, owner, stat.S_IFREG | mode)
            os.fchmod(fd, mode)

    def _remove(self, here: Target, name: str) -> None:
        """Have nothing in the way of a file *name*. Raises InvalidInput where that is a directory."""
        found = here.look_up(name)
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            raise InvalidInput(f"cannot replace directory /{here.path}{name} with a file")
        try:
            os.unlink(name, dir_fd=here.fd)
        except FileNotFoundError:
            return  # it is below, and will be hidden
        path = os.fsencode(here.path + name)
        self.recorded = [entry for entry in self.recorded if entry.path != path]

    def _own(self, fd: int, path: str, owner: Owner, mode: int) -> None:
        """Give *fd* its owner; or write down who it should be, where that id does not exist here."""
        if self._is_mapped(owner):
            os.fchown(fd, *owner)
        else:
            self._record(path.rstrip("/"), owner, mode)

    def _own_entry(self, here: Target, name: str, owner: Owner, mode: int) -> None:
        if self._is_mapped(owner):
            os.chown(name, *owner, dir_fd=here.fd, follow_symlinks=False)
        else:
            self._record(here.path + name, owner, mode)

    def _is_mapped(self, owner: Owner) -> bool:
        return self._ids.has_uid(owner[0]) and self._ids.has_gid(owner[1])

    def _record(self, path: str, owner: Owner, mode: int) -> None:
        self.recorded.append(Recorded(os.fsencode(path), *owner, mode, None, ()))


def write_tree(directory: str, tree: Directory, look: Attributes) -> None:
    """Copy all that is in *tree* to the directory *directory*, which is nobody's layer."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        writer = Writer(fd, Directory([], None))
        with writer.root() as here:
            writer.copy_entries(tree, here, look)
    finally:
        os.close(fd)


def owner_of(entry: Entry) -> Owner:
    """Whose it is."""
    return entry.status.st_uid, entry.status.st_gid


def dress(fd: int, other_fd: int) -> None:
    """Give a directory the looks of another: what overlayfs does to one that comes up."""
    info = os.fstat(other_fd)
    os.fchown(fd, info.st_uid, info.st_gid)
    copy_xattrs(fd, other_fd)
    os.fchmod(fd, stat.S_IMODE(info.st_mode))
    os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))


def copy_xattrs(fd: int, source_fd: int) -> None:
    """The extended attributes that a file of an image may have."""
    try:
        names = os.listxattr(source_fd)
    except OSError:
        return  # a file system without
    for name in names:
        if may_set_xattr(os.fsencode(name), b""):
            os.setxattr(fd, name, os.getxattr(source_fd, name))


def copy_data(source_fd: int, fd: int, size: int) -> None:
    """Copy a file's content: in the kernel where it is much, and without its blocks where the file system can."""
    if size <= _PIECE:
        while piece := os.read(source_fd, _PIECE):
            files.write_all(fd, piece)
        return
    try:
        while os.copy_file_range(source_fd, fd, 1 << 30):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while os.sendfile(fd, source_fd, None, 1 << 30):
            pass
