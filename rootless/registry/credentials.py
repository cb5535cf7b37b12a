"""Passwords for registries: Docker's config.json, Podman's auth.json, and credential helpers.

The first file that knows a registry decides: $DOCKER_CONFIG/config.json (else ~/.docker/config.json), then
$REGISTRY_AUTH_FILE, or, where that is not set, containers/auth.json below $XDG_RUNTIME_DIR and ~/.config. In a file, a
helper named for the registry in `credHelpers` comes first, then the one in `credsStore`, then what stands in `auths`.

A registry is `host` or `host:port`, exactly; Docker Hub goes by the name of its old index. What belongs to one is never
given to another: not to another port, not to a mirror, not to where a redirect leads.

Helpers are programs `docker-credential-NAME` that read a server's name and write JSON, as described in the
docker-credential-helpers project.
"""

import base64
import binascii
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rootless.errors import CorruptData, InvalidInput, RegistryFailure
from rootless.linux.files import replace_file
from rootless.registry.config import DOCKER_HUB
from rootless.spec.strict_json import parse_json

_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
_MAX_FILE = 4 << 20  # bytes
_MAX_HELPER_OUTPUT = 1 << 20
_HELPER_SECONDS = 30.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+")
_IDENTITY_TOKEN_USER = "<token>"  # the user name for which a helper's secret is an identity token


class Credential(NamedTuple):
    """Who we are to one registry: a name and a password, or a token that buys others."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.username!r}, ***)"

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Credentials:
    """The files, in the order in which they are asked. They are read when a registry wants a password, not before."""

    files: tuple[str, ...] = ()
    helper_seconds: float = _HELPER_SECONDS

    def find(self, registry: str, repository: str = "") -> Credential | None:
        """What to show to *registry* for *repository*. Raises InvalidInput, RegistryFailure (a helper that fails)."""
        for path in self.files:
            document = _load(path)
            if document and (credential := self._find_in(path, document, registry, repository)):
                return credential
        return None

    def save(self, registry: str, credential: Credential) -> str:
        """Keep *credential* in the first file, or with its helper; return where it went."""
        path = self.files[0]
        document = _load(path) or {}
        if helper := _helper_for(document, registry):
            user, secret = credential.username, credential.password
            if credential.identity_token:
                user, secret = _IDENTITY_TOKEN_USER, credential.identity_token
            message = json.dumps({"ServerURL": _key(registry), "Username": user, "Secret": secret})
            self._ask(helper, "store", message)
            self._note(path, document, registry)
            return f"docker-credential-{helper}"
        entry = {"auth": base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()}
        if credential.identity_token:
            entry["identitytoken"] = credential.identity_token
        _write(path, {**document, "auths": {**_section(path, document, "auths"), _key(registry): entry}})
        return path

    def erase(self, registry: str) -> bool:
        """Forget what save() kept for *registry*; tell whether there was anything."""
        path = self.files[0]
        document = _load(path) or {}
        if helper := _helper_for(document, registry):
            found = self._find_in(path, document, registry, "") is not None
            self._ask(helper, "erase", _key(registry))
            return self._forget(path, document, registry) or found
        return self._forget(path, document, registry)

    @staticmethod
    def _note(path: str, document: dict[str, Any], registry: str) -> None:
        """Leave an empty entry for what a helper keeps, as Docker does: some programs list registries by these."""
        auths = _section(path, document, "auths")
        if auths.get(_key(registry)) != {}:
            _write(path, {**document, "auths": {**auths, _key(registry): {}}})

    @staticmethod
    def _forget(path: str, document: dict[str, Any], registry: str) -> bool:
        auths = _section(path, document, "auths")
        kept = {name: entry for name, entry in auths.items() if _host_of_key(name) != _host_of_key(_key(registry))}
        if len(kept) == len(auths):
            return False
        _write(path, {**document, "auths": kept})
        return True

    def _find_in(self, path: str, document: dict[str, Any], registry: str, repository: str) -> Credential | None:
        if helper := _helper_for(document, registry):
            return self._ask_helper(helper, registry)
        auths = _section(path, document, "auths")
        for name in _names(auths, registry, repository):
            if credential := _decode(path, name, auths[name]):
                return credential
        return None

    def _ask_helper(self, helper: str, registry: str) -> Credential | None:
        output = self._ask(helper, "get", _key(registry))
        if output is None:
            return None
        answer = parse_json(output, limit=_MAX_HELPER_OUTPUT, what=f"the answer of docker-credential-{helper}")
        if not isinstance(answer, dict):
            raise CorruptData(f"the answer of docker-credential-{helper} is not an object")
        username, secret = answer.get("Username"), answer.get("Secret")
        if not isinstance(username, str) or not isinstance(secret, str):
            raise CorruptData(f"the answer of docker-credential-{helper} has no Username or no Secret")
        if username == _IDENTITY_TOKEN_USER:
            return Credential(identity_token=secret)
        return Credential(username, secret) if username or secret else None

    def _ask(self, helper: str, verb: str, message: str) -> bytes | None:
        """What the helper writes, or None where it knows nothing. Its words are not shown: they may hold the secret."""
        program = f"docker-credential-{helper}"
        try:
            status, output = _run([program, verb], message.encode(), self.helper_seconds)
        except (FileNotFoundError, PermissionError):  # execvp(3) tells of a directory in PATH that is closed to us
            hint = "config.json says that it keeps the passwords"
            raise RegistryFailure(f"{program} is not in PATH, or not executable", hint=hint) from None
        except TimeoutError:
            raise RegistryFailure(f"{program} did not answer within {self.helper_seconds:g} seconds") from None
        except OSError as error:
            raise RegistryFailure(f"{program}: {error.strerror or error}") from None
        if status and b"credentials not found" in output:
            return None
        if status:
            raise RegistryFailure(f"{program} {verb} failed with status {status}")
        return output


def default_credentials(environ: Mapping[str, str] = os.environ) -> Credentials:
    """The user's credentials, from where the environment says that they are."""
    home = environ.get("HOME") or os.path.expanduser("~")
    docker = environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker")
    files = [os.path.join(docker, "config.json")]
    if named := environ.get("REGISTRY_AUTH_FILE"):
        files.append(named)
    else:
        config_home = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        places = [place for place in (environ.get("XDG_RUNTIME_DIR"), config_home) if place]
        files += [os.path.join(place, "containers", "auth.json") for place in places]
    return Credentials(tuple(files))


