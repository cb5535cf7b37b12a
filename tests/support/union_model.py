"""What can be done to a tree, as data: layers to build, operations to replay, and the tree as it shows itself.

    build(directory, [("file", "a/b", 0o644, 0, "text"), ("whiteout", "c")])
    replay(directory, [("open", 0, "a/b", os.O_RDWR, 0), ("as", 1000, ("unlink", "a/b")), ("read", 0, 10)])
    show(directory)

Everything taken and returned is a literal, so that the functions can be called in the process of a namespace
(tests/support/fuse.py), and two file systems be compared by `==`: an operation's result is ("ok", value) or
("E…", None), a tree is a dictionary path -> facts. Numbers that no two file systems share, such as inode numbers and
the present time, do not appear: instead, what they tell (the same file, a time that somebody set).
"""

import contextlib
import errno
import hashlib
import mmap
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rootless.linux.files import renameat2

Entry = tuple[Any, ...]  # of a layer
Operation = tuple[Any, ...]
Result = tuple[str, Any]
Tree = dict[str, Any]

SET = 1_000_000_000  # seconds: every time that is set is after this
PRESENT = 1_500_000_000  # what is later than this, the clock has set
AT_FDCWD = -100
MARKS = ("user.overlay.origin", "user.overlay.impure", "user.overlay.uuid", "user.overlay.nlink")  # hints of the kernel


# Layers


def build(directory: str, entries: Sequence[Entry]) -> None:
    """Make *entries* in *directory*, which exists; those that do not go with earlier ones are left out."""
    for number, (kind, path, *rest) in enumerate(entries):
        place = f"{directory}/{path}"
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
            _BUILD[kind](place, *rest)
            if kind not in ("link", "xattr"):
                os.utime(place, ns=(_ns(2 * number), _ns(2 * number + 1)), follow_symlinks=False)
    for at, directories, _ in os.walk(directory, topdown=False):  # as what was made in them has changed their times
        for name in directories:
            if not os.path.islink(f"{at}/{name}"):
                os.utime(f"{at}/{name}", ns=(_ns(len(name)), _ns(len(at) - len(directory))))


def _ns(number: int) -> int:
    return SET * 10**9 + number * 60 * 10**9 + 123_456_789


def _build_directory(place: str, mode: int, uid: int, opaque: bool = False) -> None:
    os.makedirs(place, exist_ok=True)
    os.chown(place, uid, uid)
    os.chmod(place, mode)
    if opaque:
        os.setxattr(place, "user.overlay.opaque", b"y")


def _build_file(place: str, mode: int, uid: int, text: str, times: int = 1) -> None:
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with open(fd, "wb") as file:
        file.write(text.encode() * times)
    os.chown(place, uid, uid)
    os.chmod(place, mode)


def _build_sparse(place: str, size: int, data: int) -> None:
    """A file of *size* with 5 bytes at *data*."""
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with open(fd, "wb") as file:
        os.pwrite(fd, b"bytes", data)
        file.truncate(size)


def _build_link(place: str, old: str) -> None:
    """*old* is relative to the same directory."""
    os.link(os.path.join(os.path.dirname(place), old), place, follow_symlinks=False)


_BUILD: dict[str, Callable[..., None]] = {
    "dir": _build_directory,
    "file": _build_file,
    "sparse": _build_sparse,
    "link": _build_link,
    "symlink": lambda place, target: os.symlink(target, place),
    "fifo": os.mkfifo,
    "socket": lambda place, mode: os.mknod(place, stat.S_IFSOCK | mode),
    "whiteout": lambda place: os.mknod(place, stat.S_IFCHR, 0),
    "xattr": lambda place, name, value: os.setxattr(place, name, value.encode(), follow_symlinks=False),
}


