"""Servers with faults, clients in a hurry, and certificates of every kind."""

import functools
import json
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rootless.registry.client import Client
from rootless.registry.config import HostConfig, RegistryConfig, Timing
from rootless.registry.credentials import Credentials
from tests.support.fault_registry import FaultRegistry

HASTE = Timing(connect=2, headers=0.6, stall=0.6, stall_bytes=64, attempts=4, backoff=0.01, longest_wait=2)

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")


@pytest.fixture(scope="session")
def no_authorities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In place of the system's, whose certificates take a while to read."""
    path = tmp_path_factory.mktemp("authorities") / "none.pem"
    path.touch()
    return path


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_authorities: Path) -> None:
    """Neither proxies nor passwords of whoever runs the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(no_authorities))
    monkeypatch.setenv("SSL_CERT_DIR", str(no_authorities.parent))


@pytest.fixture
def faults() -> Iterator[FaultRegistry]:
    """A registry in plain HTTP."""
    with FaultRegistry() as registry:
        yield registry


@pytest.fixture
def client() -> Iterator[Client]:
    """A client without settings and passwords, which does not wait long."""
    with Client(RegistryConfig(), Credentials(), HASTE) as hasty:
        yield hasty


@pytest.fixture
def client_with() -> Iterator[Callable[..., Client]]:
    """`client_with(hosts={"host:1": HostConfig(...)}, credentials=..., timing=...)`."""
    clients = []

    def make(
        hosts: dict[str, HostConfig] | None = None,
        credentials: Credentials | None = None,
        timing: Timing = HASTE,
    ) -> Client:
        clients.append(Client(RegistryConfig(hosts or {}), credentials or Credentials(), timing))
        return clients[-1]

    yield make
    for client in clients:
        client.__exit__()


@pytest.fixture
def docker_config(tmp_path: Path) -> Callable[[Mapping[str, Any]], Credentials]:
    """`docker_config({"host:1": ("user", "password")})` writes that file; an entry may be a dict as it stands there."""

    def write(auths: Mapping[str, Any]) -> Credentials:
        entries = {
            host: entry if isinstance(entry, dict) else {"auth": b64encode(":".join(entry).encode()).decode()}
            for host, entry in auths.items()
        }
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"auths": entries}))
        return Credentials((str(path),))

    return write


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[ssl.SSLContext, str]]:
    """`certificates(kind)` is a server's context and the file of the authority that vouches for it.

    Kinds: "good" for 127.0.0.1, "wrong host", "expired", "self-signed", "another authority" (not the one in the file).
    """
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    @functools.cache
    def authority(name: str) -> str:
        openssl("req", "-x509", *KEY, "-days", "1", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", name)
        return str(directory / name)

    @functools.cache
    def make(kind: str) -> tuple[ssl.SSLContext, str]:
        name = kind.replace(" ", "-")
        names = "DNS:elsewhere.example" if kind == "wrong host" else "IP:127.0.0.1,DNS:localhost"
        request = ("-subj", "/CN=server", "-addext", f"subjectAltName={names}", "-keyout", f"{name}.key")
        trusted = authority("authority")
        if kind == "self-signed":
            openssl("req", "-x509", *KEY, "-days", "1", *request, "-out", f"{name}.crt")
        else:
            openssl("req", "-new", *KEY, *request, "-out", f"{name}.csr")
            signer = authority("foreign") if kind == "another authority" else trusted
            days = "-1" if kind == "expired" else "1"
            by = ("-CA", signer, "-CAkey", f"{signer}.key", "-days", days, "-copy_extensions", "copyall")
            openssl("x509", "-req", "-in", f"{name}.csr", *by, "-out", f"{name}.crt")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
        return context, trusted

    return make
