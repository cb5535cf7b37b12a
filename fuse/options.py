r"""The options of a mount.

`-o` takes a list separated by commas, and may be given more than once. The names are those of the kernel's overlayfs
(Documentation/filesystems/overlayfs.rst), of fuse-overlayfs(1), and mount(8)'s for all file systems. A backslash takes
from the character behind it what it means here, as in the kernel's overlayfs: `\,` does not end an option, `\:` does
not end a directory of `lowerdir`, `\\` is a backslash. Everything is bytes, as names in directories are.

What does not change what is seen or kept is accepted and listed as ignored; everything else that is not known is
refused, for an option that silently does nothing is worse than none.
"""

import itertools
import os
from typing import NamedTuple

from fuse.errors import UsageError

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FOR_EVER = 1e9  # seconds
_MAX_ID = 0xFFFFFFFE  # the last one is "no id"

# <linux/mount.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS, MS_DIRSYNC = 1, 2, 4, 8, 16, 128
MS_NOATIME, MS_NODIRATIME, MS_RELATIME, MS_STRICTATIME, MS_LAZYTIME = 1 << 10, 1 << 11, 1 << 21, 1 << 24, 1 << 25
_SET = {
    b"ro": MS_RDONLY,
    b"nosuid": MS_NOSUID,
    b"nodev": MS_NODEV,
    b"noexec": MS_NOEXEC,
    b"sync": MS_SYNCHRONOUS,
    b"dirsync": MS_DIRSYNC,
    b"noatime": MS_NOATIME,
    b"nodiratime": MS_NODIRATIME,
    b"relatime": MS_RELATIME,
    b"strictatime": MS_STRICTATIME,
    b"lazytime": MS_LAZYTIME,
}
_CLEARED = {
    b"rw": MS_RDONLY,
    b"suid": MS_NOSUID,
    b"dev": MS_NODEV,
    b"exec": MS_NOEXEC,
    b"async": MS_SYNCHRONOUS | MS_DIRSYNC,
    b"atime": MS_NOATIME,
    b"diratime": MS_NODIRATIME,
    b"norelatime": MS_RELATIME,
    b"nostrictatime": MS_STRICTATIME,
    b"nolazytime": MS_LAZYTIME,
}
# How many threads serve, and who unmounts, is the same here whatever is asked for; the rest is for mount(8), fstab(5).
_IGNORED = (
    b"defaults auto noauto nofail _netdev user nouser users owner group silent loud default_permissions clone_fd"
    b" max_threads max_idle_threads auto_unmount"
).split()
_LABELS = (b"context", b"fscontext", b"defcontext", b"rootcontext")  # SELinux's, which the kernel itself takes
# Of the kernel's overlayfs: understood, but never switched on here.
_OFF_ONLY = (b"index", b"nfs_export", b"metacopy", b"redirect_dir")


class IdRange(NamedTuple):
    """Ids from *disk* on, as many as *length*, are shown as those from *shown* on."""

    disk: int
    shown: int
    length: int


class MountOptions(NamedTuple):
    """What `-o` asked for. Directories are as typed: relative ones are to the directory the program was started in."""

    lower: tuple[bytes, ...]  # the topmost first
    upper: bytes | None = None
    work: bytes | None = None
    uid_map: tuple[IdRange, ...] = ()
    gid_map: tuple[IdRange, ...] = ()
    squash_uid: int | None = None
    squash_gid: int | None = None
    static_nlink: bool = False
    noacl: bool = False
    volatile: bool = False  # no fsync, and the work directory is marked: nobody may believe it after a crash
    fsync: bool = True
    userxattr: bool = False  # False: the program decides
    mark_files: bool = True  # files called `.wh.…` mark what is not there, too
    xino: bool = True
    timeout: float = FOR_EVER  # seconds
    writeback: bool = True
    debug: bool = False
    read_only: bool = False  # so asked for, or there is no upper
    allow_other: bool = False
    flags: int = 0  # of mount(2), MS_…
    fsname: bytes = b"union"
    subtype: bytes = b"union"
    labels: tuple[bytes, ...] = ()  # as mount(2) takes them
    ignored: tuple[bytes, ...] = ()  # accepted, and without effect


def parse_options(text: "Sequence[str]") -> MountOptions:
    """What the values of `-o` in *text* ask for, the later word counting where two disagree. Raises UsageError."""
    asked = _Asked()
    for option in (part for given in text for part in split(os.fsencode(given), b",")):
        name, equals, value = option.partition(b"=")
        if option:
            asked.take(option, name, value if equals else None)
    return asked.result()