def flatten(source: str, target: str) -> None:
    """Copy what *source* shows to *target*, which exists, on an ordinary file system."""
    made: dict[tuple[int, int], str] = {}
    for path, _ in _walk(source):
        here, there = _join(source, path), _join(target, path)
        status = os.lstat(here)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode) and (first := made.get(_identity(status))):
            os.link(first, there, follow_symlinks=False)
            continue
        made[_identity(status)] = there
        _copy(here, there, status, path)
    for path, _ in reversed(list(_walk(source))):
        status = os.lstat(_join(source, path))
        os.utime(_join(target, path), ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _copy(here: str, there: str, status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        os.makedirs(there, exist_ok=True)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(here), there)
    elif stat.S_ISREG(status.st_mode):
        shutil.copyfile(here, there)
        if status.st_blocks * 512 < status.st_size:
            subprocess.run(["fallocate", "--dig-holes", there], check=True)
    else:
        os.mknod(there, status.st_mode, status.st_rdev)
    os.chown(there, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        for name in os.listxattr(here):
            os.setxattr(there, name, os.getxattr(here, name))
        os.chmod(there, stat.S_IMODE(status.st_mode))


# What a tree shows


def show(directory: str) -> Tree:
    """Path -> facts, of everything in *directory*; "" is the directory itself."""
    tree: Tree = {}
    names: dict[tuple[int, int], str] = {}
    for path, entry_facts in _walk(directory):
        place = _join(directory, path)
        status = os.lstat(place)
        facts = dict(_facts(status), **entry_facts, xattrs=_xattrs(place))
        if not stat.S_ISDIR(status.st_mode):
            facts["same as"] = names.setdefault(_identity(status), path)
        if stat.S_ISREG(status.st_mode):
            with open(place, "rb") as file:
                facts["content"] = _brief(file.read())
        elif stat.S_ISLNK(status.st_mode):
            facts["target"] = os.readlink(place)
        tree[path] = facts
    return tree


def show_raw(directory: str) -> Tree:
    """The same of an upper directory, without what is only a hint and without times of directories."""
    tree = show(directory)
    for facts in tree.values():
        facts["xattrs"] = {name: value for name, value in facts["xattrs"].items() if name not in MARKS}
        if facts["type"] == "c" and facts["rdev"] == 0:  # a whiteout, whatever its mode and owner
            facts.clear()
            facts["type"] = "whiteout"
    return tree


def missing(directory: str) -> Iterator[str]:
    """Paths that are listed in *directory* and are not there."""
    for at, directories, files in os.walk(directory):
        for name in (*directories, *files):
            if not os.path.lexists(f"{at}/{name}"):
                yield os.path.relpath(f"{at}/{name}", directory)


def _walk(directory: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each path, parents first, and what its directory entry says wrongly of it."""
    todo: list[tuple[str, dict[str, Any]]] = [("", {})]
    while todo:
        path, facts = todo.pop()
        yield path, facts
        place = _join(directory, path)
        if stat.S_ISDIR(os.lstat(place).st_mode):
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name, reverse=True)
            todo += [(f"{path}/{entry.name}".lstrip("/"), _entry_facts(entry)) for entry in found]


def _entry_facts(entry: os.DirEntry[str]) -> dict[str, Any]:
    status = os.lstat(entry.path)
    right = {
        "d_ino": entry.inode() == status.st_ino,
        "d_type": (entry.is_dir(follow_symlinks=False), entry.is_symlink(), entry.is_file(follow_symlinks=False))
        == (stat.S_ISDIR(status.st_mode), stat.S_ISLNK(status.st_mode), stat.S_ISREG(status.st_mode)),
    }
    return {name: "wrong" for name, value in right.items() if not value}


def _join(directory: str, path: str) -> str:
    return f"{directory}/{path}" if path else directory


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _facts(status: os.stat_result) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "type": {stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFREG: "f", stat.S_IFCHR: "c"}.get(
            stat.S_IFMT(status.st_mode), oct(stat.S_IFMT(status.st_mode))
        ),
        "mode": oct(stat.S_IMODE(status.st_mode)),
        "owner": (status.st_uid, status.st_gid),
        "mtime": None if stat.S_ISFIFO(status.st_mode) else _time(status.st_mtime_ns),
    }
    if not stat.S_ISDIR(status.st_mode):
        facts |= {"links": status.st_nlink, "size": status.st_size, "rdev": status.st_rdev}
    return facts


def _time(ns: int) -> int | str:
    """A time that somebody has set, in ns; of others only that they are."""
    return ns if ns < PRESENT * 10**9 else "present"


def _xattrs(place: str) -> dict[str, bytes]:
    return {
        name: os.getxattr(place, name, follow_symlinks=False) for name in os.listxattr(place, follow_symlinks=False)
    }


def _brief(data: bytes) -> bytes | tuple[int, str]:
    return data if len(data) <= 40 else (len(data), hashlib.sha256(data).hexdigest()[:16])


# Operations


class Replay:
    """Operations in one directory; slots are numbers that open files and directories are held under."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.slots: dict[int, int] = {}
        self.inodes: dict[int, tuple[int, int]] = {}  # descriptor -> the file, when it was opened

    def at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def result(self, operation: Operation) -> Result:
        try:
            return "ok", self.do(*operation)
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error)), None
        except KeyError:
            return "no slot", None

    def do(self, name: str, *args: Any) -> Any:
        return getattr(self, f"do_{name}")(*args)

    def close(self) -> None:
        for fd in self.slots.values():
            with contextlib.suppress(OSError):
                os.close(fd)

    def do_skip(self) -> None:
        return None

    def do_as(self, uid: int, operation: Operation) -> Any:
        """As somebody else, without privilege."""
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(uid)
        os.seteuid(uid)
        try:
            return self.do(*operation)
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)

    def do_open(self, slot: int, path: str, flags: int, mode: int) -> None:
        fd = os.open(self.at(path), flags | os.O_NONBLOCK, mode)
        self._hold(slot, fd)

    def _hold(self, slot: int, fd: int) -> None:
        if slot in self.slots:
            self.do_close(slot)
        self.slots[slot] = fd
        self.inodes[fd] = _identity(os.fstat(fd))

    def fd(self, slot: int) -> int:
        """What is open in *slot*, or in another if nothing is: so that most operations find something."""
        return self.slots[slot] if slot in self.slots else self.slots[min(self.slots, default=slot)]

    def do_close(self, slot: int) -> None:
        os.close(self.slots.pop(slot))

    def do_read(self, slot: int, count: int) -> Any:
        return _brief(os.read(self.fd(slot), count))

    def do_pread(self, slot: int, count: int, offset: int) -> Any:
        return _brief(os.pread(self.fd(slot), count, offset))

    def do_write(self, slot: int, data: str, times: int) -> int:
        return os.write(self.fd(slot), data.encode() * times)

    def do_pwrite(self, slot: int, data: str, times: int, offset: int) -> int:
        return os.pwrite(self.fd(slot), data.encode() * times, offset)

    def do_seek(self, slot: int, offset: int, whence: int) -> int:
        fd = self.fd(slot)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            return os.lseek(fd, 0, os.SEEK_SET)  # another place than one that was told means nothing
        return os.lseek(fd, offset, whence)

    def do_fsync(self, slot: int) -> None:
        os.fsync(self.fd(slot))

    def do_fstat(self, slot: int) -> Any:
        status = os.fstat(self.fd(slot))
        return _facts(status) | {"the file opened": _identity(status) == self.inodes[self.fd(slot)]}

    def do_is(self, slot: int, path: str) -> bool:
        """Whether the open file is the one at *path*."""
        return _identity(os.fstat(self.fd(slot))) == _identity(os.lstat(self.at(path)))

    def do_ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self.fd(slot), size)

    def do_fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self.fd(slot), mode)

    def do_fchown(self, slot: int, uid: int, gid: int) -> None:
        os.fchown(self.fd(slot), uid, gid)

    def do_futime(self, slot: int, time: int) -> None:
        os.utime(self.fd(slot), ns=(_ns(time), _ns(time)))

    def do_fallocate(self, slot: int, offset: int, length: int) -> None:
        os.posix_fallocate(self.fd(slot), offset, length)

    def do_copy_range(self, source: int, target: int, count: int) -> int:
        return os.copy_file_range(self.fd(source), self.fd(target), count, 0, 0)

    def do_mapped_write(self, slot: int, offset: int, data: str) -> None:
        size = os.fstat(self.fd(slot)).st_size
        if offset + len(data) <= size:
            with mmap.mmap(self.fd(slot), size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as memory:
                memory[offset : offset + len(data)] = data.encode()

    def do_mapped_read(self, slot: int, private: bool) -> Any:
        size = os.fstat(self.fd(slot)).st_size
        if not size:
            return b""
        flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
        with mmap.mmap(self.fd(slot), size, flags, mmap.PROT_READ) as memory:
            return _brief(memory[:])

    def do_link_open(self, slot: int, path: str) -> None:
        """Give the open file a name, as one made with O_TMPFILE gets it."""
        os.link(f"/proc/self/fd/{self.fd(slot)}", self.at(path), follow_symlinks=True)

    def do_flistdir(self, slot: int) -> list[str]:
        os.lseek(self.fd(slot), 0, os.SEEK_SET)
        return sorted(os.listdir(self.fd(slot)))

    def do_stat(self, path: str) -> Any:
        return _facts(os.stat(self.at(path)))

    def do_lstat(self, path: str) -> Any:
        return _facts(os.lstat(self.at(path)))

    def do_times(self, path: str) -> Any:
        status = os.lstat(self.at(path))
        return _time(status.st_atime_ns), _time(status.st_mtime_ns)

    def do_content(self, path: str) -> Any:
        fd = os.open(self.at(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return _brief(os.read(fd, 1 << 20))
        finally:
            os.close(fd)

    def do_list(self, path: str) -> Any:
        with os.scandir(self.at(path)) as entries:
            return sorted((entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries)

    def do_readlink(self, path: str) -> str:
        return os.readlink(self.at(path))

    def do_access(self, path: str, mode: int) -> bool:
        return os.access(self.at(path), mode, effective_ids=True)

    def do_truncate(self, path: str, size: int) -> None:
        place = self.at(path)
        if os.stat(place).st_size == size:
            size += 1  # no change: some file systems set the time, others do not
        os.truncate(place, size)

    def do_rename(self, old: str, new: str, flags: int) -> None:
        renameat2(AT_FDCWD, self.at(old), AT_FDCWD, self.at(new), flags)

    def do_link(self, old: str, new: str) -> None:
        os.link(self.at(old), self.at(new), follow_symlinks=False)

    def do_unlink(self, path: str) -> None:
        os.unlink(self.at(path))

    def do_rmdir(self, path: str) -> None:
        os.rmdir(self.at(path))

    def do_remove(self, path: str) -> None:
        """All of it, as `rm -rf` does."""
        os.close(os.open(self.at(path), os.O_DIRECTORY | os.O_NOFOLLOW))  # rmtree would wait for a FIFO's writer
        shutil.rmtree(self.at(path))

    def do_mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.at(path), mode)

    def do_symlink(self, target: str, path: str) -> None:
        os.symlink(target, self.at(path))

    def do_mknod(self, path: str, mode: int, device: int) -> None:
        os.mknod(self.at(path), mode, device)

    def do_chmod(self, path: str, mode: int) -> None:
        os.chmod(self.at(path), mode)

    def do_lchown(self, path: str, uid: int, gid: int) -> None:
        os.lchown(self.at(path), uid, gid)

    def do_utime(self, path: str, time: int) -> None:
        os.utime(self.at(path), ns=(_ns(time), _ns(time + 1)), follow_symlinks=False)

    def do_setxattr(self, path: str, name: str, value: str, flags: int) -> None:
        os.setxattr(self.at(path), name, value.encode("latin-1"), flags, follow_symlinks=False)

    def do_getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self.at(path), name, follow_symlinks=False)

    def do_listxattr(self, path: str) -> list[str]:
        return sorted(os.listxattr(self.at(path), follow_symlinks=False))

    def do_removexattr(self, path: str, name: str) -> None:
        if name.startswith("system.") and name not in self.do_listxattr(path):
            return  # whether that is an error is each file system's own
        os.removexattr(self.at(path), name, follow_symlinks=False)


def replay(root: str, operations: Sequence[Operation]) -> tuple[list[Result], Tree, Tree]:
    """The result of each operation, and what *root* shows while the files are open, and then."""
    mask = os.umask(0o022)
    session = Replay(root)
    try:
        results = [session.result(operation) for operation in operations]
        with_open = show(root)
    finally:
        session.close()
        os.umask(mask)
    return results, with_open, show(root)


def replay_steps(root: str, operations: Sequence[Operation]) -> list[Tree]:
    """What *root* shows before the first of *operations*, all of which succeed, and after each."""
    session, trees = Replay(root), [show(root)]
    try:
        for operation in operations:
            session.do(*operation)
            trees.append(show(root))
    finally:
        session.close()
    return trees


def replay_until_failure(root: str, operations: Sequence[Operation]) -> int:
    """How many of *operations* succeed one after the other, in the file system that is mounted at *root* at first."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    session = Replay(f"/proc/self/fd/{root_fd}")
    try:
        for number, operation in enumerate(operations):
            if session.result(operation)[0] != "ok":
                return number
        return len(operations)
    finally:
        session.close()
        os.close(root_fd)


def change_while_listing(root: str, count: int, batch: int) -> tuple[list[str], list[str]]:
    """List a directory of *count* files, of which some go and come meanwhile: which of those that stay are missed, and
    which are listed twice."""
    stay = {f"stay{number}" for number in range(count)}
    seen: list[str] = []
    with os.scandir(root) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number % batch == 0:
                os.unlink(f"{root}/go{number // batch}")
                os.close(os.open(f"{root}/come{number}", os.O_CREAT | os.O_WRONLY))
                os.rename(f"{root}/move{number // batch}", f"{root}/moved{number // batch}")
                os.chmod(f"{root}/stay{number % count}", 0o600)
    twice = {name for name in seen if seen.count(name) > 1} if len(set(seen)) < len(seen) else set()
    return sorted(stay - set(seen))[:10], sorted(twice - {name for name in twice if name.startswith("move")})[:10]


def statfs(root: str) -> dict[str, int]:
    """What statvfs(3) tells that stays."""
    told = os.statvfs(root)
    return {"bsize": told.f_bsize, "frsize": told.f_frsize, "blocks": told.f_blocks, "namemax": told.f_namemax}
