"""What a Dockerfile says, as records: stages, and an instruction each with its flags and words.

Words are as written, quotes and `$NAME`s included, since what they mean depends on the instructions before them:
expand.py gives them their values. Flags are typed where their value cannot be a variable. Every record says where it
stands (`lines`) and what was written there (`source`, continuation lines joined, comments dropped, heredocs included).
"""

from typing import NamedTuple, TypeAlias

from rootless.errors import InvalidInput


class DockerfileError(InvalidInput):
    """A Dockerfile that is wrong: "Dockerfile:LINE: what is wrong". What it quotes cannot steer a terminal."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(_printable(message), hint=_printable(hint))


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Lines(NamedTuple):
    """The lines of an instruction, from 1, its heredocs included."""

    first: int
    last: int


class Pair(NamedTuple):
    """One `key=value` of ENV, LABEL or ARG; both are words to be expanded."""

    key: str
    value: str


class Heredoc(NamedTuple):
    """A file whose content stands in the Dockerfile."""

    name: str
    content: str  # of the file; without leading tabs, if it is `<<-`
    expand: bool  # whether variables in the content are to be expanded: its name was written without quotes
    chomp: bool  # `<<-`
    raw: str  # the content as written, its terminator excluded
    descriptor: int = 0  # of `3<<EOF`: the shell's affair


class Command(NamedTuple):
    """The program of RUN, CMD, ENTRYPOINT, HEALTHCHECK."""

    words: tuple[str, ...]  # shell form: one, the text for the shell; exec form: the arguments, which are final
    is_shell: bool  # the words come after those of SHELL


class MountFlag(NamedTuple):
    """A `--mount` of RUN: mounts.parse_mount() makes a Mount of *text* once the variables are known."""

    text: str
    source_stage: str  # of from=, which cannot have variables: a stage, a number, a context or an image; "" is none


class From(NamedTuple):
    """FROM [--platform=…] image [AS name]."""

    image: str  # a word: an image, an earlier stage, `scratch`, or a named context
    name: str  # lower case; "" is none
    platform: str  # a word; "" is none
    lines: Lines
    source: str


class Run(NamedTuple):
    """RUN, in any of its forms."""

    command: Command
    heredocs: tuple[Heredoc, ...]
    sole_heredoc: bool  # the one heredoc is all of the command
    mounts: tuple[MountFlag, ...]
    network: str  # default, none, host
    security: str  # sandbox, insecure
    lines: Lines
    source: str

    @property
    def script(self) -> Heredoc | None:
        """The heredoc that is all of the command and names its own interpreter: a file to be executed."""
        return self.heredocs[0] if self.sole_heredoc and self.heredocs[0].content.startswith("#!") else None

    @property
    def shell_text(self) -> str:
        """What to give to the shell, if the command is of the shell form: heredocs are the shell's, but a sole one."""
        if self.sole_heredoc:
            return self.heredocs[0].content
        return "\n".join([self.command.words[0], *(doc.raw + doc.name for doc in self.heredocs)])


class Copy(NamedTuple):
    """COPY. Sources, destination, owner and mode are words; the stage and the patterns to exclude are final."""

    sources: tuple[str, ...]
    heredocs: tuple[Heredoc, ...]  # sources, too: they come after the others
    destination: str
    stage: str  # --from: a stage, a number, a context or an image; "" is none
    owner: str  # --chown; "" is none
    mode: str  # --chmod, octal or symbolic; "" is none
    link: bool
    parents: bool
    exclude: tuple[str, ...]
    lines: Lines
    source: str


class Add(NamedTuple):
    """ADD. Sources, destination, owner, mode and checksum are words; the patterns to exclude are final."""

    sources: tuple[str, ...]  # paths, http(s) addresses, git repositories
    heredocs: tuple[Heredoc, ...]
    destination: str
    owner: str  # --chown; "" is none
    mode: str  # --chmod; "" is none
    link: bool
    checksum: str  # "sha256:…"; "" is none
    keep_git_dir: bool
    unpack: bool | None  # None: local archives are unpacked, downloaded ones are not
    exclude: tuple[str, ...]
    lines: Lines
    source: str


