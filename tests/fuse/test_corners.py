"""What programs seldom do to files, and what comes of it: the same as on the kernel's overlayfs, in the same rig.

Each function does something in a mount point and returns what it saw; it is called in both unions. Results of calls
that fail are the names of their errors.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import signal
import stat
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.hostile import LONG
from tests.support.union_model import Entry
from tests.support.union_rig import Rig, rig

pytestmark = [pytest.mark.kernel, pytest.mark.fuse]

KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
LARGE = 5 << 30
F_OFD_SETLK, F_OFD_GETLK = 37, 36
LAYERS: list[list[Entry]] = [
    [
        ("file", "top", 0o644, 0, "content of the top layer", 1),
        ("file", "set", 0o6777, 1000, "#!/bin/sh", 1),
        ("file", "group", 0o2777, 1000, "x", 1),
        ("dir", "sticky", 0o1777, 0, False),
        ("file", "sticky/root", 0o666, 0, "", 1),
        ("file", "sticky/other", 0o666, 1000, "", 1),
        ("dir", "both", 0o755, 0, False),
        ("file", "both/top", 0o644, 0, "", 1),
    ],
    [
        ("file", "big", 0o644, 0, "0123456789abcdef", 40_000),
        ("dir", "both", 0o755, 0, False),
        ("file", "both/bottom", 0o644, 0, "", 1),
        ("dir", "acl", 0o755, 0, False),
        ("dir", "open", 0o777, 0, False),
    ],
]


def tried(call: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """What *call* returns, or the name of its error."""
    try:
        return call(*args, **more)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def as_user(uid: int, call: Callable[..., Any], *args: Any) -> Any:
    """The same, as another user of the namespace."""
    read_fd, write_fd = os.pipe()
    if not (pid := os.fork()):
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.write(write_fd, repr(tried(call, *args)).encode())
        os._exit(0)
    os.close(write_fd)
    os.waitpid(pid, 0)
    with open(read_fd, encoding="utf-8") as file:
        return file.read()


@contextlib.contextmanager
def opened(path: str, flags: int = os.O_RDWR, mode: int = 0o644) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def past_the_cache(root: str) -> list[Any]:
    seen: list[Any] = []
    for path in ("big", "top"):
        with opened(f"{root}/{path}", os.O_RDWR | os.O_DIRECT) as fd:
            buffer = mmap.mmap(-1, 8192)
            seen.append(tried(os.preadv, fd, [buffer], 0))
            seen.append(bytes(buffer[:32]))
            buffer[:8] = b"directly"
            seen.append(tried(os.pwritev, fd, [buffer], 0))
        seen.append((content(f"{root}/{path}")[:40], os.path.getsize(f"{root}/{path}")))
    return seen


def locks(root: str) -> list[Any]:
    seen: list[Any] = []
    for path in ("top", "big"):
        with opened(f"{root}/{path}") as one, opened(f"{root}/{path}") as other, opened(f"{root}/{path}", 0) as read:
            seen.append(tried(fcntl.flock, one, fcntl.LOCK_EX))
            seen.append([tried(fcntl.flock, fd, fcntl.LOCK_SH | fcntl.LOCK_NB) for fd in (other, read)])
            fcntl.flock(one, fcntl.LOCK_UN)
            lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 10, 10, 0)
            seen.append([tried(fcntl.fcntl, fd, F_OFD_SETLK, lock) for fd in (one, other)])
            shifted = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 20, 10, 0)
            seen.append(tried(fcntl.fcntl, other, F_OFD_SETLK, shifted))
            seen.append(struct.unpack("hhqqi4x", fcntl.fcntl(read, F_OFD_GETLK, lock))[:4])
        with opened(f"{root}/{path}") as one:
            seen.append(tried(fcntl.lockf, one, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0))
            seen.append(as_user(0, _lock, f"{root}/{path}", 5, 0))
            seen.append(as_user(0, _lock, f"{root}/{path}", 5, 5))
    return seen


def _lock(path: str, length: int, start: int) -> None:
    with opened(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)


def parts_of_files(root: str) -> list[Any]:
    libc = ctypes.CDLL(None, use_errno=True)
    seen: list[Any] = []

    def fallocate(fd: int, mode: int, offset: int, length: int) -> str:
        if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
            return errno.errorcode[ctypes.get_errno()]
        return "ok"

    for path in ("big", "top", "fresh"):
        with opened(f"{root}/{path}", os.O_RDWR | os.O_CREAT) as fd:
            os.pwrite(fd, b"y" * 20_000, 5000)
            for mode, offset, length in (
                (PUNCH_HOLE | KEEP_SIZE, 8192, 8192),
                (PUNCH_HOLE, 0, 4096),
                (0, 0, 100_000),
                (KEEP_SIZE, 0, 800_000),
                (ZERO, 0, 10),
                (COLLAPSE, 0, 4096),
                (INSERT, 0, 4096),
                (0, 0, 0),
            ):
                seen.append((mode, fallocate(fd, mode, offset, length), os.fstat(fd).st_size))
            seen.append(tried(os.lseek, fd, 10_000_000, os.SEEK_DATA))
        seen.append(hash_of(content(f"{root}/{path}")))
    return seen


def hash_of(data: bytes) -> tuple[int, int]:
    return len(data), sum(at * byte for at, byte in enumerate(data))


def maps(root: str) -> list[Any]:
    seen: list[Any] = []
    for path in ("big", "top"):
        with opened(f"{root}/{path}", os.O_RDONLY) as before, opened(f"{root}/{path}") as fd:
            old = mmap.mmap(before, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
            shared = mmap.mmap(fd, 0, mmap.MAP_SHARED)
            private = mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
            private[:4] = b"mine"
            shared[4:8] = b"ours"
            os.pwrite(fd, b"them", 8)
            seen.append((bytes(shared[:12]), bytes(private[:4]), os.pread(fd, 12, 0), len(old)))
            shared.flush()
            shared[12:16] = b"late"
            shared.close()
            private.close()
            old.close()
        seen.append(content(f"{root}/{path}")[:20])
    return seen


def reading_goes_on(root: str) -> Any:
    """Of a map that shows a lower file while another brings it up (overlayfs shows what was, ours what is)."""
    return content(f"{root}/big")[:20], content(f"{root}/top")[:20]


def beyond_four_gigabytes(root: str) -> list[Any]:
    with opened(f"{root}/large", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"end", LARGE)
        seen: list[Any] = [os.fstat(fd).st_size, os.pread(fd, 10, LARGE - 3)]
        os.ftruncate(fd, LARGE - 10)
        os.truncate(f"{root}/big", LARGE)
        seen += [os.fstat(fd).st_size, os.path.getsize(f"{root}/big"), os.stat(f"{root}/big").st_blocks < 10_000]
    with opened(f"{root}/big") as fd:
        seen += [os.pwrite(fd, b"x", LARGE + 4), content_at(fd, LARGE)]
        seen.append(tried(os.pwrite, fd, b"x", (1 << 63) - 2))
        seen.append(tried(os.ftruncate, fd, 0))
    os.unlink(f"{root}/large")
    return seen


def content_at(fd: int, offset: int) -> bytes:
    return os.pread(fd, 100, offset)


def names(root: str) -> list[Any]:
    encoded, seen = os.fsencode(root), []
    for name in (b"\xff" * 255, b"\x01\n\\ :,", "é".encode() * 127, b"a" * 255, b"a" * 256, b"-", b". ", b"..."):
        seen.append(tried(lambda path: os.close(os.open(path, os.O_CREAT | os.O_EXCL)), encoded + b"/open/" + name))
        seen.append(tried(os.rename, encoded + b"/open/" + name, encoded + b"/both/" + name))
        seen.append(tried(os.unlink, encoded + b"/both/" + name[::-1]))
    return [*seen, sorted(os.listdir(encoded + b"/both")), sorted(os.listdir(encoded + b"/open"))]


def attributes(root: str) -> list[Any]:
    seen: list[Any] = []
    for path in ("top", "both", "big"):
        place = f"{root}/{path}"
        for name, size in (("user.a", 0), ("user.b", 65_536), ("user.b", 65_537), ("user." + "n" * 250, 1)):
            seen.append(tried(os.setxattr, place, name, b"v" * size))
        seen.append(tried(os.setxattr, place, "user." + "n" * 251, b""))
        seen.append(tried(os.setxattr, place, "user.a", b"x", os.XATTR_CREATE))
        seen.append(tried(os.setxattr, place, "user.c", b"x", os.XATTR_REPLACE))
        seen.append(tried(os.setxattr, place, "trusted.a", b"x"))
        seen.append(tried(os.setxattr, place, "nothing.a", b"x"))
        seen.append(tried(os.removexattr, place, "user.c"))
        seen.append((len(os.getxattr(place, "user.b")), sorted(os.listxattr(place))))
    os.symlink("top", f"{root}/link")
    seen.append(tried(os.setxattr, f"{root}/link", "user.a", b"", follow_symlinks=False))
    seen.append(as_user(1000, os.setxattr, f"{root}/top", "user.z", b""))
    seen.append(as_user(1000, os.setxattr, f"{root}/sticky", "user.z", b""))
    return seen


def acl(*entries: tuple[int, int, int]) -> bytes:
    """system.posix_acl_access from (tag, permissions, id): acl(5), <linux/posix_acl_xattr.h>."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ANY = 0xFFFFFFFF
