"""Words get their values: variables, quotes and escapes, by the rules of a shell, as far as BuildKit has them.

    $name  ${name}              the value; nothing, where it is not set
    ${name-word}  ${name:-word}   word, where it is not set (or, with the colon, is empty)
    ${name+word}  ${name:+word}   word, where it is set (and not empty)
    ${name?word}  ${name:?word}   an error that says word, where it is not set (or is empty)
    ${name#pattern}  ${name##pattern}  ${name%pattern}  ${name%%pattern}
                                  without its shortest, longest beginning, or end, that the pattern matches
    ${name/pattern/text}  ${name//pattern/text}
                                  the first, or every, match replaced

In double quotes variables count, in single quotes nothing does. The escape character takes its meaning from whatever
follows it. Words nest, and values multiply: both are bounded, since whoever wrote the Dockerfile is not trusted.
"""

from collections.abc import Mapping
from typing import NamedTuple

from rootless.dockerfile.glob import replace_matches, without_prefix, without_suffix
from rootless.dockerfile.instructions import DockerfileError

_DEEPEST = 50
_LONGEST = 1 << 20
_SPECIAL = "@*#?-$!"


class Expansion(NamedTuple):
    """What a word came to."""

    text: str
    words: tuple[str, ...]  # the text, split at blanks that were not quoted
    missing: frozenset[str]  # variables that are not set, and for which the word has no answer of its own


def expand(word: str, variables: Mapping[str, str], *, escape: str = "\\", quotes: bool = True) -> str:
    """The value of *word*, as one word. Raises DockerfileError.

    Without *quotes*, quotes are ordinary characters.
    """
    if "$" not in word and escape not in word and not (quotes and ('"' in word or "'" in word)):
        return word
    return _Expander(word, variables, escape, quotes).run().text


def expand_words(word: str, variables: Mapping[str, str], *, escape: str = "\\") -> list[str]:
    """The words that *word* falls into: at blanks of its own or of values, but for those in quotes."""
    return list(expansion(word, variables, escape=escape).words)