class Cmd(NamedTuple):
    """CMD."""

    command: Command
    lines: Lines
    source: str


class Entrypoint(NamedTuple):
    """ENTRYPOINT; without words, it removes what the base image has."""

    command: Command
    lines: Lines
    source: str


class Env(NamedTuple):
    """ENV. All its values are expanded with what was known before it."""

    pairs: tuple[Pair, ...]
    lines: Lines
    source: str


class ArgName(NamedTuple):
    """One of the variables that an ARG declares."""

    name: str
    default: str | None  # a word


class Arg(NamedTuple):
    """ARG, with one name or several. Each default may use the names before it."""

    names: tuple[ArgName, ...]
    lines: Lines
    source: str


class Label(NamedTuple):
    """LABEL."""

    pairs: tuple[Pair, ...]
    lines: Lines
    source: str


class Expose(NamedTuple):
    """EXPOSE: words, which expand.expand_words() splits and ports.parse_ports() reads."""

    ports: tuple[str, ...]
    lines: Lines
    source: str


class Volume(NamedTuple):
    """VOLUME."""

    paths: tuple[str, ...]
    lines: Lines
    source: str


class User(NamedTuple):
    """USER."""

    user: str
    lines: Lines
    source: str


class Workdir(NamedTuple):
    """WORKDIR."""

    path: str
    lines: Lines
    source: str


class StopSignal(NamedTuple):
    """STOPSIGNAL."""

    signal: str
    lines: Lines
    source: str


class Healthcheck(NamedTuple):
    """HEALTHCHECK: durations in nanoseconds, 0 is the default; without a command it is HEALTHCHECK NONE."""

    command: Command | None
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int
    lines: Lines
    source: str


class Shell(NamedTuple):
    """SHELL."""

    words: tuple[str, ...]
    lines: Lines
    source: str


class Onbuild(NamedTuple):
    """ONBUILD: *expression* goes into the image, and is parsed again by parse.parse_trigger() where it is a base."""

    expression: str
    lines: Lines
    source: str


class Maintainer(NamedTuple):
    """MAINTAINER: the author of the image."""

    author: str
    lines: Lines
    source: str


Instruction: TypeAlias = (
    Run
    | Copy
    | Add
    | Cmd
    | Entrypoint
    | Env
    | Arg
    | Label
    | Expose
    | Volume
    | User
    | Workdir
    | StopSignal
    | Healthcheck
    | Shell
    | Onbuild
    | Maintainer
)


class Stage(NamedTuple):
    """FROM, and what follows it."""

    name: str  # lower case; "" is none
    base: From
    instructions: tuple[Instruction, ...]
    location: Lines


class Directives(NamedTuple):
    """The parser directives at the top."""

    syntax: str = ""  # an image with a frontend: recorded, never run
    escape: str = "\\"
    check: str = ""

    @property
    def is_foreign(self) -> bool:
        """Whether `syntax` asks for a language other than Dockerfile's, which nobody here speaks."""
        image = self.syntax.split(" ")[0].partition("@")[0].removeprefix("docker.io/")
        return bool(image) and image.partition(":")[0] not in ("docker/dockerfile", "docker/dockerfile-upstream")


class Dockerfile(NamedTuple):
    """A Dockerfile that was read."""

    name: str  # what errors call it
    directives: Directives
    global_args: tuple[Arg, ...]  # those before the first FROM
    stages: tuple[Stage, ...]
    findings: tuple["Finding", ...]  # what lint.check() has to know of the text itself


class Finding(NamedTuple):
    """A detail of how something is written that only the parser sees, by the name of the check that minds it."""

    rule: str
    line: int
    detail: str
