"""Patterns of `${name#pattern}` and its like: `*` is any text, `?` any character, a backslash takes their meaning away.

Whoever wrote the pattern is not trusted, so it does not become a regular expression, which may take for ever: all
places of the pattern that the text so far can lead to are kept at once, as bits of a number, one step per character.
"""

from rootless.dockerfile.instructions import DockerfileError

_ANY, _STAR = "?", "*"
_LONGEST_SEARCHED = 4096
_LONGEST_RESULT = 1 << 21

# Characters as (character, whether it is a wildcard).
Tokens = list[tuple[str, bool]]


def parse_pattern(pattern: str) -> Tokens:
    """The tokens of *pattern*; an escaped character stands for itself."""
    tokens: Tokens = []
    place = 0
    while place < len(pattern):
        char = pattern[place]
        if char == "\\" and place + 1 < len(pattern):
            place += 1
            tokens.append((pattern[place], False))
        else:
            tokens.append((char, char in "*?"))
        place += 1
    return tokens


class _Automaton:
    """The places in a pattern: bit n is set where its first n tokens can match what was read."""

    __slots__ = ("_any", "_literal", "_stars", "accepting", "start")

    def __init__(self, tokens: Tokens) -> None:
        self._literal: dict[str, int] = {}
        self._any = self._stars = 0
        for number, (char, is_wildcard) in enumerate(tokens):
            bit = 1 << number
            if not is_wildcard:
                self._literal[char] = self._literal.get(char, 0) | bit
            elif char == _ANY:
                self._any |= bit
            else:
                self._stars |= bit
        self.accepting = 1 << len(tokens)
        self.start = self._closed(1)

    def _closed(self, places: int) -> int:
        """*places*, and those behind stars, which may stand for nothing."""
        while (more := places | ((places & self._stars) << 1)) != places:
            places = more
        return places

    def step(self, places: int, char: str) -> int:
        moved = (places & (self._literal.get(char, 0) | self._any)) << 1
        return self._closed(moved | (places & self._stars))


def _match_length(automaton: _Automaton, text: str, *, longest: bool) -> int:
    """How much of *text*'s beginning matches; -1 for none."""
    places, found = automaton.start, -1
    for number, char in enumerate(text):
        if places & automaton.accepting:
            found = number
            if not longest:
                return found
        places = automaton.step(places, char)
        if not places:
            return found
    return len(text) if places & automaton.accepting else found


def without_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """*value* without its shortest, or longest, beginning that matches."""
    return value[max(0, _match_length(_Automaton(parse_pattern(pattern)), value, longest=longest)) :]


def without_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """*value* without its shortest, or longest, end that matches."""
    length = _match_length(_Automaton(parse_pattern(pattern)[::-1]), value[::-1], longest=longest)
    return value[: len(value) - max(0, length)]


def replace_matches(value: str, pattern: str, replacement: str, *, everywhere: bool) -> str:
    """*value* with the first match, or all, replaced, each the longest from where it begins. Raises DockerfileError."""
    tokens = parse_pattern(pattern)
    if not tokens:
        return value
    if not any(is_wildcard for _, is_wildcard in tokens):
        return _bounded_replace(value, "".join(char for char, _ in tokens), replacement, -1 if everywhere else 1)
    if len(value) > _LONGEST_SEARCHED:
        raise DockerfileError(f"a value of {len(value)} characters is too long for a pattern with * or ?")
    automaton = _Automaton(tokens)
    if not value:
        return replacement if automaton.start & automaton.accepting else ""
    parts: list[str] = []
    place = size = 0
    while place < len(value):
        length = _match_length(automaton, value[place:], longest=True)
        parts.append(replacement if length >= 0 else value[place])
        size += len(parts[-1])
        _check_size(size)
        place += max(1, length)
        if length >= 0 and not everywhere:
            break
    return "".join(parts) + value[place:]


def _bounded_replace(value: str, text: str, replacement: str, most: int) -> str:
    count = min(value.count(text), 1 if most == 1 else len(value))
    _check_size(len(value) + count * len(replacement))
    return value.replace(text, replacement, most)


def _check_size(size: int) -> None:
    if size > _LONGEST_RESULT:
        raise DockerfileError("replacing makes a value longer than two mebibytes")
