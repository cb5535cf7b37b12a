"""Registries that lie, through `pull`: nothing that is wrong is kept, named, or shown unescaped; no password gets away.

What each part of the protocol does with each fault is tested in tests/registry; here it is what the user is left with.
"""

import json
import os
import re
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.account import Installation
from tests.support.fault_registry import OCI, Added, Fault, FaultRegistry, digest_of, errors, redirect
from tests.support.hostile import LONG, Box, failure, packed
from tests.support.layout import NATIVE, directory, file
from tests.support.registry import Registry, make_certificates

pytestmark = pytest.mark.kernel

MANIFEST, INDEX, CONFIG, LAYER = (
    f"{OCI}.{kind}" for kind in ("manifest.v1+json", "index.v1+json", "config.v1+json", "layer.v1.tar")
)


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    with FaultRegistry() as serving:
        yield serving


def add(registry: FaultRegistry, name: str = "lies/image:1", **more: Any) -> tuple[str, Added]:
    layers = [packed([directory("l"), file(f"l/{n}", f"layer {n} of {name}".encode() * 100)]) for n in range(2)]
    return f"{registry.host}/{name}", registry.add_image(name, layers, architecture=NATIVE, **more)


def kept(rootless: Installation) -> dict[str, int]:
    """How many there are of images, names, layers, and of blobs by name only."""
    store = rootless.data / "rootless"
    places = ("images", "tags", "layers", "trash")
    return {place: len(list((store / place).iterdir())) for place in places}


NOTHING = {"images": 0, "tags": 0, "layers": 0, "trash": 0}


# Wrong bytes (R01)


@pytest.mark.parametrize("fault", ["a flipped bit", "more than announced", "less than announced", "another's"])
@pytest.mark.parametrize("which", ["config", "layer 0", "layer 1"])
def test_no_wrong_byte_is_kept(rootless: Installation, registry: FaultRegistry, which: str, fault: str) -> None:  # R01
    image, added = add(registry)
    right = {"config": added.config, "layer 0": added.layers[0], "layer 1": added.layers[1]}[which]
    path = added.config_path if which == "config" else added.layer_path(int(which[-1]))
    body = {
        "a flipped bit": right[:-1] + bytes([right[-1] ^ 1]),
        "more than announced": right + b" ",
        "less than announced": right[:-1],
        "another's": added.layers[0] if which != "layer 0" else added.layers[1],
    }[fault]
    registry.script(path, [Fault(body=body)], forever=True)
    said = failure(rootless, "pull", image, status=[1])
    assert digest_of(right) in said
    if fault == "a flipped bit":
        assert digest_of(body) in said
    assert kept(rootless) == NOTHING
    if fault != "another's":
        assert not (rootless.data / "rootless/blobs/sha256" / digest_of(body)[7:]).exists()
    registry.forget()
    rootless.run("pull", "-q", image)
    assert kept(rootless) == {"images": 1, "tags": 1, "layers": 2, "trash": 0}


def test_a_blob_that_an_image_has_several_times_is_fetched_once(
    rootless: Installation, registry: FaultRegistry
) -> None:
    """Docker's images have the empty layer many times. It comes slowly, so that all would ask for it at once."""
    same = packed([directory("l"), file("l/same", b"x" * 1000)])
    added = registry.add_image("lies/twice:1", [same] * 6, architecture=NATIVE)
    registry.script(added.layer_path(0), [Fault(delay=0.2)], forever=True)
    rootless.run("pull", "-q", f"{registry.host}/lies/twice:1")
    assert len(registry.seen(added.layer_path(0))) == 1
    assert kept(rootless) == {"images": 1, "tags": 1, "layers": 6, "trash": 0}


def test_a_manifest_by_digest_is_that_manifest(rootless: Installation, registry: FaultRegistry) -> None:  # R01
    image, added = add(registry)
    registry.script(added.manifest_path, [Fault(body=added.manifest + b" ")], forever=True)
    name = image.rpartition(":")[0]
    said = failure(rootless, "pull", f"{name}@{added.digest}", status=[1])
    assert added.digest in said
    assert digest_of(added.manifest + b" ") in said
    assert kept(rootless) == NOTHING


# Digests that are none (R02)

