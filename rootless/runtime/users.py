"""Who `--user` names, by the container's own /etc/passwd and /etc/group: pure functions over the files' bytes.

The files are hostile. Numbers are always numbers, even where a user of that name exists (CVE-2016-3697); what overflows
is an error, never 0 (CVE-2024-40635); malformed lines are passed over, as the C library does.
"""

from rootless.errors import InvalidInput

MAX_ID = 2**31 - 1  # what Docker accepts; above it, programs that keep ids in an int would see negative ones


class User:
    """The credentials of a process: numbers only."""

    __slots__ = ("gid", "groups", "home", "name", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str, name: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home
        self.name = name


def resolve(text: str, passwd: bytes, group: bytes, extra: list[str] | tuple[str, ...] = ()) -> User:
    """The user that *text* ("", "USER", "USER:GROUP", each a name or a number) and *extra* groups mean.

    Without a group the user's primary one counts, and the groups that list the user are supplementary, as Docker does.
    Raises InvalidInput naming the user or group that cannot be found.
    """
    user_text, colon, group_text = text.partition(":")
    uid, gid, home, name = _find_user(user_text or "0", passwd)
    members = _rows(group, 4)
    groups: list[int] = []
    if colon and group_text:
        gid = _find_group(group_text, members)
    elif name:
        groups = [g for row in members if name in row[3].split(",") and (g := _number(row[2])) is not None]
    groups += [_find_group(g, members) for g in extra]
    return User(uid, gid, sorted({*groups, gid}), home, name)


def _find_user(text: str, passwd: bytes) -> tuple[int, int, str, str]:
    """(uid, primary gid, home, name); an unknown number is a user with group 0, home "/" and no name."""
    wanted = _parse_number(text, "user")
    for row in _rows(passwd, 7):
        uid, gid = _number(row[2]), _number(row[3])
        if uid is None or gid is None:
            continue
        if uid == wanted or (wanted is None and row[0] == text):
            return uid, gid, row[5] or "/", row[0]
    if wanted is None:
        raise InvalidInput(f"unable to find user {text}: no matching entries in passwd file")
    return wanted, 0, "/root" if wanted == 0 else "/", ""


def _find_group(text: str, members: list[list[str]]) -> int:
    wanted = _parse_number(text, "group")
    if wanted is not None:
        return wanted
    for row in members:
        gid = _number(row[2])
        if row[0] == text and gid is not None:
            return gid
    raise InvalidInput(f"unable to find group {text}: no matching entries in group file")


def _parse_number(text: str, what: str) -> int | None:
    """The number that *text* is, or None for a name. Raises InvalidInput for a number that is no valid id."""
    if text.isascii() and text.lstrip("+-").isdigit():
        number = int(text) if len(text) < 20 else MAX_ID + 1
        if not text.isdigit() or number > MAX_ID:
            raise InvalidInput(f"{what} id {text} is out of range: ids go from 0 to {MAX_ID}")
        return number
    return None


def _number(text: str) -> int | None:
    """An id in a file: decimal and in range, or None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= MAX_ID else None


def _rows(content: bytes, fields: int) -> list[list[str]]:
    rows = []
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        row = line.strip().split(":")
        if len(row) >= fields and not line.startswith("#"):
            rows.append(row)
    return rows
