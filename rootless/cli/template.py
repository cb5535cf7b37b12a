"""Go's text/template over the values of a JSON document: what `--format` and `inspect -f` take.

A subset of our own, so that a template can reach nothing but the document it was given (`{{.__class__}}` is a key that
is not there), with bounds on its work. Known are fields, variables, pipelines, parentheses, if, else, range, with,
break, continue, define, template, block, comments, trimmed space, and the functions of template_values.py. Left out are
complex numbers, `call`, and in printf `*` and `[n]`.

    source ─ template_syntax ─▶ nodes ─ _Run, with template_values ─▶ text

Errors are those of Go, in one line: "template parsing error: template: :1:2: executing "" at <.x>: …". Sources: the
documentation of text/template; docker/cli's templates package; what Docker 28 answers is in the tests.
"""

from collections.abc import Callable, Iterator, Sequence

from rootless.cli.template_syntax import (
    DEEPEST,
    Action,
    Branch,
    Command,
    Include,
    Node,
    Operand,
    Parser,
    Pipe,
    TemplateError,
    Templates,
    line_of,
)
from rootless.cli.template_values import (
    DECIDING,
    FUNCTIONS,
    HEADER_FUNCTIONS,
    LONGEST_TEXT,
    MISSING,
    Function,
    Record,
    ValueProblem,
    shown,
    to_text,
    truth,
    type_name,
)

__all__ = ["Record", "Template", "TemplateError"]

_MOST_STEPS = 1_000_000  # nodes evaluated: a second or two


