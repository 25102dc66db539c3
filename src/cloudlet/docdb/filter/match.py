"""From the tree to one closure that says whether a document matches."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeAlias

from cloudlet.docdb.filter.ast import (
    And,
    Compare,
    ElemMatch,
    Exists,
    In,
    Mod,
    Node,
    Not,
    Op,
    Or,
    Path,
    Size,
    TypeIs,
)
from cloudlet.docdb.filter.regex import compile_regex
from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX, Overrun
from cloudlet.docdb.paths import resolve
from cloudlet.docdb.values import (
    MISSING,
    Document,
    Missing,
    OrderKey,
    Rank,
    Regex,
    Value,
    order_key,
    rank,
    type_name,
)

Matcher: TypeAlias = Callable[[Document], bool]
Test: TypeAlias = Callable[[Value], bool]
"""A test of one value, which may be MISSING. Arrays are not taken apart by it."""


def compile_node(node: Node, subject_max: int | None = PATTERN_SUBJECT_MAX) -> Matcher:
    """The matcher of documents. It raises Overrun before searching a text longer than ``subject_max``."""
    match node:
        case And(children):
            return _all([compile_node(child, subject_max) for child in children])
        case Or(children):
            return _any([compile_node(child, subject_max) for child in children])
        case Not(child):
            inner = compile_node(child, subject_max)
            return lambda document: not inner(document)
        case _:
            return _at_path(
                node.path,
                value_test(node, subject_max),
                expand=not isinstance(node, Exists | Size | ElemMatch),
            )


def value_test(node: Node, subject_max: int | None = PATTERN_SUBJECT_MAX) -> Test:
    """The test of one value, without the way to it. Logical nodes test the same value with every child."""
    match node:
        case And(children):
            return _all([value_test(child, subject_max) for child in children])
        case Or(children):
            return _any([value_test(child, subject_max) for child in children])
        case Not(child):
            inner = value_test(child, subject_max)
            return lambda value: not inner(value)
        case Compare(_, op, operand):
            return _equal_test(operand) if op is Op.EQ else _ordered_test(op, operand)
        case In(_, values, patterns):
            return _in_test(values, patterns, subject_max)
        case Exists():
            return lambda value: value is not MISSING
        case Size(_, size):
            return lambda value: type(value) is list and len(value) == size
        case Mod(_, divisor, remainder):
            return _mod_test(divisor, remainder)
        case TypeIs(_, names):
            return _type_test(names)
        case ElemMatch(_, child, of_objects):
            return _element_test(child, of_objects, subject_max)


def _all(tests: list[Test]) -> Test:
    if not tests:
        return lambda _: True
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda value: first(value) and second(value)

    def every(value: Value) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would cost a frame per document
            if not test(value):
                return False
        return True

    return every


def _any(tests: list[Test]) -> Test:
    def some(value: Value) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would cost a frame per document
            if test(value):
                return True
        return False

    return some


def _at_path(path: Path, test: Test, expand: bool) -> Matcher:
    """Apply a test where a path leads; arrays found there are tested element by element and as a whole."""
    at_leaf = _expanded(test) if expand else test
    if len(path.segments) == 1:
        name = path.text
        return lambda document: at_leaf(document.get(name, MISSING))
    segments = path.segments

    def match(document: Document) -> bool:
        for value in resolve(document, segments):  # noqa: SIM110 - see _all
            if at_leaf(value):
                return True
        return False

    return match


def _expanded(test: Test) -> Test:
    def match(value: Value) -> bool:
        if type(value) is list:
            for item in value:
                if test(item):
                    return True
        return test(value)

    return match


def _equal_test(operand: Value) -> Test:
    kind = type(operand)
    if kind is str or kind is datetime:
        return lambda value: type(value) is kind and value == operand
    if kind is bool:
        return lambda value: value is operand
    if kind is int or (kind is float and not math.isnan(operand)):
        return lambda value: (type(value) is int or type(value) is float) and value == operand
    if operand is None:
        return lambda value: value is None or value is MISSING
    wanted = order_key(operand)
    bracket = wanted[0]
    return lambda value: rank(value) == bracket and order_key(value) == wanted


_OPERATIONS: Final[dict[Op, Callable[[OrderKey, OrderKey], bool]]] = {
    Op.GT: lambda a, b: a > b,
    Op.GTE: lambda a, b: a >= b,
    Op.LT: lambda a, b: a < b,
    Op.LTE: lambda a, b: a <= b,
}


def _ordered_test(op: Op, operand: Value) -> Test:
    kind = type(operand)
    if operand is None:
        # Null equals null and is neither above nor below it.
        return _equal_test(None) if op in (Op.GTE, Op.LTE) else lambda _: False
    if kind is float and math.isnan(operand):
        return _equal_test(operand) if op in (Op.GTE, Op.LTE) else lambda _: False
    if kind is int or kind is float:
        return _number_test(op, operand)
    if kind is str or kind is datetime:
        return _plain_test(op, operand)
    wanted, operation, bracket = order_key(operand), _OPERATIONS[op], rank(operand)
    return lambda value: rank(value) == bracket and operation(order_key(value), wanted)


def _number_test(op: Op, operand: int | float) -> Test:
    # Comparisons with not-a-number are false, as they should be here.
    if op is Op.GT:
        return lambda value: (type(value) is int or type(value) is float) and value > operand
    if op is Op.GTE:
        return lambda value: (type(value) is int or type(value) is float) and value >= operand
    if op is Op.LT:
        return lambda value: (type(value) is int or type(value) is float) and value < operand
    return lambda value: (type(value) is int or type(value) is float) and value <= operand


def _plain_test(op: Op, operand: Value) -> Test:
    kind = type(operand)
    if op is Op.GT:
        return lambda value: type(value) is kind and value > operand
    if op is Op.GTE:
        return lambda value: type(value) is kind and value >= operand
    if op is Op.LT:
        return lambda value: type(value) is kind and value < operand
    return lambda value: type(value) is kind and value <= operand


def _in_test(values: tuple[Value, ...], patterns: tuple[Regex, ...], subject_max: int | None) -> Test:
    tests: list[Test] = [_regex_test(pattern, subject_max) for pattern in patterns]
    if values:
        keys = frozenset(order_key(value) for value in values)
        tests.insert(0, lambda value: order_key(value) in keys)
    return tests[0] if len(tests) == 1 else _any(tests)


def _regex_test(regex: Regex, subject_max: int | None) -> Test:
    search = compile_regex(regex).search
    longest = math.inf if subject_max is None else subject_max

    def test(value: Value) -> bool:
        if type(value) is str:
            if len(value) > longest:
                raise Overrun("a regular expression on a long text")
            return search(value) is not None
        return value == regex if type(value) is Regex else False

    return test


def _mod_test(divisor: int, remainder: int) -> Test:
    def test(value: Value) -> bool:
        if type(value) is float and math.isfinite(value):
            value = int(value)
        if type(value) is not int:
            return False
        return (abs(value) % abs(divisor)) * (-1 if value < 0 else 1) == remainder

    return test


def _type_test(names: frozenset[str]) -> Test:
    def test(value: Value) -> bool:
        if type(value) is Missing:
            return False
        return type_name(value) in names or ("number" in names and rank(value) == Rank.NUMBER)

    return test


def _element_test(child: Node, of_objects: bool, subject_max: int | None) -> Test:
    test = compile_node(child, subject_max) if of_objects else value_test(child, subject_max)

    def match(value: Value) -> bool:
        if type(value) is not list:
            return False
        return any((not of_objects or type(item) is dict) and test(item) for item in value)

    return match
