"""From the command line's words to an exit status and what is printed."""

import gc
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rootless.cli import COMMANDS, COMMON, MANAGEMENT, SUMMARIES, main, streams
from rootless.cli.command import Command, Options, at_least, command, flag, text
from rootless.errors import InvalidInput, NotFound
from rootless.runtime import prepared

TREE = Path(__file__).parents[2]


class SampleOptions(Options):
    fail: str = text("--fail", help="How to fail")
    quiet: bool = flag("-q", "--quiet", help="Print nothing")


@command("sample", "THING", SampleOptions, at_least(1), interspersed=False, failure=125)
def sample(options: SampleOptions) -> int | None:
    """A sample"""
    if options.fail == "found":
        raise NotFound("No such \x1b[31mthing\nrootless: all is well", hint="look elsewhere")
    if options.fail == "status":
        error = InvalidInput("so there")
        error.exit_status = 7
        raise error
    if options.fail == "space":
        raise OSError(28, "No space left on device", "/somewhere")
    if options.fail == "bug":
        raise OSError(9, "Bad file descriptor")
    if options.fail == "interrupt":
        raise KeyboardInterrupt
    if options.fail == "closed":
        raise streams.OutputClosed
    if not options.quiet:
        streams.write(f"{options.settings.root} {options.arguments}\n")
    return 3