NAMED = acl((1, 7, ANY), (2, 6, 1000), (4, 5, ANY), (16, 7, ANY), (32, 0, ANY))
SHUT = acl((1, 7, ANY), (2, 0, 1000), (4, 5, ANY), (16, 7, ANY), (32, 5, ANY))


def access_lists(root: str) -> list[Any]:
    seen: list[Any] = []
    for path in ("acl", "both", "open"):
        place = f"{root}/{path}"
        seen.append(tried(os.setxattr, place, "system.posix_acl_default", NAMED))
        os.mkdir(f"{place}/d", 0o700)
        os.close(os.open(f"{place}/f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkfifo(f"{place}/p", 0o777)
        os.symlink("f", f"{place}/s")
        for name in ("d", "f", "p", "."):
            where = f"{place}/{name}"
            kinds = ("system.posix_acl_access", "system.posix_acl_default")
            seen.append((stat.filemode(os.stat(where).st_mode), [tried(os.getxattr, where, kind) for kind in kinds]))
        seen.append(as_user(1000, content, f"{place}/f"))
        os.chmod(f"{place}/f", 0o640)
        seen.append((tried(os.getxattr, f"{place}/f", "system.posix_acl_access"), os.stat(f"{place}/f").st_mode))
    seen.append(tried(os.setxattr, f"{root}/top", "system.posix_acl_access", SHUT))
    seen.append((as_user(1000, content, f"{root}/top"), as_user(1001, content, f"{root}/top")))
    seen.append(tried(os.setxattr, f"{root}/top", "system.posix_acl_default", NAMED))
    seen.append(as_user(1000, os.setxattr, f"{root}/big", "system.posix_acl_access", SHUT))
    seen.append(tried(os.removexattr, f"{root}/top", "system.posix_acl_access"))
    return seen


def directories_of_all(root: str) -> list[Any]:
    seen: list[Any] = [as_user(1000, os.unlink, f"{root}/sticky/{name}") for name in ("root", "other")]
    for name in ("mine", "yours"):
        os.close(os.open(f"{root}/sticky/{name}", os.O_CREAT))
    os.chown(f"{root}/sticky/mine", 1000, 1000)
    seen.append(as_user(1000, os.rename, f"{root}/sticky/mine", f"{root}/sticky/yours"))
    seen.append(as_user(1000, os.rename, f"{root}/sticky/yours", f"{root}/open/yours"))
    seen.append(as_user(1000, os.rename, f"{root}/sticky/mine", f"{root}/open/mine"))
    os.chmod(f"{root}/open", 0o2777)
    os.chown(f"{root}/open", 0, 2000)
    seen.append(as_user(1000, os.mkdir, f"{root}/open/inherits"))
    seen.append(as_user(1000, _make, f"{root}/open/file", 0o2770))
    for path in ("open", "open/inherits", "open/file", "open/mine"):
        status = os.stat(f"{root}/{path}")
        seen.append((status.st_uid, status.st_gid, stat.filemode(status.st_mode)))
    return [*seen, sorted(os.listdir(f"{root}/sticky"))]


def _make(path: str, mode: int) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode))


