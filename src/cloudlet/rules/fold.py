"""Computing what can be known of a rule: variables and documents put in, the rest left as a smaller tree.

What has no value (a field of null, a sum of objects) is Broken, and stays so under ``!``: a rule never holds
because something was not there. ``||`` and ``&&`` look at all their operands, so their order does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from cloudlet.rules.ast import (
    ABSENT,
    LOGICAL,
    Add,
    And,
    Broken,
    Compare,
    Expr,
    Get,
    In,
    Instant,
    Items,
    Known,
    Member,
    Name,
    Not,
    Operator,
    Or,
    Span,
    Test,
    member_path,
)

TEXT_MAX: Final = 2_048
"""Characters of a text put together by a rule."""


class Semantics(Protocol):
    """How values of one service compare. ABSENT never gets here, and numbers are Python's."""

    def equal(self, a: Any, b: Any) -> bool:
        """Whether the two are the same value."""
        ...

    def order(self, a: Any, b: Any) -> int | None:
        """-1, 0 or 1; None for values that have no order between them."""
        ...

    def finds(self, pattern: str, options: str, subject: str) -> bool:
        """Whether a (checked) regular expression finds something."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """What is known while a rule is looked at.

    Variables that are missing stay in the tree. ``pinned`` gives fields of such a variable that ``get()`` may
    use. ``fetch`` gives the document at a path (None if there is none) and may raise.
    """

    semantics: Semantics
    variables: Mapping[str, Any]
    fetch: Callable[[str], Any] = lambda _path: None
    pinned: Mapping[tuple[str, ...], Any] = field(default_factory=dict)


def holds(expr: Expr, scope: Scope) -> bool:
    """Whether a rule all of whose variables are known holds."""
    result = fold(expr, scope)
    return isinstance(result, Known) and truthy(result.value)


def truthy(value: Any) -> bool:
    """JavaScript's notion, for ``&&``, ``||``, ``!`` and the whole rule."""
    if value is None or value is ABSENT or value is False or value == "":
        return False
    return not (isinstance(value, int | float) and (value == 0 or value != value))


def fold(expr: Expr, scope: Scope) -> Expr:
    """The expression with everything computed that can be."""
    return _Folding(scope, inside_get=False).expr(expr)


@dataclass(frozen=True, slots=True)
class _Folding:
    scope: Scope
    inside_get: bool

    def expr(self, expr: Expr) -> Expr:
        match expr:
            case Known() | Broken():
                return expr
            case Name(name, span):
                known = name in self.scope.variables
                return Known(self.scope.variables[name], span) if known else expr
            case Items():
                return self.items(expr)
            case Member():
                return self.member(expr)
            case Get():
                return self.get(expr)
            case Add():
                return self.add(expr)
            case Not(operand, span):
                return _negated(self.expr(operand), span)
            case And(operands, span):
                return _joined([self.expr(item) for item in operands], span, all_of=True)
            case Or(operands, span):
                return _joined([self.expr(item) for item in operands], span, all_of=False)
            case Compare():
                return self.compare(expr)
            case In():
                return self.is_in(expr)
            case Test():
                return self.test(expr)

    def items(self, expr: Items) -> Expr:
        found = [self.expr(item) for item in expr.items]
        for item in found:
            if isinstance(item, Broken):
                return item
        if all(isinstance(item, Known) for item in found):
            known = [item for item in found if isinstance(item, Known)]
            values = [None if item.value is ABSENT else item.value for item in known]
            return Known(values, expr.span, all(item.written for item in known))
        return Items(tuple(found), expr.span)

    def member(self, expr: Member) -> Expr:
        below, key = self.expr(expr.object), self.expr(expr.key)
        if isinstance(below, Broken):
            return below
        if not isinstance(key, Known):
            reason = key.reason if isinstance(key, Broken) else "a field name cannot depend on the document"
            return Broken(reason, expr.span)
        if type(key.value) not in (str, int):
            return Broken("a field name has to be text or a whole number", expr.span)
        if isinstance(below, Known):
            return _field(below.value, key.value, expr.span)
        reduced = Member(below, key, expr.span)
        path = member_path(reduced)
        pinned = self.scope.pinned if self.inside_get else {}
        if path is not None and path[1] in pinned:
            return Known(pinned[path[1]], expr.span)
        return reduced

    def get(self, expr: Get) -> Expr:
        path = replace(self, inside_get=True).expr(expr.path)
        if isinstance(path, Broken):
            return path
        if not isinstance(path, Known):
            return Broken(
                "get() uses a field of the document that the query does not fix with == or one value of in",
                expr.span,
            )
        if type(path.value) is not str:
            return Broken("get() needs a text such as 'database.collection.id'", expr.span)
        return Known(self.scope.fetch(path.value), expr.span)

    def add(self, expr: Add) -> Expr:
        left, right = self.expr(expr.left), self.expr(expr.right)
        for side in (left, right):
            if isinstance(side, Broken):
                return side
        if not isinstance(left, Known) or not isinstance(right, Known):
            return Add(left, right, expr.span, expr.text)
        return _sum(left.value, right.value, expr)

    def compare(self, expr: Compare) -> Expr:
        left, right = self.expr(expr.left), self.expr(expr.right)
        for side in (left, right):
            if isinstance(side, Broken):
                return side
        if isinstance(left, Known) and isinstance(right, Known):
            if _absent(left) and _absent(right):
                return Broken("both sides are undefined", expr.span)
            return Known(self.compared(expr.operator, left.value, right.value), expr.span)
        if (flag := _flag(expr.operator, left, right, expr.span)) is not None:
            return flag
        for side, other in ((left, right), (right, left)):
            if _absent(side):
                return Broken("the value to compare with is undefined", side.span)
            if isinstance(other, LOGICAL) and isinstance(side, Known):
                return Broken("a condition can only be compared with true or false", expr.span)
        return Compare(expr.operator, left, right, expr.span)

    def compared(self, operator: Operator, left: Any, right: Any) -> bool:
        if operator in (Operator.EQ, Operator.NE):
            return self.equal(left, right) == (operator is Operator.EQ)
        if left is None or right is None or left is ABSENT or right is ABSENT:
            return False
        order = self.scope.semantics.order(left, right)
        return order is not None and compares(operator, order)

    def equal(self, left: Any, right: Any) -> bool:
        left, right = (None if value is ABSENT else value for value in (left, right))
        if left is None or right is None:
            return left is right
        return self.scope.semantics.equal(left, right)

    def is_in(self, expr: In) -> Expr:
        left, right = self.expr(expr.left), self.expr(expr.right)
        for side in (left, right):
            if isinstance(side, Broken):
                return side
        if isinstance(right, Known):
            if type(right.value) is dict:
                right = Known(list(right.value), right.span)
            elif type(right.value) is not list:
                return Broken("the right side of in is neither a list nor an object", right.span)
        if not isinstance(left, Known):
            return In(left, right, expr.span)
        if not isinstance(right, Known):
            return (
                Broken("the value to look for is undefined", left.span)
                if _absent(left)
                else In(left, right, expr.span)
            )
        if _absent(left) and not right.written and None in right.value:
            return Broken("the value to look for is undefined", left.span)
        return Known(any(self.equal(left.value, item) for item in right.value), expr.span)

    def test(self, expr: Test) -> Expr:
        subject = self.expr(expr.subject)
        if isinstance(subject, Known):
            text = subject.value
            found = type(text) is str and self.scope.semantics.finds(expr.pattern, expr.options, text)
            return Known(found, expr.span)
        return subject if isinstance(subject, Broken) else replace(expr, subject=subject)