@pytest.fixture(autouse=True)
def _sample_command(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("rootless.cli.sample")
    vars(module)["sample"] = sample
    monkeypatch.setitem(sys.modules, "rootless.cli.sample", module)
    monkeypatch.setitem(COMMANDS, "sample", "sample:sample")
    monkeypatch.setitem(MANAGEMENT, "samples", {"ls": "sample:sample", "list": "sample:sample"})
    monkeypatch.setitem(SUMMARIES, "sample:sample", "A sample")
    monkeypatch.setitem(SUMMARIES, "samples", "Manage samples")


@pytest.mark.parametrize(
    ("line", "status", "out", "err"),
    [
        ("sample x -q", 3, " ['x', '-q']\n", ""),
        ("--root /r sample -q x", 3, "", ""),
        ("--root /r -D sample x", 3, "/r ['x']\n", ""),
        ("samples ls x", 3, " ['x']\n", ""),
        ("samples list x", 3, " ['x']\n", ""),
        ("--version", 0, "rootless version 0.1.0\n", ""),
        ("-v", 0, "rootless version 0.1.0\n", ""),
        ("--version sample x", 3, " ['x']\n", ""),
        ("-c default sample x", 3, " ['x']\n", ""),
        ("sample --fail status x", 7, "", "rootless: so there\n"),
        ("sample --fail space x", 125, "", "rootless: /somewhere: No space left on device\n"),
        ("sample --fail interrupt x", 130, "", ""),
        ("sample --fail closed x", 141, "", ""),
        ("-l loud sample x", 1, "", "rootless: unable to parse logging level: loud\n"),
    ],
)
def test_status_and_output(line: str, status: int, out: str, err: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.execute(line.split()) == status
    assert capsys.readouterr() == (out, err)


@pytest.mark.parametrize(
    ("line", "status", "message", "usage", "path"),
    [
        (
            "sample",
            1,
            "rootless: 'rootless sample' requires at least 1 argument",
            "sample [OPTIONS] THING",
            "sample",
        ),
        ("sample --foo", 125, "unknown flag: --foo", "sample [OPTIONS] THING", "sample"),
        ("--foo", 125, "unknown flag: --foo", "[OPTIONS] COMMAND", ""),
        ("samples --foo", 125, "unknown flag: --foo", "samples COMMAND", "samples"),
        ("unheard", 1, "rootless: unknown command: rootless unheard", "[OPTIONS] COMMAND", ""),
        ("sampel", 1, "rootless: unknown command: rootless sampel (did you mean 'sample'?)", "[OPTIONS] COMMAND", ""),
        ("help unheard", 1, "rootless: unknown command: rootless unheard", "[OPTIONS] COMMAND", ""),
        ("samples rm", 1, "rootless: unknown command: rootless samples rm", "samples COMMAND", "samples"),
    ],
)
def test_a_wrong_line_is_answered_with_the_usage(
    line: str, status: int, message: str, usage: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.execute(line.split()) == status
    full = f"rootless {path}".rstrip()
    expected = f"{message}\n\nUsage:  rootless {usage}\n\nRun '{full} --help' for more information\n"
    assert capsys.readouterr() == ("", expected)


@pytest.mark.parametrize("line", ["-H tcp://1.2.3.4:2375 sample x", "--context other sample x"])
def test_another_machine_is_refused_with_a_hint(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.execute(line.split()) == 1
    assert "hint: " in capsys.readouterr().err


def test_an_error_and_its_hint_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.execute(["sample", "--fail", "found", "x"]) == 125
    assert capsys.readouterr().err.endswith("hint: look elsewhere\n")


def test_debug_shows_where_an_error_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.execute(["-D", "sample", "--fail", "found", "x"]) == 125
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        main.execute(["sample", "--fail", "bug", "x"])


@pytest.mark.parametrize("line", ["", "help", "--help", "-h", "-D"])
def test_help_names_every_command_and_management_command(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.execute(line.split()) == 0
    words = capsys.readouterr().out.split()
    assert {*COMMANDS, *MANAGEMENT, "--root", "--storage-driver"} <= set(words)


@pytest.mark.parametrize(
    "line", ["help sample", "sample --help", "samples ls --help", "help samples ls", "help sample x"]
)
def test_help_of_a_command_names_its_other_spellings(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.execute(line.split()) == 0
    assert "rootless samples ls, rootless samples list, rootless sample\n" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["samples", "help samples", "samples --help", "samples -h"])
def test_a_management_command_shows_each_verb_once(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.execute(line.split()) == 0
    out = capsys.readouterr().out
    assert "  ls          A sample\n" in out
    assert "list" not in out


@pytest.mark.parametrize(
    ("line", "begun"),
    [
        ("sample -q x", ["exec"]),
        ("-D sample x", ["exec"]),
        ("samples list x", ["exec"]),
        ("samples", []),
        ("sample", []),
        ("sample --help", []),
        ("help sample", []),
        ("--version", []),
    ],
)
def test_a_helper_is_begun_for_a_line_that_may_need_it(
    line: str, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def begin(verb: str) -> str:
        calls.append(verb)
        return "the helper"

    monkeypatch.setitem(main._PREPARED, "sample:sample", "exec")
    monkeypatch.setattr(prepared, "begin", begin)
    monkeypatch.setattr(sample, "function", lambda options: calls.append(options.settings.prepared))
    main.execute(line.split())
    assert calls == ([*begun, "the helper"] if begun else [])


def test_a_helper_is_begun_before_the_commands_module_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def load(target: str) -> Command:
        order.append("load")
        return sample

    monkeypatch.setitem(main._PREPARED, "sample:sample", "exec")
    monkeypatch.setattr(prepared, "begin", lambda verb: order.append("begin"))
    monkeypatch.setattr(main, "load", load)
    main.execute(["sample", "x"])
    assert order == ["begin", "load"]


def test_the_commands_that_helpers_are_begun_for_are_in_the_table() -> None:
    assert {COMMANDS[verb]: verb for verb in ("run", "start", "exec")} == main._PREPARED


def test_garbage_is_collected_while_a_command_works(monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[bool] = []
    monkeypatch.setattr(sample, "function", lambda options: collected.append(gc.isenabled()))
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit):
        main.main(["sample", "x"])
    gc.unfreeze()
    assert collected == [True]


def test_the_table_is_whole() -> None:
    verbs = {target for group in MANAGEMENT.values() for target in group.values()}
    assert {*COMMANDS.values(), *verbs, *MANAGEMENT} == set(SUMMARIES)
    assert set(COMMON) <= set(COMMANDS)


# What follows needs a process of its own.


def python(
    *arguments: str, cwd: Path = TREE, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(TREE), **environment},
        text=True,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def test_help_imports_no_command() -> None:
    code = """
import sys
from rootless.cli.main import execute
execute(["--help"]); execute(["container"]); execute(["nonsense"])
sys.exit(",".join(name for name in sys.modules if name.startswith("rootless.")))
"""
    modules = set(python("-c", code, stdout=subprocess.DEVNULL).stderr.splitlines()[-1].split(","))
    assert modules == {
        "rootless.cli",
        "rootless.cli.command",
        "rootless.cli.help",
        "rootless.cli.main",
        "rootless.cli.streams",
        "rootless.cli.terminal_text",
        "rootless.errors",
    }


def test_modules_in_the_current_directory_are_not_imported(tmp_path: Path) -> None:
    for name in ("click", "json", "errno", "typing_extensions", "gettext", "uuid", "platform", "inspect", "textwrap"):
        (tmp_path / f"{name}.py").write_text("import sys\nsys.exit('hijacked')\n")
    done = python("-m", "rootless", "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "rootless version 0.1.0\n", "")


HELP = 'from rootless.cli.main import main; main(["--help"])'


# More than a stream's buffer, written before the end.
LONG_HELP = f"from rootless.cli import help\nhelp.Root.summary = lambda self, verb: 'x' * 20000\n{HELP}"


@pytest.mark.parametrize("code", [HELP, LONG_HELP])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_went_away_is_no_error(code: str, unbuffered: str) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    done = python("-c", code, stdout=write_fd, PYTHONUNBUFFERED=unbuffered)
    os.close(write_fd)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_the_output_is_one_line(unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        done = python("-c", HELP, stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (1, "rootless: No space left on device\n")


def test_a_closed_standard_output_is_no_error() -> None:
    done = python("-c", f"import sys; sys.stdout = None; {HELP}")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_written_before_an_error_is_not_lost() -> None:
    code = "from rootless.cli import main, streams; streams.write('before\\n'); main.main(['sampel'])"
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (
        1,
        "before\n",
        "rootless: unknown command: rootless sampel",
    )


def test_an_error_is_told_though_what_was_written_before_cannot_be() -> None:
    code = "from rootless.cli import main, streams; streams.write('before\\n'); main.main(['--foo'])"
    with open("/dev/full", "wb") as full:
        done = python("-c", code, stdout=full.fileno(), PYTHONUNBUFFERED="")
    assert (done.returncode, done.stderr.splitlines()[0]) == (125, "unknown flag: --foo")
    assert done.stderr.endswith("Run 'rootless --help' for more information\n")


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("--storage", ["--storage-driver"]),
        ("re", ["rename", "restart"]),
        ("container re", ["rename", "restart"]),  # and remove, which help does not show either
        ("--root /r ps --no", ["--no-trunc"]),
        ("container ls -a --no", ["--no-trunc"]),
        ("ps --foo --no", ["--no-trunc"]),
        ("nonsense --no", []),
    ],
)
def test_the_shell_can_complete_commands_and_options(typed: str, completed: list[str]) -> None:
    code = "import sys; sys.argv = ['rootless']; from rootless.cli.main import main; main()"
    words = f"rootless {typed}"
    done = python(
        "-c", code, _ROOTLESS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
    )
    assert done.stdout.split() == [f"plain,{word}" for word in completed]


def test_an_empty_variable_of_completion_asks_for_nothing() -> None:
    done = python("-m", "rootless", "--version", _ROOTLESS_COMPLETE="")
    assert (done.returncode, done.stdout) == (0, "rootless version 0.1.0\n")
