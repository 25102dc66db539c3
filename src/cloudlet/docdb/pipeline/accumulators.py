"""Accumulators: what ``$group``, buckets and windows compute from many documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from cloudlet.docdb.numeric import INT32_MAX
from cloudlet.docdb.pipeline.expressions import Compiler, Constant, Expression, refused
from cloudlet.docdb.pipeline.expressions.arrays import count_wanted
from cloudlet.docdb.pipeline.expressions.base import (
    checked_names,
    full_key,
    group_key,
    kind_name,
    nullish,
    shown,
)
from cloudlet.docdb.pipeline.expressions.numbers import Deviation, Total
from cloudlet.docdb.sort import Sort, parse_sort, sort_documents
from cloudlet.docdb.values import MISSING, Document, Value

_SLACK: Final = 1_000


class Accumulator(Protocol):
    """The state of one accumulator of one group."""

    def add(self, value: Value) -> None:
        """One more value of the group, which may be MISSING."""
        ...

    def result(self) -> Value:
        """What has been computed; may be asked more than once."""
        ...


@dataclass(frozen=True, slots=True)
class Accumulation:
    """One accumulator as a stage names it."""

    evaluate: Expression
    """What is added for a document."""
    make: Callable[[], Accumulator]
    grows: bool
    """It keeps what is added."""


def parse_accumulator(compiler: Compiler, field: str, value: Value) -> Accumulation:
    """``{$sum: "$a"}`` and its like. Raises InvalidFilter."""
    if "." in field:
        raise refused(40235, f"The field name '{field[:80]}' cannot contain '.'")
    if field.startswith("$"):
        raise refused(40236, f"The field name '{field[:80]}' cannot be an operator name")
    if type(value) is not dict or not next(iter(value), "").startswith("$"):
        raise refused(40234, f"The field '{field[:80]}' must be an accumulator object")
    if len(value) != 1:
        raise refused(40238, f"The field '{field[:80]}' must specify one accumulator")
    ((name, operand),) = value.items()
    parser = ACCUMULATORS.get(name)
    if parser is None:
        raise refused(15952, f"unknown group operator '{name[:80]}'; known are {', '.join(ACCUMULATORS)}")
    return parser(compiler, name, operand)


class _Sum(Total):
    __slots__ = ()


class _Mean:
    __slots__ = ("_total", "add")

    def __init__(self) -> None:
        self._total = Total()
        self.add = self._total.add

    def result(self) -> Value:
        return self._total.mean()


class _Deviation(Deviation):
    __slots__ = ("_sample",)

    def __init__(self, sample: bool) -> None:
        super().__init__()
        self._sample = sample

    def result(self) -> Value:  # type: ignore[override]
        return super().result(self._sample)


class _Count:
    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def add(self, _value: Value) -> None:
        self._count += 1

    def result(self) -> Value:
        return self._count


class _Extreme:
    __slots__ = ("_key", "_largest", "_value")

    def __init__(self, largest: bool) -> None:
        self._largest = largest
        self._value: Value = None
        self._key: tuple[object, ...] | None = None

    def add(self, value: Value) -> None:
        if nullish(value):
            return
        key = full_key(value)
        if self._key is None or (key > self._key if self._largest else key < self._key):
            self._key, self._value = key, value

    def result(self) -> Value:
        return self._value


class _First:
    __slots__ = ("_seen", "_value")

    def __init__(self) -> None:
        self._seen = False
        self._value: Value = None

    def add(self, value: Value) -> None:
        if not self._seen:
            self._seen, self._value = True, value

    def result(self) -> Value:
        return None if self._value is MISSING else self._value


class _Last:
    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: Value = None

    def add(self, value: Value) -> None:
        self._value = value

    def result(self) -> Value:
        return None if self._value is MISSING else self._value


class _Push:
    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: list[Value] = []

    def add(self, value: Value) -> None:
        if value is not MISSING:
            self._values.append(value)

    def result(self) -> Value:
        return list(self._values)


class _AddToSet:
    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[object, Value] = {}

    def add(self, value: Value) -> None:
        if value is not MISSING:
            self._values.setdefault(group_key(value), value)

    def result(self) -> Value:
        return list(self._values.values())


class _Merge:
    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: Document = {}

    def add(self, value: Value) -> None:
        if nullish(value):
            return
        if type(value) is not dict:
            raise refused(
                40400, f"$mergeObjects requires object inputs, but input is of type {kind_name(value)}"
            )
        self._found.update(value)

    def result(self) -> Value:
        return dict(self._found)


class _Some:
    """The first or last few values."""

    __slots__ = ("_count", "_last", "_values")

    def __init__(self, count: int, last: bool) -> None:
        self._count, self._last = count, last
        self._values: list[Value] = []

    def add(self, value: Value) -> None:
        if self._last:
            self._values.append(value)
            if len(self._values) >= 2 * self._count + _SLACK:
                del self._values[: -self._count]
        elif len(self._values) < self._count:
            self._values.append(value)

    def result(self) -> Value:
        kept = self._values[-self._count :] if self._last else self._values
        return [None if value is MISSING else value for value in kept]


class _Extremes:
    """The few smallest or largest values."""

    __slots__ = ("_count", "_largest", "_values")

    def __init__(self, count: int, largest: bool) -> None:
        self._count, self._largest = count, largest
        self._values: list[Value] = []

    def add(self, value: Value) -> None:
        if nullish(value):
            return
        self._values.append(value)
        if len(self._values) >= 2 * self._count + _SLACK:
            self._values = self.result()

    def result(self) -> list[Value]:
        return sorted(self._values, key=full_key, reverse=self._largest)[: self._count]


class _Top:
    """The output of the documents that come first (or last) in an order."""

    __slots__ = ("_bottom", "_count", "_pairs", "_single", "_sort")

    def __init__(self, sort: Sort, count: int, bottom: bool, single: bool) -> None:
        self._sort, self._count, self._bottom, self._single = sort, count, bottom, single
        self._pairs: list[tuple[Document, Value]] = []

    def add(self, value: Value) -> None:
        self._pairs.append(value)
        if len(self._pairs) >= 2 * self._count + _SLACK:
            self._keep()

    def _keep(self) -> None:
        sort_documents(self._pairs, self._sort, lambda pair: pair[0])
        self._pairs = self._pairs[-self._count :] if self._bottom else self._pairs[: self._count]

    def result(self) -> Value:
        self._keep()
        found = [None if output is MISSING else output for _, output in self._pairs]
        return found[0] if self._single else found


AccumulatorParser = Callable[[Compiler, str, Value], Accumulation]


def _plain(make: Callable[[], Accumulator], grows: bool = False) -> AccumulatorParser:
    def parse(compiler: Compiler, name: str, operand: Value) -> Accumulation:
        if type(operand) is list:
            if len(operand) != 1:
                raise refused(40237, f"The {name} accumulator is a unary operator")
            operand = operand[0]
        return Accumulation(compiler.compile(operand), make, grows)

    return parse


def _counting(_compiler: Compiler, _name: str, operand: Value) -> Accumulation:
    if operand != {}:
        raise refused(2, "$count takes no arguments, i.e. $count:{}")
    return Accumulation(Constant(None), _Count, False)


def _several(make: Callable[[int], Accumulator]) -> AccumulatorParser:
    def parse(compiler: Compiler, name: str, operand: Value) -> Accumulation:
        given = checked_names(name, operand, ("input", "n"))
        count = _fixed_count(compiler, name, given["n"])
        return Accumulation(compiler.compile(given["input"]), partial(make, count), True)

    return parse


def _topping(bottom: bool, single: bool) -> AccumulatorParser:
    def parse(compiler: Compiler, name: str, operand: Value) -> Accumulation:
        needed = ("output", "sortBy") if single else ("output", "sortBy", "n")
        given = checked_names(name, operand, needed)
        sort = parse_sort(given["sortBy"])
        if not sort:
            raise refused(10, f"{name} needs a sortBy with at least one field")
        compiler.facts.fields.update(item.segments[0][0] for item in sort)
        count = 1 if single else _fixed_count(compiler, name, given["n"])
        output = compiler.compile(given["output"])
        return Accumulation(
            lambda document, variables: (document, output(document, variables)),
            partial(_Top, sort, count, bottom, single),
            True,
        )

    return parse


def _fixed_count(compiler: Compiler, name: str, operand: Value) -> int:
    found = compiler.compile(operand)
    if not isinstance(found, Constant):
        raise refused(5787902, f"'n' of {name} must be a constant, found: {shown(operand)}")
    count = count_wanted(name, found.value)
    return min(count, INT32_MAX)


ACCUMULATORS: Final[Mapping[str, AccumulatorParser]] = {
    "$addToSet": _plain(_AddToSet, grows=True),
    "$avg": _plain(_Mean),
    "$bottom": _topping(bottom=True, single=True),
    "$bottomN": _topping(bottom=True, single=False),
    "$count": _counting,
    "$first": _plain(_First),
    "$firstN": _several(partial(_Some, last=False)),
    "$last": _plain(_Last),
    "$lastN": _several(partial(_Some, last=True)),
    "$max": _plain(partial(_Extreme, True)),
    "$maxN": _several(partial(_Extremes, largest=True)),
    "$mergeObjects": _plain(_Merge, grows=True),
    "$min": _plain(partial(_Extreme, False)),
    "$minN": _several(partial(_Extremes, largest=False)),
    "$push": _plain(_Push, grows=True),
    "$stdDevPop": _plain(partial(_Deviation, False)),
    "$stdDevSamp": _plain(partial(_Deviation, True)),
    "$sum": _plain(_Sum),
    "$top": _topping(bottom=False, single=True),
    "$topN": _topping(bottom=False, single=False),
}
"""All accumulators by name."""
