"""Writing what an archive has into a directory that has something already, as `cp` does.

Other than a layer's (unpack.py), the directory is in use: by a container, which may swap what is in it at any moment,
or by the user. So each step is one call on a name in an open directory, which does not follow links; where a member's
path goes through a link that was there before, it is for the caller to say where that leads, or it is an error.

A directory stays with what is in it and gets the member's looks; a file, link or FIFO is replaced, never written
through; a directory never replaces something else, nor the other way round. A file that something is mounted at, which
cannot be replaced, is written to instead. Devices are left out.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from typing import NamedTuple

from rootless.errors import CorruptData, RootlessError
from rootless.linux.files import write_all
from rootless.store.marks import lstat, may_set_xattr
from rootless.store.tar import Kind, Member, TarReader

Owner = Callable[[Member], tuple[int, int]]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DEVICES = (Kind.CHARACTER, Kind.BLOCK)
_MAX_DIRECTORIES = 1_000_000  # whose looks are remembered until the end


class Extracted(NamedTuple):
    """What became of an archive."""

    left_out: list[bytes]  # devices
    squashed: int  # members whose owner cannot be had here


def extract(
    chunks: Iterable[bytes],
    top_fd: int,
    *,
    owner: Owner | None,
    follow: Callable[[bytes], int] | None = None,
) -> Extracted:
    """Write the members of the archive that comes in *chunks* into the directory *top_fd*.

    *owner* says who a member belongs to; without, all is the caller's, who gets no setuid bits and no attributes but
    user.*. *follow* opens the directory that a path, from *top_fd*, leads to through links. Raises CorruptData,
    RootlessError where something is in the way, OSError.
    """
    extraction = _Extraction(TarReader(chunks), top_fd, owner, follow)
    try:
        extraction.take_members()
        extraction.dress_directories()
    finally:
        extraction.close()
    return Extracted(extraction.left_out, extraction.squashed)


class _Extraction:
    """One extract()."""

    def __init__(
        self, reader: TarReader, top_fd: int, owner: Owner | None, follow: Callable[[bytes], int] | None
    ) -> None:
        self._reader = reader
        self._top_fd = top_fd
        self._owner = owner
        self._follow = follow
        self._parent: tuple[list[bytes], int] = ([], os.dup(top_fd))
        self._directories: list[tuple[list[bytes], Member]] = []
        self.squashed = 0
        self.left_out: list[bytes] = []

    def close(self) -> None:
        os.close(self._parent[1])

    def take_members(self) -> None:
        for member in self._reader:
            parts = _parts(member.name)
            if not parts:
                continue  # the top itself, which is there
            if member.kind in _DEVICES:
                self.left_out.append(member.name)
                continue
            try:
                self._take(member, self._directory_fd(parts[:-1], make=True), parts)
            except OSError as error:
                raise OSError(error.errno, error.strerror, b"/".join(parts)) from error

    def _take(self, member: Member, fd: int, parts: list[bytes]) -> None:
        name = parts[-1]
        if member.kind is Kind.DIRECTORY:
            self._make_directory(member, fd, parts)
        elif not self._make_room(fd, parts):
            self._write_into(fd, name)
        elif member.kind is Kind.FILE:
            self._make_file(member, fd, name)
        elif member.kind is Kind.HARD_LINK:
            self._make_link(member, fd, name)
        else:
            if member.kind is Kind.SYMLINK:
                os.symlink(member.link, name, dir_fd=fd)
            else:
                os.mkfifo(name, 0o600, dir_fd=fd)
            self._dress_name(member, fd, name)

    # Places

    def _directory_fd(self, parts: list[bytes], *, make: bool) -> int:
        """An fd of a directory below the top, which is ours until the next one is asked for."""
        if self._parent[0] != parts:
            fd = self._open(parts, make=make)
            os.close(self._parent[1])
            self._parent = (parts, fd)
        return self._parent[1]

    def _open(self, parts: list[bytes], *, make: bool) -> int:
        fd = os.dup(self._top_fd)
        for number, name in enumerate(parts):
            before = fd
            try:
                fd = self._enter(before, name, parts[: number + 1], make)
            finally:
                os.close(before)
        return fd

    def _enter(self, fd: int, name: bytes, path: list[bytes], make: bool) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            if not make:
                raise
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP) or self._follow is None:
                raise
            if not stat.S_ISLNK(lstat(name, fd).st_mode):
                raise
            return self._follow(b"/".join(path))
        os.mkdir(name, 0o755, dir_fd=fd)
        return os.open(name, _DIRECTORY, dir_fd=fd)

    def _make_room(self, fd: int, parts: list[bytes]) -> bool:
        """Remove what is at a name, so that a file can be made; False where something is mounted there."""
        try:
            os.unlink(parts[-1], dir_fd=fd)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            shown = os.fsdecode(b"/".join(parts))
            raise RootlessError(f'cannot overwrite directory "{shown}" with non-directory "{shown}"') from None
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
        return True

    # One kind of member each

    def _make_directory(self, member: Member, fd: int, parts: list[bytes]) -> None:
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=fd)
        except FileExistsError:
            if not stat.S_ISDIR(lstat(parts[-1], fd).st_mode):
                shown = os.fsdecode(b"/".join(parts))
                raise RootlessError(f'cannot overwrite non-directory "{shown}" with directory "{shown}"') from None
        if len(self._directories) >= _MAX_DIRECTORIES:
            raise CorruptData("an archive with too many directories")
        self._directories.append((parts, member))

    def _make_file(self, member: Member, fd: int, name: bytes) -> None:
        file_fd = os.open(name, _CREATE, 0o600, dir_fd=fd)
        try:
            self._write(file_fd, member)
            self._dress(file_fd, member)
        finally:
            os.close(file_fd)

    def _write_into(self, fd: int, name: bytes) -> None:
        """Replace the content of a file that something is mounted at."""
        file_fd = os.open(name, _WRITE, dir_fd=fd)
        try:
            if not stat.S_ISREG(os.fstat(file_fd).st_mode):
                raise OSError(errno.EBUSY, "something is mounted there", name)
            os.ftruncate(file_fd, 0)
            while view := self._reader.take():
                write_all(file_fd, view)
        finally:
            os.close(file_fd)

    def _write(self, file_fd: int, member: Member) -> None:
        if member.sparse is None:
            while view := self._reader.take():
                write_all(file_fd, view)
            return
        for offset, size in member.sparse:
            os.lseek(file_fd, offset, os.SEEK_SET)
            while size:
                view = self._reader.take(size)
                size -= len(view)
                write_all(file_fd, view)
        os.ftruncate(file_fd, member.size)

    def _make_link(self, member: Member, fd: int, name: bytes) -> None:
        source = _parts(member.link)
        if not source:
            raise CorruptData(f"{os.fsdecode(member.name)!r}: a hard link to a directory")
        source_fd = self._open(source[:-1], make=False)
        try:
            os.link(source[-1], name, src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(source_fd)

    # Looks

    def dress_directories(self) -> None:
        """Give directories what their members say, the innermost first: one may not be writable then."""
        for parts, member in reversed(self._directories):
            fd = self._open(parts, make=False)
            try:
                self._dress(fd, member)
            finally:
                os.close(fd)

    def _dress(self, fd: int, member: Member) -> None:
        self._give(member, lambda uid, gid: os.fchown(fd, uid, gid))
        for name, value in member.xattrs.items():
            if may_set_xattr(name, value) and (self._owner or name.startswith(b"user.")):
                try:
                    os.setxattr(fd, name, value)
                except OSError:
                    continue  # a file system without, or one that does not take these
        os.fchmod(fd, member.mode if self._owner else member.mode & 0o1777)
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))

    def _dress_name(self, member: Member, fd: int, name: bytes) -> None:
        """The same for a link or FIFO, as far as the name still is one."""
        self._give(member, lambda uid, gid: os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False))
        if member.kind is Kind.FIFO:
            path_fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)  # does not open the FIFO
            try:
                if stat.S_ISFIFO(os.fstat(path_fd).st_mode):
                    os.chmod(f"/proc/self/fd/{path_fd}", member.mode & 0o1777)
            finally:
                os.close(path_fd)
        os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _give(self, member: Member, chown: Callable[[int, int], None]) -> None:
        if self._owner is None:
            return
        try:
            chown(*self._owner(member))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            self.squashed += 1  # it is root's; so its mode may not make others root
            member.mode &= 0o1777


def _parts(path: bytes) -> list[bytes]:
    """The names in *path*; none for the top itself. Raises CorruptData for one that leads up."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise CorruptData(f"{os.fsdecode(path[:200])!r}: leads out of the directory")
    return parts