def _write(path: str) -> None:
    with opened(path, os.O_WRONLY) as fd:
        os.write(fd, b"w")


def setuid_bits(root: str) -> list[Any]:
    seen: list[Any] = []

    def mode(path: str) -> str:
        return stat.filemode(os.stat(f"{root}/{path}").st_mode)

    changes: list[Callable[[str], Any]] = [
        lambda p: as_user(1001, _write, p),
        lambda p: as_user(1001, os.truncate, p, 0),
        lambda p: as_user(1001, os.truncate, p, 0),
        lambda p: tried(_write, p),
        lambda p: tried(os.truncate, p, 3),
        lambda p: tried(os.chown, p, 1000, 1000),
        lambda p: tried(os.chown, p, -1, 1001),
        lambda p: as_user(1000, os.chmod, p, 0o6777),
        lambda p: as_user(1000, os.chown, p, -1, 1000),
    ]
    for path in ("set", "group"):
        for change in changes:
            seen.append((change(f"{root}/{path}"), mode(path)))
            os.chmod(f"{root}/{path}", 0o6777 if path == "set" else 0o2777)
    with opened(f"{root}/set") as fd:
        seen.append((as_user(1001, os.ftruncate, fd, 1), mode("set")))
    os.chmod(f"{root}/set", 0o6777)
    return seen


