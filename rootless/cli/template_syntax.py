"""The syntax of Go's text/template: source ─ _Scanner ─▶ tokens ─ Parser ─▶ nodes. See template.py.

Errors are Go's, with the line: "template: :1: unexpected {{end}}".
"""

import re
from collections.abc import Generator, Iterator
from typing import NamedTuple

from rootless.cli.template_values import DECIDING, FUNCTIONS, quote
from rootless.errors import InvalidInput

DEEPEST = 100  # parentheses and bodies within one another


class TemplateError(InvalidInput):
    """A template that cannot be parsed, or does not fit the document."""

    def __init__(self, message: str) -> None:
        super().__init__(f"template parsing error: {message}")


# --- the source taken apart


class _Token(NamedTuple):
    """kind is "text", "end" (of the source), or within an action a group of _WORDS, and "close" for the `}}`."""

    kind: str
    text: str
    start: int
    spaced: bool  # whether white space stands before it: `.a .b` are two operands, `.a.b` is one


_WORDS = re.compile(
    r"""
    (?P<string> "(?:[^"\\\n]|\\.)*" | `[^`]*`)
  | (?P<char> '(?:[^'\\\n]|\\.)+')
  | (?P<number> [+-]?\.?[0-9][\w.]*(?:(?<=[eEpP])[+-][\w.]*)?)
  | (?P<field> \.[^\W\d]\w*)
  | (?P<variable> \$\w*)
  | (?P<word> [^\W\d]\w*)
  | (?P<mark> := | [=|(),.])
    """,
    re.VERBOSE,
)
_OPEN = re.compile(r"\{\{(-(?=[ \t\r\n]))?")
_COMMENT = re.compile(r"[ \t\r\n]*/\*.*?\*/(?:[ \t\r\n]+(-)\}\}|\}\})", re.DOTALL)
_CLOSE = re.compile(r"[ \t\r\n]+(-)\}\}|[ \t\r\n]*\}\}")
_SPACE = " \t\r\n"


def line_of(source: str, place: int) -> int:
    """The number of the line that *place* is in, from 1."""
    return source.count("\n", 0, place) + 1


class _Scanner:
    """The tokens of *source*, in order."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.place = 0

    def tokens(self) -> Iterator[_Token]:
        """Text and actions in turn, then "end"."""
        trim = False
        while opening := _OPEN.search(self.source, self.place):
            yield self.plain(opening.start(), trim, opening[1] is not None)
            self.place = opening.end()
            comment = _COMMENT.match(self.source, self.place)
            if comment:
                trim, self.place = comment[1] is not None, comment.end()
            else:
                trim = yield from self.action(opening.start())
        yield self.plain(len(self.source), trim, False)
        yield _Token("end", "", len(self.source), False)

    def plain(self, end: int, trim_left: bool, trim_right: bool) -> _Token:
        """The text up to *end*, without the white space that an action beside it trims."""
        text = self.source[self.place : end]
        text = text.lstrip(_SPACE) if trim_left else text
        return _Token("text", text.rstrip(_SPACE) if trim_right else text, self.place, False)

    def action(self, start: int) -> Generator[_Token, None, bool]:
        """The tokens of one action after its braces; returns whether the text behind it is to be trimmed."""
        while True:
            closing = _CLOSE.match(self.source, self.place)
            if closing:
                yield _Token("close", "}}", self.place, False)
                self.place = closing.end()
                return closing[1] is not None
            before = self.place
            while self.source[self.place : self.place + 1] in _SPACE and self.place < len(self.source):
                self.place += 1
            found = _WORDS.match(self.source, self.place)
            if found is None or found.lastgroup is None:
                raise self.unexpected(start)
            yield _Token(found.lastgroup, found[0], self.place, self.place > before)
            self.place = found.end()

    def unexpected(self, start: int) -> TemplateError:
        """What is wrong with the character here, in an action that began at *start*."""
        char = self.source[self.place : self.place + 1]
        line = line_of(self.source, self.place)
        if not char:
            return TemplateError(f"template: :{line_of(self.source, start)}: unclosed action")
        problems = {'"': "unterminated quoted string", "`": "unterminated raw quoted string"}
        problems |= {"'": "unterminated character constant"}
        return TemplateError(f"template: :{line}: {problems.get(char, f'unexpected {quote(char)} in command')}")


# --- nodes


class Operand(NamedTuple):
    """A value of a command and the fields after it. kind: "constant", "nil", "dot", "variable", "function", "pipe"."""

    kind: str
    value: object  # of a constant; the name of a variable or function; a Pipe
    path: tuple[str, ...]
    start: int
    end: int


class Command(NamedTuple):
    """A function with its arguments, or a value alone."""

    operands: tuple[Operand, ...]


class Pipe(NamedTuple):
    """Commands of which each gets the result of the one before; names are the variables that get the last one's."""

    names: tuple[str, ...]
    declares: bool  # `:=`, not `=`
    commands: tuple[Command, ...]


