"""The command line. A parser of its own: argparse takes as long to load as all the rest here."""

import os
from typing import NamedTuple

from fuse import VERSION
from fuse.errors import UsageError
from fuse.options import MountOptions, parse_options

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HELP = """\
Usage: python -m fuse [OPTION]... -o lowerdir=A:B:C[,upperdir=U,workdir=W] MOUNTPOINT

Shows the directories A, B and C as one, A topmost. What is changed goes to the directory U; A, B and C are only read.
Without upperdir, nothing can be changed. U is as the kernel's overlayfs leaves it, and either reads the other's.

  -f, --foreground    stay in the foreground (default: go into the background once the file system can be used)
  -d, --debug         tell about each request on standard error; stay in the foreground
  --ready-fd N        write a line to descriptor N, and close it, once the file system can be used
  --exit-fd N         unmount and leave when the other end of descriptor N is closed
  -h, --help          this text
  -V, --version       which version this is
  MOUNTPOINT          a directory; or /dev/fd/N, where N is a descriptor of /dev/fuse that somebody has mounted already,
                      and will unmount: then it is only served
  -o OPTION[,...]     may be repeated; a backslash before a comma, colon or backslash makes it part of a name

Layers
  lowerdir=A[:B...]   directories to read from, the topmost first
  lowerdir+=A         one more of them, below those named before
  upperdir=U          where changes are stored
  workdir=W           an empty directory on U's file system, for files that are being made
  userxattr           marks are stored as user.overlay.*, also where trusted.overlay.* would be possible
  marks=all|overlay   what says that something is gone: also files called .wh.NAME (default), or only what the kernel's
                      overlayfs reads, so that .wh.NAME is a file like any other
  volatile            never wait for the disk, and mark W so that nobody mounts it again: after a crash of the machine,
                      U has to be thrown away. Whoever is sure of U removes W/work/incompat
  fsync=0|1           0: never wait for the disk, without the mark
  xino=on|off|auto    file numbers that are unique across file systems (default: auto)

What files look like
  uidmapping=DISK:SHOWN:COUNT[:...], gidmapping=...   ids DISK and the COUNT-1 after it are shown as SHOWN and so on
  squash_to_uid=ID, squash_to_gid=ID, squash_to_root  everything belongs to ID, or to 0
  static_nlink        the link count of each directory is 1
  noacl               no POSIX ACLs

Caching
  timeout=SECONDS     how long the kernel may believe what it has seen (default: for ever, as nobody else may change
                      the layers)
  writeback=0|1       writes are gathered in memory first (default: 1)

Of mount(8): ro rw suid nosuid dev nodev exec noexec atime noatime diratime nodiratime relatime strictatime sync
dirsync lazytime, allow_other (always so as root of a user namespace), fsname=, subtype=, context= and the like.

As root of a user namespace it mounts by itself; as an ordinary user it takes fusermount3. It is unmounted by umount,
by fusermount3 -u, by the signals TERM, INT and HUP, or by --exit-fd. On failure there is one line on standard error,
and the exit status is not 0.
"""


class Command(NamedTuple):
    """The command line."""

    mountpoint: bytes
    options: MountOptions
    foreground: bool = False
    ready_fd: int = -1
    exit_fd: int = -1
    mounted_fd: int = -1  # of /dev/fuse, where somebody else mounts and unmounts


def parse_command(arguments: "Sequence[str]") -> Command | str:
    """The command line without the program's name; the text that is asked for instead. Raises UsageError."""
    lists: list[str] = []
    places: list[str] = []
    flags: set[str] = set()
    numbers: dict[str, int] = {}
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if word in ("-h", "--help"):
            return HELP
        elif word in ("-V", "--version"):
            return f"fuse {VERSION}\n"
        elif word == "--":
            places += rest
        elif word in _FLAGS:
            flags.add(_FLAGS[word])
        elif name in ("--ready-fd", "--exit-fd"):
            numbers[name] = _descriptor(name, value if equals else next(rest, ""))
        elif word.startswith("-o"):
            lists.append(word[2:] or _following(rest))
        elif word.startswith("-") and word != "-":
            raise UsageError(f"unknown option {word}", hint="--help lists them; those of a mount stand behind -o")
        else:
            places.append(word)
    return _command(lists, places, flags, numbers)


_MOUNTED = "/dev/fd/"
_FLAGS = {"-f": "foreground", "--foreground": "foreground", "-d": "debug", "--debug": "debug", "-s": "", "-r": "ro"}


def _following(rest: "Iterator[str]") -> str:
    value = next(rest, None)
    if value is None:
        raise UsageError("-o needs a value", hint="as in -o lowerdir=A:B,upperdir=U,workdir=W")
    return value


def _descriptor(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"{name} is the number of a descriptor, not {text!r}")
    return int(text)


def _command(lists: list[str], places: list[str], flags: set[str], numbers: dict[str, int]) -> Command:
    if len(places) != 1 or not places[0]:
        wrong = f"one mount point is needed, not {len(places)}" if places != [""] else "the mount point is empty"
        raise UsageError(wrong, hint="python -m fuse -o lowerdir=A:B,upperdir=U,workdir=W MOUNTPOINT")
    options = parse_options([*lists, *sorted(flags & {"debug", "ro"})])
    return Command(
        os.fsencode(places[0]),
        options,
        "foreground" in flags or options.debug,
        numbers.get("--ready-fd", -1),
        numbers.get("--exit-fd", -1),
        _descriptor("/dev/fd/N", places[0].removeprefix(_MOUNTED)) if places[0].startswith(_MOUNTED) else -1,
    )