def times(root: str) -> list[Any]:
    seen: list[Any] = []
    for path in ("top", "both", "big"):
        place = f"{root}/{path}"
        before = os.stat(place)
        os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
        seen.append(os.stat(place).st_mtime_ns == before.st_mtime_ns)
        os.utime(place, ns=(1, (1 << 31) * 10**9))
        seen.append((os.stat(place).st_atime_ns, os.stat(place).st_mtime_ns))
        seen.append(as_user(1000, os.utime, place))
        seen.append(os.stat(place).st_ctime_ns > before.st_ctime_ns)
    os.utime(f"{root}/set", ns=(1, 1))
    with opened(f"{root}/set", os.O_WRONLY) as fd:
        os.write(fd, b"")
        seen.append(os.fstat(fd).st_mtime_ns)
        os.ftruncate(fd, 1)
        seen.append(os.fstat(fd).st_mtime_ns > 1)
    return seen


def limits(root: str) -> list[Any]:
    """A file may not become larger than the process may make one: SIGXFSZ, or EFBIG where that is ignored."""
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with opened(f"{root}/top") as fd:
            return [
                tried(os.pwrite, fd, b"x" * 10, 995),
                tried(os.pwrite, fd, b"x", 1000),
                tried(os.ftruncate, fd, 1001),
            ]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def data_in_holes(root: str) -> list[Any]:
    """What was written a moment ago is not passed over by who looks for data, whoever has it open."""
    seen: list[Any] = []
    for path in ("fresh", "big", "top"):
        with opened(f"{root}/{path}", os.O_RDWR | os.O_CREAT) as fd, opened(f"{root}/{path}", os.O_RDONLY) as other:
            os.ftruncate(fd, 1 << 20)
            for offset in (0, 500_000):
                os.pwrite(fd, b"data", offset)
                found = [tried(os.lseek, each, offset, os.SEEK_DATA) for each in (fd, other)]
                seen.append((found, tried(os.lseek, other, offset, os.SEEK_HOLE) > offset + 3))
            seen.append(tried(os.lseek, other, 1 << 20, os.SEEK_DATA))
    return seen


@pytest.fixture(scope="module")
def bench() -> Iterator[Rig]:
    with rig() as made:
        yield made


SCENES = [
    past_the_cache,
    locks,
    parts_of_files,
    maps,
    beyond_four_gigabytes,
    names,
    attributes,
    access_lists,
    directories_of_all,
    setuid_bits,
    times,
    limits,
    data_in_holes,
]


@pytest.mark.parametrize("scene", SCENES)
def test_it_is_as_on_the_kernels_overlayfs(bench: Rig, scene: Callable[[str], list[Any]]) -> None:
    seen: dict[str, list[Any]] = {}
    for kind in ("kernel", "ours"):
        bench.build(LAYERS)
        with bench.mounted(kind, kind, options="marks=overlay" if kind == "ours" else "") as root:
            seen[kind] = bench.call(scene, root)
    for number, (expected, found) in enumerate(zip(seen["kernel"], seen["ours"], strict=True)):
        assert found == expected, f"{scene.__name__}: step {number}"