def expand_heredoc(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> str:
    """A heredoc's content with its variables; quotes are part of it. A backslash escapes, whatever *escape* is."""
    return expand(text, variables, escape="\\", quotes=False)


def expansion(word: str, variables: Mapping[str, str], *, escape: str = "\\") -> Expansion:
    """All there is to know of *word*'s value. Raises DockerfileError."""
    return _Expander(word, variables, escape, True).run()


class _Pieces:
    """Text on its way: what may be split at its blanks, and what may not."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[tuple[str, bool]] = []

    def add(self, text: str, *, whole: bool) -> None:
        self.pieces.append((text, whole))

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)

    def words(self) -> tuple[str, ...]:
        words = [""]
        for text, whole in self.pieces:
            if whole:
                words[-1] += text
                continue
            first, *more = f"|{text}|".split()  # the marks make blanks at the ends count
            if not more:
                words[-1] += first[1:-1]
                continue
            words[-1] += first[1:]
            words += [*more[:-1], more[-1][:-1]]
        return tuple(word for word in words if word)


class _Expander:
    """One word, read from left to right."""

    __slots__ = ("_depth", "_escape", "_length", "_missing", "_place", "_quotes", "_variables", "_word")

    def __init__(self, word: str, variables: Mapping[str, str], escape: str, quotes: bool) -> None:
        self._word = word
        self._variables = variables
        self._escape = escape
        self._quotes = quotes
        self._place = 0
        self._depth = 0
        self._length = 0
        self._missing: set[str] = set()

    def run(self) -> Expansion:
        found = self._until("", keep_escapes=False)
        return Expansion(found.text, found.words(), frozenset(self._missing))

    def _peek(self) -> str:
        return self._word[self._place : self._place + 1]

    def _take(self) -> str:
        char = self._peek()
        self._place += 1
        return char

    def _fail(self, why: str) -> DockerfileError:
        shown = self._word if len(self._word) <= 80 else f"{self._word[:80]}…"
        return DockerfileError(f"{why} in {shown}")

    def _plain(self, stops: str) -> str:
        """All up to the next character of *stops*."""
        begin = place = self._place
        word = self._word
        while place < len(word) and word[place] not in stops:
            place += 1
        self._place = place
        return word[begin:place]

    def _until(self, stop: str, *, keep_escapes: bool) -> _Pieces:
        """What stands before *stop*, which is taken, too; "" is the end. *keep_escapes*: a pattern needs them."""
        found = _Pieces()
        stops = f"${self._escape}{stop}" + ("'\"" if self._quotes else "")
        while self._place < len(self._word):
            text = self._plain(stops)
            if text:
                found.add(text, whole=False)
                continue
            char = self._peek()
            if char == stop:
                self._place += 1
                return found
            self._special(char, found, keep_escapes)
        if stop:
            raise self._fail(f"there is no {stop}" + (" to close ${" if stop == "}" else " after ${…/"))
        return found

    def _special(self, char: str, found: _Pieces, keep_escapes: bool) -> None:
        if char == "$":
            found.add(self._dollar(), whole=False)
        elif char == self._escape:
            self._place += 1
            escaped = self._take()
            if escaped or keep_escapes:
                found.add(("\\" if keep_escapes else "") + escaped, whole=True)
        else:
            found.add(self._single_quoted() if char == "'" else self._double_quoted(), whole=True)

    def _single_quoted(self) -> str:
        end = self._word.find("'", self._place + 1)
        if end < 0:
            raise self._fail("a single quote is not closed")
        text = self._word[self._place + 1 : end]
        self._place = end + 1
        return text

    def _double_quoted(self) -> str:
        self._place += 1
        parts: list[str] = []
        while self._place < len(self._word):
            parts.append(self._plain(f'"${self._escape}'))
            char = self._peek()
            if char == '"':
                self._place += 1
                return "".join(parts)
            if char == "$":
                parts.append(self._dollar())
            elif char:
                parts.append(self._escaped_in_quotes())
        raise self._fail("a double quote is not closed")

    def _escaped_in_quotes(self) -> str:
        """In double quotes, only what has a meaning there can lose it."""
        escape = self._take()
        return self._take() if self._peek() in ('"', "$", self._escape) else escape

    def _dollar(self) -> str:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._fail("variables are nested too deeply")
        text = self._variable()
        self._depth -= 1
        self._length += len(text)
        if self._length > _LONGEST:
            raise self._fail("the values of variables are longer than a mebibyte")
        return text

    def _variable(self) -> str:
        self._place += 1
        if self._peek() == "{":
            self._place += 1
            return self._braced()
        name = self._name()
        return (self._value(name) or "") if name else "$"

    def _name(self) -> str:
        begin = self._place
        word = self._word
        if self._peek() in tuple(_SPECIAL):
            self._place += 1
        elif self._peek().isdigit():
            while self._peek().isdigit():
                self._place += 1
        else:
            while self._place < len(word) and (word[self._place].isalnum() or word[self._place] == "_"):
                self._place += 1
        return word[begin : self._place]

    def _value(self, name: str, *, matters: bool = True) -> str | None:
        value = self._variables.get(name)
        if value is None and matters:
            self._missing.add(name)
        return value

    def _braced(self) -> str:
        name = self._name()
        if not name:
            raise self._fail("there is no name after ${" if self._peek() else "there is no } to close ${")
        operator = self._take()
        if not operator:
            raise self._fail("there is no } to close ${")
        if operator == "}":
            return self._value(name) or ""
        if operator == "/":
            return self._replaced(name)
        if operator in "#%":
            return self._trimmed(name, operator)
        counts_empty = operator == ":"
        if counts_empty:
            operator = self._take()
        if operator not in ("-", "+", "?"):
            raise self._fail(f"${{{name}{':' if counts_empty else ''}{operator} is not known")
        return self._conditional(name, operator, counts_empty)

    def _conditional(self, name: str, operator: str, counts_empty: bool) -> str:
        word = self._until("}", keep_escapes=False).text
        value = self._value(name, matters=False)
        is_there = value is not None and not (counts_empty and not value)
        if operator == "+":
            return word if is_there else ""
        if value is not None and is_there:
            return value
        if operator == "-":
            return word
        raise DockerfileError(f"{name}: {word or ('is not set' if value is None else 'is empty')}")

    def _trimmed(self, name: str, operator: str) -> str:
        is_longest = self._peek() == operator
        self._place += is_longest
        pattern = self._until("}", keep_escapes=True).text
        value = self._value(name) or ""
        trim = without_prefix if operator == "#" else without_suffix
        return trim(value, pattern, longest=is_longest)

    def _replaced(self, name: str) -> str:
        everywhere = self._peek() == "/"
        self._place += everywhere
        pattern = self._until("/", keep_escapes=True).text
        replacement = self._until("}", keep_escapes=False).text
        return replace_matches(self._value(name) or "", pattern, replacement, everywhere=everywhere)
