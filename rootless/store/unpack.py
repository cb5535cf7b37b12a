"""Writing a layer's files, as the archive has them, into a directory that holds nothing else.

The archive is hostile: it plants a link and writes through it, makes a file where a directory was, names what lies
outside. Against that, every step is one system call on a name in an open directory that we made: it creates with
O_EXCL, or it does not follow links. Links that a member's path goes through are followed here, in the tree of the
directories that this layer has (_Directory): `var/run -> /run` ends at `run` below the layer's root, whatever it says.

What a later member says of a path wins. What whiteouts say is about lower layers, wherever in the archive they stand:
they are written at the end, where nothing else came to be, and a directory of the layer's own at such a place becomes
opaque. Modes, owners and times of directories come at the end, too, so that one of mode 000 can be filled.

What cannot be done in a user namespace is recorded instead, for push, save and commit to find:
- an owner that is not mapped: the file is the user's (0), and loses setuid or setgid, which would mean the user now;
- a device: there is none in the directory, not even an empty file, as anybody would believe that;
- an extended attribute that the file system or the kernel refuses.
Attributes that mean something to a mount or to this program (trusted.*, user.overlay.*, user.rootless.*, security.*
other than capabilities) are not taken from an archive at all.

A small file costs four system calls, openat, write, utimensat and close, and 12 µs on tmpfs, of which 4 are Python's
(GNU tar: 8); fchown and fchmod come only where what openat made is not right already.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from rootless.errors import CorruptData
from rootless.linux.files import write_all
from rootless.linux.inroot import MAX_SYMLINKS, PATH_MAX, open_in_root
from rootless.linux.removal import remove_tree
from rootless.store.marks import OPAQUE, WHITEOUT, WhiteoutStyle, lstat, make_opaque, may_set_xattr, write_whiteout
from rootless.store.settle import settle_implicit
from rootless.store.tar import DEFAULT_LIMITS, Kind, Member, TarLimits, TarReader

__all__ = ["Ids", "Recorded", "Unpacked", "WhiteoutStyle", "settle_implicit", "unpack_layer"]

MAX_REMEMBERED = 1_000_000  # directories, whiteouts and records of one layer, which are kept in memory until its end

_MAX_OPEN = 48  # directories kept open
_MAX_CACHED = 4096  # paths and owners kept to save looking them up again
_AUFS = b".wh..wh."  # in the root: files of aufs itself; members can be hard links to what is in .wh..wh.plnk
_DEFAULT_ACL = "system.posix_acl_default"
_NO_NAMES = (b"", b".", b"..")

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.HARD_LINK: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FIFO: stat.S_IFIFO,
}

# What the archive is to blame for: names too long, links in circles or to nothing, a file where a directory should be.
_BAD_MEMBER = frozenset((errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EINVAL, errno.EMLINK))


class Ids(NamedTuple):
    """The ids that a file can have here: (first, how many) of each mapped range."""

    uids: tuple[tuple[int, int], ...]
    gids: tuple[tuple[int, int], ...]

    @classmethod
    def present(cls) -> "Ids":
        """Those of the user namespace that the process is in. user_namespaces(7)."""
        return cls(_mapped("/proc/self/uid_map"), _mapped("/proc/self/gid_map"))

    def has_uid(self, uid: int) -> bool:
        return any(first <= uid < first + count for first, count in self.uids)

    def has_gid(self, gid: int) -> bool:
        return any(first <= gid < first + count for first, count in self.gids)


def _mapped(path: str) -> tuple[tuple[int, int], ...]:
    with open(path, encoding="ascii") as file:
        lines = [[int(number) for number in line.split()] for line in file]
    return tuple((inside, count) for inside, _, count in lines)


class Recorded(NamedTuple):
    """What a member is and its file is not. *device* and *xattrs* only hold what could not be applied."""

    path: bytes  # from the layer's root
    uid: int
    gid: int
    mode: int  # with the type, as in stat(2)
    device: tuple[int, int] | None
    xattrs: tuple[tuple[bytes, bytes], ...]


class Unpacked(NamedTuple):
    """What became of a layer."""

    entries: int
    size: int  # bytes of content, without holes
    implicit: list[bytes]  # directories that no member is and lower layers may have; for settle_implicit
    marked: list[bytes]  # directories with whiteouts in them; for settle_implicit
    recorded: list[Recorded]
    squashed: int  # members whose owner cannot be had here; they are recorded
    dropped_xattrs: int  # extended attributes that no archive may set; they are not recorded


def unpack_layer(
    chunks: Iterable[bytes],
    target_fd: int,
    *,
    whiteouts: WhiteoutStyle,
    ids: Ids,
    limits: TarLimits = DEFAULT_LIMITS,
) -> Unpacked:
    """Write the files of the archive that comes in *chunks* into the empty directory *target_fd*, as root of *ids*.

    All chunks are taken, so that a LayerStream knows its diff_id afterwards. Raises CorruptData for an archive that
    is broken, leads out of the directory or goes beyond the *limits*, OSError for what the machine refuses (ENOSPC).
    What is there by then is no layer, and the caller removes it.
    """
    chunks = iter(chunks)
    unpacking = _Unpacking(TarReader(chunks, limits), target_fd, whiteouts, ids)
    try:
        unpacking.take_members()
        for _ in chunks:
            pass
        return unpacking.finish()
    finally:
        unpacking.close()


class _Directory:
    """A directory of the layer, made by us. Only these are known; whatever else has a name is asked of the kernel."""

    __slots__ = ("children", "member", "name", "opaque", "parent", "recorded", "whiteouts")

    def __init__(self, name: bytes, parent: "_Directory | None") -> None:
        self.name = name
        self.parent = parent
        self.children: dict[bytes, _Directory] = {}
        self.member: Member | None = None  # says what it is to look like; None: implicit
        self.opaque = False
        # Most directories have none of either, and there may be a million.
        self.whiteouts: set[bytes] | None = None
        self.recorded: dict[bytes, Recorded] | None = None  # what its entries should be; the root itself is b""

    def path(self, name: bytes = b"") -> bytes:
        """The path of this, or of *name* in it, from the layer's root."""
        names = [name] if name else []
        directory = self
        while directory.parent:
            names.append(directory.name)
            directory = directory.parent
        return b"/".join(reversed(names))

    def forget(self, name: bytes) -> None:
        """Take back what is recorded of *name*, which is to become something else."""
        if self.recorded:
            self.recorded.pop(name, None)

    def below(self) -> "Iterator[_Directory]":
        """This and all directories in it, each before those in it."""
        todo = [self]
        while todo:
            directory = todo.pop()
            yield directory
            todo += directory.children.values()


