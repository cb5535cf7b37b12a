"""tests/dockerfile_corpus: Dockerfiles with their contexts, and what they should come to.

A case is a text file: a head of `key: value` lines, then files, each after `== NAME [MODE]` (a directory with a slash
at its end), `== NAME -> TARGET` for a link, and last `== expected`: what the build puts above BASE, the tests' busybox,
and the config of the image. The head has

    what       a line about the case
    peer       "yes", where podman's result is to be the same, or "no: " and why not
    options    of the command line
    archives   names of directories that the context gets as archives: NAME.tar, .tar.gz, .tar.xz, .tar.bz2

`python -m tests.support.corpus STORE BASE` writes what is expected anew, for a person to read.
"""

import io
import json
import os
import shlex
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DIRECTORY = Path(__file__).resolve().parent.parent / "dockerfile_corpus"
EXPECTED = "expected"
# What a runtime puts into an image itself, or a peer leaves there.
OWN = ("dev", "proc", "sys", "run", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "etc", ".", "")


class Case(NamedTuple):
    """One case."""

    name: str
    head: dict[str, str]
    files: list[tuple[str, str, str]]  # name, what follows it, content
    expected: str

    @property
    def options(self) -> list[str]:
        return shlex.split(self.head.get("options", ""))

    @property
    def has_peer(self) -> bool:
        return self.head["peer"] == "yes"

    def write(self, directory: Path, base: str) -> None:
        """Make the context, with *base* for BASE."""
        for name, rest, content in self.files:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if rest.startswith("-> "):
                path.symlink_to(rest[3:])
            elif name.endswith("/"):
                path.mkdir(exist_ok=True)
                path.chmod(0o755)
            else:
                path.write_text(content.replace("BASE", base) if "Dockerfile" in name else content)
                path.chmod(int(rest, 8) if rest else 0o644)
        for name in self.head.get("archives", "").split():
            for mode, suffix in (("w", ""), ("w:gz", ".gz"), ("w:xz", ".xz"), ("w:bz2", ".bz2")):
                (directory / f"{name}.tar{suffix}").write_bytes(archive(mode))
        for path in directory.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        directory.chmod(0o755)


