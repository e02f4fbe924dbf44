"""The scalar expression grammar: text -> a small tree; the value type of an expression.

Used for row filters (`where`), computed columns (`of`), validation checks and derived features.
Types, and what is computed, are core/expressions'.

Semantics that do not depend on an engine: a missing input gives a missing result (except in
`coalesce`, `is null` and `case`); division by zero and `ln` of a number not above zero are
missing; `least` and `greatest` ignore missing arguments.

    expression := or-expression
    comparison := sum (= | != | < | <= | > | >= sum | [not] in (literal, ...) | is [not] null)?
    primary    := number | 'text' | true | false | null | column | function(...) | (expression)
                | case when condition then value ... [else value] end
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from pydantic_core import CoreSchema, core_schema

from mlops_pipeline.errors import ExpressionError

FUNCTIONS: dict[str, tuple[int, int | None]] = {  # name -> (fewest, most) arguments
    "coalesce": (2, None),
    "nullif": (2, 2),
    "least": (2, None),
    "greatest": (2, None),
    "abs": (1, 1),
    "ln": (1, 1),
}
CONSTANTS = {"true": True, "false": False, "null": None}
RESERVED = {*CONSTANTS, "and", "or", "not", "in", "is", "case", "when", "then", "else", "end"}
MAX_LENGTH = 4_000  # characters; an expression is a line or two, not a program
PARSED = 4_096  # expressions kept; a use case has tens
MAX_DEPTH = 40  # parentheses in parentheses, terms in a sum: the tree is walked recursively
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<text>'(?:[^']|'')*')"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<op><=|>=|!=|<>|==|[-+*/()=<>,]))"
)


@dataclass(frozen=True)
class Constant:
    """A number, text, truth value or null."""

    value: float | int | str | bool | None


@dataclass(frozen=True)
class Column:
    """A column of the row, or an earlier derived feature."""

    name: str


@dataclass(frozen=True)
class Call:
    """An operator or function applied to its arguments."""

    name: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True)
class Membership:
    """`operand in (literals)`."""

    operand: "Node"
    values: tuple[float | int | str | bool, ...]


@dataclass(frozen=True)
class Case:
    """The value of the first branch whose condition holds, else `default`."""

    branches: tuple[tuple["Node", "Node"], ...]
    default: "Node"


Node = Constant | Column | Call | Membership | Case
Item = TypeVar("Item")


class _Token(NamedTuple):
    kind: str  # a group of _TOKEN, or "end"
    text: str
    position: int


@dataclass(frozen=True)
class Expression:
    """An expression that parses. Two are equal when their texts are; a document holds the text."""

    text: str
    tree: Node = field(compare=False, repr=False)
    columns: frozenset[str] = field(compare=False, repr=False)  # all that it reads

    @classmethod
    @lru_cache(maxsize=PARSED)
    def of(cls, text: str) -> "Expression":
        """Parse a text."""
        tree = parse(text)
        parts = [part for level in _levels(tree) for part in level]
        return cls(text, tree, frozenset(part.name for part in parts if isinstance(part, Column)))

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: Any) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            lambda given, text: given if isinstance(given, cls) else cls.of(text(given)),
            core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(when_used="always"),
        )


def parse(text: str) -> Node:
    """Parse an expression; an error names the position, what was expected and what was found."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            "the expression is too long",
            expected=f"at most {MAX_LENGTH} characters",
            found=str(len(text)),
        )
    tree = _Parser(text).whole()
    if len(list(_levels(tree))) > MAX_DEPTH:
        raise _too_deep(text)
    return tree


def _levels(tree: Node) -> Iterator[list[Node]]:
    """Yield the root, what is directly below it, what is below that, ..."""
    level = [tree]
    while level:
        yield level
        level = [child for node in level for child in _children(node)]


def _children(node: Node) -> tuple[Node, ...]:
    match node:
        case Call(arguments=arguments):
            return arguments
        case Membership(operand=operand):
            return (operand,)
        case Case(branches, default):
            return (*(part for branch in branches for part in branch), default)
    return ()


def _too_deep(text: str) -> ExpressionError:
    return ExpressionError(
        "the expression is nested too deeply",
        where=text[:200],
        expected=f"at most {MAX_DEPTH} levels (each term of a sum or of `or` is one)",
        way_out="use `in (...)`, or define parts of it as features of their own",
    )


