import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rootless
from fuse.command import Command, parse_command
from fuse.errors import UsageError
from fuse.options import FOR_EVER, MS_NODEV, MS_NOSUID, MS_RDONLY, IdRange, MountOptions, parse_options
from tests.support.fuse import escape

UNION = "lowerdir=a:b,upperdir=u,workdir=w"
NAMES = st.binary(min_size=1).filter(lambda name: 0 not in name)


def test_layers_are_read_in_their_order() -> None:
    assert parse_options([UNION]) == MountOptions((b"a", b"b"), b"u", b"w")


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("uidmapping=0:1000:1:1:110000:65536", {"uid_map": (IdRange(0, 1000, 1), IdRange(1, 110000, 65536))}),
        (r"gidmapping=0:1000:1\,1:110000:65536", {"gid_map": (IdRange(0, 1000, 1), IdRange(1, 110000, 65536))}),
        ("squash_to_uid=7,squash_to_gid=8", {"squash_uid": 7, "squash_gid": 8}),
        ("squash_to_root", {"squash_uid": 0, "squash_gid": 0}),
        ("squash_to_gid=8,squash_to_root", {"squash_uid": 0, "squash_gid": 8}),
        ("static_nlink,noacl,volatile", {"static_nlink": True, "noacl": True, "volatile": True}),
        ("fsync=0", {"fsync": False}),
        ("userxattr", {"userxattr": True}),
        ("marks=all", {}),
        ("marks=overlay", {"mark_files": False}),
        ("xino=off", {"xino": False}),
        ("xino=auto", {}),
        ("timeout=0", {"timeout": 0.0}),
        ("timeout=1.5", {"timeout": 1.5}),
        ("timeout=inf", {"timeout": FOR_EVER}),
        ("writeback=0", {"writeback": False}),
        ("writeback=0,writeback=1", {}),
        ("debug,allow_other", {"debug": True, "allow_other": True}),
        ("ro", {"flags": MS_RDONLY, "read_only": True}),
        ("ro,rw", {}),
        ("nosuid,nodev,dev", {"flags": MS_NOSUID}),
        ("nosuid,nodev", {"flags": MS_NOSUID | MS_NODEV}),
        (r"fsname=a\,b,subtype=c", {"fsname": b"a,b", "subtype": b"c"}),
        (r"context=system_u:object_r:t:s0:c1\,c2", {"labels": (b'context="system_u:object_r:t:s0:c1,c2"',)}),
        (
            "defaults,max_threads=4,x-systemd.automount",
            {"ignored": (b"defaults", b"max_threads=4", b"x-systemd.automount")},
        ),
        ("index=off,metacopy=off,nfs_export=off,redirect_dir=off", {}),
        ("redirect_dir=nofollow", {}),
        (",,", {}),
    ],
)
def test_an_option_changes_what_it_names_and_nothing_else(text: str, changed: dict[str, Any]) -> None:
    plain = parse_options([UNION])
    assert parse_options([UNION, text]) == plain._replace(**changed)
    assert parse_options([f"{text},{UNION}"]) == plain._replace(**changed)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no lowerdir"),
        ("lowerdir", "option lowerdir needs a value; as in lowerdir=A:B:C"),
        ("lowerdir=", "option lowerdir needs a value"),
        ("lowerdir=a::b", "an empty name in lowerdir=a::b"),
        ("lowerdir=a:", "an empty name"),
        ("lowerdir=a,upperdir=u", "upperdir without workdir"),
        (f"{UNION},statik_nlink", "did you mean static_nlink?"),
        (f"{UNION},frobnicate=1", "unknown mount option frobnicate; --help lists them"),
        (f"{UNION},static_nlink=1", "static_nlink takes no value"),
        (f"{UNION},ro=1", "ro takes no value"),
        (f"{UNION},uidmapping=0:1", "uidmapping=0:1 is not DISK:SHOWN:COUNT"),
        (f"{UNION},uidmapping=0:-1:1", "is not DISK:SHOWN:COUNT"),
        (f"{UNION},uidmapping=0:1:0", "empty range"),
        (f"{UNION},uidmapping=0:4294967294:2", "ids beyond"),
        (f"{UNION},gidmapping=0:5:3:2:9:1", "overlap"),
        (f"{UNION},gidmapping=0:5:3:3:7:1", "overlap"),
        (f"{UNION},squash_to_uid=root", "squash_to_uid is a number from 0 to 4294967294, not root"),
        (f"{UNION},squash_to_gid=4294967295", "is a number from 0"),
        (f"{UNION},timeout=-1", "timeout is a number of seconds, not -1"),
        (f"{UNION},timeout=nan", "not nan"),
        (f"{UNION},writeback=yes", "writeback is one of 0, 1, off, on, not yes"),
        (f"{UNION},writeback=auto", "not auto"),
        (f"{UNION},redirect_dir=follow", "redirect_dir=follow is not possible here"),
        (f"{UNION},redirect_dir=on", "redirect_dir=on is not possible here; leave it out, or say off"),
        (f"{UNION},metacopy=on", "metacopy=on is not possible here; leave it out, or say off"),
    ],
)
def test_what_cannot_be_right_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_options([text])
    assert says in f"{refused.value}; {refused.value.hint}"
    assert "\n" not in f"{refused.value}{refused.value.hint}"


