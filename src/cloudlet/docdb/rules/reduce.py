"""From a rule expression and one caller's request to the goal a document has to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from cloudlet.docdb.filter import ast as filters
from cloudlet.docdb.filter.regex import compile_regex
from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX
from cloudlet.docdb.paths import split_path
from cloudlet.docdb.rules.goals import ALWAYS, All, Goal, Leaf, Never, Pair, Some, opposite
from cloudlet.docdb.values import Regex, Value, date_from_ms, date_to_ms, equals, order_key, rank
from cloudlet.model.errors import InvalidRequest
from cloudlet.rules.ast import (
    ABSENT,
    And,
    Broken,
    Compare,
    Expr,
    In,
    Instant,
    Items,
    Known,
    Not,
    Operator,
    Or,
    Span,
    Test,
    member_path,
)
from cloudlet.rules.fold import Scope, fold, truthy

DOCUMENT: Final = "doc"
_OPS: Final = {
    Operator.GT: filters.Op.GT,
    Operator.GE: filters.Op.GTE,
    Operator.LT: filters.Op.LT,
    Operator.LE: filters.Op.LTE,
}
_MIRRORED: Final = {
    Operator.EQ: Operator.EQ,
    Operator.NE: Operator.NE,
    Operator.GT: Operator.LT,
    Operator.GE: Operator.LE,
    Operator.LT: Operator.GT,
    Operator.LE: Operator.GE,
}
_FALSY: Final = (None, False, 0, "")


class DocumentSemantics:
    """Values compare as in queries; ``now`` compares with numbers and dates."""

    def equal(self, a: Any, b: Any) -> bool:
        left, right = _comparable(a, b)
        return equals(left, right)

    def order(self, a: Any, b: Any) -> int | None:
        left, right = _comparable(a, b)
        if rank(left) != rank(right):
            return None
        one, other = order_key(left), order_key(right)
        return (one > other) - (one < other)

    def finds(self, pattern: str, options: str, subject: str) -> bool:
        if len(subject) > PATTERN_SUBJECT_MAX:
            return False
        return compile_regex(Regex(pattern, options)).search(subject) is not None


SEMANTICS: Final = DocumentSemantics()


class Request(msgspec.Struct, frozen=True):
    """What a rule may look at besides the document."""

    auth: Mapping[str, Any] | None
    now_ms: int
    data: Mapping[str, Any] | None = None
    """The written data, or None."""


def goal_for(
    expr: Expr,
    request: Request,
    fetch: Callable[[str], Any],
    pinned: Mapping[tuple[str, ...], Value],
) -> Goal:
    """What a document has to reach for the rule to hold. ``pinned``: fields of the document that ``get()``
    may use. Raises what ``fetch`` raises.
    """
    variables = {
        "auth": request.auth,
        "now": Instant(request.now_ms),
        "request": {} if request.data is None else {"data": request.data},
    }
    return _goal(fold(expr, Scope(SEMANTICS, variables, fetch, pinned)), True)


def _goal(expr: Expr, positive: bool) -> Goal:
    match expr:
        case Known(value, span):
            return ALWAYS if truthy(value) == positive else Never("it is false for this caller", span)
        case Broken(reason, span):
            return Never(reason, span)
        case Not(operand):
            return _goal(operand, not positive)
        case And(operands) | Or(operands):
            parts = tuple(_goal(operand, positive) for operand in operands)
            return All(parts) if isinstance(expr, And) == positive else Some(parts)
        case Compare(Operator.NE, left, right, span):
            return _comparison(Operator.EQ, left, right, span, not positive)
        case Compare(operator, left, right, span):
            return _comparison(operator, left, right, span, positive)
        case In(left, right, span):
            return _membership(left, right, span, positive)
        case Test(pattern, options, subject, span):
            path = _path(subject)
            if isinstance(path, Never):
                return path
            return Leaf(filters.In(path, (), (Regex(pattern, options),)), positive, span)
        case _:
            path = _path(expr)
            if isinstance(path, Never):
                return path
            # Neither a value like "no" nor an object is taken for true or for false.
            values = (True,) if positive else _FALSY
            return Leaf(filters.In(path, values), True, expr.span)


def _comparison(operator: Operator, left: Expr, right: Expr, span: Span, positive: bool) -> Goal:
    if isinstance(left, Known):
        return _comparison(_MIRRORED[operator], right, left, span, positive)
    path = _path(left)
    if isinstance(path, Never):
        return path
    if not isinstance(right, Known):
        other = _path(right)
        if isinstance(other, Never):
            return other
        return Pair(path, _OPS.get(operator, filters.Op.EQ), other, positive, span)
    if right.value is ABSENT:
        return Never("the value to compare with is undefined", span)
    op = _OPS.get(operator, filters.Op.EQ)
    return _signed([filters.Compare(path, op, value) for value in _values(right.value)], span, positive)


def _membership(left: Expr, right: Expr, span: Span, positive: bool) -> Goal:
    if isinstance(right, Known):
        path = _path(left)
        if isinstance(path, Never):
            return path
        values = tuple(value for item in right.value for value in _values(item))
        if not values:
            return Never("the list is empty", span) if positive else ALWAYS
        return _signed([filters.In(path, values)], span, positive)
    if isinstance(right, Items):
        parts = [_one_of_items(left, item, span) for item in right.items]
        if any(isinstance(part, Never) for part in parts) and not positive:
            return next(part for part in parts if isinstance(part, Never))
        found = Some(tuple(parts))
        return found if positive else opposite(found)
    return _comparison(Operator.EQ, right, left, span, positive)


def _one_of_items(left: Expr, item: Expr, span: Span) -> Goal:
    if isinstance(left, Known) and isinstance(item, Known):
        if item.value is ABSENT:
            return Never("the value to compare with is undefined", span)
        none = left.value is None or item.value is None
        same = left.value is item.value if none else SEMANTICS.equal(left.value, item.value)
        return ALWAYS if same else Some()
    return _comparison(Operator.EQ, left, item, span, True)


def _signed(nodes: list[filters.Node], span: Span, positive: bool) -> Goal:
    """One of the conditions, or none of them."""
    if len(nodes) == 1:
        return Leaf(nodes[0], positive, span)
    parts = tuple(Leaf(node, positive, span) for node in nodes)
    return Some(parts) if positive else All(parts)


def _path(expr: Expr) -> filters.Path | Never:
    """The path of a field of the document, or why this is none."""
    if isinstance(expr, Broken):
        return Never(expr.reason, expr.span)
    found = member_path(expr)
    if found is None:
        return Never("only fields of doc and known values can be compared", expr.span)
    names = found[1]
    if not names:
        return Never("compare a field of doc, such as doc._openid", expr.span)
    text = ".".join(names)
    if any("." in name or name.startswith("$") for name in names):
        return Never("a field name holds a dot or begins with $", expr.span)
    try:
        return filters.Path(text, split_path(text, InvalidRequest))
    except InvalidRequest as exc:
        return Never(exc.message, expr.span)


def _values(value: Value) -> list[Value]:
    """The stored values a known value may be equal to: ``now`` stands for a number and for a date."""
    if isinstance(value, Instant):
        dates = [date_from_ms(int(value))] if abs(value) < 2**47 else []
        return [int(value), *dates]
    return [_plain(value)]


def _plain(value: Value) -> Value:
    if isinstance(value, Instant):
        return int(value)
    if type(value) is list:
        return [_plain(item) for item in value]
    return value


def _comparable(a: Value, b: Value) -> tuple[Value, Value]:
    """Two values without Instants; one that meets a date becomes a number together with the date."""
    if isinstance(a, Instant) and type(b) is datetime:
        return int(a), date_to_ms(b)
    if isinstance(b, Instant) and type(a) is datetime:
        return date_to_ms(a), int(b)
    return _plain(a), _plain(b)
