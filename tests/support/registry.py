"""A real registry on loopback: docker-registry, plain or with TLS and a password, for as long as a `with` lasts."""

import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

CONFIG = """\
version: 0.1
log: {{accesslog: {{disabled: false}}, level: info}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
{more}"""

TLS = """\
  tls: {{certificate: {certificate}, key: {key}}}
auth:
  htpasswd: {{realm: tests, path: {htpasswd}}}
"""


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry that answers now."""

    port: int
    directory: Path  # storage/, and registry.log with a line for each request
    ca: Path | None = None  # the certificate that signed the server's own
    username: str = ""
    password: str = ""

    @property
    def host(self) -> str:
        """As it stands in an image's name."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.host}"

    def open(self, request: urllib.request.Request) -> Message:
        """Send *request* with our password, if there is one, and return the answer's headers. Raises HTTPError."""
        if self.username:
            request.add_header("Authorization", basic(self.username, self.password))
        trust = ssl.create_default_context(cafile=str(self.ca)) if self.ca else None
        with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
            answer.read()
            headers: Message = answer.headers
            return headers


def basic(username: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def plain_registry(directory: Path) -> Iterator[Registry]:
    """A registry without TLS and password that keeps everything in *directory*, which is new."""
    with serve(Registry(free_port(), directory), more="") as registry:
        yield registry


@contextmanager
def secure_registry(directory: Path) -> Iterator[Registry]:
    """A registry with TLS, its certificate signed by a CA of its own, and one user."""
    directory.mkdir(parents=True, exist_ok=True)
    ca = make_certificates(directory)
    registry = Registry(free_port(), directory, ca, "alice", "s3cret: pässword")
    hashed = ["htpasswd", "-Bbn", registry.username, registry.password]
    (directory / "htpasswd").write_bytes(subprocess.run(hashed, check=True, capture_output=True).stdout)
    names = {"certificate": "server.crt", "key": "server.key", "htpasswd": "htpasswd"}
    with serve(registry, more=TLS.format(**{what: directory / name for what, name in names.items()})) as serving:
        yield serving


def make_certificates(directory: Path) -> Path:
    """ca.crt, and server.crt with server.key for 127.0.0.1 and localhost, all good for a day; return the CA's."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "1"]
    ca = ["-x509", "-subj", "/CN=CA of the tests", "-keyout", "ca.key", "-out", "ca.crt"]
    server = ["-x509", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.crt", "-CA", "ca.crt"]
    server += ["-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    server += ["-addext", "basicConstraints=critical,CA:FALSE"]
    for options in (ca, server):
        subprocess.run(["openssl", "req", *key, *options], check=True, capture_output=True, cwd=directory)
    return directory / "ca.crt"


@contextmanager
def serve(registry: Registry, more: str) -> Iterator[Registry]:
    """Run docker-registry until the block ends."""
    directory = registry.directory
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "config.yml"
    config.write_text(CONFIG.format(storage=directory / "storage", port=registry.port, more=more))
    with (directory / "registry.log").open("wb") as log:
        server = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for_answer(registry, server)
        yield registry
    finally:
        server.kill()
        server.wait()


def wait_for_answer(registry: Registry, server: "subprocess.Popen[bytes]", seconds: float = 20) -> None:
    """Return once the registry answers; raise RuntimeError with its log where it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            registry.open(urllib.request.Request(f"{registry.url}/v2/"))
        except urllib.error.URLError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"docker-registry does not answer\n{(registry.directory / 'registry.log').read_text()}")
