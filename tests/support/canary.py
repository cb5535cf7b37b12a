"""A tree that no attack may touch, read or copy: what lies outside of every root in a test.

canary = Canary(tmp_path / "victim")
...
assert canary.changes() == []
assert canary.leaks_into(tmp_path / "store") == []
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

SECRET = b"canary-secret-8d1f0a6e"


class Facts(NamedTuple):
    """All that can be told of one file from outside."""

    mode: int
    owner: tuple[int, int]
    links: int
    inode: int
    mtime_ns: int
    content: str  # digest, or the target of a link
    xattrs: tuple[tuple[str, bytes], ...]


class Canary:
    """Makes the tree at *top*, which must not exist, and remembers it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        top.mkdir()
        (top / "passwd").write_bytes(SECRET)
        (top / "file").write_bytes(SECRET)
        (top / "setuid").write_bytes(SECRET)
        (top / "setuid").chmod(0o4755)
        (top / "sub").mkdir(mode=0o750)
        (top / "sub" / "file").write_bytes(SECRET)
        (top / "link").symlink_to("file")
        os.mkfifo(top / "fifo", 0o640)
        self.xattrs = try_xattr(top / "file")
        self.before = snapshot(top)

    def changes(self) -> list[str]:
        """What is not as it was: paths, with what happened."""
        now = snapshot(self.top)
        gone = [f"{path}: gone" for path in self.before if path not in now]
        new = [f"{path}: new" for path in now if path not in self.before]
        kept = [path for path in now if path in self.before]
        return gone + new + [f"{p}: {self.before[p]} -> {now[p]}" for p in kept if now[p] != self.before[p]]

    def leaks_into(self, tree: Path) -> list[str]:
        """Files below *tree* that contain the secret, or are one of our files under another name."""
        ours = {facts.inode for facts in self.before.values()}
        found = []
        for path in walk(tree):
            info = os.lstat(path)
            same = info.st_dev == os.lstat(self.top).st_dev and info.st_ino in ours
            if same or (stat.S_ISREG(info.st_mode) and SECRET in Path(path).read_bytes()):
                found.append(path)
        return found


def try_xattr(path: Path) -> bool:
    """Give *path* an extended attribute; False where the file system has none."""
    try:
        os.setxattr(path, "user.canary", SECRET)
    except OSError:
        return False
    return True


def snapshot(top: Path) -> dict[str, Facts]:
    """The facts of *top* and all below it, by their path from there."""
    return {os.path.relpath(path, top): facts(path) for path in [str(top), *walk(top)]}


def walk(top: Path) -> list[str]:
    return [os.path.join(where, name) for where, dirs, files in os.walk(top) for name in dirs + files]


def facts(path: str) -> Facts:
    info = os.lstat(path)
    content = ""
    if stat.S_ISLNK(info.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(info.st_mode):
        content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    owner = (info.st_uid, info.st_gid)
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in xattr_names(path))
    return Facts(info.st_mode, owner, info.st_nlink, info.st_ino, info.st_mtime_ns, content, xattrs)


def xattr_names(path: str) -> list[str]:
    try:
        return sorted(os.listxattr(path, follow_symlinks=False))
    except OSError:  # the file system has none
        return []
