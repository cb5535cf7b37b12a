"""The layer that is written: bringing up files from below, and the marks that hide them.

    a file is brought up   copied into the work directory, renamed to its place (fuse/copyup.py)
    a directory            the same, empty: what is in it stays below, and is merged
    a whole tree           each of its files in place, the view unchanged at every step; at the end its top is marked
                           opaque, and it is as if it had always been in the upper layer
    hidden                 by a whiteout, which takes the place of what is to go in one rename

After each step the upper layer is one that can be mounted, and shows either what was before or what is to be.

A file with hard links in a lower layer stays one file: when it is brought up by one of its names, those that are known
get a link in the upper layer at once, others when they are looked up. `unseen` counts the names that are still below.
"""

import errno
import os
import stat

from fuse import copyup, layer, syscalls
from fuse.copyup import Stage
from fuse.layer import fd_path
from fuse.node import WRITABLE, Directory, Node
from fuse.tree import UPPER, Tree, fail
from fuse.whiteout import PREFIX, Marks, mark_of

_MOST_FILES = 512  # that are kept open without need

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from fuse.options import MountOptions


class Upper(Tree):
    """A tree, and what changes its upper layer. Without one, every change fails with EROFS."""

    def __init__(self, options: "MountOptions") -> None:
        super().__init__(options.lower, options.upper, spread=options.xino, files=options.mark_files)
        self.unseen: dict[
            int, int
        ] = {}  # number → names below that are not there (less than 0), or that alone are left
        self._files: dict[Node, None] = {}  # those that are open, the longest open first
        self.sync = options.fsync and not options.volatile
        self.read_only = options.read_only or options.work is None
        if options.upper is None or options.work is None:
            return
        try:
            self.stage = Stage(_work(options.work))
        except OSError:
            super().close()
            raise
        self.stage.empty()
        self.marks = Marks(self.stage.fd, user_attributes=options.userxattr)
        if not options.mark_files and not (self.marks.devices and self.marks.attribute):
            self.close()
            refused = "marks=overlay: devices 0:0 or extended attributes are refused here"
            raise OSError(errno.EOPNOTSUPP, refused, options.upper)

    def mark_volatile(self) -> None:
        """Leave a mark in the work directory by which every later mount is refused, overlayfs's too, as that one does.

        Who is sure that all is on disk may remove it.
        """
        fd = os.dup(self.stage.fd)
        for name in (b"incompat", b"volatile"):
            os.mkdir(name, 0o700, dir_fd=fd)
            inner = layer.open_directory(fd, name)
            os.close(fd)
            fd = inner
        os.close(os.open(b"dirty", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd))
        os.close(fd)

    def close(self) -> None:
        super().close()
        if self.writable and not self.read_only:
            os.close(self.stage.fd)

    def check_writable(self) -> None:
        """Raise OSError if nothing can be changed."""
        if self.read_only:
            raise fail(errno.EROFS)

    def upper_fd(self, directory: Directory) -> int:
        """A descriptor of *directory* in the upper layer, to which it is brought up if need be."""
        if directory.parts[0] != UPPER:
            self._bring_up_directory(directory)
        return self.dir_fd(directory, UPPER)

    # Files that are open

    def opened_file(self, node: Node, fd: int, access: int) -> None:
        """*node* is read, or also written, through *fd* from now on."""
        self.close_file(node)
        node.fd, node.access = fd, access
        self._files[node] = None
        if len(self._files) > _MOST_FILES:
            self.close_files(_MOST_FILES // 2)

    def close_file(self, node: Node) -> None:
        """Close the descriptor through which *node* is read and written."""
        self._files.pop(node, None)
        super().close_file(node)

    def close_files(self, most: int) -> None:
        """Close those that were opened first, until *most* are left. One that has no name could not be opened again."""
        for node in list(self._files)[: len(self._files) - most]:
            if node.parent is not None:
                self.close_file(node)

    # Bringing up

    def copy_up(self, node: Node, *, data: bool = True) -> None:
        """Have *node* in the upper layer; without its content if not *data*."""
        self.check_writable()
        if node.layer == UPPER:
            return
        if node.parent is None:
            self._bring_up_nameless(node)
        elif isinstance(node, Directory):
            self._bring_up_directory(node)
        else:
            self._bring_up_file(node, data)

    def _bring_up_directory(self, directory: Directory) -> None:
        self.check_writable()
        parent = directory.parent
        if parent is None:
            raise fail(errno.ENOENT)
        upper_fd = self.upper_fd(parent)
        from_fd = self.dir_fd(directory, directory.parts[0])
        times = _times(os.fstat(upper_fd))
        made = copyup.copy_directory(from_fd, os.stat(from_fd), self.stage)
        self._place(made, upper_fd, directory.name)
        _set_times(upper_fd, times)
        self._numbers.keep(os.stat(directory.name, dir_fd=upper_fd, follow_symlinks=False), directory.number)
        directory.parts = (UPPER, *directory.parts)
        directory.layer = UPPER
        self.record(parent, directory.name, directory.parts)

    def _bring_up_file(self, node: Node, data: bool) -> None:
        parent, name = node.parent, node.name
        if parent is None:
            raise fail(errno.ESTALE)
        from_fd = self.dir_fd(parent, node.layer)
        st = os.stat(name, dir_fd=from_fd, follow_symlinks=False)
        upper_fd = self.upper_fd(parent)
        made, fd, attributes = copyup.copy_file(from_fd, name, st, self.stage, data=data, sync=self.sync)
        try:
            copied = os.fstat(fd) if fd >= 0 else os.stat(made, dir_fd=self.stage.fd, follow_symlinks=False)
            times = parent.times or _times(os.fstat(upper_fd))
            self._place(made, upper_fd, name)
        except OSError:
            if fd >= 0:
                os.close(fd)
            raise
        _set_times(upper_fd, times)
        self._numbers.keep(copied, node.number)
        self.record(parent, name, UPPER)
        parent.times = times
        node.layer = UPPER
        node.plain = not attributes
        if fd >= 0:
            self.opened_file(node, fd, WRITABLE)  # who reads the file below reads on in the copy
        if st.st_nlink > 1:
            self._keep_links(node, st.st_nlink)

    def _bring_up_nameless(self, node: Node) -> None:
        """A file that was removed is still open, and is to change: its copy has no name either."""
        if not node.access or node.gone is None:
            raise fail(errno.ESTALE)
        source = os.open(fd_path(node.fd), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            made, fd = copyup.copy_open_file(source, node.gone, self.stage)
        finally:
            os.close(source)
        os.unlink(made, dir_fd=self.stage.fd)
        self.close_file(node)
        node.fd, node.access, node.layer = fd, WRITABLE, UPPER

    def _place(self, made: bytes, to_fd: int, name: bytes) -> None:
        """Give what was *made* in the work directory its place, at which there is nothing, or a file."""
        try:
            os.rename(made, name, src_dir_fd=self.stage.fd, dst_dir_fd=to_fd)
        except OSError:
            self.stage.discard(made)
            raise

    def _keep_links(self, node: Node, links: int) -> None:
        self.unseen[node.number] = self.unseen.get(node.number, 0) + links - 1
        node.lookups += 1  # never forgotten: its other names lead to it
        for parent, name in (node.more or [])[:]:
            self.join(node, parent, name)

    def join(self, node: Node, parent: Directory, name: bytes) -> None:
        if node.parent is None or self.read_only:
            return
        try:
            to_fd = self.upper_fd(parent)
            times = _times(os.fstat(to_fd))
            from_fd = self.dir_fd(node.parent, UPPER)
            os.link(node.name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
        except OSError:
            return  # it is one file all the same, as long as it is mounted
        _set_times(to_fd, times)
        self.record(parent, name, UPPER)
        self.unseen[node.number] -= 1

    def bring_up_tree(self, directory: Directory) -> None:
        """Have *directory* and all that is in it in the upper layer alone."""
        self.copy_up(directory)
        if directory.parts == (UPPER,):
            return
        for name, where in list(self.listing(directory).items()):
            if where == UPPER or where == (UPPER,):
                continue
            child = directory.children.get(name)
            if child is None:
                found = self.find(directory, name)
                if found is None:
                    continue
                child, _ = self.enter(directory, name, *found)
            if isinstance(child, Directory):
                self.bring_up_tree(child)
            else:
                self.copy_up(child)
            if not child.lookups:
                self.release(child)
        self._cut_off(directory)

    def _cut_off(self, directory: Directory) -> None:
        """Nothing below *directory* shows any more: mark it so, and remove what hid single names."""
        fd = self.dir_fd(directory, UPPER)
        times = _times(os.fstat(fd))
        self.marks.make_opaque(fd)
        self._remove_whiteouts(fd)
        _set_times(fd, times)
        directory.parts = (UPPER,)
        directory.below = None
        for index in [index for index in directory.fds if index != UPPER]:
            os.close(directory.fds.pop(index))
        if directory.parent is not None:
            self.record(directory.parent, directory.name, directory.parts)

    def mark_opaque(self, directory: Directory) -> None:
        """What is below *directory*, which is in the upper layer alone, or will be where it goes, does not show."""
        self.marks.make_opaque(self.dir_fd(directory, UPPER))

    def make_empty(self, directory: Directory) -> None:
        """Let *directory*, in which are only marks, be empty for the system, too, and still hide what is below."""
        if directory.parts[0] == UPPER:
            self._cut_off(directory)

    def _remove_whiteouts(self, fd: int) -> None:
        for name in layer.read_directory(fd, files=self.has_mark_files).whiteouts:
            for mark in (name, PREFIX + name) if self.has_mark_files else (name,):
                try:
                    st = os.stat(mark, dir_fd=fd, follow_symlinks=False)
                except OSError:
                    continue
                if mark != name or stat.S_ISCHR(st.st_mode):
                    os.unlink(mark, dir_fd=fd)

    # Hiding

    def hide(self, parent: Directory, name: bytes, *, is_directory: bool = False) -> None:
        """Remove *name* from *parent* in the upper layer, if it is there, and hide what is below."""
        is_above = self._is_in_upper(parent, name)  # asked before what it is asked of comes up
        upper_fd = self.upper_fd(parent)
        if not self.is_below(parent, name):
            if is_directory:
                self._remove_directory(upper_fd, name)
            else:
                os.unlink(name, dir_fd=upper_fd)
        elif not is_above:
            self.marks.make_whiteout(upper_fd, name)
        elif self.marks.devices:
            self._exchange_for_whiteout(upper_fd, name, is_directory)
        else:
            self.marks.make_whiteout(upper_fd, name)
            (self._remove_directory if is_directory else _unlink)(upper_fd, name)

    def _is_in_upper(self, parent: Directory, name: bytes) -> bool:
        if parent.listing is not None:
            where = parent.listing.get(name)
            return where == UPPER or (type(where) is tuple and where[0] == UPPER)
        return parent.parts[0] == UPPER

    def _exchange_for_whiteout(self, upper_fd: int, name: bytes, is_directory: bool) -> None:
        made = self.stage.name()
        self.marks.make_whiteout(self.stage.fd, made)
        if is_directory:
            syscalls.renameat2(self.stage.fd, made, upper_fd, name, syscalls.RENAME_EXCHANGE)
            self.stage.discard(made)
        else:
            self._place(made, upper_fd, name)

    def _remove_directory(self, upper_fd: int, name: bytes) -> None:
        """Remove a directory in which there is nothing but marks."""
        try:
            os.rmdir(name, dir_fd=upper_fd)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            made = self.stage.name()
            os.rename(name, made, src_dir_fd=upper_fd, dst_dir_fd=self.stage.fd)
            self.stage.discard(made)

    def settle(self, made: bytes, parent: Directory, name: bytes, *, is_directory: bool) -> None:
        """Give what was *made* in the work directory the place *name*, at which there is nothing or a whiteout."""
        upper_fd = self.upper_fd(parent)
        if is_directory and self.is_below(parent, name):
            fd = layer.open_directory(self.stage.fd, made)
            try:
                self.marks.make_opaque(fd)
            finally:
                os.close(fd)
        try:
            os.rename(made, name, src_dir_fd=self.stage.fd, dst_dir_fd=upper_fd)
        except NotADirectoryError:
            syscalls.renameat2(self.stage.fd, made, upper_fd, name, syscalls.RENAME_EXCHANGE)
            self.stage.discard(made)
        self.uncover(upper_fd, name)

    def uncover(self, upper_fd: int, name: bytes) -> None:
        """Remove the file that hid *name*, which is there now."""
        if not self.marks.devices:
            try:
                os.unlink(mark_of(name), dir_fd=upper_fd)
            except (FileNotFoundError, OSError):
                pass  # there was none, or could be none


def _unlink(fd: int, name: bytes) -> None:
    os.unlink(name, dir_fd=fd)


def _times(st: os.stat_result) -> tuple[int, int]:
    """What was brought up into a directory has not changed it for those who look: it gets these again."""
    return st.st_atime_ns, st.st_mtime_ns


def _set_times(fd: int, times: tuple[int, int]) -> None:
    os.utime(b".", ns=times, dir_fd=fd)


def _work(path: bytes) -> int:
    """A descriptor of the directory `work` in the work directory, as the kernel's overlayfs has it."""
    outer = layer.open_layer(path)
    try:
        try:
            os.mkdir(b"work", 0o700, dir_fd=outer)
        except FileExistsError:
            pass
        return layer.open_directory(outer, b"work")
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.path.join(path, b"work")) from None
    finally:
        os.close(outer)