class _Asked:
    """Options as they are read."""

    def __init__(self) -> None:
        self.lower: list[bytes] = []
        self.ignored: list[bytes] = []
        self.labels: list[bytes] = []
        self.flags = 0
        self.squash_to_root = False
        self.values: dict[str, object] = {}

    def take(self, option: bytes, name: bytes, value: bytes | None) -> None:
        """One *option*, with its *name* and its *value*, escaped as it came."""
        if name in _VALUES:
            if not value:
                raise UsageError(f"option {_shown(name)} needs a value", hint=f"as in {_shown(name)}={_EXAMPLES[name]}")
            _VALUES[name](self, name, value)
        elif name in (b"squash_to_root", *_SWITCHES) and value is None:
            self._switch(name)
        elif name in _SET and value is None:
            self.flags |= _SET[name]
        elif name in _CLEARED and value is None:
            self.flags &= ~_CLEARED[name]
        elif name in _IGNORED or name.startswith((b"x-", b"X-", b"comment")):
            self.ignored.append(option)
        else:
            raise _unknown(name, value)

    def _switch(self, name: bytes) -> None:
        if name == b"squash_to_root":
            self.squash_to_root = True
        else:
            self.values[name.decode()] = True

    def result(self) -> MountOptions:
        """All of it. Raises UsageError where something is missing."""
        values = self.values
        if not self.lower:
            raise UsageError("no lowerdir", hint="-o lowerdir=A:B:C names the directories to show, the topmost first")
        upper, work = values.get("upper"), values.get("work")
        if upper is not None and work is None:
            raise UsageError(
                "upperdir without workdir", hint="add workdir=W, an empty directory on upperdir's file system"
            )
        if upper is None:
            self.flags |= MS_RDONLY
            if work is not None:
                self.ignored.append(b"workdir")  # as the kernel does
                del values["work"]
        if self.squash_to_root:
            values = {"squash_uid": 0, "squash_gid": 0, **values}
        return MountOptions(
            tuple(self.lower),
            read_only=bool(self.flags & MS_RDONLY),
            flags=self.flags,
            labels=tuple(self.labels),
            ignored=tuple(self.ignored),
            **values,  # type: ignore[arg-type]
        )

    def lowers(self, _: bytes, value: bytes) -> None:
        """lowerdir=: the last one counts, as in the kernel."""
        names = split(value, b":")
        if not all(names):
            raise UsageError(
                f"an empty name in lowerdir={_shown(value)}",
                hint=r"a colon in a name is written \: (layers of data alone, behind two colons, are not known here)",
            )
        self.lower = [unescape(name) for name in names]

    def one_lower(self, _: bytes, value: bytes) -> None:
        """lowerdir+=: one name, in which a colon is a colon."""
        self.lower.append(unescape(value))

    def directory(self, name: bytes, value: bytes) -> None:
        """upperdir= and workdir=."""
        self.values[name.removesuffix(b"dir").decode()] = unescape(value)

    def text(self, name: bytes, value: bytes) -> None:
        """fsname= and subtype=."""
        self.values[name.decode()] = unescape(value)

    def label(self, name: bytes, value: bytes) -> None:
        """context= and the like, whose commas SELinux wants between quotation marks."""
        self.labels.append(b'%s="%s"' % (name, unescape(value).strip(b'"')))

    def ids(self, name: bytes, value: bytes) -> None:
        """uidmapping= and gidmapping=."""
        self.values[{b"uidmapping": "uid_map", b"gidmapping": "gid_map"}[name]] = _ranges(name, unescape(value))

    def squash(self, name: bytes, value: bytes) -> None:
        """squash_to_uid= and squash_to_gid=."""
        if not value.isdigit() or int(value) > _MAX_ID:
            raise UsageError(f"{_shown(name)} is a number from 0 to {_MAX_ID}, not {_shown(value)}")
        self.values[name.replace(b"_to_", b"_").decode()] = int(value)

    def seconds(self, name: bytes, value: bytes) -> None:
        """timeout=."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not seconds >= 0:  # nan is neither
            raise UsageError(f"{_shown(name)} is a number of seconds, not {_shown(value)}")
        self.values["timeout"] = min(seconds, FOR_EVER)

    def marks(self, name: bytes, value: bytes) -> None:
        """marks=."""
        if value not in (b"all", b"overlay"):
            raise UsageError(f"{_shown(name)} is one of all, overlay, not {_shown(value)}")
        self.values["mark_files"] = value == b"all"

    def truth(self, name: bytes, value: bytes) -> None:
        """writeback=, xino= and fsync=."""
        known = {b"0": False, b"1": True, b"off": False, b"on": True, **({b"auto": True} if name == b"xino" else {})}
        if value not in known:
            raise UsageError(f"{_shown(name)} is one of {_shown(b', '.join(known))}, not {_shown(value)}")
        if name == b"fsync":  # fuse-overlayfs' word for it
            self.values["fsync"] = known[value]
        else:
            self.values[name.decode()] = known[value]

    def only_off(self, name: bytes, value: bytes) -> None:
        """What the kernel's overlayfs can do and this one cannot."""
        if value != b"off" and (name, value) != (b"redirect_dir", b"nofollow"):
            raise UsageError(f"{_shown(name)}={_shown(value)} is not possible here", hint="leave it out, or say off")