def test_without_an_upper_directory_it_is_read_only_and_a_work_directory_means_nothing() -> None:
    options = parse_options(["lowerdir=a,workdir=w,rw"])
    assert (options.read_only, options.flags, options.work, options.ignored) == (True, MS_RDONLY, None, (b"workdir",))


def test_lowers_can_be_added_one_by_one() -> None:
    assert parse_options(["lowerdir=a:b", "lowerdir+=c:d", r"lowerdir+=e\,f"]).lower == (b"a", b"b", b"c:d", b"e,f")


def test_a_later_list_of_lowers_takes_the_place_of_the_first() -> None:
    assert parse_options(["lowerdir=a:b", "lowerdir=c"]).lower == (b"c",)


def test_a_thousand_lowers_are_no_trouble() -> None:
    names = [b"/layers/%d" % number for number in range(1000)]
    assert parse_options([os.fsdecode(b"lowerdir=" + b":".join(names))]).lower == tuple(names)


@given(lower=st.lists(NAMES, min_size=1), upper=NAMES, work=NAMES, apart=st.booleans())
def test_any_name_survives_escaping(lower: list[bytes], upper: bytes, work: bytes, apart: bool) -> None:
    given = [
        b"lowerdir=" + b":".join(map(escape, lower)),
        b"upperdir=" + escape(upper),
        b"workdir=" + escape(work),
    ]
    options = parse_options([os.fsdecode(part) for part in (given if apart else [b",".join(given)])])
    assert (options.lower, options.upper, options.work) == (tuple(lower), upper, work)


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
def test_any_text_is_understood_or_refused(texts: list[str]) -> None:
    try:
        parse_options(texts)
    except UsageError:
        pass


@given(st.text(alphabet="lowerdi=+:,\\ax0", max_size=40))
def test_nearly_right_text_is_understood_or_refused(text: str) -> None:
    try:
        parse_options([text, "lowerdir+=" + text])
    except UsageError:
        pass


@pytest.mark.parametrize(
    "words",
    [
        ["-f", "-o", UNION, "m", "--ready-fd", "3", "--exit-fd=4"],
        ["m", f"-o{UNION}", "--exit-fd", "4", "--ready-fd=3", "--foreground"],
        ["-s", "-f", "-o", "lowerdir=a:b", "-o", "upperdir=u,workdir=w", "--ready-fd=3", "--exit-fd=4", "--", "m"],
    ],
)
def test_the_command_line_may_be_in_any_order(words: list[str]) -> None:
    assert parse_command(words) == (b"m", parse_options([UNION]), True, 3, 4, -1)


def test_debugging_stays_in_the_foreground() -> None:
    command = parse_command(["-d", "-o", UNION, "m"])
    assert isinstance(command, Command)
    assert (command.foreground, command.options.debug) == (True, True)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["m", "-o", "nonsense", "--help"]])
def test_help_is_asked_for(words: list[str]) -> None:
    assert str(parse_command(words)).startswith("Usage: ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "one mount point is needed, not 0"),
        (["-o", UNION], "one mount point is needed, not 0"),
        (["-o", UNION, "m", "n"], "one mount point is needed, not 2"),
        (["-o", UNION, ""], "the mount point is empty"),
        (["m", "-o"], "-o needs a value"),
        (["m", "--lowerdir=a"], "unknown option --lowerdir=a"),
        (["m", "-o", UNION, "--ready-fd"], "--ready-fd is the number of a descriptor, not ''"),
        (["m", "-o", UNION, "--exit-fd=x"], "--exit-fd is the number of a descriptor, not 'x'"),
    ],
)
def test_a_command_line_that_cannot_be_right_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_command(words)


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_its_version_is_that_of_what_it_comes_with(word: str) -> None:
    assert parse_command(["-f", word]) == f"fuse {rootless.__version__}\n"
