"""Who is connected to a container's monitor."""

from rootless.runtime.channel import Socket


class Client:
    """Somebody attached: the command that started the container, or one that came later."""

    __slots__ = ("attached", "backlog", "backlog_size", "gives_input", "paused", "sock", "waits_for_done")

    def __init__(self, sock: Socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.attached = False
        self.gives_input = False
        self.paused = False
        self.waits_for_done = False
        self.backlog: list[bytes] = []
        self.backlog_size = 0
