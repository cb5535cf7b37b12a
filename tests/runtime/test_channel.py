"""Messages between our processes: what arrives is what was sent, descriptors and failures included."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless import errors
from rootless.errors import CommandNotFound, InvalidInput, RootlessError
from rootless.runtime import channel
from rootless.runtime.channel import Socket


@pytest.fixture
def pair() -> Iterator[tuple[Socket, Socket]]:
    ours, theirs = channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def raised_over(pair: tuple[Socket, Socket], error: BaseException) -> RootlessError:
    """What the other side raises for *error* of this one."""
    channel.send_error(pair[0], error)
    kind, text, _ = channel.receive(pair[1])
    assert kind == channel.ERROR
    with pytest.raises(RootlessError) as caught:
        channel.raise_error(text)
    return caught.value


def test_messages_stay_apart(pair: tuple[Socket, Socket]) -> None:
    channel.send(pair[0], channel.STDOUT, b"one")
    channel.send(pair[0], channel.STDOUT, b"")
    channel.send(pair[0], channel.GO)
    assert [channel.receive(pair[1])[:2] for _ in range(3)] == [(b"1", b"one"), (b"1", b""), (b"G", b"")]


def test_the_end_is_an_empty_kind(pair: tuple[Socket, Socket]) -> None:
    channel.send(pair[0], channel.READY)
    pair[0].close()
    assert channel.receive(pair[1])[0] == channel.READY
    assert channel.receive(pair[1]) == (b"", b"", [])


def test_descriptors_ride_along_and_are_closed_on_exec(pair: tuple[Socket, Socket]) -> None:
    pipes = [os.pipe() for _ in range(2)]
    channel.send(pair[0], channel.LAUNCH, "four", tuple(fd for pipe in pipes for fd in pipe))
    _, text, fds = channel.receive(pair[1])
    assert text == b"four"
    assert [os.get_inheritable(fd) for fd in fds] == [False] * 4
    os.write(fds[3], b"through")
    assert os.read(pipes[1][0], 10) == b"through"
    for fd in (*fds, *pipes[0], *pipes[1]):
        os.close(fd)


def test_a_chunk_of_output_fits_and_more_is_refused(pair: tuple[Socket, Socket]) -> None:
    largest = bytes(channel.MAX_MESSAGE - 1)
    channel.send(pair[0], channel.STDOUT, largest)
    assert channel.receive(pair[1])[1] == largest
    with pytest.raises(ValueError, match="65537 bytes"):
        channel.send(pair[0], channel.STDOUT, largest + b"x")


def test_a_text_may_hold_bytes_that_are_no_utf8(pair: tuple[Socket, Socket]) -> None:
    channel.send(pair[0], channel.LAUNCH, os.fsdecode(b"/tmp/\xff"))
    assert channel.receive(pair[1])[1] == b"/tmp/\xff"


def test_sending_to_nobody_is_an_error_and_no_signal(pair: tuple[Socket, Socket]) -> None:
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        channel.send(pair[0], channel.GO)


def test_an_error_keeps_class_message_hint_and_status(pair: tuple[Socket, Socket]) -> None:
    error = raised_over(pair, CommandNotFound("exec: 'x': not found", hint="try y"))
    assert (type(error), str(error), error.hint, error.exit_status) == (
        CommandNotFound,
        "exec: 'x': not found",
        "try y",
        127,
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
        (KeyError("missing"), "'missing'"),
        (InvalidInput("two\nlines"), "two\nlines"),
    ],
)
def test_any_error_arrives_as_one_of_ours(pair: tuple[Socket, Socket], error: Exception, message: str) -> None:
    assert str(raised_over(pair, error)) == message


def test_a_very_long_error_is_cut_and_arrives(pair: tuple[Socket, Socket]) -> None:
    assert len(str(raised_over(pair, InvalidInput("x" * 100_000)))) == 4000


def test_only_our_own_classes_are_raised() -> None:
    assert not hasattr(errors, "SystemExit")
    with pytest.raises(RootlessError, match="message"):
        channel.raise_error(b"SystemExit\0message\0")


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_hint_may_be_any_text(hint: str) -> None:
    ours, theirs = channel.pair()
    try:
        channel.send_error(ours, InvalidInput("m", hint=hint))
        with pytest.raises(InvalidInput) as caught:
            channel.raise_error(channel.receive(theirs)[1])
        assert caught.value.hint == hint
    finally:
        ours.close()
        theirs.close()
