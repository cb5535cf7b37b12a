"""The bars of compose: whole projects, against podman-compose with podman and the same file."""

import json
import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Result, quiet, timed
from tests.support.account import Installation
from tests.support.podman import Podman

_STAYS = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
_HEALTHY = ["sh", "-c", "touch /tmp/ready; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
_ROUNDS = 3
_MANY = 20


class ComposeBench:
    """Both programs have busybox; podman-compose is one for the interpreter that runs this, or on the PATH."""

    NAMES = ("compose",)

    def __init__(self, ours: Installation, podman: Podman, images: dict[str, str], scratch: Path) -> None:
        self._ours = ours
        self._podman = podman
        self._image = images["busybox"]
        self._directory = scratch / "compose"
        self._directory.mkdir()

    def compose(self) -> Iterator[Result]:
        """Six services in a chain with one health check; up, up with nothing to do, down. Then twenty at once."""
        theirs = shutil.which("podman-compose") or shutil.which("podman-compose", path=str(Path(sys.executable).parent))
        if theirs is None:
            print("podman-compose is not installed: compose is not measured", flush=True)
            return
        times = [self._round(self._chain(), theirs, ("-d", "--wait")) for _ in range(_ROUNDS)]
        yield self._result("compose up -d --wait, 6 in a chain", [pair[0] for pair in times], 0.5)
        yield self._result("compose up -d, nothing to do", [pair[1] for pair in times], 0.3)
        yield self._result("compose down, 6 in a chain", [pair[2] for pair in times], 0.5)
        times = [self._round(self._many(), theirs, ("-d",)) for _ in range(_ROUNDS)]
        yield self._result(f"compose up -d, {_MANY} at once", [pair[0] for pair in times], 0.5)

    @staticmethod
    def _result(name: str, pairs: list[tuple[float, float]], bar: float) -> Result:
        return Result(name, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), bar)

    def _service(self, command: list[str], needs: dict[str, str]) -> dict[str, object]:
        depends_on = {name: {"condition": condition} for name, condition in needs.items()}
        return {"image": self._image, "command": command, "depends_on": depends_on}

    def _chain(self) -> dict[str, dict[str, object]]:
        first = self._service(_HEALTHY, {})
        first["healthcheck"] = {"test": ["CMD", "test", "-f", "/tmp/ready"], "interval": "1s"}
        services = {"s0": first, "s1": self._service(_STAYS, {"s0": "service_healthy"})}
        for number in range(2, 6):
            services[f"s{number}"] = self._service(_STAYS, {f"s{number - 1}": "service_started"})
        return services

    def _many(self) -> dict[str, dict[str, object]]:
        return {f"s{number}": self._service(_STAYS, {}) for number in range(_MANY)}

    def _round(
        self, services: dict[str, dict[str, object]], theirs: str, up: tuple[str, ...]
    ) -> list[tuple[float, float]]:
        """Seconds of up, of up again, and of down: (ours, theirs) each."""
        file = self._directory / "compose.yaml"
        file.write_text(json.dumps({"services": services}))  # which is YAML
        ours = [str(self._ours.program), "compose", "-f", str(file)]
        peer = [theirs, "-f", str(file)]
        verbs = (("up", *up), ("up", "-d"), ("down",))
        return [
            (_seconds([*ours, *verb], self._ours.env), _seconds([*peer, *verb], self._podman.env)) for verb in verbs
        ]


def _seconds(command: list[str], env: dict[str, str]) -> float:
    return timed(lambda: quiet(command, env))
