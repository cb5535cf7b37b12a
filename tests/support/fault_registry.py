"""A registry that does what it is told, above all the wrong thing, and writes down every request.

    with FaultRegistry() as registry:
        image = registry.add_image("lib/app:1", layers=[b"..."])
        registry.script(image.layer_path(0), [Fault(cut=1000), Fault(status=503), OK])
        pull(f"{registry.host}/lib/app:1")
        assert registry.seen(image.layer_path(0))[1].headers["range"] == "bytes=1000-"

Each request to a scripted path takes the next fault of its list; when that is used up, the answer is the right one (or
the last fault for ever, with `forever=True`). It runs in a thread of its own, on 127.0.0.1 or [::1], as plain HTTP or
with the TLS context that it is given. As a program it serves files as layers:

    python -m tests.support.fault_registry lib/app:1 layer.tar …
"""

import asyncio
import gzip
import hashlib
import json
import re
import socket
import ssl
import struct
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, final
from urllib.parse import parse_qs, unquote, urlsplit

import zstandard

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Fault:
    """What to do instead of answering rightly. Whatever is not said stays right."""

    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)  # added or replaced; None removes one
    body: bytes | None = None
    delay: float = 0  # seconds before the answer
    length: int | None = None  # the Content-Length to announce
    chunked: bool = False  # without Content-Length
    until_closed: bool = False  # with neither: the end of the connection is the end of the body
    cut: int | None = None  # close the connection after so many bytes of the body; before the status line if negative
    reset: bool = False  # and do so with RST
    stall: int | None = None  # after so many bytes of the body, send nothing more
    drip: float = 0  # seconds between single bytes of the body
    drip_headers: float = 0  # seconds between header lines, of which there is no end
    endless: bool = False  # the body is repeated for ever
    corrupt: int | None = None  # flip a bit of this byte of the body
    junk: bytes = b""  # after the end of the answer
    ignore_range: bool = False
    take: int | None = None  # close the connection after so many bytes of the request's body


OK = Fault()


def redirect(url: str, status: int = 307) -> Fault:
    return Fault(status=status, headers={"Location": url}, body=b"")


def challenge(value: str) -> Fault:
    return Fault(
        status=401, headers={"WWW-Authenticate": value}, body=errors("UNAUTHORIZED", "authentication required")
    )


def errors(code: str, message: str) -> bytes:
    """A body in which a registry tells what is wrong."""
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()


