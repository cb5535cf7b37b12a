"""A stand-in for slirp: the control protocol with addresses and ports, and no network behind it.

`with FakeSlirp(session / "slirp") as slirp:` is what `rootless` of that session talks to. `slirp.requests` are what it
has asked, `slirp.ids` the containers that are attached, and `slirp.crash()` ends all connections, as SIGKILL does.
"""

import json
import os
import select
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, final

Json = dict[str, Any]


class Attachment(NamedTuple):
    """What is attached on one connection."""

    id: str
    answer: Json
    plugged: list[int]  # inode numbers of the network namespaces, in order


@final
class FakeSlirp:
    """A server in a thread of the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[Json] = []
        self.attached: dict[int, Attachment] = {}  # by descriptor
        self.refuse: dict[str, Json] = {}  # op -> the answer to it, instead
        self.refuse_ports: set[int] = set()
        self.is_flaky = False  # end each connection as soon as it is plugged
        self._wake_r, self._wake_w = os.pipe()

    def __enter__(self) -> "FakeSlirp":
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.crash()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def crash(self) -> None:
        """Be gone."""
        if self._thread.is_alive():
            self.path.unlink(missing_ok=True)
            os.write(self._wake_w, b"x")
            self._thread.join()

    def asked(self, op: str) -> list[Json]:
        """The requests for *op*."""
        return [request for request in self.requests if request["op"] == op]

    def plugged(self, container_id: str) -> list[int]:
        """The network namespaces of an attached container, by inode; the last is the current one."""
        return next((a.plugged for a in self.attached.values() if a.id == container_id), [])

    @property
    def ids(self) -> set[str]:
        """The containers that are attached."""
        return {attachment.id for attachment in self.attached.values()}

    def _serve(self) -> None:
        poll = select.poll()
        peers: dict[int, socket.socket] = {}
        for fd in (self._listener.fileno(), self._wake_r):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wake_r:
                    for peer in (self._listener, *peers.values()):
                        peer.close()
                    self.attached.clear()
                    return
                if fd == self._listener.fileno():
                    peer, _ = self._listener.accept()
                    peers[peer.fileno()] = peer
                    poll.register(peer, select.POLLIN)
                elif not self._answer(fd, peers[fd]):
                    poll.unregister(fd)
                    self.attached.pop(fd, None)
                    peers.pop(fd).close()

    def _answer(self, fd: int, peer: socket.socket) -> bool:
        data, fds, _, _ = socket.recv_fds(peer, 1 << 17, 4)  # the test's own process has no children that inherit them
        if not data:
            return False
        request = json.loads(data)
        self.requests.append(request)
        taken = self.refuse_ports & {port["host_port"] for port in request.get("ports", ())}
        if taken:
            error = f"port {taken.pop()} is taken"
            answer = {"ok": False, "kind": "Conflict", "error": error, "hint": "take another"}
        else:
            answer = self.refuse.get(request["op"]) or {"ok": True, **self._do(fd, request, fds)}
        for received in fds:
            os.close(received)
        with suppress(OSError):
            peer.send(json.dumps(answer).encode())
        return not (self.is_flaky and request["op"] == "plug")

    def _do(self, fd: int, request: Json, fds: list[int]) -> Json:
        if request["op"] == "attach":
            endpoints = [self._endpoint(asked, index) for index, asked in enumerate(request["endpoints"])]
            ports: list[Json] = []
            for asked in request["ports"]:
                ports += self._ports(asked, ports)
            answer = {
                "endpoints": endpoints,
                "ports": ports,
                "nameservers": [endpoint["gateway4"] for endpoint in endpoints],
            }
            self.attached[fd] = Attachment(request["container"]["id"], answer, [])
            return answer
        if request["op"] == "plug":
            self.attached[fd].plugged.append(os.fstat(fds[0]).st_ino)
        if request["op"] == "list":
            return {"containers": [{"id": attachment.id} for attachment in self.attached.values()]}
        return {}

    def _endpoint(self, asked: Json, index: int) -> Json:
        network, previous = asked["network"], asked["previous"] or {}
        subnet = network["ipv4"]["subnet"].rpartition(".")[0]
        taken = {e["ipv4"] for a in self.attached.values() for e in a.answer["endpoints"]}
        free = next(a for n in range(2, 250) if (a := f"{subnet}.{n}") not in taken)
        wanted = previous.get("ipv4")
        ipv4 = asked["ipv4"] or (wanted if wanted and wanted not in taken else free)
        return {
            "network": network["id"],
            "name": network["name"],
            "ipv4": ipv4,
            "prefix4": 16,
            "gateway4": network["ipv4"]["gateway"],
            "ipv6": "",
            "prefix6": 0,
            "gateway6": "",
            "mac": asked["mac"] or previous.get("mac") or "02:42:" + ":".join(f"{int(p):02x}" for p in ipv4.split(".")),
            "interface": f"eth{index}",
            "aliases": asked["aliases"],
            "default": index == 0,
        }

    def _ports(self, asked: Json, given: list[Json]) -> list[Json]:
        taken = {p["host_port"] for p in (*given, *(p for a in self.attached.values() for p in a.answer["ports"]))}
        port = asked["host_port"] or next(n for n in range(32768, 60000) if n not in taken | self.refuse_ports)
        host_ips = [asked["host_ip"]] if asked["host_ip"] else ["0.0.0.0", "::"]
        known = {"protocol": asked["protocol"], "container_port": asked["container_port"], "host_port": port}
        return [{**known, "host_ip": host_ip} for host_ip in host_ips]
