"""Numbers of several types: which type a result has, and what happens when it does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal, localcontext

from cloudlet.docdb.numeric import (
    CONTEXT,
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    Decimal128,
    Long,
    to_decimal,
)
from cloudlet.docdb.numeric import rounded as _rounded
from cloudlet.docdb.pipeline.expressions.base import kind_name, refused, shown
from cloudlet.docdb.values import Value

NONE, INT, LONG, DOUBLE, DECIMAL = range(5)
"""Types of numbers; of two operands the higher one decides about the result."""


def number_kind(value: Value) -> int:
    """NONE for what is no number."""
    kind = type(value)
    if kind is int:
        return INT if INT32_MIN <= value <= INT32_MAX else LONG
    if kind is float:
        return DOUBLE
    if kind is Long:
        return LONG
    return DECIMAL if kind is Decimal128 else NONE


def whole(value: int, kind: int) -> Value:
    """An integer as a value of the type INT (or LONG if it is too large) or LONG."""
    return Long(value) if kind == LONG and INT32_MIN <= value <= INT32_MAX else int(value)


def fits(value: int) -> bool:
    """Whether an integer has 64 bits."""
    return INT64_MIN <= value <= INT64_MAX


def as_float(value: Value) -> float:
    """Any number as a double."""
    return float(value)


def as_decimal(value: Value) -> Decimal:
    """Any number as a decimal of at most 34 digits; a double keeps its first 15."""
    return Decimal(to_decimal(value))


def decimal(value: Decimal) -> Value:
    """A decimal as a value, rounded to 34 digits."""
    return _rounded(value)


def integral(value: Value) -> int | None:
    """The integer a number is equal to, or None."""
    kind = number_kind(value)
    if kind in (INT, LONG):
        return int(value)
    if kind == DOUBLE:
        return int(value) if math.isfinite(value) and value == math.floor(value) else None
    if kind == DECIMAL:
        number = as_decimal(value)
        return int(number) if number.is_finite() and number == number.to_integral_value() else None
    return None


def whole_number(value: Value, code: int, what: str) -> int:
    """A number that must be an integer of 32 bits. Raises InvalidFilter."""
    found = integral(value)
    if found is None:
        raise refused(
            code, f"{what} must be a number without a fraction, found: {kind_name(value)} {shown(value)}"
        )
    if not INT32_MIN <= found <= INT32_MAX:
        raise refused(code, f"{what} must fit into 32 bits, found: {shown(value)}")
    return found


class Total:
    """The sum of numbers: integers exactly, doubles with compensation. Nothing but numbers counts."""

    __slots__ = ("_compensation", "_decimal", "_double", "_integer", "count", "kind")

    def __init__(self) -> None:
        self._integer = 0
        self._double = self._compensation = 0.0
        self._decimal = Decimal(0)
        self.kind = INT
        self.count = 0

    def add(self, value: Value) -> None:
        """One more value."""
        kind = type(value)
        if kind is int:
            self._integer += value
            self.count += 1
            if self.kind == INT and not INT32_MIN <= value <= INT32_MAX:
                self.kind = LONG
        elif kind is float:
            self.count += 1
            if self.kind < DOUBLE:
                self.kind = DOUBLE
            before = self._double
            self._double = total = before + value
            # What rounding lost; it means nothing (and is not used) once the total is not finite.
            if abs(before) >= abs(value):
                self._compensation += before - total + value
            else:
                self._compensation += value - total + before
        elif kind is Long:
            self._integer += int(value)
            self.count += 1
            self.kind = max(self.kind, LONG)
        elif kind is Decimal128:
            self._decimal = CONTEXT.add(self._decimal, as_decimal(value))
            self.count += 1
            self.kind = DECIMAL

    def result(self) -> Value:
        """The sum; 0 of nothing. Integers beyond 64 bits become a double."""
        if self.kind == DECIMAL:
            return decimal(
                CONTEXT.add(
                    self._decimal, CONTEXT.add(Decimal(self._integer), as_decimal(self._double_part()))
                )
            )
        if self.kind == DOUBLE or not fits(self._integer):
            return self.double()
        return whole(self._integer, self.kind)

    def mean(self) -> Value:
        """The average, a double or a decimal; null of nothing."""
        if not self.count:
            return None
        if self.kind == DECIMAL:
            return decimal(CONTEXT.divide(as_decimal(self.result()), Decimal(self.count)))
        return self.double() / self.count

    def double(self) -> float:
        """The sum as a double."""
        exact = self._double_part()
        if not self._integer or not math.isfinite(exact):
            return exact
        return math.fsum((float(self._integer), exact)) if abs(self._integer) < 2**1000 else math.inf

    def _double_part(self) -> float:
        return math.fsum((self._double, self._compensation)) if math.isfinite(self._double) else self._double


class Deviation:
    """The standard deviation of numbers, in one pass. Nothing but numbers counts."""

    __slots__ = ("_count", "_mean", "_squares")

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = 0.0

    def add(self, value: Value) -> None:
        """One more value."""
        if not number_kind(value):
            return
        number = as_float(value)
        self._count += 1
        delta = number - self._mean
        self._mean += delta / self._count
        self._squares += delta * (number - self._mean)

    def result(self, sample: bool) -> float | None:
        """Of the population, or of a sample; null of too few numbers and of infinite ones."""
        divisor = self._count - 1 if sample else self._count
        if divisor <= 0 or not math.isfinite(self._squares):
            return None
        return math.sqrt(self._squares / divisor)


def total(values: Iterable[Value]) -> Total:
    """The sum of the numbers among values."""
    made = Total()
    for value in values:
        made.add(value)
    return made


def rounded(value: Decimal, places: int, rounding: str) -> Decimal:
    """A decimal with so many digits after the point (before it if negative)."""
    with localcontext(CONTEXT) as context:
        context.prec = 1_000
        context.Emin, context.Emax, context.clamp = -10_000, 10_000, 0
        return value.quantize(Decimal(1).scaleb(-places), rounding=rounding)
