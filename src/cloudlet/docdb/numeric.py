"""The four kinds of numbers: int, long, double and Decimal128; their ranges, their order and their sums.

``int`` inside 32 bits is MongoDB's int, outside it is MongoDB's long. ``Long`` is a long that 32 bits would
hold, kept apart only because somebody said so; ``float`` is a double. Numbers of all kinds compare, equal and
hash by value, exactly: ``1 == 1.0 == Long(1) == Decimal128("1.00")``.
"""

from __future__ import annotations

import decimal
import math
import re
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

from cloudlet.model.errors import InvalidDocument, InvalidRequest

INT32_MIN: Final = -(2**31)
INT32_MAX: Final = 2**31 - 1
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

DECIMAL_DIGITS_MAX: Final = 34
_DECIMAL_TEXT_MAX: Final = 400
_FAR: Final = 2**64
_TRAPS: Final[list[type[decimal.DecimalException]]] = []
CONTEXT: Final = decimal.Context(
    prec=DECIMAL_DIGITS_MAX,
    rounding=decimal.ROUND_HALF_EVEN,
    Emin=-6143,
    Emax=6144,
    clamp=1,
    traps=_TRAPS,
)
"""The arithmetic of Decimal128: no exceptions, what is too large becomes infinite. Copy it to read flags."""

_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?")
_SPECIAL: Final = re.compile(r"([+-]?)(inf|infinity|nan)", re.IGNORECASE)


class Long(int):
    """A long inside the range of int. Make it with ``long_number``; arithmetic on it gives a plain int."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Long({int(self)})"


class Decimal128(Decimal):
    """A decimal number of 34 digits with an exponent, ±infinity or not-a-number.

    ``Decimal128("1.50")`` keeps its zeros, yet equals ``1.5``. Raises InvalidDocument for text that is not a
    number, has more than 34 digits or too large an exponent.
    """

    __slots__ = ()

    def __new__(cls, value: str | int | Decimal = "0") -> Decimal128:
        return super().__new__(cls, _checked(value, InvalidDocument))

    def __repr__(self) -> str:
        return f"Decimal128({str(self)!r})"

    # Decimal raises for an ordering with not-a-number; every comparison with it is false here, as with float.

    def __lt__(self, other: Any) -> bool:
        return self == self and other == other and Decimal.__lt__(self, other)

    def __le__(self, other: Any) -> bool:
        return self == self and other == other and Decimal.__le__(self, other)

    def __gt__(self, other: Any) -> bool:
        return self == self and other == other and Decimal.__gt__(self, other)

    def __ge__(self, other: Any) -> bool:
        return self == self and other == other and Decimal.__ge__(self, other)

    __eq__ = Decimal.__eq__
    __hash__ = Decimal.__hash__


Number: TypeAlias = int | float | Decimal128
Kind: TypeAlias = Literal["int", "long", "double", "decimal"]

NUMBERS: Final[frozenset[type]] = frozenset({int, float, Long, Decimal128})
"""The types of all numbers. ``bool`` is none of them."""


def is_number(value: object) -> bool:
    """Whether the value is a number of any kind (not a boolean)."""
    return type(value) in NUMBERS


def is_whole(value: object) -> bool:
    """Whether the value is of type int or long, whatever its size."""
    return type(value) is int or type(value) is Long


def is_nan(value: object) -> bool:
    """Whether the value is the double or the decimal not-a-number."""
    return value != value and type(value) in NUMBERS


def number_kind(value: Number) -> Kind:
    """MongoDB's name of a number's type."""
    kind = type(value)
    if kind is int:
        return "int" if INT32_MIN <= value <= INT32_MAX else "long"
    return "double" if kind is float else "long" if kind is Long else "decimal"


def long_number(value: int) -> int:
    """``value`` as a long: a Long where it would otherwise be an int."""
    return Long(value) if INT32_MIN <= value <= INT32_MAX else int(value)


def parse_decimal(text: str, error: type[InvalidRequest] = InvalidDocument) -> Decimal128:
    """The Decimal128 of a text. Raises ``error``; nothing is rounded silently."""
    return _made(_checked(text, error))


def to_decimal(value: Number) -> Decimal128:
    """A number as Decimal128. A double keeps 15 digits, as in MongoDB; an int beyond 34 digits is rounded."""
    if type(value) is Decimal128:
        return value
    if isinstance(value, float):
        if not math.isfinite(value) or not value:
            return _made(Decimal(repr(value)) if value else Decimal(0))
        return _made(Decimal(f"{value:.14e}"))
    return rounded(Decimal(value))


def rounded(value: Decimal) -> Decimal128:
    """Any decimal as Decimal128: rounded to 34 digits, infinite if it is too large."""
    result = CONTEXT.plus(value) if value == value else Decimal("NaN")
    return _made(result if value or value != value else CONTEXT.create_decimal(value))


def add(a: Number, b: Number) -> Number:
    """The sum, in the wider of the two types. An integer may come out beyond 64 bits: see ``fits_long``."""
    if isinstance(a, Decimal128) or isinstance(b, Decimal128):
        return rounded(CONTEXT.add(to_decimal(a), to_decimal(b)))
    return _widened(a, b, a + b)


def subtract(a: Number, b: Number) -> Number:
    """The difference, typed like ``add``."""
    if isinstance(a, Decimal128) or isinstance(b, Decimal128):
        return rounded(CONTEXT.subtract(to_decimal(a), to_decimal(b)))
    return _widened(a, b, a - b)


def multiply(a: Number, b: Number) -> Number:
    """The product, typed like ``add``."""
    if isinstance(a, Decimal128) or isinstance(b, Decimal128):
        return rounded(CONTEXT.multiply(to_decimal(a), to_decimal(b)))
    return _widened(a, b, a * b)


def fits_long(value: Number) -> bool:
    """Whether an integer result fits into 64 bits (always true for other numbers)."""
    return not isinstance(value, int) or INT64_MIN <= value <= INT64_MAX


def whole_64(value: object) -> int | None:
    """The 64-bit integer a number is exactly, or None (fractions, not finite, too large, no number)."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal128):
        return None
    if not isinstance(value, int) and (not -_FAR < value < _FAR or value != int(value)):
        return None
    whole = int(value)
    return whole if INT64_MIN <= whole <= INT64_MAX else None