class _Unpacking:
    """One layer on its way from a reader to a directory."""

    def __init__(self, reader: TarReader, target_fd: int, style: WhiteoutStyle, ids: Ids) -> None:
        self._reader = reader
        self._style = style
        self._ids = ids
        self._own = (os.geteuid(), os.getegid())  # who new files belong to
        self._umask = _umask()
        self._root_fd = target_fd
        self._root = _Directory(b"", None)
        self._fds = {self._root: target_fd}
        self._places: dict[bytes, _Directory] = {}  # what leads where: the part before the last slash of members
        self._owners: dict[tuple[int, int], tuple[int, int]] = {}  # in the archive -> here
        self._remembered = 0
        self._aufs: set[bytes] = set()
        self._entries = self._size = self._squashed = self._dropped = 0
        self._writers: dict[Kind, Callable[[Member, _Directory, bytes], None]] = {
            Kind.FILE: self._file,
            Kind.HARD_LINK: self._hard_link,
            Kind.SYMLINK: self._symlink,
            Kind.CHARACTER: self._device,
            Kind.BLOCK: self._device,
            Kind.DIRECTORY: self._directory,
            Kind.FIFO: self._fifo,
        }

    def take_members(self) -> None:
        """Write what the archive has, but for whiteouts and what directories look like."""
        # The store's directory may hand a group and setgid down, or an ACL: a layer is what its archive says.
        os.fchmod(self._root_fd, 0o700)
        with suppress(OSError):  # none there, or a file system without
            os.removexattr(self._root_fd, _DEFAULT_ACL)
        for member in self._reader:
            self._entries += 1
            try:
                self._take(member)
            except OSError as error:
                if error.errno in _BAD_MEMBER:
                    raise CorruptData(f"{_shown(member.name)}: {error.strerror}") from error
                raise

    def finish(self) -> Unpacked:
        """Write the whiteouts, then give the directories their looks, innermost first."""
        for name in self._aufs:
            self._clear(self._root, name)
        marked = [directory.path() for directory in self._uncovered() if self._write_whiteouts(directory)]
        for directory in reversed(list(self._root.below())):
            self._dress_directory(directory)
        recorded = [found for each in self._root.below() if each.recorded for found in each.recorded.values()]
        implicit = [directory.path() for directory in self._uncovered() if directory.member is None]
        return Unpacked(self._entries, self._size, implicit, marked, recorded, self._squashed, self._dropped)

    def close(self) -> None:
        self._close_fds(list(self._fds))

    # Places

    def _take(self, member: Member) -> None:
        directory, name = self._place(member.name)
        self._close_some_fds()
        if not name:
            self._take_root(member)
        elif name.startswith(WHITEOUT) and not self._is_aufs(directory, name):
            self._whiteout(member, directory, name)
        else:
            if member.kind is not Kind.HARD_LINK:
                directory.forget(name)
            self._writers[member.kind](member, directory, name)

    def _take_root(self, member: Member) -> None:
        if member.kind is not Kind.DIRECTORY:
            raise CorruptData(f"{_shown(member.name)}: the root of a layer is a directory")
        member.mode |= 0o700  # or nobody outside the namespace could look into the layer
        self._root.member = member

    def _place(self, path: bytes) -> tuple[_Directory, bytes]:
        """The directory that the member *path* goes into, made if it must be, and its name there; none for the root."""
        if len(path) >= PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        before, _, name = path.rstrip(b"/").rpartition(b"/")
        if name not in _NO_NAMES and (known := self._places.get(before)):
            return known, name
        parts = _parts(path)
        if not parts:
            return self._root, b""
        directory = self._walk(parts[:-1], make=True)
        if name == parts[-1]:
            if len(self._places) >= _MAX_CACHED:
                self._places.clear()
            self._places[before] = directory
        return directory, parts[-1]

    def _walk(self, parts: list[bytes], *, make: bool) -> _Directory:
        """The directory that *parts* lead to, through links in this layer. Raises OSError."""
        here, todo, links = self._root, parts[::-1], 0
        while todo:
            self._close_some_fds()
            name = todo.pop()
            if name == b"..":
                here = here.parent or here
                continue
            child = here.children.get(name)
            if child is None:
                target = self._read_link(here, name)
                if target is None:
                    if not make:
                        raise FileNotFoundError(errno.ENOENT, "leads to nothing in this layer")
                    child = self._make_directory(here, name)
                else:
                    links += 1
                    if links > MAX_SYMLINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    if target.startswith(b"/"):
                        here = self._root
                    todo += _split(target)[::-1]
                    continue
            here = child
        return here

    def _read_link(self, directory: _Directory, name: bytes) -> bytes | None:
        """The text of a link, or None where nothing is. Raises NotADirectoryError for all else."""
        try:
            return os.readlink(name, dir_fd=self._fd(directory))
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
            raise

    def _make_directory(self, parent: _Directory, name: bytes) -> _Directory:
        """A new one, for us alone until the end. Raises FileExistsError."""
        if name.startswith(WHITEOUT) and not self._is_aufs(parent, name):
            raise CorruptData(f"{_shown(parent.path(name))}: a directory with the name of a whiteout")
        self._remember(1)
        parent.forget(name)
        os.mkdir(name, 0o700, dir_fd=self._fd(parent))
        child = parent.children[name] = _Directory(name, parent)
        return child

    def _is_aufs(self, directory: _Directory, name: bytes) -> bool:
        """Whether it is one of aufs' own files. They are made, as others may be links to them, and go at the end."""
        if directory is not self._root or not name.startswith(_AUFS) or name == OPAQUE:
            return False
        if name not in self._aufs:
            self._remember(1)
            self._aufs.add(name)
        return True

    def _fd(self, directory: _Directory) -> int:
        """An fd of the directory, which stays open until _close_some_fds() at least."""
        fd = self._fds.get(directory)
        if fd is None:
            parent_fd = self._fds.get(directory.parent) if directory.parent else None
            if parent_fd is None:
                fd = open_in_root(self._root_fd, directory.path(), _OPEN_DIRECTORY)
            else:
                fd = os.open(directory.name, _OPEN_DIRECTORY, dir_fd=parent_fd)
            self._fds[directory] = fd
        return fd

    def _close_some_fds(self) -> None:
        """Called where none of them is in use."""
        if len(self._fds) > _MAX_OPEN:
            self._close_fds(list(self._fds)[: _MAX_OPEN // 2])

    def _close_fds(self, directories: list[_Directory]) -> None:
        for directory in directories:
            if directory is not self._root and (fd := self._fds.pop(directory, None)) is not None:
                os.close(fd)

    def _clear(self, directory: _Directory, name: bytes) -> None:
        """Remove what *name* is by now; it is fine if it is nothing."""
        self._places.clear()
        child = directory.children.pop(name, None)
        if child:
            self._close_fds(list(child.below()))
        remove_tree(self._fd(directory), name)

    def _remember(self, amount: int) -> None:
        self._remembered += amount
        if self._remembered > MAX_REMEMBERED:
            raise CorruptData("a layer with too many directories, whiteouts or things that cannot be applied")

    # One kind of member each

    def _file(self, member: Member, directory: _Directory, name: bytes) -> None:
        dir_fd = self._fd(directory)
        # Attributes can only be set while the owner may write.
        mode = 0o600 if member.xattrs else member.mode & 0o777
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=dir_fd)
        except FileExistsError:
            self._clear(directory, name)
            fd = os.open(name, _CREATE, mode, dir_fd=dir_fd)
        try:
            if member.size:
                self._write(fd, member)
            self._dress(fd, member, directory, name, mode & ~self._umask)
        finally:
            os.close(fd)

    def _write(self, fd: int, member: Member) -> None:
        take = self._reader.take
        if member.sparse is None:
            while view := take():
                self._size += len(view)
                write_all(fd, view)
            return
        for offset, size in member.sparse:
            self._size += size
            while size:
                view = take(size)
                size -= len(view)
                while view:
                    written = os.pwrite(fd, view, offset)
                    offset += written
                    view = view[written:]
        os.ftruncate(fd, member.size)

    def _directory(self, member: Member, directory: _Directory, name: bytes) -> None:
        """Content stays where there is a directory already; a link to one does not count as one."""
        child = directory.children.get(name)
        if child is None:
            try:
                child = self._make_directory(directory, name)
            except FileExistsError:
                self._clear(directory, name)
                child = self._make_directory(directory, name)
        child.member = member

    def _symlink(self, member: Member, directory: _Directory, name: bytes) -> None:
        dir_fd = self._fd(directory)
        try:
            os.symlink(member.link, name, dir_fd=dir_fd)
        except FileExistsError:
            self._clear(directory, name)
            os.symlink(member.link, name, dir_fd=dir_fd)
        self._dress_name(member, directory, name)

    def _fifo(self, member: Member, directory: _Directory, name: bytes) -> None:
        dir_fd = self._fd(directory)
        try:
            os.mkfifo(name, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            self._clear(directory, name)
            os.mkfifo(name, 0o600, dir_fd=dir_fd)
        self._dress_name(member, directory, name)

    def _device(self, member: Member, directory: _Directory, name: bytes) -> None:
        self._clear(directory, name)
        xattrs = [(key, value) for key, value in member.xattrs.items() if may_set_xattr(key, value)]
        self._record(member, directory, name, (member.major, member.minor), xattrs)

    def _hard_link(self, member: Member, directory: _Directory, name: bytes) -> None:
        """A second name for what an earlier member made; if that is a link, for the link."""
        parts = _split(member.link)  # which may have `..`: it is looked up in the layer, as the text of a link is
        if not parts or parts[-1] == b"..":
            raise CorruptData(f"{_shown(member.name)}: a hard link to a directory")
        source = self._walk(parts[:-1], make=False)
        recorded = source.recorded.get(parts[-1]) if source.recorded else None
        directory.forget(name)
        if recorded and recorded.device:
            self._clear(directory, name)
        elif not self._link(source, parts[-1], directory, name):
            self._clear(directory, name)
            self._link(source, parts[-1], directory, name)
        if recorded:
            self._keep(recorded, directory, name)

    def _link(self, source: _Directory, old: bytes, directory: _Directory, new: bytes) -> bool:
        """link(2). False if *new* is something else already."""
        source_fd, dir_fd = self._fd(source), self._fd(directory)
        try:
            os.link(old, new, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        except FileExistsError:
            return os.path.samestat(lstat(old, source_fd), lstat(new, dir_fd))
        except PermissionError as error:
            if old in source.children:
                raise CorruptData(f"{_shown(directory.path(new))}: a hard link to a directory") from error
            raise
        return True

    def _whiteout(self, member: Member, directory: _Directory, name: bytes) -> None:
        """Note that something of the lower layers is gone; the member's kind and content say nothing."""
        hidden = name[len(WHITEOUT) :]
        if name == OPAQUE:
            directory.opaque = True
        elif hidden in _NO_NAMES or hidden.startswith(WHITEOUT) or len(name) > 255:
            raise CorruptData(f"{_shown(member.name)}: not a name that a whiteout can have")
        else:
            self._remember(1)
            directory.whiteouts = directory.whiteouts or set()
            directory.whiteouts.add(hidden)

    def _uncovered(self) -> Iterator[_Directory]:
        """The directories that something of lower layers may be seen in, each before those in it."""
        todo = [self._root]
        while todo:
            directory = todo.pop()
            if not directory.opaque:
                yield directory
                todo += directory.children.values()

    def _write_whiteouts(self, directory: _Directory) -> bool:
        """Make the marks for what this layer does not have itself; if it has a directory there, that is opaque.

        Whether there are any is returned.
        """
        self._close_some_fds()
        marked = False
        for hidden in sorted(directory.whiteouts or ()):
            if hidden in directory.children:
                directory.children[hidden].opaque = True
            else:
                write_whiteout(self._fd(directory), hidden, self._style)
                marked = True
        return marked

    # Looks

    def _dress(self, fd: int, member: Member, directory: _Directory, name: bytes, mode: int) -> None:
        """Owner, attributes, mode and times of a file or directory, whose mode is *mode* so far."""
        # chown takes setuid, setgid and capabilities away, so it comes first.
        owner = self._give(member, lambda uid, gid: os.fchown(fd, uid, gid))
        refused = self._set_xattrs(fd, member) if member.xattrs else []
        wanted = self._mode(member, owner)
        if wanted != mode:
            os.fchmod(fd, wanted)
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        if refused or wanted != member.mode or owner != (member.uid, member.gid):
            self._record(member, directory, name, None, refused)

    def _dress_name(self, member: Member, directory: _Directory, name: bytes) -> None:
        """The same for a link or FIFO, which we have just made. They have no attributes that could be set here."""
        dir_fd = self._fd(directory)
        owner = self._give(member, lambda uid, gid: os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False))
        if member.kind is Kind.FIFO:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)  # does not open the FIFO
            try:
                os.chmod(f"/proc/self/fd/{fd}", self._mode(member, owner))
            finally:
                os.close(fd)
        os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)
        self._dropped += len(member.xattrs)
        if owner != (member.uid, member.gid):
            self._record(member, directory, name, None, [])

    def _dress_directory(self, directory: _Directory) -> None:
        self._close_some_fds()
        fd = self._fd(directory)
        if directory.opaque:
            make_opaque(fd, self._style)
        if directory.member:
            self._dress(fd, directory.member, directory.parent or directory, directory.name, 0o700)
        else:
            os.fchmod(fd, 0o755)

    def _give(self, member: Member, chown: Callable[[int, int], None]) -> tuple[int, int]:
        """Give a file its owner, if that can be had here, and return who owns it now."""
        wanted = (member.uid, member.gid)
        owner = self._owners.get(wanted)
        if owner is None:
            if len(self._owners) >= _MAX_CACHED:
                self._owners.clear()
            uid = member.uid if self._ids.has_uid(member.uid) else self._own[0]
            gid = member.gid if self._ids.has_gid(member.gid) else self._own[1]
            owner = self._owners[wanted] = (uid, gid)
        if owner != self._own:
            try:
                chown(*owner)
            except OSError as error:
                # Mapped, and yet not ours to give: a file system that squashes ids, or no capability here.
                if error.errno not in (errno.EPERM, errno.EINVAL):
                    raise
                owner = self._own
        if owner != wanted:
            self._squashed += 1
        return owner

    def _mode(self, member: Member, owner: tuple[int, int]) -> int:
        """The mode for a file of *owner*: nobody may run it as another than the archive says."""
        mode = member.mode
        if owner[0] != member.uid:
            mode &= ~stat.S_ISUID
        if owner[1] != member.gid:
            mode &= ~stat.S_ISGID
        return mode

    def _set_xattrs(self, fd: int, member: Member) -> list[tuple[bytes, bytes]]:
        """Set those that an archive may set, and return what was refused."""
        refused = []
        for name, value in member.xattrs.items():
            if not may_set_xattr(name, value):
                self._dropped += 1
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError:  # whatever the reason: it is kept in the record
                refused.append((name, value))
        return refused

    def _record(
        self,
        member: Member,
        directory: _Directory,
        name: bytes,
        device: tuple[int, int] | None,
        xattrs: list[tuple[bytes, bytes]],
    ) -> None:
        mode = _TYPES[member.kind] | member.mode
        self._keep(Recorded(b"", member.uid, member.gid, mode, device, tuple(xattrs)), directory, name)

    def _keep(self, recorded: Recorded, directory: _Directory, name: bytes) -> None:
        self._remember(1 + sum(len(value) for _, value in recorded.xattrs) // 512)
        directory.recorded = directory.recorded or {}
        directory.recorded[name] = recorded._replace(path=directory.path(name))


def _parts(path: bytes) -> list[bytes]:
    """The names in *path*; none for the root. Raises CorruptData for one that leads up."""
    parts = _split(path)
    if b".." in parts:
        raise CorruptData(f"{_shown(path)}: leads out of the layer")
    return parts


def _umask() -> int:
    """The umask, which umask(2) only tells by changing it; one that takes everything where proc(5) does not tell."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777


def _shown(path: bytes) -> str:
    text = os.fsdecode(path)
    return repr(text if len(text) <= 200 else text[:200] + "…")


def _split(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]
