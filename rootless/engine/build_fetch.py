"""What a build fetches from the network: files by HTTP, repositories by git. Nothing of the user's goes along.

A Dockerfile is a stranger's, and so is what a server answers. Only http and https are spoken, redirects included; one
from the world to a machine's own addresses is not followed; what comes has a limit, and gets its name from the URL
alone. git runs with arguments that no reference can be taken for, no configuration, no hooks, an environment of its
own, and no transport but those of the network (CVE-2019-13139, CVE-2022-39253).
"""

import email.message
import hashlib
import http.client
import ipaddress
import os
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

from rootless import __version__
from rootless.engine.build_tree import Directory, find
from rootless.errors import InvalidInput, NotFound, RootlessError
from rootless.linux import files
from rootless.store.layout import remove_path

MAX_DOWNLOAD = 16 << 30  # bytes
_PIECE = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_MAX_REDIRECTS = 10
_GIT_PROTOCOLS = "http:https:git:ssh"
_GIT_URL = re.compile(r"(?:git|ssh)://|git@[\w.-]+:|(?:https?://)?github\.com/|https?://[^#?]*\.git(?:[#?]|$)")
_REF = re.compile(r"[A-Za-z0-9_.@^{}/+-]*")


class Downloaded(NamedTuple):
    """A file that was fetched."""

    path: str
    name: str  # the last part of the URL's path
    when: int | None  # Last-Modified, in ns
    digest: str  # sha256, hex digits


def is_url(text: str) -> bool:
    """Whether *text* is to be fetched by HTTP."""
    return text.startswith(("http://", "https://"))


