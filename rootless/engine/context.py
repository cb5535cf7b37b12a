"""What every verb works on: the store, the run directory, the user's configuration, the user's namespace."""

import os

from rootless.engine import storage
from rootless.engine.configuration import load_configuration
from rootless.errors import HostUnsupported
from rootless.linux.directories import data_home, runtime_directory
from rootless.runtime import user_namespace
from rootless.store.blobs import Blobs
from rootless.store.containers import Containers
from rootless.store.images import Images
from rootless.store.layers import Layers
from rootless.store.layout import Layout, quote
from rootless.store.marks import WhiteoutStyle
from rootless.store.networks import Networks
from rootless.store.volumes import Volumes


class Engine:
    """One store, opened."""

    def __init__(self, layout: Layout, session: str, storage_driver: str = "") -> None:
        if storage_driver and storage_driver not in storage.DRIVERS:
            raise HostUnsupported(
                f"storage driver {storage_driver!r} is not there", hint=f"there are: {', '.join(storage.DRIVERS)}"
            )
        self.layout = layout
        self.session = session
        self.blobs = Blobs(layout)
        self.layers = Layers(layout)
        self.images = Images(layout, self.blobs)
        self.containers = Containers(layout)
        self.volumes = Volumes(layout)
        self.networks = Networks(layout)
        self.asked_driver = storage_driver
        self._driver = storage_driver
        self._rung = ""

    @property
    def storage_driver(self) -> str:
        """How containers get their root, "overlay" or "fuse": as asked for, or else as tried out (storage.py)."""
        if not self._driver:
            refused = storage.find(self.layout, self.enter_namespace).overlay_refused
            self._driver = storage.FUSE if refused else storage.OVERLAY
        return self._driver

    @property
    def whiteout_style(self) -> WhiteoutStyle:
        """How layers in this store are marked: as overlayfs does it, if their file system takes it."""
        refused = storage.find(self.layout, self.enter_namespace).devices_refused
        return WhiteoutStyle.FUSE if refused else WhiteoutStyle.OVERLAY

    def enter_namespace(self) -> str:
        """Become root of the user's namespace, if we are not yet; the rung of the ladder (user_namespace.py)."""
        if not self._rung:
            self._rung = user_namespace.enter(self.session)
        return self._rung


def open_engine(root: str = "", storage_driver: str = "") -> Engine:
    """The user's store, or the one at *root*. Raises HostUnsupported."""
    usual = os.path.join(data_home(), "rootless")
    configuration = load_configuration()
    root = os.path.abspath(root or configuration.storage_root or usual)
    try:
        session = runtime_directory()
    except OSError as error:
        raise HostUnsupported(
            f"no directory for sockets and locks: {error.filename}: {error.strerror}",
            hint="set XDG_RUNTIME_DIR to a directory of yours with mode 0700, on a local file system",
        ) from error
    # Another store has other containers, whose sockets and locks must not meet ours.
    run = session if root == usual else os.path.join(session, f"store-{quote(root)}")
    return Engine(Layout(root, run), session, storage_driver or configuration.storage_driver)
