"""The byte key of a number: equal for equal numbers of all types, and ordered as they are."""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from typing import Final

from cloudlet.docdb.numeric import DECIMAL_DIGITS_MAX, Number

_INVERT: Final = bytes(range(255, -1, -1))
_DOUBLE: Final = struct.Struct(">d")
_SIGN: Final = 1 << 63
_ALL: Final = (1 << 64) - 1
_NAN: Final = b"\0" * 10
_EXACT: Final = 2**53
"""Up to here every integer is a double."""
_WHOLE: Final = 2**64


def number_key(value: Number) -> bytes:
    """Ten bytes, or more for a decimal that is neither a double nor a 64-bit integer; self-delimiting.

    Every double and every 64-bit integer is a *mark*: a sortable double, then twice what an integer differs
    from it. A decimal between two marks has the key of the lower one plus one, then its own digits.
    """
    if isinstance(value, float):
        return _mark(value, 0) if value == value else _NAN
    if isinstance(value, int):
        if -_WHOLE <= value <= _WHOLE:
            double = float(value)
            return _mark(double, 2 * (value - int(double)))
        return _decimal_key(Decimal(value))  # A filter may hold an integer that no document can hold.
    return _decimal_key(value) if value == value else _NAN


def _decimal_key(value: Decimal) -> bytes:
    double = float(value) if value.adjusted() < 310 else math.copysign(math.inf, value)
    if double == value:
        return _mark(double, 0)
    if _EXACT <= abs(double) <= _WHOLE:
        whole = math.floor(value)
        double = float(whole)
        rest = 2 * (whole - int(double))
        return _mark(double, rest) if whole == value else _mark(double, rest + 1) + _digits(value)
    if double > value:
        double = math.nextafter(double, -math.inf)
    return _mark(double, 1) + _digits(value)


def _mark(double: float, rest: int) -> bytes:
    bits = int.from_bytes(_DOUBLE.pack(double + 0.0), "big")
    bits = bits ^ _ALL if bits & _SIGN else bits | _SIGN
    return bits.to_bytes(8, "big") + (rest + 0x8000).to_bytes(2, "big")


def _digits(value: Decimal) -> bytes:
    """Exponent and digits of a decimal that is not zero, in an order that suits numbers of one sign."""
    sign, digits, _ = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")[:DECIMAL_DIGITS_MAX].ljust(DECIMAL_DIGITS_MAX, "0")
    magnitude = (value.adjusted() + 0x8000).to_bytes(2, "big") + bytes.fromhex(text)
    return magnitude.translate(_INVERT) if sign else magnitude