_SWITCHES = (b"static_nlink", b"noacl", b"volatile", b"userxattr", b"debug", b"allow_other")
_VALUES: "dict[bytes, Callable[[_Asked, bytes, bytes], None]]" = {
    b"lowerdir": _Asked.lowers,
    b"lowerdir+": _Asked.one_lower,
    b"upperdir": _Asked.directory,
    b"workdir": _Asked.directory,
    b"uidmapping": _Asked.ids,
    b"gidmapping": _Asked.ids,
    b"squash_to_uid": _Asked.squash,
    b"squash_to_gid": _Asked.squash,
    b"marks": _Asked.marks,
    b"timeout": _Asked.seconds,
    **dict.fromkeys((b"writeback", b"xino", b"fsync"), _Asked.truth),
    **dict.fromkeys((b"fsname", b"subtype"), _Asked.text),
    **dict.fromkeys(_LABELS, _Asked.label),
    **dict.fromkeys(_OFF_ONLY, _Asked.only_off),
}
_EXAMPLES = {
    b"lowerdir": "A:B:C",
    b"lowerdir+": "A",
    b"upperdir": "U",
    b"workdir": "W",
    **dict.fromkeys((b"uidmapping", b"gidmapping"), "0:1000:1:1:100000:65536"),
    **dict.fromkeys((b"squash_to_uid", b"squash_to_gid"), "1000"),
    b"marks": "overlay",
    b"timeout": "10",
    **dict.fromkeys((b"writeback", b"fsync"), "0"),
    b"xino": "off",
    **dict.fromkeys((b"fsname", b"subtype"), "name"),
    **dict.fromkeys(_LABELS, "system_u:object_r:container_file_t:s0"),
    **dict.fromkeys(_OFF_ONLY, "off"),
}


def _ranges(name: bytes, value: bytes) -> tuple[IdRange, ...]:
    numbers = value.replace(b",", b":").split(b":")
    if len(numbers) % 3 or not all(number.isdigit() for number in numbers):
        raise UsageError(
            f"{_shown(name)}={_shown(value)} is not DISK:SHOWN:COUNT, or several of those",
            hint="as in 0:1000:1:1:100000:65536",
        )
    ids = [int(number) for number in numbers]
    ranges = tuple(IdRange(*ids[at : at + 3]) for at in range(0, len(ids), 3))
    if not all(r.length and max(r.disk, r.shown) + r.length - 1 <= _MAX_ID for r in ranges):
        raise UsageError(f"{_shown(name)} has an empty range, or ids beyond {_MAX_ID}")
    for starts in ([(r.disk, r.length) for r in ranges], [(r.shown, r.length) for r in ranges]):
        ordered = sorted(starts)
        if any(first + count > second for (first, count), (second, _) in itertools.pairwise(ordered)):
            raise UsageError(f"{_shown(name)} has ranges that overlap")
    return ranges


def _unknown(name: bytes, value: bytes | None) -> UsageError:
    if value is not None and (name in _SWITCHES or name in _SET or name in _CLEARED):
        return UsageError(f"option {_shown(name)} takes no value", hint=f"say {_shown(name)}")
    import difflib  # slow to load, and wanted here alone

    known = [_shown(n) for n in (*_VALUES, *_SWITCHES, b"squash_to_root", *_SET, *_CLEARED)]
    close = difflib.get_close_matches(_shown(name), known, 1)
    return UsageError(
        f"unknown mount option {_shown(name)}",
        hint=f"did you mean {close[0]}?" if close else r"--help lists them; a comma in a name is written \,",
    )


def split(text: bytes, separator: bytes) -> list[bytes]:
    """The parts of *text* between separators that have no backslash before them; escapes stay as they are."""
    parts, open_part = [], b""
    for piece in text.split(separator):
        open_part += piece
        if (len(open_part) - len(open_part.rstrip(b"\\"))) % 2:
            open_part += separator
        else:
            parts.append(open_part)
            open_part = b""
    return [*parts, open_part.removesuffix(separator)] if open_part else parts


def unescape(text: bytes) -> bytes:
    """*text* with each backslash taken away that makes the character behind it ordinary."""
    return b"\\".join(piece.replace(b"\\", b"") for piece in text.split(b"\\\\"))


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")