BAD_DIGESTS = ["sha256:../../../../../../tmp/x", "sha256:" + "A" * 64, "sha256:abc", "x" * 64]
MORE_BAD_DIGESTS = ["md5:" + "0" * 32, "", "sha256:", ":" + "0" * 64, "sha256:" + "0" * 64 + "\n", "sha256:" + "é" * 64]


def with_bad_digest(registry: FaultRegistry, position: str, bad: Any) -> str:
    """The name of an image that has *bad* where a digest should be."""
    _, added = add(registry, "lies/good:1")
    document = json.loads(added.manifest)
    config = json.loads(added.config)
    media_type = MANIFEST
    if position == "config":
        document["config"]["digest"] = bad
    elif position == "layer":
        document["layers"][0]["digest"] = bad
    elif position == "subject":
        document["subject"] = {"mediaType": MANIFEST, "digest": bad, "size": 1}
    elif position == "diff_id":
        config["rootfs"]["diff_ids"][0] = bad
        document["config"] = registry.add_blob("lies/digest", json.dumps(config).encode(), CONFIG)
    elif position == "index":
        media_type = INDEX
        entry = {"mediaType": MANIFEST, "digest": bad, "size": 1, "platform": {"os": "linux", "architecture": NATIVE}}
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    for layer in added.layers:
        registry.add_blob("lies/digest", layer)
    registry.add_blob("lies/digest", added.config)
    registry.add_manifest("lies/digest", "1", json.dumps(document).encode(), media_type)
    return f"{registry.host}/lies/digest:1"


@pytest.mark.parametrize("position", ["config", "layer", "subject", "diff_id", "index"])
def test_what_is_no_digest_is_used_for_nothing(  # R02, CVE-2024-3727
    rootless: Installation, registry: FaultRegistry, position: str
) -> None:
    for bad in BAD_DIGESTS + (MORE_BAD_DIGESTS if LONG else []):
        image = with_bad_digest(registry, position, bad)
        said = failure(rootless, "pull", image, status=[1])
        assert "Errno" not in said
        assert kept(rootless) == NOTHING
        assert not any(".." in request.path for request in registry.requests)


def test_what_is_no_digest_names_no_image(rootless: Installation, registry: FaultRegistry) -> None:  # R02
    for bad in BAD_DIGESTS + MORE_BAD_DIGESTS:
        failure(rootless, "pull", f"{registry.host}/lies/image@{bad}", status=[1])
    assert registry.requests == []


# Somebody else's layers (R04)


def impostor(registry: FaultRegistry, victim: Added, **descriptor: Any) -> str:
    """An image whose config claims the layers of *victim*, over other bytes."""
    layer = packed([directory("l"), file("l/0", b"evil")])
    config = json.loads(victim.config)
    blobs = [registry.add_blob("lies/impostor", layer, LAYER) | descriptor for _ in victim.layers]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": registry.add_blob("lies/impostor", json.dumps(config).encode(), CONFIG),
        "layers": blobs,
    }
    registry.add_manifest("lies/impostor", "1", json.dumps(document).encode(), MANIFEST)
    return f"{registry.host}/lies/impostor:1"


def content(rootless: Installation) -> list[bytes]:
    """What layers have as /l/0."""
    return [path.read_bytes() for path in (rootless.data / "rootless/layers").glob("*/diff/l/0")]


def test_a_layer_is_known_by_its_content_not_by_what_is_claimed(  # R04
    rootless: Installation, registry: FaultRegistry
) -> None:
    image, victim = add(registry, "good/image:1")
    right = b"layer 0 of good/image:1" * 100
    said = failure(rootless, "pull", impostor(registry, victim), status=[1])
    assert any(digest in said for digest in victim.layer_digests)  # not compressed: the diff_ids as well
    assert kept(rootless) == NOTHING
    rootless.run("pull", "-q", image)
    assert content(rootless) == [right]
    # Now that the layers are here, the impostor's own bytes are not even asked for.
    rootless.run("pull", "-q", impostor(registry, victim))
    assert content(rootless) == [right]


def test_content_in_a_descriptor_is_checked_or_ignored(rootless: Installation, registry: FaultRegistry) -> None:  # R04
    image, added = add(registry)
    document = json.loads(added.manifest)
    evil = {"data": b64encode(b'{"architecture": "evil"}').decode()}
    document["config"] |= evil
    document["layers"][0] |= {"data": b64encode(packed([file("evil", b"evil")])).decode()}
    registry.add_manifest("lies/image", "1", json.dumps(document).encode(), MANIFEST)
    done = rootless.run("pull", "-q", image, check=False)
    if done.returncode == 0:
        assert content(rootless) == [b"layer 0 of lies/image:1" * 100]
        assert not list((rootless.data / "rootless/layers").glob("*/diff/evil"))
    else:
        assert kept(rootless) == NOTHING


