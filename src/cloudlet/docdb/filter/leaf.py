"""Tests of one value, made from operands. An array is one value here: who takes it apart is ``match.py``."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Final

from cloudlet.docdb.filter.ast import BitOp, Bits, Compare, In, Mod, Op
from cloudlet.docdb.filter.regex import compile_regex
from cloudlet.docdb.limits import Overrun
from cloudlet.docdb.numeric import NUMBERS, is_nan, truncated_64, whole_64
from cloudlet.docdb.paths import Test
from cloudlet.docdb.values import (
    MISSING,
    Binary,
    ObjectId,
    OrderKey,
    Rank,
    Regex,
    Value,
    order_key,
    rank,
    type_name,
)

_TEXT: Final[frozenset[type]] = frozenset({str})
_DATE: Final[frozenset[type]] = frozenset({datetime})
_SELF_EQUAL: Final = frozenset({str, datetime, ObjectId})


def compare_test(node: Compare) -> Test:
    """The test of a comparison."""
    return equal_test(node.value) if node.op is Op.EQ else _ordered_test(node.op, node.value)


def is_plain(operand: Value) -> bool:
    """Whether Python's ``==`` with the operand is already what equality of values means."""
    kind = type(operand)
    # 0 and 1 are equal to booleans in Python.
    return kind in _SELF_EQUAL or (kind in NUMBERS and operand == operand and operand not in (0, 1))


def equal_test(operand: Value) -> Test:
    """Equality with the operand; null is also what is missing."""
    if is_plain(operand):
        return lambda value: value == operand
    if type(operand) is bool:
        return lambda value: value is operand
    if type(operand) in NUMBERS and not is_nan(operand):
        return lambda value: type(value) in NUMBERS and value == operand
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
    if operand is None or is_nan(operand):
        # Null and not-a-number equal themselves and are neither above nor below it.
        return equal_test(operand) if op in (Op.GTE, Op.LTE) else _never
    kinds = _kinds(operand)
    if kinds is not None:
        return _bound_test(op, operand, kinds)
    wanted, operation, bracket = order_key(operand), _OPERATIONS[op], rank(operand)
    return lambda value: rank(value) == bracket and operation(order_key(value), wanted)


def _never(_value: Value) -> bool:
    return False


def _kinds(operand: Value) -> frozenset[type] | None:
    """The types of the operand's bracket if Python orders them as MongoDB does.

    Comparisons with not-a-number are false in Python, as they should be here.
    """
    kind = type(operand)
    return _TEXT if kind is str else NUMBERS if kind in NUMBERS else _DATE if kind is datetime else None


def _bound_test(op: Op, operand: Value, kinds: frozenset[type]) -> Test:
    if op is Op.GT:
        return lambda value: type(value) in kinds and value > operand
    if op is Op.GTE:
        return lambda value: type(value) in kinds and value >= operand
    if op is Op.LT:
        return lambda value: type(value) in kinds and value < operand
    return lambda value: type(value) in kinds and value <= operand


def between_test(one: Compare, other: Compare) -> Test | None:
    """One test for a lower and an upper bound of the same bracket, or None if they are not that."""
    low, high = (one, other) if one.op in (Op.GT, Op.GTE) else (other, one)
    if low.op not in (Op.GT, Op.GTE) or high.op not in (Op.LT, Op.LTE):
        return None
    kinds = _kinds(low.value)
    if kinds is None or kinds is not _kinds(high.value) or is_nan(low.value) or is_nan(high.value):
        return None
    bottom, top = low.value, high.value
    if low.op is Op.GTE:
        if high.op is Op.LT:
            return lambda value: type(value) in kinds and bottom <= value < top
        return lambda value: type(value) in kinds and bottom <= value <= top
    if high.op is Op.LT:
        return lambda value: type(value) in kinds and bottom < value < top
    return lambda value: type(value) in kinds and bottom < value <= top


def in_test(node: In, subject_max: int | None) -> Test:
    """Equality with one of many values (hashed), or a match of one of the patterns."""
    among = _among(node.values)
    tests = [regex_test(pattern, subject_max) for pattern in node.patterns]
    if among is None:
        return tests[0] if len(tests) == 1 else _any_of(tests)
    return _any_of([among, *tests]) if tests else among


def _any_of(tests: list[Test]) -> Test:
    def some(value: Value) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would cost a frame per value
            if test(value):
                return True
        return False

    return some


def _among(values: tuple[Value, ...]) -> Test | None:
    if not values:
        return None
    texts = frozenset(value for value in values if type(value) is str)
    if len(texts) == len(values) or all(type(value) is str for value in values):
        return lambda value: type(value) is str and value in texts
    numbers = frozenset(value for value in values if type(value) in NUMBERS and value == value)
    rest = [value for value in values if type(value) is not str and type(value) not in NUMBERS]
    rest += [value for value in values if is_nan(value)][:1]
    keys = frozenset(map(order_key, rest))

    def among(value: Value) -> bool:
        kind = type(value)
        if kind is str:
            return value in texts
        if kind in NUMBERS and value == value:
            return value in numbers
        return order_key(value) in keys

    return among


def regex_test(regex: Regex, subject_max: int | None) -> Test:
    """A text in which the pattern is found, or the same pattern as a value.

    Raises Overrun before searching a text longer than ``subject_max``.
    """
    search = compile_regex(regex).search
    longest = math.inf if subject_max is None else subject_max

    def test(value: Value) -> bool:
        if type(value) is str:
            if len(value) > longest:
                raise Overrun("a regular expression on a long text")
            return search(value) is not None
        return value == regex if type(value) is Regex else False

    return test


def mod_test(node: Mod) -> Test:
    """The remainder of a number that is cut to a 64-bit integer first."""
    divisor, remainder = abs(node.divisor), node.remainder

    def test(value: Value) -> bool:
        whole = value if type(value) is int else truncated_64(value)
        if whole is None:
            return False
        return (whole % divisor if whole >= 0 else -(-whole % divisor)) == remainder

    return test


def type_test(names: frozenset[str]) -> Test:
    """A value (not a missing one) of one of the types."""
    any_number = "number" in names

    def test(value: Value) -> bool:
        if value is MISSING:
            return False
        return type_name(value) in names or (any_number and rank(value) == Rank.NUMBER)

    return test


def bits_test(node: Bits) -> Test:
    """Bits of a 64-bit integer (bits above it repeat its sign) or of bytes (bits behind them are clear)."""
    mask = 0
    for position in node.positions:
        mask |= 1 << min(position, 63)
    positions, decide = node.positions, _BIT_DECISIONS[node.op]

    def test(value: Value) -> bool:
        if type(value) is bytes or type(value) is Binary:
            raw = value if isinstance(value, bytes) else value.raw
            inside = [position for position in positions if position < 8 * len(raw)]
            present = sum(raw[position >> 3] >> (position & 7) & 1 for position in inside)
            return decide(present, len(positions))
        whole = whole_64(value)
        if whole is None:
            return False
        return decide((whole & mask).bit_count(), mask.bit_count())

    return test


_BIT_DECISIONS: Final[dict[BitOp, Callable[[int, int], bool]]] = {
    BitOp.ALL_SET: lambda present, asked: present == asked,
    BitOp.ALL_CLEAR: lambda present, asked: present == 0,
    BitOp.ANY_SET: lambda present, asked: present > 0,
    BitOp.ANY_CLEAR: lambda present, asked: present < asked,
}
