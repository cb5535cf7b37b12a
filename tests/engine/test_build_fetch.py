"""What a build fetches: answers that break off, and whose keys git may show."""

import binascii
import lzma
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from rootless.engine import build_fetch
from rootless.engine.build_archive import chunks
from rootless.engine.build_fetch import clone, download, parse_git, ssh_of_agent, ssh_of_user
from rootless.errors import CorruptData, RootlessError

ANSWERS = {
    "/whole": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole",
    "/until-the-end": b"HTTP/1.1 200 OK\r\n\r\nwhole",
    "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n",
    "/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nwhole",
    "/cut-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nabc",
    "/no-http": b"HTTP/9.z nonsense\r\n\r\n",
    "/long-line": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "/many-lines": b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000 + b"\r\n",
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.wfile.write(ANSWERS[self.path])
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/whole", "/until-the-end", "/chunked"])
def test_what_comes_whole_is_taken(path: str, server: str, tmp_path: Path) -> None:
    assert Path(download(server + path, str(tmp_path)).path).read_bytes() == b"whole"


@pytest.mark.parametrize("path", ["/cut", "/cut-chunk", "/no-http", "/long-line", "/many-lines"])
def test_what_breaks_off_or_is_no_http_is_an_error(path: str, server: str, tmp_path: Path) -> None:
    with pytest.raises(RootlessError, match=f"failed to load {server}{path}: "):
        download(server + path, str(tmp_path))


@pytest.fixture
def ssh_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a program called ssh was given, which git finds first."""
    record = tmp_path / "record"
    program = tmp_path / "bin/ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "agent=$SSH_AUTH_SOCK" "$@" >> {record}\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/the/users/agent")
    return record


def test_a_dockerfile_gets_at_none_of_the_users_keys(ssh_record: Path, tmp_path: Path) -> None:  # B09
    with pytest.raises(RootlessError):
        clone(parse_git("git@localhost:private.git"), str(tmp_path / "x"), ssh_of_agent(""))
    given = ssh_record.read_text()
    assert "agent= -F none" in given
    assert "IdentityFile=none" in given
    assert "IdentityAgent=none" in given


def test_a_dockerfile_may_ask_the_agent_that_it_is_given_and_has_no_key_files(ssh_record: Path, tmp_path: Path) -> None:
    with pytest.raises(RootlessError):
        clone(parse_git("ssh://localhost/private.git"), str(tmp_path / "x"), ssh_of_agent("/given/agent"))
    given = ssh_record.read_text()
    assert "agent=/given/agent -F none" in given
    assert "IdentityFile=none" in given
    assert "IdentityAgent" not in given


def test_a_context_that_the_user_names_is_fetched_as_the_user(ssh_record: Path, tmp_path: Path) -> None:
    with pytest.raises(RootlessError):
        clone(parse_git("git@localhost:own.git"), str(tmp_path / "x"), ssh_of_user())
    assert "agent=/the/users/agent -o" in ssh_record.read_text()


def test_of_what_git_says_the_cause_is_told(ssh_record: Path, tmp_path: Path) -> None:
    said = "echo 'Warning: added a host' >&2; echo 'git@localhost: Permission denied' >&2"
    (tmp_path / "bin/ssh").write_text(f"#!/bin/sh\n{said}; exit 255\n")
    with pytest.raises(RootlessError, match=r"git fetch: git@localhost: Permission denied$"):
        clone(parse_git("git@localhost:own.git"), str(tmp_path / "x"), ssh_of_user())


def test_an_xz_archive_does_not_say_how_much_memory_it_gets() -> None:  # T12
    data = bytearray(lzma.compress(b"x" * 1000))
    size = (data[12] + 1) * 4  # of the block's header, which the stream's twelve bytes come before
    data[12 + 4] = 40  # the dictionary of LZMA2: 4 GiB
    data[12 + size - 4 : 12 + size] = struct.pack("<I", binascii.crc32(data[12 : 12 + size - 4]))
    with pytest.raises(CorruptData):
        list(chunks(BytesIO(bytes(data))))


def test_submodules_of_a_context_get_at_none_of_the_users_keys(  # B09
    ssh_record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user has named the repository; what it names is a stranger's."""
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path / "origin")]
    (tmp_path / "origin").mkdir()
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "m"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "origin/.gitmodules").write_text('[submodule "s"]\n\tpath = s\n\turl = git@localhost:private.git\n')
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run([*git, "update-index", "--add", "--cacheinfo", f"160000,{commit},s"], check=True)
    subprocess.run([*git, "add", ".gitmodules"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "s"], check=True)
    monkeypatch.setattr(build_fetch, "_GIT_PROTOCOLS", "file:ssh")
    named = build_fetch.Repository(f"file://{tmp_path}/origin", "", "")
    with pytest.raises(RootlessError):
        clone(named, str(tmp_path / "x"), ssh_of_user(), ssh_of_agent(""))
    given = ssh_record.read_text()
    assert "agent= -F none" in given
    assert "IdentityAgent=none" in given
    assert "/the/users/agent" not in given
