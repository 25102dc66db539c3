"""The frozen tree of a rule expression. Positions are those of the source text, for messages only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias


class Absent(Enum):
    """The one value of a field that a known object does not have."""

    ABSENT = "undefined"

    def __repr__(self) -> str:
        return "undefined"


ABSENT: Final = Absent.ABSENT


class Instant(int):
    """Milliseconds since 1970 that may also be compared with a date: what ``now`` is."""

    __slots__ = ()


class Operator(Enum):
    """Comparisons."""

    EQ = "=="
    NE = "!="
    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="


@dataclass(frozen=True, slots=True)
class Span:
    """Where in the source text something stands."""

    start: int
    end: int

    def of(self, source: str) -> str:
        return source[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Known:
    """A value. ``written``: it stands in the rule itself and does not come from data."""

    value: Any
    span: Span = field(compare=False)
    written: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that has no value here, such as a field of null. Neither it nor its opposite holds."""

    reason: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Name:
    """A variable."""

    name: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Items:
    """A list of expressions."""

    items: tuple[Expr, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Member:
    """A field of an object or an element of a list."""

    object: Expr
    key: Expr
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Get:
    """A stored document, by ``database.<collection>.<id>``."""

    path: Expr
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Add:
    """Text put together, or a sum of numbers. ``text``: a template, whose result is always text."""

    left: Expr
    right: Expr
    span: Span = field(compare=False)
    text: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    operand: Expr
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class And:
    operands: tuple[Expr, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Or:
    operands: tuple[Expr, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Compare:
    operator: Operator
    left: Expr
    right: Expr
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class In:
    """The left is an element of the right (a list), or a field of it (an object)."""

    left: Expr
    right: Expr
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Test:
    """A regular expression finds something in the subject."""

    pattern: str
    options: str
    subject: Expr
    span: Span = field(compare=False)


Expr: TypeAlias = Known | Broken | Name | Items | Member | Get | Add | Not | And | Or | Compare | In | Test

LOGICAL: Final = (Not, And, Or, Compare, In, Test)
"""What is true or false and nothing else."""


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions directly below."""
    match expr:
        case Items(items):
            return items
        case And(operands) | Or(operands):
            return operands
        case Member(left, right) | Compare(_, left, right) | In(left, right) | Add(left, right):
            return (left, right)
        case Get(below) | Not(below) | Test(_, _, below):
            return (below,)
        case _:
            return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything below it."""
    yield expr
    for child in children(expr):
        yield from walk(child)


def member_path(expr: Expr) -> tuple[str, tuple[str, ...]] | None:
    """Variable and field names of a chain such as ``doc.a['b'][0]`` whose keys are known; None for others."""
    names: list[str] = []
    while isinstance(expr, Member):
        if not isinstance(expr.key, Known) or type(expr.key.value) not in (str, int):
            return None
        names.append(str(expr.key.value))
        expr = expr.object
    return (expr.name, tuple(reversed(names))) if isinstance(expr, Name) else None