# Without end (R05)


class Measured(NamedTuple):
    status: int
    said: str
    rss: int  # MiB, the most that it had
    seconds: float


def measured(rootless: Installation, *args: str) -> Measured:
    begun = time.monotonic()
    pulling = rootless.start(*args)
    assert pulling.stderr
    assert pulling.stdout
    said = (pulling.stdout.read() + pulling.stderr.read()).decode()
    _, status, usage = os.wait4(pulling.pid, 0)
    pulling.returncode = os.waitstatus_to_exitcode(status)
    for pipe in (pulling.stdin, pulling.stdout, pulling.stderr):
        if pipe:
            pipe.close()
    return Measured(pulling.returncode, said, usage.ru_maxrss >> 10, time.monotonic() - begun)


@pytest.mark.parametrize("what", ["manifest", "config", "error", "token"])
def test_answers_without_end_are_given_up(rootless: Installation, registry: FaultRegistry, what: str) -> None:  # R05
    image, added = add(registry)
    normal = measured(rootless, "pull", "-q", image).rss
    rootless.run("rmi", image)
    rootless.run("image", "prune", "-af")
    endless = Fault(body=b"[" * 65536, endless=True)
    if what == "error":
        registry.script(added.tag_path, [Fault(status=404, body=b"x" * 65536, endless=True)], forever=True)
    elif what == "token":
        registry.auth = "bearer"
        registry.script("/token", [endless], forever=True)
    else:
        registry.script(added.tag_path if what == "manifest" else added.config_path, [endless], forever=True)
    found = measured(rootless, "pull", image)
    assert found.status == 1, found
    assert "Traceback" not in found.said
    assert found.rss < normal + 64
    assert found.seconds < 20
    assert kept(rootless) == NOTHING


# Passwords (R06), certificates (R12)

PASSWORD = "canary-password-51c7"


def log_in(rootless: Installation, *hosts: str) -> None:
    """Let a password for each of *hosts* be there, as `docker login` leaves it."""
    auths = {host: {"auth": b64encode(f"alice:{PASSWORD}".encode()).decode()} for host in hosts}
    (rootless.home / ".docker").mkdir(exist_ok=True)
    (rootless.home / ".docker/config.json").write_text(json.dumps({"auths": auths}))


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_redirect_takes_no_password_along(rootless: Installation, auth: str) -> None:  # R06
    with FaultRegistry(auth=auth, users={"alice": PASSWORD}) as first, FaultRegistry() as other:
        image, added = add(first)
        log_in(rootless, first.host)
        other.add_image("lies/image:1", added.layers, architecture=NATIVE)
        for path in (added.layer_path(0), added.config_path):
            other.add_blob("lies/image", added.config)
            first.script(path, [redirect(other.url + path)], forever=True)
        rootless.run("pull", "-q", image)
        assert len(other.seen()) >= 2
        assert [request for request in other.seen() if "authorization" in request.headers] == []
        assert [request for request in first.seen() if "authorization" in request.headers] != []


def test_no_output_has_the_password(rootless: Installation) -> None:  # R06, R11
    with FaultRegistry(auth="basic", users={"alice": "another"}) as registry:
        image, _ = add(registry)
        log_in(rootless, registry.host)
        for options in ([], ["--debug"], ["--log-level=debug"]):
            done = rootless.run(*options, "pull", image, check=False)
            assert done.returncode == 1
            for form in (PASSWORD, b64encode(f"alice:{PASSWORD}".encode()).decode()):
                assert form not in done.stdout + done.stderr
    found = subprocess.run(["grep", "-rl", PASSWORD, str(rootless.tree)], capture_output=True, text=True).stdout
    assert found == ""


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[tuple[FaultRegistry, Path]]:
    """A registry with TLS, and the certificate of the authority that signed its own."""
    ca = make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    with FaultRegistry(tls=context, auth="basic", users={"alice": PASSWORD}) as registry:
        yield registry, ca