def truncated_64(value: object) -> int | None:
    """A number cut to a 64-bit integer towards zero, or None (not finite, too large, no number)."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal128):
        return None
    if not isinstance(value, int) and not -_FAR < value < _FAR:
        return None
    whole = int(value)
    return whole if INT64_MIN <= whole <= INT64_MAX else None


def _widened(a: Number, b: Number, result: int | float) -> Number:
    if isinstance(result, int) and (type(a) is Long or type(b) is Long or _is_wide(a) or _is_wide(b)):
        return long_number(result)
    return result


def _is_wide(value: Number) -> bool:
    return type(value) is int and not INT32_MIN <= value <= INT32_MAX


def _made(value: Decimal) -> Decimal128:
    """The Decimal128 of what is known to be inside its range."""
    return Decimal.__new__(Decimal128, value)


def _checked(value: str | int | Decimal, error: type[InvalidRequest]) -> Decimal:
    if isinstance(value, str):
        if len(value) <= _DECIMAL_TEXT_MAX and _SPECIAL.fullmatch(value):
            special = Decimal(value)
            return Decimal("NaN") if special.is_nan() else special
        if len(value) > _DECIMAL_TEXT_MAX or not _NUMBER.fullmatch(value) or not value.isascii():
            raise error(f"{value[:60]!r} is not a decimal number")
    context = CONTEXT.copy()
    context.clear_flags()
    exact = Decimal(value)
    if exact.is_nan():
        return Decimal("NaN")
    made = context.create_decimal(exact)
    if context.flags[decimal.Overflow]:
        raise error(f"the exponent of the decimal number {str(value)[:60]!r} is too large")
    if context.flags[decimal.Inexact]:
        raise error(f"the decimal number {str(value)[:60]!r} needs more than {DECIMAL_DIGITS_MAX} digits")
    return made