def compares(operator: Operator, order: int) -> bool:
    """Whether values in this order (-1, 0, 1) are as the operator says."""
    match operator:
        case Operator.EQ:
            return order == 0
        case Operator.NE:
            return order != 0
        case Operator.GT:
            return order > 0
        case Operator.GE:
            return order >= 0
        case Operator.LT:
            return order < 0
        case Operator.LE:
            return order <= 0


def _absent(expr: Expr) -> bool:
    return isinstance(expr, Known) and expr.value is ABSENT


def _flag(operator: Operator, left: Expr, right: Expr, span: Span) -> Expr | None:
    """``condition == true`` is the condition, ``== false`` its opposite."""
    if operator not in (Operator.EQ, Operator.NE):
        return None
    for side, other in ((left, right), (right, left)):
        if isinstance(side, Known) and type(side.value) is bool and isinstance(other, LOGICAL):
            return other if side.value == (operator is Operator.EQ) else Not(other, span)
    return None


def _negated(operand: Expr, span: Span) -> Expr:
    if isinstance(operand, Known):
        return Known(not truthy(operand.value), span)
    return operand if isinstance(operand, Broken) else Not(operand, span)


def _joined(operands: list[Expr], span: Span, all_of: bool) -> Expr:
    """Three-valued: one false operand decides ``&&`` and a true one ``||``, whatever is broken beside it."""
    left: list[Expr] = []
    for item in operands:
        if not isinstance(item, Known):
            left.append(item)
        elif truthy(item.value) != all_of:
            return Known(not all_of, item.span)
    if not left:
        return Known(all_of, span)
    if len(left) == 1:
        return left[0]
    return And(tuple(left), span) if all_of else Or(tuple(left), span)


def _field(value: Any, key: str | int, span: Span) -> Expr:
    if value is None or value is ABSENT:
        return Broken(f"{key} is a field of something that is null or undefined", span)
    if type(value) is dict:
        found = value.get(str(key), ABSENT)
        return Known(found, span)
    if type(value) is list and str(key).isdecimal() and len(str(key)) < 8 and int(key) < len(value):
        return Known(value[int(key)], span)
    return Known(ABSENT, span)


def _sum(left: Any, right: Any, expr: Add) -> Expr:
    if _is_number(left) and _is_number(right) and not expr.text:
        total = left + right
        # A moment shifted by a number of milliseconds is still a moment.
        moment = type(total) is int and Instant in (type(left), type(right))
        return Known(Instant(total) if moment else total, expr.span)
    texts = [_text(left), _text(right)]
    if None in texts or not (expr.text or str in (type(left), type(right))):
        return Broken("only texts and numbers can be put together with + or a template", expr.span)
    joined = "".join(text for text in texts if text is not None)
    if len(joined) > TEXT_MAX:
        return Broken(f"a text put together has more than {TEXT_MAX} characters", expr.span)
    return Known(joined, expr.span)


def _text(value: Any) -> str | None:
    """A text or number as JavaScript would write it; None for anything else."""
    if type(value) is str:
        return value
    if type(value) is float:
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    return str(int(value)) if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool
