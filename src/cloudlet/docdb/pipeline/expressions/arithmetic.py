"""Arithmetic, with MongoDB's result types: int, long, double or decimal, whichever operand has the highest.

Integers that no longer fit become the next type; null and missing operands make the result null.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Final

from cloudlet.docdb.numeric import CONTEXT
from cloudlet.docdb.pipeline.expressions.base import (
    Builder,
    Compiler,
    Constant,
    Expression,
    binary,
    kind_name,
    nullish,
    refused,
    shown,
    unary,
    variadic,
)
from cloudlet.docdb.pipeline.expressions.numbers import (
    DECIMAL,
    DOUBLE,
    INT,
    LONG,
    NONE,
    as_decimal,
    as_float,
    decimal,
    fits,
    integral,
    number_kind,
    rounded,
    total,
    whole,
    whole_number,
)
from cloudlet.docdb.values import INT64_MIN, Value, date_from_ms, date_to_ms
from cloudlet.model.errors import InvalidFilter

PLACES_MIN, PLACES_MAX = -20, 100


def add(*values: Value) -> Value:
    """The sum of numbers; one of them may be a date, to which milliseconds are added."""
    if len(values) == 2 and type(values[0]) is int and type(values[1]) is int:
        found = values[0] + values[1]
        return found if fits(found) else float(found)
    date: datetime | None = None
    numbers: list[Value] = []
    for value in values:
        if nullish(value):
            return None
        if type(value) is datetime:
            if date is not None:
                raise refused(16612, "only one date allowed in an $add expression")
            date = value
        elif number_kind(value):
            numbers.append(value)
        else:
            raise refused(16554, f"$add only supports numeric or date types, not {kind_name(value)}")
    found = total(numbers).result()
    return found if date is None else _moved(date, found)


def subtract(left: Value, right: Value) -> Value:
    """The difference of numbers, of dates (in milliseconds), or a date some milliseconds earlier."""
    if type(left) is int and type(right) is int:
        difference = left - right
        return difference if fits(difference) else float(left) - float(right)
    if nullish(left) or nullish(right):
        return None
    if type(left) is datetime:
        if type(right) is datetime:
            return whole(date_to_ms(left) - date_to_ms(right), LONG)
        if number_kind(right):
            return _moved(left, multiply(right, -1))
    kind = _common(left, right)
    if not kind:
        raise refused(14, f"can't $subtract {kind_name(right)} from {kind_name(left)}")
    if kind == DECIMAL:
        return decimal(CONTEXT.subtract(as_decimal(left), as_decimal(right)))
    if kind == DOUBLE:
        return as_float(left) - as_float(right)
    difference = int(left) - int(right)
    return whole(difference, kind) if fits(difference) else float(left) - float(right)


def multiply(*values: Value) -> Value:
    """The product of numbers."""
    kind = INT
    for value in values:
        if nullish(value):
            return None
        if not number_kind(value):
            raise refused(16555, f"$multiply only supports numeric types, not {kind_name(value)}")
        kind = max(kind, number_kind(value))
    if kind == DECIMAL:
        product = Decimal(1)
        for value in values:
            product = CONTEXT.multiply(product, as_decimal(value))
        return decimal(product)
    if kind == DOUBLE:
        return math.prod(as_float(value) for value in values)
    exact = math.prod(int(value) for value in values)
    return whole(exact, kind) if fits(exact) else _clamped_float(exact)


def divide(left: Value, right: Value) -> Value:
    """The quotient, always a double or a decimal."""
    if nullish(left) or nullish(right):
        return None
    kind = _common(left, right)
    if not kind:
        raise refused(
            14, f"$divide only supports numeric types, not {kind_name(left)} and {kind_name(right)}"
        )
    if as_float(right) == 0:
        raise refused(2, "can't $divide by zero")
    if kind == DECIMAL:
        return decimal(CONTEXT.divide(as_decimal(left), as_decimal(right)))
    return _quotient(as_float(left), as_float(right))


def modulo(left: Value, right: Value) -> Value:
    """The remainder, with the sign of the dividend."""
    if nullish(left) or nullish(right):
        return None
    kind = _common(left, right)
    if not kind:
        raise refused(
            16611, f"$mod only supports numeric types, not {kind_name(left)} and {kind_name(right)}"
        )
    if as_float(right) == 0:
        raise refused(16610, "can't $mod by zero")
    if kind == DECIMAL:
        return decimal(CONTEXT.remainder(as_decimal(left), as_decimal(right)))
    if kind == DOUBLE:
        return _float_remainder(as_float(left), as_float(right))
    return whole(int(math.copysign(1, left)) * (abs(int(left)) % abs(int(right))), kind)


def absolute(value: Value) -> Value:
    """The size of a number."""
    kind = number_kind(value)
    if kind == DECIMAL:
        return decimal(abs(as_decimal(value)))
    if kind in (INT, LONG):
        if value == INT64_MIN:
            raise refused(28680, "can't take $abs of long long min")
        return whole(abs(int(value)), kind)
    return abs(float(value))


def _ceil(value: Value) -> Value:
    return _to_whole(value, math.ceil, "ROUND_CEILING")


def _floor(value: Value) -> Value:
    return _to_whole(value, math.floor, "ROUND_FLOOR")


def _to_whole(value: Value, function: Callable[[float], int], rounding: str) -> Value:
    kind = number_kind(value)
    if kind == DECIMAL:
        number = as_decimal(value)
        return decimal(number.to_integral_value(rounding=rounding)) if number.is_finite() else value
    if kind == DOUBLE:
        return float(function(value)) if math.isfinite(value) else value
    return value


def _rounding(name: str, mode: str) -> Builder:
    def function(value: Value, place: Value = 0) -> Value:
        if nullish(value) or nullish(place):
            return None
        kind = number_kind(value)
        if not kind:
            raise refused(51081, f"{name} only supports numeric types, not {kind_name(value)}")
        places = whole_number(place, 51082, f"the precision of {name}")
        if not PLACES_MIN <= places <= PLACES_MAX:
            raise refused(
                51083, f"cannot apply {name} with precision value {places}: use {PLACES_MIN} to {PLACES_MAX}"
            )
        if kind in (INT, LONG):
            if places >= 0:
                return value
            number = int(rounded(Decimal(int(value)), places, mode))
            return whole(number, kind) if fits(number) else float(number)
        if kind == DECIMAL:
            number_ = as_decimal(value)
            return decimal(rounded(number_, places, mode)) if number_.is_finite() else value
        # The digits a double has exactly decide, as in MongoDB (2.675 is a little less than it looks).
        return float(rounded(Decimal(value), places, mode)) if math.isfinite(value) else value

    return variadic(function, 1, 2)


def power(base: Value, exponent: Value) -> Value:
    """An integer if both are and it fits, otherwise a double (or a decimal)."""
    if nullish(base) or nullish(exponent):
        return None
    for value, what, code in ((base, "base", 28762), (exponent, "exponent", 28763)):
        if not number_kind(value):
            raise refused(code, f"$pow's {what} must be numeric, not {kind_name(value)}")
    if as_float(base) == 0 and as_float(exponent) < 0:
        raise refused(28764, "$pow cannot take a base of 0 and a negative exponent")
    kind = _common(base, exponent)
    if kind == DECIMAL:
        return decimal(CONTEXT.power(as_decimal(base), as_decimal(exponent)))
    if kind in (INT, LONG) and exponent >= 0 and (exponent < 64 or base in (0, 1, -1)):
        small = int(base) ** (int(exponent) if exponent < 64 else 64 + int(exponent) % 2)
        if fits(small):
            return whole(small, kind)
    return _float_power(as_float(base), as_float(exponent))


def logarithm(value: Value, base: Value) -> Value:
    """The logarithm to a base."""
    if nullish(value) or nullish(base):
        return None
    for given, what, code in ((value, "argument", 28756), (base, "base", 28757)):
        if not number_kind(given):
            raise refused(code, f"$log's {what} must be numeric, not {kind_name(given)}")
    if not as_float(value) > 0:
        raise refused(28758, f"$log's argument must be a positive number, but is {shown(value)}")
    if not as_float(base) > 0 or as_float(base) == 1:
        raise refused(28759, f"$log's base must be a positive number not equal to 1, but is {shown(base)}")
    return math.log(as_float(value)) / math.log(as_float(base))


def numeric(name: str, function: Callable[[Value], Value]) -> Builder:
    """An operator of one number; null of null."""

    def checked(value: Value) -> Value:
        if nullish(value):
            return None
        if not number_kind(value):
            raise refused(28765, f"{name} only supports numeric types, not {kind_name(value)}")
        return function(value)

    return unary(checked)


def _doubles(
    name: str,
    function: Callable[[float], float],
    exact: Callable[[Decimal], Decimal] | None = None,
    condition: Callable[[float], bool] | None = None,
    refusal: tuple[int, str] = (0, ""),
) -> Builder:
    """An operator that computes with doubles, or with decimals if it can."""

    def compute(value: Value) -> Value:
        number = as_float(value)
        if condition is not None and not math.isnan(number) and not condition(number):
            raise refused(refusal[0], f"{refusal[1]}, but is {shown(value)}")
        if number_kind(value) == DECIMAL:
            if exact is not None:
                return decimal(exact(as_decimal(value)))
            return decimal(as_decimal(_guarded(function, number)))
        return _guarded(function, number)

    return numeric(name, compute)


def _guarded(function: Callable[[float], float], number: float) -> float:
    try:
        return function(number)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


def _arc_tangent(left: Value, right: Value) -> Value:
    if nullish(left) or nullish(right):
        return None
    if not _common(left, right):
        raise refused(
            51044, f"$atan2 only supports numeric types, not {kind_name(left)} and {kind_name(right)}"
        )
    return math.atan2(as_float(left), as_float(right))


def _bits(name: str, function: Callable[[int, int], int], start: int) -> Builder:
    def combine(*values: Value) -> Value:
        found, kind = start, INT
        for value in values:
            if nullish(value):
                return None
            if number_kind(value) not in (INT, LONG):
                raise refused(14, f"{name} only supports int and long operands, not {kind_name(value)}")
            kind = max(kind, number_kind(value))
            found = function(found, int(value))
        return whole(found, kind)

    return variadic(combine)


def _bit_not(value: Value) -> Value:
    if nullish(value):
        return None
    if number_kind(value) not in (INT, LONG):
        raise refused(14, f"$bitNot only supports int and long operands, not {kind_name(value)}")
    return whole(~int(value), number_kind(value))


def _random(compiler: Compiler, name: str, operand: Value) -> Expression:
    if operand not in ({}, []):
        raise refused(3040501, "$rand does not accept arguments")
    return lambda _document, _variables: random.random()


def _sample_rate(compiler: Compiler, name: str, operand: Value) -> Expression:
    if not number_kind(operand) or not 0 <= as_float(operand) <= 1:
        raise refused(9, "numeric argument to $sampleRate must be in [0, 1]")
    rate = as_float(operand)
    if rate in (0.0, 1.0):
        return Constant(rate == 1.0)
    return lambda _document, _variables: random.random() < rate


def _common(left: Value, right: Value) -> int:
    """The type of the result, or NONE if one is no number."""
    one, two = number_kind(left), number_kind(right)
    return max(one, two) if one and two else NONE


def _moved(date: datetime, milliseconds: Value) -> datetime:
    number = as_float(milliseconds)
    if not math.isfinite(number):
        raise refused(2, "a date cannot be moved by an infinite number of milliseconds")
    exact = integral(milliseconds)
    # A fraction is rounded half away from zero.
    delta = exact if exact is not None else math.floor(abs(number) + 0.5) * (-1 if number < 0 else 1)
    return date_from_ms(date_to_ms(date) + delta, InvalidFilter)


def _clamped_float(exact: int) -> float:
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def _quotient(left: float, right: float) -> float:
    try:
        return left / right
    except OverflowError:
        return math.copysign(math.inf, left) * math.copysign(1, right)


def _float_remainder(left: float, right: float) -> float:
    return math.nan if math.isinf(left) or math.isnan(left) or math.isnan(right) else math.fmod(left, right)


def _float_power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 == 1 else math.inf
    except ValueError:
        return math.nan


_ROOT: Final = (28714, "$sqrt's argument must be greater than or equal to 0")
_LN: Final = (28766, "$ln's argument must be a positive number")
_LOG10: Final = (28761, "$log10's argument must be a positive number")
_PLAIN: Final[dict[str, Callable[[float], float]]] = {
    "$sin": math.sin,
    "$cos": math.cos,
    "$tan": math.tan,
    "$atan": math.atan,
    "$sinh": math.sinh,
    "$cosh": math.cosh,
    "$tanh": math.tanh,
    "$asinh": math.asinh,
    "$degreesToRadians": math.radians,
    "$radiansToDegrees": math.degrees,
}


def _within(name: str, low: float, high: float) -> tuple[int, str]:
    return (50989, f"cannot apply {name}: the value must be in [{low:g}, {high:g}]")


OPERATORS: Final[Mapping[str, Builder]] = {
    "$abs": numeric("$abs", absolute),
    "$add": variadic(add),
    "$ceil": numeric("$ceil", _ceil),
    "$divide": binary(divide),
    "$exp": _doubles("$exp", math.exp, CONTEXT.exp),
    "$floor": numeric("$floor", _floor),
    "$ln": _doubles("$ln", math.log, CONTEXT.ln, lambda x: x > 0, _LN),
    "$log": binary(logarithm),
    "$log10": _doubles("$log10", math.log10, CONTEXT.log10, lambda x: x > 0, _LOG10),
    "$mod": binary(modulo),
    "$multiply": variadic(multiply),
    "$pow": binary(power),
    "$round": _rounding("$round", ROUND_HALF_EVEN),
    "$sqrt": _doubles("$sqrt", math.sqrt, CONTEXT.sqrt, lambda x: x >= 0, _ROOT),
    "$subtract": binary(subtract),
    "$trunc": _rounding("$trunc", ROUND_DOWN),
    **{name: _doubles(name, function) for name, function in _PLAIN.items()},
    "$acos": _doubles("$acos", math.acos, None, lambda x: -1 <= x <= 1, _within("$acos", -1, 1)),
    "$asin": _doubles("$asin", math.asin, None, lambda x: -1 <= x <= 1, _within("$asin", -1, 1)),
    "$atanh": _doubles("$atanh", math.atanh, None, lambda x: -1 <= x <= 1, _within("$atanh", -1, 1)),
    "$acosh": _doubles("$acosh", math.acosh, None, lambda x: x >= 1, _within("$acosh", 1, math.inf)),
    "$atan2": binary(_arc_tangent),
    "$bitAnd": _bits("$bitAnd", lambda a, b: a & b, -1),
    "$bitOr": _bits("$bitOr", lambda a, b: a | b, 0),
    "$bitXor": _bits("$bitXor", lambda a, b: a ^ b, 0),
    "$bitNot": unary(_bit_not),
    "$rand": _random,
    "$sampleRate": _sample_rate,
}
"""Numbers."""
