"""The layers as one tree: finding a name in them, listing a directory, telling of a file, and what is remembered.

A directory is read once, when more than one layer has it or somebody lists it: from then on its listing says in which
layer each name is, and that other names are not there, without asking the system again. It is kept right by what
changes the upper layer, for nobody else does. A directory that one layer alone has is asked for single names until
then.

Descriptors of directories are opened when they are needed and kept; when they become many, the oldest are closed, and
opened again by way of the directory above.
"""

import errno
import os
import resource
import stat

from fuse import layer, whiteout
from fuse.node import CLOSED, PINNED, ROOT, Directory, Node, Numbers, Parts

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UPPER = 0  # the index of the upper layer; the lower ones have 1 and up, topmost first
_MOST_DIRECTORIES = 20_000  # descriptors
_LONGEST_NAME = 255  # bytes
_SINGLE = tuple((index,) for index in range(600))
Found = tuple["int | Parts", os.stat_result]


def fail(code: int) -> OSError:
    """The error to raise."""
    return OSError(code, os.strerror(code))


class Tree:
    """See the module. *upper* may be None. Raises OSError with the name of the directory that cannot be opened."""

    def __init__(
        self, lower: "Sequence[bytes]", upper: bytes | None, *, spread: bool = True, files: bool = True
    ) -> None:
        self.writable = upper is not None
        self.has_mark_files = files  # a file `.wh.x` is a mark
        self._numbers = Numbers(spread=spread)
        self._opened: dict[Directory, None] = {}  # those with descriptors, the longest open first
        self._most = min(_MOST_DIRECTORIES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        paths = {index: path for index, path in enumerate([upper, *lower]) if path is not None}
        fds: dict[int, int] = {}
        try:
            for index, path in paths.items():
                fds[index] = layer.open_layer(path)
        except OSError:
            close_all(fds.values())
            raise
        self.root = Directory(ROOT, None, b"", self._parts_of_root(fds))
        self.root.fds = fds
        self.root.lookups = 1
        self.nodes: dict[int, Node] = {ROOT: self.root}
        for fd in fds.values():  # the first file system's numbers are the plain ones
            self._numbers.of(os.fstat(fd))

    def _parts_of_root(self, fds: dict[int, int]) -> Parts:
        parts = []
        for index, fd in fds.items():
            parts.append(index)
            if self._is_opaque(fd):
                break
        return tuple(parts)

    def close(self) -> None:
        """Close every descriptor."""
        for node in self.nodes.values():
            self.close_file(node)
        for directory in [self.root, *self._opened]:
            close_all(directory.fds.values())
            directory.fds = {}
        self._opened = {}

    # Finding

    def lookup(self, parent: Directory, name: bytes) -> tuple[Node, os.stat_result] | None:
        """The file *name* in *parent*, told of once more to the kernel; None if there is none."""
        child = parent.children.get(name)
        if child is not None:
            st = self.stat(child)
        else:
            found = self.find(parent, name)
            if found is None:
                return None
            child, st = self.enter(parent, name, *found)
        child.lookups += 1
        return child, st

    def find(self, parent: Directory, name: bytes) -> Found | None:
        """Where *name* in *parent* is, and what it is."""
        if len(name) > _LONGEST_NAME:
            raise fail(errno.ENAMETOOLONG)
        listing = parent.listing
        if listing is None and len(parent.parts) > 1:
            listing = self.listing(parent)
        if listing is None:
            return self._find_single(parent, name)
        where = listing.get(name)
        if where is None:
            return None
        index = where if type(where) is int else where[0]  # type: ignore[index]
        return where, os.stat(name, dir_fd=self.dir_fd(parent, index), follow_symlinks=False)

    def _find_single(self, parent: Directory, name: bytes) -> Found | None:
        if parent.parent is None and parent is not self.root:
            return None  # it was removed
        index = parent.parts[0]
        try:
            st = os.stat(name, dir_fd=self.dir_fd(parent, index), follow_symlinks=False)
        except FileNotFoundError:
            return None
        if whiteout.is_whiteout(st) or (self.has_mark_files and name.startswith(whiteout.PREFIX)):
            return None
        return (_SINGLE[index] if stat.S_ISDIR(st.st_mode) else index), st

    def enter(
        self, parent: Directory, name: bytes, where: "int | Parts", st: os.stat_result
    ) -> tuple[Node, os.stat_result]:
        """The node of a file that was found and has none by this name, and what stat(2) says of it."""
        if isinstance(where, tuple):
            return self._enter_directory(parent, name, where, st), st
        number = self._numbers.of(st)
        node = self.nodes.get(number)
        if node is not None and not _is_same(node, where):
            number, node = self._numbers.renew(st), None
        if node is None:
            node = self.nodes[number] = Node(number, parent, name, where)
        else:
            node.add_place(parent, name)
            node.gone = None
            if node.layer != where:
                self.join(node, parent, name)
                st = self.stat(node)
        parent.children[name] = node
        return node, st

    def join(self, node: Node, parent: Directory, name: bytes) -> None:
        """*name* in a lower layer is a hard link of *node*, which has been brought up by another name."""

    def _enter_directory(self, parent: Directory, name: bytes, where: Parts, st: os.stat_result) -> Directory:
        fds: dict[int, int] = {}
        parts = where
        if len(where) > 1:
            parts, fds = self._reaching(parent, name, where)
        of = os.fstat(fds[parts[1]]) if len(parts) > 1 and parts[0] == UPPER else st
        number = self._numbers.of(of)
        if number in self.nodes:
            number = self._numbers.renew(of)
        directory = Directory(number, parent, name, parts)
        if fds:
            directory.fds = fds
            self._opened[directory] = None
        self.nodes[number] = parent.children[name] = directory
        return directory

    def _reaching(self, parent: Directory, name: bytes, where: Parts) -> tuple[Parts, dict[int, int]]:
        """Those of *where* that no opaque directory above hides, and their descriptors."""
        fds: dict[int, int] = {}
        try:
            for index in where:
                fds[index] = fd = layer.open_directory(self.dir_fd(parent, index), name)
                if self._is_opaque(fd):
                    break
        except OSError:
            close_all(fds.values())
            raise
        return tuple(fds), fds

    def _is_opaque(self, fd: int) -> bool:
        if whiteout.has_opaque_attribute(layer.fd_path(fd)):
            return True
        if not self.has_mark_files:
            return False
        try:
            os.stat(whiteout.OPAQUE_FILE, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    # Directories

    def dir_fd(self, directory: Directory, index: int) -> int:
        """A descriptor of *directory* in the layer *index*, good until the next `trim`."""
        fd = directory.fds.get(index)
        if fd is None:
            if directory.parent is None:
                raise fail(errno.ENOENT)  # it was removed
            fd = directory.fds[index] = layer.open_directory(self.dir_fd(directory.parent, index), directory.name)
            self._opened[directory] = None
        return fd

    def trim(self, most: int | None = None) -> None:
        """Close descriptors of directories if there are too many of them. Not while one of them is in use."""
        most = self._most if most is None else most
        if len(self._opened) <= most:
            return
        for directory in list(self._opened)[: len(self._opened) - most // 2]:
            if directory.parent is not None:
                self._close_fds(directory)

    def _close_fds(self, directory: Directory) -> None:
        if directory.fds:
            close_all(directory.fds.values())
            directory.fds = {}
            del self._opened[directory]

    def listing(self, directory: Directory) -> "dict[bytes, int | Parts]":
        """All names in *directory*, and where each is."""
        if directory.listing is None:
            listing: dict[bytes, int | Parts] = {}
            has_upper = directory.parts[0] == UPPER
            lowers = directory.parts[1:] if has_upper else directory.parts
            for index in reversed(lowers):
                self._lay_over(listing, index, directory)
            directory.below = listing if lowers else None
            if has_upper:
                listing = dict(listing) if lowers else listing
                self._lay_over(listing, UPPER, directory)
            directory.listing = listing
        return directory.listing

    def _lay_over(self, listing: "dict[bytes, int | Parts]", index: int, directory: Directory) -> None:
        content = layer.read_directory(self.dir_fd(directory, index), files=self.has_mark_files)
        if content.opaque:
            listing.clear()
        for name in content.whiteouts:
            listing.pop(name, None)
        listing.update(dict.fromkeys(content.others, index))
        single = _SINGLE[index]
        for name in content.directories:
            under = listing.get(name)
            listing[name] = single + under if type(under) is tuple else single

    def is_below(self, parent: Directory, name: bytes) -> bool:
        """Whether a lower layer would show *name* in *parent* if the upper layer had nothing to say of it."""
        if parent.parts == (UPPER,):
            return False
        self.listing(parent)
        return parent.below is not None and name in parent.below

    def record(self, parent: Directory, name: bytes, where: "int | Parts | None") -> None:
        """Something was done to *name* in *parent*: let the listing say where it is, or that it is not there."""
        parent.times = None
        listing = parent.listing
        if listing is None:
            return
        if listing is parent.below:
            listing = parent.listing = dict(listing)
        if where is None:
            if listing.pop(name, None) is not None and parent.order is not None:
                parent.gaps = parent.gaps or set()
                parent.gaps.add(name)
            return
        if parent.order is not None and name not in listing:
            if name in parent.gaps:
                parent.gaps.remove(name)
            else:
                parent.order.append(name)
        listing[name] = where

    # Telling, and forgetting

    def stat(self, node: Node) -> os.stat_result:
        """stat(2) of *node*, as its layer has it."""
        parent = node.parent
        if parent is not None:
            if node.access > PINNED:
                return os.fstat(node.fd)
            if isinstance(node, Directory) and node.layer in node.fds:
                return os.fstat(node.fds[node.layer])
            return os.stat(node.name, dir_fd=self.dir_fd(parent, node.layer), follow_symlinks=False)
        if node is self.root:
            return os.fstat(self.root.fds[node.layer])
        if node.access and node.layer == UPPER:
            return os.fstat(node.fd)
        if node.gone is None:
            raise fail(errno.ESTALE)
        return node.gone

    def forget(self, told: "Iterable[tuple[int, int]]") -> None:
        """The kernel takes back, for each number, so many of the times that it was told of it."""
        nodes = self.nodes
        for number, times in told:
            node = nodes.get(number)
            if node is not None:
                node.lookups -= times
                if node.lookups <= 0:
                    self.release(node)

    def close_file(self, node: Node) -> None:
        """Close the descriptor through which *node* is read and written."""
        if node.access:
            os.close(node.fd)
            node.fd, node.access = -1, CLOSED

    def release(self, node: Node) -> None:
        """Remove *node*, and the directories above that were there for its sake only."""
        while node.lookups <= 0 and node is not self.root:
            if isinstance(node, Directory):
                if node.children:
                    return
                self._close_fds(node)
            elif node.access:
                self.close_file(node)
            self.nodes.pop(node.number, None)
            above = node.parent
            for parent, name in node.places():
                if parent.children.get(name) is node:
                    del parent.children[name]
                    if parent is not above:
                        self.release(parent)
            if above is None:
                return
            node = above


def _is_same(node: Node, where: int) -> bool:
    """Whether a file of the number of *node*, found in the layer *where*, is *node*, or one that came after it.

    One that has lost the name by which it was known may have others.
    """
    if node.is_directory:
        return False
    if node.gone is None:
        return node.layer in (where, UPPER)
    return node.layer == where and node.gone.st_nlink > 0


def close_all(fds: "Iterable[int]") -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
