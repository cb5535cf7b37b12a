"""Who --user names, by hostile passwd and group files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import InvalidInput
from rootless.runtime.users import MAX_ID, User, resolve

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
bin:x:1:1:bin:/bin:/sbin/nologin
# user:x:7:7::/:/bin/sh
user:x:1000:1001:A User:/home/user:/bin/sh
homeless:x:1002:1002:::
1000000:x:0:0:a name that is a number:/evil:/bin/sh
huge:x:4294967296:0::/:/bin/sh
negative:x:-1:-1::/:/bin/sh
short:x:5
"""
GROUP = b"""root:x:0:
wheel:x:10:root,user
audio:x:29:user
user:x:1001:
many:x:40:bin,user,nobody
2000:x:0:
huge:x:99999999999:user
"""


def ids(user: User) -> tuple[int, int, list[int]]:
    return user.uid, user.gid, user.groups


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, [0, 10])),
        ("root", (0, 0, [0, 10])),
        ("0", (0, 0, [0, 10])),
        ("user", (1000, 1001, [10, 29, 40, 1001])),
        ("1000", (1000, 1001, [10, 29, 40, 1001])),
        ("user:wheel", (1000, 10, [10])),
        ("user:", (1000, 1001, [10, 29, 40, 1001])),
        ("1000:0", (1000, 0, [0])),
        (":29", (0, 29, [29])),
        ("4321", (4321, 0, [0])),
        ("4321:8765", (4321, 8765, [8765])),
        (str(MAX_ID), (MAX_ID, 0, [0])),
    ],
)
def test_user_is_found_by_name_and_number(text: str, expected: tuple[int, int, list[int]]) -> None:
    assert ids(resolve(text, PASSWD, GROUP)) == expected


@pytest.mark.parametrize(
    ("text", "home"),
    [("root", "/root"), ("user", "/home/user"), ("homeless", "/"), ("4321", "/"), ("0", "/root")],
)
def test_home_is_of_the_passwd_file(text: str, home: str) -> None:
    assert resolve(text, PASSWD, GROUP).home == home


def test_root_without_a_passwd_file_has_its_usual_home() -> None:
    user = resolve("", b"", b"")
    assert (ids(user), user.home, user.name) == ((0, 0, [0]), "/root", "")


def test_a_number_is_never_a_name() -> None:
    assert ids(resolve("1000000", PASSWD, GROUP)) == (1000000, 0, [0])  # CVE-2016-3697
    assert resolve("user:2000", PASSWD, GROUP).gid == 2000


@pytest.mark.parametrize("text", ["2147483648", "4294967296", "99999999999999999999999", "-1", "+5", "0:4294967296"])
def test_an_id_out_of_range_is_an_error_and_never_zero(text: str) -> None:
    with pytest.raises(InvalidInput, match="out of range"):  # CVE-2024-40635
        resolve(text, PASSWD, GROUP)


@pytest.mark.parametrize("name", ["huge", "negative", "short", "# user", "nobody", "x:y"])
def test_a_line_that_is_no_user_is_passed_over(name: str) -> None:
    with pytest.raises(InvalidInput, match="no matching entries"):
        resolve(name, PASSWD, GROUP)


def test_a_group_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="unable to find group ghosts"):
        resolve("user:ghosts", PASSWD, GROUP)
    with pytest.raises(InvalidInput, match="unable to find group ghosts"):
        resolve("user", PASSWD, GROUP, ["ghosts"])


def test_extra_groups_come_on_top_by_name_and_number() -> None:
    assert resolve("user:user", PASSWD, GROUP, ["audio", "77"]).groups == [29, 77, 1001]


def test_the_first_of_two_lines_counts() -> None:
    twice = b"a:x:5:5::/first:\na:x:6:6::/second:\n"
    assert resolve("a", twice, b"").uid == 5


def test_bytes_that_are_no_utf8_do_no_harm() -> None:
    user = resolve("user", b"\xff\xfe:x:3:3::/:\n" + PASSWD, b"\xff:x:9:user\n" + GROUP)
    assert ids(user) == (1000, 1001, [9, 10, 29, 40, 1001])


@given(st.text(), st.binary(), st.binary())
def test_whatever_the_files_say_the_answer_is_ids_in_range_or_an_error(text: str, passwd: bytes, group: bytes) -> None:
    try:
        user = resolve(text, passwd, group)
    except InvalidInput:
        return
    assert all(0 <= number <= MAX_ID for number in (user.uid, user.gid, *user.groups))
    assert user.gid in user.groups


@given(st.integers(min_value=0, max_value=MAX_ID), st.integers(min_value=0, max_value=MAX_ID))
def test_numbers_mean_themselves(uid: int, gid: int) -> None:
    assert ids(resolve(f"{uid}:{gid}", PASSWD, GROUP)) == (uid, gid, [gid])
