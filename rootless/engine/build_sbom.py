"""--sbom: an image that scans others says what is in the result. The protocol is BuildKit's (docs/attestations/sbom).

    /run/src/core/sbom      the files of the result, read-only       BUILDKIT_SCAN_SOURCE
    /run/out                where it writes statements, as JSON      BUILDKIT_SCAN_DESTINATION

It is a step like RUN, in a container without a network, above the scanner's layers; found in the cache where neither
the scanner nor the result has changed. What it writes is a stranger's: it is JSON of bounded size, or an error.
"""

from rootless.engine.build_attest import Statement
from rootless.engine.build_base import Base
from rootless.engine.build_digest import key_of
from rootless.engine.build_mounts import Mount
from rootless.engine.build_operations import Command, Operations
from rootless.engine.build_progress import Doing
from rootless.engine.build_state import Stage
from rootless.engine.build_steps import Place
from rootless.engine.build_tree import find, read_file
from rootless.errors import CorruptData, InvalidInput
from rootless.spec.strict_json import parse_json

_SOURCE, _OUT = "/run/src/core/sbom", "/run/out"
_MAX_STATEMENT = 64 << 20  # bytes
_MAX_STATEMENTS = 16


def scan(operations: Operations, scanner: Base, result: Stage, doing: Doing, *, may_find: bool) -> list[Statement]:
    """What the scanner says of the files of *result*. Raises StepFailed, CorruptData."""
    if not result.layers:
        return []
    stage = Stage(scanner.image, scanner.config.document, scanner.config.platform)
    _make_out(operations, stage, doing, may_find=may_find)
    config = scanner.config.config
    words = (*(config.entrypoint or ()), *(config.cmd or ()))
    if not words:
        raise InvalidInput("the image that is to scan has no command", hint="--sbom=generator=IMAGE names another")
    environment = {**stage.environment, "BUILDKIT_SCAN_SOURCE": _SOURCE, "BUILDKIT_SCAN_DESTINATION": _OUT}
    mounts = (Mount("bind", _SOURCE, from_="result"),)
    command = Command(words, environment, {}, mounts, "none")
    place = Place(key_of("sbom", scanner.image.id), may_find)
    with operations.source("the result", result) as source:
        operations.run(stage, place, command, {"result": source}, doing, "sbom")
    return _statements(operations, stage)


def _make_out(operations: Operations, stage: Stage, doing: Doing, *, may_find: bool) -> None:
    """Have the directory for statements in the scanner's files."""
    before = stage.config.get("WorkingDir")
    stage.set("WorkingDir", _OUT)
    operations.working_directory(stage, Place(key_of("sbom out"), may_find), doing, "sbom")
    stage.set("WorkingDir", before)


def _statements(operations: Operations, stage: Stage) -> list[Statement]:
    with operations.tree(stage) as tree:
        with find(tree, _OUT) as found:
            names = [entry.name for entry in found.here.entries() if entry.is_regular] if found.is_directory else []
        if not names or len(names) > _MAX_STATEMENTS:
            raise CorruptData(
                f"the scanner has written {len(names)} statements", hint=f"1 to {_MAX_STATEMENTS} are read"
            )
        return [_parse(read_file(tree, f"{_OUT}/{name}", _MAX_STATEMENT) or b"", name) for name in names]


def _parse(data: bytes, name: str) -> Statement:
    document = parse_json(data, limit=_MAX_STATEMENT, what=f"{name} of the scanner")
    kind, predicate = document.get("predicateType"), document.get("predicate")
    if not isinstance(kind, str) or not isinstance(predicate, dict):
        raise CorruptData(f"{name} of the scanner is no statement of in-toto's")
    return kind, predicate
