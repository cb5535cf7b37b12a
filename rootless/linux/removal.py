"""Removing a tree that somebody else made, and may still be changing.

A container leaves directories that nobody may enter, ten thousand of them inside each other, names that are not text;
and one of its processes may be swapping a directory for a symbolic link to the user's home at this moment. So every
step is one system call on a name in a directory that is held open: unlinkat(2) never follows a link, and a directory
is entered with O_NOFOLLOW. Whatever is swapped in is removed itself, or not at all.

The walk is a loop with a stack of at most MAX_DEPTH open directories. A directory below that is lifted: renamed into
the tree's top, where the next look finds it as a shallow one.
"""

import errno
import os
import stat
from contextlib import suppress

MAX_DEPTH = 32  # directories open at a time; each takes two descriptors, one of them scandir's own
_MAX_SCANS = 16  # of one directory: some file systems hide names from a reader while others are being removed

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(parent_fd: int, name: str | bytes) -> None:
    """Remove what *name* in directory *parent_fd* is, with all that is in it; it is fine if nothing is there.

    Whatever can be removed is; then the first failure is raised: an OSError whose filename leads from *parent_fd* to
    what stands in the way.
    """
    top = os.fsdecode(name)
    if top in ("", ".", "..") or "/" in top:
        raise OSError(errno.EINVAL, "does not name an entry of a directory", name)
    _Removal(parent_fd).run(top)


class _Directory:
    """One that is being emptied. The fd is closed if it cannot be listed."""

    __slots__ = ("entries", "failed", "fd", "name", "progress", "received", "scans")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.failed = False  # something in it cannot be removed
        self.scans = 0
        try:
            self.scan()
        except OSError:
            os.close(fd)
            raise

    def scan(self) -> None:
        """Look at the entries from the start."""
        self.entries = os.scandir(self.fd)
        self.progress = False  # something went away since
        self.received = False  # a directory was lifted into this one since
        self.scans += 1

    def promises_more(self) -> bool:
        """Whether it makes sense to scan once more, as the directory is not empty."""
        return self.received or (self.progress and not self.failed and self.scans < _MAX_SCANS)

    def close(self) -> None:
        self.entries.close()
        os.close(self.fd)


class _Removal:
    """The stack of one remove_tree(), and its first failure."""

    __slots__ = ("_failure", "_next_aside", "_parent_fd", "_stack")

    def __init__(self, parent_fd: int) -> None:
        self._parent_fd = parent_fd
        self._stack: list[_Directory] = []
        self._failure: OSError | None = None
        self._next_aside = 0

    def run(self, top: str) -> None:
        try:
            self._remove(top)
            while self._stack:
                if self._go_through(self._stack[-1]):
                    self._finish()
        finally:
            while self._stack:
                self._stack.pop().close()
        if self._failure is not None:
            raise self._failure

    def _go_through(self, directory: _Directory) -> bool:
        """Go on with the entries, to the end: True; or until one is a directory that has to be emptied first."""
        for entry in directory.entries:
            if not entry.is_dir(follow_symlinks=False):
                self._remove(entry.name)
            elif len(self._stack) < MAX_DEPTH:
                self._enter(entry.name)
            else:
                self._lift(entry.name)
            if self._stack[-1] is not directory:
                return False
        return True

    def _finish(self) -> None:
        """All entries were looked at: remove the directory, or look again where that promises anything."""
        directory = self._stack.pop()
        directory.entries.close()
        try:
            os.rmdir(directory.name, dir_fd=self._here)
        except NotADirectoryError:
            os.close(directory.fd)
            self._remove(directory.name)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY and directory.promises_more():
                self._stack.append(directory)
                directory.scan()
                return
            os.close(directory.fd)
            self._note(error, directory.name)
        else:
            os.close(directory.fd)
            self._went()

    @property
    def _here(self) -> int:
        return self._stack[-1].fd if self._stack else self._parent_fd

    def _remove(self, name: str) -> None:
        """Remove what is no directory; enter it if it is one after all."""
        try:
            os.unlink(name, dir_fd=self._here)
        except IsADirectoryError:
            self._enter(name)
        except OSError as error:
            self._note(error, name)
        else:
            self._went()

    def _enter(self, name: str) -> None:
        """Begin to empty directory *name*; if it was swapped for something else, remove that."""
        try:
            self._stack.append(_Directory(name, self._open(name)))
        except NotADirectoryError:
            self._remove(name)
        except OSError as error:
            self._note(error, name)

    def _open(self, name: str) -> int:
        """An fd to list directory *name* with. Its mode is made to allow that, and to remove entries."""
        try:
            fd = os.open(name, _ENTER, dir_fd=self._here)
        except PermissionError:
            self._allow(name)
            fd = os.open(name, _ENTER, dir_fd=self._here)
        if os.fstat(fd).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            with suppress(OSError):  # not ours; the entry that cannot be removed then will tell
                os.fchmod(fd, stat.S_IRWXU)
        return fd

    def _allow(self, name: str) -> None:
        """chmod u=rwx of a directory that cannot be opened for reading. What is O_PATH can only be reached by /proc."""
        fd = os.open(name, _LOOK, dir_fd=self._here)
        try:
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IRWXU)
        finally:
            os.close(fd)

    def _lift(self, name: str) -> None:
        """Rename directory *name* into the top. Its own mode has to allow that, as its `..` changes (rename(2))."""
        try:
            try:
                self._rename_to_top(name)
            except PermissionError:
                self._allow(name)
                self._rename_to_top(name)
        except OSError as error:
            self._note(error, name)
        else:
            self._stack[0].received = True
            self._went()

    def _rename_to_top(self, name: str) -> None:
        while True:
            aside = f".lifted-{self._next_aside}"
            self._next_aside += 1
            try:
                # An empty directory of that name is replaced, which saves removing it.
                os.rename(name, aside, src_dir_fd=self._here, dst_dir_fd=self._stack[0].fd)
                return
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR):
                    raise

    def _went(self) -> None:
        if self._stack:
            self._stack[-1].progress = True

    def _note(self, error: OSError, name: str) -> None:
        """Remember the first failure; that *name* is gone already is none."""
        if error.errno == errno.ENOENT:
            return
        if self._stack:
            self._stack[-1].failed = True
        if self._failure is None:
            path = "/".join([*(directory.name for directory in self._stack), name])
            self._failure = OSError(error.errno, error.strerror, path)
