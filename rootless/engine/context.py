"""What every verb works on: the store, the run directory, the user's configuration, the user's namespace."""

import os

from rootless.errors import HostUnsupported
from rootless.runtime import user_namespace
from rootless.store.blobs import Blobs
from rootless.store.containers import Containers
from rootless.store.images import Images
from rootless.store.layers import Layers
from rootless.store.layout import Layout
from rootless.store.volumes import Volumes

DRIVERS = ("overlay",)


class Engine:
    """One store, opened."""

    def __init__(self, layout: Layout, storage_driver: str = "") -> None:
        if storage_driver and storage_driver not in DRIVERS:
            raise HostUnsupported(
                f"storage driver {storage_driver!r} is not there", hint=f"there is: {', '.join(DRIVERS)}"
            )
        self.layout = layout
        self.blobs = Blobs(layout)
        self.layers = Layers(layout)
        self.images = Images(layout, self.blobs)
        self.containers = Containers(layout)
        self.volumes = Volumes(layout)
        self.storage_driver = storage_driver or "overlay"
        self._rung = ""

    def enter_namespace(self) -> str:
        """Become root of the user's namespace, if we are not yet; the rung of the ladder (user_namespace.py)."""
        if not self._rung:
            self._rung = user_namespace.enter(self.layout.run)
        return self._rung


def open_engine(root: str = "", storage_driver: str = "") -> Engine:
    """The user's store, or the one at *root*. Raises HostUnsupported."""
    root = root or _configured_root() or os.path.join(_data_home(), "rootless")
    root = os.path.abspath(root)
    run = os.path.join(_runtime_directory(), "rootless")
    if root != os.path.join(_data_home(), "rootless"):
        # Another store has other containers: their sockets and locks must not meet.
        run = f"{run}-{_short_hash(root)}"
    return Engine(Layout(root, run), storage_driver)


def _configured_root() -> str:
    from rootless.engine.configuration import load_configuration

    return load_configuration().storage_root


def _data_home() -> str:
    return os.environ.get("XDG_DATA_HOME") or os.path.join(home(), ".local", "share")


def home() -> str:
    """The user's home directory."""
    return os.environ.get("HOME") or os.path.expanduser("~")


def _runtime_directory() -> str:
    """XDG_RUNTIME_DIR, where it would be, or a private directory below /tmp, which private_directory checks."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given and os.path.isabs(given) and os.path.isdir(given):
        return given
    uid = os.getuid()
    usual = f"/run/user/{uid}"
    if os.access(usual, os.W_OK | os.X_OK):
        return usual
    from rootless.linux.files import private_directory

    path = f"/tmp/rootless-{uid}"
    try:
        private_directory(path)
    except OSError as error:
        raise HostUnsupported(
            f"no directory for sockets and locks: {path}: {error.strerror}",
            hint="set XDG_RUNTIME_DIR to a directory of yours with mode 0700, on a local file system",
        ) from error
    return path


def _short_hash(text: str) -> str:
    import hashlib

    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]
