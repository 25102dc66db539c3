"""Preferred numbers, to which the ends of ``$bucketAuto``'s buckets can be rounded (ISO 3, IEC 60063)."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from cloudlet.docdb.pipeline.expressions import refused
from cloudlet.docdb.pipeline.expressions.base import kind_name, shown
from cloudlet.docdb.pipeline.expressions.numbers import as_float, number_kind
from cloudlet.docdb.values import Value


class Granularity(Protocol):
    """A series of numbers. Zero is rounded to zero."""

    def check(self, value: Value) -> None:
        """Raises InvalidFilter for what cannot be rounded."""
        ...

    def up(self, value: Value) -> Value:
        """The next number of the series above ``value``."""
        ...

    def down(self, value: Value) -> Value:
        """The next number of the series below ``value``."""
        ...


def _check(value: Value) -> None:
    if not number_kind(value):
        raise refused(
            40258, f"A value of type {kind_name(value)} cannot be rounded; a granularity needs numbers"
        )
    if not math.isfinite(as_float(value)) or as_float(value) < 0:
        raise refused(
            40260, f"A granularity needs finite numbers that are not negative, found: {shown(value)}"
        )


@dataclass(frozen=True, slots=True)
class _Series:
    """Numbers from 1 to 10 that repeat in every decade."""

    steps: tuple[float, ...]

    def check(self, value: Value) -> None:
        _check(value)

    def up(self, value: Value) -> Value:
        number = as_float(value)
        if not number:
            return 0.0
        scale = 10.0 ** math.floor(math.log10(number))
        for factor in (scale / 10, scale, scale * 10):
            at = bisect_right([step * factor for step in self.steps], number)
            if at < len(self.steps):
                return self.steps[at] * factor
        return self.steps[0] * scale * 100

    def down(self, value: Value) -> Value:
        number = as_float(value)
        if not number:
            return 0.0
        scale = 10.0 ** math.floor(math.log10(number))
        for factor in (scale * 10, scale, scale / 10):
            at = bisect_left([step * factor for step in self.steps], number)
            if at:
                return self.steps[at - 1] * factor
        return self.steps[-1] * scale / 100


class _Powers:
    """Powers of two."""

    def check(self, value: Value) -> None:
        _check(value)

    def up(self, value: Value) -> Value:
        number = as_float(value)
        if not number:
            return 0
        return _power(math.floor(math.log2(number)) + 1)

    def down(self, value: Value) -> Value:
        number = as_float(value)
        if not number:
            return 0
        return _power(math.ceil(math.log2(number)) - 1)


def _power(exponent: int) -> Value:
    return 2**exponent if 0 <= exponent < 63 else 2.0**exponent


_R5: Final = (1.0, 1.6, 2.5, 4.0, 6.3)
_R10: Final = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
_R20: Final = (
    *(1.0, 1.12, 1.25, 1.4, 1.6, 1.8, 2.0, 2.24, 2.5, 2.8),
    *(3.15, 3.55, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0, 9.0),
)
_R40: Final = (
    *(
        1.0,
        1.06,
        1.12,
        1.18,
        1.25,
        1.32,
        1.4,
        1.5,
        1.6,
        1.7,
        1.8,
        1.9,
        2.0,
        2.12,
        2.24,
        2.36,
        2.5,
        2.65,
        2.8,
        3.0,
    ),
    *(
        3.15,
        3.35,
        3.55,
        3.75,
        4.0,
        4.25,
        4.5,
        4.75,
        5.0,
        5.3,
        5.6,
        6.0,
        6.3,
        6.7,
        7.1,
        7.5,
        8.0,
        8.5,
        9.0,
        9.5,
    ),
)
_R80: Final = (
    *(
        1.0,
        1.03,
        1.06,
        1.09,
        1.12,
        1.15,
        1.18,
        1.22,
        1.25,
        1.28,
        1.32,
        1.36,
        1.4,
        1.45,
        1.5,
        1.55,
        1.6,
        1.65,
        1.7,
    ),
    *(
        1.75,
        1.8,
        1.85,
        1.9,
        1.95,
        2.0,
        2.06,
        2.12,
        2.18,
        2.24,
        2.3,
        2.36,
        2.43,
        2.5,
        2.58,
        2.65,
        2.72,
        2.8,
        2.9,
    ),
    *(
        3.0,
        3.07,
        3.15,
        3.25,
        3.35,
        3.45,
        3.55,
        3.65,
        3.75,
        3.87,
        4.0,
        4.12,
        4.25,
        4.37,
        4.5,
        4.62,
        4.75,
        4.87,
    ),
    *(
        5.0,
        5.15,
        5.3,
        5.45,
        5.6,
        5.8,
        6.0,
        6.15,
        6.3,
        6.5,
        6.7,
        6.9,
        7.1,
        7.3,
        7.5,
        7.75,
        8.0,
        8.25,
        8.5,
        8.75,
    ),
    *(9.0, 9.25, 9.5, 9.75),
)
_E6: Final = (1.0, 1.5, 2.2, 3.3, 4.7, 6.8)
_E12: Final = (1.0, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 3.9, 4.7, 5.6, 6.8, 8.2)
_E24: Final = (
    *(1.0, 1.1, 1.2, 1.3, 1.5, 1.6, 1.8, 2.0, 2.2, 2.4, 2.7, 3.0),
    *(3.3, 3.6, 3.9, 4.3, 4.7, 5.1, 5.6, 6.2, 6.8, 7.5, 8.2, 9.1),
)


def _electric(count: int) -> tuple[float, ...]:
    """The series with three digits, which follow their formula except for one number."""
    steps = [round(10 ** (at / count), 2) for at in range(count)]
    return tuple(9.2 if count == 192 and step == 9.19 else step for step in steps)


GRANULARITIES: Final[Mapping[str, Granularity]] = {
    "R5": _Series(_R5),
    "R10": _Series(_R10),
    "R20": _Series(_R20),
    "R40": _Series(_R40),
    "R80": _Series(_R80),
    "1-2-5": _Series((1.0, 2.0, 5.0)),
    "E6": _Series(_E6),
    "E12": _Series(_E12),
    "E24": _Series(_E24),
    "E48": _Series(_electric(48)),
    "E96": _Series(_electric(96)),
    "E192": _Series(_electric(192)),
    "POWERSOF2": _Powers(),
}
"""All series by name."""