@dataclass(slots=True)
class Request:
    """One request as it came, and how much of the answer's body went out."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]  # by lower-case name
    body: bytes
    connection: int
    time: float
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Added:
    """An image in the registry."""

    repository: str
    tag: str
    digest: str
    manifest: bytes
    media_type: str
    config: bytes
    config_digest: str
    layers: tuple[bytes, ...]
    layer_digests: tuple[str, ...]

    @property
    def tag_path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.tag}"

    @property
    def manifest_path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.digest}"

    @property
    def config_path(self) -> str:
        return f"/v2/{self.repository}/blobs/{self.config_digest}"

    def layer_path(self, number: int) -> str:
        return f"/v2/{self.repository}/blobs/{self.layer_digests[number]}"


class MemorySink:
    """Takes a blob into memory, beginning with what it is given as already there."""

    def __init__(self, there: bytes = b"") -> None:
        self.data = bytearray(there)
        self.restarts = 0

    @property
    def offset(self) -> int:
        return len(self.data)

    def write(self, data: bytes, /) -> None:
        self.data += data

    def restart(self) -> None:
        self.data.clear()
        self.restarts += 1


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str | None]
    body: bytes


@final
class FaultRegistry:
    """Serves from the start of its `with` block to the end."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
        auth: str = "",  # "basic" or "bearer"
        users: Mapping[str, str] | None = None,  # passwords by name; none: a token for everybody
        token_life: int = 300,
    ) -> None:
        self.requests: list[Request] = []
        self.auth = auth
        self.users = dict(users or {})
        self.token_life = token_life
        self.realm = ""  # where the challenge sends for tokens; /token here if empty
        self.tokens: dict[str, tuple[str, float]] = {}  # token: scope, end
        self.identity = ""  # the identity token that it gives to who asks for one
        self._tls = tls
        self._address = address
        self._scripts: list[tuple[re.Pattern[str], list[Fault], bool]] = []
        self._manifests: dict[tuple[str, str], tuple[str, bytes]] = {}  # repository, tag or digest: type, bytes
        self._blobs: dict[tuple[str, str], bytes] = {}
        self._uploads: dict[str, bytearray] = {}
        self.mounts = True  # whether blobs are taken over from other repositories
        self._spoil: list[str] = []  # what to do with the next connections
        self._connections = 0
        self._tokens_given = 0
        self._uploads_begun = 0
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault registry", daemon=True)
        self._listener = socket.create_server(
            (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=128
        )
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "FaultRegistry":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()
        self._listener.close()

    @property
    def host(self) -> str:
        """As it stands in an image's name."""
        return f"[{self._address}]:{self.port}" if ":" in self._address else f"{self._address}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}"

    # -- what it has

    def add_image(
        self,
        name: str,
        layers: Sequence[bytes] = (),
        *,
        config: Mapping[str, Any] | None = None,
        changes: Mapping[str, Any] | None = None,
        docker: bool = False,
        architecture: str = "amd64",
    ) -> Added:
        """Put an image under *name* ("lib/app:1") whose layers are these bytes, compressed or not.

        *config* is the runtime config, *changes* are made to the image config as a whole.
        """
        repository, _, tag = name.partition(":")
        document = {
            "architecture": architecture,
            "os": "linux",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(unpacked(layer)) for layer in layers]},
            **(changes or {}),
        }
        config_bytes = json.dumps(document).encode()
        family = f"{DOCKER}.distribution.manifest.v2+json" if docker else f"{OCI}.manifest.v1+json"
        config_type = f"{DOCKER}.container.image.v1+json" if docker else f"{OCI}.config.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": family,
            "config": self.add_blob(repository, config_bytes, config_type),
            "layers": [self.add_blob(repository, layer, layer_type(layer, docker)) for layer in layers],
        }
        data = json.dumps(manifest).encode()
        self.add_manifest(repository, tag or "latest", data, family)
        return Added(
            repository,
            tag or "latest",
            digest_of(data),
            data,
            family,
            config_bytes,
            digest_of(config_bytes),
            tuple(layers),
            tuple(digest_of(layer) for layer in layers),
        )

    def add_index(self, name: str, images: Mapping[str, Added], *, docker: bool = False, **more: Any) -> bytes:
        """Put an index under *name* that lists *images* by platform ("linux/arm64"); return it."""
        repository, _, tag = name.partition(":")
        entries = [
            descriptor(image.manifest, image.media_type) | {"platform": platform_words(platform)}
            for platform, image in images.items()
        ]
        media_type = f"{DOCKER}.distribution.manifest.list.v2+json" if docker else f"{OCI}.index.v1+json"
        document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries, **more}
        data = json.dumps(document).encode()
        self.add_manifest(repository, tag or "latest", data, media_type)
        return data

    def add_manifest(self, repository: str, tag: str, data: bytes, media_type: str) -> str:
        """Serve *data*, whatever it is, by tag and by digest; return the digest."""
        for reference in (tag, digest_of(data)):
            self._manifests[repository, reference] = (media_type, data)
        return digest_of(data)

    def add_blob(self, repository: str, data: bytes, media_type: str = "application/octet-stream") -> dict[str, Any]:
        """Serve *data* as a blob; return its descriptor."""
        self._blobs[repository, digest_of(data)] = data
        return descriptor(data, media_type)

    # -- what it does wrong

    def script(self, path: str, faults: Sequence[Fault], *, forever: bool = False) -> None:
        """Do *faults* to the next requests for *path*, in which `*` stands for anything; the last one for ever.

        "PUT /v2/lib/app/…" means those of one method.
        """
        pattern = re.compile(".*".join(re.escape(part) for part in path.split("*")))
        with self._lock:
            self._scripts.insert(0, (pattern, list(faults), forever))

    def spoil_connections(self, *how: str) -> None:
        """Treat the next connections so: "close" or "reset" at the first byte, "hang", or "ok"."""
        with self._lock:
            self._spoil.extend(how)

    # -- what it saw

    def seen(self, path: str = "*", method: str = "*") -> list[Request]:
        """The requests so far for *path*, in which `*` stands for anything."""
        pattern = re.compile(".*".join(re.escape(part) for part in path.split("*")))
        with self._lock:
            return [r for r in self.requests if pattern.fullmatch(r.path) and method in ("*", r.method)]

    def forget(self) -> None:
        """Begin a new list of requests, and drop what is left of the scripts."""
        with self._lock:
            self.requests.clear()
            self._scripts.clear()

    # -- serving

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._accept())
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(asyncio.sleep(0.01))  # transports close in a later turn of the loop
            self._loop.close()

    async def _accept(self) -> None:
        self._listener.setblocking(False)
        self._ready.set()
        tasks = set()
        while True:
            sock, _ = await self._loop.sock_accept(self._listener)
            self._connections += 1
            task = self._loop.create_task(self._connection(sock, self._connections))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _connection(self, sock: socket.socket, number: int) -> None:
        with self._lock:
            how = self._spoil.pop(0) if self._spoil else "ok"
        if how != "ok":
            with sock:
                await self._loop.sock_recv(sock, 1)
                if how == "hang":
                    await asyncio.sleep(3600)
                elif how == "reset":
                    linger_not(sock)
            return
        reader = asyncio.StreamReader(limit=1 << 20, loop=self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._tls)
        except (OSError, ssl.SSLError):
            return  # a client that does not trust us, or speaks no TLS
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        try:
            while await self._exchange(reader, writer, number):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client is gone
        except asyncio.CancelledError:
            transport.abort()
            raise
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """One request and its answer; whether the connection stays."""
        words = (await reader.readuntil(b"\n")).decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):  # for example the beginning of TLS
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            return False
        lines = []
        while line := (await reader.readuntil(b"\n")).decode("latin-1").strip():
            lines.append(line)
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
        parts = urlsplit(words[1])
        request = Request(words[0], unquote(parts.path), parse_qs(parts.query), headers, b"", number, time.monotonic())
        with self._lock:
            fault = self._next_fault(request.path, request.method)
        length = int(headers.get("content-length", "0"))
        request.body = await reader.readexactly(length if fault.take is None else min(length, fault.take))
        with self._lock:
            self.requests.append(request)
        if fault.take is not None:
            name = request.path.rpartition("/")[2]
            if name in self._uploads:
                self._uploads[name] += request.body
            return await self._break(writer, fault)
        return await self._send(writer, request, self._answer(request, fault), fault)

    def _next_fault(self, path: str, method: str) -> Fault:
        for pattern, faults, forever in self._scripts:
            if (pattern.fullmatch(path) or pattern.fullmatch(f"{method} {path}")) and faults:
                return faults[0] if forever and len(faults) == 1 else faults.pop(0)
        return OK

    async def _send(self, writer: asyncio.StreamWriter, request: Request, answer: Answer, fault: Fault) -> bool:
        await asyncio.sleep(fault.delay)
        if fault.cut is not None and fault.cut < 0:
            return await self._break(writer, fault)
        has_body = request.method != "HEAD" and answer.status not in (204, 304)
        body = answer.body if has_body else b""
        if fault.corrupt is not None:
            body = body[: fault.corrupt] + bytes([body[fault.corrupt] ^ 1]) + body[fault.corrupt + 1 :]
        lines = [f"{name}: {value}\r\n" for name, value in self._framing(answer, fault).items() if value is not None]
        head = f"HTTP/1.1 {answer.status} Something\r\n{''.join(lines)}".encode()
        if fault.drip_headers:
            writer.write(head)
            while True:
                writer.write(b"X-Drip: x\r\n")
                await writer.drain()
                await asyncio.sleep(fault.drip_headers)
        await self._send_rest(writer, request, head + b"\r\n", body, fault)
        if fault.cut is not None or fault.until_closed:
            return await self._break(writer, fault)
        if fault.chunked:
            writer.write(b"0\r\n\r\n")
        writer.write(fault.junk)
        await writer.drain()
        return answer.headers.get("Connection") != "close"

    @staticmethod
    def _framing(answer: Answer, fault: Fault) -> dict[str, str | None]:
        headers: dict[str, str | None] = {"Content-Type": "application/json", **answer.headers}
        if fault.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif not fault.until_closed and not fault.endless:
            headers["Content-Length"] = str(len(answer.body) if fault.length is None else fault.length)
        return {**headers, **fault.headers}

    @staticmethod
    async def _send_rest(
        writer: asyncio.StreamWriter, request: Request, head: bytes, body: bytes, fault: Fault
    ) -> None:
        """The head and the body, beginning with both at once: each write more is a switch between threads more."""
        end = len(body) if fault.cut is None else min(fault.cut, len(body))
        if fault.stall is not None:
            end = min(end, fault.stall)
        step = 1 if fault.drip else PIECE
        while True:
            for start in range(0, end, step):
                piece = body[start : min(start + step, end)]
                request.sent += len(piece)
                writer.write(head + (b"%x\r\n%s\r\n" % (len(piece), piece) if fault.chunked else piece))
                head = b""
                await writer.drain()
                if fault.drip:
                    await asyncio.sleep(fault.drip)
            if not fault.endless:
                break
        writer.write(head)
        if fault.stall is not None:
            await asyncio.sleep(3600)

    @staticmethod
    async def _break(writer: asyncio.StreamWriter, fault: Fault) -> bool:
        await writer.drain()
        if fault.reset:
            linger_not(writer.get_extra_info("socket"))
            writer.transport.abort()
        return False

    # -- the right answers

    def _answer(self, request: Request, fault: Fault) -> Answer:
        answer = self._right_answer(request, fault)
        return Answer(
            answer.status if fault.status is None else fault.status,
            answer.headers,
            answer.body if fault.body is None else fault.body,
        )

    def _right_answer(self, request: Request, fault: Fault) -> Answer:
        if request.path == "/token":
            return self._token(request)
        if self.auth and not self._is_authorised(request):
            return self._challenge(request)
        if request.path in ("/v2/", "/v2"):
            return Answer(200, {}, b"{}")
        if parts := re.fullmatch(r"/v2/(.+)/blobs/uploads/([^/]*)", request.path):
            return self._upload(request, parts[1], parts[2])
        parts = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", request.path)
        if not parts:
            return Answer(404, {}, errors("UNSUPPORTED", "no such thing"))
        if parts[2] == "manifests":
            if request.method == "PUT":
                return self._put_manifest(request, parts[1], parts[3])
            return self._manifest(parts[1], parts[3])
        return self._blob(request, parts[1], parts[3], fault)

    def _manifest(self, repository: str, reference: str) -> Answer:
        media_type, data = self._manifests.get((repository, reference), ("", b""))
        if not media_type:
            return Answer(404, {}, errors("MANIFEST_UNKNOWN", "manifest unknown"))
        return Answer(200, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(data)}, data)

    def _put_manifest(self, request: Request, repository: str, reference: str) -> Answer:
        document = json.loads(request.body)
        wanted = [part["digest"] for part in (document.get("config"), *document.get("layers", ())) if part]
        if any((repository, digest) not in self._blobs for digest in wanted):
            return Answer(400, {}, errors("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"))
        digest = self.add_manifest(repository, reference, request.body, request.headers["content-type"])
        return Answer(201, {"Docker-Content-Digest": digest}, b"")

    def _upload(self, request: Request, repository: str, name: str) -> Answer:
        """Begin an upload, go on with it, end it, or tell how far it came (OCI distribution-spec, "Pushing blobs")."""
        mounted = request.query.get("mount", [""])[0], request.query.get("from", [""])[0]
        if request.method == "POST" and self.mounts and mounted[::-1] in self._blobs:
            self._blobs[repository, mounted[0]] = self._blobs[mounted[::-1]]
            return Answer(201, {"Location": f"/v2/{repository}/blobs/{mounted[0]}"}, b"")
        if request.method == "POST":
            self._uploads_begun += 1
            name = f"upload-{self._uploads_begun}"
            self._uploads[name] = bytearray()
        if name not in self._uploads:
            return Answer(404, {}, errors("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"))
        upload = self._uploads[name]
        start = re.fullmatch(r"([0-9]+)-[0-9]+", request.headers.get("content-range", ""))
        if start and int(start[1]) != len(upload):
            return Answer(416, {"Range": f"0-{max(len(upload) - 1, 0)}"}, b"")
        upload += request.body if request.method in ("PATCH", "PUT") else b""
        if request.method == "PUT":
            return self._end_upload(request, repository, name)
        headers = {"Location": f"/v2/{repository}/blobs/uploads/{name}?state={len(upload)}"}
        headers["Range"] = f"0-{max(len(upload) - 1, 0)}"
        return Answer(204 if request.method == "GET" else 202, {**headers}, b"")

    def _end_upload(self, request: Request, repository: str, name: str) -> Answer:
        data = bytes(self._uploads.pop(name))
        [digest] = request.query["digest"]
        if digest_of(data) != digest:
            return Answer(400, {}, errors("DIGEST_INVALID", "provided digest did not match uploaded content"))
        self._blobs[repository, digest] = data
        return Answer(201, {"Location": f"/v2/{repository}/blobs/{digest}"}, b"")

    def blob(self, repository: str, digest: str) -> bytes | None:
        """What it has of that name."""
        return self._blobs.get((repository, digest))

    def manifest(self, repository: str, reference: str) -> bytes:
        """Likewise; nothing where it has none."""
        return self._manifests.get((repository, reference), ("", b""))[1]

    def _blob(self, request: Request, repository: str, digest: str, fault: Fault) -> Answer:
        data = self._blobs.get((repository, digest))
        if data is None:
            return Answer(404, {}, errors("BLOB_UNKNOWN", "blob unknown to registry"))
        headers: dict[str, str | None] = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=([0-9]+)-", request.headers.get("range", ""))
        if not wanted or fault.ignore_range:
            return Answer(200, headers, data)
        start = int(wanted[1])
        if start >= len(data):
            return Answer(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return Answer(206, headers, data[start:])

    def _challenge(self, request: Request) -> Answer:
        value = 'Basic realm="tests"'
        if self.auth == "bearer":
            parts = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(?:uploads/)?[^/]*", request.path)
            actions = "pull" if request.method in ("GET", "HEAD") else "pull,push"
            scope = f',scope="repository:{parts[1]}:{actions}"' if parts else ""
            value = f'Bearer realm="{self.realm or self.url + "/token"}",service="tests"{scope}'
        return Answer(401, {"WWW-Authenticate": value}, errors("UNAUTHORIZED", "authentication required"))

    def _is_authorised(self, request: Request) -> bool:
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if self.auth == "basic":
            return kind == "Basic" and self._knows(value)
        scope, end = self.tokens.get(value, ("", 0.0))
        parts = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(?:uploads/)?[^/]*", request.path)
        if parts and request.method not in ("GET", "HEAD") and f"repository:{parts[1]}:pull,push" not in scope.split():
            return False
        return kind == "Bearer" and end > time.monotonic()

    def _knows(self, basic: str) -> bool:
        name, _, password = b64decode(basic).decode().partition(":")
        return name in self.users and self.users[name] == password

    def _token(self, request: Request) -> Answer:
        form = parse_qs(request.body.decode())
        basic = request.headers.get("authorization", "").removeprefix("Basic ")
        refresh = form.get("refresh_token", [""])[0]
        if self.users and not (basic and self._knows(basic)) and refresh not in self.users.values():
            return Answer(401, {}, json.dumps({"details": "incorrect username or password"}).encode())
        scope = (form or request.query).get("scope", [""])[0]
        token = f"token-{self._tokens_given}"
        self._tokens_given += 1
        self.tokens[token] = (scope, time.monotonic() + self.token_life)
        answer: dict[str, Any] = {"token": token, "expires_in": self.token_life}
        if self.identity and "offline_token" in request.query:
            answer["refresh_token"] = self.identity
        return Answer(200, {}, json.dumps(answer).encode())


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def platform_words(platform: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))


def unpacked(layer: bytes) -> bytes:
    """What is in a layer's blob, by its magic number."""
    if layer.startswith(b"\x1f\x8b"):
        return gzip.decompress(layer)
    if layer.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(layer)
    return layer


def layer_type(layer: bytes, docker: bool) -> str:
    how = "gzip" if layer.startswith(b"\x1f\x8b") else "zstd" if layer.startswith(b"\x28\xb5\x2f\xfd") else ""
    base = f"{DOCKER}.image.rootfs.diff.tar" if docker else f"{OCI}.layer.v1.tar"
    return base + (f"{'.' if docker else '+'}{how}" if how else "")


def linger_not(sock: socket.socket) -> None:
    """Have close(2) send RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def main(arguments: list[str]) -> None:
    name, *files = arguments
    layers = []
    for path in files:
        with open(path, "rb") as file:
            layers.append(file.read())
    with FaultRegistry() as registry:
        registry.add_image(name, layers)
        print(f"{registry.host}/{name}", flush=True)
        shown = 0
        while True:
            time.sleep(0.2)
            for request in registry.seen()[shown:]:
                print(request.method, request.path, request.headers.get("range", ""), flush=True)
                shown += 1


if __name__ == "__main__":
    main(sys.argv[1:])
