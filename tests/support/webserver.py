"""A web server for real clients: HTTP/1.1 with kept connections, bodies of either kind, files, hashes, and git.

GET /NAME              a file of the directory
GET /chunked/N         N lines, in as many chunks
PUT or POST /hash      the SHA-256 of the body
GET, POST /git/…       git-http-backend(1) on the repositories in the directory
"""

import contextlib
import hashlib
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: "Server"
    timeout = 60

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # the client went away; it knows why
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test looks at what the client says."""

    def do_GET(self) -> None:
        if self.path.startswith("/git/"):
            self.git()
        elif self.path.startswith("/chunked/"):
            self.chunked(int(self.path.rpartition("/")[2]))
        else:
            self.file(self.server.directory / self.path.lstrip("/"))

    def do_POST(self) -> None:
        if self.path.startswith("/git/"):
            self.git()
            return
        seen = hashlib.sha256()
        for part in self.body():
            seen.update(part)
        self.answer(f"{seen.hexdigest()}\n".encode())

    def do_PUT(self) -> None:
        self.do_POST()

    def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def chunked(self, count: int) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(count):
            line = f"line {number}\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def file(self, path: Path) -> None:
        if not path.is_file():
            self.answer(b"no such file\n", 404)
            return
        with path.open("rb") as file:
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            shutil.copyfileobj(file, self.wfile, 1 << 18)

    def body(self) -> Iterator[bytes]:
        """What the client sends, in parts."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            part = self.rfile.read(min(left, 1 << 18))
            if not part:
                raise ConnectionError("the client has gone")
            left -= len(part)
            yield part

    def git(self) -> None:
        """As a web server does by the CGI (RFC 3875)."""
        path, _, query = self.path.removeprefix("/git").partition("?")
        body = b"".join(self.body())
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.server.directory),
            "GIT_PROJECT_ROOT": str(self.server.directory),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_USER": "test",
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
        }
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200 OK").split()[0])
        self.answer(content, status, headers)


class Server(ThreadingHTTPServer):
    """Counts connections."""

    daemon_threads = True
    request_queue_size = 512
    connections = 0

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.directory = directory

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A handler's exception has closed the connection, and that the client tells."""


class WebServer:
    """A server in a thread."""

    def __init__(self, directory: Path, tls: ssl.SSLContext | None = None) -> None:
        self.directory, self.scheme = directory, "https" if tls else "http"
        self._server = Server(directory)
        self.port: int = self._server.server_address[1]
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)

    @property
    def connections(self) -> int:
        """How many there were."""
        return self._server.connections

    def url(self, path: str, host: str) -> str:
        """Of something here, for who calls us *host*."""
        return f"{self.scheme}://{host}:{self.port}/{path}"

    @contextlib.contextmanager
    def serving(self) -> Iterator["WebServer"]:
        """For as long as the block lasts."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
