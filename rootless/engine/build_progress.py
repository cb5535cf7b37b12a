"""What a build tells while it goes on, and how it is told that it is to stop."""

from typing import NamedTuple, Protocol

from rootless.errors import RootlessError

INTERNAL = "[internal]"  # how the names of what comes before the stages begin; until then a build has no threads


def is_internal(name: str) -> bool:
    """Whether it is done before the stages: "[internal] …", "[linux/arm64 internal] …"."""
    return name.partition("] ")[0].endswith("internal")


class Vertex(NamedTuple):
    """One thing that a build does."""

    number: int  # in the order of beginning, from 1
    name: str  # "[build 2/5] RUN make", "[internal] load build definition from Dockerfile"


class Progress(Protocol):
    """Who shows it. Called from any thread."""

    def begin(self, vertex: Vertex) -> None:
        """It begins."""

    def output(self, vertex: Vertex, stream: str, data: bytes) -> None:
        """What its program wrote to "stdout" or "stderr"."""

    def note(self, vertex: Vertex, text: str) -> None:
        """A line of our own about it."""

    def done(self, vertex: Vertex, *, cached: bool) -> None:
        """It has ended well; *cached*: it was done before."""

    def failed(self, vertex: Vertex, text: str) -> None:
        """It has failed."""


class Cancelled(RootlessError):
    """Another part of the build has failed, or the user has had enough."""


class StepFailed(RootlessError):
    """A step that did not succeed, with what a person needs to see of it."""

    exit_status = 1

    def __init__(self, message: str, *, report: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.report = report  # the last of its output
        self.where = ""  # the lines of the Dockerfile


class Teller:
    """Numbers what a build does, and tells it to a Progress. For any thread."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._count = 0

    def begin(self, name: str) -> "Doing":
        """Something begins."""
        self._count += 1
        vertex = Vertex(self._count, name)
        self._progress.begin(vertex)
        return Doing(vertex, self._progress)


class Doing:
    """Something that is being done."""

    def __init__(self, vertex: Vertex, progress: Progress) -> None:
        self.vertex = vertex
        self._progress = progress

    def output(self, stream: str, data: bytes) -> None:
        self._progress.output(self.vertex, stream, data)

    def note(self, text: str) -> None:
        self._progress.note(self.vertex, text)

    def done(self, *, cached: bool = False) -> None:
        self._progress.done(self.vertex, cached=cached)

    def failed(self, text: str) -> None:
        self._progress.failed(self.vertex, text)