def test_what_is_written_to_a_map_is_there_after_the_file_came_up_and_after_a_remount(bench: Rig) -> None:
    bench.build(LAYERS)
    with bench.mounted("mapped", "ours") as root:
        bench.call(maps, root)
        seen = bench.call(reading_goes_on, root)
    with bench.mounted("mapped", "ours") as root:
        assert bench.call(reading_goes_on, root) == seen
        assert seen == (b"0123oursthemlate0123", b"contoursthemlateop l")


def all_in(directory: str) -> list[str]:
    found = [(at, names) for at, *both in os.walk(directory) for names in both]
    return sorted(os.path.relpath(f"{at}/{name}", directory) for at, names in found for name in names)


@pytest.mark.parametrize("later", ["kernel", "ours"])
@pytest.mark.parametrize("first", ["kernel", "ours"])
def test_what_was_volatile_is_not_mounted_again(bench: Rig, first: str, later: str) -> None:
    bench.build(LAYERS)
    work = f"{bench.place}/volatile/work"
    with bench.mounted("volatile", first, options="volatile") as root:
        bench.call(_make, f"{root}/new", 0o644)
    assert {"work/incompat/volatile", "work/incompat/volatile/dirty"} <= {*bench.call(all_in, work)}
    refused = pytest.raises((OSError, AssertionError), match=r"Invalid argument|was last mounted volatile")
    with refused, bench.mounted("volatile", later):
        pass
    bench.call(shutil.rmtree, f"{work}/work/incompat")
    with bench.mounted("volatile", later) as root:
        assert bench.call(os.path.exists, f"{root}/new")


def a_name_less(root: str) -> None:
    """Of a file with three; the two that are left have been looked at."""
    for name in ("linked", "links/one", "links/two"):
        os.stat(f"{root}/{name}")
    os.unlink(f"{root}/linked")
    os.stat(f"{root}/links/one")
    os.sync()


def test_a_file_below_that_loses_a_name_stays_below(bench: Rig) -> None:
    links: list[Entry] = [("link", "links/one", "../linked"), ("link", "links/two", "../linked")]
    bench.build([[("file", "linked", 0o644, 0, "x", 1), ("dir", "links", 0o755, 0, False), *links]])
    for kind in ("kernel", "ours"):
        with bench.mounted(kind, kind) as root:
            bench.call(a_name_less, root)
        assert bench.call(all_in, bench.upper(kind)) == ["linked"]


def without_a_name(root: str) -> list[Any]:
    places = [f"{root}/{directory}" for directory in ("open", "both", ".")]
    return [tried(os.open, place, os.O_TMPFILE | os.O_RDWR, 0o640) for place in places]


def test_files_without_a_name_are_refused_in_the_way_that_programs_know(bench: Rig) -> None:
    bench.build(LAYERS)
    with bench.mounted("nameless", "ours") as root:
        assert bench.call(without_a_name, root) == ["ENOTSUP"] * 3
    assert bench.call(os.listdir, bench.upper("nameless")) == []


def many(root: str, count: int) -> list[Any]:
    """A directory of *count* files, listed while some go and others come."""
    for number in range(count):
        os.close(os.open(f"{root}/both/f{number}", os.O_CREAT, 0o600))
    seen, gone = [], set()
    with os.scandir(f"{root}/both") as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number % 10 == 0:
                other = f"f{(number * 7919) % count}"
                if other not in gone:
                    os.unlink(f"{root}/both/{other}")
                    gone.add(other)
                os.close(os.open(f"{root}/both/n{number}", os.O_CREAT, 0o600))
    stays = {f"f{number}" for number in range(count)} - gone
    now = os.listdir(f"{root}/both")
    return [len(seen) == len(set(seen)), stays <= set(seen), len(now), len(set(now)), not gone & set(now)]


def test_a_large_directory_is_listed_while_it_changes(bench: Rig) -> None:
    bench.build(LAYERS)
    with bench.mounted("many", "ours") as root:
        once, all_seen, names, different, none_gone = bench.call(many, root, 100_000 if LONG else 10_000)
        assert (once, all_seen, none_gone) == (True, True, True)
        assert names == different