class Template:
    """A template, parsed once and rendered for each document. Raises TemplateError from both."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._body, self._named = Parser(source).template()

    def render(self, document: object) -> str:
        """The text that the template makes of *document*, a value as json.loads() gives it; dicts may be Record."""
        return _Run(self._source, self._named, document, FUNCTIONS).text(self._body)

    def render_header(self, headers: dict[str, object]) -> str:
        """The text with the name of each column for its value."""
        return _Run(self._source, self._named, headers, HEADER_FUNCTIONS).text(self._body)


class _Run:
    """One rendering: the variables, the text so far, and how much has been done."""

    def __init__(self, source: str, named: Templates, document: object, functions: dict[str, Function]) -> None:
        self.functions = functions
        self.source = source
        self.named = named
        self.document = document
        self.template = ""
        self.variables: list[tuple[str, object]] = [("$", document)]
        self.parts: list[str] = []
        self.steps = _MOST_STEPS
        self.room = LONGEST_TEXT
        self.depth = 0

    def text(self, body: tuple[Node, ...]) -> str:
        """The text of the whole template."""
        self.walk(body, self.document)
        return "".join(self.parts)

    def walk(self, nodes: Sequence[Node], dot: object) -> str:
        """Write the nodes' text; "break" or "continue" where one of them ends the body of a range."""
        for node in nodes:
            self.spend(steps=1)
            if isinstance(node, str):
                self.write(node)
            elif isinstance(node, Action):
                value = self.pipe(node.pipe, dot)
                if node.pipe.names:
                    self.set(node.pipe, (value,))
                else:
                    self.write(shown(value))
            elif isinstance(node, Branch):
                if jump := self.branch(node, dot):
                    return jump
            elif isinstance(node, Include):
                self.include(node, dot)
            else:
                return node.word
        return ""

    def branch(self, node: Branch, dot: object) -> str:
        """Write the body that *node* chooses."""
        variables = len(self.variables)
        value = self.pipe(node.pipe, dot)
        if node.word == "range":
            jump = self.range(node, value, dot)
        else:
            self.set(node.pipe, (value,))
            if truth(value):
                jump = self.walk(node.body, value if node.word == "with" else dot)
            else:
                jump = self.walk(node.otherwise, dot)
        del self.variables[variables:]
        return jump

    def range(self, node: Branch, value: object, dot: object) -> str:
        """Write the body for each element of *value*, in the order of a map's keys; the other one if there is none."""
        variables = len(self.variables)
        empty = True
        for key, element in self.elements(node.pipe, value):
            empty = False
            self.spend(steps=1)
            self.set(node.pipe, (key, element)[-len(node.pipe.names) :] if node.pipe.names else ())
            jump = self.walk(node.body, element)
            del self.variables[variables:]
            if jump == "break":
                return ""
        return self.walk(node.otherwise, dot) if empty else ""

    def elements(self, pipe: Pipe, value: object) -> Iterator[tuple[object, object]]:
        """The keys and elements of what range goes over."""
        operand = pipe.commands[-1].operands[0]
        if value is None or value is MISSING:
            return iter(())
        if isinstance(value, (list, tuple)):
            return iter(enumerate(value))
        if isinstance(value, dict):
            return ((key, value[key]) for key in sorted(value))
        if isinstance(value, int) and not isinstance(value, bool):
            if len(pipe.names) > 1:
                raise self.error(operand, f"can't use {value} to iterate over more than one variable")
            return ((i, i) for i in range(value))
        raise self.error(operand, f"range can't iterate over {to_text(value)}")

    def include(self, node: Include, dot: object) -> None:
        """Write a template within this one."""
        if node.name not in self.named:
            raise self.error(node, f'template "{node.name}" not defined')
        if self.depth >= DEEPEST:
            raise self.error(node, "templates call one another too deeply")
        value = None if node.pipe is None else self.pipe(node.pipe, dot)
        outside = self.variables, self.template
        self.variables, self.template = [("$", value)], node.name
        self.depth += 1
        self.walk(self.named[node.name], value)
        self.depth -= 1
        self.variables, self.template = outside

    def set(self, pipe: Pipe, values: tuple[object, ...]) -> None:
        """Declare the variables of *pipe* with *values*, or assign to the last ones of their names."""
        for name, value in zip(pipe.names, values, strict=False):
            if pipe.declares:
                self.variables.append((name, value))
                continue
            place = max(i for i, (known, _) in enumerate(self.variables) if known == name)
            self.variables[place] = (name, value)

    def pipe(self, pipe: Pipe, dot: object) -> object:
        """The value of a pipeline."""
        results: tuple[object, ...] = ()
        for command in pipe.commands:
            results = (self.command(command, dot, results),)
        return results[0]

    def command(self, command: Command, dot: object, last: tuple[object, ...]) -> object:
        """The value of a command; *last* is the result of the one before, if there is one."""
        self.spend(steps=1)
        first, *arguments = command.operands
        if first.kind == "function":
            return self.call(first, arguments, dot, last)
        if arguments or last:
            if (
                first.kind == "dot"
                and len(first.path) == 1
                and isinstance(dot, Record)
                and first.path[0] in dot.methods
            ):
                return self.method(dot.methods[first.path[0]], first, arguments, dot, last)
            if first.path:
                raise self.error(first, f"{first.path[-1]} is not a method but has arguments")
            raise self.error(first, f"can't give argument to non-function {self.shown(first)}")
        if first.kind == "nil":
            raise self.error(first, "nil is not a command")
        return self.operand(first, dot)

    def method(
        self,
        method: Callable[[str], str],
        operand: Operand,
        arguments: Sequence[Operand],
        dot: object,
        last: tuple[object, ...],
    ) -> str:
        """What a record's method says to its one argument."""
        values = [*(self.operand(argument, dot) for argument in arguments), *last]
        if len(values) != 1:
            raise self.error(operand, f"wrong number of args for {operand.path[0]}: want 1 got {len(values)}")
        text = self.fitting(values[0], "text", (*arguments, operand)[0])
        return method(str(text))

    def operand(self, operand: Operand, dot: object) -> object:
        """The value of an operand."""
        value = operand.value
        if operand.kind == "dot":
            value = dot
        elif operand.kind == "variable":
            value = next(value for name, value in reversed(self.variables) if name == operand.value)
        elif operand.kind == "function":
            value = self.call(operand, (), dot, ())
        elif isinstance(value, Pipe):
            value = self.pipe(value, dot)
        for name in operand.path:
            value = self.field(value, name, operand)
        return value

    def field(self, value: object, name: str, operand: Operand) -> object:
        """The element *name* of a map; MISSING where it, or the map, is not there."""
        if value is MISSING:
            return MISSING
        if value is None:
            raise self.error(operand, f"nil pointer evaluating interface {{}}.{name}")
        if isinstance(value, dict):
            if name not in value and isinstance(value, Record):
                raise self.error(operand, f"can't evaluate field {name}; there are {', '.join(value)}")
            return value.get(name, MISSING)
        raise self.error(operand, f"can't evaluate field {name} in type {type_name(value)}")

    def call(self, operand: Operand, arguments: Sequence[Operand], dot: object, last: tuple[object, ...]) -> object:
        """The value of a function."""
        name = str(operand.value)
        if name in DECIDING:
            return self.decide(operand, arguments, dot, last)
        function = self.functions[name]
        self.count(operand, len(arguments) + len(last), len(function.takes), bool(function.more))
        values = [self.operand(argument, dot) for argument in arguments]
        values = [None if value is MISSING else value for value in (*values, *last)]
        for i, (value, kind) in enumerate(zip(values, function.takes, strict=False)):
            values[i] = self.fitting(value, kind, (*arguments, operand)[min(i, len(arguments))])
        try:
            result = function.call(*values)
        except ValueProblem as problem:
            end = arguments[-1].end if arguments else operand.end
            at = operand._replace(end=end)
            raise self.error(at, f"error calling {name}: {problem}") from problem
        if isinstance(result, str):
            self.spend(text=len(result))
        return result

    def decide(self, operand: Operand, arguments: Sequence[Operand], dot: object, last: tuple[object, ...]) -> object:
        """The first argument that decides an `and` or `or`; the last one if none does."""
        self.count(operand, len(arguments) + len(last), 1, True)
        value: object = None
        for argument in arguments:
            value = self.operand(argument, dot)
            if truth(value) == (operand.value == "or"):
                return value
        return last[0] if last else value

    def count(self, operand: Operand, given: int, wanted: int, more: bool) -> None:
        """Complain about a wrong number of arguments."""
        if given < wanted or (given > wanted and not more):
            least = "at least " if more else ""
            problem = f"wrong number of args for {operand.value}: want {least}{wanted} got {given}"
            raise self.error(operand, problem)

    def fitting(self, value: object, kind: str, at: Operand) -> object:
        """*value* if it is of the *kind* that a function takes. No list is an empty one, as Go's typed nil."""
        if kind == "list" and value is None:
            return []
        fits: dict[str, tuple[type, ...]] = {"text": (str,), "number": (int,), "list": (list, tuple), "any": (object,)}
        if isinstance(value, fits[kind]) and not (kind == "number" and isinstance(value, bool)):
            return value
        expected = {"text": "string", "number": "integer", "list": "[]string"}[kind]
        if at.kind == "constant":
            raise self.error(at, f"expected {expected}; found {self.shown(at)}")
        raise self.error(at, f"wrong type for value; expected {expected}; got {type_name(value)}")

    def write(self, text: str) -> None:
        self.spend(text=len(text))
        self.parts.append(text)

    def spend(self, *, steps: int = 0, text: int = 0) -> None:
        """Count work and text against what a template may do and make."""
        self.steps -= steps
        self.room -= text
        if self.steps < 0 or self.room < 0:
            raise TemplateError("template: this is too much work, or too long a text")

    def shown(self, at: Operand | Include) -> str:
        """The source of a node."""
        return self.source[at.start : at.end]

    def error(self, at: Operand | Include, message: str) -> TemplateError:
        column = at.start - (self.source.rfind("\n", 0, at.start) + 1)
        place = f"{line_of(self.source, at.start)}:{column}"
        return TemplateError(f'template: :{place}: executing "{self.template}" at <{self.shown(at)}>: {message}')