class Action(NamedTuple):
    """A pipeline whose value is written, or goes to variables."""

    pipe: Pipe


class Branch(NamedTuple):
    """if, with, range: the word, what it looks at, and the two bodies."""

    word: str
    pipe: Pipe
    body: tuple["Node", ...]
    otherwise: tuple["Node", ...]


class Include(NamedTuple):
    """The template *name* with the value of *pipe* for dot."""

    name: str
    pipe: Pipe | None
    start: int
    end: int


class Jump(NamedTuple):
    """break or continue."""

    word: str


Node = str | Action | Branch | Include | Jump
Templates = dict[str, tuple[Node, ...]]


# --- tokens put together


class Parser:
    """Reads the nodes of *source*, and the templates that it defines."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = list(_Scanner(source).tokens())
        self.place = 0
        self.variables = ["$"]
        self.named: Templates = {}
        self.depth = 0
        self.ranges = 0

    def template(self) -> tuple[tuple[Node, ...], Templates]:
        """Everything."""
        body, _ = self.body()
        return body, self.named

    def body(self, *ends: str) -> tuple[tuple[Node, ...], str]:
        """The nodes up to an action that begins with one of the words *ends*, and that word."""
        nodes: list[Node] = []
        variables = len(self.variables)
        self.enter()
        while True:
            token = self.next()
            if token.kind == "text":
                nodes.append(token.text)
            elif token.kind == "end":
                if ends:
                    raise self.error(token, "unexpected EOF")
                break
            elif token.text in ends:
                break
            else:
                nodes.extend(self.action(token))
        self.depth -= 1
        if ends:
            del self.variables[variables:]
        return tuple(nodes), token.text

    def action(self, first: _Token) -> Iterator[Node]:
        """The node of the action that begins with *first*; none for a definition."""
        word = first.text if first.kind == "word" else ""
        if word in ("if", "with", "range"):
            yield self.branch(word)
        elif word in ("break", "continue"):
            if not self.ranges:
                raise self.error(first, f"{{{{{word}}}}} outside {{{{range}}}}")
            self.close(word)
            yield Jump(word)
        elif word in ("template", "block"):
            yield self.include(first)
        elif word == "define":
            if self.depth > 1:
                raise self.error(first, "unexpected <define> in command")
            self.define(self.name(first))
        elif word in ("end", "else"):
            raise self.error(first, f"unexpected {{{{{word}}}}}")
        else:
            self.place -= 1
            yield Action(self.pipe("command", "close"))

    def branch(self, word: str) -> Branch:
        """The rest of an if, with or range, its end included."""
        variables = len(self.variables)
        pipe = self.pipe(word, "close")
        self.ranges += word == "range"
        body, end = self.body("else", "end")
        self.ranges -= word == "range"
        otherwise: tuple[Node, ...] = ()
        if end == "else" and word != "range" and self.peek().text == word:
            self.next()
            self.enter()
            otherwise = (self.branch(word),)
            self.depth -= 1
        else:
            self.close(end)
            if end == "else":
                otherwise, _ = self.body("end")
                self.close("end")
        del self.variables[variables:]
        return Branch(word, pipe, body, otherwise)

    def include(self, word: _Token) -> Include:
        """The rest of a template action, or of a block, which defines the template that it includes."""
        name = self.name(word)
        pipe = None
        if word.text == "block" or self.peek().kind != "close":
            pipe = self.pipe(word.text, "close")
        else:
            self.close(word.text)
        end = self.tokens[self.place - 1].start + 2
        if word.text == "block":
            self.define(name, closed=True)
        return Include(name, pipe, self.source.rindex("{{", 0, word.start), end)

    def define(self, name: str, *, closed: bool = False) -> None:
        """The body of the template *name*, which sees no variables from outside."""
        if not closed:
            self.close("define")
        outside, self.variables = self.variables, ["$"]
        ranges, self.ranges = self.ranges, 0
        self.named[name], _ = self.body("end")
        self.close("end")
        self.variables, self.ranges = outside, ranges

    def name(self, word: _Token) -> str:
        """The name of a template, after *word*."""
        token = self.next()
        if token.kind != "string":
            raise self.error(token, f"unexpected {_named(token)} in {word.text} clause")
        return self.string(token)

    def pipe(self, context: str, end: str) -> Pipe:
        """A pipeline up to a token of kind or text *end*, which is taken too."""
        names, declares = self.declaration(context)
        commands: list[Command] = []
        while True:
            command = self.command()
            if command.operands:
                if commands and command.operands[0].kind in ("constant", "nil", "dot") and not command.operands[0].path:
                    raise self.error(self.peek(), f"non executable command in pipeline stage {len(commands) + 1}")
                commands.append(command)
            token = self.next()
            if end in (token.kind, token.text):
                break
            if token.text != "|" or not command.operands:
                raise self.error(token, _misplaced(token))
        if not commands:
            raise self.error(token, f"missing value for {context}")
        self.variables.extend(names if declares else ())
        return Pipe(names, declares, tuple(commands))

    def declaration(self, context: str) -> tuple[tuple[str, ...], bool]:
        """The variables that a pipeline sets: `$x :=`, `$x =`, in range also `$i, $x :=`."""
        ahead = [token.text for token in self.tokens[self.place : self.place + 5]]
        if not ahead[0].startswith("$"):
            return (), False
        if ahead[1:2] == [","] and ahead[2].startswith("$"):
            if context != "range" or ahead[3] != ":=":
                raise self.error(self.peek(), f"too many declarations in {context}")
            self.place += 4
            return (ahead[0], ahead[2]), True
        if ahead[1] not in (":=", "="):
            return (), False
        if ahead[1] == "=" and ahead[0] not in self.variables:
            raise self.error(self.peek(), f'undefined variable "{ahead[0]}"')
        self.place += 2
        return (ahead[0],), ahead[1] == ":="

    def command(self) -> Command:
        """Operands, with white space between them, up to what is none."""
        operands: list[Operand] = []
        while (operand := self.operand()) is not None:
            operands.append(operand)
            token = self.peek()
            if not token.spaced and token.text not in ("|", ")") and token.kind != "close":
                raise self.error(token, f"unexpected {_named(token)} in operand")
        return Command(tuple(operands))

    def operand(self) -> Operand | None:
        """A value with the fields after it; None if the next token begins none."""
        token = self.peek()
        kind, value = self.value(token)
        if not kind:
            return None
        path: list[str] = []
        if token.kind == "field":
            path.append(token.text[1:])
        while self.peek().kind == "field" and not self.peek().spaced:
            if kind in ("constant", "nil", "function") or token.text == ".":
                raise self.error(token, f'unexpected . after term "{token.text}"')
            path.append(self.next().text[1:])
        last = self.tokens[self.place - 1]
        return Operand(kind, value, tuple(path), token.start, last.start + len(last.text))

    def value(self, token: _Token) -> tuple[str, object]:
        """The kind and value of the operand that *token* begins, which is taken; an empty kind if it begins none."""
        kind: str = ""
        value: object = None
        if token.kind == "field" or token.text == ".":
            kind = "dot"
        elif token.kind == "variable":
            if token.text not in self.variables:
                raise self.error(token, f'undefined variable "{token.text}"')
            kind, value = "variable", token.text
        elif token.kind == "string":
            kind, value = "constant", self.string(token)
        elif token.kind in ("number", "char"):
            kind, value = "constant", self.number(token)
        elif token.kind == "word":
            kind, value = self.word(token)
        elif token.text == "(":
            self.next()
            self.enter()
            pipe = self.pipe("parenthesized pipeline", ")")
            self.depth -= 1
            return "pipe", pipe
        if kind:
            self.next()
        return kind, value

    def word(self, token: _Token) -> tuple[str, object]:
        """true, false, nil or a function."""
        if token.text in ("true", "false"):
            return "constant", token.text == "true"
        if token.text == "nil":
            return "nil", None
        if token.text not in FUNCTIONS and token.text not in DECIDING:
            raise self.error(token, f'function "{token.text}" not defined')
        return "function", token.text

    def string(self, token: _Token) -> str:
        """The value of a string constant."""
        body = token.text[1:-1]
        return body if token.text[0] == "`" else self.unescaped(token, body)

    def number(self, token: _Token) -> int | float:
        """The value of a number or of a character constant."""
        if token.kind == "char":
            char = self.unescaped(token, token.text[1:-1])
            if len(char) != 1:
                raise self.error(token, f"malformed character constant: {token.text}")
            return ord(char)
        digits = token.text.lstrip("+-")
        octal = digits[:1] == "0" and digits.isdecimal()
        try:
            return int(token.text, 8 if octal else 0)
        except ValueError:
            pass
        try:
            return float(token.text)
        except ValueError:
            raise self.error(token, f"bad number syntax: {quote(token.text)}") from None

    def unescaped(self, token: _Token, body: str) -> str:
        """*body* with Go's escapes replaced."""
        data = b""
        for plain, code, letter in _ESCAPE.findall(body):
            if plain:
                data += plain.encode("utf-8", "surrogateescape")
            elif letter in _LETTERS:
                data += _LETTERS[letter]
            elif code and code[0] in "uU" and int(code[1:], 16) < 0x110000:
                data += chr(int(code[1:], 16)).encode("utf-8", "replace")
            elif code and code[0] not in "uU" and int(code.lstrip("x"), 16 if code[0] == "x" else 8) < 0x100:
                data += bytes([int(code.lstrip("x"), 16 if code[0] == "x" else 8)])
            else:
                raise self.error(token, f"invalid syntax: {token.text}")
        return data.decode("utf-8", "surrogateescape")

    def next(self) -> _Token:
        """The next token, taken."""
        token = self.tokens[self.place]
        self.place += 1
        return token

    def peek(self) -> _Token:
        """The next token."""
        return self.tokens[self.place]

    def close(self, context: str) -> None:
        """Take the end of an action."""
        token = self.next()
        if token.kind != "close":
            raise self.error(token, f"unexpected {_named(token)} in {context}")

    def enter(self) -> None:
        """Go a level deeper: into a body or a parenthesis."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.error(self.peek(), "nested too deeply")

    def error(self, token: _Token, message: str) -> TemplateError:
        """The error to raise for *token*."""
        return TemplateError(f"template: :{line_of(self.source, token.start)}: {message}")


_ESCAPE = re.compile(r"([^\\]+)|\\(?:(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3})|(.?))", re.DOTALL)
_LETTERS = {
    **dict(zip("abfnrtv", (b"\a", b"\b", b"\f", b"\n", b"\r", b"\t", b"\v"), strict=True)),
    **{char: char.encode() for char in "\\\"'"},
}


def _named(token: _Token) -> str:
    """A token as messages name it."""
    if token.kind == "word" or token.text == ".":
        return f"<{token.text}>"
    return quote(token.text) if token.text else "EOF"


def _misplaced(token: _Token) -> str:
    """What is wrong with *token* in a pipeline."""
    if token.kind == "close":
        return "unclosed left paren"
    return "unexpected right paren" if token.text == ")" else f"unexpected {quote(token.text)} in command"