def _tokenize(text: str) -> list[_Token]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise ExpressionError(
                f"cannot read the expression at character {position + 1}",
                where=text,
                found=repr(text[position : position + 12]),
                way_out="see docs/configuration.md, 'Expressions'",
            )
        kind = match.lastgroup
        tokens.append(_Token(kind, match.group(kind), match.start(kind)))
        position = match.end()
    return [*tokens, _Token("end", "the end", len(text))]


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokenize(text)
        self._at = 0
        self._nesting = 0

    def whole(self) -> Node:
        node = self._either()
        if self._peek().kind != "end":
            raise self._unexpected("an operator or the end")
        return node

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._peek()
        self._at += 1
        return token

    def _word(self) -> str:
        token = self._peek()
        return token.text.lower() if token.kind in ("name", "op") else ""

    def _accept(self, *words: str) -> str | None:
        if self._word() in words:
            return self._next().text.lower()
        return None

    def _expect(self, word: str) -> None:
        if self._accept(word) is None:
            raise self._unexpected(repr(word))

    def _unexpected(self, expected: str) -> ExpressionError:
        token = self._peek()
        return ExpressionError(
            f"the expression does not parse at character {token.position + 1}",
            where=self._text,
            expected=expected,
            found=repr(token.text) if token.kind != "end" else "the end of the expression",
        )

    def _nested(self, rule: Callable[[], Node]) -> Node:
        self._nesting += 1
        if self._nesting > MAX_DEPTH:
            raise _too_deep(self._text)
        node = rule()
        self._nesting -= 1
        return node

    def _left(self, operand: Callable[[], Node], *operators: str) -> Node:
        """Read operands with any of these operators between them, the left ones first."""
        node = operand()
        while operator := self._accept(*operators):
            node = Call(operator, (node, operand()))
        return node

    def _either(self) -> Node:
        return self._nested(lambda: self._left(self._both, "or"))

    def _both(self) -> Node:
        return self._left(self._negation, "and")

    def _negation(self) -> Node:
        if self._accept("not"):
            return Call("not", (self._nested(self._negation),))
        return self._comparison()

    def _comparison(self) -> Node:
        node = self._sum()
        operator = self._accept("=", "==", "!=", "<>", "<", "<=", ">", ">=")
        if operator:
            name = {"==": "=", "<>": "!="}.get(operator, operator)
            return Call(name, (node, self._sum()))
        if self._accept("is"):
            negated = self._accept("not")
            self._expect("null")
            test = Call("is null", (node,))
            return Call("not", (test,)) if negated else test
        negated = self._accept("not")
        if self._accept("in"):
            member = Membership(node, tuple(self._list(self._literal)))
            self._expect(")")
            return Call("not", (member,)) if negated else member
        if negated:
            raise self._unexpected("'in'")
        return node

    def _list(self, item: Callable[[], Item]) -> list[Item]:
        self._expect("(")
        items = [item()]
        while self._accept(","):
            items.append(item())
        return items

    def _literal(self) -> float | int | str | bool:
        node = self._sum()
        if not isinstance(node, Constant) or node.value is None:
            raise self._unexpected("a list of numbers or texts")
        return node.value

    def _sum(self) -> Node:
        return self._left(self._product, "+", "-")

    def _product(self) -> Node:
        return self._left(self._unary, "*", "/")

    def _unary(self) -> Node:
        if self._accept("-"):
            operand = self._nested(self._unary)
            if isinstance(operand, Constant) and not isinstance(operand.value, bool | str | None):
                return Constant(-operand.value)
            return Call("negate", (operand,))
        return self._primary()

    def _primary(self) -> Node:
        token = self._peek()
        if token.kind == "number":
            self._next()
            is_float = any(mark in token.text for mark in ".eE")
            return Constant(float(token.text) if is_float else int(token.text))
        if token.kind == "text":
            self._next()
            return Constant(token.text[1:-1].replace("''", "'"))
        if self._accept("("):
            node = self._either()
            self._expect(")")
            return node
        if token.kind == "name":
            return self._named()
        raise self._unexpected("a value")

    def _named(self) -> Node:
        word = self._word()
        if word in CONSTANTS:
            self._next()
            return Constant(CONSTANTS[word])
        if word == "case":
            return self._case()
        if word in RESERVED:
            raise self._unexpected("a value")
        token = self._next()
        if self._word() != "(":
            return Column(token.text)
        return self._function(word)

    def _function(self, name: str) -> Node:
        if name not in FUNCTIONS:
            self._at -= 1
            raise self._unexpected(f"one of the functions {', '.join(sorted(FUNCTIONS))}")
        arguments = self._list(self._either)
        fewest, most = FUNCTIONS[name]
        if len(arguments) < fewest or (most is not None and len(arguments) > most):
            raise self._unexpected(f"{fewest}{'' if most else ' or more'} arguments of {name}")
        self._expect(")")
        return Call(name, tuple(arguments))

    def _case(self) -> Node:
        self._expect("case")
        branches: list[tuple[Node, Node]] = []
        while self._accept("when"):
            condition = self._either()
            self._expect("then")
            branches.append((condition, self._either()))
        if not branches:
            raise self._unexpected("'when'")
        default = self._either() if self._accept("else") else Constant(None)
        self._expect("end")
        return Case(tuple(branches), default)