def _key(registry: str) -> str:
    """The name of *registry* in files and for helpers."""
    if any(c.isspace() or not c.isprintable() for c in registry):
        raise InvalidInput(f"invalid registry {registry!r}")
    return _HUB_KEY if registry in _HUB_HOSTS else registry


def _host_of_key(name: str) -> str:
    """`host[:port]` of a key in `auths`, which old versions wrote as a URL."""
    host = name.partition("//")[2] if name.startswith(("http://", "https://")) else name
    host = host.partition("/")[0]
    return "index.docker.io" if host in _HUB_HOSTS else host


def _names(auths: Mapping[str, Any], registry: str, repository: str) -> Iterator[str]:
    """The keys of *auths* that stand for *registry*: for a part of it (Podman's), for it, for it as a URL."""
    path = f"{registry}/{repository}"
    while "/" in path:
        if path in auths:
            yield path
        path = path.rpartition("/")[0]
    if _key(registry) in auths:
        yield _key(registry)
    host = _host_of_key(_key(registry))
    for name in auths:
        whole = name.startswith(("http://", "https://")) or "/" not in name
        if whole and name != _key(registry) and _host_of_key(name) == host:
            yield name


def _decode(path: str, name: str, entry: Any) -> Credential | None:
    """The credential in one entry of `auths`; None for the empty one that stands where a helper has the password."""
    if not isinstance(entry, dict) or not all(isinstance(value, (str, type(None))) for value in entry.values()):
        raise InvalidInput(f"{path}: the entry for {name} is not an object of strings")
    username, password = entry.get("username") or "", entry.get("password") or ""
    if entry.get("auth"):
        try:
            username, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise InvalidInput(f"{path}: the auth of {name} cannot be decoded") from None
        if not colon:
            raise InvalidInput(f"{path}: the auth of {name} is not user:password")
        password = password.rstrip("\0")
    identity_token = entry.get("identitytoken") or ""
    if not (username or password or identity_token):
        return None
    return Credential(username, password, identity_token)


def _helper_for(document: Mapping[str, Any], registry: str) -> str:
    """The name of the helper that keeps the password of *registry*, or the empty string."""
    helpers = document.get("credHelpers")
    own = helpers.get(_key(registry)) or helpers.get(registry) if isinstance(helpers, dict) else None
    name = own or document.get("credsStore") or ""
    if name and (not isinstance(name, str) or not _HELPER_NAME.fullmatch(name) or ".." in name):
        raise InvalidInput(f"invalid name of a credential helper: {name!r}")
    return str(name)


def _section(path: str, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = document.get(name)
    if section is not None and not isinstance(section, dict):
        raise InvalidInput(f"{path}: {name} is not an object")
    return section or {}


def _load(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from None
    if not data.strip():
        return None
    document = parse_json(data, limit=_MAX_FILE, what=path)
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} is not a JSON object")
    return document


def _write(path: str, document: Mapping[str, Any]) -> None:
    """Replace the file, for its owner's eyes only. Behind a symbolic link, it is the file that changes."""
    target = os.path.realpath(path)
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    replace_file(target, json.dumps(document, indent="\t").encode() + b"\n", 0o600)


def _run(argv: list[str], message: bytes, seconds: float) -> tuple[int, bytes]:
    """Status and output of a program that gets *message*. Raises OSError, TimeoutError."""
    end = time.monotonic() + seconds
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        if program.stdin is None or program.stdout is None:
            raise OSError("no pipes")
        try:
            _feed(program.stdin.fileno(), message)
            program.stdin.close()
            output = _drain(program.stdout.fileno(), end)
            return program.wait(max(0.0, end - time.monotonic())), output
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            program.kill()


def _feed(fd: int, message: bytes) -> None:
    """Write *message*, which fits into a pipe; a program that does not read it is not waited for."""
    os.set_blocking(fd, False)
    try:
        os.write(fd, message)
    except (BrokenPipeError, BlockingIOError):
        pass  # its status tells what became of it


def _drain(fd: int, end: float) -> bytes:
    output = b""
    while True:
        readable, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
        if not readable:
            raise TimeoutError
        data = os.read(fd, 1 << 16)
        output += data
        if not data:
            return output
        if len(output) > _MAX_HELPER_OUTPUT:
            raise OSError(f"it wrote more than {_MAX_HELPER_OUTPUT} bytes")