def is_git(text: str) -> bool:
    """Whether *text* names a git repository, as Docker tells."""
    return _GIT_URL.match(text) is not None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within http and https, and none from the world to a machine's own addresses."""

    max_redirections = _MAX_REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: object,
        code: int,
        msg: str,
        headers: email.message.Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not is_url(newurl):
            raise InvalidInput(f"{req.full_url} leads to {newurl}, which is not fetched")
        if _is_internal(newurl) and not _is_internal(req.full_url):
            raise InvalidInput(
                f"{req.full_url} leads to {newurl}, an address inside of a network, which is not fetched"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _is_internal(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except OSError:
        return False  # it will not be reached
    return any(not ipaddress.ip_address(str(row[4][0]).partition("%")[0]).is_global for row in found)


def _opener() -> urllib.request.OpenerDirector:
    """Speaks HTTP and nothing else: urllib's usual one also opens file: and ftp:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", f"rootless/{__version__}")]
    return opener


def download(url: str, place: str) -> Downloaded:
    """Fetch *url* into a new file below the directory *place*. Raises RootlessError for what cannot be fetched."""
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    path = os.path.join(place, f"download-{os.urandom(8).hex()}")
    try:
        with _opener().open(url, timeout=_TIMEOUT) as answer, open(path, "xb") as file:
            digest = _receive(answer, file, url)
            when = _last_modified(answer.headers.get("Last-Modified"))
    except urllib.error.HTTPError as error:
        raise RootlessError(f"failed to load {url}: the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise RootlessError(f"failed to load {url}: {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise RootlessError(f"failed to load {url}: {error}") from error
    return Downloaded(path, "" if name in (".", "..") or "/" in name or "\0" in name else name, when, digest)


def _receive(answer: "urllib.request._UrlopenRet", file: object, url: str) -> str:
    total, size = hashlib.sha256(), 0
    while piece := answer.read(_PIECE):
        size += len(piece)
        if size > MAX_DOWNLOAD:
            raise InvalidInput(f"failed to load {url}: it has more than {MAX_DOWNLOAD} bytes")
        total.update(piece)
        file.write(piece)  # type: ignore[attr-defined]
    if missing := getattr(answer, "length", None):  # of Content-Length: read() is silent about a connection that broke
        raise RootlessError(f"failed to load {url}: it is cut short, {missing} bytes are missing")
    return total.hexdigest()


def _last_modified(text: str | None) -> int | None:
    from email.utils import parsedate_to_datetime  # with its calendar, for downloads alone

    try:
        return int(parsedate_to_datetime(text).timestamp()) * 10**9 if text else None
    except (ValueError, TypeError):
        return None


class Repository(NamedTuple):
    """Where a git repository is, and what of it is meant."""

    url: str
    ref: str  # "" for its HEAD
    subdirectory: str


def parse_git(text: str) -> Repository:
    """`URL#REF:SUBDIRECTORY`, or the same in the query: ?ref= (or branch, tag), ?subdir=. Raises InvalidInput."""
    address, _, fragment = text.partition("#")
    ref, _, subdirectory = fragment.partition(":")
    address, question, query = address.partition("?")
    for name, values in urllib.parse.parse_qs(query, keep_blank_values=True).items() if question else ():
        if name in ("ref", "branch", "tag", "commit"):
            ref = values[-1]
        elif name == "subdir":
            subdirectory = values[-1]
        else:
            raise InvalidInput(f"{text}: unexpected query parameter {name!r}")
    if address.startswith("github.com/"):
        address = f"https://{address}"
    if ref.startswith("-") or not _REF.fullmatch(ref) or ".." in ref:
        raise InvalidInput(f"{text}: {ref!r} is no git reference")
    if address.startswith("-") or "::" in address:
        raise InvalidInput(f"{text}: not a git URL")
    return Repository(address, ref, subdirectory)


def is_ssh(repository: Repository) -> bool:
    """Whether it is reached by ssh."""
    return repository.url.startswith(("ssh://", "git@"))


def ssh_of_user() -> dict[str, str]:
    """Variables for git, for what the user has named: ssh with the user's keys, agent and configuration."""
    agent = os.environ.get("SSH_AUTH_SOCK")
    return {"GIT_SSH_COMMAND": "ssh -oBatchMode=yes", **({"SSH_AUTH_SOCK": agent} if agent else {})}


def ssh_of_agent(socket: str) -> dict[str, str]:
    """The same for what a Dockerfile names: ssh has nothing but the agent at *socket*, or nobody's where that is empty.

    For else a stranger's Dockerfile could fetch what only the user may read, and send it away in its next step.
    """
    command = "ssh -F none -oBatchMode=yes -oIdentityFile=none"
    if not socket:
        return {"GIT_SSH_COMMAND": f"{command} -oIdentityAgent=none"}
    return {"GIT_SSH_COMMAND": command, "SSH_AUTH_SOCK": socket}


def clone(
    repository: Repository,
    target: str,
    ssh: Mapping[str, str],
    of_submodules: Mapping[str, str] | None = None,
    *,
    keep_git: bool = False,
) -> str:
    """Check the repository out into the new directory *target*, submodules too; the commit. Raises RootlessError.

    *ssh* is one of the above, and so is *of_submodules*, where these are to have another.
    """
    files.make_directory(target, 0o755)
    git = _Git(target, ssh)
    git.run("init", "--quiet", "--initial-branch=main")
    git.run("remote", "add", "--", "origin", repository.url)
    wanted = repository.ref or "HEAD"
    if git.try_run("fetch", "--quiet", "--depth=1", "origin", "--", wanted):
        git.run("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
    else:
        # A server that gives out the tips of branches only: the commit is below one of them.
        git.run("fetch", "--quiet", "--tags", "origin", "--", "+refs/heads/*:refs/remotes/origin/*")
        git.run("checkout", "--quiet", "--force", "--detach", wanted, "--")
    commit = git.run("rev-parse", "HEAD").strip()
    if os.path.lexists(os.path.join(target, ".gitmodules")):
        _Git(target, of_submodules or ssh).run("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    if not keep_git:
        remove_path(os.path.join(target, ".git"))
    return commit


def subdirectory_of(place: str, path: str) -> str:
    """The directory *path* in a repository at *place*; links do not lead out of it. Raises NotFound."""
    if not path:
        return place
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with Directory([fd], None) as root:
        try:
            with find(root, path) as found:
                if found.is_directory:
                    return os.path.join(place, *found.names)
        except NotADirectoryError:
            pass
    raise NotFound(f"{path}: no such directory in the repository")


class _Git:
    """git in one directory."""

    def __init__(self, directory: str, ssh: Mapping[str, str]) -> None:
        program = shutil.which("git")
        if program is None:
            raise NotFound("git is not installed, and a repository is to be fetched", hint="install git")
        hooks = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "advice.detachedHead=false")
        self._command = [program, *hooks, "-C", directory]
        self._environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": _GIT_PROTOCOLS,
            **ssh,
            **{k: v for k, v in os.environ.items() if k in ("http_proxy", "https_proxy", "no_proxy")},
        }

    def _call(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def try_run(self, *arguments: str) -> bool:
        return self._call(*arguments).returncode == 0

    def run(self, *arguments: str) -> str:
        done = self._call(*arguments)
        if done.returncode:
            raise RootlessError(f"git {arguments[0]}: {_reason(done.stderr) or f'exit status {done.returncode}'}")
        return done.stdout.decode()


def _reason(said: bytes) -> str:
    """Of what git and ssh have said, the line that tells what is wrong: theirs come before advice and consequences."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(("warning:", "hint:", "Warning:", "@"))), "")
