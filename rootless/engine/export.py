"""export: all files of a container as one archive, without what is mounted in it.

The order is that of names, and times are whole seconds, so that the same files make the same archive. Hard links are
links, sockets are left out, attributes are kept (SCHILY.xattr). A container that runs may be changing: what vanishes
meanwhile is left out, and a file has the length that it had when it was come to.
"""

from rootless.engine import events
from rootless.engine.container_root import opened_root
from rootless.engine.context import Engine
from rootless.store.pack import TreeWriter
from rootless.store.tar_write import TarWriter, Write


def export(engine: Engine, container_id: str, write: Write) -> None:
    """Give the archive of the container's files to *write*. Raises what opened_root and *write* raise."""
    record = engine.containers.load(container_id)
    with opened_root(engine, container_id, mounted=False) as root:
        writer = TarWriter(write)
        TreeWriter(writer).write_below(root.fd)
        writer.finish()
    events.of_container(engine, record, "export")
