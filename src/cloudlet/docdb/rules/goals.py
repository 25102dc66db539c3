"""What has to be true of a document, with all negations at the leaves.

A leaf is a condition of the query language or its opposite, so a rule means for a stored document exactly
what the same condition means in a query, arrays included (``{a: 5}`` finds ``{a: [4, 5]}``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from cloudlet.docdb.filter.ast import And, Node, Not, Op, Or, Path
from cloudlet.docdb.filter.match import Matcher, compile_node
from cloudlet.docdb.limits import Overrun
from cloudlet.docdb.paths import Segments, leaves
from cloudlet.docdb.values import MISSING, Document, Value, order_key, rank
from cloudlet.rules.ast import Span

_NOWHERE = Span(0, 0)


class All(msgspec.Struct, frozen=True):
    """Every part holds."""

    parts: tuple[Goal, ...] = ()


class Some(msgspec.Struct, frozen=True):
    """One of the parts holds."""

    parts: tuple[Goal, ...] = ()


@dataclass(frozen=True, slots=True)
class Leaf:
    """A condition of the query language (never And, Or or Not), or its opposite."""

    node: Node
    positive: bool = True
    span: Span = field(default=_NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """Some value of one path compares so with some value of another, or none does."""

    left: Path
    op: Op
    right: Path
    positive: bool = True
    span: Span = field(default=_NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Never:
    """What cannot hold, and why."""

    reason: str
    span: Span = field(default=_NOWHERE, compare=False)


Goal: TypeAlias = All | Some | Leaf | Pair | Never

ALWAYS = All()


def goal_of(node: Node, positive: bool = True) -> Goal:
    """A filter as a goal."""
    match node:
        case Not(child):
            return goal_of(child, not positive)
        case And(nodes) | Or(nodes):
            parts = tuple(goal_of(child, positive) for child in nodes)
            return All(parts) if isinstance(node, And) == positive else Some(parts)
        case _:
            return Leaf(node, positive)


def opposite(goal: Goal) -> Goal:
    """What holds when the goal does not; what can never hold stays so."""
    match goal:
        case All(parts):
            return Some(tuple(opposite(part) for part in parts))
        case Some(parts):
            return All(tuple(opposite(part) for part in parts))
        case Leaf(node, positive, span):
            return Leaf(node, not positive, span)
        case Pair(left, op, right, positive, span):
            return Pair(left, op, right, not positive, span)
        case Never():
            return goal


def leaves_of(goal: Goal) -> Iterator[Leaf | Pair | Never]:
    """All leaves."""
    if isinstance(goal, All | Some):
        for part in goal.parts:
            yield from leaves_of(part)
    else:
        yield goal


def reaches(goal: Goal) -> Matcher:
    """The closure that says whether a document reaches the goal. What would cost too much to find out (a
    regular expression on a long text) counts as no.
    """
    test = matcher(goal)

    def safe(document: Document) -> bool:
        try:
            return test(document)
        except Overrun:
            return False

    return safe


def matcher(goal: Goal) -> Matcher:
    """As ``reaches``, but it may raise Overrun."""
    match goal:
        case All(parts):
            tests = [matcher(part) for part in parts]
            return lambda document: all(test(document) for test in tests)
        case Some(parts):
            tests = [matcher(part) for part in parts]
            return lambda document: any(test(document) for test in tests)
        case Leaf(node, positive):
            match_ = compile_node(node)
            return match_ if positive else lambda document: not match_(document)
        case Pair(left, op, right, positive):
            return lambda document: _pair_holds(document, left, op, right) == positive
        case Never():
            return lambda _document: False


def compared(op: Op, left: Value, right: Value) -> bool:
    """Whether two values, neither taken apart, compare so; never for values of different types."""
    if rank(left) != rank(right):
        return False
    return _OPERATIONS[op](order_key(left), order_key(right))


def candidates(document: Document, segments: Segments) -> list[Value]:
    """The values a condition on the path looks at: what stands there, and the elements if it is an array."""
    found = leaves(document, segments)
    return [*found, *(item for value in found if type(value) is list for item in value)]


_OPERATIONS: dict[Op, Callable[[object, object], bool]] = {
    Op.EQ: lambda a, b: a == b,
    Op.GT: lambda a, b: a > b,  # type: ignore[operator]
    Op.GTE: lambda a, b: a >= b,  # type: ignore[operator]
    Op.LT: lambda a, b: a < b,  # type: ignore[operator]
    Op.LTE: lambda a, b: a <= b,  # type: ignore[operator]
}


def _pair_holds(document: Document, left: Path, op: Op, right: Path) -> bool:
    # Two fields that are both missing are not thereby equal: nobody's document would be everybody's.
    others = [value for value in candidates(document, right.segments) if value is not MISSING]
    return any(
        value is not MISSING and compared(op, value, other)
        for value in candidates(document, left.segments)
        for other in others
    )
