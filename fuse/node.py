"""Files as the kernel knows them: by number, with a count of how often it was told of each.

A number is a file's identity for as long as the file system is mounted, and st_ino. It is made from the device and
inode number that the file has in its layer, so that it is the same again whenever the kernel has forgotten the file and
asks for it anew: the inode number itself for the file system of the first layer, the same with the file system's place
in a table above it for others. Where that does not fit, numbers are given out downwards from 2⁶³ and remembered. A file
that is brought up keeps the number that it had; so the table remembers those, too.

A node has one name, where it can be reached; a file with hard links has further ones, as far as they have been seen. A
node that has lost its last name is reached through a descriptor that somebody has open, or not at all; what stat(2)
said of it is kept.
"""

import os

ROOT = 1
CLOSED, PINNED, READABLE, WRITABLE = range(4)  # PINNED: O_PATH, to be opened again; WRITABLE is readable, too
_SHIFT = 56  # the file system's place is in the bits from here to 62
_MOST = (1 << _SHIFT) - 1
_FIRST_DYNAMIC = (1 << 63) - 1
Parts = tuple[int, ...]
_NO_GAPS: set[bytes] = set()  # stands for one that is empty, and stays so


class Node:
    """A file that is no directory."""

    __slots__ = ("access", "fd", "gone", "layer", "lookups", "more", "name", "number", "parent", "plain")

    def __init__(self, number: int, parent: "Directory | None", name: bytes, layer: int) -> None:
        self.number = number
        self.parent = parent  # None: it has no name any more
        self.name = name
        self.layer = layer  # where it is, by its index
        self.lookups = 0
        self.fd = -1  # through which it is read and written, if it is open
        self.access = CLOSED  # what `fd` is good for
        self.more: list[tuple[Directory, bytes]] | None = None  # its further names
        self.plain = False  # it certainly has no security.capability
        self.gone: os.stat_result | None = None  # as it was when its last name went

    is_directory = False

    def places(self) -> "list[tuple[Directory, bytes]]":
        """All of its names, as far as they are known."""
        return ([] if self.parent is None else [(self.parent, self.name)]) + (self.more or [])

    def add_place(self, parent: "Directory", name: bytes) -> None:
        """It has this name, too."""
        if self.parent is None:
            self.parent, self.name = parent, name
        elif (parent, name) != (self.parent, self.name) and (parent, name) not in (self.more or ()):
            self.more = [*(self.more or ()), (parent, name)]

    def drop_place(self, parent: "Directory", name: bytes) -> None:
        """It has this name no more."""
        left = [place for place in self.places() if place != (parent, name)]
        if left:
            self.parent, self.name = left[0]
        else:
            self.parent = None
        self.more = left[1:] or None


class Directory(Node):
    """A directory, merged from those of its name in several layers."""

    __slots__ = ("below", "children", "fds", "gaps", "listing", "order", "parts", "times")

    def __init__(self, number: int, parent: "Directory | None", name: bytes, parts: Parts) -> None:
        super().__init__(number, parent, name, parts[0])
        self.parts = parts  # the layers in which it is, topmost first
        self.fds: dict[int, int] = {}  # layer → descriptor
        self.children: dict[bytes, Node] = {}  # those that the kernel knows
        # All names that there are → the layer; of a directory the layers. None: not read yet.
        self.listing: dict[bytes, int | Parts] | None = None
        self.order: list[bytes] | None = None  # in which names are listed, with some that are gone:
        self.gaps: set[bytes] = _NO_GAPS
        # Of the last access and change (ns) in the upper layer, while files are brought up and nothing else is done
        self.times: tuple[int, int] | None = None
        self.below: dict[bytes, int | Parts] | None = None  # the same without the upper layer; never changes

    is_directory = True


class Numbers:
    """From a file's device and inode number to its number here."""

    def __init__(self, *, spread: bool) -> None:
        self._devices: dict[int, int] = {}  # device → what is added
        self._fixed: dict[tuple[int, int], int] = {}
        self._next = _FIRST_DYNAMIC
        self._spread = spread

    def of(self, st: os.stat_result) -> int:
        """The number of the file that *st* tells of."""
        device, inode = st.st_dev, st.st_ino
        if self._fixed:
            number = self._fixed.get((device, inode))
            if number is not None:
                return number
        base = self._devices.get(device, -1)
        if ROOT < inode <= _MOST and base >= 0:
            return base + inode
        if device not in self._devices:
            self._add_device(device)
            return self.of(st)
        return self.renew(st)

    def _add_device(self, device: int) -> None:
        place = len(self._devices)
        self._devices[device] = place << _SHIFT if place == 0 or (self._spread and place < 64) else -1

    def renew(self, st: os.stat_result) -> int:
        """Give the file a number that no other has ever had."""
        number = self._next
        self._next -= 1
        self._fixed[st.st_dev, st.st_ino] = number
        return number

    def keep(self, st: os.stat_result, number: int) -> None:
        """The file that *st* tells of has *number* from now on."""
        self._fixed[st.st_dev, st.st_ino] = number

    def drop(self, st: os.stat_result) -> None:
        """The file is gone; another one may come by its inode number."""
        self._fixed.pop((st.st_dev, st.st_ino), None)