def test_an_unknown_certificate_is_refused_and_nothing_is_said_in_the_clear(  # R12
    rootless: Installation, certified: tuple[FaultRegistry, Path]
) -> None:
    registry, ca = certified
    image, _ = add(registry)
    log_in(rootless, registry.host)
    said = failure(rootless, "pull", image, status=[1])
    assert "certificate" in said
    assert registry.requests == []
    config = rootless.home / ".config/rootless/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[registry."{registry.host}"]\nca_file = "{ca}"\n')
    rootless.run("pull", "-q", image)
    assert kept(rootless)["images"] == 1


@pytest.mark.registry
def test_a_real_registry_with_an_unknown_certificate_is_refused(  # R12
    rootless: Installation, secure_registry: Registry
) -> None:
    assert "certificate" in failure(rootless, "pull", f"{secure_registry.host}/x:1", status=[1])


# Words for the terminal (R15)

STEERING = "\x1b[31mred\x1b]52;c;ZXZpbA==\x07\r\x9b2J\u202eevil\x00\n\tend"
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")
# What our own lists and progress bars send: moving the cursor, erasing, and nothing else.
OURS = re.compile(r"\x1b\[\d*[ABCDGJKm]|\x1b\[\?25[hl]|\x1b\[\?2026[hl]")


def on_a_terminal(box: Installation, *args: str) -> str:
    """What `rootless ARGS` shows on a terminal."""
    master, slave = os.openpty()
    with subprocess.Popen(
        box.command(*args), env={**box.env, "TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave
    ) as shown:
        os.close(slave)
        seen = b""
        try:
            while data := os.read(master, 65536):
                seen += data
        except OSError:
            pass  # the other end is closed
        shown.wait(20)
    os.close(master)
    return seen.decode(errors="replace")


def harmless(seen: str) -> bool:
    return not CONTROL.search(OURS.sub("", seen.replace("\r\n", "\n").replace("\r", ""))) and "\x1b]" not in seen


def test_a_registrys_words_do_not_steer_the_terminal(rootless: Installation, registry: FaultRegistry) -> None:  # R15
    image, added = add(registry)
    registry.script(added.tag_path, [Fault(status=403, body=errors("DENIED", STEERING))], forever=True)
    seen = on_a_terminal(rootless, "pull", image)
    assert "evil" in seen
    assert harmless(seen), repr(seen)
    registry.forget()
    registry.script(added.tag_path, [Fault(headers={"Content-Type": "a\x1b[31mb"})], forever=True)
    seen = on_a_terminal(rootless, "pull", image)
    assert harmless(seen), repr(seen)


def test_an_images_words_do_not_steer_the_terminal(rootless: Installation, registry: FaultRegistry) -> None:  # R15
    config = {"Cmd": ["x", STEERING.replace("\x00", "")], "Labels": {STEERING: STEERING}, "Env": [f"A={STEERING}"]}
    history = [{"created": STEERING, "created_by": STEERING, "comment": STEERING, "author": STEERING}] * 2
    image, _ = add(registry, config=config, changes={"author": STEERING, "history": history, "created": STEERING})
    seen = on_a_terminal(rootless, "pull", image)
    if "Downloaded newer image" not in seen:  # a date that is none may be refused
        assert harmless(seen), repr(seen)
        image, _ = add(
            registry, config=config, changes={"history": [{"created_by": STEERING, "comment": STEERING}] * 2}
        )
        seen = on_a_terminal(rootless, "pull", image)
    assert "Downloaded newer image" in seen
    rootless.run("create", "--name", "evil", "-l", f"own={STEERING}".replace("\x00", ""), image)
    for command in (
        ["ps", "-a", "--no-trunc"],
        ["ps", "-a", "--format", "{{.Command}} {{.Labels}}"],
        ["images"],
        ["history", "--no-trunc", image],
        ["inspect", image],
        ["inspect", "evil"],
        ["inspect", "-f", "{{.Config.Labels}} {{.Config.Cmd}}", "evil"],
        ["start", "-a", "evil"],
    ):
        seen = on_a_terminal(rootless, *command)
        assert harmless(seen), f"{command}: {seen!r}"


def test_a_programs_own_output_is_left_alone(box: Box) -> None:  # R15
    text = b"\x1b[31mred\x07\x9b\n"
    command = ["run", "--rm", box.image, "printf", "\\033[31mred\\007\\233\\n"]
    assert box.rootless.run_bytes(*command).stdout == text