def archive(mode: str) -> bytes:
    """A small archive: a directory, files of an owner, a link, a hard link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, kind, content in (
            ("dir", tarfile.DIRTYPE, b""),
            ("dir/file", tarfile.REGTYPE, b"inside"),
            ("link", tarfile.SYMTYPE, b"dir/file"),
            ("hard", tarfile.LNKTYPE, b"dir/file"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid, member.mode = kind, 1000, 10, 0o750
            member.linkname = content.decode() if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def load() -> list[Case]:
    """All cases."""
    return [parse(path.stem, path.read_text()) for path in sorted(DIRECTORY.glob("*.txt"))]


def parse(name: str, text: str) -> Case:
    head_text, *sections = text.split("\n== ")
    head = dict(line.split(": ", 1) for line in head_text.splitlines())
    files, expected = [], ""
    for section in sections:
        title, _, content = section.partition("\n")
        content = content if content.endswith("\n") or not content else f"{content}\n"
        path, _, rest = title.partition(" -> ") if " -> " in title else (title, "", "")
        if " -> " in title:
            files.append((path, f"-> {rest}", ""))
            continue
        if title == EXPECTED:
            expected = content
            continue
        path, _, mode = title.rpartition(" ") if title[-4:].isdigit() and title[-5:-4] == " " else (title, "", "")
        files.append((path, mode, content))
    return Case(name, head, files, expected)


def lines_of_tar(data: bytes) -> dict[str, str]:
    """Path -> looks, of what an archive has: type and mode, owner, content or target."""
    found: dict[str, str] = {}
    contents: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            name = member.name.removeprefix("./").rstrip("/")
            mode = stat.filemode(member.mode | _TYPES.get(member.type, stat.S_IFREG))
            content = ""
            if member.isfile():
                file = tar.extractfile(member)
                content = contents[name] = _shown(file.read() if file else b"")
            elif member.issym():
                content = f"-> {member.linkname}"
            elif member.islnk():
                content = contents[member.linkname.removeprefix("./")]
            found[name] = f"{mode} {member.uid}:{member.gid} {content}".rstrip()
    return found


_TYPES = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.FIFOTYPE: stat.S_IFIFO}


def _shown(content: bytes) -> str:
    return json.dumps(content[:200].decode("utf-8", "replace"), ensure_ascii=False)


def difference(tree: dict[str, str], base: dict[str, str]) -> Iterator[str]:
    """A line for each thing that *tree* has otherwise than *base*, but for what runtimes put there."""
    for name in sorted({*tree, *base}):
        if tree.get(name) != base.get(name) and name not in OWN:
            yield f"/{name}: {tree.get(name, 'gone')}"


def config_lines(config: dict[str, Any]) -> Iterator[str]:
    """The members of a config that say something, by their names."""
    for name, value in sorted(config.items()):
        if value not in (None, "", [], {}, False):
            yield f"{name} = {json.dumps(value, ensure_ascii=False, sort_keys=True)}"


def described(tree: dict[str, str], base: dict[str, str], config: dict[str, Any]) -> str:
    """What a build has come to, as it stands in a case."""
    return "".join(f"{line}\n" for line in (*difference(tree, base), *config_lines(config)))


def is_from_scratch(case: Case) -> bool:
    """Whether the last stage begins with nothing."""
    text = next(content for name, _, content in case.files if name.endswith("Dockerfile"))
    bases = [line.split()[1] for line in text.splitlines() if line.startswith("FROM ") and "--platform" not in line]
    return bool(bases) and bases[-1] == "scratch"


def build(rootless: list[str], case: Case, scratch: Path, base: str, environment: dict[str, str]) -> str:
    """Build a case with the command *rootless*; what it comes to."""
    context = scratch / case.name
    context.mkdir()
    case.write(context, base)
    out = scratch / f"{case.name}.tar"
    outputs = ["--output", f"type=tar,dest={out}", "--output", f"type=image,name=corpus:{case.name}"]
    command = [*rootless, "build", "--progress=plain", "--network=none", *outputs, *case.options, "."]
    done = subprocess.run(command, cwd=context, env=environment, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(f"{case.name}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    below = {} if is_from_scratch(case) else base_tree(rootless, scratch, base, environment)
    inspected = subprocess.run(
        [*rootless, "image", "inspect", f"corpus:{case.name}"], env=environment, capture_output=True, check=True
    )
    config = json.loads(inspected.stdout)[0]["Config"]
    return described(lines_of_tar(out.read_bytes()), below, config)


def base_tree(rootless: list[str], scratch: Path, base: str, environment: dict[str, str]) -> dict[str, str]:
    """The files of BASE."""
    out = scratch / "base.tar"
    if not out.exists():
        (scratch / "base").mkdir()
        (scratch / "base/Dockerfile").write_text(f"FROM {base}\n")
        command = [*rootless, "build", "-q", "--output", f"type=tar,dest={out}", str(scratch / "base")]
        subprocess.run(command, env=environment, capture_output=True, check=True)
    return lines_of_tar(out.read_bytes())


def main() -> None:
    """Write anew what is expected: sys.argv[1:] are a directory for contexts, a store, and BASE."""
    scratch, store, base, *names = sys.argv[1:]
    os.makedirs(scratch)
    for case in load():
        if names and case.name not in names:
            continue
        path = DIRECTORY / f"{case.name}.txt"
        try:
            text = build(["rootless", "--root", store], case, Path(scratch), base, dict(os.environ))
        except AssertionError as error:
            sys.stderr.write(f"{error}\n")
            continue
        before = path.read_text().partition(f"\n== {EXPECTED}\n")[0].rstrip("\n")
        path.write_text(f"{before}\n== {EXPECTED}\n{text}")


if __name__ == "__main__":
    main()
