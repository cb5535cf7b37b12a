"""The kernel's FUSE protocol, as far as it is spoken without pyfuse3: <linux/fuse.h>.

A request is a header and, behind it, a structure and names that end with a zero byte. An answer is a header with a
length, an error (negative), and the request's number, and what was asked for. Everything is in the machine's own order.
"""

import os
from struct import Struct

# Opcodes
(LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK) = range(1, 7)
(MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN, READ, WRITE, STATFS, RELEASE) = range(8, 19)
(FSYNC, SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR) = range(20, 31)
(ACCESS, CREATE, INTERRUPT, BMAP, DESTROY) = range(34, 39)
(BATCH_FORGET, FALLOCATE, READDIRPLUS, RENAME2, LSEEK, COPY_FILE_RANGE) = range(42, 48)
SYNCFS, TMPFILE, STATX = 50, 51, 52

# Flags of INIT, the second 32 bits not among them
ATOMIC_O_TRUNC, BIG_WRITES, DONT_MASK, SPLICE_WRITE, SPLICE_MOVE, SPLICE_READ = (1 << bit for bit in (3, 5, 6, 7, 8, 9))
AUTO_INVAL_DATA, READDIRPLUS_AUTO, WRITEBACK_CACHE, NO_OPEN_SUPPORT, PARALLEL_DIROPS = (
    1 << bit for bit in (12, 14, 16, 17, 18)
)
HANDLE_KILLPRIV, POSIX_ACL, MAX_PAGES, CACHE_SYMLINKS = (1 << bit for bit in (19, 20, 22, 23))
NO_OPENDIR_SUPPORT, EXPLICIT_INVAL_DATA, HANDLE_KILLPRIV_V2, SETXATTR_EXT = (1 << bit for bit in (24, 25, 28, 29))

# Of SETATTR: which fields count
(FATTR_MODE, FATTR_UID, FATTR_GID, FATTR_SIZE, FATTR_ATIME, FATTR_MTIME) = (1 << bit for bit in range(6))
FATTR_ATIME_NOW, FATTR_MTIME_NOW, FATTR_CTIME, FATTR_KILL_SUIDGID = 1 << 7, 1 << 8, 1 << 10, 1 << 11
WRITE_KILL_SUIDGID = 1 << 2

HEADER = Struct("=IIQQIIII")  # length, opcode, unique, nodeid, uid, gid, pid, extensions' length
ANSWER = Struct("=IiQ")  # length, error, unique
_ATTR = "QQQqqqIIIIIIIIII"  # ino, size, blocks, times, their ns, mode, nlink, uid, gid, rdev, blksize, flags
_ENTRY = "QQQQII" + _ATTR  # nodeid, generation, seconds that name and attributes are valid, the same in ns
ATTR_OUT = Struct("=IiQQII" + _ATTR)
ENTRY_OUT = Struct("=IiQ" + _ENTRY)
DIRENTPLUS = Struct("=" + _ENTRY + "QQII")  # ino, offset, length of the name, type
WRITE_OUT = Struct("=IiQII")
LSEEK_OUT = Struct("=IiQQ")

# valid, -, file handle, size, lock owner, atime, mtime, ctime, the same in ns, mode, -, uid, gid, -
SETATTR_IN = Struct("=IIQQQqqqIIIIIIII")
READ_IN = Struct("=QQIIQII")  # file handle, offset, size, …
WRITE_IN = Struct("=QQIIQII")  # file handle, offset, size, write_flags, …
FORGET_IN = Struct("=Q")
BATCH_FORGET_IN = Struct("=II")
FORGET_ONE = Struct("=QQ")
FALLOCATE_IN = Struct("=QQQII")
LSEEK_IN = Struct("=QQII")
COPY_FILE_RANGE_IN = Struct("=QQQQQQQ")
SETXATTR_IN = Struct("=II")  # size, flags
GETXATTR_IN = Struct("=II")  # size, …
GETXATTR_OUT = Struct("=IiQII")
MKNOD_IN = Struct("=IIII")  # mode, device, umask, …
MKDIR_IN = Struct("=II")  # mode, umask
RENAME_IN = Struct("=Q")  # the other directory
RENAME2_IN = Struct("=QII")  # the other directory, flags, …
LINK_IN = Struct("=Q")  # what gets the name
FSYNC_IN = Struct("=QII")
INIT_IN = Struct("=IIII")  # major, minor, max_readahead, flags, …
INIT_OUT = Struct("=IiQIIIIHHIIHH")  # with max_background, congestion_threshold, max_write, time_gran, max_pages, …


def device(number: int) -> int:
    """A device number in the kernel's new encoding, of the C library's."""
    major, minor = os.major(number), os.minor(number)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def device_number(device: int) -> int:
    """The C library's encoding of the kernel's."""
    return os.makedev(device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00)
